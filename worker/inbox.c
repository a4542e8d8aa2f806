/*
 * inbox.c: the keeper's side of a worker: what is addressed to a run, and what is due.
 *
 * Each owned partition of `inbox` has one keeper (core/keeper.h). Every decision is one commit: step events, facts, rows of
 * `waiting`, and the inbox offset; for a timer the same position again with a new commit_seq, so that a keeper that lost the
 * partition is fenced.
 */
#include "worker/job.h"

#include <string.h>

#include "worker/base/crash.h"
#include "worker/base/hash.h"
#include "worker/base/json.h"
#include "worker/base/logline.h"
#include "worker/base/mem.h"
#include "worker/io/clock.h"

/* I7: due decisions in one go, so that records are not kept waiting by many timers. */
#define INBOX_DUE_MAX 200
#define REQUEST_ID_SIZE_MAX 256
/* How long an ended run is kept for the deletion of its records in Redis, before that is tried again. */
#define FORGET_AGAIN_MS 5000

struct held {
    struct log_event event;
    struct held *next;
};

/* An ended run whose records in Redis are being deleted. */
struct forgetting {
    struct forgetting *next;
    struct worker *worker;
    struct inbox *inbox;
    struct ledger_op *op;
    struct str run; /* behind the struct */
};

static struct inbox *find(const struct worker *worker, const struct log_event *event)
{
    for (struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next)
        if (inbox->self.partition == event->partition && inbox->self.tenure == event->tenure)
            return inbox;
    return NULL;
}

/* ---- answers to who asked ---- */

static void answer(struct job *job, struct str run, struct str request_id, const char *request, const char *refused)
{
    struct fact fact = {
        .run = run,
        .contract_hash = STR(""),
        .seq = -1,
        .at_ms = job->now_ms,
        .branch = STR(""),
        .step = STR(""),
        .kind = FACT_REQUEST_ANSWERED,
        .is.request_answered =
            {
                .request_id = request_id,
                .request = str_of(request),
                .accepted = refused == NULL,
                .reason = refused != NULL ? arena_str(job->arena, str_of(refused)) : STR_NONE,
            },
    };
    commit_fact(&job->commit, &fact);
}

struct decide_env job_env(struct job *job, const struct contract *contract)
{
    const struct settings *settings = job->worker->settings;
    return (struct decide_env){
        .contract = contract,
        .arena = job->arena,
        .name_space = settings->name_space,
        .now_ms = job->now_ms,
        .backoff_ms = settings->backoff_ms,
        .backoff_max_ms = settings->backoff_max_ms,
    };
}

/* ---- a run is requested ---- */

static const char *refuse_input(struct job *job, const struct contract *contract, const struct run_requested *request,
                                struct str *input_hash)
{
    struct error error;
    json_t *input = json_read(request->input, CONTRACT_SIZE_MAX, &error);
    bool fits = input != NULL && (contract->input == NULL || schema_check(contract->input, input, &error));
    if (fits) {
        struct str parts[] = {contract->name, json_canonical(job->arena, input)};
        *input_hash = hash_parts(job->arena, parts, 2);
    }
    json_decref(input);
    return fits ? NULL : arena_printf(job->arena, "input: %s", error.text).data;
}

/* NULL, or why it cannot be written down (too large, no valid text): then nothing of it is kept. */
const char *job_refuse_plan(struct job *job, struct plan *plan)
{
    struct commit before = job->commit;
    commit_plan(&job->commit, plan);
    if (!job->commit.failed)
        return NULL;
    const char *refused =
        arena_printf(job->arena, "what follows cannot be written down: %s", job->commit.error.text).data;
    job->commit = before;
    return refused;
}

/* NULL, or why the run cannot be started. */
static const char *start(struct job *job, const struct contract *contract, const struct run_requested *request,
                         struct str input_hash)
{
    struct decide_env env = job_env(job, contract);
    struct plan plan;
    decide_run(&env, request, &plan);
    const char *refused = job_refuse_plan(job,
                                          &plan); /* before the keeper knows of it: its table is what was written */
    if (refused != NULL)
        return refused;
    struct run_row row = {
        .run = request->run,
        .contract = contract->name,
        .contract_hash = str_of(contract->hash),
        .input_hash = input_hash,
        .status = RUN_RUNNING,
        .requested_by = request->by,
        .started_at_ms = job->now_ms,
        .deadline_at_ms = job->now_ms + contract->limits.deadline_ms,
    };
    struct waiting_row written;
    keeper_open(job->inbox->keeper, &row, job->arena, &written);
    commit_row(&job->commit, &written, request->run);
    return NULL;
}

