/* myelin show RUN */
#include "producer/show.h"

#include <inttypes.h>
#include <string.h>

#include "producer/commands.h"
#include "producer/control.h"
#include "producer/history.h"
#include "producer/remote.h"
#include "worker/base/units.h"
#include "worker/core/fold.h"
#include "worker/io/clock.h"
#include "worker/record.h"

#define READ_TIMEOUT_MS 15000
#define SLACK_MS (INT64_C(10) * 60 * 1000) /* between the clocks of a worker and a broker */

static const char *const help =
    "Answers about a run, by name: what happened, what is pending, what may be retried, what must never run twice, who acts\n"
    "next, where it resumes after a crash, what it cost, and which command to type next. The state is folded from the run's\n"
    "facts in `history`; --json prints it whole. RUN is an id or the beginning of one.\n"
    "An id that we made tells when its run started, so its facts are found at once. For an id of your own, `waiting` is asked;\n"
    "when the run is no longer remembered there, say with --since how far back to look.\n\n"
    "  myelin show 01998f2c\n"
    "  myelin show order-4711 --since 30d\n"
    "  myelin show 01998f2c --json | jq .committed_side_effects";

/* Folds the run's facts. NULL: said; return *code. */
static json_t *read_state(struct cmd *cmd, struct str run, int64_t from_ms, int *code)
{
    struct history history;
    struct fact fact;
    if (!history_open(&history, cmd, run, from_ms, code))
        return NULL;
    struct fold *fold = fold_new(run);
    enum reader_got got;
    while ((got = history_next(&history, cmd_timeout(cmd, READ_TIMEOUT_MS), &fact, code)) == READER_RECORD)
        fold_add(fold, &fact);
    json_t *state = NULL;
    if (got == READER_TIMEOUT)
        *code = cmd_fail(cmd, CMD_UNAVAILABLE,
                         "the topic history could not be read to its end in time: is Kafka well?");
    else if (got == READER_END && !fold_known(fold) && fold_gaps(fold) == 0)
        *code = cmd_fail(cmd, CMD_NO_INPUT, "history holds nothing of run %s; see: myelin runs", run.data);
    else if (got == READER_END)
        state = fold_json(fold);
    if (state != NULL && !fold_known(fold))
        cmd_warn(cmd, "the beginning of the run is not there: look further back with --since, for example --since 30d");
    else if (state != NULL && fold_gaps(fold) > 0)
        cmd_warn(cmd, "%" PRId64 " facts of the run are missing in history: what is shown is not the whole",
                 fold_gaps(fold));
    fold_free(fold);
    history_close(&history);
    return state;
}

/* The latest step event of the run on `steps.POOL`: what a worker would take up after a crash. */
static bool find_event(struct cmd *cmd, struct str run, const char *pool, int64_t from_ms, struct show_resume *resume,
                       int *code)
{
    const char *what = arena_printf(cmd->arena, "steps.%s", pool).data;
    int32_t partition = remote_partition(cmd, what, run, code);
    if (partition < 0 || !remote_start(cmd, what, partition, from_ms, code))
        return false;
    struct reader_record read;
    enum reader_got got;
    while ((got = remote_next(cmd, cmd_timeout(cmd, READ_TIMEOUT_MS), &read, code)) == READER_RECORD) {
        if (!str_equal(read.key, run))
            continue;
        *resume = (struct show_resume){
            .topic = remote_topic(cmd, what), .partition = read.partition, .offset = read.offset, .known = true};
    }
    return got != READER_ERROR;
}

static struct show_resume find_resume(struct cmd *cmd, struct str run, const json_t *state,
                                      const struct contract *contract)
{
    struct show_resume resume = {.known = false};
    const json_t *at = json_array_get(json_object_get(state, "current_step"), 0);
    const char *owner = json_string_value(json_object_get(at, "owner")),
               *step = json_string_value(json_object_get(at, "step"));
    int code = CMD_OK;
    if (owner == NULL)
        return resume;
    if (strcmp(owner, "waiting") == 0) {
        struct waiting waiting;
        const struct waiting_step *parked = waiting_read(cmd, run, &waiting, &code)
                                                ? waiting_find_step(&waiting, run, STR_NONE)
                                                : NULL;
        if (parked != NULL)
            resume = (struct show_resume){remote_topic(cmd, "waiting"), parked->partition, parked->offset, true};
        return resume;
    }
    int32_t index = contract != NULL && step != NULL ? contract_step(contract, str_of(step)) : -1;
    const char *pool = index >= 0 ? contract->steps[index].pool.data : "default";
    int64_t since_ms = (int64_t)json_integer_value(json_object_get(at, "since_ms"));
    find_event(cmd, run, pool, since_ms > SLACK_MS ? since_ms - SLACK_MS : 0, &resume, &code);
    return resume;
}

int cmd_show(struct cmd *cmd)
{
    int code;
    const char *since = NULL;
    const struct cmd_option options[] = {
        {"since", "DURATION", &since, NULL,
         "how far back to look, for an id that is no UUIDv7 and is no longer remembered"}};
    const struct cmd_syntax syntax = {
        .options = options, .options_count = 1, .arguments_min = 1, .arguments_max = 1, .help = help};
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    struct str run = waiting_run_id(cmd, cmd->arguments[0], since != NULL, &code);
    int64_t from_ms;
    if (run.data == NULL || !history_from(cmd, run, since, &from_ms, &code))
        return code;
    json_t *state = read_state(cmd, run, from_ms, &code);
    if (state == NULL)
        return code;
    if (cmd->json) {
        cmd_json(cmd, state);
        return CMD_OK;
    }
    /* What may be repeated is asked of the contract; of a run that has ended nothing is asked. */
    const char *hash = json_array_size(json_object_get(state, "current_step")) > 0
                           ? json_string_value(json_object_get(state, "contract_hash"))
                           : NULL;
    struct contract *contract = control_load(cmd, hash != NULL ? control_hash(cmd->control, str_of(hash)) : NULL);
    struct show_resume resume = find_resume(cmd, run, state, contract);
    show_state(cmd, state, contract, &resume);
    contract_free(contract);
    json_decref(state);
    return CMD_OK;
}
