/* myelin approvals */
#include "producer/commands.h"
#include "producer/question.h"

int cmd_approvals(struct cmd *cmd)
{
    int code;
    const struct cmd_syntax syntax = {
        .help =
            "Shows everything that waits for a person: approvals, with all arguments of the call that a yes admits, and writes\n"
            "in doubt.\n\n"
            "  myelin approvals\n"
            "  myelin approvals --json | jq -r '.run + \" \" + .step'",
    };
    struct waiting waiting;
    if (!cmd_parse(cmd, &syntax, &code) || !waiting_read(cmd, STR_NONE, &waiting, &code))
        return code;
    size_t shown = 0;
    for (size_t i = 0; i < waiting.steps_count; i++) {
        const struct waiting_step *step = &waiting.steps[i];
        const struct step_parked *parked = &step->parked;
        if (parked->waits_for == WAITS_TIMER)
            continue;
        shown++;
        if (cmd->json) {
            cmd_json(cmd, question_json(step));
            continue;
        }
        question_show(cmd, step);
        if (parked->waits_for == WAITS_APPROVAL)
            cmd_say(cmd, "  myelin approve %s %s --shown %.*s   or   myelin reject %s %s --reason TEXT\n",
                    parked->run.data, parked->step.data, QUESTION_HASH_SHOWN,
                    parked->args_hash.size > 0 ? parked->args_hash.data : "-", parked->run.data, parked->step.data);
        else
            cmd_say(cmd, "  myelin resolve %s %s --done JSON | --not-done | --fail\n", parked->run.data,
                    parked->step.data);
    }
    if (shown == 0)
        cmd_say(cmd, "nothing waits for a person");
    return CMD_OK;
}
