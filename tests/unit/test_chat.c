/* Chat completions: what is sent. test_chat_answer.c has what comes back. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "worker/base/json.h"
#include "worker/call/chat.h"

static struct arena *arena;
static struct chat_model model;
static struct call call;
static json_t *schema_source;
static struct schema *schema;

static void no_problem(void *context, const json_t *at, const char *path, const char *text)
{
    (void)context;
    (void)at;
    fail_msg("%s: %s", path, text);
}

static int set_up(void **state)
{
    (void)state;
    arena = arena_new();
    model = (struct chat_model){
        .name = STR("small"),
        .url = STR("https://api.example/v1"),
        .key = STR("sk-verysecret"),
        .model = STR("gpt-x"),
        .timeout_ms = 5000,
        .micro_usd_in = -1,
        .micro_usd_out = -1,
        .micro_usd_cached = -1,
    };
    call = (struct call){.kind = CALL_MODEL,
                         .effect = EFFECT_READ,
                         .key = STR("00112233445566778899aabbccddeeff"),
                         .model = STR("small")};
    schema_source = json_pack("{s:s, s:{s:{s:s}}}", "type", "object", "properties", "a", "type", "string");
    schema = schema_compile(arena, schema_source, no_problem, NULL);
    return schema == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(schema_source);
    arena_free(arena);
    return 0;
}

static struct http_request form(void)
{
    struct http_request request;
    struct error error = {0};

    if (!chat_request(&model, &call, STR("run-1"), arena, &request, &error))
        fail_msg("%s", error.text);
    return request;
}

/* The body must be exactly this JSON; keys in any order. */
static void check_body(const char *expected)
{
    struct http_request request = form();
    json_t *wanted = json_read(str_of(expected), 1 << 20, NULL), *got = json_read(request.body, 1 << 20, NULL);

    assert_non_null(wanted);
    assert_non_null(got);
    assert_string_equal(json_canonical(arena, got).data, json_canonical(arena, wanted).data);
    json_decref(wanted);
    json_decref(got);
}

static const char *header_of(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->headers_count; i++) {
        if (str_is(request->headers[i].name, name))
            return request->headers[i].value.data;
    }
    return NULL;
}

static void test_smallest(void **state)
{
    struct http_request request = form();

    (void)state;
    assert_string_equal(request.method.data, "POST");
    assert_string_equal(request.url.data, "https://api.example/v1/chat/completions");
    assert_string_equal(header_of(&request, "Content-Type"), "application/json");
    assert_string_equal(header_of(&request, "Authorization"), "Bearer sk-verysecret");
    assert_string_equal(header_of(&request, "X-Client-Request-Id"), "00112233445566778899aabbccddeeff");
    assert_string_equal(header_of(&request, "X-Myelin-Run"), "run-1");
    assert_false(request.write);
    assert_int_equal(request.timeout_ms, 5000);
    assert_int_equal(request.answer_size_max, CHAT_ANSWER_SIZE_MAX);
    check_body("{\"model\":\"gpt-x\",\"messages\":[]}"); /* nothing that nobody configured */
    model.key = STR_NONE;
    request = form();
    assert_null(header_of(&request, "Authorization"));
    call.timeout_ms = 70;
    assert_int_equal(form().timeout_ms, 70);
}

