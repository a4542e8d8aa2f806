/* The rows of a keeper: blocks of them, a hash table of their numbers, a binary heap of those that are due some time. */
#include <string.h>

#include "worker/base/mem.h"
#include "worker/core/keeper_internal.h"

#define BLOCK_ROWS 256
#define BUCKETS_MIN 64

struct kept_block {
    struct kept rows[BLOCK_ROWS];
};

_Static_assert(sizeof(struct kept) == 48, "what a row costs");

struct kept *keeper_at(const struct keeper *keeper, uint32_t row)
{
    return &keeper->blocks[(row - 1) / BLOCK_ROWS]->rows[(row - 1) % BLOCK_ROWS];
}

/* ---- the hash table ---- */

static uint32_t bucket_of(const struct keeper *keeper, const struct hash_id *id)
{
    return (uint32_t)id->halves[0] & (keeper->buckets_count - 1);
}

/* Where it is, or the empty bucket where it would be. */
static uint32_t probe(const struct keeper *keeper, const struct hash_id *id)
{
    uint32_t i = bucket_of(keeper, id);
    while (keeper->buckets[i] != 0 && memcmp(&keeper_at(keeper, keeper->buckets[i])->id, id, sizeof(*id)) != 0)
        i = (i + 1) & (keeper->buckets_count - 1);
    return i;
}

uint32_t keeper_find(const struct keeper *keeper, const struct hash_id *id)
{
    return keeper->buckets_count == 0 ? 0 : keeper->buckets[probe(keeper, id)];
}

/* At most three quarters are taken. */
static void make_room(struct keeper *keeper)
{
    if (keeper->rows_count < keeper->buckets_count / 4 * 3)
        return;
    uint32_t *old = keeper->buckets, old_count = keeper->buckets_count;
    keeper->buckets_count = old_count == 0 ? BUCKETS_MIN : old_count * 2;
    keeper->buckets = mem_new(keeper->buckets_count * sizeof(keeper->buckets[0]));
    for (uint32_t i = 0; i < old_count; i++) {
        if (old[i] != 0)
            keeper->buckets[probe(keeper, &keeper_at(keeper, old[i])->id)] = old[i];
    }
    mem_free(old);
}

/* What stands behind a gap, and would not be found over it, moves into it. */
static void take_out(struct keeper *keeper, uint32_t gap)
{
    uint32_t mask = keeper->buckets_count - 1;
    for (uint32_t i = (gap + 1) & mask; keeper->buckets[i] != 0; i = (i + 1) & mask) {
        uint32_t home = bucket_of(keeper, &keeper_at(keeper, keeper->buckets[i])->id);
        if (((i - home) & mask) < ((i - gap) & mask))
            continue;
        keeper->buckets[gap] = keeper->buckets[i];
        gap = i;
    }
    keeper->buckets[gap] = 0;
}

/* ---- rows ---- */

static uint32_t new_number(struct keeper *keeper)
{
    uint32_t row = keeper->free;
    if (row != 0) {
        keeper->free = keeper_at(keeper, row)->link;
        return row;
    }
    uint32_t blocks = keeper->rows_used / BLOCK_ROWS;
    if (keeper->rows_used % BLOCK_ROWS == 0) {
        keeper->blocks = mem_resize(keeper->blocks, (blocks + 1) * sizeof(keeper->blocks[0]));
        keeper->blocks[blocks] = mem_new(sizeof(struct kept_block));
    }
    return ++keeper->rows_used;
}

uint32_t keeper_add(struct keeper *keeper, const struct hash_id *id)
{
    make_room(keeper);
    uint32_t row = new_number(keeper);
    *keeper_at(keeper, row) = (struct kept){.id = *id, .due_ms = KEEPER_NEVER};
    keeper->buckets[probe(keeper, id)] = row;
    keeper->rows_count++;
    return row;
}

void keeper_remove(struct keeper *keeper, uint32_t row)
{
    struct kept *kept = keeper_at(keeper, row);
    take_out(keeper, probe(keeper, &kept->id));
    keeper->rows_count--;
    *kept = (struct kept){.link = keeper->free};
    keeper->free = row;
}

void keeper_table_free(struct keeper *keeper)
{
    for (uint32_t i = 0; i * BLOCK_ROWS < keeper->rows_used; i++)
        mem_free(keeper->blocks[i]);
    mem_free(keeper->blocks);
    mem_free(keeper->buckets);
    mem_free(keeper->heap);
}

/* ---- the heap ---- */

static void put(struct keeper *keeper, uint32_t index, uint32_t row)
{
    keeper->heap[index] = row;
    keeper_at(keeper, row)->heap = index + 1;
}

static int64_t due_at(const struct keeper *keeper, uint32_t index)
{
    return keeper_at(keeper, keeper->heap[index])->due_ms;
}

static void sift(struct keeper *keeper, uint32_t index)
{
    uint32_t row = keeper->heap[index];
    int64_t due_ms = due_at(keeper, index);
    while (index > 0 && due_at(keeper, (index - 1) / 2) > due_ms) {
        put(keeper, index, keeper->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (uint32_t child = 2 * index + 1; child < keeper->heap_count; child = 2 * index + 1) {
        if (child + 1 < keeper->heap_count && due_at(keeper, child + 1) < due_at(keeper, child))
            child++;
        if (due_at(keeper, child) >= due_ms)
            break;
        put(keeper, index, keeper->heap[child]);
        index = child;
    }
    put(keeper, index, row);
}

void keeper_heap_put(struct keeper *keeper, uint32_t row)
{
    if (keeper_at(keeper, row)->heap == 0) {
        if (keeper->heap_count == keeper->heap_capacity) {
            keeper->heap_capacity = keeper->heap_capacity == 0 ? 64 : keeper->heap_capacity * 2;
            keeper->heap = mem_resize(keeper->heap, keeper->heap_capacity * sizeof(keeper->heap[0]));
        }
        put(keeper, keeper->heap_count++, row);
    }
    sift(keeper, keeper_at(keeper, row)->heap - 1);
}

void keeper_heap_remove(struct keeper *keeper, uint32_t row)
{
    struct kept *kept = keeper_at(keeper, row);
    if (kept->heap == 0)
        return;
    uint32_t index = kept->heap - 1, last = keeper->heap[--keeper->heap_count];
    kept->heap = 0;
    if (last == row)
        return;
    put(keeper, index, last);
    sift(keeper, index);
}
