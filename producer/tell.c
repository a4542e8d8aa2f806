#include "producer/tell.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "producer/control.h"
#include "worker/base/units.h"
#include "worker/record.h"

#define ARGUMENTS_SHOWN 48 /* characters of a call's arguments on a line */
#define TEXT_SHOWN 64      /* of what a model said, of an output */
#define STEP_WIDTH_MAX 30
#define LINE_WIDTH 96 /* where partition@offset stands */

#define SAY(...) (arena_printf(cmd->arena, __VA_ARGS__).data)
#define TEXT(text) cmd_short(cmd, (text), 0)
#define SHORT(text) cmd_short(cmd, (text), TEXT_SHOWN)

const char *tell_call(const struct cmd *cmd, struct str tool, struct str arguments)
{
    json_t *json = arguments.size > 0 ? json_loadb(arguments.data, arguments.size, 0, NULL) : NULL;
    struct buf text;
    buf_init(&text, (size_t)64 << 10);
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        char *one = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        buf_printf(&text, "%s%s", text.size > 0 ? ", " : "", one != NULL ? one : "?");
        free(one);
    }
    struct str shown = json_is_object(json) ? arena_str(cmd->arena, buf_str(&text)) : arguments;
    buf_free(&text);
    json_decref(json);
    return SAY("%s(%s)", TEXT(tool), cmd_short(cmd, shown, ARGUMENTS_SHOWN));
}

static const char *duration(const struct cmd *cmd, int64_t ms)
{
    return ms < 1000 ? SAY("%" PRId64 " ms", ms) : SAY("%.1f s", (double)ms / 1000);
}

/* How an answer came, when it was not simply called: what a crash saved. */
static const char *origin_words(enum call_origin origin)
{
    switch (origin) {
    case ORIGIN_REUSED:
        return " (answer reused, not called again)";
    case ORIGIN_ADOPTED:
        return " (ADOPTED: it was done before the crash)";
    case ORIGIN_PROBED:
        return " (ADOPTED: the probe says it was done)";
    case ORIGIN_RESOLVED:
        return " (a person says it was done)";
    case ORIGIN_CALLED:
        break;
    }
    return "";
}

static const char *model_words(const struct cmd *cmd, const struct fact_model_answered *body)
{
    const char *origin = origin_words(body->origin);
    if (body->judge)
        return SAY("judge %s answers: %s%s", TEXT(body->agent), SHORT(body->content), origin);
    if (body->calls_count == 0)
        return SAY("model answers: %s%s", SHORT(body->content), origin);
    const char *more = body->calls_count > 1 ? SAY(" and %zu more", body->calls_count - 1) : "";
    return SAY("model asks %s%s%s", tell_call(cmd, body->calls[0].tool, body->calls[0].arguments), more, origin);
}

static const char *tool_words(const struct cmd *cmd, const struct fact_tool_answered *body)
{
    bool write = str_is(body->effect, "write");
    if (body->origin != ORIGIN_CALLED)
        return SAY("%s: %s%s", TEXT(body->tool), write ? "done" : SHORT(body->result), origin_words(body->origin));
    return SAY("%s: %s in %s", TEXT(body->tool), SHORT(body->result), duration(cmd, body->duration_ms));
}

static const char *waiting_words(const struct cmd *cmd, const struct fact *fact)
{
    const struct fact_step_waiting *body = &fact->is.step_waiting;
    if (str_is(body->waits_for, "timer"))
        return SAY("waits %s: %s", duration(cmd, body->due_at_ms - fact->at_ms), TEXT(body->reason));
    const char *until = body->due_at_ms > 0 ? SAY(", until %s", cmd_time(cmd, body->due_at_ms)) : "";
    const char *what = str_is(body->waits_for, "approval") ? "WAITING for a person"
                                                           : "WAITING for a person to settle the doubt";
    return SAY("%s: %s%s", cmd_painted(cmd, CMD_YELLOW, what), TEXT(body->reason), until);
}

static const char *usd(const struct cmd *cmd, int64_t micro_usd)
{
    return SAY("$%s", units_usd_text(cmd->arena, micro_usd).data);
}

static const char *end_words(const struct tell *tell, const struct fact_run_ended *body)
{
    const struct cmd *cmd = tell->cmd;
    const struct usage *usage = &body->usage;
    bool completed = body->status == RUN_COMPLETED;
    const char *status = completed ? cmd_painted(cmd, CMD_GREEN, "COMPLETED")
                                   : cmd_painted(cmd, CMD_RED, body->status == RUN_FAILED ? "FAILED" : "CANCELLED");
    return SAY("%s %s%s%d steps, %s LLM tokens%s, %s, %d refused", status, completed ? "" : TEXT(body->reason),
               completed ? "" : "; ", (int)usage->steps, cmd_number(cmd, usage->tokens_in + usage->tokens_out),
               usage->tokens_unknown > 0 ? SAY(" (%d answers without count)", (int)usage->tokens_unknown) : "",
               tell->unpriced > 0 ? "price not known" : usd(cmd, usage->micro_usd), (int)usage->refusals);
}

