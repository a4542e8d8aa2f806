/* myelin contract list [NAME] */
#include "producer/commands.h"
#include "producer/contracts.h"
#include "producer/control.h"

/* Its name has no later version: a run by name gets this one. */
static bool is_latest(const struct control *control, size_t i)
{
    for (size_t k = i + 1; k < control->count; k++)
        if (str_equal(control->versions[k].published.name, control->versions[i].published.name))
            return false;
    return true;
}

/* Published again later, and not yet compacted away. */
static bool is_again(const struct control *control, size_t i)
{
    for (size_t k = i + 1; k < control->count; k++)
        if (str_equal(control->versions[k].published.hash, control->versions[i].published.hash))
            return true;
    return false;
}

int cmd_contract_list(struct cmd *cmd)
{
    static const char *const head[] = {"CONTRACT", "", "PUBLISHED", "BY"};
    int code;
    const struct cmd_syntax syntax = {
        .arguments_max = 1,
        .help =
            "Lists the versions that the workers know, oldest first. A run by name gets the one that is marked latest.\n\n"
            "  myelin contract list\n"
            "  myelin contract list customer_research_to_followup",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    const struct control *control = control_get(cmd, &code);
    if (control == NULL)
        return code;
    struct cmd_table table;
    size_t listed = 0;
    cmd_table_start(&table, cmd, head, 4);
    for (size_t i = 0; i < control->count; i++) {
        const struct contract_published *published = &control->versions[i].published;
        bool wanted = cmd->arguments_count == 0 || str_is(published->name, cmd->arguments[0]);
        if (!wanted || is_again(control, i))
            continue;
        bool latest = is_latest(control, i);
        const char *const row[] = {contracts_label(cmd, published->name, published->hash), latest ? "latest" : "",
                                   cmd_time(cmd, published->at_ms), cmd_short(cmd, published->by, 30)};
        cmd_table_row(&table, row);
        cmd_json(cmd,
                 json_pack("{s:s, s:s, s:b, s:I, s:s, s:I}", "contract", published->name.data, "hash",
                           published->hash.data, "latest", (int)latest, "published_at_ms", (json_int_t)published->at_ms,
                           "by", published->by.data != NULL ? published->by.data : "", "offset",
                           (json_int_t)control->versions[i].offset));
        listed++;
    }
    if (listed > 0)
        cmd_table_print(&table);
    else
        cmd_say(cmd, "no contract is published yet: myelin contract publish FILE");
    return CMD_OK;
}
