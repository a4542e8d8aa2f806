/* The HTTP port: time limits, cancelling, many at once, and ways to the server that do not work. */

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

static void test_no_answer_in_time(void **state)
{
    for (int write = 0; write < 2; write++) {
        struct http_request request = caller_fixture_request(http_server_url("/silent"), write);
        int64_t began_ms = caller_fixture_mono_ms();
        struct ended ended;

        (void)state;
        request.timeout_ms = 200;
        ended = caller_fixture_call(&request);
        assert_int_equal(ended.answer.end, HTTP_UNKNOWN);
        assert_in_range(caller_fixture_mono_ms() - began_ms, 195, 4000);
        assert_in_range(ended.answer.duration_ms, 195, 4000);
        assert_string_equal(ended.reason, "no whole answer within 200 ms");
    }
}

static void test_dripping_answer(void **state)
{
    struct http_request request = caller_fixture_request(http_server_url("/drip"), true);
    struct ended ended;

    (void)state;
    request.timeout_ms = 300;
    ended = caller_fixture_call(&request);
    assert_int_equal(ended.answer.end, HTTP_UNKNOWN);
    assert_int_equal(ended.answer.status, 200);
}

static void test_no_connection_in_time(void **state)
{
    for (int write = 0; write < 2; write++) {
        struct http_request request = caller_fixture_request(http_server_full_url("/x"), write);
        struct ended ended;

        (void)state;
        request.timeout_ms = 200;
        ended = caller_fixture_call(&request);
        assert_int_equal(ended.answer.end, HTTP_NOT_SENT);
    }
}

static void test_connect_timeout(void **state)
{
    struct http_request request = caller_fixture_request(http_server_full_url("/x"), false);
    int64_t began_ms = caller_fixture_mono_ms();
    struct ended ended;

    (void)state;
    caller_fixture_open(&(struct caller_settings){.connect_timeout_ms = 150});
    ended = caller_fixture_call(&request);
    assert_int_equal(ended.answer.end, HTTP_NOT_SENT);
    assert_in_range(caller_fixture_mono_ms() - began_ms, 145, 4000);
}

/* Past its limit a write is not sent, although the connection stands. */
static void test_too_late_to_send(void **state)
{
    struct http_request request = caller_fixture_request(http_server_url("/ok"), true);
    struct ended ended;

    (void)state;
    request.send_until_boot_ms = clock_boot_ms() - 1;
    ended = caller_fixture_call(&request);
    assert_int_equal(ended.answer.end, HTTP_NOT_SENT);
    assert_non_null(strstr(ended.reason, "too late"));
    assert_int_equal(http_server_received("/ok"), 0);
}

/* Sent at the last moment, a write is given up half its timeout after its limit, not a whole one. */
static void test_late_write_ends_in_time(void **state)
{
    struct http_request request = caller_fixture_request(http_server_url("/silent"), true);
    int64_t began_ms = caller_fixture_mono_ms();

    (void)state;
    request.timeout_ms = 1000;
    request.send_until_boot_ms = clock_boot_ms() + 20;
    assert_int_equal(caller_fixture_call(&request).answer.end, HTTP_UNKNOWN);
    assert_in_range(caller_fixture_mono_ms() - began_ms, 500, 999);
}

static void test_cancel(void **state)
{
    struct http_request silent = caller_fixture_request(http_server_url("/silent"), false);
    struct http_request ok = caller_fixture_request(http_server_url("/ok"), false);
    struct ended never = {0}, other = {0}, last = {0};
    struct caller_call *calls[3];

    (void)state;
    caller_cancel(NULL);
    calls[0] = caller_fixture_start(&silent, &never);
    caller_cancel(calls[0]); /* before it began */
    calls[1] = caller_fixture_start(&silent, &never);
    caller_fixture_run_for(50);
    assert_int_equal(http_server_received("/silent"), 1);
    caller_cancel(calls[1]); /* on its way */
    calls[2] = caller_fixture_start(&silent, &never);
    other = (struct ended){.cancel = calls[2], .again = &ok, .again_ended = &last};
    (void)caller_fixture_start(&ok, &other);
    caller_fixture_run_until(&last); /* started from within another's end */
    assert_int_equal(caller_in_flight(caller_fixture_caller), 0);
    caller_fixture_run_for(50);
    assert_int_equal(never.times, 0);
    assert_int_equal(other.times, 1);
    assert_int_equal(last.times, 1);
}

