/*
 * Head and tail only grow; an item is at its number modulo the size. The orders are sequentially consistent where one side
 * sets a flag and then looks at the other's counter while the other moves its counter and then looks at the flag (Dekker):
 * with anything weaker both could miss each other, and a thread would sleep on a full ring, or before one.
 */
#include "worker/io/log_ring.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

void log_ring_wake(int fd)
{
    /* Can only fail with EAGAIN, when the counter is at its limit: then it is readable anyway. */
    uint64_t one = 1;
    ssize_t done = write(fd, &one, sizeof one);
    assert(done == sizeof one || errno == EAGAIN);
}

void log_ring_open(struct log_ring *ring, struct log_ring *back, size_t size_min)
{
    size_t size = 16;
    while (size < size_min)
        size *= 2;
    ring->slots = calloc(size, sizeof *ring->slots);
    ring->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ring->slots == NULL || ring->fd < 0)
        abort(); /* a process that cannot get this at its start cannot do anything */
    ring->size = size;
    ring->back = back;
    atomic_init(&ring->tail, 0);
    atomic_init(&ring->head, 0);
    atomic_init(&ring->crowded, false);
    atomic_init(&ring->asleep, true);
}

void log_ring_close(struct log_ring *ring)
{
    assert(atomic_load(&ring->head) == atomic_load(&ring->tail));
    close(ring->fd);
    free(ring->slots);
}

bool log_ring_full(struct log_ring *ring)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail - atomic_load(&ring->head) < ring->size)
        return false;
    atomic_store(&ring->crowded, true);
    return tail - atomic_load(&ring->head) == ring->size;
}

/* The popping thread is to look; by the pushing one. Whoever takes `asleep` back writes, and nobody else: so the fd of one who is
 * asleep is drained. */
static void rouse(struct log_ring *ring)
{
    if (atomic_load(&ring->asleep) && atomic_exchange(&ring->asleep, false))
        log_ring_wake(ring->fd);
}

bool log_ring_push(struct log_ring *ring, void *item)
{
    if (log_ring_full(ring))
        return false;
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    ring->slots[tail & (ring->size - 1)] = item;
    atomic_store(&ring->tail, tail + 1);
    rouse(ring);
    return true;
}

/* Nothing there: drain the eventfd, ask to be woken, and look once more, for something may have come in between. Then the
 * eventfd must be readable again, for the popping thread may take one and sleep on the rest. Who is asleep still was not woken: there is
 * nothing to drain. And what cannot be drained yet is about to be written: that will wake us, and is drained then. */
static bool fall_asleep(struct log_ring *ring, size_t head)
{
    if (!atomic_load(&ring->asleep)) {
        uint64_t count;
        ssize_t done = read(ring->fd, &count, sizeof count);
        assert(done == sizeof count || errno == EAGAIN);
        if (done < 0)
            return atomic_load(&ring->tail) == head;
        atomic_store(&ring->asleep, true);
    }
    if (atomic_load(&ring->tail) == head)
        return true;
    rouse(ring);
    return false;
}

void *log_ring_pop(struct log_ring *ring)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (atomic_load_explicit(&ring->tail, memory_order_acquire) == head && fall_asleep(ring, head))
        return NULL;
    void *item = ring->slots[head & (ring->size - 1)];
    atomic_store(&ring->head, head + 1);
    if (atomic_load(&ring->crowded)) {
        size_t left = atomic_load_explicit(&ring->tail, memory_order_relaxed) - (head + 1);
        if (left <= ring->size / 2 && atomic_exchange(&ring->crowded, false))
            rouse(ring->back);
    }
    return item;
}
