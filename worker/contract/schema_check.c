#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker/contract/schema_node.h"

#define PATH_SIZE_MAX 200  /* of a message */
#define NAMES_SIZE_MAX 200 /* a list of allowed values or names in a message */

/* Where in the value: a chain from the inside out, on the stack. */
struct place {
    const struct place *up;
    const char *key; /* NULL: `index` of an array */
    size_t index;
};

static const char *const type_names[SCHEMA_TYPES_COUNT] = {"object",  "array",   "string", "number",
                                                           "integer", "boolean", "null"};

const char *schema_type_name(size_t index)
{
    return type_names[index];
}

/* Exact where a conversion of the whole number to a double would round. */
static int compare_mixed(json_int_t whole, double real)
{
    if (real >= 9223372036854775808.0)
        return -1;
    if (real < -9223372036854775808.0)
        return 1;
    json_int_t down = (json_int_t)floor(real);
    return whole < down ? -1 : whole > down ? 1 : (double)down < real ? -1 : 0;
}

int schema_compare_numbers(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b)) {
        json_int_t x = json_integer_value(a), y = json_integer_value(b);
        return x < y ? -1 : x > y;
    }
    if (json_is_integer(a))
        return compare_mixed(json_integer_value(a), json_real_value(b));
    if (json_is_integer(b))
        return -compare_mixed(json_integer_value(b), json_real_value(a));
    return json_real_value(a) < json_real_value(b) ? -1 : json_real_value(a) > json_real_value(b);
}

bool schema_same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return schema_compare_numbers(a, b) == 0;
    if (json_is_array(a) && json_is_array(b)) {
        size_t count = json_array_size(a), i = 0;
        while (i < count && i < json_array_size(b) && schema_same(json_array_get(a, i), json_array_get(b, i)))
            i++;
        return i == count && count == json_array_size(b);
    }
    if (json_is_object(a) && json_is_object(b)) {
        if (json_object_size(a) != json_object_size(b))
            return false;
        const char *key;
        json_t *member;
        json_object_foreach((json_t *)a, key, member) {
            const json_t *other = json_object_get(b, key);
            if (other == NULL || !schema_same(member, other))
                return false;
        }
        return true;
    }
    return json_equal(a, b) != 0;
}

static unsigned type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return SCHEMA_OBJECT;
    case JSON_ARRAY:
        return SCHEMA_ARRAY;
    case JSON_STRING:
        return SCHEMA_STRING;
    case JSON_INTEGER:
        return SCHEMA_INTEGER | SCHEMA_NUMBER;
    case JSON_REAL:
        return SCHEMA_NUMBER | (json_real_value(value) == floor(json_real_value(value)) ? SCHEMA_INTEGER : 0);
    case JSON_NULL:
        return SCHEMA_NULL;
    default:
        return SCHEMA_BOOLEAN;
    }
}

bool schema_has_type(const json_t *value, unsigned types)
{
    return (type_of(value) & types) != 0;
}

/* ---- messages ---- */

static void put(char *to, size_t size, const char *text)
{
    size_t used = strlen(to);

    (void)snprintf(to + used, size - used, "%s", text);
}

static void put_place(char *to, size_t size, const struct place *place)
{
    if (place == NULL)
        return;
    put_place(to, size, place->up);
    size_t used = strlen(to);
    if (place->key == NULL)
        (void)snprintf(to + used, size - used, "[%zu]", place->index);
    else
        (void)snprintf(to + used, size - used, "%s%s", used > 0 ? "." : "", place->key);
}

