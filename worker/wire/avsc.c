#include "worker/wire/avsc.h"

#include <string.h>

#include "worker/base/hash.h"
#include "worker/base/json.h"

static const char *const type_names[] = {
    [AVSC_NULL] = "null",     [AVSC_BOOLEAN] = "boolean", [AVSC_INT] = "int",     [AVSC_LONG] = "long",
    [AVSC_FLOAT] = "float",   [AVSC_DOUBLE] = "double",   [AVSC_BYTES] = "bytes", [AVSC_STRING] = "string",
    [AVSC_RECORD] = "record", [AVSC_ENUM] = "enum",       [AVSC_FIXED] = "fixed", [AVSC_ARRAY] = "array",
    [AVSC_MAP] = "map",       [AVSC_UNION] = "union",
};

const char *avsc_type_name(enum avsc_type type)
{
    return type_names[type];
}

struct str avsc_short_name(const struct avsc_node *node)
{
    struct str name = node->name;

    for (size_t i = node->name.size; i > 0; i--) {
        if (node->name.data[i - 1] == '.') {
            name.data += i;
            name.size -= i;
            break;
        }
    }
    return name;
}

/* A named type that was defined so far, in the order of definition. */
struct named {
    struct avsc_node *node;
    struct named *next;
};

struct parse {
    struct arena *arena;
    struct error *error;
    struct named *named;
    size_t nodes;
};

static const struct avsc_node *parse_type(struct parse *parse, const json_t *json, struct str space);

static const struct avsc_node *refuse(struct parse *parse, const char *what, struct str name)
{
    (void)error_set(parse->error, ERROR_POISON, "schema: %s \"%.*s\"", what, STR_ARG(name));
    return NULL;
}

static struct avsc_node *node_new(struct parse *parse, enum avsc_type type)
{
    struct avsc_node *node;

    if (++parse->nodes > AVSC_NODES_MAX) {
        (void)error_set(parse->error, ERROR_POISON, "schema: over %d types", AVSC_NODES_MAX);
        return NULL;
    }
    node = ARENA_NEW(parse->arena, struct avsc_node);
    node->type = type;
    return node;
}

static bool is_name(struct str name, bool dots)
{
    bool start = true;

    for (size_t i = 0; i < name.size; i++) {
        char c = name.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

        if (!letter && (start || !(c >= '0' && c <= '9')) && (start || !dots || c != '.'))
            return false;
        start = c == '.';
    }
    return !start;
}

static bool find_type(struct str name, enum avsc_type last, enum avsc_type *type)
{
    for (size_t i = 0; i <= (size_t)last; i++) {
        if (str_is(name, type_names[i])) {
            *type = (enum avsc_type)i;
            return true;
        }
    }
    return false;
}

/* A name without a dot belongs to the namespace around it. */
static struct str full_name(struct parse *parse, struct str name, struct str space)
{
    if (space.size == 0 || memchr(name.data, '.', name.size) != NULL)
        return name;
    return arena_printf(parse->arena, "%.*s.%.*s", STR_ARG(space), STR_ARG(name));
}

static struct str space_of(struct str full)
{
    for (size_t i = full.size; i > 0; i--) {
        if (full.data[i - 1] == '.')
            return (struct str){full.data, i - 1}; /* without the NUL: for full_name only */
    }
    return STR("");
}

static struct avsc_node *find_named(const struct parse *parse, struct str name)
{
    for (const struct named *at = parse->named; at != NULL; at = at->next) {
        if (str_equal(at->node->name, name))
            return at->node;
    }
    return NULL;
}

/* "int", or the name of a type that was defined before. */
static const struct avsc_node *parse_name(struct parse *parse, struct str name, struct str space)
{
    const struct avsc_node *node;
    enum avsc_type type;

    if (find_type(name, AVSC_STRING, &type))
        return node_new(parse, type);
    node = find_named(parse, full_name(parse, name, space));
    return node != NULL ? node : refuse(parse, "unknown type", name);
}

