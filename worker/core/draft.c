#include "worker/core/draft.h"

#include <assert.h>
#include <string.h>

void draft_open(struct draft *draft, const struct decide_env *env, const struct run *run, struct plan *plan)
{
    memset(plan, 0, sizeof(*plan));
    *draft = (struct draft){
        .env = env,
        .contract = env->contract,
        .arena = env->arena,
        .plan = plan,
        .run = run_copy(env->arena, run),
        .event_ms = run->written_at_ms > 0 ? run->written_at_ms : env->now_ms,
    };
    int32_t step = env->contract != NULL ? contract_step(env->contract, run->at.step)
                                         : -1; /* NULL: only to be abandoned */
    draft->step = step >= 0 ? &draft->contract->steps[step] : NULL;
}

void draft_close(struct draft *draft)
{
    scope_forget(draft);
    chain_close(draft);
    const struct plan *plan = draft->plan;
    assert((plan->call != NULL) != (plan->facts_count > 0 || plan->run != NULL)); /* a call, or something to commit */
}

struct fact *draft_fact(struct draft *draft, enum fact_kind kind)
{
    struct plan *plan = draft->plan;
    struct run *run = draft->run;
    if (plan->facts_count == draft->facts_capacity) {
        size_t capacity = draft->facts_capacity == 0 ? 4 : draft->facts_capacity * 2;
        struct fact *facts = ARENA_ARRAY(draft->arena, capacity, struct fact);
        if (plan->facts_count > 0)
            memcpy(facts, plan->facts, plan->facts_count * sizeof(struct fact));
        plan->facts = facts;
        draft->facts_capacity = capacity;
    }
    struct fact *fact = &plan->facts[plan->facts_count++];
    *fact = (struct fact){
        .run = run->id,
        .contract_hash = run->contract_hash,
        .seq = run->facts++,
        .at_ms = draft->env->now_ms,
        .branch = run->at.branch,
        .step = draft->step != NULL ? draft->step->name : STR(""),
        .visit = run->at.visit,
        .attempt = run->at.attempt,
        .turn = run->at.turn,
        .call = run->at.call,
        .source_partition = -1,
        .source_offset = -1,
        .kind = kind,
    };
    return fact;
}

struct step_state *draft_state(struct draft *draft)
{
    struct run *run = draft->run;
    for (size_t i = 0; i < run->steps_count; i++)
        if (str_equal(run->steps[i].name, draft->step->name))
            return &run->steps[i];
    struct step_state *steps = ARENA_ARRAY(draft->arena, run->steps_count + 1, struct step_state);
    if (run->steps_count > 0)
        memcpy(steps, run->steps, run->steps_count * sizeof(steps[0]));
    run->steps = steps;
    struct step_state *state = &steps[run->steps_count++];
    state->name = draft->step->name;
    return state;
}

void draft_say(struct draft *draft, struct message message)
{
    struct cursor *at = &draft->run->at;
    struct message *conversation = ARENA_ARRAY(draft->arena, at->conversation_count + 1, struct message);
    if (at->conversation_count > 0)
        memcpy(conversation, at->conversation, at->conversation_count * sizeof(conversation[0]));
    conversation[at->conversation_count++] = message;
    at->conversation = conversation;
}

const struct agent *draft_agent(const struct draft *draft)
{
    const struct step *step = draft->step;
    bool has = (step->kind == STEP_AGENT || step->kind == STEP_TOOL) && step->agent >= 0;
    return has ? &draft->contract->agents[step->agent] : NULL;
}

bool draft_is_agent(const struct draft *draft)
{
    return draft->step->kind == STEP_MODEL || draft_agent(draft) != NULL;
}

const char *draft_misfit(const struct draft *draft)
{
    const struct cursor *at = &draft->run->at;
    const struct contract *contract = draft->contract;
    if (draft->step->kind == STEP_ROUTER)
        return "a router never waits";
    if (at->judging >= (int32_t)contract->criteria_count ||
        (at->judging >= 0 && contract->criteria[at->judging].judge < 0))
        return "no judge decides that criterion";
    if (at->doubt.state == DOUBT_NONE)
        return NULL;
    const struct tool *tool = draft->step->kind != STEP_APPROVAL ? doubt_tool(draft) : NULL;
    return tool != NULL && tool->effect == EFFECT_WRITE ? NULL : "a doubt without a write";
}
