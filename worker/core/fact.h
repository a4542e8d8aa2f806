/*
 * fact.h: what happened, appended to `history` and never changed.
 *
 * The facts of a run are its audit log, its trace and its corpus for evaluation; its whole state can be folded from them
 * (core/fold.h). Each fact is one record Fact of schemas/Fact.avsc: a header and a body by kind.
 */
#ifndef MYELIN_CORE_FACT_H
#define MYELIN_CORE_FACT_H

#include "worker/core/run.h"

enum fact_kind {
    FACT_RUN_STARTED,
    FACT_MODEL_ANSWERED,
    FACT_TOOL_ANSWERED,
    FACT_CALL_FAILED,
    FACT_CALL_REFUSED,
    FACT_OUTPUT_REJECTED,
    FACT_CRITERION_CHECKED,
    FACT_IN_DOUBT,
    FACT_DOUBT_SETTLED,
    FACT_STEP_WAITING,
    FACT_APPROVAL_DECIDED,
    FACT_STEP_COMPLETED,
    FACT_STEP_FAILED,
    FACT_RUN_ENDED,
    FACT_REQUEST_ANSWERED,
};

/* How the answer of a call came to us. */
enum call_origin {
    ORIGIN_CALLED,   /* the call was made now */
    ORIGIN_REUSED,   /* its stored result was found in Redis: not made again */
    ORIGIN_ADOPTED,  /* a write found done after a crash or a doubt: not made again */
    ORIGIN_PROBED,   /* the tool's probe said that it was done */
    ORIGIN_RESOLVED, /* a person said that it was done */
};

struct fact_run_started {
    struct str contract, requested_by, goal;
    struct str input; /* JSON */
    int64_t deadline_at_ms;
};
struct fact_model_answered {
    struct str agent, model;   /* model: the name in the settings */
    struct str response_model; /* as the endpoint named it; may be absent */
    bool judge;                /* asked as the judge of a criterion */
    struct str content;        /* may be absent */
    struct tool_request *calls;
    size_t calls_count;
    struct str finish_reason;
    int64_t tokens_in, tokens_out, tokens_cached; /* -1 = unknown */
    int64_t micro_usd;                            /* -1 = unknown */
    int64_t duration_ms;
    enum call_origin origin;
    struct str key;
};
struct fact_tool_answered {
    struct str tool, effect, key;
    struct str arguments; /* JSON */
    struct str result;    /* JSON */
    int32_t http_status;  /* 0 = not known */
    int64_t duration_ms;
    enum call_origin origin;
    struct str approval; /* the approval step whose decision this call spent, or absent */
    struct str args_hash;
};
struct fact_call_failed {
    struct str target; /* tool or model */
    struct str key, reason;
    int32_t http_status;
    bool executed_surely_not; /* the request surely did not execute */
    bool retry;               /* it will be tried again */
    int64_t due_at_ms;        /* when; 0 = at once */
};
struct fact_call_refused {
    struct str tool, arguments; /* as asked: raw */
    bool arguments_valid;
    struct str
        rule; /* "boundaries.forbidden_actions", "boundaries.allowed_tools", "agents.NAME.tools", "parameters", ... */
    struct str reason;
};
struct fact_output_rejected {
    struct str output; /* JSON or raw text */
    struct str rule;   /* "output", "check", "criterion" */
    struct str reason;
    bool retry;
};
struct fact_criterion_checked {
    struct str says, judge; /* judge: agent, or absent */
    bool holds;
    struct str reason;
};
struct fact_in_doubt {
    struct str tool, key, arguments, reason, policy; /* policy: on_doubt */
    int64_t until_ms;
};
struct fact_doubt_settled {
    struct str tool, key;
    struct str how;     /* "ledger", "probe", "retry", "person", "fail" */
    struct str outcome; /* "done", "not_done", "unknown", "failed" */
    struct str by;      /* person; absent else. A person here is unplanned. */
};
struct fact_step_waiting {
    struct str waits_for; /* "timer", "approval", "resolution" */
    struct str reason;
    int64_t due_at_ms; /* timer: wakes; else: timeout, 0 = none */
    struct str guards, tool, arguments,
        args_hash; /* approval: what the person is shown; resolution: the write in doubt */
    struct str key;
    bool planned; /* a person is planned by the contract */
};
struct fact_approval_decided {
    struct str decision; /* "approved", "rejected" */
    struct str guards, by, reason, args_hash;
    bool timed_out;
};
struct fact_step_completed {
    struct str output, edge, target, artifact; /* target: step or "end" */
    struct str vars;                           /* JSON object: what `set` changed; absent = nothing */
};
struct fact_step_failed {
    struct str reason, edge, target; /* edge absent: the run fails */
    bool refused;                    /* by a gate or a boundary, not tried */
};
struct fact_run_ended {
    enum run_status status;
    struct str reason; /* "completed", or which step or budget */
    struct str output; /* JSON: the last step's output; may be absent */
    struct usage usage;
};
struct fact_request_answered {
    struct str request_id, request; /* "run", "approve", "reject", "resolve" */
    bool accepted;
    struct str reason; /* why not, or "already started" */
};

/* A part of an agent's conversation (core/chain.h). */
struct link {
    const struct reference *before; /* the fact with the part before; NULL = the conversation begins here */
    struct message *messages;       /* those that stand in no other fact */
    size_t messages_count;
    bool own; /* after them comes what the fact itself tells: a ModelAnswered or a ToolAnswered */
};

struct fact {
    /* header */
    struct str run, contract_hash;
    int64_t seq; /* 0, 1, 2 ... without a gap within a run; -1 = about the run, not of it (answers to requests) */
    int64_t at_ms;
    struct str branch, step; /* step "" = of the run */
    int32_t visit, attempt, turn, call;
    struct str worker; /* who wrote it: filled in by the loop */
    struct str source_topic;
    int32_t source_partition; /* the event that caused it; filled in by the loop; -1 = a timer */
    int64_t source_offset;
    /* body */
    enum fact_kind kind;
    union {
        struct fact_run_started run_started;
        struct fact_model_answered model_answered;
        struct fact_tool_answered tool_answered;
        struct fact_call_failed call_failed;
        struct fact_call_refused call_refused;
        struct fact_output_rejected output_rejected;
        struct fact_criterion_checked criterion_checked;
        struct fact_in_doubt in_doubt;
        struct fact_doubt_settled doubt_settled;
        struct fact_step_waiting step_waiting;
        struct fact_approval_decided approval_decided;
        struct fact_step_completed step_completed;
        struct fact_step_failed step_failed;
        struct fact_run_ended run_ended;
        struct fact_request_answered request_answered;
    } is;
    const struct link *link; /* NULL = no part of a conversation is stored here */
};

/* "RunStarted", ...: the name of the body's record in schemas/Fact.avsc. */
const char *fact_kind_name(enum fact_kind kind);
const char *call_origin_name(enum call_origin origin); /* "called", "reused", "adopted", "probed", "resolved" */

#endif
