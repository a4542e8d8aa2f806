/* The ledger's rules for writes (section 5 of the design), against a real Redis. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/ledger_fixture.h"
#include "tests/unit/redis_server.h"
#include "worker/io/clock.h"

#define LONG_MS 60000
#define CLOSE_MS 5000 /* what counts as the same time, on a busy machine; LONG_MS differs by far more */

static void test_once(void **state)
{
    int64_t before_boot_ms = clock_boot_ms(), before_wall_ms = clock_wall_ms();
    struct told told = reserve(0, "k", 2000);

    (void)state;
    expect(told, LEDGER_GO);
    assert_true(told.fence > 0);
    assert_in_range(told.send_until_boot_ms, before_boot_ms + 1000, clock_boot_ms() + 1000);
    assert_in_range(told.until_ms, before_wall_ms + 2000 + SETTLE_MS, clock_wall_ms() + 2000 + SETTLE_MS);
    assert_string_equal(redis_server_ask("HGET {test}:w:k state"), "reserved");
    assert_string_equal(redis_server_ask("HGET {test}:w:k holder"), "a:1");
    expect(complete(0, "k", told.fence, "200 x\n{}"), LEDGER_GO);
    assert_string_equal(redis_server_ask("PTTL {test}:w:k"), "-1"); /* nothing expires under an open run */
    for (int i = 0; i < 2; i++) {
        told = reserve(i, "k", 2000);
        expect(told, LEDGER_STORED);
        assert_string_equal(told.result, "200 x\n{}");
        expect(takeover(i, "k", 2000), LEDGER_STORED);
    }
}

/* By another, and by ourselves (the same call, asked for again): in doubt, at any delivery, suspect or not. */
static void test_reserved(void **state)
{
    int64_t until_ms = reserve(0, "k", LONG_MS).until_ms;

    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int suspect = 0; suspect < 2; suspect++) {
            struct told told = reserve_suspect(i, "k", 100, suspect ? ledger_incarnation(worker[i]) : NULL);

            expect(told, LEDGER_DOUBT);
            assert_in_range(told.until_ms, until_ms - CLOSE_MS, until_ms + CLOSE_MS); /* the record's, not ours */
            assert_string_equal(told.reason, "reserved by a:1, whose result is not known");
        }
    }
}

/* It stays in doubt when its time has passed: only takeover may act then. */
static void test_reserved_and_over(void **state)
{
    struct told told;

    (void)state;
    expect(reserve(0, "k", 10), LEDGER_GO);
    ledger_fixture_run_for(10 + SETTLE_MS + 20);
    told = reserve(1, "k", 10);
    expect(told, LEDGER_DOUBT);
    assert_true(told.until_ms <= clock_wall_ms());
}

static void test_not_done(void **state)
{
    struct told first = reserve(0, "k", LONG_MS), second;

    (void)state;
    expect(complete(0, "k", first.fence, NULL), LEDGER_GO);
    assert_string_equal(redis_server_ask("HGET {test}:w:k state"), "not_done");
    second = reserve(1, "k", LONG_MS);
    expect(second, LEDGER_GO);
    assert_true(second.fence > first.fence);
    expect(complete(0, "k", first.fence, "late"), LEDGER_REFUSED);
    expect(complete(1, "k", second.fence, "in time"), LEDGER_GO);
    assert_string_equal(reserve(0, "k", 1).result, "in time");
}

static void test_takeover(void **state)
{
    struct told first = reserve(0, "k", 100), told;

    (void)state;
    told = takeover(1, "k", LONG_MS);
    expect(told, LEDGER_DOUBT); /* not yet */
    assert_in_range(told.until_ms, first.until_ms - CLOSE_MS, first.until_ms + CLOSE_MS);
    ledger_fixture_run_for(told.until_ms - clock_wall_ms());
    told = takeover(1, "k", 100);
    expect(told, LEDGER_GO);
    assert_true(told.fence > first.fence);
    expect(takeover(0, "k", 100), LEDGER_DOUBT); /* one at a time */
    expect(complete(0, "k", first.fence, "late"), LEDGER_REFUSED);
    expect(complete(0, "k", first.fence, NULL), LEDGER_REFUSED);
    expect(complete(1, "k", told.fence, "probed"), LEDGER_GO);
    assert_string_equal(takeover(0, "k", 100).result, "probed");
}

