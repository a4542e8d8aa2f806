/*
 * job.h: one decision of a keeper, as inbox.c (what is addressed to a run, what is due) and wake.c (what waits goes on) share it.
 * Nobody else includes this.
 */
#ifndef MYELIN_JOB_H
#define MYELIN_JOB_H

#include "worker/worker.h"

struct inbox {
    struct inbox *next;
    struct log_event self; /* topic, partition, tenure: the source of what a timer decides */
    struct keeper *keeper;
    bool rebuilt;                   /* the table is complete: records may be decided */
    bool caught_up;                 /* the backlog was read: timers may fire */
    struct held *held, **held_last; /* records that wait until `control` was read */
    struct forgetting *forgetting;
    struct waking *waking; /* whose state is fetched */
    struct waking *woken;  /* of them, the one whose state was just fetched; NULL = none */
};

struct job {
    struct worker *worker;
    struct inbox *inbox;
    struct arena *arena;
    struct commit commit;
    int64_t now_ms;
    struct waking *waking; /* what it wakes; NULL = nothing, or inbox->woken */
    bool pending;          /* it cannot be decided yet: nothing of it is kept, it is done again later */
};

/* ---- inbox.c ---- */
void job_open(struct job *job, struct worker *worker, struct inbox *inbox, const struct log_event *source,
              int64_t offset, int64_t now_ms);
void job_close(struct job *job); /* commits */
struct decide_env job_env(struct job *job, const struct contract *contract);
/* NULL, or why it cannot be written down (too large, no valid text): then nothing of it is kept. */
const char *job_refuse_plan(struct job *job, struct plan *plan);
/* Takes the event. `control_read`: what is not known by now never will be. */
void inbox_handle(struct worker *worker, struct inbox *inbox, struct log_event *event, bool control_read);

/* ---- wake.c ---- */
/* NULL, or why not what was wanted: it waits on, since what a person said cannot be written down; or it cannot go on (its
 * event or contract is unreadable), and its run was ended with that reason. With job->pending nothing was decided. */
const char *wake(struct job *job, const struct step_parked *parked, const struct wake *cause);
/* Its time, or its run's deadline, has passed. Takes the job. */
void wake_due(struct job *job, const struct step_parked *parked);
/* A pending job: handles the event (takes it) when the state of what it wakes was fetched. */
void wake_hold(struct job *job, struct log_event *event);
void wake_over(struct job *job);     /* it is committed */
void wake_drop(struct inbox *inbox); /* the partition is let go */

#endif
