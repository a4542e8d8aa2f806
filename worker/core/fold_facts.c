/* fold_facts.c: what each fact changes in the state of its run. schemas/README.md has the same in words. */
#include <string.h>

#include "worker/core/fold_put.h"
#include "worker/core/fold_state.h"

/* ---- where the run is ---- */

static struct active *active_of(struct fold *fold, struct str branch)
{
    for (size_t i = 0; i < fold->active_count; i++)
        if (str_equal(fold->active[i].branch, branch))
            return &fold->active[i];
    if (fold->active_count == fold->active_capacity) {
        size_t capacity = fold->active_capacity == 0 ? 4 : fold->active_capacity * 2;
        struct active *list = ARENA_ARRAY(fold->arena, capacity, struct active);
        if (fold->active_count > 0)
            memcpy(list, fold->active, fold->active_count * sizeof(list[0]));
        fold->active = list;
        fold->active_capacity = capacity;
    }
    struct active *active = &fold->active[fold->active_count++];
    *active = (struct active){.branch = arena_str(fold->arena, branch), .step = STR("")};
    return active;
}

static void drop_branch(struct fold *fold, struct str branch)
{
    for (size_t i = 0; i < fold->active_count; i++) {
        if (str_equal(fold->active[i].branch, branch)) {
            fold->active[i] = fold->active[--fold->active_count];
            return;
        }
    }
}

static void stand_at(struct fold *fold, const struct fact *fact, struct str step, int32_t visit, int32_t attempt)
{
    struct active *active = active_of(fold, fact->branch);
    bool same = str_equal(active->step, step) && active->visit == visit;
    bool doubtful = same && active->status == STEP_IN_DOUBT;
    *active = (struct active){
        .branch = active->branch,
        .step = same ? active->step : arena_str(fold->arena, step),
        .visit = visit,
        .attempt = attempt,
        .status = doubtful ? STEP_IN_DOUBT : STEP_RUNNING,
        .owner = "worker",
        .who = "worker",
        .since_ms = fact->at_ms,
    };
}

/* Visits that `step` has had: the next one is one more. Every visit ends in one of the two lists. */
static int32_t visits_of(const struct fold *fold, struct str branch, struct str step)
{
    const json_t *lists[] = {fold->completed_steps, fold->failed_steps};
    int32_t visits = 0;
    for (size_t list = 0; list < 2; list++) {
        size_t i;
        json_t *item;
        json_array_foreach((json_t *)lists[list], i, item) {
            int32_t visit = (int32_t)json_integer_value(json_object_get(item, "visit"));
            if (put_is(item, "step", step) && put_is(item, "branch", branch) && visit > visits)
                visits = visit;
        }
    }
    return visits;
}

/* The step ended: the branch stands at `target` now, and a worker will take it from there. */
static void move_to(struct fold *fold, const struct fact *fact, struct str target)
{
    if (target.size == 0 || str_is(target, "end"))
        drop_branch(fold, fact->branch);
    else
        stand_at(fold, fact, target, visits_of(fold, fact->branch, target) + 1, 1);
}

/* ---- the facts ---- */

/* What most entries begin with. */
static json_t *entry_new(json_t *list, const struct fact *fact)
{
    json_t *entry = json_object();
    put_text(entry, "step", fact->step);
    put_text(entry, "branch", fact->branch);
    put_number(entry, "visit", fact->visit);
    put_number(entry, "attempt", fact->attempt);
    put_number(entry, "at_ms", fact->at_ms);
    json_array_append_new(list, entry);
    return entry;
}

static void run_started(struct fold *fold, const struct fact *fact)
{
    const struct fact_run_started *body = &fact->is.run_started;
    fold->known = true;
    put_text(fold->head, "contract", body->contract);
    put_text(fold->head, "contract_hash", fact->contract_hash);
    put_text(fold->head, "requested_by", body->requested_by);
    put_text(fold->head, "goal", body->goal);
    put_number(fold->head, "started_at_ms", fact->at_ms);
    put_number(fold->head, "deadline_at_ms", body->deadline_at_ms);
    put_json(fold->head, "input", body->input);
}

