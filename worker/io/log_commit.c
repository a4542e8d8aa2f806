/*
 * The committer. What is done collects in memory; when the previous transaction has ended, everything that can be committed
 * goes out in one burst: begin, produce, send offsets, commit (KIP-98; offsets with the group's metadata: KIP-447). The
 * commit in flight is the batching delay, there is no other; no transaction is open while anything is waited for, for an
 * open one hides its partitions from every reader.
 *
 * A burst is a view: the first `burst` works of each partition's window. An abort therefore needs no repair; the next burst
 * is simply formed again from what the windows hold then, without what was dropped in between (I10).
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/crash.h"
#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"
#include "worker/io/offset_meta.h"

#define ABORT_MS 2000
#define QUEUE_FULL_MS 5
#define BACKOFF_MS 10
#define BACKOFF_MS_MAX 1000

enum failure_kind {
    FAILURE_NONE,
    FAILURE_ABORT,   /* surely not committed; the producer can be used again */
    FAILURE_REFUSED, /* as ABORT, and `work` is what the brokers will never take */
    FAILURE_DOUBT,   /* may be committed, or the producer is broken */
    FAILURE_FENCED,  /* somebody has our transactional.id, or our transaction took too long */
};

struct failure {
    enum failure_kind kind;
    rd_kafka_resp_err_t code;
    char text[512];
    struct log_producer *producer;   /* whose transaction it was */
    struct log_partition *partition; /* REFUSED */
    struct log_work *work;
};

/* ---- forming a burst ---- */

bool log_commit_leaving(const struct log *log)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        const struct log_partition *partition = log->partitions[i];
        const struct log_work *first = partition->window.ready.first;
        if (partition->leaving && first != NULL && !first->refused)
            return true;
    }
    return log->doubt != NULL;
}

int64_t log_commit_due_us(const struct log *log)
{
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < log->partitions_count; i++) {
        const struct log_partition *partition = log->partitions[i];
        const struct log_work *first = partition->window.ready.first;
        if (first != NULL && !first->refused && partition->held_us < due)
            due = partition->held_us;
    }
    return due == INT64_MAX || due > log->commit_retry_us ? due : log->commit_retry_us;
}

/* One whose first work is to be tried again, by itself, so that it takes no others with it. */
static const struct log_partition *held(const struct log *log)
{
    int64_t now_us = clock_mono_us();
    for (size_t i = 0; i < log->partitions_count; i++) {
        const struct log_partition *partition = log->partitions[i];
        const struct log_work *first = partition->window.ready.first;
        if (partition->held_us != 0 && partition->held_us <= now_us && first != NULL && !first->refused)
            return partition;
    }
    return NULL;
}

/* A pool that is new is asked for here, for no transaction is open yet. The other topics were there when the log was opened. */
static void learn_pools(struct log *log, const struct log_work *work)
{
    for (size_t i = 0; i < work->count; i++) {
        if (work->records[i].topic == TOPIC_STEPS)
            log_topic_resolve(log, TOPIC_STEPS, work->records[i].pool);
    }
}

/* How many works of how many partitions the next transaction takes, in `burst` of each; returns the sum. */
static size_t form(struct log *log)
{
    size_t sum = 0, size = 0;
    const struct log_partition *alone = held(log);
    size_t burst_max = alone != NULL ? 1 : log->burst_max;
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        partition->burst = 0;
        const struct log_work *work = partition->window.ready.first;
        if (alone != NULL ? partition != alone : partition->held_us != 0)
            continue;
        for (; work != NULL && !work->refused; work = work->next) {
            if (sum == burst_max || (sum > 0 && size + work->size > LOG_BURST_BYTES_MAX))
                break;
            learn_pools(log, work);
            sum++;
            size += work->size;
            partition->burst++;
        }
    }
    return sum;
}