static bool misfit(const struct place *place, struct error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool misfit(const struct place *place, struct error *error, const char *format, ...)
{
    char path[PATH_SIZE_MAX] = "", says[sizeof error->text];
    va_list arguments;

    if (error == NULL)
        return false;
    va_start(arguments, format);
    (void)vsnprintf(says, sizeof says, format, arguments);
    va_end(arguments);
    put_place(path, sizeof path, place);
    return error_set(error, ERROR_POISON, "%s%s%s", path, path[0] != '\0' ? ": " : "", says);
}

/* "an object" */
static const char *with_article(const char *type)
{
    return type[0] == 'o' || type[0] == 'a' || type[0] == 'i' ? "an " : strcmp(type, "null") == 0 ? "" : "a ";
}

static const char *type_name_of(const json_t *value)
{
    unsigned type = type_of(value);
    size_t index = 0;

    while ((type & 1u << index) == 0)
        index++;
    return type_names[index];
}

static bool type_misfit(const struct place *place, const json_t *value, unsigned types, struct error *error)
{
    char wants[NAMES_SIZE_MAX] = "";
    const char *is = type_name_of(value);
    bool fraction = json_is_real(value) && (types & SCHEMA_INTEGER) != 0;

    for (size_t i = 0; i < SCHEMA_TYPES_COUNT; i++) {
        if ((types & 1u << i) == 0)
            continue;
        put(wants, sizeof wants, wants[0] != '\0' ? " or " : "");
        put(wants, sizeof wants, with_article(type_names[i]));
        put(wants, sizeof wants, type_names[i]);
    }
    return misfit(place, error, "is %s%s%s, must be %s", with_article(is), is, fraction ? " with a fraction" : "",
                  wants);
}

/* Adds `"name"` to a list, or ` ...` once when it is full. */
static void put_name(char *list, size_t size, const char *name)
{
    size_t used = strlen(list), need = strlen(name) + sizeof ", \"\" ...";

    if (used >= 4 && strcmp(list + used - 4, " ...") == 0)
        return;
    if (used + need >= size) {
        put(list, size, " ...");
        return;
    }
    (void)snprintf(list + used, size - used, "%s\"%s\"", used > 0 ? ", " : "", name);
}

/* A scalar as JSON; of an object or array its type. */
static void put_value(char *list, size_t size, const json_t *value)
{
    if (json_is_string(value)) {
        put_name(list, size, json_string_value(value));
        return;
    }
    size_t used = strlen(list);
    const char *comma = used > 0 ? ", " : "";
    if (json_is_integer(value))
        (void)snprintf(list + used, size - used, "%s%" JSON_INTEGER_FORMAT, comma, json_integer_value(value));
    else if (json_is_real(value))
        (void)snprintf(list + used, size - used, "%s%.15g", comma, json_real_value(value));
    else if (json_is_boolean(value))
        (void)snprintf(list + used, size - used, "%s%s", comma, json_is_true(value) ? "true" : "false");
    else
        (void)snprintf(list + used, size - used, "%s%s%s", comma, with_article(type_name_of(value)),
                       type_name_of(value));
}

/* ---- the checks: the recursion follows the schema, whose depth schema_compile bounds ---- */

static bool check(const struct schema *schema, const json_t *value, const struct place *place, struct error *error);

static bool check_below(const struct schema *schema, const json_t *value, const struct place *up, const char *key,
                        size_t index, struct error *error)
{
    struct place place = {.up = up, .key = key, .index = index};

    return check(schema, value, &place, error);
}

static bool check_values(const struct schema *schema, const json_t *value, const struct place *place,
                         struct error *error)
{
    char list[NAMES_SIZE_MAX] = "";

    if (schema->constant != NULL && !schema_same(schema->constant, value)) {
        put_value(list, sizeof list, schema->constant);
        return misfit(place, error, "must be %s", list);
    }
    if (schema->values == NULL)
        return true;
    for (size_t i = 0; i < json_array_size(schema->values); i++) {
        if (schema_same(json_array_get(schema->values, i), value))
            return true;
        put_value(list, sizeof list, json_array_get(schema->values, i));
    }
    return misfit(place, error, "must be one of %s", list);
}

static bool check_number(const struct schema *schema, const json_t *value, const struct place *place,
                         struct error *error)
{
    bool low = schema->minimum != NULL && schema_compare_numbers(value, schema->minimum) < 0;
    bool high = schema->maximum != NULL && schema_compare_numbers(value, schema->maximum) > 0;
    char is[64] = "", limit[64] = "";

    if (!low && !high)
        return true;
    put_value(is, sizeof is, value);
    put_value(limit, sizeof limit, low ? schema->minimum : schema->maximum);
    return misfit(place, error, "is %s, must be at %s %s", is, low ? "least" : "most", limit);
}

static bool check_string(const struct schema *schema, const json_t *value, const struct place *place,
                         struct error *error)
{
    struct str text = {json_string_value(value), json_string_length(value)};
    json_int_t length = 0;

    for (size_t i = 0; i < text.size; i++)
        length += ((unsigned char)text.data[i] & 0xc0) != 0x80;
    if (schema->length_min >= 0 && length < schema->length_min)
        return misfit(place, error, "has %" JSON_INTEGER_FORMAT " characters, must have at least %" JSON_INTEGER_FORMAT,
                      length, schema->length_min);
    if (schema->length_max >= 0 && length > schema->length_max)
        return misfit(place, error, "has %" JSON_INTEGER_FORMAT " characters, must have at most %" JSON_INTEGER_FORMAT,
                      length, schema->length_max);
    return schema_format_fits(schema->format, text) ||
           misfit(place, error, "must be %s", schema_format_wants(schema->format));
}

static bool check_array(const struct schema *schema, const json_t *value, const struct place *place,
                        struct error *error)
{
    json_int_t count = (json_int_t)json_array_size(value);

    if (schema->items_min >= 0 && count < schema->items_min)
        return misfit(place, error, "has %" JSON_INTEGER_FORMAT " items, must have at least %" JSON_INTEGER_FORMAT,
                      count, schema->items_min);
    if (schema->items_max >= 0 && count > schema->items_max)
        return misfit(place, error, "has %" JSON_INTEGER_FORMAT " items, must have at most %" JSON_INTEGER_FORMAT,
                      count, schema->items_max);
    for (size_t i = 0; schema->items != NULL && i < json_array_size(value); i++)
        if (!check_below(schema->items, json_array_get(value, i), place, NULL, i, error))
            return false;
    return true;
}

static const struct schema_property *property(const struct schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->properties_count; i++)
        if (str_is(schema->properties[i].name, name))
            return &schema->properties[i];
    return NULL;
}

