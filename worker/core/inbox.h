/*
 * inbox.h: the records addressed to a run (topic `inbox`), and the rows of the keeper's changelog (topic `waiting`).
 */
#ifndef MYELIN_CORE_INBOX_H
#define MYELIN_CORE_INBOX_H

#include "worker/core/run.h"

/* Somebody wants a run. The contract is asked for by name or by hash; the keeper pins the hash. */
struct run_requested {
    struct str run, request_id;
    struct str contract;      /* name */
    struct str contract_hash; /* the version that the client saw; must be known to the worker */
    struct str input;         /* JSON */
    struct str by;
    int64_t at_ms;
};

/* What a waiting step waits for. */
enum waits_for { WAITS_TIMER, WAITS_APPROVAL, WAITS_RESOLUTION };
const char *waits_for_name(enum waits_for what); /* "timer", "approval", "resolution" */

/* A step that cannot go on now; also the row of `waiting` with key RUN/BRANCH (see keeper.h). */
struct step_parked {
    struct str run, branch, step;
    int32_t visit;
    enum waits_for waits_for;
    struct str reason;
    int64_t parked_at_ms;
    int64_t due_at_ms;          /* WAITS_TIMER: wakes then. Else: the checkpoint's timeout, 0 = never */
    int64_t run_deadline_at_ms; /* the run's, so that the keeper need not open the event */
    int32_t timeout_action;     /* enum timeout_action, WAITS_APPROVAL */
    struct str guards, tool;    /* WAITS_APPROVAL: guarded step and its tool; WAITS_RESOLUTION: tool in doubt */
    struct str arguments;       /* canonical JSON: shown to the person in full */
    struct str args_hash;
    struct str key; /* WAITS_RESOLUTION: the idempotency key of the write */
    struct str contract, contract_hash;
    struct str event; /* the encoded step event to put back on `steps` (through core/decide.h) when it wakes */
};

/* A person decides on an approval step. */
struct decision {
    struct str run, request_id, step;
    int32_t visit;        /* of the approval step, as shown; 0 = whatever waits now */
    struct str args_hash; /* what the person was shown; empty = whatever waits now */
    bool approved;
    struct str by, reason;
    int64_t at_ms; /* for the keeper: the broker's time of the record */
};

/* A person settles a write in doubt. */
struct resolved {
    struct str run, request_id, step;
    enum resolution_kind kind;
    struct str result; /* JSON; RESOLUTION_DONE */
    struct str by;
    int64_t at_ms;
};

/* A worker tells the keeper that the run is over. */
struct run_closed {
    struct str run;
    enum run_status status;
    struct str reason, output;
    int64_t at_ms;
};

/* The row of `waiting` with key RUN: open and ended runs. */
struct run_row {
    struct str run, contract, contract_hash, input_hash;
    enum run_status status; /* RUN_RUNNING while open */
    struct str reason, output;
    struct str requested_by;
    int64_t started_at_ms, deadline_at_ms;
    int64_t ended_at_ms; /* 0 while open */
};

/* One version of a contract, on `control` with key "contract/NAME/HASH". */
struct contract_published {
    struct str name, hash, canonical, by;
    int64_t at_ms;
};

/* What could not be processed, on `dead`. */
struct dead_letter {
    struct str reason, source_topic;
    int32_t source_partition;
    int64_t source_offset;
    struct str key, value; /* raw bytes */
    int64_t at_ms;
    struct str worker;
    struct str run; /* when it could be read; may be absent */
};

#endif
