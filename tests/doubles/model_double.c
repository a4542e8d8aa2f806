/* A model endpoint that plays a script or a recording: OpenAI-compatible chat completions.
 * What it can do and the formats: README.md. */
#include "tests/doubles/common_chat.h"
#include "tests/doubles/common_http.h"
#include "tests/doubles/common_ledger.h"
#include "tests/doubles/common_options.h"
#include "tests/doubles/common_script.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const match_keys[] = {
    "model", "run", "system_contains", "user_contains", "turn", "last_role", "last_contains", "tools_include", NULL};
static const char *const answer_keys[] = {
    "content", "tool_calls",  "finish_reason", "usage", "delay_ms", "status",       "code",      "type",
    "message", "retry_after", "headers",       "cut",   "raw_body", "raw_body_hex", "truncated", NULL};

struct model_double {
    struct script script;
    json_t *conversations; /* id -> {user, answers} */
    bool full;             /* the ledger gets whole requests */
};

/* One request as the rules see it. Everything is borrowed but last_text. */
struct question {
    const json_t *request, *messages;
    const char *model, *run, *last_role;
    char *last_text;
    size_t turn;
};

struct reply {
    struct http_answer http;
    json_t *headers;
    json_t *line; /* for the ledger */
    bool silent;  /* the connection closes without an answer */
};

/* ---- matching ---- */

static bool equals(const json_t *wanted, const char *text)
{
    return !wanted || (json_is_string(wanted) && text && strcmp(json_string_value(wanted), text) == 0);
}

static bool offers_all(const json_t *request, const json_t *tools)
{
    size_t index;
    json_t *tool;
    if (json_is_string(tools))
        return chat_offers(request, json_string_value(tools));
    json_array_foreach((json_t *)tools, index, tool)
        if (!json_is_string(tool) || !chat_offers(request, json_string_value(tool)))
            return false;
    return true;
}

static bool meets(const json_t *match, const void *what)
{
    const struct question *q = what;
    const json_t *system = json_object_get(match, "system_contains");
    const json_t *user = json_object_get(match, "user_contains");
    const json_t *last = json_object_get(match, "last_contains");
    const json_t *turn = json_object_get(match, "turn");
    return equals(json_object_get(match, "model"), q->model) && equals(json_object_get(match, "run"), q->run) &&
           equals(json_object_get(match, "last_role"), q->last_role) &&
           (!turn || json_integer_value(turn) == (json_int_t)q->turn) &&
           (!last || script_contains(q->last_text, last)) && (!system || chat_says(q->messages, "system", system)) &&
           (!user || chat_says(q->messages, "user", user)) &&
           offers_all(q->request, json_object_get(match, "tools_include"));
}

/* ---- recordings ---- */

static bool recorded_load(struct model_double *model, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return false;
    }
    json_error_t error;
    bool ok = true;
    for (json_t *each; ok && (each = json_loadf(file, JSON_DISABLE_EOF_CHECK, &error));) {
        const char *id = json_string_value(json_object_get(each, "id"));
        ok = id && json_is_string(json_object_get(each, "user")) && json_is_array(json_object_get(each, "answers"));
        if (ok)
            json_object_set(model->conversations, id, each);
        json_decref(each);
    }
    ok = ok && feof(file);
    if (!ok)
        fprintf(stderr, "%s: a line is {\"id\", \"user\", \"answers\": [...]}\n", path);
    fclose(file);
    return ok;
}

static void strings_print(const json_t *value, FILE *out)
{
    const char *name;
    json_t *each;
    size_t index;
    if (json_is_string(value))
        fprintf(out, "\n%s", json_string_value(value));
    json_object_foreach((json_t *)value, name, each)
        strings_print(each, out);
    json_array_foreach((json_t *)value, index, each)
        strings_print(each, out);
}

/* The text of a message and, if that text is JSON, the strings in it; malloc'ed. */
static char *text_and_strings(const json_t *message)
{
    char *text = chat_text(message), *all = NULL;
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    size_t size;
    FILE *out = open_memstream(&all, &size);
    assert(out);
    fputs(text, out);
    strings_print(value, out);
    fclose(out);
    json_decref(value);
    free(text);
    return all;
}

/* The task may stand in the text as it is, or within a JSON value in the midst of it. */
static bool tells(const char *text, const json_t *task)
{
    char *quoted = json_dumps(task, JSON_ENCODE_ANY);
    assert(quoted);
    quoted[strlen(quoted) - 1] = '\0';
    bool found = strstr(text, json_string_value(task)) || strstr(text, quoted + 1);
    free(quoted);
    return found;
}

