#include "worker/contract/schema.h"

#include <stdarg.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/contract/schema_node.h"
#include "worker/contract/suggest.h"

#define LEVELS_MAX 32

struct compiler {
    struct arena *arena;
    schema_problem *problem;
    void *context;
    bool failed;
};

/* One schema while it is compiled: where it stands, and what it becomes. */
struct level {
    struct compiler *compiler;
    struct schema *schema;
    struct str path; /* "" at the top */
    unsigned depth;
};

typedef void keyword_reader(struct level *level, const json_t *value, const char *name);

static keyword_reader read_type, read_properties, read_required, read_items, read_enum, read_const, read_bound,
    read_count, read_additional, read_format, read_text;

/* `types`: the types that the keyword says something about; 0 = any. */
static const struct keyword {
    const char *name;
    keyword_reader *read;
    unsigned types;
} keywords[] = {
    {"type", read_type, 0},
    {"properties", read_properties, SCHEMA_OBJECT},
    {"required", read_required, SCHEMA_OBJECT},
    {"items", read_items, SCHEMA_ARRAY},
    {"enum", read_enum, 0},
    {"const", read_const, 0},
    {"minimum", read_bound, SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"maximum", read_bound, SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"minLength", read_count, SCHEMA_STRING},
    {"maxLength", read_count, SCHEMA_STRING},
    {"minItems", read_count, SCHEMA_ARRAY},
    {"maxItems", read_count, SCHEMA_ARRAY},
    {"additionalProperties", read_additional, SCHEMA_OBJECT},
    {"format", read_format, SCHEMA_STRING},
    {"description", read_text, 0},
    {"title", read_text, 0},
};
#define KEYWORDS_COUNT (sizeof keywords / sizeof keywords[0])

/* `below` is appended to the level's path; "" = the level itself. */
static void report(const struct level *level, const json_t *at, const char *below, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static struct str path_below(const struct level *level, const char *below)
{
    const char *dot = level->path.size > 0 && below[0] != '\0' && below[0] != '[' ? "." : "";

    return arena_printf(level->compiler->arena, "%.*s%s%s", STR_ARG(level->path), dot, below);
}

static void report(const struct level *level, const json_t *at, const char *below, const char *format, ...)
{
    struct compiler *compiler = level->compiler;
    va_list arguments;

    compiler->failed = true;
    va_start(arguments, format);
    struct str text = arena_vprintf(compiler->arena, format, arguments);
    va_end(arguments);
    if (compiler->problem != NULL)
        compiler->problem(compiler->context, at, path_below(level, below).data, text.data);
}

static const char *indexed(const struct level *level, const char *name, size_t index)
{
    return arena_printf(level->compiler->arena, "%s[%zu]", name, index).data;
}

static struct schema *compile(struct compiler *compiler, const json_t *source, struct str path, unsigned depth);

static const struct schema *compile_below(struct level *level, const json_t *value, const char *name)
{
    return compile(level->compiler, value, path_below(level, name), level->depth + 1);
}

/* ---- the keywords ---- */

static void read_one_type(struct level *level, const json_t *value, const char *at)
{
    struct str names[SCHEMA_TYPES_COUNT], near;
    const char *text = json_string_value(value);

    for (size_t i = 0; i < SCHEMA_TYPES_COUNT; i++) {
        names[i] = str_of(schema_type_name(i));
        if (text != NULL && strcmp(text, names[i].data) == 0) {
            if ((level->schema->types & 1u << i) != 0)
                report(level, value, at, "\"%s\" stands here twice", text);
            level->schema->types |= 1u << i;
            return;
        }
    }
    near = text != NULL ? suggest_clause(level->compiler->arena, str_of(text), names, SCHEMA_TYPES_COUNT) : STR("");
    report(
        level, value, at,
        "type is one of \"object\" \"array\" \"string\" \"number\" \"integer\" \"boolean\" \"null\", or a list of them%.*s",
        STR_ARG(near));
}

static void read_type(struct level *level, const json_t *value, const char *name)
{
    if (!json_is_array(value)) {
        read_one_type(level, value, name);
        return;
    }
    if (json_array_size(value) == 0)
        report(level, value, name, "a list of types must not be empty");
    for (size_t i = 0; i < json_array_size(value); i++)
        read_one_type(level, json_array_get(value, i), indexed(level, name, i));
}

static void read_properties(struct level *level, const json_t *value, const char *name)
{
    struct schema *schema = level->schema;
    const char *key;
    json_t *member;

    if (!json_is_object(value)) {
        report(level, value, name, "properties is a group: a schema under the name of each property");
        return;
    }
    schema->properties = ARENA_ARRAY(level->compiler->arena, json_object_size(value), struct schema_property);
    json_object_foreach((json_t *)value, key, member) {
        struct str below = arena_printf(level->compiler->arena, "%s.%s", name, key);
        schema->properties[schema->properties_count++] = (struct schema_property){
            .name = str_of(key), .schema = compile_below(level, member, below.data)};
    }
}

static void read_required(struct level *level, const json_t *value, const char *name)
{
    if (!json_is_array(value)) {
        report(level, value, name, "required is a list of names, for example [\"to\", \"subject\"]");
        return;
    }
    level->schema->required = value;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);
        if (!json_is_string(one))
            report(level, one, indexed(level, name, i), "required is a list of names: strings");
        for (size_t j = 0; j < i; j++)
            if (json_is_string(one) && json_equal(one, json_array_get(value, j)))
                report(level, one, indexed(level, name, i), "\"%s\" stands here twice", json_string_value(one));
    }
}

