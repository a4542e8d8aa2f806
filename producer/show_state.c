/* show_state.c: the sections of `myelin show`, each an answer to a question. */
#include <inttypes.h>
#include <string.h>

#include "producer/contracts.h"
#include "producer/show.h"
#include "producer/tell.h"
#include "worker/base/json.h"
#include "worker/base/units.h"
#include "worker/io/clock.h"

struct show {
    struct cmd *cmd;
    const json_t *state;
    const struct contract *contract;
    const struct show_resume *resume;
    const json_t *at; /* the active step; NULL = none: the run has ended */
    const char *run;
};

#define SAY(show, ...) cmd_say((show)->cmd, __VA_ARGS__)

static const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    return value != NULL ? value : "";
}

static int64_t number(const json_t *object, const char *name)
{
    return (int64_t)json_integer_value(json_object_get(object, name));
}

static bool is(const json_t *object, const char *name, const char *wanted)
{
    return strcmp(text(object, name), wanted) == 0;
}

/* A value on one line. */
static const char *value_text(const struct show *show, const json_t *value, size_t columns)
{
    if (value == NULL || json_is_null(value))
        return "-";
    return cmd_short(show->cmd, json_text(show->cmd->arena, value), columns);
}

static const char *shorten(const struct show *show, const char *words)
{
    return cmd_short(show->cmd, str_of(words), 90);
}

static void title(const struct show *show, const char *words)
{
    SAY(show, "%s", cmd_painted(show->cmd, CMD_BOLD, words));
}

/* ---- the head ---- */

static void show_head(const struct show *show)
{
    struct cmd *cmd = show->cmd;
    const json_t *state = show->state;
    const char *status = text(state, "status");
    enum cmd_paint paint = is(state, "status", "completed") ? CMD_GREEN
                           : is(state, "status", "failed")  ? CMD_RED
                                                            : CMD_YELLOW;
    int64_t started_ms = number(state, "started_at_ms"), ended_ms = number(state, "ended_at_ms"),
            now_ms = clock_wall_ms();
    SAY(show, "%s %s  %s  %s", cmd_painted(cmd, CMD_BOLD, "RUN"), show->run,
        contracts_label(cmd, str_of(text(state, "contract")), str_of(text(state, "contract_hash"))),
        cmd_painted(cmd, paint, status));
    if (ended_ms != 0)
        SAY(show, "  started %s by %s, took %s", cmd_time(cmd, started_ms), text(state, "requested_by"),
            cmd_span(cmd, ended_ms - started_ms));
    else
        SAY(show, "  started %s by %s, %s ago; its deadline is in %s", cmd_time(cmd, started_ms),
            text(state, "requested_by"), cmd_span(cmd, now_ms - started_ms),
            cmd_span(cmd, number(state, "deadline_at_ms") - now_ms));
    SAY(show, "  input   %s", value_text(show, json_object_get(state, "input"), 100));
    if (ended_ms != 0 && !is(state, "status", "completed"))
        SAY(show, "  reason  %s", text(state, "reason"));
    if (!json_is_null(json_object_get(state, "output")))
        SAY(show, "  output  %s", value_text(show, json_object_get(state, "output"), 100));
}

/* ---- what happened ---- */

static size_t count_in_visit(const json_t *list, const json_t *step)
{
    size_t i, count = 0;
    json_t *entry;
    json_array_foreach(list, i, entry) {
        if (is(entry, "step", text(step, "step")) && is(entry, "branch", text(step, "branch")) &&
            number(entry, "visit") == number(step, "visit"))
            count++;
    }
    return count;
}

static void show_visits(const struct show *show, const char *list, const char *word)
{
    size_t i;
    json_t *step;
    json_array_foreach(json_object_get(show->state, list), i, step) {
        size_t models = count_in_visit(json_object_get(show->state, "model_calls"), step);
        size_t tools = count_in_visit(json_object_get(show->state, "tool_calls"), step);
        const char *calls = models + tools > 0
                                ? arena_printf(show->cmd->arena, "%zu model, %zu tool calls", models, tools).data
                                : "";
        const char *went = text(step, "target");
        SAY(show, "  %-22s visit %" PRId64 "  %-9s %-26s %s%s", text(step, "step"), number(step, "visit"), word, calls,
            *went != '\0' ? "then " : shorten(show, text(step, "reason")), went);
    }
}

