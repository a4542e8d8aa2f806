/* waiting.h: what the topic `waiting` holds: open and ended runs, and parked steps. The keepers' table, read from outside. */
#ifndef MYELIN_PRODUCER_WAITING_H
#define MYELIN_PRODUCER_WAITING_H

#include "producer/cmd.h"
#include "worker/core/inbox.h"

struct waiting_run {
    struct run_row row;
    int32_t partition;
    int64_t offset;
};
struct waiting_step {
    struct step_parked parked;
    int32_t partition;
    int64_t offset;
};
struct waiting {
    struct waiting_run *runs; /* by started_at_ms */
    size_t runs_count;
    struct waiting_step *steps; /* by parked_at_ms */
    size_t steps_count;
};

/* Reads it to its end; `run` absent: all of it, else only that run's partition. False: said; return *code. */
bool waiting_read(struct cmd *cmd, struct str run, struct waiting *waiting, int *code);

const struct waiting_run *waiting_find(const struct waiting *waiting, struct str run); /* NULL = none */
/* The parked step of the run; `step` absent: any. NULL = none. */
const struct waiting_step *waiting_find_step(const struct waiting *waiting, struct str run, struct str step);

/* The run that a person means: a whole id, or the beginning of exactly one. A whole UUIDv7 is taken as it is, as is any id
 * when it is `given` in full. STR_NONE: said; return *code. */
struct str waiting_run_id(struct cmd *cmd, const char *text, bool given, int *code);

#endif
