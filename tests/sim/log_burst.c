/* The committer: one transaction at a time, a step of it a turn, so that everything can happen in between. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/judge.h"
#include "tests/sim/log_thread.h"

#define DOUBT_MS_MAX 1500

bool burst_pending(const struct log_side *side)
{
    bool pending = side->phase != BURST_NONE;
    for (size_t i = 0; i < side->log->partitions_count; i++) {
        const struct log_work *first = side->log->partitions[i]->window.ready.first;
        pending = pending || (first != NULL && !first->refused);
    }
    return pending;
}

/* ---- refused ---- */

/* The brokers will never take what was written for this record: it is with the loop again. */
static void refuse(struct log_side *side, struct log_partition *partition, struct log_work *work)
{
    struct log *log = side->log;
    struct str run = work->records[0].run;
    struct log_event *event = log_event_new(LOG_REFUSED, partition, run.size + 1);
    event->offset = log_window_known(&partition->window, work->offset);
    event->key = (struct str){(char *)(event + 1), run.size};
    memcpy(event + 1, run.data, run.size + 1);
    event->reason = "refused by the brokers";
    judge_refused(run);
    size_t before = partition->window.with_loop;
    log_window_refuse(&partition->window, work);
    if (partition->of->topic == TOPIC_STEPS)
        log->with_loop_steps += (int64_t)(partition->window.with_loop - before);
    log_push(log, event);
}

/* Not what says that something was refused: that is small. */
static bool refusable(const struct log_work *work)
{
    bool dead = false;
    for (size_t i = 0; i < work->count; i++)
        dead = dead || work->records[i].topic == TOPIC_DEAD;
    return work->carry == 0 && work->count > 0 && !work->refused && !dead;
}

/* ---- the steps ---- */

static int32_t partition_to(const struct log_record *record)
{
    return record->partition >= 0 ? record->partition : broker_partition_of(record->topic, record->run);
}

/* Its report comes at once, or too late: in the next transaction. */
static void produce(struct log_side *side, struct log_work *work, size_t index)
{
    const struct log_record *record = &work->records[index];
    struct str key = record->key.data != NULL ? record->key : record->run;
    void *opaque = log_place_await(side->log, work, index);
    log_place_fill(side->log, work, record);
    int32_t number = partition_to(record);
    int64_t offset = broker_append(side->transaction, record->topic, number, key, record->value);
    if (opaque != NULL && !trouble(60))
        log_place_report(side->log, (intptr_t)opaque, number, offset);
    else if (opaque != NULL)
        side->late.opaque = (intptr_t)opaque, side->late.partition = number, side->late.offset = offset;
}

enum part { PART_LEAD, PART_REST }; /* of a work's records: those that others name, the others */

static void produce_part(struct log_side *side, enum part part)
{
    for (size_t i = 0; i < side->log->partitions_count; i++) {
        struct log_partition *partition = side->log->partitions[i];
        struct log_work *work = partition->window.ready.first;
        for (size_t n = 0; n < partition->burst; n++, work = work->next) {
            size_t end = part == PART_LEAD ? work->lead : work->count;
            for (size_t r = part == PART_LEAD ? 0 : work->lead; r < end && life_goes_on(side->life); r++)
                produce(side, work, r);
        }
    }
}

static void begin(struct log_side *side)
{
    struct log *log = side->log;
    size_t sum = 0;
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        struct log_work *work = partition->window.ready.first;
        partition->burst = 0;
        if (work != NULL && refusable(work) && trouble(300)) {
            refuse(side, partition, work);
            continue;
        }
        for (; work != NULL && !work->refused && dice(5) > 0; work = work->next)
            partition->burst++;
        sum += partition->burst;
    }
    if (sum == 0)
        return;
    side->transaction = broker_begin(side->life->slot);
    side->phase = BURST_LED;
    log_place_begin(log);
    intptr_t late = side->late.opaque;
    side->late.opaque = 0;
    produce_part(side, PART_LEAD);
    if (late != 0)
        log_place_report(log, late, side->late.partition, side->late.offset);
}