/* By the run's id, else the longest task that the first user message tells: one task may be part
 * of another. */
static const json_t *recorded_find(const struct model_double *model, const struct question *q)
{
    const json_t *best = q->run ? json_object_get(model->conversations, q->run) : NULL;
    if (best)
        return best;
    char *text = text_and_strings(chat_first(q->messages, "user"));
    const char *id;
    json_t *each;
    size_t best_size = 0;
    json_object_foreach(model->conversations, id, each) {
        const json_t *task = json_object_get(each, "user");
        if (json_string_length(task) > best_size && tells(text, task)) {
            best = each;
            best_size = json_string_length(task);
        }
    }
    free(text);
    return best;
}

/* ---- answers ---- */

static char *dump(const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    assert(text);
    return text;
}

/* A string as it is, anything else as JSON text; malloc'ed. */
static char *as_text(const json_t *value)
{
    return json_is_string(value) ? strdup(json_string_value(value)) : dump(value);
}

static void halve(char *text)
{
    size_t size = strlen(text) / 2;
    while (size && ((unsigned char)text[size] & 0xC0) == 0x80) /* not inside a UTF-8 character */
        size--;
    text[size] = '\0';
}

static json_t *calls_new(const json_t *wanted, size_t turn, bool truncated)
{
    json_t *calls = json_array(), *each;
    size_t index, last = json_array_size(wanted) - 1;
    json_array_foreach((json_t *)wanted, index, each) {
        const json_t *given = json_object_get(each, "arguments");
        const json_t *id = json_object_get(each, "id");
        char *arguments = given ? as_text(given) : strdup("{}");
        if (truncated && index == last)
            halve(arguments);
        json_array_append_new(calls, json_pack("{s:o, s:s, s:{s:O, s:s}}", "id",
                                               id ? json_copy((json_t *)id) : json_sprintf("call_%zu_%zu", turn, index),
                                               "type", "function", "function", "name", json_object_get(each, "name"),
                                               "arguments", arguments));
        free(arguments);
    }
    return calls;
}

static json_t *message_new(const json_t *answer, size_t turn)
{
    bool truncated = json_is_true(json_object_get(answer, "truncated"));
    const json_t *content = json_object_get(answer, "content");
    const json_t *wanted = json_object_get(answer, "tool_calls");
    json_t *message = json_pack("{s:s, s:n}", "role", "assistant", "content");
    if (content && !json_is_null(content)) {
        char *text = as_text(content);
        if (truncated && !wanted)
            halve(text);
        json_object_set_new(message, "content", json_string(text));
        free(text);
    }
    json_object_set_new(message, "refusal", json_null());
    if (json_array_size(wanted))
        json_object_set_new(message, "tool_calls", calls_new(wanted, turn, truncated));
    return message;
}

static json_t *usage_new(const json_t *answer, const json_t *messages, const json_t *message)
{
    json_t *given = json_object_get(answer, "usage");
    if (given)
        return json_is_null(given) ? NULL : json_incref(given);
    json_t *out = json_pack("[O]", message);
    json_int_t asked = (json_int_t)(chat_size(messages) + 3) / 4;
    json_int_t said = (json_int_t)(chat_size(out) + 3) / 4;
    json_decref(out);
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", asked, "completion_tokens", said, "total_tokens",
                     asked + said);
}

