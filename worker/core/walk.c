/* walk.c: from step to step: entering, walking on through pure steps, completing, failing, parking, ending. */
#include <string.h>

#include "worker/base/json.h"
#include "worker/core/draft.h"

static struct str target_name(const struct draft *draft, int32_t target)
{
    if (target == TARGET_END)
        return STR("end");
    return target >= 0 ? draft->contract->steps[target].name : STR_NONE;
}

static int64_t earlier(int64_t due_ms, int64_t deadline_ms)
{
    return due_ms > deadline_ms ? deadline_ms : due_ms;
}

/* ---- the three ways a plan becomes complete ---- */

void walk_end(struct draft *draft, enum run_status status, struct str reason, struct str output)
{
    struct fact *fact = draft_fact(draft, FACT_RUN_ENDED);
    fact->is.run_ended = (struct fact_run_ended){
        .status = status, .reason = reason, .output = output, .usage = draft->run->usage};
    draft->plan->next = NEXT_END;
    draft->plan->closed = (struct run_closed){
        .run = draft->run->id,
        .status = status,
        .reason = reason,
        .output = output.size > RUN_INLINE_MAX ? STR_NONE : output, /* the fact has it */
        .at_ms = draft->env->now_ms,
    };
}

struct str walk_spent(struct draft *draft, int32_t steps)
{
    const struct contract_limits *limits = &draft->contract->limits;
    const struct usage *usage = &draft->run->usage;
    int64_t tokens = usage->tokens_in + usage->tokens_out;
    struct str reason = STR_NONE;
    if (draft->env->now_ms >= draft->run->deadline_at_ms)
        reason = arena_printf(draft->arena, "limits.deadline: %lld s have passed",
                              (long long)(limits->deadline_ms / 1000));
    else if (steps >= limits->steps_max)
        reason = arena_printf(draft->arena, "limits.steps: %d of %d used", steps, limits->steps_max);
    else if (tokens >= limits->llm_tokens_max)
        reason = arena_printf(draft->arena, "limits.llm_tokens: %lld of %lld used", (long long)tokens,
                              (long long)limits->llm_tokens_max);
    else if (usage->micro_usd >= limits->micro_usd_max)
        reason = arena_printf(draft->arena, "limits.usd: %.6f of %.6f used", (double)usage->micro_usd / 1e6,
                              (double)limits->micro_usd_max / 1e6);
    return reason;
}

static bool over_budget(struct draft *draft)
{
    struct str spent = walk_spent(draft, draft->run->usage.steps);
    if (spent.data != NULL)
        walk_end(draft, RUN_FAILED, spent, STR_NONE);
    return spent.data != NULL;
}

/* True: no worker is to hold that much of one run; it was ended with that reason. */
static bool too_large(struct draft *draft)
{
    const struct run *run = draft->run;
    size_t size = run->input.size + chain_size(&run->at, 0);
    for (size_t i = 0; i < run->steps_count; i++)
        size += run->steps[i].output.size;
    if (size > RUN_WHOLE_MAX)
        walk_end(
            draft, RUN_FAILED,
            arena_printf(draft->arena, "its input, outputs and conversation are over %zu MiB", RUN_WHOLE_MAX >> 20),
            STR_NONE);
    return size > RUN_WHOLE_MAX;
}

void walk_again(struct draft *draft)
{
    bool doubt = draft->run->at.doubt.state !=
                 DOUBT_NONE; /* must be settled, whatever is spent; has limits of its own */
    if (!doubt && (over_budget(draft) || too_large(draft))) /* I7: a loop of steps ends here, whatever drives it */
        return;
    struct step_state *state = draft_state(draft);
    if (state->status != STEP_COMPLETED) /* completed: its run's end is being judged */
        state->status = doubt ? STEP_IN_DOUBT : STEP_RUNNING;
    draft->run->usage.steps++;
    draft->plan->next = NEXT_STEP;
    draft->plan->run = draft->run;
    draft->plan->pool = draft->step->pool;
}