static void read_items(struct level *level, const json_t *value, const char *name)
{
    level->schema->items = compile_below(level, value, name);
}

static void read_enum(struct level *level, const json_t *value, const char *name)
{
    if (!json_is_array(value) || json_array_size(value) == 0) {
        report(level, value, name, "enum is a list of at least one value");
        return;
    }
    level->schema->values = value;
    for (size_t i = 0; i < json_array_size(value); i++)
        for (size_t j = 0; j < i; j++)
            if (schema_same(json_array_get(value, i), json_array_get(value, j)))
                report(level, json_array_get(value, i), indexed(level, name, i), "this value stands in enum twice");
}

static void read_const(struct level *level, const json_t *value, const char *name)
{
    (void)name;
    level->schema->constant = value;
}

static void read_bound(struct level *level, const json_t *value, const char *name)
{
    const json_t **bound = strcmp(name, "minimum") == 0 ? &level->schema->minimum : &level->schema->maximum;

    if (!json_is_number(value))
        report(level, value, name, "%s is a number", name);
    else
        *bound = value;
}

static void read_count(struct level *level, const json_t *value, const char *name)
{
    struct schema *schema = level->schema;
    json_int_t *count = strcmp(name, "minLength") == 0   ? &schema->length_min
                        : strcmp(name, "maxLength") == 0 ? &schema->length_max
                        : strcmp(name, "minItems") == 0  ? &schema->items_min
                                                         : &schema->items_max;

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        report(level, value, name, "%s is a whole number, 0 or more", name);
    else
        *count = json_integer_value(value);
}

static void read_additional(struct level *level, const json_t *value, const char *name)
{
    if (json_is_boolean(value))
        level->schema->closed = json_is_false(value);
    else if (json_is_object(value))
        level->schema->additional = compile_below(level, value, name);
    else
        report(level, value, name, "additionalProperties is true, false or a schema");
}

static void read_format(struct level *level, const json_t *value, const char *name)
{
    static const struct str names[] = {{"email", 5}, {"uri", 3}, {"date-time", 9}};
    struct str text = str_of(json_string_value(value));

    if (schema_format_parse(text, &level->schema->format))
        return;
    struct str near = suggest_clause(level->compiler->arena, text, names, sizeof names / sizeof names[0]);
    report(level, value, name, "format is \"email\", \"uri\" or \"date-time\"%.*s", STR_ARG(near));
}

static void read_text(struct level *level, const json_t *value, const char *name)
{
    if (!json_is_string(value))
        report(level, value, name, "%s is a text", name);
}

/* ---- one schema ---- */

static void unknown_keyword(const struct level *level, const json_t *value, const char *name)
{
    struct arena *arena = level->compiler->arena;
    struct str names[KEYWORDS_COUNT], list = STR("");

    for (size_t i = 0; i < KEYWORDS_COUNT; i++) {
        names[i] = str_of(keywords[i].name);
        list = arena_printf(arena, "%.*s%s%s", STR_ARG(list), i > 0 ? " " : "", keywords[i].name);
    }
    struct str near = suggest_clause(arena, str_of(name), names, KEYWORDS_COUNT);
    report(level, value, name, "\"%s\" is not supported in a schema (allowed: %.*s)%.*s", name, STR_ARG(list),
           STR_ARG(near));
}

static void read_keyword(struct level *level, const json_t *value, const char *name)
{
    for (size_t i = 0; i < KEYWORDS_COUNT; i++) {
        if (strcmp(name, keywords[i].name) == 0) {
            keywords[i].read(level, value, name);
            return;
        }
    }
    unknown_keyword(level, value, name);
}

/* A keyword that says nothing about any value of the schema's types is a mistake of the author. */
static void check_applicable(const struct level *level)
{
    unsigned types = level->schema->types;

    for (size_t i = 0; i < KEYWORDS_COUNT; i++) {
        const json_t *value = json_object_get(level->schema->source, keywords[i].name);
        if (value != NULL && types != 0 && keywords[i].types != 0 && (types & keywords[i].types) == 0)
            report(level, value, keywords[i].name, "%s has no effect on this type", keywords[i].name);
    }
}

static void check_order(const struct level *level, const char *low, const char *high)
{
    const json_t *a = json_object_get(level->schema->source, low), *b = json_object_get(level->schema->source, high);

    if (json_is_number(a) && json_is_number(b) && schema_compare_numbers(a, b) > 0)
        report(level, a, low, "%s is more than %s: nothing fits", low, high);
}

