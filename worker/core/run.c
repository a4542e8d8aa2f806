#include "worker/core/run.h"

#include <assert.h>
#include <string.h>

#include "worker/base/hash.h"

const char *run_status_name(enum run_status status)
{
    static const char *const names[] = {"running", "waiting", "paused", "completed", "failed", "cancelled"};
    assert((size_t)status < sizeof(names) / sizeof(names[0]));
    return names[status];
}

const char *step_status_name(enum step_status status)
{
    static const char *const names[] = {"pending", "running", "waiting", "completed", "failed", "refused", "in_doubt"};
    assert((size_t)status < sizeof(names) / sizeof(names[0]));
    return names[status];
}

const struct step_state *run_step(const struct run *run, struct str name)
{
    for (size_t i = 0; i < run->steps_count; i++)
        if (str_equal(run->steps[i].name, name))
            return &run->steps[i];
    return NULL;
}

const struct approval *run_approval(const struct run *run, struct str step)
{
    for (size_t i = 0; i < run->approvals_count; i++)
        if (str_equal(run->approvals[i].step, step))
            return &run->approvals[i];
    return NULL;
}

/* Far above every limit of a contract, and far enough below what the types hold that nothing we add overflows. */
#define COUNT_MAX 1000000000
#define SUM_MAX ((int64_t)1 << 60)
#define TIME_MS_MAX ((int64_t)1 << 53)

static bool count_sound(int32_t count)
{
    return count >= 0 && count <= COUNT_MAX;
}

static bool sum_sound(int64_t sum)
{
    return sum >= 0 && sum <= SUM_MAX;
}

bool run_id_sound(struct str id)
{
    if (id.size < 1 || id.size > RUN_ID_SIZE_MAX)
        return false;
    for (size_t i = 0; i < id.size; i++)
        if (id.data[i] == '\0' ||
            strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", id.data[i]) == NULL)
            return false;
    return true;
}

bool run_time_sound(int64_t ms)
{
    return ms >= 0 && ms <= TIME_MS_MAX;
}

static bool usage_sound(const struct usage *usage)
{
    return usage->steps >= -1 && usage->steps <= COUNT_MAX && count_sound(usage->model_calls) &&
           count_sound(usage->tool_calls) && count_sound(usage->writes) && count_sound(usage->retries) &&
           count_sound(usage->refusals) && sum_sound(usage->tokens_in) && sum_sound(usage->tokens_out) &&
           count_sound(usage->tokens_unknown) && sum_sound(usage->micro_usd);
}

bool reference_sound(const struct reference *reference)
{
    return reference == NULL || (reference->sha256.size == REFERENCE_HASH_SIZE && reference->partition >= 0 &&
                                 reference->offset >= 0 && reference->size > 0);
}

static bool references_sound(const struct run *run)
{
    bool sound = reference_sound(run->input_at) && reference_sound(run->at.chain);
    for (size_t i = 0; i < run->steps_count && sound; i++)
        sound = reference_sound(run->steps[i].output_at);
    return sound;
}

const char *run_unsound(const struct run *run)
{
    const struct cursor *at = &run->at;
    if (!references_sound(run))
        return "reference";
    if (!count_sound(at->chained) || (at->chained > 0) != (at->chain != NULL))
        return "chain";
    for (size_t i = 0; i < run->steps_count; i++)
        if (!count_sound(run->steps[i].visits))
            return "steps.visits";
    if (!run_time_sound(run->started_at_ms) || !run_time_sound(run->deadline_at_ms) ||
        !run_time_sound(run->written_at_ms))
        return "time";
    if (!usage_sound(&run->usage))
        return "usage";
    if (!sum_sound(run->facts))
        return "facts";
    if (!count_sound(run->violations))
        return "violations";
    if (!count_sound(at->visit) || !count_sound(at->attempt) || !count_sound(at->turn) || !count_sound(at->call))
        return "visit, attempt, turn or call";
    if (at->judging < -1 || at->judging > COUNT_MAX)
        return "judging";
    if (!run_time_sound(at->doubt.since_ms) || !run_time_sound(at->doubt.until_ms) || !count_sound(at->doubt.probes))
        return "doubt";
    return NULL;
}

bool run_can_end(const struct run *run)
{
    return run_id_sound(run->id) && sum_sound(run->facts);
}

static void *copy_array(struct arena *arena, const void *items, size_t count, size_t size)
{
    void *copy = arena_array(arena, count + 1, size);
    if (count > 0)
        memcpy(copy, items, count * size);
    return copy;
}

struct run *run_copy(struct arena *arena, const struct run *run)
{
    struct run *copy = ARENA_NEW(arena, struct run);
    *copy = *run;
    copy->steps = copy_array(arena, run->steps, run->steps_count, sizeof(run->steps[0]));
    copy->approvals = copy_array(arena, run->approvals, run->approvals_count, sizeof(run->approvals[0]));
    copy->at.conversation = copy_array(arena, run->at.conversation, run->at.conversation_count,
                                       sizeof(run->at.conversation[0]));
    return copy;
}

struct run *run_stored(struct arena *arena, const struct run *whole)
{
    struct run *stored = run_copy(arena, whole);
    if (stored->input_at != NULL)
        stored->input = STR_NONE;
    for (size_t i = 0; i < stored->steps_count; i++)
        if (stored->steps[i].output_at != NULL)
            stored->steps[i].output = STR_NONE;
    stored->at.conversation += stored->at.chained;
    stored->at.conversation_count -= (size_t)stored->at.chained;
    return stored;
}

const struct tool_request *run_pending_call(const struct run *run)
{
    size_t answered = 0;
    for (size_t i = run->at.conversation_count; i > 0; i--) {
        const struct message *message = &run->at.conversation[i - 1];
        if (message->role == ROLE_ASSISTANT)
            return answered < message->calls_count ? &message->calls[answered] : NULL;
        if (message->role != ROLE_TOOL)
            return NULL;
        answered++;
    }
    return NULL;
}

struct str run_call_key(struct arena *arena, struct str name_space, const struct run *run)
{
    struct str parts[] = {
        name_space,
        run->id,
        run->at.branch,
        run->at.step,
        arena_printf(arena, "%d", run->at.visit),
        arena_printf(arena, "%d", run->at.call),
    };
    struct str whole = hash_parts(arena, parts, sizeof(parts) / sizeof(parts[0]));
    return arena_copy(arena, whole.data, 32); /* 128 bits name a call; short enough for every tool's key field */
}