/* Reads the name and registers the node, before its fields: they may refer to it. */
static bool define(struct parse *parse, struct avsc_node *node, const json_t *json, struct str *space)
{
    struct str name = json_member_str(parse->arena, json, "name");
    struct str own = json_member_str(parse->arena, json, "namespace");
    struct named *named = ARENA_NEW(parse->arena, struct named);
    enum avsc_type type;

    if (!is_name(name, true) || (own.size > 0 && !is_name(own, true)) || find_type(name, AVSC_STRING, &type))
        return refuse(parse, "no valid name:", name) != NULL;
    node->name = full_name(parse, name, own.data != NULL ? own : *space);
    if (find_named(parse, node->name) != NULL)
        return refuse(parse, "defined twice:", node->name) != NULL;
    *space = space_of(node->name);
    named->node = node;
    named->next = parse->named;
    parse->named = named;
    return true;
}

static bool is_zero(const json_t *value, const struct avsc_node *type)
{
    if (type->type == AVSC_UNION) /* a default is of the first branch */
        type = type->types[0];
    if (type->type == AVSC_ENUM)
        return json_is_string(value) && str_is(type->symbols[0], json_string_value(value));
    return json_is_null(value) || json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool parse_field(struct parse *parse, const json_t *json, struct str space, struct avsc_field *field)
{
    const json_t *value = json_object_get(json, "default");

    field->name = json_member_str(parse->arena, json, "name");
    if (!is_name(field->name, false))
        return refuse(parse, "no valid field name:", field->name) != NULL;
    field->type = parse_type(parse, json_object_get(json, "type"), space);
    if (field->type == NULL)
        return error_wrap(parse->error, "field %.*s", STR_ARG(field->name));
    field->has_default = value != NULL;
    field->default_is_zero = value != NULL && is_zero(value, field->type);
    return true;
}

static const struct avsc_node *parse_record(struct parse *parse, const json_t *json, struct str space)
{
    struct avsc_node *node = node_new(parse, AVSC_RECORD);
    const json_t *fields = json_object_get(json, "fields");

    if (node == NULL || !define(parse, node, json, &space))
        return NULL;
    if (!json_is_array(fields) || json_array_size(fields) > AVSC_MEMBERS_MAX)
        return refuse(parse, "no fields, or too many, in", node->name);
    node->fields = ARENA_ARRAY(parse->arena, json_array_size(fields), struct avsc_field);
    for (size_t i = 0; i < json_array_size(fields); i++) {
        if (!parse_field(parse, json_array_get(fields, i), space, &node->fields[i]))
            return NULL;
        for (size_t before = 0; before < i; before++) {
            if (str_equal(node->fields[before].name, node->fields[i].name))
                return refuse(parse, "field twice:", node->fields[i].name);
        }
        node->fields_count = i + 1;
    }
    return node;
}

static const struct avsc_node *parse_enum(struct parse *parse, const json_t *json, struct str space)
{
    struct avsc_node *node = node_new(parse, AVSC_ENUM);
    const json_t *symbols = json_object_get(json, "symbols");

    if (node == NULL || !define(parse, node, json, &space))
        return NULL;
    node->symbols_count = json_array_size(symbols);
    if (node->symbols_count == 0 || node->symbols_count > AVSC_MEMBERS_MAX)
        return refuse(parse, "no symbols, or too many, in", node->name);
    node->symbols = ARENA_ARRAY(parse->arena, node->symbols_count, struct str);
    for (size_t i = 0; i < node->symbols_count; i++) {
        const json_t *symbol = json_array_get(symbols, i);

        if (json_is_string(symbol))
            node->symbols[i] = arena_copy(parse->arena, json_string_value(symbol), json_string_length(symbol));
        if (!is_name(node->symbols[i], false))
            return refuse(parse, "no valid symbol:", node->symbols[i]);
        for (size_t before = 0; before < i; before++) {
            if (str_equal(node->symbols[before], node->symbols[i]))
                return refuse(parse, "symbol twice:", node->symbols[i]);
        }
    }
    return node;
}

static const struct avsc_node *parse_fixed(struct parse *parse, const json_t *json, struct str space)
{
    struct avsc_node *node = node_new(parse, AVSC_FIXED);
    const json_t *size = json_object_get(json, "size");

    if (node == NULL || !define(parse, node, json, &space))
        return NULL;
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return refuse(parse, "no valid size of", node->name);
    node->fixed_size = json_integer_value(size);
    return node;
}

static const struct avsc_node *parse_items(struct parse *parse, enum avsc_type type, const json_t *items,
                                           struct str space)
{
    struct avsc_node *node = node_new(parse, type);

    if (node == NULL)
        return NULL;
    node->types = ARENA_ARRAY(parse->arena, 1, const struct avsc_node *);
    node->types_count = 1;
    node->types[0] = parse_type(parse, items, space);
    return node->types[0] == NULL ? NULL : node;
}

static const struct avsc_node *parse_union(struct parse *parse, const json_t *json, struct str space)
{
    struct avsc_node *node = node_new(parse, AVSC_UNION);

    if (node == NULL)
        return NULL;
    node->types_count = json_array_size(json);
    if (node->types_count == 0 || node->types_count > AVSC_MEMBERS_MAX)
        return refuse(parse, "no branches, or too many, in a", STR("union"));
    node->types = ARENA_ARRAY(parse->arena, node->types_count, const struct avsc_node *);
    for (size_t i = 0; i < node->types_count; i++) {
        node->types[i] = parse_type(parse, json_array_get(json, i), space);
        if (node->types[i] == NULL)
            return NULL;
        if (node->types[i]->type == AVSC_UNION)
            return refuse(parse, "a union directly in a", STR("union"));
        for (size_t before = 0; before < i; before++) {
            if (node->types[before]->type == node->types[i]->type &&
                str_equal(node->types[before]->name, node->types[i]->name))
                return refuse(parse, "twice in a union:", str_of(type_names[node->types[i]->type]));
        }
    }
    return node;
}

static const struct avsc_node *parse_object(struct parse *parse, const json_t *json, struct str space)
{
    struct str name = json_member_str(parse->arena, json, "type");
    enum avsc_type type;

    if (!find_type(name, AVSC_MAP, &type))
        return name.data == NULL ? refuse(parse, "no type in", STR("an object")) : parse_name(parse, name, space);
    switch (type) {
    case AVSC_RECORD:
        return parse_record(parse, json, space);
    case AVSC_ENUM:
        return parse_enum(parse, json, space);
    case AVSC_FIXED:
        return parse_fixed(parse, json, space);
    case AVSC_ARRAY:
        return parse_items(parse, AVSC_ARRAY, json_object_get(json, "items"), space);
    case AVSC_MAP:
        return parse_items(parse, AVSC_MAP, json_object_get(json, "values"), space);
    default:
        return node_new(parse, type);
    }
}

/* The depth is bounded by json_read. */
static const struct avsc_node *parse_type(struct parse *parse, const json_t *json, struct str space)
{
    if (json_is_string(json))
        return parse_name(parse, arena_copy(parse->arena, json_string_value(json), json_string_length(json)), space);
    if (json_is_array(json))
        return parse_union(parse, json, space);
    if (json_is_object(json))
        return parse_object(parse, json, space);
    return refuse(parse, "a type is missing", STR(""));
}

const struct avsc_node *avsc_read(struct arena *arena, struct str text, struct error *error)
{
    struct parse parse = {.arena = arena, .error = error};
    json_t *json = json_read(text, AVSC_SIZE_MAX, error);
    const struct avsc_node *node;

    if (json == NULL) {
        (void)error_wrap(error, "schema");
        return NULL;
    }
    node = parse_type(&parse, json, STR(""));
    json_decref(json);
    return node;
}

/* The named types that were written in full so far: each is, once. */
struct canonical {
    struct buf out;
    const struct avsc_node **written;
    size_t written_count;
};

static void write_type(struct canonical *canonical, const struct avsc_node *node);

/* True when the type was written before: then its name stands for it. */
static bool write_reference(struct canonical *canonical, const struct avsc_node *node)
{
    for (size_t i = 0; i < canonical->written_count; i++) {
        if (canonical->written[i] == node) {
            (void)buf_printf(&canonical->out, "\"%.*s\"", STR_ARG(node->name));
            return true;
        }
    }
    canonical->written[canonical->written_count++] = node;
    (void)buf_printf(&canonical->out, "{\"name\":\"%.*s\",\"type\":\"%s\",", STR_ARG(node->name),
                     type_names[node->type]);
    return false;
}

static void write_record(struct canonical *canonical, const struct avsc_node *node)
{
    if (write_reference(canonical, node))
        return;
    (void)buf_puts(&canonical->out, "\"fields\":[");
    for (size_t i = 0; i < node->fields_count; i++) {
        (void)buf_printf(&canonical->out, "%s{\"name\":\"%.*s\",\"type\":", i > 0 ? "," : "",
                         STR_ARG(node->fields[i].name));
        write_type(canonical, node->fields[i].type);
        (void)buf_puts(&canonical->out, "}");
    }
    (void)buf_puts(&canonical->out, "]}");
}

static void write_enum(struct canonical *canonical, const struct avsc_node *node)
{
    if (write_reference(canonical, node))
        return;
    (void)buf_puts(&canonical->out, "\"symbols\":[");
    for (size_t i = 0; i < node->symbols_count; i++)
        (void)buf_printf(&canonical->out, "%s\"%.*s\"", i > 0 ? "," : "", STR_ARG(node->symbols[i]));
    (void)buf_puts(&canonical->out, "]}");
}

static void write_type(struct canonical *canonical, const struct avsc_node *node)
{
    struct buf *out = &canonical->out;

    switch (node->type) {
    case AVSC_RECORD:
        write_record(canonical, node);
        break;
    case AVSC_ENUM:
        write_enum(canonical, node);
        break;
    case AVSC_FIXED:
        if (!write_reference(canonical, node))
            (void)buf_printf(out, "\"size\":%lld}", (long long)node->fixed_size);
        break;
    case AVSC_ARRAY:
    case AVSC_MAP:
        (void)buf_printf(out, "{\"type\":\"%s\",\"%s\":", type_names[node->type],
                         node->type == AVSC_MAP ? "values" : "items");
        write_type(canonical, node->types[0]);
        (void)buf_puts(out, "}");
        break;
    case AVSC_UNION:
        (void)buf_puts(out, "[");
        for (size_t i = 0; i < node->types_count; i++) {
            if (i > 0)
                (void)buf_puts(out, ",");
            write_type(canonical, node->types[i]);
        }
        (void)buf_puts(out, "]");
        break;
    default:
        (void)buf_printf(out, "\"%s\"", type_names[node->type]);
        break;
    }
}

struct str avsc_canonical(struct arena *arena, const struct avsc_node *node)
{
    struct canonical canonical = {.written = ARENA_ARRAY(arena, AVSC_NODES_MAX, const struct avsc_node *)};
    struct str text;

    buf_init(&canonical.out, SIZE_MAX);
    write_type(&canonical, node);
    text = arena_str(arena, buf_str(&canonical.out));
    buf_free(&canonical.out);
    return text;
}

uint64_t avsc_fingerprint(const struct avsc_node *node)
{
    struct arena *arena = arena_new();
    struct str text = avsc_canonical(arena, node);
    uint64_t fingerprint = hash_crc64_avro(text.data, text.size);

    arena_free(arena);
    return fingerprint;
}
