#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/io/metrics.h"

#define LABELS(...) ((const struct str[]){__VA_ARGS__})

static int set_up(void **state)
{
    *state = metrics_new();
    return 0;
}

static int tear_down(void **state)
{
    metrics_free(*state);
    return 0;
}

static void expect(const struct metrics *metrics, const char *text)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_true(metrics_write(metrics, &out));
    if (strstr(buf_str(&out).data, text) == NULL)
        fail_msg("not written: %s\nbut:\n%s", text, buf_str(&out).data);
    buf_free(&out);
}

static void test_nothing_used_writes_nothing(void **state)
{
    struct buf out;
    buf_init(&out, 100);
    assert_true(metrics_write(*state, &out));
    assert_int_equal(out.size, 0);
    buf_free(&out);
}

static void test_a_counter_adds_up(void **state)
{
    metrics_add(*state, METRIC_DELIVERIES, NULL, 0);
    expect(*state, "# TYPE myelin_deliveries_total counter\nmyelin_deliveries_total 0\n");
    metrics_add(*state, METRIC_DELIVERIES, NULL, 1);
    metrics_add(*state, METRIC_DELIVERIES, NULL, 2);
    expect(*state, "# HELP myelin_deliveries_total Step events that reached this worker.\n");
    expect(*state, "\nmyelin_deliveries_total 3\n");
}

static void test_large_numbers_are_whole(void **state)
{
    metrics_add(*state, METRIC_DELIVERIES, NULL, 123456789012345);
    expect(*state, "\nmyelin_deliveries_total 123456789012345\n");
}

static void test_a_gauge_is_set(void **state)
{
    metrics_set(*state, METRIC_PARTITIONS, NULL, 8);
    metrics_set(*state, METRIC_PARTITIONS, NULL, 0);
    expect(*state, "# TYPE myelin_partitions_owned gauge\nmyelin_partitions_owned 0\n");
}

static void test_labels_keep_values_apart(void **state)
{
    metrics_add(*state, METRIC_CALLS, LABELS(STR("tool"), STR("answered")), 1);
    metrics_add(*state, METRIC_CALLS, LABELS(STR("tool"), STR("failed")), 1);
    metrics_add(*state, METRIC_CALLS, LABELS(STR("tool"), STR("answered")), 1);
    expect(*state, "\nmyelin_calls_total{kind=\"tool\",end=\"answered\"} 2\n"
                   "myelin_calls_total{kind=\"tool\",end=\"failed\"} 1\n");
}

static void test_label_values_are_copied_and_escaped(void **state)
{
    char name[] = "a\"b\\c\nd";
    metrics_add(*state, METRIC_REFUSALS, LABELS(str_of(name)), 1);
    memset(name, 'x', sizeof(name) - 1);
    expect(*state, "\nmyelin_refusals_total{rule=\"a\\\"b\\\\c\\nd\"} 1\n");
}

static void test_dollars_are_added_in_millionths(void **state)
{
    for (int i = 0; i < 3; i++)
        metrics_add(*state, METRIC_COST, LABELS(STR("m")), 100000);
    expect(*state, "\nmyelin_llm_cost_usd_total{model=\"m\"} 0.3\n");
}

static void test_a_histogram_counts_up_to_each_bound(void **state)
{
    static const double seen[] = {1, 0, 2, 3, 5000, 5001};
    for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
        metrics_observe(*state, METRIC_COMMIT_STEPS, NULL, seen[i]);
    expect(*state, "# TYPE myelin_commit_records histogram\n"
                   "myelin_commit_records_bucket{le=\"1\"} 2\n" /* a bound belongs to its bucket */
                   "myelin_commit_records_bucket{le=\"2\"} 3\n"
                   "myelin_commit_records_bucket{le=\"5\"} 4\n");
    expect(*state, "myelin_commit_records_bucket{le=\"5000\"} 5\n"
                   "myelin_commit_records_bucket{le=\"+Inf\"} 6\n"
                   "myelin_commit_records_sum 10007\n"
                   "myelin_commit_records_count 6\n");
}

static void test_a_histogram_has_labels_before_its_bound(void **state)
{
    metrics_observe(*state, METRIC_CALL_DURATION, LABELS(STR("model")), 0.3);
    metrics_observe(*state, METRIC_CALL_DURATION, LABELS(STR("tool")), 1000);
    expect(*state, "myelin_call_duration_seconds_bucket{kind=\"model\",le=\"0.25\"} 0\n"
                   "myelin_call_duration_seconds_bucket{kind=\"model\",le=\"0.5\"} 1\n");
    expect(*state, "myelin_call_duration_seconds_bucket{kind=\"tool\",le=\"300\"} 0\n"
                   "myelin_call_duration_seconds_bucket{kind=\"tool\",le=\"+Inf\"} 1\n"
                   "myelin_call_duration_seconds_sum{kind=\"tool\"} 1000\n"
                   "myelin_call_duration_seconds_count{kind=\"tool\"} 1\n");
}

static void test_too_many_label_values_become_other(void **state)
{
    for (int i = 0; i < METRICS_SERIES_MAX + 10; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "m%d", i);
        metrics_add(*state, METRIC_TOKENS, LABELS(str_of(name), STR("input")), 1);
    }
    metrics_add(*state, METRIC_TOKENS, LABELS(STR("m0"), STR("input")), 1);
    expect(*state, "\nmyelin_llm_tokens_total{model=\"m0\",direction=\"input\"} 2\n");
    expect(*state, "\nmyelin_llm_tokens_total{model=\"other\",direction=\"other\"} 10\n");
}

static void test_what_does_not_fit_is_said(void **state)
{
    struct buf out;
    metrics_add(*state, METRIC_DELIVERIES, NULL, 1);
    buf_init(&out, 20);
    assert_false(metrics_write(*state, &out));
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_used_writes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_counter_adds_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_numbers_are_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_gauge_is_set, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_labels_keep_values_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_label_values_are_copied_and_escaped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dollars_are_added_in_millionths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_histogram_counts_up_to_each_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_histogram_has_labels_before_its_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_many_label_values_become_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_does_not_fit_is_said, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
