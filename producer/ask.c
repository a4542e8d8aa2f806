#include "producer/ask.h"

#include "producer/history.h"
#include "producer/remote.h"
#include "worker/base/units.h"
#include "worker/io/clock.h"

#define ANSWER_TIMEOUT_MS 30000

bool ask(struct cmd *cmd, struct str run, struct str request_id, enum record_type type, const void *object,
         struct ask_answer *answer, int *code)
{
    struct history history;
    /* Reading starts at the end as it is before the request is sent: the answer cannot be missed. */
    if (!history_open(&history, cmd, run, READER_FROM_END, code))
        return false;
    bool sent = remote_send(cmd, "inbox", -1, run, type, object, code);
    int64_t timeout_ms = cmd_timeout(cmd, ANSWER_TIMEOUT_MS);
    int64_t until_ms = clock_mono_us() / 1000 + timeout_ms;
    bool answered = false;
    enum reader_got got = READER_RECORD;
    while (sent && !answered && got != READER_ERROR) {
        struct fact fact;
        int64_t left_ms = until_ms - clock_mono_us() / 1000;
        if (left_ms <= 0)
            break;
        got = history_next(&history, left_ms, &fact, code);
        if (got != READER_RECORD || fact.kind != FACT_REQUEST_ANSWERED ||
            !str_equal(fact.is.request_answered.request_id, request_id))
            continue;
        const struct fact_request_answered *body = &fact.is.request_answered;
        *answer = (struct ask_answer){body->accepted, arena_str(cmd->arena, body->reason), fact.at_ms};
        answered = true;
    }
    if (sent && !answered && got != READER_ERROR)
        *code = cmd_fail(
            cmd, CMD_NO_ANSWER,
            "no worker answered within %s. Is one running that serves the inbox of namespace %s? See: myelin "
            "doctor. The request is kept and will be handled when a worker comes: myelin show %s",
            units_duration_text(cmd->arena, timeout_ms).data, cmd->settings->name_space.data, run.data);
    history_close(&history);
    return answered;
}
