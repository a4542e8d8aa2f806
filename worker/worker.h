/*
 * worker.h: the daemon's parts, as its files share them. Everything here runs on the loop thread.
 *
 *   main.c       settings, ports, signals, the epoll loop
 *   event.c      what the log says, or was read back, and who it is for
 *   loop.c       THE MAIN PATH: the life of a step event
 *   credits.c    back-pressure: what a step event must have before it is worked on
 *   orphan.c     calls in flight of partitions that were let go
 *   alone.c      step events that workers die of
 *   keep.c       the keeper's side: partitions of `inbox`, in which order they are worked off, the bodies of what waits
 *   inbox.c      what is addressed to a run, or due, and what follows
 *   contracts.c  the versions of contracts that `control` holds
 *   commit.c     a plan as records for the log
 *   payload.c    what a step event names, put back into it
 *   meter.c      what happened, as numbers; what the admin port says
 */
#ifndef MYELIN_WORKER_H
#define MYELIN_WORKER_H

#include "worker/core/decide.h"
#include "worker/core/keeper.h"
#include "worker/io/caller.h"
#include "worker/io/ledger.h"
#include "worker/io/log.h"
#include "worker/io/readback.h"
#include "worker/record.h"
#include "worker/settings.h"

struct admin;
struct admin_page;
struct contracts;
struct credits;
struct delivery;
struct inbox;
struct metrics;
struct payloads;

/* What is read back, in the order of readback_open. */
enum { READ_HISTORY, READ_WAITING, READ_TOPICS };

struct worker {
    const struct settings *settings;
    struct log *log;
    struct ledger *ledger;
    struct caller *caller;
    struct contracts *contracts;
    struct payloads *payloads;
    struct credits *credits;
    struct metrics *metrics;
    struct admin *admin;   /* NULL: switched off */
    struct inbox *inboxes; /* the inbox partitions that we own */
    struct keeper_bodies *bodies;
    struct readback *readback;
    int32_t fetching;            /* states of waiting steps that are being made whole (wake.c) */
    struct delivery *deliveries; /* step events in our hands */
    int32_t deliveries_count;
    int32_t begun_count;    /* of them, those that are not held back */
    bool held;              /* there may be some that are */
    int64_t again_ms;       /* the earliest of theirs (clock_mono_us / 1000); too early does no harm */
    void *kept;             /* orphan.c: tsearch(3) tree of struct delivery, by tenure and what the event says */
    struct delivery *alone; /* its worker died with it before: it runs alone, the others are held back; NULL = none */
    int epoll_fd, signal_fd;
    char slot[104]; /* "" = not claimed yet */
    char name[128]; /* SLOT:EPOCH: who we are in facts and in Redis; another one in each life */
    bool slot_lost; /* another worker has claimed it: we stop */
    bool stopping;
    int64_t stop_by_ms; /* stopping: when calls in flight are given up (clock_mono_us / 1000) */
    bool log_stopped;
    bool failed;       /* the log could not go on */
    bool control_read; /* `control` was read to its end once */
};

/* ---- event.c ---- */
void event_take(struct worker *worker, struct log_event *event); /* of log_next; takes it */
void event_read(struct worker *worker);                          /* readback_fd is readable */

/* ---- loop.c ---- */
void loop_step(struct worker *worker, struct log_event *event);   /* a record of steps.<pool>; takes the event */
void loop_contracts_read(struct worker *worker, int64_t reading); /* that reading of `control` has ended */
int64_t loop_tick(struct worker *worker, int64_t now_mono_ms);    /* returns when to look again */
void loop_free(struct worker *worker);
/* Step events being worked on: those that wait for a contract, and the rest by their calls' enum call_kind and enum effect_class. */
struct loop_numbers {
    int32_t without_call, calls[3][3];
};
void loop_numbers(const struct worker *worker, struct loop_numbers *numbers);

/* ---- credits.c ---- */
struct credits *credits_new(void);
void credits_free(struct credits *credits); /* after loop_free */
/* Step events in our hands that wait, by what they wait for. */
struct credits_numbers {
    int32_t endpoint, in_flight, memory;
};
void credits_numbers(const struct worker *worker, struct credits_numbers *numbers);

/* ---- orphan.c ---- */
void loop_orphan(struct worker *worker, int64_t tenure); /* that tenure is over: calls go on, nothing is decided */
/* A partition that we had before is ours again, and untouched: the calls of its tenure before go on for this one. */
void loop_keep(struct worker *worker, const struct log_event *assigned);

