#include "tests/sim/outside.h"

#include <string.h>

#include "tests/sim/world.h"
#include "worker/base/json.h"

#define ANSWER_MS_MAX 300
/* How long after it left a write may still execute: less than half its timeout and the settle time together (io/ledger.h). What
 * comes later than that is only to be borne by a tool that honours keys. */
#define LATE_MS_MAX 4990
#define LATE_WITH_KEY_MS_MAX 20000

struct executed {
    struct executed *next;
    struct str tool, key, run, body, answer;
    int times;
};

static struct {
    struct exchange *exchanges;
    struct executed *executed;
    int count;
} outside;

void outside_open(void)
{
    memset(&outside, 0, sizeof(outside));
}

struct str outside_words(void)
{
    size_t size = dice(2) == 0 ? (size_t)dice(20) : RUN_INLINE_MAX - 200 + (size_t)dice(600);
    char *text = arena_alloc(world.arena, size + 1);
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + (i == 0 ? dice(26) : i % 26));
    text[size] = '\0';
    return (struct str){text, size};
}

static struct executed *find(struct str key)
{
    struct executed *one = outside.executed;
    while (one != NULL && !str_equal(one->key, key))
        one = one->next;
    return one;
}

int outside_executed(struct str key)
{
    const struct executed *one = find(key);
    return one != NULL ? one->times : 0;
}

bool outside_settled(struct str key)
{
    for (const struct exchange *one = outside.exchanges; one != NULL; one = one->next)
        if (one->write && str_equal(one->key, key) && one->executes_us != INT64_MAX)
            return false;
    return true;
}

void outside_each(void (*look)(struct str tool, struct str key, struct str run))
{
    for (const struct executed *one = outside.executed; one != NULL; one = one->next)
        look(one->tool, one->key, one->run);
}

/* ---- executing ---- */

/* I4, I5: at most once; a tool that honours keys does it once however often it is asked, with the same request each time. */
static struct str execute_write(const struct exchange *exchange)
{
    struct executed *one = find(exchange->key);
    if (exchange->key.size == 0)
        wrong("%.*s was called without a key", STR_ARG(exchange->tool));
    if (one != NULL && !exchange->honours_keys)
        wrong("%.*s was executed twice under key %.*s of run %.*s", STR_ARG(exchange->tool), STR_ARG(exchange->key),
              STR_ARG(exchange->run));
    if (one != NULL && (!str_equal(one->body, exchange->body) || !str_equal(one->tool, exchange->tool) ||
                        !str_equal(one->run, exchange->run)))
        wrong("key %.*s stands for two different calls: %.*s and %.*s", STR_ARG(exchange->key), STR_ARG(one->body),
              STR_ARG(exchange->body));
    if (one == NULL) {
        one = ARENA_NEW(world.arena, struct executed);
        *one = (struct executed){.next = outside.executed,
                                 .tool = exchange->tool,
                                 .key = exchange->key,
                                 .run = exchange->run,
                                 .body = exchange->body,
                                 .answer = arena_printf(world.arena, "{\"ok\":true,\"number\":%d}", ++outside.count)};
        outside.executed = one;
    }
    one->times++;
    tell("%.*s executed for %.*s, key %.*s", STR_ARG(one->tool), STR_ARG(one->run), STR_ARG(one->key));
    return one->answer;
}

