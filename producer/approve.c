/* myelin approve | reject RUN STEP */
#include <string.h>

#include "producer/ask.h"
#include "producer/commands.h"
#include "producer/question.h"
#include "producer/uuid.h"
#include "worker/io/clock.h"

/* The decision is bound to what was just shown: the visit and the hash of the arguments. */
static int decide(struct cmd *cmd, const struct waiting_step *step, bool approved, const char *reason)
{
    int code = CMD_OK;
    const struct step_parked *parked = &step->parked;
    struct decision decision = {
        .run = parked->run,
        .request_id = uuid_new(cmd->arena, clock_wall_ms()),
        .step = parked->step,
        .visit = parked->visit,
        .args_hash = parked->args_hash.data != NULL ? parked->args_hash : STR(""),
        .approved = approved,
        .by = cmd_user(cmd),
        .reason = reason != NULL ? str_of(reason) : STR_NONE,
        .at_ms = clock_wall_ms(),
    };
    question_show(cmd, step);
    struct ask_answer answer;
    if (!ask(cmd, parked->run, decision.request_id, RECORD_DECISION, &decision, &answer, &code))
        return code;
    cmd_json(cmd, json_pack("{s:s, s:s, s:i, s:s, s:b, s:s, s:s}", "run", parked->run.data, "step", parked->step.data,
                            "visit", (int)parked->visit, "decision", approved ? "approved" : "rejected", "accepted",
                            (int)answer.accepted, "args_hash", decision.args_hash.data, "reason",
                            answer.reason.data != NULL ? answer.reason.data : ""));
    if (!answer.accepted)
        return cmd_fail(cmd, CMD_REFUSED, "the workers refused it: %s", cmd_short(cmd, answer.reason, 0));
    cmd_say(cmd, "%s by %s; follow it: myelin follow %s",
            approved ? cmd_painted(cmd, CMD_GREEN, "approved") : cmd_painted(cmd, CMD_RED, "rejected"),
            decision.by.data, parked->run.data);
    return CMD_OK;
}

static int approve_or_reject(struct cmd *cmd, bool approve, const char *help)
{
    int code;
    const char *reason = NULL, *shown = NULL;
    const struct cmd_option options[] = {
        {"reason", "TEXT", &reason, NULL, "why; the run can use it (a rejected draft is written again with it)"},
        {"shown", "HASH", &shown, NULL,
         "decide only if the arguments are still those with this hash, as `approvals` shows it"},
    };
    const struct cmd_syntax syntax = {
        .options = options, .options_count = 2, .arguments_min = 2, .arguments_max = 2, .help = help};
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    struct str run = waiting_run_id(cmd, cmd->arguments[0], false, &code);
    const struct waiting_step *step = run.data != NULL
                                          ? question_find(cmd, run, cmd->arguments[1], WAITS_APPROVAL, &code)
                                          : NULL;
    if (step == NULL)
        return code;
    struct str hash = step->parked.args_hash;
    if (shown != NULL &&
        (strlen(shown) < 8 || hash.size < strlen(shown) || memcmp(hash.data, shown, strlen(shown)) != 0)) {
        question_show(cmd, step);
        return cmd_fail(cmd, CMD_REFUSED, "nothing was decided: these are not the arguments that you were shown (%s)",
                        shown);
    }
    return decide(cmd, step, approve, reason);
}

int cmd_approve(struct cmd *cmd)
{
    return approve_or_reject(
        cmd, true,
        "Says yes to what a step asks, after showing it in full. The yes is bound to this visit of the step and to exactly\n"
        "these arguments; it admits one call. The answer tells whether the workers took it.\n\n"
        "  myelin approve 01998f2c approve_final_email\n"
        "  myelin approve order-4711 approve_final_email --shown 91be03a7 --reason 'checked with Jane'");
}

int cmd_reject(struct cmd *cmd)
{
    return approve_or_reject(
        cmd, false,
        "Says no to what a step asks; the run goes on where the contract's `rejected` edge leads.\n\n"
        "  myelin reject 01998f2c approve_final_email --reason 'shorter, and no prices'");
}
