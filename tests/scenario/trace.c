#include "tests/scenario/trace.h"

#include <stdarg.h>
#include <string.h>

#include "worker/base/units.h"

/* Each line begins with "> ", whatever is in its texts. */
void trace_line(struct trace *trace, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    struct str text = arena_vprintf(trace->arena, format, arguments);
    va_end(arguments);
    buf_puts(trace->out, "> ");
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '\n')
            buf_puts(trace->out, "\\n");
        else
            buf_put(trace->out, &text.data[i], 1);
    }
    buf_puts(trace->out, "\n");
}

static struct str join(struct trace *trace, struct str text, const char *word, struct str value)
{
    return value.data != NULL ? arena_printf(trace->arena, "%.*s %s %.*s", STR_ARG(text), word, STR_ARG(value)) : text;
}

static const char *in(struct trace *trace, int64_t ms)
{
    if (ms == 0)
        return "never";
    int64_t away = ms - trace->now_ms;
    if (away == 0)
        return "now";
    struct str text = units_duration_text(trace->arena, away < 0 ? -away : away);
    return arena_printf(trace->arena, away < 0 ? "%.*s ago" : "in %.*s", STR_ARG(text)).data;
}

/* A hash is known by its beginning. */
static struct str brief(struct str hash)
{
    return hash.size > 8 ? (struct str){hash.data, 8} : hash;
}

static const char *asker(bool judge, struct str agent)
{
    return judge ? " for judge " : agent.size > 0 ? " for " : "";
}

static const char *usd(struct trace *trace, int64_t micro_usd)
{
    return micro_usd < 0 ? "? USD"
                         : arena_printf(trace->arena, "%s USD", units_usd_text(trace->arena, micro_usd).data).data;
}

static struct str requests(struct trace *trace, const struct tool_request *calls, size_t count)
{
    struct str text = STR("");
    for (size_t i = 0; i < count; i++)
        text = arena_printf(trace->arena, "%.*s%s%.*s %.*s", STR_ARG(text), i == 0 ? "calls " : " | ",
                            STR_ARG(calls[i].tool), STR_ARG(calls[i].arguments));
    return text;
}

static struct str where(struct trace *trace, const struct fact *fact)
{
    if (fact->step.size == 0)
        return STR("");
    struct str text = arena_printf(trace->arena, " [%.*s %d.%d", STR_ARG(fact->step), fact->visit, fact->attempt);
    if (fact->turn > 0)
        text = arena_printf(trace->arena, "%.*s turn %d", STR_ARG(text), fact->turn);
    if (fact->call > 0)
        text = arena_printf(trace->arena, "%.*s call %d", STR_ARG(text), fact->call);
    return arena_printf(trace->arena, "%.*s]", STR_ARG(text));
}

/* ---- the bodies, one function a kind ---- */

static struct str say_started(struct trace *trace, const struct fact_run_started *body)
{
    return arena_printf(trace->arena, "%.*s by %.*s, deadline %s, input %.*s", STR_ARG(body->contract),
                        STR_ARG(body->requested_by), in(trace, body->deadline_at_ms), STR_ARG(body->input));
}

static struct str say_model(struct trace *trace, const struct fact_model_answered *body)
{
    struct str text = arena_printf(trace->arena, "%.*s%s%.*s:", STR_ARG(body->model), asker(body->judge, body->agent),
                                   STR_ARG(body->agent));
    if (body->content.data != NULL)
        text = arena_printf(trace->arena, "%.*s \"%.*s\"", STR_ARG(text), STR_ARG(body->content));
    if (body->calls_count > 0)
        text = arena_printf(trace->arena, "%.*s %.*s", STR_ARG(text),
                            STR_ARG(requests(trace, body->calls, body->calls_count)));
    return arena_printf(trace->arena, "%.*s (%s, %lld+%lld tokens, %s)", STR_ARG(text), call_origin_name(body->origin),
                        (long long)body->tokens_in, (long long)body->tokens_out, usd(trace, body->micro_usd));
}

