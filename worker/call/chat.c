#include "worker/call/chat.h"

#include <string.h>

#include "worker/base/json.h"

#define EXTRA_SIZE_MAX ((size_t)64 << 10)
#define SCHEMA_SIZE_MAX ((size_t)256 << 10)
#define ARGUMENTS_SIZE_MAX ((size_t)1 << 20)
#define TIMEOUT_MS_DEFAULT 120000
#define NAME_SIZE_MAX 64 /* of a function, as OpenAI limits it */

/* A JSON string; NULL (which every json_..._new below passes on) when it is no UTF-8. */
static json_t *string_of(struct str text)
{
    return text.data == NULL ? json_string("") : json_stringn(text.data, text.size);
}

/* ---- messages ---- */

/* Servers check the names in a conversation, too, and a model may have used any. */
static json_t *name_of(struct str name)
{
    char safe[NAME_SIZE_MAX];
    size_t size = 0;

    for (; size < name.size && size < sizeof safe; size++) {
        char c = name.data[size];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';

        safe[size] = good ? c : '_';
    }
    return size == 0 ? json_string("unnamed") : json_stringn(safe, size);
}

/* Several servers parse the arguments of past calls and refuse the whole request when they are no JSON object: what a model
 * wrote wrongly is shown to it wrapped. */
static json_t *arguments_of(struct arena *arena, struct str arguments)
{
    json_t *value = json_read(arguments, ARGUMENTS_SIZE_MAX, NULL), *text;

    if (json_is_object(value)) {
        json_decref(value);
        return string_of(arguments);
    }
    json_decref(value);
    value = json_pack("{s:o}", "invalid_json", string_of(arguments));
    text = value == NULL ? NULL : string_of(json_text(arena, value));
    json_decref(value);
    return text;
}

static json_t *tool_call_of(struct arena *arena, const struct tool_request *request)
{
    return json_pack("{s:o, s:s, s:{s:o, s:o}}", "id", string_of(request->id), "type", "function", "function", "name",
                     name_of(request->tool), "arguments", arguments_of(arena, request->arguments));
}

static json_t *assistant_of(struct arena *arena, const struct message *message)
{
    json_t *content = message->content.size == 0 && message->calls_count > 0 ? json_null()
                                                                             : string_of(message->content);
    json_t *object = json_pack("{s:s, s:o}", "role", "assistant", "content", content);
    json_t *calls;

    if (message->calls_count == 0 || object == NULL)
        return object;
    calls = json_array();
    for (size_t i = 0; i < message->calls_count; i++) {
        if (json_array_append_new(calls, tool_call_of(arena, &message->calls[i])) != 0) {
            json_decref(calls);
            json_decref(object);
            return NULL;
        }
    }
    (void)json_object_set_new(object, "tool_calls", calls);
    return object;
}

/* A result that is a JSON string is shown as the text that it is. */
static struct str tool_text(struct arena *arena, const struct message *message)
{
    json_t *value;
    struct str text = message->content;

    if (message->answer == ANSWER_REFUSED)
        return arena_printf(arena, "Refused: %.*s", STR_ARG(text));
    if (message->answer == ANSWER_FAILED)
        return arena_printf(arena, "Failed: %.*s", STR_ARG(text));
    if (text.size == 0 || text.data[0] != '"')
        return text;
    value = json_read(text, text.size, NULL);
    if (json_is_string(value))
        text = arena_copy(arena, json_string_value(value), json_string_length(value));
    json_decref(value);
    return text;
}

static json_t *message_of(struct arena *arena, const struct message *message)
{
    switch (message->role) {
    case ROLE_ASSISTANT:
        return assistant_of(arena, message);
    case ROLE_TOOL:
        return json_pack("{s:s, s:o, s:o}", "role", "tool", "tool_call_id", string_of(message->call_id), "content",
                         string_of(tool_text(arena, message)));
    case ROLE_USER:
        break;
    }
    return json_pack("{s:s, s:o}", "role", "user", "content", string_of(message->content));
}

/* Where the endpoint does not take a schema, the model is told in words. */
static struct str system_text(const struct chat_model *model, const struct call *call, struct arena *arena)
{
    struct str schema;

    if (call->output == NULL || model->response_format.size == 0 || str_is(model->response_format, "json_schema"))
        return call->system;
    schema = schema_text(call->output, arena);
    return arena_printf(arena,
                        "%.*s%sAnswer with one JSON value that fits this JSON Schema, and with nothing else:\n%.*s",
                        STR_ARG(call->system), call->system.size > 0 ? "\n\n" : "", STR_ARG(schema));
}

static json_t *messages_of(const struct chat_model *model, const struct call *call, struct arena *arena)
{
    struct str system = system_text(model, call, arena);
    json_t *messages = json_array();
    int failed = 0;

    if (system.size > 0)
        failed |= json_array_append_new(messages,
                                        json_pack("{s:s, s:o}", "role", "system", "content", string_of(system)));
    for (size_t i = 0; i < call->conversation_count; i++)
        failed |= json_array_append_new(messages, message_of(arena, &call->conversation[i]));
    if (failed == 0)
        return messages;
    json_decref(messages);
    return NULL;
}

