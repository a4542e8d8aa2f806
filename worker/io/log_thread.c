/*
 * The log thread. It never blocks for long on one thing: each turn serves the ring from the loop, the consumer (rebalance
 * happens in its callback, on this thread), `control` and `waiting`, the partition queues, and then commits what is done.
 *
 * Back-pressure without pause(): each partition's queue is split off the consumer's before its assignment takes effect, so
 * the consumer's own queue (rebalance, errors) is always polled, and the queues of steps only while there are credits: in
 * flight, room in the window, memory. librdkafka stops to fetch for a queue that is full. inbox needs memory only.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/base/crash.h"
#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"

#define COMMANDS_MAX LOG_BURST_WORKS_MAX /* taken from the ring in one turn */
#define SLEEP_MAX_US 100000
#define REJOIN_MS 100 /* after the first fence; twice as long after each further one */

/* ---- events to the loop ---- */

struct log_event *log_event_new(enum log_event_kind kind, const struct log_partition *partition, size_t extra)
{
    struct log_event *event = log_block_new(extra);
    memset(event + 1, 0, extra);
    event->kind = kind;
    event->offset = -1;
    if (partition != NULL) {
        event->topic = partition->of->topic;
        event->topic_name = partition->of->name;
        event->partition = partition->number;
        event->tenure = partition->tenure;
    }
    return event;
}

struct log_event *log_event_of(enum log_event_kind kind, const rd_kafka_message_t *message)
{
    struct log_event *event = log_block_new(message->key_len + message->len + 2);
    char *key = (char *)(event + 1), *value = key + message->key_len + 1;
    event->kind = kind;
    event->partition = message->partition;
    event->offset = message->offset;
    event->timestamp_ms = rd_kafka_message_timestamp(message, NULL);
    event->key = (struct str){message->key != NULL ? key : NULL, message->key_len};
    event->value = (struct str){message->payload != NULL ? value : NULL, message->len};
    if (message->key != NULL)
        memcpy(key, message->key, message->key_len);
    if (message->payload != NULL)
        memcpy(value, message->payload, message->len);
    key[message->key_len] = '\0';
    value[message->len] = '\0';
    return event;
}

static void keep(struct log *log, struct log_event *event)
{
    if (log->outbox_count == log->outbox_capacity) {
        size_t capacity = log->outbox_capacity == 0 ? 256 : log->outbox_capacity * 2;
        struct log_event **bigger = malloc(capacity * sizeof(struct log_event *));
        if (bigger == NULL)
            abort();
        for (size_t i = 0; i < log->outbox_count; i++)
            bigger[i] = log->outbox[(log->outbox_head + i) & (log->outbox_capacity - 1)];
        free(log->outbox);
        log->outbox = bigger;
        log->outbox_capacity = capacity;
        log->outbox_head = 0;
    }
    log->outbox[(log->outbox_head + log->outbox_count++) & (log->outbox_capacity - 1)] = event;
}

void log_flush(struct log *log)
{
    while (log->outbox_count > 0 &&
           log_ring_push(&log->to_loop, log->outbox[log->outbox_head & (log->outbox_capacity - 1)])) {
        log->outbox_head++;
        log->outbox_count--;
    }
}

void log_push(struct log *log, struct log_event *event)
{
    log_flush(log);
    if (log->outbox_count > 0 || !log_ring_push(&log->to_loop, event))
        keep(log, event);
}

void log_fail(struct log *log, const struct error *error)
{
    if (log->failed)
        return;
    log->failed = true;
    log->error = *error;
}

/* ---- commands from the loop ---- */

static void finish(struct log *log, struct log_work *work)
{
    struct log_partition *partition = log_partition_of(log, work->tenure);
    /* I10: what belongs to a tenure that is over is dropped. */
    size_t before = partition != NULL ? partition->window.with_loop : 0;
    if (partition == NULL || !log_window_finish(&partition->window, work)) {
        if (partition != NULL)
            LOG_ERROR("work.unknown", LOG_S("topic", partition->of->name), LOG_I("partition", partition->number),
                      LOG_I("tenure", work->tenure), LOG_I("offset", work->offset));
        log_work_free(work);
        return;
    }
    if (partition->of->topic == TOPIC_STEPS)
        log->with_loop_steps -= (int64_t)(before - partition->window.with_loop);
}

