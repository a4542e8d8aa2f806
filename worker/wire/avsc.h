/*
 * avsc.h: an Avro schema as a tree, and its fingerprint.
 *
 * Source: Avro 1.11 specification, "Schema Declaration", "Names", "Parsing Canonical Form for Schemas". Anybody may put
 * a schema on `control`, so the text is treated as hostile: bounded in size, depth and nodes; names must be Avro names.
 */
#ifndef MYELIN_WIRE_AVSC_H
#define MYELIN_WIRE_AVSC_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

#define AVSC_SIZE_MAX ((size_t)256 << 10) /* of the text */
#define AVSC_NODES_MAX 10000
#define AVSC_MEMBERS_MAX 1000 /* fields of a record, symbols of an enum, branches of a union */

enum avsc_type {
    AVSC_NULL,
    AVSC_BOOLEAN,
    AVSC_INT,
    AVSC_LONG,
    AVSC_FLOAT,
    AVSC_DOUBLE,
    AVSC_BYTES,
    AVSC_STRING,
    AVSC_RECORD,
    AVSC_ENUM,
    AVSC_FIXED,
    AVSC_ARRAY,
    AVSC_MAP,
    AVSC_UNION,
};

struct avsc_field {
    struct str name;
    const struct avsc_node *type;
    bool has_default;
    bool default_is_zero; /* null, false, 0, "", [], {} or an enum's first symbol: what a zeroed struct says */
};

/* A type. A named type stands in the tree once for each definition; references share its node, so the "tree" of a
 * recursive schema has cycles. */
struct avsc_node {
    enum avsc_type type;
    struct str name;           /* RECORD, ENUM, FIXED: full name, "myelin.Fact" */
    struct avsc_field *fields; /* RECORD */
    size_t fields_count;
    struct str *symbols; /* ENUM */
    size_t symbols_count;
    int64_t fixed_size;             /* FIXED */
    const struct avsc_node **types; /* UNION: the branches; ARRAY, MAP: the one type of the items */
    size_t types_count;
};

/* Reads a schema. All of it, texts too, is in the arena. NULL with `error` (ERROR_POISON). */
const struct avsc_node *avsc_read(struct arena *arena, struct str text, struct error *error);

/* The Parsing Canonical Form, in the arena. */
struct str avsc_canonical(struct arena *arena, const struct avsc_node *node);

/* The CRC-64-AVRO of the canonical form: what single-object encoding carries. */
uint64_t avsc_fingerprint(const struct avsc_node *node);

/* The name without its namespace; borrows. */
struct str avsc_short_name(const struct avsc_node *node);

const char *avsc_type_name(enum avsc_type type); /* "null", "record", ... */

#endif
