/*
 * Partitions are read by librdkafka's simple consumer: it needs no group, so nobody needs a right on one and no coordinator
 * is asked.
 */
#include "worker/io/reader.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"

#define METADATA_TIMEOUT_MS 10000
#define PROPAGATION_MS 2000 /* how long a topic that one broker has may be unknown to another */
#define ASK_AGAIN_MS 50

struct part {
    int64_t end;     /* the high watermark as of reader_start: READER_END when all have got there */
    int64_t reached; /* the offset after the last that was read, control records and aborted ones too */
};

struct reader {
    rd_kafka_t *consumer; /* read_committed */
    rd_kafka_t *ruler;    /* read_uncommitted: where partitions end */
    const struct rd_kafka_metadata *metadata;
    rd_kafka_queue_t *queue;
    rd_kafka_topic_t *topic; /* NULL until reader_start */
    struct part *parts;      /* by partition; those that are not read have reached their end */
    int32_t parts_count;
    int32_t first, last; /* partitions that are read */
    bool end_told;
    struct arena *arena; /* holds the record that the caller looks at */
};

struct reader *reader_open(const char *const *properties, size_t count, struct error *error)
{
    /* An empty fetch tells that the end is reached, and the next reader_start waits for the fetch under way: the broker must
     * not sit on it for the default 500 ms. */
    static const struct kafka_property defaults[] = {
        {"fetch.wait.max.ms", "20"}, {"queued.max.messages.kbytes", "16384"}, {NULL, NULL}};
    static const struct kafka_property own[] = {
        {"isolation.level", "read_committed"}, {"auto.offset.reset", "earliest"},     {"enable.partition.eof", "true"},
        {"enable.auto.commit", "false"},       {"enable.auto.offset.store", "false"}, {NULL, NULL}};
    rd_kafka_t *consumer = kafka_client(RD_KAFKA_CONSUMER, defaults, properties, count, own, error);
    if (consumer == NULL)
        return NULL;
    rd_kafka_t *ruler = kafka_ruler(properties, count, error);
    const struct rd_kafka_metadata *metadata = ruler != NULL ? kafka_metadata(ruler, METADATA_TIMEOUT_MS, error) : NULL;
    if (metadata == NULL) {
        if (ruler != NULL)
            rd_kafka_destroy(ruler);
        rd_kafka_destroy(consumer);
        return NULL;
    }
    struct reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        abort();
    *reader = (struct reader){.consumer = consumer, .ruler = ruler, .metadata = metadata};
    reader->queue = rd_kafka_queue_new(consumer);
    reader->arena = arena_new();
    return reader;
}

static void stop(struct reader *reader)
{
    free(reader->parts);
    reader->parts = NULL;
    if (reader->topic == NULL)
        return;
    for (int32_t i = reader->first; i <= reader->last; i++)
        rd_kafka_consume_stop(reader->topic, i);
    /* What was fetched and not read yet would else turn up after the next reader_start. */
    rd_kafka_queue_destroy(reader->queue);
    reader->queue = rd_kafka_queue_new(reader->consumer);
    rd_kafka_topic_destroy(reader->topic);
    reader->topic = NULL;
}

void reader_close(struct reader *reader)
{
    if (reader == NULL)
        return;
    stop(reader);
    rd_kafka_queue_destroy(reader->queue);
    rd_kafka_metadata_destroy(reader->metadata);
    rd_kafka_destroy(reader->ruler);
    rd_kafka_destroy(reader->consumer);
    arena_free(reader->arena);
    free(reader);
}

