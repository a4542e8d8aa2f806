#include "worker/core/chain.h"

#include <string.h>

#include "worker/core/draft.h"

/* ---- storing ---- */

const struct reference *chain_store(struct draft *draft, size_t fact)
{
    struct plan *plan = draft->plan;
    for (size_t i = 0; i < plan->stored_count; i++)
        if (plan->stored[i].fact == fact)
            return plan->stored[i].at;
    struct stored *stored = ARENA_ARRAY(draft->arena, plan->stored_count + 1, struct stored);
    if (plan->stored_count > 0)
        memcpy(stored, plan->stored, plan->stored_count * sizeof(stored[0]));
    struct reference *at = ARENA_NEW(draft->arena, struct reference);
    stored[plan->stored_count++] = (struct stored){.fact = fact, .at = at};
    plan->stored = stored;
    return at;
}

void chain_bear(struct draft *draft)
{
    draft->bears = true;
    draft->bearer = draft->plan->facts_count - 1;
    draft->borne = draft->run->at.conversation_count - 1;
}

static size_t message_size(const struct message *message)
{
    size_t size = message->content.size + message->call_id.size;
    for (size_t i = 0; i < message->calls_count; i++)
        size += message->calls[i].id.size + message->calls[i].tool.size + message->calls[i].arguments.size;
    return size;
}

size_t chain_size(const struct cursor *at, size_t from)
{
    size_t size = 0;
    for (size_t i = from; i < at->conversation_count; i++)
        size += message_size(&at->conversation[i]);
    return size;
}

void chain_close(struct draft *draft)
{
    struct plan *plan = draft->plan;
    struct cursor *at = &draft->run->at;
    size_t chained = (size_t)at->chained;
    if (plan->run == NULL || plan->facts_count == 0 || at->conversation_count == chained ||
        (at->chain == NULL && chain_size(at, 0) <= RUN_INLINE_MAX))
        return;
    bool own = draft->bears;
    size_t fact = own ? draft->bearer : plan->facts_count - 1;
    size_t end = own ? draft->borne : at->conversation_count;
    struct link *link = ARENA_NEW(draft->arena, struct link);
    *link = (struct link){
        .before = at->chain, .messages = at->conversation + chained, .messages_count = end - chained, .own = own};
    plan->facts[fact].link = link;
    at->chain = chain_store(draft, fact);
    at->chained = (int32_t)(own ? end + 1 : end);
}

/* ---- reading ---- */

/* What the fact itself tells, as the agent's step said it when it wrote the fact (agent.c). */
static bool own_message(const struct fact *fact, struct message *conversation, size_t count, struct message *message)
{
    const struct run so_far = {.at = {.conversation = conversation, .conversation_count = count}};
    const struct tool_request *request = run_pending_call(&so_far);
    if (fact->kind == FACT_MODEL_ANSWERED) {
        const struct fact_model_answered *body = &fact->is.model_answered;
        *message = (struct message){
            .role = ROLE_ASSISTANT, .content = body->content, .calls = body->calls, .calls_count = body->calls_count};
        return true;
    }
    if (fact->kind != FACT_TOOL_ANSWERED || request == NULL)
        return false;
    *message = (struct message){.role = ROLE_TOOL, .content = fact->is.tool_answered.result, .call_id = request->id};
    return true;
}

bool chain_read(struct arena *arena, const struct fact *const *facts, size_t count, int32_t chained,
                struct message **messages, struct error *error)
{
    size_t sum = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        sum += facts[i]->link == NULL ? 0 : facts[i]->link->messages_count + (facts[i]->link->own ? 1 : 0);
    if (sum != (size_t)chained)
        return error_set(error, ERROR_POISON, "the chain holds %zu messages, not %d", sum, chained);
    struct message *all = ARENA_ARRAY(arena, sum + 1, struct message);
    for (size_t i = 0; i < count; i++) {
        const struct link *link = facts[i]->link;
        if (link == NULL)
            continue;
        if (link->messages_count > 0)
            memcpy(&all[at], link->messages, link->messages_count * sizeof(all[0]));
        at += link->messages_count;
        if (link->own && !own_message(facts[i], all, at, &all[at]))
            return error_set(error, ERROR_POISON, "fact %lld tells nothing that belongs into a conversation",
                             (long long)facts[i]->seq);
        at += link->own;
    }
    *messages = all;
    return true;
}
