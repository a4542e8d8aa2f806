/* myelin contract check FILE... */
#include "producer/commands.h"
#include "producer/contracts.h"

int cmd_contract_check(struct cmd *cmd)
{
    int code;
    const char *worker_config = NULL;
    const struct cmd_option options[] = {{"worker-config", "FILE", &worker_config, NULL,
                                          "the worker's settings; else config/worker.cfg, /etc/myelin/worker.cfg"}};
    const struct cmd_syntax syntax = {
        .arguments_min = 1,
        .arguments_max = CMD_ANY,
        .options = options,
        .options_count = 1,
        .help =
            "Reports all problems of each file at once, as FILE:LINE: what is wrong, what is allowed. Needs no server.\n"
            "Exit code 1 when there is an error; warnings alone are no error. The models that it may name are those of\n"
            "worker.cfg, where there is one.\n\n"
            "  myelin contract check config/contracts/*.cfg",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    struct error error;
    const char *path = settings_find(worker_config, "worker.cfg", cmd->arena);
    struct settings *worker = path != NULL ? settings_read(path, &error) : NULL;
    if (worker == NULL && worker_config != NULL)
        return cmd_error(cmd, CMD_CONFIG, &error);
    bool good = true;
    for (size_t i = 0; i < cmd->arguments_count; i++) {
        struct contract *contract = contracts_read(cmd, cmd->arguments[i], worker);
        good = good && contract != NULL;
        contract_free(contract);
    }
    settings_free(worker);
    return good ? CMD_OK : CMD_NO;
}
