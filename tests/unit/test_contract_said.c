/*
 * What is said of contracts: beside the files of tests/contracts/bad, what does not fit into such a file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/contracts.h"
#include "worker/base/json.h"
#include "worker/contract/scan.h"

/* Reads a text as a contract; the first problem, or "" when it is good. In the arena. */
static struct str first_problem(struct arena *arena, const char *text, size_t size)
{
    struct draft draft = contracts_draft(text, size);
    struct problems problems;
    problems_init(&problems);
    struct contract *contract = contract_read_file(draft.path, &problems);
    assert_int_equal(contract == NULL, problems.errors > 0);
    struct str found = problems.count > 0
                           ? arena_printf(arena, "%d: %.*s", (int)problems.list[0].line, STR_ARG(problems.list[0].text))
                           : STR("");
    contract_free(contract);
    problems_free(&problems);
    unlink(draft.path);
    return found;
}

/* ---- what is said ---- */

static void test_problems_without_lines_name_the_place(void **state)
{
    (void)state;
    struct problems problems;
    problems_init(&problems);
    struct contract *c = contract_load(STR("{\"goal\":\"g\",\"name\":\"forced\",\"start\":\"a\",\"input\":\"@in.json\","
                                           "\"steps\":{\"a\":{\"model\":\"m\",\"next\":\"b\"}}}"),
                                       &problems);
    assert_null(c);
    assert_int_equal(problems.errors, 2);
    for (size_t i = 0; i < problems.count; i++) {
        contracts_assert_str(problems.list[i].file, "contract forced");
        assert_int_equal(problems.list[i].line, 0);
    }
    assert_memory_equal(problems.list[0].text.data, "input: \"@file\" is inlined", 25);
    assert_memory_equal(problems.list[1].text.data, "steps.a.next: no such step \"b\"", 29);
    problems_free(&problems);
}

/* The approval taken out of a published contract: what the worker sees when somebody writes to the topic by hand. */
static void test_a_forced_contract_that_skips_the_approval(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct contract *c = contracts_read(FIRST);
    json_t *forced = json_deep_copy(c->source);
    json_t *research = json_object_get(json_object_get(forced, "steps"), "research");
    json_object_set_new(research, "failed", json_string("send"));
    struct problems problems;
    problems_init(&problems);
    assert_null(contract_load(json_canonical(arena, forced), &problems));
    assert_int_equal(problems.errors, 1);
    assert_non_null(strstr(problems.list[0].text.data,
                           "can be reached without a yes of \"approve_final_email\": research -> send"));
    problems_free(&problems);
    json_object_del(research, "failed");
    json_object_del(forced, "human_checkpoints");
    problems_init(&problems);
    assert_null(contract_load(json_canonical(arena, forced), &problems));
    assert_int_equal(problems.errors, 2); /* the approval has no entry, and send_email_without_approval is forbidden */
    problems_free(&problems);
    json_decref(forced);
    contract_free(c);
    arena_free(arena);
}

static void test_what_is_no_contract_at_all(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        const char *says;
    } cases[] = {{{"", 0}, "JSON"},
                 {{"[]", 2}, "is no JSON object"},
                 {{"\"x\"", 3}, "is no JSON object"},
                 {{"{\"name\":1", 9}, "JSON"},
                 {{"{\"a\":1,\"a\":2}", 13}, "JSON"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct problems problems;
        problems_init(&problems);
        assert_null(contract_load(cases[i].text, &problems));
        assert_int_equal(problems.errors, 1);
        contracts_assert_str(problems.list[0].file, "contract");
        if (strstr(problems.list[0].text.data, cases[i].says) == NULL)
            fail_msg("%zu: %s", i, problems.list[0].text.data);
        problems_free(&problems);
    }
}

static void test_files_that_cannot_be_read(void **state)
{
    (void)state;
    char directory[] = "/tmp/myelin-contract-XXXXXX", fifo[64];
    assert_non_null(mkdtemp(directory));
    snprintf(fifo, sizeof(fifo), "%s/fifo", directory);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    const struct {
        const char *path, *says;
    } cases[] = {{"no/such/file.cfg", "cannot be opened: No such file"},
                 {directory, "is no regular file"},
                 {fifo, "is no regular file"}}; /* nobody writes to it: must not wait */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct problems problems;
        problems_init(&problems);
        assert_null(contract_read_file(cases[i].path, &problems));
        assert_int_equal(problems.errors, 1);
        assert_int_equal(problems.list[0].line, 0);
        contracts_assert_str(problems.list[0].file, cases[i].path);
        assert_memory_equal(problems.list[0].text.data, cases[i].says, strlen(cases[i].says));
        problems_free(&problems);
    }
    unlink(fifo);
    rmdir(directory);
}

static void test_sizes(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    char *large = arena_alloc(arena, CONTRACT_SIZE_MAX + 2);
    memset(large, ' ', CONTRACT_SIZE_MAX + 1);
    memcpy(large, SMALL, strlen(SMALL));
    contracts_assert_str(first_problem(arena, large, CONTRACT_SIZE_MAX), "");
    contracts_assert_str(first_problem(arena, large, CONTRACT_SIZE_MAX + 1), "0: is larger than 256 KiB");
    arena_free(arena);
}

