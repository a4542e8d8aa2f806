/*
 * wake.c: the state of a step that waits, before it goes on. It may name facts (worker/payload.c); these are fetched first, and until
 * they are there a record that needs the state is not ready, and a timer not due.
 */
#include "worker/base/mem.h"
#include "worker/inbox.h"

struct waking {
    struct waking *next;
    struct inbox *inbox;
    struct arena *arena;
    struct str id, branch, event; /* what waited when it was begun */
    struct woken woken;
    struct resolve *resolve; /* being fetched; NULL = `woken` is known */
};

void wake_free(struct waking *waking)
{
    struct waking **link = &waking->inbox->waking;
    while (*link != waking)
        link = &(*link)->next;
    *link = waking->next;
    waking->inbox->waking_count--;
    arena_free(waking->arena);
    mem_free(waking);
}

void wake_drop(struct inbox *inbox)
{
    while (inbox->waking != NULL) {
        if (inbox->waking->resolve != NULL)
            payload_cancel(inbox->waking->resolve);
        wake_free(inbox->waking);
    }
}

static void decode(struct waking *waking)
{
    struct record *record = ARENA_NEW(waking->arena, struct record);
    struct error *error = &waking->woken.error;
    if (!record_decode(waking->event, waking->arena, record, error))
        return;
    const char *unsound = record->type == RECORD_STEP_READY ? run_unsound(&record->is.step_ready) : NULL;
    if (record->type != RECORD_STEP_READY)
        error_set(error, ERROR_POISON, "a parked step must hold a StepReady, not a %s", record_name(record->type));
    else if (unsound != NULL)
        error_set(error, ERROR_POISON, "its %s is out of all bounds", unsound);
    else
        waking->woken.run = &record->is.step_ready;
}

/* The next turn of keep_tick finds it ready, or due again. */
static void on_whole(void *context, const struct error *lost)
{
    struct waking *waking = context;
    struct keeper *keeper = waking->inbox->keeper;
    bool later = waking->resolve != NULL;
    waking->resolve = NULL;
    if (lost != NULL)
        waking->woken.error = *lost;
    if (!later)
        return;
    uint32_t row = keeper_parked(keeper, waking->id, waking->branch);
    if (row != 0)
        keeper_aside(keeper, row, false);
    else
        wake_free(waking);
}

/* Whose state was not asked for in the end: something else waits there now. */
static void drop_stale(struct inbox *inbox, const struct step_parked *parked)
{
    for (struct waking *waking = inbox->waking, *next; waking != NULL; waking = next) {
        next = waking->next;
        if (waking->resolve == NULL && str_equal(waking->id, parked->run) && str_equal(waking->branch, parked->branch))
            wake_free(waking);
    }
}

static struct waking *begin(struct worker *worker, struct inbox *inbox, const struct step_parked *parked)
{
    struct waking *waking = mem_new(sizeof(*waking));
    struct arena *arena = arena_new();
    drop_stale(inbox, parked);
    *waking = (struct waking){
        .next = inbox->waking,
        .inbox = inbox,
        .arena = arena,
        .id = arena_str(arena, parked->run),
        .branch = arena_str(arena, parked->branch),
        .event = arena_str(arena, parked->event),
    };
    inbox->waking = waking;
    inbox->waking_count++;
    decode(waking);
    if (waking->woken.run != NULL)
        waking->resolve = payload_resolve(worker->payloads, waking->woken.run, arena, on_whole, waking);
    return waking;
}

struct waking *wake_of(const struct inbox *inbox, const struct step_parked *parked)
{
    struct waking *waking = inbox->waking;
    while (waking != NULL && !(str_equal(waking->id, parked->run) && str_equal(waking->branch, parked->branch) &&
                               str_equal(waking->event, parked->event)))
        waking = waking->next;
    return waking;
}

bool wake_ready(struct worker *worker, struct inbox *inbox, const struct step_parked *parked)
{
    struct waking *waking = wake_of(inbox, parked);
    if (waking == NULL)
        waking = begin(worker, inbox, parked);
    return waking->resolve == NULL;
}

const struct woken *wake_state(const struct waking *waking)
{
    return &waking->woken;
}
