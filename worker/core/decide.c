#include "worker/core/decide.h"

#include <assert.h>
#include <string.h>

#include "worker/core/draft.h"

/* How long to wait when nothing was tried: Redis is down, an endpoint asks for patience. */
#define NOT_NOW_MS 2000

void decide_run(const struct decide_env *env, const struct run_requested *request, struct plan *plan)
{
    struct run run = {
        .id = request->run,
        .contract = env->contract->name,
        .contract_hash = str_of(env->contract->hash),
        .requested_by = request->by,
        .started_at_ms = env->now_ms,
        .deadline_at_ms = env->now_ms + env->contract->limits.deadline_ms,
        .input = request->input,
        .vars = STR("{}"),
        .at = {.branch = STR(""), .step = STR(""), .judging = -1},
        .incarnation = STR(""),
    };
    struct draft draft;
    draft_open(&draft, env, &run, plan);
    struct fact *fact = draft_fact(&draft, FACT_RUN_STARTED);
    fact->is.run_started = (struct fact_run_started){
        .contract = run.contract,
        .requested_by = request->by,
        .goal = env->contract->goal,
        .input = request->input,
        .deadline_at_ms = run.deadline_at_ms,
    };
    if (request->input.size > RUN_INLINE_MAX)
        draft.run->input_at = chain_store(&draft, 0);
    walk_to(&draft, env->contract->start);
    draft_close(&draft);
}

/* ---- a step event: what must be done before anything can be decided ---- */

const struct call *decide_tool_call(struct draft *draft, const struct tool *tool, const struct verdict *verdict)
{
    struct call *call = ARENA_NEW(draft->arena, struct call);
    *call = (struct call){
        .kind = CALL_TOOL,
        .effect = tool->effect,
        .key = run_call_key(draft->arena, draft->env->name_space, draft->run),
        .timeout_ms = tool->timeout_ms,
        .tool = tool,
        .arguments = verdict->arguments,
        .approval = verdict->approval,
        .args_hash = verdict->args_hash,
    };
    return call;
}

static const struct call *tool_step_call(struct draft *draft)
{
    const struct tool *tool = &draft->contract->tools[draft->step->tool];
    struct verdict verdict;
    guard_tool_step(draft, tool, &verdict);
    if (verdict.admitted)
        return decide_tool_call(draft, tool, &verdict);
    guard_refuse(draft, tool->name, verdict.arguments, &verdict);
    walk_fail(
        draft,
        arena_printf(draft->arena, "%s refused (%s): %.*s", tool->name.data, verdict.rule, STR_ARG(verdict.reason)),
        verdict.violation);
    return NULL;
}

/* A forbidden request: told to the model, the end of the run, or a question to a person; never a call. */
static void violated(struct draft *draft, struct str told)
{
    const struct contract *contract = draft->contract;
    if (contract->on_violation == VIOLATION_STOP || draft->run->violations > contract->violations_max) {
        walk_end(draft, RUN_FAILED, arena_printf(draft->arena, "boundary violated: %.*s", STR_ARG(told)), STR_NONE);
        return;
    }
    if (contract->on_violation == VIOLATION_ASK) {
        draft->plan->parked.arguments = scope_quote(draft->arena, told);
        walk_park(draft, WAITS_APPROVAL, told, 0);
        return;
    }
    agent_tool_answer(draft, ANSWER_REFUSED, told);
}

static const struct call *agent_tool_call(struct draft *draft, const struct tool_request *request)
{
    const struct tool *tool;
    struct verdict verdict;
    guard_request(draft, request, &tool, &verdict);
    if (verdict.admitted)
        return decide_tool_call(draft, tool, &verdict);
    guard_refuse(draft, request->tool, request->arguments, &verdict);
    struct str told = arena_printf(draft->arena, "refused (%s): %.*s", verdict.rule, STR_ARG(verdict.reason));
    if (verdict.violation) {
        violated(draft, told);
        return NULL;
    }
    if (draft->run->at.attempt > draft->contract->retry_budget) {
        walk_fail(draft, arena_printf(draft->arena, "%.*s %.*s", STR_ARG(request->tool), STR_ARG(told)), false);
        return NULL;
    }
    draft->run->at.attempt++; /* the model may repair its arguments, within the retry budget */
    agent_tool_answer(draft, ANSWER_REFUSED, told);
    return NULL;
}