static const char *failed_words(const struct cmd *cmd, const struct fact_call_failed *body, int64_t at_ms)
{
    const char *then = body->retry ? SAY("; tries again in %s",
                                         duration(cmd, body->due_at_ms > at_ms ? body->due_at_ms - at_ms : 0))
                                   : "; no more tries";
    return SAY("%s failed: %s%s", TEXT(body->target), TEXT(body->reason), then);
}

static const char *doubt_words(const struct cmd *cmd, const struct fact_in_doubt *body)
{
    static const char *const plans[][2] = {{"ask", "a person must say"},
                                           {"probe", "the tool is asked first"},
                                           {"retry", "sent again with the same key"},
                                           {"fail", "the step fails"}};
    const char *plan = "";
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++)
        if (str_is(body->policy, plans[i][0]))
            plan = plans[i][1];
    return SAY("%s %s key %.8s: %s. Not repeated: %s", cmd_painted(cmd, CMD_YELLOW, "IN DOUBT"), TEXT(body->tool),
               TEXT(body->key), TEXT(body->reason), plan);
}

static const char *decided_words(const struct cmd *cmd, const struct fact_approval_decided *body)
{
    bool approved = str_is(body->decision, "approved");
    const char *reason = body->reason.size > 0 ? SAY(": %s", TEXT(body->reason)) : "";
    const char *bound = body->args_hash.size > 0 ? SAY(", bound to sha256:%.8s", TEXT(body->args_hash)) : "";
    return SAY("%s by %s%s%s", cmd_painted(cmd, approved ? CMD_GREEN : CMD_RED, TEXT(body->decision)), TEXT(body->by),
               bound, reason);
}

/* What happened, in words. */
static const char *words(const struct tell *tell, const struct fact *fact)
{
    const struct cmd *cmd = tell->cmd;
    switch (fact->kind) {
    case FACT_RUN_STARTED:
        return SAY("started by %s: %s", TEXT(fact->is.run_started.requested_by), SHORT(fact->is.run_started.input));
    case FACT_MODEL_ANSWERED:
        return model_words(cmd, &fact->is.model_answered);
    case FACT_TOOL_ANSWERED:
        return tool_words(cmd, &fact->is.tool_answered);
    case FACT_CALL_FAILED:
        return failed_words(cmd, &fact->is.call_failed, fact->at_ms);
    case FACT_CALL_REFUSED:
        return SAY("%s %s: %s (%s)", cmd_painted(cmd, CMD_RED, "REFUSED before the call:"),
                   TEXT(fact->is.call_refused.tool), TEXT(fact->is.call_refused.rule),
                   TEXT(fact->is.call_refused.reason));
    case FACT_OUTPUT_REJECTED:
        return SAY("answer not accepted (%s): %s%s", TEXT(fact->is.output_rejected.rule),
                   TEXT(fact->is.output_rejected.reason), fact->is.output_rejected.retry ? "; asked again" : "");
    case FACT_CRITERION_CHECKED:
        return SAY("%s: %s",
                   fact->is.criterion_checked.holds ? "criterion ok" : cmd_painted(cmd, CMD_RED, "criterion NOT met"),
                   TEXT(fact->is.criterion_checked.says));
    case FACT_IN_DOUBT:
        return doubt_words(cmd, &fact->is.in_doubt);
    case FACT_DOUBT_SETTLED:
        return SAY("doubt of %s: %s says %s", TEXT(fact->is.doubt_settled.tool),
                   fact->is.doubt_settled.by.size > 0 ? TEXT(fact->is.doubt_settled.by)
                                                      : TEXT(fact->is.doubt_settled.how),
                   TEXT(fact->is.doubt_settled.outcome));
    case FACT_STEP_WAITING:
        return waiting_words(cmd, fact);
    case FACT_APPROVAL_DECIDED:
        return decided_words(cmd, &fact->is.approval_decided);
    case FACT_STEP_COMPLETED:
        return SAY("done, %s: %s", TEXT(fact->is.step_completed.edge), TEXT(fact->is.step_completed.target));
    case FACT_STEP_FAILED:
        return SAY("%s: %s%s%s", cmd_painted(cmd, CMD_RED, fact->is.step_failed.refused ? "REFUSED" : "failed"),
                   TEXT(fact->is.step_failed.reason), fact->is.step_failed.target.size > 0 ? "; goes on at " : "",
                   TEXT(fact->is.step_failed.target));
    case FACT_RUN_ENDED:
        return end_words(tell, &fact->is.run_ended);
    case FACT_REQUEST_ANSWERED:
        return SAY("%s %s%s%s", TEXT(fact->is.request_answered.request),
                   fact->is.request_answered.accepted ? "accepted" : "refused",
                   fact->is.request_answered.reason.size > 0 ? ": " : "", TEXT(fact->is.request_answered.reason));
    }
    return "";
}

