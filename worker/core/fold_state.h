/* fold_state.h: the state behind fold.h, shared by fold.c (the frame) and fold_facts.c (what each fact changes). Nobody
 * else includes it. Each list of the state is kept as the JSON that it will be printed as; only what later facts look up is
 * C. */
#ifndef MYELIN_CORE_FOLD_STATE_H
#define MYELIN_CORE_FOLD_STATE_H

#include "worker/core/fold.h"

/* A step that is active: the run is there now, once a branch. */
struct active {
    struct str branch, step;
    int32_t visit, attempt;
    enum step_status status;
    const char *owner; /* "worker" or "waiting" */
    const char *who;   /* who acts next: "worker", "timer", "person" */
    struct str waits_for, reason;
    int64_t since_ms, due_at_ms;
};

struct fold {
    struct arena *arena;
    struct str run;
    int64_t facts, seq_next, gaps, repeats;
    json_t *head; /* what is known of the run itself */
    json_t *completed_steps, *failed_steps, *tool_calls, *model_calls, *retries, *approvals, *artifacts, *side_effects;
    json_t *refusals, *doubts, *criteria;
    struct active *active;
    size_t active_count, active_capacity;
    struct usage usage;
    int64_t usd_unknown;     /* model answers whose price is not known */
    struct str source_topic; /* of the latest fact */
    int32_t source_partition;
    int64_t source_offset;
    struct str source_step; /* of the step event, or of the latest step that was decided with it */
    int32_t source_visit;
    bool known, ended;
    enum run_status status;
};

/* fold_facts.c: the fact's branch stands at its step now (not for RunEnded), then what the fact says. */
void fold_apply(struct fold *fold, const struct fact *fact);

#endif
