/* myelin run CONTRACT --input JSON|@FILE|- */
#include <stdio.h>
#include <unistd.h>

#include "producer/ask.h"
#include "producer/commands.h"
#include "producer/contracts.h"
#include "producer/control.h"
#include "producer/follow.h"
#include "producer/uuid.h"
#include "worker/base/json.h"
#include "worker/io/clock.h"

static const char *const help =
    "Starts a run of a published contract and waits until the workers have taken it. The input is checked against the\n"
    "contract first. Prints the run's id, alone on standard output when that is no terminal.\n"
    "The same --id with the same input is the same run: asking again is safe; with another input it is refused.\n\n"
    "  myelin run customer_research_to_followup --input '{\"company\": \"Acme GmbH\", \"contact\": \"jane@acme.example\"}'\n"
    "  myelin run customer_research_to_followup@7c1f2e --input @input.json --id order-4711 --follow\n"
    "  jq -n '{company: \"Acme\"}' | myelin run research --input -";

static void note_problem(void *context, const json_t *at, const char *path, const char *text)
{
    struct error *error = context;
    (void)at;
    error_set(error, ERROR_POISON, "its own schema of the input is wrong at %s: %s", path, text);
}

/* Does the input fit the contract? Only its `input` is looked at here: the worker checks the whole contract, and to compile
 * all its expressions takes a fifth of a second. */
static bool fits(struct cmd *cmd, const struct control_version *version, const json_t *value, struct error *error)
{
    json_t *contract = json_read(version->published.canonical, CONTRACT_SIZE_MAX, error);
    const json_t *input = json_object_get(contract, "input");
    const struct schema *schema = input != NULL ? schema_compile(cmd->arena, input, note_problem, error) : NULL;
    bool good = contract != NULL && (input == NULL || (schema != NULL && schema_check(schema, value, error)));
    json_decref(contract);
    return good;
}

/* The input as text, when it fits the contract. False: said; return *code. */
static bool check_input(struct cmd *cmd, const struct control_version *version, const char *argument, struct str *input,
                        int *code)
{
    struct error error;
    json_t *value = cmd_json_argument(cmd, "--input", argument, code);
    if (value == NULL)
        return false;
    bool good = fits(cmd, version, value, &error);
    if (good)
        *input = json_text(cmd->arena, value);
    else
        *code = cmd_fail(cmd, CMD_DATA, "the input does not fit %s: %s",
                         contracts_label(cmd, version->published.name, version->published.hash), error.text);
    json_decref(value);
    return good;
}

static int start(struct cmd *cmd, const struct control_version *version, struct str input, const char *id, bool follow)
{
    int code = CMD_OK;
    int64_t now_ms = clock_wall_ms();
    struct run_requested request = {
        .run = id != NULL ? str_of(id) : uuid_new(cmd->arena, now_ms),
        .request_id = uuid_new(cmd->arena, now_ms),
        .contract = version->published.name,
        .contract_hash = version->published.hash,
        .input = input,
        .by = cmd_user(cmd),
        .at_ms = now_ms,
    };
    struct ask_answer answer;
    if (!ask(cmd, request.run, request.request_id, RECORD_RUN_REQUESTED, &request, &answer, &code))
        return code;
    const char *label = contracts_label(cmd, request.contract, request.contract_hash);
    cmd_json(cmd, json_pack("{s:s, s:s, s:s, s:b, s:s}", "run", request.run.data, "contract", request.contract.data,
                            "contract_hash", request.contract_hash.data, "accepted", (int)answer.accepted, "reason",
                            answer.reason.data != NULL ? answer.reason.data : ""));
    if (!answer.accepted)
        return cmd_fail(cmd, CMD_REFUSED, "run %s was refused: %s", request.run.data, cmd_short(cmd, answer.reason, 0));
    const char *reason = answer.reason.size > 0 ? cmd_short(cmd, answer.reason, 0) : "started";
    if (isatty(STDOUT_FILENO) || follow) {
        cmd_say(cmd, "%s %s  %s  %s", cmd_painted(cmd, CMD_BOLD, "RUN"), request.run.data, label, reason);
    } else {
        cmd_say(cmd, "%s", request.run.data);
        fprintf(stderr, "myelin run: %s %s\n", label, reason);
    }
    if (!follow) {
        if (isatty(STDOUT_FILENO))
            cmd_say(cmd, "follow it: myelin follow %s", request.run.data);
        return CMD_OK;
    }
    return follow_run(cmd, request.run, 0, false);
}

int cmd_run(struct cmd *cmd)
{
    int code;
    const char *input_argument = NULL, *id = NULL;
    bool follow = false;
    const struct cmd_option options[] = {
        {"input", "JSON|@FILE|-", &input_argument, NULL,
         "what the run works on: JSON, a file of it, or standard input"},
        {"id", "ID", &id, NULL, "your own id for the run (letters, digits, . _ -); else a UUIDv7 is made"},
        {"follow", NULL, NULL, &follow, "then watch it, as `myelin follow`"},
    };
    const struct cmd_syntax syntax = {
        .options = options, .options_count = 3, .arguments_min = 1, .arguments_max = 1, .help = help};
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    if (input_argument == NULL)
        return cmd_fail(cmd, CMD_USAGE, "--input is missing: what does the run work on? (--input '{}' for nothing)");
    if (id != NULL && !uuid_is_run_id(str_of(id)))
        return cmd_fail(cmd, CMD_USAGE, "--id \"%s\" cannot name a run: " UUID_RUN_ID_SAYS, id);
    const struct control *control = control_get(cmd, &code);
    const struct control_version *version = control != NULL
                                                ? control_find(cmd, control, str_of(cmd->arguments[0]), &code)
                                                : NULL;
    struct str input;
    if (version == NULL || !check_input(cmd, version, input_argument, &input, &code))
        return code;
    return start(cmd, version, input, id, follow);
}
