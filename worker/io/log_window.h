/*
 * log_window.h: puts finished work of one partition back into offset order. Pure; part of log.c.
 *
 * Records are added in the order they were delivered; they are finished in any order. A finished one waits until all that
 * were delivered before it are finished, and is then `ready` to be committed. Order is that of delivery, not of offsets plus
 * one: control records and aborted ones are never delivered, and so never waited for.
 *
 * Work without a record of its own (a timer) is ready once everything that was handed over before it is: it may build on it.
 *
 * A window owns the work that it holds.
 */
#ifndef MYELIN_IO_LOG_WINDOW_H
#define MYELIN_IO_LOG_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/io/log.h"

/* One log_done, as it travels from the loop to the log thread and waits there. One block of memory: free(). */
struct log_work {
    struct log_work *next;
    int64_t tenure;
    int64_t offset; /* of the record that is finished; -1: none (a timer) */
    bool refused;   /* the brokers cannot take its records: it waits in its place until the loop hands over others */
    size_t size;    /* bytes of all records */
    size_t count;
    struct log_record records[]; /* their texts lie behind them */
};

struct log_works {
    struct log_work *first, *last;
    size_t count;
};

struct log_window {
    struct log_delivered *delivered; /* ring of delivered records, not ready yet, oldest at `head` */
    size_t capacity, head, count;
    size_t with_loop;       /* of them, not finished */
    struct log_works ready; /* in the order to commit */
    size_t size;            /* bytes of records of all work it holds */
};

void log_works_add(struct log_works *works, struct log_work *work);
struct log_work *log_works_take(struct log_works *works); /* NULL: empty */

void log_window_free(struct log_window *window); /* the zero value is an empty window */

void log_window_deliver(struct log_window *window, int64_t offset); /* higher than all before */

/* Takes `work`, unless it is of a record that was not delivered or is finished already: then false. */
bool log_window_finish(struct log_window *window, struct log_work *work);

/* `work` of `ready` cannot be committed as it is. It keeps its place, and holds up what is behind it, until other work for the
 * same offset is finished; a timer, which has no offset, is freed. */
void log_window_refuse(struct log_window *window, struct log_work *work);

/* The first `count` of `ready` are committed: frees them. */
void log_window_committed(struct log_window *window, size_t count);

/* Delivered and not committed. */
size_t log_window_span(const struct log_window *window);

#endif