void log_commit_confirmed(struct log *log, int64_t took_us)
{
    struct log_event *event = log_event_new(LOG_COMMITTED, NULL, 0);
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        const struct log_work *work = partition->window.ready.first;
        for (size_t n = 0; n < partition->burst; n++, work = work->next)
            event->commit_steps += work->offset >= 0 && work->carry == 0;
        if (partition->burst > 0) {
            log_window_committed(&partition->window, partition->burst);
            partition->base = partition->burst_base;
            partition->seq++;
            partition->held_us = 0;
        }
        partition->burst = 0;
    }
    event->commit_us = took_us;
    log_place_tell(log);
    log_push(log, event);
    atomic_fetch_add(&log->commits, 1);
    log->fenced_once = false;
    log->aborts_in_a_row = 0;
    log->before_code = RD_KAFKA_RESP_ERR_NO_ERROR;
    log->apart = false;
    log->burst_max = log->burst_max * 2 < LOG_BURST_WORKS_MAX ? log->burst_max * 2 : LOG_BURST_WORKS_MAX;
}

/* ---- the steps of a transaction ---- */

void log_on_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
    (void)handle;
    struct log_producer *producer = opaque;
    struct log *log = producer->log;
    bool taken_back = message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE ||
                      message->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT;
    if (!message->err)
        producer->unreported--;
    /* In the making it is polled by another thread, which has no business with windows. */
    if (atomic_load(&producer->state) == PRODUCER_READY && !message->err && message->_private != NULL)
        log_place_report(log, (intptr_t)message->_private, message->partition, message->offset);
    if (message->err && !taken_back && !producer->report_failed)
        producer->report_failed = message->err;
}

static bool fail(struct failure *failure, enum failure_kind kind, rd_kafka_resp_err_t code, const char *text)
{
    failure->kind = kind;
    failure->code = code;
    snprintf(failure->text, sizeof failure->text, "%s", text);
    return false;
}

/* What an error of the transactional API means. Takes it. A commit that did not say yes is a doubt, unless the broker cannot
 * have been asked: librdkafka waits for all delivery reports before it sends EndTxn. */
static bool fail_error(struct failure *failure, rd_kafka_error_t *error, bool committing)
{
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    enum failure_kind kind = FAILURE_DOUBT;
    if (rd_kafka_error_is_fatal(error) && code == RD_KAFKA_RESP_ERR__FENCED)
        kind = FAILURE_FENCED;
    else if (rd_kafka_error_txn_requires_abort(error) && (!committing || failure->producer->unreported > 0))
        kind = FAILURE_ABORT;
    fail(failure, kind, code, rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return false;
}

/* producev said no: the producer as a whole is broken, or this one record is. */
static bool fail_produce(struct failure *failure, rd_kafka_resp_err_t code, const char *topic)
{
    char reason[300];
    rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(failure->producer->handle, reason, sizeof reason);
    if (fatal)
        return fail(failure, fatal == RD_KAFKA_RESP_ERR__FENCED ? FAILURE_FENCED : FAILURE_DOUBT, fatal, reason);
    if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) {
        struct error text;
        error_set(&text, ERROR_POISON, "a record for %s is too large: %s", topic, rd_kafka_err2str(code));
        return fail(failure, FAILURE_REFUSED, code, text.text);
    }
    return fail(failure, FAILURE_ABORT, code, rd_kafka_err2str(code));
}

static bool produce(struct log *log, size_t index, int64_t until_us, struct failure *failure)
{
    struct log_producer *producer = failure->producer;
    struct log_work *work = failure->work;
    const struct log_record *record = &work->records[index];
    const struct log_topic *topic = log_topic_find(log, record->topic, record->pool);
    struct str key = record->key.data != NULL ? record->key : record->run;
    int32_t partition = record->partition;
    if (topic == NULL || partition >= topic->partitions) {
        struct error text;
        error_set(&text, ERROR_POISON,
                  "there is no topic for pool \"%.*s\" (partition %" PRId32 "); run: myelin topics create",
                  STR_ARG(record->pool), partition);
        return fail(failure, FAILURE_REFUSED, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, text.text);
    }
    if (partition < 0)
        partition = rd_kafka_msg_partitioner_murmur2(NULL, record->run.data, record->run.size, topic->partitions, NULL,
                                                     NULL);
    void *opaque = log_place_await(log, work, index);
    log_place_fill(log, work, record);
    for (;;) {
        rd_kafka_resp_err_t code = kafka_produce(producer->handle, log_producer_topic(producer, topic), partition, key,
                                                 record->value, opaque);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
            producer->unreported++;
            return true;
        }
        if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL || clock_mono_us() >= until_us)
            return fail_produce(failure, code, topic->name);
        rd_kafka_poll(producer->handle, QUEUE_FULL_MS);
    }
}

