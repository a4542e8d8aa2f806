/* worker/record: every record there and back, with all set and with all absent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/record_fill.h"
#include "worker/base/json.h"
#include "worker/record_tables.h"
#include "worker/wire/schemas.h"

static int open_records(void **state)
{
    struct error error = {0};

    (void)state;
    if (!record_open(&error))
        print_error("%s\n", error.text);
    return error.class == ERROR_NONE ? 0 : -1;
}

static int close_records(void **state)
{
    (void)state;
    record_close();
    return 0;
}

/* Encodes, decodes, and compares as JSON. */
static void check_there_and_back(enum record_type type, const void *object, struct arena *arena)
{
    struct error error = {0};
    struct record record;
    struct buf bytes;
    struct str before, after;
    json_t *json;

    buf_init(&bytes, 1 << 20);
    if (!record_encode(type, object, &bytes, &error) || !record_decode(buf_str(&bytes), arena, &record, &error))
        fail_msg("%s", error.text);
    assert_int_equal(record.type, type);
    json = record_json(type, object);
    before = json_text(arena, json);
    json_decref(json);
    json = record_json(type, &record.is);
    after = json_text(arena, json);
    json_decref(json);
    assert_string_equal(before.data, after.data);
    buf_free(&bytes);
}

static void test_all_set(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    for (int type = 0; type < RECORD_TYPES_COUNT; type++) {
        /* Once a body and a symbol: the fill chooses them by the round. */
        for (int round = 0; round < 20; round++)
            check_there_and_back((enum record_type)type, record_fill((enum record_type)type, round, arena), arena);
    }
    arena_free(arena);
}

static void test_all_absent(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    for (int type = 0; type < RECORD_TYPES_COUNT; type++)
        check_there_and_back((enum record_type)type, arena_alloc(arena, record_tables[type]->size), arena);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_set),
        cmocka_unit_test(test_all_absent),
    };

    return cmocka_run_group_tests_name("record", tests, open_records, close_records);
}
