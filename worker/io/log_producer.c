/*
 * The two transactional producers. They take turns, strictly in single file: one that begins again at once meets its own
 * unfinished markers (CONCURRENT_TRANSACTIONS), and librdkafka then sleeps for 20 ms; the other one does not.
 *
 * A new producer with the same transactional.id fences the old one, and init_transactions returns only when the old one's
 * transaction has ended (KIP-98): it is the barrier after which the committed metadata tells what happened. That, and its first
 * transaction, take a second and more. So a thread of its own makes a producer (anew), and the other one goes on meanwhile.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"

#define RETRY_MS 100
#define INIT_MS 1000
#define WARM_UP_MS 3000

/* ---- topics ---- */

/* Takes over what the table has more; only the log thread may look into the table. */
static bool copy_topics(struct log_producer *producer)
{
    const struct log *log = producer->log;
    if (producer->topics_count == log->topics_count)
        return false;
    producer->topics = realloc(producer->topics, log->topics_count * sizeof *producer->topics);
    if (producer->topics == NULL)
        abort();
    for (; producer->topics_count < log->topics_count; producer->topics_count++)
        producer->topics[producer->topics_count] = (struct log_producer_topic){
            .name = log->topics[producer->topics_count]->name};
    return true;
}

rd_kafka_topic_t *log_producer_topic(struct log_producer *producer, const struct log_topic *topic)
{
    if (topic->index >= producer->topics_count)
        copy_topics(producer);
    struct log_producer_topic *one = &producer->topics[topic->index];
    if (one->handle == NULL)
        one->handle = rd_kafka_topic_new(producer->handle, one->name, NULL);
    return one->handle;
}

/* A record for a topic without metadata would wait for them, in an open transaction. */
static rd_kafka_resp_err_t learn_topics(struct log_producer *producer)
{
    for (size_t i = 0; i < producer->topics_count; i++) {
        if (producer->topics[i].handle == NULL)
            producer->topics[i].handle = rd_kafka_topic_new(producer->handle, producer->topics[i].name, NULL);
    }
    return kafka_learn(producer->handle, WARM_UP_MS);
}

void log_producers_topics(struct log *log)
{
    for (size_t i = 0; i < LOG_PRODUCERS; i++) {
        struct log_producer *producer = &log->producers[i];
        if (atomic_load(&producer->state) == PRODUCER_READY && copy_topics(producer))
            learn_topics(producer);
    }
}

/* ---- making one; on its own thread ---- */

/* Taint, see log_producers_serve: librdkafka repeats requests by itself after such errors, and says nothing. */
static void on_error(rd_kafka_t *handle, int code, const char *reason, void *opaque)
{
    (void)handle;
    struct log_producer *producer = opaque;
    if (producer->tainted)
        return;
    producer->tainted = true;
    LOG_WARN("producer.tainted", LOG_S("producer", producer->id),
             LOG_S("error", rd_kafka_err2name((rd_kafka_resp_err_t)code)), LOG_S("reason", reason));
}

static bool create(struct log_producer *producer, struct error *error)
{
    struct log *log = producer->log;
    char features[512] = "", timeout[16] = "";
    size_t size = sizeof features;
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
    const struct kafka_property own[] = {{"transactional.id", producer->id},
                                         /* else librdkafka does not call on_error for it either (an idle one makes no
                                          * noise in any case) */
                                         {"log.connection.close", "true"},
                                         {NULL, NULL}};
    rd_kafka_conf_t *config = kafka_config(defaults, (const char *const *)log->properties, log->properties_count, own,
                                           error);
    if (config == NULL)
        return false;
    size = sizeof timeout;
    rd_kafka_conf_get(config, "transaction.timeout.ms", timeout, &size);
    producer->timeout_ms = strtol(timeout, NULL, 10);
    rd_kafka_conf_set_opaque(config, producer);
    rd_kafka_conf_set_error_cb(config, on_error);
    rd_kafka_conf_set_dr_msg_cb(config, log_on_report); /* without one each commit waits 10 ms */
    producer->handle = kafka_open(RD_KAFKA_PRODUCER, config, error);
    return producer->handle != NULL;
}

