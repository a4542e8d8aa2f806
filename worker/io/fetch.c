#include "worker/io/fetch.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/base/mem.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"

#define LEARN_MS 1000
#define POLL_MS 100
#define BEHIND_COUNT 128                       /* records before the one asked for: a chain is followed backwards */
#define BEHIND_BYTES_MAX ((size_t)1 << 20)     /* of them, the nearest */
#define PATIENCE_US (INT64_C(5) * 1000 * 1000) /* with what seems not to be there */

struct request {
    struct request *next;
    int32_t partition;
    int64_t offset;
    fetch_done done;
    void *context;
    struct fetched fetched;
    size_t capacity, size; /* of fetched.records; bytes of their values */
};

struct queue {
    struct request *first, *last;
};

struct fetch {
    rd_kafka_t *consumer;
    rd_kafka_topic_t *topic;
    pthread_t thread;
    bool started;
    int32_t partitions; /* the thread's; 0 = not asked yet */
    int fd;
    atomic_bool quit;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct queue asked, answered;
};

static void put(struct queue *queue, struct request *request)
{
    *(queue->last != NULL ? &queue->last->next : &queue->first) = request;
    queue->last = request;
}

static struct request *take(struct queue *queue)
{
    struct request *request = queue->first;
    if (request == NULL)
        return NULL;
    queue->first = request->next;
    if (queue->first == NULL)
        queue->last = NULL;
    request->next = NULL;
    return request;
}

/* ---- the thread ---- */

static void forget_first(struct request *request, size_t count)
{
    struct fetched *fetched = &request->fetched;
    if (count == 0)
        return; /* there may be no array yet */
    for (size_t i = 0; i < count; i++) {
        request->size -= fetched->records[i].value.size;
        mem_free((void *)(uintptr_t)fetched->records[i].value.data);
    }
    fetched->count -= count;
    memmove(fetched->records, &fetched->records[count], fetched->count * sizeof fetched->records[0]);
}

static void keep(struct request *request, const rd_kafka_message_t *message)
{
    struct fetched *fetched = &request->fetched;
    while (fetched->count > 0 && request->size + message->len > BEHIND_BYTES_MAX)
        forget_first(request, 1);
    if (fetched->count == request->capacity) {
        request->capacity = request->capacity == 0 ? 16 : request->capacity * 2;
        fetched->records = mem_resize(fetched->records, request->capacity * sizeof fetched->records[0]);
    }
    char *bytes = mem_new(message->len + 1);
    if (message->len > 0)
        memcpy(bytes, message->payload, message->len);
    struct fetched_record *record = &fetched->records[fetched->count++];
    record->value = (struct str){bytes, message->len};
    hash_sha256_raw(record->value, record->digest);
    request->size += message->len;
}

static bool lost(struct request *request, const char *why)
{
    forget_first(request, request->fetched.count);
    return error_set(&request->fetched.error, ERROR_POISON, "partition %" PRId32 " has no record at %" PRId64 ": %s",
                     request->partition, request->offset, why);
}

struct reading {
    int64_t from;
    int64_t doubtful_us; /* since when it seems not to be there; 0 = it does not */
    char why[200];
};

/* It is not there; but a new leader may say so for a moment. */
static void doubt(struct reading *reading, const char *why)
{
    if (reading->doubtful_us != 0)
        return;
    reading->doubtful_us = clock_mono_us();
    snprintf(reading->why, sizeof reading->why, "%s", why);
}

/* True: go on reading. */
static bool see(struct request *request, struct reading *reading, const rd_kafka_message_t *message)
{
    switch (message->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        break;
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        doubt(reading, "it ends before");
        return true;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
        return true; /* librdkafka connects again and goes on where it was; it has logged it */
    default:
        doubt(reading, rd_kafka_message_errstr(message));
        return true;
    }
    if (message->offset > request->offset)
        return lost(request, "it was deleted");
    if (message->offset < reading->from) /* librdkafka went back to the beginning, for that offset is out of range */
        return lost(request, "it ends before");
    keep(request, message);
    return message->offset < request->offset;
}

/* False: it has no such partition. librdkafka would wait for one. */
static bool has_partition(struct fetch *fetch, struct request *request)
{
    while (request->partition >= fetch->partitions && !atomic_load(&fetch->quit)) {
        const struct rd_kafka_metadata *metadata = kafka_metadata(fetch->consumer, LEARN_MS, NULL);
        if (metadata == NULL)
            continue; /* it waited long enough */
        fetch->partitions = kafka_partitions(metadata, rd_kafka_topic_name(fetch->topic));
        rd_kafka_metadata_destroy(metadata);
        if (request->partition >= fetch->partitions)
            return lost(request, "there is no such partition");
    }
    return true;
}

