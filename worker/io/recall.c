/*
 * Read uncommitted: whoever asks knows that the row is committed, and an open transaction before it must not hold it up.
 */
#include "worker/io/recall.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"

#define BATCH_MAX 256
#define LOOK_MS 10 /* how long what is asked for meanwhile waits */
#define LEARN_MS 500
#define AGAIN_US 1000000
#define LOUD_US 10000000
#define GAP 1000 /* rows that are rather read over than looked for anew */

/* Of one partition. */
struct part {
    struct recall_wanted *wanted; /* by offset, from `head` on */
    size_t head, count, capacity;
    bool started;
    int64_t position; /* started: the offset that comes next */
    int64_t moved_us; /* when something of it was read last, or complained about */
};

struct recall {
    char *topic_name;
    const char *const *properties;
    size_t properties_count;
    int fd;
    pthread_t thread;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct recall_wanted *asked;
    size_t asked_count, asked_capacity;
    struct recall_row *answers, **answers_last;
    bool quit;

    /* ---- the thread's ---- */
    rd_kafka_t *consumer; /* NULL: not needed yet */
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *queue;
    struct part *parts; /* by partition */
    size_t parts_count, wanted_count;
    struct recall_row *read, **read_last; /* to be answered */
};

static void *grown(void *array, size_t *capacity, size_t size)
{
    *capacity = *capacity == 0 ? 64 : *capacity * 2;
    array = realloc(array, *capacity * size);
    if (array == NULL)
        abort();
    return array;
}

/* ---- what is wanted ---- */

static int by_offset(const void *a, const void *b)
{
    int64_t first = ((const struct recall_wanted *)a)->offset, second = ((const struct recall_wanted *)b)->offset;
    return (first > second) - (first < second);
}

static struct part *part_of(struct recall *recall, int32_t partition)
{
    size_t index = (size_t)partition;
    if (index >= recall->parts_count) {
        recall->parts = realloc(recall->parts, (index + 1) * sizeof *recall->parts);
        if (recall->parts == NULL)
            abort();
        memset(&recall->parts[recall->parts_count], 0, (index + 1 - recall->parts_count) * sizeof *recall->parts);
        recall->parts_count = index + 1;
    }
    return &recall->parts[index];
}

static void want(struct recall *recall, const struct recall_wanted *wanted)
{
    struct part *part = part_of(recall, wanted->partition);
    if (part->head == part->count) {
        part->head = part->count = 0;
        part->moved_us = clock_mono_us();
    }
    if (part->count == part->capacity)
        part->wanted = grown(part->wanted, &part->capacity, sizeof part->wanted[0]);
    part->wanted[part->count++] = *wanted;
    recall->wanted_count++;
}

/* Takes what is to be read now; returns when something of the rest is. */
static int64_t take_asked(struct recall *recall)
{
    int64_t now_us = clock_mono_us(), next_us = INT64_MAX;
    size_t left = 0, before = recall->wanted_count;
    for (size_t i = 0; i < recall->asked_count; i++) {
        const struct recall_wanted *wanted = &recall->asked[i];
        if (wanted->after_us <= now_us) {
            want(recall, wanted);
            continue;
        }
        next_us = wanted->after_us < next_us ? wanted->after_us : next_us;
        recall->asked[left++] = *wanted;
    }
    recall->asked_count = left;
    for (size_t i = 0; i < recall->parts_count && recall->wanted_count > before; i++) {
        struct part *part = &recall->parts[i];
        if (part->count > part->head + 1)
            qsort(&part->wanted[part->head], part->count - part->head, sizeof part->wanted[0], by_offset);
    }
    return next_us;
}

/* ---- what is read ---- */

/* To the next that is wanted of this partition; NULL: there is no such record. */
static void answer(struct recall *recall, struct part *part, const rd_kafka_message_t *message)
{
    size_t key_size = message != NULL ? message->key_len : 0, size = message != NULL ? message->len : 0;
    struct recall_row *row = calloc(1, sizeof *row + key_size + size + 2);
    if (row == NULL)
        abort();
    char *key = (char *)(row + 1), *value = key + key_size + 1;
    row->wanted = part->wanted[part->head++];
    row->found = message != NULL;
    row->key = (struct str){key, key_size};
    if (key_size > 0)
        memcpy(key, message->key, key_size);
    if (message != NULL && message->payload != NULL) {
        memcpy(value, message->payload, size);
        row->value = (struct str){value, size};
    }
    *recall->read_last = row;
    recall->read_last = &row->next;
    recall->wanted_count--;
    part->moved_us = clock_mono_us();
}

