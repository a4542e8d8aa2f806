/*
 * source.h: from a libconfig file to a tree: of a contract, or of settings.
 */
#ifndef MYELIN_CONTRACT_SOURCE_H
#define MYELIN_CONTRACT_SOURCE_H

#include "worker/contract/problems.h"
#include "worker/contract/tree.h"

/* The whole file: scanned, parsed, with the line of each value. NULL: said in `problems`. The root's json is a new
 * reference: the caller's. */
struct node *source_read_tree(const char *path, struct arena *arena, struct problems *problems);

/* The group `contract` of the file, or NULL (said in `problems`). The root's json is a new reference: the
 * caller's. */
struct node *source_read_file(const char *path, struct arena *arena, struct problems *problems);

/* Replaces each schema that is written as "@file" by that file's JSON. Only files beside the contract are read:
 * in its directory or below. */
void source_inline_schemas(struct node *root, const char *path, struct arena *arena, struct problems *problems);

#endif
