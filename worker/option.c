#include "worker/option.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/env.h"
#include "worker/base/json.h"
#include "worker/base/units.h"
#include "worker/contract/suggest.h"

/* One value on its way into its member. */
struct value {
    const struct option_reading *reading;
    const struct option *option;
    const struct node *node; /* NULL: the default is being read */
    const json_t *json;
    struct str name; /* in full, for messages */
};

void option_problem(const struct option_reading *reading, const struct node *node, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    problems_vadd(reading->problems, reading->file, node != NULL ? node->line : 0, false, format, arguments);
    va_end(arguments);
}

#define WRONG(value, format, ...)                                                                                      \
    (option_problem((value)->reading, (value)->node, "%.*s%s " format, STR_ARG((value)->name),                         \
                    (value)->node == NULL ? " (its default)" : "", __VA_ARGS__),                                       \
     false)

static const char *json_kind(const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return "a group";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    default:
        return "true or false";
    }
}

/* The text with ${NAME} expanded. */
static bool read_text(const struct value *value, const json_t *json, struct str *text)
{
    struct error error;
    if (!json_is_string(json))
        return WRONG(value, "is %s, must be a text in quotes", json_kind(json));
    struct str raw = {json_string_value(json), json_string_length(json)};
    if (memchr(raw.data, '\0', raw.size) != NULL)
        return WRONG(value, "holds a NUL%s", "");
    if (!env_expand(value->reading->arena, raw, text, &error))
        return WRONG(value, "cannot be read: %s", error.text);
    if (str_utf8_size(*text) < text->size)
        return WRONG(value, "is no UTF-8 after its variables were filled in%s", "");
    return true;
}

static bool check_text(const struct value *value, struct str text)
{
    const struct option *option = value->option;
    if (text.size == 0 && option->min > 0)
        return WRONG(value, "is empty: %s", option->says);
    if ((int64_t)text.size > option->max)
        return WRONG(value, "is longer than %" PRId64 " characters", option->max);
    const char *must = text.size > 0 && option->check != NULL ? option->check(text, value->reading->arena) : NULL;
    if (must != NULL && option->secret)
        return WRONG(value, "%s", must);
    if (must != NULL)
        return WRONG(value, "is \"%.*s\", %s", STR_ARG(text), must);
    return true;
}

static bool store_text(const struct value *value, void *member)
{
    struct str text;
    if (!read_text(value, value->json, &text) || !check_text(value, text))
        return false;
    if (value->option->type == OPTION_TEXT)
        *(const char **)member = text.size > 0 ? text.data : NULL;
    else
        *(struct str *)member = text.size > 0 ? text : STR_NONE;
    return true;
}

static bool store_list(const struct value *value, void *member)
{
    const struct option *option = value->option;
    struct arena *arena = value->reading->arena;
    bool alone = json_is_string(value->json);
    if (!alone && !json_is_array(value->json))
        return WRONG(value, "is %s, must be a list of texts, [\"...\", \"...\"]", json_kind(value->json));
    size_t count = alone ? 1 : json_array_size(value->json);
    if ((int64_t)count < option->min || (int64_t)count > option->max)
        return WRONG(value, "has %zu entries, must have %" PRId64 " to %" PRId64, count, option->min, option->max);
    struct option_list list = {ARENA_ARRAY(arena, count + 1, const char *), 0};
    for (size_t i = 0; i < count; i++) {
        struct value entry = *value;
        struct str text;
        if (!alone)
            entry.name = arena_printf(arena, "%.*s[%zu]", STR_ARG(value->name), i);
        if (!read_text(&entry, alone ? value->json : json_array_get(value->json, i), &text))
            return false;
        if (text.size == 0)
            return WRONG(&entry, "is empty: %s", option->says);
        const char *must = option->check != NULL ? option->check(text, arena) : NULL;
        if (must != NULL)
            return option->secret ? WRONG(&entry, "%s", must) : WRONG(&entry, "is \"%.*s\", %s", STR_ARG(text), must);
        list.items[list.count++] = text.data;
    }
    *(struct option_list *)member = list;
    return true;
}

/* A number or a bool may stand in quotes, so that it can come from the environment. */
static bool store_number(const struct value *value, void *member)
{
    const struct option *option = value->option;
    int64_t number = 0;
    bool whole = json_is_integer(value->json);
    if (whole) {
        number = (int64_t)json_integer_value(value->json);
    } else if (json_is_string(value->json)) {
        struct str text;
        if (!read_text(value, value->json, &text))
            return false;
        char *end = NULL;
        number = strtoll(text.data, &end, 10);
        whole = text.size > 0 && text.size < 12 && *end == '\0' &&
                (*text.data == '-' || (*text.data >= '0' && *text.data <= '9'));
        if (!whole)
            return WRONG(value, "is \"%.*s\", must be a whole number", STR_ARG(text));
    }
    if (!whole)
        return WRONG(value, "is %s, must be a whole number",
                     json_is_real(value->json) ? "a fraction" : json_kind(value->json));
    if (number < option->min || number > option->max)
        return WRONG(value, "is %" PRId64 ", must be %" PRId64 " to %" PRId64, number, option->min, option->max);
    *(int32_t *)member = (int32_t)number;
    return true;
}

