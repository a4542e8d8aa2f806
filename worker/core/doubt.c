/*
 * doubt.c: a write that may have happened is never repeated by accident (I5).
 *
 *   in doubt ── on_doubt = fail ──> the step fails
 *            ── ask ──────────────> a person: done (adopt) | not done (call, same key) | fail
 *            ── retry ── wait until `until` ──> take the record over, call with the same key
 *            ── probe ── wait until `until` ──> take over, probe ──> done: adopt | not done: call | neither: again, then ask
 */
#include "worker/core/draft.h"

#define HELD_AGAIN_MS 1000 /* I7: how soon a record that somebody holds is asked for again at the soonest */

static const char *const policies[] = {"ask", "retry", "probe", "fail"};

const struct tool *doubt_tool(const struct draft *draft)
{
    const struct tool_request *request = draft_is_agent(draft) ? run_pending_call(draft->run) : NULL;
    int32_t index = draft_is_agent(draft) ? -1 : draft->step->tool;
    if (request != NULL)
        index = contract_tool(draft->contract, request->tool);
    return index >= 0 ? &draft->contract->tools[index] : NULL;
}

static void settled(struct draft *draft, struct str key, const char *how, const char *outcome, struct str by)
{
    const struct tool *tool = doubt_tool(draft);
    struct fact *fact = draft_fact(draft, FACT_DOUBT_SETTLED);
    fact->is.doubt_settled = (struct fact_doubt_settled){
        .tool = tool->name,
        .key = key,
        .how = str_of(how),
        .outcome = str_of(outcome),
        .by = by,
    };
}

void doubt_ask(struct draft *draft, const struct call *call, struct str reason)
{
    struct step_parked *parked = &draft->plan->parked;
    draft->run->at.doubt.state = DOUBT_ASKED;
    parked->tool = call->tool->name;
    parked->arguments = call->arguments;
    parked->key = call->key;
    walk_park(draft, WAITS_RESOLUTION,
              arena_printf(draft->arena, "%s may have happened: %.*s", call->tool->name.data, STR_ARG(reason)), 0);
}

static void wait_until(struct draft *draft, int64_t until_ms)
{
    walk_park(draft, WAITS_TIMER, STR("nobody may act on this write before its time has passed"), until_ms);
}

void doubt_raised(struct draft *draft, const struct call *call, const struct outcome *outcome)
{
    struct run *run = draft->run;
    const struct tool *tool = call->tool;
    bool first = run->at.doubt.state == DOUBT_NONE;
    bool held = outcome->held && !first; /* as it was, but longer: what was said and tried still counts */
    int64_t held_until_ms = draft->env->now_ms + HELD_AGAIN_MS;
    if (outcome->until_ms > held_until_ms)
        held_until_ms = outcome->until_ms;
    if (held && run->at.resolution.kind == RESOLUTION_NOT_DONE) { /* a person has settled it */
        wait_until(draft, held_until_ms);
        return;
    }
    struct fact *fact = draft_fact(draft, FACT_IN_DOUBT);
    fact->is.in_doubt = (struct fact_in_doubt){
        .tool = tool->name,
        .key = call->key,
        .arguments = call->arguments,
        .reason = outcome->reason,
        .policy = str_of(policies[tool->on_doubt]),
        .until_ms = outcome->until_ms,
    };
    run->at.resolution = (struct resolution){.kind = RESOLUTION_NONE};
    run->at.doubt = (struct doubt){
        .state = DOUBT_SETTLING,
        .since_ms = first ? draft->env->now_ms : run->at.doubt.since_ms,
        .until_ms = outcome->until_ms,
        .probes = run->at.doubt.probes,
        .arguments = call->arguments,
        .why = outcome->reason,
    };
    /* A tool that honours keys may be asked again, but not for ever (I7). */
    bool spent = tool->on_doubt == DOUBT_RETRY && run->at.attempt > draft->contract->retry_budget;
    if (held) {
        wait_until(draft, held_until_ms);
    } else if (tool->on_doubt == DOUBT_FAIL) {
        settled(draft, call->key, "fail", "unknown", STR_NONE);
        walk_fail(draft, arena_printf(draft->arena, "%s is in doubt: %.*s", tool->name.data, STR_ARG(outcome->reason)),
                  false);
    } else if (tool->on_doubt == DOUBT_ASK || spent) {
        doubt_ask(draft, call, outcome->reason);
    } else {
        run->at.attempt += tool->on_doubt == DOUBT_RETRY ? 1 : 0;
        if (outcome->until_ms > draft->env->now_ms)
            wait_until(draft, outcome->until_ms);
        else
            walk_again(draft);
    }
}

const struct call *doubt_call(struct draft *draft)
{
    struct run *run = draft->run;
    const struct tool *tool = doubt_tool(draft);
    struct verdict verdict;
    if (draft_is_agent(draft))
        guard_request(draft, run_pending_call(run), &tool, &verdict);
    else
        guard_tool_step(draft, tool, &verdict);
    struct call *call = ARENA_NEW(draft->arena, struct call);
    *call = *decide_tool_call(draft, tool, &verdict);
    call->takeover = true;
    if (verdict.admitted) {
        bool probe = tool->on_doubt == DOUBT_PROBE && run->at.resolution.kind != RESOLUTION_NOT_DONE;
        call->kind = probe ? CALL_PROBE : CALL_TOOL;
        call->effect = probe ? EFFECT_READ : EFFECT_WRITE;
        return call;
    }
    struct str why = arena_printf(draft->arena, "the write in doubt is no longer admitted: %.*s",
                                  STR_ARG(verdict.reason));
    guard_refuse(draft, tool->name, verdict.arguments, &verdict);
    if (run->at.resolution.kind == RESOLUTION_NOT_DONE) /* in doubt no more */
        walk_fail(draft, why, false);
    else
        doubt_ask(draft, call, why);
    return NULL;
}

