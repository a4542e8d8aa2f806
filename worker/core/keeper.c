/*
 * keeper.c: what waits. The rows of a run hang together in a ring: the run, its parked steps, and back to the run.
 */
#include <string.h>

#include "worker/base/json.h"
#include "worker/base/mem.h"
#include "worker/contract/contract.h"
#include "worker/core/keeper_internal.h"

#define SIZE_MAX_KEPT 0x7FFFFF /* of struct kept; it only says how much is read */

struct keeper *keeper_new(int64_t ended_keep_ms, struct keeper_bodies *bodies)
{
    struct keeper *keeper = mem_new(sizeof(*keeper));
    keeper->ended_keep_ms = ended_keep_ms;
    keeper->bodies = bodies;
    return keeper;
}

void keeper_free(struct keeper *keeper)
{
    if (keeper == NULL)
        return;
    for (uint32_t row = 1; row <= keeper->rows_used; row++)
        keeper_body_drop(keeper, keeper_at(keeper, row));
    keeper_table_free(keeper);
    mem_free(keeper);
}

/* ---- look-ups ---- */

static struct hash_id run_id(struct str run)
{
    return hash_id(&run, 1);
}

static struct hash_id parked_id(struct str run, struct str branch)
{
    struct str parts[] = {run, branch};
    return hash_id(parts, 2);
}

uint32_t keeper_run(const struct keeper *keeper, struct str run)
{
    struct hash_id id = run_id(run);
    uint32_t row = keeper_find(keeper, &id);
    return row != 0 && keeper_at(keeper, row)->known ? row : 0;
}

uint32_t keeper_parked(const struct keeper *keeper, struct str run, struct str branch)
{
    struct hash_id id = parked_id(run, branch);
    return keeper_find(keeper, &id);
}

uint32_t keeper_parked_first(const struct keeper *keeper, uint32_t run)
{
    return run != 0 ? keeper_at(keeper, run)->link : 0;
}

uint32_t keeper_parked_next(const struct keeper *keeper, uint32_t row)
{
    uint32_t next = keeper_at(keeper, row)->link;
    return keeper_at(keeper, next)->is_run ? 0 : next;
}

static bool is_open(const struct kept *kept)
{
    return kept->known && !kept->ended;
}

bool keeper_is_open(const struct keeper *keeper, uint32_t run)
{
    return run != 0 && is_open(keeper_at(keeper, run));
}

size_t keeper_open_count(const struct keeper *keeper)
{
    return keeper->open_count;
}

size_t keeper_parked_count(const struct keeper *keeper)
{
    return keeper->parked_count;
}

static struct kept *run_of(const struct keeper *keeper, uint32_t row)
{
    struct kept *kept = keeper_at(keeper, row);
    while (!kept->is_run)
        kept = keeper_at(keeper, kept->link);
    return kept;
}

/* ---- the table ---- */

/* A parked step is woken while its run is open: never after its end, or when that is forgotten. What is being read comes back. */
static void schedule(struct keeper *keeper, uint32_t row)
{
    const struct kept *kept = keeper_at(keeper, row);
    if (kept->due_ms == KEEPER_NEVER || kept->asked || kept->aside || (!kept->is_run && !is_open(run_of(keeper, row))))
        keeper_heap_remove(keeper, row);
    else
        keeper_heap_put(keeper, row);
}

static void schedule_all_of(struct keeper *keeper, uint32_t run)
{
    schedule(keeper, run);
    for (uint32_t row = keeper_at(keeper, run)->link; row != 0; row = keeper_parked_next(keeper, row))
        schedule(keeper, row);
}

static uint32_t add_run(struct keeper *keeper, struct str run)
{
    struct hash_id id = run_id(run);
    uint32_t row = keeper_find(keeper, &id);
    if (row != 0)
        return row;
    row = keeper_add(keeper, &id);
    keeper_at(keeper, row)->is_run = true;
    return row;
}

/* A new body, or none: what was asked for is not wanted any more. */
static struct kept *renew(struct keeper *keeper, uint32_t row, size_t size)
{
    struct kept *kept = keeper_at(keeper, row);
    keeper_body_drop(keeper, kept);
    kept->asked = kept->aside = false;
    kept->size = (uint32_t)(size < SIZE_MAX_KEPT ? size : SIZE_MAX_KEPT) & SIZE_MAX_KEPT;
    return kept;
}

static struct kept *set_run(struct keeper *keeper, const struct run_row *row, size_t size)
{
    uint32_t number = add_run(keeper, row->run);
    struct kept *kept = renew(keeper, number, size);
    keeper->open_count -= is_open(kept);
    kept->known = true;
    kept->ended = row->ended_at_ms > 0;
    kept->status = (unsigned)row->status & 7;
    kept->due_ms = kept->ended ? row->ended_at_ms + keeper->ended_keep_ms : KEEPER_NEVER;
    keeper->open_count += is_open(kept);
    schedule_all_of(keeper, number);
    return kept;
}

