/* The writer of codec.h. */
#include <avro.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/wire/codec.h"

#define UNKNOWN_SYMBOL "unknown" /* the last symbol and the default of every enum; never written */

struct codec_writer {
    avro_schema_t schema;
    avro_value_iface_t *class;
    avro_value_t value; /* used again and again; borrows texts only while codec_write runs */
    avro_writer_t memory;
    char *bytes; /* owned: where avro-c writes to */
    size_t bytes_size;
    const struct codec_struct *table;
};

/* ---- does the table fit our own schema? ---- */

static bool fit_struct(const struct codec_struct *table, const struct avsc_node *schema, struct error *error);

static bool is_nullable(const struct avsc_node *schema, enum avsc_type type)
{
    return schema->type == AVSC_UNION && schema->types_count == 2 && schema->types[0]->type == AVSC_NULL &&
           schema->types[1]->type == type;
}

static bool fit_enum(const struct codec_field *field, const struct avsc_node *schema)
{
    if (schema->type != AVSC_ENUM || schema->symbols_count != field->count + 1 ||
        !str_is(schema->symbols[field->count], UNKNOWN_SYMBOL))
        return false;
    for (size_t i = 0; i < field->count; i++) {
        if (!str_is(schema->symbols[i], field->symbols[i]))
            return false;
    }
    return true;
}

static bool fit_one_of(const struct codec_field *field, const struct avsc_node *schema, struct error *error)
{
    if (schema->type != AVSC_UNION || schema->types_count != field->count)
        return false;
    for (size_t i = 0; i < field->count; i++) {
        if (!fit_struct(&field->nested[i], schema->types[i], error))
            return false;
    }
    return true;
}

static bool fit_field(const struct codec_field *field, const struct avsc_node *schema, struct error *error)
{
    switch (field->kind) {
    case CODEC_BOOL:
        return schema->type == AVSC_BOOLEAN;
    case CODEC_INT:
        return schema->type == AVSC_INT;
    case CODEC_LONG:
        return schema->type == AVSC_LONG;
    case CODEC_TEXT:
        return schema->type == AVSC_STRING;
    case CODEC_TEXT_NULL:
        return is_nullable(schema, AVSC_STRING);
    case CODEC_BYTES:
        return schema->type == AVSC_BYTES;
    case CODEC_BYTES_NULL:
        return is_nullable(schema, AVSC_BYTES);
    case CODEC_ENUM:
        return fit_enum(field, schema);
    case CODEC_STRUCT:
        return fit_struct(field->nested, schema, error);
    case CODEC_STRUCT_NULL:
        return is_nullable(schema, AVSC_RECORD) && fit_struct(field->nested, schema->types[1], error);
    case CODEC_ARRAY:
        return schema->type == AVSC_ARRAY && fit_struct(field->nested, schema->types[0], error);
    case CODEC_ONE_OF:
        return fit_one_of(field, schema, error);
    }
    return false;
}

static bool fit_struct(const struct codec_struct *table, const struct avsc_node *schema, struct error *error)
{
    if (schema->type != AVSC_RECORD || !str_is(avsc_short_name(schema), table->name))
        return error_set(error, ERROR_FATAL, "schema and table differ: no record %s", table->name);
    for (size_t i = 0; i < table->fields_count || i < schema->fields_count; i++) {
        const char *name = i < table->fields_count ? table->fields[i].name : "nothing";

        if (i >= table->fields_count || i >= schema->fields_count || !str_is(schema->fields[i].name, name))
            return error_set(error, ERROR_FATAL, "schema and table differ: %s, field %zu is %s in the table",
                             table->name, i, name);
        if (schema->fields[i].has_default && !schema->fields[i].default_is_zero)
            return error_set(error, ERROR_FATAL, "schema %s: the default of %s is not its zero value", table->name,
                             name);
        if (!fit_field(&table->fields[i], schema->fields[i].type, error)) {
            if (error->class == ERROR_NONE)
                (void)error_set(error, ERROR_FATAL, "schema and table differ: %s, type of %s", table->name, name);
            return false;
        }
    }
    return true;
}

/* ---- the writer ---- */

