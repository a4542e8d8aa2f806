/* The reader of codec.h: follows the plan of the writer's schema. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "worker/wire/codec_plan.h"

struct read {
    const unsigned char *at, *end;
    struct arena *arena;
    struct error *error;
    size_t values_left; /* types without bytes (null, a record without fields) must not keep us busy for ever */
    int depth;
};

static bool read_value(struct read *read, const struct codec_plan *plan, char *object);
static bool skip_value(struct read *read, const struct avsc_node *node);

static bool bad(struct read *read, const char *what)
{
    (void)error_set(read->error, ERROR_POISON, "%s", what);
    return false;
}

static size_t left(const struct read *read)
{
    return (size_t)(read->end - read->at);
}

/* Zigzag, seven bits a byte, lowest first: Avro 1.11 specification, "Binary Encoding". */
static bool read_long(struct read *read, int64_t *number)
{
    uint64_t bits = 0;

    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint64_t byte;

        if (read->at == read->end)
            return bad(read, "cut off in a number");
        byte = *read->at++;
        if (shift == 63 && byte > 1)
            break;
        bits |= (byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *number = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return true;
        }
    }
    return bad(read, "a number of over 64 bits");
}

static bool read_int(struct read *read, int64_t *number)
{
    return read_long(read, number) &&
           ((*number >= INT32_MIN && *number <= INT32_MAX) || bad(read, "a number of over 32 bits"));
}

/* A length, then that many bytes; borrows. */
static bool read_bytes(struct read *read, struct str *bytes)
{
    int64_t size;

    if (!read_long(read, &size))
        return false;
    if (size < 0 || (uint64_t)size > left(read))
        return bad(read, "longer than the record");
    *bytes = (struct str){(const char *)read->at, (size_t)size};
    read->at += size;
    return true;
}

static bool read_string(struct read *read, struct str *text)
{
    return read_bytes(read, text) && (str_utf8_size(*text) == text->size || bad(read, "no valid UTF-8"));
}

static bool read_fixed(struct read *read, int64_t size)
{
    if ((uint64_t)size > left(read))
        return bad(read, "cut off");
    read->at += size;
    return true;
}

static bool read_boolean(struct read *read, bool *flag)
{
    if (read->at == read->end)
        return bad(read, "cut off");
    if (*read->at > 1)
        return bad(read, "a boolean that is neither 0 nor 1");
    *flag = *read->at++ == 1;
    return true;
}

/* Which branch of a union or symbol of an enum. */
static bool read_index(struct read *read, size_t count, size_t *index)
{
    int64_t number;

    if (!read_long(read, &number))
        return false;
    *index = (size_t)number;
    return (number >= 0 && (uint64_t)number < count) || bad(read, "no such union branch or enum symbol");
}

/* An array or a map comes in blocks, each with a head: `count` items follow, 0 = that was all; `end` is where the block
 * must end, where the writer said so. Each item is taken to have a byte at least: none of ours is empty. */
static bool read_block(struct read *read, size_t *count, const unsigned char **end)
{
    int64_t number, size;

    *end = NULL;
    if (!read_long(read, &number))
        return false;
    if (number < 0) {
        if (!read_long(read, &size))
            return false;
        if (size < 0 || (uint64_t)size > left(read) || number == INT64_MIN)
            return bad(read, "a block longer than the record");
        number = -number;
        *end = read->at + size;
    }
    *count = (size_t)number;
    return (uint64_t)number <= left(read) || bad(read, "more items than bytes");
}

static bool block_ended(struct read *read, const unsigned char *end)
{
    return end == NULL || end == read->at || bad(read, "a block that does not end where it says");
}

/* Every value is counted, and how deep it lies. */
static bool enter(struct read *read)
{
    if (read->values_left == 0)
        return bad(read, "too many empty values");
    if (read->depth >= CODEC_DEPTH_MAX)
        return bad(read, "nested too deep");
    read->values_left--;
    read->depth++;
    return true;
}

