/* myelin resolve RUN STEP --done JSON | --not-done | --fail */
#include "producer/ask.h"
#include "producer/commands.h"
#include "producer/question.h"
#include "producer/uuid.h"
#include "worker/base/json.h"
#include "worker/io/clock.h"

static const char *const help =
    "Settles a write in doubt: a call that may or may not have executed, of which neither Redis nor the tool can tell. Look\n"
    "at the tool's own records for the Idempotency-Key first: what you say here is taken as the truth.\n"
    "  --done JSON  it executed; JSON is its result (null when unknown). It is not called again\n"
    "  --not-done   it did not execute. It is called, with the same key\n"
    "  --fail       the step fails, and the contract's `failed` edge is taken\n\n"
    "  myelin resolve 01998f2c send --done '{\"id\": \"msg-17\"}'\n"
    "  myelin resolve 01998f2c send --not-done";

static int resolve(struct cmd *cmd, const struct waiting_step *step, enum resolution_kind kind, struct str result)
{
    static const char *const words[] = {"", "done", "not done", "failed"};
    int code = CMD_OK;
    const struct step_parked *parked = &step->parked;
    struct resolved resolved = {
        .run = parked->run,
        .request_id = uuid_new(cmd->arena, clock_wall_ms()),
        .step = parked->step,
        .kind = kind,
        .result = result,
        .by = cmd_user(cmd),
        .at_ms = clock_wall_ms(),
    };
    question_show(cmd, step);
    struct ask_answer answer;
    if (!ask(cmd, parked->run, resolved.request_id, RECORD_RESOLVED, &resolved, &answer, &code))
        return code;
    cmd_json(cmd, json_pack("{s:s, s:s, s:s, s:s?, s:b, s:s}", "run", parked->run.data, "step", parked->step.data,
                            "resolution", words[kind], "key", parked->key.data, "accepted", (int)answer.accepted,
                            "reason", answer.reason.data != NULL ? answer.reason.data : ""));
    if (!answer.accepted)
        return cmd_fail(cmd, CMD_REFUSED, "the workers refused it: %s", cmd_short(cmd, answer.reason, 0));
    cmd_say(cmd, "settled as %s by %s; follow it: myelin follow %s", words[kind], resolved.by.data, parked->run.data);
    return CMD_OK;
}

int cmd_resolve(struct cmd *cmd)
{
    int code;
    const char *done = NULL;
    bool not_done = false, fail = false;
    const struct cmd_option options[] = {
        {"done", "JSON|@FILE|-", &done, NULL, "it executed, with this result"},
        {"not-done", NULL, NULL, &not_done, "it did not execute: call it, with the same key"},
        {"fail", NULL, NULL, &fail, "give up: the step fails"},
    };
    const struct cmd_syntax syntax = {
        .options = options, .options_count = 3, .arguments_min = 2, .arguments_max = 2, .help = help};
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    if ((done != NULL) + not_done + fail != 1)
        return cmd_fail(cmd, CMD_USAGE, "say exactly one of --done JSON, --not-done, --fail");
    struct str result = STR_NONE;
    if (done != NULL) {
        json_t *value = cmd_json_argument(cmd, "--done", done, &code);
        if (value == NULL)
            return code;
        result = json_text(cmd->arena, value);
        json_decref(value);
    }
    struct str run = waiting_run_id(cmd, cmd->arguments[0], false, &code);
    const struct waiting_step *step = run.data != NULL
                                          ? question_find(cmd, run, cmd->arguments[1], WAITS_RESOLUTION, &code)
                                          : NULL;
    if (step == NULL)
        return code;
    return resolve(cmd, step,
                   done != NULL ? RESOLUTION_DONE
                   : not_done   ? RESOLUTION_NOT_DONE
                                : RESOLUTION_FAIL,
                   result);
}
