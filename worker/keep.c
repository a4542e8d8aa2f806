/*
 * keep.c: the keeper's side of a worker: when something is decided.
 *
 * Each owned partition of `inbox` has one keeper (core/keeper.h), rebuilt from `waiting` before anything is decided. Its records are
 * decided in order. One that needs a body which is not in memory waits until that was read back (io/readback.h), and all
 * behind it with it; so that many wait once and not each by itself, the bodies that those behind it need are asked for as well.
 * What is due waits for its own body alone.
 */
#include <string.h>

#include "worker/base/budget.h"
#include "worker/base/logline.h"
#include "worker/base/mem.h"
#include "worker/inbox.h"
#include "worker/io/clock.h"
#include "worker/io/metrics.h"

/* I7: due decisions in one go, so that records are not kept waiting by many timers. */
#define DUE_MAX 200
/* Bodies that one partition has read back at a time; in bytes, its part of the memory for bodies. */
#define ASKED_MAX 256
#define ASKED_PART 4
/* States of waiting steps of one partition that are fetched ahead. */
#define WAKING_MAX 16
/* How long an ended run is kept for the deletion of its records in Redis, before that is tried again. */
#define FORGET_AGAIN_MS 5000
/* A row that is not where it must be: it is looked for again, loudly. */
#define MISSING_AGAIN_US 10000000

/* A record of the inbox, or the end of its backlog. */
struct held {
    struct held *next;
    struct log_event event;
    struct arena *arena; /* NULL: not decoded yet */
    struct record *record;
    struct error error; /* not `decoded`: why */
    bool decoded;
    int64_t reading; /* of `control`: what is not known after it does not exist; 0: none was asked for */
    bool looked;     /* the bodies that it needs were asked for */
    bool begun;      /* and the state of what it wakes was begun to be made whole */
};

/* An ended run whose records in Redis are being deleted. */
struct forgetting {
    struct forgetting *next;
    struct worker *worker;
    struct inbox *inbox;
    struct ledger_op *op;
    struct str run; /* behind the struct */
};

static struct inbox *find(const struct worker *worker, int32_t partition, int64_t tenure)
{
    for (struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next)
        if (inbox->self.partition == partition && inbox->self.tenure == tenure)
            return inbox;
    return NULL;
}

/* ---- bodies ---- */

/* What is to be read of one partition, in one go. */
struct asking {
    struct worker *worker;
    struct inbox *inbox;
    struct readback_wanted wanted[ASKED_MAX];
    size_t count;
};

/* Its body is in memory, or was read already for what wakes it. */
static bool is_here(const struct inbox *inbox, uint32_t row)
{
    return wake_of(inbox, row) != NULL || keeper_body(inbox->keeper, row).data != NULL;
}

/* False: enough is being read already. */
static bool ask(struct asking *asking, uint32_t row)
{
    struct inbox *inbox = asking->inbox;
    size_t size = keeper_size(inbox->keeper, row);
    size_t size_max = (size_t)asking->worker->settings->keeper_memory_kib * 1024 / ASKED_PART;
    if (is_here(inbox, row))
        return true;
    if (inbox->asked == ASKED_MAX || (inbox->asked > 0 && inbox->asked_size + size > size_max))
        return false;
    int64_t offset = keeper_ask(inbox->keeper, row);
    if (offset < 0)
        return true;
    asking->wanted[asking->count++] = (struct readback_wanted){.topic = READ_WAITING,
                                                               .partition = inbox->self.partition,
                                                               .offset = offset,
                                                               .tenure = inbox->self.tenure,
                                                               .row = row,
                                                               .size = size};
    inbox->asked++;
    inbox->asked_size += size;
    return true;
}

static bool ask_parked(struct asking *asking, uint32_t run)
{
    const struct keeper *keeper = asking->inbox->keeper;
    uint32_t row = keeper_parked_first(keeper, run);
    while (row != 0 && ask(asking, row))
        row = keeper_parked_next(keeper, row);
    return row == 0;
}

/* All of them are used, whether others are missing or not: those that are here stay until the rest is. */
static bool have_parked(const struct inbox *inbox, uint32_t run)
{
    bool have = true;
    for (uint32_t row = keeper_parked_first(inbox->keeper, run); row != 0; row = keeper_parked_next(inbox->keeper, row))
        have = is_here(inbox, row) && have;
    return have;
}

