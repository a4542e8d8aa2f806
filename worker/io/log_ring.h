/*
 * log_ring.h: a bounded ring between two threads: one pushes, one pops. Part of log.c.
 *
 * Two eventfds make it fit for threads that sleep in epoll or poll. `fd` belongs to the ring: it becomes readable when
 * something is pushed after a pop found nothing. `room_fd` belongs to the pushing thread: it is written when a ring that
 * was found full is half empty again. What does not fit stays with the pusher, in order, until then.
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
    int room_fd;         /* borrowed */
    atomic_size_t tail;  /* pushed so far */
    atomic_bool crowded; /* a push found it full; set by the pusher, taken back by the popper */
    char apart[64];      /* what the two threads write lies on different cache lines */
    atomic_size_t head;  /* popped so far */
    atomic_bool asleep;  /* a pop found it empty; set by the popper, taken back by the pusher */
};

/* `size_min` is rounded up to a power of two. `room_fd` may be set later, before the first push. */
void log_ring_open(struct log_ring *ring, size_t size_min, int room_fd);
void log_ring_close(struct log_ring *ring); /* must be empty */

bool log_ring_push(struct log_ring *ring, void *item); /* false: full, not taken */
void *log_ring_pop(struct log_ring *ring);             /* NULL: empty, and `fd` is drained */
bool log_ring_full(struct log_ring *ring);             /* for the pushing thread */

void log_ring_wake(int fd); /* makes an eventfd readable */

#endif
