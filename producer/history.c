#include "producer/history.h"

#include <inttypes.h>

#include "producer/control.h"
#include "producer/remote.h"
#include "producer/uuid.h"
#include "producer/waiting.h"
#include "worker/base/units.h"
#include "worker/io/clock.h"

/* Whose clock made the id, and whose wrote the fact: they may differ by this much. */
#define SLACK_MS (INT64_C(15) * 60 * 1000)

bool history_from(struct cmd *cmd, struct str run, const char *since, int64_t *from_ms, int *code)
{
    int64_t span_ms;
    if (since != NULL) {
        if (!units_duration(str_of(since), &span_ms)) {
            *code = cmd_fail(cmd, CMD_USAGE, "--since is \"%s\", must be " UNITS_DURATION_SAYS, since);
            return false;
        }
        *from_ms = clock_wall_ms() - span_ms;
        return true;
    }
    int64_t at_ms = uuid_time_ms(run);
    if (at_ms < 0) { /* somebody else's id: the keepers know when it started, as long as they remember it */
        struct waiting waiting;
        if (!waiting_read(cmd, run, &waiting, code))
            return false;
        const struct waiting_run *found = waiting_find(&waiting, run);
        if (found == NULL) {
            *code = cmd_fail(
                cmd, CMD_NO_INPUT,
                "run %s is not open and not remembered, and its id is no UUIDv7 that would tell when it started: "
                "say how far back to look, for example --since 30d",
                run.data);
            return false;
        }
        at_ms = found->row.started_at_ms;
    }
    *from_ms = at_ms > SLACK_MS ? at_ms - SLACK_MS : 0;
    return true;
}

bool history_open(struct history *history, struct cmd *cmd, struct str run, int64_t from_ms, int *code)
{
    *history = (struct history){.cmd = cmd, .run = run, .offset = -1};
    if (control_get(cmd, code) == NULL)
        return false;
    history->partition = remote_partition(cmd, "history", run, code);
    if (history->partition < 0 || !remote_start(cmd, "history", history->partition, from_ms, code))
        return false;
    history->arena = arena_new();
    return true;
}

void history_close(struct history *history)
{
    arena_free(history->arena);
    history->arena = NULL;
}

static bool decode(struct history *history, const struct reader_record *read, struct fact *fact)
{
    struct record record;
    struct error error;
    arena_reset(history->arena);
    if (!record_decode(read->value, history->arena, &record, &error)) {
        cmd_warn(history->cmd, "history %d@%" PRId64 " cannot be read and is left out: %s", (int)read->partition,
                 read->offset, error.text);
        return false;
    }
    if (record.type != RECORD_FACT)
        return false;
    *fact = record.is.fact;
    history->offset = read->offset;
    return true;
}

enum reader_got history_next(struct history *history, int64_t timeout_ms, struct fact *fact, int *code)
{
    int64_t until_ms = clock_mono_us() / 1000 + timeout_ms;
    for (;;) {
        struct reader_record read;
        int64_t left_ms = timeout_ms > 0 ? until_ms - clock_mono_us() / 1000 : 0;
        if (timeout_ms > 0 && left_ms <= 0)
            return READER_TIMEOUT;
        enum reader_got got = remote_next(history->cmd, left_ms, &read, code);
        if (got == READER_TIMEOUT && timeout_ms == 0)
            continue;
        if (got != READER_RECORD)
            return got;
        if (str_equal(read.key, history->run) && read.value.data != NULL && decode(history, &read, fact))
            return READER_RECORD;
    }
}
