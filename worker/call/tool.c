#include "worker/call/tool.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "worker/base/env.h"
#include "worker/base/json.h"

#define ARGUMENTS_SIZE_MAX ((size_t)1 << 20)
#define URL_SIZE_MAX ((size_t)16 << 10)

/* What a request is made from. */
struct form {
    const struct call *call;
    struct arena *arena;
    const json_t *arguments; /* an object */
    struct buf url;          /* ${NAME} still in it: what comes from arguments is encoded, so it can add none */
    const char **used;       /* arguments that stand in the URL */
    size_t used_count;
};

/* RFC 3986: all but unreserved characters as %XX. */
static void put_encoded(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if ((isalnum(c) && c < 0x80) || c == '-' || c == '.' || c == '_' || c == '~')
            (void)buf_put(out, &c, 1);
        else
            (void)buf_printf(out, "%%%02X", c);
    }
}

/* A string as it is, anything else as JSON. */
static struct str value_text(struct arena *arena, const json_t *value)
{
    if (json_is_string(value))
        return (struct str){json_string_value(value), json_string_length(value)};
    return json_text(arena, value);
}

/* {name}: an argument, or {key}, the idempotency key. */
static bool put_placeholder(struct form *form, struct str name, bool in_query, struct error *error)
{
    struct str key = arena_str(form->arena, name), text;
    const json_t *value = json_object_get(form->arguments, key.data);

    if (value == NULL && str_is(name, "key")) {
        put_encoded(&form->url, form->call->key);
        return true;
    }
    if (value == NULL)
        return error_set(error, ERROR_POISON, "the argument \"%s\" is missing: it stands in the URL", key.data);
    if (json_is_object(value) || json_is_array(value) || json_is_null(value))
        return error_set(error, ERROR_POISON,
                         "the argument \"%s\" stands in the URL: it must be a string, a number or a boolean", key.data);
    text = value_text(form->arena, value);
    /* In a path these would name something else: the collection, or what is above it. */
    if (!in_query && (text.size == 0 || str_is(text, ".") || str_is(text, "..")))
        return error_set(error, ERROR_POISON, "the argument \"%s\" stands in the URL's path: it must not be \"%s\"",
                         key.data, text.data);
    put_encoded(&form->url, text);
    form->used[form->used_count++] = key.data;
    return true;
}

static bool is_name(struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (!isalnum((unsigned char)text.data[i]) && text.data[i] != '_' && text.data[i] != '-')
            return false;
    }
    return text.size > 0;
}

/* The URL's template with its placeholders filled in. ${NAME} is passed over: env_expand comes last. */
static bool fill_in(struct form *form, struct str template, struct error *error)
{
    bool in_query = false;

    for (size_t at = 0; at < template.size;) {
        const char *from = template.data + at, *close = memchr(from, '}', template.size - at);
        bool variable = from[0] == '$' && from[1] == '{';
        struct str name = {from + 1, close != NULL && from[0] == '{' ? (size_t)(close - from - 1) : 0};

        if (variable && close != NULL) {
            (void)buf_put(&form->url, from, (size_t)(close - from + 1));
            at += (size_t)(close - from + 1);
        } else if (is_name(name)) {
            if (!put_placeholder(form, name, in_query, error))
                return false;
            at += name.size + 2;
        } else {
            in_query = in_query || from[0] == '?';
            (void)buf_put(&form->url, from, 1);
            at++;
        }
    }
    return true;
}

static void put_parameter(struct form *form, const char *name, const json_t *value)
{
    const char *before = memchr(form->url.data, '?', form->url.size) != NULL ? "&" : "?";

    (void)buf_puts(&form->url, before);
    put_encoded(&form->url, str_of(name));
    (void)buf_put(&form->url, "=", 1);
    put_encoded(&form->url, value_text(form->arena, value));
}

/* Arguments that are no placeholder, as query parameters: a list repeats its name, null is left out. */
static void put_query(struct form *form)
{
    json_t *arguments = (json_t *)form->arguments; /* iteration asks for it; it is not changed */
    const char *name;
    json_t *value;

    json_object_foreach(arguments, name, value) {
        bool used = json_is_null(value);

        for (size_t i = 0; i < form->used_count && !used; i++)
            used = strcmp(form->used[i], name) == 0;
        if (used)
            continue;
        if (json_is_array(value)) {
            for (size_t i = 0; i < json_array_size(value); i++)
                put_parameter(form, name, json_array_get(value, i));
        } else {
            put_parameter(form, name, value);
        }
    }
}