static bool extra_misfit(const struct schema *schema, const char *key, const struct place *place, struct error *error)
{
    struct place at = {.up = place, .key = key};
    char list[NAMES_SIZE_MAX] = "";

    for (size_t i = 0; i < schema->properties_count; i++)
        put_name(list, sizeof list, schema->properties[i].name.data);
    return misfit(&at, error, "is not allowed here%s%s", list[0] != '\0' ? "; allowed: " : "", list);
}

static bool check_object(const struct schema *schema, const json_t *value, const struct place *place,
                         struct error *error)
{
    const char *key;
    json_t *member;

    for (size_t i = 0; schema->required != NULL && i < json_array_size(schema->required); i++) {
        struct place at = {.up = place, .key = json_string_value(json_array_get(schema->required, i))};
        if (json_object_get(value, at.key) == NULL)
            return misfit(&at, error, "is missing, it is required");
    }
    for (size_t i = 0; i < schema->properties_count; i++) {
        const json_t *at = json_object_get(value, schema->properties[i].name.data);
        if (at != NULL &&
            !check_below(schema->properties[i].schema, at, place, schema->properties[i].name.data, 0, error))
            return false;
    }
    if (!schema->closed && schema->additional == NULL)
        return true;
    json_object_foreach((json_t *)value, key, member) {
        if (property(schema, key) != NULL)
            continue;
        if (schema->closed)
            return extra_misfit(schema, key, place, error);
        if (!check_below(schema->additional, member, place, key, 0, error))
            return false;
    }
    return true;
}

static bool check(const struct schema *schema, const json_t *value, const struct place *place, struct error *error)
{
    if (schema->types != 0 && !schema_has_type(value, schema->types))
        return type_misfit(place, value, schema->types, error);
    if (!check_values(schema, value, place, error))
        return false;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return check_object(schema, value, place, error);
    case JSON_ARRAY:
        return check_array(schema, value, place, error);
    case JSON_STRING:
        return check_string(schema, value, place, error);
    case JSON_INTEGER:
    case JSON_REAL:
        return check_number(schema, value, place, error);
    default:
        return true;
    }
}

bool schema_check(const struct schema *schema, const json_t *value, struct error *error)
{
    return check(schema, value, NULL, error);
}
