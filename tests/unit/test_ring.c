/* The ring between two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/io/log_ring.h"

#define ITEMS 200000

static bool readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1;
}

static void wait_for(int fd, bool drain)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    uint64_t count;
    /* Ten seconds is never: a thread that sleeps on a ring that is not empty is the fault that this looks for. */
    if (poll(&one, 1, 10000) != 1)
        abort();
    if (drain && read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        abort();
}

static void *item(uintptr_t number)
{
    return (void *)(number + 1); /* NULL is no item */
}

static void test_order_and_full(void **state)
{
    (void)state;
    struct log_ring ring;
    log_ring_open(&ring, 10, eventfd(0, EFD_NONBLOCK));
    assert_int_equal(ring.size, 16);
    assert_null(log_ring_pop(&ring));
    for (uintptr_t i = 0; i < 16; i++)
        assert_true(log_ring_push(&ring, item(i)));
    assert_false(log_ring_push(&ring, item(16)));
    assert_true(log_ring_full(&ring));
    assert_true(readable(ring.fd));
    assert_false(readable(ring.room_fd));
    for (uintptr_t i = 0; i < 16; i++) {
        assert_ptr_equal(log_ring_pop(&ring), item(i));
        assert_int_equal(readable(ring.room_fd), i >= 7); /* told once it is half empty */
    }
    assert_null(log_ring_pop(&ring));
    assert_false(readable(ring.fd));
    close(ring.room_fd);
    log_ring_close(&ring);
}

/* Who pops only some must be woken for the rest. */
static void test_a_rest_keeps_it_readable(void **state)
{
    (void)state;
    struct log_ring ring;
    log_ring_open(&ring, 16, -1);
    log_ring_push(&ring, item(0));
    log_ring_push(&ring, item(1));
    assert_ptr_equal(log_ring_pop(&ring), item(0));
    assert_true(readable(ring.fd));
    assert_ptr_equal(log_ring_pop(&ring), item(1));
    assert_null(log_ring_pop(&ring));
    log_ring_push(&ring, item(2));
    assert_true(readable(ring.fd));
    assert_ptr_equal(log_ring_pop(&ring), item(2));
    log_ring_close(&ring);
}

static void *push_all(void *argument)
{
    struct log_ring *ring = argument;
    for (uintptr_t i = 0; i < ITEMS; i++) {
        while (!log_ring_push(ring, item(i)))
            wait_for(ring->room_fd, true);
    }
    return NULL;
}

/* Both sides sleep whenever they can: no item is lost, doubled or overtaken, and nobody is left asleep. */
static void two_threads(size_t size, uintptr_t batch)
{
    struct log_ring ring;
    pthread_t pusher;
    log_ring_open(&ring, size, eventfd(0, EFD_NONBLOCK));
    assert_int_equal(pthread_create(&pusher, NULL, push_all, &ring), 0);
    for (uintptr_t next = 0; next < ITEMS;) {
        void *got;
        wait_for(ring.fd, false);
        for (uintptr_t i = 0; i < batch && (got = log_ring_pop(&ring)) != NULL; i++)
            assert_ptr_equal(got, item(next++));
    }
    pthread_join(pusher, NULL);
    assert_null(log_ring_pop(&ring));
    close(ring.room_fd);
    log_ring_close(&ring);
}

static void test_two_threads_small(void **state)
{
    (void)state;
    two_threads(16, 1000);
}

static void test_two_threads_taking_a_few(void **state)
{
    (void)state;
    two_threads(64, 3);
}

static void test_two_threads_large(void **state)
{
    (void)state;
    two_threads(4096, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_full),    cmocka_unit_test(test_a_rest_keeps_it_readable),
        cmocka_unit_test(test_two_threads_small), cmocka_unit_test(test_two_threads_taking_a_few),
        cmocka_unit_test(test_two_threads_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