struct codec_writer *codec_writer_new(const struct codec_struct *table, const struct avsc_node *schema, struct str text,
                                      struct error *error)
{
    struct codec_writer *writer;
    struct error differ = {0};

    if (!fit_struct(table, schema, &differ)) {
        (void)error_set(error, ERROR_FATAL, "%s", differ.text);
        return NULL;
    }
    writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        abort();
    writer->table = table;
    if (avro_schema_from_json_length(text.data, text.size, &writer->schema) == 0)
        writer->class = avro_generic_class_from_schema(writer->schema);
    if (writer->class != NULL && avro_generic_value_new(writer->class, &writer->value) == 0)
        writer->memory = avro_writer_memory("", 0);
    if (writer->memory == NULL) {
        (void)error_set(error, ERROR_FATAL, "schema %s: avro-c: %s", table->name, avro_strerror());
        codec_writer_free(writer);
        return NULL;
    }
    return writer;
}

void codec_writer_free(struct codec_writer *writer)
{
    if (writer == NULL)
        return;
    if (writer->memory != NULL)
        avro_writer_free(writer->memory);
    if (writer->value.iface != NULL)
        avro_value_decref(&writer->value);
    if (writer->class != NULL)
        avro_value_iface_decref(writer->class);
    if (writer->schema != NULL)
        (void)avro_schema_decref(writer->schema);
    free(writer->bytes);
    free(writer);
}

static bool fill_struct(const struct codec_struct *table, const char *object, avro_value_t *value, struct error *error);

static bool worked(int result, struct error *error)
{
    if (result != 0)
        (void)error_set(error, ERROR_POISON, "avro-c: %s", avro_strerror());
    return result == 0;
}

/* The text is lent to the value: codec_write resets it before it returns. */
static bool fill_text(const struct codec_field *field, struct str text, avro_value_t *value, struct error *error)
{
    bool nullable = field->kind == CODEC_TEXT_NULL || field->kind == CODEC_BYTES_NULL;
    bool raw = field->kind == CODEC_BYTES || field->kind == CODEC_BYTES_NULL;
    avro_wrapped_buffer_t lent;
    avro_value_t branch = *value;

    if (nullable && !worked(avro_value_set_branch(value, text.data == NULL ? 0 : 1, &branch), error))
        return false;
    if (nullable && text.data == NULL)
        return worked(avro_value_set_null(&branch), error);
    if (!raw && str_utf8_size(text) != text.size)
        return error_set(error, ERROR_POISON, "no valid UTF-8 at byte %zu", str_utf8_size(text));
    if (raw) {
        (void)avro_wrapped_buffer_new(&lent, text.data == NULL ? "" : text.data, text.size);
        return worked(avro_value_give_bytes(&branch, &lent), error);
    }
    (void)avro_wrapped_buffer_new(&lent, text.data == NULL ? "" : text.data, text.size + 1); /* avro-c counts the NUL */
    return worked(avro_value_give_string_len(&branch, &lent), error);
}

static bool fill_array(const struct codec_field *field, const char *object, avro_value_t *value, struct error *error)
{
    const char *items;
    size_t count;

    memcpy(&items, object + field->offset, sizeof items);
    memcpy(&count, object + field->beside_offset, sizeof count);
    for (size_t i = 0; i < count; i++) {
        avro_value_t item;

        if (!worked(avro_value_append(value, &item, NULL), error) ||
            !fill_struct(field->nested, items + i * field->nested->size, &item, error))
            return error_wrap(error, "[%zu]", i);
    }
    return true;
}

static bool fill_pointed(const struct codec_field *field, const char *at, avro_value_t *value, struct error *error)
{
    const char *pointed;
    avro_value_t branch;

    memcpy(&pointed, at, sizeof pointed);
    if (!worked(avro_value_set_branch(value, pointed == NULL ? 0 : 1, &branch), error))
        return false;
    return pointed == NULL ? worked(avro_value_set_null(&branch), error)
                           : fill_struct(field->nested, pointed, &branch, error);
}