static int64_t earlier(int64_t a_ms, int64_t b_ms)
{
    return b_ms > 0 && b_ms < a_ms ? b_ms : a_ms;
}

static struct kept *set_parked(struct keeper *keeper, const struct step_parked *parked, size_t size)
{
    struct hash_id id = parked_id(parked->run, parked->branch);
    uint32_t number = keeper_find(keeper, &id);
    if (number == 0) {
        uint32_t run = add_run(keeper, parked->run);
        number = keeper_add(keeper, &id);
        struct kept *first = keeper_at(keeper, run);
        keeper_at(keeper, number)->link = first->link != 0 ? first->link : run;
        first->link = number;
        keeper->parked_count++;
    }
    struct kept *kept = renew(keeper, number, size);
    kept->due_ms = earlier(earlier(KEEPER_NEVER, parked->due_at_ms), parked->run_deadline_at_ms);
    schedule(keeper, number);
    return kept;
}

static void remove_row(struct keeper *keeper, uint32_t row)
{
    keeper_heap_remove(keeper, row);
    keeper_body_drop(keeper, keeper_at(keeper, row));
    keeper_remove(keeper, row);
}

static void unset_run(struct keeper *keeper, uint32_t row)
{
    struct kept *kept = renew(keeper, row, 0);
    keeper->open_count -= is_open(kept);
    kept->known = kept->ended = false;
    kept->due_ms = KEEPER_NEVER;
    if (kept->link == 0)
        remove_row(keeper, row);
    else
        schedule_all_of(keeper, row);
}

static void unset_parked(struct keeper *keeper, uint32_t row)
{
    uint32_t run = row;
    while (!keeper_at(keeper, run)->is_run)
        run = keeper_at(keeper, run)->link;
    uint32_t before = run, after = keeper_at(keeper, row)->link;
    while (keeper_at(keeper, before)->link != row)
        before = keeper_at(keeper, before)->link;
    keeper_at(keeper, before)->link = before == run && after == run ? 0 : after;
    remove_row(keeper, row);
    keeper->parked_count--;
    if (!keeper_at(keeper, run)->known && keeper_at(keeper, run)->link == 0)
        remove_row(keeper, run);
}

/* ---- rebuild ---- */

void keeper_load_run(struct keeper *keeper, const struct run_row *row, int64_t offset, size_t size)
{
    set_run(keeper, row, size)->row.offset = offset;
}

void keeper_load_parked(struct keeper *keeper, const struct step_parked *parked, int64_t offset, size_t size)
{
    set_parked(keeper, parked, size)->row.offset = offset;
}

/* RUN/BRANCH; a branch may have a slash, a run has none. */
static bool split(struct str key, struct str *run, struct str *branch)
{
    const char *slash = key.size > 0 ? memchr(key.data, '/', key.size) : NULL;
    if (slash == NULL)
        return false;
    *run = (struct str){key.data, (size_t)(slash - key.data)};
    *branch = (struct str){slash + 1, key.size - run->size - 1};
    return true;
}

void keeper_load_tombstone(struct keeper *keeper, struct str key)
{
    struct str run, branch;
    if (split(key, &run, &branch))
        keeper_release(keeper, run, branch);
    else if (key.size > 0)
        keeper_forget(keeper, key);
}

/* ---- bodies ---- */

struct str keeper_body(struct keeper *keeper, uint32_t row)
{
    const struct kept *kept = keeper_at(keeper, row);
    if (!kept->in_memory)
        return STR_NONE;
    keeper_body_use(keeper, kept->row.body);
    return (struct str){kept->row.body->bytes, kept->row.body->size};
}

size_t keeper_size(const struct keeper *keeper, uint32_t row)
{
    return keeper_at(keeper, row)->size;
}

int64_t keeper_ask(struct keeper *keeper, uint32_t row)
{
    struct kept *kept = keeper_at(keeper, row);
    if (kept->in_memory || kept->asked)
        return -1;
    kept->asked = true;
    schedule(keeper, row);
    return kept->row.offset;
}