void walk_park(struct draft *draft, enum waits_for what, struct str reason, int64_t due_at_ms)
{
    struct run *run = draft->run;
    /* I5: a write in doubt is settled first, by itself and within limits of its own; a person may be silent for ever. */
    bool settling = run->at.doubt.state == DOUBT_SETTLING && what == WAITS_TIMER;
    if (what == WAITS_TIMER && !settling)
        due_at_ms = earlier(due_at_ms, run->deadline_at_ms);
    struct step_parked *parked = &draft->plan->parked;
    parked->run = run->id;
    parked->branch = run->at.branch;
    parked->step = draft->step->name;
    parked->visit = run->at.visit;
    parked->waits_for = what;
    parked->reason = reason;
    parked->parked_at_ms = draft->env->now_ms;
    parked->due_at_ms = due_at_ms;
    parked->run_deadline_at_ms = settling ? 0 : run->deadline_at_ms;
    parked->contract = run->contract;
    parked->contract_hash = run->contract_hash;

    struct fact *fact = draft_fact(draft, FACT_STEP_WAITING);
    fact->is.step_waiting = (struct fact_step_waiting){
        .waits_for = str_of(waits_for_name(what)),
        .reason = reason,
        .due_at_ms = due_at_ms,
        .guards = parked->guards,
        .tool = parked->tool,
        .arguments = parked->arguments,
        .args_hash = parked->args_hash,
        .key = parked->key,
        .planned = what == WAITS_APPROVAL && draft->step->kind == STEP_APPROVAL,
    };
    struct step_state *state = draft_state(draft);
    if (state->status != STEP_COMPLETED)
        state->status = run->at.doubt.state != DOUBT_NONE ? STEP_IN_DOUBT : STEP_WAITING;
    draft->plan->next = NEXT_PARK;
    draft->plan->run = run;
}

/* ---- the end of a step; both return where to go on, TARGET_NONE = the plan is complete ---- */

/* What belongs to the visit is over; the numbers of its calls go on, since a judge of the run's end may still be asked here. */
static void leave(struct draft *draft)
{
    struct cursor *at = &draft->run->at;
    at->conversation_count = 0;
    at->chain = NULL;
    at->chained = 0;
    draft->bears = false;
    at->judging = -1;
    at->candidate = STR_NONE;
    at->doubt = (struct doubt){.state = DOUBT_NONE};
    at->resolution = (struct resolution){.kind = RESOLUTION_NONE};
    scope_forget(draft);
}

static int32_t failed(struct draft *draft, struct str reason, bool refused)
{
    int32_t target = refused ? TARGET_NONE : draft->step->edges[EDGE_FAILED];
    draft_state(draft)->status = refused ? STEP_REFUSED : STEP_FAILED;
    struct fact *fact = draft_fact(draft, FACT_STEP_FAILED);
    fact->is.step_failed = (struct fact_step_failed){
        .reason = reason,
        .edge = target == TARGET_NONE ? STR_NONE : STR("failed"),
        .target = target_name(draft, target),
        .refused = refused,
    };
    draft->run->at
        .call++; /* I3: the number of the call that failed is used up, a judge of the run's end takes the next */
    leave(draft);
    if (target == TARGET_NONE)
        walk_end(draft, RUN_FAILED,
                 arena_printf(draft->arena, "step %s failed: %.*s", draft->step->name.data, STR_ARG(reason)), STR_NONE);
    return target;
}

static bool set_variables(struct draft *draft, struct str output, struct str *changed, struct error *error)
{
    const struct step *step = draft->step;
    *changed = STR_NONE;
    if (step->set_count == 0)
        return true;
    json_t *vars = json_read(draft->run->vars, RUN_STATE_SIZE_MAX, NULL);
    json_t *delta = json_object();
    bool ok = true;
    for (size_t i = 0; ok && i < step->set_count; i++) {
        struct str value;
        ok = scope_eval(draft, step->set[i].value, (struct scope){.what = "set", .candidate = output}, &value, error);
        json_t *read = ok ? json_read(value, RUN_STATE_SIZE_MAX, error) : NULL;
        if (ok && read == NULL)
            error_wrap(error, "steps.%s.set", step->name.data);
        ok = read != NULL && json_object_set_new(delta, step->set[i].name.data, read) == 0;
    }
    if (ok) {
        json_object_update(vars, delta);
        draft->run->vars = json_text(draft->arena, vars);
        *changed = json_text(draft->arena, delta);
    }
    json_decref(delta);
    json_decref(vars);
    return ok;
}