static void run_requested(struct job *job, const struct run_requested *request)
{
    const char *refused = NULL;
    struct str input_hash = STR_NONE;
    const struct contract *contract = contracts_find(job->worker->contracts, request->contract_hash, &refused);
    if (contract == NULL && refused != NULL)
        refused = arena_printf(job->arena, "the contract is refused: %s", refused).data;
    else if (contract == NULL)
        refused =
            arena_printf(job->arena, "no contract with hash %.*s was published", STR_ARG(request->contract_hash)).data;
    else if (!run_id_sound(request->run))
        refused = "a run id is 1 to 128 of letters, digits, '.', '_' and '-'";
    else
        refused = refuse_input(job, contract, request, &input_hash);
    if (refused == NULL && contract != NULL) {
        switch (keeper_start_verdict(job->inbox->keeper, request, input_hash, job->now_ms)) {
        case START_NEW:
            refused = start(job, contract, request, input_hash);
            break;
        case START_SAME:
            break;
        case START_CONFLICT:
            refused = "a run with this id was started with another contract or input";
            break;
        case START_TOO_OLD:
            refused = "this id is older than ended_keep: whether it ran already is no longer known";
            break;
        }
    }
    answer(job, request->run, request->request_id, "run", refused);
}

/* ---- a waiting step wakes ---- */

static void decision(struct job *job, const struct decision *decision)
{
    const char *refused = keeper_refuse_decision(job->inbox->keeper, decision, job->arena);
    if (refused == NULL) {
        struct wake cause = {.kind = WAKE_DECISION, .decision = decision};
        refused = wake(job, keeper_parked_step(job->inbox->keeper, decision->run, decision->step), &cause);
    }
    answer(job, decision->run, decision->request_id, decision->approved ? "approve" : "reject", refused);
}

static void resolved(struct job *job, const struct resolved *resolved)
{
    const char *refused = keeper_refuse_resolution(job->inbox->keeper, resolved, job->arena);
    if (refused == NULL) {
        struct wake cause = {.kind = WAKE_RESOLUTION, .resolution = resolved};
        refused = wake(job, keeper_parked_step(job->inbox->keeper, resolved->run, resolved->step), &cause);
    }
    answer(job, resolved->run, resolved->request_id, "resolve", refused);
}

/* ---- records ---- */

void job_open(struct job *job, struct worker *worker, struct inbox *inbox, const struct log_event *source,
              int64_t offset, int64_t now_ms)
{
    *job = (struct job){.worker = worker, .inbox = inbox, .arena = arena_new(), .now_ms = now_ms};
    commit_open(&job->commit, worker, job->arena, source, offset);
}

void job_close(struct job *job)
{
    CRASH_POINT("keeper_before_commit");
    commit_done(&job->commit);
    wake_over(job);
    arena_free(job->arena);
}

static bool is_open(const struct job *job, struct str run)
{
    const struct run_row *row = keeper_run(job->inbox->keeper, run);
    return row != NULL && row->ended_at_ms == 0;
}

static void closed(struct job *job, const struct run_closed *closed)
{
    struct waiting_row written;
    if (!is_open(job, closed->run)) {
        commit_dead(&job->commit, STR("the end of a run that is not open"), closed->run);
        return;
    }
    keeper_close(job->inbox->keeper, closed, job->arena, &written);
    commit_row(&job->commit, &written, closed->run);
}

static void park(struct job *job, const struct step_parked *parked)
{
    struct waiting_row written;
    if (!is_open(job, parked->run)) {
        commit_dead(&job->commit, STR("a parked step of a run that is not open"), parked->run);
        return;
    }
    keeper_park(job->inbox->keeper, parked, job->arena, &written);
    commit_row(&job->commit, &written, parked->run);
}