bool log_take_commands(struct log *log)
{
    struct log_work *work;
    int taken = 0;
    while (taken < COMMANDS_MAX && (work = log_ring_pop(&log->to_log)) != NULL) {
        taken++;
        struct log_partition *partition;
        switch (work->command) {
        case COMMAND_DONE:
            finish(log, work);
            continue;
        case COMMAND_RELEASE:
            if ((partition = log_partition_of(log, work->tenure)) != NULL)
                partition->released = true;
            break;
        case COMMAND_READ_CONTROL:
            log->control_wanted = work->tenure;
            break;
        case COMMAND_STOP:
            log->stopping = true;
            break;
        }
        log_work_free(work);
    }
    return taken > 0;
}

/* ---- records to the loop ---- */

/* Copied and destroyed at once: a message that is held pins its whole fetch buffer. */
static void hand_over(struct log *log, struct log_partition *partition, const rd_kafka_message_t *message)
{
    if (!log_window_deliver(&partition->window, message->offset))
        return; /* done, by us or by an owner before */
    log_window_date(&partition->window, clock_mono_us());
    struct log_event *event = log_event_of(LOG_RECORD, message);
    event->topic = partition->of->topic;
    event->topic_name = partition->of->name;
    event->tenure = partition->tenure;
    event->suspect = message->offset < partition->suspect_below;
    if (event->topic == TOPIC_STEPS) {
        log_window_keep(&partition->window, event);
        log->with_loop_steps++;
    }
    log_push(log, event);
}

static void queue_error(struct log_partition *partition, const rd_kafka_message_t *message)
{
    if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || message->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)
        log_unserve(partition, rd_kafka_message_errstr(message));
    else
        LOG_WARN("kafka.trouble", LOG_S("topic", partition->of->name), LOG_I("partition", partition->number),
                 LOG_S("reason", rd_kafka_message_errstr(message)));
}

/* Credits: the window's, and of steps those in flight. */
static size_t room(const struct log *log, const struct log_partition *partition)
{
    int64_t span = log_window_span(&partition->window);
    size_t room = span < LOG_WINDOW_MAX ? (size_t)(LOG_WINDOW_MAX - span) : 0;
    if (partition->of->topic == TOPIC_STEPS) {
        int64_t in_flight = log->with_loop_steps - atomic_load(&log->waiting_steps);
        int64_t credits = log->in_flight_max - (in_flight > 0 ? in_flight : 0);
        room = credits <= 0 ? 0 : room < (size_t)credits ? room : (size_t)credits;
    }
    return room < LOG_BATCH_MAX ? room : LOG_BATCH_MAX;
}

/* True when there was something. */
static bool serve_queue(struct log *log, struct log_partition *partition)
{
    rd_kafka_message_t *batch[LOG_BATCH_MAX];
    size_t wanted = room(log, partition);
    if (wanted == 0)
        return false;
    ssize_t count = rd_kafka_consume_batch_queue(partition->queue, 0, batch, wanted);
    for (ssize_t i = 0; i < count; i++) {
        if (batch[i]->err)
            queue_error(partition, batch[i]);
        else
            hand_over(log, partition, batch[i]);
        rd_kafka_message_destroy(batch[i]);
    }
    if (count > 0)
        CRASH_POINT("after_poll");
    return count > 0;
}

/* Inbox records need no credits, for each is decided at once. But the first may have to wait for something that is read back,
 * and then what is behind it waits, too. */
static bool has_memory(const struct log *log, const struct log_partition *partition)
{
    if (partition->of->topic == TOPIC_STEPS)
        return !log->no_memory;
    return partition->window.uncommitted == 0 || budget_admits(BUDGET_KEEP, 0);
}

