/*
 * What a contract looks like from outside: its canonical form, its hash, and the table of `contract show`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "tests/unit/contracts.h"

static struct str hash_of(struct arena *arena, const char *text)
{
    struct draft draft = contracts_draft(text, strlen(text));
    struct contract *contract = contracts_read(draft.path);
    struct str hash = arena_copy(arena, contract->hash, HASH_HEX_SIZE);
    contract_free(contract);
    unlink(draft.path);
    return hash;
}

/* ---- canonical form and hash ---- */

#define OTHER_ORDER "steps = { b = { next = \"a\"; model = \"m\"; }; a = { model = \"m\"; next = \"end\"; }; }; "
#define OTHER_START "steps = { a = { model = \"m\"; next = \"b\"; }; b = { model = \"m\"; next = \"end\"; }; }; "

static void test_what_does_not_change_the_hash(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct str hash = hash_of(arena, SMALL);
    static const char *const same[] = {
        "# a comment\n" SMALL,
        "contract:\n{\n\tname = \"sm\" \"all\",\n\tgoal = \"Say it.\" // why\n" SMALL_STEPS "}\n",
        "contract = { " SMALL_STEPS "start = \"b\"; goal = \"Say it.\"; name = \"small\"; };",
        "contract = { name = \"small\"; goal = \"Say it.\"; " OTHER_ORDER "};",
    };
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        assert_string_equal(hash_of(arena, same[i]).data, hash.data);
    arena_free(arena);
}

static void test_what_changes_the_hash(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct str hash = hash_of(arena, SMALL);
    static const char *const other[] = {
        "contract = { name = \"small\"; goal = \"Say it!\"; " SMALL_STEPS "};",
        "contract = { name = \"small\"; goal = \"Say it.\"; limits = { steps = 9; }; " SMALL_STEPS "};",
        /* the first step is where a run starts */
        "contract = { name = \"small\"; goal = \"Say it.\"; " OTHER_START "};",
    };
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
        assert_string_not_equal(hash_of(arena, other[i]).data, hash.data);
    arena_free(arena);
}

static void test_the_hash_is_of_the_canonical_form(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct draft draft = contracts_draft(SMALL, strlen(SMALL));
    struct contract *c = contracts_read(draft.path);
    contracts_assert_str(c->canonical,
                         "{\"goal\":\"Say it.\",\"name\":\"small\",\"start\":\"b\",\"steps\":{\"a\":{\"model\":\"m\","
                         "\"next\":\"end\"},\"b\":{\"model\":\"m\",\"next\":\"a\"}}}");
    /* as `sha256sum` gives it */
    assert_string_equal(c->hash, hash_sha256(arena, c->canonical).data);
    assert_int_equal(strlen(c->hash), HASH_HEX_SIZE);
    unlink(draft.path);
    contract_free(c);
    arena_free(arena);
}

static void test_there_and_back(void **state)
{
    (void)state;
    static const char *const paths[] = {FIRST, EVERY_KEY, "tests/contracts/good/smallest.cfg",
                                        "tests/contracts/good/schema_file.cfg",
                                        "tests/contracts/good/loop_guarded_twice.cfg"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct arena *arena = arena_new();
        struct contract *read = contracts_read(paths[i]);
        struct contract *loaded = contracts_load(read->canonical);
        assert_string_equal(loaded->hash, read->hash);
        assert_string_equal(loaded->canonical.data, read->canonical.data);
        assert_string_equal(contracts_table(arena, loaded).data, contracts_table(arena, read).data);
        assert_int_equal(loaded->start, read->start);
        assert_int_equal(loaded->steps_count, read->steps_count);
        for (size_t k = 0; k < read->steps_count; k++) {
            assert_string_equal(loaded->steps[k].name.data, read->steps[k].name.data);
            assert_memory_equal(loaded->steps[k].edges, read->steps[k].edges, sizeof(read->steps[k].edges));
        }
        contract_free(loaded);
        contract_free(read);
        arena_free(arena);
    }
}

