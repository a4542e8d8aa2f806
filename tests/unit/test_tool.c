/* Tool calls: what is sent, and what each way of ending means for a read and for a write (section 5 of the design). */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/base/json.h"
#include "worker/call/excerpt.h"
#include "worker/call/tool.h"

static struct arena *arena;
static struct tool tool;
static struct tool_probe probe;

static int set_up(void **state)
{
    (void)state;
    arena = arena_new();
    probe = (struct tool_probe){.url = STR("${T_TOOLS}/send/{key}")};
    tool = (struct tool){
        .name = STR("send"), .agent = -1, .method = STR("POST"), .url = STR("${T_TOOLS}/send"), .probe = &probe};
    (void)setenv("T_TOOLS", "https://tools.example/v1", 1);
    (void)setenv("T_TOKEN", "top-secret-token", 1);
    (void)unsetenv("T_MISSING");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static struct call call_with(enum effect_class effect, const char *arguments)
{
    return (struct call){
        .kind = CALL_TOOL,
        .effect = effect,
        .key = STR("0123456789abcdef0123456789abcdef"),
        .timeout_ms = 1234,
        .tool = &tool,
        .arguments = str_of(arguments),
    };
}

static const char *header_of(const struct http_request *request, const char *name)
{
    const char *value = NULL;

    for (size_t i = 0; i < request->headers_count; i++) {
        if (str_is(request->headers[i].name, name)) {
            assert_null(value); /* each once */
            value = request->headers[i].value.data;
        }
    }
    return value;
}

static struct http_request form(const struct call *call)
{
    struct http_request request;
    struct error error = {0};

    if (!tool_request(call, STR("run-1"), arena, &request, &error))
        fail_msg("%s", error.text);
    return request;
}

static void test_post(void **state)
{
    struct call call = call_with(EFFECT_WRITE, "{\"to\":\"a@b.example\"}");
    struct http_request request = form(&call);

    (void)state;
    assert_string_equal(request.method.data, "POST");
    assert_string_equal(request.url.data, "https://tools.example/v1/send");
    assert_string_equal(request.body.data, "{\"to\":\"a@b.example\"}");
    assert_string_equal(header_of(&request, "Content-Type"), "application/json");
    assert_string_equal(header_of(&request, "Idempotency-Key"), "0123456789abcdef0123456789abcdef");
    assert_string_equal(header_of(&request, "X-Myelin-Run"), "run-1");
    assert_int_equal(request.timeout_ms, 1234);
    assert_int_equal(request.answer_size_max, TOOL_ANSWER_SIZE_MAX);
    assert_true(request.write);
    call = call_with(EFFECT_READ, "{}");
    assert_false(form(&call).write);
}

static void test_probe(void **state)
{
    struct call call = call_with(EFFECT_READ, "{\"to\":\"x\"}");
    struct tool_header header = {STR("Authorization"), STR("Bearer ${T_TOKEN}")};
    struct http_request request;

    (void)state;
    tool.headers = &header;
    tool.headers_count = 1;
    call.kind = CALL_PROBE;
    request = form(&call);
    assert_string_equal(request.method.data, "GET");
    assert_string_equal(request.url.data, "https://tools.example/v1/send/0123456789abcdef0123456789abcdef");
    assert_null(request.body.data);
    assert_null(header_of(&request, "Idempotency-Key"));
    assert_null(header_of(&request, "Content-Type"));
    assert_string_equal(header_of(&request, "Authorization"), "Bearer top-secret-token");
    assert_false(request.write);
}

static void test_urls(void **state)
{
    static const struct {
        const char *method, *template, *arguments, *url;
    } cases[] = {
        {"GET", "http://h/a", "{}", "http://h/a"},
        {"GET", "http://h/a", "{\"q\":\"a b&c\",\"n\":3,\"f\":1.5,\"t\":true,\"z\":null}",
         "http://h/a?q=a%20b%26c&n=3&f=1.5&t=true"},
        {"GET", "http://h/a?k=1", "{\"q\":\"x\"}", "http://h/a?k=1&q=x"},
        {"GET", "http://h/a", "{\"l\":[1,\"b\"],\"o\":{\"x\":1}}", "http://h/a?l=1&l=b&o=%7B%22x%22%3A1%7D"},
        {"GET", "http://h/u/{id}", "{\"id\":\"a/b?c#d%\"}", "http://h/u/a%2Fb%3Fc%23d%25"},
        {"GET", "http://h/u/{id}/x", "{\"id\":7,\"q\":\"y\"}", "http://h/u/7/x?q=y"},
        {"DELETE", "http://h/u/{id}", "{\"id\":\"7\"}", "http://h/u/7"},
        {"GET", "http://h/u?id={id}", "{\"id\":\"\"}", "http://h/u?id="},
        {"GET", "http://h/u?id={id}", "{\"id\":\"..\"}", "http://h/u?id=.."},
        {"GET", "http://h/{id}/{id}", "{\"id\":\"x\"}", "http://h/x/x"},
        {"GET", "http://h/{key}", "{\"key\":\"mine\"}", "http://h/mine"},
        {"GET", "http://h/{key}", "{}", "http://h/0123456789abcdef0123456789abcdef"},
        {"GET", "${T_TOOLS}/{id}", "{\"id\":\"${T_TOKEN}\"}", "https://tools.example/v1/%24%7BT_TOKEN%7D"},
        {"GET", "${T_MISSING:-http://d}/{id}", "{\"id\":\"\\u00e9\"}", "http://d/%C3%A9"},
        {"POST", "http://h/u/{id}", "{\"id\":\"7\",\"a\":1}", "http://h/u/7"},
        {"GET", "http://h/{}/{a b}/}", "{}", "http://h/{}/{a b}/}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct call call = call_with(EFFECT_READ, cases[i].arguments);
        struct http_request request;

        tool.method = str_of(cases[i].method);
        tool.url = str_of(cases[i].template);
        request = form(&call);
        assert_string_equal(request.url.data, cases[i].url);
        if (strcmp(cases[i].method, "POST") == 0)
            assert_string_equal(request.body.data, cases[i].arguments); /* all arguments, also those in the URL */
        else
            assert_null(request.body.data);
    }
}

static void test_no_request(void **state)
{
    static const struct {
        const char *template, *arguments, *says;
        enum error_class class;
    } cases[] = {
        {"http://h/{id}", "{}", "\"id\" is missing", ERROR_POISON},
        {"http://h/{id}", "{\"id\":\"\"}", "must not be \"\"", ERROR_POISON},
        {"http://h/{id}", "{\"id\":\"..\"}", "must not be \"..\"", ERROR_POISON},
        {"http://h/{id}/x", "{\"id\":\".\"}", "must not be \".\"", ERROR_POISON},
        {"http://h/{id}", "{\"id\":null}", "must be a string", ERROR_POISON},
        {"http://h/{id}", "{\"id\":[1]}", "must be a string", ERROR_POISON},
        {"http://h/a#b", "{}", "fragment", ERROR_POISON},
        {"http://h/", "[]", "must be an object", ERROR_POISON},
        {"http://h/", "{", "not valid JSON", ERROR_POISON},
        {"${T_MISSING}/x", "{}", "T_MISSING", ERROR_RETRY},
        {"http://h/${", "{}", "without", ERROR_RETRY},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct call call = call_with(EFFECT_READ, cases[i].arguments);
        struct http_request request;
        struct error error = {0};

        tool.url = str_of(cases[i].template);
        assert_false(tool_request(&call, STR("r"), arena, &request, &error));
        assert_int_equal(error.class, cases[i].class);
        if (strstr(error.text, cases[i].says) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error.text, cases[i].says);
    }
}

static void test_url_is_bounded(void **state)
{
    struct buf text;
    struct call call;
    struct http_request request;
    struct error error = {0};

    (void)state;
    buf_init(&text, SIZE_MAX);
    (void)buf_puts(&text, "{\"q\":\"");
    for (int i = 0; i < 20000; i++)
        (void)buf_puts(&text, "x");
    (void)buf_puts(&text, "\"}");
    call = call_with(EFFECT_READ, text.data);
    tool.method = STR("GET");
    assert_false(tool_request(&call, STR("r"), arena, &request, &error));
    assert_non_null(strstr(error.text, "16384"));
    buf_free(&text);
}

/* The contract's headers, but never instead of the key. */
static void test_own_headers(void **state)
{
    struct tool_header headers[] = {{STR("idempotency-key"), STR("mine")},
                                    {STR("X-Api-Key"), STR("${T_TOKEN}")},
                                    {STR("content-type"), STR("application/x-json")}};
    struct call call = call_with(EFFECT_WRITE, "{}");
    struct http_request request;
    struct error error = {0};

    (void)state;
    tool.headers = headers;
    tool.headers_count = 3;
    request = form(&call);
    assert_null(header_of(&request, "idempotency-key"));
    assert_string_equal(header_of(&request, "Idempotency-Key"), "0123456789abcdef0123456789abcdef");
    assert_string_equal(header_of(&request, "X-Api-Key"), "top-secret-token");
    assert_string_equal(header_of(&request, "content-type"), "application/x-json");
    assert_null(header_of(&request, "Content-Type"));
    headers[1].value = STR("${T_MISSING}");
    assert_false(tool_request(&call, STR("r"), arena, &request, &error));
    assert_int_equal(error.class, ERROR_RETRY);
    assert_non_null(strstr(error.text, "X-Api-Key"));
}

static struct http_answer answered(int32_t status, const char *body)
{
    return (struct http_answer){.end = HTTP_ANSWERED, .status = status, .body = str_of(body), .duration_ms = 5};
}

static struct outcome outcome_of(enum effect_class effect, const struct http_answer *answer)
{
    struct call call = call_with(effect, "{}");
    struct outcome outcome;

    tool_outcome(&call, answer, 99, arena, &outcome);
    assert_int_equal(outcome.at_ms, 99);
    assert_int_equal(outcome.http_status, answer->status);
    assert_int_equal(outcome.duration_ms, answer->duration_ms);
    return outcome;
}

enum expected { ANSWERS, RETRIES, FAILS, NOT_EXECUTED, DOUBTS };

static void check_outcome(enum effect_class effect, const struct http_answer *answer, enum expected expected)
{
    struct outcome outcome = outcome_of(effect, answer);
    bool surely_not = expected == NOT_EXECUTED;
    enum outcome_kind kind = expected == ANSWERS  ? OUTCOME_ANSWERED
                             : expected == DOUBTS ? OUTCOME_DOUBT
                                                  : OUTCOME_FAILED;

    if (outcome.kind != kind)
        fail_msg("status %d, end %d: kind %d", answer->status, answer->end, outcome.kind);
    assert_int_equal(outcome.executed_surely_not, surely_not);
    assert_int_equal(outcome.retryable, expected == RETRIES || expected == NOT_EXECUTED);
    assert_int_equal(outcome.reason.data != NULL, kind != OUTCOME_ANSWERED);
    assert_int_equal(outcome.result.data != NULL, kind == OUTCOME_ANSWERED);
}

static void test_statuses(void **state)
{
    static int32_t declared[] = {409, 422};
    static const struct {
        int32_t status;
        enum expected read, write;
    } cases[] = {
        {200, ANSWERS, ANSWERS},      {201, ANSWERS, ANSWERS},      {202, ANSWERS, ANSWERS},    {204, ANSWERS, ANSWERS},
        {299, ANSWERS, ANSWERS},      {301, FAILS, DOUBTS},         {304, FAILS, DOUBTS},       {400, FAILS, DOUBTS},
        {401, FAILS, DOUBTS},         {403, FAILS, DOUBTS},         {404, FAILS, DOUBTS},       {408, RETRIES, DOUBTS},
        {410, FAILS, DOUBTS},         {425, RETRIES, DOUBTS},       {500, RETRIES, DOUBTS},     {502, RETRIES, DOUBTS},
        {503, RETRIES, DOUBTS},       {504, RETRIES, DOUBTS},       {599, RETRIES, DOUBTS},     {600, FAILS, DOUBTS},
        {429, RETRIES, NOT_EXECUTED}, {409, RETRIES, NOT_EXECUTED}, {422, FAILS, NOT_EXECUTED},
    };

    (void)state;
    tool.not_executed = declared;
    tool.not_executed_count = 2;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_answer answer = answered(cases[i].status, "{\"a\":1}");

        check_outcome(EFFECT_READ, &answer, cases[i].read);
        check_outcome(EFFECT_WRITE, &answer, cases[i].write);
    }
    tool.not_executed_count = 0;
    check_outcome(EFFECT_WRITE, &(struct http_answer){.end = HTTP_ANSWERED, .status = 409, .body = STR("")}, DOUBTS);
}

static void test_ends(void **state)
{
    static const struct {
        enum http_end end;
        int32_t status;
        enum expected read, write;
    } cases[] = {
        {HTTP_NOT_SENT, 0, RETRIES, NOT_EXECUTED},    {HTTP_UNKNOWN, 0, RETRIES, DOUBTS},
        {HTTP_UNKNOWN, 200, RETRIES, DOUBTS}, /* the status came, the body did not */
        {HTTP_UNKNOWN, 429, RETRIES, DOUBTS},         {HTTP_TOO_LARGE, 200, FAILS, ANSWERS},
        {HTTP_TOO_LARGE, 500, RETRIES, DOUBTS},       {HTTP_TOO_LARGE, 404, FAILS, DOUBTS},
        {HTTP_TOO_LARGE, 429, RETRIES, NOT_EXECUTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_answer answer = {.end = cases[i].end, .status = cases[i].status, .reason = "what happened"};

        check_outcome(EFFECT_READ, &answer, cases[i].read);
        check_outcome(EFFECT_WRITE, &answer, cases[i].write);
    }
}

#define BODY(text) text, sizeof(text) - 1

static void test_results(void **state)
{
    static const struct {
        const char *body;
        size_t size;
        const char *result;
    } cases[] = {
        {BODY(""), "null"},
        {BODY(" \r\n\t "), "null"},
        {BODY("{ \"b\" : 1, \"a\" : [ ] }"), "{\"b\":1,\"a\":[]}"},
        {BODY("true"), "true"},
        {BODY("12"), "12"},
        {BODY("\"x\""), "\"x\""},
        {BODY("\xef\xbb\xbf{}"), "{}"},
        {BODY("hello \"you\"\n"), "\"hello \\\"you\\\"\\n\""},
        {BODY("{\"a\":1,\"a\":2}"), "\"{\\\"a\\\":1,\\\"a\\\":2}\""},
        {BODY("{} {}"), "\"{} {}\""},
        {"a\xff"
         "b",
         3,
         "\"a\xef\xbf\xbd"
         "b\""},
        {"a\0b", 3,
         "\"a\xef\xbf\xbd"
         "b\""},
        {BODY("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {BODY("\xf0\x9f\x98\x80 ok"), "\"\xf0\x9f\x98\x80 ok\""},
        {BODY("\"\\ud800\""), "\"\\\"\\\\ud800\\\"\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_answer answer = {
            .end = HTTP_ANSWERED, .status = 200, .body = arena_copy(arena, cases[i].body, cases[i].size)};
        struct outcome outcome = outcome_of(EFFECT_READ, &answer);
        json_t *again = json_read(outcome.result, TOOL_ANSWER_SIZE_MAX, NULL);

        assert_string_equal(outcome.result.data, cases[i].result);
        assert_non_null(again); /* whatever came, what goes on is JSON as we accept it */
        json_decref(again);
    }
}

/* A body that fits, but not as a JSON string: too large after all. */
static void test_result_that_swells(void **state)
{
    char *body = arena_alloc(arena, TOOL_ANSWER_SIZE_MAX + 1);
    struct http_answer answer = {.end = HTTP_ANSWERED, .status = 200, .body = {body, TOOL_ANSWER_SIZE_MAX}};

    (void)state;
    memset(body, 1, TOOL_ANSWER_SIZE_MAX);
    check_outcome(EFFECT_READ, &answer, FAILS);
    assert_string_equal(outcome_of(EFFECT_WRITE, &answer).result.data,
                        "{\"truncated\":true,\"reason\":\"the answer is over 1048576 bytes\"}");
}

static void test_reasons(void **state)
{
    struct tool_header header = {STR("Authorization"), STR("Bearer ${T_TOKEN}")};
    struct http_answer answer = answered(500, "no: Bearer top-secret-token is\nwrong, top-secret-token! \x01\xff");
    struct outcome outcome;
    char large[2000];

    (void)state;
    tool.headers = &header;
    tool.headers_count = 1;
    answer.retry_after_ms = 70;
    outcome = outcome_of(EFFECT_READ, &answer);
    assert_string_equal(outcome.reason.data, "HTTP 500: no: [secret] is wrong, [secret]!  \xef\xbf\xbd");
    assert_int_equal(outcome.retry_after_ms, 70);
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    answer = answered(404, large);
    outcome = outcome_of(EFFECT_READ, &answer);
    assert_in_range(outcome.reason.size, EXCERPT_SIZE_MAX, EXCERPT_SIZE_MAX + 20);
    assert_string_equal(outcome.reason.data + outcome.reason.size - 3, "...");
    answer = answered(500, "");
    assert_string_equal(outcome_of(EFFECT_READ, &answer).reason.data, "HTTP 500");
    answer = (struct http_answer){.end = HTTP_UNKNOWN, .reason = "cut"};
    assert_string_equal(outcome_of(EFFECT_WRITE, &answer).reason.data, "cut");
}

static void test_pack(void **state)
{
    struct http_answer answer = {
        .end = HTTP_ANSWERED, .status = 201, .body = arena_copy(arena, "a\0\nb", 4), .content_type = STR("text/plain")};
    struct http_answer again;
    struct str packed = answer_pack(arena, &answer);
    struct outcome one, other;

    (void)state;
    assert_memory_equal(packed.data, "201 text/plain\na\0\nb", 19);
    assert_true(answer_unpack(packed, &again));
    assert_int_equal(again.end, HTTP_ANSWERED);
    assert_int_equal(again.status, 201);
    assert_true(str_equal(again.body, answer.body));
    assert_true(str_equal(again.content_type, answer.content_type));
    one = outcome_of(EFFECT_WRITE, &answer);
    again.duration_ms = answer.duration_ms;
    other = outcome_of(EFFECT_WRITE, &again);
    assert_string_equal(one.result.data, other.result.data);
    answer = answered(200, "");
    answer.content_type = STR("bad\r\nX: y");
    packed = answer_pack(arena, &answer);
    assert_string_equal(packed.data, "200 bad\n");
    answer = (struct http_answer){.end = HTTP_TOO_LARGE, .status = 200, .body = STR("part")};
    packed = answer_pack(arena, &answer);
    assert_string_equal(packed.data, "200+ \n");
    assert_true(answer_unpack(packed, &again));
    assert_int_equal(again.end, HTTP_TOO_LARGE);
    assert_non_null(strstr(outcome_of(EFFECT_WRITE, &again).result.data, "\"truncated\":true"));
}

static void test_unpack_refuses(void **state)
{
    static const char *const texts[] = {"",         "200",    "200 x",  "20x y\n",  "\n",
                                        " 200 x\n", "200x\n", "200-\n", "2000 x\n", "-20 x\n"};
    struct http_answer answer;

    (void)state;
    assert_false(answer_unpack(STR_NONE, &answer));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_false(answer_unpack(str_of(texts[i]), &answer));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_post),
        TEST(test_probe),
        TEST(test_urls),
        TEST(test_no_request),
        TEST(test_url_is_bounded),
        TEST(test_own_headers),
        TEST(test_statuses),
        TEST(test_ends),
        TEST(test_results),
        TEST(test_reasons),
        TEST(test_result_that_swells),
        TEST(test_pack),
        TEST(test_unpack_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
