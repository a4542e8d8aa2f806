/*
 * schema_node.h: one compiled schema. Used by schema.c and schema_check.c only.
 */
#ifndef MYELIN_CONTRACT_SCHEMA_NODE_H
#define MYELIN_CONTRACT_SCHEMA_NODE_H

#include "worker/contract/schema.h"
#include "worker/contract/schema_format.h"

enum {
    SCHEMA_OBJECT = 1,
    SCHEMA_ARRAY = 2,
    SCHEMA_STRING = 4,
    SCHEMA_NUMBER = 8, /* whole ones too */
    SCHEMA_INTEGER = 16,
    SCHEMA_BOOLEAN = 32,
    SCHEMA_NULL = 64,
};
#define SCHEMA_TYPES_COUNT 7

struct schema_property {
    struct str name; /* borrowed from the source */
    const struct schema *schema;
};

struct schema {
    const json_t *source; /* borrowed */
    unsigned types;       /* bits of the above, 0 = any */
    struct schema_property *properties;
    size_t properties_count;
    const json_t *required; /* array of strings, or NULL; this and the next three are borrowed from the source */
    const json_t *values;   /* enum: array, or NULL */
    const json_t *constant; /* or NULL */
    const json_t *minimum, *maximum;   /* numbers, or NULL */
    json_int_t length_min, length_max; /* code points; -1 = none */
    json_int_t items_min, items_max;   /* -1 = none */
    const struct schema *items;        /* or NULL */
    bool closed;                       /* additionalProperties = false */
    const struct schema *additional;   /* or NULL */
    enum schema_format format;
};

/* "object", "array", ... for bit number `index`. */
const char *schema_type_name(size_t index);

/* -1, 0, 1; exact for whole numbers of 64 bits. */
int schema_compare_numbers(const json_t *a, const json_t *b);

/* JSON Schema's equality: 1 and 1.0 are the same. */
bool schema_same(const json_t *a, const json_t *b);

/* Is it one of `types`? 1.0 is an integer. */
bool schema_has_type(const json_t *value, unsigned types);

#endif
