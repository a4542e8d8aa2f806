/*
 * keys.h: a group of the contract language as a table: for each key its name, what it takes, whether it must be
 * there, what it is when it is not, and what is allowed. The table drives the reading, the check for unknown
 * keys, and the messages.
 */
#ifndef MYELIN_CONTRACT_KEYS_H
#define MYELIN_CONTRACT_KEYS_H

#include <stddef.h>

#include "worker/contract/load.h"

enum key_type {                /* the field that is filled */
                KEY_TEXT,      /* struct str; not empty */
                KEY_NAME,      /* struct str; a name of the language */
                KEY_BOOL,      /* bool */
                KEY_COUNT,     /* int32_t in low..high */
                KEY_BIG_COUNT, /* int64_t in low..high */
                KEY_DURATION,  /* int64_t milliseconds in low..high: "5s" */
                KEY_MONEY,     /* int64_t millionths of a dollar in low..high: "0.50" */
                KEY_WORD,      /* an enum: the index in `words` */
                KEY_EXPR,      /* const struct expr * */
                KEY_SCHEMA,    /* struct schema * */
                KEY_AGENT,     /* int32_t: index of an agent */
                KEY_TOOL,      /* int32_t: index of a tool */
                KEY_STEP,      /* int32_t: index of a step */
                KEY_TARGET,    /* int32_t: a step, or TARGET_END */
                KEY_GROUP,     /* nothing: the caller reads it, by keys_group */
                KEY_LIST,      /* nothing: the caller reads it, by keys_list */
                KEY_ANY,       /* nothing: the caller reads it */
                KEY_LATER,     /* nothing: a name of the language that is not supported yet */
};

struct key {
    const char *name;
    enum key_type type;
    bool required;
    size_t offset;            /* of the field in the struct that is filled */
    int64_t low, high;        /* limits, both allowed */
    int64_t otherwise;        /* the default: a number, a word's index, -1 for no agent, tool or step */
    const char *text;         /* the default of KEY_TEXT and KEY_NAME; NULL = absent */
    const char *const *words; /* KEY_WORD: what is allowed, then NULL */
    enum roots roots;         /* KEY_EXPR */
};

#define KEYS_COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Fills `target` (zeroed before) from `group` and reports what is wrong. `group`
 * NULL: the defaults alone. `also` (may be NULL) names members that the caller knows and the table does not. */
void keys_load(struct load *load, const struct node *group, const struct key *keys, size_t count, void *target);
void keys_load_also(struct load *load, const struct node *group, const struct key *keys, size_t count, void *target,
                    const struct str *also, size_t also_count);

/* Reads one value as `key` says, for a group whose names are the author's. */
void keys_take(struct load *load, const struct key *key, const struct node *node, void *field);

/* The member when it is there and is a group (a list); its wrong type was reported by keys_load. */
const struct node *keys_group(const struct node *group, const char *name);
const struct node *keys_list(const struct node *group, const char *name);

/* What a value is, for messages: "a text", "a number", ... */
const char *keys_type_name(const struct node *node);

#endif
