/* Credits: who waits for what, whose turn it is, and that everything is given back. The loop is this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "worker/base/budget.h"
#include "worker/base/mem.h"
#include "worker/delivery.h"

#define COUNT_MAX 64
#define BUDGET ((size_t)64 << 20)

static const struct tool tools[] = {{.url = {"http://a:1/x", 12}}, {.url = {"http://b:1/x", 12}}};
static const struct call calls[] = {{.kind = CALL_TOOL, .tool = &tools[0]}, {.kind = CALL_TOOL, .tool = &tools[1]}};
static struct run run = {.deadline_at_ms = INT64_MAX};
static struct settings settings;
static struct worker worker;

static bool fetches;                                            /* what deliveries name is not in the cache */
static struct delivery *fetching[COUNT_MAX], *order[COUNT_MAX]; /* order: in which they came to their calls */
static int fetching_count, order_count, begun_count;
static size_t names[COUNT_MAX]; /* bytes that each names; its offset is its number */

void log_waiting(struct log *log, int32_t count)
{
    (void)log;
    (void)count;
}

void delivery_forget(struct delivery *delivery)
{
    assert_non_null(delivery->waits_at);
}

static void whole(struct delivery *delivery)
{
    if (credits_named(delivery, names[delivery->source.offset]) && credits_call(delivery))
        order[order_count++] = delivery;
}

void delivery_begin(struct delivery *delivery)
{
    if (!credits_begin(delivery))
        return;
    begun_count++;
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
    fetching_count = order_count = begun_count = 0;
    memset(names, 0, sizeof(names));
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

/* Comes from the log, as the nth; `to`: which tool it calls. */
static struct delivery *deliver(int to)
{
    struct delivery *delivery = mem_new(sizeof(*delivery));
    *delivery = (struct delivery){
        .worker = &worker, .next = worker.deliveries, .arena = arena_new(), .run = &run, .call = &calls[to]};
    delivery->source.offset = worker.deliveries_count++;
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

/* What they name is known when they were decoded. Those for which there is no memory give all back, and begin when there is. */
static void test_what_is_named_counts(void **state)
{
    (void)state;
    budget_open((int64_t)BUDGET);
    settings.calls_per_endpoint = 100;
    fetches = true;
    for (int i = 0; i < COUNT_MAX; i++) {
        names[i] = (size_t)1 << 20;
        deliver(0);
    }
    assert_int_equal(fetching_count, COUNT_MAX);
    all_fetched();
    for (int ended = 0; ended < COUNT_MAX; ended++) {
        size_t used = (size_t)budget_used(BUDGET_STEPS);
        assert_in_range(used, 1, BUDGET / 8 * 5); /* up to the mark, and one */
        assert_true(order_count > ended);
        assert_true(order_count == COUNT_MAX || used > BUDGET / 8 * 3);
        credits_release(order[ended]);
        credits_tick(&worker, 0);
        all_fetched();
    }
    assert_in_range(begun_count, COUNT_MAX, 2 * COUNT_MAX); /* once to see how large it is */
}

/* Small ones take all that comes back; it gets its turn although it would never fit among them. */
static void test_a_large_one_among_small_ones(void **state)
{
    (void)state;
    budget_open((int64_t)BUDGET);
    for (int i = 2; i < COUNT_MAX; i++)
        names[i] = (size_t)2 << 20;
    struct delivery *first = deliver(0);
    names[1] = (size_t)32 << 20; /* as much as a run may name: many times what the budget has */
    const struct delivery *large = deliver(0);
    assert_non_null(large->waits_at);
    settings.calls_per_endpoint = 100;
    int small = order_count;
    while (worker.deliveries_count < 20) /* they have all the memory, and some wait */
        deliver(1);
    credits_release(first);
    for (; large->calls_at == NULL; small++) {
        assert_in_range(worker.deliveries_count, 0, COUNT_MAX - 1);
        deliver(1);
        credits_release(order[small]);
        credits_tick(&worker, 0);
    }
    assert_true(budget_admits(BUDGET_READ_ONE, 4 << 20)); /* its answer can be read beside it */
}

/* What others hold may be held for long; one step event goes on all the same. */
static void test_one_at_least(void **state)
{
    (void)state;
    budget_open((int64_t)BUDGET);
    budget_take(BUDGET_STEPS, BUDGET);
    assert_null(deliver(0)->waits_at);
    assert_int_equal(order_count, 1);
    assert_non_null(deliver(0)->waits_at);
    budget_give(BUDGET_STEPS, BUDGET);
}

/* What a request really takes is counted when it is made, as far as answers can still be read beside it. */
static void test_what_a_request_takes(void **state)
{
    (void)state;
    budget_open((int64_t)BUDGET);
    struct delivery *delivery = deliver(0);
    int64_t before = budget_used(BUDGET_STEPS);
    credits_calling(delivery, (size_t)1 << 20);
    assert_in_range(budget_used(BUDGET_STEPS), before + (1 << 20) - (64 << 10), before + (1 << 20) + (64 << 10));
    int64_t counted = budget_used(BUDGET_STEPS);
    budget_take(BUDGET_ANSWERS, BUDGET);
    credits_calling(delivery, (size_t)2 << 20);
    assert_int_equal(budget_used(BUDGET_STEPS), counted);
    budget_give(BUDGET_ANSWERS, BUDGET);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test_setup_teardown(test_a_turn_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_is_overtaken_from_the_entry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_entry_and_endpoints_take_turns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_turn_that_is_not_used, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_named_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_large_one_among_small_ones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_at_least, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_request_takes, set_up, tear_down),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
