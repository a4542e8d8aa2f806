/* The ring between two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/io/log_ring.h"

#define ITEMS 200000

static atomic_int reads;

ssize_t read(int fd, void *buffer, size_t size)
{
    atomic_fetch_add(&reads, 1);
    return syscall(SYS_read, fd, buffer, size);
}

static bool readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1;
}

static void wait_for(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    /* Ten seconds is never: a thread that sleeps on a ring that is not empty is the fault that this looks for. */
    if (poll(&one, 1, 10000) != 1)
        abort();
}

static void *item(uintptr_t number)
{
    return (void *)(number + 1); /* NULL is no item */
}

struct rings {
    struct log_ring there, back;
};

static struct rings *open_rings(size_t size)
{
    struct rings *rings = malloc(sizeof *rings);
    assert_non_null(rings);
    log_ring_open(&rings->there, &rings->back, size);
    log_ring_open(&rings->back, &rings->there, size);
    return rings;
}

static void close_rings(struct rings *rings)
{
    log_ring_close(&rings->there);
    log_ring_close(&rings->back);
    free(rings);
}

static void test_order_and_full(void **state)
{
    (void)state;
    struct rings *rings = open_rings(10);
    struct log_ring *ring = &rings->there;
    assert_int_equal(ring->size, 16);
    assert_null(log_ring_pop(ring));
    for (uintptr_t i = 0; i < 16; i++)
        assert_true(log_ring_push(ring, item(i)));
    assert_false(log_ring_push(ring, item(16)));
    assert_true(log_ring_full(ring));
    assert_true(readable(ring->fd));
    assert_false(readable(rings->back.fd));
    for (uintptr_t i = 0; i < 16; i++) {
        assert_ptr_equal(log_ring_pop(ring), item(i));
        assert_int_equal(readable(rings->back.fd), i >= 7); /* told once it is half empty */
    }
    assert_null(log_ring_pop(ring));
    assert_false(readable(ring->fd));
    assert_null(log_ring_pop(&rings->back)); /* or who waits for room would spin */
    assert_false(readable(rings->back.fd));
    close_rings(rings);
}

/* Who pops only some must be woken for the rest. */
static void test_a_rest_keeps_it_readable(void **state)
{
    (void)state;
    struct rings *rings = open_rings(16);
    struct log_ring *ring = &rings->there;
    log_ring_push(ring, item(0));
    log_ring_push(ring, item(1));
    assert_ptr_equal(log_ring_pop(ring), item(0));
    assert_true(readable(ring->fd));
    assert_ptr_equal(log_ring_pop(ring), item(1));
    assert_null(log_ring_pop(ring));
    log_ring_push(ring, item(2));
    assert_true(readable(ring->fd));
    assert_ptr_equal(log_ring_pop(ring), item(2));
    close_rings(rings);
}

static void test_no_system_call_when_nobody_wrote(void **state)
{
    (void)state;
    struct rings *rings = open_rings(16);
    int before = atomic_load(&reads);
    for (int i = 0; i < 10; i++)
        assert_null(log_ring_pop(&rings->there));
    assert_int_equal(atomic_load(&reads), before);
    log_ring_push(&rings->there, item(0));
    assert_ptr_equal(log_ring_pop(&rings->there), item(0));
    for (int i = 0; i < 10; i++)
        assert_null(log_ring_pop(&rings->there));
    assert_int_equal(atomic_load(&reads), before + 1);
    close_rings(rings);
}

/* The pusher was stopped right before it writes the fd: what it writes in the end is drained, or who sleeps on it would spin. */
static void test_woken_late(void **state)
{
    (void)state;
    struct rings *rings = open_rings(16);
    struct log_ring *ring = &rings->there;
    atomic_store(&ring->asleep, false);
    assert_true(log_ring_push(ring, item(0)));
    assert_ptr_equal(log_ring_pop(ring), item(0));
    assert_null(log_ring_pop(ring));
    log_ring_wake(ring->fd);
    assert_true(readable(ring->fd));
    assert_null(log_ring_pop(ring));
    assert_false(readable(ring->fd));
    log_ring_push(ring, item(1));
    assert_true(readable(ring->fd));
    assert_ptr_equal(log_ring_pop(ring), item(1));
    close_rings(rings);
}

static void *push_all(void *argument)
{
    struct rings *rings = argument;
    for (uintptr_t i = 0; i < ITEMS; i++) {
        while (!log_ring_push(&rings->there, item(i))) {
            wait_for(rings->back.fd);
            if (log_ring_pop(&rings->back) != NULL)
                abort();
        }
    }
    return NULL;
}

/* Both sides sleep whenever they can: no item is lost, doubled or overtaken, and nobody is left asleep. */
static void two_threads(size_t size, uintptr_t batch)
{
    struct rings *rings = open_rings(size);
    pthread_t pusher;
    assert_int_equal(pthread_create(&pusher, NULL, push_all, rings), 0);
    for (uintptr_t next = 0; next < ITEMS;) {
        void *got;
        wait_for(rings->there.fd);
        for (uintptr_t i = 0; i < batch && (got = log_ring_pop(&rings->there)) != NULL; i++)
            assert_ptr_equal(got, item(next++));
    }
    pthread_join(pusher, NULL);
    assert_null(log_ring_pop(&rings->there));
    assert_false(readable(rings->there.fd));
    close_rings(rings);
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
        cmocka_unit_test(test_order_and_full),
        cmocka_unit_test(test_a_rest_keeps_it_readable),
        cmocka_unit_test(test_no_system_call_when_nobody_wrote),
        cmocka_unit_test(test_woken_late),
        cmocka_unit_test(test_two_threads_small),
        cmocka_unit_test(test_two_threads_taking_a_few),
        cmocka_unit_test(test_two_threads_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
