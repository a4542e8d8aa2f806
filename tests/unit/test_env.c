/* ${NAME}, NAME_FILE, defaults, and that no error shows a value. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/base/env.h"

static char folder[] = "/tmp/test_env.XXXXXX";

static const char *file_with(const char *name, const void *data, size_t size)
{
    static char path[256];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)setenv("T_HOST", "tools.example", 1);
    (void)setenv("T_EMPTY", "", 1);
    (void)setenv("T_BOTH", "from the environment", 1);
    (void)setenv("T_BOTH_FILE", "/nonexistent", 1);
    (void)setenv("T_SECRET_FILE", file_with("secret", "s3cret\n", 7), 1);
    (void)setenv("T_CRLF_FILE", file_with("crlf", "a\nb\r\n", 5), 1);
    (void)setenv("T_NUL_FILE", file_with("nul", "a\0b", 3), 1);
    (void)setenv("T_GONE_FILE", "/nonexistent/file", 1);
    (void)setenv("T_FOLDER_FILE", folder, 1);
    (void)unsetenv("T_MISSING");
    (void)unsetenv("T_MISSING_FILE");
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"secret", "crlf", "nul", "large", "fifo"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];

        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    return rmdir(folder);
}

static void test_expands(void **state)
{
    static const struct {
        const char *text, *expanded;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"$T_HOST {x} $", "$T_HOST {x} $"},
        {"${T_HOST}", "tools.example"},
        {"https://${T_HOST}/a/${T_HOST}?x={arg}", "https://tools.example/a/tools.example?x={arg}"},
        {"[${T_EMPTY}]", "[]"},
        {"[${T_EMPTY:-d}]", "[d]"},
        {"[${T_MISSING:-}]", "[]"},
        {"[${T_MISSING:-a:-b c}]", "[a:-b c]"},
        {"Bearer ${T_SECRET}", "Bearer s3cret"},
        {"${T_SECRET:-default}", "s3cret"},
        {"${T_CRLF}", "a\nb"},
        {"${T_BOTH}", "from the environment"},
        {"$${T_HOST}", "$tools.example"},
        {"}${T_HOST}}", "}tools.example}"},
    };
    struct arena *arena = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error error = {0};
        struct str expanded = STR_NONE;

        if (!env_expand(arena, str_of(cases[i].text), &expanded, &error))
            fail_msg("%s: %s", cases[i].text, error.text);
        assert_string_equal(expanded.data, cases[i].expanded);
        assert_int_equal(expanded.size, strlen(cases[i].expanded));
    }
    arena_free(arena);
}

static void test_refuses(void **state)
{
    static const struct {
        const char *text, *names; /* what the error must name */
    } cases[] = {
        {"${T_MISSING}", "T_MISSING"},
        {"${T_GONE}", "T_GONE_FILE"},
        {"${T_FOLDER}", "T_FOLDER_FILE"},
        {"${T_NUL}", "T_NUL_FILE"},
        {"${}", "${NAME}"},
        {"${1A}", "${NAME}"},
        {"${A B}", "${NAME}"},
        {"${A-b}", "${NAME}"},
        {"${A:b}", "${NAME}"},
        {"${T_HOST", "}"},
        {"x ${", "}"},
    };
    struct arena *arena = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error error = {0};
        struct str expanded;

        assert_false(env_expand(arena, str_of(cases[i].text), &expanded, &error));
        assert_int_equal(error.class, ERROR_FATAL);
        if (strstr(error.text, cases[i].names) == NULL)
            fail_msg("%s: \"%s\" does not name %s", cases[i].text, error.text, cases[i].names);
    }
    arena_free(arena);
}

static void test_is_bounded(void **state)
{
    struct arena *arena = arena_new();
    size_t size = (size_t)70 << 10;
    char *large = malloc(size + 1);
    struct str expanded;
    struct error error = {0};

    (void)state;
    assert_non_null(large);
    memset(large, 'x', size);
    large[size] = '\0';
    (void)setenv("T_LARGE", large, 1);
    assert_false(env_expand(arena, STR("${T_LARGE}"), &expanded, &error));
    assert_non_null(strstr(error.text, "T_LARGE"));
    assert_null(strstr(error.text, "xxx"));
    large[60 << 10] = '\0';
    (void)setenv("T_LARGE", large, 1);
    assert_true(env_expand(arena, STR("${T_LARGE}"), &expanded, &error));
    assert_false(env_expand(arena, STR("${T_LARGE}${T_LARGE}${T_LARGE}${T_LARGE}${T_LARGE}"), &expanded, &error));
    (void)setenv("T_LARGE_FILE", file_with("large", large, 60 << 10), 1);
    (void)unsetenv("T_LARGE");
    assert_true(env_expand(arena, STR("${T_LARGE}"), &expanded, &error));
    assert_int_equal(expanded.size, 60 << 10);
    memset(large, 'x', size);
    (void)setenv("T_LARGE_FILE", file_with("large", large, size), 1);
    assert_false(env_expand(arena, STR("${T_LARGE}"), &expanded, &error));
    free(large);
    arena_free(arena);
}

static void test_does_not_wait_for_a_fifo(void **state)
{
    struct arena *arena = arena_new();
    struct str expanded;
    struct error error = {0};
    char path[256];

    (void)state;
    (void)snprintf(path, sizeof path, "%s/fifo", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    (void)setenv("T_FIFO_FILE", path, 1);
    assert_false(env_expand(arena, STR("${T_FIFO}"), &expanded, &error));
    assert_non_null(strstr(error.text, "T_FIFO_FILE"));
    arena_free(arena);
}

static void test_absent_stays_absent(void **state)
{
    struct arena *arena = arena_new();
    struct str expanded = STR("x");

    (void)state;
    assert_true(env_expand(arena, STR_NONE, &expanded, NULL));
    assert_null(expanded.data);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expands),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_is_bounded),
        cmocka_unit_test(test_does_not_wait_for_a_fifo),
        cmocka_unit_test(test_absent_stays_absent),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
