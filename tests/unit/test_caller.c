/* The HTTP port against a server that misbehaves on request: what was sent, what is known afterwards. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/caller_fixture.h"
#include "tests/unit/http_server.h"
#include "worker/io/caller_easy.h"
#include "worker/io/clock.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, caller_fixture_set_up, caller_fixture_tear_down)

static void test_answers(void **state)
{
    struct http_request request = caller_fixture_request(http_server_url("/ok"), false);
    struct ended ended = caller_fixture_call(&request);

    (void)state;
    assert_int_equal(ended.answer.end, HTTP_ANSWERED);
    assert_int_equal(ended.answer.status, 200);
    assert_string_equal(ended.body, "{\"ok\":true}");
    assert_string_equal(ended.type, "application/json");
    assert_null(ended.answer.reason);
    assert_int_equal(http_server_received("/ok"), 1);
    assert_int_equal(caller_in_flight(caller_fixture_caller), 0);
}

static void test_sends_what_was_asked(void **state)
{
    const struct http_header headers[] = {{STR("Content-Type"), STR("application/json")},
                                          {STR("Idempotency-Key"), STR("abc")},
                                          {STR("X-Empty"), STR("")}};
    static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    struct ended ended;

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        for (int with_body = 0; with_body < 2; with_body++) {
            struct http_request request = caller_fixture_request(http_server_url("/echo?x=%2F..%2F/../y"), false);
            char line[100];

            request.method = str_of(methods[i]);
            request.body = with_body ? STR("{\"b\":\"\\u0000\"}") : STR_NONE;
            request.headers = headers;
            request.headers_count = 3;
            ended = caller_fixture_call(&request);
            assert_int_equal(ended.answer.status, 200);
            (void)snprintf(line, sizeof line, "%s /echo?x=%%2F..%%2F/../y HTTP/1.1\r\n", methods[i]);
            assert_memory_equal(ended.body, line, strlen(line));
            assert_non_null(strstr(ended.body, "\r\nIdempotency-Key: abc\r\n"));
            assert_non_null(strstr(ended.body, "\r\nX-Empty:"));
            assert_null(strstr(ended.body, "Expect"));
            assert_null(strstr(ended.body, "urlencoded"));
            assert_int_equal(strstr(ended.body, "{\"b\":\"\\u0000\"}") != NULL, with_body);
        }
    }
}

/* What may be known, and what not, when the connection is cut in each phase: the same for reads and writes. */
static void test_cut_connections(void **state)
{
    static const struct {
        const char *path;
        enum http_end end;
        int received; /* requests that the server has read */
    } cases[] = {
        {"/cut/accept", HTTP_UNKNOWN, 0},  {"/cut/request", HTTP_UNKNOWN, 1},  {"/cut/status", HTTP_UNKNOWN, 1},
        {"/cut/headers", HTTP_UNKNOWN, 1}, {"/cut/body", HTTP_UNKNOWN, 1},     {"/cut/chunk", HTTP_UNKNOWN, 1},
        {"/garbage", HTTP_UNKNOWN, 1},     {"/cut/continue", HTTP_UNKNOWN, 1}, {"/headers/endless", HTTP_UNKNOWN, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int write = 0; write < 2; write++) {
            struct http_request request;
            struct ended ended;

            http_server_reset();
            http_server_cut_at_accept(strcmp(cases[i].path, "/cut/accept") == 0);
            request = caller_fixture_request(http_server_url(cases[i].path), write);
            ended = caller_fixture_call(&request);
            /* A reset may come so early that connecting itself fails: then surely nothing was sent. */
            if (ended.answer.end != cases[i].end && !(i == 0 && ended.answer.end == HTTP_NOT_SENT))
                fail_msg("%s: end %d, \"%s\"", cases[i].path, ended.answer.end, ended.reason);
            assert_true(ended.reason[0] != '\0');
            assert_int_equal(http_server_received(cases[i].path), cases[i].received);
        }
    }
}

static void test_nobody_listens(void **state)
{
    struct http_request request = caller_fixture_request(http_server_closed_url("/x?key=SECRETQUERY"), true);
    struct ended ended = caller_fixture_call(&request);

    (void)state;
    assert_int_equal(ended.answer.end, HTTP_NOT_SENT);
    assert_int_equal(ended.answer.status, 0);
    assert_null(strstr(ended.reason, "SECRETQUERY"));
}

