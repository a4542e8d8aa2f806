/*
 * metrics.h: numbers while it runs: counters, gauges and histograms, written down as Prometheus reads them.
 *
 * Each metric is a line of one table (metrics.c): name, kind, labels, help. Names follow Prometheus' conventions: prefix
 * myelin_, base units, counters end in _total. Used by the loop thread alone; there are no locks.
 */
#ifndef MYELIN_IO_METRICS_H
#define MYELIN_IO_METRICS_H

#include "worker/base/bytes.h"

enum metric_id {
    METRIC_START_TIME, /* gauge, of the process */
    METRIC_CPU,        /* counter, of the process */
    METRIC_BUILD,      /* gauge, always 1: compiler, step_schema */
    METRIC_WORKER,     /* gauge, always 1: namespace, slot */
    METRIC_READY,
    METRIC_REDIS_UP,
    METRIC_REDIS_WRITES,
    METRIC_KAFKA_BROKERS,
    METRIC_MEMORY, /* gauge: use */
    METRIC_MEMORY_LIMIT,

    METRIC_PARTITIONS,
    METRIC_DELIVERIES,
    METRIC_IN_FLIGHT, /* gauge: kind, effect */
    METRIC_IN_FLIGHT_LIMIT,
    METRIC_REQUESTS,
    METRIC_PAUSED,
    METRIC_CREDITS_MISSING, /* gauge: credit */
    METRIC_WINDOW_USED,
    METRIC_OLDEST,
    METRIC_LAG, /* gauge: topic */
    METRIC_WAITING_FOR_COMMIT,
    METRIC_STEPS_COMMITTED,
    METRIC_COMMIT_DURATION, /* histogram */
    METRIC_COMMIT_STEPS,    /* histogram */
    METRIC_ABORTED,
    METRIC_RECREATED,

    METRIC_RUNS_STARTED,
    METRIC_RUNS_ENDED, /* status */
    METRIC_RUNS_OPEN,
    METRIC_PARKED,
    METRIC_KEEPER_MEMORY,
    METRIC_READ_BACK,
    METRIC_RETRIES,  /* cause */
    METRIC_REFUSALS, /* rule */
    METRIC_DOUBTS,
    METRIC_DOUBTS_SETTLED, /* how, outcome */
    METRIC_DEAD,

    METRIC_CALLS,          /* kind, end */
    METRIC_CALL_DURATION,  /* histogram: kind */
    METRIC_TOKENS,         /* model, direction */
    METRIC_TOKENS_UNKNOWN, /* model */
    METRIC_COST,           /* model; added in millionths of a dollar */
    METRIC_COST_UNKNOWN,   /* model */
    METRICS_COUNT,
};

/* I7: combinations of label values that one metric keeps; what comes after is counted under "other" in every label. */
#define METRICS_SERIES_MAX 256
#define METRICS_LABELS_MAX 2

struct metrics;

struct metrics *metrics_new(void);
void metrics_free(struct metrics *metrics);

/* `labels`: the values, as many as the table names, in its order; copied. NULL where there are none. A combination is shown
 * from its first use on, so that one that is known beforehand is added as 0. */
void metrics_add(struct metrics *metrics, enum metric_id metric, const struct str *labels, double more);
/* A gauge, or a counter that somebody else keeps. */
void metrics_set(struct metrics *metrics, enum metric_id metric, const struct str *labels, double value);
/* A histogram. Times in seconds. */
void metrics_observe(struct metrics *metrics, enum metric_id metric, const struct str *labels, double value);

/* All that was ever used, appended: Prometheus' text exposition format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). False: `out` is full. */
bool metrics_write(const struct metrics *metrics, struct buf *out);

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
