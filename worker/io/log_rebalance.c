/*
 * Which partitions this worker has, from when to when (tenure), and from which offset.
 *
 * With range the group's protocol is eager: every rebalance takes all partitions and gives some back. With cooperative-sticky it
 * takes and gives only what changes hands. Being given a partition is not yet serving it. The consumer is assigned nothing at first; the committed offsets are asked for (log_barrier.c), which the
 * broker does not tell while a transaction on them is open: the barrier behind a crashed owner. Neither the others nor the
 * next rebalance wait for one that is held back. Whatever is settled is then really assigned, from its committed offset.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/logline.h"
#include "worker/io/adopt.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"

#define RETRY_US 20000      /* of what was not answered, or could not be used */
#define LEAVE_LOOK_US 10000 /* no event tells that a producer may be tried again */

/* ---- the table ---- */

static void partition_add(struct log *log, struct log_topic *topic, int32_t number)
{
    struct log_partition *partition = calloc(1, sizeof *partition);
    if (log->partitions_count == log->partitions_capacity) {
        log->partitions_capacity = log->partitions_capacity == 0 ? 16 : log->partitions_capacity * 2;
        log->partitions = realloc(log->partitions, log->partitions_capacity * sizeof(struct log_partition *));
    }
    if (partition == NULL || log->partitions == NULL)
        abort();
    partition->of = topic;
    partition->number = number;
    partition->tenure = ++log->last_tenure;
    log->partitions[log->partitions_count++] = partition;
}

static void partition_free(struct log *log, struct log_partition *partition)
{
    log_rebuild_stop(log, partition);
    if (partition->told && partition->number < partition->of->partitions)
        partition->of->left[partition->number] = (struct log_left){partition->tenure, partition->seq};
    if (partition->of->topic == TOPIC_STEPS)
        log->with_loop_steps -= (int64_t)partition->window.with_loop;
    log_window_free(&partition->window);
    free(partition);
}

/* Those that are let go. */
static void free_leaving(struct log *log)
{
    size_t count = 0;
    for (size_t i = 0; i < log->partitions_count; i++) {
        if (log->partitions[i]->leaving)
            partition_free(log, log->partitions[i]);
        else
            log->partitions[count++] = log->partitions[i];
    }
    log->partitions_count = count;
}

void log_partitions_free(struct log *log)
{
    for (size_t i = 0; i < log->partitions_count; i++)
        partition_free(log, log->partitions[i]);
    free(log->partitions);
    log->partitions = NULL;
    log->partitions_count = log->partitions_capacity = 0;
}

static void complain(struct log_partition *partition)
{
    int64_t now_us = clock_mono_us();
    if (now_us < partition->loud_us)
        return;
    partition->loud_us = now_us + LOG_LOUD_MS * 1000;
    LOG_ERROR("partition.not_served", LOG_S("topic", partition->of->name), LOG_I("partition", partition->number),
              LOG_S("reason", partition->why));
}

void log_unserve(struct log_partition *partition, const char *why)
{
    partition->stage = STAGE_UNSERVED;
    partition->retry_us = clock_mono_us() + LOG_LOUD_MS * 1000;
    snprintf(partition->why, sizeof partition->why, "%s", why);
    complain(partition);
}

/* ▲ The tenure before, if it was ours and nobody committed in between; else 0. */
static int64_t kept(const struct log_partition *partition)
{
    if (partition->of->topic != TOPIC_STEPS || partition->number >= partition->of->partitions)
        return 0;
    const struct log_left *left = &partition->of->left[partition->number];
    return left->seq == partition->seq ? left->tenure : 0;
}

/* ---- assign ---- */

static void drain(rd_kafka_queue_t *queue)
{
    rd_kafka_message_t *message;
    while (rd_kafka_consume_batch_queue(queue, 0, &message, 1) > 0)
        rd_kafka_message_destroy(message);
    rd_kafka_queue_destroy(queue);
}

void log_queues_free(struct log *log)
{
    for (size_t i = 0; i < log->queues_count; i++)
        drain(log->queues[i].queue);
    free(log->queues);
    log->queues = NULL;
    log->queues_count = 0;
}

