#include "worker/io/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/base/mem.h"

#define BUCKETS_MAX 16

/* Upper bounds, ascending; 0 ends the list; +Inf is added. */
static const double commit_seconds[] = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 0};
static const double commit_steps[] = {1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 0};
static const double call_seconds[] = {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 0};

enum kind { COUNTER, GAUGE, HISTOGRAM };
static const char *const kinds[] = {"counter", "gauge", "histogram"};

struct row {
    const char *name;
    enum kind kind;
    const char *labels[METRICS_LABELS_MAX];
    const double *buckets; /* HISTOGRAM */
    const char *help;
    double unit; /* values are multiplied by it when they are written; 0 = 1 */
};

/* For the rows below. */
#define OF(kind_, name_, help_) .kind = (kind_), .name = (name_), .help = (help_)
#define LABELED(...) .labels = {__VA_ARGS__}

/* THE TABLE. */
static const struct row rows[METRICS_COUNT] = {
    [METRIC_START_TIME] = {OF(GAUGE, "process_start_time_seconds", "When this worker started, in seconds since 1970.")},
    [METRIC_CPU] = {OF(COUNTER, "process_cpu_seconds_total", "CPU time of this worker, user and system.")},
    [METRIC_BUILD] = {OF(GAUGE, "myelin_build_info",
                         "Always 1: what built this worker, and the fingerprint of the step events that it writes."),
                      LABELED("compiler", "step_schema")},
    [METRIC_WORKER] = {OF(GAUGE, "myelin_worker_info", "Always 1: who this worker is."), LABELED("namespace", "slot")},
    [METRIC_READY] = {OF(GAUGE, "myelin_ready", "Whether /ready says yes.")},
    [METRIC_REDIS_UP] = {OF(GAUGE, "myelin_redis_up", "Whether Redis answers.")},
    [METRIC_REDIS_WRITES] = {OF(GAUGE, "myelin_redis_writes_allowed",
                                "Whether Redis is fit to reserve writes; while it is not, they wait.")},

    [METRIC_KAFKA_BROKERS] = {OF(GAUGE, "myelin_kafka_brokers_connected",
                                 "Brokers that the consumer is connected to; 0: Kafka is not reached.")},
    [METRIC_MEMORY] =
        {OF(GAUGE, "myelin_memory_used_bytes",
            "Memory taken from the budget of memory_max, by what takes it; what is fetched is not in it."),
         LABELED("use")},
    [METRIC_MEMORY_LIMIT] = {OF(GAUGE, "myelin_memory_limit_bytes", "The setting memory_max.")},

    [METRIC_PARTITIONS] = {OF(GAUGE, "myelin_partitions_owned", "Partitions of steps and inbox assigned here.")},
    [METRIC_DELIVERIES] = {OF(COUNTER, "myelin_deliveries_total", "Step events that reached this worker.")},
    [METRIC_IN_FLIGHT] = {OF(GAUGE, "myelin_steps_in_flight",
                             "Step events being worked on, by the call they wait for; kind none: for a contract."),
                          LABELED("kind", "effect")},
    [METRIC_IN_FLIGHT_LIMIT] = {OF(GAUGE, "myelin_steps_in_flight_limit", "The setting in_flight_max.")},
    [METRIC_REQUESTS] = {OF(GAUGE, "myelin_http_requests_in_flight", "HTTP requests to models and tools under way.")},
    [METRIC_PAUSED] = {OF(GAUGE, "myelin_http_answers_paused",
                          "Of them, those whose answer is not read on for want of memory.")},
    [METRIC_CREDITS_MISSING] =
        {OF(GAUGE, "myelin_steps_waiting",
            "Step events fetched and not worked on, by the credit that they wait for: one of their "
            "endpoint, one in flight, memory, room in the window of their partition."),
         LABELED("credit")},
    [METRIC_WINDOW_USED] = {OF(
        GAUGE, "myelin_window_used_ratio",
        "How much of its window the partition uses that uses most; at 0.75 what lags is carried.")},
    [METRIC_OLDEST] = {OF(GAUGE, "myelin_oldest_uncommitted_seconds",
                          "Age of the oldest delivery that is not committed; 0: there is none.")},
    [METRIC_LAG] = {OF(GAUGE, "myelin_consumer_lag_records",
                       "Offsets in the partitions owned here above what was taken from them, as of the last fetch."),
                    LABELED("topic")},
    [METRIC_WAITING_FOR_COMMIT] = {OF(GAUGE, "myelin_records_waiting_for_commit",
                                      "Finished records of steps and inbox that are not committed yet.")},
    [METRIC_STEPS_COMMITTED] = {OF(COUNTER, "myelin_records_committed_total",
                                   "Records of steps and inbox whose outcome and offset were committed.")},
    [METRIC_COMMIT_DURATION] = {OF(HISTOGRAM, "myelin_commit_duration_seconds",
                                   "A Kafka transaction from begin to confirmed."),
                                .buckets = commit_seconds},
    [METRIC_COMMIT_STEPS] = {OF(HISTOGRAM, "myelin_commit_records",
                                "Records of steps and inbox that one transaction finished."),
                             .buckets = commit_steps},
    [METRIC_ABORTED] = {OF(COUNTER, "myelin_transactions_aborted_total", "Transactions that did not commit.")},
    [METRIC_RECREATED] = {OF(COUNTER, "myelin_producers_recreated_total",
                             "Transactional producers made anew, after an error or a doubt.")},

    [METRIC_RUNS_STARTED] = {OF(COUNTER, "myelin_runs_started_total", "Runs started by this worker.")},
    [METRIC_RUNS_ENDED] = {OF(COUNTER, "myelin_runs_ended_total", "Runs ended by this worker."), LABELED("status")},
    [METRIC_RUNS_OPEN] = {OF(GAUGE, "myelin_runs_open", "Runs not ended, in the inbox partitions owned here.")},
    [METRIC_PARKED] = {OF(GAUGE, "myelin_steps_parked",
                          "Steps that wait for a time or a person, in the inbox partitions owned here.")},
    [METRIC_KEEPER_MEMORY] = {OF(GAUGE, "myelin_keeper_memory_bytes",
                                 "Of rows of what waits that are in memory; see the setting keeper_memory_kib.")},
    [METRIC_READ_BACK] = {OF(COUNTER, "myelin_waiting_read_back_total",
                             "Rows of what waits that were read from Kafka again, since they were not in memory.")},
    [METRIC_RETRIES] = {OF(COUNTER, "myelin_retries_total",
                           "Tries that led to another: a call that failed, an output that was rejected."),
                        LABELED("cause")},
    [METRIC_REFUSALS] = {OF(COUNTER, "myelin_refusals_total", "Calls refused before they were made."), LABELED("rule")},
    [METRIC_DOUBTS] = {OF(COUNTER, "myelin_doubts_total", "Times that a write was found in doubt.")},
    [METRIC_DOUBTS_SETTLED] = {OF(COUNTER, "myelin_doubts_settled_total", "Writes in doubt that were settled."),
                               LABELED("how", "outcome")},
    [METRIC_DEAD] = {OF(COUNTER, "myelin_dead_letters_total", "Records put on the topic dead.")},

    [METRIC_CALLS] = {OF(COUNTER, "myelin_calls_total",
                         "Calls that ended; reused and adopted: the answer was in Redis, and the call not made."),
                      LABELED("kind", "end")},
    [METRIC_CALL_DURATION] = {OF(HISTOGRAM, "myelin_call_duration_seconds",
                                 "HTTP requests to models and tools, however they ended."),
                              LABELED("kind"), .buckets = call_seconds},
    [METRIC_TOKENS] = {OF(COUNTER, "myelin_llm_tokens_total",
                          "Tokens of the model answers in history, as far as the endpoint told."),
                       LABELED("model", "direction")},
    [METRIC_TOKENS_UNKNOWN] = {OF(COUNTER, "myelin_llm_answers_without_usage_total",
                                  "Model answers in history whose endpoint told no tokens."),
                               LABELED("model")},
    [METRIC_COST] = {OF(COUNTER, "myelin_llm_cost_usd_total",
                        "US dollars of the model answers in history, by the prices in the settings."),
                     LABELED("model"), .unit = 1e-6},
    [METRIC_COST_UNKNOWN] = {OF(COUNTER, "myelin_llm_answers_without_cost_total",
                                "Model answers in history whose price is not known."),
                             LABELED("model")},
};

