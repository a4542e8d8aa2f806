/*
 * inbox.h: what keep.c and inbox.c share. Nobody else includes this.
 *
 *   keep.c   when: the order of records, the bodies that they need, time, tenure
 *   inbox.c  what: one record or one row that is due, with all bodies at hand → one commit
 *   wake.c   the state of what waits, whole again before it goes on
 */
#ifndef MYELIN_INBOX_H
#define MYELIN_INBOX_H

#include "worker/worker.h"

/* A partition of `inbox` that we own. */
struct inbox {
    struct inbox *next;
    struct log_event self; /* topic, partition, tenure: the source of what a timer decides */
    struct keeper *keeper;
    bool rebuilt;                         /* the table is complete: records may be decided */
    bool caught_up;                       /* the backlog was decided: timers may fire */
    struct held *first, **last;           /* records, in their order; the first waits for a body */
    struct waking *awaited;               /* or for this; NULL: it is not known yet what it wakes */
    bool came;                            /* since those behind the first were looked at: a record, or a body */
    struct held *unknown, **unknown_last; /* records that wait until `control` was read; they hold up nobody */
    struct forgetting *forgetting;
    int32_t asked; /* bodies that are being read */
    size_t asked_size;
    struct waking *waking; /* wake.c's */
    int32_t waking_count;
    int32_t fetching; /* of them, those that are being made whole */
};

/* One decision. */
struct job {
    struct worker *worker;
    struct inbox *inbox;
    struct arena *arena; /* borrowed */
    struct commit commit;
    int64_t now_ms;
    struct waking *waking; /* of what it wakes; goes with the job */
};
void job_open(struct job *job, struct worker *worker, struct inbox *inbox, struct arena *arena,
              const struct log_event *source, int64_t now_ms);
void job_close(struct job *job); /* commits */

/* NULL, or what of the record is out of all bounds: what is due is computed from times, and an answer must fit a record. */
const char *inbox_unsound(const struct record *record);

/* A contract that is not known yet may be on its way: `control` must be read first. */
bool inbox_needs_control(const struct worker *worker, const struct record *record);

/* Which bodies must be in memory before this record is decided. */
enum inbox_need { NEEDS_NOTHING, NEEDS_RUN, NEEDS_PARKED }; /* the run's row, *run; all its parked steps */
enum inbox_need inbox_needs(const struct keeper *keeper, const struct record *record, uint32_t *run);

/* The bodies are in memory: what a record is about, and a row that is due; begun now, if it was not. NULL: nothing, or it cannot
 * be read. */
struct waking *inbox_waking(struct worker *worker, struct inbox *inbox, const struct record *record);
struct waking *inbox_row_waking(struct worker *worker, struct inbox *inbox, uint32_t row);

/* With job->waking ready; NULL: what it is about does not wait. */
void inbox_decide(struct job *job, struct record *record);
void inbox_wake(struct job *job); /* it is due */
void inbox_forget(
    struct job *job,
    struct str run); /* an ended run, of which nothing is left in Redis; and what was left waiting of it */
const struct run_row *inbox_run(struct job *job, uint32_t row); /* whose body is in memory; NULL: it cannot be read */

/* ---- wake.c ---- */
struct woken {
    const struct step_parked *parked;
    struct run *run;    /* NULL: it cannot be read */
    struct error error; /* why; or why its state cannot be made whole */
};
/* May another one be begun that can wait? Of those that are being made whole, the next that is wakes us. */
bool wake_may(const struct worker *worker, const struct inbox *inbox);
/* Begins to fetch what is missing. Takes the arena, in which `parked` is what lies in that row. */
struct waking *wake_begin(struct worker *worker, struct inbox *inbox, uint32_t row, const struct step_parked *parked,
                          struct arena *arena);
struct waking *wake_of(const struct inbox *inbox, uint32_t row); /* NULL: none was begun */
bool wake_ready(const struct waking *waking);                    /* nothing is missing */
const struct woken *wake_state(const struct waking *waking);
void wake_free(struct waking *waking); /* used, or its row changes */
void wake_drop(struct inbox *inbox);   /* the partition is let go */

#endif
