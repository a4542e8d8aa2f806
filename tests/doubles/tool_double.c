/* Any HTTP tool, and the judge of the tests: its ledger tells what it received and what it did.
 * What it can do and the formats: README.md. */
#include "tests/doubles/common_demo.h"
#include "tests/doubles/common_http.h"
#include "tests/doubles/common_ledger.h"
#include "tests/doubles/common_options.h"
#include "tests/doubles/common_recorded.h"
#include "tests/doubles/common_script.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const match_keys[] = {"tool", "probe", "args_contain", "key", "run", NULL};
static const char *const answer_keys[] = {"result",
                                          "text",
                                          "bytes",
                                          "invalid_json",
                                          "status",
                                          "acts",
                                          "headers",
                                          "retry_after",
                                          "delay_ms",
                                          "fail_before_acting",
                                          "act_and_not_answer",
                                          "act_and_answer_late",
                                          "honour_keys",
                                          "statuses",
                                          NULL};

struct tool_double {
    struct script script;
    struct recorded recorded;
    json_t *acted; /* "tool key" -> what the first action with that key gave: {type, body} */
    json_t *times; /* tool -> how often it acted */
    bool honour_keys;
};

/* One request to a tool. */
struct call {
    const struct tool_double *tools;
    char *tool, *key; /* malloc'ed */
    const char *run;
    bool probe;
    json_t *args;
    const json_t *answer; /* of the rule; borrowed; NULL: no rule */
    const char *rule;
    const char *outcome; /* for the ledger */
    json_t *result;      /* {type, body} */
    unsigned status;
    json_t *headers;
};

/* ---- what is asked ---- */

/* Finds tool and key in the path: /<tool> with the key in its header, or, to ask what became of a
 * call, GET /<tool>/<key>. */
static void call_name(struct call *call, const struct http_exchange *x)
{
    char *path = strdup(x->path);
    assert(path);
    size_t size = strlen(path);
    while (size && path[size - 1] == '/')
        path[--size] = '\0';
    char *last = strrchr(path, '/');
    const char *key = http_header(x, "Idempotency-Key");
    call->probe = strcmp(x->method, "GET") == 0 && last && last != path;
    if (call->probe) {
        *last = '\0';
        key = last + 1;
        last = strrchr(path, '/');
    }
    call->tool = strdup(last ? last + 1 : path);
    call->key = key ? strdup(key) : NULL;
    free(path);
}

static struct call *call_new(struct http_exchange *x)
{
    struct call *call = calloc(1, sizeof *call);
    assert(call);
    call->tools = x->context;
    call_name(call, x);
    call->run = http_header(x, "X-Myelin-Run");
    if (x->body_size)
        call->args = json_loadb(x->body, x->body_size, JSON_DECODE_ANY, NULL);
    else
        call->args = json_incref(x->query);
    if (!call->args) /* whatever it is, the ledger shows it */
        call->args = json_stringn(x->body, x->body_size);
    if (!call->args)
        call->args = json_string("(no JSON and no UTF-8)");
    call->status = 200;
    x->app = call;
    return call;
}

static void on_end(struct http_exchange *x)
{
    struct call *call = x->app;
    free(call->tool);
    free(call->key);
    json_decref(call->args);
    json_decref(call->result);
    json_decref(call->headers);
    free(call);
}

static void tell(const struct http_exchange *x, const char *event)
{
    const struct call *call = x->app;
    bool received = strcmp(event, "received") == 0, acted = strcmp(event, "acted") == 0;
    json_t *line = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s?, s:s?}", "seq", (json_int_t)x->seq, "event", event, "tool",
                             call->tool, "method", x->method, "path", x->path, "key", call->key, "run", call->run);
    if (call->probe)
        json_object_set_new(line, "probe", json_true());
    if (received)
        json_object_set_new(line, "peer", json_integer(http_peer_port(x)));
    if (received || acted)
        json_object_set(line, "args", call->args);
    if (acted)
        json_object_set(line, "result", json_object_get(call->result, "body"));
    if (!received && !acted)
        json_object_set_new(line, "status", json_integer((json_int_t)call->status));
    if (!received && call->outcome)
        json_object_set_new(line, "outcome", json_string(call->outcome));
    if (!received && call->rule)
        json_object_set_new(line, "rule", json_string(call->rule));
    ledger_write(line);
}

/* ---- matching ---- */

/* A string: in the text of the arguments. An object: each member is there, equal or, for a string,
 * containing it. */
static bool args_contain(const json_t *args, const json_t *wanted)
{
    if (!json_is_object(wanted)) {
        char *text = recorded_canonical(args);
        bool contains = script_contains(text, wanted);
        free(text);
        return contains;
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)wanted, name, value) {
        const json_t *given = json_object_get(args, name);
        bool part = json_is_string(value) && json_is_string(given) && script_contains(json_string_value(given), value);
        if (!part && (!given || !json_equal(value, given)))
            return false;
    }
    return true;
}