struct series {
    struct str labels[METRICS_LABELS_MAX]; /* owned */
    double value;                          /* HISTOGRAM: the sum */
    uint64_t counts[BUCKETS_MAX];          /* HISTOGRAM: each bucket alone; the last is +Inf */
};

struct metrics {
    struct {
        struct series *series;
        size_t count, capacity;
    } of[METRICS_COUNT];
};

struct metrics *metrics_new(void)
{
    return mem_new(sizeof(struct metrics));
}

void metrics_free(struct metrics *metrics)
{
    for (size_t m = 0; metrics != NULL && m < METRICS_COUNT; m++) {
        for (size_t i = 0; i < metrics->of[m].count; i++)
            for (size_t k = 0; k < METRICS_LABELS_MAX; k++)
                mem_free((char *)metrics->of[m].series[i].labels[k].data);
        mem_free(metrics->of[m].series);
    }
    mem_free(metrics);
}

/* ---- counting ---- */

static size_t labels_count(enum metric_id metric)
{
    size_t count = 0;
    while (count < METRICS_LABELS_MAX && rows[metric].labels[count] != NULL)
        count++;
    return count;
}

static struct series *look_up(struct metrics *metrics, enum metric_id metric, const struct str *labels)
{
    size_t wanted = labels_count(metric);
    for (size_t i = 0; i < metrics->of[metric].count; i++) {
        struct series *series = &metrics->of[metric].series[i];
        size_t same = 0;
        while (same < wanted && str_equal(series->labels[same], labels[same]))
            same++;
        if (same == wanted)
            return series;
    }
    return NULL;
}