int32_t reader_partitions(struct reader *reader, const char *topic, struct error *error)
{
    int32_t count = kafka_partitions(reader->metadata, topic);
    int64_t until_ms = clock_mono_us() / 1000 + PROPAGATION_MS;
    /* It may have been made since; and of several brokers one hears of it later than another. */
    for (bool again = true; count < 0 && again;) {
        const struct rd_kafka_metadata *fresh = kafka_metadata(reader->ruler, METADATA_TIMEOUT_MS, error);
        if (fresh == NULL)
            return -1;
        rd_kafka_metadata_destroy(reader->metadata);
        reader->metadata = fresh;
        count = kafka_partitions(fresh, topic);
        again = count < 0 && fresh->broker_cnt > 1 && clock_mono_us() / 1000 < until_ms;
        if (again)
            rd_kafka_poll(reader->ruler, ASK_AGAIN_MS);
    }
    if (count < 0)
        error_set(error, ERROR_FATAL, "topic %s does not exist; run: myelin topics create", topic);
    return count;
}

int32_t reader_partition_of(struct reader *reader, const char *topic, struct str run, struct error *error)
{
    int32_t count = reader_partitions(reader, topic, error);
    if (count <= 0)
        return -1;
    return rd_kafka_msg_partitioner_murmur2(NULL, run.data, run.size, count, NULL, NULL);
}

/* Sets offset of each element to where reading starts. */
static bool find_starts(struct reader *reader, rd_kafka_topic_partition_list_t *list, int64_t from_ms,
                        struct error *error)
{
    if (from_ms == READER_FROM_START)
        return kafka_watermarks(reader->ruler, list, KAFKA_BEGIN, METADATA_TIMEOUT_MS, error);
    if (from_ms == READER_FROM_END)
        return true; /* the ends were asked for already */
    int64_t *ends = calloc((size_t)list->cnt, sizeof *ends);
    if (ends == NULL)
        abort();
    for (int i = 0; i < list->cnt; i++) {
        ends[i] = list->elems[i].offset;
        list->elems[i].offset = from_ms;
    }
    rd_kafka_resp_err_t failed = rd_kafka_offsets_for_times(reader->ruler, list, METADATA_TIMEOUT_MS);
    for (int i = 0; i < list->cnt; i++) {
        if (list->elems[i].offset < 0) /* nothing is that young: what comes next is */
            list->elems[i].offset = ends[i];
    }
    free(ends);
    if (failed)
        return error_set(error, ERROR_RETRY, "cannot find the time in %s: %s", list->elems[0].topic,
                         rd_kafka_err2str(failed));
    return true;
}

static bool start(struct reader *reader, const char *topic, const rd_kafka_topic_partition_list_t *list,
                  struct error *error)
{
    reader->topic = rd_kafka_topic_new(reader->consumer, topic, NULL);
    reader->last = reader->first - 1;
    kafka_learn(reader->consumer, METADATA_TIMEOUT_MS);
    for (int i = 0; i < list->cnt; i++) {
        int32_t partition = list->elems[i].partition;
        reader->parts[partition].reached = list->elems[i].offset;
        if (rd_kafka_consume_start_queue(reader->topic, partition, list->elems[i].offset, reader->queue) != 0) {
            error_set(error, ERROR_FATAL, "cannot read %s partition %d: %s", topic, (int)partition,
                      rd_kafka_err2str(rd_kafka_last_error()));
            stop(reader);
            return false;
        }
        reader->last = partition;
    }
    return true;
}

bool reader_start(struct reader *reader, const char *topic, int32_t partition, int64_t from_ms, struct error *error)
{
    stop(reader);
    int32_t count = reader_partitions(reader, topic, error);
    if (count < 0)
        return false;
    if (partition >= count)
        return error_set(error, ERROR_FATAL, "%s has %d partitions, there is no partition %d", topic, (int)count,
                         (int)partition);
    reader->first = partition < 0 ? 0 : partition;
    int32_t last = partition < 0 ? count - 1 : partition;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(last - reader->first + 1);
    rd_kafka_topic_partition_list_add_range(list, topic, reader->first, last);
    bool ok = kafka_watermarks(reader->ruler, list, KAFKA_END, METADATA_TIMEOUT_MS, error);
    if (ok) {
        reader->parts_count = count;
        reader->parts = calloc((size_t)count, sizeof *reader->parts);
        if (reader->parts == NULL)
            abort();
        for (int i = 0; i < list->cnt; i++)
            reader->parts[list->elems[i].partition].end = list->elems[i].offset;
        reader->end_told = false;
        ok = find_starts(reader, list, from_ms, error) && start(reader, topic, list, error);
    }
    rd_kafka_topic_partition_list_destroy(list);
    return ok;
}