/* Split off before the assignment takes effect, or the first records would be in the consumer's own queue. */
static rd_kafka_queue_t *split_queue(struct log *log, const struct log_partition *partition)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(log->consumer, partition->of->name, partition->number);
    size_t i = 0;
    while (i < log->queues_count && !(log->queues[i].of == partition->of && log->queues[i].number == partition->number))
        i++;
    if (i == log->queues_count) {
        log->queues = realloc(log->queues, ++log->queues_count * sizeof *log->queues);
        if (log->queues == NULL)
            abort();
    } else {
        rd_kafka_queue_destroy(log->queues[i].queue); /* another handle of the same queue */
    }
    log->queues[i] = (struct log_queue){partition->of, partition->number, queue};
    rd_kafka_queue_forward(queue, NULL);
    rd_kafka_queue_io_event_enable(queue, log->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    return queue;
}

static bool is_cooperative(rd_kafka_t *consumer)
{
    const char *protocol = rd_kafka_rebalance_protocol(consumer); /* NULL: it is being closed, and does not say */
    return protocol != NULL && strcmp(protocol, "COOPERATIVE") == 0;
}

static rd_kafka_resp_err_t code_of(rd_kafka_error_t *error)
{
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    rd_kafka_error_destroy(error);
    return code;
}

/* Assigns to the consumer all that is settled, and was not assigned yet when it is cooperative. Those that run already go on from
 * where they are. */
static void assign(struct log *log)
{
    bool cooperative = is_cooperative(log->consumer);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)log->partitions_count);
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if ((partition->stage != STAGE_REBUILD && partition->stage != STAGE_SERVING) ||
            (cooperative && partition->queue != NULL))
            continue;
        if (partition->queue == NULL)
            partition->queue = split_queue(log, partition);
        rd_kafka_topic_partition_list_add(list, partition->of->name, partition->number)->offset =
            partition->window.position;
    }
    rd_kafka_resp_err_t failed = cooperative ? code_of(rd_kafka_incremental_assign(log->consumer, list))
                                             : rd_kafka_assign(log->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    struct error error;
    if (failed && cooperative) { /* nobody would ever fetch them */
        error_set(&error, ERROR_FATAL, "cannot assign partitions: %s", rd_kafka_err2str(failed));
        log_fail(log, &error);
    } else if (failed) { /* the next rebalance is on its way, and takes them all */
        LOG_WARN("kafka.trouble", LOG_S("reason", rd_kafka_err2str(failed)), LOG_S("what", "assign"));
    }
}

/* Of those that are taken some may not have been assigned yet. */
static void unassign(rd_kafka_t *consumer, const rd_kafka_topic_partition_list_t *taken)
{
    rd_kafka_topic_partition_list_t *assigned = NULL;
    if (!is_cooperative(consumer)) {
        rd_kafka_assign(consumer, NULL);
        return;
    }
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(taken->cnt);
    rd_kafka_assignment(consumer, &assigned);
    for (int i = 0; assigned != NULL && i < taken->cnt; i++) {
        const rd_kafka_topic_partition_t *one = &taken->elems[i];
        if (rd_kafka_topic_partition_list_find(assigned, one->topic, one->partition) != NULL)
            rd_kafka_topic_partition_list_add(list, one->topic, one->partition);
    }
    rd_kafka_resp_err_t failed = code_of(rd_kafka_incremental_unassign(consumer, list));
    if (failed)
        LOG_WARN("kafka.trouble", LOG_S("reason", rd_kafka_err2str(failed)), LOG_S("what", "unassign"));
    if (assigned != NULL)
        rd_kafka_topic_partition_list_destroy(assigned);
    rd_kafka_topic_partition_list_destroy(list);
}

static bool is_due(const struct log_partition *partition, int64_t now_us)
{
    /* Something may have been repaired; what the loop has been told of stays as it is until the next rebalance. */
    return (partition->stage == STAGE_BARRIER || (partition->stage == STAGE_UNSERVED && !partition->told)) &&
           partition->retry_us <= now_us;
}

/* Asks for the committed offsets of all that wait for theirs. */
static void ask(struct log *log)
{
    int64_t now_us = clock_mono_us();
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (partition->stage == STAGE_UNSERVED)
            complain(partition);
        partition->asked = is_due(partition, now_us);
        if (partition->asked)
            rd_kafka_topic_partition_list_add(list, partition->of->name, partition->number);
    }
    if (list->cnt > 0)
        log_barrier_ask(log, list);
    else
        rd_kafka_topic_partition_list_destroy(list);
}