/* FNV-1a, 64 bits (isthe.com/chongo/tech/comp/fnv): the same request gets the same response id. */
static uint64_t hash(const char *bytes, size_t size)
{
    uint64_t h = 0xcbf29ce484222325U;
    for (size_t i = 0; i < size; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3U;
    return h;
}

static json_t *completion_new(const struct http_exchange *x, const struct question *q, const json_t *answer,
                              json_t *line)
{
    json_t *message = message_new(answer, q->turn);
    const char *reason = json_string_value(json_object_get(answer, "finish_reason"));
    if (!reason && json_is_true(json_object_get(answer, "truncated")))
        reason = "length";
    if (!reason)
        reason = json_object_get(message, "tool_calls") ? "tool_calls" : "stop";
    json_t *body = json_pack("{s:o, s:s, s:i, s:s, s:[{s:i, s:O, s:n, s:s}]}", "id",
                             json_sprintf("chatcmpl-%016llx", (unsigned long long)hash(x->body, x->body_size)),
                             "object", "chat.completion", "created", 1700000000, "model", q->model, "choices", "index",
                             0, "message", message, "logprobs", "finish_reason", reason);
    json_t *usage = usage_new(answer, q->messages, message);
    if (usage)
        json_object_set_new(body, "usage", usage);
    json_object_set_new(line, "message", message);
    json_object_set_new(line, "finish_reason", json_string(reason));
    return body;
}

static json_t *error_new(const char *message, const char *type, const char *code)
{
    return json_pack("{s:{s:s, s:s, s:n, s:s?}}", "error", "message", message, "type", type, "param", "code", code);
}

static json_t *failure_new(const json_t *answer, unsigned status)
{
    const char *message = json_string_value(json_object_get(answer, "message"));
    const char *type = json_string_value(json_object_get(answer, "type"));
    const char *code = json_string_value(json_object_get(answer, "code"));
    char fallback[64];
    snprintf(fallback, sizeof fallback, "the script answers %u", status);
    if (!type)
        type = status == 429 ? "rate_limit_error" : status >= 500 ? "server_error" : "invalid_request_error";
    return error_new(message ? message : fallback, type, code);
}

/* Pairs of hex digits to bytes, in place; returns the size. */
static size_t unhex(char *text)
{
    size_t size = 0;
    for (const char *p = text; p[0] && p[1]; p += 2)
        text[size++] = (char)strtoul((const char[]){p[0], p[1], '\0'}, NULL, 16);
    return size;
}

static void body_set(struct reply *reply, const json_t *answer, json_t *body)
{
    const json_t *raw = json_object_get(answer, "raw_body");
    const json_t *hex = json_object_get(answer, "raw_body_hex");
    reply->http.body = json_is_string(raw)   ? strdup(json_string_value(raw))
                       : json_is_string(hex) ? strdup(json_string_value(hex))
                                             : dump(body);
    reply->http.body_size = json_is_string(hex) && !json_is_string(raw) ? unhex(reply->http.body)
                                                                        : strlen(reply->http.body);
    json_decref(body);
}

static void cut_set(struct reply *reply, const char *cut)
{
    if (!cut)
        return;
    json_object_set_new(reply->line, "cut", json_string(cut));
    reply->silent = strcmp(cut, "headers") != 0 && strcmp(cut, "body") != 0;
    reply->http.cut = strcmp(cut, "headers") != 0 ? HTTP_CUT_BODY : HTTP_CUT_HEADERS;
}

static void on_end(struct http_exchange *x)
{
    struct reply *reply = x->app;
    if (!reply)
        return;
    json_decref(reply->headers);
    json_decref(reply->line);
    free(reply->http.body);
    free(reply);
}

static void reply_send(struct http_exchange *x)
{
    struct reply *reply = x->app;
    bool left = http_client_left(x);
    json_object_set_new(reply->line, "event",
                        json_string(left            ? "client_left"
                                    : reply->silent ? "not_answered"
                                                    : "answered"));
    ledger_write(reply->line);
    reply->line = NULL;
    if (left || reply->silent) {
        http_cut(x);
        return;
    }
    http_answer(x, &reply->http);
    reply->http.body = NULL;
}

/* Takes `line` and `body`. */
static struct reply *reply_new(struct http_exchange *x, unsigned status, json_t *line, const json_t *answer,
                               json_t *body)
{
    struct reply *reply = calloc(1, sizeof *reply);
    assert(reply);
    const json_t *headers = json_object_get(answer, "headers");
    json_t *retry_after = json_object_get(answer, "retry_after");
    json_object_set_new(line, "status", json_integer((json_int_t)status));
    reply->line = line;
    reply->headers = headers ? json_copy((json_t *)headers) : json_object();
    if (retry_after)
        json_object_set(reply->headers, "Retry-After", retry_after);
    reply->http = (struct http_answer){.status = status, .type = "application/json", .headers = reply->headers};
    body_set(reply, answer, body);
    cut_set(reply, json_string_value(json_object_get(answer, "cut")));
    x->app = reply;
    return reply;
}

static void refuse(struct http_exchange *x, unsigned status, const char *code, const char *message)
{
    json_t *line = json_pack("{s:I, s:n, s:s, s:s}", "seq", (json_int_t)x->seq, "event", "error", code, "why", message);
    reply_new(x, status, line, NULL, error_new(message, "invalid_request_error", code));
    reply_send(x);
}

/* ---- a request ---- */

static const json_t *answer_find(struct model_double *model, const struct question *q, const char *key, json_t *line)
{
    struct script_request request = {key, q->run, q};
    const json_t *rule = script_choose(&model->script, &request, meets);
    if (rule) {
        json_object_set(line, "rule", json_object_get(rule, "name"));
        return json_object_get(rule, "answer");
    }
    const json_t *conversation = recorded_find(model, q);
    const json_t *answer = json_array_get(json_object_get(conversation, "answers"), q->turn);
    if (answer)
        json_object_set_new(line, "rule",
                            json_sprintf("%s@%zu", json_string_value(json_object_get(conversation, "id")), q->turn));
    return answer;
}

static void play(struct http_exchange *x, const struct question *q, const char *key)
{
    json_t *line = json_pack("{s:I, s:n, s:n}", "seq", (json_int_t)x->seq, "event", "rule");
    const json_t *answer = answer_find(x->context, q, key, line);
    if (!answer) {
        char *text = NULL;
        if (asprintf(&text, "no rule and no recording for model \"%s\", turn %zu, last (%s): %.200s", q->model, q->turn,
                     q->last_role, q->last_text) < 0)
            abort();
        json_decref(line);
        refuse(x, 400, "no_rule", text);
        free(text);
        return;
    }
    const json_t *wanted = json_object_get(answer, "status");
    const json_t *delay = json_object_get(answer, "delay_ms");
    unsigned status = wanted ? (unsigned)json_integer_value(wanted) : 200;
    json_t *body = status >= 400 ? failure_new(answer, status) : completion_new(x, q, answer, line);
    reply_new(x, status, line, answer, body);
    if (json_integer_value(delay) > 0)
        http_later(x, (long)json_integer_value(delay), reply_send);
    else
        reply_send(x);
}

/* One line at arrival, so that a request whose client is killed is seen. */
static void arrived(const struct http_exchange *x, json_t *request, const struct question *q, const char *key)
{
    const struct model_double *model = x->context;
    json_t *line = json_pack("{s:I, s:s, s:s?, s:s?, s:s?, s:s?, s:I, s:I, s:s?}", "seq", (json_int_t)x->seq, "event",
                             "received", "request_id", http_header(x, "X-Client-Request-Id"), "key", key, "run", q->run,
                             "model", q->model, "messages", (json_int_t)json_array_size(q->messages), "turn",
                             (json_int_t)q->turn, "last_role", q->last_role);
    if (model->full)
        json_object_set(line, "request", request);
    ledger_write(line);
}

static void models_list(struct http_exchange *x)
{
    json_t *line = json_pack("{s:I, s:n, s:s}", "seq", (json_int_t)x->seq, "event", "rule", "models");
    reply_new(x, 200, line, NULL,
              json_pack("{s:s, s:[{s:s, s:s}]}", "object", "list", "data", "id", "default", "object", "model"));
    reply_send(x);
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);
    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

static void on_request(struct http_exchange *x)
{
    if (strcmp(x->method, "GET") == 0 && ends_with(x->path, "/models")) {
        models_list(x);
        return;
    }
    if (strcmp(x->method, "POST") != 0 || !ends_with(x->path, "/chat/completions")) {
        refuse(x, 404, "not_found", "only POST .../chat/completions and GET .../models");
        return;
    }
    json_t *request = json_loadb(x->body, x->body_size, 0, NULL);
    const json_t *messages = json_object_get(request, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    struct question q = {.request = request,
                         .messages = messages,
                         .model = json_string_value(json_object_get(request, "model")),
                         .run = http_header(x, "X-Myelin-Run"),
                         .last_role = json_string_value(json_object_get(last, "role")),
                         .last_text = chat_text(last),
                         .turn = chat_turns(messages)};
    const char *key = http_header(x, "Idempotency-Key");
    arrived(x, request, &q, key);
    char *fault = chat_fault(request);
    if (fault)
        refuse(x, 400, "invalid_request", fault);
    else
        play(x, &q, key ? key : http_header(x, "X-Client-Request-Id"));
    free(fault);
    free(q.last_text);
    json_decref(request);
}

int main(int argc, char **argv)
{
    struct options options = options_parse(argc, argv, "full", "the ledger gets whole requests, prompts too");
    struct model_double model = {.script = {.match_keys = match_keys, .answer_keys = answer_keys},
                                 .conversations = json_object(),
                                 .full = options.flag};
    for (size_t i = 0; i < options.scripts_count; i++)
        if (!script_load(&model.script, options.scripts[i]))
            return 1;
    for (size_t i = 0; i < options.recorded_count; i++)
        if (!recorded_load(&model, options.recorded[i]))
            return 1;
    if (!ledger_open(options.ledger))
        return 1;
    int status = http_serve(&(struct http_settings){.port = options.port,
                                                    .port_file = options.port_file,
                                                    .on_request = on_request,
                                                    .on_end = on_end,
                                                    .context = &model});
    ledger_close();
    script_free(&model.script);
    json_decref(model.conversations);
    return status;
}