static void model_answered(struct fold *fold, const struct fact *fact)
{
    const struct fact_model_answered *body = &fact->is.model_answered;
    json_t *entry = entry_new(fold->model_calls, fact);
    put_number(entry, "turn", fact->turn);
    put_text(entry, "agent", body->agent);
    put_text(entry, "model", body->model);
    put_text(entry, "response_model", body->response_model);
    put_bool(entry, "judge", body->judge);
    put_number(entry, "tools_asked", (int64_t)body->calls_count);
    put_text(entry, "finish_reason", body->finish_reason);
    put_known(entry, "tokens_in", body->tokens_in);
    put_known(entry, "tokens_out", body->tokens_out);
    put_known(entry, "tokens_cached", body->tokens_cached);
    put_known(entry, "micro_usd", body->micro_usd);
    put_number(entry, "duration_ms", body->duration_ms);
    put_text(entry, "origin", str_of(call_origin_name(body->origin)));
    put_text(entry, "key", body->key);
    struct usage *usage = &fold->usage;
    usage->model_calls++;
    usage->tokens_unknown += body->tokens_in < 0 || body->tokens_out < 0;
    usage->tokens_in += body->tokens_in > 0 ? body->tokens_in : 0;
    usage->tokens_out += body->tokens_out > 0 ? body->tokens_out : 0;
    usage->micro_usd += body->micro_usd > 0 ? body->micro_usd : 0;
    fold->usd_unknown += body->micro_usd < 0;
}

/* A doubt about this write that is still open; NULL = none. */
static json_t *open_doubt(const struct fold *fold, struct str key)
{
    size_t i;
    json_t *doubt;
    json_array_foreach(fold->doubts, i, doubt) {
        if (put_is(doubt, "key", key) && !json_is_true(json_object_get(doubt, "settled")))
            return doubt;
    }
    return NULL;
}

static void settle(json_t *doubt, struct str how, struct str outcome, struct str by)
{
    put_bool(doubt, "settled", true);
    put_text(doubt, "how", how);
    put_text(doubt, "outcome", outcome);
    put_text(doubt, "by", by);
}

/* The approval that admitted the call is spent by it. */
static void spend(struct fold *fold, const struct fact *fact)
{
    const struct fact_tool_answered *body = &fact->is.tool_answered;
    for (size_t i = json_array_size(fold->approvals); body->approval.size > 0 && i > 0; i--) {
        json_t *approval = json_array_get(fold->approvals, i - 1);
        if (!put_is(approval, "step", body->approval) || !put_is(approval, "decision", STR("approved")))
            continue;
        put_bool(approval, "spent", true);
        json_t *by = json_object();
        put_text(by, "step", fact->step);
        put_number(by, "visit", fact->visit);
        put_text(by, "key", body->key);
        json_object_set_new(approval, "spent_by", by);
        return;
    }
}

static void tool_answered(struct fold *fold, const struct fact *fact)
{
    const struct fact_tool_answered *body = &fact->is.tool_answered;
    bool write = str_is(body->effect, "write");
    json_t *entry = entry_new(fold->tool_calls, fact);
    put_number(entry, "call", fact->call);
    put_text(entry, "tool", body->tool);
    put_text(entry, "effect", body->effect);
    put_text(entry, "key", body->key);
    put_text(entry, "origin", str_of(call_origin_name(body->origin)));
    put_json(entry, "arguments", body->arguments);
    put_json(entry, "result", body->result);
    put_number(entry, "http_status", body->http_status);
    put_number(entry, "duration_ms", body->duration_ms);
    put_text(entry, "approval", body->approval);
    put_text(entry, "args_hash", body->args_hash);
    fold->usage.tool_calls++;
    spend(fold, fact);
    if (!write)
        return;
    fold->usage.writes++;
    json_t *effect = entry_new(fold->side_effects, fact);
    put_number(effect, "call", fact->call);
    put_text(effect, "tool", body->tool);
    put_text(effect, "key", body->key);
    put_text(effect, "known", str_of(call_origin_name(body->origin)));
    put_json(effect, "arguments", body->arguments);
    put_json(effect, "result", body->result);
    put_text(effect, "approval", body->approval);
    json_t *doubt = open_doubt(fold, body->key); /* the record in Redis had the result: no fact of its own */
    if (doubt != NULL)
        settle(doubt, STR("ledger"), STR("done"), STR_NONE);
    active_of(fold, fact->branch)->status = STEP_RUNNING;
}

static void retry_entry(struct fold *fold, const struct fact *fact, struct str what, struct str rule, struct str reason,
                        int64_t due_at_ms)
{
    json_t *entry = entry_new(fold->retries, fact);
    put_text(entry, "what", what);
    put_text(entry, "rule", rule);
    put_text(entry, "reason", reason);
    put_time(entry, "due_at_ms", due_at_ms);
    fold->usage.retries++;
}

