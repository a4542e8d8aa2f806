/* Chat completions: what an answer means. Bodies as real servers send them, and as they should not. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/call/chat.h"
#include "worker/call/tool.h"

#define KEY "00112233445566778899aabbccddeeff"

static struct arena *arena;
static struct chat_model model;
static struct call call;

static int set_up(void **state)
{
    (void)state;
    arena = arena_new();
    model = (struct chat_model){
        .name = STR("small"),
        .key = STR("sk-verysecret"),
        .model = STR("gpt-x"),
        .micro_usd_in = 2500000,
        .micro_usd_out = 10000000,
        .micro_usd_cached = 1250000,
    };
    call = (struct call){.kind = CALL_MODEL, .effect = EFFECT_READ, .key = STR(KEY), .model = STR("small")};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static struct outcome outcome_of(int32_t status, const char *body)
{
    struct http_answer answer = {
        .end = HTTP_ANSWERED, .status = status, .body = str_of(body), .duration_ms = 7, .retry_after_ms = 30};
    struct outcome outcome;

    chat_outcome(&model, &call, &answer, 42, arena, &outcome);
    assert_int_equal(outcome.at_ms, 42);
    assert_int_equal(outcome.duration_ms, 7);
    assert_int_equal(outcome.http_status, status);
    return outcome;
}

static struct outcome answered(const char *body)
{
    struct outcome outcome = outcome_of(200, body);

    if (outcome.kind != OUTCOME_ANSWERED)
        fail_msg("%s: %.*s", body, STR_ARG(outcome.reason));
    assert_int_equal(outcome.retry_after_ms, 0);
    return outcome;
}

/* An answer with this message and finish_reason. */
static struct outcome message_of(const char *message, const char *finish_reason)
{
    return answered(
        arena_printf(arena, "{\"choices\":[{\"message\":%s,\"finish_reason\":\"%s\"}]}", message, finish_reason).data);
}

/* As recorded from OpenAI (ids changed). */
static void test_openai_text(void **state)
{
    struct outcome outcome = answered(
        "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion\",\"created\":1741569952,"
        "\"model\":\"gpt-4.1-2025-04-14\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
        "\"Hello! How can I assist you today?\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":10,\"total_tokens\":1010,"
        "\"prompt_tokens_details\":{\"cached_tokens\":400,\"audio_tokens\":0},\"completion_tokens_details\":"
        "{\"reasoning_tokens\":0}},\"service_tier\":\"default\"}");

    (void)state;
    assert_string_equal(outcome.content.data, "Hello! How can I assist you today?");
    assert_int_equal(outcome.calls_count, 0);
    assert_string_equal(outcome.finish_reason.data, "stop");
    assert_string_equal(outcome.response_model.data, "gpt-4.1-2025-04-14");
    assert_false(outcome.truncated);
    assert_int_equal(outcome.tokens_in, 1000);
    assert_int_equal(outcome.tokens_out, 10);
    assert_int_equal(outcome.tokens_cached, 400);
    assert_int_equal(outcome.micro_usd, 600 * 5 / 2 + 400 * 5 / 4 + 10 * 10);
    assert_int_equal(outcome.origin, ORIGIN_CALLED);
}

static void test_openai_tool_calls(void **state)
{
    struct outcome outcome = answered(
        "{\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
        "{\"id\":\"call_abc123\",\"type\":\"function\",\"function\":{\"name\":\"get_current_weather\",\"arguments\":"
        "\"{\\n\\\"location\\\": \\\"Boston, MA\\\"\\n}\"}},{\"id\":\"call_def\",\"type\":\"function\",\"function\":{\"name\":"
        "\"get_time\",\"arguments\":\"{\\\"zone\\\": \"}}]},\"finish_reason\":\"tool_calls\"}]}");

    (void)state;
    assert_null(outcome.content.data);
    assert_int_equal(outcome.calls_count, 2);
    assert_string_equal(outcome.calls[0].id.data, "call_abc123");
    assert_string_equal(outcome.calls[0].tool.data, "get_current_weather");
    assert_string_equal(outcome.calls[0].arguments.data, "{\n\"location\": \"Boston, MA\"\n}");
    assert_string_equal(outcome.calls[1].arguments.data, "{\"zone\": "); /* no JSON: raw, for the core to refuse */
    assert_int_equal(outcome.tokens_in, -1);
    assert_int_equal(outcome.tokens_out, -1);
    assert_int_equal(outcome.tokens_cached, -1);
    assert_int_equal(outcome.micro_usd, -1); /* unknown, not 0 */
}

