/* ahead.c: steps that turn out to need no call are decided with the step before them, in its commit. */
#include <string.h>

#include "worker/core/draft.h"

/* I7: a commit stays small, and nobody waits long for the decisions of one run. */
#define STEPS_MAX 16

/* A tool step may be refused before its call; what a model is asked, it is asked. */
static bool may_need_no_call(const struct decide_env *env, const struct run *from, const struct plan *plan)
{
    const struct contract *contract = env->contract;
    int32_t last = contract_step(contract, from->at.step);
    int32_t next = plan->next == NEXT_STEP ? contract_step(contract, plan->run->at.step) : -1;
    return last >= 0 && next >= 0 && contract->steps[next].kind == STEP_TOOL && contract->steps[next].agent < 0 &&
           plan->run->at.judging < 0 && plan->run->at.doubt.state == DOUBT_NONE &&
           str_equal(plan->pool, contract->steps[last].pool);
}

static void append(struct arena *arena, struct plan *plan, const struct plan *further)
{
    size_t count = plan->facts_count + further->facts_count;
    struct fact *facts = ARENA_ARRAY(arena, count, struct fact);
    memcpy(facts, plan->facts, plan->facts_count * sizeof(facts[0]));
    memcpy(facts + plan->facts_count, further->facts, further->facts_count * sizeof(facts[0]));
    size_t stored_count = plan->stored_count + further->stored_count;
    struct stored *stored = ARENA_ARRAY(arena, stored_count + 1, struct stored);
    for (size_t i = 0; i < stored_count; i++) {
        stored[i] = i < plan->stored_count ? plan->stored[i] : further->stored[i - plan->stored_count];
        stored[i].fact += i < plan->stored_count ? 0 : plan->facts_count;
    }
    bool not_done = plan->not_done;
    *plan = *further;
    plan->facts = facts;
    plan->facts_count = count;
    plan->stored = stored;
    plan->stored_count = stored_count;
    plan->not_done = not_done;
}

bool decide_ahead(const struct decide_env *env, const struct run *from, struct plan *plan)
{
    int steps = 0;
    for (; steps < STEPS_MAX && may_need_no_call(env, from, plan); steps++) {
        struct plan further;
        decide_step(env, plan->run, &further);
        if (further.call != NULL)
            break;
        append(env->arena, plan, &further);
    }
    return steps > 0;
}
