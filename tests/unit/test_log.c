/* The loop's side of the log, with a log thread of the test's own and without Kafka. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/io/log_internal.h"

static void *(*thread_of)(struct log *log); /* what the log thread does */

bool log_connect(struct log *log, const struct log_settings *settings, struct error *error)
{
    (void)settings, (void)error;
    log->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return log->wake_fd >= 0;
}

void log_disconnect(struct log *log)
{
    close(log->wake_fd);
}

void *log_thread(void *argument)
{
    return thread_of(argument);
}

static struct log *open_log(void *(*thread)(struct log *log))
{
    struct log_settings settings = {.in_flight_max = 1};
    struct error error;
    thread_of = thread;
    struct log *log = log_open(&settings, &error);
    assert_non_null(log);
    return log;
}

static void *fill(struct log *log)
{
    struct log_event *event = log_block_new(0);
    while (log_ring_push(&log->to_loop, event))
        event = log_block_new(0);
    log_block_drop(event);
    return NULL;
}

/* Emptying a full ring tells who waits for room: so it is emptied while that can still be told. */
static void test_closed_with_full_rings(void **state)
{
    (void)state;
    log_close(open_log(fill));
    assert_int_equal(budget_used(BUDGET_EVENTS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_with_full_rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