static void test_takeover_by_the_same(void **state)
{
    struct told first = reserve(0, "k", 10), second;

    (void)state;
    ledger_fixture_run_for(10 + SETTLE_MS + 20);
    second = takeover(0, "k", 10);
    expect(second, LEDGER_GO);
    assert_true(second.fence > first.fence);
    expect(complete(0, "k", first.fence, "late"), LEDGER_REFUSED);
}

static void test_takeover_of_not_done(void **state)
{
    struct told first = reserve(0, "k", LONG_MS), told;

    (void)state;
    expect(complete(0, "k", first.fence, NULL), LEDGER_GO);
    told = takeover(1, "k", LONG_MS);
    expect(told, LEDGER_GO);
    assert_true(told.fence > first.fence);
}

/* The record is gone: somebody emptied Redis. Everybody waits, for the same time. */
static void test_takeover_of_nothing(void **state)
{
    struct told told = takeover(0, "k", 100), other = takeover(1, "k", LONG_MS);

    (void)state;
    expect(told, LEDGER_DOUBT);
    expect(other, LEDGER_DOUBT);
    assert_in_range(other.until_ms, told.until_ms - CLOSE_MS, told.until_ms + CLOSE_MS);
    assert_non_null(strstr(told.reason, "lost"));
    ledger_fixture_run_for(told.until_ms - clock_wall_ms() + 10);
    expect(takeover(1, "k", 100), LEDGER_GO);
}

static void test_complete(void **state)
{
    struct told told = reserve(0, "k", LONG_MS);

    (void)state;
    for (int i = 0; i < 3; i++)
        expect(complete(0, "k", told.fence, "first"), LEDGER_GO); /* the answer may have been lost: again */
    expect(complete(0, "k", told.fence, "other"), LEDGER_GO);
    expect(complete(0, "k", told.fence, NULL), LEDGER_GO); /* what is done stays done */
    assert_string_equal(reserve(1, "k", 1).result, "first");
    expect(complete(0, "gone", 7, "stored"), LEDGER_GO); /* a record that vanished */
    assert_string_equal(reserve(1, "gone", 1).result, "stored");
    expect(complete(0, "gone2", 7, NULL), LEDGER_GO);
    expect(reserve_suspect(1, "gone2", 1, ledger_incarnation(worker[1])), LEDGER_GO); /* known not to have happened */
    expect(complete(0, "older", 7, NULL), LEDGER_GO);
    expect(reserve_suspect(1, "older", 1, "other-server"), LEDGER_DOUBT); /* by that record; a later one may be lost */
    told = reserve(0, "empty", LONG_MS);
    expect(complete(0, "empty", told.fence, ""), LEDGER_GO);
    expect(reserve(1, "empty", 1), LEDGER_STORED);
}

/* Who finds no record, and when that means doubt. */
static void test_no_record(void **state)
{
    char same[100], other_value[100], other_server[100], half[100];
    const char *const run_id = strchr(ledger_incarnation(worker[0]), '-');
    const struct {
        const char *incarnation; /* NULL = not suspect */
        enum ledger_verdict verdict;
    } cases[] = {
        {NULL, LEDGER_GO},          {same, LEDGER_GO},   {other_value, LEDGER_DOUBT}, {other_server, LEDGER_DOUBT},
        {"", LEDGER_DOUBT},         {"-", LEDGER_DOUBT}, {half, LEDGER_DOUBT},        {run_id, LEDGER_DOUBT},
        {"nonsense", LEDGER_DOUBT},
    };

    (void)state;
    (void)snprintf(same, sizeof same, "%s", ledger_incarnation(worker[0]));
    (void)snprintf(other_value, sizeof other_value, "00112233445566778899aabbccddeeff%s", run_id);
    (void)snprintf(other_server, sizeof other_server, "%.32s-0123456789012345678901234567890123456789", same);
    (void)snprintf(half, sizeof half, "%.32s", same);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char key[16];
        struct told told;

        (void)snprintf(key, sizeof key, "k%zu", i);
        told = reserve_suspect(0, key, LONG_MS, cases[i].incarnation);
        if (told.verdict != cases[i].verdict)
            fail_msg("%s: verdict %d", cases[i].incarnation, told.verdict);
        if (told.verdict == LEDGER_DOUBT) { /* and the others wait for the same time */
            struct told other = reserve(1, key, 1);

            expect(other, LEDGER_DOUBT);
            assert_in_range(other.until_ms, told.until_ms - CLOSE_MS, told.until_ms + CLOSE_MS);
        }
    }
}

