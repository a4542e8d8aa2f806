/* accept.c: is this output good enough to be committed as the step's? Schemas, checks, criteria, judges. */
#include "worker/base/json.h"
#include "worker/core/draft.h"

/* Why the output does not fit, or STR_NONE. */
static struct str misfit(struct draft *draft, const struct schema *schema, struct str output)
{
    struct error error;
    json_t *value = schema != NULL ? json_read(output, RUN_STATE_SIZE_MAX, &error) : NULL;
    if (schema == NULL)
        return STR_NONE;
    bool fits = value != NULL && schema_check(schema, value, &error);
    json_decref(value);
    return fits ? STR_NONE : arena_str(draft->arena, str_of(error.text));
}

/* Why the check does not hold, or STR_NONE. */
static struct str unchecked(struct draft *draft, const struct expr *check, struct str output)
{
    if (check == NULL)
        return STR_NONE;
    bool holds = false;
    struct error error;
    struct scope scope = {.what = "check", .calls = true, .candidate = output};
    if (!scope_true(draft, check, scope, &holds, &error))
        return arena_str(draft->arena, str_of(error.text));
    struct str text = expr_text(check);
    return holds ? STR_NONE : arena_printf(draft->arena, "this must hold: %.*s", STR_ARG(text));
}

/* A write is never repeated because its answer displeases (I5). */
static bool may_repeat(const struct draft *draft)
{
    if (draft_is_agent(draft))
        return true;
    return draft->contract->tools[draft->step->tool].effect != EFFECT_WRITE;
}

void accept_reject(struct draft *draft, const char *rule, struct str output, struct str reason)
{
    struct run *run = draft->run;
    bool retry = may_repeat(draft) && run->at.attempt <= draft->contract->retry_budget;
    struct fact *fact = draft_fact(draft, FACT_OUTPUT_REJECTED);
    fact->is.output_rejected = (struct fact_output_rejected){
        .output = output, .rule = str_of(rule), .reason = reason, .retry = retry};
    run->at.judging = -1;
    run->at.candidate = STR_NONE;
    if (!retry) {
        walk_fail(draft, arena_printf(draft->arena, "output not accepted (%s): %.*s", rule, STR_ARG(reason)), false);
        return;
    }
    int64_t delay = retry_delay_ms(run, draft->arena, draft->env->backoff_ms, draft->env->backoff_max_ms, 0);
    run->usage.retries++;
    run->at.attempt++;
    if (draft_is_agent(draft)) {
        draft_say(draft, (struct message){
                             .role = ROLE_USER,
                             .content = arena_printf(draft->arena, "Your answer was not accepted: %.*s. Answer again.",
                                                     STR_ARG(reason)),
                         });
        walk_again(draft);
        return;
    }
    walk_park(draft, WAITS_TIMER, arena_printf(draft->arena, "output not accepted (%s)", rule),
              draft->env->now_ms + delay);
}

static void state_criterion(struct draft *draft, const struct criterion *criterion, bool holds, struct str reason)
{
    struct fact *fact = draft_fact(draft, FACT_CRITERION_CHECKED);
    fact->is.criterion_checked = (struct fact_criterion_checked){
        .says = criterion->says,
        .judge = criterion->judge >= 0 ? draft->contract->agents[criterion->judge].name : STR_NONE,
        .holds = holds,
        .reason = reason,
    };
}

/* The criteria after this step, from `first` on; the step is complete when all hold. */
static void criteria_from(struct draft *draft, struct str output, size_t first)
{
    const struct contract *contract = draft->contract;
    int32_t here = (int32_t)(draft->step - contract->steps);
    for (size_t i = first; i < contract->criteria_count; i++) {
        const struct criterion *criterion = &contract->criteria[i];
        if (criterion->after != here)
            continue;
        if (criterion->judge >= 0) {
            draft->run->at.judging = (int32_t)i;
            draft->run->at.candidate = output;
            walk_again(draft);
            return;
        }
        struct str why = unchecked(draft, criterion->check, output);
        state_criterion(draft, criterion, why.data == NULL, why);
        if (why.data != NULL) {
            accept_reject(draft, "criterion", output,
                          arena_printf(draft->arena, "%.*s; %.*s", STR_ARG(criterion->says), STR_ARG(why)));
            return;
        }
    }
    walk_complete(draft, output, EDGE_NEXT);
}

void accept_output(struct draft *draft, struct str output)
{
    const struct agent *agent = draft_agent(draft);
    struct str why = misfit(draft, draft->step->output, output);
    if (why.data == NULL && agent != NULL)
        why = misfit(draft, agent->output, output);
    if (why.data != NULL) {
        accept_reject(draft, "output", output, why);
        return;
    }
    why = unchecked(draft, draft->step->check, output);
    if (why.data == NULL && agent != NULL)
        why = unchecked(draft, agent->check, output);
    if (why.data != NULL) {
        accept_reject(draft, "check", output, why);
        return;
    }
    criteria_from(draft, output, 0);
}

/* ---- judges ---- */