static void discard(struct log_producer *producer)
{
    if (producer->handle == NULL)
        return;
    for (size_t i = 0; i < producer->topics_count; i++) {
        if (producer->topics[i].handle != NULL)
            rd_kafka_topic_destroy(producer->topics[i].handle);
        producer->topics[i].handle = NULL;
    }
    if (!producer->stuck || !log_send_abandon(producer)) {
        rd_kafka_purge(producer->handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_poll(producer->handle, 0); /* what the delivery reports have to say */
        rd_kafka_destroy(producer->handle);
    }
    producer->handle = NULL;
}

rd_kafka_error_t *log_producer_try(struct log_producer *producer, int timeout_ms)
{
    rd_kafka_error_t *failed = rd_kafka_begin_transaction(producer->handle);
    if (failed != NULL)
        return failed;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata_new(producer->log->name_space);
    rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(producer->log->control), 0)->offset = 0;
    failed = log_send_offsets(producer, list, group, timeout_ms);
    return failed != NULL ? failed : rd_kafka_abort_transaction(producer->handle, timeout_ms);
}

/* The first transaction finds the coordinators and connects to them, which takes up to a second: not while a step waits. */
static rd_kafka_error_t *warm_up(struct log_producer *producer)
{
    rd_kafka_resp_err_t unknown = learn_topics(producer);
    if (unknown)
        return rd_kafka_error_new(unknown, "no metadata of the topics: %s", rd_kafka_err2str(unknown));
    return log_producer_try(producer, WARM_UP_MS);
}

static void tell_log(struct log_producer *producer, enum log_producer_state state)
{
    atomic_store(&producer->state, state);
    log_ring_wake(producer->log->wake_fd);
}

/* init_transactions and the first transaction. False with `error`: FATAL, or RETRY. */
static bool init(struct log_producer *producer, struct error *error)
{
    int64_t began_us = clock_mono_us();
    rd_kafka_error_t *failed = rd_kafka_init_transactions(producer->handle, INIT_MS);
    if (failed != NULL) {
        bool again = rd_kafka_error_is_retriable(failed) || rd_kafka_error_code(failed) == RD_KAFKA_RESP_ERR__TIMED_OUT;
        return kafka_fail(error, again ? ERROR_RETRY : ERROR_FATAL,
                          "cannot start the transactional producer (is Kafka up?)", failed);
    }
    int64_t fenced_us = clock_mono_us();
    tell_log(producer, PRODUCER_FENCED);
    failed = warm_up(producer);
    if (failed != NULL) {
        discard(producer);
        return kafka_fail(error, ERROR_RETRY, "cannot warm up the transactional producer", failed);
    }
    rd_kafka_poll(producer->handle, 0);
    producer->tainted = false; /* whatever a late copy from before may hit, it changes nothing that is read */
    LOG_INFO("producer.ready", LOG_S("producer", producer->id), LOG_I("init_ms", (fenced_us - began_us) / 1000),
             LOG_I("warm_up_ms", (clock_mono_us() - fenced_us) / 1000));
    return true;
}

/* Not yet; says why, but not each time. */
static void delayed(struct log_producer *producer)
{
    int64_t now_us = clock_mono_us();
    if (now_us >= producer->loud_us) {
        producer->loud_us = now_us + LOG_LOUD_MS * 1000;
        LOG_WARN("producer.delayed", LOG_S("producer", producer->id), LOG_S("reason", producer->error.text));
    }
    poll(NULL, 0, RETRY_MS);
}

static void *make(void *argument)
{
    struct log_producer *producer = argument;
    struct error *error = &producer->error;
    bool ready = false;
    *error = (struct error){.class = ERROR_RETRY};
    discard(producer);
    while (!ready && error->class == ERROR_RETRY && !atomic_load(&producer->log->disconnect)) {
        ready = (producer->handle != NULL || create(producer, error)) && init(producer, error);
        if (!ready && error->class == ERROR_RETRY)
            delayed(producer);
    }
    if (ready)
        *error = (struct error){.class = ERROR_NONE};
    tell_log(producer, ready ? PRODUCER_READY : PRODUCER_FAILED);
    return NULL;
}

