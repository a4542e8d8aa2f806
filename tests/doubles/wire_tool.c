/* wire_tool: worker/record for programs in other languages, so that they can check it. One command a line on standard
 * input, one line of JSON for each on standard output.
 *
 *   canonical SCHEMA      {"canonical": "...", "fingerprint": "63dd24e7cc258f8a"}
 *   add SCHEMA            {"ok": true}: the schema of another version
 *   encode NAME VALUE     {"hex": "c301..."}; VALUE is an object of all fields, as record_json has them
 *   decode HEX            {"name": "StepReady", "value": {...}}
 *
 * What went wrong is {"error": "poison", "text": "..."}. SCHEMA and VALUE are JSON without a newline. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/record_tables.h"

static void struct_of(const struct codec_struct *table, const json_t *json, char *object, struct arena *arena);

/* The other direction of codec_json: a byte a code point. */
static struct str bytes_of(const json_t *json, struct arena *arena)
{
    struct str text = {json_string_value(json), json_string_length(json)};
    char *bytes;
    size_t size = 0;

    if (text.data == NULL)
        return STR_NONE;
    bytes = arena_alloc(arena, text.size + 1);
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c >= 0xc0)
            bytes[size++] = (char)(c << 6 | ((unsigned char)text.data[++i] & 0x3f));
        else
            bytes[size++] = (char)c;
    }
    return (struct str){bytes, size};
}

static void array_of(const struct codec_field *field, const json_t *json, char *object, struct arena *arena)
{
    size_t count = json_array_size(json);
    char *items = arena_array(arena, count, field->nested->size);

    for (size_t i = 0; i < count; i++)
        struct_of(field->nested, json_array_get(json, i), items + i * field->nested->size, arena);
    memcpy(object + field->offset, &items, sizeof items);
    memcpy(object + field->beside_offset, &count, sizeof count);
}

static int32_t symbol_of(const struct codec_field *field, const json_t *json)
{
    for (size_t i = 0; i < field->count; i++) {
        if (json_is_string(json) && strcmp(json_string_value(json), field->symbols[i]) == 0)
            return (int32_t)i;
    }
    return -1;
}

static void choice_of(const struct codec_field *field, const json_t *json, char *object, struct arena *arena)
{
    for (int32_t i = 0; i < (int32_t)field->count; i++) {
        const json_t *body = json_object_get(json, field->nested[i].name);

        if (body != NULL) {
            memcpy(object + field->beside_offset, &i, sizeof i);
            struct_of(&field->nested[i], body, object + field->offset, arena);
        }
    }
}

static void pointed_of(const struct codec_field *field, const json_t *json, char *at, struct arena *arena)
{
    char *pointed = json_is_object(json) ? arena_alloc(arena, field->nested->size) : NULL;

    if (pointed != NULL)
        struct_of(field->nested, json, pointed, arena);
    memcpy(at, &pointed, sizeof pointed);
}

static void field_of(const struct codec_field *field, const json_t *json, char *object, struct arena *arena)
{
    char *at = object + field->offset;
    int64_t number = json_integer_value(json);
    int32_t small = (int32_t)number;
    bool flag = json_is_true(json);
    struct str text;

    switch (field->kind) {
    case CODEC_BOOL:
        memcpy(at, &flag, sizeof flag);
        break;
    case CODEC_INT:
        memcpy(at, &small, sizeof small);
        break;
    case CODEC_LONG:
        memcpy(at, &number, sizeof number);
        break;
    case CODEC_TEXT:
    case CODEC_TEXT_NULL:
        text = json_is_string(json) ? arena_copy(arena, json_string_value(json), json_string_length(json)) : STR_NONE;
        memcpy(at, &text, sizeof text);
        break;
    case CODEC_BYTES:
    case CODEC_BYTES_NULL:
        text = bytes_of(json, arena);
        memcpy(at, &text, sizeof text);
        break;
    case CODEC_ENUM:
        small = symbol_of(field, json);
        memcpy(at, &small, sizeof small);
        break;
    case CODEC_STRUCT:
        struct_of(field->nested, json, at, arena);
        break;
    case CODEC_STRUCT_NULL:
        pointed_of(field, json, at, arena);
        break;
    case CODEC_ARRAY:
        array_of(field, json, object, arena);
        break;
    case CODEC_ONE_OF:
        choice_of(field, json, object, arena);
        break;
    }
}

