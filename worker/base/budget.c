#include "worker/base/budget.h"

#include <stdatomic.h>

/* Of one partition. More ahead brings nothing, and all of it may be handed over at once. */
#define FETCH_MAX ((size_t)8 << 20)
#define FETCH_MIN ((size_t)64 << 10)
#define CACHE_MAX ((size_t)64 << 20)

static _Atomic int64_t size, used[BUDGET_USES];

void budget_open(int64_t bytes)
{
    atomic_store(&size, bytes);
}

int64_t budget_size(void)
{
    return atomic_load_explicit(&size, memory_order_relaxed);
}

size_t budget_fetch(size_t partitions)
{
    size_t share = (size_t)budget_size() / 16 / (partitions > 0 ? partitions : 1);
    if (budget_size() == 0 || share > FETCH_MAX)
        return FETCH_MAX;
    return share < FETCH_MIN ? FETCH_MIN : share;
}

size_t budget_cache(void)
{
    size_t share = (size_t)budget_size() / 16;
    return share == 0 || share > CACHE_MAX ? CACHE_MAX : share;
}

int64_t budget_used(enum budget_use use)
{
    return atomic_load_explicit(&used[use], memory_order_relaxed);
}

const char *budget_use_name(enum budget_use use)
{
    static const char *const names[] = {"events", "steps", "answers", "ledger", "commits"};
    return names[use];
}

void budget_take(enum budget_use use, size_t bytes)
{
    atomic_fetch_add_explicit(&used[use], (int64_t)bytes, memory_order_relaxed);
}

void budget_give(enum budget_use use, size_t bytes)
{
    atomic_fetch_sub_explicit(&used[use], (int64_t)bytes, memory_order_relaxed);
}

bool budget_admits(enum budget_stage stage, int64_t more)
{
    static const struct {
        int all, events;
    } eighths[] = {[BUDGET_KEEP] = {4, 1}, {4, 2}, {4, 8}, {6, 8}, {6, 8}, {7, 8}};
    int64_t limit = budget_size() / 8, total = more;
    for (enum budget_use use = 0; use < BUDGET_USES; use++)
        total += budget_used(use);
    if (limit == 0)
        return true;
    return total <= limit * eighths[stage].all && budget_used(BUDGET_EVENTS) <= limit * eighths[stage].events;
}
