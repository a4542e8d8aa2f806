/* The window of one partition against a model that keeps everything in plain arrays, over random histories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void start(struct log_window *window, bool ordered, int64_t committed)
{
    static const struct offset_map nothing;
    log_window_start(window, ordered, committed, &nothing);
}

static void deliver(struct log_window *window, int64_t first, int64_t count, int64_t gap)
{
    for (int64_t i = 0; i < count; i++)
        assert_true(log_window_deliver(window, first + i * gap));
}

/* What a commit of the first `count` of what is ready says, as text: "BASE: FIRST-LAST ...", the runs that are done above. */
static const char *plan(struct log_window *window, size_t count)
{
    static char text[4096];
    static struct offset_map done;
    int64_t base = log_window_plan(window, count, &done);
    size_t at = (size_t)snprintf(text, sizeof text, "%ld:", (long)base);
    for (int64_t i = 0; i < done.span && at < sizeof text - 32; i++) {
        if (!offset_map_has(&done, i))
            continue;
        int64_t first = i;
        while (offset_map_has(&done, i + 1))
            i++;
        at += (size_t)snprintf(text + at, sizeof text - at, " %ld-%ld", (long)(base + first), (long)(base + i));
    }
    return text;
}

static void test_any_order(void **state)
{
    (void)state;
    struct log_window window;
    start(&window, false, 7);
    deliver(&window, 10, 4, 3); /* 10 13 16 19: what lies between never arrives */
    assert_string_equal(plan(&window, 0), "10: 11-12 14-15 17-18");
    finish(&window, 16);
    finish(&window, 13);
    assert_string_equal(ready(&window), "16 13 ");
    assert_string_equal(plan(&window, 1), "10: 11-12 14-18");
    assert_string_equal(plan(&window, 2), "10: 11-18");
    assert_int_equal(window.with_loop, 2);
    log_window_committed(&window, 1);
    assert_string_equal(plan(&window, 1), "10: 11-18");
    finish(&window, 10);
    assert_string_equal(plan(&window, 2), "19:");
    log_window_committed(&window, 2);
    assert_int_equal(log_window_span(&window), 1);
    finish(&window, 19);
    assert_string_equal(plan(&window, 1), "20:");
    log_window_committed(&window, 1);
    assert_int_equal(window.size + window.uncommitted, 0);
    assert_int_equal(log_window_span(&window), 0);
    log_window_free(&window);
}

/* An owner before us finished things: they are passed by, and stay in the map until the lowest has moved past them. */
static void test_found_at_assignment(void **state)
{
    (void)state;
    struct log_window window;
    struct offset_map found = {.span = 0};
    offset_map_mark(&found, 2, 4);
    offset_map_mark(&found, 6, 8);
    log_window_start(&window, false, 100, &found);
    deliver(&window, 100, 2, 1);
    finish(&window, 101);
    assert_string_equal(plan(&window, 1), "100: 101-103 106-107");
    finish(&window, 100);
    assert_string_equal(plan(&window, 2), "104: 106-107");
    log_window_committed(&window, 2);
    assert_false(log_window_deliver(&window, 102));
    assert_false(log_window_deliver(&window, 103));
    assert_false(log_window_deliver(&window, 103));
    deliver(&window, 105, 1, 1); /* 104 never arrives */
    finish(&window, 105);
    assert_string_equal(plan(&window, 1), "108:");
    log_window_committed(&window, 1);
    assert_false(log_window_deliver(&window, 106));
    assert_string_equal(plan(&window, 0), "108:");
    deliver(&window, 108, 1, 1);
    log_window_free(&window);
}