static const struct call *next_call(struct draft *draft)
{
    if (draft->run->at.doubt.state != DOUBT_NONE)
        return doubt_call(draft);
    if (draft->run->at.judging >= 0)
        return accept_judge_call(draft);
    if (!draft_is_agent(draft))
        return tool_step_call(draft);
    const struct tool_request *request = run_pending_call(draft->run);
    return request != NULL ? agent_tool_call(draft, request) : agent_model_call(draft);
}

/* The run ends before anybody asked whether an earlier delivery began its write: nothing tells of it but the reason. */
static struct str unasked(const struct draft *draft, bool suspect, struct str reason)
{
    if (!suspect || !contract_may_write(draft->contract, draft->step))
        return reason;
    return arena_printf(draft->arena, "%.*s. %s", STR_ARG(reason), DECIDE_MAY_HAVE_WRITTEN);
}

/* Limits that may be spent between the commit of the event and now; a write in doubt is settled all the same. */
static bool stopped(struct draft *draft, bool suspect)
{
    if (draft->run->at.doubt.state != DOUBT_NONE)
        return false;
    struct str spent = walk_spent(draft,
                                  draft->run->usage.steps - 1); /* its own was counted when the event was written */
    if (spent.data != NULL)
        walk_end(draft, RUN_FAILED, unasked(draft, suspect, spent), STR_NONE);
    return spent.data != NULL;
}

/* True: nothing can be decided about such a state; the run was ended with that reason (I9). */
static bool misfit(struct draft *draft, const char *why)
{
    if (why == NULL)
        why = draft_misfit(draft);
    if (why != NULL)
        walk_end(draft, RUN_FAILED,
                 arena_printf(draft->arena, "the state at step %s does not fit its contract: %s",
                              draft->step->name.data, why),
                 STR_NONE);
    return why != NULL;
}

void decide_step(const struct decide_env *env, const struct run *run, struct plan *plan)
{
    struct draft draft;
    draft_open(&draft, env, run, plan);
    assert(draft.step != NULL); /* the loop checked that the contract has this step */
    bool suspect = env->suspect || run->at.suspect;
    draft.run->at.suspect = false;
    const char *why = draft.step->kind == STEP_APPROVAL ? "an approval waits for a person" : NULL;
    if (!misfit(&draft, why) && !stopped(&draft, suspect)) {
        const struct call *call = next_call(&draft);
        if (call != NULL)
            *plan = (struct plan){.call = call};
    }
    draft_close(&draft);
}

/* ---- the end of a call ---- */

static struct str target_of(const struct call *call)
{
    return call->kind == CALL_MODEL ? call->model : call->tool->name;
}

static void not_now(struct draft *draft, const struct outcome *outcome)
{
    int64_t wait = outcome->retry_after_ms > NOT_NOW_MS ? outcome->retry_after_ms : NOT_NOW_MS;
    draft->run->usage.steps--; /* a long outage must not use up the run's steps */
    draft->run->at.suspect = outcome->suspect;
    if (draft->run->at.doubt.state != DOUBT_NONE && draft->env->now_ms >= draft->run->deadline_at_ms) {
        walk_end(draft, RUN_FAILED, /* I7: it is settled before the deadline ends its run, but not for ever */
                 arena_printf(draft->arena,
                              "limits.deadline: %lld s have passed, and a write that may have happened "
                              "is not settled (%.*s): %.*s",
                              (long long)(draft->contract->limits.deadline_ms / 1000),
                              STR_ARG(draft->run->at.doubt.why), STR_ARG(outcome->reason)),
                 STR_NONE);
        return;
    }
    walk_park(draft, WAITS_TIMER, outcome->reason, draft->env->now_ms + wait);
}

