/* States of waiting steps that are made whole: how many at a time, and what they take from the budget. Fetching is this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "worker/base/budget.h"
#include "worker/inbox.h"

#define BUDGET ((size_t)64 << 20)
#define SIZE ((size_t)1 << 18) /* of what each names: memory for more than are made whole at a time */
#define AT_A_TIME 16

static struct {
    payload_done done;
    void *context;
    bool cancelled;
} fetches[2 * AT_A_TIME];
static size_t fetches_count, named = SIZE;

static struct worker worker;
static struct inbox inboxes[2];
static struct arena *arena;

struct resolve *payload_resolve(struct payloads *payloads, struct run *run, struct arena *of, payload_more more,
                                payload_done done, void *context)
{
    (void)payloads;
    (void)run;
    (void)of;
    assert_true(more(context, named));
    fetches[fetches_count].done = done;
    fetches[fetches_count].context = context;
    fetches[fetches_count].cancelled = false;
    return (void *)&fetches[fetches_count++];
}

void payload_cancel(struct resolve *resolve)
{
    for (size_t i = 0; i < fetches_count; i++)
        if ((void *)&fetches[i] == (void *)resolve)
            fetches[i].cancelled = true;
}

static int set_up(void **state)
{
    struct error error;
    (void)state;
    assert_true(record_open(&error));
    budget_open((int64_t)BUDGET);
    arena = arena_new();
    worker = (struct worker){.bodies = keeper_bodies_new(SIZE_MAX)};
    for (size_t i = 0; i < 2; i++)
        inboxes[i] = (struct inbox){.keeper = keeper_new(1000, worker.bodies)};
    fetches_count = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        wake_drop(&inboxes[i]);
        keeper_free(inboxes[i].keeper);
    }
    keeper_bodies_free(worker.bodies);
    arena_free(arena);
    assert_int_equal(worker.fetching, 0);
    assert_int_equal(budget_used(BUDGET_STEPS), 0);
    budget_open(0);
    record_close();
    return 0;
}

/* One more step that waits in the first partition is begun to be made whole. */
static struct waking *begin(void)
{
    struct run run = {.id = arena_printf(arena, "run-%zu", fetches_count), .at = {.judging = -1}};
    struct arena *own = arena_new();
    struct step_parked *step = ARENA_NEW(own, struct step_parked);
    struct buf event;
    struct error error;
    buf_init(&event, SIZE);
    assert_true(record_encode(RECORD_STEP_READY, &run, &event, &error));
    *step = (struct step_parked){.run = run.id, .branch = STR(""), .event = arena_str(own, buf_str(&event))};
    buf_free(&event);
    keeper_put_parked(inboxes[0].keeper, step, step->event);
    return wake_begin(&worker, &inboxes[0], keeper_parked(inboxes[0].keeper, run.id, STR("")), step, own);
}

static void test_so_many_at_a_time(void **state)
{
    (void)state;
    assert_true(wake_may(&worker, &inboxes[0]));
    struct waking *first = begin();
    assert_false(wake_ready(first));
    for (int i = 1; i < AT_A_TIME; i++) {
        assert_true(wake_may(&worker, &inboxes[0]));
        assert_false(wake_ready(begin()));
    }
    assert_false(wake_may(&worker, &inboxes[0]));
    assert_true(wake_may(&worker, &inboxes[1])); /* one of each partition always */
    assert_in_range(budget_used(BUDGET_STEPS), AT_A_TIME * SIZE, AT_A_TIME * SIZE * 5 / 2);
    fetches[0].done(fetches[0].context, NULL);
    assert_true(wake_ready(first));
    assert_int_equal(inboxes[0].fetching, AT_A_TIME - 1);
    wake_free(first);
    assert_true(wake_may(&worker, &inboxes[0]));
}

static void test_one_when_there_is_no_memory(void **state)
{
    (void)state;
    budget_take(BUDGET_COMMITS, BUDGET);
    for (int i = 0; i < 2; i++) {
        assert_true(wake_may(&worker, &inboxes[0]));
        struct waking *waking = begin();
        assert_false(wake_ready(waking));
        assert_false(wake_may(&worker, &inboxes[0]));
        fetches[i].done(fetches[i].context, NULL);
        assert_true(wake_ready(waking));
    }
    budget_give(BUDGET_COMMITS, BUDGET);
}

static void test_the_partition_is_let_go(void **state)
{
    (void)state;
    assert_false(wake_ready(begin()));
    assert_false(wake_ready(begin()));
    fetches[1].done(fetches[1].context, NULL);
    wake_drop(&inboxes[0]);
    assert_true(fetches[0].cancelled);
    assert_false(fetches[1].cancelled);
}

/* However much one names, an answer can still be read beside it. */
static void test_a_large_one(void **state)
{
    (void)state;
    named = BUDGET;
    assert_false(wake_ready(begin()));
    assert_true(budget_admits(BUDGET_BEGIN, 0) && budget_admits(BUDGET_READ_ONE, 1 << 20));
    named = SIZE;
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test_setup_teardown(test_so_many_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_when_there_is_no_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_partition_is_let_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_large_one, set_up, tear_down),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
