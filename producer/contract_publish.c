/* myelin contract publish FILE... */
#include "producer/commands.h"
#include "producer/contracts.h"
#include "producer/control.h"
#include "producer/remote.h"
#include "worker/io/clock.h"

/* What a run by name would get now; NULL = none. */
static const struct contract_published *latest_of(const struct control *control, struct str name)
{
    for (size_t i = control->count; i > 0; i--)
        if (str_equal(control->versions[i - 1].published.name, name))
            return &control->versions[i - 1].published;
    return NULL;
}

static bool publish(struct cmd *cmd, const struct control *control, const struct contract *contract, int *code)
{
    struct str hash = str_of(contract->hash);
    const char *label = contracts_label(cmd, contract->name, hash), *said = "published";
    const struct contract_published *latest = latest_of(control, contract->name);
    if (latest != NULL && str_equal(latest->hash, hash)) {
        said = "already published";
    } else {
        struct contract_published record = {.name = contract->name,
                                            .hash = hash,
                                            .canonical = contract->canonical,
                                            .by = cmd_user(cmd),
                                            .at_ms = clock_wall_ms()};
        struct str key = arena_printf(cmd->arena, "contract/%.*s/%s", STR_ARG(contract->name), contract->hash);
        if (control_hash(control, hash) != NULL)
            said = "published again: the latest version from now on";
        if (!remote_send(cmd, "control", 0, key, RECORD_CONTRACT_PUBLISHED, &record, code))
            return false;
    }
    cmd_say(cmd, "%s: %s", label, said);
    cmd_json(cmd, json_pack("{s:s, s:s, s:s}", "contract", contract->name.data, "hash", contract->hash, "said", said));
    return true;
}

/* A step in a pool without a topic would end its run. */
static bool pools_exist(struct cmd *cmd, const struct contract *contract, int *code)
{
    for (size_t i = 0; i < contract->steps_count; i++) {
        const char *what = arena_printf(cmd->arena, "steps.%.*s", STR_ARG(contract->steps[i].pool)).data;
        if (remote_partition(cmd, what, STR(""), code) >= 0)
            continue;
        cmd_warn(
            cmd,
            "step %.*s of %.*s runs in the pool \"%.*s\": name it in `pools`, of the settings of the command and of the workers that serve it",
            STR_ARG(contract->steps[i].name), STR_ARG(contract->name), STR_ARG(contract->steps[i].pool));
        return false;
    }
    return true;
}

int cmd_contract_publish(struct cmd *cmd)
{
    int code;
    const struct cmd_syntax syntax = {
        .arguments_min = 1,
        .arguments_max = CMD_ANY,
        .help =
            "Checks each file, then makes its contract known to the workers. A version is its content: comments and spaces do\n"
            "not change it. New runs by name get the version that was published last; a run keeps the version that it started\n"
            "with. Nothing is published when one of the files has an error.\n\n"
            "  myelin contract publish config/contracts/customer_research_to_followup.cfg",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    struct contract **contracts = ARENA_ARRAY(cmd->arena, cmd->arguments_count, struct contract *);
    bool good = true;
    for (size_t i = 0; i < cmd->arguments_count; i++) {
        contracts[i] = contracts_read(cmd, cmd->arguments[i], NULL);
        good = good && contracts[i] != NULL;
    }
    code = CMD_NO;
    const struct control *control = good ? control_get(cmd, &code) : NULL;
    good = control != NULL && control_publish_schemas(cmd, control, &code) >= 0;
    for (size_t i = 0; i < cmd->arguments_count; i++)
        good = good && pools_exist(cmd, contracts[i], &code);
    for (size_t i = 0; i < cmd->arguments_count; i++) {
        good = good && publish(cmd, control, contracts[i], &code);
        contract_free(contracts[i]);
    }
    return good ? CMD_OK : code;
}