static int32_t completed_to(struct draft *draft, struct str output, const char *edge, int32_t target)
{
    struct error error;
    struct str changed;
    if (!set_variables(draft, output, &changed, &error))
        return failed(draft, arena_str(draft->arena, str_of(error.text)), false);
    struct step_state *state = draft_state(draft);
    state->status = STEP_COMPLETED;
    state->output = output;
    struct fact *fact = draft_fact(draft, FACT_STEP_COMPLETED);
    fact->is.step_completed = (struct fact_step_completed){
        .output = output,
        .edge = str_of(edge),
        .target = target_name(draft, target),
        .artifact = draft->step->artifact,
        .vars = changed,
    };
    state->output_at = output.size > RUN_INLINE_MAX ? chain_store(draft, draft->plan->facts_count - 1) : NULL;
    if (output.data != NULL)
        draft->output = output;
    leave(draft);
    return target;
}

/* ---- entering a step ---- */

/* True: the step may be entered. Else the plan is complete, or *target says where the failed edge leads. */
static bool pass_gates(struct draft *draft, int32_t step, int32_t *target)
{
    const struct contract *contract = draft->contract;
    for (size_t i = 0; i < contract->criteria_count; i++) {
        const struct criterion *criterion = &contract->criteria[i];
        if (criterion->before != step)
            continue;
        bool holds = false;
        struct error error = {.text = "a judge cannot stand before a step"};
        bool ok = criterion->check != NULL &&
                  scope_true(draft, criterion->check, (struct scope){.what = "before"}, &holds, &error);
        struct str reason = ok ? STR_NONE : arena_str(draft->arena, str_of(error.text));
        struct fact *fact = draft_fact(draft, FACT_CRITERION_CHECKED);
        fact->is.criterion_checked = (struct fact_criterion_checked){
            .says = criterion->says, .holds = ok && holds, .reason = reason};
        if (ok && holds)
            continue;
        reason = ok ? criterion->says : reason;
        *target = failed(draft, arena_printf(draft->arena, "gate not passed: %.*s", STR_ARG(reason)), true);
        return false;
    }
    return true;
}

static bool first_message(struct draft *draft, struct error *error)
{
    const struct expr *sees = draft->step->sees != NULL ? draft->step->sees : draft->step->args;
    struct str content = draft->run->input;
    if (sees != NULL && !scope_eval(draft, sees, (struct scope){.what = "sees"}, &content, error))
        return false;
    json_t *value = json_read(content, RUN_STATE_SIZE_MAX, error);
    if (value == NULL)
        return error_wrap(error, "steps.%s.sees", draft->step->name.data);
    if (json_is_string(value)) /* a text is said as it is, not as JSON */
        content = arena_copy(draft->arena, json_string_value(value), json_string_length(value));
    json_decref(value);
    draft_say(draft, (struct message){.role = ROLE_USER, .content = content});
    return true;
}

static bool enter(struct draft *draft, int32_t index, int32_t *target)
{
    struct run *run = draft->run;
    draft->step = &draft->contract->steps[index];
    struct step_state *state = draft_state(draft);
    run->at = (struct cursor){
        .branch = run->at.branch,
        .step = draft->step->name,
        .visit = state->visits + 1,
        .attempt = 1,
        .judging = -1,
    };
    if (state->visits >= draft->step->visits_max) {
        *target = failed(draft, arena_printf(draft->arena, "visits_max = %d is reached", draft->step->visits_max),
                         false);
        return false;
    }
    if (!pass_gates(draft, index, target))
        return false;
    state->visits++;
    state->status = STEP_RUNNING;
    scope_forget(draft); /* .run.visits changed */
    struct error error;
    if (draft_is_agent(draft) && !first_message(draft, &error)) {
        *target = failed(draft, arena_str(draft->arena, str_of(error.text)), false);
        return false;
    }
    return true;
}

static int32_t route(struct draft *draft)
{
    const struct step *step = draft->step;
    for (size_t i = 0; i < step->cases_count; i++) {
        bool truth = true;
        struct error error;
        if (step->cases[i].when != NULL &&
            !scope_true(draft, step->cases[i].when, (struct scope){.what = "router"}, &truth, &error))
            return failed(draft, arena_str(draft->arena, str_of(error.text)), false);
        if (truth)
            return completed_to(draft, STR_NONE, "next", step->cases[i].target);
    }
    return failed(draft, STR("no case of the router holds"), false);
}

static struct str guarded_arguments(struct draft *draft, const struct step *guarded, struct error *error)
{
    if (guarded->args == NULL)
        return STR("{}");
    struct str arguments;
    const char *what = arena_printf(draft->arena, "guards: the args of %s", guarded->name.data).data;
    if (!scope_eval(draft, guarded->args, (struct scope){.what = what}, &arguments, error))
        return STR_NONE;
    json_t *value = json_read(arguments, RUN_STATE_SIZE_MAX, error);
    if (value == NULL) {
        error_wrap(error, "steps.%s.%s", draft->step->name.data, what);
        return STR_NONE;
    }
    struct str canonical = json_canonical(draft->arena, value);
    json_decref(value);
    return canonical;
}

