#include "producer/contracts.h"

#include "producer/control.h"

static void tell_problem(const struct cmd *cmd, const struct problem *problem)
{
    const char *kind = problem->warning ? cmd_painted(cmd, CMD_YELLOW, "warning: ") : "";
    if (problem->line > 0)
        cmd_say(cmd, "%.*s:%d: %s%.*s", STR_ARG(problem->file), (int)problem->line, kind, STR_ARG(problem->text));
    else
        cmd_say(cmd, "%.*s: %s%.*s", STR_ARG(problem->file), kind, STR_ARG(problem->text));
    if (cmd->json)
        cmd_json(cmd, json_pack("{s:s%, s:i, s:b, s:s%}", "file", problem->file.data, problem->file.size, "line",
                                (int)problem->line, "warning", (int)problem->warning, "text", problem->text.data,
                                problem->text.size));
}

struct contract *contracts_read(const struct cmd *cmd, const char *path)
{
    struct problems problems;
    problems_init(&problems);
    struct contract *contract = contract_read_file(path, &problems);
    for (size_t i = 0; i < problems.count; i++)
        tell_problem(cmd, &problems.list[i]);
    if (contract == NULL) {
        cmd_say(cmd, "%s: %s", path,
                cmd_painted(
                    cmd, CMD_RED,
                    arena_printf(cmd->arena, "%zu error%s", problems.errors, problems.errors == 1 ? "" : "s").data));
        cmd_json(cmd, json_pack("{s:s, s:b, s:I}", "file", path, "ok", 0, "errors", (json_int_t)problems.errors));
    } else {
        cmd_say(cmd, "%s: %s, %s", path, cmd_painted(cmd, CMD_GREEN, "ok"),
                contracts_label(cmd, contract->name, str_of(contract->hash)));
        cmd_json(cmd, json_pack("{s:s, s:b, s:s, s:s}", "file", path, "ok", 1, "contract", contract->name.data, "hash",
                                contract->hash));
    }
    problems_free(&problems);
    return contract;
}

const char *contracts_label(const struct cmd *cmd, struct str name, struct str hash)
{
    size_t shown = hash.size < CONTROL_HASH_SHOWN ? hash.size : CONTROL_HASH_SHOWN;
    return arena_printf(cmd->arena, "%.*s@%.*s", STR_ARG(name), (int)shown, hash.data != NULL ? hash.data : "").data;
}
