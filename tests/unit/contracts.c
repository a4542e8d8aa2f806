#include "tests/unit/contracts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

struct contract *contracts_read(const char *path)
{
    struct problems problems;
    problems_init(&problems);
    struct contract *contract = contract_read_file(path, &problems);
    for (size_t i = 0; i < problems.count; i++)
        print_error("%s:%d: %.*s\n", path, (int)problems.list[i].line, STR_ARG(problems.list[i].text));
    assert_int_equal(problems.count, 0);
    assert_non_null(contract);
    problems_free(&problems);
    return contract;
}

struct contract *contracts_load(struct str canonical)
{
    struct problems problems;
    problems_init(&problems);
    struct contract *contract = contract_load(canonical, &problems);
    for (size_t i = 0; i < problems.count; i++)
        print_error("%.*s: %.*s\n", STR_ARG(problems.list[i].file), STR_ARG(problems.list[i].text));
    assert_int_equal(problems.count, 0);
    assert_non_null(contract);
    problems_free(&problems);
    return contract;
}

struct draft contracts_draft(const char *text, size_t size)
{
    struct draft draft = {.path = "/tmp/myelin-contract-XXXXXX"};
    int fd = mkstemp(draft.path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), (ssize_t)size);
    close(fd);
    return draft;
}

struct str contracts_table(struct arena *arena, const struct contract *contract)
{
    struct contract_row *rows;
    struct buf text;
    buf_init(&text, 1 << 16);
    size_t count = contract_table(contract, arena, &rows);
    for (size_t i = 0; i < count; i++)
        buf_printf(&text, "%s | %s | %s | %s | %s | %s | %s\n", rows[i].step.data, rows[i].kind.data,
                   rows[i].decided_by.data, rows[i].outside.data, rows[i].writes.data, rows[i].person.data,
                   rows[i].repeat.data);
    struct str copy = arena_str(arena, buf_str(&text));
    buf_free(&text);
    return copy;
}

void contracts_assert_str(struct str got, const char *wanted)
{
    assert_non_null(got.data);
    assert_string_equal(got.data, wanted);
}

int contracts_free_expressions(void **state)
{
    (void)state;
    expr_cache_free();
    return 0;
}
