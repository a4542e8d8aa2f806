/*
 * wake.c: what waits goes on: when its time has come, when a person decided, when its run's deadline has passed.
 *
 * Its state may name facts (worker/payload.c). Then they are fetched first, and what was about to be decided is done again
 * with them: by then something else may wait there, or nothing.
 */
#include "worker/job.h"

#include "worker/base/mem.h"
#include "worker/io/clock.h"

struct waking {
    struct waking *next;
    struct worker *worker;
    struct inbox *inbox;
    struct arena *arena;
    struct str id, branch, event; /* what waited when it was begun */
    struct run *run;
    struct error error;      /* it cannot be read, or never will be whole */
    struct resolve *resolve; /* NULL = `run` or `error` is known */
    struct log_event held;   /* `holds`: the record that is handled then; else it was due */
    bool holds;
};

static void waking_free(struct waking *waking)
{
    struct waking **link = &waking->inbox->waking;
    while (*link != waking)
        link = &(*link)->next;
    *link = waking->next;
    arena_free(waking->arena);
    mem_free(waking);
}

void wake_drop(struct inbox *inbox)
{
    while (inbox->waking != NULL) {
        struct waking *waking = inbox->waking;
        if (waking->resolve != NULL)
            payload_cancel(waking->resolve);
        if (waking->holds)
            log_event_free(&waking->held);
        waking_free(waking);
    }
}

void wake_hold(struct job *job, struct log_event *event)
{
    job->waking->held = *event;
    job->waking->holds = true;
}

void wake_over(struct job *job)
{
    if (job->waking != NULL)
        waking_free(job->waking);
}

/* ---- the state of what waits ---- */

static void decode(struct waking *waking)
{
    struct record *record = ARENA_NEW(waking->arena, struct record);
    struct error *error = &waking->error;
    if (!record_decode(waking->event, waking->arena, record, error))
        return;
    const char *unsound = record->type == RECORD_STEP_READY ? run_unsound(&record->is.step_ready) : NULL;
    if (record->type != RECORD_STEP_READY)
        error_set(error, ERROR_POISON, "a parked step must hold a StepReady, not a %s", record_name(record->type));
    else if (unsound != NULL)
        error_set(error, ERROR_POISON, "its %s is out of all bounds", unsound);
    else
        waking->run = &record->is.step_ready;
}

static bool is_of(const struct waking *waking, const struct step_parked *parked)
{
    return parked != NULL && str_equal(waking->id, parked->run) && str_equal(waking->branch, parked->branch) &&
           str_equal(waking->event, parked->event);
}

static void on_whole(void *context, const struct error *lost)
{
    struct waking *waking = context;
    struct inbox *inbox = waking->inbox;
    bool later = waking->resolve != NULL;
    waking->resolve = NULL;
    if (lost != NULL)
        waking->error = *lost;
    if (!later)
        return;
    inbox->woken = waking;
    if (waking->holds) {
        inbox_handle(waking->worker, inbox, &waking->held, true);
    } else {
        keeper_keep(inbox->keeper, waking->id, 0); /* due again */
        const struct step_parked *parked = keeper_parked(inbox->keeper, waking->id, waking->branch);
        if (is_of(waking, parked)) {
            struct job job;
            job_open(&job, waking->worker, inbox, &inbox->self, -1, clock_wall_ms());
            wake_due(&job, parked);
        }
    }
    inbox->woken = NULL;
    waking_free(waking);
}

static struct waking *begin(struct job *job, const struct step_parked *parked)
{
    struct waking *waking = mem_new(sizeof(*waking));
    struct arena *arena = arena_new();
    *waking = (struct waking){
        .next = job->inbox->waking,
        .worker = job->worker,
        .inbox = job->inbox,
        .arena = arena,
        .id = arena_str(arena, parked->run),
        .branch = arena_str(arena, parked->branch),
        .event = arena_str(arena, parked->event),
    };
    job->inbox->waking = waking;
    decode(waking);
    if (waking->run != NULL)
        waking->resolve = payload_resolve(job->worker->payloads, waking->run, arena, on_whole, waking);
    return waking;
}

/* ---- waking it ---- */

/* What waits cannot be read: its run ends with that reason. */
static void end_unreadable(struct job *job, struct str run, struct str branch, const struct error *error)
{
    struct waiting_row row;
    struct run_closed closed = {
        .run = run,
        .status = RUN_FAILED,
        .reason = arena_printf(job->arena, "its waiting step cannot be read: %s", error->text),
        .at_ms = job->now_ms,
    };
    commit_dead(&job->commit, closed.reason, run);
    job->commit.ended = run_status_name(closed.status);
    keeper_release(job->inbox->keeper, run, branch, job->arena, &row);
    commit_row(&job->commit, &row, run);
    keeper_close(job->inbox->keeper, &closed, job->arena, &row);
    commit_row(&job->commit, &row, run);
}

static const char *go_on(struct job *job, const struct waking *waking, const struct step_parked *parked,
                         const struct wake *cause)
{
    /* The keeper's own words for what waits: the event in it may tell of another step. */
    struct str id = arena_str(job->arena, parked->run), branch = arena_str(job->arena, parked->branch);
    const struct run *run = waking->run;
    if (run == NULL) {
        end_unreadable(job, id, branch, &waking->error);
        return "the waiting step cannot go on; see: myelin show";
    }
    const char *refused;
    const struct contract *contract = contracts_find(job->worker->contracts, run->contract_hash, &refused);
    struct decide_env env = job_env(job, contract);
    struct plan plan;
    bool lost = waking->error.class != ERROR_NONE;
    bool known = !lost && contract != NULL && contract_step(contract, run->at.step) >= 0;
    if (known)
        decide_wake(&env, run, parked, cause, &plan);
    else
        decide_abandon(&env, run,
                       lost ? arena_str(job->arena, str_of(waking->error.text))
                            : STR("its contract, or the step in it, is not known"),
                       &plan);
    refused = job_refuse_plan(job, &plan);
    if (refused != NULL && (cause->kind == WAKE_DECISION || cause->kind == WAKE_RESOLUTION))
        return refused; /* who asked may ask with less */
    if (refused != NULL) {
        decide_abandon(&env, run, str_of(refused), &plan);
        commit_plan(&job->commit, &plan);
    }
    struct waiting_row row;
    keeper_release(job->inbox->keeper, id, branch, job->arena, &row);
    commit_row(&job->commit, &row, id);
    return known ? NULL : "the waiting step cannot go on; see: myelin show";
}

const char *wake(struct job *job, const struct step_parked *parked, const struct wake *cause)
{
    struct waking *woken = job->inbox->woken;
    if (woken != NULL && is_of(woken, parked))
        return go_on(job, woken, parked, cause);
    job->waking = begin(job, parked);
    job->pending = job->waking->resolve != NULL;
    return job->pending ? NULL : go_on(job, job->waking, parked, cause);
}

void wake_due(struct job *job, const struct step_parked *parked)
{
    bool deadline = parked->run_deadline_at_ms > 0 && parked->run_deadline_at_ms <= job->now_ms;
    struct wake cause = {.kind = deadline ? WAKE_DEADLINE : WAKE_DUE};
    struct str run = arena_str(job->arena, parked->run);
    wake(job, parked, &cause);
    if (!job->pending) {
        job_close(job);
        return;
    }
    keeper_keep(job->inbox->keeper, run, INT64_MAX); /* not due while it is fetched */
    arena_free(job->arena);
}
