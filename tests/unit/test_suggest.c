/* Which name is offered for a wrong one, and when none is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "worker/contract/suggest.h"

static const struct str names[] = {
    {"minLength", 9},
    {"maxLength", 9},
    {"min", 3},
    {"required", 8},
    {"description", 11},
    {NULL, 0},
    {"sort_by", 7},
    {"a", 1},
    {"deadline_of_the_whole_run", 25},
};

static const char *nearest(struct arena *arena, const char *wrong)
{
    struct str name = suggest(arena, str_of(wrong), names, sizeof names / sizeof names[0]);

    return name.data != NULL ? name.data : "";
}

static void a_typing_error_finds_its_name(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    assert_string_equal(nearest(arena, "requird"), "required");
    assert_string_equal(nearest(arena, "requierd"), "required"); /* two letters changed places */
    assert_string_equal(nearest(arena, "rrequired"), "required");
    assert_string_equal(nearest(arena, "sort-by"), "sort_by");
    assert_string_equal(nearest(arena, "MINLENGTH"), "minLength");
    assert_string_equal(nearest(arena, "min_length"), "minLength");
    assert_string_equal(nearest(arena, "mim"), "min");
    arena_free(arena);
}

static void the_beginning_of_a_name_finds_it(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    assert_string_equal(nearest(arena, "desc"), "description");
    assert_string_equal(nearest(arena, "maxLen"), "maxLength");
    assert_string_equal(nearest(arena, "de"), ""); /* two letters say too little */
    arena_free(arena);
}

static void what_is_not_near_is_not_offered(void **state)
{
    struct arena *arena = arena_new();
    char huge[5000];

    (void)state;
    memset(huge, 'm', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_string_equal(nearest(arena, "items"), "");
    assert_string_equal(nearest(arena, "b"), ""); /* every letter of "a" is wrong */
    assert_string_equal(nearest(arena, ""), "");
    assert_string_equal(nearest(arena, huge), "");
    assert_null(suggest(arena, STR_NONE, names, 3).data);
    assert_null(suggest(arena, STR("min"), names, 0).data);
    arena_free(arena);
}

static void the_first_of_two_as_near_is_taken(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    assert_string_equal(nearest(arena, "mixLength"), "minLength");
    arena_free(arena);
}

static void the_clause_reads_on(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    assert_string_equal(suggest_clause(arena, STR("requird"), names, 5).data, ", did you mean \"required\"?");
    assert_string_equal(suggest_clause(arena, STR("items"), names, 5).data, "");
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_typing_error_finds_its_name),
        cmocka_unit_test(the_beginning_of_a_name_finds_it),
        cmocka_unit_test(what_is_not_near_is_not_offered),
        cmocka_unit_test(the_first_of_two_as_near_is_taken),
        cmocka_unit_test(the_clause_reads_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
