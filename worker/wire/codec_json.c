/* Structs as JSON, for codec.h. */
#include <string.h>

#include "worker/wire/codec.h"

static json_t *struct_json(const struct codec_struct *table, const char *object);

/* As Avro's JSON encoding does it: a code point a byte. */
static json_t *bytes_json(struct str bytes)
{
    struct buf text;
    json_t *json;

    buf_init(&text, SIZE_MAX);
    for (size_t i = 0; i < bytes.size; i++) {
        unsigned char c = (unsigned char)bytes.data[i];

        if (c < 0x80)
            (void)buf_put(&text, &bytes.data[i], 1);
        else
            (void)buf_put(&text, (char[]){(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))}, 2);
    }
    json = json_stringn(buf_str(&text).data, buf_str(&text).size);
    buf_free(&text);
    return json;
}

static json_t *text_json(const struct codec_field *field, struct str text)
{
    bool nullable = field->kind == CODEC_TEXT_NULL || field->kind == CODEC_BYTES_NULL;

    if (text.data == NULL)
        return nullable ? json_null() : json_string("");
    if (field->kind == CODEC_BYTES || field->kind == CODEC_BYTES_NULL || str_utf8_size(text) != text.size)
        return bytes_json(text);
    return json_stringn(text.data, text.size);
}

static json_t *array_json(const struct codec_field *field, const char *object)
{
    json_t *array = json_array();
    const char *items;
    size_t count;

    memcpy(&items, object + field->offset, sizeof items);
    memcpy(&count, object + field->beside_offset, sizeof count);
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(array, struct_json(field->nested, items + i * field->nested->size));
    return array;
}

static json_t *choice_json(const struct codec_field *field, const char *object)
{
    const struct codec_struct *nested;
    json_t *choice;
    int32_t tag;

    memcpy(&tag, object + field->beside_offset, sizeof tag);
    if (tag < 0 || (size_t)tag >= field->count)
        return json_null();
    nested = &field->nested[tag];
    choice = json_object();
    (void)json_object_set_new(choice, nested->name, struct_json(nested, object + field->offset));
    return choice;
}

static json_t *field_json(const struct codec_field *field, const char *object)
{
    const char *at = object + field->offset;
    const char *pointed;
    struct str text;
    int64_t number;
    int32_t small;
    bool flag;

    switch (field->kind) {
    case CODEC_BOOL:
        memcpy(&flag, at, sizeof flag);
        return json_boolean(flag);
    case CODEC_INT:
        memcpy(&small, at, sizeof small);
        return json_integer(small);
    case CODEC_LONG:
        memcpy(&number, at, sizeof number);
        return json_integer(number);
    case CODEC_TEXT:
    case CODEC_TEXT_NULL:
    case CODEC_BYTES:
    case CODEC_BYTES_NULL:
        memcpy(&text, at, sizeof text);
        return text_json(field, text);
    case CODEC_ENUM:
        memcpy(&small, at, sizeof small);
        return small >= 0 && (size_t)small < field->count ? json_string(field->symbols[small]) : json_null();
    case CODEC_STRUCT:
        return struct_json(field->nested, at);
    case CODEC_STRUCT_NULL:
        memcpy(&pointed, at, sizeof pointed);
        return pointed != NULL ? struct_json(field->nested, pointed) : json_null();
    case CODEC_ARRAY:
        return array_json(field, object);
    case CODEC_ONE_OF:
        return choice_json(field, object);
    }
    return NULL;
}

static json_t *struct_json(const struct codec_struct *table, const char *object)
{
    json_t *json = json_object();

    for (size_t i = 0; i < table->fields_count; i++)
        (void)json_object_set_new(json, table->fields[i].name, field_json(&table->fields[i], object));
    return json;
}

json_t *codec_json(const struct codec_struct *table, const void *object)
{
    return struct_json(table, object);
}
