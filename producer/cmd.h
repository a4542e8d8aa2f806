/*
 * cmd.h: what the subcommands share: options and --help, exit codes, output for people and for programs.
 *
 * A subcommand is a function in a file of its own, named in the table of main.c. It parses its options with cmd_parse,
 * does its work, and returns one of the exit codes below. All memory is in cmd->arena, which lives as long as the process.
 */
#ifndef MYELIN_PRODUCER_CMD_H
#define MYELIN_PRODUCER_CMD_H

#include <jansson.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"
#include "worker/settings.h"

/* Exit codes: 0, two of our own, and those of sysexits.h with the meanings they have there. */
#define CMD_EXIT_TABLE(X)                                                                                              \
    X(CMD_OK, 0, "done; the run completed")                                                                            \
    X(CMD_NO, 1, "the answer is no: the check found errors, the run failed, the doctor found something")               \
    X(CMD_WAITING, 2, "the run waits for a person (follow --until waiting)")                                           \
    X(CMD_USAGE, 64, "wrong use of the command line")                                                                  \
    X(CMD_DATA, 65, "the data given does not fit: JSON, input, contract")                                              \
    X(CMD_NO_INPUT, 66, "there is no such file, run, step or contract")                                                \
    X(CMD_UNAVAILABLE, 69, "Kafka or Redis cannot be reached, or the topics are not there")                            \
    X(CMD_INTERNAL, 70, "a bug in Myelin")                                                                             \
    X(CMD_IO, 74, "the output could not be written")                                                                   \
    X(CMD_NO_ANSWER, 75, "nobody answered in time: try again")                                                         \
    X(CMD_REFUSED, 77, "the workers refused the request, and say why")                                                 \
    X(CMD_CONFIG, 78, "something is wrong with the settings")

enum cmd_exit {
#define X(name, code, says) name = (code),
    CMD_EXIT_TABLE(X)
#undef X
};

struct cmd {
    const char *name;  /* "contract check" */
    const char *usage; /* its arguments, for example "FILE..." */
    const char *says;
    struct arena *arena;
    char **arguments; /* NULL-terminated; after cmd_parse only those that are no options */
    size_t arguments_count;
    /* the options that all commands have */
    const char *config;
    bool json;
    int64_t timeout_ms; /* 0 = not given */
    bool color;
    struct settings *settings;     /* NULL until cmd_settings */
    struct reader *reader;         /* NULL until remote_reader */
    struct writer *writer;         /* NULL until remote_writer */
    const struct control *control; /* NULL until control_get */
};

typedef int cmd_function(struct cmd *cmd);

struct cmd_option {
    const char *name;     /* without the dashes */
    const char *argument; /* what --help calls its value; NULL = a flag */
    const char **value;   /* of an option with a value */
    bool *flag;
    const char *says;
};

struct cmd_syntax {
    const struct cmd_option *options;
    size_t options_count;
    size_t arguments_min, arguments_max;
    const char *help; /* what it does in full, and examples; printed as it stands */
};

#define CMD_ANY ((size_t)-1)

/* Parses cmd->arguments. False: cmd->arguments was wrong or --help was asked for, all is said: return *code. */
bool cmd_parse(struct cmd *cmd, const struct cmd_syntax *syntax, int *code);

/* --config, $MYELIN_CONFIG, config/producer.cfg, /etc/myelin/producer.cfg, else the defaults. False: said; return *code. */
bool cmd_settings(struct cmd *cmd, int *code);

/* What `--timeout` says, else this. */
int64_t cmd_timeout(const struct cmd *cmd, int64_t otherwise_ms);

/* ---- output ---- */

/* "myelin COMMAND: text" on standard error, with --json also {"error", "exit"} on standard output. Returns `code`. */
int cmd_fail(const struct cmd *cmd, enum cmd_exit code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same with the code that the error's text calls for: what could not be reached is CMD_UNAVAILABLE. */
int cmd_error(const struct cmd *cmd, enum cmd_exit code, const struct error *error);

/* "myelin COMMAND: warning: text" on standard error: something is odd, the command goes on. */
void cmd_warn(const struct cmd *cmd, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A line of text for people; nothing with --json. Control characters in it are replaced: a run's own data must not write
 * to a terminal. */
void cmd_say(const struct cmd *cmd, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* One object on one line, with --json only; takes `object`. */
void cmd_json(const struct cmd *cmd, json_t *object);

enum cmd_paint { CMD_PLAIN, CMD_BOLD, CMD_DIM, CMD_RED, CMD_GREEN, CMD_YELLOW };
/* The text in that colour, when colours are on; it goes into cmd_say. In the arena. */
const char *cmd_painted(const struct cmd *cmd, enum cmd_paint paint, const char *text);

/* A table for people: columns as wide as their widest cell, the last one free. */
struct cmd_table {
    const struct cmd *cmd;
    size_t columns, rows, capacity;
    const char **cells; /* the first row is the head */
};
void cmd_table_start(struct cmd_table *table, const struct cmd *cmd, const char *const *head, size_t columns);
void cmd_table_row(struct cmd_table *table, const char *const *cells);
void cmd_table_print(const struct cmd_table *table);

/* ---- small things ---- */

/* A text as it may go to a terminal, cut to `columns` characters with "..." (0 = all of it). In the arena. */
const char *cmd_short(const struct cmd *cmd, struct str text, size_t columns);
/* "3s", "12m", "2h 5m", "3d 4h": for people. */
const char *cmd_span(const struct cmd *cmd, int64_t ms);
/* "1234567" → "1,234,567" */
const char *cmd_number(const struct cmd *cmd, int64_t number);
/* 2026-11-22 17:40:01Z */
const char *cmd_time(const struct cmd *cmd, int64_t at_ms);
/* Who is asking: $MYELIN_USER, else the login name. */
struct str cmd_user(const struct cmd *cmd);
/* The value of an option like --input: JSON, @FILE or - (standard input). NULL: said; return *code. A new reference. */
json_t *cmd_json_argument(const struct cmd *cmd, const char *option, const char *argument, int *code);

#endif
