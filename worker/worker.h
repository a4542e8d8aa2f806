/*
 * worker.h: the daemon's parts, as its files share them. Everything here runs on the loop thread.
 *
 *   main.c       settings, ports, signals, the epoll loop
 *   loop.c       THE MAIN PATH: the life of a step event
 *   inbox.c      the keeper's side: what is addressed to a run, and what is due
 *   contracts.c  the versions of contracts that `control` holds
 *   commit.c     a plan as records for the log
 */
#ifndef MYELIN_WORKER_H
#define MYELIN_WORKER_H

#include "worker/core/decide.h"
#include "worker/core/keeper.h"
#include "worker/io/caller.h"
#include "worker/io/ledger.h"
#include "worker/io/log.h"
#include "worker/record.h"
#include "worker/settings.h"

struct contracts;
struct delivery;
struct inbox;

struct worker {
    const struct settings *settings;
    struct log *log;
    struct ledger *ledger;
    struct caller *caller;
    struct contracts *contracts;
    struct inbox *inboxes;       /* the inbox partitions that we own */
    struct delivery *deliveries; /* step events in our hands */
    int32_t deliveries_count;
    char name[128]; /* SLOT:EPOCH: who we are in facts and in Redis; another one in each life */
    bool stopping;
    int64_t stop_by_ms; /* stopping: when calls in flight are given up (clock_mono_us / 1000) */
    bool log_stopped;
    bool failed; /* the log could not go on */
};

/* ---- loop.c ---- */
void loop_step(struct worker *worker, struct log_event *event); /* a record of steps.<pool>; takes the event */
void loop_contracts_read(struct worker *worker);                /* `control` was read to its end */
void loop_orphan(struct worker *worker, int64_t tenure); /* that tenure is over: calls go on, nothing is decided */
int64_t loop_tick(struct worker *worker, int64_t now_mono_ms); /* returns when to look again */
void loop_free(struct worker *worker);

/* ---- inbox.c ---- */
void inbox_event(struct worker *worker, struct log_event *event); /* any event of the inbox; takes the event */
void inbox_contracts_read(struct worker *worker);
int64_t inbox_tick(struct worker *worker, int64_t now_ms); /* what is due; returns when to look again (wall clock) */
void inbox_free(struct worker *worker);

/* ---- contracts.c ---- */
struct contracts *contracts_new(void);
void contracts_free(struct contracts *contracts);
void contracts_add(struct contracts *contracts, const struct log_event *event); /* a record of `control` */
/* NULL: not known, or refused, and then *refused says why. */
const struct contract *contracts_find(const struct contracts *contracts, struct str hash, const char **refused);

/* ---- commit.c ---- */
struct commit {
    struct worker *worker;
    struct arena *arena;
    const struct log_event *source;
    int64_t offset; /* of the source; -1 = a timer */
    struct log_record *records;
    size_t count, capacity;
    bool failed; /* something could not be encoded; `error` says what */
    struct error error;
};
void commit_open(struct commit *commit, struct worker *worker, struct arena *arena, const struct log_event *source,
                 int64_t offset);
void commit_plan(struct commit *commit, struct plan *plan);
void commit_fact(struct commit *commit, struct fact *fact);
void commit_row(struct commit *commit, const struct waiting_row *row, struct str run);
void commit_dead(struct commit *commit, struct str reason, struct str run);
/* Hands everything to the log. When something could not be encoded the source goes to `dead` instead, with that reason. */
void commit_done(struct commit *commit);

#endif