static struct str say_tool(struct trace *trace, const struct fact_tool_answered *body)
{
    struct str text = arena_printf(trace->arena, "%.*s (%.*s, %s) key %.*s %.*s -> %.*s", STR_ARG(body->tool),
                                   STR_ARG(body->effect), call_origin_name(body->origin), STR_ARG(brief(body->key)),
                                   STR_ARG(body->arguments), STR_ARG(body->result));
    text = join(trace, text, "spends approval", body->approval);
    return join(trace, text, "of", brief(body->args_hash));
}

static struct str say_call_failed(struct trace *trace, const struct fact_call_failed *body)
{
    return arena_printf(trace->arena, "%.*s %d: %.*s%s%s%s", STR_ARG(body->target), body->http_status,
                        STR_ARG(body->reason), body->executed_surely_not ? ", surely not executed" : "",
                        body->retry ? ", again " : ", final", body->retry ? in(trace, body->due_at_ms) : "");
}

static struct str say_refused(struct trace *trace, const struct fact_call_refused *body)
{
    return arena_printf(trace->arena, "%.*s %.*s%s by %.*s: %.*s", STR_ARG(body->tool), STR_ARG(body->arguments),
                        body->arguments_valid ? "" : " (invalid)", STR_ARG(body->rule), STR_ARG(body->reason));
}

static struct str say_criterion(struct trace *trace, const struct fact_criterion_checked *body)
{
    struct str text = arena_printf(trace->arena, "\"%.*s\" %s", STR_ARG(body->says),
                                   body->holds ? "holds" : "does not hold");
    text = join(trace, text, "says", body->judge);
    return body->reason.data != NULL ? arena_printf(trace->arena, "%.*s: %.*s", STR_ARG(text), STR_ARG(body->reason))
                                     : text;
}

static struct str say_waiting(struct trace *trace, const struct fact_step_waiting *body)
{
    return arena_printf(trace->arena, "for %.*s%s, due %s: %.*s", STR_ARG(body->waits_for),
                        body->planned ? " (planned)" : "", in(trace, body->due_at_ms), STR_ARG(body->reason));
}

static struct str say_decided(struct trace *trace, const struct fact_approval_decided *body)
{
    struct str text = arena_printf(trace->arena, "%.*s%s by %.*s", STR_ARG(body->decision),
                                   body->timed_out ? " (timed out)" : "", STR_ARG(body->by));
    text = join(trace, text, "because", body->reason);
    text = join(trace, text, "for", body->guards);
    return join(trace, text, "of", brief(body->args_hash));
}

static struct str say_completed(struct trace *trace, const struct fact_step_completed *body)
{
    struct str text = arena_printf(trace->arena, "%.*s -> %.*s", STR_ARG(body->edge), STR_ARG(body->target));
    text = join(trace, text, "output", body->output);
    text = join(trace, text, "artifact", body->artifact);
    return join(trace, text, "vars", body->vars);
}

static struct str say_failed(struct trace *trace, const struct fact_step_failed *body)
{
    struct str text = arena_printf(trace->arena, "%s%.*s", body->refused ? "refused: " : "", STR_ARG(body->reason));
    return body->edge.data != NULL ? arena_printf(trace->arena, "%.*s, %.*s -> %.*s", STR_ARG(text),
                                                  STR_ARG(body->edge), STR_ARG(body->target))
                                   : text;
}

static struct str say_ended(struct trace *trace, const struct fact_run_ended *body)
{
    const struct usage *usage = &body->usage;
    struct str text = arena_printf(trace->arena, "%s: %.*s", run_status_name(body->status), STR_ARG(body->reason));
    return arena_printf(
        trace->arena,
        "%.*s (steps %d, model %d, tools %d, writes %d, retries %d, refusals %d, tokens %lld+%lld, unknown %d, %s)",
        STR_ARG(text), usage->steps, usage->model_calls, usage->tool_calls, usage->writes, usage->retries,
        usage->refusals, (long long)usage->tokens_in, (long long)usage->tokens_out, usage->tokens_unknown,
        usd(trace, usage->micro_usd));
}

static struct str say_in_doubt(struct trace *trace, const struct fact_in_doubt *body)
{
    return arena_printf(trace->arena, "%.*s key %.*s %.*s: %.*s; policy %.*s, nobody acts before %s",
                        STR_ARG(body->tool), STR_ARG(brief(body->key)), STR_ARG(body->arguments), STR_ARG(body->reason),
                        STR_ARG(body->policy), in(trace, body->until_ms));
}