static bool skip_items(struct read *read, const struct avsc_node *node)
{
    const unsigned char *end;
    struct str key;
    size_t count;

    do {
        if (!read_block(read, &count, &end))
            return false;
        for (size_t i = 0; i < count; i++) {
            if ((node->type == AVSC_MAP && !read_string(read, &key)) || !skip_value(read, node->types[0]))
                return false;
        }
        if (!block_ended(read, end))
            return false;
    } while (count > 0);
    return true;
}

static bool skip_inside(struct read *read, const struct avsc_node *node)
{
    struct str text;
    int64_t number;
    size_t index;
    bool flag;

    switch (node->type) {
    case AVSC_NULL:
        return true;
    case AVSC_BOOLEAN:
        return read_boolean(read, &flag);
    case AVSC_INT:
        return read_int(read, &number);
    case AVSC_LONG:
        return read_long(read, &number);
    case AVSC_FLOAT:
        return read_fixed(read, 4);
    case AVSC_DOUBLE:
        return read_fixed(read, 8);
    case AVSC_BYTES:
        return read_bytes(read, &text);
    case AVSC_STRING:
        return read_string(read, &text);
    case AVSC_FIXED:
        return read_fixed(read, node->fixed_size);
    case AVSC_ENUM:
        return read_index(read, node->symbols_count, &index);
    case AVSC_UNION:
        return read_index(read, node->types_count, &index) && skip_value(read, node->types[index]);
    case AVSC_ARRAY:
    case AVSC_MAP:
        return skip_items(read, node);
    case AVSC_RECORD:
        for (size_t i = 0; i < node->fields_count; i++) {
            if (!skip_value(read, node->fields[i].type))
                return error_wrap(read->error, "%.*s", STR_ARG(node->fields[i].name));
        }
        return true;
    }
    return false;
}

static bool skip_value(struct read *read, const struct avsc_node *node)
{
    bool done = enter(read) && skip_inside(read, node);

    read->depth--;
    return done;
}

static bool read_record(struct read *read, const struct codec_plan *plan, char *object)
{
    const struct avsc_node *node = plan->node;

    if (plan->field != NULL && plan->field->kind == CODEC_STRUCT_NULL) {
        char *pointed = arena_alloc(read->arena, plan->into->size);

        memcpy(object + plan->field->offset, &pointed, sizeof pointed);
        object = pointed;
    }
    object += plan->into_offset;
    for (size_t i = 0; i < node->fields_count; i++) {
        const struct codec_plan *child = &plan->children[i];
        bool wanted = child->field != NULL;

        if (!(wanted ? read_value(read, child, object) : skip_value(read, child->node)))
            return error_wrap(read->error, "%.*s", STR_ARG(node->fields[i].name));
    }
    return true;
}

static bool read_items(struct read *read, const struct codec_plan *plan, char *object)
{
    const struct codec_field *field = plan->field;
    size_t item_size = field->nested->size, have = 0, capacity = 0, count;
    const unsigned char *end;
    char *items = NULL;

    do {
        if (!read_block(read, &count, &end))
            return false;
        for (size_t i = 0; i < count; i++, have++) {
            if (have == capacity) { /* by what was read, not by what was promised */
                size_t more = count - i < have + 16 ? count - i : have + 16;
                char *larger = arena_array(read->arena, capacity + more, item_size);

                if (have > 0)
                    memcpy(larger, items, have * item_size);
                items = larger;
                capacity += more;
            }
            if (!read_value(read, plan->children, items + have * item_size))
                return error_wrap(read->error, "[%zu]", have);
        }
        if (!block_ended(read, end))
            return false;
    } while (count > 0);
    memcpy(object + field->offset, &items, sizeof items);
    memcpy(object + field->beside_offset, &have, sizeof have);
    return true;
}