/* A replica that lagged took over: it says "not done", or an old time, of a call that was made since. */
static void test_older_than_what_was_done(void **state)
{
    struct told told = reserve(0, "not done", LONG_MS);

    (void)state;
    expect(complete(0, "not done", told.fence, NULL), LEDGER_GO);
    expect(reserve(0, "over", 1), LEDGER_GO);
    ledger_fixture_run_for(1 + SETTLE_MS + 20);
    for (int i = 0; i < 2; i++) {
        told = reserve_suspect(1, i == 0 ? "not done" : "over", LONG_MS, "of-another-server");
        expect(told, LEDGER_DOUBT);
        assert_true(told.until_ms > clock_wall_ms() + LONG_MS / 2); /* a whole time */
    }
    told = reserve(0, "done", LONG_MS);
    expect(complete(0, "done", told.fence, "result"), LEDGER_GO);
    expect(reserve_suspect(1, "done", LONG_MS, "of-another-server"), LEDGER_STORED);
}

/* FLUSHALL under running workers: what was reserved before is in doubt, what was not goes on. */
static void test_wipe(void **state)
{
    char before[100];
    struct told held, told;

    (void)state;
    (void)snprintf(before, sizeof before, "%s", ledger_incarnation(worker[0]));
    held = reserve(0, "k", LONG_MS);
    expect(held, LEDGER_GO);
    (void)redis_server_ask("FLUSHALL");
    told = reserve_suspect(1, "k", LONG_MS, before); /* worker 0 died: its event comes again */
    expect(told, LEDGER_DOUBT);
    assert_string_not_equal(ledger_incarnation(worker[1]), before);
    expect(reserve(1, "other", LONG_MS), LEDGER_GO);
    expect(reserve_suspect(1, "new", LONG_MS, ledger_incarnation(worker[1])), LEDGER_GO);
    /* It was alive after all, and has the answer: nobody holds the new record, so the answer is stored. */
    expect(complete(0, "k", held.fence, "answer"), LEDGER_GO);
    assert_string_equal(takeover(1, "k", 1).result, "answer");
}

static void test_wipe_is_noticed(void **state)
{
    char before[100], key[40];

    (void)state;
    (void)snprintf(before, sizeof before, "%s", ledger_incarnation(worker[0]));
    (void)snprintf(key, sizeof key, "{test}:incarnation");
    assert_memory_equal(redis_server_ask("GET %s", key), before, 32);
    assert_string_equal(ledger_incarnation(worker[1]), before); /* all know the same */
    (void)redis_server_ask("FLUSHALL");
    ledger_fixture_run_for(1300); /* without any call: it looks each second */
    assert_string_not_equal(ledger_incarnation(worker[0]), before);
    assert_string_equal(ledger_incarnation(worker[0]), ledger_incarnation(worker[1]));
    assert_memory_equal(redis_server_ask("GET %s", key), ledger_incarnation(worker[0]), 32);
}

