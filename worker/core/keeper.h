/*
 * keeper.h: what waits, for one partition of `inbox`: open runs, ended runs, parked steps. Pure, as decide.h.
 *
 * The table is a function of the topic `waiting` (same partition): key RUN holds the run's row, key RUN/BRANCH (the main
 * line: "RUN/") the parked step. It is rebuilt from there on assignment, before anything is decided. Every operation
 * returns the rows to write, and changes the table at once: the caller commits them together with the rest, and drops the
 * whole keeper when it loses the partition.
 *
 * Step events of parked steps are kept as the bytes they came in; outputs of ended runs are not kept (they are in `history`).
 */
#ifndef MYELIN_CORE_KEEPER_H
#define MYELIN_CORE_KEEPER_H

#include "worker/core/inbox.h"

struct keeper;

/* `ended_keep_ms`: how long an ended run is remembered. */
struct keeper *keeper_new(int64_t ended_keep_ms);
void keeper_free(struct keeper *keeper);

/* ---- rebuild: the rows of `waiting`, in order; later rows replace earlier ones ---- */
void keeper_load_run(struct keeper *keeper, const struct run_row *row);
void keeper_load_parked(struct keeper *keeper, const struct step_parked *parked);
void keeper_load_tombstone(struct keeper *keeper, struct str key);

/* ---- look-ups; pointers are valid until the next change of the keeper ---- */
const struct run_row *keeper_run(const struct keeper *keeper, struct str run);
const struct step_parked *keeper_parked(const struct keeper *keeper, struct str run, struct str branch);
/* The parked step of this run at this contract step, in any branch; NULL = none. */
const struct step_parked *keeper_parked_step(const struct keeper *keeper, struct str run, struct str step);
size_t keeper_open_count(const struct keeper *keeper);
size_t keeper_parked_count(const struct keeper *keeper);

/* ---- changes; each returns what must be written to `waiting` through the caller's record ---- */
struct waiting_row {
    struct str key;                   /* in the arena */
    const struct run_row *run;        /* or */
    const struct step_parked *parked; /* or neither: a tombstone */
};

/* A run was requested: is it new, the same again, or an impostor with the same id? */
enum start_verdict { START_NEW, START_SAME, START_CONFLICT, START_TOO_OLD };
enum start_verdict keeper_start_verdict(const struct keeper *keeper, const struct run_requested *request,
                                        struct str input_hash, int64_t now_ms);

void keeper_open(struct keeper *keeper, const struct run_row *row, struct arena *arena, struct waiting_row *out);
void keeper_close(struct keeper *keeper, const struct run_closed *closed, struct arena *arena, struct waiting_row *out);
void keeper_park(struct keeper *keeper, const struct step_parked *parked, struct arena *arena, struct waiting_row *out);
/* The parked step goes on (its step event is committed in the same transaction): a tombstone. */
void keeper_release(struct keeper *keeper, struct str run, struct str branch, struct arena *arena,
                    struct waiting_row *out);

/* May this decision be applied to what waits? NULL = yes; else the reason to tell its sender (in the arena): no such run,
 * nothing waits there, another visit, other arguments than those shown, the run has ended, ... The keeper judges by its own
 * state, never by what the sender believes. */
const char *keeper_refuse_decision(const struct keeper *keeper, const struct decision *decision, struct arena *arena);
const char *keeper_refuse_resolution(const struct keeper *keeper, const struct resolved *resolved, struct arena *arena);

/* ---- time ---- */
/* When something is due next (wall clock); INT64_MAX = never. */
int64_t keeper_due_ms(const struct keeper *keeper);

enum keeper_due_kind {
    KEEPER_DUE_NONE,
    KEEPER_DUE_STEP,     /* the parked step's time has passed: wake it */
    KEEPER_DUE_DEADLINE, /* its run's deadline has passed */
    KEEPER_DUE_FORGET,   /* an ended run was remembered long enough: keeper_forget, or keeper_keep */
};
struct keeper_due {
    enum keeper_due_kind kind;
    const struct step_parked *parked; /* STEP, DEADLINE */
    struct str run;
};
/* The next thing that is due at `now_ms`, earliest first. It stays due until what the caller decides changes it. */
struct keeper_due keeper_next_due(const struct keeper *keeper, int64_t now_ms);
/* Nothing of this run is due before then (INT64_MAX: until this is called again): something about it must be done first. */
void keeper_keep(struct keeper *keeper, struct str run, int64_t until_ms);
void keeper_forget(struct keeper *keeper, struct str run, struct arena *arena, struct waiting_row *out);

#endif
