/*
 * Read uncommitted: whoever asks knows that the record is committed, and an open transaction before it must not hold it up.
 */
#include "worker/io/readback.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/base/mem.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"

#define BATCH_MAX 256
#define LOOK_MS 10 /* how long what is asked for meanwhile waits */
#define LEARN_MS 500
#define AGAIN_US 1000000
#define LOUD_US 10000000
/* What is rather read over than looked for anew. */
#define OVER_RECORDS 1000
#define OVER_BYTES ((size_t)1 << 20)
#define BEHIND_BYTES ((size_t)1 << 20) /* of what lies before one that is wanted, the nearest */

struct wants {
    struct readback_wanted *items;
    size_t count, capacity;
};

struct rows {
    struct readback_row *first, **last;
};

struct topic {
    char *name;
    rd_kafka_topic_t *handle; /* NULL: not connected yet */
    int32_t partitions;       /* as was said last; 0: nobody knows this topic, or said anything */
};

/* A partition of which something is wanted. */
struct part {
    struct part *next;
    struct topic *topic;
    int32_t partition;
    struct wants now; /* by offset, from `head` on */
    size_t head;
    struct wants later; /* what came since: so nobody is passed by for ever */
    bool started;
    int64_t position; /* started: the offset that comes next; -1: unknown, it must be started again */
    size_t over;      /* bytes that were read over since the last answer */
    struct rows behind;
    size_t behind_size;
    int64_t moved_us; /* of the last answer, or complaint */
};

struct readback {
    const char *const *properties;
    size_t properties_count, topics_count;
    struct topic *topics; /* the names; the rest is the thread's */
    int fd;
    pthread_t thread;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct wants asked;
    struct rows answers;
    bool quit;

    /* ---- the thread's ---- */
    rd_kafka_t *consumer; /* NULL: not needed yet */
    rd_kafka_queue_t *queue;
    struct wants taken;
    struct part *parts;
    struct rows read;               /* to be answered */
    int64_t learned_us, trouble_us; /* tried last; complained about last */
    bool learned;
};

/* ---- lists ---- */

static void add(struct wants *wants, const struct readback_wanted *wanted)
{
    if (wants->count == wants->capacity) {
        wants->capacity = wants->capacity == 0 ? 16 : wants->capacity * 2;
        wants->items = mem_resize(wants->items, wants->capacity * sizeof wants->items[0]);
    }
    wants->items[wants->count++] = *wanted;
}

static void append(struct rows *rows, struct readback_row *row)
{
    *rows->last = row;
    rows->last = &row->next;
}

static struct readback_row *take(struct rows *rows)
{
    struct readback_row *row = rows->first;
    if (row == NULL)
        return NULL;
    rows->first = row->next;
    if (rows->first == NULL)
        rows->last = &rows->first;
    row->next = NULL;
    return row;
}

static void free_rows(struct rows *rows)
{
    for (struct readback_row *row; (row = take(rows)) != NULL;)
        readback_row_free(row);
}

/* ---- what is wanted ---- */

/* Moves what is to be read now; returns when something of the rest is. */
static int64_t take_asked(struct readback *readback)
{
    int64_t now_us = clock_mono_us(), next_us = INT64_MAX;
    size_t left = 0;
    for (size_t i = 0; i < readback->asked.count; i++) {
        const struct readback_wanted *wanted = &readback->asked.items[i];
        if (wanted->after_us <= now_us) {
            add(&readback->taken, wanted);
            continue;
        }
        next_us = wanted->after_us < next_us ? wanted->after_us : next_us;
        readback->asked.items[left++] = *wanted;
    }
    readback->asked.count = left;
    return next_us;
}