/* Where the partitions of `settled` begin and end, and where those of `waiting` end, beside its inbox. */
struct edges {
    rd_kafka_topic_partition_list_t *begin, *end, *waiting;
};

static bool find_edges(struct log *log, struct edges *edges, struct error *error)
{
    return kafka_watermarks(log->ruler, edges->begin, KAFKA_BEGIN, LOG_SLICE_MS, error) &&
           kafka_watermarks(log->ruler, edges->end, KAFKA_END, LOG_SLICE_MS, error) &&
           kafka_watermarks(log->ruler, edges->waiting, KAFKA_END, LOG_SLICE_MS, error);
}

static int64_t edge_of(const rd_kafka_topic_partition_list_t *list, const char *topic, int32_t number)
{
    for (int i = 0; i < list->cnt; i++) {
        if (list->elems[i].partition == number && strcmp(list->elems[i].topic, topic) == 0)
            return list->elems[i].offset;
    }
    return -1;
}

static void settle(struct log *log, struct log_partition *partition, const rd_kafka_topic_partition_t *committed,
                   const struct edges *edges)
{
    struct error error;
    struct offset_meta meta;
    struct adopt_offsets offsets = {
        .committed = committed->offset,
        .metadata = {committed->metadata, committed->metadata_size},
        .begin = edge_of(edges->begin, partition->of->name, partition->number),
        .end = edge_of(edges->end, partition->of->name, partition->number),
        .ordered = partition->of->topic == TOPIC_INBOX,
    };
    /* ▲ Design: "Topics". */
    if (!adopt_check(&offsets, &meta, &error)) {
        log_unserve(partition, error.text);
        return;
    }
    partition->base = committed->offset;
    partition->begin = partition->trim_to = offsets.begin;
    log_window_start(&partition->window, offsets.ordered, committed->offset, &meta.done);
    partition->seq = meta.commit_seq;
    partition->suspect_below = offsets.end;
    partition->told = true;
    struct log_event *event = log_event_new(LOG_ASSIGNED, partition, 0);
    event->offset = partition->base;
    event->kept = kept(partition);
    log_push(log, event);
    partition->stage = STAGE_SERVING;
    if (partition->of->topic == TOPIC_INBOX) {
        partition->waiting_end = edge_of(edges->waiting, rd_kafka_topic_name(log->waiting), partition->number);
        log_rebuild_start(log, partition);
    }
}

