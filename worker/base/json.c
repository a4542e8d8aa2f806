#include "worker/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The depth of `text`, before jansson recurses into it. Brackets inside of strings do not count; text that is no JSON
 * gives some number and is refused by the parser. */
static size_t depth_of(struct str text)
{
    size_t depth = 0, deepest = 0;
    bool in_string = false;

    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return deepest;
}

json_t *json_read(struct str text, size_t size_max, struct error *error)
{
    json_error_t why;
    json_t *value;
    char *near_what;

    if (text.size > size_max) {
        (void)error_set(error, ERROR_POISON, "JSON of %zu bytes; at most %zu are allowed", text.size, size_max);
        return NULL;
    }
    if (depth_of(text) > JSON_DEPTH_MAX) {
        (void)error_set(error, ERROR_POISON, "JSON nested over %d deep", JSON_DEPTH_MAX);
        return NULL;
    }
    value = json_loadb(text.data == NULL ? "" : text.data, text.size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (value != NULL)
        return value;
    /* jansson quotes the text it stumbled over, which may be a secret or a prompt: say the position only. */
    near_what = strstr(why.text, " near ");
    if (near_what != NULL)
        *near_what = '\0';
    (void)error_set(error, ERROR_POISON, "not valid JSON at line %d, column %d: %s", why.line, why.column, why.text);
    return NULL;
}

struct dump {
    struct buf out;
    struct arena *arena;
    bool canonical;
};

static void put_value(struct dump *dump, const json_t *value);

static void put_real(struct dump *dump, double real)
{
    char text[40];

    if (dump->canonical && fabs(real) <= 9007199254740992.0 && floor(real) == real) {
        (void)buf_printf(&dump->out, "%.0f", real == 0 ? 0.0 : real);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, real);
        if (strtod(text, NULL) == real)
            break;
    }
    (void)buf_puts(&dump->out, text);
    if (strpbrk(text, ".e") == NULL)
        (void)buf_puts(&dump->out, ".0");
}

/* RFC 8259: what must be escaped is; all else stays UTF-8. */
static void put_string(struct dump *dump, const char *text, size_t size)
{
    size_t done = 0;

    (void)buf_put(&dump->out, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        static const char special[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
        unsigned char c = (unsigned char)text[i];
        const char *found;

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        (void)buf_put(&dump->out, text + done, i - done);
        done = i + 1;
        found = memchr(special, c, sizeof special - 1);
        if (found != NULL)
            (void)buf_put(&dump->out, (char[]){'\\', letters[found - special]}, 2);
        else
            (void)buf_printf(&dump->out, "\\u%04x", (unsigned)c);
    }
    (void)buf_put(&dump->out, text + done, size - done);
    (void)buf_put(&dump->out, "\"", 1);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_member(struct dump *dump, const json_t *object, const char *key, bool first)
{
    if (!first)
        (void)buf_put(&dump->out, ",", 1);
    put_string(dump, key, strlen(key));
    (void)buf_put(&dump->out, ":", 1);
    put_value(dump, json_object_get(object, key));
}

static void put_object(struct dump *dump, const json_t *value)
{
    json_t *object = (json_t *)value; /* iteration asks for it; it is not changed */
    size_t count = json_object_size(object), i = 0;
    const char **keys = ARENA_ARRAY(dump->arena, count, const char *);

    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at))
        keys[i++] = json_object_iter_key(at);
    if (dump->canonical && count > 1)
        qsort(keys, count, sizeof keys[0], compare_keys);
    (void)buf_put(&dump->out, "{", 1);
    for (i = 0; i < count; i++)
        put_member(dump, object, keys[i], i == 0);
    (void)buf_put(&dump->out, "}", 1);
}

static void put_array(struct dump *dump, const json_t *array)
{
    (void)buf_put(&dump->out, "[", 1);
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i > 0)
            (void)buf_put(&dump->out, ",", 1);
        put_value(dump, json_array_get(array, i));
    }
    (void)buf_put(&dump->out, "]", 1);
}

static void put_value(struct dump *dump, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        put_object(dump, value);
        break;
    case JSON_ARRAY:
        put_array(dump, value);
        break;
    case JSON_STRING:
        put_string(dump, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        (void)buf_printf(&dump->out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        put_real(dump, json_real_value(value));
        break;
    case JSON_TRUE:
        (void)buf_puts(&dump->out, "true");
        break;
    case JSON_FALSE:
        (void)buf_puts(&dump->out, "false");
        break;
    case JSON_NULL:
        (void)buf_puts(&dump->out, "null");
        break;
    }
}

static struct str dump_value(struct arena *arena, const json_t *value, bool canonical)
{
    struct dump dump = {.arena = arena, .canonical = canonical};
    struct str text;

    buf_init(&dump.out, SIZE_MAX);
    put_value(&dump, value);
    text = arena_str(arena, buf_str(&dump.out));
    buf_free(&dump.out);
    return text;
}

struct str json_text(struct arena *arena, const json_t *value)
{
    return dump_value(arena, value, false);
}

struct str json_canonical(struct arena *arena, const json_t *value)
{
    return dump_value(arena, value, true);
}

struct str json_member_str(struct arena *arena, const json_t *object, const char *key)
{
    const json_t *member = json_object_get(object, key);

    if (!json_is_string(member))
        return STR_NONE;
    return arena_copy(arena, json_string_value(member), json_string_length(member));
}