/* NULL, or what of the record is out of all bounds: what is due is computed from times, and an answer must fit a record. */
static const char *unsound(const struct record *record)
{
    static const char *const request_id = "request_id is over 256 bytes";
    switch (record->type) {
    case RECORD_RUN_REQUESTED:
        return record->is.run_requested.request_id.size > REQUEST_ID_SIZE_MAX ? request_id : NULL;
    case RECORD_DECISION:
        return record->is.decision.request_id.size > REQUEST_ID_SIZE_MAX ? request_id : NULL;
    case RECORD_RESOLVED:
        return record->is.resolved.request_id.size > REQUEST_ID_SIZE_MAX ? request_id : NULL;
    case RECORD_STEP_PARKED:
        return run_time_sound(record->is.step_parked.due_at_ms) &&
                       run_time_sound(record->is.step_parked.run_deadline_at_ms)
                   ? NULL
                   : "a time of it is out of all bounds";
    case RECORD_RUN_CLOSED:
        return run_time_sound(record->is.run_closed.at_ms) && record->is.run_closed.at_ms > 0
                   ? NULL
                   : "its time is out of all bounds";
    case RECORD_RUN_ROW:
        return run_time_sound(record->is.run_row.ended_at_ms) ? NULL : "its end is out of all bounds";
    default:
        return NULL;
    }
}

static void dispatch(struct job *job, struct record *record)
{
    switch (record->type) {
    case RECORD_RUN_REQUESTED:
        run_requested(job, &record->is.run_requested);
        break;
    case RECORD_STEP_PARKED:
        park(job, &record->is.step_parked);
        break;
    case RECORD_DECISION: /* the broker's clock decides between a person and a timeout, never the person's */
        job->now_ms = job->commit.source->timestamp_ms;
        record->is.decision.at_ms = job->now_ms;
        decision(job, &record->is.decision);
        break;
    case RECORD_RESOLVED:
        resolved(job, &record->is.resolved);
        break;
    case RECORD_RUN_CLOSED:
        closed(job, &record->is.run_closed);
        break;
    default:
        commit_dead(&job->commit, arena_printf(job->arena, "a %s does not belong here", record_name(record->type)),
                    STR_NONE);
    }
}

/* A contract that is not known yet may be on its way: `control` must be read first. */
static bool needs_control(const struct job *job, const struct record *record)
{
    const char *refused;
    return record->type == RECORD_RUN_REQUESTED &&
           contracts_find(job->worker->contracts, record->is.run_requested.contract_hash, &refused) == NULL &&
           refused == NULL;
}

void inbox_handle(struct worker *worker, struct inbox *inbox, struct log_event *event, bool control_read)
{
    struct job job;
    job_open(&job, worker, inbox, event, event->offset, clock_wall_ms());
    struct record *record = ARENA_NEW(job.arena, struct record);
    struct error error;
    bool decoded = record_decode(event->value, job.arena, record, &error);
    bool unknown = decoded ? needs_control(&job, record) : error.class == ERROR_RETRY;
    if (!control_read && unknown) {
        struct held *held = mem_new(sizeof(*held));
        held->event = *event;
        *inbox->held_last = held;
        inbox->held_last = &held->next;
        log_read_control(worker->log);
        arena_free(job.arena);
        return;
    }
    const char *why = decoded ? unsound(record) : NULL;
    if (why != NULL)
        commit_dead(&job.commit, str_of(why), STR_NONE);
    else if (decoded)
        dispatch(&job, record);
    else
        commit_dead(&job.commit, arena_str(job.arena, str_of(error.text)), STR_NONE);
    if (job.pending) {
        wake_hold(&job, event);
        arena_free(job.arena);
        return;
    }
    job_close(&job);
    log_event_free(event);
}