/* The partition was read up to here: what was wanted below is not there. */
static void reached(struct recall *recall, struct part *part, int64_t offset)
{
    while (part->head < part->count && part->wanted[part->head].offset < offset)
        answer(recall, part, NULL);
    part->position = offset > part->position ? offset : part->position;
}

static void on_message(struct recall *recall, const rd_kafka_message_t *message)
{
    struct part *part = message->partition >= 0 && (size_t)message->partition < recall->parts_count
                            ? &recall->parts[message->partition]
                            : NULL;
    if (message->err && message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        LOG_WARN("kafka.trouble", LOG_S("topic", recall->topic_name), LOG_I("partition", message->partition),
                 LOG_S("reason", rd_kafka_message_errstr(message)));
        return;
    }
    if (part == NULL || !part->started)
        return;
    reached(recall, part, message->offset);
    if (message->err)
        return;
    while (part->head < part->count && part->wanted[part->head].offset == message->offset)
        answer(recall, part, message);
    part->position = message->offset + 1;
}

static void complain(const struct recall *recall, struct part *part, size_t number)
{
    int64_t now_us = clock_mono_us();
    if (now_us - part->moved_us < LOUD_US)
        return;
    part->moved_us = now_us;
    LOG_ERROR("waiting.late", LOG_S("topic", recall->topic_name), LOG_I("partition", (int64_t)number),
              LOG_I("offset", part->wanted[part->head].offset), LOG_I("rows", (int64_t)(part->count - part->head)),
              LOG_S("reason", "they cannot be read back; it is tried on"));
}

/* Reading goes on where it is, when what is wanted lies near, or begins there. */
static void aim(struct recall *recall, size_t number)
{
    struct part *part = &recall->parts[number];
    bool wanted = part->head < part->count;
    int64_t ahead = wanted ? part->wanted[part->head].offset - part->position : -1;
    if (part->started && (ahead < 0 || ahead > GAP)) {
        rd_kafka_consume_stop(recall->topic, (int32_t)number);
        part->started = false;
    }
    if (!wanted)
        return;
    complain(recall, part, number);
    if (part->started)
        return;
    part->position = part->wanted[part->head].offset;
    part->started = rd_kafka_consume_start_queue(recall->topic, (int32_t)number, part->position, recall->queue) == 0;
}

static void read_some(struct recall *recall)
{
    rd_kafka_message_t *batch[BATCH_MAX];
    for (size_t i = 0; i < recall->parts_count; i++)
        aim(recall, i);
    if (recall->wanted_count == 0)
        return;
    batch[0] = rd_kafka_consume_queue(recall->queue, LOOK_MS);
    ssize_t count = batch[0] == NULL ? 0 : 1;
    if (count > 0) {
        ssize_t more = rd_kafka_consume_batch_queue(recall->queue, 0, &batch[1], BATCH_MAX - 1);
        count += more > 0 ? more : 0;
    }
    for (ssize_t i = 0; i < count; i++) {
        on_message(recall, batch[i]);
        rd_kafka_message_destroy(batch[i]);
    }
}

static bool ready(struct recall *recall)
{
    /* Small fetches: mostly a single row is wanted of them. */
    static const struct kafka_property defaults[] = {{"fetch.wait.max.ms", "10"},
                                                     {"fetch.error.backoff.ms", "50"},
                                                     {"fetch.message.max.bytes", "131072"},
                                                     {"queued.max.messages.kbytes", "512"},
                                                     {NULL, NULL}};
    static const struct kafka_property own[] = {
        {"isolation.level", "read_uncommitted"}, {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},   {"auto.offset.reset", "earliest"},
        {"enable.partition.eof", "true"},        {NULL, NULL}};
    struct error error;
    if (recall->consumer != NULL)
        return true;
    recall->consumer = kafka_client(RD_KAFKA_CONSUMER, defaults, recall->properties, recall->properties_count, own,
                                    &error);
    if (recall->consumer == NULL) {
        LOG_ERROR("waiting.late", LOG_S("reason", error.text));
        return false;
    }
    recall->queue = rd_kafka_queue_new(recall->consumer);
    recall->topic = rd_kafka_topic_new(recall->consumer, recall->topic_name, NULL);
    kafka_learn(recall->consumer, LEARN_MS);
    return true;
}

/* ---- the thread ---- */

static void wait_until(struct recall *recall, int64_t until_us)
{
    if (until_us == INT64_MAX) {
        pthread_cond_wait(&recall->changed, &recall->lock);
        return;
    }
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    pthread_cond_timedwait(&recall->changed, &recall->lock, &until);
}