/* Are all bodies that the record needs in memory? With `asking` they are asked for, and false means: enough is being read. */
static bool bodies(struct inbox *inbox, const struct record *record, struct asking *asking)
{
    uint32_t run = 0;
    switch (inbox_needs(inbox->keeper, record, &run)) {
    case NEEDS_RUN:
        return asking != NULL ? ask(asking, run) : keeper_body(inbox->keeper, run).data != NULL;
    case NEEDS_PARKED:
        return asking != NULL ? ask_parked(asking, run) : have_parked(inbox, run);
    default:
        return true;
    }
}

void keep_recalled(struct worker *worker, const struct readback_row *row)
{
    struct inbox *inbox = find(worker, row->wanted.partition, row->wanted.tenure);
    if (inbox == NULL)
        return;
    enum keeper_recall got = keeper_recalled(inbox->keeper, row->wanted.row, row->wanted.offset, row->key, row->value);
    metrics_add(worker->metrics, METRIC_READ_BACK, NULL, 1);
    inbox->came = true;
    if (got == RECALL_WRONG) {
        /* `waiting` keeps the last row of each key, so this cannot be; and nothing may be decided without. */
        struct readback_wanted again = row->wanted;
        LOG_ERROR("waiting.missing", LOG_I("partition", row->wanted.partition), LOG_I("offset", row->wanted.offset),
                  LOG_STR("key", row->key),
                  LOG_S("reason", row->not_there != NULL ? row->not_there : "another row lies there"));
        again.after_us = clock_mono_us() + MISSING_AGAIN_US;
        readback_ask(worker->readback, &again, 1);
        return;
    }
    inbox->asked--;
    inbox->asked_size -= row->wanted.size;
}

/* ---- records ---- */

static void held_add(struct held ***last, struct held *held)
{
    held->next = NULL;
    **last = held;
    *last = &held->next;
}

static void held_free(struct held *held)
{
    arena_free(held->arena);
    log_event_free(&held->event);
    mem_free(held);
}

static void decode(struct held *held)
{
    if (held->arena != NULL)
        return;
    held->arena = arena_new();
    held->record = ARENA_NEW(held->arena, struct record);
    held->decoded = record_decode(held->event.value, held->arena, held->record, &held->error);
}

static bool is_sound(const struct held *held)
{
    return held->decoded && inbox_unsound(held->record) == NULL;
}

/* Nothing is missing for the decision of the first one. */
static bool is_ready(struct worker *worker, struct inbox *inbox, struct held *held)
{
    if (held->event.kind != LOG_RECORD)
        return true;
    decode(held);
    if (!is_sound(held))
        return true;
    if (inbox->awaited == NULL && !bodies(inbox, held->record, NULL))
        return false;
    if (inbox->awaited == NULL)
        inbox->awaited = inbox_waking(worker, inbox, held->record);
    return inbox->awaited == NULL || wake_ready(inbox->awaited);
}

static bool needs_control(const struct worker *worker, const struct held *held)
{
    if (held->reading > 0)
        return false;
    return held->decoded ? inbox_needs_control(worker, held->record) : held->error.class == ERROR_RETRY;
}

static void decide(struct worker *worker, struct inbox *inbox, struct held *held)
{
    struct job job;
    job_open(&job, worker, inbox, held->arena, &held->event, clock_wall_ms());
    job.waking = inbox->awaited;
    const char *why = held->decoded ? inbox_unsound(held->record) : held->error.text;
    if (why != NULL)
        commit_dead(&job.commit, arena_str(held->arena, str_of(why)), STR_NONE);
    else
        inbox_decide(&job, held->record);
    job_close(&job);
}

/* Decides what can be decided, in order. */
static void advance(struct worker *worker, struct inbox *inbox)
{
    struct held *held;
    while ((held = inbox->first) != NULL && is_ready(worker, inbox, held)) {
        inbox->first = held->next;
        inbox->came = true;
        if (inbox->first == NULL)
            inbox->last = &inbox->first;
        if (held->event.kind == LOG_BACKLOG_END) {
            inbox->caught_up = true;
        } else if (needs_control(worker, held)) {
            held_add(&inbox->unknown_last, held);
            held->reading = log_read_control(worker->log);
            continue;
        } else {
            decide(worker, inbox, held);
        }
        held_free(held);
    }
}

