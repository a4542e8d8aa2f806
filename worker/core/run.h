/*
 * run.h: the durable state of a run, as a step event carries it.
 *
 * A step event (record StepReady on `steps.<pool>`) says "this run's next step is ready" and holds all that is needed to
 * go on after a crash: every step event is a checkpoint. Of each step it keeps the latest only; full lists (every call,
 * every retry) are folded from `history` by who asks (core/fold.h). All texts live in the arena of the delivery, and what
 * a comment calls JSON is compact, valid JSON text that was checked when it came in.
 */
#ifndef MYELIN_CORE_RUN_H
#define MYELIN_CORE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"

/* A step event over this is refused and ends its run: it must fit the broker's message.max.bytes (1 MiB). */
#define RUN_STATE_SIZE_MAX ((size_t)900 << 10)

/* A payload over this is stored once, as a fact, and a step event names the place. */
#define RUN_INLINE_MAX ((size_t)4 << 10)

/* I7: input, outputs and conversation of a run, which are in memory while a step of it is worked off. */
#define RUN_WHOLE_MAX ((size_t)16 << 20)

enum run_status { RUN_RUNNING, RUN_WAITING, RUN_PAUSED, RUN_COMPLETED, RUN_FAILED, RUN_CANCELLED };
enum step_status {
    STEP_PENDING,
    STEP_RUNNING,
    STEP_WAITING,
    STEP_COMPLETED,
    STEP_FAILED,
    STEP_REFUSED,
    STEP_IN_DOUBT,
};
const char *run_status_name(enum run_status status);
const char *step_status_name(enum step_status status);

#define REFERENCE_HASH_SIZE 32

/* Where a payload is stored: a record of `history`, whole. */
struct reference {
    struct str sha256; /* of the record's value, REFERENCE_HASH_SIZE raw bytes */
    int32_t partition;
    int64_t offset;
    int32_t size; /* bytes of the value */
};

/* I9: NULL, or one that can name a record. */
bool reference_sound(const struct reference *reference);

/* The latest of one step of the contract that was entered at least once. */
struct step_state {
    struct str name;
    enum step_status status;
    int32_t visits;
    struct str output;                 /* JSON of the latest completed visit; STR_NONE = none yet */
    const struct reference *output_at; /* the StepCompleted that holds it; NULL = it stands in the step event */
};

/* One tool call that a model asked for, as it asked. */
struct tool_request {
    struct str id;        /* the model's own id of the call */
    struct str tool;      /* the name it used: any text */
    struct str arguments; /* raw text: may be invalid JSON */
};

enum message_role { ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };
enum answer_kind { ANSWER_DONE, ANSWER_REFUSED, ANSWER_FAILED }; /* of a ROLE_TOOL message */

/* One item of an agent's conversation, neutral of any vendor's wire. The system text is not in it: it is made from the
 * contract each time. */
struct message {
    enum message_role role;
    struct str content;         /* text; a tool's result is JSON text, or a reason */
    struct tool_request *calls; /* ROLE_ASSISTANT */
    size_t calls_count;
    struct str call_id; /* ROLE_TOOL: the request it answers; requests are answered in order */
    enum answer_kind answer;
};

/* A person's decision on an approval step; the latest of each approval step is kept. Bound to (run, branch, guarded step,
 * its visit, tool, canonical arguments), spent by the call that it admits. */
struct approval {
    struct str step;       /* the approval step */
    int32_t visit;         /* its visit */
    struct str guards;     /* the guarded step, or STR_NONE */
    int32_t guards_visit;  /* the visit of the guarded step that it admits */
    bool approved;         /* false: rejected */
    bool timed_out;        /* nobody answered: timeout_action decided */
    struct str by, reason; /* reason may be absent */
    struct str args_hash;  /* SHA-256 of the canonical arguments that the person was shown */
    int64_t decided_at_ms;
    bool spent;
};

/* What was used so far, against contract_limits. */
struct usage {
    int32_t steps; /* committed step events, but for those that could not even try (Redis was down) */
    int32_t model_calls, tool_calls, writes, retries, refusals;
    int64_t tokens_in, tokens_out; /* as far as the model told */
    int32_t tokens_unknown;        /* model answers without usage: not 0, unknown */
    int64_t micro_usd;
};