/* A required name that no property has: impossible when nothing else is allowed, else a mistake when one is near. */
static void check_required(const struct level *level)
{
    const struct schema *schema = level->schema;
    struct arena *arena = level->compiler->arena;
    size_t count = schema->properties_count;
    struct str *names = ARENA_ARRAY(arena, count, struct str);

    for (size_t i = 0; i < count; i++)
        names[i] = schema->properties[i].name;
    for (size_t i = 0; schema->required != NULL && i < json_array_size(schema->required); i++) {
        const json_t *one = json_array_get(schema->required, i);
        struct str name = str_of(json_string_value(one));
        bool known = name.data == NULL;
        for (size_t j = 0; j < count; j++)
            known = known || str_equal(names[j], name);
        struct str near = known ? STR("") : suggest_clause(arena, name, names, count);
        if (!known && (schema->closed || near.size > 0))
            report(level, one, indexed(level, "required", i),
                   "\"%.*s\" is required, but properties does not have it%.*s", STR_ARG(name), STR_ARG(near));
    }
}

/* A value of enum or const that the same schema's type refuses can never be sent. */
static void check_value_types(const struct level *level)
{
    const struct schema *schema = level->schema;

    if (schema->types == 0)
        return;
    if (schema->constant != NULL && !schema_has_type(schema->constant, schema->types))
        report(level, schema->constant, "const", "const is not of the schema's type");
    for (size_t i = 0; schema->values != NULL && i < json_array_size(schema->values); i++)
        if (!schema_has_type(json_array_get(schema->values, i), schema->types))
            report(level, json_array_get(schema->values, i), indexed(level, "enum", i),
                   "this value is not of the schema's type");
}

static struct schema *compile(struct compiler *compiler, const json_t *source, struct str path, unsigned depth)
{
    struct level level = {.compiler = compiler, .path = path, .depth = depth};
    const char *name;
    json_t *value;

    if (!json_is_object(source)) {
        report(&level, source, "", "a schema is a group of keywords, for example { type = \"string\"; }");
        return NULL;
    }
    if (depth > LEVELS_MAX) {
        report(&level, source, "", "schemas nested deeper than %d levels", LEVELS_MAX);
        return NULL;
    }
    level.schema = ARENA_NEW(compiler->arena, struct schema);
    *level.schema = (struct schema){
        .source = source, .length_min = -1, .length_max = -1, .items_min = -1, .items_max = -1};
    json_object_foreach((json_t *)source, name, value) {
        read_keyword(&level, value, name);
    }
    if (json_object_get(source, "type") == NULL &&
        (json_object_get(source, "properties") != NULL || json_object_get(source, "required") != NULL))
        level.schema->types = SCHEMA_OBJECT;
    check_applicable(&level);
    check_order(&level, "minimum", "maximum");
    check_order(&level, "minLength", "maxLength");
    check_order(&level, "minItems", "maxItems");
    check_required(&level);
    check_value_types(&level);
    return level.schema;
}

struct schema *schema_compile(struct arena *arena, const json_t *source, schema_problem *problem, void *context)
{
    struct compiler compiler = {.arena = arena, .problem = problem, .context = context};
    struct schema *schema = compile(&compiler, source, STR(""), 1);

    return compiler.failed ? NULL : schema;
}

/* ---- as text ---- */

/* Writes out the type that `properties` or `required` mean, here and below. */
static void fill_types(json_t *schema)
{
    const char *name;
    json_t *member;

    if (!json_is_object(schema))
        return;
    if (json_object_get(schema, "type") == NULL &&
        (json_object_get(schema, "properties") != NULL || json_object_get(schema, "required") != NULL))
        json_object_set_new(schema, "type", json_string("object"));
    fill_types(json_object_get(schema, "items"));
    fill_types(json_object_get(schema, "additionalProperties"));
    json_object_foreach(json_object_get(schema, "properties"), name, member) {
        fill_types(member);
    }
}

/* Says the schema nothing that a value other than an object could meet? */
static bool may_be_object(const struct schema *schema)
{
    if (schema->types != 0 || schema->values != NULL || schema->constant != NULL)
        return schema->types == SCHEMA_OBJECT;
    for (size_t i = 0; i < KEYWORDS_COUNT; i++)
        if ((keywords[i].types & ~(unsigned)SCHEMA_OBJECT) != 0 &&
            json_object_get(schema->source, keywords[i].name) != NULL)
            return false;
    return true;
}

struct str schema_text(const struct schema *schema, struct arena *arena)
{
    json_t *copy = json_deep_copy(schema->source);

    fill_types(copy);
    /* Model endpoints want an object with properties at the top, also where there are none. */
    if (may_be_object(schema)) {
        if (json_object_get(copy, "type") == NULL)
            json_object_set_new(copy, "type", json_string("object"));
        if (json_object_get(copy, "properties") == NULL)
            json_object_set_new(copy, "properties", json_object());
    }
    struct str text = json_text(arena, copy);
    json_decref(copy);
    return text;
}