static struct str say_settled(struct trace *trace, const struct fact_doubt_settled *body)
{
    struct str text = arena_printf(trace->arena, "%.*s key %.*s: %.*s says %.*s", STR_ARG(body->tool),
                                   STR_ARG(brief(body->key)), STR_ARG(body->how), STR_ARG(body->outcome));
    return join(trace, text, "by", body->by);
}

static struct str say(struct trace *trace, const struct fact *fact)
{
    switch (fact->kind) {
    case FACT_RUN_STARTED:
        return say_started(trace, &fact->is.run_started);
    case FACT_MODEL_ANSWERED:
        return say_model(trace, &fact->is.model_answered);
    case FACT_TOOL_ANSWERED:
        return say_tool(trace, &fact->is.tool_answered);
    case FACT_CALL_FAILED:
        return say_call_failed(trace, &fact->is.call_failed);
    case FACT_CALL_REFUSED:
        return say_refused(trace, &fact->is.call_refused);
    case FACT_OUTPUT_REJECTED:
        return arena_printf(trace->arena, "%.*s by %.*s%s: %.*s", STR_ARG(fact->is.output_rejected.output),
                            STR_ARG(fact->is.output_rejected.rule),
                            fact->is.output_rejected.retry ? ", again" : ", final",
                            STR_ARG(fact->is.output_rejected.reason));
    case FACT_CRITERION_CHECKED:
        return say_criterion(trace, &fact->is.criterion_checked);
    case FACT_IN_DOUBT:
        return say_in_doubt(trace, &fact->is.in_doubt);
    case FACT_DOUBT_SETTLED:
        return say_settled(trace, &fact->is.doubt_settled);
    case FACT_STEP_WAITING:
        return say_waiting(trace, &fact->is.step_waiting);
    case FACT_APPROVAL_DECIDED:
        return say_decided(trace, &fact->is.approval_decided);
    case FACT_STEP_COMPLETED:
        return say_completed(trace, &fact->is.step_completed);
    case FACT_STEP_FAILED:
        return say_failed(trace, &fact->is.step_failed);
    case FACT_RUN_ENDED:
        return say_ended(trace, &fact->is.run_ended);
    case FACT_REQUEST_ANSWERED:
        break;
    }
    return STR("");
}

void trace_fact(struct trace *trace, const struct fact *fact)
{
    trace_line(trace, "fact %lld %s%.*s %.*s", (long long)fact->seq, fact_kind_name(fact->kind),
               STR_ARG(where(trace, fact)), STR_ARG(say(trace, fact)));
}

/* ---- calls ---- */

static void trace_message(struct trace *trace, const struct message *message)
{
    static const char *const roles[] = {"user", "assistant", "tool"};
    static const char *const kinds[] = {"", " refused", " failed"};
    struct str text = arena_printf(trace->arena, "  %s%s:", roles[message->role],
                                   message->role == ROLE_TOOL ? kinds[message->answer] : "");
    if (message->role == ROLE_TOOL)
        text = arena_printf(trace->arena, "%.*s (%.*s)", STR_ARG(text), STR_ARG(message->call_id));
    if (message->content.data != NULL)
        text = arena_printf(trace->arena, "%.*s %.*s", STR_ARG(text), STR_ARG(message->content));
    if (message->calls_count > 0)
        text = arena_printf(trace->arena, "%.*s %.*s", STR_ARG(text),
                            STR_ARG(requests(trace, message->calls, message->calls_count)));
    trace_line(trace, "%.*s", STR_ARG(text));
}

static void trace_model_call(struct trace *trace, const struct call *call, struct str at, size_t said)
{
    struct str text = arena_printf(trace->arena, "call model %.*s%s%.*s %.*s key %.*s", STR_ARG(call->model),
                                   asker(call->judge, call->agent), STR_ARG(call->agent), STR_ARG(at),
                                   STR_ARG(brief(call->key)));
    for (size_t i = 0; i < call->tools_count; i++)
        text = arena_printf(trace->arena, "%.*s%s%.*s", STR_ARG(text), i == 0 ? " tools " : ",",
                            STR_ARG(call->tools[i]->name));
    if (call->output != NULL)
        text = arena_printf(trace->arena, "%.*s, structured", STR_ARG(text));
    trace_line(trace, "%.*s", STR_ARG(text));
    for (size_t i = call->judge ? 0 : said; i < call->conversation_count; i++)
        trace_message(trace, &call->conversation[i]);
}

