/*
 * inbox.c: what is addressed to a run, and what is due: one decision at a time.
 *
 * Every decision is one commit: step events, facts, rows of `waiting`, and the inbox offset; for a timer the same position
 * again with a new commit_seq, so that a keeper that lost the partition is fenced. All bodies that it needs are in memory.
 */
#include "worker/inbox.h"

#include <assert.h>

#include "worker/base/crash.h"
#include "worker/base/hash.h"
#include "worker/base/json.h"
#include "worker/base/logline.h"
#include "worker/io/clock.h"

#define REQUEST_ID_SIZE_MAX 256

void job_open(struct job *job, struct worker *worker, struct inbox *inbox, struct arena *arena,
              const struct log_event *source, int64_t now_ms)
{
    *job = (struct job){.worker = worker, .inbox = inbox, .arena = arena, .now_ms = now_ms};
    commit_open(&job->commit, worker, arena, source);
}

void job_close(struct job *job)
{
    CRASH_POINT("keeper_before_commit");
    commit_done(&job->commit);
    if (job->waking != NULL)
        wake_free(job->waking);
}

/* ---- rows of `waiting` ---- */

/* Into the table and into the commit; what cannot be written down is in neither. */
static void write_run(struct job *job, const struct run_row *row)
{
    struct str body = commit_row_body(&job->commit, RECORD_RUN_ROW, row);
    if (body.data != NULL)
        commit_row(&job->commit, row->run, row->run, body, keeper_put_run(job->inbox->keeper, row, body));
}

/* The row changes, or is of no use any more: nor is what was read of it. The job's own goes with the job. */
static void outdate(struct job *job, uint32_t row)
{
    struct waking *waking = row != 0 ? wake_of(job->inbox, row) : NULL;
    if (waking != NULL && waking != job->waking)
        wake_free(waking);
}

static void outdate_parked(struct job *job, struct str run, struct str branch)
{
    if (job->inbox->waking != NULL) /* to find a row costs a hash */
        outdate(job, keeper_parked(job->inbox->keeper, run, branch));
}

static void write_parked(struct job *job, const struct step_parked *parked)
{
    struct str body = commit_row_body(&job->commit, RECORD_STEP_PARKED, parked);
    if (body.data == NULL)
        return;
    outdate_parked(job, parked->run, parked->branch);
    commit_row(&job->commit, parked->run, keeper_parked_key(job->arena, parked->run, parked->branch), body,
               keeper_put_parked(job->inbox->keeper, parked, body));
}

static void release(struct job *job, struct str run, struct str branch)
{
    outdate_parked(job, run, branch);
    keeper_release(job->inbox->keeper, run, branch);
    commit_row(&job->commit, run, keeper_parked_key(job->arena, run, branch), STR_NONE, 0);
}

/* NULL: it cannot be read, which was said when it was loaded, or is a bug. */
static const struct record *body_of(struct job *job, uint32_t row, enum record_type type)
{
    struct record *record = ARENA_NEW(job->arena, struct record);
    struct error error = {.class = ERROR_NONE};
    struct str body = keeper_body(job->inbox->keeper, row);
    assert(body.data != NULL);
    bool ok = record_decode(body, job->arena, record, &error);
    if (ok && record->type == type)
        return record;
    LOG_ERROR("waiting.unreadable", LOG_I("partition", job->inbox->self.partition), LOG_S("wanted", record_name(type)),
              LOG_S("reason", error.text));
    return NULL;
}

void inbox_forget(struct job *job, struct str run)
{
    release(job, run, STR(""));
    keeper_forget(job->inbox->keeper, run);
    commit_row(&job->commit, run, run, STR_NONE, 0);
}

const struct run_row *inbox_run(struct job *job, uint32_t row)
{
    const struct record *record = body_of(job, row, RECORD_RUN_ROW);
    return record != NULL ? &record->is.run_row : NULL;
}

/* ---- what waits ---- */

/* Is it of that run at that contract step? `run` STR_NONE: any will do. */
static bool is_wanted(const struct step_parked *parked, struct str run, struct str step)
{
    return run.data == NULL || (str_equal(parked->run, run) && str_equal(parked->step, step));
}