/* ---- the log thread's side ---- */

static bool start(struct log_producer *producer)
{
    copy_topics(producer);
    atomic_store(&producer->state, PRODUCER_MAKING);
    producer->threaded = pthread_create(&producer->thread, NULL, make, producer) == 0;
    return producer->threaded || error_set(&producer->error, ERROR_FATAL, "cannot start a thread");
}

static void join(struct log_producer *producer)
{
    if (producer->threaded)
        pthread_join(producer->thread, NULL);
    producer->threaded = false;
}

void log_producer_remake(struct log_producer *producer)
{
    struct log *log = producer->log;
    join(producer);
    atomic_fetch_add(&log->producers_recreated, 1);
    if (!start(producer))
        log_fail(log, &producer->error);
}

struct log_producer *log_producer_next(struct log *log)
{
    for (size_t i = 0; i < LOG_PRODUCERS && log->doubt == NULL && !log->failed; i++) {
        struct log_producer *producer = &log->producers[(log->turn + i) % LOG_PRODUCERS];
        if (atomic_load(&producer->state) == PRODUCER_READY && !producer->tainted)
            return producer;
    }
    return NULL;
}

void log_producers_serve(struct log *log)
{
    /* Once another process was found to have the slot, to make a producer anew would take it from there. */
    for (size_t i = 0; i < LOG_PRODUCERS && !log->failed; i++) {
        struct log_producer *producer = &log->producers[i];
        int state = atomic_load(&producer->state);
        if (state == PRODUCER_FAILED)
            log_fail(log, &producer->error);
        if (state != PRODUCER_READY)
            continue;
        rd_kafka_poll(producer->handle, 0);
        /* ▲ librdkafka repeats TxnOffsetCommit and EndTxn by itself and reports success; a late copy of either can then hit
         * this producer's next transaction (KAFKA-17754). A new one has another epoch, and the copies are refused. */
        if (producer->tainted)
            log_producer_remake(producer);
    }
}

static bool all_ready(const struct log *log)
{
    bool ready = true;
    for (size_t i = 0; i < LOG_PRODUCERS; i++)
        ready = ready && atomic_load(&log->producers[i].state) == PRODUCER_READY;
    return ready;
}

static bool any_failed(const struct log *log)
{
    bool failed = false;
    for (size_t i = 0; i < LOG_PRODUCERS; i++)
        failed = failed || atomic_load(&log->producers[i].state) == PRODUCER_FAILED;
    return failed;
}

bool log_producers_open(struct log *log, int64_t timeout_ms, struct error *error)
{
    int64_t until_us = clock_mono_us() + timeout_ms * 1000;
    bool started = true;
    *error = (struct error){.class = ERROR_NONE};
    for (size_t i = 0; i < LOG_PRODUCERS; i++) {
        struct log_producer *producer = &log->producers[i];
        producer->log = log;
        snprintf(producer->id, sizeof producer->id, "%s-%s-%c", log->name_space, log->slot, (char)('a' + i));
        started = started && start(producer);
    }
    while (started && !all_ready(log) && !any_failed(log) && clock_mono_us() < until_us)
        log_sleep(log, until_us);
    if (started && all_ready(log))
        return true;
    log_producers_close(log);
    for (size_t i = LOG_PRODUCERS; i > 0; i--) {
        const struct error *one = &log->producers[i - 1].error;
        if (one->class > error->class)
            *error = *one;
    }
    error->class = ERROR_FATAL;
    return false;
}

void log_producers_close(struct log *log)
{
    atomic_store(&log->disconnect, true);
    for (size_t i = 0; i < LOG_PRODUCERS; i++) {
        join(&log->producers[i]);
        discard(&log->producers[i]);
        log_send_close(&log->producers[i]);
        free(log->producers[i].topics);
        log->producers[i].topics = NULL;
        log->producers[i].topics_count = 0;
    }
}