static void ended(struct log_side *side)
{
    for (size_t i = 0; i < side->log->partitions_count; i++) {
        side->log->partitions[i]->burst = 0;
        log_window_uncarry(&side->log->partitions[i]->window);
    }
    side->phase = BURST_NONE;
}

void burst_abort(struct log_side *side)
{
    if (side->phase == BURST_NONE)
        return;
    broker_fence(side->life->slot);
    ended(side);
}

/* False: we are not the member that we were. */
static bool send_offsets(struct log_side *side)
{
    for (size_t i = 0; i < side->log->partitions_count; i++) {
        struct log_partition *partition = side->log->partitions[i];
        struct offset_meta meta = {.commit_seq = partition->seq + 1};
        char text[OFFSET_META_TEXT_SIZE];
        if (partition->burst == 0)
            continue;
        partition->burst_base = log_window_plan(&partition->window, partition->burst,
                                                partition->of->topic == TOPIC_STEPS ? &meta.done : NULL);
        offset_meta_write(&meta, partition->burst_base, text);
        if (!life_goes_on(side->life) || !broker_send_offset(side->transaction, side->generation, partition->of->topic,
                                                             partition->number, partition->burst_base, text))
            return false;
    }
    return true;
}

static void confirmed(struct log_side *side)
{
    struct log_event *event = log_event_new(LOG_COMMITTED, NULL, 0);
    for (size_t i = 0; i < side->log->partitions_count; i++) {
        struct log_partition *partition = side->log->partitions[i];
        if (partition->burst == 0)
            continue;
        log_window_committed(&partition->window, partition->burst);
        partition->base = partition->burst_base;
        partition->seq++;
        partition->burst = 0;
    }
    side->phase = BURST_NONE;
    log_place_tell(side->log);
    log_push(side->log, event);
}

static void commit(struct log_side *side)
{
    bool lost = trouble(12), asked = !lost || dice(2) == 0; /* the request, or its answer */
    if (asked && broker_finish(side->transaction, true) && !lost) {
        if (life_goes_on(side->life))
            confirmed(side);
        return;
    }
    side->phase = BURST_DOUBT;
    side->doubt_until_us = world.now_us + dice_between(0, DOUBT_MS_MAX) * 1000;
}

/* A new producer of the same id settles it; then commit_seq of any partition that is still ours tells which way. */
static void doubt(struct log_side *side)
{
    if (world.now_us < side->doubt_until_us)
        return;
    broker_fence(side->life->slot);
    for (size_t i = 0; i < side->log->partitions_count; i++) {
        const struct log_partition *partition = side->log->partitions[i];
        struct stored_offset stored;
        struct offset_meta meta;
        struct error error;
        if (partition->burst == 0)
            continue;
        if (!broker_committed(partition->of->topic, partition->number, &stored)) /* whoever has it now commits */
            return;
        if (!offset_meta_read(str_of(stored.metadata), stored.offset, &meta, &error))
            wrong("%s %d: %s", partition->of->name, partition->number, error.text);
        if (meta.commit_seq == partition->seq + 1) {
            confirmed(side);
            return;
        }
    }
    ended(side);
}

void burst_serve(struct log_side *side)
{
    if (!life_goes_on(side->life))
        return;
    switch (side->phase) {
    case BURST_NONE:
        begin(side);
        break;
    case BURST_LED:
        if (!log_place_known(side->log)) {
            burst_abort(side);
            break;
        }
        produce_part(side, PART_REST);
        side->phase = BURST_PRODUCED;
        break;
    case BURST_PRODUCED:
        if (trouble(12) || !log_place_known(side->log) || !send_offsets(side))
            burst_abort(side);
        else
            side->phase = BURST_OFFSETS_SENT;
        break;
    case BURST_OFFSETS_SENT:
        commit(side);
        break;
    case BURST_DOUBT:
        doubt(side);
        break;
    }
}
