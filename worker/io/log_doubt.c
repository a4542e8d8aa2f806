/*
 * What became of a commit that was not confirmed, and who has the slot: both asked of the broker.
 *
 * Single file: while a commit is in doubt nothing else is committed, by neither producer.
 */
#include <inttypes.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"
#include "worker/io/offset_meta.h"

#define RETRY_US 100000
#define TRY_MS 1000

enum verdict { VERDICT_OPEN, VERDICT_COMMITTED, VERDICT_NOT };

/* What the committed metadata of one partition of the doubtful transaction says. VERDICT_OPEN with `error`. */
static enum verdict judge(const struct log_partition *partition, const rd_kafka_topic_partition_t *committed,
                          struct error *error)
{
    struct offset_meta meta;
    struct str text = {committed->metadata, committed->metadata_size};
    if (committed->err) {
        error_set(error, ERROR_RETRY, "a commit in doubt is not settled yet: %s", rd_kafka_err2str(committed->err));
        return VERDICT_OPEN;
    }
    if (committed->offset < 0) { /* with its topic, or that was deleted: then the partition will be taken from us */
        error_set(error, ERROR_RETRY,
                  "a commit in doubt is not settled yet: %s partition %" PRId32 " has no committed offset",
                  partition->of->name, partition->number);
        return VERDICT_OPEN;
    }
    if (!offset_meta_read(text, committed->offset, &meta, error))
        return VERDICT_OPEN;
    if (meta.commit_seq == partition->seq + 1 && committed->offset == partition->burst_base)
        return VERDICT_COMMITTED;
    if (meta.commit_seq == partition->seq && committed->offset == partition->base)
        return VERDICT_NOT;
    error_set(error, ERROR_FATAL,
              "%s partition %" PRId32 " is at commit_seq %" PRId64 ", offset %" PRId64 ", and we left it at %" PRId64
              ", %" PRId64 ": somebody else commits for group of this namespace",
              partition->of->name, partition->number, meta.commit_seq, committed->offset, partition->seq,
              partition->base);
    return VERDICT_OPEN;
}

/* ▲ One commit_seq decides the whole transaction; that all of them agree is checked, for a half-committed one would mean
 * that nothing here can be relied on. */
static enum verdict ask_verdict(struct log *log, rd_kafka_topic_partition_list_t *list, struct error *error)
{
    enum verdict verdict = VERDICT_OPEN;
    rd_kafka_resp_err_t failed = rd_kafka_committed(log->consumer, list, LOG_SLICE_MS);
    if (failed) {
        error_set(error, ERROR_RETRY, "a commit in doubt is not settled yet: %s", rd_kafka_err2str(failed));
        return VERDICT_OPEN;
    }
    for (int i = 0; i < list->cnt; i++) {
        const struct log_partition *partition = log_partition_find(log, list->elems[i].topic, list->elems[i].partition);
        enum verdict one = judge(partition, &list->elems[i], error);
        if (one == VERDICT_OPEN)
            return one;
        if (i > 0 && one != verdict) {
            error_set(error, ERROR_FATAL, "the last transaction is committed for some partitions and not for others");
            return VERDICT_OPEN;
        }
        verdict = one;
    }
    return verdict;
}

/* True when the doubt is settled. */
static bool settle(struct log *log, struct error *error)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < log->partitions_count; i++) {
        if (log->partitions[i]->burst > 0)
            rd_kafka_topic_partition_list_add(list, log->partitions[i]->of->name, log->partitions[i]->number);
    }
    /* None of its partitions is ours any more: there is nothing left to do with it, either way. */
    bool ours = list->cnt > 0;
    enum verdict verdict = ours ? ask_verdict(log, list, error) : VERDICT_NOT;
    rd_kafka_topic_partition_list_destroy(list);
    if (verdict == VERDICT_OPEN)
        return false;
    LOG_INFO("doubt.settled", LOG_S("was", verdict == VERDICT_COMMITTED ? "committed" : ours ? "aborted" : "dropped"));
    if (verdict == VERDICT_COMMITTED)
        log_commit_confirmed(log, 0);
    else if (ours)
        log_commit_failed(log);
    return true;
}

void log_doubt_serve(struct log *log)
{
    struct error error = {.class = ERROR_RETRY};
    int64_t now_us = clock_mono_us();
    if (log->doubt == NULL || atomic_load(&log->doubt->state) == PRODUCER_MAKING || now_us < log->doubt_retry_us)
        return;
    if (settle(log, &error)) {
        log->doubt = NULL;
        return;
    }
    if (error.class != ERROR_RETRY)
        log_fail(log, &error);
    log->doubt_retry_us = clock_mono_us() + RETRY_US;
    if (now_us < log->doubt_loud_us)
        return;
    log->doubt_loud_us = now_us + LOG_LOUD_MS * 1000;
    LOG_WARN("doubt.open", LOG_S("reason", error.text));
}

bool log_holds_slot(struct log *log)
{
    struct log_producer *first = &log->producers[0];
    /* One that is made anew takes the slot; one that is tainted is made anew before anything is said by it. */
    if (atomic_load(&first->state) != PRODUCER_READY || first->tainted)
        return true;
    int64_t began_us = clock_mono_us();
    rd_kafka_error_t *failed = log_producer_try(first, TRY_MS);
    if (failed != NULL || clock_mono_us() - began_us > LOG_TAINT_US)
        first->tainted = true;
    if (failed == NULL)
        return true;
    bool lost = rd_kafka_error_is_fatal(failed) && rd_kafka_error_code(failed) == RD_KAFKA_RESP_ERR__FENCED;
    rd_kafka_error_destroy(failed);
    return !lost;
}
