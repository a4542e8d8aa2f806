#include "tests/doubles/common_chat.h"

#include "tests/doubles/common_script.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *role_of(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    if (!role)
        return "";
    return strcmp(role, "developer") != 0 ? role : "system";
}

char *chat_text(const json_t *message)
{
    const json_t *content = json_object_get(message, "content");
    char *text = NULL;
    size_t size, index;
    FILE *out = open_memstream(&text, &size);
    assert(out);
    if (json_is_string(content))
        fputs(json_string_value(content), out);
    json_t *part;
    json_array_foreach((json_t *)content, index, part) {
        const char *piece = json_string_value(json_object_get(part, "text"));
        fputs(piece ? piece : "", out);
    }
    fclose(out);
    return text;
}

bool chat_says(const json_t *messages, const char *role, const json_t *needle)
{
    size_t index;
    json_t *message;
    json_array_foreach((json_t *)messages, index, message) {
        if (strcmp(role_of(message), role) != 0)
            continue;
        char *text = chat_text(message);
        bool says = script_contains(text, needle);
        free(text);
        if (says)
            return true;
    }
    return false;
}

const json_t *chat_first(const json_t *messages, const char *role)
{
    size_t index;
    json_t *message;
    json_array_foreach((json_t *)messages, index, message)
        if (strcmp(role_of(message), role) == 0)
            return message;
    return NULL;
}

size_t chat_turns(const json_t *messages)
{
    size_t turns = 0, index;
    json_t *message;
    json_array_foreach((json_t *)messages, index, message)
        turns += strcmp(role_of(message), "assistant") == 0;
    return turns;
}

bool chat_offers(const json_t *request, const char *tool)
{
    size_t index;
    json_t *each;
    json_array_foreach(json_object_get(request, "tools"), index, each) {
        const char *name = json_string_value(json_object_get(json_object_get(each, "function"), "name"));
        if (name && strcmp(name, tool) == 0)
            return true;
    }
    return false;
}

size_t chat_size(const json_t *messages)
{
    size_t size = 0, index, call_index;
    json_t *message, *call;
    json_array_foreach((json_t *)messages, index, message) {
        char *text = chat_text(message);
        size += strlen(text);
        free(text);
        json_array_foreach(json_object_get(message, "tool_calls"), call_index, call)
            size += json_string_length(json_object_get(json_object_get(call, "function"), "arguments"));
    }
    return size;
}

/* ---- faults ---- */

static char *fault(const char *where, size_t index, const char *what)
{
    char *text = NULL;
    if (asprintf(&text, "%s[%zu] %s", where, index, what) < 0)
        abort();
    return text;
}

static const char *call_fault(const json_t *call)
{
    const json_t *function = json_object_get(call, "function");
    const char *type = json_string_value(json_object_get(call, "type"));
    if (!json_is_string(json_object_get(call, "id")))
        return "has a tool call without id";
    if (!type || strcmp(type, "function") != 0)
        return "has a tool call whose type is not \"function\"";
    if (!json_is_string(json_object_get(function, "name")) || !json_is_string(json_object_get(function, "arguments")))
        return "has a tool call without a name or whose arguments are no string";
    return NULL;
}

/* Puts the ids of the calls into `open`. */
static const char *assistant_fault(const json_t *message, json_t *open)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    size_t index;
    json_t *call;
    if (calls && (!json_is_array(calls) || !json_array_size(calls)))
        return "has tool_calls that is not an array of at least one";
    if (!calls && !json_is_string(json_object_get(message, "content")))
        return "is from the assistant and has neither content nor tool_calls";
    json_array_foreach((json_t *)calls, index, call) {
        const char *wrong = call_fault(call);
        if (wrong)
            return wrong;
        const char *id = json_string_value(json_object_get(call, "id"));
        if (json_object_get(open, id))
            return "has two tool calls of one id";
        json_object_set_new(open, id, json_true());
    }
    return NULL;
}

static const char *message_fault(const json_t *message, json_t *open)
{
    const char *role = role_of(message);
    const json_t *content = json_object_get(message, "content");
    if (strcmp(role, "tool") == 0) {
        const char *id = json_string_value(json_object_get(message, "tool_call_id"));
        if (!id || json_object_del(open, id))
            return "answers no open tool call";
        return json_is_string(content) || json_is_array(content) ? NULL : "has no content";
    }
    if (json_object_size(open))
        return "comes before every tool call was answered";
    if (strcmp(role, "assistant") == 0)
        return assistant_fault(message, open);
    if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0)
        return "has an unknown role";
    return json_is_string(content) || json_is_array(content) ? NULL : "has no content";
}

static char *messages_fault(const json_t *messages)
{
    json_t *open = json_object(), *message;
    char *text = NULL;
    size_t index;
    json_array_foreach((json_t *)messages, index, message) {
        const char *wrong = message_fault(message, open);
        if (wrong) {
            text = fault("messages", index, wrong);
            break;
        }
    }
    if (!text && json_object_size(open))
        text = fault("messages", json_array_size(messages) - 1, "is the last, and a tool call is not answered");
    json_decref(open);
    return text;
}

static bool tool_name_ok(const char *name)
{
    size_t size = name ? strlen(name) : 0;
    return size >= 1 && size <= 64 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == size;
}

static char *tools_fault(const json_t *request)
{
    size_t index;
    json_t *tool;
    json_array_foreach(json_object_get(request, "tools"), index, tool) {
        const char *type = json_string_value(json_object_get(tool, "type"));
        const json_t *function = json_object_get(tool, "function");
        const json_t *parameters = json_object_get(function, "parameters");
        if (!type || strcmp(type, "function") != 0)
            return fault("tools", index, "has a type that is not \"function\"");
        if (!tool_name_ok(json_string_value(json_object_get(function, "name"))))
            return fault("tools", index, "has a name that is not [a-zA-Z0-9_-]{1,64}");
        if (parameters && !json_is_object(parameters))
            return fault("tools", index, "has parameters that are no object");
    }
    return NULL;
}

char *chat_fault(const json_t *request)
{
    const json_t *messages = json_object_get(request, "messages");
    const char *wrong = NULL;
    if (!json_is_object(request))
        wrong = "the body is no JSON object";
    else if (!json_is_string(json_object_get(request, "model")))
        wrong = "model is missing";
    else if (!json_array_size(messages))
        wrong = "messages is missing or empty";
    else if (json_is_true(json_object_get(request, "stream")))
        wrong = "stream is not offered here";
    if (wrong)
        return strdup(wrong);
    char *text = tools_fault(request);
    return text ? text : messages_fault(messages);
}