/* More problems than a person reads, and more expressions than a worker compiles. */
static void test_floods(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, CONTRACT_SIZE_MAX);
    buf_puts(&text,
             "contract = { name = \"n\"; goal = \"g\";\n steps = { a = { model = \"m\"; next = \"end\"; }; };\n");
    for (int i = 0; i < 2000; i++)
        buf_printf(&text, "unknown_%d = 1;\n", i);
    buf_puts(&text, "};");
    struct draft draft = contracts_draft(text.data, text.size);
    struct problems problems;
    problems_init(&problems);
    assert_null(contract_read_file(draft.path, &problems));
    assert_int_equal(problems.errors, 2000);
    assert_int_equal(problems.count, 201);
    contracts_assert_str(problems.list[200].text, "more problems than are shown here: mend these first");
    problems_free(&problems);
    unlink(draft.path);

    buf_clear(&text);
    buf_puts(&text, "contract = { name = \"n\"; goal = \"g\"; steps = { a = { model = \"m\"; next = \"end\"; set = {");
    for (int i = 0; i < 510; i++)
        buf_printf(&text, "v_%d = \".input\"; ", i);
    buf_puts(&text, "}; }; }; };");
    struct arena *arena = arena_new();
    contracts_assert_str(first_problem(arena, text.data, text.size), "1: more than 500 expressions in one contract");
    arena_free(arena);
    buf_free(&text);
}

static void test_more_steps_than_a_contract_has(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct buf text;
    buf_init(&text, CONTRACT_SIZE_MAX);
    for (int count = CONTRACT_STEPS_MAX; count <= CONTRACT_STEPS_MAX + 1; count++) {
        buf_clear(&text);
        buf_puts(&text, "contract = { name = \"n\"; goal = \"g\"; steps = {");
        for (int i = 1; i < count; i++)
            buf_printf(&text, "s_%d = { model = \"m\"; next = \"s_%d\"; }; ", i, i + 1);
        buf_printf(&text, "s_%d = { model = \"m\"; next = \"end\"; }; }; };", count);
        struct str found = first_problem(arena, text.data, text.size);
        contracts_assert_str(found, count <= CONTRACT_STEPS_MAX ? "" : "1: steps: 201 steps, allowed are 200");
    }
    buf_free(&text);
    arena_free(arena);
}