/* The enum at `offset`, as a number below field->count. */
static bool take_enum(const struct codec_field *field, const char *at, int *number, struct error *error)
{
    int32_t given;

    memcpy(&given, at, sizeof given);
    *number = given;
    return (given >= 0 && (size_t)given < field->count) ||
           error_set(error, ERROR_POISON, "no such enum value: %d", given);
}

static bool fill_field(const struct codec_field *field, const char *object, avro_value_t *value, struct error *error)
{
    const char *at = object + field->offset;
    struct str text;
    int64_t number;
    int32_t small;
    int chosen;
    bool flag;
    avro_value_t branch;

    switch (field->kind) {
    case CODEC_BOOL:
        memcpy(&flag, at, sizeof flag);
        return worked(avro_value_set_boolean(value, flag), error);
    case CODEC_INT:
        memcpy(&small, at, sizeof small);
        return worked(avro_value_set_int(value, small), error);
    case CODEC_LONG:
        memcpy(&number, at, sizeof number);
        return worked(avro_value_set_long(value, number), error);
    case CODEC_TEXT:
    case CODEC_TEXT_NULL:
    case CODEC_BYTES:
    case CODEC_BYTES_NULL:
        memcpy(&text, at, sizeof text);
        return fill_text(field, text, value, error);
    case CODEC_ENUM:
        return take_enum(field, at, &chosen, error) && worked(avro_value_set_enum(value, chosen), error);
    case CODEC_STRUCT:
        return fill_struct(field->nested, at, value, error);
    case CODEC_STRUCT_NULL:
        return fill_pointed(field, at, value, error);
    case CODEC_ARRAY:
        return fill_array(field, object, value, error);
    case CODEC_ONE_OF:
        return take_enum(field, object + field->beside_offset, &chosen, error) &&
               worked(avro_value_set_branch(value, chosen, &branch), error) &&
               fill_struct(&field->nested[chosen], at, &branch, error);
    }
    return false;
}

static bool fill_struct(const struct codec_struct *table, const char *object, avro_value_t *value, struct error *error)
{
    for (size_t i = 0; i < table->fields_count; i++) {
        avro_value_t field;

        if (!worked(avro_value_get_by_index(value, i, &field, NULL), error) ||
            !fill_field(&table->fields[i], object, &field, error))
            return error_wrap(error, "%s", table->fields[i].name);
    }
    return true;
}

/* Head and value into writer->bytes, which grows when they do not fit. */
static bool write_bytes(struct codec_writer *writer, struct str head, size_t *size, struct error *error)
{
    int result = ENOSPC;

    if (writer->bytes_size > head.size) {
        avro_writer_memory_set_dest(writer->memory, writer->bytes + head.size,
                                    (int64_t)(writer->bytes_size - head.size));
        result = avro_value_write(writer->memory, &writer->value);
    }
    if (result == ENOSPC) {
        if (!worked(avro_value_sizeof(&writer->value, size), error))
            return false;
        if (*size > CODEC_SIZE_MAX)
            return error_set(error, ERROR_POISON, "%zu bytes; at most %zu are allowed", *size, CODEC_SIZE_MAX);
        free(writer->bytes);
        writer->bytes_size = head.size + *size + *size / 2 + 1024;
        writer->bytes = malloc(writer->bytes_size);
        if (writer->bytes == NULL)
            abort();
        avro_writer_memory_set_dest(writer->memory, writer->bytes + head.size,
                                    (int64_t)(writer->bytes_size - head.size));
        result = avro_value_write(writer->memory, &writer->value);
    }
    if (!worked(result, error))
        return false;
    memcpy(writer->bytes, head.data, head.size);
    *size = head.size + (size_t)avro_writer_tell(writer->memory);
    return true;
}

bool codec_write(struct codec_writer *writer, const void *object, struct str head, struct buf *out, struct error *error)
{
    size_t size = 0;
    bool done = fill_struct(writer->table, object, &writer->value, error) && write_bytes(writer, head, &size, error);

    (void)avro_value_reset(&writer->value);
    if (!done)
        return error_wrap(error, "%s", writer->table->name);
    return buf_put(out, writer->bytes, size) ||
           error_set(error, ERROR_POISON, "%s: %zu bytes do not fit: at most %zu are allowed", writer->table->name,
                     size, out->size_max);
}
