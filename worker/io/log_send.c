/*
 * Offsets of a transaction, sent on a thread of their own: rd_kafka_send_offsets_to_transaction may never come back.
 *
 * librdkafka asks for the group's coordinator first when it does not know it (in the first transaction, or after NOT_COORDINATOR). When
 * the answers are COORDINATOR_NOT_AVAILABLE three times within tens of milliseconds, as from a broker that has just gone on, it
 * waits for a broker's connection to change, and looks at no time-out meanwhile (rdkafka_coord.c, all versions until now; seen in
 * 3 of 15 broker stalls). Such a producer is given up, with its thread; a new one of the same transactional.id takes its place.
 *
 * The thread stays for the next transaction: each producer has one, from its first transaction on, until it is stuck.
 */
#include <stdlib.h>
#include <time.h>

#include "worker/base/logline.h"
#include "worker/io/log_internal.h"

/* Beyond its own time-out. */
#define GIVE_UP_MS 1000

struct log_sender {
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool busy;      /* what is asked for is not done */
    bool abandoned; /* handle and all are the thread's, and it ends with them */
    bool quit;
    rd_kafka_t *handle;
    rd_kafka_topic_partition_list_t *list; /* owned, as the group */
    rd_kafka_consumer_group_metadata_t *group;
    int timeout_ms;
    rd_kafka_error_t *error;
};

static void sender_free(struct log_sender *sender)
{
    pthread_cond_destroy(&sender->changed);
    pthread_mutex_destroy(&sender->lock);
    free(sender);
}

static void send_one(struct log_sender *sender)
{
    pthread_mutex_unlock(&sender->lock);
    rd_kafka_error_t *error = rd_kafka_send_offsets_to_transaction(sender->handle, sender->list, sender->group,
                                                                   sender->timeout_ms);
    rd_kafka_consumer_group_metadata_destroy(sender->group);
    rd_kafka_topic_partition_list_destroy(sender->list);
    pthread_mutex_lock(&sender->lock);
    sender->error = error;
    sender->busy = false;
    pthread_cond_signal(&sender->changed);
}

static void *send_thread(void *argument)
{
    struct log_sender *sender = argument;
    pthread_mutex_lock(&sender->lock);
    while (!sender->quit && !sender->abandoned) {
        if (sender->busy)
            send_one(sender);
        else
            pthread_cond_wait(&sender->changed, &sender->lock);
    }
    bool abandoned = sender->abandoned;
    pthread_mutex_unlock(&sender->lock);
    if (!abandoned)
        return NULL;
    if (sender->error != NULL)
        rd_kafka_error_destroy(sender->error);
    rd_kafka_destroy(sender->handle);
    sender_free(sender);
    return NULL;
}

static struct log_sender *sender_new(void)
{
    struct log_sender *sender = calloc(1, sizeof *sender);
    if (sender == NULL)
        abort();
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&sender->lock, NULL);
    pthread_cond_init(&sender->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&sender->thread, NULL, send_thread, sender) == 0)
        return sender;
    sender_free(sender);
    return NULL;
}

/* True: it is done. Of those who wait for `changed` there is never more than one: the thread while it is not busy, else we. */
static bool wait_done(struct log_sender *sender)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (sender->timeout_ms + GIVE_UP_MS) / 1000;
    until.tv_nsec += (sender->timeout_ms + GIVE_UP_MS) % 1000 * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    while (sender->busy && pthread_cond_timedwait(&sender->changed, &sender->lock, &until) == 0)
        ;
    return !sender->busy;
}

rd_kafka_error_t *log_send_offsets(struct log_producer *producer, rd_kafka_topic_partition_list_t *list,
                                   rd_kafka_consumer_group_metadata_t *group, int timeout_ms)
{
    struct log_sender *sender = producer->sender != NULL ? producer->sender : sender_new();
    producer->sender = sender;
    if (sender == NULL) {
        rd_kafka_consumer_group_metadata_destroy(group);
        rd_kafka_topic_partition_list_destroy(list);
        return rd_kafka_error_new(RD_KAFKA_RESP_ERR__FAIL, "cannot start a thread");
    }
    pthread_mutex_lock(&sender->lock);
    sender->handle = producer->handle;
    sender->list = list;
    sender->group = group;
    sender->timeout_ms = timeout_ms;
    sender->busy = true;
    pthread_cond_signal(&sender->changed);
    producer->stuck = !wait_done(sender);
    rd_kafka_error_t *error = sender->error;
    sender->error = NULL;
    pthread_mutex_unlock(&sender->lock);
    return producer->stuck ? rd_kafka_error_new(RD_KAFKA_RESP_ERR__TIMED_OUT, "sending offsets does not come back")
                           : error;
}

bool log_send_abandon(struct log_producer *producer)
{
    struct log_sender *sender = producer->sender;
    producer->stuck = false;
    pthread_mutex_lock(&sender->lock);
    bool abandoned = sender->abandoned = sender->busy;
    if (sender->error != NULL)
        rd_kafka_error_destroy(sender->error);
    sender->error = NULL;
    if (abandoned)
        pthread_detach(sender->thread);
    pthread_mutex_unlock(&sender->lock);
    if (!abandoned)
        return false;
    producer->sender = NULL;
    LOG_WARN("producer.abandoned", LOG_S("producer", producer->id),
             LOG_S("reason", "librdkafka does not come back from sending offsets; its memory is lost"));
    return true;
}

void log_send_close(struct log_producer *producer)
{
    struct log_sender *sender = producer->sender;
    producer->sender = NULL;
    if (sender == NULL)
        return;
    pthread_mutex_lock(&sender->lock);
    sender->quit = true;
    pthread_cond_signal(&sender->changed);
    pthread_mutex_unlock(&sender->lock);
    pthread_join(sender->thread, NULL);
    sender_free(sender);
}