/* ---- keep.c ---- */
void keep_open(struct worker *worker);
void keep_free(struct worker *worker);                           /* before the ledger, of which it waits for answers */
void keep_event(struct worker *worker, struct log_event *event); /* any event of the inbox; takes the event */
void keep_contracts_read(struct worker *worker, int64_t reading);
void keep_recalled(struct worker *worker, const struct readback_row *row);
int64_t keep_tick(struct worker *worker, int64_t now_ms); /* what is due; returns when to look again (wall clock) */
/* Open runs and parked steps of all keepers that are rebuilt. */
void keep_numbers(const struct worker *worker, size_t *open, size_t *parked);

/* ---- contracts.c ---- */
struct contracts *contracts_new(void);
void contracts_free(struct contracts *contracts);
void contracts_add(struct contracts *contracts, const struct log_event *event); /* a record of `control` */
/* NULL: not known, or refused, and then *refused says why. */
const struct contract *contracts_find(const struct contracts *contracts, struct str hash, const char **refused);

/* ---- commit.c ---- */
struct counted { /* a fact, for meter.c once it is handed over */
    struct counted *next;
    struct fact fact;
};
struct commit {
    struct worker *worker;
    struct arena *arena;
    const struct log_event *source; /* offset -1: a timer */
    struct log_record *records;
    size_t count, capacity;
    struct counted *counted;
    const char *ended; /* status of the run that it ends; NULL = none */
    int32_t dead_count;
    bool failed; /* something could not be encoded; `error` says what */
    struct error error;
};
void commit_open(struct commit *commit, struct worker *worker, struct arena *arena, const struct log_event *source);
void commit_plan(struct commit *commit, struct plan *plan);
/* Where the log has to say where the plan's facts lie, which are the records from `first` on: behind the hash of each, which nobody
 * can have put anywhere else. A state may name one fact twice: it is its input, and the beginning of its conversation. */
void commit_places(struct arena *arena, const struct plan *plan, size_t first, struct log_record *record);
void commit_fact(struct commit *commit, struct fact *fact);
/* A row of `waiting` as it is written, in the arena. STR_NONE: it cannot be; commit->failed. */
struct str commit_row_body(struct commit *commit, enum record_type type, const void *row);
void commit_row(struct commit *commit, struct str run, struct str key, struct str body, int64_t ticket);
void commit_dead(struct commit *commit, struct str reason, struct str run);
/* Hands everything to the log. When something could not be encoded the source goes to `dead` instead, with that reason. */
void commit_done(struct commit *commit);

/* ---- payload.c ---- */
struct payloads *payload_open(struct readback *readback); /* borrowed */
void payload_close(struct payloads *payloads);            /* after `readback` was closed; NULL is fine */
void payload_read(struct payloads *payloads, const struct readback_row *row);
/* The encoded fact with that SHA-256 is named from now on. */
void payload_keep(struct payloads *payloads, const unsigned char *digest, struct str value);
/* The run is whole, or (`error`, ERROR_POISON) never will be. */
typedef void (*payload_done)(void *context, const struct error *error);
/* What the run names has so many bytes, as far as that is known now: asked before each fetch, and when all was fetched. False: not
 * now; it ends here and `done` is not called, run and arena may go. */
typedef bool (*payload_more)(void *context, size_t size);
/* Makes a run whole; NULL: `done` was called already, or will not be. What it fills in lies in the arena. */
struct resolve *payload_resolve(struct payloads *payloads, struct run *run, struct arena *arena, payload_more more,
                                payload_done done, void *context);
void payload_cancel(struct resolve *resolve); /* `done` will not be called; run and arena may go */

/* ---- meter.c ---- */
struct metrics *meter_new(const struct settings *settings);
void meter_name(struct metrics *metrics, struct str name_space, const char *slot);
void meter_delivery(struct metrics *metrics);                                 /* a step event reached us */
void meter_committed(struct metrics *metrics, const struct log_event *event); /* LOG_COMMITTED */
void meter_commit(struct metrics *metrics, const struct commit *commit);      /* it is handed over */
void meter_request(struct metrics *metrics, const struct call *call, const struct http_answer *answer);
void meter_call(struct metrics *metrics, const struct call *call, const struct outcome *outcome); /* a call's end */
void meter_page(void *context, const char *path, struct admin_page *page); /* an admin_serve, of the worker */

#endif
