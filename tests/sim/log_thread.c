#include "tests/sim/log_thread.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/base/budget.h"

#define CARRY_AT 12 /* far below the real limits, so that they are reached */
#define WINDOW_MAX 16
#define WITH_LOOP_MAX 6 /* credits */
#define FETCH_MAX 4
#define RELEASE_MS 1000
#define LEAVE_MS 4000
#define TO_LOG_SIZE 16    /* the loop keeps what does not fit */
#define TO_LOOP_SIZE 4096 /* more than there ever is: this side keeps nothing */

static struct log_side sides[SLOTS];

struct log_side *log_side(const struct log *log)
{
    return &sides[log->slot[0] - 'a'];
}

struct log_event *log_event_new(enum log_event_kind kind, const struct log_partition *partition, size_t extra)
{
    struct log_event *event = log_block_new(extra);
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

/* The real one keeps what does not fit, and takes nothing from Kafka meanwhile. A thread of its own just waits. */
void log_push(struct log *log, struct log_event *event)
{
    while (!log_ring_push(&log->to_loop, event)) {
        if (!world.apart)
            wrong("the loop does not take its events");
        if (atomic_load(&log->quit)) {
            log_block_drop(event);
            return;
        }
        poll(NULL, 0, 1);
    }
}

static struct log_event *event_of(enum log_event_kind kind, const struct log_partition *partition,
                                  const struct logged *message, int64_t offset)
{
    struct log_event *event = log_event_new(kind, partition, message->key.size + message->value.size + 2);
    char *at = (char *)(event + 1);
    struct str *texts[] = {&event->key, &event->value};
    const struct str *from[] = {&message->key, &message->value};
    for (int i = 0; i < 2; i++) {
        if (from[i]->data == NULL)
            continue;
        *texts[i] = (struct str){at, from[i]->size};
        memcpy(at, from[i]->data, from[i]->size + 1);
        at += from[i]->size + 1;
    }
    event->offset = offset;
    event->timestamp_ms = message->timestamp_ms;
    return event;
}

/* ---- life ---- */

struct log *log_thread_open(struct life *life)
{
    struct log *log = calloc(1, sizeof(*log));
    struct log_settings settings = {.slot = life->settings.slot};
    struct error error;
    log_ring_open(&log->to_log, &log->to_loop, TO_LOG_SIZE);
    log_ring_open(&log->to_loop, &log->to_log, TO_LOOP_SIZE);
    log_connect(log, &settings, &error);
    broker_fence(life->slot);
    return log;
}

bool log_connect(struct log *log, const struct log_settings *settings, struct error *error)
{
    int slot = settings->slot[0] - 'a';
    (void)error;
    log->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    log->slot = slot == 0 ? (char *)(uintptr_t) "a" : (char *)(uintptr_t) "b";
    struct log_side *side = &sides[slot];
    log->wake_fd = log->to_log.fd;
    *side = (struct log_side){.log = log, .life = world.lives[slot], .generation = -1};
    for (enum topic topic = TOPIC_STEPS; topic <= TOPIC_INBOX; topic++)
        side->topics[topic] = (struct log_topic){.topic = topic,
                                                 .name = (char *)(uintptr_t)broker_topic_name(topic),
                                                 .pool = topic == TOPIC_STEPS ? (char *)(uintptr_t) "default" : NULL,
                                                 .partitions = broker_partitions(topic),
                                                 .left = side->left[topic]};
    return true;
}

static void drop_partitions(struct log *log)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (partition->told)
            partition->of->left[partition->number] = (struct log_left){partition->tenure, partition->seq};
        log_window_free(&partition->window);
        free(partition);
    }
    log->partitions_count = 0;
    log->with_loop_steps = 0;
}

void log_disconnect(struct log *log)
{
    drop_partitions(log);
    free(log->partitions);
    free(log->placed);
    close(log->wake_fd);
}

/* ---- commands ---- */

/* I10: what belongs to a tenure that is over is dropped. */
static void finish(struct log *log, struct log_work *work)
{
    struct log_partition *partition = log_partition_of(log, work->tenure);
    if (partition == NULL) {
        log_work_free(work);
        return;
    }
    size_t before = partition->window.with_loop;
    int64_t offset = work->offset;
    if (!log_window_finish(&partition->window, work))
        wrong("%s %d: offset %lld was finished before, or never handed over", partition->of->name, partition->number,
              (long long)offset);
    if (partition->of->topic == TOPIC_STEPS)
        log->with_loop_steps -= (int64_t)(before - partition->window.with_loop);
}