static void read_one(struct fetch *fetch, struct request *request)
{
    if (!has_partition(fetch, request))
        return;
    struct reading reading = {.from = request->offset > BEHIND_COUNT ? request->offset - BEHIND_COUNT : 0};
    rd_kafka_queue_t *queue = rd_kafka_queue_new(fetch->consumer);
    if (rd_kafka_consume_start_queue(fetch->topic, request->partition, reading.from, queue) != 0) {
        (void)lost(request, rd_kafka_err2str(rd_kafka_last_error()));
        rd_kafka_queue_destroy(queue);
        return;
    }
    for (bool more = true; more && !atomic_load(&fetch->quit);) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(queue, POLL_MS);
        if (message != NULL) {
            more = see(request, &reading, message);
            rd_kafka_message_destroy(message);
        } else if (reading.doubtful_us != 0 && clock_mono_us() - reading.doubtful_us > PATIENCE_US) {
            more = lost(request, reading.why);
        }
    }
    rd_kafka_consume_stop(fetch->topic, request->partition);
    rd_kafka_queue_destroy(queue);
}

static void *run(void *argument)
{
    struct fetch *fetch = argument;
    pthread_mutex_lock(&fetch->lock);
    while (!atomic_load(&fetch->quit)) {
        struct request *request = take(&fetch->asked);
        if (request == NULL) {
            pthread_cond_wait(&fetch->changed, &fetch->lock);
            continue;
        }
        pthread_mutex_unlock(&fetch->lock);
        read_one(fetch, request);
        pthread_mutex_lock(&fetch->lock);
        put(&fetch->answered, request);
        eventfd_write(fetch->fd, 1);
    }
    pthread_mutex_unlock(&fetch->lock);
    return NULL;
}

/* ---- the loop's side ---- */

struct fetch *fetch_open(const char *topic, const char *const *properties, size_t count, struct error *error)
{
    static const struct kafka_property defaults[] = {{"fetch.wait.max.ms", "20"},
                                                     {"fetch.error.backoff.ms", "50"},
                                                     {"queued.max.messages.kbytes", "4096"},
                                                     {NULL, NULL}};
    static const struct kafka_property own[] = {
        {"isolation.level", "read_uncommitted"}, {"auto.offset.reset", "earliest"},
        {"enable.partition.eof", "true"},        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},   {NULL, NULL}};
    struct fetch *fetch = mem_new(sizeof *fetch);
    pthread_mutex_init(&fetch->lock, NULL);
    pthread_cond_init(&fetch->changed, NULL);
    fetch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fetch->consumer = kafka_client(RD_KAFKA_CONSUMER, defaults, properties, count, own, error);
    if (fetch->consumer != NULL) {
        fetch->topic = rd_kafka_topic_new(fetch->consumer, topic, NULL);
        fetch->started = pthread_create(&fetch->thread, NULL, run, fetch) == 0;
        if (!fetch->started)
            error_set(error, ERROR_FATAL, "cannot start a thread");
    }
    if (fetch->started) {
        pthread_setname_np(fetch->thread, "fetch");
        return fetch;
    }
    fetch_close(fetch);
    return NULL;
}

static void request_free(struct request *request)
{
    forget_first(request, request->fetched.count);
    mem_free(request->fetched.records);
    mem_free(request);
}

void fetch_close(struct fetch *fetch)
{
    if (fetch == NULL)
        return;
    pthread_mutex_lock(&fetch->lock);
    atomic_store(&fetch->quit, true);
    pthread_cond_signal(&fetch->changed);
    pthread_mutex_unlock(&fetch->lock);
    if (fetch->started)
        pthread_join(fetch->thread, NULL);
    struct request *request;
    while ((request = take(&fetch->asked)) != NULL || (request = take(&fetch->answered)) != NULL)
        request_free(request);
    if (fetch->topic != NULL)
        rd_kafka_topic_destroy(fetch->topic);
    if (fetch->consumer != NULL)
        rd_kafka_destroy(fetch->consumer);
    pthread_mutex_destroy(&fetch->lock);
    pthread_cond_destroy(&fetch->changed);
    close(fetch->fd);
    mem_free(fetch);
}

void fetch_start(struct fetch *fetch, int32_t partition, int64_t offset, fetch_done done, void *context)
{
    struct request *request = mem_new(sizeof *request);
    *request = (struct request){.partition = partition, .offset = offset, .done = done, .context = context};
    pthread_mutex_lock(&fetch->lock);
    put(&fetch->asked, request);
    pthread_cond_signal(&fetch->changed);
    pthread_mutex_unlock(&fetch->lock);
}

int fetch_fd(const struct fetch *fetch)
{
    return fetch->fd;
}

void fetch_ready(struct fetch *fetch)
{
    eventfd_t told;
    eventfd_read(fetch->fd, &told);
    pthread_mutex_lock(&fetch->lock);
    struct queue answered = fetch->answered;
    fetch->answered = (struct queue){.first = NULL};
    pthread_mutex_unlock(&fetch->lock);
    for (struct request *request; (request = take(&answered)) != NULL; request_free(request))
        request->done(request->context, &request->fetched);
}