/* finish_reason lies; the calls that are there decide. */
static void test_finish_reason_lies(void **state)
{
    static const char *const call_message =
        "{\"content\":\"\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"x\",\"arguments\":\"{}\"}}]}";
    struct outcome outcome = message_of(call_message, "stop");

    (void)state;
    assert_int_equal(outcome.calls_count, 1);
    outcome = message_of("{\"content\":\"just text\",\"tool_calls\":[]}", "tool_calls");
    assert_int_equal(outcome.calls_count, 0);
    assert_string_equal(outcome.content.data, "just text");
    outcome = message_of("{\"content\":\"just text\",\"tool_calls\":null}", "function_call");
    assert_int_equal(outcome.calls_count, 0);
    outcome = message_of(call_message, "length"); /* cut: never to be executed */
    assert_true(outcome.truncated);
    assert_int_equal(outcome.calls_count, 0);
    outcome = message_of("{\"content\":\"half a sen\"}", "length");
    assert_true(outcome.truncated);
    assert_string_equal(outcome.content.data, "half a sen");
    assert_true(message_of(call_message, "max_tokens").truncated);
    outcome = message_of(call_message, "content_filter");
    assert_int_equal(outcome.calls_count, 0);
    assert_null(outcome.content.data);
    assert_string_equal(outcome.finish_reason.data, "content_filter");
    outcome = answered("{\"choices\":[{\"message\":{\"content\":\"x\"}}]}"); /* none at all */
    assert_string_equal(outcome.finish_reason.data, "");
    outcome = answered("{\"choices\":[{\"message\":{\"content\":\"x\"},\"finish_reason\":null}]}");
    assert_string_equal(outcome.finish_reason.data, "");
}

