#include "worker/record.h"

#include <stdlib.h>
#include <string.h>

#include "worker/record_tables.h"
#include "worker/wire/codec.h"
#include "worker/wire/schemas.h"

/* Avro 1.11 specification, "Single-object encoding": C3 01, then the fingerprint, little-endian. */
#define HEAD_SIZE ((size_t)10)

#define SCHEMAS_MAX 1000 /* of other versions; more than any installation will see */

/* A schema that something may have been written by. */
struct known {
    uint64_t fingerprint;
    int32_t type;                      /* enum record_type, or -1: a record that this version does not have */
    const struct codec_reader *reader; /* NULL with type -1 */
    struct str name;                   /* of the record */
    struct arena *arena;               /* owned; holds the schema and the reader */
};

/* What record_open made; used from one thread. */
static struct {
    const struct avsc_node *schemas[RECORD_TYPES_COUNT]; /* ours */
    uint64_t fingerprints[RECORD_TYPES_COUNT];
    struct codec_writer *writers[RECORD_TYPES_COUNT];
    unsigned char heads[RECORD_TYPES_COUNT][HEAD_SIZE];
    struct known *known;
    size_t known_count, known_capacity;
} state;

const char *record_name(enum record_type type)
{
    static const char *const names[] = {
#define X(constant, type, member, name) [constant] = (name),
        RECORD_TABLE(X)
#undef X
    };

    return names[type];
}

static const struct known *find_known(uint64_t fingerprint)
{
    for (size_t i = 0; i < state.known_count; i++) {
        if (state.known[i].fingerprint == fingerprint)
            return &state.known[i];
    }
    return NULL;
}

static int32_t find_type(struct str name)
{
    for (size_t i = 0; i < RECORD_TYPES_COUNT; i++) {
        if (str_is(name, record_name((enum record_type)i)))
            return (int32_t)i;
    }
    return -1;
}

/* Takes the arena. */
static void remember(struct known known)
{
    if (state.known_count == state.known_capacity) {
        size_t capacity = state.known_capacity * 2 + 2 * RECORD_TYPES_COUNT;
        struct known *larger = realloc(state.known, capacity * sizeof *larger);

        if (larger == NULL)
            abort();
        state.known = larger;
        state.known_capacity = capacity;
    }
    state.known[state.known_count++] = known;
}

/* Prepares to read what was written by `schema`, which lies in known->arena. */
static bool prepare(struct known *known, const struct avsc_node *schema, struct error *error)
{
    if (schema->type != AVSC_RECORD)
        return error_set(error, ERROR_POISON, "schema: not a record");
    known->fingerprint = avsc_fingerprint(schema);
    known->name = avsc_short_name(schema);
    known->type = find_type(known->name);
    if (known->type < 0)
        return true;
    known->reader = codec_reader_new(known->arena, record_tables[known->type], state.schemas[known->type], schema,
                                     error);
    return known->reader != NULL || error_wrap(error, "schema");
}

struct str record_schema(enum record_type type)
{
    for (size_t i = 0; i < embedded_schemas_count; i++) {
        if (strcmp(embedded_schemas[i].name, record_name(type)) == 0)
            return (struct str){embedded_schemas[i].text, embedded_schemas[i].size};
    }
    return STR_NONE;
}

uint64_t record_fingerprint(enum record_type type)
{
    return state.fingerprints[type];
}

static bool open_one(size_t type, struct error *error)
{
    struct str text = record_schema((enum record_type)type);
    struct known known = {.arena = arena_new()};

    remember(known);
    if (text.data == NULL)
        return error_set(error, ERROR_FATAL, "it is not embedded");
    state.schemas[type] = avsc_read(known.arena, text, error);
    if (state.schemas[type] == NULL)
        return false;
    state.writers[type] = codec_writer_new(record_tables[type], state.schemas[type], text, error);
    if (state.writers[type] == NULL || !prepare(&known, state.schemas[type], error))
        return false;
    state.known[state.known_count - 1] = known;
    state.fingerprints[type] = known.fingerprint;
    state.heads[type][0] = 0xc3;
    state.heads[type][1] = 0x01;
    for (size_t i = 0; i < 8; i++)
        state.heads[type][2 + i] = (unsigned char)(known.fingerprint >> (8 * i));
    return true;
}

bool record_open(struct error *error)
{
    for (size_t type = 0; type < RECORD_TYPES_COUNT; type++) {
        if (!open_one(type, error)) {
            record_close();
            if (error != NULL)
                error->class = ERROR_FATAL;
            return error_wrap(error, "schemas/%s.avsc", record_name((enum record_type)type));
        }
    }
    return true;
}

void record_close(void)
{
    for (size_t i = 0; i < state.known_count; i++)
        arena_free(state.known[i].arena);
    free(state.known);
    for (size_t type = 0; type < RECORD_TYPES_COUNT; type++)
        codec_writer_free(state.writers[type]);
    memset(&state, 0, sizeof state);
}

bool record_schema_add(struct str text, struct error *error)
{
    struct known known = {.arena = arena_new()};
    const struct avsc_node *schema = avsc_read(known.arena, text, error);

    if (schema == NULL || !prepare(&known, schema, error)) {
        arena_free(known.arena);
        return false;
    }
    if (find_known(known.fingerprint) != NULL) {
        arena_free(known.arena);
        return true;
    }
    if (state.known_count >= SCHEMAS_MAX) {
        arena_free(known.arena);
        return error_set(error, ERROR_POISON, "over %d schemas of other versions", SCHEMAS_MAX);
    }
    remember(known);
    return true;
}

bool record_encode(enum record_type type, const void *object, struct buf *out, struct error *error)
{
    struct str head = {(const char *)state.heads[type], HEAD_SIZE};

    return codec_write(state.writers[type], object, head, out, error);
}

bool record_decode(struct str bytes, struct arena *arena, struct record *record, struct error *error)
{
    const unsigned char *data = (const unsigned char *)bytes.data;
    const struct known *known;
    uint64_t fingerprint = 0;

    if (bytes.size > 0 && data[0] == 0x00)
        return error_set(error, ERROR_POISON, "Confluent framing, but no schema registry is configured");
    if (bytes.size < HEAD_SIZE || data[0] != 0xc3 || data[1] != 0x01)
        return error_set(error, ERROR_POISON,
                         "not a record: %zu bytes that do not begin with Avro's C3 01 and a fingerprint", bytes.size);
    for (size_t i = 0; i < 8; i++)
        fingerprint |= (uint64_t)data[2 + i] << (8 * i);
    known = find_known(fingerprint);
    if (known == NULL)
        return error_set(error, ERROR_RETRY,
                         "schema %016llx is not known (yet): it should be on control as schema/%016llx",
                         (unsigned long long)fingerprint, (unsigned long long)fingerprint);
    if (known->type < 0)
        return error_set(error, ERROR_POISON, "record %.*s is not known to this version", STR_ARG(known->name));
    record->type = (enum record_type)known->type;
    return codec_read(known->reader, (struct str){bytes.data + HEAD_SIZE, bytes.size - HEAD_SIZE}, arena, &record->is,
                      error);
}

json_t *record_json(enum record_type type, const void *object)
{
    return codec_json(record_tables[type], object);
}
