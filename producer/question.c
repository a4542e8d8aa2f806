#include "producer/question.h"

#include <inttypes.h>

#include "producer/tell.h"
#include "worker/io/clock.h"

void question_show(struct cmd *cmd, const struct waiting_step *step)
{
    const struct step_parked *parked = &step->parked;
    bool approval = parked->waits_for == WAITS_APPROVAL;
    int64_t now_ms = clock_wall_ms();
    const char *until = parked->due_at_ms > 0
                            ? arena_printf(cmd->arena, ", %s left", cmd_span(cmd, parked->due_at_ms - now_ms)).data
                            : "";
    cmd_say(cmd, "%s  %s  %s  visit %d", cmd_painted(cmd, CMD_YELLOW, approval ? "APPROVAL" : "IN DOUBT"),
            cmd_short(cmd, parked->run, 0), cmd_painted(cmd, CMD_BOLD, cmd_short(cmd, parked->step, 0)),
            (int)parked->visit);
    cmd_say(cmd, "  %s of %s; waits for %s%s", cmd_short(cmd, parked->reason, 0), cmd_short(cmd, parked->contract, 0),
            cmd_span(cmd, now_ms - parked->parked_at_ms), until);
    if (parked->guards.size > 0)
        cmd_say(cmd, "  a yes lets step %s call %s once, with exactly these arguments (sha256:%.*s):",
                cmd_short(cmd, parked->guards, 0), cmd_short(cmd, parked->tool, 0), QUESTION_HASH_SHOWN,
                cmd_short(cmd, parked->args_hash, 0));
    else if (!approval)
        cmd_say(cmd, "  %s may or may not have executed this (Idempotency-Key %s):", cmd_short(cmd, parked->tool, 0),
                cmd_short(cmd, parked->key, 0));
    tell_arguments(cmd, parked->arguments, "    ");
}

json_t *question_json(const struct waiting_step *step)
{
    const struct step_parked *parked = &step->parked;
    json_t *arguments = parked->arguments.data != NULL
                            ? json_loadb(parked->arguments.data, parked->arguments.size, JSON_DECODE_ANY, NULL)
                            : NULL;
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s?, s:I, s:I, s:s?, s:s?, s:o?, s:s?, s:s?, s:s?}", "run",
                     parked->run.data, "branch", parked->branch.data, "step", parked->step.data, "visit",
                     (int)parked->visit, "waits_for", waits_for_name(parked->waits_for), "reason", parked->reason.data,
                     "parked_at_ms", (json_int_t)parked->parked_at_ms, "due_at_ms", (json_int_t)parked->due_at_ms,
                     "guards", parked->guards.data, "tool", parked->tool.data, "arguments", arguments, "args_hash",
                     parked->args_hash.data, "key", parked->key.data, "contract", parked->contract.data);
}

/* Something of the run waits, but not what was named: say what does. */
static void tell_other(struct cmd *cmd, const struct step_parked *parked, const char *step, enum waits_for what)
{
    const char *waiting_step = cmd_short(cmd, parked->step, 0), *run = parked->run.data;
    if (parked->waits_for == WAITS_TIMER)
        cmd_fail(cmd, CMD_NO_INPUT,
                 "step %s of run %s waits for its time, not for a person: it goes on by itself at %s", waiting_step,
                 run, cmd_time(cmd, parked->due_at_ms));
    else if (parked->waits_for != what)
        cmd_fail(cmd, CMD_NO_INPUT, "step %s of run %s waits for %s: myelin %s %s %s", waiting_step, run,
                 what == WAITS_APPROVAL ? "the settlement of a doubt" : "an approval",
                 what == WAITS_APPROVAL ? "resolve" : "approve", run, waiting_step);
    else if (str_is(parked->guards, step))
        cmd_fail(cmd, CMD_NO_INPUT, "step %s is guarded by %s: myelin %s %s %s", step, waiting_step, cmd->name, run,
                 waiting_step);
    else
        cmd_fail(cmd, CMD_NO_INPUT, "nothing waits at step %s of run %s; what waits is %s", step, run, waiting_step);
}

const struct waiting_step *question_find(struct cmd *cmd, struct str run, const char *step, enum waits_for what,
                                         int *code)
{
    struct waiting waiting;
    if (!waiting_read(cmd, run, &waiting, code))
        return NULL;
    const struct waiting_step *found = waiting_find_step(&waiting, run, str_of(step));
    if (found != NULL && found->parked.waits_for == what)
        return found;
    *code = CMD_NO_INPUT;
    if (found == NULL)
        found = waiting_find_step(&waiting, run, STR_NONE);
    const struct waiting_run *row = waiting_find(&waiting, run);
    if (found != NULL)
        tell_other(cmd, &found->parked, step, what);
    else if (row != NULL && row->row.ended_at_ms != 0)
        cmd_fail(cmd, CMD_NO_INPUT, "run %s has ended (%s): nothing waits; see: myelin show %s", run.data,
                 run_status_name(row->row.status), run.data);
    else if (row != NULL)
        cmd_fail(cmd, CMD_NO_INPUT, "nothing of run %s waits now: a worker is at it; see: myelin show %s", run.data,
                 run.data);
    else
        cmd_fail(cmd, CMD_NO_INPUT, "there is no run %s; see: myelin runs", run.data);
    return NULL;
}
