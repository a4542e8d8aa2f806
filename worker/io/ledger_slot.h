/*
 * ledger_slot.h: a slot for a worker whose settings name none: the lowest number that no other one has, claimed in Redis with a
 * lease, and kept by renewing it. A part of the ledger.
 *
 * It only keeps two workers from taking one name by mistake: what fences is Kafka, where the producers bear the slot's name. So who
 * cannot renew goes on, and who claims a slot whose owner lives after all (it was frozen, or cut off from Redis for longer
 * than the lease) fences it at Kafka, whatever is written here.
 */
#ifndef MYELIN_IO_LEDGER_SLOT_H
#define MYELIN_IO_LEDGER_SLOT_H

#include <stdbool.h>
#include <stdint.h>

#define LEDGER_SLOTS_MAX 1000 /* I7: of one namespace */

struct ledger_link;

struct ledger_slot {
    struct ledger_link *link;
    char life_key[256], prefix[256];
    char holder[160];     /* of the slot: HOST:RANDOM, other for each life of the process */
    int64_t lease_ms;     /* 0: none is wanted */
    int64_t start_ms;     /* the first lease is longer by this */
    int64_t due_ms;       /* when to ask (again) */
    int64_t asked_ms;     /* when it was asked: Redis counts the lease from later */
    int64_t sure_ms;      /* until then nobody else can claim it (mono ms) */
    int64_t loud_ms;      /* when to say again why there is none yet */
    bool asked;           /* and not answered yet */
    bool lost, said_late; /* another one has claimed it; that may be, and was said */
    int32_t number;       /* 0: none yet */
};

void ledger_slot_init(struct ledger_slot *slot, struct ledger_link *link, const char *name_space);

/* Asks until it has one, without an end: the log says what it waits for. In a new life of Redis (its keys are gone, or it was
 * started again) that is one `lease_ms` at least, so that workers that live say first which slot is theirs. `start_ms`: for
 * how long nobody may turn the loop, and so renew it, after it has one. */
void ledger_slot_claim(struct ledger_slot *slot, int64_t lease_ms, int64_t start_ms);
int32_t ledger_slot_number(const struct ledger_slot *slot); /* 1 to LEDGER_SLOTS_MAX; 0 = not yet */
bool ledger_slot_lost(const struct ledger_slot *slot);      /* another worker has claimed it, and fences this one */
/* Gives it back, so that the next one takes it at once; not awaited (ledger_idle). */
void ledger_slot_release(struct ledger_slot *slot);

int64_t ledger_slot_tick(struct ledger_slot *slot, int64_t now_mono_ms); /* when to be called again */

#endif