static void call_failed(struct fold *fold, const struct fact *fact)
{
    const struct fact_call_failed *body = &fact->is.call_failed;
    if (body->retry)
        retry_entry(fold, fact, body->target, STR("call"), body->reason, body->due_at_ms);
}

static void call_refused(struct fold *fold, const struct fact *fact)
{
    const struct fact_call_refused *body = &fact->is.call_refused;
    json_t *entry = entry_new(fold->refusals, fact);
    put_text(entry, "tool", body->tool);
    put_text(entry, "arguments", body->arguments);
    put_bool(entry, "arguments_valid", body->arguments_valid);
    put_text(entry, "rule", body->rule);
    put_text(entry, "reason", body->reason);
    fold->usage.refusals++;
}

static void criterion_checked(struct fold *fold, const struct fact *fact)
{
    const struct fact_criterion_checked *body = &fact->is.criterion_checked;
    json_t *entry = entry_new(fold->criteria, fact);
    put_text(entry, "says", body->says);
    put_text(entry, "judge", body->judge);
    put_bool(entry, "holds", body->holds);
    put_text(entry, "reason", body->reason);
}

static void in_doubt(struct fold *fold, const struct fact *fact)
{
    const struct fact_in_doubt *body = &fact->is.in_doubt;
    json_t *doubt = open_doubt(fold, body->key);
    if (doubt == NULL)
        doubt = entry_new(fold->doubts, fact);
    put_text(doubt, "tool", body->tool);
    put_text(doubt, "key", body->key);
    put_json(doubt, "arguments", body->arguments);
    put_text(doubt, "reason", body->reason);
    put_text(doubt, "policy", body->policy);
    put_time(doubt, "until_ms", body->until_ms);
    put_bool(doubt, "settled", false);
    put_text(doubt, "how", STR_NONE);
    put_text(doubt, "outcome", STR_NONE);
    put_text(doubt, "by", STR_NONE);
    active_of(fold, fact->branch)->status = STEP_IN_DOUBT;
}

static void doubt_settled(struct fold *fold, const struct fact *fact)
{
    const struct fact_doubt_settled *body = &fact->is.doubt_settled;
    json_t *doubt = open_doubt(fold, body->key);
    /* A probe that told nothing settles nothing; a policy that gives up does. */
    bool settled = !str_is(body->outcome, "unknown") || str_is(body->how, "fail");
    if (doubt != NULL) {
        settle(doubt, body->how, body->outcome, body->by);
        put_bool(doubt, "settled", settled);
    }
    if (settled)
        active_of(fold, fact->branch)->status = STEP_RUNNING;
}

/* The question of this visit that nobody answered yet; a new one when there is none. */
static json_t *question_of(struct fold *fold, const struct fact *fact)
{
    size_t i;
    json_t *approval;
    json_array_foreach(fold->approvals, i, approval) {
        if (put_is(approval, "step", fact->step) && put_is(approval, "branch", fact->branch) &&
            json_integer_value(json_object_get(approval, "visit")) == fact->visit &&
            put_is(approval, "decision", STR("waiting")))
            return approval;
    }
    static const char *const absent[] = {"guards", "tool",   "arguments", "args_hash",     "planned", "due_at_ms",
                                         "by",     "reason", "timed_out", "decided_at_ms", "spent_by"};
    approval = entry_new(fold->approvals, fact);
    put_text(approval, "decision", STR("waiting"));
    put_bool(approval, "spent", false);
    for (size_t name = 0; name < sizeof(absent) / sizeof(absent[0]); name++)
        put_text(approval, absent[name], STR_NONE);
    return approval;
}

static void step_waiting(struct fold *fold, const struct fact *fact)
{
    const struct fact_step_waiting *body = &fact->is.step_waiting;
    struct active *active = active_of(fold, fact->branch);
    bool timer = str_is(body->waits_for, "timer");
    if (active->status != STEP_IN_DOUBT)
        active->status = STEP_WAITING;
    active->owner = "waiting";
    active->who = timer ? "timer" : "person";
    active->waits_for = arena_str(fold->arena, body->waits_for);
    active->reason = arena_str(fold->arena, body->reason);
    active->due_at_ms = body->due_at_ms;
    if (!str_is(body->waits_for, "approval"))
        return;
    json_t *question = question_of(fold, fact); /* the same again: its time has passed and it waits on */
    put_text(question, "guards", body->guards);
    put_text(question, "tool", body->tool);
    put_json(question, "arguments", body->arguments);
    put_text(question, "args_hash", body->args_hash);
    put_bool(question, "planned", body->planned);
    put_time(question, "due_at_ms", body->due_at_ms);
}