static bool is_settled(const struct log_partition *partition, const rd_kafka_topic_partition_t *answer)
{
    return partition != NULL && partition->asked && answer->err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* A transaction on its offsets is open, or the group's coordinator does not answer. */
static void tell_delay(struct log_partition *partition, rd_kafka_resp_err_t why)
{
    int64_t now_us = clock_mono_us();
    if (now_us < partition->loud_us)
        return;
    partition->loud_us = now_us + LOG_LOUD_MS * 1000;
    LOG_WARN("assign.delayed", LOG_S("topic", partition->of->name), LOG_I("partition", partition->number),
             LOG_S("reason", rd_kafka_err2str(why)));
}

/* Those whose offset is not known yet are asked for again. */
static void take_answer(struct log *log, const rd_kafka_topic_partition_list_t *answer)
{
    struct edges edges = {rd_kafka_topic_partition_list_new(8), rd_kafka_topic_partition_list_new(8),
                          rd_kafka_topic_partition_list_new(8)};
    struct error error;
    for (int i = 0; i < answer->cnt; i++) {
        const rd_kafka_topic_partition_t *one = &answer->elems[i];
        struct log_partition *partition = log_partition_find(log, one->topic, one->partition);
        if (partition != NULL && partition->asked && one->err)
            tell_delay(partition, one->err);
        if (!is_settled(partition, one))
            continue;
        rd_kafka_topic_partition_list_add(edges.begin, one->topic, one->partition);
        rd_kafka_topic_partition_list_add(edges.end, one->topic, one->partition);
        if (partition->of->topic == TOPIC_INBOX)
            rd_kafka_topic_partition_list_add(edges.waiting, rd_kafka_topic_name(log->waiting), one->partition);
    }
    bool found = edges.begin->cnt > 0 && find_edges(log, &edges, &error);
    if (!found && edges.begin->cnt > 0)
        LOG_WARN("assign.delayed", LOG_S("reason", error.text));
    for (int i = 0; found && i < answer->cnt; i++) {
        const rd_kafka_topic_partition_t *one = &answer->elems[i];
        struct log_partition *partition = log_partition_find(log, one->topic, one->partition);
        if (is_settled(partition, one))
            settle(log, partition, one, &edges);
    }
    if (found)
        assign(log);
    rd_kafka_topic_partition_list_destroy(edges.begin);
    rd_kafka_topic_partition_list_destroy(edges.end);
    rd_kafka_topic_partition_list_destroy(edges.waiting);
}

bool log_barrier_serve(struct log *log)
{
    rd_kafka_topic_partition_list_t *answer = log->barrier.busy ? log_barrier_answer(log) : NULL;
    if (answer != NULL) {
        int64_t now_us = clock_mono_us();
        for (size_t i = 0; i < log->partitions_count; i++) {
            if (log->partitions[i]->asked && log->partitions[i]->stage == STAGE_BARRIER)
                log->partitions[i]->retry_us = now_us + RETRY_US;
        }
        take_answer(log, answer);
        rd_kafka_topic_partition_list_destroy(answer);
    }
    if (!log->barrier.busy)
        ask(log);
    return answer != NULL;
}

/* ---- revoke ---- */

/* `taken`: NULL = all. */
static void tell_leaving(struct log *log, enum log_event_kind kind, rd_kafka_topic_partition_list_t *taken)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (taken != NULL && rd_kafka_topic_partition_list_find(taken, partition->of->name, partition->number) == NULL)
            continue;
        partition->leaving = true;
        if (partition->told)
            log_push(log, log_event_new(kind, partition, 0));
        else
            partition->released = true;
    }
}

static bool all_released(const struct log *log)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        if (log->partitions[i]->leaving && !log->partitions[i]->released)
            return false;
    }
    return true;
}

void log_leave(struct log *log, rd_kafka_topic_partition_list_t *taken)
{
    int64_t now_us = clock_mono_us(), release_us = now_us + LOG_RELEASE_MS * 1000,
            until_us = now_us + LOG_LEAVE_MS * 1000;
    tell_leaving(log, LOG_REVOKED, taken);
    while (!log->failed && !atomic_load(&log->quit) && clock_mono_us() < until_us) {
        bool busy = log_take_commands(log);
        log_flush(log);
        log_producers_serve(log);
        log_doubt_serve(log);
        busy = log_commit_serve(log) || busy;
        bool waiting = log_commit_leaving(log) || (!all_released(log) && clock_mono_us() < release_us);
        if (!busy && !waiting)
            break;
        if (!busy)
            log_sleep(log, clock_mono_us() + LEAVE_LOOK_US);
    }
    if (!all_released(log))
        LOG_WARN("release.late", LOG_I("ms", LOG_RELEASE_MS));
    if (log_commit_leaving(log))
        LOG_WARN("revoke.dropped", LOG_S("reason", "could not be committed in time: the next owner does it again"));
    free_leaving(log);
}

void log_lose_all(struct log *log)
{
    tell_leaving(log, LOG_LOST, NULL);
    free_leaving(log);
}

void log_on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t what, rd_kafka_topic_partition_list_t *list,
                      void *opaque)
{
    struct log *log = opaque;
    bool lost = rd_kafka_assignment_lost(consumer);
    LOG_INFO("rebalance", LOG_S("what", lost ? "lost" : rd_kafka_err2name(what)), LOG_I("partitions", list->cnt));
    if (what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS || lost)
        atomic_store(&log->in_group, !lost); /* revoked in a rebalance: still a member */
    if (what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        log->fences_in_a_row = 0;
        for (int i = 0; i < list->cnt; i++)
            partition_add(log, log_topic_named(log, list->elems[i].topic), list->elems[i].partition);
        assign(log);
        return;
    }
    if (lost)
        log_lose_all(log);
    else
        log_leave(log, is_cooperative(consumer) ? list : NULL);
    unassign(consumer, list);
}
