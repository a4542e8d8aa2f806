/*
 * keeper.h: what waits, for one partition of `inbox`: open runs, ended runs, parked steps. Pure, as decide.h.
 *
 * The table is a function of the topic `waiting` (same partition): key RUN holds the run's row, key RUN/BRANCH (the main
 * line: "RUN/") the parked step. It is rebuilt from there on assignment, before anything is decided. Every change is made
 * in the table at once: the caller commits the row together with the rest, and drops the whole keeper when it loses the
 * partition.
 *
 * Of a row the table has what order and time need, and the offset at which it lies; not its body. That is in memory from when it
 * was written until it can be read back (keeper_placed), and then for as long as there is room. So before a decision
 * the caller looks whether the bodies that it needs are there (keeper_body), and has the others read (keeper_ask,
 * keeper_recalled). Rows are found by a hash of run and branch: whose a body is, the body says.
 */
#ifndef MYELIN_CORE_KEEPER_H
#define MYELIN_CORE_KEEPER_H

#include "worker/core/inbox.h"

struct keeper;

/* The bodies that all keepers of a worker have in memory. Above `size_max` bytes those that were not used for longest go. */
struct keeper_bodies;
struct keeper_bodies *keeper_bodies_new(size_t size_max);
void keeper_bodies_free(struct keeper_bodies *bodies); /* after the keepers; NULL is fine */
/* Lets go of what is too much, but for what was used since the last trim, and what cannot be read back yet. */
void keeper_bodies_trim(struct keeper_bodies *bodies);
size_t keeper_bodies_size(const struct keeper_bodies *bodies);

/* `ended_keep_ms`: how long an ended run is remembered. */
struct keeper *keeper_new(int64_t ended_keep_ms, struct keeper_bodies *bodies);
void keeper_free(struct keeper *keeper);

/* ---- rebuild: the rows of `waiting`, in order; later rows replace earlier ones. `size`: of the body ---- */
void keeper_load_run(struct keeper *keeper, const struct run_row *row, int64_t offset, size_t size);
void keeper_load_parked(struct keeper *keeper, const struct step_parked *parked, int64_t offset, size_t size);
void keeper_load_tombstone(struct keeper *keeper, struct str key);

/* ---- look-ups: numbers of rows, 0 = none; a row keeps its number until it is released or forgotten ---- */
uint32_t keeper_run(const struct keeper *keeper, struct str run);
uint32_t keeper_parked(const struct keeper *keeper, struct str run, struct str branch);
uint32_t keeper_parked_first(const struct keeper *keeper, uint32_t run); /* of keeper_run; in any branch */
uint32_t keeper_parked_next(const struct keeper *keeper, uint32_t row);
bool keeper_is_open(const struct keeper *keeper, uint32_t run); /* of keeper_run: known, and not ended */
size_t keeper_open_count(const struct keeper *keeper);
size_t keeper_parked_count(const struct keeper *keeper);

/* ---- bodies ---- */
/* As it was written; data == NULL: it is not in memory. Valid until the next change of the keeper, or trim. */
struct str keeper_body(struct keeper *keeper, uint32_t row);
size_t keeper_size(const struct keeper *keeper, uint32_t row);
/* The offset at which the body is to be read. -1: it is in memory, or is being read already. Until it comes, the row is not
 * due. */
int64_t keeper_ask(struct keeper *keeper, uint32_t row);
/* What lies there. WRONG: not the row that was asked for (body.data == NULL: nothing), which is still wanted. */
enum keeper_recall { RECALL_TAKEN, RECALL_UNWANTED, RECALL_WRONG };
enum keeper_recall keeper_recalled(struct keeper *keeper, uint32_t row, int64_t offset, struct str key,
                                   struct str body);
/* The row with this ticket is committed, at this offset. */
void keeper_placed(struct keeper *keeper, int64_t ticket, int64_t offset);

/* ---- changes; `body` is the row as it is written to `waiting`, and what comes back is its ticket, for keeper_placed ---- */
int64_t keeper_put_run(struct keeper *keeper, const struct run_row *row, struct str body);
int64_t keeper_put_parked(struct keeper *keeper, const struct step_parked *parked, struct str body);
/* The parked step goes on (its step event is committed in the same transaction): a tombstone. */
void keeper_release(struct keeper *keeper, struct str run, struct str branch);
void keeper_forget(struct keeper *keeper, struct str run); /* an ended run: a tombstone */
/* Not due before then: something about it must be done first. */
void keeper_keep(struct keeper *keeper, uint32_t row, int64_t until_ms);
/* Not due until it is put back, or replaced: what it tells is being fetched. */
void keeper_aside(struct keeper *keeper, uint32_t row, bool aside);

/* The keys of rows. */
struct str keeper_parked_key(struct arena *arena, struct str run, struct str branch);

/* The row of a run that ends now. `open`: as it was. Borrows from both. */
struct run_row keeper_ended(const struct run_row *open, const struct run_closed *closed);

/* ---- verdicts ---- */
/* A run was requested: is it new, the same again, or an impostor with the same id? `known`: the row that keeper_run finds;
 * NULL = none, or it cannot be read. */
enum start_verdict { START_NEW, START_SAME, START_CONFLICT, START_TOO_OLD };
enum start_verdict keeper_start_verdict(const struct keeper *keeper, const struct run_requested *request,
                                        const struct run_row *known, struct str input_hash, int64_t now_ms);

/* May this be applied to what waits? `parked`: the run's parked step at that contract step, in any branch; NULL = none. NULL =
 * yes; else the reason to tell its sender (in the arena): no such run, nothing waits there, another visit, other arguments than
 * those shown, the run has ended, ... The keeper judges by its own state, never by what the sender believes. */
const char *keeper_refuse_decision(const struct keeper *keeper, const struct decision *decision,
                                   const struct step_parked *parked, struct arena *arena);
const char *keeper_refuse_resolution(const struct keeper *keeper, const struct resolved *resolved,
                                     const struct step_parked *parked, struct arena *arena);

/* ---- time ---- */
/* When something is due next (wall clock); INT64_MAX = never. */
int64_t keeper_due_ms(const struct keeper *keeper);

/* The row that is due at `now_ms`, earliest first; 0 = none. It stays due until what the caller decides changes it, or the
 * caller asks for its body. */
uint32_t keeper_next_due(const struct keeper *keeper, int64_t now_ms);
bool keeper_row_ended(const struct keeper *keeper, uint32_t row); /* of an ended run: it is to be forgotten, or kept */
/* Of a parked step that is due: its run's deadline has passed, which goes before its own time. */
bool keeper_past_deadline(const struct step_parked *parked, int64_t now_ms);

#endif
