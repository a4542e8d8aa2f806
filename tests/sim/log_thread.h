/*
 * log_thread.h: the other side of log.c's rings: the log thread as the loop sees it, on broker.h instead of librdkafka. Rings,
 * window, map and carry are the worker's own.
 */
#ifndef MYELIN_SIM_LOG_THREAD_H
#define MYELIN_SIM_LOG_THREAD_H

#include "tests/sim/broker.h"
#include "tests/sim/world.h"
#include "worker/io/log_internal.h"

/* As log_open, but no thread is started: the caller takes its turns. Fences the slot's dead self. */
struct log *log_thread_open(struct life *life);
void log_thread_turn(struct log *log);

/* ---- for log_thread.c and log_burst.c alone ---- */

enum burst_phase { BURST_NONE, BURST_LED, BURST_PRODUCED, BURST_OFFSETS_SENT, BURST_DOUBT };

/* What the log thread has beside struct log. */
struct log_side {
    struct log *log;
    struct life *life;
    struct log_topic topics[2];              /* that are consumed: steps, inbox */
    struct log_left left[2][PARTITIONS_MAX]; /* of these */
    bool turning;                            /* it has its turn: what it calls must not give it another */
    int generation;                          /* in which it has its partitions */
    bool leaving;
    int64_t release_until_us, leave_until_us;
    int64_t control_read; /* of `control`, handed over */
    enum burst_phase phase;
    struct transaction *transaction;
    struct { /* a delivery report that comes when its transaction is aborted: opaque 0: none */
        intptr_t opaque;
        int32_t partition;
        int64_t offset;
    } late;
    int64_t doubt_until_us;
};
struct log_side *log_side(const struct log *log);

/* One step of the transaction under way, or a new one. */
void burst_serve(struct log_side *side);
/* It is taken back: its partitions are not ours any more. */
void burst_abort(struct log_side *side);
bool burst_pending(const struct log_side *side);

#endif