void inbox_contracts_read(struct worker *worker)
{
    for (struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next) {
        while (inbox->held != NULL) {
            struct held *held = inbox->held;
            inbox->held = held->next;
            inbox_handle(worker, inbox, &held->event, true);
            mem_free(held);
        }
        inbox->held_last = &inbox->held;
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
        .keeper = keeper_new(worker->settings->ended_keep_ms),
    };
    inbox->held_last = &inbox->held;
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

static void drop(struct inbox *inbox)
{
    while (inbox->held != NULL) {
        struct held *held = inbox->held;
        inbox->held = held->next;
        log_event_free(&held->event);
        mem_free(held);
    }
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
    if (ok && unsound(record) != NULL)
        ok = error_set(&error, ERROR_POISON, "%s", unsound(record));
    if (!ok)
        LOG_ERROR("waiting.unreadable", LOG_I("partition", event->partition), LOG_I("offset", event->offset),
                  LOG_S("reason", error.text));
    else if (record->type == RECORD_RUN_ROW)
        keeper_load_run(inbox->keeper, &record->is.run_row);
    else if (record->type == RECORD_STEP_PARKED)
        keeper_load_parked(inbox->keeper, &record->is.step_parked);
    arena_free(arena);
}

void inbox_event(struct worker *worker, struct log_event *event)
{
    struct inbox *inbox = event->kind == LOG_ASSIGNED ? NULL : find(worker, event);
    if (event->kind == LOG_ASSIGNED) {
        assigned(worker, event);
    } else if (event->kind == LOG_REVOKED || event->kind == LOG_LOST) {
        revoked(worker, event);
    } else if (inbox != NULL && event->kind == LOG_WAITING_ROW) {
        waiting_row(inbox, event);
    } else if (inbox != NULL && event->kind == LOG_WAITING_END) {
        inbox->rebuilt = true;
        LOG_INFO("keeper.rebuilt", LOG_I("partition", event->partition), LOG_I("tenure", event->tenure),
                 LOG_I("open", keeper_open_count(inbox->keeper)), LOG_I("parked", keeper_parked_count(inbox->keeper)));
    } else if (inbox != NULL && event->kind == LOG_BACKLOG_END) {
        inbox->caught_up = true;
    } else if (inbox != NULL && event->kind == LOG_RECORD) {
        inbox_handle(worker, inbox, event, false);
        return;
    }
    log_event_free(event);
}

/* ---- time ---- */

static void on_forgotten(void *context, const struct ledger_answer *answer)
{
    struct forgetting *forgetting = context;
    struct worker *worker = forgetting->worker;
    if (answer->verdict == LEDGER_GO) {
        struct job job;
        struct waiting_row row;
        job_open(&job, worker, forgetting->inbox, &forgetting->inbox->self, -1, clock_wall_ms());
        struct str run = arena_str(job.arena, forgetting->run);
        keeper_forget(forgetting->inbox->keeper, run, job.arena, &row);
        commit_row(&job.commit, &row, run);
        job_close(&job);
    } else { /* it comes due again */
        LOG_WARN("run.kept", LOG_STR("run", forgetting->run), LOG_STR("reason", answer->reason));
    }
    forgetting_free(forgetting);
}

/* First its records of writes in Redis, then itself: were it the other way round, a run of the same id could adopt what this one
 * did, and records could be left for ever. */
static void forget(struct worker *worker, struct inbox *inbox, struct str run, int64_t now_ms)
{
    struct forgetting *forgetting = mem_new(sizeof(*forgetting) + run.size + 1);
    *forgetting = (struct forgetting){
        .next = inbox->forgetting, .worker = worker, .inbox = inbox, .run = {(const char *)(forgetting + 1), run.size}};
    memcpy(forgetting + 1, run.data, run.size);
    inbox->forgetting = forgetting;
    keeper_keep(inbox->keeper, run, now_ms + FORGET_AGAIN_MS);
    int64_t before_ms = keeper_run(inbox->keeper, run)->ended_at_ms + worker->settings->ended_keep_ms / 2;
    forgetting->op = ledger_forget(worker->ledger, forgetting->run, before_ms, on_forgotten, forgetting);
}

static void due_now(struct worker *worker, struct inbox *inbox, const struct keeper_due *due, int64_t now_ms)
{
    struct job job;
    if (due->kind == KEEPER_DUE_FORGET) {
        forget(worker, inbox, due->run, now_ms);
        return;
    }
    job_open(&job, worker, inbox, &inbox->self, -1, now_ms);
    wake_due(&job, due->parked);
}

int64_t inbox_tick(struct worker *worker, int64_t now_ms)
{
    int64_t next_ms = INT64_MAX;
    for (struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next) {
        if (!inbox->rebuilt || !inbox->caught_up)
            continue;
        struct keeper_due due = keeper_next_due(inbox->keeper, now_ms);
        for (int i = 0; due.kind != KEEPER_DUE_NONE && i < INBOX_DUE_MAX; i++) {
            due_now(worker, inbox, &due, now_ms);
            due = keeper_next_due(inbox->keeper, now_ms);
        }
        int64_t due_ms = keeper_due_ms(inbox->keeper);
        next_ms = due_ms < next_ms ? due_ms : next_ms;
    }
    return next_ms;
}

void inbox_numbers(const struct worker *worker, size_t *open, size_t *parked)
{
    *open = *parked = 0;
    for (const struct inbox *inbox = worker->inboxes; inbox != NULL; inbox = inbox->next) {
        *open += inbox->rebuilt ? keeper_open_count(inbox->keeper) : 0;
        *parked += inbox->rebuilt ? keeper_parked_count(inbox->keeper) : 0;
    }
}

void inbox_free(struct worker *worker)
{
    while (worker->inboxes != NULL) {
        struct inbox *inbox = worker->inboxes;
        worker->inboxes = inbox->next;
        drop(inbox);
    }
}