static void test_content_shapes(void **state)
{
    static const char *const cases[][2] = {
        {"{\"content\":\"\"}", ""},
        {"{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}", "ab"},
        {"{\"content\":[\"a\",{\"type\":\"output_text\",\"text\":\"b\"},{\"type\":\"image\"},7,null]}", "ab"},
        {"{\"content\":[]}", NULL},
        {"{\"content\":null}", NULL},
        {"{}", NULL},
        {"{\"content\":7}", NULL},
        {"{\"content\":{\"text\":\"a\"}}", NULL},
        {"{\"content\":\"x\",\"reasoning_content\":\"because\"}", "x"},
        {"{\"content\":\"gr\\u00fc\\u00df\\ud83d\\ude00\"}", "gr\xc3\xbc\xc3\x9f\xf0\x9f\x98\x80"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome outcome = message_of(cases[i][0], "stop");

        if (cases[i][1] == NULL)
            assert_null(outcome.content.data);
        else
            assert_string_equal(outcome.content.data, cases[i][1]);
    }
}

static void test_refusal(void **state)
{
    struct outcome outcome = message_of("{\"content\":null,\"refusal\":\"I cannot help with that.\"}", "stop");

    (void)state;
    assert_string_equal(outcome.content.data, "I cannot help with that.");
    assert_string_equal(outcome.finish_reason.data, "refusal");
    assert_string_equal(message_of("{\"content\":\"a\",\"refusal\":\"b\"}", "stop").content.data, "a");
}

static void test_call_shapes(void **state)
{
    static const struct {
        const char *call, *id, *tool, *arguments;
    } cases[] = {
        {"{\"id\":\"a\",\"function\":{\"name\":\"x\",\"arguments\":{\"b\":[1, 2]}}}", "a", "x", "{\"b\":[1,2]}"},
        {"{\"id\":\"a\",\"function\":{\"name\":\"x\",\"arguments\":\"\"}}", "a", "x", "{}"},
        {"{\"id\":\"a\",\"function\":{\"name\":\"x\",\"arguments\":\" \\n\"}}", "a", "x", "{}"},
        {"{\"id\":\"a\",\"function\":{\"name\":\"x\",\"arguments\":null}}", "a", "x", "{}"},
        {"{\"id\":\"a\",\"function\":{\"name\":\"x\"}}", "a", "x", "{}"},
        {"{\"function\":{\"name\":\"x\",\"arguments\":\"{}\"}}", "call_" KEY "_0", "x", "{}"},
        {"{\"id\":\"\",\"function\":{\"name\":\"x\",\"arguments\":\"{}\"}}", "call_" KEY "_0", "x", "{}"},
        {"{\"id\":7,\"function\":{\"name\":\"x\",\"arguments\":\"{}\"}}", "call_" KEY "_0", "x", "{}"},
        {"{\"id\":\"a\",\"function\":{\"arguments\":\"{}\"}}", "a", "", "{}"},
        {"{\"id\":\"a\",\"function\":\"x\"}", "a", "", "{}"},
        {"{\"id\":\"a\"}", "a", "", "{}"},
        {"\"x\"", "call_" KEY "_0", "", "{}"},
        {"null", "call_" KEY "_0", "", "{}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome outcome = message_of(
            arena_printf(arena, "{\"content\":null,\"tool_calls\":[%s]}", cases[i].call).data, "tool_calls");

        assert_int_equal(outcome.calls_count, 1);
        assert_string_equal(outcome.calls[0].id.data, cases[i].id);
        assert_string_equal(outcome.calls[0].tool.data, cases[i].tool);
        assert_string_equal(outcome.calls[0].arguments.data, cases[i].arguments);
    }
}

/* Ids are unique in a conversation, whatever the server does, and the same when the answer is read again. */
static void test_ids(void **state)
{
    struct tool_request past = {STR("0"), STR("x"), STR("{}")};
    struct message message = {.role = ROLE_ASSISTANT, .calls = &past, .calls_count = 1};
    struct outcome outcome;

    (void)state;
    call.conversation = &message;
    call.conversation_count = 1;
    outcome = message_of("{\"tool_calls\":[{\"id\":\"0\"},{\"id\":\"1\"},{\"id\":\"1\"},{\"id\":\"2\"}]}", "stop");
    assert_int_equal(outcome.calls_count, 4);
    assert_string_equal(outcome.calls[0].id.data, "call_" KEY "_0");
    assert_string_equal(outcome.calls[1].id.data, "1");
    assert_string_equal(outcome.calls[2].id.data, "call_" KEY "_2");
    assert_string_equal(outcome.calls[3].id.data, "2");
}

static void test_old_function_call(void **state)
{
    struct outcome outcome = message_of(
        "{\"content\":null,\"function_call\":{\"name\":\"x\",\"arguments\":\"{\\\"a\\\":1}\"}}", "function_call");

    (void)state;
    assert_int_equal(outcome.calls_count, 1);
    assert_string_equal(outcome.calls[0].id.data, "call_" KEY "_0");
    assert_string_equal(outcome.calls[0].tool.data, "x");
    assert_string_equal(outcome.calls[0].arguments.data, "{\"a\":1}");
}

static void test_too_many_calls(void **state)
{
    struct buf body;
    struct outcome outcome;

    (void)state;
    buf_init(&body, SIZE_MAX);
    (void)buf_puts(&body, "{\"choices\":[{\"message\":{\"tool_calls\":[{}");
    for (int i = 0; i < 128; i++)
        (void)buf_puts(&body, ",{}");
    (void)buf_puts(&body, "]}}]}");
    outcome = outcome_of(200, body.data);
    assert_int_equal(outcome.kind, OUTCOME_FAILED);
    assert_int_equal(outcome.calls_count, 0);
    buf_free(&body);
}

static void test_usage(void **state)
{
    static const struct {
        const char *usage;
        int64_t in, out, cached, micro_usd;
    } cases[] = {
        {"null", -1, -1, -1, -1},
        {"{}", -1, -1, -1, -1},
        {"\"none\"", -1, -1, -1, -1},
        {"{\"prompt_tokens\":4,\"completion_tokens\":2}", 4, 2, -1, 30},
        {"{\"prompt_tokens\":4.0,\"completion_tokens\":2}", 4, 2, -1, 30},
        {"{\"prompt_tokens\":1,\"completion_tokens\":0}", 1, 0, -1, 3}, /* 2.5 is rounded up */
        {"{\"prompt_tokens\":0,\"completion_tokens\":0}", 0, 0, -1, 0},
        {"{\"input_tokens\":4,\"output_tokens\":2,\"input_tokens_details\":{\"cached_tokens\":4}}", 4, 2, 4, 25},
        {"{\"prompt_tokens\":4}", 4, -1, -1, -1},
        {"{\"prompt_tokens\":-4,\"completion_tokens\":2}", -1, 2, -1, -1},
        {"{\"prompt_tokens\":\"4\",\"completion_tokens\":2}", -1, 2, -1, -1},
        {"{\"prompt_tokens\":4,\"completion_tokens\":1e300}", 4, -1, -1, -1},
        {"{\"prompt_tokens\":4,\"completion_tokens\":2,\"prompt_tokens_details\":null}", 4, 2, -1, 30},
        {"{\"prompt_tokens\":4,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":9}}", 4, 2, 4, 25},
        {"{\"prompt_tokens\":4,\"completion_tokens\":2,\"completion_tokens_details\":{\"reasoning_tokens\":2}}", 4, 2,
         -1, 30},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome outcome = answered(
            arena_printf(arena, "{\"choices\":[{\"message\":{\"content\":\"x\"}}],\"usage\":%s}", cases[i].usage).data);

        assert_int_equal(outcome.tokens_in, cases[i].in);
        assert_int_equal(outcome.tokens_out, cases[i].out);
        assert_int_equal(outcome.tokens_cached, cases[i].cached);
        assert_int_equal(outcome.micro_usd, cases[i].micro_usd);
    }
}