static bool same(const json_t *wanted, const char *text)
{
    return !wanted || (json_is_string(wanted) && text && strcmp(json_string_value(wanted), text) == 0);
}

static bool meets(const json_t *match, const void *what)
{
    const struct call *call = what;
    const json_t *args = json_object_get(match, "args_contain");
    return json_is_true(json_object_get(match, "probe")) == call->probe &&
           same(json_object_get(match, "tool"), call->tool) && same(json_object_get(match, "key"), call->key) &&
           same(json_object_get(match, "run"), call->run) && (!args || args_contain(call->args, args));
}

/* ---- results ---- */

static json_t *result_new(const char *type, json_t *body)
{
    return json_pack("{s:s, s:o}", "type", type, "body", body);
}

/* What a key did before; NULL: nothing. Borrowed. */
static json_t *acted_before(const struct call *call)
{
    if (!call->key)
        return NULL;
    char *name = NULL;
    if (asprintf(&name, "%s %s", call->tool, call->key) < 0)
        abort();
    json_t *first = json_object_get(call->tools->acted, name);
    free(name);
    return first;
}

static void acted_add(const struct call *call)
{
    if (!call->key || acted_before(call))
        return;
    char *name = NULL;
    if (asprintf(&name, "%s %s", call->tool, call->key) < 0)
        abort();
    json_object_set(call->tools->acted, name, call->result);
    free(name);
}

/* As the rule says; NULL: the rule says nothing of it. */
static json_t *scripted_result(const struct call *call)
{
    json_t *result = json_object_get(call->answer, "result");
    json_t *text = json_object_get(call->answer, "text");
    json_int_t bytes = json_integer_value(json_object_get(call->answer, "bytes"));
    if (result)
        return result_new("application/json", json_incref(result));
    if (text)
        return result_new("text/plain; charset=utf-8", json_incref(text));
    if (json_is_true(json_object_get(call->answer, "invalid_json")))
        return result_new("invalid", json_string("{\"status\": \"sent\", "));
    if (bytes > 10) { /* {"pad":""} takes 10 of them */
        char *pad = malloc((size_t)bytes - 10);
        assert(pad);
        memset(pad, 'x', (size_t)bytes - 10);
        json_t *body = json_pack("{s:s%}", "pad", pad, (size_t)bytes - 10);
        free(pad);
        return result_new("application/json", body);
    }
    return NULL;
}

static json_t *recorded_result(struct tool_double *tools, const struct call *call)
{
    if (!tools->recorded.conversations)
        return NULL;
    json_t *first = acted_before(call);
    if (first) /* the same call once more, not the next one */
        return json_incref(first);
    const char *text = recorded_next(&tools->recorded, call->run, call->tool, call->args);
    return text ? result_new("text/plain; charset=utf-8", json_string(text)) : NULL;
}

static json_t *demo(struct tool_double *tools, const struct call *call)
{
    json_int_t nth = json_integer_value(json_object_get(tools->times, call->tool)) + 1;
    json_t *body = demo_result(call->tool, call->args, nth);
    return body ? result_new("application/json", body) : NULL;
}

static char *body_text(const json_t *result)
{
    const json_t *body = json_object_get(result, "body");
    const char *type = json_string_value(json_object_get(result, "type"));
    if (strcmp(type, "application/json") != 0)
        return strdup(json_string_value(body));
    char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
    assert(text);
    return text;
}

/* ---- the life of a call: delay, act, delay, answer ---- */

static void answer_send(struct http_exchange *x)
{
    struct call *call = x->app;
    if (http_client_left(x)) {
        call->outcome = "client_left";
        tell(x, "not_answered");
        http_cut(x);
        return;
    }
    tell(x, "answered");
    const char *type = json_string_value(json_object_get(call->result, "type"));
    char *body = body_text(call->result);
    http_answer(x, &(struct http_answer){.status = call->status,
                                         .type = strcmp(type, "invalid") != 0 ? type : "application/json",
                                         .headers = call->headers,
                                         .body = body,
                                         .body_size = strlen(body)});
}

static void result_set(struct call *call, json_t *result)
{
    json_decref(call->result);
    call->result = result;
}

/* An error answer, before anything was done. */
static void fail(struct http_exchange *x, unsigned status, const char *outcome, const char *message)
{
    struct call *call = x->app;
    call->status = status;
    call->outcome = outcome;
    json_t *result = scripted_result(call);
    if (!result)
        result = result_new("application/json",
                            json_pack("{s:{s:s, s:s}}", "error", "code", outcome, "message", message));
    result_set(call, result);
    answer_send(x);
}

