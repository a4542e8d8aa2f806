#include "producer/cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/units.h"
#include "worker/contract/suggest.h"

/* ---- options ---- */

#define COMMON_COUNT 4

/* The command's own options and those of all commands. */
struct option_table {
    struct cmd_option *list;
    size_t count;
};

static struct option_table all_options(struct cmd *cmd, const struct cmd_syntax *syntax, const char **timeout,
                                       bool *help)
{
    const struct cmd_option common[COMMON_COUNT] = {
        {"config", "FILE", &cmd->config, NULL,
         "settings; else $MYELIN_CONFIG, config/producer.cfg, /etc/myelin/producer.cfg"},
        {"json", NULL, NULL, &cmd->json, "one JSON object a line instead of text"},
        {"timeout", "DURATION", timeout, NULL, "how long to wait at most, for example 30s"},
        {"help", NULL, NULL, help, "this text"},
    };
    struct option_table table = {ARENA_ARRAY(cmd->arena, syntax->options_count + COMMON_COUNT, struct cmd_option), 0};
    for (size_t i = 0; i < syntax->options_count; i++)
        table.list[table.count++] = syntax->options[i];
    for (size_t i = 0; i < COMMON_COUNT; i++)
        table.list[table.count++] = common[i];
    return table;
}

static void print_help(const struct cmd *cmd, const struct cmd_syntax *syntax, const struct option_table *table)
{
    printf("usage: myelin %s%s%s\n\n%s\n\noptions:\n", cmd->name, *cmd->usage != '\0' ? " " : "", cmd->usage,
           syntax->help);
    for (size_t i = 0; i < table->count; i++) {
        const struct cmd_option *option = &table->list[i];
        int width = printf("  --%s%s%s", option->name, option->argument != NULL ? " " : "",
                           option->argument != NULL ? option->argument : "");
        printf("%*s%s\n", width < 24 ? 24 - width : 2, "", option->says);
    }
}

/* One word that begins with "--"; `*i` moves on when the value is the next word. */
static bool take_option(struct cmd *cmd, const struct option_table *table, size_t *i)
{
    const char *word = cmd->arguments[*i] + 2;
    struct str name = {word, strcspn(word, "=")};
    const struct cmd_option *option = NULL;
    struct str *names = ARENA_ARRAY(cmd->arena, table->count, struct str);
    for (size_t k = 0; k < table->count; k++) {
        names[k] = str_of(table->list[k].name);
        if (str_equal(name, names[k]))
            option = &table->list[k];
    }
    if (option == NULL) {
        struct str near = suggest(cmd->arena, name, names, table->count);
        cmd_fail(cmd, CMD_USAGE, "there is no option --%.*s%s%s; see: myelin %s --help", STR_ARG(name),
                 near.data != NULL ? ", did you mean --" : "", near.data != NULL ? near.data : "", cmd->name);
        return false;
    }
    bool has_value = word[name.size] == '=';
    if (option->argument == NULL) {
        if (has_value)
            cmd_fail(cmd, CMD_USAGE, "--%s takes no value", option->name);
        *option->flag = true;
        return !has_value;
    }
    if (!has_value && *i + 1 == cmd->arguments_count) {
        cmd_fail(cmd, CMD_USAGE, "--%s needs a value: --%s %s", option->name, option->name, option->argument);
        return false;
    }
    *option->value = has_value ? word + name.size + 1 : cmd->arguments[++*i];
    return true;
}

static bool take_words(struct cmd *cmd, const struct option_table *table)
{
    size_t kept = 0;
    bool options = true;
    for (size_t i = 0; i < cmd->arguments_count; i++) {
        char *word = cmd->arguments[i];
        if (options && strcmp(word, "--") == 0) {
            options = false;
        } else if (options && strcmp(word, "-h") == 0) {
            *table->list[table->count - 1].flag = true;
        } else if (options && word[0] == '-' && word[1] == '-') {
            if (!take_option(cmd, table, &i))
                return false;
        } else if (options && word[0] == '-' && word[1] != '\0') {
            cmd_fail(cmd, CMD_USAGE, "there is no option %s: options are written in full; see: myelin %s --help", word,
                     cmd->name);
            return false;
        } else {
            cmd->arguments[kept++] = word;
        }
    }
    cmd->arguments_count = kept;
    return true;
}

bool cmd_parse(struct cmd *cmd, const struct cmd_syntax *syntax, int *code)
{
    const char *timeout = NULL;
    bool help = false;
    struct option_table table = all_options(cmd, syntax, &timeout, &help);
    *code = CMD_USAGE;
    if (!take_words(cmd, &table))
        return false;
    if (help) {
        print_help(cmd, syntax, &table);
        *code = CMD_OK;
        return false;
    }
    if (timeout != NULL && (!units_duration(str_of(timeout), &cmd->timeout_ms) || cmd->timeout_ms == 0)) {
        cmd_fail(cmd, CMD_USAGE, "--timeout is \"%s\", must be " UNITS_DURATION_SAYS, timeout);
        return false;
    }
    if (cmd->arguments_count < syntax->arguments_min || cmd->arguments_count > syntax->arguments_max) {
        bool few = cmd->arguments_count < syntax->arguments_min;
        cmd_fail(cmd, CMD_USAGE, "%s; usage: myelin %s%s%s", few ? "something is missing" : "too many arguments",
                 cmd->name, *cmd->usage != '\0' ? " " : "", cmd->usage);
        return false;
    }
    return true;
}

bool cmd_settings(struct cmd *cmd, int *code)
{
    struct error error;
    if (cmd->settings == NULL)
        cmd->settings = settings_read(settings_find(cmd->config, "producer.cfg", cmd->arena), &error);
    if (cmd->settings == NULL)
        *code = cmd_fail(cmd, CMD_CONFIG, "%s", error.text);
    return cmd->settings != NULL;
}

int64_t cmd_timeout(const struct cmd *cmd, int64_t otherwise_ms)
{
    return cmd->timeout_ms > 0 ? cmd->timeout_ms : otherwise_ms;
}