/* What a person is asked, in full, and what to type. */
static void tell_question(const struct cmd *cmd, const struct fact *fact)
{
    const struct fact_step_waiting *body = &fact->is.step_waiting;
    if (body->arguments.size > 0) {
        cmd_say(cmd, "%*s%s with exactly:", 9, "", TEXT(body->tool));
        tell_arguments(cmd, body->arguments, "           ");
    }
    if (str_is(body->waits_for, "approval"))
        cmd_say(cmd, "%*smyelin approve %s %s   or   myelin reject %s %s --reason TEXT", 9, "", TEXT(fact->run),
                TEXT(fact->step), TEXT(fact->run), TEXT(fact->step));
    else
        cmd_say(cmd, "%*smyelin resolve %s %s --done JSON | --not-done | --fail", 9, "", TEXT(fact->run),
                TEXT(fact->step));
}

static size_t width_of(const char *text)
{
    size_t width = 0;
    bool colour = false;
    for (; *text != '\0'; text++) {
        colour = colour || *text == '\033';
        width += !colour && ((unsigned char)*text & 0xC0U) != 0x80U;
        colour = colour && *text != 'm';
    }
    return width;
}

void tell_fact(struct tell *tell, const struct fact *fact, int32_t partition, int64_t offset)
{
    const struct cmd *cmd = tell->cmd;
    if (cmd->json) {
        json_t *json = record_json(RECORD_FACT, fact);
        json_object_set_new(json, "history_partition", json_integer(partition));
        json_object_set_new(json, "history_offset", json_integer(offset));
        cmd_json(cmd, json);
        return;
    }
    tell->unpriced += fact->kind == FACT_MODEL_ANSWERED && fact->is.model_answered.micro_usd < 0;
    int64_t elapsed_ms = fact->at_ms - tell->started_at_ms;
    int width_of_step = (int)fact->step.size < STEP_WIDTH_MAX ? (int)fact->step.size : STEP_WIDTH_MAX;
    tell->step_width = width_of_step > tell->step_width ? width_of_step : tell->step_width;
    const char *left = SAY("%6.1fs %-*s %s", (double)(elapsed_ms > 0 ? elapsed_ms : 0) / 1000, tell->step_width,
                           fact->step.size > 0 ? TEXT(fact->step) : "run", words(tell, fact));
    const char *source = "timer";
    if (fact->source_offset >= 0) {
        const char *topic = fact->source_topic.data != NULL ? strstr(fact->source_topic.data, ".inbox") : NULL;
        source = SAY("%s%d@%" PRId64, topic != NULL ? "inbox " : "", (int)fact->source_partition, fact->source_offset);
    }
    size_t width = width_of(left);
    cmd_say(cmd, "%s%*s%s", left, width < LINE_WIDTH ? (int)(LINE_WIDTH - width) : 2, "",
            cmd_painted(cmd, CMD_DIM, source));
    if (fact->kind == FACT_STEP_WAITING && !str_is(fact->is.step_waiting.waits_for, "timer"))
        tell_question(cmd, fact);
}

void tell_arguments(const struct cmd *cmd, struct str arguments, const char *indent)
{
    json_t *json = arguments.size > 0 ? json_loadb(arguments.data, arguments.size, JSON_DECODE_ANY, NULL) : NULL;
    const char *key;
    json_t *value;
    size_t widest = 0;
    if (!json_is_object(json) && arguments.size > 0)
        cmd_say(cmd, "%s%s", indent, cmd_short(cmd, arguments, 0));
    json_object_foreach(json, key, value)
        widest = strlen(key) > widest ? strlen(key) : widest;
    json_object_foreach(json, key, value) {
        char *dumped = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_INDENT(2));
        const char *text = dumped != NULL ? dumped : json_string_value(value);
        const char *name = cmd_short(cmd, str_of(key), 0);
        int pad = (int)(widest - strlen(key));
        /* Line by line, so that a text cannot pretend to be another argument. */
        for (bool first = true; text != NULL; first = false) {
            size_t size = strcspn(text, "\n");
            cmd_say(cmd, "%s%s%*s %s %.*s", indent, first ? cmd_painted(cmd, CMD_BOLD, name) : "",
                    first ? pad : (int)widest, "", first ? ":" : "|", (int)size, text);
            text = text[size] == '\n' ? text + size + 1 : NULL;
        }
        free(dumped);
    }
    json_decref(json);
}
