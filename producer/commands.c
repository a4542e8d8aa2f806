#include "producer/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "producer/remote.h"
#include "worker/base/logline.h"
#include "worker/contract/suggest.h"
#include "worker/record.h"

static void print_help(const struct commands_entry *entries, size_t count)
{
    printf("myelin: run AI-agent workflows on Kafka and Redis, and look at them.\n\n");
    printf("usage: myelin COMMAND [ARGUMENTS] [--config FILE] [--json] [--timeout DURATION]\n\n");
    for (size_t i = 0; i < count; i++) {
        /* What is long stands on a line of its own, so that the column of meanings stays. */
        int width = printf("  %s %s", entries[i].name, entries[i].usage);
        printf("%*s%s\n", width < 46 ? 46 - width : 2, "", entries[i].says);
    }
    printf("\n`myelin COMMAND --help` explains one, with examples.\n\nexit codes:\n");
#define X(name, code, says) printf("  %2d  %s\n", code, says);
    CMD_EXIT_TABLE(X)
#undef X
    struct arena *arena = arena_new();
    printf("\nsettings (--config FILE, $MYELIN_CONFIG, config/producer.cfg, /etc/myelin/producer.cfg):\n%s",
           settings_help(arena).data);
    arena_free(arena);
}

/* The words of the command line that `name` takes up; 0 = it is another command. */
static size_t matches(const char *name, char **words, size_t count)
{
    const char *space = strchr(name, ' ');
    if (space == NULL)
        return count >= 1 && strcmp(words[0], name) == 0 ? 1 : 0;
    size_t first = (size_t)(space - name);
    return count >= 2 && strlen(words[0]) == first && memcmp(words[0], name, first) == 0 &&
                   strcmp(words[1], space + 1) == 0
               ? 2
               : 0;
}

/* What is known to begin with this word: `myelin contract` lists what there is. */
static size_t list_those(const struct commands_entry *entries, size_t count, const char *word)
{
    size_t listed = 0;
    for (size_t i = 0; i < count; i++) {
        size_t first = strcspn(entries[i].name, " ");
        if (entries[i].name[first] != ' ' || strlen(word) != first || memcmp(word, entries[i].name, first) != 0)
            continue;
        if (listed++ == 0)
            fprintf(stderr, "myelin %s: say what to do:\n", word);
        fprintf(stderr, "  myelin %s %s\n", entries[i].name, entries[i].usage);
    }
    return listed;
}

static int unknown_command(const struct commands_entry *entries, size_t count, char **words, size_t words_count)
{
    struct arena *arena = arena_new();
    struct str *names = ARENA_ARRAY(arena, count, struct str);
    for (size_t i = 0; i < count; i++)
        names[i] = str_of(entries[i].name);
    bool two = words_count > 1 && words[1][0] != '-';
    struct str wrong = two ? arena_printf(arena, "%s %s", words[0], words[1]) : str_of(words[0]);
    struct str near = suggest(arena, wrong, names, count);
    if (near.data == NULL)
        near = suggest(arena, str_of(words[0]), names, count);
    if (two && near.data != NULL)
        fprintf(stderr, "myelin: there is no command \"%s\", did you mean \"%s\"?\n", wrong.data, near.data);
    else if (list_those(entries, count, words[0]) == 0)
        fprintf(stderr,
                near.data != NULL ? "myelin: there is no command \"%s\", did you mean \"%s\"?\n"
                                  : "myelin: there is no command \"%s\"; see: myelin --help\n",
                words[0], near.data);
    arena_free(arena);
    return CMD_USAGE;
}

static int run_command(const struct commands_entry *entry, char **arguments, size_t arguments_count)
{
    struct cmd cmd = {
        .name = entry->name,
        .usage = entry->usage,
        .says = entry->says,
        .arena = arena_new(),
        .arguments = arguments,
        .arguments_count = arguments_count,
    };
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    cmd.color = isatty(STDOUT_FILENO) && (no_color == NULL || *no_color == '\0') &&
                (terminal == NULL || strcmp(terminal, "dumb") != 0);
    logline_level(LOGLINE_ERROR); /* a command speaks in its own words */
    struct error error;
    int code = record_open(&error) ? entry->run(&cmd) : cmd_error(&cmd, CMD_INTERNAL, &error);
    remote_close(&cmd);
    record_close();
    settings_free(cmd.settings);
    arena_free(cmd.arena);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "myelin: the output could not be written: %s\n", strerrordesc_np(errno));
        return CMD_IO;
    }
    return code;
}

int commands_main(const struct commands_entry *entries, size_t count, int argc, char **argv)
{
    char **words = argv + 1;
    size_t words_count = argc > 0 ? (size_t)argc - 1 : 0;
    if (words_count == 0 || strcmp(words[0], "--help") == 0 || strcmp(words[0], "-h") == 0 ||
        strcmp(words[0], "help") == 0) {
        print_help(entries, count);
        return words_count == 0 ? CMD_USAGE : CMD_OK;
    }
    for (size_t i = 0; i < count; i++) {
        size_t taken = matches(entries[i].name, words, words_count);
        if (taken > 0)
            return run_command(&entries[i], words + taken, words_count - taken);
    }
    return unknown_command(entries, count, words, words_count);
}