/* Asks for what the first and some behind it need; not at each turn of the loop, for that costs a hash of each. */
static void look_ahead(struct asking *asking)
{
    struct inbox *inbox = asking->inbox;
    int looked = 0;
    if (!inbox->came)
        return;
    inbox->came = false;
    for (struct held *held = inbox->first; held != NULL && looked < ASKED_MAX; held = held->next, looked++) {
        if (held->event.kind != LOG_RECORD)
            continue;
        decode(held);
        if (!is_sound(held))
            continue;
        if ((!held->looked || looked == 0) && !bodies(inbox, held->record, asking))
            return;
        held->looked = true;
        /* Some at a time are made whole beside each other, while there is memory. */
        if (!held->begun && inbox->waking_count < WAKING_MAX && wake_may(asking->worker, inbox) &&
            budget_admits(BUDGET_BEGIN, 0) && bodies(inbox, held->record, NULL)) {
            held->begun = true;
            inbox_waking(asking->worker, inbox, held->record);
        }
    }
}

static void take(struct worker *worker, struct inbox *inbox, const struct log_event *event)
{
    struct held *held = mem_new(sizeof(*held));
    held->event = *event;
    bool alone = inbox->first == NULL;
    held_add(&inbox->last, held);
    inbox->came = true;
    if (alone)
        advance(worker, inbox);
}

void keep_contracts_read(struct worker *worker, int64_t reading)
{
    for (struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next) {
        struct held *held;
        while ((held = inbox->unknown) != NULL && held->reading <= reading) { /* asked for in that order */
            inbox->unknown = held->next;
            held_add(&inbox->last, held);
        }
        if (inbox->unknown == NULL)
            inbox->unknown_last = &inbox->unknown;
        inbox->came = true;
        advance(worker, inbox);
    }
}

/* ---- tenure ---- */

static void assigned(struct worker *worker, const struct log_event *event)
{
    struct inbox *inbox = mem_new(sizeof(*inbox));
    *inbox = (struct inbox){
        .next = worker->inboxes,
        .self = {.topic = event->topic,
                 .topic_name = event->topic_name,
                 .partition = event->partition,
                 .tenure = event->tenure,
                 .offset = -1},
        .keeper = keeper_new(worker->settings->ended_keep_ms, worker->bodies),
    };
    inbox->last = &inbox->first;
    inbox->unknown_last = &inbox->unknown;
    worker->inboxes = inbox;
}

static void forgetting_free(struct forgetting *forgetting)
{
    struct forgetting **link = &forgetting->inbox->forgetting;
    while (*link != forgetting)
        link = &(*link)->next;
    *link = forgetting->next;
    mem_free(forgetting);
}

static void free_all(struct held *held)
{
    while (held != NULL) {
        struct held *next = held->next;
        held_free(held);
        held = next;
    }
}

static void drop(struct inbox *inbox)
{
    free_all(inbox->first);
    free_all(inbox->unknown);
    while (inbox->forgetting != NULL) {
        ledger_cancel(inbox->forgetting->op);
        forgetting_free(inbox->forgetting);
    }
    wake_drop(inbox);
    keeper_free(inbox->keeper);
    mem_free(inbox);
}

static void revoked(struct worker *worker, const struct log_event *event)
{
    for (struct inbox **link = &worker->inboxes; *link != NULL; link = &(*link)->next) {
        struct inbox *inbox = *link;
        if (inbox->self.tenure != event->tenure)
            continue;
        *link = inbox->next;
        drop(inbox);
        return;
    }
}

/* NULL, or why a row of `waiting` is none. */
static const char *misfit(const struct record *record, struct str key, struct arena *arena)
{
    const struct step_parked *parked = &record->is.step_parked;
    const char *unsound = inbox_unsound(record);
    if (unsound != NULL)
        return unsound;
    if (record->type == RECORD_RUN_ROW)
        return run_id_sound(key) && str_equal(record->is.run_row.run, key) ? NULL : "its key is not that of its run";
    if (record->type != RECORD_STEP_PARKED)
        return "such a record does not belong here";
    bool own = run_id_sound(parked->run) && str_equal(keeper_parked_key(arena, parked->run, parked->branch), key);
    return own ? NULL : "its key is not that of its step";
}