static void struct_of(const struct codec_struct *table, const json_t *json, char *object, struct arena *arena)
{
    for (size_t i = 0; i < table->fields_count; i++)
        field_of(&table->fields[i], json_object_get(json, table->fields[i].name), object, arena);
}

static json_t *hex_of(struct str bytes, struct arena *arena)
{
    char *hex = arena_alloc(arena, 2 * bytes.size + 1);

    for (size_t i = 0; i < bytes.size; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", (unsigned)(unsigned char)bytes.data[i]);
    return json_string(hex);
}

static json_t *canonical(struct str text, struct arena *arena, struct error *error)
{
    const struct avsc_node *schema = avsc_read(arena, text, error);

    if (schema == NULL)
        return NULL;
    return json_pack("{s:s, s:s}", "canonical", avsc_canonical(arena, schema).data, "fingerprint",
                     arena_printf(arena, "%016llx", (unsigned long long)avsc_fingerprint(schema)).data);
}

static json_t *encode(char *arguments, struct arena *arena, struct error *error)
{
    char *space = strchr(arguments, ' ');
    json_t *json, *answer = NULL;
    struct buf out;

    *space = '\0';
    json = json_loads(space + 1, JSON_ALLOW_NUL, NULL); /* bytes may hold one */
    if (json == NULL) {
        (void)error_set(error, ERROR_FATAL, "wire_tool: VALUE is no JSON");
        return NULL;
    }
    buf_init(&out, 1 << 20);
    for (int type = 0; type < RECORD_TYPES_COUNT; type++) {
        char *object = arena_alloc(arena, record_tables[type]->size);

        if (strcmp(record_name((enum record_type)type), arguments) != 0)
            continue;
        struct_of(record_tables[type], json, object, arena);
        if (record_encode((enum record_type)type, object, &out, error))
            answer = json_pack("{s:o}", "hex", hex_of(buf_str(&out), arena));
    }
    buf_free(&out);
    json_decref(json);
    return answer;
}

static json_t *decode(const char *hex, struct arena *arena, struct error *error)
{
    size_t size = strlen(hex) / 2;
    char *bytes = arena_alloc(arena, size + 1);
    struct record record;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)strtoul((char[]){hex[2 * i], hex[2 * i + 1], '\0'}, NULL, 16);
    if (!record_decode((struct str){bytes, size}, arena, &record, error))
        return NULL;
    return json_pack("{s:s, s:o}", "name", record_name(record.type), "value", record_json(record.type, &record.is));
}

static json_t *answer_to(char *line, struct arena *arena, struct error *error)
{
    char *space = strchr(line, ' ');

    if (space == NULL) {
        (void)error_set(error, ERROR_FATAL, "wire_tool: COMMAND ARGUMENTS, see its source");
        return NULL;
    }
    *space++ = '\0';
    if (strcmp(line, "canonical") == 0)
        return canonical(str_of(space), arena, error);
    if (strcmp(line, "add") == 0)
        return record_schema_add(str_of(space), error) ? json_pack("{s:b}", "ok", 1) : NULL;
    if (strcmp(line, "encode") == 0 && strchr(space, ' ') != NULL)
        return encode(space, arena, error);
    if (strcmp(line, "decode") == 0)
        return decode(space, arena, error);
    (void)error_set(error, ERROR_FATAL, "wire_tool: no command %s", line);
    return NULL;
}

int main(void)
{
    static const char *const classes[] = {"none", "retry", "abort", "poison", "fatal"};
    struct arena *arena = arena_new();
    struct error error = {0};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;

    if (!record_open(&error)) {
        (void)fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    while ((size = getline(&line, &capacity, stdin)) > 0) {
        json_t *answer;

        if (line[size - 1] == '\n')
            line[size - 1] = '\0';
        answer = answer_to(line, arena, &error);
        if (answer == NULL)
            answer = json_pack("{s:s, s:s}", "error", classes[error.class], "text", error.text);
        (void)printf("%s\n", json_text(arena, answer).data);
        (void)fflush(stdout);
        json_decref(answer);
        arena_reset(arena);
    }
    free(line);
    arena_free(arena);
    record_close();
    return 0;
}