void trace_call(struct trace *trace, const struct call *call, const struct run *run, size_t said)
{
    const struct cursor *cursor = &run->at;
    struct str at = arena_printf(trace->arena, "[%.*s %d.%d turn %d call %d]", STR_ARG(cursor->step), cursor->visit,
                                 cursor->attempt, cursor->turn, cursor->call);
    if (call->kind == CALL_MODEL) {
        trace_model_call(trace, call, at, said);
        return;
    }
    struct str text = arena_printf(
        trace->arena, "%s %.*s %.*s %.*s key %.*s, %s, timeout %.*s", call->kind == CALL_PROBE ? "probe" : "call tool",
        STR_ARG(call->tool->name), STR_ARG(call->arguments), STR_ARG(at), STR_ARG(brief(call->key)),
        effect_class_name(call->effect), STR_ARG(units_duration_text(trace->arena, call->timeout_ms)));
    if (call->takeover)
        text = arena_printf(trace->arena, "%.*s, takes the record over", STR_ARG(text));
    text = join(trace, text, "spends approval", call->approval);
    trace_line(trace, "%.*s", STR_ARG(join(trace, text, "of", brief(call->args_hash))));
}

/* ---- what comes next ---- */

void trace_parked(struct trace *trace, const struct step_parked *parked)
{
    static const char *const actions[] = {"pause", "reject"};
    struct str text = arena_printf(trace->arena, "park %s [%.*s %d] due %s", waits_for_name(parked->waits_for),
                                   STR_ARG(parked->step), parked->visit, in(trace, parked->due_at_ms));
    if (parked->waits_for == WAITS_APPROVAL && parked->due_at_ms > 0)
        text = arena_printf(trace->arena, "%.*s (then %s)", STR_ARG(text), actions[parked->timeout_action]);
    text = arena_printf(trace->arena, "%.*s, deadline %s", STR_ARG(text), in(trace, parked->run_deadline_at_ms));
    text = join(trace, text, "guards", parked->guards);
    text = join(trace, text, "tool", parked->tool);
    text = join(trace, text, "args", parked->arguments);
    text = join(trace, text, "of", brief(parked->args_hash));
    text = join(trace, text, "key", brief(parked->key));
    trace_line(trace, "%.*s", STR_ARG(text));
}

void trace_closed(struct trace *trace, const struct run_closed *closed)
{
    struct str text = arena_printf(trace->arena, "end %s: %.*s", run_status_name(closed->status),
                                   STR_ARG(closed->reason));
    trace_line(trace, "%.*s", STR_ARG(join(trace, text, "output", closed->output)));
}

void trace_state(struct trace *trace, const struct run *run)
{
    for (size_t i = 0; i < run->steps_count; i++) {
        const struct step_state *state = &run->steps[i];
        struct str text = arena_printf(trace->arena, "state %.*s %s, visits %d", STR_ARG(state->name),
                                       step_status_name(state->status), state->visits);
        trace_line(trace, "%.*s", STR_ARG(join(trace, text, "output", state->output)));
    }
    for (size_t i = 0; i < run->approvals_count; i++) {
        const struct approval *approval = &run->approvals[i];
        trace_line(trace, "state approval %.*s visit %d %s by %.*s for %.*s visit %d, %s", STR_ARG(approval->step),
                   approval->visit, approval->approved ? "approved" : "rejected", STR_ARG(approval->by),
                   STR_ARG(approval->guards), approval->guards_visit, approval->spent ? "spent" : "not spent");
    }
    trace_line(trace, "state vars %.*s, steps %d, retries %d, refusals %d, violations %d", STR_ARG(run->vars),
               run->usage.steps, run->usage.retries, run->usage.refusals, run->violations);
}