static void waiting_row(struct inbox *inbox, const struct log_event *event)
{
    if (event->value.data == NULL) {
        keeper_load_tombstone(inbox->keeper, event->key);
        return;
    }
    struct arena *arena = arena_new();
    struct record *record = ARENA_NEW(arena, struct record);
    struct error error;
    bool ok = record_decode(event->value, arena, record, &error);
    const char *why = ok ? misfit(record, event->key, arena) : error.text;
    if (why != NULL)
        LOG_ERROR("waiting.unreadable", LOG_I("partition", event->partition), LOG_I("offset", event->offset),
                  LOG_S("reason", why));
    else if (record->type == RECORD_RUN_ROW)
        keeper_load_run(inbox->keeper, &record->is.run_row, event->offset, event->value.size);
    else
        keeper_load_parked(inbox->keeper, &record->is.step_parked, event->offset, event->value.size);
    arena_free(arena);
}

static void rebuilt(const struct worker *worker, struct inbox *inbox, const struct log_event *event)
{
    inbox->rebuilt = true;
    LOG_INFO("keeper.rebuilt", LOG_I("partition", event->partition), LOG_I("tenure", event->tenure),
             LOG_I("open", keeper_open_count(inbox->keeper)), LOG_I("parked", keeper_parked_count(inbox->keeper)));
    for (const struct inbox *other = worker->inboxes; other != NULL; other = other->next)
        if (!other->rebuilt)
            return;
    mem_give_back(); /* all that waits came by */
}

/* Of an inbox that is ours. True: the event was taken. */
static bool inbox_event(struct worker *worker, struct inbox *inbox, const struct log_event *event)
{
    switch (event->kind) {
    case LOG_WAITING_ROW:
        waiting_row(inbox, event);
        return false;
    case LOG_WAITING_END:
        rebuilt(worker, inbox, event);
        return false;
    case LOG_PLACED:
        for (size_t i = 0; i < event->placed_count; i++)
            keeper_placed(inbox->keeper, event->placed[i].ticket, event->placed[i].offset);
        return false;
    case LOG_BACKLOG_END:
    case LOG_RECORD:
        take(worker, inbox, event);
        return true;
    default:
        return false;
    }
}

void keep_event(struct worker *worker, struct log_event *event)
{
    struct inbox *inbox = find(worker, event->partition, event->tenure);
    bool taken = false;
    if (event->kind == LOG_ASSIGNED)
        assigned(worker, event);
    else if (event->kind == LOG_REVOKED || event->kind == LOG_LOST)
        revoked(worker, event);
    else if (inbox != NULL)
        taken = inbox_event(worker, inbox, event);
    if (!taken)
        log_event_free(event);
}

/* ---- time ---- */

static void on_forgotten(void *context, const struct ledger_answer *answer)
{
    struct forgetting *forgetting = context;
    struct worker *worker = forgetting->worker;
    if (answer->verdict == LEDGER_GO) {
        struct job job;
        struct arena *arena = arena_new();
        job_open(&job, worker, forgetting->inbox, arena, &forgetting->inbox->self, clock_wall_ms());
        inbox_forget(&job, forgetting->run);
        job_close(&job);
        arena_free(arena);
    } else { /* it comes due again */
        LOG_WARN("run.kept", LOG_STR("run", forgetting->run), LOG_STR("reason", answer->reason));
    }
    forgetting_free(forgetting);
}

/* First its records of writes in Redis, then itself: the other way round a run of the same id could adopt what this one did, and
 * records could be left for ever. It comes due again until it is forgotten. */
