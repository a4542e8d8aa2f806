/* worker/base/budget: who may have how much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/base/budget.h"

#define MIB ((size_t)1 << 20)

/* What librdkafka may fetch ahead is a sixteenth over all partitions, and never so little of one that nothing moves. */
static void test_fetching_ahead(void **state)
{
    (void)state;
    assert_int_equal(budget_fetch(1), 8 * MIB); /* no limit */
    budget_open(64 * (int64_t)MIB);
    assert_int_equal(budget_fetch(0), 4 * MIB);
    assert_int_equal(budget_fetch(16), 4 * MIB / 16);
    assert_int_equal(budget_fetch(200), MIB / 16);
    budget_open(1024 * (int64_t)MIB);
    assert_int_equal(budget_fetch(1), 8 * MIB);
    budget_open(0);
}

/* Later stages go up to higher marks. What takes is told apart only where events have a share of their own. */
static void test_stages(void **state)
{
    static const struct {
        enum budget_use use;
        int eighths;
        enum budget_stage first; /* the first stage that is still admitted; those before are not */
    } rows[] = {
        {BUDGET_EVENTS, 1, BUDGET_KEEP},      {BUDGET_EVENTS, 2, BUDGET_HAND_OVER},
        {BUDGET_EVENTS, 4, BUDGET_BEGIN},     {BUDGET_STEPS, 4, BUDGET_KEEP},
        {BUDGET_STEPS, 6, BUDGET_BEGIN_ONE},  {BUDGET_COMMITS, 6, BUDGET_BEGIN_ONE},
        {BUDGET_ANSWERS, 7, BUDGET_READ_ONE},
    };
    (void)state;
    budget_open(8 * (int64_t)MIB);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        budget_take(rows[i].use, (size_t)rows[i].eighths * MIB);
        for (enum budget_stage stage = BUDGET_KEEP; stage <= BUDGET_READ_ONE; stage++)
            assert_int_equal(budget_admits(stage, 0), stage >= rows[i].first);
        assert_false(budget_admits(rows[i].first, (int64_t)8 * (int64_t)MIB));
        budget_give(rows[i].use, (size_t)rows[i].eighths * MIB);
    }
    budget_open(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetching_ahead),
        cmocka_unit_test(test_stages),
    };
    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