/* As it is in that row; NULL: it is another one, or cannot be read. */
static struct waking *row_waking(struct worker *worker, struct inbox *inbox, uint32_t row, struct str run,
                                 struct str step)
{
    struct waking *waking = wake_of(inbox, row);
    if (waking != NULL)
        return is_wanted(wake_state(waking)->parked, run, step) ? waking : NULL;
    struct job job = {.worker = worker, .inbox = inbox, .arena = arena_new()};
    const struct record *record = body_of(&job, row, RECORD_STEP_PARKED);
    if (record != NULL && is_wanted(&record->is.step_parked, run, step))
        return wake_begin(worker, inbox, row, &record->is.step_parked, job.arena);
    arena_free(job.arena);
    return NULL;
}

struct waking *inbox_row_waking(struct worker *worker, struct inbox *inbox, uint32_t row)
{
    return row_waking(worker, inbox, row, STR_NONE, STR_NONE);
}

struct waking *inbox_waking(struct worker *worker, struct inbox *inbox, const struct record *record)
{
    const struct keeper *keeper = inbox->keeper;
    struct str run, step;
    if (record->type == RECORD_DECISION) {
        run = record->is.decision.run;
        step = record->is.decision.step;
    } else if (record->type == RECORD_RESOLVED) {
        run = record->is.resolved.run;
        step = record->is.resolved.step;
    } else {
        return NULL;
    }
    uint32_t open = keeper_run(keeper, run);
    struct waking *waking = NULL;
    if (!keeper_is_open(keeper, open))
        return NULL;
    for (uint32_t row = keeper_parked_first(keeper, open); row != 0 && waking == NULL;
         row = keeper_parked_next(keeper, row))
        waking = row_waking(worker, inbox, row, run, step);
    return waking;
}

