/*
 * json.h: JSON as Myelin accepts and writes it, on top of jansson.
 *
 * Everything that a person, a model, a tool or a topic hands us comes through json_read: bounded in size and depth, valid
 * UTF-8, no NUL, no duplicate keys, one value and nothing after it.
 */
#ifndef MYELIN_BASE_JSON_H
#define MYELIN_BASE_JSON_H

#include <jansson.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

#define JSON_DEPTH_MAX 64

/* Any JSON value, scalars too. Returns a new reference (json_decref), or NULL with `error` (ERROR_POISON; says the position). */
json_t *json_read(struct str text, size_t size_max, struct error *error);

/* Compact text in the arena, keys in the order they were put, numbers in the shortest form that reads back the same; a
 * real keeps a '.' or an exponent, so that it stays a real. */
struct str json_text(struct arena *arena, const json_t *value);

/* The canonical form: as json_text with keys sorted by bytes. Two values that are equal have the same canonical text; it
 * is what gets hashed (approvals, contracts, inputs). A number is its value: a real that is a whole number of at most 2^53
 * is written as an integer (1.0 as 1, as jq and JavaScript do), every other real as json_text does. */
struct str json_canonical(struct arena *arena, const json_t *value);

/* The member as text in the arena, or STR_NONE when it is absent or no string. */
struct str json_member_str(struct arena *arena, const json_t *object, const char *key);

#endif