static bool read_number(struct read *read, const struct codec_plan *plan, char *object)
{
    int64_t number;
    int32_t small;

    if (!(plan->node->type == AVSC_INT || plan->field->kind == CODEC_INT ? read_int(read, &number)
                                                                         : read_long(read, &number)))
        return false;
    small = (int32_t)number;
    if (plan->field->kind == CODEC_INT)
        memcpy(object + plan->field->offset, &small, sizeof small);
    else
        memcpy(object + plan->field->offset, &number, sizeof number);
    return true;
}

static bool read_text(struct read *read, const struct codec_plan *plan, char *object)
{
    bool raw = plan->field->kind == CODEC_BYTES || plan->field->kind == CODEC_BYTES_NULL;
    struct str text;

    if (!(raw && plan->node->type == AVSC_BYTES ? read_bytes(read, &text) : read_string(read, &text)))
        return false;
    text = arena_copy(read->arena, text.data, text.size);
    memcpy(object + plan->field->offset, &text, sizeof text);
    return true;
}

static bool read_union(struct read *read, const struct codec_plan *plan, char *object)
{
    const struct codec_plan *child;
    size_t index;

    if (!read_index(read, plan->node->types_count, &index))
        return false;
    child = &plan->children[index];
    if (child->misfit)
        return error_set(read->error, ERROR_POISON, "written as %s %.*s, which this version cannot read here",
                         avsc_type_name(child->node->type), STR_ARG(child->node->name));
    if (plan->field->kind == CODEC_ONE_OF)
        memcpy(object + plan->field->beside_offset, &child->tag, sizeof child->tag);
    return read_value(read, child, object);
}

static bool read_symbol(struct read *read, const struct codec_plan *plan, char *object)
{
    size_t index;

    if (!read_index(read, plan->node->symbols_count, &index))
        return false;
    if (plan->symbols[index] < 0)
        return error_set(read->error, ERROR_POISON, "symbol \"%.*s\" is not known to this version",
                         STR_ARG(plan->node->symbols[index]));
    memcpy(object + plan->field->offset, &plan->symbols[index], sizeof(int32_t));
    return true;
}

static bool read_inside(struct read *read, const struct codec_plan *plan, char *object)
{
    bool flag;

    switch (plan->node->type) {
    case AVSC_NULL:
        return true; /* the struct was zeroed: STR_NONE */
    case AVSC_BOOLEAN:
        if (!read_boolean(read, &flag))
            return false;
        memcpy(object + plan->field->offset, &flag, sizeof flag);
        return true;
    case AVSC_INT:
    case AVSC_LONG:
        return read_number(read, plan, object);
    case AVSC_BYTES:
    case AVSC_STRING:
        return read_text(read, plan, object);
    case AVSC_ENUM:
        return read_symbol(read, plan, object);
    case AVSC_UNION:
        return read_union(read, plan, object);
    case AVSC_ARRAY:
        return read_items(read, plan, object);
    case AVSC_RECORD:
        return read_record(read, plan, object);
    default:
        return bad(read, "a type that has no place here");
    }
}

static bool read_value(struct read *read, const struct codec_plan *plan, char *object)
{
    bool done = enter(read) && read_inside(read, plan, object);

    read->depth--;
    return done;
}

bool codec_read(const struct codec_reader *reader, struct str bytes, struct arena *arena, void *object,
                struct error *error)
{
    const unsigned char *data = (const unsigned char *)(bytes.data != NULL ? bytes.data : "");
    struct read read = {.arena = arena, .error = error, .values_left = 1000 + 8 * bytes.size};

    if (bytes.size > CODEC_SIZE_MAX)
        return error_set(error, ERROR_POISON, "%s: %zu bytes; at most %zu are allowed", reader->name, bytes.size,
                         CODEC_SIZE_MAX);
    read.at = data;
    read.end = data + bytes.size;
    memset(object, 0, reader->root.into->size);
    if (!read_value(&read, &reader->root, object))
        return error_wrap(error, "%s, byte %zu of %zu", reader->name, (size_t)(read.at - data), bytes.size);
    if (read.at != read.end)
        return error_set(error, ERROR_POISON, "%s: %zu bytes too many", reader->name, left(&read));
    return true;
}