static void answer_probe(struct http_exchange *x)
{
    struct call *call = x->app;
    const json_t *names = json_object_get(call->answer, "statuses");
    const json_t *first = acted_before(call);
    const char *name = json_string_value(json_object_get(names, first ? "acted" : "unknown"));
    json_t *result = scripted_result(call);
    if (!result) {
        json_t *body = json_pack("{s:s}", "status", name ? name : first ? "sent" : "unknown");
        if (first)
            json_object_set(body, "result", json_object_get(first, "body"));
        result = result_new("application/json", body);
    }
    result_set(call, result);
    call->outcome = first ? "probe: acted" : "probe: unknown";
    answer_send(x);
}

/* Acts, unless that key has acted and the tool honours keys. False: there is no such tool. */
static bool act(struct http_exchange *x)
{
    struct call *call = x->app;
    struct tool_double *tools = x->context;
    json_t *result = recorded_result(tools, call), *scripted = scripted_result(call);
    json_t *honour = json_object_get(call->answer, "honour_keys"), *first = acted_before(call);
    bool honours = honour ? json_is_true(honour) : tools->honour_keys || result;
    if (!result)
        result = demo(tools, call);
    if (!result && call->answer)
        result = result_new("application/json", json_pack("{s:s}", "status", "ok"));
    if (!result && !scripted)
        return false;
    bool repeated = first && honours;
    result_set(call, repeated ? json_incref(first) : json_incref(scripted ? scripted : result));
    json_decref(scripted);
    json_decref(result);
    call->outcome = repeated ? "repeated" : "acted";
    if (!repeated) {
        json_int_t times = json_integer_value(json_object_get(tools->times, call->tool));
        json_object_set_new(tools->times, call->tool, json_integer(times + 1));
        acted_add(call);
        tell(x, "acted");
    }
    return true;
}

static void after_acting(struct http_exchange *x)
{
    struct call *call = x->app;
    const char *silent = json_string_value(json_object_get(call->answer, "act_and_not_answer"));
    const json_t *late = json_object_get(call->answer, "act_and_answer_late");
    const json_t *status = json_object_get(call->answer, "status");
    if (status && strcmp(call->outcome, "repeated") != 0)
        call->status = (unsigned)json_integer_value(status);
    if (silent) {
        tell(x, "not_answered");
        if (strcmp(silent, "hold") != 0)
            http_cut(x);
        else
            http_hold(x);
    } else if (late) {
        http_later(x, (long)json_integer_value(late), answer_send);
    } else {
        answer_send(x);
    }
}

static void begin(struct http_exchange *x)
{
    struct call *call = x->app;
    const json_t *before = json_object_get(call->answer, "fail_before_acting");
    const json_t *status = json_object_get(call->answer, "status");
    bool acts = json_integer_value(status) < 400 || json_is_true(json_object_get(call->answer, "acts"));
    if (json_is_string(before)) {
        call->outcome = "failed_before_acting";
        tell(x, "not_answered");
        http_cut(x);
    } else if (before || !acts) {
        fail(x, (unsigned)json_integer_value(before ? before : status), "failed_before_acting", "as the script says");
    } else if (call->probe) {
        answer_probe(x);
    } else if (act(x)) {
        after_acting(x);
    } else {
        fail(x, 404, "no_rule", "no rule, no recording and no built-in tool for this call");
    }
}

static void on_request(struct http_exchange *x)
{
    struct tool_double *tools = x->context;
    struct call *call = call_new(x);
    tell(x, "received");
    struct script_request request = {call->key, call->run, call};
    const json_t *rule = script_choose(&tools->script, &request, meets);
    call->answer = json_object_get(rule, "answer");
    call->rule = json_string_value(json_object_get(rule, "name"));
    json_t *headers = json_object_get(call->answer, "headers");
    json_t *retry_after = json_object_get(call->answer, "retry_after");
    call->headers = headers ? json_copy(headers) : json_object();
    if (retry_after)
        json_object_set(call->headers, "Retry-After", retry_after);
    json_int_t delay_ms = json_integer_value(json_object_get(call->answer, "delay_ms"));
    if (delay_ms > 0)
        http_later(x, (long)delay_ms, begin);
    else
        begin(x);
}

int main(int argc, char **argv)
{
    struct options options = options_parse(argc, argv, "honour-keys", "each tool acts once per Idempotency-Key");
    struct tool_double tools = {.script = {.match_keys = match_keys, .answer_keys = answer_keys},
                                .acted = json_object(),
                                .times = json_object(),
                                .honour_keys = options.flag};
    for (size_t i = 0; i < options.scripts_count; i++)
        if (!script_load(&tools.script, options.scripts[i]))
            return 1;
    for (size_t i = 0; i < options.recorded_count; i++)
        if (!recorded_load(&tools.recorded, options.recorded[i]))
            return 1;
    if (!ledger_open(options.ledger))
        return 1;
    int status = http_serve(&(struct http_settings){.port = options.port,
                                                    .port_file = options.port_file,
                                                    .on_request = on_request,
                                                    .on_end = on_end,
                                                    .context = &tools});
    ledger_close();
    script_free(&tools.script);
    recorded_free(&tools.recorded);
    json_decref(tools.acted);
    json_decref(tools.times);
    return status;
}
