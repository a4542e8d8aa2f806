#include "worker/io/log_block.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "worker/base/budget.h"

struct log_block {
    atomic_int holders;
    size_t size;            /* of all of it */
    struct log_event event; /* the bytes behind it */
};

/* One is in memory, and counted, with each record, and copied with it: what few need lies behind it. */
_Static_assert(sizeof(struct log_event) <= 160, "an event is small");

static struct log_block *block_of(struct log_event *event)
{
    return (struct log_block *)((char *)event - offsetof(struct log_block, event));
}

struct log_event *log_block_new(size_t extra)
{
    struct log_block *block = malloc(sizeof *block + extra);
    if (block == NULL)
        abort();
    block->event = (struct log_event){.offset = 0};
    block->size = sizeof *block + extra;
    budget_take(BUDGET_EVENTS, block->size);
    atomic_init(&block->holders, 1);
    return &block->event;
}

struct log_event *log_block_hold(struct log_event *event)
{
    atomic_fetch_add_explicit(&block_of(event)->holders, 1, memory_order_relaxed);
    return event;
}

void log_block_drop(struct log_event *event)
{
    if (event == NULL || atomic_fetch_sub_explicit(&block_of(event)->holders, 1, memory_order_acq_rel) > 1)
        return;
    budget_give(BUDGET_EVENTS, block_of(event)->size);
    free(block_of(event));
}