static void forget(struct job *job, uint32_t row)
{
    struct inbox *inbox = job->inbox;
    keeper_keep(inbox->keeper, row, job->now_ms + FORGET_AGAIN_MS);
    const struct run_row *ended = inbox_run(job, row);
    if (ended == NULL) {
        keeper_keep(inbox->keeper, row, INT64_MAX);
        return;
    }
    struct forgetting *forgetting = mem_new(sizeof(*forgetting) + ended->run.size + 1);
    *forgetting = (struct forgetting){.next = inbox->forgetting,
                                      .worker = job->worker,
                                      .inbox = inbox,
                                      .run = {(const char *)(forgetting + 1), ended->run.size}};
    memcpy(forgetting + 1, ended->run.data, ended->run.size);
    inbox->forgetting = forgetting;
    int64_t before_ms = ended->ended_at_ms + job->worker->settings->ended_keep_ms / 2;
    forgetting->op = ledger_forget(job->worker->ledger, forgetting->run, before_ms, on_forgotten, forgetting);
}

/* Its body is in memory. */
static void due_now(struct asking *asking, uint32_t row, int64_t now_ms)
{
    struct inbox *inbox = asking->inbox;
    bool ended = keeper_row_ended(inbox->keeper, row);
    struct waking *waking = ended ? NULL : inbox_row_waking(asking->worker, inbox, row);
    if (!ended && waking == NULL) { /* it cannot be read */
        keeper_keep(inbox->keeper, row, INT64_MAX);
        return;
    }
    if (!ended && !wake_ready(waking)) {
        keeper_aside(inbox->keeper, row, true); /* until its state was fetched */
        return;
    }
    struct job job;
    struct arena *arena = arena_new();
    job_open(&job, asking->worker, inbox, arena, &inbox->self, now_ms);
    job.waking = waking;
    if (ended) {
        forget(&job, row);
    } else {
        inbox_wake(&job);
        job_close(&job);
    }
    arena_free(arena);
}

/* Decides what is due and has its body in memory, asks for the bodies of the rest; returns when to look again. */
static int64_t timers(struct asking *asking, int64_t now_ms)
{
    struct inbox *inbox = asking->inbox;
    if (!inbox->rebuilt || !inbox->caught_up)
        return INT64_MAX;
    for (int i = 0; i < DUE_MAX; i++) {
        uint32_t row = keeper_next_due(inbox->keeper, now_ms);
        if (row == 0)
            break;
        /* ▲ What a person said in time is decided first. The clock of both is the broker's; the answer for the first wakes us. */
        if (inbox->first != NULL && inbox->first->event.timestamp_ms <= keeper_due_ms(inbox->keeper))
            return INT64_MAX;
        bool here = is_here(inbox, row);
        if (here && wake_of(inbox, row) == NULL && !keeper_row_ended(inbox->keeper, row) &&
            !wake_may(asking->worker, inbox))
            return INT64_MAX; /* the next one that is whole wakes us */
        if (here)
            due_now(asking, row, now_ms);
        else if (!ask(asking, row))
            return INT64_MAX; /* an answer wakes us */
    }
    return keeper_due_ms(inbox->keeper);
}

int64_t keep_tick(struct worker *worker, int64_t now_ms)
{
    int64_t next_ms = INT64_MAX;
    for (struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next) {
        struct asking asking;
        asking.worker = worker;
        asking.inbox = inbox;
        asking.count = 0;
        advance(worker, inbox);
        look_ahead(&asking);
        int64_t due_ms = timers(&asking, now_ms);
        next_ms = due_ms < next_ms ? due_ms : next_ms;
        readback_ask(worker->readback, asking.wanted, asking.count);
    }
    keeper_bodies_trim(worker->bodies);
    return next_ms;
}

/* ---- the whole ---- */

void keep_open(struct worker *worker)
{
    worker->bodies = keeper_bodies_new((size_t)worker->settings->keeper_memory_kib * 1024);
}

void keep_free(struct worker *worker)
{
    while (worker->inboxes != NULL) {
        struct inbox *inbox = worker->inboxes;
        worker->inboxes = inbox->next;
        drop(inbox);
    }
    keeper_bodies_free(worker->bodies);
}

void keep_numbers(const struct worker *worker, size_t *open, size_t *parked)
{
    *open = *parked = 0;
    for (const struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next) {
        *open += inbox->rebuilt ? keeper_open_count(inbox->keeper) : 0;
        *parked += inbox->rebuilt ? keeper_parked_count(inbox->keeper) : 0;
    }
}
