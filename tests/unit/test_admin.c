#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/io/admin.h"
#include "worker/io/clock.h"

#define TAG 7
#define WAIT_MS 10000

struct rig {
    int epoll_fd;
    struct admin *admin;
    char asked[128];    /* the last path */
    size_t answer_size; /* how large a page /large is */
    char answer[4096];
};

static void serve(void *context, const char *path, struct admin_page *page)
{
    struct rig *rig = context;
    (void)snprintf(rig->asked, sizeof(rig->asked), "%s", path);
    if (strcmp(path, "/page") != 0 && strcmp(path, "/large") != 0)
        return;
    page->status = 200;
    buf_puts(&page->body, "a page\n");
    for (size_t i = 0; strcmp(path, "/large") == 0 && i < rig->answer_size; i++)
        buf_puts(&page->body, ".");
}

static int set_up(void **state)
{
    static struct rig rig;
    struct error error;
    logline_level(LOGLINE_ERROR);
    rig = (struct rig){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    rig.admin = admin_open("127.0.0.1:0", rig.epoll_fd, TAG, serve, &rig, &error);
    assert_non_null(rig.admin);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    admin_close(rig->admin);
    close(rig->epoll_fd);
    return 0;
}

/* One turn of a loop such as main.c's; false when nothing came. */
static bool turn(struct rig *rig, int wait_ms)
{
    struct epoll_event event;
    int64_t now_ms = clock_mono_us() / 1000, due_ms = admin_tick(rig->admin, now_ms);
    if (due_ms - now_ms < wait_ms)
        wait_ms = (int)(due_ms - now_ms);
    int count = epoll_wait(rig->epoll_fd, &event, 1, wait_ms);
    if (count == 1) {
        assert_int_equal(event.data.u64 >> 32, TAG);
        admin_ready(rig->admin);
    }
    return count == 1;
}

static int dial(int32_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Sends the request and reads until the other side closes. */
static const char *ask(struct rig *rig, const char *request)
{
    int64_t until_us = clock_mono_us() + WAIT_MS * 1000;
    int fd = dial(admin_port(rig->admin));
    size_t size = 0;
    ssize_t got = -1;
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    while (got != 0 && clock_mono_us() < until_us) {
        turn(rig, 1);
        got = read(fd, rig->answer + size, sizeof(rig->answer) - 1 - size);
        size += got > 0 ? (size_t)got : 0;
    }
    rig->answer[size] = '\0';
    assert_int_equal(got, 0);
    close(fd);
    return rig->answer;
}

#define CLOSE " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static void test_a_page(void **state)
{
    struct rig *rig = *state;
    const char *answer = ask(rig, "GET /page?x=y" CLOSE);
    assert_true(begins(answer, "HTTP/1.1 200 "));
    assert_non_null(strstr(answer, "Content-Type: text/plain; charset=utf-8\r\n"));
    assert_non_null(strstr(answer, "\r\n\r\na page\n"));
    assert_string_equal(rig->asked, "/page");
}

static void test_what_is_not_there(void **state)
{
    assert_true(begins(ask(*state, "GET /other" CLOSE), "HTTP/1.1 404 "));
}

static void test_only_get(void **state)
{
    struct rig *rig = *state;
    static const char *const methods[] = {"HEAD", "PUT", "DELETE", "OPTIONS", "BREW"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        char request[128];
        (void)snprintf(request, sizeof(request), "%s /page" CLOSE, methods[i]);
        const char *answer = ask(rig, request);
        assert_true(begins(answer, "HTTP/1.1 405 "));
        assert_non_null(strstr(answer, "Allow: GET\r\n"));
    }
    assert_true(
        begins(ask(rig, "POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nbody"), "HTTP/1.1 405 "));
    assert_string_equal(rig->asked, "");
}

static void test_bytes_that_are_no_request(void **state)
{
    struct rig *rig = *state;
    static const char *const garbage[] = {"\r\n\r\nhello\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n"};
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        const char *answer = ask(rig, garbage[i]);
        assert_true(answer[0] == '\0' || begins(answer, "HTTP/1."));
        assert_false(begins(answer, "HTTP/1.1 200 "));
    }
    assert_true(begins(ask(rig, "GET /page" CLOSE), "HTTP/1.1 200 "));
}

static void test_a_head_without_end(void **state)
{
    struct rig *rig = *state;
    static char request[60000];
    memset(request, 'a', sizeof(request) - 1);
    memcpy(request, "GET /", 5);
    assert_true(begins(ask(rig, request), "HTTP/1.1 4"));
}

static void test_a_page_over_its_limit(void **state)
{
    struct rig *rig = *state;
    rig->answer_size = ADMIN_BODY_MAX;
    assert_true(begins(ask(rig, "GET /large" CLOSE), "HTTP/1.1 500 "));
}

/* Many that say nothing cannot keep the others away for long: there is room for some, and silence ends after a while. */
static void test_silent_connections(void **state)
{
    struct rig *rig = *state;
    int fds[40];
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        fds[i] = dial(admin_port(rig->admin));
        turn(rig, 0);
    }
    assert_true(begins(ask(rig, "GET /page" CLOSE), "HTTP/1.1 200 "));
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        close(fds[i]);
}

static void test_it_does_not_spin(void **state)
{
    struct rig *rig = *state;
    int fd = dial(admin_port(rig->admin));
    int turns = 0;
    for (int64_t until_us = clock_mono_us() + 300000; clock_mono_us() < until_us; turns++)
        turn(rig, 50);
    assert_in_range(turns, 1, 20);
    close(fd);
}

static void test_a_taken_port(void **state)
{
    struct rig *rig = *state;
    struct error error;
    char address[32];
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", admin_port(rig->admin));
    struct admin *second = admin_open(address, rig->epoll_fd, TAG, serve, rig, &error);
    assert_non_null(second);
    assert_int_not_equal(admin_port(second), admin_port(rig->admin));
    assert_int_not_equal(admin_port(second), 0);
    admin_close(second);
}

static void test_addresses_that_cannot_be(void **state)
{
    struct rig *rig = *state;
    static const char *const wrong[] = {"192.0.2.1:0", "localhost:0", ":0", "127.0.0.1", "127.0.0.1:x", "[::1:0"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct error error = {.class = ERROR_NONE};
        assert_null(admin_open(wrong[i], rig->epoll_fd, TAG, serve, rig, &error));
        assert_int_equal(error.class, ERROR_FATAL);
        assert_non_null(strstr(error.text, wrong[i]));
    }
}

static void test_none_is_fine(void **state)
{
    (void)state;
    assert_true(admin_tick(NULL, 1) == INT64_MAX);
    admin_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_get, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bytes_that_are_no_request, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_head_without_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_page_over_its_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silent_connections, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_does_not_spin, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_taken_port, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses_that_cannot_be, set_up, tear_down),
        cmocka_unit_test(test_none_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