static void take_commands(struct log *log)
{
    struct log_work *work;
    struct log_partition *partition;
    while ((work = log_ring_pop(&log->to_log)) != NULL) {
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
}

/* ---- letting go ---- */

static void tell_leaving(struct log *log, enum log_event_kind kind)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        partition->released = !partition->told;
        if (partition->told)
            log_push(log, log_event_new(kind, partition, 0));
    }
}

static void lose_all(struct log_side *side)
{
    burst_abort(side);
    tell_leaving(side->log, LOG_LOST);
    drop_partitions(side->log);
    side->leaving = false;
    side->generation = -1;
}

/* True when everything is let go: what is done is committed, or there was no time for it. */
static bool leave_all(struct log_side *side)
{
    struct log *log = side->log;
    bool released = true;
    if (!side->leaving) {
        side->leaving = true;
        side->release_until_us = world.now_us + RELEASE_MS * 1000;
        side->leave_until_us = world.now_us + LEAVE_MS * 1000;
        tell_leaving(log, LOG_REVOKED);
    }
    for (size_t i = 0; i < log->partitions_count; i++)
        released = released && log->partitions[i]->released;
    bool waits = !released && world.now_us < side->release_until_us;
    if ((waits || burst_pending(side)) && world.now_us < side->leave_until_us)
        return false;
    burst_abort(side);
    drop_partitions(log);
    side->leaving = false;
    side->generation = -1;
    return true;
}

static void take_up(struct log_side *side)
{
    struct log *log = side->log;
    for (enum topic topic = TOPIC_STEPS; topic <= TOPIC_INBOX; topic++)
        for (int32_t i = 0; i < broker_partitions(topic); i++) {
            if (!broker_owns(side->life->slot, topic, i))
                continue;
            struct log_partition *partition = calloc(1, sizeof(*partition));
            partition->of = &side->topics[topic];
            partition->number = i;
            partition->tenure = ++log->last_tenure;
            log->partitions = realloc(log->partitions, (log->partitions_count + 1) * sizeof(struct log_partition *));
            log->partitions[log->partitions_count++] = partition;
        }
}

static void serve_group(struct log_side *side)
{
    struct membership membership = broker_heartbeat(side->life->slot);
    if (!membership.member) {
        lose_all(side);
        broker_join(side->life->slot);
    } else if (membership.rejoin) {
        if (leave_all(side))
            broker_join(side->life->slot);
    } else if (membership.settled && side->generation != membership.generation) {
        lose_all(side); /* the group went on without us, and we are in it again */
        side->generation = membership.generation;
        take_up(side);
    }
}

/* ---- records to the loop ---- */

/* The tenure before, if it was ours and nobody committed in between; else 0. */
static int64_t kept(const struct log_partition *partition)
{
    const struct log_left *left = &partition->of->left[partition->number];
    return partition->of->topic == TOPIC_STEPS && left->seq == partition->seq ? left->tenure : 0;
}

/* Its committed offset is not told while a transaction on it is open. */
static void settle(struct log *log, struct log_partition *partition)
{
    struct stored_offset stored;
    struct offset_meta meta;
    struct error error;
    enum topic topic = partition->of->topic;
    if (!broker_committed(topic, partition->number, &stored) || dice(3) == 0)
        return;
    if (!offset_meta_read(str_of(stored.metadata), stored.offset, &meta, &error))
        wrong("%s %d: %s", partition->of->name, partition->number, error.text);
    log_window_start(&partition->window, topic == TOPIC_INBOX, stored.offset, &meta.done);
    partition->base = stored.offset;
    partition->seq = meta.commit_seq;
    partition->suspect_below = broker_end(topic, partition->number);
    partition->waiting_end = broker_end(TOPIC_WAITING, partition->number % broker_partitions(TOPIC_WAITING));
    partition->told = true;
    partition->stage = topic == TOPIC_INBOX ? STAGE_REBUILD : STAGE_SERVING;
    struct log_event *event = log_event_new(LOG_ASSIGNED, partition, 0);
    event->offset = stored.offset;
    event->kept = kept(partition);
    log_push(log, event);
}