static int left_ms(int64_t until_us)
{
    int64_t left = (until_us - clock_mono_us()) / 1000;
    return left < 1 ? 1 : (int)left;
}

static bool flush(struct failure *failure, int64_t until_us)
{
    rd_kafka_flush(failure->producer->handle, left_ms(until_us));
    rd_kafka_resp_err_t failed = failure->producer->report_failed;
    return !failed || fail(failure, FAILURE_ABORT, failed, rd_kafka_err2str(failed));
}

enum part { PART_LEAD, PART_REST }; /* of a work's records: those that others name, the others */

static bool produce_part(struct log *log, enum part part, int64_t until_us, struct failure *failure)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        struct log_work *work = partition->window.ready.first;
        for (size_t n = 0; n < partition->burst; n++, work = work->next) {
            size_t end = part == PART_LEAD ? work->lead : work->count;
            failure->partition = partition;
            failure->work = work;
            for (size_t r = part == PART_LEAD ? 0 : work->lead; r < end; r++) {
                if (!produce(log, r, until_us, failure))
                    return false;
                if (log->apart && !flush(failure, until_us))
                    return false;
            }
        }
    }
    return true;
}

/* ▲ A report without an offset aborts: the broker had that record already when it came again. */
static bool produce_all(struct log *log, int64_t until_us, struct failure *failure)
{
    log_place_begin(log);
    if (!produce_part(log, PART_LEAD, until_us, failure))
        return false;
    if (log->placed_count > 0) {
        CRASH_POINT("after_payloads");
        if (!flush(failure, until_us))
            return false;
        if (!log_place_known(log))
            return fail(failure, FAILURE_ABORT, RD_KAFKA_RESP_ERR__FAIL, "where a payload lies is not known");
    }
    return produce_part(log, PART_REST, until_us, failure);
}

static bool send_offsets(struct log *log, int64_t until_us, struct failure *failure)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        struct offset_meta meta = {.commit_seq = partition->seq + 1};
        char text[OFFSET_META_TEXT_SIZE];
        if (partition->burst == 0)
            continue;
        partition->burst_base = log_window_plan(&partition->window, partition->burst, &meta.done);
        offset_meta_write(&meta, partition->burst_base, text);
        rd_kafka_topic_partition_t *one = rd_kafka_topic_partition_list_add(list, partition->of->name,
                                                                            partition->number);
        one->offset = partition->burst_base;
        one->metadata = strdup(text); /* the list frees it */
        one->metadata_size = strlen(text);
    }
    /* Taken fresh: we have partitions, so we have joined, and the broker checks our generation by it (I10). */
    rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata(log->consumer);
    rd_kafka_error_t *error = log_send_offsets(failure->producer, list, group, left_ms(until_us));
    return error == NULL || fail_error(failure, error, false);
}

/* ▲ What is carried is known again by its offset, a row is read back by it, and only the delivery report tells it; one without
 * an offset aborts (the broker had the record already when it came again). The commit would wait for the reports just so,
 * and says better what is wrong with one that says no. */
static bool all_placed(struct log *log, int64_t until_us, struct failure *failure)
{
    if (log->placed_count > 0)
        rd_kafka_flush(failure->producer->handle, left_ms(until_us));
    return log_place_known(log) || failure->producer->report_failed ||
           fail(failure, FAILURE_ABORT, RD_KAFKA_RESP_ERR__FAIL, "where a record lies is not known");
}

