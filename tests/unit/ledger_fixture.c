#include "tests/unit/ledger_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/redis_server.h"
#include "worker/base/logline.h"
#include "worker/io/clock.h"

struct ledger *worker[WORKERS_MAX];

static int epoll_fd = -1;

int64_t ledger_fixture_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

void ledger_fixture_open(int index, struct ledger_settings settings)
{
    struct error error = {0};

    if (settings.address == NULL)
        settings.address = redis_server_address();
    if (settings.name_space == NULL)
        settings.name_space = "test";
    settings.settle_ms = SETTLE_MS;
    settings.lease_ms = LEASE_MS;
    settings.reconnect_ms_max = 200;
    worker[index] = ledger_open(&settings, epoll_fd, (uint32_t)index + 1, &error);
    if (worker[index] == NULL)
        fail_msg("%s", error.text);
}

void ledger_fixture_close(int index)
{
    ledger_close(worker[index]);
    worker[index] = NULL;
}

void ledger_fixture_worker(int index, const char *slot, const char *holder)
{
    ledger_fixture_open(index, (struct ledger_settings){.slot = slot, .holder = holder});
    assert_true(ledger_fixture_wait_up(index, true));
}

int ledger_fixture_set_up(void **state)
{
    (void)state;
    logline_level(LOGLINE_ERROR);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    (void)redis_server_ask("FLUSHALL");
    ledger_fixture_worker(0, "a", "a:1");
    ledger_fixture_worker(1, "b", "b:1");
    return 0;
}

int ledger_fixture_tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < WORKERS_MAX; i++)
        ledger_fixture_close(i);
    (void)close(epoll_fd);
    return 0;
}

void ledger_fixture_turn(int64_t wait_ms_max)
{
    struct epoll_event events[16];
    int64_t due_ms = ledger_fixture_mono_ms() + wait_ms_max, wait_ms;
    int count;

    for (int i = 0; i < WORKERS_MAX; i++) {
        int64_t wanted_ms = worker[i] == NULL ? INT64_MAX : ledger_tick(worker[i], ledger_fixture_mono_ms());

        due_ms = wanted_ms < due_ms ? wanted_ms : due_ms;
        if (worker[i] != NULL)
            ledger_flush(worker[i]);
    }
    wait_ms = due_ms - ledger_fixture_mono_ms();
    count = epoll_wait(epoll_fd, events, 16, wait_ms < 0 ? 0 : (int)wait_ms);
    for (int i = 0; i < count; i++) {
        struct ledger *ready = worker[(events[i].data.u64 >> 32) - 1];

        if (ready != NULL)
            ledger_ready(ready, (int)(uint32_t)events[i].data.u64, events[i].events);
    }
}

void ledger_fixture_run_for(int64_t ms)
{
    for (int64_t end_ms = ledger_fixture_mono_ms() + ms; ledger_fixture_mono_ms() < end_ms;)
        ledger_fixture_turn(end_ms - ledger_fixture_mono_ms());
}

bool ledger_fixture_wait_up(int index, bool up)
{
    for (int64_t end_ms = ledger_fixture_mono_ms() + 10000;
         ledger_fixture_mono_ms() < end_ms && ledger_up(worker[index]) != up;)
        ledger_fixture_turn(20);
    return ledger_up(worker[index]) == up;
}

void ledger_fixture_told(void *context, const struct ledger_answer *answer)
{
    struct told *told = context;

    told->times++;
    told->verdict = answer->verdict;
    told->fence = answer->fence;
    told->send_until_boot_ms = answer->send_until_boot_ms;
    told->until_ms = answer->until_ms;
    told->begun = answer->begun;
    told->alone = answer->alone;
    told->result_size = answer->result.size;
    told->result_sum = 0;
    for (size_t i = 0; i < answer->result.size; i++)
        told->result_sum = told->result_sum * 31 + (unsigned char)answer->result.data[i];
    (void)snprintf(told->result, sizeof told->result, "%.*s", STR_ARG(answer->result));
    (void)snprintf(told->reason, sizeof told->reason, "%.*s", STR_ARG(answer->reason));
}

void ledger_fixture_run_until(const struct told *told)
{
    for (int64_t end_ms = ledger_fixture_mono_ms() + 20000; told->times == 0;) {
        if (ledger_fixture_mono_ms() > end_ms)
            fail_msg("not told within 20 s");
        ledger_fixture_turn(20);
    }
}

void expect_verdict(struct told told, enum ledger_verdict verdict, const char *file, int line)
{
    static const char *const names[] = {"GO", "STORED", "DOUBT", "DOWN", "REFUSED"};

    if (told.verdict == verdict)
        return;
    print_error("%s, not %s: \"%s\"\n", names[told.verdict], names[verdict], told.reason);
    _fail(file, line);
}

static struct told finish(const struct ledger_op *op, struct told *told)
{
    assert_non_null(op);
    assert_int_equal(told->times, 0); /* never from within */
    ledger_fixture_run_until(told);
    assert_int_equal(told->times, 1);
    return *told;
}

struct told reserve_suspect(int index, const char *key, int64_t timeout_ms, const char *incarnation)
{
    struct told told = {0};

    return finish(ledger_reserve(worker[index], STR("run"), str_of(key), timeout_ms, incarnation != NULL,
                                 str_of(incarnation), ledger_fixture_told, &told),
                  &told);
}

struct told reserve(int index, const char *key, int64_t timeout_ms)
{
    return reserve_suspect(index, key, timeout_ms, NULL);
}

struct told takeover(int index, const char *key, int64_t timeout_ms)
{
    struct told told = {0};

    return finish(ledger_takeover(worker[index], STR("run"), str_of(key), timeout_ms, ledger_fixture_told, &told),
                  &told);
}

struct told complete(int index, const char *key, int64_t fence, const char *result)
{
    struct told told = {0};

    return finish(
        ledger_complete(worker[index], STR("run"), str_of(key), fence, str_of(result), ledger_fixture_told, &told),
        &told);
}

struct told lease(int index, const char *key)
{
    struct told told = {0};

    return finish(ledger_lease(worker[index], str_of(key), ledger_fixture_told, &told), &told);
}

struct told count(int index, const char *key, int begun, int alone)
{
    struct told told = {0};

    return finish(ledger_count(worker[index], str_of(key), begun, alone, ledger_fixture_told, &told), &told);
}
