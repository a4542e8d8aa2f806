/*
 * Any bytes as a record, and any schema as the writer's.
 *
 * An input is a record as it comes off a topic; or, when it begins with '{', a schema on its first line and after it the
 * bytes that were written by that schema. Whatever is accepted must also be written again, and read as the same.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/record_tables.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct arena *kept;
static const struct avsc_node *ours[RECORD_TYPES_COUNT];

static void require(bool holds, const struct error *error)
{
    if (!holds) {
        (void)fprintf(stderr, "%s\n", error->text);
        abort();
    }
}

/* LeakSanitizer does not see the pointers of avro-c's unions, which are not aligned: nothing may be left. */
static void close_all(void)
{
    record_close();
    arena_free(kept);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct error error = {0};

    (void)argc;
    (void)argv;
    kept = arena_new();
    require(record_open(&error), &error);
    for (int type = 0; type < RECORD_TYPES_COUNT; type++)
        ours[type] = avsc_read(kept, record_schema((enum record_type)type), &error);
    return atexit(close_all);
}

static struct str json_of(enum record_type type, const void *object, struct arena *arena)
{
    json_t *json = record_json(type, object);
    struct str text = json_text(arena, json);

    json_decref(json);
    return text;
}

static void check_again(enum record_type type, const void *object, struct arena *arena)
{
    struct error error = {.text = "read back as something else"};
    struct record again;
    struct buf out;

    buf_init(&out, SIZE_MAX);
    require(record_encode(type, object, &out, &error), &error);
    require(record_decode(buf_str(&out), arena, &again, &error), &error);
    require(again.type == type, &error);
    require(str_equal(json_of(type, object, arena), json_of(type, &again.is, arena)), &error);
    buf_free(&out);
}

static void read_by_schema(struct str schema, struct str bytes, struct arena *arena)
{
    struct error error = {0};
    const struct avsc_node *written = avsc_read(arena, schema, &error);

    require(written != NULL || error.class == ERROR_POISON, &error);
    if (written == NULL)
        return;
    (void)avsc_fingerprint(written);
    for (int type = 0; type < RECORD_TYPES_COUNT; type++) {
        const struct codec_reader *reader;
        struct record record;

        if (written->type != AVSC_RECORD || !str_is(avsc_short_name(written), record_tables[type]->name))
            continue;
        reader = codec_reader_new(arena, record_tables[type], ours[type], written, &error);
        if (reader != NULL && codec_read(reader, bytes, arena, &record.is, &error))
            check_again((enum record_type)type, &record.is, arena);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct str bytes = {(const char *)data, size};
    struct error error = {0};
    struct record record;

    if (size > 0 && data[0] == '{') {
        const uint8_t *line = memchr(data, '\n', size);
        size_t schema_size = line == NULL ? size : (size_t)(line - data);
        struct str rest = line == NULL ? STR_NONE : (struct str){(const char *)line + 1, size - schema_size - 1};

        read_by_schema((struct str){bytes.data, schema_size}, rest, arena);
    } else if (record_decode(bytes, arena, &record, &error)) {
        check_again(record.type, &record.is, arena);
    } else {
        require(error.class == ERROR_POISON || error.class == ERROR_RETRY, &error);
    }
    arena_free(arena);
    return 0;
}
