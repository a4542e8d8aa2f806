/*
 * option.h: settings by table: one row gives an option's name, type, default, limits and meaning, and from it come
 * parsing, the errors with their lines, and the text of --help.
 */
#ifndef MYELIN_OPTION_H
#define MYELIN_OPTION_H

#include "worker/contract/problems.h"
#include "worker/contract/tree.h"

enum option_type {
    OPTION_TEXT,     /* const char *, NULL when empty; ${NAME} is expanded in every text */
    OPTION_STR,      /* struct str, STR_NONE when empty */
    OPTION_LIST,     /* struct option_list: texts; a single text is a list of one */
    OPTION_BOOL,     /* bool */
    OPTION_NUMBER,   /* int32_t */
    OPTION_DURATION, /* int64_t, milliseconds */
    OPTION_SIZE,     /* int64_t, bytes */
    OPTION_USD,      /* int64_t, millionths; -1 when the text is empty */
    OPTION_JSON,     /* struct str: a group as a JSON object, STR_NONE when empty */
    OPTION_GROUP,    /* named groups; read by the owner of the table */
};

struct option_list {
    const char **items; /* NULL-terminated */
    size_t count;
};

struct option {
    const char *name;
    enum option_type type;
    size_t offset;        /* of the member that it fills */
    const char *fallback; /* the default as JSON, which is also how a file says it; NULL = must be given */
    int64_t min, max;     /* of a number, a duration (ms) or a size (bytes); how many of a list; how long a text */
    /* NULL = fine, else what the text must be ("must be HOST:PORT"); of a list: asked of each entry. */
    const char *(*check)(struct str text, struct arena *arena);
    bool secret;      /* its value is never shown */
    const char *says; /* for --help and for "is missing" */
};

struct option_reading {
    struct arena *arena; /* everything that is read lives here */
    struct problems *problems;
    struct str file;
};

/* Fills `out` from `group` (NULL = the defaults alone), whose members must all be in `table`. What is wrong is in
 * `problems`; the member then keeps the value it had. `prefix` stands before names in messages, for example
 * "models.small.". */
void option_read(const struct option_reading *reading, const struct option *table, size_t count,
                 const struct node *group, const char *prefix, void *out);

/* Adds a problem of `node` (NULL = the whole file). */
void option_problem(const struct option_reading *reading, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Two lines an option: `name = default;` and its meaning with its limits. */
struct str option_help(const struct option *table, size_t count, const char *indent, struct arena *arena);

#endif