/* NULL: what it is about does not wait. */
static const struct step_parked *waiting(const struct job *job)
{
    return job->waking != NULL ? wake_state(job->waking)->parked : NULL;
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

static struct decide_env env_of(struct job *job, const struct contract *contract)
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
static const char *refuse_plan(struct job *job, struct plan *plan)
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
    struct decide_env env = env_of(job, contract);
    struct plan plan;
    decide_run(&env, request, &plan);
    const char *refused = refuse_plan(job, &plan); /* before the keeper knows of it: its table is what was written */
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
    write_run(job, &row);
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
        uint32_t row = keeper_run(job->inbox->keeper, request->run);
        const struct run_row *known = row != 0 ? inbox_run(job, row) : NULL;
        switch (keeper_start_verdict(job->inbox->keeper, request, known, input_hash, job->now_ms)) {
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

/* What waits cannot be read: its run ends with that reason, as if it had said so itself. */
static void wake_unreadable(struct job *job, const struct step_parked *parked, const struct error *error)
{
    struct plan plan = {
        .next = NEXT_END,
        .closed = {.run = parked->run,
                   .status = RUN_FAILED,
                   .reason = arena_printf(job->arena, "its waiting step cannot be read: %s", error->text),
                   .at_ms = job->now_ms},
    };
    commit_dead(&job->commit, plan.closed.reason, parked->run);
    commit_plan(&job->commit, &plan);
    release(job, parked->run, parked->branch);
}

/* NULL, or why not what was wanted: it waits on, since what a person said cannot be written down; or it cannot go on (its
 * event or contract is unreadable), and its run was ended with that reason. */
static const char *wake(struct job *job, const struct step_parked *parked, const struct wake *cause)
{
    const struct woken *woken = wake_state(job->waking);
    const struct run *run = woken->run;
    if (run == NULL) {
        wake_unreadable(job, parked, &woken->error);
        return "the waiting step cannot go on; see: myelin show";
    }
    const char *refused;
    const struct contract *contract = contracts_find(job->worker->contracts, run->contract_hash, &refused);
    struct decide_env env = env_of(job, contract);
    struct plan plan;
    bool lost = woken->error.class != ERROR_NONE;
    bool known = !lost && contract != NULL && contract_step(contract, run->at.step) >= 0;
    if (known)
        decide_wake(&env, run, parked, cause, &plan);
    else
        decide_abandon(&env, run,
                       lost ? arena_str(job->arena, str_of(woken->error.text))
                            : STR("its contract, or the step in it, is not known"),
                       &plan);
    refused = refuse_plan(job, &plan);
    if (refused != NULL && (cause->kind == WAKE_DECISION || cause->kind == WAKE_RESOLUTION))
        return refused; /* who asked may ask with less */
    if (refused != NULL) {
        decide_abandon(&env, run, str_of(refused), &plan);
        commit_plan(&job->commit, &plan);
    }
    release(job, parked->run, parked->branch); /* its own words: the event in it may tell of another step */
    return known ? NULL : "the waiting step cannot go on; see: myelin show";
}

void inbox_wake(struct job *job)
{
    const struct step_parked *parked = waiting(job);
    struct wake cause = {.kind = keeper_past_deadline(parked, job->now_ms) ? WAKE_DEADLINE : WAKE_DUE};
    wake(job, parked, &cause);
}

static void decision(struct job *job, const struct decision *decision)
{
    const struct step_parked *parked = waiting(job);
    const char *refused = keeper_refuse_decision(job->inbox->keeper, decision, parked, job->arena);
    if (refused == NULL) {
        struct wake cause = {.kind = WAKE_DECISION, .decision = decision};
        refused = wake(job, parked, &cause);
    }
    answer(job, decision->run, decision->request_id, decision->approved ? "approve" : "reject", refused);
}

static void resolved(struct job *job, const struct resolved *resolved)
{
    const struct step_parked *parked = waiting(job);
    const char *refused = keeper_refuse_resolution(job->inbox->keeper, resolved, parked, job->arena);
    if (refused == NULL) {
        struct wake cause = {.kind = WAKE_RESOLUTION, .resolution = resolved};
        refused = wake(job, parked, &cause);
    }
    answer(job, resolved->run, resolved->request_id, "resolve", refused);
}

/* ---- records ---- */

static void closed(struct job *job, const struct run_closed *closed)
{
    uint32_t row = keeper_run(job->inbox->keeper, closed->run);
    const struct run_row *open = keeper_is_open(job->inbox->keeper, row) ? inbox_run(job, row) : NULL;
    if (open == NULL || !str_equal(open->run, closed->run)) {
        commit_dead(&job->commit, STR("the end of a run that is not open"), closed->run);
        return;
    }
    struct run_row ended = keeper_ended(open, closed);
    write_run(job, &ended);
    for (uint32_t parked = keeper_parked_first(job->inbox->keeper, row); parked != 0;
         parked = keeper_parked_next(job->inbox->keeper, parked))
        outdate(job, parked);
}

static void park(struct job *job, const struct step_parked *parked)
{
    if (keeper_is_open(job->inbox->keeper, keeper_run(job->inbox->keeper, parked->run)))
        write_parked(job, parked);
    else
        commit_dead(&job->commit, STR("a parked step of a run that is not open"), parked->run);
}

const char *inbox_unsound(const struct record *record)
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

bool inbox_needs_control(const struct worker *worker, const struct record *record)
{
    const char *refused;
    return record->type == RECORD_RUN_REQUESTED &&
           contracts_find(worker->contracts, record->is.run_requested.contract_hash, &refused) == NULL &&
           refused == NULL;
}

enum inbox_need inbox_needs(const struct keeper *keeper, const struct record *record, uint32_t *run)
{
    switch (record->type) {
    case RECORD_RUN_REQUESTED:
        *run = keeper_run(keeper, record->is.run_requested.run);
        return *run != 0 ? NEEDS_RUN : NEEDS_NOTHING;
    case RECORD_RUN_CLOSED:
        *run = keeper_run(keeper, record->is.run_closed.run);
        return keeper_is_open(keeper, *run) ? NEEDS_RUN : NEEDS_NOTHING;
    case RECORD_DECISION:
        *run = keeper_run(keeper, record->is.decision.run);
        return keeper_is_open(keeper, *run) ? NEEDS_PARKED : NEEDS_NOTHING;
    case RECORD_RESOLVED:
        *run = keeper_run(keeper, record->is.resolved.run);
        return keeper_is_open(keeper, *run) ? NEEDS_PARKED : NEEDS_NOTHING;
    default:
        return NEEDS_NOTHING;
    }
}

void inbox_decide(struct job *job, struct record *record)
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