/* A gap wider than the window came in one batch: what is above it waits until a map can say it. */
static void test_too_far_for_a_map(void **state)
{
    (void)state;
    struct log_window window;
    start(&window, false, 0);
    deliver(&window, 0, 2, 1);
    deliver(&window, OFFSET_MAP_WINDOW - 1, 3, 1);
    finish(&window, OFFSET_MAP_WINDOW + 1);
    finish(&window, OFFSET_MAP_WINDOW);
    finish(&window, OFFSET_MAP_WINDOW - 1);
    assert_string_equal(ready(&window), "16383 ");
    assert_string_equal(plan(&window, 1), "0: 2-16383");
    finish(&window, 0);
    log_window_committed(&window, 2);
    assert_string_equal(ready(&window), "16384 ");
    assert_int_equal(window.uncommitted, 3);
    finish(&window, 1);
    log_window_committed(&window, 2);
    assert_string_equal(ready(&window), "16385 ");
    assert_string_equal(plan(&window, 1), "16386:");
    deliver(&window, 3 * OFFSET_MAP_WINDOW, 1, 1);
    finish(&window, 3 * OFFSET_MAP_WINDOW);
    log_window_free(&window); /* with what it holds */
}

static void test_ordered(void **state)
{
    (void)state;
    struct log_window window;
    start(&window, true, 10);
    deliver(&window, 10, 4, 3); /* 10 13 16 19: what lies between never arrives */
    finish(&window, 16);
    finish(&window, 13);
    assert_string_equal(ready(&window), "");
    assert_int_equal(window.with_loop, 2);
    finish(&window, 10);
    assert_string_equal(ready(&window), "10 13 16 ");
    assert_int_equal(window.uncommitted, 4);
    assert_string_equal(plan(&window, 2), "16:");
    log_window_committed(&window, 2);
    assert_string_equal(ready(&window), "16 ");
    assert_int_equal(window.size, 10);
    log_window_free(&window);
}

static void test_unknown_work_is_not_taken(void **state)
{
    (void)state;
    struct log_window window;
    start(&window, false, 10);
    deliver(&window, 10, 2, 2);
    struct log_work *never = work(11, 10), *twice = work(10, 10);
    assert_false(log_window_finish(&window, never));
    finish(&window, 10);
    assert_false(log_window_finish(&window, twice));
    log_window_committed(&window, 1);
    assert_false(log_window_finish(&window, twice));
    finish(&window, 12);
    assert_int_equal(window.size, 10);
    free(never);
    free(twice);
    log_window_free(&window);
}

/* A timer may build on all that was handed over before it, and on nothing that came later. */
static void test_timers(void **state)
{
    (void)state;
    struct log_window window;
    start(&window, true, 0);
    finish(&window, -1);
    assert_string_equal(ready(&window), "-1 ");
    assert_string_equal(plan(&window, 1), "0:");
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
    log_window_committed(&window, 4);
    deliver(&window, 5, 2, 1);
    finish(&window, 6);
    finish(&window, -1); /* behind 6 */
    assert_string_equal(ready(&window), "-1 4 ");
    assert_string_equal(plan(&window, 1), "4:");
    log_window_free(&window);
}

static void test_refused(void **state)
{
    (void)state;
    struct log_window window;
    start(&window, false, 1);
    deliver(&window, 1, 3, 1);
    finish(&window, 3);
    finish(&window, 2);
    finish(&window, 1);
    log_window_refuse(&window, window.ready.first->next);
    assert_string_equal(ready(&window), "3 1 "); /* others are committed around it */
    assert_int_equal(window.with_loop, 1);
    assert_string_equal(plan(&window, 2), "2: 3-3");
    log_window_committed(&window, 2);
    finish(&window, 2);
    log_window_refuse(&window, window.ready.first);
    finish(&window, 2);
    assert_string_equal(plan(&window, 1), "4:");
    log_window_committed(&window, 1);
    assert_int_equal(window.size + window.uncommitted, 0);
    log_window_free(&window);
}

static void test_refused_in_order(void **state)
{
    (void)state;
    struct log_window window;
    start(&window, true, 1);
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

/* A linear congruential generator (Knuth, MMIX): the same history for the same seed everywhere. */
static int dice(uint64_t *state, int sides)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int)((*state >> 33) % (uint64_t)sides);
}

