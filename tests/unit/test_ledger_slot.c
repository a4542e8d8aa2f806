/* Slots claimed in Redis, against a real one. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/ledger_fixture.h"
#include "tests/unit/redis_server.h"
#include "worker/io/ledger_slot.h"

/* Longer than it takes to find out that a server is gone and another one is there, on a busy machine. */
#define LONG_LEASE_MS 2000

static int64_t lease_ms;

static void claim(int index)
{
    ledger_slot_claim(ledger_slot(worker[index]), lease_ms, 0);
}

static int32_t number(int index)
{
    return ledger_slot_number(ledger_slot(worker[index]));
}

/* Waits until it has one. */
static int32_t claimed(int index)
{
    int64_t end_ms = ledger_fixture_mono_ms() + 10000;

    claim(index);
    while (number(index) == 0 && ledger_fixture_mono_ms() < end_ms)
        ledger_fixture_turn(20);
    return number(index);
}

static int64_t claim_ms(int index)
{
    int64_t began_ms = ledger_fixture_mono_ms();

    assert_true(claimed(index) > 0);
    return ledger_fixture_mono_ms() - began_ms;
}

static void test_lowest_free(void **state)
{
    (void)state;
    assert_int_equal(claimed(0), 1);
    assert_int_equal(claimed(1), 2);
    ledger_fixture_worker(2, "c", "c:1");
    assert_int_equal(claimed(2), 3);
    ledger_slot_release(ledger_slot(worker[1]));
    ledger_fixture_worker(3, "d", "d:1");
    assert_int_equal(claimed(3), 2);
    ledger_slot_release(ledger_slot(worker[1])); /* again: it is another's now, and stays it */
    ledger_fixture_run_for(50);
    assert_string_equal(redis_server_ask("EXISTS {test}:slot:2"), "1");
}

/* Held for many leases; that of one that is dead for one. */
static void test_renewed(void **state)
{
    (void)state;
    lease_ms = LONG_LEASE_MS;
    assert_int_equal(claimed(0), 1);
    ledger_fixture_run_for(2 * LONG_LEASE_MS);
    assert_int_equal(claimed(1), 2);
    ledger_fixture_close(0);
    ledger_fixture_worker(2, "c", "c:1");
    assert_int_equal(claimed(2), 3);
    ledger_fixture_run_for(LONG_LEASE_MS + 50);
    ledger_fixture_worker(3, "d", "d:1");
    assert_int_equal(claimed(3), 1);
}

/* A new life is one that is empty, or of another server. The first claim of all waits, too: nobody knows who lives. */
static void test_new_life(void **state)
{
    (void)state;
    lease_ms = LONG_LEASE_MS;
    assert_in_range(claim_ms(0), LONG_LEASE_MS - 50, 10000);
    (void)redis_server_ask("FLUSHALL");
    assert_in_range(claim_ms(1), LONG_LEASE_MS - 50, 10000);
    assert_int_equal(number(1), 2); /* worker 0 was there before */
    ledger_fixture_worker(2, "c", "c:1");
    assert_in_range(claim_ms(2), 0, LONG_LEASE_MS / 2); /* known by now */
    redis_server_kill();
    redis_server_again();
    for (int i = 0; i < 3; i++)
        assert_true(ledger_fixture_wait_up(i, true));
    ledger_fixture_worker(3, "d", "d:1");
    assert_in_range(claim_ms(3), LONG_LEASE_MS / 2, 10000);
    assert_int_equal(number(3), 4);
    for (int i = 0; i < 4; i++)
        assert_false(ledger_slot_lost(ledger_slot(worker[i])));
}

/* Frozen for longer than its lease. */
static void test_lost(void **state)
{
    (void)state;
    assert_int_equal(claimed(0), 1);
    (void)redis_server_ask("HSET {test}:slot:1 holder somebody");
    (void)redis_server_ask("PERSIST {test}:slot:1");
    for (int64_t end_ms = ledger_fixture_mono_ms() + 10000; ledger_fixture_mono_ms() < end_ms;) {
        if (ledger_slot_lost(ledger_slot(worker[0])))
            break;
        ledger_fixture_turn(20);
    }
    assert_true(ledger_slot_lost(ledger_slot(worker[0])));
    assert_int_equal(claimed(1), 2);
    assert_false(ledger_slot_lost(ledger_slot(worker[1])));
}

/* Away for longer than the lease, and nobody else came: it is his again. */
static void test_redis_away(void **state)
{
    (void)state;
    assert_int_equal(claimed(0), 1);
    redis_server_kill();
    ledger_fixture_run_for(2 * LEASE_MS);
    redis_server_again();
    assert_true(ledger_fixture_wait_up(0, true));
    ledger_fixture_run_for(2 * LEASE_MS);
    assert_string_equal(redis_server_ask("EXISTS {test}:slot:1"), "1");
    assert_false(ledger_slot_lost(ledger_slot(worker[0])));
}

static void test_all_taken(void **state)
{
    (void)state;
    assert_int_equal(claimed(0), 1);
    for (int i = 2; i <= LEDGER_SLOTS_MAX; i++)
        (void)redis_server_ask("HSET {test}:slot:%d holder somebody", i);
    claim(1);
    ledger_fixture_run_for(LEASE_MS);
    assert_int_equal(number(1), 0);
    (void)redis_server_ask("DEL {test}:slot:777");
    assert_int_equal(claimed(1), 777);
}

static int set_up(void **state)
{
    lease_ms = LEASE_MS;
    return ledger_fixture_set_up(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, ledger_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lowest_free), TEST(test_renewed),    TEST(test_new_life),
        TEST(test_lost),        TEST(test_redis_away), TEST(test_all_taken),
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