/* What the loop has not taken yet is in the way of more. */
static bool serve_queues(struct log *log)
{
    size_t adrift = 0; /* not in the way: fetching more is what lets it go */
    bool any = false;
    if (!log->control_known || log->stopping)
        return false;
    for (size_t i = 0; i < log->partitions_count; i++)
        adrift += log->partitions[i]->window.adrift;
    for (size_t i = 0; i < log->partitions_count && log->outbox_count == 0; i++) {
        struct log_partition *partition = log->partitions[(log->next_queue + i) % log->partitions_count];
        log->no_memory = !budget_admits(BUDGET_HAND_OVER, -(int64_t)adrift);
        if (partition->stage == STAGE_SERVING && has_memory(log, partition))
            any = serve_queue(log, partition) || any;
    }
    log->next_queue++;
    return any;
}

/* The inbox was read to where it ended at assignment. Control records are not delivered, but they move the position. */
static void tell_backlog_end(struct log *log, struct log_partition *partition)
{
    if (partition->of->topic != TOPIC_INBOX || partition->stage != STAGE_SERVING || partition->backlog_told)
        return;
    int64_t reached = partition->window.position;
    if (reached < partition->suspect_below) {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, partition->of->name, partition->number);
        rd_kafka_position(log->consumer, list);
        reached = list->elems[0].offset;
        rd_kafka_topic_partition_list_destroy(list);
    }
    if (reached < partition->suspect_below)
        return;
    partition->backlog_told = true;
    log_push(log, log_event_new(LOG_BACKLOG_END, partition, 0));
}

/* ▲ A stuck call must not fill its partition's window. */
static void carry(struct log *log)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (partition->of->topic != TOPIC_STEPS || log_window_span(&partition->window) < LOG_CARRY_AT ||
            partition->window.adrift > LOG_ADRIFT_BYTES_MAX)
            continue;
        size_t count = log_window_carry(&partition->window, LOG_CARRY_AT, str_of(partition->of->pool),
                                        &log->last_carry);
        if (count > 0)
            LOG_INFO("steps.carried", LOG_S("topic", partition->of->name), LOG_I("partition", partition->number),
                     LOG_I("steps", count));
    }
}

/* ---- the consumer's own queue ---- */

/*
 * A static member is fenced when another process joins with its instance id, and also when it joins twice itself: a broker that
 * did not answer for as long as a session finds two requests of ours, and refuses the first for the sake of the second. The
 * first answer is what librdkafka sees, and gives up. Who else has the slot would have made its producers before it joined.
 */
static void consumer_failed(struct log *log)
{
    char reason[256];
    struct error error;
    rd_kafka_resp_err_t code = rd_kafka_fatal_error(log->consumer, reason, sizeof reason);
    if (code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID && log_holds_slot(log)) {
        LOG_WARN("consumer.fenced", LOG_S("reason", reason), LOG_S("what", "by itself: the slot is ours"));
        log->consumer_broken = true;
        return;
    }
    if (code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID)
        error_set(&error, ERROR_FATAL, "another live process holds slot %s (%s)", log->slot, reason);
    else
        error_set(&error, ERROR_FATAL, "the consumer cannot go on: %s", reason);
    log_fail(log, &error);
}

/* A new consumer, which joins the group again after a while. */
static void renew_consumer(struct log *log)
{
    struct error error;
    log->consumer_broken = false;
    log_lose_all(log);
    atomic_store(&log->in_group, false);
    log_barrier_close(log); /* it asks through the consumer */
    log_consumer_close(log);
    int64_t wait_ms = REJOIN_MS << (log->fences_in_a_row < 6 ? log->fences_in_a_row++ : 6);
    log->join_us = clock_mono_us() + wait_ms * 1000;
    if (!log_consumer_open(log, &error))
        log_fail(log, &error);
    else if (!log_barrier_open(log)) {
        error_set(&error, ERROR_FATAL, "cannot start a thread");
        log_fail(log, &error);
    }
}

static void serve_consumer(struct log *log)
{
    rd_kafka_message_t *message;
    while (!log->failed && !log->consumer_broken && (message = rd_kafka_consumer_poll(log->consumer, 0)) != NULL) {
        struct error error;
        if (message->err == RD_KAFKA_RESP_ERR__FATAL) {
            consumer_failed(log);
        } else if (message->err) {
            LOG_WARN("kafka.trouble", LOG_S("error", rd_kafka_err2name(message->err)),
                     LOG_S("reason", rd_kafka_message_errstr(message)));
        } else {
            /* All queues were split off: what comes this way is out of order, and must not be skipped either (I9). */
            error_set(&error, ERROR_FATAL,
                      "record %" PRId64 " of %s partition %" PRId32 " came past its queue: start again",
                      message->offset, rd_kafka_topic_name(message->rkt), message->partition);
            log_fail(log, &error);
        }
        rd_kafka_message_destroy(message);
    }
}