enum fate { NEVER, WITH_LOOP, FINISHED, COMMITTED, FOUND };

/* What became of each offset. */
struct model {
    bool ordered;
    enum fate fates[RECORDS_MAX];
    int64_t position, base; /* base: committed */
};

static void model_finish(struct model *model, struct log_window *window, int64_t offset)
{
    struct log_work *made = work(offset, 1);
    bool taken = log_window_finish(window, made);
    assert_int_equal(taken, model->fates[offset] == WITH_LOOP);
    if (taken)
        model->fates[offset] = FINISHED;
    else
        free(made);
}

/* A commit of the first `count`: the window says the same as the model does, and an ordered one keeps the order. */
static void model_commit(struct model *model, struct log_window *window, size_t count)
{
    static struct offset_map done;
    const struct log_work *one = window->ready.first;
    int64_t base = log_window_plan(window, count, &done), lowest = 0;
    for (size_t i = 0; i < count; i++, one = one->next) {
        assert_int_equal(model->fates[one->offset], FINISHED);
        for (int64_t below = 0; model->ordered && below < one->offset; below++)
            assert_true(model->fates[below] != WITH_LOOP && model->fates[below] != FINISHED);
        model->fates[one->offset] = COMMITTED;
    }
#define IS_DONE(o)                                                                                                     \
    ((o) < model->position ? model->fates[o] != WITH_LOOP && model->fates[o] != FINISHED                               \
                           : (o) < RECORDS_MAX && model->fates[o] == FOUND)
    while (IS_DONE(lowest))
        lowest++;
    assert_int_equal(base, lowest);
    assert_true(base >= model->base);
    for (int64_t o = base; o < RECORDS_MAX; o++)
        assert_int_equal(offset_map_has(&done, o - base), !model->ordered && IS_DONE(o));
    model->base = base;
    log_window_committed(window, count);
}

static void random_history(uint64_t seed, bool ordered)
{
    struct log_window window;
    struct model model = {.ordered = ordered};
    struct offset_map found = {.span = 0};
    for (int64_t i = 1; i < RECORDS_MAX && !ordered && seed % 2 == 0; i++) {
        if (dice(&seed, 100) < 30) {
            offset_map_mark(&found, i, i + 1);
            model.fates[i] = FOUND;
        }
    }
    log_window_start(&window, ordered, 0, &found);
    for (int step = 0; step < 1500; step++) {
        int what = dice(&seed, 10);
        if (what < 4) {
            int64_t offset = model.position + dice(&seed, 3);
            if (offset >= RECORDS_MAX)
                continue;
            bool is_new = model.fates[offset] == NEVER;
            assert_int_equal(log_window_deliver(&window, offset), is_new);
            model.position = offset + 1;
            if (is_new)
                model.fates[offset] = WITH_LOOP;
            assert_false(log_window_deliver(&window, offset));
        } else if (what < 9) {
            model_finish(&model, &window, dice(&seed, RECORDS_MAX));
        } else if (window.ready.count > 0) {
            model_commit(&model, &window, 1 + (size_t)dice(&seed, (int)window.ready.count));
        }
    }
    for (int64_t offset = 0; offset < RECORDS_MAX; offset++)
        model_finish(&model, &window, offset);
    model_commit(&model, &window, window.ready.count);
    assert_int_equal(window.uncommitted + window.size, 0);
    assert_true(model.base >= model.position);
    log_window_free(&window);
}

static void test_random_histories(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++)
        random_history(seed, seed % 3 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_found_at_assignment),
        cmocka_unit_test(test_too_far_for_a_map),
        cmocka_unit_test(test_ordered),
        cmocka_unit_test(test_unknown_work_is_not_taken),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_in_order),
        cmocka_unit_test(test_random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
