/*
 * `control`, read from its beginning and followed; and the rows of `waiting`, read to the high watermark on assignment. By
 * librdkafka's simple consumer: no group, and one queue for all, which is polled only while the loop takes what comes.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/crash.h"
#include "worker/base/logline.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"

bool log_reader_open(struct log *log, struct error *error)
{
    /* The rebuild of a partition waits for the fetch under way: the broker must not sit on it for the default 500 ms. */
    static const struct kafka_property defaults[] = {{"fetch.wait.max.ms", "50"},
                                                     {"fetch.error.backoff.ms", "50"},
                                                     {"queued.max.messages.kbytes", "1024"}, /* for each partition */
                                                     {NULL, NULL}};
    static const struct kafka_property own[] = {
        {"isolation.level", "read_committed"}, {"enable.auto.commit", "false"},  {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "earliest"},     {"enable.partition.eof", "true"}, {NULL, NULL}};
    log->reader = kafka_client(RD_KAFKA_CONSUMER, defaults, (const char *const *)log->properties, log->properties_count,
                               own, error);
    if (log->reader == NULL)
        return false;
    log->reader_queue = rd_kafka_queue_new(log->reader);
    rd_kafka_queue_io_event_enable(log->reader_queue, log->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    log->control = rd_kafka_topic_new(log->reader, log_topic_find(log, TOPIC_CONTROL, STR_NONE)->name, NULL);
    log->waiting = rd_kafka_topic_new(log->reader, log_topic_find(log, TOPIC_WAITING, STR_NONE)->name, NULL);
    kafka_learn(log->reader, LOG_SLICE_MS);
    if (log->control == NULL || log->waiting == NULL ||
        rd_kafka_consume_start_queue(log->control, 0, RD_KAFKA_OFFSET_BEGINNING, log->reader_queue) != 0)
        return error_set(error, ERROR_FATAL, "cannot read %s.control: %s", log->name_space,
                         rd_kafka_err2str(rd_kafka_last_error()));
    log->control_wanted = 0;
    return true;
}

/* ---- control ---- */

/* A record that counts a topic's partitions is ours; a worker that finds other counts must not spread runs over them. */
static bool is_count(struct log *log, const struct log_event *event)
{
    size_t skip = strlen(KAFKA_PARTITIONS_KEY), space = strlen(log->name_space) + 1;
    if (event->key.size < skip || memcmp(event->key.data, KAFKA_PARTITIONS_KEY, skip) != 0)
        return false;
    long recorded = event->value.data == NULL ? -1 : strtol(event->value.data, NULL, 10);
    for (size_t i = 0; i < log->topics_count && recorded >= 0; i++) {
        const struct log_topic *topic = log->topics[i];
        struct error error;
        if (strcmp(topic->name + space, event->key.data + skip) != 0 || topic->partitions == recorded)
            continue;
        error_set(&error, ERROR_FATAL,
                  "%s has %" PRId32 " partitions, but runs were spread over %ld: they would not be found; see: myelin "
                  "topics check",
                  topic->name, topic->partitions, recorded);
        log_fail(log, &error);
    }
    return true;
}

static void control_record(struct log *log, const rd_kafka_message_t *message)
{
    struct log_event *event = log_event_of(LOG_CONTROL, message);
    event->topic = TOPIC_CONTROL;
    event->topic_name = rd_kafka_topic_name(log->control);
    log->control_reached = message->offset + 1;
    if (is_count(log, event))
        log_block_drop(event);
    else
        log_push(log, event);
}

/* The position tells of control records too, which are not delivered. */
static int64_t position(struct log *log, rd_kafka_topic_t *topic, int32_t partition)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(topic), partition);
    rd_kafka_position(log->reader, list);
    int64_t offset = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    return offset;
}

