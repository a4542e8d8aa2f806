/*
 * The transactional producer: its life, and how a doubtful commit is settled.
 *
 * A new producer with the same transactional.id fences the old one, and init_transactions returns only when the old one's
 * transaction has ended (KIP-98): it is the barrier after which the committed metadata tells what happened.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"
#include "worker/io/offset_meta.h"

#define RETRY_US 100000
#define WARM_UP_MS 5000

/* Taint, see log_commit.c: librdkafka repeats requests by itself after such errors, and says nothing. */
static void on_error(rd_kafka_t *producer, int code, const char *reason, void *opaque)
{
    (void)producer;
    struct log *log = opaque;
    if (log->tainted)
        return;
    log->tainted = true;
    LOG_WARN("producer.tainted", LOG_S("error", rd_kafka_err2name((rd_kafka_resp_err_t)code)), LOG_S("reason", reason));
}

static bool create(struct log *log, struct error *error)
{
    char id[300], features[512] = "", timeout[16] = "";
    size_t size = sizeof features;
    snprintf(id, sizeof id, "%s-%s", log->name_space, log->slot);
    rd_kafka_conf_t *probe = rd_kafka_conf_new();
    rd_kafka_conf_get(probe, "builtin.features", features, &size);
    rd_kafka_conf_destroy(probe);
    const struct kafka_property defaults[] = {
        {"transaction.timeout.ms", "5000"}, /* a crashed worker's open transaction hides its partitions until then */
        {"retry.backoff.ms", "10"},
        {"linger.ms", "0"},
        {"partitioner", "murmur2_random"}, /* as Java clients do */
        {"compression.codec", strstr(features, "lz4") != NULL ? "lz4" : NULL},
        {"queue.buffering.max.messages", "1000000"},
        {"message.max.bytes", "1048576"}, /* what a broker takes by default, less a little for the frame */
        {NULL, NULL},
    };
    const struct kafka_property own[] = {{"transactional.id", id}, {NULL, NULL}};
    rd_kafka_conf_t *config = kafka_config(defaults, (const char *const *)log->properties, log->properties_count, own,
                                           error);
    if (config == NULL)
        return false;
    size = sizeof timeout;
    rd_kafka_conf_get(config, "transaction.timeout.ms", timeout, &size);
    log->transaction_timeout_ms = strtol(timeout, NULL, 10);
    rd_kafka_conf_set_opaque(config, log);
    rd_kafka_conf_set_error_cb(config, on_error);
    rd_kafka_conf_set_dr_msg_cb(config, log_on_report); /* without one each commit waits 10 ms */
    log->producer = kafka_open(RD_KAFKA_PRODUCER, config, error);
    return log->producer != NULL;
}

rd_kafka_resp_err_t log_producer_topics(struct log *log)
{
    bool any = false;
    for (size_t i = 0; i < log->topics_count && log->producer != NULL; i++) {
        struct log_topic *topic = log->topics[i];
        if (topic->handle != NULL)
            continue;
        topic->handle = rd_kafka_topic_new(log->producer, topic->name, NULL);
        any = true;
    }
    return any ? kafka_learn(log->producer, WARM_UP_MS) : RD_KAFKA_RESP_ERR_NO_ERROR;
}

/*
 * The first transaction finds the coordinators and connects to them, which takes up to a second: not while a step waits. It
 * commits nothing: an offset of `control`, which the group does not consume, is sent and taken back.
 */
static rd_kafka_error_t *warm_up(struct log *log)
{
    rd_kafka_resp_err_t unknown = log_producer_topics(log);
    if (unknown)
        return rd_kafka_error_new(unknown, "no metadata of the topics: %s", rd_kafka_err2str(unknown));
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata_new(log->name_space);
    rd_kafka_topic_partition_list_add(list, log_topic_find(log, TOPIC_CONTROL, STR_NONE)->name, 0)->offset = 0;
    rd_kafka_error_t *failed = rd_kafka_begin_transaction(log->producer);
    if (failed == NULL)
        failed = rd_kafka_send_offsets_to_transaction(log->producer, list, group, WARM_UP_MS);
    if (failed == NULL)
        failed = rd_kafka_abort_transaction(log->producer, WARM_UP_MS);
    rd_kafka_consumer_group_metadata_destroy(group);
    rd_kafka_topic_partition_list_destroy(list);
    return failed;
}