static bool store_bool(const struct value *value, void *member)
{
    struct str text = STR_NONE;
    if (json_is_string(value->json) && !read_text(value, value->json, &text))
        return false;
    bool yes = json_is_true(value->json) || str_is(text, "true");
    if (!yes && !json_is_false(value->json) && !str_is(text, "false"))
        return WRONG(value, "is %s%.*s%s, must be true or false", text.data != NULL ? "\"" : json_kind(value->json),
                     STR_ARG(text), text.data != NULL ? "\"" : "");
    *(bool *)member = yes;
    return true;
}

static bool store_duration(const struct value *value, void *member)
{
    const struct option *option = value->option;
    struct arena *arena = value->reading->arena;
    struct str text;
    int64_t ms;
    if (json_is_integer(value->json))
        return WRONG(value, "is %" PRId64 " of what? Write \"%" PRId64 "s\", or another unit (ms, s, m, h, d)",
                     (int64_t)json_integer_value(value->json), (int64_t)json_integer_value(value->json));
    if (!read_text(value, value->json, &text))
        return false;
    if (!units_duration(text, &ms))
        return WRONG(value, "is \"%.*s\", must be " UNITS_DURATION_SAYS, STR_ARG(text));
    if (ms < option->min || ms > option->max)
        return WRONG(value, "is \"%.*s\", must be %.*s to %.*s", STR_ARG(text),
                     STR_ARG(units_duration_text(arena, option->min)),
                     STR_ARG(units_duration_text(arena, option->max)));
    *(int64_t *)member = ms;
    return true;
}

static bool store_size(const struct value *value, void *member)
{
    const struct option *option = value->option;
    struct arena *arena = value->reading->arena;
    struct str text;
    int64_t bytes;
    if (json_is_integer(value->json))
        return WRONG(value, "is %" PRId64 " of what? Write \"%" PRId64 "MiB\", or another unit (B, KiB, MiB, GiB)",
                     (int64_t)json_integer_value(value->json), (int64_t)json_integer_value(value->json));
    if (!read_text(value, value->json, &text))
        return false;
    if (!units_size(text, &bytes))
        return WRONG(value, "is \"%.*s\", must be " UNITS_SIZE_SAYS, STR_ARG(text));
    if (bytes < option->min || bytes > option->max)
        return WRONG(value, "is \"%.*s\", must be %.*s to %.*s", STR_ARG(text),
                     STR_ARG(units_size_text(arena, option->min)), STR_ARG(units_size_text(arena, option->max)));
    *(int64_t *)member = bytes;
    return true;
}

static bool store_usd(const struct value *value, void *member)
{
    struct str text;
    int64_t micro_usd = -1;
    if (json_is_number(value->json))
        return WRONG(value, "is a bare number: write it as a text, \"%.6g\" (a float cannot hold cents)",
                     json_number_value(value->json));
    if (!read_text(value, value->json, &text))
        return false;
    if (text.size > 0 && !units_usd(text, &micro_usd))
        return WRONG(value, "is \"%.*s\", must be " UNITS_USD_SAYS, STR_ARG(text));
    *(int64_t *)member = micro_usd;
    return true;
}

/* A copy with ${NAME} expanded in every text; NULL after a problem. */
static json_t *expand_json(const struct value *value, const json_t *json)
{
    struct str text;
    if (json_is_string(json))
        return read_text(value, json, &text) ? json_stringn(text.data, text.size) : NULL;
    if (!json_is_object(json) && !json_is_array(json))
        return json_deep_copy(json);
    json_t *copy = json_is_object(json) ? json_object() : json_array();
    const char *key;
    json_t *member;
    size_t i;
    int failed = 0;
    json_object_foreach((json_t *)json, key, member)
        failed |= json_object_set_new(copy, key, expand_json(value, member));
    json_array_foreach(json, i, member)
        failed |= json_array_append_new(copy, expand_json(value, member));
    if (failed == 0)
        return copy;
    json_decref(copy);
    return NULL;
}

