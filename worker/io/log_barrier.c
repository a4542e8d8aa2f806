/*
 * Committed offsets, asked for on a thread of their own: rd_kafka_committed blocks while a transaction on one of the partitions
 * is open (KIP-447), which is what makes it the barrier behind a crashed owner, and the log thread must not stand behind it.
 *
 * The asynchronous way (ListConsumerGroupOffsets) ends the process by an assertion when the coordinator goes away at the wrong
 * moment, in every librdkafka until now (issue 4605, pull request 5397; seen here).
 */
#include <stdlib.h>

#include "worker/io/log_internal.h"

#define WHOLE_MS 300 /* for all that are asked for, in one request */
#define ONE_MS 50    /* then for each alone, so that one that is held back does not hold back the others */

static void fetch_one(struct log *log, rd_kafka_topic_partition_t *wanted)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *one = rd_kafka_topic_partition_list_add(list, wanted->topic, wanted->partition);
    rd_kafka_resp_err_t failed = rd_kafka_committed(log->consumer, list, ONE_MS);
    wanted->err = failed ? failed : one->err;
    wanted->offset = one->offset;
    wanted->metadata = one->metadata; /* handed on: the list that it ends in frees it */
    wanted->metadata_size = one->metadata_size;
    one->metadata = NULL;
    one->metadata_size = 0;
    rd_kafka_topic_partition_list_destroy(list);
}

static void fetch(struct log *log, rd_kafka_topic_partition_list_t *list)
{
    if (rd_kafka_committed(log->consumer, list, WHOLE_MS) == RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    for (int i = 0; i < list->cnt; i++) {
        free(list->elems[i].metadata);
        fetch_one(log, &list->elems[i]);
    }
}

static void *barrier_thread(void *argument)
{
    struct log *log = argument;
    struct log_barrier *barrier = &log->barrier;
    pthread_mutex_lock(&barrier->lock);
    while (!barrier->quit) {
        rd_kafka_topic_partition_list_t *list = barrier->asked;
        if (list == NULL) {
            pthread_cond_wait(&barrier->changed, &barrier->lock);
            continue;
        }
        pthread_mutex_unlock(&barrier->lock);
        fetch(log, list);
        pthread_mutex_lock(&barrier->lock);
        barrier->asked = NULL;
        barrier->answer = list;
        log_ring_wake(log->wake_fd);
    }
    pthread_mutex_unlock(&barrier->lock);
    return NULL;
}

bool log_barrier_open(struct log *log)
{
    pthread_mutex_init(&log->barrier.lock, NULL);
    pthread_cond_init(&log->barrier.changed, NULL);
    log->barrier.started = pthread_create(&log->barrier.thread, NULL, barrier_thread, log) == 0;
    return log->barrier.started;
}

void log_barrier_close(struct log *log)
{
    struct log_barrier *barrier = &log->barrier;
    if (!barrier->started)
        return;
    pthread_mutex_lock(&barrier->lock);
    barrier->quit = true;
    pthread_cond_signal(&barrier->changed);
    pthread_mutex_unlock(&barrier->lock);
    pthread_join(barrier->thread, NULL);
    if (barrier->asked != NULL)
        rd_kafka_topic_partition_list_destroy(barrier->asked);
    if (barrier->answer != NULL)
        rd_kafka_topic_partition_list_destroy(barrier->answer);
    pthread_cond_destroy(&barrier->changed);
    pthread_mutex_destroy(&barrier->lock);
    *barrier = (struct log_barrier){.started = false}; /* it may be opened again */
}

void log_barrier_ask(struct log *log, rd_kafka_topic_partition_list_t *list)
{
    struct log_barrier *barrier = &log->barrier;
    pthread_mutex_lock(&barrier->lock);
    barrier->asked = list;
    pthread_cond_signal(&barrier->changed);
    pthread_mutex_unlock(&barrier->lock);
    barrier->busy = true;
}

rd_kafka_topic_partition_list_t *log_barrier_answer(struct log *log)
{
    struct log_barrier *barrier = &log->barrier;
    pthread_mutex_lock(&barrier->lock);
    rd_kafka_topic_partition_list_t *answer = barrier->answer;
    barrier->answer = NULL;
    pthread_mutex_unlock(&barrier->lock);
    if (answer != NULL)
        barrier->busy = false;
    return answer;
}