/* A small file may name large schemas: the limit is on what is published. */
static void test_schemas_that_make_a_contract_too_large(void **state)
{
    (void)state;
    char directory[] = "/tmp/myelin-contract-XXXXXX", path[64], schema[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/large.cfg", directory);
    snprintf(schema, sizeof(schema), "%s/s.json", directory);
    FILE *file = fopen(schema, "w");
    assert_non_null(file);
    fprintf(file, "{\"description\": \"%0*d\"}", (int)(CONTRACT_SIZE_MAX / 2), 0);
    assert_int_equal(fclose(file), 0);
    for (int steps = 1; steps <= 2; steps++) {
        struct problems problems;
        file = fopen(path, "w");
        assert_non_null(file);
        fputs("contract = { name = \"n\"; goal = \"g\"; steps = {", file);
        for (int i = 1; i <= steps; i++)
            fprintf(file, "s%d = { model = \"m\"; output = \"@s.json\"; next = \"%s\"; };", i,
                    i < steps ? "s2" : "end");
        fputs("}; };", file);
        assert_int_equal(fclose(file), 0);
        problems_init(&problems);
        struct contract *c = contract_read_file(path, &problems);
        assert_int_equal(c != NULL, steps == 1);
        assert_int_equal(problems.count, steps - 1);
        if (steps == 2)
            assert_memory_equal(problems.list[0].text.data, "the contract with its schemas is 262", 36);
        contract_free(c);
        problems_free(&problems);
    }
    unlink(path);
    unlink(schema);
    rmdir(directory);
}

/* A link beside the contract may not lead out of its directory; one that stays inside may. */
static void test_links_to_schemas(void **state)
{
    (void)state;
    static const char text[] = "contract = { name = \"n\"; goal = \"g\"; input = \"@link.json\";"
                               " steps = { a = { model = \"m\"; next = \"end\"; }; }; };";
    char directory[] = "/tmp/myelin-contract-XXXXXX", path[64], link[64], outside[80];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/c.cfg", directory);
    snprintf(link, sizeof(link), "%s/link.json", directory);
    snprintf(outside, sizeof(outside), "%s.json", directory); /* its name begins as the directory's */
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    file = fopen(outside, "w");
    assert_non_null(file);
    fputs("{}", file);
    assert_int_equal(fclose(file), 0);
    const char *const targets[] = {outside, "c.cfg"};
    const char *const says[] = {"input: the file \"link.json\": lies outside",
                                "input: the file \"link.json\": not valid JSON"};
    for (int i = 0; i < 2; i++) {
        struct problems problems;
        problems_init(&problems);
        assert_int_equal(symlink(targets[i], link), 0);
        assert_null(contract_read_file(path, &problems));
        assert_int_equal(problems.count, 1);
        assert_memory_equal(problems.list[0].text.data, says[i], strlen(says[i]));
        problems_free(&problems);
        unlink(link);
    }
    unlink(outside);
    unlink(path);
    rmdir(directory);
}

/* A problem is one line of bounded size, cut between two characters. */
static void test_a_long_name_in_a_problem(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct buf text;
    buf_init(&text, CONTRACT_SIZE_MAX);
    buf_puts(&text, "contract = { name = \"n\"; goal = \"g\"; steps = { a = { model = \"m\"; next = \"");
    for (int i = 0; i < 1000; i++)
        buf_puts(&text, "\xC3\xA4");
    buf_puts(&text, "\"; }; }; };");
    struct str found = first_problem(arena, text.data, text.size);
    const char *what;
    assert_true(found.size > 600 && found.size < 720);
    assert_memory_equal(found.data + found.size - 4, " ...", 4);
    assert_memory_equal(found.data + found.size - 6, "\xC3\xA4", 2);
    assert_int_equal(scan_bytes(found, &what), 0);
    buf_free(&text);
    arena_free(arena);
}

static void test_a_warning_does_not_stop_a_contract(void **state)
{
    (void)state;
    static const char text[] =
        "contract = { name = \"n\"; goal = \"g\";\n"
        "  success_criteria = { output = ({ says = \"s\"; check = \".think != null\"; }); };\n"
        "  tools = { send = { url = \"http://t\"; effect = \"write\"; on_doubt = \"ask\"; }; };\n"
        "  steps = { think = { model = \"m\"; next = \"send\"; }; send = { tool = \"send\"; next = \"end\"; }; }; };";
    struct draft draft = contracts_draft(text, sizeof(text) - 1);
    struct problems problems;
    problems_init(&problems);
    struct contract *c = contract_read_file(draft.path, &problems);
    assert_non_null(c);
    assert_int_equal(problems.errors, 0);
    assert_int_equal(problems.count, 1);
    assert_true(problems.list[0].warning);
    assert_int_equal(problems.list[0].line, 2);
    contract_free(c);
    problems_free(&problems);
    unlink(draft.path);
}

/* Lists over several lines: libconfig gives the line of what follows. */
static void test_lines_of_elements(void **state)
{
    (void)state;
    static const char text[] = "contract = {\n"
                               "  name = \"n\"; goal = \"g\";\n"
                               "  boundaries = {\n"
                               "    allowed_tools = [\n"
                               "      \"one\"\n"
                               "      ,\n"
                               "      \"two\"\n"
                               "    ];\n"
                               "  };\n"
                               "  human_checkpoints = (\n"
                               "    {\n"
                               "      step =\n"
                               "        \"nobody\";\n"
                               "    }\n"
                               "  );\n"
                               "  steps = { a = { model = \"m\"; next = \"end\"; }; };\n"
                               "};\n";
    struct draft draft = contracts_draft(text, sizeof(text) - 1);
    struct problems problems;
    problems_init(&problems);
    assert_null(contract_read_file(draft.path, &problems));
    assert_int_equal(problems.count, 3);
    assert_int_equal(problems.list[0].line, 5);
    assert_int_equal(problems.list[1].line, 7);
    assert_int_equal(problems.list[2].line, 12);
    problems_free(&problems);
    unlink(draft.path);
}

/* `contract check` of several files collects into one report: the good ones beside a bad one are still good. */
static void test_files_share_a_report(void **state)
{
    (void)state;
    struct problems problems;
    problems_init(&problems);
    assert_null(contract_read_file("tests/contracts/bad/many_at_once.cfg", &problems));
    size_t before = problems.count;
    assert_true(before > 1);
    struct contract *c = contract_read_file(FIRST, &problems);
    assert_non_null(c);
    contract_free(c);
    assert_null(contract_read_file("tests/contracts/bad/duration_bare_number.cfg", &problems));
    assert_int_equal(problems.count, before + 1);
    contracts_assert_str(problems.list[before].file, "tests/contracts/bad/duration_bare_number.cfg");
    problems_free(&problems);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_problems_without_lines_name_the_place),
        cmocka_unit_test(test_a_forced_contract_that_skips_the_approval),
        cmocka_unit_test(test_what_is_no_contract_at_all),
        cmocka_unit_test(test_files_that_cannot_be_read),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_floods),
        cmocka_unit_test(test_more_steps_than_a_contract_has),
        cmocka_unit_test(test_schemas_that_make_a_contract_too_large),
        cmocka_unit_test(test_links_to_schemas),
        cmocka_unit_test(test_a_long_name_in_a_problem),
        cmocka_unit_test(test_a_warning_does_not_stop_a_contract),
        cmocka_unit_test(test_lines_of_elements),
        cmocka_unit_test(test_files_share_a_report),
    };
    return cmocka_run_group_tests(tests, NULL, contracts_free_expressions);
}
