/*
 * Every file of tests/contracts/bad is a test. Its lines `# expect: LINE: TEXT` (`# expect-warning:` for a warning)
 * name exactly the problems it must be refused with, in their order; TEXT is the beginning of the
 * problem's text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>

#include "worker/contract/contract.h"

#define DIRECTORY "tests/contracts/bad"
#define FILES_MAX 400
#define EXPECTED_MAX 40

struct expected {
    int32_t line;
    bool warning;
    struct str text;
};

static struct str read_whole(struct arena *arena, const char *path)
{
    char *data = arena_alloc(arena, CONTRACT_SIZE_MAX);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(data, 1, CONTRACT_SIZE_MAX - 1, file);
    assert_int_equal(fclose(file), 0);
    return (struct str){.data = data, .size = size};
}

static size_t read_expected(struct str text, struct expected *expected)
{
    static const char error_mark[] = "# expect: ", warning_mark[] = "# expect-warning: ";
    size_t count = 0, size;
    for (const char *at = text.data, *end = text.data + text.size; at < end; at += size + 1) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size = newline != NULL ? (size_t)(newline - at) : (size_t)(end - at);
        bool warning = size > sizeof(warning_mark) && memcmp(at, warning_mark, sizeof(warning_mark) - 1) == 0;
        bool error = size > sizeof(error_mark) && memcmp(at, error_mark, sizeof(error_mark) - 1) == 0;
        if (!warning && !error)
            continue;
        char *after;
        at += warning ? sizeof(warning_mark) - 1 : sizeof(error_mark) - 1;
        size -= warning ? sizeof(warning_mark) - 1 : sizeof(error_mark) - 1;
        assert_true(count < EXPECTED_MAX);
        expected[count].line = (int32_t)strtol(at, &after, 10);
        expected[count].warning = warning;
        assert_memory_equal(after, ": ", 2);
        expected[count].text = (struct str){.data = after + 2, .size = size - (size_t)(after + 2 - at)};
        count++;
    }
    return count;
}

static bool is_expected(const struct problem *problem, const struct expected *expected)
{
    return problem->line == expected->line && problem->warning == expected->warning &&
           problem->text.size >= expected->text.size &&
           memcmp(problem->text.data, expected->text.data, expected->text.size) == 0;
}

static void test_file(void **state)
{
    const char *name = *state;
    struct arena *arena = arena_new();
    struct expected expected[EXPECTED_MAX];
    struct problems problems;
    struct str path = arena_printf(arena, DIRECTORY "/%s", name);
    size_t count = read_expected(read_whole(arena, path.data), expected);
    problems_init(&problems);
    struct contract *contract = contract_read_file(path.data, &problems);
    bool good = contract == NULL && problems.errors > 0 && problems.count == count;
    for (size_t i = 0; good && i < count; i++)
        good = is_expected(&problems.list[i], &expected[i]);
    for (size_t i = 0; !good && i < problems.count; i++)
        print_error("  found:    %d: %s%.*s\n", (int)problems.list[i].line, problems.list[i].warning ? "warning: " : "",
                    STR_ARG(problems.list[i].text));
    for (size_t i = 0; !good && i < count; i++)
        print_error("  expected: %d: %s%.*s\n", (int)expected[i].line, expected[i].warning ? "warning: " : "",
                    STR_ARG(expected[i].text));
    for (size_t i = 0; i < problems.count; i++)
        assert_true(str_equal(problems.list[i].file, path));
    contract_free(contract);
    problems_free(&problems);
    arena_free(arena);
    assert_true(good);
}

static int is_contract(const struct dirent *entry)
{
    size_t size = strlen(entry->d_name);
    return size > 4 && strcmp(entry->d_name + size - 4, ".cfg") == 0;
}

int main(void)
{
    static struct CMUnitTest tests[FILES_MAX];
    struct dirent **entries = NULL;
    int count = scandir(DIRECTORY, &entries, is_contract, alphasort);
    if (count < 40 || count > FILES_MAX) {
        fprintf(stderr, DIRECTORY ": %d contracts, must be 40 to %d\n", count, FILES_MAX);
        return 1;
    }
    for (int i = 0; i < count; i++)
        tests[i] = (struct CMUnitTest){
            .name = entries[i]->d_name, .test_func = test_file, .initial_state = entries[i]->d_name};
    int failed = _cmocka_run_group_tests("bad contracts", tests, (size_t)count, NULL, NULL);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    expr_cache_free();
    return failed;
}
