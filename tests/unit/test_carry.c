/* Carrying: a record that lags is appended again, and the loop does not notice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "worker/io/log_block.h"
#include "worker/io/log_window.h"

#define LAG 10
#define MANY 5000

static int64_t last; /* carry */

static bool finish(struct log_window *window, int64_t offset)
{
    struct log_work *work = calloc(1, sizeof *work);
    assert_non_null(work);
    work->offset = offset;
    work->size = 5;
    bool taken = log_window_finish(window, work);
    if (!taken)
        free(work);
    return taken;
}

static void deliver(struct log_window *window, int64_t offset)
{
    assert_true(log_window_deliver(window, offset));
    struct log_event *event = log_block_new(0);
    event->topic = TOPIC_STEPS;
    event->partition = 3;
    event->tenure = 77;
    event->offset = offset;
    event->key = STR("key");
    event->value = STR("value");
    log_window_keep(window, event);
    log_block_drop(event); /* the loop is through with its part */
}

static void commit(struct log_window *window, int64_t base)
{
    assert_int_equal(log_window_plan(window, window->ready.count, NULL), base);
    log_window_committed(window, window->ready.count);
}

/* 0 is stuck, 1 to LAG are committed: a carry of 0 is ready. */
static void start(struct log_window *window)
{
    static const struct offset_map nothing;
    log_window_start(window, false, 0, &nothing);
    for (int64_t offset = 0; offset < LAG; offset++) {
        assert_int_equal(log_window_carry(window, LAG, STR("p"), &last), 0);
        deliver(window, offset);
        assert_true(offset == 0 || finish(window, offset));
    }
    commit(window, 0);
    assert_int_equal(log_window_carry(window, LAG, STR("p"), &last), 1);
    assert_int_equal(log_window_carry(window, LAG, STR("p"), &last), 0);
    assert_int_equal(window->with_loop, 1);
}

/* Everything is over, and the loop cannot finish it again. */
static void end(struct log_window *window)
{
    assert_false(finish(window, 0));
    assert_int_equal(window->with_loop + window->uncommitted + window->ready.count + window->size, 0);
    assert_int_equal(window->moved.count + window->coming.count, 0);
    log_window_free(window);
}

static void test_carried_and_finished(void **state)
{
    (void)state;
    struct log_window window;
    start(&window);
    const struct log_work *carry = window.ready.first;
    assert_int_equal(carry->tenure, 77);
    assert_int_equal(carry->count, 1);
    assert_int_equal(carry->records[0].partition, 3);
    assert_true(str_is(carry->records[0].pool, "p") && str_is(carry->records[0].key, "key") &&
                str_is(carry->records[0].value, "value"));
    log_window_carried(&window, 0, last, -1001); /* RD_KAFKA_OFFSET_INVALID */
    log_window_carried(&window, 0, last, 12);
    commit(&window, 10);
    deliver(&window, 10);
    assert_false(log_window_deliver(&window, 12));
    assert_int_equal(window.with_loop, 2);
    assert_true(finish(&window, 10));
    commit(&window, 12);
    assert_true(finish(&window, 0)); /* as the loop knows it */
    assert_int_equal(window.ready.first->offset, 12);
    commit(&window, 13);
    end(&window);
}

static void test_finished_before_it_is_fetched(void **state)
{
    (void)state;
    struct log_window window;
    start(&window);
    log_window_carried(&window, 0, last, 10);
    assert_true(finish(&window, 0)); /* its carry may be in a transaction */
    assert_false(finish(&window, 0));
    assert_int_equal(window.with_loop, 0);
    commit(&window, 10);
    assert_int_equal(window.ready.count, 0);
    assert_false(log_window_deliver(&window, 10));
    commit(&window, 11);
    end(&window);
}

static void test_aborted(void **state)
{
    (void)state;
    struct log_window window;
    start(&window);
    log_window_carried(&window, 0, last, 10);
    log_window_uncarry(&window);
    deliver(&window, 11);                     /* 10 was aborted */
    log_window_carried(&window, 0, last, 10); /* a late report means nothing */
    assert_int_equal(log_window_carry(&window, LAG, STR("p"), &last), 1);
    log_window_carried(&window, 0, last - 1, 10); /* nor a later one */
    assert_int_equal(window.coming.count, 0);
    assert_true(finish(&window, 0));
    assert_true(finish(&window, 11));
    assert_int_equal(window.ready.first->carry, last);
    log_window_uncarry(&window);
    assert_int_equal(window.ready.count, 2); /* under its old offset */
    commit(&window, 12);
    end(&window);
}

