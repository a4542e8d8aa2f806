#include "tests/unit/caller_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/http_server.h"
#include "worker/io/clock.h"

#define TAG 7

int caller_fixture_epoll_fd;
struct caller *caller_fixture_caller;

void caller_fixture_done(void *context, const struct http_answer *answer)
{
    struct ended *ended = context;

    ended->times++;
    ended->answer = *answer;
    (void)snprintf(ended->body, sizeof ended->body, "%.*s", STR_ARG(answer->body));
    (void)snprintf(ended->type, sizeof ended->type, "%.*s", STR_ARG(answer->content_type));
    (void)snprintf(ended->reason, sizeof ended->reason, "%s", answer->reason == NULL ? "" : answer->reason);
    caller_cancel(ended->cancel);
    if (ended->again != NULL)
        assert_non_null(
            caller_start(caller_fixture_caller, ended->again, caller_fixture_done, ended->again_ended, NULL));
}

int64_t caller_fixture_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

void caller_fixture_turn(int64_t wait_ms_max)
{
    int64_t due_ms = caller_tick(caller_fixture_caller, caller_fixture_mono_ms());
    int64_t wait_ms = due_ms == INT64_MAX ? wait_ms_max : due_ms - caller_fixture_mono_ms();
    struct epoll_event events[16];
    int count;

    wait_ms = wait_ms < 0 ? 0 : wait_ms > wait_ms_max ? wait_ms_max : wait_ms;
    count = epoll_wait(caller_fixture_epoll_fd, events, 16, (int)wait_ms);
    for (int i = 0; i < count; i++) {
        assert_int_equal(events[i].data.u64 >> 32, TAG);
        caller_ready(caller_fixture_caller, (int)(uint32_t)events[i].data.u64, events[i].events);
    }
}

void caller_fixture_run_until(const struct ended *ended)
{
    int64_t end_ms = caller_fixture_mono_ms() + 20000;

    while (ended->times == 0) {
        if (caller_fixture_mono_ms() > end_ms)
            fail_msg("no answer after 20 s");
        caller_fixture_turn(20); /* short: the answer may have come from within the tick */
    }
}

void caller_fixture_run_for(int64_t ms)
{
    for (int64_t end_ms = caller_fixture_mono_ms() + ms; caller_fixture_mono_ms() < end_ms;)
        caller_fixture_turn(end_ms - caller_fixture_mono_ms());
}

struct http_request caller_fixture_request(const char *url, bool write)
{
    return (struct http_request){
        .method = write ? STR("POST") : STR("GET"),
        .url = str_of(url),
        .body = write ? STR("{\"a\":1}") : STR_NONE,
        .timeout_ms = 5000,
        .answer_size_max = 1000,
        .write = write,
        .send_until_boot_ms = write ? clock_boot_ms() + 2500 : 0,
    };
}

struct caller_call *caller_fixture_start(const struct http_request *request, struct ended *ended)
{
    struct error error = {0};
    struct caller_call *call = caller_start(caller_fixture_caller, request, caller_fixture_done, ended, &error);

    if (call == NULL)
        fail_msg("%s", error.text);
    assert_int_equal(ended->times, 0); /* never from within caller_start */
    return call;
}

struct ended caller_fixture_call(const struct http_request *request)
{
    struct ended ended = {0};

    (void)caller_fixture_start(request, &ended);
    caller_fixture_run_until(&ended);
    assert_int_equal(ended.times, 1);
    return ended;
}

void caller_fixture_open(const struct caller_settings *settings)
{
    struct error error = {0};

    if (caller_fixture_caller != NULL)
        (void)caller_fixture_tear_down(NULL);
    caller_fixture_epoll_fd = epoll_create1(0);
    caller_fixture_caller = caller_open(settings, caller_fixture_epoll_fd, TAG, &error);
    if (caller_fixture_caller == NULL)
        fail_msg("%s", error.text);
}

int caller_fixture_set_up(void **state)
{
    (void)state;
    http_server_reset();
    caller_fixture_open(&(struct caller_settings){0});
    return 0;
}

int caller_fixture_tear_down(void **state)
{
    (void)state;
    caller_close(caller_fixture_caller);
    caller_fixture_caller = NULL;
    (void)close(caller_fixture_epoll_fd);
    return 0;
}
