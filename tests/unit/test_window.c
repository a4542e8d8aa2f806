/* The window of one partition against a model that keeps everything in plain lists, over random histories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "worker/io/log_window.h"

static struct log_work *work(int64_t offset, size_t size)
{
    struct log_work *made = calloc(1, sizeof *made);
    assert_non_null(made);
    made->offset = offset;
    made->size = size;
    return made;
}

/* The offsets of what is ready, as text: "3 5 -1 ". */
static const char *ready(const struct log_window *window)
{
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (const struct log_work *one = window->ready.first; one != NULL && at < sizeof text - 32; one = one->next)
        at += (size_t)snprintf(text + at, sizeof text - at, "%ld%s ", (long)one->offset, one->refused ? "!" : "");
    return text;
}

static void finish(struct log_window *window, int64_t offset)
{
    assert_true(log_window_finish(window, work(offset, 10)));
}

static void deliver(struct log_window *window, int64_t first, int64_t count, int64_t gap)
{
    for (int64_t i = 0; i < count; i++)
        log_window_deliver(window, first + i * gap);
}

static void test_order_of_delivery(void **state)
{
    (void)state;
    struct log_window window = {0};
    deliver(&window, 10, 4, 3); /* 10 13 16 19: what lies between never arrives */
    finish(&window, 16);
    finish(&window, 13);
    assert_string_equal(ready(&window), "");
    assert_int_equal(window.with_loop, 2);
    finish(&window, 10);
    assert_string_equal(ready(&window), "10 13 16 ");
    assert_int_equal(log_window_span(&window), 4);
    log_window_committed(&window, 2);
    assert_string_equal(ready(&window), "16 ");
    assert_int_equal(window.size, 10);
    log_window_free(&window);
}

static void test_unknown_work_is_not_taken(void **state)
{
    (void)state;
    struct log_window window = {0};
    deliver(&window, 10, 2, 2);
    struct log_work *never = work(11, 10), *twice = work(10, 10);
    assert_false(log_window_finish(&window, never));
    finish(&window, 10);
    assert_false(log_window_finish(&window, twice));
    assert_int_equal(window.size, 10);
    free(never);
    free(twice);
    log_window_free(&window);
}

/* A timer may build on all that was handed over before it, and on nothing that came later. */
static void test_timers(void **state)
{
    (void)state;
    struct log_window window = {0};
    finish(&window, -1);
    assert_string_equal(ready(&window), "-1 ");
    log_window_committed(&window, 1);
    deliver(&window, 1, 4, 1);
    finish(&window, -1); /* nothing is finished: it waits for nothing */
    assert_string_equal(ready(&window), "-1 ");
    finish(&window, 3);
    finish(&window, -1); /* behind 3 */
    finish(&window, 2);
    finish(&window, 4);
    assert_string_equal(ready(&window), "-1 ");
    finish(&window, 1);
    assert_string_equal(ready(&window), "-1 1 2 3 -1 4 ");
    log_window_free(&window);
}

static void test_refused(void **state)
{
    (void)state;
    struct log_window window = {0};
    deliver(&window, 1, 3, 1);
    finish(&window, 1);
    finish(&window, 2);
    finish(&window, -1);
    log_window_refuse(&window, window.ready.first->next);
    assert_string_equal(ready(&window), "1 2! -1 ");
    assert_true(log_window_finish(&window, work(2, 7)));
    assert_string_equal(ready(&window), "1 2 -1 ");
    assert_int_equal(window.size, 27);
    log_window_refuse(&window, window.ready.last); /* a timer is gone */
    assert_string_equal(ready(&window), "1 2 ");
    assert_int_equal(window.size, 17);
    finish(&window, 3);
    assert_string_equal(ready(&window), "1 2 3 ");
    log_window_committed(&window, 3);
    assert_int_equal(window.size, 0);
    assert_int_equal(log_window_span(&window), 0);
    log_window_free(&window);
}

#define RECORDS_MAX 300

/* What has been delivered, and the order in which it must become ready. */
struct model {
    int64_t offsets[RECORDS_MAX];
    bool finished[RECORDS_MAX];
    size_t delivered, ready;
};

static void advance(struct model *model)
{
    while (model->ready < model->delivered && model->finished[model->ready])
        model->ready++;
}

/* A linear congruential generator (Knuth, MMIX): the same history for the same seed everywhere. */
static int dice(uint64_t *state, int sides)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int)((*state >> 33) % (uint64_t)sides);
}

static void random_history(uint64_t seed)
{
    struct log_window window = {0};
    struct model model = {.delivered = 0};
    int64_t offset = 0, committed = -1;
    for (int step = 0; step < 2000; step++) {
        int what = dice(&seed, 10);
        if (what < 4 && model.delivered < RECORDS_MAX) {
            offset += 1 + dice(&seed, 3);
            log_window_deliver(&window, offset);
            model.offsets[model.delivered++] = offset;
        } else if (what < 9 && model.delivered > 0) {
            size_t one = (size_t)dice(&seed, (int)model.delivered);
            struct log_work *made = work(model.offsets[one], 1);
            bool taken = log_window_finish(&window, made);
            assert_int_equal(taken, !model.finished[one]);
            model.finished[one] = true;
            if (!taken)
                free(made);
            advance(&model);
        } else if (window.ready.count > 0) {
            size_t count = 1 + (size_t)dice(&seed, (int)window.ready.count);
            const struct log_work *last = window.ready.first;
            for (size_t i = 1; i < count; i++)
                last = last->next;
            assert_true(last->offset > committed);
            committed = last->offset;
            log_window_committed(&window, count);
        }
        int64_t high = window.ready.last != NULL ? window.ready.last->offset : committed;
        assert_int_equal(high, model.ready > 0 ? model.offsets[model.ready - 1] : -1);
    }
    log_window_free(&window);
}

static void test_random_histories(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++)
        random_history(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_delivery),
        cmocka_unit_test(test_unknown_work_is_not_taken),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
