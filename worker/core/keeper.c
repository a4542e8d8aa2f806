/*
 * keeper.c: one entry a run: its row, and its parked steps. A binary heap orders the entries by what is due next.
 */
#include "worker/core/keeper.h"

#include <assert.h>
#include <search.h>
#include <stddef.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/base/mem.h"
#include "worker/contract/contract.h"

#define NEVER INT64_MAX

struct kept {
    struct str run; /* owned: the entry's own copy of the id */
    struct run_row *row;
    struct step_parked **parked; /* one a branch */
    size_t parked_count;
    int64_t due_ms;
    int64_t keep_until_ms; /* it is not due before that; 0 = nothing keeps it */
    size_t heap_index;     /* + 1; 0 = not in the heap */
};

struct keeper {
    int64_t ended_keep_ms;
    void *entries; /* tsearch(3) tree of struct kept, by run id */
    struct kept **heap;
    size_t heap_count, heap_capacity;
    size_t open_count, parked_count;
};

/* ---- copies in one block: the struct, then its texts ---- */

static const size_t row_texts[] = {
    offsetof(struct run_row, run),          offsetof(struct run_row, contract), offsetof(struct run_row, contract_hash),
    offsetof(struct run_row, input_hash),   offsetof(struct run_row, reason),   offsetof(struct run_row, output),
    offsetof(struct run_row, requested_by),
};
static const size_t parked_texts[] = {
    offsetof(struct step_parked, run),           offsetof(struct step_parked, branch),
    offsetof(struct step_parked, step),          offsetof(struct step_parked, reason),
    offsetof(struct step_parked, guards),        offsetof(struct step_parked, tool),
    offsetof(struct step_parked, arguments),     offsetof(struct step_parked, args_hash),
    offsetof(struct step_parked, key),           offsetof(struct step_parked, contract),
    offsetof(struct step_parked, contract_hash), offsetof(struct step_parked, event),
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void *clone(const void *source, size_t size, const size_t *texts, size_t count)
{
    size_t total = size;
    for (size_t i = 0; i < count; i++)
        total += ((const struct str *)(const void *)((const char *)source + texts[i]))->size + 1;
    char *copy = mem_new(total);
    memcpy(copy, source, size);
    char *tail = copy + size;
    for (size_t i = 0; i < count; i++) {
        struct str *text = (struct str *)(void *)(copy + texts[i]);
        if (text->data == NULL)
            continue;
        memcpy(tail, text->data, text->size); /* the NUL is there: mem_new gives zeroes */
        text->data = tail;
        tail += text->size + 1;
    }
    return copy;
}

/* ---- the heap ---- */

static void heap_put(struct keeper *keeper, size_t index, struct kept *entry)
{
    keeper->heap[index] = entry;
    entry->heap_index = index + 1;
}

static void heap_sift(struct keeper *keeper, size_t index)
{
    struct kept *entry = keeper->heap[index];
    while (index > 0 && keeper->heap[(index - 1) / 2]->due_ms > entry->due_ms) {
        heap_put(keeper, index, keeper->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (size_t child = 2 * index + 1; child < keeper->heap_count; child = 2 * index + 1) {
        if (child + 1 < keeper->heap_count && keeper->heap[child + 1]->due_ms < keeper->heap[child]->due_ms)
            child++;
        if (keeper->heap[child]->due_ms >= entry->due_ms)
            break;
        heap_put(keeper, index, keeper->heap[child]);
        index = child;
    }
    heap_put(keeper, index, entry);
}

static void heap_remove(struct keeper *keeper, struct kept *entry)
{
    if (entry->heap_index == 0)
        return;
    size_t index = entry->heap_index - 1;
    entry->heap_index = 0;
    struct kept *last = keeper->heap[--keeper->heap_count];
    if (last == entry)
        return;
    heap_put(keeper, index, last);
    heap_sift(keeper, index);
}

static bool is_open(const struct kept *entry)
{
    return entry->row != NULL && entry->row->ended_at_ms == 0;
}

/* When something must be done about this run; an open run that is not waiting looks after its own deadline. */
static int64_t due_of(const struct keeper *keeper, const struct kept *entry)
{
    if (entry->row != NULL && entry->row->ended_at_ms > 0) {
        int64_t forget_ms = entry->row->ended_at_ms + keeper->ended_keep_ms;
        return forget_ms > entry->keep_until_ms ? forget_ms : entry->keep_until_ms;
    }
    int64_t due = NEVER;
    for (size_t i = 0; i < entry->parked_count; i++) {
        const struct step_parked *parked = entry->parked[i];
        if (parked->due_at_ms > 0 && parked->due_at_ms < due)
            due = parked->due_at_ms;
        if (parked->run_deadline_at_ms > 0 && parked->run_deadline_at_ms < due)
            due = parked->run_deadline_at_ms;
    }
    return due > entry->keep_until_ms ? due : entry->keep_until_ms;
}

static void reschedule(struct keeper *keeper, struct kept *entry)
{
    entry->due_ms = due_of(keeper, entry);
    if (entry->due_ms == NEVER) {
        heap_remove(keeper, entry);
        return;
    }
    if (entry->heap_index == 0) {
        if (keeper->heap_count == keeper->heap_capacity) {
            keeper->heap_capacity = keeper->heap_capacity == 0 ? 64 : keeper->heap_capacity * 2;
            keeper->heap = mem_resize(keeper->heap, keeper->heap_capacity * sizeof(keeper->heap[0]));
        }
        heap_put(keeper, keeper->heap_count++, entry);
    }
    heap_sift(keeper, entry->heap_index - 1);
}

/* ---- the table ---- */

static int compare_entries(const void *a, const void *b)
{
    return str_compare(((const struct kept *)a)->run, ((const struct kept *)b)->run);
}

static struct kept *find(const struct keeper *keeper, struct str run)
{
    struct kept wanted = {.run = run};
    void *node = tfind(&wanted, &keeper->entries, compare_entries);
    return node != NULL ? *(struct kept **)node : NULL;
}

static struct kept *find_or_add(struct keeper *keeper, struct str run)
{
    struct kept *entry = find(keeper, run);
    if (entry != NULL)
        return entry;
    entry = mem_new(sizeof(*entry) + run.size + 1);
    memcpy(entry + 1, run.data, run.size);
    entry->run = (struct str){(const char *)(entry + 1), run.size};
    tsearch(entry, &keeper->entries, compare_entries);
    return entry;
}

static void set_row(struct keeper *keeper, struct kept *entry, const struct run_row *row)
{
    keeper->open_count -= is_open(entry) ? 1 : 0;
    mem_free(entry->row);
    entry->row = NULL;
    if (row != NULL) {
        struct run_row kept = *row;
        kept.output = STR_NONE;
        entry->row = clone(&kept, sizeof(kept), row_texts, COUNT(row_texts));
    }
    keeper->open_count += is_open(entry) ? 1 : 0;
}

static size_t parked_index(const struct kept *entry, struct str branch)
{
    size_t i = 0;
    while (i < entry->parked_count && !str_equal(entry->parked[i]->branch, branch))
        i++;
    return i;
}

static void set_parked(struct keeper *keeper, struct kept *entry, struct str branch, const struct step_parked *parked)
{
    size_t i = parked_index(entry, branch);
    struct step_parked *copy = parked != NULL ? clone(parked, sizeof(*parked), parked_texts, COUNT(parked_texts))
                                              : NULL;
    if (i < entry->parked_count) {
        mem_free(entry->parked[i]);
        entry->parked[i] = entry->parked[--entry->parked_count];
        keeper->parked_count--;
    }
    if (copy != NULL) {
        entry->parked = mem_resize(entry->parked, (entry->parked_count + 1) * sizeof(entry->parked[0]));
        entry->parked[entry->parked_count++] = copy;
        keeper->parked_count++;
    }
}

static void free_entry(void *memory)
{
    struct kept *entry = memory;
    for (size_t i = 0; i < entry->parked_count; i++)
        mem_free(entry->parked[i]);
    mem_free(entry->parked);
    mem_free(entry->row);
    mem_free(entry);
}

static void settle(struct keeper *keeper, struct kept *entry)
{
    if (entry->row != NULL || entry->parked_count > 0) {
        reschedule(keeper, entry);
        return;
    }
    heap_remove(keeper, entry);
    tdelete(entry, &keeper->entries, compare_entries);
    free_entry(entry);
}

struct keeper *keeper_new(int64_t ended_keep_ms)
{
    struct keeper *keeper = mem_new(sizeof(*keeper));
    keeper->ended_keep_ms = ended_keep_ms;
    return keeper;
}

void keeper_free(struct keeper *keeper)
{
    if (keeper == NULL)
        return;
    tdestroy(keeper->entries, free_entry);
    mem_free(keeper->heap);
    mem_free(keeper);
}

/* ---- rebuild ---- */

void keeper_load_run(struct keeper *keeper, const struct run_row *row)
{
    struct kept *entry = find_or_add(keeper, row->run);
    set_row(keeper, entry, row);
    settle(keeper, entry);
}

void keeper_load_parked(struct keeper *keeper, const struct step_parked *parked)
{
    struct kept *entry = find_or_add(keeper, parked->run);
    set_parked(keeper, entry, parked->branch, parked);
    settle(keeper, entry);
}

void keeper_load_tombstone(struct keeper *keeper, struct str key)
{
    if (key.size == 0)
        return;
    const char *slash = memchr(key.data, '/', key.size);
    struct str run = {key.data, slash != NULL ? (size_t)(slash - key.data) : key.size};
    struct kept *entry = find(keeper, run);
    if (entry == NULL)
        return;
    if (slash == NULL)
        set_row(keeper, entry, NULL);
    else
        set_parked(keeper, entry, (struct str){slash + 1, key.size - run.size - 1}, NULL);
    settle(keeper, entry);
}

/* ---- look-ups ---- */

const struct run_row *keeper_run(const struct keeper *keeper, struct str run)
{
    const struct kept *entry = find(keeper, run);
    return entry != NULL ? entry->row : NULL;
}

const struct step_parked *keeper_parked(const struct keeper *keeper, struct str run, struct str branch)
{
    const struct kept *entry = find(keeper, run);
    size_t i = entry != NULL ? parked_index(entry, branch) : 0;
    return entry != NULL && i < entry->parked_count ? entry->parked[i] : NULL;
}

const struct step_parked *keeper_parked_step(const struct keeper *keeper, struct str run, struct str step)
{
    const struct kept *entry = find(keeper, run);
    for (size_t i = 0; entry != NULL && i < entry->parked_count; i++)
        if (str_equal(entry->parked[i]->step, step))
            return entry->parked[i];
    return NULL;
}

size_t keeper_open_count(const struct keeper *keeper)
{
    return keeper->open_count;
}

size_t keeper_parked_count(const struct keeper *keeper)
{
    return keeper->parked_count;
}

/* ---- changes ---- */

/* When a UUIDv7 (RFC 9562) was made, or -1 when it is none. */
static int64_t uuid7_ms(struct str id)
{
    if (id.size != 36 || id.data[14] != '7' || id.data[8] != '-' || id.data[13] != '-')
        return -1;
    int64_t ms = 0;
    for (size_t i = 0; i < 13; i++) {
        char c = (char)(id.data[i] | 0x20); /* lower case; digits stay what they are */
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (i == 8)
            continue;
        if (digit < 0)
            return -1;
        ms = ms * 16 + digit;
    }
    return ms;
}

enum start_verdict keeper_start_verdict(const struct keeper *keeper, const struct run_requested *request,
                                        struct str input_hash, int64_t now_ms)
{
    const struct run_row *row = keeper_run(keeper, request->run);
    if (row != NULL)
        return str_equal(row->input_hash, input_hash) ? START_SAME : START_CONFLICT;
    int64_t made_ms = uuid7_ms(request->run);
    /* It may have run and been forgotten: an old id could run twice. */
    return made_ms >= 0 && made_ms < now_ms - keeper->ended_keep_ms ? START_TOO_OLD : START_NEW;
}

static struct str row_key(struct arena *arena, struct str run)
{
    return arena_str(arena, run);
}

static struct str parked_key(struct arena *arena, struct str run, struct str branch)
{
    return arena_printf(arena, "%.*s/%.*s", STR_ARG(run), STR_ARG(branch));
}

void keeper_open(struct keeper *keeper, const struct run_row *row, struct arena *arena, struct waiting_row *out)
{
    keeper_load_run(keeper, row);
    *out = (struct waiting_row){.key = row_key(arena, row->run), .run = row};
}

void keeper_close(struct keeper *keeper, const struct run_closed *closed, struct arena *arena, struct waiting_row *out)
{
    struct run_row *row = ARENA_NEW(arena, struct run_row);
    const struct run_row *open = keeper_run(keeper, closed->run);
    if (open != NULL)
        *row = *open; /* its texts are copied below: keeper_load_run frees the old row */
    row->run = arena_str(arena, closed->run);
    row->contract = arena_str(arena, row->contract);
    row->contract_hash = arena_str(arena, row->contract_hash);
    row->input_hash = arena_str(arena, row->input_hash);
    row->requested_by = arena_str(arena, row->requested_by);
    row->status = closed->status;
    row->reason = closed->reason;
    row->output = closed->output;
    row->ended_at_ms = closed->at_ms;
    keeper_load_run(keeper, row);
    *out = (struct waiting_row){.key = row_key(arena, row->run), .run = row};
}

void keeper_park(struct keeper *keeper, const struct step_parked *parked, struct arena *arena, struct waiting_row *out)
{
    keeper_load_parked(keeper, parked);
    *out = (struct waiting_row){.key = parked_key(arena, parked->run, parked->branch), .parked = parked};
}

void keeper_release(struct keeper *keeper, struct str run, struct str branch, struct arena *arena,
                    struct waiting_row *out)
{
    struct kept *entry = find(keeper, run);
    *out = (struct waiting_row){.key = parked_key(arena, run, branch)};
    if (entry == NULL)
        return;
    set_parked(keeper, entry, branch, NULL);
    settle(keeper, entry);
}

void keeper_keep(struct keeper *keeper, struct str run, int64_t until_ms)
{
    struct kept *entry = find(keeper, run);
    if (entry == NULL)
        return;
    entry->keep_until_ms = until_ms;
    reschedule(keeper, entry);
}

void keeper_forget(struct keeper *keeper, struct str run, struct arena *arena, struct waiting_row *out)
{
    struct kept *entry = find(keeper, run);
    *out = (struct waiting_row){.key = row_key(arena, run)};
    if (entry == NULL)
        return;
    set_row(keeper, entry, NULL);
    settle(keeper, entry);
}

/* ---- people ---- */

static const char *no_such_run(const struct keeper *keeper, struct str run, struct arena *arena)
{
    const struct run_row *row = keeper_run(keeper, run);
    if (row == NULL)
        return arena_printf(arena, "there is no run %.*s", STR_ARG(run)).data;
    if (row->ended_at_ms > 0)
        return arena_printf(arena, "the run has ended: %s", run_status_name(row->status)).data;
    return NULL;
}

const char *keeper_refuse_decision(const struct keeper *keeper, const struct decision *decision, struct arena *arena)
{
    const char *refused = no_such_run(keeper, decision->run, arena);
    if (refused != NULL)
        return refused;
    const struct step_parked *parked = keeper_parked_step(keeper, decision->run, decision->step);
    if (parked == NULL || parked->waits_for != WAITS_APPROVAL)
        return arena_printf(arena, "step %.*s waits for no approval", STR_ARG(decision->step)).data;
    if (decision->visit > 0 && decision->visit != parked->visit)
        return arena_printf(arena, "the decision is for visit %d of %.*s, visit %d waits", decision->visit,
                            STR_ARG(decision->step), parked->visit)
            .data;
    if (decision->args_hash.size > 0 && !str_equal(decision->args_hash, parked->args_hash))
        return "the decision is for other arguments than those that wait; look again with: myelin approvals";
    /* Silence was the answer when the time passed, whoever worked off what first. */
    if (parked->timeout_action == TIMEOUT_REJECT && parked->due_at_ms > 0 && decision->at_ms >= parked->due_at_ms)
        return "the decision came too late: the time of the approval had passed";
    return NULL;
}

const char *keeper_refuse_resolution(const struct keeper *keeper, const struct resolved *resolved, struct arena *arena)
{
    const char *refused = no_such_run(keeper, resolved->run, arena);
    if (refused != NULL)
        return refused;
    const struct step_parked *parked = keeper_parked_step(keeper, resolved->run, resolved->step);
    if (parked == NULL || parked->waits_for != WAITS_RESOLUTION)
        return arena_printf(arena, "step %.*s has no write in doubt that waits for a person", STR_ARG(resolved->step))
            .data;
    if (resolved->kind == RESOLUTION_NONE)
        return "the resolution says neither done, nor not done, nor failed";
    struct error error;
    json_t *result = resolved->result.data != NULL ? json_read(resolved->result, RUN_STATE_SIZE_MAX, &error) : NULL;
    if (resolved->result.data != NULL && result == NULL)
        return arena_printf(arena, "the result is no JSON: %s", error.text).data;
    json_decref(result);
    return NULL;
}

/* ---- time ---- */

int64_t keeper_due_ms(const struct keeper *keeper)
{
    return keeper->heap_count > 0 ? keeper->heap[0]->due_ms : NEVER;
}

struct keeper_due keeper_next_due(const struct keeper *keeper, int64_t now_ms)
{
    struct keeper_due due = {.kind = KEEPER_DUE_NONE};
    if (keeper_due_ms(keeper) > now_ms)
        return due;
    const struct kept *entry = keeper->heap[0];
    due.run = entry->run;
    if (entry->row != NULL && entry->row->ended_at_ms > 0) {
        due.kind = KEEPER_DUE_FORGET;
        return due;
    }
    for (size_t i = 0; due.parked == NULL && i < entry->parked_count; i++) {
        const struct step_parked *parked = entry->parked[i];
        bool deadline = parked->run_deadline_at_ms > 0 && parked->run_deadline_at_ms <= now_ms;
        if (!deadline && (parked->due_at_ms == 0 || parked->due_at_ms > now_ms))
            continue;
        due.kind = deadline ? KEEPER_DUE_DEADLINE : KEEPER_DUE_STEP;
        due.parked = parked;
    }
    assert(due.parked != NULL); /* an entry is due for a reason */
    return due;
}