static void rebuild(struct log *log, struct log_partition *partition)
{
    int64_t stable = broker_stable(TOPIC_WAITING, partition->number);
    while (partition->waiting_reached < partition->waiting_end && partition->waiting_reached < stable) {
        int64_t offset = partition->waiting_reached++;
        const struct logged *row = broker_read(TOPIC_WAITING, partition->number, offset);
        if (row != NULL)
            log_push(log, event_of(LOG_WAITING_ROW, partition, row, offset));
    }
    if (partition->waiting_reached < partition->waiting_end)
        return;
    log_push(log, log_event_new(LOG_WAITING_END, partition, 0));
    partition->stage = STAGE_SERVING;
}

static bool has_room(const struct log *log, const struct log_partition *partition)
{
    size_t adrift = 0;
    if (partition->of->topic != TOPIC_STEPS)
        return true;
    for (size_t i = 0; i < log->partitions_count; i++)
        adrift += log->partitions[i]->window.adrift;
    int64_t in_flight = (int64_t)log->with_loop_steps - atomic_load(&log->waiting_steps);
    return log_window_span(&partition->window) < WINDOW_MAX && in_flight < WITH_LOOP_MAX &&
           budget_admits(BUDGET_HAND_OVER, -(int64_t)adrift);
}

static void fetch(struct log *log, struct log_partition *partition)
{
    enum topic topic = partition->of->topic;
    int64_t stable = broker_stable(topic, partition->number), offset = partition->window.position;
    uint64_t count = dice(FETCH_MAX + 1);
    for (; offset < stable && count > 0 && has_room(log, partition); offset++) {
        const struct logged *message = broker_read(topic, partition->number, offset);
        if (message == NULL)
            continue;
        count--;
        if (!log_window_deliver(&partition->window, offset))
            continue;
        struct log_event *event = event_of(LOG_RECORD, partition, message, offset);
        event->suspect = offset < partition->suspect_below;
        if (topic == TOPIC_STEPS) {
            log_window_keep(&partition->window, event);
            log->with_loop_steps++;
        }
        log_push(log, event);
    }
    while (offset < stable && broker_read(topic, partition->number, offset) == NULL)
        offset++;
    if (topic == TOPIC_INBOX && !partition->backlog_told && offset >= partition->suspect_below) {
        partition->backlog_told = true;
        log_push(log, log_event_new(LOG_BACKLOG_END, partition, 0));
    }
}

static void serve_partitions(struct log *log)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (partition->stage == STAGE_BARRIER)
            settle(log, partition);
        else if (partition->stage == STAGE_REBUILD)
            rebuild(log, partition);
        else
            fetch(log, partition);
        if (partition->of->topic == TOPIC_STEPS && log_window_span(&partition->window) >= CARRY_AT)
            log_window_carry(&partition->window, CARRY_AT, str_of(partition->of->pool), &log->last_carry);
    }
}

static void serve_control(struct log_side *side)
{
    struct log *log = side->log;
    int64_t end = broker_end(TOPIC_CONTROL, 0);
    for (; side->control_read < end; side->control_read++) {
        struct log_event *event = event_of(LOG_CONTROL, NULL, broker_at(TOPIC_CONTROL, 0, side->control_read),
                                           side->control_read);
        event->topic = TOPIC_CONTROL;
        log_push(log, event);
    }
    if (!log->control_known || log->control_wanted >= 0) {
        struct log_event *event = log_event_new(LOG_CONTROL_END, NULL, 0);
        event->offset = log->control_wanted;
        log_push(log, event);
    }
    log->control_known = true;
    log->control_wanted = -1;
}

static void publish_numbers(struct log *log)
{
    atomic_store(&log->partitions_owned, (int)log->partitions_count);
    atomic_store(&log->records_in_flight, (int)log->with_loop_steps);
    atomic_store(&log->in_group, log->partitions_count > 0);
}

static void turn(struct log_side *side)
{
    struct log *log = side->log;
    bool early = dice(2) == 0;
    take_commands(log);
    serve_control(side);
    if (early)
        burst_serve(side);
    if (log->stopping && leave_all(side)) {
        broker_leave(side->life->slot);
        log_push(log, log_event_new(LOG_STOPPED, NULL, 0));
        log->stopped = true;
        return;
    }
    if (!log->stopping)
        serve_group(side);
    if (!side->leaving && !log->stopping)
        serve_partitions(log);
    if (!early)
        burst_serve(side);
}

void log_thread_turn(struct log *log)
{
    struct log_side *side = log_side(log);
    if (log->stopped || side->turning)
        return;
    side->turning = true;
    turn(side);
    publish_numbers(log);
    side->turning = false;
}
