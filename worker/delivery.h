/*
 * delivery.h: one delivery of a step event, as loop.c (its life), credits.c (what it must have), orphan.c (when its partition is let go)
 * and alone.c (when workers die of it) share it. Nobody else includes this.
 */
#ifndef MYELIN_DELIVERY_H
#define MYELIN_DELIVERY_H

#include "worker/worker.h"

/* One delivery of a step event, from the log until it is handed back. */
struct delivery {
    struct worker *worker;
    struct delivery *next, *previous;
    struct log_event source; /* owned */
    struct arena *arena;
    struct run *run;
    struct run *unsound;   /* no `run`, for something of it is out of all bounds: it can only be ended */
    struct decide_env env; /* contract NULL: waits until `control` was read */
    struct plan plan;
    const struct call *call;
    struct outcome outcome;
    const struct chat_model *model;
    int64_t fence, send_until_boot_ms, until_ms; /* of a reserved write: see io/ledger.h */
    bool leased;
    struct str packed;  /* the write's result, until Redis has it */
    int64_t again_ms;   /* Redis is to be asked again then (clock_mono_us / 1000); 0 = no */
    int64_t look_ms;    /* somebody else has the write in flight: how long until the next look at it */
    bool calling;       /* its request went out */
    bool orphan;        /* the partition was let go: store the result, decide nothing */
    bool kept;          /* an orphan whose partition came back: in worker->kept until it is handed over again */
    bool begun, held;   /* held: it waits for one that runs alone, or for that it may */
    bool solitary;      /* workers died with it: it is run alone */
    bool counted_alone; /* and that is counted */
    int64_t reading;    /* of `control`: its contract is not known until that has ended */

    /* ---- credits.c's ---- */
    struct gate *waits_at, *calls_at; /* NULL: it does not wait, has no credit of an endpoint */
    struct delivery *waits_before, *waits_after;
    int64_t wait_until_ms; /* its run's deadline, wall clock; INT64_MAX = none */
    bool in_flight;
    size_t charged; /* taken from the budget */
    size_t named;   /* bytes of what it names, as far as that is known; also while it waits */
};

/* ---- loop.c ---- */
void delivery_begin(struct delivery *delivery); /* decodes and plans it, unless it is held back */
bool delivery_decode(struct delivery *delivery, struct error *error);
void delivery_forget(struct delivery *delivery); /* it waits: all but its record, which is decoded again */
/* To `dead`; a run that it names, in a state that is unsound, ends with that reason. The delivery is gone. */
void delivery_poison(struct delivery *delivery, const char *reason);
void delivery_release(struct delivery *delivery);

/* ---- orphan.c ---- */
/* True: it is of a call that was kept, which goes on as its delivery; takes the event. */
bool orphan_bind(struct worker *worker, struct log_event *event);
void orphan_unkeep(struct delivery *delivery);

/* ---- credits.c ---- */
/* False: it waits, and delivery_begin is called when its turn comes. */
bool credits_begin(struct delivery *delivery); /* in flight, memory; before it is decoded */
/* The endpoint of delivery->call; false: it waits for that, and the others are given back. */
bool credits_call(struct delivery *delivery);
/* A payload_more: what the delivery names is so large. False: it waits, as in credits_begin, and is forgotten. */
bool credits_named(void *delivery, size_t size);
void credits_calling(struct delivery *delivery, size_t request); /* a request of that many bytes leaves */
void credits_pass(struct delivery *delivery);                    /* it cannot use its turn at an endpoint now */
void credits_answered(struct delivery *delivery);                /* the call is over; what came of it is in the arena */
void credits_let_go(struct delivery *delivery);  /* its partition is somebody else's: it does not count as in flight */
void credits_keep(struct delivery *delivery);    /* it is ours again */
void credits_release(struct delivery *delivery); /* it ends */
int64_t credits_tick(struct worker *worker, int64_t now_mono_ms); /* returns when to look again */

/* ---- alone.c ---- */
/* Counts a suspect delivery, then begins it, holds it back until it can run alone, or gives it up. */
void alone_count(struct delivery *delivery);
/* Of suspect ones only, the others were not counted. */
void alone_take_back(struct delivery *delivery); /* it is decided, or let go: nobody died of it here */
void alone_keep(struct delivery *delivery);      /* it is handed over to us again: it was not taken back */
void alone_tick(struct worker *worker);          /* lets in who waited */

#endif
