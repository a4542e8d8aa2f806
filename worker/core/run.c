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