/* A write that may have happened (I5). */
enum doubt_state { DOUBT_NONE, DOUBT_SETTLING, DOUBT_ASKED };
struct doubt {
    enum doubt_state state;
    int64_t since_ms;
    int64_t until_ms;     /* nobody probes or sends before this time */
    int32_t probes;       /* probes made so far */
    struct str arguments; /* JSON: as they were sent; what is repeated under the same key is the same call */
    struct str why;
};

/* What a person said about a write in doubt. */
enum resolution_kind { RESOLUTION_NONE, RESOLUTION_DONE, RESOLUTION_NOT_DONE, RESOLUTION_FAIL };
struct resolution {
    enum resolution_kind kind;
    struct str result; /* JSON; RESOLUTION_DONE */
    struct str by;
};

/* The step that is ready. */
struct cursor {
    struct str branch; /* path of the branch; "" in the main line */
    struct str step;
    int32_t visit;   /* times the run entered the step, from 1 */
    int32_t attempt; /* tries without progress in this visit, from 1; over retry_budget + 1 the step fails */
    int32_t turn;    /* model answers in this visit */
    int32_t call;    /* outside calls made in this visit = the number of the next one, from 0 */
    struct message *conversation; /* an agent's; empty for other steps */
    size_t conversation_count;
    int32_t judging;      /* criterion that is being judged; -1 = none */
    struct str candidate; /* JSON: the output waiting for the judge */
    struct doubt doubt;
    struct resolution resolution;
    bool
        suspect; /* I5: an earlier delivery may have started this call and Redis could not be asked since: `incarnation` is
                     that of the event which was delivered then */
    const struct reference
        *chain;      /* the last fact of those that hold the first messages (core/chain.h); NULL = none do */
    int32_t chained; /* how many */
};

struct run {
    struct str id, contract, contract_hash;
    struct str requested_by;
    int64_t started_at_ms, deadline_at_ms;
    struct str input; /* JSON */
    struct str vars;  /* JSON object */
    struct step_state *steps;
    size_t steps_count;
    struct approval *approvals;
    size_t approvals_count;
    struct usage usage;
    int64_t facts;      /* facts written so far = the number of the next one */
    int32_t violations; /* refused forbidden actions */
    struct cursor at;
    struct str incarnation; /* of Redis, when this event was written; "" = not known */
    int64_t written_at_ms;
    const struct reference *input_at; /* the RunStarted that holds the input; NULL = it stands in the step event */
};

/*
 * What a step event names is not in it: as it was decoded, `input` and outputs with a reference are absent, and
 * `conversation` begins after the chain. Such a run is `whole` when all that was fetched (worker/payload.c); decisions see whole
 * runs only. run_stored makes the opposite of it: what is written.
 */
struct run *run_stored(struct arena *arena, const struct run *whole);

const struct step_state *run_step(const struct run *run, struct str name);   /* NULL = never entered */
const struct approval *run_approval(const struct run *run, struct str step); /* of an approval step; NULL = none */

/* May a run be called that? The id becomes a key of topics and a part of every idempotency key. */
#define RUN_ID_SIZE_MAX 128
bool run_id_sound(struct str id);

/* I9: is this a time, or a number of a run's state, that can be reckoned with? A record that anybody wrote may hold any. */
bool run_time_sound(int64_t ms);                /* 0 (none) or up to some 280,000 years after 1970 */
const char *run_unsound(const struct run *run); /* NULL, or the name of what is out of all bounds */
bool run_can_end(const struct run *run); /* whatever that is, it tells whose it is, and the number of its next fact */

/* A copy that can be changed without touching the original: the struct and its arrays; texts are shared. */
struct run *run_copy(struct arena *arena, const struct run *run);

/* The request of the last assistant message that has no answer yet, or NULL: what the agent does next. */
const struct tool_request *run_pending_call(const struct run *run);

/* I3: the idempotency key of an outside call, a hash of (namespace, run, branch path, step, visit, call). 32 hex characters. */
struct str run_call_key(struct arena *arena, struct str name_space, const struct run *run);

#endif