/* libcurl repeats a request by itself when a reused connection turns out dead. A write must not go out twice. */
static void test_stale_connection(void **state)
{
    struct http_request read = caller_fixture_request(http_server_url("/stale"), false);
    struct http_request write = caller_fixture_request(http_server_url("/stale"), true);
    struct ended ended;

    (void)state;
    assert_int_equal(caller_fixture_call(&read).answer.end,
                     HTTP_ANSWERED);    /* first on its connection: answered, kept alive */
    ended = caller_fixture_call(&read); /* second on it: read, then cut */
    assert_int_equal(ended.answer.end, HTTP_ANSWERED);
    assert_int_equal(http_server_received("/stale"),
                     3); /* so libcurl did send the second one again: the hazard is real */
    assert_int_equal(caller_fixture_call(&write).answer.end,
                     HTTP_ANSWERED); /* there is an idle connection now: not used by a write */
    assert_int_equal(http_server_received("/stale"), 4);
    assert_int_equal(caller_fixture_call(&write).answer.end, HTTP_ANSWERED);
    assert_int_equal(http_server_received("/stale"), 5);
}

/* The last guard of all: should libcurl ever come back for a second sending, the check before it says no. */
static void test_second_sending_is_refused(void **state)
{
    struct caller_easy easy;
    struct http_request write = caller_fixture_request(http_server_url("/stale"), true);
    struct http_answer answer;
    const struct caller_settings settings = {.connect_timeout_ms = 1000};
    CURLcode code;

    (void)state;
    assert_true(caller_easy_init(&easy, NULL));
    for (int i = 0; i < 2; i++) {
        assert_true(caller_easy_prepare(&easy, &settings, &write, NULL));
        (void)curl_easy_setopt(easy.curl, CURLOPT_FRESH_CONNECT, 0L); /* take the first guard away */
        code = curl_easy_perform(easy.curl);
        caller_easy_answer(&easy, code, false, &answer);
        assert_int_equal(answer.end, i == 0 ? HTTP_ANSWERED : HTTP_UNKNOWN);
        caller_easy_clear(&easy);
    }
    assert_int_equal(http_server_received("/stale"), 2);
    caller_easy_free(&easy);
}

static void test_reads_keep_alive(void **state)
{
    struct http_request read = caller_fixture_request(http_server_url("/ok"), false);

    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(caller_fixture_call(&read).answer.status, 200);
    assert_int_equal(http_server_connections(), 1);
}

static void test_answers_are_bounded(void **state)
{
    static const char *const paths[] = {"/size/1001", "/chunked/1001", "/size/100000000"};
    struct ended ended;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (int write = 0; write < 2; write++) {
            struct http_request request = caller_fixture_request(http_server_url(paths[i]), write);

            ended = caller_fixture_call(&request);
            assert_int_equal(ended.answer.end, HTTP_TOO_LARGE);
            assert_int_equal(ended.answer.status, 200);
            assert_string_equal(ended.reason, "the answer is over 1000 bytes");
        }
    }
    for (size_t i = 0; i < 2; i++) {
        struct http_request request = caller_fixture_request(http_server_url(i == 0 ? "/size/1000" : "/chunked/1000"),
                                                             false);

        ended = caller_fixture_call(&request);
        assert_int_equal(ended.answer.end, HTTP_ANSWERED);
        assert_int_equal(ended.answer.body.size, 1000);
    }
}

static void test_redirects_are_not_followed(void **state)
{
    struct http_request request = caller_fixture_request(http_server_url("/redirect"), true);
    struct ended ended = caller_fixture_call(&request);

    (void)state;
    assert_int_equal(ended.answer.status, 302);
    assert_int_equal(http_server_received("/ok"), 0);
}

