/* The loop's side of the log, with a log thread of the test's own and without Kafka. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/io/log_internal.h"

#define DONES 5000 /* more than the ring has room for */

static void *(*thread_of)(struct log *log); /* what the log thread does */
static sem_t go;

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

static bool readable(int fd, int timeout_ms)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, timeout_ms) == 1;
}

static void *take_in_order(struct log *log)
{
    sem_wait(&go);
    for (int64_t taken = 0; taken < 2 * DONES;) {
        struct log_work *work = log_ring_pop(&log->to_log);
        if (work == NULL) {
            /* Ten seconds is never. */
            if (!readable(log->to_log.fd, 10000))
                abort();
            continue;
        }
        enum log_command wanted = taken % 2 == 0 ? COMMAND_DONE : COMMAND_RELEASE;
        if (work->command != wanted || work->tenure != taken / 2 || (taken % 2 == 0 && work->offset != taken))
            abort();
        log_work_free(work);
        taken++;
    }
    return NULL;
}

/* What does not fit into the ring waits with the loop, in order, and the loop is woken when there is room. */
static void test_more_than_fits(void **state)
{
    (void)state;
    struct log_event event;
    sem_init(&go, 0, 0);
    struct log *log = open_log(take_in_order);
    for (int64_t i = 0; i < DONES; i++) {
        struct log_event source = {.tenure = i, .offset = i * 2};
        struct log_record record = {.topic = TOPIC_HISTORY, .run = STR("run"), .value = STR("value")};
        log_done(log, &source, &record, 1);
        log_release(log, i);
    }
    assert_non_null(log->backlog.first);
    sem_post(&go);
    while (log->backlog.first != NULL) {
        assert_true(readable(log_fd(log), 10000));
        assert_false(log_next(log, &event));
    }
    log_close(log);
    assert_int_equal(budget_used(BUDGET_COMMITS), 0);
    sem_destroy(&go);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_with_full_rings),
        cmocka_unit_test(test_more_than_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