static void test_close_with_calls_in_flight(void **state)
{
    struct http_request silent = caller_fixture_request(http_server_url("/silent"), false);
    struct ended never = {0};

    (void)state;
    for (int i = 0; i < 5; i++)
        (void)caller_fixture_start(&silent, &never);
    caller_fixture_run_for(30);
    assert_int_equal(caller_in_flight(caller_fixture_caller), 5);
}

/* libcurl gives a request that waits for a free connection no timeout. */
static void test_queue_has_deadlines(void **state)
{
    struct http_request silent = caller_fixture_request(http_server_url("/silent"), false);
    struct http_request write = caller_fixture_request(http_server_url("/ok"), true);
    struct ended first = {0}, second = {0};

    (void)state;
    caller_fixture_open(&(struct caller_settings){.connections_per_host_max = 1});
    silent.timeout_ms = 600;
    write.timeout_ms = 200;
    (void)caller_fixture_start(&silent, &first);
    caller_fixture_run_for(30);
    (void)caller_fixture_start(&write, &second);
    caller_fixture_run_until(&second);
    assert_int_equal(second.answer.end, HTTP_NOT_SENT);
    caller_fixture_run_until(&first);
    assert_int_equal(http_server_received("/ok"), 0);
    write.timeout_ms = 1000;
    assert_int_equal(caller_fixture_call(&write).answer.status, 200);
}

static void many_at_once(struct caller_settings settings)
{
    static struct ended ended[300];
    int done = 0;

    caller_fixture_open(&settings);
    memset(ended, 0, sizeof ended);
    for (size_t i = 0; i < 300; i++) {
        struct http_request request = caller_fixture_request(http_server_url("/ok"), i % 3 == 0);

        request.timeout_ms = 20000;
        request.send_until_boot_ms = clock_boot_ms() + 20000;
        (void)caller_fixture_start(&request, &ended[i]);
    }
    for (int64_t end_ms = caller_fixture_mono_ms() + 20000; done < 300 && caller_fixture_mono_ms() < end_ms;) {
        caller_fixture_turn(20);
        done = 0;
        for (size_t i = 0; i < 300; i++)
            done += ended[i].times;
    }
    for (size_t i = 0; i < 300; i++) {
        assert_int_equal(ended[i].times, 1);
        assert_int_equal(ended[i].answer.status, 200);
    }
    assert_int_equal(http_server_received("/ok"), 300);
}

static void test_many_at_once(void **state)
{
    (void)state;
    many_at_once((struct caller_settings){.connections_max = 20, .connections_per_host_max = 10});
}

/* So many connections are shared out to several handles of libcurl. */
static void test_many_in_lanes(void **state)
{
    (void)state;
    many_at_once((struct caller_settings){.connections_max = 2000, .connections_per_host_max = 1100});
}

/* The loop sleeps as long as it was told; what starts meanwhile must wake it. */
static void test_wakes_the_loop(void **state)
{
    struct http_request request = caller_fixture_request(http_server_url("/ok"), false);
    struct ended ended = {0};
    struct epoll_event event;

    (void)state;
    while (caller_tick(caller_fixture_caller, caller_fixture_mono_ms()) != INT64_MAX)
        caller_fixture_run_for(10);
    assert_int_equal(epoll_wait(caller_fixture_epoll_fd, &event, 1, 0), 0);
    (void)caller_fixture_start(&request, &ended);
    assert_int_equal(epoll_wait(caller_fixture_epoll_fd, &event, 1, 1000), 1);
    caller_fixture_run_until(&ended);
}

