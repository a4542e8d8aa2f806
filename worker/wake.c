/*
 * wake.c: what waits, before it goes on: the parked step, and the state in it. That may name facts (worker/payload.c); these are fetched
 * first, and until they are there a record that needs the state is not ready, and a timer not due.
 */
#include "worker/base/budget.h"
#include "worker/base/mem.h"
#include "worker/inbox.h"

/* What was decoded, and what is written of it. */
#define WAKING_WEIGHT 2
#define WAKING_PART 8   /* of the budget */
#define FETCHING_MAX 16 /* of one worker at a time, as long as there is memory; then one of a partition */

struct waking {
    struct waking *next;
    struct worker *worker;
    struct inbox *inbox;
    struct arena *arena;
    size_t charged; /* taken from the budget */
    uint32_t row;   /* of the keeper, as it is: who changes it frees this */
    struct woken woken;
    struct resolve *resolve; /* being fetched; NULL = `woken` is known */
};

static void fetching(struct waking *waking, struct resolve *resolve)
{
    int32_t more = (resolve != NULL) - (waking->resolve != NULL);
    waking->resolve = resolve;
    waking->inbox->fetching += more;
    waking->worker->fetching += more;
}

void wake_free(struct waking *waking)
{
    struct inbox *inbox = waking->inbox;
    struct waking **link = &inbox->waking;
    while (*link != waking)
        link = &(*link)->next;
    *link = waking->next;
    inbox->waking_count--;
    if (inbox->awaited == waking)
        inbox->awaited = NULL;
    if (waking->resolve != NULL)
        payload_cancel(waking->resolve);
    fetching(waking, NULL);
    budget_give(BUDGET_STEPS, waking->charged);
    arena_free(waking->arena);
    mem_free(waking);
}

void wake_drop(struct inbox *inbox)
{
    while (inbox->waking != NULL)
        wake_free(inbox->waking);
}

static void decode(struct waking *waking)
{
    struct record *record = ARENA_NEW(waking->arena, struct record);
    struct error *error = &waking->woken.error;
    if (!record_decode(waking->woken.parked->event, waking->arena, record, error))
        return;
    const char *unsound = record->type == RECORD_STEP_READY ? run_unsound(&record->is.step_ready) : NULL;
    if (record->type != RECORD_STEP_READY)
        error_set(error, ERROR_POISON, "a parked step must hold a StepReady, not a %s", record_name(record->type));
    else if (unsound != NULL)
        error_set(error, ERROR_POISON, "its %s is out of all bounds", unsound);
    else
        waking->woken.run = &record->is.step_ready;
}

/* It does not wait for memory itself: wake_may is asked before, but for the first record of its partition. It counts as a part of the
 * budget at most, as a step event does, so that others can still be called. */
static bool on_more(void *context, size_t size)
{
    struct waking *waking = context;
    size_t charged = (waking->woken.parked->event.size + size) * WAKING_WEIGHT,
           most = (size_t)budget_size() / WAKING_PART;
    if (most > 0 && charged > most)
        charged = most;
    if (charged > waking->charged) {
        budget_take(BUDGET_STEPS, charged - waking->charged);
        waking->charged = charged;
    }
    return true;
}

/* The next turn of keep_tick finds it ready, or due again. */
static void on_whole(void *context, const struct error *lost)
{
    struct waking *waking = context;
    bool later = waking->resolve != NULL;
    fetching(waking, NULL);
    if (lost != NULL)
        waking->woken.error = *lost;
    if (later)
        keeper_aside(waking->inbox->keeper, waking->row, false);
}

struct waking *wake_begin(struct worker *worker, struct inbox *inbox, uint32_t row, const struct step_parked *parked,
                          struct arena *arena)
{
    struct waking *waking = mem_new(sizeof(*waking));
    *waking = (struct waking){.next = inbox->waking,
                              .worker = worker,
                              .inbox = inbox,
                              .arena = arena,
                              .row = row,
                              .woken = {.parked = parked}};
    inbox->waking = waking;
    inbox->waking_count++;
    decode(waking);
    if (waking->woken.run != NULL)
        fetching(waking, payload_resolve(worker->payloads, waking->woken.run, arena, on_more, on_whole, waking));
    return waking;
}

bool wake_may(const struct worker *worker, const struct inbox *inbox)
{
    return inbox->fetching == 0 || (worker->fetching < FETCHING_MAX && budget_admits(BUDGET_BEGIN, 0));
}

struct waking *wake_of(const struct inbox *inbox, uint32_t row)
{
    struct waking *waking = inbox->waking;
    while (waking != NULL && waking->row != row)
        waking = waking->next;
    return waking;
}

bool wake_ready(const struct waking *waking)
{
    return waking->resolve == NULL;
}

const struct woken *wake_state(const struct waking *waking)
{
    return &waking->woken;
}
