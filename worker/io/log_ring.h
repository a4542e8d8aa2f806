/*
 * log_ring.h: a bounded ring between two threads: one pushes, one pops. Part of log.c.
 *
 * An eventfd makes it fit for threads that sleep in epoll or poll: it becomes readable when something is pushed after a pop found
 * nothing. Rings come in twos, one in each direction: when one that was found full is half empty again, the fd of the other one
 * becomes readable, for that is where the pushing thread sleeps. What does not fit stays with the pusher, in order, until then; it
 * tries again after each pop that found nothing.
 */
#ifndef MYELIN_IO_LOG_RING_H
#define MYELIN_IO_LOG_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct log_ring {
    void **slots;
    size_t size; /* a power of two */
    int fd;
    struct log_ring *back; /* in the other direction */
    atomic_size_t tail;    /* pushed so far */
    atomic_bool crowded;   /* a push found it full; set by the pusher, taken back by the popper */
    char apart[64];        /* what the two threads write lies on different cache lines */
    atomic_size_t head;    /* popped so far */
    atomic_bool asleep;    /* a pop found it empty; set by the popper, taken back by the pusher, who then writes `fd` */
};

/* `size_min` is rounded up to a power of two. */
void log_ring_open(struct log_ring *ring, struct log_ring *back, size_t size_min);
void log_ring_close(struct log_ring *ring); /* must be empty */

bool log_ring_push(struct log_ring *ring, void *item); /* false: full, not taken */
void *log_ring_pop(struct log_ring *ring);             /* NULL: empty, and `fd` is drained, or will be */
bool log_ring_full(struct log_ring *ring);             /* for the pushing thread */

void log_ring_wake(int fd); /* makes an eventfd readable */

#endif