static void test_any_layout_of_the_json_has_one_hash(void **state)
{
    (void)state;
    struct contract *tight = contracts_load(
        STR("{\"goal\":\"g\",\"name\":\"n\",\"start\":\"a\",\"steps\":{\"a\":{\"model\":\"m\",\"next\":\"end\"}}}"));
    struct contract *loose = contracts_load(
        STR(" {\"name\": \"n\", \"steps\": {\"a\": {\"next\": \"end\", \"model\": \"m\"}}, \"goal\": \"g\"}\n"));
    assert_string_equal(tight->hash, loose->hash);
    assert_string_equal(tight->canonical.data, loose->canonical.data);
    contract_free(tight);
    contract_free(loose);
}

/* ---- the table of `contract show` ---- */

static void test_the_table_of_the_first_contract(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct contract *c = contracts_read(FIRST);
    assert_string_equal(contracts_table(arena, c).data,
                        "research | agent | model | read | - | - | reused\n"
                        "draft | tool | model | read | - | - | reused\n"
                        "approve_final_email | approval | person | - | - | required | -\n"
                        "send | tool | rule | call | YES | approve_final_email | probed\n");
    contract_free(c);
    arena_free(arena);
}

static void test_the_table_of_every_kind(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct contract *c = contracts_read(EVERY_KEY);
    assert_string_equal(contracts_table(arena, c).data, "sort | agent | model | read | - | - | reused\n"
                                                        "route | router | rule | - | - | - | -\n"
                                                        "answer | model | model | read | - | - | reused\n"
                                                        "polish | tool | model | read | - | - | reused\n"
                                                        "ask | approval | person | - | - | required | -\n"
                                                        "book | tool | rule | call | YES | ask | probed\n"
                                                        "glance | approval | person | - | - | optional | -\n");
    contract_free(c);
    arena_free(arena);
}

static void test_an_agent_with_writes_in_the_table(void **state)
{
    (void)state;
#define WRITE(name, doubt)                                                                                             \
    name " = { url = \"http://t/" name "\"; effect = \"write\"; on_doubt = \"" doubt "\"; description = \"d\"; "       \
         "parameters = { type = \"object\"; }; }; "
    struct arena *arena = arena_new();
    static const struct {
        const char *tools, *row;
    } cases[] = {
        {"[\"keyed\"]", "go | agent | model | call | YES | - | same key\n"},
        {"[\"keyed\", \"asked\"]", "go | agent | model | call | YES | - | asks\n"},
        {"[\"asked\", \"keyed\"]", "go | agent | model | call | YES | - | asks\n"},
        {"[\"fails\"]", "go | agent | model | call | YES | - | fails\n"},
        {"[]", "go | agent | model | read | - | - | reused\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str text = arena_printf(
            arena,
            "contract = { name = \"n\"; goal = \"g\"; tools = { " WRITE("keyed", "retry") WRITE("asked", "ask")
                WRITE("fails", "fail") "}; agents = { a = { model = \"m\"; "
                                       "tools = %s; }; }; steps = { go = { agent = \"a\"; next = \"end\"; }; }; };",
            cases[i].tools);
        struct draft draft = contracts_draft(text.data, text.size);
        struct contract *c = contracts_read(draft.path);
        assert_string_equal(contracts_table(arena, c).data, cases[i].row);
        contract_free(c);
        unlink(draft.path);
    }
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_does_not_change_the_hash),
        cmocka_unit_test(test_what_changes_the_hash),
        cmocka_unit_test(test_the_hash_is_of_the_canonical_form),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_any_layout_of_the_json_has_one_hash),
        cmocka_unit_test(test_the_table_of_the_first_contract),
        cmocka_unit_test(test_the_table_of_every_kind),
        cmocka_unit_test(test_an_agent_with_writes_in_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, contracts_free_expressions);
}
