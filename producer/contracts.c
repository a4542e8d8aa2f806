#include "producer/contracts.h"

#include "producer/control.h"
#include "worker/contract/problems.h"
#include "worker/contract/suggest.h"

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

/* What only the worker's settings can tell: the contract itself knows a model by its name alone. */
static void check_model(const struct cmd *cmd, const struct settings *worker, const char *path, int32_t line,
                        const char *where, struct str model, struct problems *problems)
{
    if (model.size == 0 || settings_model(worker, model) != NULL)
        return;
    struct str *names = ARENA_ARRAY(cmd->arena, worker->models_count, struct str), all = STR("");
    for (size_t i = 0; i < worker->models_count; i++) {
        names[i] = worker->models[i].name;
        all = arena_printf(cmd->arena, "%s%s%s", all.data, i > 0 ? ", " : "", names[i].data);
    }
    struct str clause = suggest_clause(cmd->arena, model, names, worker->models_count);
    problems_add(problems, str_of(path), line, false,
                 "%s.model: no such model \"%s\"%s%s the models of worker.cfg are: %s", where, model.data, clause.data,
                 clause.size > 0 ? "" : ";", all.data);
}

static void check_models(const struct cmd *cmd, const struct settings *worker, const char *path,
                         const struct contract *contract, struct problems *problems)
{
    for (size_t i = 0; i < contract->agents_count; i++) {
        const struct agent *agent = &contract->agents[i];
        check_model(cmd, worker, path, agent->model_line, arena_printf(cmd->arena, "agents.%s", agent->name.data).data,
                    agent->model, problems);
    }
    for (size_t i = 0; i < contract->steps_count; i++) {
        const struct step *step = &contract->steps[i];
        check_model(cmd, worker, path, step->model_line, arena_printf(cmd->arena, "steps.%s", step->name.data).data,
                    step->model, problems);
    }
    problems_sort(problems, 0);
}

struct contract *contracts_read(const struct cmd *cmd, const char *path, const struct settings *worker)
{
    struct problems problems;
    problems_init(&problems);
    struct contract *contract = contract_read_file(path, &problems);
    if (contract != NULL && worker != NULL && worker->models_count > 0)
        check_models(cmd, worker, path, contract, &problems);
    if (problems.errors > 0) {
        contract_free(contract);
        contract = NULL;
    }
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