static void call_failed(struct draft *draft, const struct call *call, const struct outcome *outcome)
{
    struct run *run = draft->run;
    bool retry = outcome->retryable && run->at.attempt <= draft->contract->retry_budget;
    int64_t delay = retry_delay_ms(run, draft->arena, draft->env->backoff_ms, draft->env->backoff_max_ms,
                                   outcome->retry_after_ms);
    struct fact *fact = draft_fact(draft, FACT_CALL_FAILED);
    fact->is.call_failed = (struct fact_call_failed){
        .target = target_of(call),
        .key = call->key,
        .reason = outcome->reason,
        .http_status = outcome->http_status,
        .executed_surely_not = outcome->executed_surely_not,
        .retry = retry,
        .due_at_ms = retry ? draft->env->now_ms + delay : 0,
    };
    /* That this sending surely did not execute says nothing about the one before it: in doubt it stays (I5). */
    bool doubt = run->at.doubt.state != DOUBT_NONE && run->at.resolution.kind != RESOLUTION_NOT_DONE;
    if (doubt && !retry) {
        doubt_ask(draft, call, outcome->reason);
        return;
    }
    if (!doubt) {
        run->at.doubt = (struct doubt){.state = DOUBT_NONE};
        run->at.resolution = (struct resolution){.kind = RESOLUTION_NONE};
    }
    if (retry) {
        run->at.attempt++;
        run->usage.retries++;
        walk_park(draft, WAITS_TIMER, arena_printf(draft->arena, "retry: %.*s", STR_ARG(outcome->reason)),
                  draft->env->now_ms + delay);
        return;
    }
    struct str told = arena_printf(draft->arena, "%.*s failed: %.*s", STR_ARG(target_of(call)),
                                   STR_ARG(outcome->reason));
    if (call->kind == CALL_TOOL && draft_is_agent(draft)) { /* the model may find another way */
        run->at.attempt = 1;
        run->at.call++;
        agent_tool_answer(draft, ANSWER_FAILED, told);
        return;
    }
    walk_fail(draft, told, false);
}

static void model_answered(struct draft *draft, const struct call *call, const struct outcome *outcome)
{
    struct usage *usage = &draft->run->usage;
    struct fact *fact = draft_fact(draft, FACT_MODEL_ANSWERED);
    fact->is.model_answered = (struct fact_model_answered){
        .agent = call->agent,
        .model = call->model,
        .response_model = outcome->response_model,
        .judge = call->judge,
        .content = outcome->content,
        .calls = outcome->calls,
        .calls_count = outcome->calls_count,
        .finish_reason = outcome->finish_reason,
        .tokens_in = outcome->tokens_in,
        .tokens_out = outcome->tokens_out,
        .tokens_cached = outcome->tokens_cached,
        .micro_usd = outcome->micro_usd,
        .duration_ms = outcome->duration_ms,
        .origin = outcome->origin,
        .key = call->key,
    };
    usage->model_calls++;
    if (outcome->tokens_in < 0 || outcome->tokens_out < 0)
        usage->tokens_unknown++;
    usage->tokens_in += outcome->tokens_in > 0 ? outcome->tokens_in : 0;
    usage->tokens_out += outcome->tokens_out > 0 ? outcome->tokens_out : 0;
    usage->micro_usd += outcome->micro_usd > 0 ? outcome->micro_usd : 0;
    draft->run->at.call++;
    scope_forget(draft); /* .run.usage changed */
    if (call->judge)
        accept_judged(draft, outcome);
    else
        agent_answered(draft, outcome);
}

static void spend(struct draft *draft, struct str step)
{
    struct run *run = draft->run;
    for (size_t i = 0; step.data != NULL && i < run->approvals_count; i++)
        if (str_equal(run->approvals[i].step, step))
            run->approvals[i].spent = true;
}

void decide_tool_answered(struct draft *draft, const struct call *call, const struct outcome *outcome)
{
    struct run *run = draft->run;
    doubt_over(draft, call, outcome);
    struct fact *fact = draft_fact(draft, FACT_TOOL_ANSWERED);
    fact->is.tool_answered = (struct fact_tool_answered){
        .tool = call->tool->name,
        .effect = str_of(effect_class_name(call->tool->effect)),
        .key = call->key,
        .arguments = call->arguments,
        .result = outcome->result,
        .http_status = outcome->http_status,
        .duration_ms = outcome->duration_ms,
        .origin = outcome->origin,
        .approval = call->approval,
        .args_hash = call->args_hash,
    };
    spend(draft, call->approval);
    run->usage.tool_calls++;
    if (call->tool->effect == EFFECT_WRITE)
        run->usage.writes++;
    run->at.call++;
    run->at.doubt = (struct doubt){.state = DOUBT_NONE};
    run->at.resolution = (struct resolution){.kind = RESOLUTION_NONE};
    if (draft_is_agent(draft)) {
        run->at.attempt = 1; /* progress */
        agent_tool_answer(draft, ANSWER_DONE, outcome->result);
        return;
    }
    draft->made = call;
    draft->made_result = outcome->result;
    accept_output(draft, outcome->result);
}

