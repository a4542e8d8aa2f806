/* The HTTP port and the budget: answers are read as there is memory for them, and none fails for want of it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/caller_fixture.h"
#include "tests/unit/http_server.h"
#include "worker/base/budget.h"
#include "worker/io/caller_easy.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define CALLS 24
#define WHOLE_MS 60000 /* for all answers, on a busy machine */
#define BODY_SIZE ((size_t)400 << 10)
#define BUDGET ((int64_t)16 << 20) /* the room for one alone, an eighth, holds a whole answer */

static struct ended ended[CALLS];
static struct caller_call *calls[CALLS];
static int64_t most; /* that answers took, when one of them was whole */

static int set_up(void **state)
{
    memset(ended, 0, sizeof ended);
    most = 0;
    return caller_fixture_set_up(state);
}

static int tear_down(void **state)
{
    int failed = caller_fixture_tear_down(state);

    assert_int_equal(budget_used(BUDGET_ANSWERS), 0);
    budget_open(0);
    return failed;
}

static void done(void *context, const struct http_answer *answer)
{
    most = budget_used(BUDGET_ANSWERS) > most ? budget_used(BUDGET_ANSWERS) : most;
    caller_fixture_done(context, answer);
}

static int turn_until(int64_t end_ms, int wanted)
{
    int count = 0;

    while (count < wanted && caller_fixture_mono_ms() < end_ms) {
        caller_fixture_turn(20);
        count = 0;
        for (size_t i = 0; i < CALLS; i++)
            count += ended[i].times;
    }
    return count;
}

static void start_all(const char *path, bool write, int64_t timeout_ms)
{
    struct http_request request = caller_fixture_request(http_server_url(path), write);

    request.answer_size_max = BODY_SIZE;
    request.timeout_ms = timeout_ms;
    for (size_t i = 0; i < CALLS; i++) {
        calls[i] = caller_start(caller_fixture_caller, &request, done, &ended[i], NULL);
        assert_non_null(calls[i]);
    }
}

static void check_all(const char *path)
{
    start_all(path, false, WHOLE_MS);
    assert_int_equal(turn_until(caller_fixture_mono_ms() + WHOLE_MS, CALLS), CALLS);
    for (size_t i = 0; i < CALLS; i++) {
        assert_int_equal(ended[i].answer.end, HTTP_ANSWERED);
        assert_int_equal(ended[i].answer.body.size, BODY_SIZE);
    }
    assert_in_range(most, BODY_SIZE * CALLER_ROOM_WEIGHT, BUDGET / 8 * 7);
}

static void test_all_are_read_within_the_budget(void **state)
{
    (void)state;
    budget_open(BUDGET); /* 38 MiB of answers, counted four times */
    check_all("/size/409600");
}

static void test_of_unknown_length(void **state)
{
    (void)state;
    budget_open(BUDGET);
    check_all("/chunked/409600");
}

/* What waits for our memory does not time out, a write neither, and goes on when there is some. */
static void test_their_time_stands_still(void **state)
{
    (void)state;
    budget_open(BUDGET);
    budget_take(BUDGET_COMMITS, (size_t)BUDGET);
    start_all("/size/409600", true, 300);
    assert_int_equal(turn_until(caller_fixture_mono_ms() + 900, CALLS), 0);
    assert_int_equal(caller_paused(caller_fixture_caller), CALLS);
    assert_int_equal(most, 0);
    budget_give(BUDGET_COMMITS, (size_t)BUDGET);
    assert_int_equal(turn_until(caller_fixture_mono_ms() + WHOLE_MS, CALLS), CALLS);
    for (size_t i = 0; i < CALLS; i++)
        assert_int_equal(ended[i].answer.end, HTTP_ANSWERED);
}

/* Others have taken all but the last mark: one at a time still is. */
static void test_one_at_least(void **state)
{
    (void)state;
    budget_open(BUDGET);
    budget_take(BUDGET_STEPS, (size_t)BUDGET / 8 * 6);
    start_all("/size/409600", false, 5000);
    assert_int_equal(turn_until(caller_fixture_mono_ms() + WHOLE_MS, CALLS), CALLS);
    assert_int_equal(most, BODY_SIZE * CALLER_ROOM_WEIGHT);
    budget_give(BUDGET_STEPS, (size_t)BUDGET / 8 * 6);
}

/* A call that is given up, or cancelled, while it waits, is not in the way of the others. */
static void test_cancelled_while_they_wait(void **state)
{
    (void)state;
    budget_open(BUDGET);
    budget_take(BUDGET_COMMITS, (size_t)BUDGET);
    start_all("/size/409600", false, 5000);
    for (int64_t end_ms = caller_fixture_mono_ms() + 5000;
         caller_paused(caller_fixture_caller) < CALLS && caller_fixture_mono_ms() < end_ms;)
        caller_fixture_turn(20);
    caller_cancel(calls[0]);
    caller_cancel(calls[CALLS / 2]);
    caller_cancel(calls[CALLS - 1]);
    assert_int_equal(caller_paused(caller_fixture_caller), CALLS - 3);
    budget_give(BUDGET_COMMITS, (size_t)BUDGET);
    assert_int_equal(turn_until(caller_fixture_mono_ms() + WHOLE_MS, CALLS - 3), CALLS - 3);
    assert_int_equal(ended[0].times + ended[CALLS / 2].times + ended[CALLS - 1].times, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_are_read_within_the_budget), TEST(test_of_unknown_length),
        TEST(test_their_time_stands_still),        TEST(test_one_at_least),
        TEST(test_cancelled_while_they_wait),
    };
    http_server_start();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    http_server_stop();
    return failed;
}
