/* The ledger's leases and stored results of reads, against a real Redis. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/ledger_fixture.h"
#include "tests/unit/redis_server.h"

static struct told waiting; /* of an operation that is under way */

static struct ledger_op *begin_lease(int index, const char *key)
{
    waiting = (struct told){0};
    return ledger_lease(worker[index], str_of(key), ledger_fixture_told, &waiting);
}

static int64_t number_of(const char *text)
{
    return strtoll(text, NULL, 10);
}

static void test_stored(void **state)
{
    struct told told;

    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    ledger_store(worker[0], STR("k"), STR("200 x\n{}"));
    told = lease(1, "k");
    expect(told, LEDGER_STORED);
    assert_string_equal(told.result, "200 x\n{}");
    expect(lease(0, "k"), LEDGER_STORED);
    assert_in_range(number_of(redis_server_ask("PTTL {test}:r:k")), 24LL * 3600 * 1000 - 5000, 24LL * 3600 * 1000);
    ledger_store(worker[1], STR("k"), STR("other")); /* the first stays: somebody may have gone on with it */
    ledger_fixture_run_for(20);
    assert_string_equal(lease(0, "k").result, "200 x\n{}");
    ledger_store(worker[1], STR("k"), STR_NONE); /* nothing to give back */
    ledger_fixture_run_for(20);
    expect(lease(0, "k"), LEDGER_STORED);
}

static void test_waits_for_the_result(void **state)
{
    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    assert_non_null(begin_lease(1, "k"));
    ledger_fixture_run_for(3 * LEASE_MS); /* renewed all the while */
    assert_int_equal(waiting.times, 0);
    ledger_store(worker[0], STR("k"), STR("answer"));
    ledger_fixture_run_until(&waiting);
    expect(waiting, LEDGER_STORED);
    assert_string_equal(waiting.result, "answer");
}

static void test_waits_for_a_failure(void **state)
{
    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    assert_non_null(begin_lease(1, "k"));
    ledger_fixture_run_for(50);
    ledger_store(worker[0], STR("k"), STR_NONE);
    ledger_fixture_run_until(&waiting);
    expect(waiting, LEDGER_GO);
}

static void test_waits_for_a_dead_holder(void **state)
{
    int64_t began_ms;

    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    began_ms = ledger_fixture_mono_ms();
    ledger_fixture_close(0);
    assert_non_null(begin_lease(1, "k"));
    ledger_fixture_run_until(&waiting);
    expect(waiting, LEDGER_GO);
    assert_in_range(ledger_fixture_mono_ms() - began_ms, LEASE_MS - 50, 20 * LEASE_MS);
}

/* The same slot with another holder: the process that ran here before, and is dead. */
static void test_own_dead_self(void **state)
{
    int64_t began_ms;

    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    ledger_fixture_close(0);
    ledger_fixture_worker(2, "a", "a:2");
    began_ms = ledger_fixture_mono_ms();
    expect(lease(2, "k"), LEDGER_GO);
    assert_true(ledger_fixture_mono_ms() - began_ms < LEASE_MS);
}

/* The same process asks twice: the partition went, and came back. */
static void test_own_lease(void **state)
{
    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    assert_non_null(begin_lease(0, "k"));
    ledger_fixture_run_for(2 * LEASE_MS);
    assert_int_equal(waiting.times, 0);
    ledger_store(worker[0], STR("k"), STR("answer"));
    ledger_fixture_run_until(&waiting);
    expect(waiting, LEDGER_STORED);
}

static void test_cancel(void **state)
{
    struct told never = {0};
    struct ledger_op *op;

    (void)state;
    ledger_cancel(ledger_lease(worker[0], STR("k"), ledger_fixture_told, &never)); /* its answer is on the way */
    ledger_fixture_run_for(30);
    assert_string_equal(redis_server_ask("EXISTS {test}:r:k"), "0"); /* given back */
    expect(lease(0, "k"), LEDGER_GO);
    op = begin_lease(1, "k");
    ledger_fixture_run_for(50);
    ledger_cancel(op); /* it waits */
    ledger_store(worker[0], STR("k"), STR("answer"));
    ledger_fixture_run_for(300);
    assert_int_equal(waiting.times, 0);
    assert_int_equal(never.times, 0);
}

/* Emptied under a running call: the lease is there again with its next renewal. */
static void test_wipe(void **state)
{
    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    (void)redis_server_ask("FLUSHALL");
    ledger_fixture_run_for(LEASE_MS);
    assert_non_null(begin_lease(1, "k"));
    ledger_fixture_run_for(2 * LEASE_MS);
    assert_int_equal(waiting.times, 0);
    ledger_store(worker[0], STR("k"), STR("answer"));
    ledger_fixture_run_until(&waiting);
    expect(waiting, LEDGER_STORED);
}

static void test_many(void **state)
{
    static struct told told[500];

    (void)state;
    memset(told, 0, sizeof told);
    for (int i = 0; i < 500; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "k%d", i);
        (void)ledger_lease(worker[0], str_of(key), ledger_fixture_told, &told[i]);
    }
    for (int i = 0; i < 500; i++) {
        ledger_fixture_run_until(&told[i]);
        expect(told[i], LEDGER_GO);
    }
    ledger_fixture_run_for(3 * LEASE_MS);
    assert_string_equal(redis_server_ask("DBSIZE"), "501"); /* all renewed; and the incarnation */
    for (int i = 0; i < 500; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "k%d", i);
        ledger_store(worker[0], str_of(key), i % 2 == 0 ? STR("x") : STR_NONE);
    }
    ledger_fixture_run_for(100);
    assert_string_equal(redis_server_ask("DBSIZE"), "251");
}

/* Redis goes away while somebody waits for another's lease: told at once. */
static void test_down_while_waiting(void **state)
{
    (void)state;
    expect(lease(0, "k"), LEDGER_GO);
    assert_non_null(begin_lease(1, "k"));
    ledger_fixture_run_for(50);
    redis_server_kill();
    ledger_fixture_run_until(&waiting);
    expect(waiting, LEDGER_DOWN);
    expect(lease(1, "k"), LEDGER_DOWN);
    ledger_store(worker[0], STR("k"), STR("lost")); /* not awaited, and lost: it costs a call that is made again */
    redis_server_again();
    assert_true(ledger_fixture_wait_up(1, true));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ledger_fixture_set_up, ledger_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stored),
        TEST(test_waits_for_the_result),
        TEST(test_waits_for_a_failure),
        TEST(test_waits_for_a_dead_holder),
        TEST(test_own_dead_self),
        TEST(test_own_lease),
        TEST(test_cancel),
        TEST(test_wipe),
        TEST(test_many),
        TEST(test_down_while_waiting),
    };
    int failed;

    if (!redis_server_start()) {
        print_message("[  SKIPPED ] there is no redis-server here\n");
        return 0;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    redis_server_end();
    return failed;
}