static bool transact(struct log *log, int64_t until_us, struct failure *failure)
{
    rd_kafka_error_t *error = rd_kafka_begin_transaction(failure->producer->handle);
    if (error != NULL)
        return fail_error(failure, error, false);
    CRASH_POINT("after_begin");
    if (!produce_all(log, until_us, failure))
        return false;
    CRASH_POINT("after_produce");
    if (!send_offsets(log, until_us, failure) || !all_placed(log, until_us, failure))
        return false;
    CRASH_POINT("after_offsets");
    CRASH_POINT("before_commit");
    error = rd_kafka_commit_transaction(failure->producer->handle, left_ms(until_us));
    if (error != NULL)
        return fail_error(failure, error, true);
    CRASH_POINT("after_commit");
    return true;
}

/* ---- when it failed ---- */

/* The fault is the record's own: the brokers will say the same of it again and again. */
static bool is_of_record(rd_kafka_resp_err_t code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
        return true;
    default:
        return false;
    }
}

/* Its record is with the loop again, until it hands over others for the same offset. A timer has no offset by which it could
 * be replaced: it is gone. */
static void refuse(struct log *log, struct log_partition *partition, struct log_work *work, const char *reason)
{
    if (work->carry != 0) {
        log_window_stay(&partition->window, work);
        return;
    }
    struct str run = work->records[0].run.data != NULL ? work->records[0].run : STR("");
    size_t reason_size = strlen(reason) + 1;
    struct log_event *event = log_event_new(LOG_REFUSED, partition, run.size + 1 + reason_size);
    event->offset = log_window_known(&partition->window, work->offset);
    event->key = (struct str){(char *)(event + 1), run.size};
    memcpy(event + 1, run.data, run.size);
    event->reason = memcpy((char *)(event + 1) + run.size + 1, reason, reason_size);
    LOG_ERROR("record.refused", LOG_S("topic", partition->of->name), LOG_I("partition", partition->number),
              LOG_I("offset", event->offset), LOG_S("reason", reason));
    size_t before = partition->window.with_loop;
    log_window_refuse(&partition->window, work);
    log->with_loop_steps += (int64_t)(partition->window.with_loop - before);
    log_push(log, event);
}

/* The batch was too large, and perhaps none of its records. */
static bool is_of_batch(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE || code == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE;
}

/* The only work of the transaction that failed. What is not its record's fault may pass: it is held, and the others go on. */
static void after_single(struct log *log, rd_kafka_resp_err_t code, int64_t retry_us)
{
    size_t i = 0;
    while (log->partitions[i]->burst == 0)
        i++;
    struct log_partition *partition = log->partitions[i];
    bool split = is_of_batch(code) && !log->apart && partition->window.ready.first->count > 1;
    if (!is_of_record(code)) {
        partition->held_us = retry_us;
    } else if (split) {
        partition->held_us = 1; /* again at once, and still by itself */
    } else {
        partition->held_us = 0;
        refuse(log, partition, partition->window.ready.first, log->failed_text);
    }
    log->apart = split || (log->apart && !is_of_record(code));
}

void log_commit_failed(struct log *log)
{
    size_t sum = 0;
    for (size_t i = 0; i < log->partitions_count; i++)
        sum += log->partitions[i]->burst;
    rd_kafka_resp_err_t code = log->failed_code;
    atomic_fetch_add(&log->aborts, 1);
    LOG_WARN("transaction.aborted", LOG_S("error", rd_kafka_err2name(code)), LOG_S("reason", log->failed_text),
             LOG_I("steps", sum));
    /* The same again, or the brokers will say the same again: by halves, so that one bad record fails alone. */
    bool again = code && code == log->before_code;
    if (sum > 1 && (again || is_of_record(code)))
        log->burst_max = sum / 2;
    log->before_code = code;
    /* A record is searched for at once; anything else may need time to pass. */
    int64_t wait_ms = is_of_record(code) ? 0 : BACKOFF_MS << (log->aborts_in_a_row < 8 ? log->aborts_in_a_row : 8);
    log->aborts_in_a_row++;
    int64_t retry_us = clock_mono_us() + (wait_ms < BACKOFF_MS_MAX ? wait_ms : BACKOFF_MS_MAX) * 1000;
    log->commit_retry_us = retry_us;
    if (sum == 1 && (again || is_of_record(code))) {
        after_single(log, code, retry_us);
        log->commit_retry_us = 0;
    }
    for (size_t i = 0; i < log->partitions_count; i++) {
        log->partitions[i]->burst = 0;
        log_window_uncarry(&log->partitions[i]->window);
    }
}