/* ---- tools and output ---- */

static json_t *schema_of(const struct schema *schema, struct arena *arena)
{
    if (schema == NULL)
        return json_pack("{s:s, s:{}}", "type", "object", "properties");
    return json_read(schema_text(schema, arena), SCHEMA_SIZE_MAX, NULL);
}

static json_t *tools_of(const struct call *call, struct arena *arena)
{
    json_t *tools = json_array();

    for (size_t i = 0; i < call->tools_count; i++) {
        const struct tool *tool = call->tools[i];
        json_t *function = json_pack("{s:o, s:o, s:o}", "name", string_of(tool->name), "description",
                                     string_of(tool->description), "parameters", schema_of(tool->parameters, arena));

        if (json_array_append_new(tools, json_pack("{s:s, s:o}", "type", "function", "function", function)) != 0) {
            json_decref(tools);
            return NULL;
        }
    }
    return tools;
}

/* False: memory, or a text that is no UTF-8. Nothing is set when the endpoint knows none. */
static bool set_response_format(json_t *body, const struct chat_model *model, const struct call *call,
                                struct arena *arena)
{
    json_t *format;

    if (call->output == NULL || str_is(model->response_format, "none"))
        return true;
    if (str_is(model->response_format, "json_object"))
        format = json_pack("{s:s}", "type", "json_object");
    else
        format = json_pack("{s:s, s:{s:s, s:o}}", "type", "json_schema", "json_schema", "name", "output", "schema",
                           schema_of(call->output, arena));
    return json_object_set_new(body, "response_format", format) == 0;
}

/* ---- the request ---- */

/* The settings' own members come first, ours replace them; what would change the protocol is refused. */
static json_t *extra_of(const struct chat_model *model, struct error *error)
{
    static const char *const ours[] = {"model", "messages", "tools", "stream", "stream_options", "n"};
    struct str text = model->extra.size > 0 ? model->extra : STR("{}");
    json_t *extra = json_read(text, EXTRA_SIZE_MAX, error);

    if (extra == NULL || !json_is_object(extra)) {
        if (extra != NULL)
            (void)error_set(error, ERROR_POISON, "must be a JSON object");
        (void)error_wrap(error, "models.%.*s.extra", STR_ARG(model->name));
        json_decref(extra);
        return NULL;
    }
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        if (json_object_get(extra, ours[i]) != NULL) {
            (void)error_set(error, ERROR_POISON, "models.%.*s.extra: must not set \"%s\"", STR_ARG(model->name),
                            ours[i]);
            json_decref(extra);
            return NULL;
        }
    }
    return extra;
}

static bool fill_in(json_t *body, const struct chat_model *model, const struct call *call, struct arena *arena)
{
    int failed = json_object_set_new(body, "model", string_of(model->model));

    failed |= json_object_set_new(body, "messages", messages_of(model, call, arena));
    if (call->tools_count > 0)
        failed |= json_object_set_new(body, "tools", tools_of(call, arena));
    if (model->max_tokens > 0)
        failed |= json_object_set_new(body, model->max_tokens_legacy ? "max_tokens" : "max_completion_tokens",
                                      json_integer(model->max_tokens));
    return failed == 0 && set_response_format(body, model, call, arena);
}

/* "/chat/completions" goes before a query, which some gateways want (?api-version=...). */
static struct str url_of(const struct chat_model *model, struct arena *arena)
{
    size_t size = strcspn(model->url.data, "?"), base = size;

    while (base > 0 && model->url.data[base - 1] == '/')
        base--;
    return arena_printf(arena, "%.*s/chat/completions%s", (int)base, model->url.data, model->url.data + size);
}

bool chat_request(const struct chat_model *model, const struct call *call, struct str run, struct arena *arena,
                  struct http_request *request, struct error *error)
{
    struct http_header *headers = ARENA_ARRAY(arena, 4, struct http_header);
    size_t count = 0;
    json_t *body = extra_of(model, error);

    if (body == NULL)
        return false;
    if (!fill_in(body, model, call, arena)) {
        json_decref(body);
        return error_set(error, ERROR_POISON, "the request to model %.*s cannot be formed: a text is not valid UTF-8",
                         STR_ARG(model->name));
    }
    headers[count++] = (struct http_header){STR("Content-Type"), STR("application/json")};
    headers[count++] = (struct http_header){STR("X-Client-Request-Id"), call->key};
    headers[count++] = (struct http_header){STR("X-Myelin-Run"), run};
    if (model->key.size > 0)
        headers[count++] = (struct http_header){STR("Authorization"),
                                                arena_printf(arena, "Bearer %.*s", STR_ARG(model->key))};
    *request = (struct http_request){
        .method = STR("POST"),
        .url = url_of(model, arena),
        .headers = headers,
        .headers_count = count,
        .body = json_text(arena, body),
        .timeout_ms = call->timeout_ms > 0    ? call->timeout_ms
                      : model->timeout_ms > 0 ? model->timeout_ms
                                              : TIMEOUT_MS_DEFAULT,
        .answer_size_max = CHAT_ANSWER_SIZE_MAX,
    };
    json_decref(body);
    return true;
}