/* librdkafka takes control records out of the queue without a word, but they move the position. */
static bool at_end(struct reader *reader)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    for (int32_t i = reader->first; i <= reader->last; i++) {
        if (reader->parts[i].reached < reader->parts[i].end)
            rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(reader->topic), i);
    }
    bool ended = true;
    if (list->cnt > 0)
        rd_kafka_position(reader->consumer, list);
    for (int i = 0; i < list->cnt; i++) {
        struct part *part = &reader->parts[list->elems[i].partition];
        if (list->elems[i].offset > part->reached)
            part->reached = list->elems[i].offset;
        ended = ended && part->reached >= part->end;
    }
    rd_kafka_topic_partition_list_destroy(list);
    return ended;
}

/* A message that is no record: the end of a partition, which is noted, or trouble, most of which heals by itself. */
static bool is_trouble(struct reader *reader, const rd_kafka_message_t *message, struct error *error)
{
    switch (message->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        if (message->offset > reader->parts[message->partition].reached)
            reader->parts[message->partition].reached = message->offset;
        return false;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
        return false; /* librdkafka connects again and goes on where it was; it has logged it */
    default:
        error_set(error, ERROR_FATAL, "cannot read %s: %s",
                  reader->topic != NULL ? rd_kafka_topic_name(reader->topic) : "", rd_kafka_message_errstr(message));
        return true;
    }
}

/* The next message within the time, or NULL; looks whether the end is reached whenever there is none right now. */
static rd_kafka_message_t *next(struct reader *reader, int64_t until_us, bool *ended)
{
    for (;;) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(reader->queue, 0);
        if (message != NULL)
            return message;
        *ended = !reader->end_told && at_end(reader);
        int64_t left_ms = (until_us - clock_mono_us() + 999) / 1000;
        if (*ended || left_ms <= 0)
            return NULL;
        int64_t wait_ms = reader->end_told || left_ms < 10 ? left_ms : 10;
        message = rd_kafka_consume_queue(reader->queue, (int)wait_ms);
        if (message != NULL)
            return message;
    }
}

static struct str copy(struct arena *arena, const void *data, size_t size)
{
    return data == NULL ? STR_NONE : arena_copy(arena, data, size);
}

enum reader_got reader_next(struct reader *reader, int64_t timeout_ms, struct reader_record *record,
                            struct error *error)
{
    assert(reader->topic != NULL);
    int64_t until_us = clock_mono_us() + timeout_ms * 1000;
    for (;;) {
        bool ended = false;
        rd_kafka_message_t *message = next(reader, until_us, &ended);
        if (message == NULL) {
            reader->end_told = reader->end_told || ended;
            return ended ? READER_END : READER_TIMEOUT;
        }
        bool trouble = message->err && is_trouble(reader, message, error);
        if (!message->err) {
            reader->parts[message->partition].reached = message->offset + 1;
            /* Copied, for librdkafka puts no NUL behind them, as struct str promises. */
            arena_reset(reader->arena);
            *record = (struct reader_record){.key = copy(reader->arena, message->key, message->key_len),
                                             .value = copy(reader->arena, message->payload, message->len),
                                             .partition = message->partition,
                                             .offset = message->offset,
                                             .timestamp_ms = rd_kafka_message_timestamp(message, NULL)};
        }
        bool got = !message->err;
        rd_kafka_message_destroy(message);
        if (got)
            return READER_RECORD;
        if (trouble)
            return READER_ERROR;
    }
}
