/*
 * event.c: what the log says, or was read back, and who of the loop it is for.
 */
#include "worker/base/crash.h"
#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/worker.h"

static void on_committed(struct worker *worker, const struct log_event *event)
{
    CRASH_POINT("keeper_after_commit");
    meter_committed(worker->metrics, event);
    LOG_DEBUG("committed", LOG_I("steps", event->commit_steps), LOG_I("us", event->commit_us));
}

static void on_revoked(struct worker *worker, struct log_event *event)
{
    int64_t tenure = event->tenure;
    LOG_INFO(event->kind == LOG_LOST ? "partition.lost" : "partition.revoked", LOG_S("topic", event->topic_name),
             LOG_I("partition", event->partition), LOG_I("tenure", tenure));
    loop_orphan(worker, tenure); /* let go or lost: we are alive, so nobody died of what we have */
    if (event->topic == TOPIC_INBOX)
        keep_event(worker, event);
    else
        log_event_free(event);
    log_release(worker->log, tenure);
}

/* The brokers never take what was written for this record, or by a timer: the run ends with that reason. */
static void on_refused(struct worker *worker, const struct log_event *event)
{
    struct arena *arena = arena_new();
    struct commit commit;
    struct str reason = arena_str(arena, str_of(event->reason));
    commit_open(&commit, worker, arena, event);
    commit_dead(&commit, reason, event->key);
    struct plan plan = {
        .next = NEXT_END,
        .closed = {.run = event->key, .status = RUN_FAILED, .reason = reason, .at_ms = clock_wall_ms()}};
    commit_plan(&commit, &plan);
    commit_done(&commit);
    arena_free(arena);
}

void event_take(struct worker *worker, struct log_event *event)
{
    switch (event->kind) {
    case LOG_CONTROL:
        contracts_add(worker->contracts, event);
        break;
    case LOG_CONTROL_END:
        worker->control_read = true;
        loop_contracts_read(worker, event->offset);
        keep_contracts_read(worker, event->offset);
        break;
    case LOG_REVOKED:
    case LOG_LOST:
        on_revoked(worker, event);
        return;
    case LOG_REFUSED:
        on_refused(worker, event);
        break;
    case LOG_COMMITTED:
        on_committed(worker, event);
        break;
    case LOG_STOPPED:
        worker->log_stopped = true;
        worker->failed = event->reason != NULL;
        if (worker->failed)
            LOG_ERROR("log.failed", LOG_S("reason", event->reason));
        break;
    case LOG_ASSIGNED:
        LOG_INFO("partition.assigned", LOG_S("topic", event->topic_name), LOG_I("partition", event->partition),
                 LOG_I("tenure", event->tenure), LOG_I("offset", event->offset));
        if (event->kept != 0)
            loop_keep(worker, event);
        /* fall through */
    case LOG_RECORD:
    case LOG_WAITING_ROW:
    case LOG_WAITING_END:
    case LOG_BACKLOG_END:
    case LOG_PLACED:
        if (event->topic == TOPIC_INBOX)
            keep_event(worker, event);
        else if (event->kind == LOG_RECORD)
            loop_step(worker, event);
        else
            break;
        return;
    }
    log_event_free(event);
}

void event_read(struct worker *worker)
{
    for (struct readback_row *row; (row = readback_next(worker->readback)) != NULL; readback_row_free(row)) {
        if (row->wanted.topic == READ_WAITING)
            keep_recalled(worker, row);
        else
            payload_read(worker->payloads, row);
    }
}