static void show_happened(const struct show *show)
{
    title(show, "WHAT HAPPENED");
    show_visits(show, "completed_steps", "completed");
    show_visits(show, "failed_steps", "failed");
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(show->state, "approvals"), i, entry) {
        if (!is(entry, "decision", "waiting"))
            SAY(show, "  %-22s visit %" PRId64 "  %s by %s%s", text(entry, "step"), number(entry, "visit"),
                text(entry, "decision"), text(entry, "by"),
                json_is_true(json_object_get(entry, "spent")) ? ", spent by its one call" : "");
    }
    json_array_foreach(json_object_get(show->state, "refusals"), i, entry)
        SAY(show, "  %-22s visit %" PRId64 "  refused before the call: %s (%s)", text(entry, "step"),
            number(entry, "visit"), shorten(show, text(entry, "tool")), text(entry, "rule"));
    json_array_foreach(json_object_get(show->state, "retries"), i, entry)
        SAY(show, "  %-22s visit %" PRId64 "  tried again: %s", text(entry, "step"), number(entry, "visit"),
            shorten(show, text(entry, "reason")));
    const char *name;
    json_object_foreach(json_object_get(show->state, "generated_artifacts"), name, entry)
        SAY(show, "  artifact %-13s of %s, visit %" PRId64, name, text(entry, "step"), number(entry, "visit"));
}

/* ---- what is pending, and may be retried ---- */

static const json_t *open_question(const struct show *show)
{
    size_t i;
    json_t *approval;
    json_array_foreach(json_object_get(show->state, "approvals"), i, approval) {
        if (is(approval, "decision", "waiting") && is(approval, "step", text(show->at, "step")))
            return approval;
    }
    return NULL;
}

static void show_pending(const struct show *show)
{
    struct cmd *cmd = show->cmd;
    const json_t *at = show->at;
    title(show, "WHAT IS PENDING");
    if (at == NULL) {
        SAY(show, "  nothing: the run has ended");
        return;
    }
    const char *step = *text(at, "step") != '\0' ? text(at, "step") : "(its first step)";
    int64_t due_ms = number(at, "due_at_ms");
    SAY(show, "  %s, visit %" PRId64 ", attempt %" PRId64 ": %s%s%s, for %s", step, number(at, "visit"),
        number(at, "attempt"), text(at, "status"), *text(at, "reason") != '\0' ? ": " : "",
        shorten(show, text(at, "reason")), cmd_span(cmd, clock_wall_ms() - number(at, "since_ms")));
    if (due_ms != 0)
        SAY(show, "  until %s", cmd_time(cmd, due_ms));
    const json_t *question = open_question(show);
    if (question != NULL && !json_is_null(json_object_get(question, "arguments"))) {
        SAY(show, "  a yes lets step %s call %s once with:", text(question, "guards"), text(question, "tool"));
        tell_arguments(cmd, json_text(cmd->arena, json_object_get(question, "arguments")), "    ");
    }
}

static const struct step *contract_step_of(const struct show *show)
{
    int32_t index = show->contract != NULL && show->at != NULL
                        ? contract_step(show->contract, str_of(text(show->at, "step")))
                        : -1;
    return index >= 0 ? &show->contract->steps[index] : NULL;
}

static void show_retry(const struct show *show)
{
    title(show, "WHAT MAY BE RETRIED");
    const struct step *step = contract_step_of(show);
    bool write = step != NULL && step->kind == STEP_TOOL && step->tool >= 0 &&
                 show->contract->tools[step->tool].agent < 0 &&
                 show->contract->tools[step->tool].effect == EFFECT_WRITE;
    if (show->at == NULL) {
        SAY(show, "  nothing");
    } else if (is(show->at, "status", "in_doubt")) {
        SAY(show, "  nothing, until the doubt is settled");
    } else if (step == NULL) {
        SAY(show, "  model calls and reads of the current step; answers that were stored are reused, not paid twice");
    } else if (step->kind == STEP_APPROVAL) {
        SAY(show, "  nothing needs to be: the step waits for its answer");
    } else if (write) {
        SAY(show, "  %s only when it surely did not execute: at most %d attempts of a visit",
            show->contract->tools[step->tool].name.data, (int)show->contract->retry_budget + 1);
    } else {
        SAY(show, "  model calls and reads of %s: attempt %" PRId64 " of %d; stored answers are reused, not paid twice",
            step->name.data, number(show->at, "attempt"), (int)show->contract->retry_budget + 1);
    }
}

/* ---- what must never run twice ---- */

static void show_never(const struct show *show)
{
    title(show, "WHAT MUST NEVER RUN TWICE");
    size_t i, shown = 0;
    json_t *entry;
    json_array_foreach(json_object_get(show->state, "committed_side_effects"), i, entry) {
        SAY(show, "  %s  step %s, visit %" PRId64 "  DONE (%s)  key %s", text(entry, "tool"), text(entry, "step"),
            number(entry, "visit"), text(entry, "known"), text(entry, "key"));
        shown++;
    }
    json_array_foreach(json_object_get(show->state, "doubts"), i, entry) {
        if (json_is_true(json_object_get(entry, "settled")))
            continue;
        SAY(show, "  %s  step %s, visit %" PRId64 "  %s: %s; then: %s  key %s", text(entry, "tool"),
            text(entry, "step"), number(entry, "visit"), cmd_painted(show->cmd, CMD_YELLOW, "IN DOUBT"),
            shorten(show, text(entry, "reason")), text(entry, "policy"), text(entry, "key"));
        shown++;
    }
    if (shown == 0)
        SAY(show, "  nothing was written yet");
}