/* Placeholders in the URL may repeat: count them all. */
static size_t braces(struct str template)
{
    size_t count = 0;

    for (size_t i = 0; i < template.size; i++)
        count += template.data[i] == '{';
    return count;
}

static bool has_body(struct str method)
{
    return str_is(method, "POST") || str_is(method, "PUT") || str_is(method, "PATCH");
}

/* env_expand, but not final: another worker may have the variable. */
static bool expand(struct arena *arena, struct str text, struct str *expanded, struct error *error)
{
    if (env_expand(arena, text, expanded, error))
        return true;
    if (error != NULL)
        error->class = ERROR_RETRY;
    return false;
}

static bool form_url(struct form *form, struct str template, bool with_query, struct str *url, struct error *error)
{
    bool good;

    if (memchr(template.data, '#', template.size) != NULL)
        return error_set(error, ERROR_POISON, "the URL must not have a fragment (#)");
    form->used = ARENA_ARRAY(form->arena, braces(template) + 1, const char *);
    buf_init(&form->url, URL_SIZE_MAX);
    good = fill_in(form, template, error);
    if (good && with_query)
        put_query(form);
    if (good && form->url.overflow)
        good = error_set(error, ERROR_POISON, "the URL is over %zu bytes with its arguments", URL_SIZE_MAX);
    good = good && expand(form->arena, buf_str(&form->url), url, error);
    buf_free(&form->url);
    return good;
}

static bool is_header(struct str name, const char *other)
{
    return name.size == strlen(other) && strncasecmp(name.data, other, name.size) == 0;
}

static bool form_headers(const struct call *call, struct str run, struct arena *arena, struct http_request *request,
                         struct error *error)
{
    const struct tool *tool = call->tool;
    struct http_header *headers = ARENA_ARRAY(arena, tool->headers_count + 3, struct http_header);
    size_t count = 0;
    bool typed = request->body.data == NULL;

    headers[count++] = (struct http_header){STR("X-Myelin-Run"), run};
    if (call->kind == CALL_TOOL) /* I3; a probe only looks */
        headers[count++] = (struct http_header){STR("Idempotency-Key"), call->key};
    for (size_t i = 0; i < tool->headers_count; i++) {
        const struct tool_header *own = &tool->headers[i];

        if (is_header(own->name, "Idempotency-Key") || is_header(own->name, "X-Myelin-Run"))
            continue; /* the runtime's: a key of the contract's own would break I3 */
        headers[count].name = own->name;
        if (!expand(arena, own->value, &headers[count++].value, error))
            return error_wrap(error, "header %.*s", STR_ARG(own->name));
        typed = typed || is_header(own->name, "Content-Type");
    }
    if (!typed)
        headers[count++] = (struct http_header){STR("Content-Type"), STR("application/json")};
    request->headers = headers;
    request->headers_count = count;
    return true;
}

bool tool_request(const struct call *call, struct str run, struct arena *arena, struct http_request *request,
                  struct error *error)
{
    bool probe = call->kind == CALL_PROBE;
    struct str text = call->arguments.size > 0 ? call->arguments : STR("{}");
    json_t *arguments = json_read(text, ARGUMENTS_SIZE_MAX, error);
    struct form form = {.call = call, .arena = arena, .arguments = arguments};
    struct str url = STR_NONE;
    bool body, good;

    *request = (struct http_request){
        .method = probe ? STR("GET") : call->tool->method,
        .timeout_ms = call->timeout_ms,
        .answer_size_max = TOOL_ANSWER_SIZE_MAX,
        .write = call->effect == EFFECT_WRITE,
    };
    if (arguments == NULL)
        return error_wrap(error, "arguments");
    if (!json_is_object(arguments)) {
        json_decref(arguments);
        return error_set(error, ERROR_POISON, "arguments: must be an object");
    }
    body = !probe && has_body(request->method);
    good = form_url(&form, probe ? call->tool->probe->url : call->tool->url, !body && !probe, &url, error);
    json_decref(arguments);
    if (!good)
        return error_wrap(error, "%s", probe ? "probe" : "url");
    request->url = url;
    request->body = body ? text : STR_NONE;
    return form_headers(call, run, arena, request, error);
}