/* After a wipe the other worker's fence is higher, though it began anew. */
static void test_fences_outlive_a_wipe(void **state)
{
    struct told first = reserve(0, "k", 10), second;

    (void)state;
    ledger_fixture_run_for(5);
    (void)redis_server_ask("FLUSHALL");
    second = reserve(1, "k", LONG_MS); /* not suspect: surely nobody before */
    expect(second, LEDGER_GO);
    assert_true(second.fence > first.fence);
    expect(complete(0, "k", first.fence, "late"), LEDGER_REFUSED);
}

/* Many keys, two workers at once: each key goes to exactly one. */
static void test_race(void **state)
{
    static struct told told[2][300];
    int go = 0, doubt = 0;

    (void)state;
    memset(told, 0, sizeof told);
    for (int key = 0; key < 300; key++) {
        for (int i = 0; i < 2; i++) {
            char name[16];
            int index = (key + i) % 2;

            (void)snprintf(name, sizeof name, "k%d", key);
            (void)ledger_reserve(worker[index], STR("run"), str_of(name), LONG_MS, false, STR_NONE, ledger_fixture_told,
                                 &told[index][key]);
        }
    }
    for (int key = 0; key < 300; key++) {
        for (int i = 0; i < 2; i++) {
            ledger_fixture_run_until(&told[i][key]);
            go += told[i][key].verdict == LEDGER_GO;
            doubt += told[i][key].verdict == LEDGER_DOUBT;
        }
        assert_int_equal(go, key + 1);
        assert_int_equal(doubt, key + 1);
    }
}

static void test_race_to_take_over(void **state)
{
    struct told told[2] = {{0}};

    (void)state;
    expect(reserve(0, "k", 10), LEDGER_GO);
    ledger_fixture_run_for(10 + SETTLE_MS + 20);
    for (int i = 0; i < 2; i++)
        (void)ledger_takeover(worker[i], STR("run"), STR("k"), LONG_MS, ledger_fixture_told, &told[i]);
    for (int i = 0; i < 2; i++)
        ledger_fixture_run_until(&told[i]);
    assert_int_equal((told[0].verdict == LEDGER_GO) + (told[1].verdict == LEDGER_GO), 1);
    assert_int_equal((told[0].verdict == LEDGER_DOUBT) + (told[1].verdict == LEDGER_DOUBT), 1);
}

/* Whoever asked went away: what the answer brings is given back. */
static void test_cancel(void **state)
{
    struct told never = {0};

    (void)state;
    ledger_cancel(NULL);
    ledger_cancel(
        ledger_reserve(worker[0], STR("run"), STR("k"), LONG_MS, false, STR_NONE, ledger_fixture_told, &never));
    ledger_fixture_run_for(100);
    assert_string_equal(redis_server_ask("HGET {test}:w:k state"), "not_done");
    expect(reserve(1, "k", LONG_MS), LEDGER_GO);
    /* After a takeover it stays in doubt: somebody acted before. But nobody since, so we need not wait once more. */
    expect(reserve(0, "t", 10), LEDGER_GO);
    ledger_fixture_run_for(10 + SETTLE_MS + 20);
    ledger_cancel(ledger_takeover(worker[0], STR("run"), STR("t"), LONG_MS, ledger_fixture_told, &never));
    ledger_fixture_run_for(100);
    assert_string_equal(redis_server_ask("HGET {test}:w:t state"), "reserved");
    expect(reserve(0, "t", LONG_MS), LEDGER_DOUBT);
    expect(takeover(1, "t", LONG_MS), LEDGER_DOUBT);
    expect(takeover(0, "t", LONG_MS), LEDGER_GO);
    expect(takeover(0, "t", LONG_MS), LEDGER_DOUBT); /* that one was told */
    assert_int_equal(never.times, 0);
}

