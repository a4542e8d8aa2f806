/* myelin follow RUN */
#include "producer/follow.h"

#include <string.h>

#include "producer/commands.h"
#include "producer/contracts.h"
#include "producer/history.h"
#include "producer/tell.h"
#include "producer/waiting.h"
#include "worker/base/units.h"
#include "worker/io/clock.h"

struct following {
    struct tell tell;
    bool known;   /* at least one fact was seen */
    bool waiting; /* the latest fact is a question to a person */
    bool ended;
    enum run_status status;
};

static void take(struct following *following, const struct fact *fact, const struct history *history)
{
    const struct cmd *cmd = following->tell.cmd;
    bool question = fact->kind == FACT_STEP_WAITING && !str_is(fact->is.step_waiting.waits_for, "timer");
    if (fact->kind == FACT_RUN_STARTED)
        following->tell.started_at_ms = fact->at_ms;
    if (fact->kind == FACT_RUN_STARTED)
        cmd_say(cmd, "%s  %s  source partition@offset",
                contracts_label(cmd, fact->is.run_started.contract, fact->contract_hash), cmd_time(cmd, fact->at_ms));
    if (following->tell.started_at_ms == 0)
        following->tell.started_at_ms = fact->at_ms;
    following->known = true;
    tell_fact(&following->tell, fact, history->partition, history->offset);
    if (fact->kind != FACT_REQUEST_ANSWERED)
        following->waiting = question;
    if (fact->kind == FACT_RUN_ENDED) {
        following->ended = true;
        following->status = fact->is.run_ended.status;
    }
}

int follow_run(struct cmd *cmd, struct str run, int64_t from_ms, bool until_waiting)
{
    struct following following = {.tell = {.cmd = cmd, .step_width = 10}};
    struct history history;
    struct fact fact;
    int code = CMD_OK;
    if (from_ms == 0 && !history_from(cmd, run, NULL, &from_ms, &code))
        return code;
    if (!history_open(&history, cmd, run, from_ms, &code))
        return code;
    int64_t until_ms = cmd->timeout_ms > 0 ? clock_mono_us() / 1000 + cmd->timeout_ms : 0;
    bool caught_up = false;
    while (!following.ended && !(until_waiting && caught_up && following.waiting)) {
        int64_t left_ms = until_ms > 0 ? until_ms - clock_mono_us() / 1000 : 0;
        enum reader_got got = until_ms > 0 && left_ms <= 0 ? READER_TIMEOUT
                                                           : history_next(&history, left_ms, &fact, &code);
        if (got == READER_RECORD)
            take(&following, &fact, &history);
        caught_up = caught_up || got == READER_END;
        if (got == READER_ERROR)
            break;
        if (got == READER_TIMEOUT) {
            code = cmd_fail(cmd, CMD_NO_ANSWER, "%s has not ended within %s; see: myelin show %s", run.data,
                            units_duration_text(cmd->arena, cmd->timeout_ms).data, run.data);
            break;
        }
        if (got == READER_END && !following.known) {
            code = cmd_fail(cmd, CMD_NO_INPUT, "history holds nothing of run %s; see: myelin runs", run.data);
            break;
        }
    }
    history_close(&history);
    if (code != CMD_OK)
        return code;
    if (!following.ended)
        return CMD_WAITING;
    return following.status == RUN_COMPLETED ? CMD_OK : CMD_NO;
}

int cmd_follow(struct cmd *cmd)
{
    int code;
    const char *until = NULL, *since = NULL;
    const struct cmd_option options[] = {
        {"until", "waiting", &until, NULL, "also stop when the run waits for a person (exit code 2)"},
        {"since", "DURATION", &since, NULL,
         "how far back to look, for an id that is no UUIDv7 and is no longer remembered"},
    };
    const struct cmd_syntax syntax = {
        .options = options,
        .options_count = 2,
        .arguments_min = 1,
        .arguments_max = 1,
        .help =
            "Tells what happened in a run, one line a fact, and goes on as it happens until the run ends: elapsed time, step,\n"
            "what happened, and on the right the event that caused it (partition@offset of steps, or of inbox).\n"
            "Exit code 0: completed, 1: failed or cancelled, 2: waits for a person (with --until waiting).\n\n"
            "  myelin follow 01998f2c\n"
            "  myelin follow order-4711 --until waiting --timeout 5m",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    if (until != NULL && strcmp(until, "waiting") != 0)
        return cmd_fail(cmd, CMD_USAGE, "--until \"%s\": the only thing to wait for besides the end is `waiting`",
                        until);
    struct str run = waiting_run_id(cmd, cmd->arguments[0], since != NULL, &code);
    int64_t from_ms = 0;
    if (run.data == NULL || (since != NULL && !history_from(cmd, run, since, &from_ms, &code)))
        return code;
    return follow_run(cmd, run, from_ms, until != NULL);
}