static void approval_decided(struct fold *fold, const struct fact *fact)
{
    const struct fact_approval_decided *body = &fact->is.approval_decided;
    json_t *approval = question_of(fold, fact);
    put_text(approval, "guards", body->guards);
    put_text(approval, "args_hash", body->args_hash);
    put_text(approval, "decision", body->decision);
    put_text(approval, "by", body->by);
    put_text(approval, "reason", body->reason);
    put_bool(approval, "timed_out", body->timed_out);
    put_number(approval, "decided_at_ms", fact->at_ms);
}

static void step_completed(struct fold *fold, const struct fact *fact)
{
    const struct fact_step_completed *body = &fact->is.step_completed;
    json_t *entry = entry_new(fold->completed_steps, fact);
    put_text(entry, "edge", body->edge);
    put_text(entry, "target", body->target);
    put_json(entry, "output", body->output);
    if (body->artifact.size > 0) {
        json_t *artifact = json_object();
        put_text(artifact, "step", fact->step);
        put_number(artifact, "visit", fact->visit);
        put_json(artifact, "output", body->output);
        json_object_set_new(fold->artifacts, body->artifact.data, artifact);
    }
    move_to(fold, fact, body->target);
}

static void step_failed(struct fold *fold, const struct fact *fact)
{
    const struct fact_step_failed *body = &fact->is.step_failed;
    json_t *entry = entry_new(fold->failed_steps, fact);
    put_text(entry, "status", str_of(step_status_name(body->refused ? STEP_REFUSED : STEP_FAILED)));
    put_text(entry, "reason", body->reason);
    put_text(entry, "edge", body->edge);
    put_text(entry, "target", body->target);
    move_to(fold, fact, body->target);
}

static void run_ended(struct fold *fold, const struct fact *fact)
{
    const struct fact_run_ended *body = &fact->is.run_ended;
    fold->ended = true;
    fold->status = body->status;
    fold->active_count = 0;
    fold->usage = body->usage;
    put_text(fold->head, "reason", body->reason);
    put_json(fold->head, "output", body->output);
    put_number(fold->head, "ended_at_ms", fact->at_ms);
}

void fold_apply(struct fold *fold, const struct fact *fact)
{
    if (fold->ended) /* the end is final: what comes after it changes nothing */
        return;
    if (fact->kind != FACT_RUN_ENDED)
        stand_at(fold, fact, fact->step, fact->visit, fact->attempt);
    switch (fact->kind) {
    case FACT_RUN_STARTED:
        run_started(fold, fact);
        break;
    case FACT_MODEL_ANSWERED:
        model_answered(fold, fact);
        break;
    case FACT_TOOL_ANSWERED:
        tool_answered(fold, fact);
        break;
    case FACT_CALL_FAILED:
        call_failed(fold, fact);
        break;
    case FACT_CALL_REFUSED:
        call_refused(fold, fact);
        break;
    case FACT_OUTPUT_REJECTED:
        if (fact->is.output_rejected.retry)
            retry_entry(fold, fact, fact->step, fact->is.output_rejected.rule, fact->is.output_rejected.reason, 0);
        break;
    case FACT_CRITERION_CHECKED:
        criterion_checked(fold, fact);
        break;
    case FACT_IN_DOUBT:
        in_doubt(fold, fact);
        break;
    case FACT_DOUBT_SETTLED:
        doubt_settled(fold, fact);
        break;
    case FACT_STEP_WAITING:
        step_waiting(fold, fact);
        break;
    case FACT_APPROVAL_DECIDED:
        approval_decided(fold, fact);
        break;
    case FACT_STEP_COMPLETED:
        step_completed(fold, fact);
        break;
    case FACT_STEP_FAILED:
        step_failed(fold, fact);
        break;
    case FACT_RUN_ENDED:
        run_ended(fold, fact);
        break;
    case FACT_REQUEST_ANSWERED: /* to a client; the run itself did not change */
        break;
    }
}