/* An agent that looks up, may send a mail, and then says so. */
static struct str model_answer(const struct exchange *exchange)
{
    json_t *request = json_read(exchange->body, 1 << 20, NULL), *messages = json_object_get(request, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    bool told = role != NULL && strcmp(role, "tool") == 0;
    json_decref(request);
    if (told && dice(3) > 0)
        return arena_printf(
            world.arena,
            "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"{\\\"said\\\":\\\"%.*s\\\"}\"},"
            "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}",
            STR_ARG(outside_words()));
    return arena_printf(
        world.arena,
        "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c%llu\","
        "\"type\":\"function\",\"function\":{\"name\":\"%s\",\"arguments\":\"{\\\"text\\\":\\\"%llu\\\"}\"}}]},"
        "\"finish_reason\":\"tool_calls\"}]}",
        (unsigned long long)dice(1000000), dice(2) == 0 ? "mail" : "look", (unsigned long long)dice(1000));
}

static struct str execute(const struct exchange *exchange)
{
    if (exchange->write)
        return execute_write(exchange);
    if (exchange->probe)
        return outside_executed(exchange->key) > 0 ? STR("{\"done\":true}") : STR("{\"done\":false}");
    if (str_is(exchange->tool, "v1"))
        return model_answer(exchange);
    return arena_printf(world.arena, "{\"found\":%llu,\"page\":\"%.*s\"}", (unsigned long long)dice(1000),
                        STR_ARG(outside_words()));
}

void outside_serve(void)
{
    for (struct exchange **at = &outside.exchanges; *at != NULL;) {
        struct exchange *exchange = *at;
        if (exchange->executes_us <= world.now_us) {
            struct str answer = execute(exchange);
            exchange->answer = exchange->status == 200 ? answer : exchange->answer;
            exchange->executes_us = INT64_MAX;
            if (exchange->honours_keys && trouble(8)) /* a proxy repeats it, late */
                exchange->executes_us = world.now_us + dice_between(0, LATE_WITH_KEY_MS_MAX) * 1000;
        }
        if (exchange->executes_us == INT64_MAX)
            *at = exchange->next;
        else
            at = &exchange->next;
    }
}

/* ---- what may become of a request ---- */

static void troubles(struct exchange *exchange)
{
    int64_t late_ms = exchange->honours_keys ? LATE_WITH_KEY_MS_MAX : LATE_MS_MAX;
    switch (dice(24)) {
    case 0: /* it never gets there */
        exchange->executes_us = exchange->answers_us = INT64_MAX;
        break;
    case 1: /* its answer gets lost */
        exchange->answers_us = INT64_MAX;
        break;
    case 2: /* slow: nobody may be waiting any more */
    case 7:
    case 8:
    case 9:
        exchange->executes_us = world.now_us + dice_between(0, late_ms) * 1000;
        exchange->answers_us = exchange->executes_us + dice_between(0, 2000) * 1000;
        break;
    case 3: /* an error, after it was executed */
        exchange->status = 500;
        break;
    case 4: /* an error, before */
        exchange->status = 500;
        exchange->executes_us = INT64_MAX;
        break;
    case 5: /* surely not executed, says the contract */
        exchange->status = 503;
        exchange->executes_us = INT64_MAX;
        break;
    case 6:
        exchange->status = 429;
        exchange->executes_us = INT64_MAX;
        break;
    default:
        break;
    }
}

static struct str header(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->headers_count; i++)
        if (str_is(request->headers[i].name, name))
            return arena_str(world.arena, request->headers[i].value);
    return STR("");
}

/* http://HOST/TOOL, and for a probe http://HOST/TOOL/status/KEY */
static void read_url(struct exchange *exchange, struct str url)
{
    const char *tool = strchr(url.data + strlen("http://"), '/') + 1, *end = strchrnul(tool, '/');
    exchange->tool = arena_copy(world.arena, tool, (size_t)(end - tool));
    exchange->probe = strncmp(end, "/status/", 8) == 0;
    if (exchange->probe)
        exchange->key = arena_str(world.arena, str_of(end + 8));
}

struct exchange *outside_send(const struct http_request *request)
{
    if (trouble(30))
        return NULL;
    struct exchange *exchange = ARENA_NEW(world.arena, struct exchange);
    *exchange = (struct exchange){.next = outside.exchanges,
                                  .key = header(request, "Idempotency-Key"),
                                  .run = header(request, "X-Myelin-Run"),
                                  .body = arena_str(world.arena, request->body),
                                  .write = request->write,
                                  .status = 200,
                                  .answer = STR("{}")};
    read_url(exchange, request->url);
    exchange->honours_keys = str_is(exchange->tool, "note");
    int64_t longest_us = (world.apart ? ANSWER_MS_MAX / 30 : ANSWER_MS_MAX) * 1000;
    exchange->executes_us = world.now_us + dice_between(0, longest_us);
    exchange->answers_us = exchange->executes_us + dice_between(0, longest_us);
    if (world.troubled)
        troubles(exchange);
    return outside.exchanges = exchange;
}