enum keeper_recall keeper_recalled(struct keeper *keeper, uint32_t row, int64_t offset, struct str key, struct str body)
{
    struct kept *kept = row <= keeper->rows_used ? keeper_at(keeper, row) : NULL;
    if (kept == NULL || !kept->asked || kept->row.offset != offset)
        return RECALL_UNWANTED;
    struct str run = key, branch;
    struct hash_id id = split(key, &run, &branch) ? parked_id(run, branch) : run_id(run);
    if (body.data == NULL || memcmp(&id, &kept->id, sizeof(id)) != 0)
        return RECALL_WRONG;
    kept->asked = false;
    keeper_body_add(keeper, kept, body, offset);
    schedule(keeper, row);
    return RECALL_TAKEN;
}

void keeper_placed(struct keeper *keeper, int64_t ticket, int64_t offset)
{
    struct body *body = keeper->pinned.first;
    while (body != NULL && body->ticket < ticket)
        body = body->after;
    if (body != NULL && body->ticket == ticket)
        keeper_body_unpin(keeper, body, offset);
}

/* ---- changes ---- */

int64_t keeper_put_run(struct keeper *keeper, const struct run_row *row, struct str body)
{
    return keeper_body_add(keeper, set_run(keeper, row, body.size), body, -1)->ticket;
}

int64_t keeper_put_parked(struct keeper *keeper, const struct step_parked *parked, struct str body)
{
    return keeper_body_add(keeper, set_parked(keeper, parked, body.size), body, -1)->ticket;
}

void keeper_release(struct keeper *keeper, struct str run, struct str branch)
{
    uint32_t row = keeper_parked(keeper, run, branch);
    if (row != 0)
        unset_parked(keeper, row);
}

void keeper_forget(struct keeper *keeper, struct str run)
{
    uint32_t row = keeper_run(keeper, run);
    if (row != 0)
        unset_run(keeper, row);
}

void keeper_keep(struct keeper *keeper, uint32_t row, int64_t until_ms)
{
    struct kept *kept = keeper_at(keeper, row);
    if (kept->due_ms < until_ms)
        kept->due_ms = until_ms;
    schedule(keeper, row);
}

void keeper_aside(struct keeper *keeper, uint32_t row, bool aside)
{
    keeper_at(keeper, row)->aside = aside;
    schedule(keeper, row);
}

struct str keeper_parked_key(struct arena *arena, struct str run, struct str branch)
{
    return arena_printf(arena, "%.*s/%.*s", STR_ARG(run), STR_ARG(branch));
}

struct run_row keeper_ended(const struct run_row *open, const struct run_closed *closed)
{
    struct run_row row = *open;
    row.status = closed->status;
    row.reason = closed->reason;
    row.output = closed->output;
    row.ended_at_ms = closed->at_ms;
    return row;
}

/* ---- verdicts ---- */

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
                                        const struct run_row *known, struct str input_hash, int64_t now_ms)
{
    if (known != NULL && str_equal(known->run, request->run) && str_equal(known->input_hash, input_hash))
        return START_SAME;
    if (keeper_run(keeper, request->run) != 0)
        return START_CONFLICT;
    int64_t made_ms = uuid7_ms(request->run);
    /* It may have run and been forgotten: an old id could run twice. */
    return made_ms >= 0 && made_ms < now_ms - keeper->ended_keep_ms ? START_TOO_OLD : START_NEW;
}

static const char *no_such_run(const struct keeper *keeper, struct str run, struct arena *arena)
{
    uint32_t row = keeper_run(keeper, run);
    if (row == 0)
        return arena_printf(arena, "there is no run %.*s", STR_ARG(run)).data;
    const struct kept *kept = keeper_at(keeper, row);
    if (kept->ended)
        return arena_printf(arena, "the run has ended: %s", run_status_name((enum run_status)kept->status)).data;
    return NULL;
}

const char *keeper_refuse_decision(const struct keeper *keeper, const struct decision *decision,
                                   const struct step_parked *parked, struct arena *arena)
{
    const char *refused = no_such_run(keeper, decision->run, arena);
    if (refused != NULL)
        return refused;
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

const char *keeper_refuse_resolution(const struct keeper *keeper, const struct resolved *resolved,
                                     const struct step_parked *parked, struct arena *arena)
{
    const char *refused = no_such_run(keeper, resolved->run, arena);
    if (refused != NULL)
        return refused;
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
    return keeper->heap_count > 0 ? keeper_at(keeper, keeper->heap[0])->due_ms : KEEPER_NEVER;
}

uint32_t keeper_next_due(const struct keeper *keeper, int64_t now_ms)
{
    return keeper_due_ms(keeper) <= now_ms ? keeper->heap[0] : 0;
}

bool keeper_row_ended(const struct keeper *keeper, uint32_t row)
{
    return keeper_at(keeper, row)->ended;
}

bool keeper_past_deadline(const struct step_parked *parked, int64_t now_ms)
{
    return parked->run_deadline_at_ms > 0 && parked->run_deadline_at_ms <= now_ms;
}
