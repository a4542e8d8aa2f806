/* myelin contract check FILE... */
#include "producer/commands.h"
#include "producer/contracts.h"

int cmd_contract_check(struct cmd *cmd)
{
    int code;
    const struct cmd_syntax syntax = {
        .arguments_min = 1,
        .arguments_max = CMD_ANY,
        .help =
            "Reports all problems of each file at once, as FILE:LINE: what is wrong, what is allowed. Needs no server.\n"
            "Exit code 1 when there is an error; warnings alone are no error.\n\n"
            "  myelin contract check config/contracts/*.cfg",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    bool good = true;
    for (size_t i = 0; i < cmd->arguments_count; i++) {
        struct contract *contract = contracts_read(cmd, cmd->arguments[i]);
        good = good && contract != NULL;
        contract_free(contract);
    }
    return good ? CMD_OK : CMD_NO;
}
