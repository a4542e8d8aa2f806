/*
 * schema.h: JSON Schema (2020-12), the part that contracts may use:
 *
 *   type properties required items enum const minimum maximum minLength maxLength minItems maxItems
 *   additionalProperties format(email, uri, date-time) description title
 *
 * Any other keyword is an error of the check, which says so. A schema without `type` but with `properties` or `required`
 * means an object. Lengths count Unicode code points, 1.0 is an integer and equal to 1, as the specification says. Stricter
 * than the specification: a keyword that has no effect on the schema's type, a minimum over its maximum, an enum or const
 * of another type and a required name that properties misses by a typing error are mistakes, and reported.
 */
#ifndef MYELIN_CONTRACT_SCHEMA_H
#define MYELIN_CONTRACT_SCHEMA_H

#include <jansson.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

struct schema; /* in the contract's arena */

/* Called for each problem found in a schema; `path` is where, for example "properties.to.format". */
typedef void schema_problem(void *context, const json_t *at, const char *path, const char *text);

/* Compiles; reports every problem; NULL when there was one. Borrows `source` for the life of the schema. */
struct schema *schema_compile(struct arena *arena, const json_t *source, schema_problem *problem, void *context);

/* The schema as JSON text, as a model endpoint gets it: the type that is meant is written out, and the top is an object with
 * `properties` unless it says otherwise. In the arena. */
struct str schema_text(const struct schema *schema, struct arena *arena);

/* True when `value` fits. Else `error` (ERROR_POISON) says the first misfit in words that a model can act on:
 * "claims[2].source: is a number, must be a string". */
bool schema_check(const struct schema *schema, const json_t *value, struct error *error);

#endif