/* init_transactions and the first transaction. False with `error`: FATAL, or RETRY. */
static bool init(struct log *log, int64_t timeout_ms, struct error *error)
{
    int64_t began_us = clock_mono_us();
    rd_kafka_error_t *failed = rd_kafka_init_transactions(log->producer, (int)timeout_ms);
    if (failed != NULL) {
        bool again = rd_kafka_error_is_retriable(failed) || rd_kafka_error_code(failed) == RD_KAFKA_RESP_ERR__TIMED_OUT;
        return kafka_fail(error, again ? ERROR_RETRY : ERROR_FATAL,
                          "cannot start the transactional producer (is Kafka up?)", failed);
    }
    int64_t fenced_us = clock_mono_us();
    failed = warm_up(log);
    if (failed != NULL) {
        log_producer_discard(log, log->doubt);
        return kafka_fail(error, ERROR_RETRY, "cannot warm up the transactional producer", failed);
    }
    rd_kafka_poll(log->producer, 0);
    log->tainted = false; /* whatever a late copy from before may hit, it changes nothing that is read */
    LOG_INFO("producer.ready", LOG_I("init_ms", (fenced_us - began_us) / 1000),
             LOG_I("warm_up_ms", (clock_mono_us() - fenced_us) / 1000));
    return true;
}

void log_producer_discard(struct log *log, bool doubt)
{
    log->doubt = doubt;
    log->producer_state = PRODUCER_NONE;
    if (log->producer == NULL)
        return;
    for (size_t i = 0; i < log->topics_count; i++) {
        if (log->topics[i]->handle != NULL)
            rd_kafka_topic_destroy(log->topics[i]->handle);
        log->topics[i]->handle = NULL;
    }
    rd_kafka_purge(log->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_poll(log->producer, 0); /* what the delivery reports have to say */
    rd_kafka_destroy(log->producer);
    log->producer = NULL;
    atomic_fetch_add(&log->producers_recreated, 1);
}

bool log_producer_first(struct log *log, int64_t timeout_ms, struct error *error)
{
    int64_t until_ms = clock_mono_us() / 1000 + timeout_ms, left_ms = timeout_ms;
    while (left_ms > 0) {
        if (log->producer == NULL && !create(log, error))
            return false;
        if (init(log, left_ms, error)) {
            log->producer_state = PRODUCER_READY;
            return true;
        }
        if (error->class == ERROR_FATAL)
            return false;
        left_ms = until_ms - clock_mono_us() / 1000;
    }
    error->class = ERROR_FATAL;
    return false;
}

/* ---- doubt ---- */

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
    if (!offset_meta_read(text, &meta, error))
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
    if (verdict == VERDICT_OPEN) {
        if (error->class != ERROR_RETRY)
            log_fail(log, error);
        return false;
    }
    LOG_INFO("doubt.settled", LOG_S("was", verdict == VERDICT_COMMITTED ? "committed" : ours ? "aborted" : "dropped"));
    if (verdict == VERDICT_COMMITTED)
        log_commit_confirmed(log, 0);
    else if (ours)
        log_commit_failed(log);
    return true;
}

/* Not yet; says why, but not each time. */
static void delayed(struct log *log, const struct error *error)
{
    int64_t now_us = clock_mono_us();
    log->producer_retry_us = now_us + RETRY_US;
    if (now_us < log->producer_loud_us)
        return;
    log->producer_loud_us = now_us + LOG_LOUD_MS * 1000;
    LOG_WARN("producer.delayed", LOG_S("reason", error->text));
}

void log_producer_serve(struct log *log)
{
    struct error error = {.class = ERROR_RETRY};
    if (log->producer_state == PRODUCER_READY) {
        rd_kafka_poll(log->producer, 0);
        /* ▲ librdkafka repeats TxnOffsetCommit and EndTxn by itself and reports success; a late copy of either can then hit
         * this producer's next transaction (KAFKA-17754). A new one has another epoch, and the copies are refused. */
        if (log->tainted)
            log_producer_discard(log, false);
        return;
    }
    if (clock_mono_us() < log->producer_retry_us)
        return;
    if (log->producer_state == PRODUCER_NONE) {
        if (!create(log, &error)) {
            log_fail(log, &error);
            return;
        }
        log->producer_state = PRODUCER_INIT;
    }
    if (log->producer_state == PRODUCER_INIT) {
        if (!init(log, LOG_SLICE_MS, &error)) {
            delayed(log, &error);
            if (error.class == ERROR_FATAL)
                log_fail(log, &error);
            return;
        }
        log->producer_state = log->doubt ? PRODUCER_SETTLE : PRODUCER_READY;
    }
    if (log->producer_state == PRODUCER_SETTLE) {
        if (settle(log, &error)) {
            log->doubt = false;
            log->producer_state = PRODUCER_READY;
        } else {
            delayed(log, &error);
        }
    }
}