/* Its commit is in doubt, and it is fetched: then it was committed. */
static void test_fetched_in_doubt(void **state)
{
    (void)state;
    struct log_window window;
    start(&window);
    log_window_carried(&window, 0, last, 10);
    assert_false(log_window_deliver(&window, 10));
    assert_true(finish(&window, 0));
    assert_int_equal(window.ready.count, 1);
    commit(&window, 10);
    commit(&window, 11);
    end(&window);
}

static void test_carried_again_and_again(void **state)
{
    (void)state;
    struct log_window window;
    start(&window);
    for (int64_t at = 10; at < 200; at += LAG) {
        log_window_carried(&window, at == 10 ? 0 : at - LAG, last, at);
        commit(&window, at);
        assert_false(log_window_deliver(&window, at));
        for (int64_t offset = at + 1; offset < at + LAG; offset++) {
            deliver(&window, offset);
            assert_true(finish(&window, offset));
        }
        commit(&window, at);
        assert_int_equal(log_window_carry(&window, LAG, STR("p"), &last), 1);
    }
    log_window_uncarry(&window);
    assert_true(finish(&window, 0));
    commit(&window, 200);
    end(&window);
}

static void test_refused(void **state)
{
    (void)state;
    struct log_window window;
    start(&window);
    log_window_carried(&window, 0, last, 10);
    commit(&window, 10);
    assert_false(log_window_deliver(&window, 10));
    assert_true(finish(&window, 0));
    assert_int_equal(log_window_known(&window, 10), 0);
    assert_int_equal(log_window_known(&window, 9), 9);
    log_window_refuse(&window, window.ready.first);
    assert_int_equal(window.with_loop, 1);
    assert_true(finish(&window, 0));
    commit(&window, 11);
    end(&window);
}

static void test_a_carry_that_no_broker_takes(void **state)
{
    (void)state;
    struct log_window window;
    start(&window);
    log_window_stay(&window, window.ready.first);
    assert_int_equal(log_window_carry(&window, LAG, STR("p"), &last), 0);
    assert_true(finish(&window, 0));
    commit(&window, 10);
    end(&window);
}

/* As many as an endpoint that hangs holds up: aborted once, half of them finished meanwhile, fetched among others. */
static void test_many(void **state)
{
    (void)state;
    static const struct offset_map nothing;
    struct log_window window;
    log_window_start(&window, false, 0, &nothing);
    for (int64_t known = 0; known < MANY; known++)
        deliver(&window, known);
    for (int times = 0; times < 2; times++) {
        log_window_uncarry(&window);
        assert_int_equal(window.ready.count, 0);
        assert_int_equal(log_window_carry(&window, 1, STR("p"), &last), MANY);
        for (int64_t known = 0; known < MANY; known++)
            log_window_carried(&window, known, last - MANY + 1 + known, MANY + (1 - times) + 2 * known);
    }
    for (int64_t known = 0; known < MANY; known += 2)
        assert_true(finish(&window, known));
    commit(&window, MANY);
    for (int64_t known = 0; known < MANY; known++) {
        assert_false(log_window_deliver(&window, MANY + 2 * known));
        deliver(&window, MANY + 2 * known + 1);
        assert_true(finish(&window, MANY + 2 * known + 1));
    }
    for (int64_t known = 0; known < MANY; known++)
        assert_int_equal(finish(&window, known), known % 2 == 1);
    commit(&window, MANY * 3);
    end(&window);
}

/* Whatever it holds is freed (seen by ASan). */
static void test_freed_at_any_time(void **state)
{
    (void)state;
    for (int stage = 0; stage < 5; stage++) {
        struct log_window window;
        start(&window);
        log_window_carried(&window, 0, last, 10);
        if (stage == 1 || stage == 3)
            assert_true(finish(&window, 0));
        if (stage >= 2)
            commit(&window, 10);
        if (stage == 4)
            assert_false(log_window_deliver(&window, 10));
        deliver(&window, 11);
        log_window_free(&window);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_carried_and_finished),
        cmocka_unit_test(test_finished_before_it_is_fetched),
        cmocka_unit_test(test_aborted),
        cmocka_unit_test(test_fetched_in_doubt),
        cmocka_unit_test(test_carried_again_and_again),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_a_carry_that_no_broker_takes),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_freed_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