/* The group is joined once `control` is known: nothing can be decided without. */
static void join(struct log *log)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < log->topics_count; i++) {
        if (log->topics[i]->subscribed)
            rd_kafka_topic_partition_list_add(list, log->topics[i]->name, RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t failed = rd_kafka_subscribe(log->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    log->joined = true;
    struct error error;
    if (failed) {
        error_set(&error, ERROR_FATAL, "cannot join group %s: %s", log->name_space, rd_kafka_err2str(failed));
        log_fail(log, &error);
    }
}

/* ---- the turn ---- */

void log_sleep(struct log *log, int64_t until_us)
{
    struct pollfd fds[] = {{.fd = log->wake_fd, .events = POLLIN}, {.fd = log->to_log.fd, .events = POLLIN}};
    int64_t left_us = until_us - clock_mono_us();
    if (left_us > SLEEP_MAX_US)
        left_us = SLEEP_MAX_US;
    if (left_us > 0)
        poll(fds, 2, (int)((left_us + 999) / 1000));
    uint64_t count;
    if (read(log->wake_fd, &count, sizeof count) < 0)
        return; /* nothing: it was the ring, or the time */
}

/* When something is due that no queue tells of. */
static int64_t next_due_us(struct log *log)
{
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < log->partitions_count; i++) {
        const struct log_partition *partition = log->partitions[i];
        if (partition->stage == STAGE_BARRIER && !log->barrier.busy && partition->retry_us < due)
            due = partition->retry_us;
    }
    /* A producer that was made wakes us. */
    if (log->doubt != NULL && atomic_load(&log->doubt->state) != PRODUCER_MAKING && log->doubt_retry_us < due)
        due = log->doubt_retry_us;
    int64_t commit_us = log_producer_next(log) != NULL ? log_commit_due_us(log) : INT64_MAX;
    if (commit_us < due)
        due = commit_us;
    return due;
}

static void turn(struct log *log)
{
    bool busy = log_take_commands(log);
    log_flush(log);
    serve_consumer(log);
    if (log->consumer_broken)
        renew_consumer(log);
    busy = log_reader_serve(log) || busy;
    if (log->control_known && !log->joined && clock_mono_us() >= log->join_us)
        join(log);
    busy = log_barrier_serve(log) || busy;
    busy = serve_queues(log) || busy;
    for (size_t i = 0; i < log->partitions_count; i++)
        tell_backlog_end(log, log->partitions[i]);
    carry(log);
    log_producers_serve(log);
    log_doubt_serve(log);
    busy = log_commit_serve(log) || busy;
    log_trim_serve(log);
    log_numbers_publish(log);
    if (!busy && !log->failed && !log->stopping)
        log_sleep(log, next_due_us(log));
}

/* I12. A dynamic member leaves the group by closing; a static one stays in it until its session times out. Whatever was the end of
 * the log, nothing more can be committed: the loop is told so, and begins no call any more. */
static void end(struct log *log)
{
    if (!log->failed && !atomic_load(&log->quit))
        log_leave(log, NULL);
    log_lose_all(log);
    log_partitions_free(log);
    log_barrier_close(log);
    log_consumer_close(log);
    struct log_event *event = log_event_new(LOG_STOPPED, NULL, sizeof log->error.text);
    if (log->failed)
        event->reason = memcpy(event + 1, log->error.text, sizeof log->error.text);
    log_push(log, event);
    log_numbers_publish(log);
    while (log->outbox_count > 0 && !atomic_load(&log->quit)) {
        log_take_commands(log); /* which mean nothing any more, but would wake us again and again */
        log_flush(log);
        log_sleep(log, INT64_MAX);
    }
}

void *log_thread(void *argument)
{
    struct log *log = argument;
    while (!log->failed && !log->stopping && !atomic_load(&log->quit))
        turn(log);
    end(log);
    return NULL;
}