static void test_large_results(void **state)
{
    size_t size = ((size_t)1 << 20) + 100;
    char *result = malloc(size + 1);
    struct told told = reserve(0, "k", LONG_MS);
    struct told stored = {0};
    uint64_t sum = 0;

    (void)state;
    assert_non_null(result);
    for (size_t i = 0; i < size; i++) {
        result[i] = (char)(i * 7 + i / 251);
        sum = sum * 31 + (unsigned char)result[i];
    }
    result[size] = '\0';
    (void)ledger_complete(worker[0], STR("run"), STR("k"), told.fence, (struct str){result, size}, ledger_fixture_told,
                          &stored);
    ledger_fixture_run_until(&stored);
    expect(stored, LEDGER_GO);
    told = reserve(1, "k", 1);
    expect(told, LEDGER_STORED);
    assert_int_equal(told.result_size, size);
    assert_true(told.result_sum == sum);
    free(result);
}

/* The records of a run's writes go together, whatever they say; those of other runs stay. */
static void test_forget(void **state)
{
    struct told told = {0};

    (void)state;
    expect(reserve(0, "reserved", LONG_MS), LEDGER_GO);
    expect(complete(0, "done", reserve(0, "done", LONG_MS).fence, "200"), LEDGER_GO);
    expect(reserve_suspect(0, "doubted", LONG_MS, "another-incarnation"), LEDGER_DOUBT);
    expect(complete(0, "vanished", 1, "200"), LEDGER_GO);
    (void)ledger_reserve(worker[0], STR("other"), STR("k"), LONG_MS, false, STR_NONE, ledger_fixture_told, &told);
    ledger_fixture_run_until(&told);
    assert_string_equal(redis_server_ask("TTL {test}:k:run"), "-1");
    told = (struct told){0};
    (void)ledger_forget(worker[1], STR("run"), clock_wall_ms() - LONG_MS, ledger_fixture_told, &told);
    ledger_fixture_run_until(&told);
    assert_int_equal(told.fence, 1); /* of a run before; only the vanished one, with fence 1, was */
    told = (struct told){0};
    (void)ledger_forget(worker[1], STR("run"), INT64_MAX / 2, ledger_fixture_told, &told);
    ledger_fixture_run_until(&told);
    expect(told, LEDGER_GO);
    assert_int_equal(told.fence, 3);
    assert_string_equal(redis_server_ask("DBSIZE"), "3"); /* {test}:incarnation, {test}:w:k, {test}:k:other */
    told = (struct told){0};
    (void)ledger_forget(worker[1], STR("run"), INT64_MAX / 2, ledger_fixture_told, &told); /* again: no harm */
    ledger_fixture_run_until(&told);
    assert_true(told.verdict == LEDGER_GO && told.fence == 0);
}

/* Deliveries: sums over all workers, kept for a day; nothing is kept of what was taken back. */
static void test_count(void **state)
{
    struct told told = count(0, "e", 1, 0);

    (void)state;
    expect(told, LEDGER_GO);
    assert_true(told.begun == 1 && told.alone == 0);
    told = count(1, "e", 1, 1);
    assert_true(told.begun == 2 && told.alone == 1);
    assert_in_range(strtol(redis_server_ask("TTL {test}:d:e"), NULL, 10), 86000, 86400);
    told = count(0, "other", -1, 0);
    assert_true(told.begun == -1 && told.alone == 0);
    told = count(0, "other", 1, 0);
    assert_true(told.begun == 0 && told.alone == 0);
    assert_string_equal(redis_server_ask("EXISTS {test}:d:other"), "0");
    told = count(1, "e", -1, -1);
    assert_true(told.begun == 1 && told.alone == 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ledger_fixture_set_up, ledger_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_once),
        TEST(test_reserved),
        TEST(test_reserved_and_over),
        TEST(test_not_done),
        TEST(test_takeover),
        TEST(test_takeover_by_the_same),
        TEST(test_takeover_of_not_done),
        TEST(test_takeover_of_nothing),
        TEST(test_complete),
        TEST(test_no_record),
        TEST(test_older_than_what_was_done),
        TEST(test_wipe),
        TEST(test_wipe_is_noticed),
        TEST(test_fences_outlive_a_wipe),
        TEST(test_race),
        TEST(test_race_to_take_over),
        TEST(test_cancel),
        TEST(test_large_results),
        TEST(test_forget),
        TEST(test_count),
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
