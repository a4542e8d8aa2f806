/*
 * tree.h: a contract's JSON with what messages need: for each value its name, its place and its line.
 *
 * The members of a group are sorted by name, as in the canonical form, so that a contract has the same indexes
 * whether it was read from a file or from a topic.
 */
#ifndef MYELIN_CONTRACT_TREE_H
#define MYELIN_CONTRACT_TREE_H

#include <jansson.h>

#include "worker/base/arena.h"

struct node {
    struct node *parent, *first, *next; /* `first` and `next`: members or elements */
    size_t count;
    struct str key; /* of a group's member; absent in a list */
    size_t index;   /* in a list */
    int32_t line;   /* 0 = not known */
    json_t *json;   /* borrowed */
};

/* `lines` gives the line of each value below `json`, in the order of its insertion, a group before its members;
 * NULL or too few: 0. */
struct node *tree_build(struct arena *arena, json_t *json, const int32_t *lines, size_t lines_count);

size_t tree_size(const struct node *node); /* how many values are below it */

struct node *tree_member(const struct node *group,
                         const char *key); /* NULL = none, also when `group` is none or NULL */

/* Replaces the value by `json` (taken); what is below gets the line of what it replaces. */
void tree_replace(struct arena *arena, struct node *node, json_t *json);

/* "steps.send.args", "human_checkpoints[0].timeout"; "" for the root. */
struct str tree_path(struct arena *arena, const struct node *node);

/* The node at a path as tree_path writes it, from `node` on; where it ends too early, the last one that exists. */
const struct node *tree_find(const struct node *node, const char *path);

/* The text of a string node; STR_NONE for any other, and for NULL. */
struct str tree_text(const struct node *node);

#endif
