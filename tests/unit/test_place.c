/* worker/io/log_place: where a record lies is told by a report of this transaction, and written as an int and a long of Avro. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/io/log_internal.h"

#define AT 3

struct made {
    struct log_work *work;
    struct log_place places[2];
    char value[64];
};

/* Two records that are named, and one that names both: AT bytes, a place, a byte, a place. */
static void make(struct made *made)
{
    made->work = calloc(1, sizeof(struct log_work) + 3 * sizeof(struct log_record));
    assert_non_null(made->work);
    memset(made->value, '.', sizeof made->value);
    made->places[0] = (struct log_place){.of = 1, .at = AT};
    made->places[1] = (struct log_place){.of = 0, .at = AT + LOG_PLACE_SIZE + 1};
    made->work->count = 3;
    made->work->lead = 2;
    made->work->records[2] = (struct log_record){
        .value = {made->value, sizeof made->value}, .places = made->places, .places_count = 2};
}

static int64_t number_at(const char **at)
{
    uint64_t bits = 0;
    unsigned shift = 0;
    for (bool more = true; more; shift += 7) {
        unsigned char byte = (unsigned char)*(*at)++;
        bits |= (uint64_t)(byte & 0x7f) << shift;
        more = (byte & 0x80) != 0;
    }
    return (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
}

static void assert_place(const char *at, int64_t partition, int64_t offset)
{
    const char *end = at + LOG_PLACE_SIZE;
    assert_int_equal(number_at(&at), partition);
    assert_int_equal(number_at(&at), offset);
    assert_ptr_equal(at, end);
}

static intptr_t await(struct log *log, struct made *made, size_t record)
{
    return (intptr_t)log_place_await(log, made->work, record);
}

static void test_told_and_written(void **state)
{
    (void)state;
    struct log *log = calloc(1, sizeof *log);
    struct made made;
    make(&made);
    log_place_begin(log);
    assert_true(log_place_known(log));
    intptr_t first = await(log, &made, 0), second = await(log, &made, 1);
    assert_null(log_place_await(log, made.work, 2)); /* nobody names it */
    assert_true(first != 0 && second != 0 && first != second);
    log_place_report(log, second, 7, 0);
    assert_false(log_place_known(log));
    log_place_report(log, first, INT32_MAX, INT64_MAX);
    assert_true(log_place_known(log));
    log_place_fill(log, made.work, &made.work->records[2]);
    assert_place(&made.value[AT], 7, 0);
    assert_place(&made.value[AT + LOG_PLACE_SIZE + 1], INT32_MAX, INT64_MAX);
    assert_memory_equal(made.value, "...", AT);
    assert_int_equal(made.value[AT + LOG_PLACE_SIZE], '.');
    assert_int_equal(made.value[AT + 2 * LOG_PLACE_SIZE + 1], '.');
    free(made.work);
    free(log->placed);
    free(log);
}

/* After an abort the same work is produced again: what is still said of the first time is not believed. */
static void test_after_an_abort(void **state)
{
    (void)state;
    struct log *log = calloc(1, sizeof *log);
    struct made made;
    make(&made);
    log_place_begin(log);
    intptr_t before[] = {await(log, &made, 0), await(log, &made, 1)};
    log_place_report(log, before[0], 1, 10);
    log_place_report(log, before[1], 1, 11);
    log_place_begin(log);
    intptr_t after[] = {await(log, &made, 0), await(log, &made, 1)};
    log_place_report(log, before[0], 1, 10);
    log_place_report(log, before[1], 1, 11);
    assert_false(log_place_known(log));
    log_place_report(log, after[0], 1, 20);
    log_place_report(log, after[1], 1, -1001); /* a repeated request: the broker had it already */
    assert_false(log_place_known(log));
    log_place_report(log, after[1], 1, 21);
    assert_true(log_place_known(log));
    log_place_fill(log, made.work, &made.work->records[2]);
    assert_place(&made.value[AT], 1, 21);
    free(made.work); /* reports may come when it is gone */
    log_place_begin(log);
    log_place_report(log, after[0], 1, 30);
    free(log->placed);
    free(log);
}

/* What a ticket was given for is awaited as well, and what nobody names is not. */
static void test_tickets(void **state)
{
    (void)state;
    struct log *log = calloc(1, sizeof *log);
    struct made made;
    make(&made);
    made.work->lead = 0;
    made.work->records[1].ticket = 5;
    log_place_begin(log);
    assert_int_equal(await(log, &made, 0), 0);
    intptr_t number = await(log, &made, 1);
    assert_false(log_place_known(log));
    log_place_report(log, number, 0, 9);
    assert_true(log_place_known(log));
    assert_int_equal(log->placed[0].ticket, 5);
    assert_int_equal(log->placed[0].offset, 9);
    free(made.work);
    free(log->placed);
    free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told_and_written),
        cmocka_unit_test(test_after_an_abort),
        cmocka_unit_test(test_tickets),
    };
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
