/* scope.c: what an expression can see: .input .vars .run .<step> and, in checks, .calls */
#include "worker/base/json.h"
#include "worker/core/draft.h"

void scope_forget(struct draft *draft)
{
    expr_root_free(draft->root);
    draft->root = NULL;
}

struct str scope_quote(struct arena *arena, struct str text)
{
    json_t *string = json_stringn(text.data != NULL ? text.data : "", text.size);
    struct str quoted = string != NULL ? json_text(arena, string) : STR("\"\"");
    json_decref(string);
    return quoted;
}

static void put_text(json_t *object, const char *key, struct str text)
{
    json_object_set_new(object, key, json_stringn(text.data != NULL ? text.data : "", text.size));
}

static struct str run_member(struct draft *draft)
{
    const struct run *run = draft->run;
    json_t *object = json_object();
    put_text(object, "id", run->id);
    put_text(object, "contract", run->contract);
    json_object_set_new(object, "age_s", json_integer((draft->event_ms - run->started_at_ms) / 1000));
    json_t *visits = json_object();
    for (size_t i = 0; i < run->steps_count; i++)
        json_object_set_new(visits, run->steps[i].name.data, json_integer(run->steps[i].visits));
    json_object_set_new(object, "visits", visits);
    json_t *usage = json_object();
    json_object_set_new(usage, "steps", json_integer(run->usage.steps));
    json_object_set_new(usage, "llm_tokens", json_integer(run->usage.tokens_in + run->usage.tokens_out));
    json_object_set_new(usage, "usd", json_real((double)run->usage.micro_usd / 1e6));
    json_object_set_new(object, "usage", usage);
    struct str text = json_text(draft->arena, object);
    json_decref(object);
    return text;
}

static const struct tool_request *request_answered(const struct run *run, size_t answer)
{
    size_t nth = 0;
    for (size_t i = answer; i > 0; i--) {
        const struct message *message = &run->at.conversation[i - 1];
        if (message->role == ROLE_ASSISTANT)
            return nth < message->calls_count ? &message->calls[nth] : NULL;
        nth++;
    }
    return NULL;
}

/* Anything that is no JSON (a model may write what it likes) stays visible as a string. */
static json_t *value_of(struct str text)
{
    json_t *value = text.data != NULL ? json_read(text, RUN_STATE_SIZE_MAX, NULL) : json_null();
    return value != NULL ? value : json_stringn(text.data, text.size);
}

static void append_call(json_t *calls, struct str tool, struct str arguments, struct str result)
{
    json_t *call = json_object();
    put_text(call, "tool", tool);
    json_object_set_new(call, "args", value_of(arguments));
    json_object_set_new(call, "result", value_of(result));
    json_array_append_new(calls, call);
}

struct str scope_calls(struct draft *draft)
{
    const struct run *run = draft->run;
    json_t *calls = json_array();
    if (draft->made != NULL && run->at.conversation_count == 0)
        append_call(calls, draft->made->tool->name, draft->made->arguments, draft->made_result);
    for (size_t i = 0; i < run->at.conversation_count; i++) {
        const struct message *message = &run->at.conversation[i];
        const struct tool_request *request = NULL;
        if (message->role == ROLE_TOOL && message->answer == ANSWER_DONE)
            request = request_answered(run, i);
        if (request != NULL)
            append_call(calls, request->tool, request->arguments, message->content);
    }
    struct str text = json_text(draft->arena, calls);
    json_decref(calls);
    return text;
}

/* Most expressions read one member or two; to parse the others costs more than to evaluate. */
static bool wanted(const struct draft *draft, const struct expr *expr, struct str member)
{
    return expr_may_read(expr, member) && !expr_root_has(draft->root, member.data);
}

static void prepare(struct draft *draft, const struct expr *expr, struct scope scope)
{
    const struct run *run = draft->run;
    if (draft->root == NULL)
        draft->root = expr_root_new();
    if (wanted(draft, expr, STR("input")))
        expr_root_set(draft->root, "input", run->input);
    if (wanted(draft, expr, STR("vars")))
        expr_root_set(draft->root, "vars", run->vars);
    if (wanted(draft, expr, STR("run")))
        expr_root_set(draft->root, "run", run_member(draft));
    for (size_t i = 0; i < run->steps_count; i++)
        if (wanted(draft, expr, run->steps[i].name))
            expr_root_set(draft->root, run->steps[i].name.data, run->steps[i].output);
    if (scope.calls && expr_may_read(expr, STR("calls")))
        expr_root_set(draft->root, "calls", scope_calls(draft));
    if (scope.candidate.data != NULL)
        expr_root_set(draft->root, draft->step->name.data, scope.candidate);
}

static struct expr_site site(const struct draft *draft)
{
    return (struct expr_site){.run = draft->run->id, .step = draft->run->at.step};
}

bool scope_eval(struct draft *draft, const struct expr *expr, struct scope scope, struct str *json, struct error *error)
{
    prepare(draft, expr, scope);
    if (expr_eval(expr, draft->root, site(draft), draft->arena, json, error))
        return true;
    return error_wrap(error, "steps.%s.%s", draft->step->name.data, scope.what);
}

bool scope_true(struct draft *draft, const struct expr *expr, struct scope scope, bool *truth, struct error *error)
{
    prepare(draft, expr, scope);
    if (expr_true(expr, draft->root, site(draft), truth, error))
        return true;
    return error_wrap(error, "steps.%s.%s", draft->step->name.data, scope.what);
}

bool scope_true_over(struct draft *draft, const struct expr *expr, struct str json, bool *truth, struct error *error)
{
    struct expr_root *root = expr_root_of(json);
    bool ok = expr_true(expr, root, site(draft), truth, error);
    expr_root_free(root);
    return ok;
}

bool scope_eval_over(struct draft *draft, const struct expr *expr, struct str json, struct str *out,
                     struct error *error)
{
    struct expr_root *root = expr_root_of(json);
    bool ok = expr_eval(expr, root, site(draft), draft->arena, out, error);
    expr_root_free(root);
    return ok;
}