/* Waits for a person. What is shown, and hashed, are the guarded step's evaluated arguments, all of them. */
static int32_t ask(struct draft *draft)
{
    const struct checkpoint *checkpoint = &draft->contract->checkpoints[draft->step->checkpoint];
    struct step_parked *parked = &draft->plan->parked;
    struct str reason = draft->step->name;
    if (checkpoint->guards >= 0) {
        const struct step *guarded = &draft->contract->steps[checkpoint->guards];
        const struct step_state *state = run_step(draft->run, guarded->name);
        int32_t visit = (state != NULL ? state->visits : 0) + 1;
        struct error error = {.class = ERROR_NONE};
        struct str arguments = guarded_arguments(draft, guarded, &error);
        if (arguments.data == NULL)
            return failed(draft, arena_str(draft->arena, str_of(error.text)), false);
        parked->guards = guarded->name;
        parked->tool = guarded->tool >= 0 ? draft->contract->tools[guarded->tool].name : STR_NONE;
        parked->arguments = arguments;
        parked->args_hash = guard_args_hash(draft, guarded->name, visit, parked->tool, arguments);
        reason = arena_printf(draft->arena, "approval of %.*s", STR_ARG(guarded->name));
    }
    bool edge = draft->step->edges[EDGE_TIMED_OUT] != TARGET_NONE; /* silence is an answer, then */
    parked->timeout_action = (int32_t)(edge ? TIMEOUT_REJECT : checkpoint->timeout_action);
    walk_park(draft, WAITS_APPROVAL, reason, draft->env->now_ms + checkpoint->timeout_ms);
    return TARGET_NONE;
}

void walk_to(struct draft *draft, int32_t target)
{
    for (int i = 0; target != TARGET_NONE; i++) {
        if (target == TARGET_END) {
            walk_finish(draft, 0);
            return;
        }
        if (i == DECIDE_WALK_MAX) {
            walk_end(draft, RUN_FAILED, STR("a loop of steps that neither call nor wait"), STR_NONE);
            return;
        }
        if (!enter(draft, target, &target))
            continue;
        switch (draft->step->kind) {
        case STEP_ROUTER:
            target = route(draft);
            break;
        case STEP_APPROVAL:
            target = ask(draft);
            break;
        case STEP_AGENT:
        case STEP_MODEL:
        case STEP_TOOL:
            walk_again(draft);
            return;
        }
    }
}

void walk_complete(struct draft *draft, struct str output, enum edge edge)
{
    walk_to(draft, completed_to(draft, output, edge_name(edge), draft->step->edges[edge]));
}

void walk_fail(struct draft *draft, struct str reason, bool refused)
{
    walk_to(draft, failed(draft, reason, refused));
}

/* ---- the end of the run ---- */

void walk_finish(struct draft *draft, size_t criterion)
{
    const struct contract *contract = draft->contract;
    struct str output = draft->output.data != NULL ? draft->output : draft->run->at.candidate;
    for (size_t i = criterion; i < contract->criteria_count; i++) {
        const struct criterion *due = &contract->criteria[i];
        if (due->after >= 0 || due->before >= 0)
            continue;
        if (due->judge >= 0) {
            draft->run->at.judging = (int32_t)i;
            draft->run->at.attempt = 1;
            draft->run->at.candidate = output;
            walk_again(draft);
            return;
        }
        bool holds = false;
        struct error error = {.class = ERROR_NONE};
        bool ok = scope_true(draft, due->check, (struct scope){.what = "success_criteria"}, &holds, &error);
        struct fact *fact = draft_fact(draft, FACT_CRITERION_CHECKED);
        fact->is.criterion_checked = (struct fact_criterion_checked){
            .says = due->says,
            .holds = ok && holds,
            .reason = ok ? STR_NONE : arena_str(draft->arena, str_of(error.text)),
        };
        if (!ok || !holds) {
            walk_end(draft, RUN_FAILED, arena_printf(draft->arena, "criterion not met: %.*s", STR_ARG(due->says)),
                     output);
            return;
        }
    }
    walk_end(draft, RUN_COMPLETED, STR("completed"), output);
}
