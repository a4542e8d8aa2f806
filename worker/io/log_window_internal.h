/* log_window_internal.h: what log_window.c and log_carry.c share. Nobody else includes this. */
#ifndef MYELIN_IO_LOG_WINDOW_INTERNAL_H
#define MYELIN_IO_LOG_WINDOW_INTERNAL_H

#include "worker/io/log_window.h"

struct log_delivered {
    int64_t offset;
    int64_t since_us;         /* log_window_date */
    struct log_work *work;    /* NULL: the loop has it, or it is committed */
    struct log_event *source; /* held while the loop has it, so that it can be carried; NULL: ordered, or in `moved` */
    struct log_moved *moved;  /* of window->moved; NULL: never carried */
    bool committed;
    bool far;                /* counted in window->far */
    struct log_works behind; /* ordered: timers that must wait for it */
};

/* A record that is, or is about to be, at another offset than the loop knows. */
struct log_moved {
    int64_t known;            /* by the loop */
    int64_t at;               /* where it is; not in the ring until it is fetched there */
    int64_t to;               /* where `carry` was put; below 0: not known yet */
    struct log_work *carry;   /* in `ready`; NULL: none under way */
    struct log_work *held;    /* the loop's, for when it is clear where the record is */
    struct log_event *source; /* held */
    int64_t since_us;
    bool stays; /* it cannot be carried */
};

/* ---- log_window.c ---- */
struct log_delivered *log_window_at(const struct log_window *window, size_t index);
struct log_delivered *log_window_find(const struct log_window *window, int64_t offset); /* NULL: not there */
/* Puts it at the end of the ring. */
struct log_delivered *log_window_push(struct log_window *window, int64_t offset);
void log_window_finished(struct log_window *window, struct log_delivered *delivered, struct log_work *work);
/* Takes `old` out of `works`, and puts `work` in its place, if there is one. */
void log_works_swap(struct log_works *works, const struct log_work *old, struct log_work *work);

/* ---- log_carry.c ---- */
struct log_moved *log_moved_known(const struct log_window *window, int64_t known);
/* The loop's work for it. False: it is finished already. */
bool log_moved_finish(struct log_window *window, struct log_moved *moved, struct log_work *work);
/* True: the record at this offset was carried there, and is in the ring now. */
bool log_moved_arrive(struct log_window *window, int64_t offset);
void log_moved_committed(struct log_window *window, struct log_moved *moved, const struct log_work *work);
void log_moved_free_all(struct log_window *window); /* `ready` was freed before */

#endif