static bool store_json(const struct value *value, void *member)
{
    if (!json_is_object(value->json))
        return WRONG(value, "is %s, must be a group, { ... }", json_kind(value->json));
    json_t *expanded = expand_json(value, value->json);
    if (expanded == NULL)
        return false;
    struct str text = json_object_size(expanded) > 0 ? json_text(value->reading->arena, expanded) : STR_NONE;
    json_decref(expanded);
    if ((int64_t)text.size > value->option->max)
        return WRONG(value, "is larger than %" PRId64 " bytes", value->option->max);
    const char *must = text.size > 0 && value->option->check != NULL ? value->option->check(text, value->reading->arena)
                                                                     : NULL;
    if (must != NULL)
        return WRONG(value, "%s", must);
    *(struct str *)member = text;
    return true;
}

static bool store(const struct value *value, void *member)
{
    switch (value->option->type) {
    case OPTION_TEXT:
    case OPTION_STR:
        return store_text(value, member);
    case OPTION_LIST:
        return store_list(value, member);
    case OPTION_BOOL:
        return store_bool(value, member);
    case OPTION_NUMBER:
        return store_number(value, member);
    case OPTION_DURATION:
        return store_duration(value, member);
    case OPTION_SIZE:
        return store_size(value, member);
    case OPTION_USD:
        return store_usd(value, member);
    case OPTION_JSON:
        return store_json(value, member);
    case OPTION_GROUP:
        break;
    }
    if (!json_is_object(value->json))
        return WRONG(value, "is %s, must be groups by name, { NAME = { ... }; }", json_kind(value->json));
    return true;
}

static void unknown_name(const struct option_reading *reading, const struct option *table, size_t count,
                         const struct node *node, const char *prefix)
{
    struct str *names = ARENA_ARRAY(reading->arena, count, struct str);
    struct buf list;
    buf_init(&list, 4096);
    for (size_t i = 0; i < count; i++) {
        names[i] = str_of(table[i].name);
        buf_printf(&list, "%s%s", i > 0 ? " " : "", table[i].name);
    }
    struct str clause = suggest_clause(reading->arena, node->key, names, count);
    if (clause.size > 0)
        option_problem(reading, node, "unknown option \"%s%.*s\"%.*s", prefix, STR_ARG(node->key), STR_ARG(clause));
    else
        option_problem(reading, node, "unknown option \"%s%.*s\", allowed: %s", prefix, STR_ARG(node->key), list.data);
    buf_free(&list);
}

void option_read(const struct option_reading *reading, const struct option *table, size_t count,
                 const struct node *group, const char *prefix, void *out)
{
    for (const struct node *node = group != NULL ? group->first : NULL; node != NULL; node = node->next) {
        size_t i = 0;
        while (i < count && !str_is(node->key, table[i].name))
            i++;
        if (i == count)
            unknown_name(reading, table, count, node, prefix);
    }
    for (size_t i = 0; i < count; i++) {
        const struct option *option = &table[i];
        const struct node *node = tree_member(group, option->name);
        if (node == NULL && option->fallback == NULL) {
            option_problem(reading, group, "%s%s is missing: %s", prefix, option->name, option->says);
            continue;
        }
        json_t *fallback = node == NULL ? json_loads(option->fallback, JSON_DECODE_ANY, NULL) : NULL;
        struct value value = {
            .reading = reading,
            .option = option,
            .node = node,
            .json = node != NULL ? node->json : fallback,
            .name = arena_printf(reading->arena, "%s%s", prefix, option->name),
        };
        store(&value, (char *)out + option->offset);
        json_decref(fallback);
    }
}

static struct str limits_text(const struct option *option, struct arena *arena)
{
    if (option->type == OPTION_NUMBER)
        return arena_printf(arena, " (%" PRId64 " to %" PRId64 ")", option->min, option->max);
    if (option->type == OPTION_DURATION)
        return arena_printf(arena, " (%s to %s)", units_duration_text(arena, option->min).data,
                            units_duration_text(arena, option->max).data);
    if (option->type == OPTION_SIZE)
        return arena_printf(arena, " (%s to %s)", units_size_text(arena, option->min).data,
                            units_size_text(arena, option->max).data);
    return STR("");
}

struct str option_help(const struct option *table, size_t count, const char *indent, struct arena *arena)
{
    struct buf help;
    buf_init(&help, (size_t)64 << 10);
    for (size_t i = 0; i < count; i++) {
        const struct option *option = &table[i];
        if (option->fallback == NULL)
            buf_printf(&help, "%s%s (must be given)\n", indent, option->name);
        else
            buf_printf(&help, "%s%s = %s;\n", indent, option->name, option->fallback);
        buf_printf(&help, "%s    %s%s\n", indent, option->says, limits_text(option, arena).data);
    }
    struct str text = arena_str(arena, buf_str(&help));
    buf_free(&help);
    return text;
}
