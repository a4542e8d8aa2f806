#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/core/draft.h"

#define BASE_MS 1000
#define MAX_MS 30000
#define HOUR_MS 3600000

static struct run run_at(const char *id, int32_t attempt)
{
    return (struct run){.id = str_of(id),
                        .at = {.branch = STR(""), .step = STR("send"), .visit = 1, .attempt = attempt, .judging = -1}};
}

static int64_t delay(const struct run *run, int64_t retry_after_ms)
{
    struct arena *arena = arena_new();
    int64_t ms = retry_delay_ms(run, arena, BASE_MS, MAX_MS, retry_after_ms);
    arena_free(arena);
    return ms;
}

/* Doubles with each attempt up to the limit; between half of that and all of it. */
static void test_bounds(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        char id[16];
        snprintf(id, sizeof(id), "run-%d", i);
        for (int32_t attempt = 1; attempt <= 12; attempt++) {
            struct run run = run_at(id, attempt);
            int64_t whole = attempt <= 5 ? (int64_t)BASE_MS << (attempt - 1) : MAX_MS;
            int64_t ms = delay(&run, 0);
            assert_in_range(ms, whole / 2, whole);
            assert_int_equal(ms, delay(&run, 0)); /* the same inputs, the same delay */
        }
    }
}

/* Runs that failed together do not come back together: the delays fill their range. */
static void test_spread(void **state)
{
    (void)state;
    int tenths[10] = {0};
    for (int i = 0; i < 2000; i++) {
        char id[16];
        snprintf(id, sizeof(id), "run-%d", i);
        struct run run = run_at(id, 1);
        int64_t ms = delay(&run, 0) - BASE_MS / 2;
        tenths[ms * 10 / (BASE_MS / 2 + 1)]++;
    }
    for (int i = 0; i < 10; i++)
        assert_in_range(tenths[i], 130, 270);
}

/* It is derived from each of run, branch, step, visit and attempt. */
static void test_derived(void **state)
{
    (void)state;
    struct run run = run_at("run-1", 1), other = run;
    int64_t ms = delay(&run, 0);
    other.at.branch = STR("left");
    assert_int_not_equal(ms, delay(&other, 0));
    other = run;
    other.at.step = STR("sand");
    assert_int_not_equal(ms, delay(&other, 0));
    other = run;
    other.at.visit = 2;
    assert_int_not_equal(ms, delay(&other, 0));
    other = run;
    other.at.call = 7; /* not from this */
    assert_int_equal(ms, delay(&other, 0));
}

static void test_retry_after(void **state)
{
    (void)state;
    struct run run = run_at("run-1", 1);
    assert_int_equal(delay(&run, 45000), 45000);
    assert_int_equal(delay(&run, 1), delay(&run, 0)); /* not sooner than our own */
    assert_int_equal(delay(&run, -5), delay(&run, 0));
    assert_int_equal(delay(&run, 72LL * HOUR_MS), HOUR_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_derived),
        cmocka_unit_test(test_retry_after),
    };
    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