static struct str keep(struct str text)
{
    char *copy = mem_new(text.size + 1);
    if (text.size > 0)
        memcpy(copy, text.data, text.size);
    return (struct str){copy, text.size};
}

static struct series *find(struct metrics *metrics, enum metric_id metric, const struct str *labels)
{
    static const struct str other[METRICS_LABELS_MAX] = {{"other", 5}, {"other", 5}};
    size_t wanted = labels_count(metric), count = metrics->of[metric].count;
    assert((labels != NULL) == (wanted > 0));
    struct series *found = look_up(metrics, metric, labels);
    if (found == NULL && count >= METRICS_SERIES_MAX) {
        labels = other;
        found = look_up(metrics, metric, labels);
    }
    if (found != NULL)
        return found;
    if (count == metrics->of[metric].capacity) {
        metrics->of[metric].capacity = count == 0 ? 1 : count * 2;
        metrics->of[metric].series = mem_resize(metrics->of[metric].series,
                                                metrics->of[metric].capacity * sizeof(struct series));
    }
    assert(metrics->of[metric].series != NULL);
    found = &metrics->of[metric].series[metrics->of[metric].count++];
    *found = (struct series){.value = 0};
    for (size_t i = 0; i < wanted; i++)
        found->labels[i] = keep(labels[i]);
    return found;
}

void metrics_add(struct metrics *metrics, enum metric_id metric, const struct str *labels, double more)
{
    assert(rows[metric].kind == COUNTER && more >= 0);
    find(metrics, metric, labels)->value += more;
}

void metrics_set(struct metrics *metrics, enum metric_id metric, const struct str *labels, double value)
{
    assert(rows[metric].kind != HISTOGRAM);
    find(metrics, metric, labels)->value = value;
}

void metrics_observe(struct metrics *metrics, enum metric_id metric, const struct str *labels, double value)
{
    const double *buckets = rows[metric].buckets;
    struct series *series = find(metrics, metric, labels);
    assert(rows[metric].kind == HISTOGRAM);
    size_t bucket = 0;
    while (buckets[bucket] > 0 && value > buckets[bucket])
        bucket++;
    series->counts[bucket]++;
    series->value += value;
}

/* ---- writing ---- */

static void put_escaped(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '\\' || c == '"')
            buf_printf(out, "\\%c", c);
        else if (c == '\n')
            buf_puts(out, "\\n");
        else
            buf_put(out, &c, 1);
    }
}

/* {a="x",b="y"}, with le="..." behind them when there is one; nothing when there are none. */
static void put_labels(struct buf *out, enum metric_id metric, const struct series *series, const char *bound)
{
    size_t count = labels_count(metric);
    for (size_t i = 0; i < count; i++) {
        buf_printf(out, "%s%s=\"", i == 0 ? "{" : ",", rows[metric].labels[i]);
        put_escaped(out, series->labels[i]);
        buf_puts(out, "\"");
    }
    if (bound != NULL)
        buf_printf(out, "%sle=\"%s\"", count == 0 ? "{" : ",", bound);
    if (count > 0 || bound != NULL)
        buf_puts(out, "}");
}

static void put_histogram(struct buf *out, enum metric_id metric, const struct series *series)
{
    const struct row *row = &rows[metric];
    uint64_t sum = 0;
    for (size_t i = 0; i == 0 || row->buckets[i - 1] > 0; i++) {
        char bound[32] = "+Inf";
        if (row->buckets[i] > 0)
            (void)snprintf(bound, sizeof(bound), "%g", row->buckets[i]);
        sum += series->counts[i];
        buf_printf(out, "%s_bucket", row->name);
        put_labels(out, metric, series, bound);
        buf_printf(out, " %" PRIu64 "\n", sum);
    }
    buf_printf(out, "%s_sum", row->name);
    put_labels(out, metric, series, NULL);
    buf_printf(out, " %.15g\n%s_count", series->value, row->name);
    put_labels(out, metric, series, NULL);
    buf_printf(out, " %" PRIu64 "\n", sum);
}

bool metrics_write(const struct metrics *metrics, struct buf *out)
{
    for (enum metric_id m = 0; m < METRICS_COUNT; m++) {
        const struct row *row = &rows[m];
        if (metrics->of[m].count > 0)
            buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name, kinds[row->kind]);
        for (size_t i = 0; i < metrics->of[m].count; i++) {
            const struct series *series = &metrics->of[m].series[i];
            if (row->kind == HISTOGRAM) {
                put_histogram(out, m, series);
                continue;
            }
            buf_puts(out, row->name);
            put_labels(out, m, series, NULL);
            buf_printf(out, " %.15g\n", row->unit > 0 ? series->value * row->unit : series->value);
        }
    }
    return !out->overflow;
}
