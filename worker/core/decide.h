/*
 * decide.h: what comes next. Pure (I8): no I/O, no clock, no random source, no memory but the arena; the same inputs give
 * the same plan. Time comes in as a parameter.
 *
 *   decide_run      a requested run  → its first step event
 *   decide_step     a step event     → a call to make, or a plan without one
 *   decide_outcome  the call's end   → facts and what comes next
 *   decide_ahead    what comes next → the same, farther on: a step that turns out to need no call is decided as well
 *   decide_wake     a waiting step woken by its time, a person or the run's deadline → facts and what comes next
 *
 * Pure steps (routers, approvals on entry, projections) take no trip of their own: every one of these walks on through
 * them until it meets a step that calls or waits, or the end.
 */
#ifndef MYELIN_CORE_DECIDE_H
#define MYELIN_CORE_DECIDE_H

#include "worker/core/plan.h"

struct decide_env {
    const struct contract *contract;    /* the version that the run is pinned to */
    struct arena *arena;                /* of the delivery: everything in the plan lives here */
    struct str name_space;              /* part of every key */
    int64_t now_ms;                     /* wall clock; for deadlines and due times */
    int64_t backoff_ms, backoff_max_ms; /* of a retry: first delay, and the longest */
    bool suspect;                       /* an earlier delivery of the step event may have begun its call */
};

/* Said where a run ends at a step that nobody looked into any more. */
#define DECIDE_MAY_HAVE_WRITTEN "A write of this step may have happened: look before you repeat it"

/* I7: steps that one decision may walk through without a call. More is a loop of pure steps: the run fails. */
#define DECIDE_WALK_MAX 1000

void decide_run(const struct decide_env *env, const struct run_requested *request, struct plan *plan);

void decide_step(const struct decide_env *env, const struct run *run, struct plan *plan);

/* `call` is the one that decide_step planned for this same `run`. */
void decide_outcome(const struct decide_env *env, const struct run *run, const struct call *call,
                    const struct outcome *outcome, struct plan *plan);

/*
 * Goes on from a plan that decide_step or decide_outcome made for `from`, as long as the next step is of the same pool and turns out to need
 * no call (a tool step that is refused): its facts and what comes after it take the place of its step event, which is never written.
 * False: `plan` is as it was. Such a step sees the time of `from`, so that it is decided alike at each delivery.
 */
bool decide_ahead(const struct decide_env *env, const struct run *from, struct plan *plan);

enum wake_kind {
    WAKE_DUE,        /* the timer, or the checkpoint's timeout, has passed */
    WAKE_DECISION,   /* a person decided */
    WAKE_RESOLUTION, /* a person settled a doubt */
    WAKE_DEADLINE,   /* the whole run's deadline has passed */
};
struct wake {
    enum wake_kind kind;
    const struct decision *decision;   /* WAKE_DECISION */
    const struct resolved *resolution; /* WAKE_RESOLUTION */
};
/* Keeps nothing of `waiting`: the keeper may release it before the plan is committed. */
void decide_wake(const struct decide_env *env, const struct run *run, const struct step_parked *waiting,
                 const struct wake *wake, struct plan *plan);

/* Ends the run because its step event cannot be processed (`reason`: what and where): the facts and NEXT_END. The contract
 * may be NULL here: that it is not known is such a reason. */
void decide_abandon(const struct decide_env *env, const struct run *run, struct str reason, struct plan *plan);

#endif