static void test_retry_after(void **state)
{
    static const struct {
        const char *path;
        int64_t low_ms, high_ms;
    } cases[] = {
        {"/retry/Retry-After:%203", 3000, 3000},
        {"/retry/retry-after:%201.5", 1500, 1500},
        {"/retry/Retry-After-Ms:%20250", 250, 250},
        {"/retry/retry-after-ms:%20274579000", CALLER_RETRY_AFTER_MS_MAX, CALLER_RETRY_AFTER_MS_MAX},
        {"/retry/retry-after:%20-1", 0, 0},
        {"/retry/retry-after:%20soon", 0, 0},
        {"/retry/retry-after:%20Wed,%2021%20Oct%202015%2007:28:00%20GMT", 0, 0},
        {"/retry/retry-after:%20Wed,%2021%20Oct%202099%2007:28:00%20GMT", CALLER_RETRY_AFTER_MS_MAX,
         CALLER_RETRY_AFTER_MS_MAX},
        {"/retry/x-other:%205", 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_request request = caller_fixture_request(http_server_url(cases[i].path), false);
        struct ended ended = caller_fixture_call(&request);

        assert_int_equal(ended.answer.status, 429);
        assert_in_range(ended.answer.retry_after_ms, cases[i].low_ms, cases[i].high_ms);
    }
}

static void test_retry_after_values(void **state)
{
    const int64_t now_ms = 1445412479000; /* Wed, 21 Oct 2015 07:27:59 GMT */
    static const struct {
        const char *text;
        int64_t unit_ms, ms;
    } cases[] = {
        {"0", 1000, 0},
        {"1", 1000, 1000},
        {"0.25", 1000, 250},
        {".5", 1000, 500},
        {"1e3", 1000, 1000000},
        {"", 1000, 0},
        {"abc", 1000, 0},
        {"-5", 1000, 0},
        {"1s", 1000, 0},
        {"inf", 1000, 0},
        {"nan", 1000, 0},
        {"0x10", 1, 16},
        {"1e400", 1000, 0},
        {"12.2", 1, 13},
        {"-0", 1, 0},
        {"99999999999999999999", 1000, CALLER_RETRY_AFTER_MS_MAX},
        {"Wed, 21 Oct 2015 07:28:00 GMT", 1000, 1000},
        {"Wed, 21 Oct 2015 07:28:00 GMT", 1, 0},
        {"Wednesday, 21-Oct-15 07:28:04 GMT", 1000, 5000},
        {"Wed, 21 Oct 2015 07:27:00 GMT", 1000, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(caller_easy_retry_after_ms(str_of(cases[i].text), cases[i].unit_ms, now_ms), cases[i].ms);
}

static void test_cannot_be_formed(void **state)
{
    const struct http_header bad_name = {STR("Bad Name"), STR("x")};
    const struct http_header bad_value = {STR("X-Key"), STR("SECRET\r\nX-Other: 1")};
    struct http_request requests[8];
    struct error error;

    (void)state;
    for (size_t i = 0; i < 8; i++)
        requests[i] = caller_fixture_request(http_server_url("/ok"), false);
    requests[0].url = STR("file:///etc/passwd");
    requests[1].url = STR("gopher://127.0.0.1/x");
    requests[2].url = STR("127.0.0.1/SECRET");
    requests[3].url = STR("http://");
    requests[4].url = STR_NONE;
    requests[5].method = STR("GET / HTTP/1.1\r\n");
    requests[6].headers = &bad_name;
    requests[6].headers_count = 1;
    requests[7].headers = &bad_value;
    requests[7].headers_count = 1;
    for (size_t i = 0; i < 8; i++) {
        error = (struct error){0};
        assert_null(caller_start(caller_fixture_caller, &requests[i], caller_fixture_done, NULL, &error));
        assert_int_equal(error.class, ERROR_POISON);
        assert_null(strstr(error.text, "SECRET"));
    }
    assert_int_equal(caller_in_flight(caller_fixture_caller), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_answers),
        TEST(test_sends_what_was_asked),
        TEST(test_cut_connections),
        TEST(test_nobody_listens),
        TEST(test_stale_connection),
        TEST(test_second_sending_is_refused),
        TEST(test_reads_keep_alive),
        TEST(test_answers_are_bounded),
        TEST(test_redirects_are_not_followed),
        TEST(test_retry_after),
        cmocka_unit_test(test_retry_after_values),
        TEST(test_cannot_be_formed),
    };
    int failed;

    http_server_start();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    http_server_stop();
    return failed;
}