static void hand_over(struct recall *recall)
{
    if (recall->read == NULL)
        return;
    *recall->answers_last = recall->read;
    recall->answers_last = recall->read_last;
    recall->read = NULL;
    recall->read_last = &recall->read;
    if (eventfd_write(recall->fd, 1) != 0)
        abort(); /* its counter cannot be full */
}

static void *recall_thread(void *argument)
{
    struct recall *recall = argument;
    pthread_mutex_lock(&recall->lock);
    while (!recall->quit) {
        int64_t next_us = take_asked(recall);
        bool reading = recall->wanted_count > 0;
        for (size_t i = 0; i < recall->parts_count && !reading; i++)
            reading = recall->parts[i].started;
        if (!reading) {
            wait_until(recall, next_us);
            continue;
        }
        pthread_mutex_unlock(&recall->lock);
        bool connected = ready(recall);
        if (connected)
            read_some(recall);
        pthread_mutex_lock(&recall->lock);
        hand_over(recall);
        if (!connected)
            wait_until(recall, clock_mono_us() + AGAIN_US);
    }
    pthread_mutex_unlock(&recall->lock);
    return NULL;
}

/* ---- the loop's side ---- */

struct recall *recall_open(const char *name_space, const char *const *properties, size_t count, struct error *error)
{
    struct recall *recall = calloc(1, sizeof *recall);
    size_t size = strlen(name_space) + sizeof ".waiting";
    pthread_condattr_t monotonic;
    if (recall == NULL)
        abort();
    *recall = (struct recall){.topic_name = malloc(size), .properties = properties, .properties_count = count};
    recall->answers_last = &recall->answers;
    recall->read_last = &recall->read;
    recall->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (recall->topic_name == NULL || recall->fd < 0)
        abort();
    snprintf(recall->topic_name, size, "%s.waiting", name_space);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&recall->lock, NULL);
    pthread_cond_init(&recall->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&recall->thread, NULL, recall_thread, recall) != 0) {
        error_set(error, ERROR_FATAL, "cannot start a thread");
        recall->quit = true;
        recall_close(recall);
        return NULL;
    }
    pthread_setname_np(recall->thread, "recall");
    return recall;
}

static void disconnect(struct recall *recall)
{
    for (size_t i = 0; i < recall->parts_count; i++) {
        if (recall->parts[i].started)
            rd_kafka_consume_stop(recall->topic, (int32_t)i);
        free(recall->parts[i].wanted);
    }
    free(recall->parts);
    if (recall->consumer == NULL)
        return;
    rd_kafka_queue_destroy(recall->queue);
    rd_kafka_topic_destroy(recall->topic);
    rd_kafka_destroy(recall->consumer);
}

void recall_row_free(struct recall_row *row)
{
    free(row);
}

static void free_rows(struct recall_row *rows)
{
    while (rows != NULL) {
        struct recall_row *next = rows->next;
        recall_row_free(rows);
        rows = next;
    }
}

void recall_close(struct recall *recall)
{
    if (recall == NULL)
        return;
    pthread_mutex_lock(&recall->lock);
    bool started = !recall->quit;
    recall->quit = true;
    pthread_cond_signal(&recall->changed);
    pthread_mutex_unlock(&recall->lock);
    if (started)
        pthread_join(recall->thread, NULL);
    disconnect(recall);
    free_rows(recall->answers);
    free_rows(recall->read);
    pthread_cond_destroy(&recall->changed);
    pthread_mutex_destroy(&recall->lock);
    close(recall->fd);
    free(recall->asked);
    free(recall->topic_name);
    free(recall);
}

int recall_fd(const struct recall *recall)
{
    return recall->fd;
}

void recall_ask(struct recall *recall, const struct recall_wanted *wanted, size_t count)
{
    if (count == 0)
        return;
    pthread_mutex_lock(&recall->lock);
    for (size_t i = 0; i < count; i++) {
        if (recall->asked_count == recall->asked_capacity)
            recall->asked = grown(recall->asked, &recall->asked_capacity, sizeof recall->asked[0]);
        recall->asked[recall->asked_count++] = wanted[i];
    }
    pthread_cond_signal(&recall->changed);
    pthread_mutex_unlock(&recall->lock);
}

struct recall_row *recall_next(struct recall *recall)
{
    eventfd_t count;
    pthread_mutex_lock(&recall->lock);
    struct recall_row *row = recall->answers;
    if (row != NULL) {
        recall->answers = row->next;
        if (recall->answers == NULL)
            recall->answers_last = &recall->answers;
    } else if (eventfd_read(recall->fd, &count) != 0) {
        row = NULL; /* it was empty: nothing came since the last look */
    }
    pthread_mutex_unlock(&recall->lock);
    return row;
}
