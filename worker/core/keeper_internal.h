/*
 * keeper_internal.h: what the parts of keeper.c share. Nobody else includes this.
 *
 *   keeper.c         rebuild, look-ups, changes, verdicts, time
 *   keeper_table.c   rows: found by a hash, ordered by when they are due
 *   keeper_bodies.c  the bodies in memory
 */
#ifndef MYELIN_CORE_KEEPER_INTERNAL_H
#define MYELIN_CORE_KEEPER_INTERNAL_H

#include "worker/base/hash.h"
#include "worker/core/keeper.h"

#define KEEPER_NEVER INT64_MAX

/* A row of `waiting`. There may be millions: 48 bytes, in blocks that never move. */
struct kept {
    struct hash_id id; /* of (run), or of (run, branch) */
    union {
        int64_t offset;    /* not in memory: where it is to be read */
        struct body *body; /* in memory */
    } row;
    int64_t due_ms; /* when something must be done about it; KEEPER_NEVER */
    uint32_t link;  /* a run: its first parked step, 0 = none; a parked step: the next one, the last: the run */
    uint32_t heap;  /* where in the heap, + 1; 0 = not in it */
    uint32_t size : 23;
    bool is_run : 1;
    bool known : 1;      /* a run: it has a row, and not only parked steps */
    bool in_memory : 1;  /* `row.body` */
    bool asked : 1;      /* `row.offset` is being read */
    bool aside : 1;      /* see keeper_aside */
    bool ended : 1;      /* a run */
    unsigned status : 3; /* a run: enum run_status */
};

struct kept_block;

struct keeper {
    int64_t ended_keep_ms;
    struct keeper_bodies *bodies;
    struct body_list {
        struct body *first, *last;
    } pinned;                   /* not to be read back yet, by their tickets */
    struct kept_block **blocks; /* rows, by their numbers */
    uint32_t rows_used;         /* numbers given out, from 1 */
    uint32_t free;              /* numbers that can be given out again: a list by `link`; 0 = none */
    uint32_t *buckets;          /* numbers of rows: a hash table with open addressing; 0 = empty */
    uint32_t buckets_count, rows_count;
    uint32_t *heap; /* numbers of rows, the earliest due first */
    uint32_t heap_count, heap_capacity;
    size_t open_count, parked_count;
};

/* ---- keeper_table.c ---- */
struct kept *keeper_at(const struct keeper *keeper, uint32_t row);
uint32_t keeper_find(const struct keeper *keeper, const struct hash_id *id); /* 0: not there */
uint32_t keeper_add(struct keeper *keeper, const struct hash_id *id);        /* was not there; zeroed, never due */
void keeper_remove(struct keeper *keeper, uint32_t row);                     /* not in the heap, without a body */
void keeper_table_free(struct keeper *keeper);
/* Puts it into the heap, or where its time belongs now. */
void keeper_heap_put(struct keeper *keeper, uint32_t row);
void keeper_heap_remove(struct keeper *keeper, uint32_t row);

/* ---- keeper_bodies.c ---- */
struct body {
    struct body *before, *after; /* in the list of its keeper, or of all */
    struct kept *of;
    int64_t offset; /* -1: not known yet */
    int64_t ticket; /* pinned; 0: it can be read back */
    uint64_t pass;  /* when it was used last */
    size_t size;
    char bytes[]; /* and a NUL */
};
/* A copy, for a row that has none. `offset` -1: it is pinned, and gets a ticket. */
struct body *keeper_body_add(struct keeper *keeper, struct kept *kept, struct str bytes, int64_t offset);
/* None in memory from now on; the row's place is not known then. */
void keeper_body_drop(struct keeper *keeper, struct kept *kept);
void keeper_body_use(struct keeper *keeper, struct body *body);
/* It can be read back at `offset` from now on. */
void keeper_body_unpin(struct keeper *keeper, struct body *body, int64_t offset);

#endif