static void test_prices(void **state)
{
    static const char *const body =
        "{\"choices\":[{\"message\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":1000,"
        "\"completion_tokens\":100,\"prompt_tokens_details\":{\"cached_tokens\":500}}}";

    (void)state;
    assert_int_equal(answered(body).micro_usd, 500 * 5 / 2 + 500 * 5 / 4 + 1000);
    model.micro_usd_cached = -1; /* as input */
    assert_int_equal(answered(body).micro_usd, 1000 * 5 / 2 + 1000);
    model.micro_usd_out = -1;
    assert_int_equal(answered(body).micro_usd, -1);
    model.micro_usd_in = model.micro_usd_out = model.micro_usd_cached = 0; /* free */
    assert_int_equal(answered(body).micro_usd, 0);
    model.micro_usd_in = model.micro_usd_out = INT64_MAX;
    assert_int_equal(answered("{\"choices\":[{\"message\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":1e12,"
                              "\"completion_tokens\":1e12}}")
                         .micro_usd,
                     INT64_MAX / 2);
}

static const struct {
    int32_t status;
    const char *body;
    bool retryable;
    const char *says;
} error_cases[] = {
    {400,
     "{\"error\":{\"message\":\"too long\",\"type\":\"invalid_request_error\",\"code\":\"context_length_exceeded\"}}",
     false, "HTTP 400 context_length_exceeded: too long"},
    {401, "{\"error\":{\"message\":\"Incorrect API key provided: sk-verysecret.\",\"code\":\"invalid_api_key\"}}",
     false, "HTTP 401 invalid_api_key: Incorrect API key provided: [secret]."},
    {402, "{}", false, "HTTP 402: {}"},
    {403, "", false, "HTTP 403"},
    {404, "{\"detail\":\"Not Found\"}", false, "HTTP 404: Not Found"},
    {408, "", true, "HTTP 408"},
    {409, "", true, "HTTP 409"},
    {413, "<html>too large</html>", false, "HTTP 413: <html>too large</html>"},
    {422, "{\"detail\":[{\"loc\":[\"body\"]}]}", false, "HTTP 422: {\"detail\":[{\"loc\":[\"body\"]}]}"},
    {429, "{\"error\":{\"message\":\"slow\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}", true,
     "HTTP 429 rate_limit_exceeded: slow"},
    {429, "{\"error\":{\"message\":\"no money\",\"type\":\"insufficient_quota\",\"code\":null}}", false,
     "HTTP 429 insufficient_quota: no money"},
    {429, "{\"error\":{\"message\":\"no money\",\"type\":\"x\",\"code\":\"credit_balance_exhausted\"}}", false,
     "HTTP 429 credit_balance_exhausted: no money"},
    {429, "{\"error\":{\"code\":\"organization_spend_limit_exceeded\"}}", false, "HTTP 429 organization_spend_limit"},
    {429, "{\"error\":{\"code\":\"project_spend_limit_exceeded\"}}", false, "HTTP 429 project_spend_limit"},
    {429, "{\"error\":{\"code\":\"organization_usage_limit_exceeded\"}}", false, "HTTP 429 organization_usage"},
    {500, "{\"error\":{\"code\":500,\"message\":\"context shift is disabled\",\"type\":\"server_error\"}}", true,
     "HTTP 500 server_error: context shift is disabled"}, /* llama.cpp: the code is a number */
    {502, "<html>\r\n<head>bad gateway", true, "HTTP 502: <html>  <head>bad gateway"},
    {503, "{\"error\":\"model is loading\"}", true, "HTTP 503: model is loading"}, /* a bare text */
    {504, "{\"object\":\"error\",\"message\":\"upstream\",\"code\":504}", true, "HTTP 504: upstream"},
    {529, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}", true,
     "HTTP 529 overloaded_error: Overloaded"},
    {301, "", false, "HTTP 301"},
    {200, "{\"error\":{\"message\":\"upstream\",\"code\":502}}", true, "HTTP 502: upstream"},
    {200, "{\"error\":{\"message\":\"no such model\",\"code\":404}}", false, "HTTP 404: no such model"},
    {200, "{\"error\":{\"message\":\"m\",\"code\":\"insufficient_quota\"}}", false, "HTTP 200 insufficient_quota: m"},
    {200, "{\"error\":{\"message\":\"m\",\"type\":\"invalid_request_error\"}}", false, "invalid_request_error"},
    {200, "{\"error\":\"boom\"}", true, "HTTP 200: boom"},
    {200, "{\"choices\":[{\"error\":{\"message\":\"m\",\"code\":503}}]}", true, "HTTP 503: m"},
    {200, "{\"choices\":[{\"message\":{\"content\":\"a\"},\"finish_reason\":\"error\"}]}", true, "broke off"},
    {200, "", true, "not valid JSON"},
    {200, "data: {\"choices\":[]}\n\n", true, "not valid JSON"},
    {200, "{\"choices\":[{\"message\":{\"content\":\"a\"", true, "not valid JSON"},
    {200, "{\"choices\":[]}", true, "choices[0].message"},
    {200, "{\"choices\":{}}", true, "choices[0].message"},
    {200, "{\"choices\":[{\"message\":\"x\"}]}", true, "choices[0].message"},
    {200, "[]", true, "choices[0].message"},
    {200, "null", true, "choices[0].message"},
    {204, "", true, "not valid JSON"},
};

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof error_cases / sizeof error_cases[0]; i++) {
        struct outcome outcome = outcome_of(error_cases[i].status, error_cases[i].body);

        assert_int_equal(outcome.kind, OUTCOME_FAILED);
        if (outcome.retryable != error_cases[i].retryable || strstr(outcome.reason.data, error_cases[i].says) == NULL)
            fail_msg("%d %s: retryable %d, \"%s\"", error_cases[i].status, error_cases[i].body, outcome.retryable,
                     outcome.reason.data);
        assert_int_equal(outcome.retry_after_ms, 30);
        assert_false(outcome.executed_surely_not);
        assert_null(strstr(outcome.reason.data, "sk-very"));
        assert_in_range(outcome.reason.size, 1, 800);
    }
}