static struct part *part_of(struct readback *readback, const struct readback_wanted *wanted)
{
    struct topic *topic = &readback->topics[wanted->topic];
    struct part *part = readback->parts;
    while (part != NULL && (part->topic != topic || part->partition != wanted->partition))
        part = part->next;
    if (part != NULL)
        return part;
    part = mem_new(sizeof *part);
    *part = (struct part){.next = readback->parts, .topic = topic, .partition = wanted->partition};
    part->behind.last = &part->behind.first;
    readback->parts = part;
    return part;
}

static void sort_in(struct readback *readback)
{
    for (size_t i = 0; i < readback->taken.count; i++)
        add(&part_of(readback, &readback->taken.items[i])->later, &readback->taken.items[i]);
    readback->taken.count = 0;
}

static int by_offset(const void *a, const void *b)
{
    int64_t first = ((const struct readback_wanted *)a)->offset, second = ((const struct readback_wanted *)b)->offset;
    return (first > second) - (first < second);
}

/* NULL: nothing is wanted now. */
static const struct readback_wanted *head_of(const struct part *part)
{
    return part->head < part->now.count ? &part->now.items[part->head] : NULL;
}

static void next_sweep(struct part *part)
{
    if (head_of(part) != NULL || part->later.count == 0)
        return;
    struct wants done = part->now;
    part->now = part->later;
    part->later = done;
    part->later.count = part->head = part->over = 0;
    part->moved_us = clock_mono_us();
    qsort(part->now.items, part->now.count, sizeof part->now.items[0], by_offset);
}

/* ---- what is read ---- */

static struct readback_row *row_new(const struct readback_wanted *wanted, const rd_kafka_message_t *message)
{
    size_t key_size = message != NULL ? message->key_len : 0, size = message != NULL ? message->len : 0;
    struct readback_row *row = mem_new(sizeof *row + key_size + size + 2);
    char *key = (char *)(row + 1), *value = key + key_size + 1;
    row->wanted = *wanted;
    row->key = (struct str){key, key_size};
    if (key_size > 0)
        memcpy(key, message->key, key_size);
    if (message != NULL && message->payload != NULL) {
        memcpy(value, message->payload, size);
        row->value = (struct str){value, size};
    }
    return row;
}

static void hand_over(struct readback *readback, struct readback_row *row)
{
    if (row->wanted.hashed && row->value.data != NULL)
        hash_sha256_raw(row->value, row->digest);
    append(&readback->read, row);
}

/* To the next that is wanted of this partition: the record, or why there is none. */
static void answer(struct readback *readback, struct part *part, const rd_kafka_message_t *message,
                   const char *not_there)
{
    struct readback_row *row = row_new(&part->now.items[part->head++], message);
    row->asked = true;
    row->not_there = not_there;
    hand_over(readback, row);
    part->moved_us = clock_mono_us();
    part->over = 0;
}

/* The partition was read up to here. */
static void reached(struct readback *readback, struct part *part, int64_t offset)
{
    for (const struct readback_wanted *head; (head = head_of(part)) != NULL && head->offset < offset;)
        answer(readback, part, NULL, "it was deleted");
}

/* It has nothing of all that is wanted now. Where librdkafka reads on is of no use: it tells an end once. */
static void nothing_left(struct readback *readback, struct part *part, const char *not_there)
{
    while (head_of(part) != NULL)
        answer(readback, part, NULL, not_there);
    part->position = -1;
}

static void forget_behind(struct part *part, size_t size_max)
{
    while (part->behind_size > size_max) {
        struct readback_row *row = take(&part->behind);
        part->behind_size -= sizeof *row + row->value.size;
        readback_row_free(row);
    }
}

static void keep_behind(struct part *part, const rd_kafka_message_t *message)
{
    struct readback_row *row = row_new(head_of(part), message);
    row->wanted.offset = message->offset;
    append(&part->behind, row);
    part->behind_size += sizeof *row + row->value.size;
    forget_behind(part, BEHIND_BYTES);
}

