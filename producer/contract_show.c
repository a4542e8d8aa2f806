/* myelin contract show FILE | NAME[@HASH] */
#include <string.h>
#include <unistd.h>

#include "producer/commands.h"
#include "producer/contracts.h"
#include "producer/control.h"
#include "worker/base/units.h"

/* A file when it looks like a path or is one; else the name of a published contract. */
static struct contract *find(struct cmd *cmd, const char *text, int *code)
{
    size_t size = strlen(text);
    bool file = strchr(text, '/') != NULL || (size > 4 && strcmp(text + size - 4, ".cfg") == 0) ||
                access(text, F_OK) == 0;
    if (file) {
        struct problems problems;
        problems_init(&problems);
        struct contract *contract = contract_read_file(text, &problems);
        if (contract == NULL)
            *code = cmd_fail(cmd, CMD_DATA, "%s has %zu error%s; see: myelin contract check %s", text, problems.errors,
                             problems.errors == 1 ? "" : "s", text);
        problems_free(&problems);
        return contract;
    }
    const struct control *control = control_get(cmd, code);
    const struct control_version *version = control != NULL ? control_find(cmd, control, str_of(text), code) : NULL;
    struct contract *contract = control_load(cmd, version);
    if (version != NULL && contract == NULL)
        *code = CMD_DATA;
    return contract;
}

static void show_head(struct cmd *cmd, const struct contract *contract)
{
    const struct contract_limits *limits = &contract->limits;
    cmd_say(cmd, "%s", cmd_painted(cmd, CMD_BOLD, contracts_label(cmd, contract->name, str_of(contract->hash))));
    cmd_say(cmd, "  %s", cmd_short(cmd, contract->goal, 0));
    cmd_say(cmd, "  limits   deadline %s, %d steps, %s LLM tokens, $%s; retry_budget %d",
            units_duration_text(cmd->arena, limits->deadline_ms).data, (int)limits->steps_max,
            cmd_number(cmd, limits->llm_tokens_max), units_usd_text(cmd->arena, limits->micro_usd_max).data,
            (int)contract->retry_budget);
    for (size_t i = 0; i < contract->criteria_count; i++) {
        const struct criterion *criterion = &contract->criteria[i];
        int32_t step = criterion->before >= 0 ? criterion->before : criterion->after;
        cmd_say(cmd, "  must     %s (%s%s%s, %s)", cmd_short(cmd, criterion->says, 0),
                criterion->before >= 0 ? "before " : "after ", step >= 0 ? contract->steps[step].name.data : "the end",
                "",
                criterion->judge >= 0
                    ? arena_printf(cmd->arena, "judged by %s", contract->agents[criterion->judge].name.data).data
                    : "checked");
    }
    for (size_t i = 0; i < contract->forbidden_count; i++)
        cmd_say(cmd, "  never    %s", cmd_short(cmd, contract->forbidden[i].name, 0));
    cmd_say(cmd, "%s", "");
}

static void show_steps(struct cmd *cmd, const struct contract *contract)
{
    static const char *const head[] = {"STEP", "KIND", "DECIDED BY", "OUTSIDE", "WRITES", "PERSON", "REPEATED"};
    struct contract_row *rows;
    struct cmd_table table;
    size_t count = contract_table(contract, cmd->arena, &rows);
    cmd_table_start(&table, cmd, head, sizeof(head) / sizeof(head[0]));
    for (size_t i = 0; i < count; i++) {
        const struct contract_row *row = &rows[i];
        const struct str texts[] = {row->step,   row->kind,   row->decided_by, row->outside,
                                    row->writes, row->person, row->repeat};
        const char *cells[sizeof(texts) / sizeof(texts[0])];
        for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++)
            cells[k] = cmd_short(cmd, texts[k], 60);
        cmd_table_row(&table, cells);
        cmd_json(cmd,
                 json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "step", cells[0], "kind", cells[1], "decided_by",
                           cells[2], "outside", cells[3], "writes", cells[4], "person", cells[5], "repeat", cells[6]));
    }
    cmd_table_print(&table);
}

int cmd_contract_show(struct cmd *cmd)
{
    int code;
    const struct cmd_syntax syntax = {
        .arguments_min = 1,
        .arguments_max = 1,
        .help =
            "Prints what a reader asks of each step: what decides it (a rule or a model), whether it touches the outside,\n"
            "whether it writes, whether it needs a person, whether it may be repeated. A published contract is named by its\n"
            "name (the latest version) or with the beginning of its hash.\n\n"
            "  myelin contract show config/contracts/customer_research_to_followup.cfg\n"
            "  myelin contract show customer_research_to_followup@7c1f2e",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    struct contract *contract = find(cmd, cmd->arguments[0], &code);
    if (contract == NULL)
        return code;
    show_head(cmd, contract);
    show_steps(cmd, contract);
    contract_free(contract);
    return CMD_OK;
}