static void after_doubt(struct log *log, struct log_producer *producer)
{
    LOG_WARN("commit.doubt", LOG_S("producer", producer->id), LOG_S("error", rd_kafka_err2name(log->failed_code)),
             LOG_S("reason", log->failed_text));
    log->doubt = producer;
    log->doubt_retry_us = 0;
    log_producer_remake(producer);
}

/*
 * ▲ The same error for two different things. A transaction that is older than its timeout was ended by the coordinator: a
 * doubt like others, once. Should somebody else have our slot after all (we were frozen for long, say), our new producer
 * fences it, and it says what follows: one of the two goes on, and nothing is committed twice either way. So it is when only
 * -b was fenced: whoever has -a goes on.
 */
static void after_fence(struct log *log, struct log_producer *producer, int64_t began_us)
{
    int64_t age_us = clock_mono_us() - began_us; /* by now: it may be its abort that was fenced */
    bool ours = producer == &log->producers[0] ? age_us >= producer->timeout_ms * 1000 && !log->fenced_once
                                               : log_holds_slot(log);
    if (ours) {
        log->fenced_once = true;
        after_doubt(log, producer);
        return;
    }
    struct error error;
    error_set(&error, ERROR_FATAL, "another live process holds slot %s (%s)", log->slot, log->failed_text);
    log_fail(log, &error);
}

static void after_failure(struct log *log, struct failure *failure, int64_t began_us)
{
    struct log_producer *producer = failure->producer;
    if (failure->kind == FAILURE_ABORT || failure->kind == FAILURE_REFUSED) {
        rd_kafka_error_t *error = rd_kafka_abort_transaction(producer->handle, ABORT_MS);
        if (error != NULL) {
            fail_error(failure, error, true);
            failure->kind = failure->kind == FAILURE_FENCED ? FAILURE_FENCED : FAILURE_DOUBT;
        }
    }
    /* A batch that was refused has sequence numbers which the broker has not seen: the next one would be out of order. */
    if (producer->report_failed)
        producer->tainted = true;
    /* What a delivery report says is the cause of what the producer says. */
    log->failed_code = producer->report_failed ? producer->report_failed : failure->code;
    snprintf(log->failed_text, sizeof log->failed_text, "%s", failure->text);
    if (failure->kind == FAILURE_FENCED) {
        after_fence(log, producer, began_us);
    } else if (failure->kind == FAILURE_DOUBT) {
        after_doubt(log, producer);
    } else {
        if (failure->kind == FAILURE_REFUSED) {
            refuse(log, failure->partition, failure->work, failure->text);
            log->failed_code = RD_KAFKA_RESP_ERR_NO_ERROR; /* found: nothing to search for */
        }
        log_commit_failed(log);
    }
}

bool log_commit_serve(struct log *log)
{
    struct log_producer *producer = clock_mono_us() < log->commit_retry_us ? NULL : log_producer_next(log);
    struct failure failure = {.kind = FAILURE_NONE, .producer = producer};
    if (producer == NULL || form(log) == 0)
        return false;
    int64_t began_us = clock_mono_us();
    log->turn = producer == &log->producers[0];
    producer->report_failed = RD_KAFKA_RESP_ERR_NO_ERROR;
    producer->unreported = 0;
    int64_t until_us = began_us + producer->timeout_ms * 900;
    bool committed = transact(log, until_us, &failure);
    if (committed)
        log_commit_confirmed(log, clock_mono_us() - began_us);
    else
        after_failure(log, &failure, began_us);
    /* With its abort. One that is made anew already is not ours to touch. */
    if (atomic_load(&producer->state) == PRODUCER_READY && clock_mono_us() - began_us > LOG_TAINT_US)
        producer->tainted = true;
    return true;
}