static void test_urls(void **state)
{
    static const char *const cases[][2] = {
        {"http://h/v1", "http://h/v1/chat/completions"},
        {"http://h/v1/", "http://h/v1/chat/completions"},
        {"http://h/v1//?api-version=2", "http://h/v1/chat/completions?api-version=2"},
        {"http://h", "http://h/chat/completions"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model.url = str_of(cases[i][0]);
        assert_string_equal(form().url.data, cases[i][1]);
    }
}

static void test_conversation(void **state)
{
    struct tool_request calls[] = {{STR("c1"), STR("search"), STR("{\"q\":1}")}, {STR("c2"), STR("crm"), STR("{}")}};
    struct message messages[] = {
        {.role = ROLE_USER, .content = STR("{\"company\":\"Acme\"}")},
        {.role = ROLE_ASSISTANT, .calls = calls, .calls_count = 2},
        {.role = ROLE_TOOL, .call_id = STR("c1"), .content = STR("{\"pages\":[]}"), .answer = ANSWER_DONE},
        {.role = ROLE_TOOL, .call_id = STR("c2"), .content = STR("not allowed"), .answer = ANSWER_REFUSED},
        {.role = ROLE_ASSISTANT, .content = STR("done\nit is")},
        {.role = ROLE_USER, .content = STR("again")},
    };

    (void)state;
    call.system = STR("Be \"brief\".");
    call.conversation = messages;
    call.conversation_count = sizeof messages / sizeof messages[0];
    check_body(
        "{\"model\":\"gpt-x\",\"messages\":["
        "{\"role\":\"system\",\"content\":\"Be \\\"brief\\\".\"},"
        "{\"role\":\"user\",\"content\":\"{\\\"company\\\":\\\"Acme\\\"}\"},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
        "{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"search\",\"arguments\":\"{\\\"q\\\":1}\"}},"
        "{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"crm\",\"arguments\":\"{}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"{\\\"pages\\\":[]}\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"Refused: not allowed\"},"
        "{\"role\":\"assistant\",\"content\":\"done\\nit is\"},"
        "{\"role\":\"user\",\"content\":\"again\"}]}");
}

/* A result that is a text is shown as text; one that failed says so. */
static void test_tool_results(void **state)
{
    static const struct {
        enum answer_kind answer;
        struct str content;
        const char *shown; /* as JSON */
    } cases[] = {
        {ANSWER_DONE, {"\"4 \\\"pages\\\"\"", 13}, "\"4 \\\"pages\\\"\""},
        {ANSWER_DONE, {"null", 4}, "\"null\""},
        {ANSWER_DONE, {"\"cut", 4}, "\"\\\"cut\""},
        {ANSWER_DONE, {"", 0}, "\"\""},
        {ANSWER_FAILED, {"HTTP 500", 8}, "\"Failed: HTTP 500\""},
        {ANSWER_REFUSED, {"\"x\"", 3}, "\"Refused: \\\"x\\\"\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct message message = {
            .role = ROLE_TOOL, .call_id = STR("c"), .content = cases[i].content, .answer = cases[i].answer};

        call.conversation = &message;
        call.conversation_count = 1;
        check_body(arena_printf(
                       arena,
                       "{\"model\":\"gpt-x\",\"messages\":[{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":%s}]}",
                       cases[i].shown)
                       .data);
    }
}