static void on_record(struct readback *readback, struct part *part, const rd_kafka_message_t *message)
{
    reached(readback, part, message->offset);
    part->position = message->offset + 1;
    const struct readback_wanted *head = head_of(part);
    if (head == NULL)
        return;
    if (head->offset != message->offset) {
        if (message->offset >= head->offset - head->behind)
            keep_behind(part, message);
        else
            part->over += message->len;
        return;
    }
    for (struct readback_row *row; (row = take(&part->behind)) != NULL;)
        hand_over(readback, row);
    part->behind_size = 0;
    for (; (head = head_of(part)) != NULL && head->offset == message->offset;)
        answer(readback, part, message, NULL);
}

/* librdkafka tries on. */
static void trouble(struct readback *readback, const rd_kafka_message_t *message)
{
    int64_t now_us = clock_mono_us();
    if (readback->trouble_us != 0 && now_us - readback->trouble_us < LOUD_US)
        return;
    readback->trouble_us = now_us;
    LOG_WARN("kafka.trouble", LOG_S("topic", message->rkt != NULL ? rd_kafka_topic_name(message->rkt) : ""),
             LOG_I("partition", message->partition), LOG_S("reason", rd_kafka_message_errstr(message)));
}

static void on_message(struct readback *readback, const rd_kafka_message_t *message)
{
    struct part *part = readback->parts;
    while (part != NULL && (part->topic->handle != message->rkt || part->partition != message->partition))
        part = part->next;
    if (message->err && message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        trouble(readback, message);
    } else if (part == NULL || !part->started || part->position < 0) {
        return;
    } else if (message->err) {
        reached(readback, part, message->offset);
        nothing_left(readback, part, "it ends before");
    } else if (message->offset < part->position) { /* above its end; librdkafka went back to its beginning */
        nothing_left(readback, part, "it ends before");
    } else {
        on_record(readback, part, message);
    }
}

static void complain(struct part *part)
{
    int64_t now_us = clock_mono_us();
    if (now_us - part->moved_us < LOUD_US)
        return;
    part->moved_us = now_us;
    LOG_ERROR("readback.late", LOG_S("topic", part->topic->name), LOG_I("partition", part->partition),
              LOG_I("offset", head_of(part)->offset), LOG_I("records", (int64_t)(part->now.count - part->head)),
              LOG_S("reason", "they cannot be read back; it is tried on"));
}

/* False: nobody says how many partitions there are. */
static bool learn(struct readback *readback)
{
    const struct rd_kafka_metadata *metadata = NULL;
    int64_t now_us = clock_mono_us();
    if (readback->learned_us != 0 && now_us - readback->learned_us < AGAIN_US)
        return readback->learned;
    readback->learned_us = now_us;
    readback->learned = rd_kafka_metadata(readback->consumer, 0, NULL, &metadata, LEARN_MS) ==
                        RD_KAFKA_RESP_ERR_NO_ERROR;
    for (size_t i = 0; i < readback->topics_count && readback->learned; i++) {
        int32_t partitions = kafka_partitions(metadata, readback->topics[i].name);
        readback->topics[i].partitions = partitions > 0 ? partitions : 0;
    }
    if (readback->learned)
        rd_kafka_metadata_destroy(metadata);
    return readback->learned;
}

/* librdkafka waits for a partition that it never heard of. A topic that nobody knows may only have been made a moment ago. */
static bool is_there(struct readback *readback, struct part *part)
{
    const struct topic *topic = part->topic;
    if (part->partition >= topic->partitions && learn(readback) && topic->partitions > 0 &&
        part->partition >= topic->partitions)
        nothing_left(readback, part, "there is no such partition");
    return part->partition < topic->partitions;
}

static void stop(struct part *part)
{
    if (part->started)
        rd_kafka_consume_stop(part->topic->handle, part->partition);
    part->started = false;
    forget_behind(part, 0);
}

