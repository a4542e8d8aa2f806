#include "worker/io/writer.h"

#include <inttypes.h>
#include <stdlib.h>

#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"

struct writer {
    rd_kafka_t *producer;
};

/* What became of the one record under way; lives on the stack of writer_put. */
struct report {
    bool arrived;
    rd_kafka_resp_err_t failed;
};

static void delivered(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
    (void)producer, (void)opaque;
    struct report *report = message->_private;
    report->arrived = true;
    report->failed = message->err;
}

struct writer *writer_open(const char *const *properties, size_t count, struct error *error)
{
    static const struct kafka_property defaults[] = {
        {"linger.ms", "0"},         {"message.max.bytes", "1048576"},  {"topic.metadata.propagation.max.ms", "2000"},
        {"retry.backoff.ms", "50"}, {"partitioner", "murmur2_random"}, {NULL, NULL}};
    static const struct kafka_property own[] = {{"enable.idempotence", "true"}, {NULL, NULL}};
    rd_kafka_conf_t *config = kafka_config(defaults, properties, count, own, error);
    if (config == NULL)
        return NULL;
    rd_kafka_conf_set_dr_msg_cb(config, delivered);
    rd_kafka_t *producer = kafka_open(RD_KAFKA_PRODUCER, config, error);
    if (producer == NULL)
        return NULL;
    struct writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        abort();
    writer->producer = producer;
    return writer;
}

void writer_close(struct writer *writer)
{
    if (writer == NULL)
        return;
    rd_kafka_destroy(writer->producer);
    free(writer);
}

bool writer_put(struct writer *writer, const char *topic, int32_t partition, struct str key, struct str value,
                int64_t timeout_ms, struct error *error)
{
    struct report report = {false, RD_KAFKA_RESP_ERR_NO_ERROR};
    int64_t until_us = clock_mono_us() + timeout_ms * 1000;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(writer->producer, topic, NULL);
    if (handle == NULL)
        return error_set(error, ERROR_FATAL, "cannot write to %s: %s", topic, rd_kafka_err2str(rd_kafka_last_error()));
    rd_kafka_resp_err_t failed = kafka_produce(writer->producer, handle, partition, key, value, &report);
    rd_kafka_topic_destroy(handle);
    if (failed)
        return error_set(error, ERROR_POISON, "cannot write to %s: %s", topic, rd_kafka_err2str(failed));
    while (!report.arrived && clock_mono_us() < until_us)
        rd_kafka_poll(writer->producer, 50);
    if (!report.arrived) {
        /* It may be on its way: take it back if it is not, and in any case wait for the word, for `report` ends here. */
        rd_kafka_purge(writer->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        while (!report.arrived)
            rd_kafka_poll(writer->producer, 50);
        if (report.failed)
            return error_set(error, ERROR_RETRY,
                             "no answer from the brokers within %" PRId64
                             " ms: the record for %s may or may not be there",
                             timeout_ms, topic);
    }
    if (report.failed == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || report.failed == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
        return error_set(error, ERROR_FATAL, "topic %s does not exist; run: myelin topics create", topic);
    if (report.failed)
        return error_set(error, ERROR_RETRY, "cannot write to %s: %s", topic, rd_kafka_err2str(report.failed));
    return true;
}