static void serve_control_end(struct log *log)
{
    struct error error;
    if (log->control_wanted >= 0) {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(log->control), 0);
        if (kafka_watermarks(log->ruler, list, KAFKA_END, LOG_SLICE_MS, &error)) {
            log->control_reading = log->control_wanted;
            log->control_wanted = -1;
            log->control_end = list->elems[0].offset;
        } else {
            LOG_WARN("control.unknown", LOG_S("reason", error.text));
        }
        rd_kafka_topic_partition_list_destroy(list);
    }
    if (log->control_end < 0 || log->control_wanted >= 0)
        return;
    int64_t reached = position(log, log->control, 0);
    if (log->control_reached < log->control_end && reached < log->control_end)
        return;
    log->control_end = -1;
    log->control_known = true;
    struct log_event *event = log_event_new(LOG_CONTROL_END, NULL, 0);
    event->offset = log->control_reading;
    log_push(log, event);
}

/* ---- waiting ---- */

static struct log_partition *rebuilding(const struct log *log, int32_t number)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (partition->stage == STAGE_REBUILD && partition->number == number)
            return partition;
    }
    return NULL;
}

void log_rebuild_start(struct log *log, struct log_partition *partition)
{
    partition->stage = STAGE_REBUILD;
    partition->waiting_reached = 0;
    if (partition->waiting_end > 0 && rd_kafka_consume_start_queue(log->waiting, partition->number,
                                                                   RD_KAFKA_OFFSET_BEGINNING, log->reader_queue) != 0) {
        struct error error;
        error_set(&error, ERROR_FATAL, "cannot read %s partition %" PRId32 ": %s", rd_kafka_topic_name(log->waiting),
                  partition->number, rd_kafka_err2str(rd_kafka_last_error()));
        log_fail(log, &error);
    }
    CRASH_POINT("while_rebuilding");
}

void log_rebuild_stop(struct log *log, const struct log_partition *partition)
{
    if (partition->stage == STAGE_REBUILD && partition->waiting_end > 0)
        rd_kafka_consume_stop(log->waiting, partition->number);
}

static void waiting_record(struct log *log, struct log_partition *partition, const rd_kafka_message_t *message)
{
    partition->waiting_reached = message->offset + 1;
    if (message->offset >= partition->waiting_end)
        return; /* nobody but this partition's owner writes there, and that is us by now */
    struct log_event *event = log_event_of(LOG_WAITING_ROW, message);
    event->topic = partition->of->topic;
    event->topic_name = partition->of->name;
    event->tenure = partition->tenure;
    log_push(log, event);
}

static void serve_rebuild(struct log *log, struct log_partition *partition)
{
    if (partition->waiting_reached < partition->waiting_end) {
        int64_t reached = position(log, log->waiting, partition->number);
        if (reached > partition->waiting_reached)
            partition->waiting_reached = reached;
    }
    if (partition->waiting_reached < partition->waiting_end)
        return;
    log_rebuild_stop(log, partition);
    partition->stage = STAGE_SERVING;
    log_push(log, log_event_new(LOG_WAITING_END, partition, 0));
}

/* ---- both ---- */

static void serve_message(struct log *log, const rd_kafka_message_t *message)
{
    bool control = message->rkt == log->control;
    struct log_partition *partition = control ? NULL : rebuilding(log, message->partition);
    int64_t *reached = control ? &log->control_reached : partition != NULL ? &partition->waiting_reached : NULL;
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        if (reached != NULL && message->offset > *reached)
            *reached = message->offset;
    } else if (message->err) {
        LOG_WARN("kafka.trouble", LOG_S("topic", message->rkt != NULL ? rd_kafka_topic_name(message->rkt) : ""),
                 LOG_S("reason", rd_kafka_message_errstr(message)));
    } else if (control) {
        control_record(log, message);
    } else if (partition != NULL) {
        waiting_record(log, partition, message);
    }
}

bool log_reader_serve(struct log *log)
{
    rd_kafka_message_t *batch[LOG_BATCH_MAX];
    ssize_t count = 0;
    if (log->outbox_count == 0)
        count = rd_kafka_consume_batch_queue(log->reader_queue, 0, batch, LOG_BATCH_MAX);
    for (ssize_t i = 0; i < count; i++) {
        serve_message(log, batch[i]);
        rd_kafka_message_destroy(batch[i]);
    }
    for (size_t i = 0; i < log->partitions_count; i++) {
        if (log->partitions[i]->stage == STAGE_REBUILD)
            serve_rebuild(log, log->partitions[i]);
    }
    serve_control_end(log);
    return count > 0;
}