/* Reading goes on where it is, when what is wanted lies near, or begins there. False: nothing is wanted. */
static bool aim(struct readback *readback, struct part *part)
{
    next_sweep(part);
    const struct readback_wanted *head = head_of(part);
    if (head == NULL)
        return false;
    int64_t from = head->offset > head->behind ? head->offset - head->behind : 0, ahead = from - part->position;
    bool near = part->position >= 0 && part->position <= head->offset && ahead <= OVER_RECORDS;
    if (!near || (ahead > 0 && part->over > OVER_BYTES))
        stop(part);
    complain(part);
    if (part->started || !is_there(readback, part))
        return true;
    part->position = from;
    part->over = 0;
    part->started = rd_kafka_consume_start_queue(part->topic->handle, part->partition, from, readback->queue) == 0;
    return true;
}

static void part_free(struct part *part)
{
    stop(part);
    mem_free(part->now.items);
    mem_free(part->later.items);
    mem_free(part);
}

static void aim_all(struct readback *readback)
{
    for (struct part **link = &readback->parts; *link != NULL;) {
        struct part *part = *link;
        if (aim(readback, part)) {
            link = &part->next;
            continue;
        }
        *link = part->next;
        part_free(part);
    }
}

static void read_some(struct readback *readback)
{
    rd_kafka_message_t *batch[BATCH_MAX];
    aim_all(readback);
    if (readback->parts == NULL)
        return;
    batch[0] = rd_kafka_consume_queue(readback->queue, LOOK_MS);
    ssize_t count = batch[0] == NULL ? 0 : 1;
    if (count > 0) {
        ssize_t more = rd_kafka_consume_batch_queue(readback->queue, 0, &batch[1], BATCH_MAX - 1);
        count += more > 0 ? more : 0;
    }
    for (ssize_t i = 0; i < count; i++) {
        on_message(readback, batch[i]);
        rd_kafka_message_destroy(batch[i]);
    }
}

static bool ready(struct readback *readback)
{
    /* Small fetches: mostly a single record is wanted of them. A larger one still comes, alone. What is fetched ahead may be much
     * more than one: librdkafka 2.0 that reached the limit looks again after a second. */
    static const struct kafka_property defaults[] = {{"fetch.wait.max.ms", "10"},
                                                     {"fetch.error.backoff.ms", "50"},
                                                     {"fetch.message.max.bytes", "131072"},
                                                     {"queued.max.messages.kbytes", "4096"},
                                                     {NULL, NULL}};
    static const struct kafka_property own[] = {
        {"isolation.level", "read_uncommitted"}, {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},   {"auto.offset.reset", "earliest"},
        {"enable.partition.eof", "true"},        {NULL, NULL}};
    struct error error;
    if (readback->consumer != NULL)
        return true;
    readback->consumer = kafka_client(RD_KAFKA_CONSUMER, defaults, readback->properties, readback->properties_count,
                                      own, &error);
    if (readback->consumer == NULL) {
        LOG_ERROR("readback.late", LOG_S("reason", error.text));
        return false;
    }
    readback->queue = rd_kafka_queue_new(readback->consumer);
    for (size_t i = 0; i < readback->topics_count; i++)
        readback->topics[i].handle = rd_kafka_topic_new(readback->consumer, readback->topics[i].name, NULL);
    return true;
}

/* ---- the thread ---- */

static void wait_until(struct readback *readback, int64_t until_us)
{
    if (until_us == INT64_MAX) {
        pthread_cond_wait(&readback->changed, &readback->lock);
        return;
    }
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    pthread_cond_timedwait(&readback->changed, &readback->lock, &until);
}

static void tell(struct readback *readback)
{
    if (readback->read.first == NULL)
        return;
    *readback->answers.last = readback->read.first;
    readback->answers.last = readback->read.last;
    readback->read = (struct rows){.last = &readback->read.first};
    if (eventfd_write(readback->fd, 1) != 0)
        abort(); /* its counter cannot be full */
}

