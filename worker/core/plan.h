/*
 * plan.h: what the core wants done: a call, or facts and what comes next. Data only; the loop carries it out.
 */
#ifndef MYELIN_CORE_PLAN_H
#define MYELIN_CORE_PLAN_H

#include "worker/contract/contract.h"
#include "worker/core/fact.h"
#include "worker/core/inbox.h"
#include "worker/core/run.h"

enum call_kind { CALL_MODEL, CALL_TOOL, CALL_PROBE };

/* One call to the outside. Borrows from the run, the contract and the delivery's arena. */
struct call {
    enum call_kind kind;
    enum effect_class effect; /* of the call itself: a probe is EFFECT_READ */
    struct str key;           /* I3; the same for a write and for the probe of it */
    bool takeover;            /* the record of this write in Redis is in doubt and its time has passed: take it over */
    int64_t timeout_ms;

    /* CALL_TOOL, CALL_PROBE */
    const struct tool *tool;
    struct str arguments; /* JSON object */
    struct str approval;  /* the approval step whose decision this call spends; STR_NONE = none needed */
    struct str args_hash; /* of the canonical arguments; with approval */

    /* CALL_MODEL */
    struct str agent; /* name, or "" for a model step */
    struct str model; /* name in the settings */
    bool judge;
    struct str system;
    const struct message *conversation;
    size_t conversation_count;
    const struct tool **tools; /* offered to the model */
    size_t tools_count;
    const struct schema *output; /* structured output wanted; NULL = free text */
};

/* How a call ended. */
enum outcome_kind {
    OUTCOME_ANSWERED, /* the model or tool answered, or a stored answer was found */
    OUTCOME_FAILED,   /* it did not happen, or it was a read: may be tried again when `retryable` */
    OUTCOME_DOUBT,    /* a write that may have happened: nobody acts before `until_ms` */
    OUTCOME_NOT_NOW,  /* nothing was tried (Redis is down, the endpoint asks to wait): does not use up an attempt */
};

struct outcome {
    enum outcome_kind kind;
    int64_t at_ms; /* when it was known: wall clock, milliseconds since 1970 */
    int64_t duration_ms;
    enum call_origin origin;
    int32_t http_status; /* 0 = none */

    /* OUTCOME_ANSWERED of a tool or probe */
    struct str result; /* JSON (a body that is no JSON is a JSON string) */

    /* OUTCOME_ANSWERED of a model */
    struct str content; /* absent = null */
    struct tool_request *calls;
    size_t calls_count;
    struct str finish_reason, response_model;
    bool truncated;                               /* cut by a length limit: its tool calls must never be executed */
    int64_t tokens_in, tokens_out, tokens_cached; /* -1 = unknown */
    int64_t micro_usd;                            /* -1 = unknown */

    /* OUTCOME_FAILED, OUTCOME_DOUBT, OUTCOME_NOT_NOW */
    struct str reason;
    bool retryable;           /* OUTCOME_FAILED: 408, 409, 429, 5xx, network */
    bool executed_surely_not; /* OUTCOME_FAILED of a write: the only way a write may fail */
    int64_t retry_after_ms;   /* what the endpoint asked for; 0 = nothing */
    int64_t until_ms;         /* OUTCOME_DOUBT */
    bool suspect;             /* OUTCOME_NOT_NOW of a write: an earlier delivery may have started it */
    bool held;                /* OUTCOME_DOUBT: nothing was sent now, somebody holds its record: uses up no attempt */
};

enum next_kind {
    NEXT_STEP, /* `run` becomes a step event on steps.<pool> */
    NEXT_PARK, /* `parked` goes to the inbox, with `run` as its event */
    NEXT_END,  /* `closed` goes to the inbox */
};

/* The state to write names a fact of the same plan. Where that lies is known when it was produced: whoever writes the plan
 * down fills in what can be known before, and `at` is part of plan->run. */
struct stored {
    size_t fact; /* index in plan->facts */
    struct reference *at;
};

struct plan {
    /* Either a call to make (then nothing else is set) ... */
    const struct call *call;
    /* ... or what to commit. */
    struct fact *facts; /* header complete but for worker and source */
    size_t facts_count;
    struct stored *stored; /* at most one a fact */
    size_t stored_count;
    enum next_kind next;
    struct run *run; /* NEXT_STEP, NEXT_PARK: the state to write; incarnation and written_at_ms are the loop's */
    struct str pool; /* NEXT_STEP */
    struct step_parked parked; /* NEXT_PARK; all but `event` */
    struct run_closed closed;  /* NEXT_END */
    bool not_done; /* a probe said that the write did not execute: release its record in Redis before committing this */
};

#endif
