/* Credits: who waits for what, whose turn it is, and that everything is given back. The loop is this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/base/budget.h"
#include "worker/base/mem.h"
#include "worker/delivery.h"

#define COUNT_MAX 32

static const struct tool tools[] = {{.url = {"http://a:1/x", 12}}, {.url = {"http://b:1/x", 12}}};
static const struct call calls[] = {{.kind = CALL_TOOL, .tool = &tools[0]}, {.kind = CALL_TOOL, .tool = &tools[1]}};
static struct run run = {.deadline_at_ms = INT64_MAX};
static struct settings settings;
static struct worker worker;

static bool fetches;                                            /* what deliveries name is not in the cache */
static struct delivery *fetching[COUNT_MAX], *order[COUNT_MAX]; /* order: in which they came to their calls */
static int fetching_count, order_count;

void log_waiting(struct log *log, int32_t count)
{
    (void)log;
    (void)count;
}

static void whole(struct delivery *delivery)
{
    if (credits_call(delivery))
        order[order_count++] = delivery;
}

void delivery_begin(struct delivery *delivery)
{
    if (!credits_begin(delivery))
        return;
    if (fetches)
        fetching[fetching_count++] = delivery;
    else
        whole(delivery);
}

static int set_up(void **state)
{
    (void)state;
    settings = (struct settings){.in_flight_max = 100, .calls_per_endpoint = 1};
    worker = (struct worker){.settings = &settings, .credits = credits_new()};
    fetches = false;
    fetching_count = order_count = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    while (worker.deliveries != NULL) {
        struct delivery *delivery = worker.deliveries;
        worker.deliveries = delivery->next;
        credits_release(delivery);
        arena_free(delivery->arena);
        mem_free(delivery);
    }
    credits_free(worker.credits);
    assert_int_equal(budget_used(BUDGET_STEPS), 0);
    budget_open(0);
    return 0;
}

/* Comes from the log; `to`: which tool it calls. */
static struct delivery *deliver(int to)
{
    struct delivery *delivery = mem_new(sizeof(*delivery));
    *delivery = (struct delivery){
        .worker = &worker, .next = worker.deliveries, .arena = arena_new(), .run = &run, .call = &calls[to]};
    worker.deliveries = delivery;
    delivery_begin(delivery);
    return delivery;
}

static void all_fetched(void)
{
    int count = fetching_count;
    fetching_count = 0;
    for (int i = 0; i < count; i++)
        whole(fetching[i]);
}

static int begun(void)
{
    int count = 0;
    for (const struct delivery *delivery = worker.deliveries; delivery != NULL; delivery = delivery->next)
        count += delivery->in_flight;
    return count;
}

/* However long it takes to fetch what it names, and however many wait. */
static void test_a_turn_is_kept(void **state)
{
    (void)state;
    struct delivery *all[6];
    for (int i = 0; i < 6; i++)
        all[i] = deliver(0);
    assert_int_equal(order_count, 1);
    fetches = true;
    for (int i = 1; i < 6; i++) {
        credits_release(order[i - 1]);
        credits_tick(&worker, 0);
        assert_int_equal(fetching_count, 1); /* as many as there are credits */
        all_fetched();
        assert_int_equal(order_count, i + 1);
        assert_ptr_equal(order[i], all[i]);
    }
}

/* Whoever comes through the entry comes after those that have waited at the endpoint. */
static void test_nobody_is_overtaken_from_the_entry(void **state)
{
    (void)state;
    settings.in_flight_max = 2;
    struct delivery *first = deliver(0), *second = deliver(0);
    deliver(1);
    struct delivery *third = deliver(0); /* two are in flight */
    credits_release(first);
    for (int i = 0; i < 2; i++)
        credits_tick(&worker, 0);
    assert_int_equal(order_count, 3);
    assert_ptr_equal(order[2], second);
    credits_release(second);
    for (int i = 0; i < 2; i++)
        credits_tick(&worker, 0);
    assert_int_equal(order_count, 4);
    assert_ptr_equal(order[3], third);
}

static void test_the_entry_and_endpoints_take_turns(void **state)
{
    (void)state;
    settings.in_flight_max = 1;
    struct delivery *orphan = deliver(0);
    credits_let_go(orphan); /* it still has the endpoint */
    for (int i = 0; i < 3; i++)
        deliver(0);
    struct delivery *other = deliver(1);
    for (int i = 0; i < 3; i++)
        deliver(1);
    credits_release(orphan);
    credits_release(other);
    assert_int_equal(begun(), 0);
    int of_the_entry = 0;
    for (int i = 2; i < 8; i++) {
        credits_tick(&worker, 0);
        assert_int_equal(order_count, i + 1);
        of_the_entry += order[i]->call == &calls[1];
        if (i % 2 == 1)
            assert_int_equal(of_the_entry, i / 2);
        credits_release(order[i]);
    }
}

/* No call: it was decided to another end, wants another endpoint now, or may not begin. */
static void test_a_turn_that_is_not_used(void **state)
{
    (void)state;
    struct delivery *all[5];
    for (int i = 0; i < 5; i++)
        all[i] = deliver(0);
    fetches = true;
    credits_release(all[0]);
    credits_tick(&worker, 0);
    assert_ptr_equal(fetching[0], all[1]);
    credits_release(all[1]); /* the end of its run */
    credits_tick(&worker, 0);
    assert_ptr_equal(fetching[1], all[2]);
    all[2]->call = &calls[1];
    fetching_count = 0;
    whole(all[2]);
    assert_ptr_equal(order[1], all[2]);
    credits_tick(&worker, 0);
    assert_ptr_equal(fetching[0], all[3]);
    credits_pass(all[3]); /* another one runs alone */
    credits_tick(&worker, 0);
    assert_ptr_equal(fetching[1], all[4]);
    whole(all[4]);
    assert_ptr_equal(order[2], all[4]);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test_setup_teardown(test_a_turn_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_is_overtaken_from_the_entry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_entry_and_endpoints_take_turns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_turn_that_is_not_used, set_up, tear_down),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
