/*
 * Offsets of a transaction, sent on a thread of their own: rd_kafka_send_offsets_to_transaction may never come back.
 *
 * librdkafka asks for the group's coordinator first when it does not know it (in the first transaction, or after NOT_COORDINATOR). When
 * the answers are COORDINATOR_NOT_AVAILABLE three times within tens of milliseconds, as from a broker that has just gone on, it
 * waits for a broker's connection to change, and looks at no time-out meanwhile (rdkafka_coord.c, all versions until now; seen in
 * 3 of 15 broker stalls). Such a producer is given up, with its thread; a new one of the same transactional.id takes its place.
 */
#include <stdlib.h>
#include <time.h>

#include "worker/base/logline.h"
#include "worker/io/log_internal.h"

/* Beyond its own time-out. */
#define GIVE_UP_MS 1000

struct log_sending {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    rd_kafka_t *handle;
    rd_kafka_topic_partition_list_t *list;
    rd_kafka_consumer_group_metadata_t *group;
    int timeout_ms;
    bool done, abandoned; /* abandoned: handle and all are the thread's */
    rd_kafka_error_t *error;
};

static void sending_free(struct log_sending *sending)
{
    rd_kafka_consumer_group_metadata_destroy(sending->group);
    rd_kafka_topic_partition_list_destroy(sending->list);
    pthread_cond_destroy(&sending->changed);
    pthread_mutex_destroy(&sending->lock);
    free(sending);
}

static void *send_thread(void *argument)
{
    struct log_sending *sending = argument;
    rd_kafka_error_t *error = rd_kafka_send_offsets_to_transaction(sending->handle, sending->list, sending->group,
                                                                   sending->timeout_ms);
    pthread_mutex_lock(&sending->lock);
    bool abandoned = sending->abandoned;
    sending->error = error;
    sending->done = true;
    pthread_cond_signal(&sending->changed);
    pthread_mutex_unlock(&sending->lock);
    if (!abandoned)
        return NULL;
    if (error != NULL)
        rd_kafka_error_destroy(error);
    rd_kafka_destroy(sending->handle);
    sending_free(sending);
    return NULL;
}

static bool start(struct log_sending *sending)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&sending->lock, NULL);
    pthread_cond_init(&sending->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_t thread;
    return pthread_create(&thread, NULL, send_thread, sending) == 0 && pthread_detach(thread) == 0;
}

static bool wait_done(struct log_sending *sending)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (sending->timeout_ms + GIVE_UP_MS) / 1000;
    until.tv_nsec += (sending->timeout_ms + GIVE_UP_MS) % 1000 * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&sending->lock);
    while (!sending->done && pthread_cond_timedwait(&sending->changed, &sending->lock, &until) == 0)
        ;
    bool done = sending->done;
    pthread_mutex_unlock(&sending->lock);
    return done;
}

rd_kafka_error_t *log_send_offsets(struct log_producer *producer, rd_kafka_topic_partition_list_t *list,
                                   rd_kafka_consumer_group_metadata_t *group, int timeout_ms)
{
    struct log_sending *sending = calloc(1, sizeof *sending);
    if (sending == NULL)
        abort();
    *sending = (struct log_sending){.handle = producer->handle, .list = list, .group = group, .timeout_ms = timeout_ms};
    rd_kafka_error_t *error = NULL;
    if (!start(sending)) {
        error = rd_kafka_error_new(RD_KAFKA_RESP_ERR__FAIL, "cannot start a thread");
    } else if (wait_done(sending)) {
        error = sending->error;
    } else {
        producer->stuck = sending;
        return rd_kafka_error_new(RD_KAFKA_RESP_ERR__TIMED_OUT, "sending offsets does not come back");
    }
    sending_free(sending);
    return error;
}

bool log_send_abandon(struct log_producer *producer)
{
    struct log_sending *sending = producer->stuck;
    producer->stuck = NULL;
    pthread_mutex_lock(&sending->lock);
    bool abandoned = sending->abandoned = !sending->done;
    pthread_mutex_unlock(&sending->lock);
    if (abandoned) {
        LOG_WARN("producer.abandoned", LOG_S("producer", producer->id),
                 LOG_S("reason", "librdkafka does not come back from sending offsets; its memory is lost"));
        return true;
    }
    if (sending->error != NULL)
        rd_kafka_error_destroy(sending->error);
    sending_free(sending);
    return false;
}