/* The probe told nothing: again after a while, then a person. */
static void probe_unknown(struct draft *draft, const struct call *call, struct str reason)
{
    struct doubt *doubt = &draft->run->at.doubt;
    const struct tool_probe *probe = call->tool->probe;
    settled(draft, call->key, "probe", "unknown", STR_NONE);
    doubt->probes++;
    if (doubt->probes >= probe->probes_max)
        doubt_ask(
            draft, call,
            arena_printf(draft->arena, "probes that told nothing: %d; the last: %.*s", doubt->probes, STR_ARG(reason)));
    else
        walk_park(draft, WAITS_TIMER, arena_printf(draft->arena, "the probe told nothing: %.*s", STR_ARG(reason)),
                  draft->env->now_ms + probe->after_ms);
}

static void adopt(struct draft *draft, const struct call *call, struct str result, enum call_origin origin)
{
    struct outcome adopted = {
        .kind = OUTCOME_ANSWERED, .at_ms = draft->env->now_ms, .origin = origin, .result = result};
    draft->run->at.doubt = (struct doubt){.state = DOUBT_NONE};
    draft->run->at.resolution = (struct resolution){.kind = RESOLUTION_NONE};
    decide_tool_answered(draft, call, &adopted);
}

void doubt_over(struct draft *draft, const struct call *call, const struct outcome *outcome)
{
    if (draft->run->at.doubt.state == DOUBT_NONE)
        return;
    if (outcome->origin == ORIGIN_ADOPTED)
        settled(draft, call->key, "ledger", "done", STR_NONE);
    else if (draft->run->at.resolution.kind != RESOLUTION_NOT_DONE) /* a person settled it before the call */
        settled(draft, call->key, "retry", "done", STR_NONE);
}

/* It may be called again as if for the first time, within the retry budget (I7). */
static void call_surely_not_done(struct draft *draft, const struct call *call)
{
    struct run *run = draft->run;
    settled(draft, call->key, "probe", "not_done", STR_NONE);
    run->at.doubt = (struct doubt){.state = DOUBT_NONE};
    draft->plan->not_done = true;
    if (run->at.attempt > draft->contract->retry_budget) {
        walk_fail(
            draft,
            arena_printf(draft->arena, "%s was tried %d times and not done", call->tool->name.data, run->at.attempt),
            false);
        return;
    }
    run->at.attempt++;
    walk_again(draft);
}

void doubt_probed(struct draft *draft, const struct call *call, const struct outcome *outcome)
{
    const struct tool_probe *probe = call->tool->probe;
    if (outcome->kind != OUTCOME_ANSWERED) {
        probe_unknown(draft, call, outcome->reason);
        return;
    }
    struct error error = {.class = ERROR_NONE};
    bool done = false, not_done = false;
    struct str result = outcome->result;
    bool ok = scope_true_over(draft, probe->done, outcome->result, &done, &error);
    if (ok && done && probe->result != NULL)
        ok = scope_eval_over(draft, probe->result, outcome->result, &result, &error);
    if (ok && !done && probe->not_done != NULL)
        ok = scope_true_over(draft, probe->not_done, outcome->result, &not_done, &error);
    if (!ok) {
        probe_unknown(draft, call, arena_str(draft->arena, str_of(error.text)));
    } else if (done) {
        settled(draft, call->key, "probe", "done", STR_NONE);
        adopt(draft, call, result, ORIGIN_PROBED);
    } else if (not_done) {
        call_surely_not_done(draft, call);
    } else {
        probe_unknown(draft, call, STR("neither done nor not_done holds for its answer"));
    }
}

void doubt_resolved(struct draft *draft, const struct step_parked *parked, const struct resolved *resolved)
{
    struct run *run = draft->run;
    static const char *const outcomes[] = {"unknown", "done", "not_done", "failed"};
    settled(draft, parked->key, "person", outcomes[resolved->kind], resolved->by);
    if (resolved->kind == RESOLUTION_DONE) {
        const struct checkpoint *checkpoint = draft->step->guarded_by >= 0
                                                  ? &draft->contract->checkpoints[draft->step->guarded_by]
                                                  : NULL;
        const struct approval *approval = checkpoint != NULL
                                              ? run_approval(run, draft->contract->steps[checkpoint->step].name)
                                              : NULL;
        struct call call = {
            .kind = CALL_TOOL,
            .effect = EFFECT_WRITE,
            .key = parked->key,
            .tool = doubt_tool(draft),
            .arguments = parked->arguments,
            .approval = approval != NULL ? approval->step : STR_NONE,
            .args_hash = approval != NULL ? approval->args_hash : STR_NONE,
        };
        adopt(draft, &call, resolved->result.data != NULL ? resolved->result : STR("null"), ORIGIN_RESOLVED);
    } else if (resolved->kind == RESOLUTION_NOT_DONE) {
        run->at.doubt.state = DOUBT_SETTLING;
        run->at.resolution = (struct resolution){.kind = RESOLUTION_NOT_DONE, .by = resolved->by};
        walk_again(draft);
    } else {
        walk_fail(draft, arena_printf(draft->arena, "%.*s said that it failed", STR_ARG(resolved->by)), false);
    }
}