/* False: what the judge is to be shown cannot be evaluated. */
static bool judge_question(struct draft *draft, const struct criterion *criterion, struct str *question,
                           struct error *error)
{
    struct run *run = draft->run;
    struct str shown;
    if (criterion->sees != NULL) {
        struct scope scope = {.what = "success_criteria.sees", .calls = true, .candidate = run->at.candidate};
        if (!scope_eval(draft, criterion->sees, scope, &shown, error))
            return false;
    } else {
        struct str saw = run->at.conversation_count > 0 ? run->at.conversation[0].content : STR("");
        shown = arena_printf(
            draft->arena, "{\"saw\":%.*s,\"output\":%.*s,\"calls\":%.*s}", STR_ARG(scope_quote(draft->arena, saw)),
            STR_ARG(run->at.candidate.data != NULL ? run->at.candidate : STR("null")), STR_ARG(scope_calls(draft)));
    }
    *question = arena_printf(draft->arena, "Does this hold: \"%.*s\"?\n\n%.*s", STR_ARG(criterion->says),
                             STR_ARG(shown));
    return true;
}

/* Where the judge's word leads: on, back to who answered, or to the end of the run. */
static void judged(struct draft *draft, bool yes, struct str reason)
{
    struct run *run = draft->run;
    size_t index = (size_t)run->at.judging;
    const struct criterion *criterion = &draft->contract->criteria[index];
    struct str output = run->at.candidate;
    bool at_end = criterion->after < 0;
    state_criterion(draft, criterion, yes, reason);
    run->at.judging = -1;
    if (yes && at_end)
        walk_finish(draft, index + 1);
    else if (yes)
        criteria_from(draft, output, index + 1);
    else if (at_end)
        walk_end(draft, RUN_FAILED, arena_printf(draft->arena, "criterion not met: %.*s", STR_ARG(criterion->says)),
                 output);
    else
        accept_reject(
            draft, "criterion", output,
            arena_printf(draft->arena, "%.*s; the judge says: %.*s", STR_ARG(criterion->says), STR_ARG(reason)));
}

/* The judge of a tool step comes with an event of its own: .calls is made again from what the state holds. */
static void recall(struct draft *draft)
{
    struct str arguments = STR("{}");
    struct error error;
    if (draft->step->args != NULL &&
        !scope_eval(draft, draft->step->args, (struct scope){.what = "args"}, &arguments, &error))
        arguments = STR("null");
    struct call *made = ARENA_NEW(draft->arena, struct call);
    *made = (struct call){
        .kind = CALL_TOOL, .tool = &draft->contract->tools[draft->step->tool], .arguments = arguments};
    draft->made = made;
    draft->made_result = draft->run->at.candidate;
}

const struct call *accept_judge_call(struct draft *draft)
{
    const struct criterion *criterion = &draft->contract->criteria[draft->run->at.judging];
    if (!draft_is_agent(draft) && draft->run->at.candidate.data != NULL)
        recall(draft);
    const struct agent *judge = &draft->contract->agents[criterion->judge];
    struct message *question = ARENA_NEW(draft->arena, struct message);
    struct error error;
    question->role = ROLE_USER;
    if (!judge_question(draft, criterion, &question->content, &error)) { /* nobody judges what he was not shown */
        judged(draft, false, arena_str(draft->arena, str_of(error.text)));
        return NULL;
    }
    struct call *call = ARENA_NEW(draft->arena, struct call);
    *call = (struct call){
        .kind = CALL_MODEL,
        .effect = EFFECT_READ,
        .key = run_call_key(draft->arena, draft->env->name_space, draft->run),
        .agent = judge->name,
        .model = judge->model,
        .judge = true,
        .system = agent_system(draft,
                               arena_printf(draft->arena,
                                            "%.*s\n\nYou are the judge of one criterion. Answer with a JSON object: "
                                            "{\"answer\": \"yes\" or \"no\", \"reason\": \"one sentence\"}.",
                                            STR_ARG(judge->system))),
        .conversation = question,
        .conversation_count = 1,
        .output = draft->contract->judge_output,
    };
    return call;
}

/* The judge's answer, or a reason why it is none (then the judge is asked again, within the retry budget). */
static bool read_judgement(struct draft *draft, const struct outcome *outcome, bool *yes, struct str *reason)
{
    struct error error = {.text = "the answer was empty"};
    json_t *value = NULL;
    if (outcome->truncated)
        error_set(&error, ERROR_POISON, "the answer was cut by a length limit");
    else if (outcome->content.size > 0)
        value = json_read(outcome->content, RUN_STATE_SIZE_MAX, &error);
    bool fits = value != NULL && schema_check(draft->contract->judge_output, value, &error);
    if (fits) {
        *yes = str_is(json_member_str(draft->arena, value, "answer"), "yes");
        *reason = json_member_str(draft->arena, value, "reason");
    } else {
        *reason = arena_str(draft->arena, str_of(error.text));
    }
    json_decref(value);
    return fits;
}

void accept_judged(struct draft *draft, const struct outcome *outcome)
{
    struct run *run = draft->run;
    struct str reason;
    bool yes = false;
    if (!read_judgement(draft, outcome, &yes, &reason)) {
        bool retry = run->at.attempt <= draft->contract->retry_budget;
        struct fact *fact = draft_fact(draft, FACT_OUTPUT_REJECTED);
        fact->is.output_rejected = (struct fact_output_rejected){
            .output = outcome->content.data != NULL ? outcome->content : STR(""),
            .rule = STR("judge"),
            .reason = reason,
            .retry = retry,
        };
        if (retry) {
            run->at.attempt++;
            run->usage.retries++;
            walk_again(draft);
            return;
        }
        reason = arena_printf(draft->arena, "the judge gave no usable answer: %.*s", STR_ARG(reason));
    }
    judged(draft, yes, reason);
}