/* A resolver that hangs: this definition comes before libc's, also for libcurl. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    (void)service;
    (void)hints;
    (void)found;
    if (strcmp(node, "hangs.test") == 0)
        (void)usleep(3000000);
    return EAI_NONAME;
}

static void test_resolver_that_hangs(void **state)
{
    struct http_request request = caller_fixture_request("http://hangs.test/x", true);
    int64_t began_ms = caller_fixture_mono_ms();
    struct ended ended;

    (void)state;
    request.timeout_ms = 200;
    ended = caller_fixture_call(&request);
    assert_int_equal(ended.answer.end, HTTP_NOT_SENT);
    assert_in_range(caller_fixture_mono_ms() - began_ms, 195, 2500); /* the loop was not held up */
    (void)usleep(3000000);                                           /* let its thread end before the next test */
}

static void test_unknown_host(void **state)
{
    struct http_request request = caller_fixture_request("http://user:pass1@nowhere.test/x?SECRET", true);
    struct ended ended = caller_fixture_call(&request);

    (void)state;
    assert_int_equal(ended.answer.end, HTTP_NOT_SENT);
    assert_non_null(strstr(ended.reason, "nowhere.test"));
    assert_null(strstr(ended.reason, "pass1"));
    assert_null(strstr(ended.reason, "SECRET"));
}

/* The environment's proxy is obeyed, but never for this machine's loopback. */
static void test_proxy(void **state)
{
    struct http_request far = caller_fixture_request("http://far.test/ok", false);
    struct http_request near = caller_fixture_request(http_server_url("/ok"), false);

    (void)state;
    (void)setenv("http_proxy", http_server_url(""), 1);
    assert_int_equal(caller_fixture_call(&far).answer.status, 200);
    assert_int_equal(http_server_received("http://far.test/ok"), 1);
    (void)setenv("http_proxy", http_server_closed_url(""), 1);
    assert_int_equal(caller_fixture_call(&near).answer.status, 200);
    assert_int_equal(caller_fixture_call(&far).answer.end, HTTP_NOT_SENT);
    (void)unsetenv("http_proxy");
}

static void test_plain_server_for_tls(void **state)
{
    char url[200];
    struct http_request request;

    (void)state;
    (void)snprintf(url, sizeof url, "https%s", http_server_url("/ok") + 4);
    request = caller_fixture_request(url, true);
    assert_int_equal(caller_fixture_call(&request).answer.end, HTTP_NOT_SENT);
}

/* A certificate that nobody vouches for ends the call before a byte of the request left. */
static void test_tls_is_verified(void **state)
{
    char ca_file[200], url[200];
    struct http_request request;
    struct ended ended;

    (void)state;
    if (!http_server_tls_start(url, ca_file, sizeof url)) {
        skip();
        return;
    }
    request = caller_fixture_request(url, true);
    ended = caller_fixture_call(&request);
    assert_int_equal(ended.answer.end, HTTP_NOT_SENT);
    assert_non_null(strstr(ended.reason, "certificate"));
    caller_fixture_open(&(struct caller_settings){.ca_file = ca_file});
    request = caller_fixture_request(url, false);
    request.answer_size_max = 100000;
    ended = caller_fixture_call(&request);
    assert_int_equal(ended.answer.end, HTTP_ANSWERED);
    http_server_tls_stop();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, caller_fixture_set_up, caller_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_answer_in_time),
        TEST(test_dripping_answer),
        TEST(test_no_connection_in_time),
        TEST(test_connect_timeout),
        TEST(test_too_late_to_send),
        TEST(test_late_write_ends_in_time),
        TEST(test_cancel),
        TEST(test_close_with_calls_in_flight),
        TEST(test_queue_has_deadlines),
        TEST(test_many_at_once),
        TEST(test_many_in_lanes),
        TEST(test_wakes_the_loop),
        TEST(test_resolver_that_hangs),
        TEST(test_unknown_host),
        TEST(test_proxy),
        TEST(test_plain_server_for_tls),
        TEST(test_tls_is_verified),
    };
    int failed;

    http_server_start();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    http_server_stop();
    return failed;
}
