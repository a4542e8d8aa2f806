/*
 * record.h: the message table: which C struct is which Avro record, and where it travels.
 *
 * How to add a record, in this order: schemas/NAME.avsc; a row here (the compiler then names what is missing); the
 * field table in record_tables.c; a scenario; a corpus file for tests/fuzz. How to change one: schemas/README.md.
 */
#ifndef MYELIN_RECORD_H
#define MYELIN_RECORD_H

#include <jansson.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"
#include "worker/core/fact.h"
#include "worker/core/inbox.h"
#include "worker/core/run.h"

/* A schema of somebody else's version, on `control` with key "schema/FINGERPRINT": so that readers can decode by the
 * writer's schema with no other service. */
struct schema_published {
    struct str name, text;
};

/*      constant            struct              member            record in schemas/  */
#define RECORD_TABLE(X)                                                                                                \
    X(RECORD_STEP_READY, run, step_ready, "StepReady")                                                                 \
    X(RECORD_FACT, fact, fact, "Fact")                                                                                 \
    X(RECORD_RUN_REQUESTED, run_requested, run_requested, "RunRequested")                                              \
    X(RECORD_STEP_PARKED, step_parked, step_parked, "StepParked")                                                      \
    X(RECORD_DECISION, decision, decision, "Decision")                                                                 \
    X(RECORD_RESOLVED, resolved, resolved, "Resolved")                                                                 \
    X(RECORD_RUN_CLOSED, run_closed, run_closed, "RunClosed")                                                          \
    X(RECORD_RUN_ROW, run_row, run_row, "RunRow")                                                                      \
    X(RECORD_CONTRACT_PUBLISHED, contract_published, contract_published, "ContractPublished")                          \
    X(RECORD_SCHEMA_PUBLISHED, schema_published, schema_published, "SchemaPublished")                                  \
    X(RECORD_DEAD_LETTER, dead_letter, dead_letter, "DeadLetter")

enum record_type {
#define X(constant, type, member, name) constant,
    RECORD_TABLE(X)
#undef X
        RECORD_TYPES_COUNT
};

struct record {
    enum record_type type;
    union {
#define X(constant, type, member, name) struct type member;
        RECORD_TABLE(X)
#undef X
    } is;
};

const char *record_name(enum record_type type);

/* One thread only (avro-c): the loop's, or a command's. record_open parses the embedded schemas. */
bool record_open(struct error *error);
void record_close(void);

/* Adds the schema of another version; it is then found by its fingerprint. */
bool record_schema_add(struct str text, struct error *error);

/* Our own schema of that type, for who publishes it: key and value of SchemaPublished. record_open first. */
struct str record_schema(enum record_type type);
uint64_t record_fingerprint(enum record_type type);

/* `object` is the struct of that type. Avro single-object encoding, appended to `out`. ERROR_POISON: it does not fit,
 * or a text in it is no valid UTF-8; nothing is appended then. */
bool record_encode(enum record_type type, const void *object, struct buf *out, struct error *error);

/* Any bytes. All texts in the arena. ERROR_POISON says why; ERROR_RETRY: a fingerprint that is not known (yet). */
bool record_decode(struct str bytes, struct arena *arena, struct record *record, struct error *error);

/* The struct of that type as JSON, a new reference: all fields of the schema by their names (see codec_json). */
json_t *record_json(enum record_type type, const void *object);

#endif