void decide_outcome(const struct decide_env *env, const struct run *run, const struct call *call,
                    const struct outcome *outcome, struct plan *plan)
{
    struct draft draft;
    draft_open(&draft, env, run, plan);
    assert(draft.step != NULL);
    draft.run->at.suspect = false;
    if (call->kind == CALL_PROBE && outcome->kind != OUTCOME_DOUBT && outcome->kind != OUTCOME_NOT_NOW) {
        doubt_probed(&draft, call, outcome);
    } else {
        switch (outcome->kind) {
        case OUTCOME_ANSWERED:
            if (call->kind == CALL_MODEL)
                model_answered(&draft, call, outcome);
            else
                decide_tool_answered(&draft, call, outcome);
            break;
        case OUTCOME_FAILED:
            call_failed(&draft, call, outcome);
            break;
        case OUTCOME_DOUBT:
            doubt_raised(&draft, call, outcome);
            break;
        case OUTCOME_NOT_NOW:
            not_now(&draft, outcome);
            break;
        }
    }
    draft_close(&draft);
}

/* ---- a waiting step wakes ---- */

static void keep_approval(struct draft *draft, const struct step_parked *parked, const struct decision *decision,
                          bool timed_out)
{
    struct run *run = draft->run;
    struct approval approval = {
        .step = draft->step->name,
        .visit = run->at.visit,
        .guards = parked->guards,
        .approved = !timed_out && decision->approved,
        .timed_out = timed_out,
        .by = timed_out ? STR("timeout") : decision->by,
        .reason = timed_out ? STR("nobody decided in time") : decision->reason,
        .args_hash = parked->args_hash,
        .decided_at_ms = draft->env->now_ms,
    };
    if (parked->guards.size > 0) {
        const struct step_state *state = run_step(run, parked->guards);
        approval.guards_visit = (state != NULL ? state->visits : 0) + 1;
    }
    size_t at = 0;
    while (at < run->approvals_count && !str_equal(run->approvals[at].step, approval.step))
        at++;
    if (at == run->approvals_count) {
        struct approval *approvals = ARENA_ARRAY(draft->arena, at + 1, struct approval);
        if (at > 0)
            memcpy(approvals, run->approvals, at * sizeof(approvals[0]));
        run->approvals = approvals;
        run->approvals_count++;
    }
    run->approvals[at] = approval;
    struct fact *fact = draft_fact(draft, FACT_APPROVAL_DECIDED);
    fact->is.approval_decided = (struct fact_approval_decided){
        .decision = approval.approved ? STR("approved") : STR("rejected"),
        .guards = approval.guards,
        .by = approval.by,
        .reason = approval.reason,
        .args_hash = approval.args_hash,
        .timed_out = timed_out,
    };
}

static void decided(struct draft *draft, const struct step_parked *parked, const struct decision *decision)
{
    bool timed_out = decision == NULL;
    keep_approval(draft, parked, decision, timed_out);
    bool approved = !timed_out && decision->approved;
    if (draft->step->kind != STEP_APPROVAL) { /* the question was about a violated boundary */
        if (approved)
            agent_tool_answer(draft, ANSWER_REFUSED, parked->reason);
        else
            walk_end(draft, RUN_FAILED, arena_printf(draft->arena, "boundary violated: %.*s", STR_ARG(parked->reason)),
                     STR_NONE);
        return;
    }
    enum edge edge = approved ? EDGE_APPROVED : EDGE_REJECTED;
    if (timed_out && draft->step->edges[EDGE_TIMED_OUT] != TARGET_NONE)
        edge = EDGE_TIMED_OUT;
    struct str reason = timed_out ? STR("nobody decided in time") : decision->reason;
    struct str output = arena_printf(draft->arena, "{\"decision\":\"%s\",\"by\":%.*s,\"reason\":%.*s}",
                                     approved ? "approved" : "rejected",
                                     STR_ARG(scope_quote(draft->arena, timed_out ? STR("timeout") : decision->by)),
                                     STR_ARG(reason.size > 0 ? scope_quote(draft->arena, reason) : STR("null")));
    if (draft->step->edges[edge] == TARGET_NONE)
        walk_fail(draft, arena_printf(draft->arena, "%s, and there is no such edge", edge_name(edge)), false);
    else
        walk_complete(draft, output, edge);
}