static void *readback_thread(void *argument)
{
    struct readback *readback = argument;
    pthread_mutex_lock(&readback->lock);
    while (!readback->quit) {
        int64_t next_us = take_asked(readback);
        if (readback->taken.count == 0 && readback->parts == NULL) {
            wait_until(readback, next_us);
            continue;
        }
        pthread_mutex_unlock(&readback->lock);
        sort_in(readback);
        bool connected = ready(readback);
        if (connected)
            read_some(readback);
        pthread_mutex_lock(&readback->lock);
        tell(readback);
        if (!connected)
            wait_until(readback, clock_mono_us() + AGAIN_US);
    }
    pthread_mutex_unlock(&readback->lock);
    return NULL;
}

/* ---- the loop's side ---- */

struct readback *readback_open(const char *const *topics, size_t topics_count, const char *const *properties,
                               size_t properties_count, struct error *error)
{
    struct readback *readback = mem_new(sizeof *readback);
    pthread_condattr_t monotonic;
    *readback = (struct readback){
        .properties = properties, .properties_count = properties_count, .topics_count = topics_count};
    readback->answers.last = &readback->answers.first;
    readback->read.last = &readback->read.first;
    readback->topics = mem_new(topics_count * sizeof readback->topics[0]);
    for (size_t i = 0; i < topics_count; i++) {
        readback->topics[i].name = mem_new(strlen(topics[i]) + 1);
        memcpy(readback->topics[i].name, topics[i], strlen(topics[i]));
    }
    readback->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (readback->fd < 0)
        abort();
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&readback->lock, NULL);
    pthread_cond_init(&readback->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&readback->thread, NULL, readback_thread, readback) != 0) {
        error_set(error, ERROR_FATAL, "cannot start a thread");
        readback->quit = true;
        readback_close(readback);
        return NULL;
    }
    pthread_setname_np(readback->thread, "readback");
    return readback;
}

static void disconnect(struct readback *readback)
{
    for (struct part *part; (part = readback->parts) != NULL;) {
        readback->parts = part->next;
        part_free(part);
    }
    for (size_t i = 0; i < readback->topics_count; i++) {
        if (readback->topics[i].handle != NULL)
            rd_kafka_topic_destroy(readback->topics[i].handle);
        mem_free(readback->topics[i].name);
    }
    if (readback->consumer == NULL)
        return;
    rd_kafka_queue_destroy(readback->queue);
    rd_kafka_destroy(readback->consumer);
}

void readback_row_free(struct readback_row *row)
{
    mem_free(row);
}

void readback_close(struct readback *readback)
{
    if (readback == NULL)
        return;
    pthread_mutex_lock(&readback->lock);
    bool started = !readback->quit;
    readback->quit = true;
    pthread_cond_signal(&readback->changed);
    pthread_mutex_unlock(&readback->lock);
    if (started)
        pthread_join(readback->thread, NULL);
    disconnect(readback);
    free_rows(&readback->answers);
    free_rows(&readback->read);
    pthread_cond_destroy(&readback->changed);
    pthread_mutex_destroy(&readback->lock);
    close(readback->fd);
    mem_free(readback->asked.items);
    mem_free(readback->taken.items);
    mem_free(readback->topics);
    mem_free(readback);
}

int readback_fd(const struct readback *readback)
{
    return readback->fd;
}

void readback_ask(struct readback *readback, const struct readback_wanted *wanted, size_t count)
{
    if (count == 0)
        return;
    pthread_mutex_lock(&readback->lock);
    for (size_t i = 0; i < count; i++)
        add(&readback->asked, &wanted[i]);
    pthread_cond_signal(&readback->changed);
    pthread_mutex_unlock(&readback->lock);
}

struct readback_row *readback_next(struct readback *readback)
{
    eventfd_t count;
    pthread_mutex_lock(&readback->lock);
    struct readback_row *row = take(&readback->answers);
    if (row == NULL)
        (void)eventfd_read(readback->fd, &count); /* until something comes */
    pthread_mutex_unlock(&readback->lock);
    return row;
}