static void test_ends(void **state)
{
    static const struct {
        enum http_end end;
        bool retryable;
    } cases[] = {{HTTP_NOT_SENT, true}, {HTTP_UNKNOWN, true}, {HTTP_TOO_LARGE, false}};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct http_answer answer = {.end = cases[i].end, .reason = "what happened"};
        struct outcome outcome;

        chat_outcome(&model, &call, &answer, 0, arena, &outcome);
        assert_int_equal(outcome.kind, OUTCOME_FAILED);
        assert_int_equal(outcome.retryable, cases[i].retryable);
        assert_string_equal(outcome.reason.data, "what happened");
    }
}

/* An answer from Redis means what it meant when it came. */
static void test_stored_answer(void **state)
{
    struct http_answer answer = {.end = HTTP_ANSWERED,
                                 .status = 200,
                                 .content_type = STR("application/json"),
                                 .body = STR("{\"choices\":[{\"message\":{\"tool_calls\":[{},{}]}}]}")};
    struct http_answer again;
    struct outcome one, other;

    (void)state;
    chat_outcome(&model, &call, &answer, 1, arena, &one);
    assert_true(answer_unpack(answer_pack(arena, &answer), &again));
    chat_outcome(&model, &call, &again, 1, arena, &other);
    assert_int_equal(other.calls_count, 2);
    assert_string_equal(one.calls[1].id.data, other.calls[1].id.data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_openai_text),
        TEST(test_openai_tool_calls),
        TEST(test_finish_reason_lies),
        TEST(test_content_shapes),
        TEST(test_refusal),
        TEST(test_call_shapes),
        TEST(test_ids),
        TEST(test_old_function_call),
        TEST(test_too_many_calls),
        TEST(test_usage),
        TEST(test_prices),
        TEST(test_errors),
        TEST(test_ends),
        TEST(test_stored_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