static void due(struct draft *draft, const struct step_parked *parked)
{
    if (parked->waits_for == WAITS_TIMER) {
        walk_again(draft);
        return;
    }
    if (parked->timeout_action == TIMEOUT_REJECT) {
        decided(draft, parked, NULL);
        return;
    }
    draft->plan->parked = *parked; /* pause: it waits on, without a time */
    walk_park(draft, parked->waits_for,
              arena_printf(draft->arena, "paused: nobody decided in time (%s)", draft->step->name.data), 0);
}

/* The plan may keep what was parked, and the keeper frees that when the step is released: texts of our own. */
static const struct step_parked *parked_copy(struct arena *arena, const struct step_parked *parked)
{
    struct step_parked *copy = ARENA_NEW(arena, struct step_parked);
    *copy = *parked;
    struct str *texts[] = {
        &copy->run,       &copy->branch,    &copy->step, &copy->reason,   &copy->guards,        &copy->tool,
        &copy->arguments, &copy->args_hash, &copy->key,  &copy->contract, &copy->contract_hash,
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        *texts[i] = arena_str(arena, *texts[i]);
    copy->event = STR_NONE; /* the run is what was read from it */
    return copy;
}

/* What waits, and the event that it holds, must be of one step; NULL, or why they are not. */
static const char *not_this_step(const struct draft *draft, const struct step_parked *parked)
{
    const struct run *run = draft->run;
    if (!str_equal(parked->run, run->id) || !str_equal(parked->branch, run->at.branch) ||
        !str_equal(parked->step, draft->step->name) || parked->visit != run->at.visit)
        return "what waits is another step";
    bool approval = draft->step->kind == STEP_APPROVAL;
    if (parked->waits_for == WAITS_APPROVAL && !approval && run_pending_call(run) == NULL)
        return "no call waits for a person";
    if (parked->waits_for == WAITS_RESOLUTION && run->at.doubt.state != DOUBT_ASKED)
        return "no write in doubt waits for a person";
    return approval && parked->waits_for != WAITS_APPROVAL ? "an approval waits for a person" : NULL;
}

void decide_wake(const struct decide_env *env, const struct run *run, const struct step_parked *waiting,
                 const struct wake *wake, struct plan *plan)
{
    struct draft draft;
    draft_open(&draft, env, run, plan);
    assert(draft.step != NULL);
    draft.event_ms = env->now_ms; /* the timer's, or the person's record's */
    const struct step_parked *parked = parked_copy(env->arena, waiting);
    struct str reason;
    if (misfit(&draft, not_this_step(&draft, parked))) {
        draft_close(&draft);
        return;
    }
    switch (wake->kind) {
    case WAKE_DUE:
        due(&draft, parked);
        break;
    case WAKE_DECISION:
        decided(&draft, parked, wake->decision);
        break;
    case WAKE_RESOLUTION:
        doubt_resolved(&draft, parked, wake->resolution);
        break;
    case WAKE_DEADLINE:
        reason = arena_printf(draft.arena, "limits.deadline: %lld s have passed, while waiting for: %.*s",
                              (long long)(env->contract->limits.deadline_ms / 1000), STR_ARG(parked->reason));
        walk_end(&draft, RUN_FAILED, unasked(&draft, run->at.suspect, reason), STR_NONE);
        break;
    }
    draft_close(&draft);
}

void decide_abandon(const struct decide_env *env, const struct run *run, struct str reason, struct plan *plan)
{
    struct draft draft;
    draft_open(&draft, env, run, plan);
    walk_end(&draft, RUN_FAILED, reason, STR_NONE);
    draft_close(&draft);
}