/* What a model once wrote wrongly must not make every later request fail. */
static void test_bad_calls_of_the_past(void **state)
{
    static const struct {
        struct str name, arguments;
        const char *shown_name, *shown_arguments;
    } cases[] = {
        {{"search", 6}, {"{\"q\": ", 6}, "search", "{\\\"invalid_json\\\":\\\"{\\\\\\\"q\\\\\\\": \\\"}"},
        {{"search", 6}, {"[1]", 3}, "search", "{\\\"invalid_json\\\":\\\"[1]\\\"}"},
        {{"search", 6}, {"", 0}, "search", "{\\\"invalid_json\\\":\\\"\\\"}"},
        {{"functions.search me!", 20}, {"{}", 2}, "functions_search_me_", "{}"},
        {{"", 0}, {"{}", 2}, "unnamed", "{}"},
        {{"\xc3\xa9", 2}, {"{}", 2}, "__", "{}"},
        {{"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggg", 66},
         {"{}", 2},
         "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg",
         "{}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tool_request past = {STR("c"), cases[i].name, cases[i].arguments};
        struct message message = {.role = ROLE_ASSISTANT, .calls = &past, .calls_count = 1};

        call.conversation = &message;
        call.conversation_count = 1;
        check_body(
            arena_printf(arena,
                         "{\"model\":\"gpt-x\",\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
                         "\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"%s\",\"arguments\":\"%s\"}}]}]}",
                         cases[i].shown_name, cases[i].shown_arguments)
                .data);
    }
}

static void test_tools(void **state)
{
    struct tool search = {.name = STR("search"), .description = STR("Search."), .parameters = schema};
    struct tool now = {.name = STR("now"), .description = STR("The time.")};
    const struct tool *tools[] = {&search, &now};

    (void)state;
    call.tools = tools;
    call.tools_count = 2;
    check_body("{\"model\":\"gpt-x\",\"messages\":[],\"tools\":["
               "{\"type\":\"function\",\"function\":{\"name\":\"search\",\"description\":\"Search.\",\"parameters\":"
               "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}}}}},"
               "{\"type\":\"function\",\"function\":{\"name\":\"now\",\"description\":\"The time.\",\"parameters\":"
               "{\"type\":\"object\",\"properties\":{}}}}]}");
}

static void test_structured_output(void **state)
{
    static const char *const told =
        "\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\\n\\nAnswer with one JSON value that fits this JSON "
        "Schema, and with nothing else:\\n{\\\"type\\\":\\\"object\\\",\\\"properties\\\":{\\\"a\\\":{\\\"type\\\":"
        "\\\"string\\\"}}}\"}]";

    (void)state;
    call.output = schema;
    check_body(
        "{\"model\":\"gpt-x\",\"messages\":[],\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
        "\"output\",\"schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}}}}}}");
    call.system = STR("Be brief.");
    model.response_format = STR("json_object");
    check_body(
        arena_printf(arena, "{\"model\":\"gpt-x\",%s,\"response_format\":{\"type\":\"json_object\"}}", told).data);
    model.response_format = STR("none");
    check_body(arena_printf(arena, "{\"model\":\"gpt-x\",%s}", told).data);
    model.response_format = STR("json_schema");
    call.output = NULL;
    check_body("{\"model\":\"gpt-x\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}]}");
}

static void test_settings(void **state)
{
    (void)state;
    model.max_tokens = 500;
    model.extra = STR("{\"temperature\":0,\"seed\":7,\"max_completion_tokens\":9}");
    check_body("{\"model\":\"gpt-x\",\"messages\":[],\"max_completion_tokens\":500,\"temperature\":0,\"seed\":7}");
    model.max_tokens_legacy = true;
    model.extra = STR_NONE;
    check_body("{\"model\":\"gpt-x\",\"messages\":[],\"max_tokens\":500}");
}

static void test_no_request(void **state)
{
    static const char *const extras[] = {"{",
                                         "[]",
                                         "1",
                                         "{\"stream\":true}",
                                         "{\"n\":2}",
                                         "{\"messages\":[]}",
                                         "{\"model\":\"x\"}",
                                         "{\"tools\":[]}",
                                         "{\"a\":1,\"a\":2}"};
    struct message message = {.role = ROLE_USER, .content = STR("\xff\xfe")};
    struct tool_request past = {STR("\xff"), STR("x"), STR("{}")};
    struct message assistant = {.role = ROLE_ASSISTANT, .calls = &past, .calls_count = 1};
    struct http_request request;
    struct error error;

    (void)state;
    for (size_t i = 0; i < sizeof extras / sizeof extras[0]; i++) {
        model.extra = str_of(extras[i]);
        error = (struct error){0};
        assert_false(chat_request(&model, &call, STR("r"), arena, &request, &error));
        assert_int_equal(error.class, ERROR_POISON);
        assert_non_null(strstr(error.text, "models.small.extra"));
    }
    model.extra = STR_NONE;
    call.conversation = &message;
    call.conversation_count = 1;
    assert_false(chat_request(&model, &call, STR("r"), arena, &request, &error));
    call.conversation = &assistant;
    assert_false(chat_request(&model, &call, STR("r"), arena, &request, &error));
    assert_non_null(strstr(error.text, "UTF-8"));
    call.conversation_count = 0;
    call.system = STR("\xc3");
    assert_false(chat_request(&model, &call, STR("r"), arena, &request, &error));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_smallest),
        TEST(test_urls),
        TEST(test_conversation),
        TEST(test_tool_results),
        TEST(test_bad_calls_of_the_past),
        TEST(test_tools),
        TEST(test_structured_output),
        TEST(test_settings),
        TEST(test_no_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