/* A write that may have happened, and that nobody has settled; NULL = none. */
static const json_t *open_doubt(const struct show *show)
{
    size_t i;
    json_t *doubt;
    json_array_foreach(json_object_get(show->state, "doubts"), i, doubt) {
        if (!json_is_true(json_object_get(doubt, "settled")))
            return doubt;
    }
    return NULL;
}

/* ---- who acts next, where from, what it cost, what to type ---- */

static void show_next(const struct show *show)
{
    const json_t *at = show->at;
    const char *who = text(at, "who");
    title(show, "WHO ACTS NEXT");
    if (at == NULL && open_doubt(show) != NULL)
        SAY(show, "  a person: the run has ended, and whether %s happened is not known",
            text(open_doubt(show), "tool"));
    else if (at == NULL)
        SAY(show, "  nobody");
    else if (strcmp(who, "person") == 0)
        SAY(show, "  a person");
    else if (strcmp(who, "timer") == 0)
        SAY(show, "  the keeper, when the time has come (%s)", cmd_time(show->cmd, number(at, "due_at_ms")));
    else
        SAY(show, "  a worker");
    title(show, "WHERE IT RESUMES AFTER A CRASH");
    if (at == NULL)
        SAY(show, "  nowhere: its end is committed");
    else if (show->resume->known)
        SAY(show, "  at its last committed step event: %s %d@%" PRId64, show->resume->topic,
            (int)show->resume->partition, show->resume->offset);
    else
        SAY(show, "  at its last committed step event, which moved while this was read: ask again");
}

static void show_cost(const struct show *show)
{
    struct cmd *cmd = show->cmd;
    const json_t *usage = json_object_get(show->state, "usage");
    int64_t unknown = number(usage, "tokens_unknown"), unpriced = number(usage, "micro_usd_unknown");
    title(show, "WHAT IT COST");
    SAY(show,
        "  %" PRId64 " steps, %" PRId64 " model calls, %" PRId64 " tool calls (%" PRId64 " writes), %" PRId64
        " retries, %" PRId64 " refused",
        number(usage, "steps"), number(usage, "model_calls"), number(usage, "tool_calls"), number(usage, "writes"),
        number(usage, "retries"), number(usage, "refusals"));
    SAY(show, "  %s tokens in, %s out%s; $%s%s", cmd_number(cmd, number(usage, "tokens_in")),
        cmd_number(cmd, number(usage, "tokens_out")),
        unknown > 0 ? arena_printf(cmd->arena, " (%" PRId64 " answers did not say)", unknown).data : "",
        units_usd_text(cmd->arena, number(usage, "micro_usd")).data,
        unpriced > 0
            ? arena_printf(cmd->arena, " (%" PRId64 " answers without a price: see usd_in, usd_out in worker.cfg)",
                           unpriced)
                  .data
            : "");
}

static void show_type(const struct show *show)
{
    const json_t *at = show->at;
    const char *step = text(at, "step");
    title(show, "TYPE NEXT");
    if (at == NULL && is(show->state, "status", "completed")) {
        SAY(show, "  myelin show %s --json", show->run);
    } else if (at == NULL) {
        const json_t *doubt = open_doubt(show);
        SAY(show, "  myelin follow %s            # how it came to this", show->run);
        if (doubt != NULL) {
            SAY(show, "  First look whether %s has happened (key %s): a new run would do it again.",
                text(doubt, "tool"), text(doubt, "key"));
            return;
        }
        SAY(show, "  myelin run %s --input JSON  # a new run, once the reason is mended",
            text(show->state, "contract"));
    } else if (is(at, "who", "person") && is(at, "waits_for", "resolution")) {
        SAY(show, "  myelin resolve %s %s --done JSON | --not-done | --fail", show->run, step);
    } else if (is(at, "who", "person")) {
        SAY(show, "  myelin approve %s %s", show->run, step);
        SAY(show, "  myelin reject %s %s --reason TEXT", show->run, step);
    } else {
        SAY(show, "  myelin follow %s", show->run);
    }
}

void show_state(struct cmd *cmd, const json_t *state, const struct contract *contract, const struct show_resume *resume)
{
    const struct show show = {
        .cmd = cmd,
        .state = state,
        .contract = contract,
        .resume = resume,
        .at = json_array_get(json_object_get(state, "current_step"), 0),
        .run = text(state, "run"),
    };
    show_head(&show);
    show_happened(&show);
    show_pending(&show);
    show_retry(&show);
    show_never(&show);
    show_next(&show);
    show_cost(&show);
    show_type(&show);
}
