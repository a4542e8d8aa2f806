/*
 * log_window.h: what became of the records of one partition that were handed out, and what its next commit says. Pure; part of
 * log.c.
 *
 * Records are delivered in the order of their offsets and finished in any. Offsets between two that were delivered never
 * arrive (control records, aborted ones, or the map that was found at assignment says so): they are done.
 *
 * A finished work is `ready` at once; a commit takes any number of them from the front, moves the committed offset to the lowest that is
 * not done, and writes down in a map what is done above it. An `ordered` window has no map: there a finished work waits until
 * all that were delivered before it are finished. Work without a record of its own (a timer) is ready once everything that
 * was handed over before it is: it may build on it.
 *
 * A window owns the work that it holds.
 */
#ifndef MYELIN_IO_LOG_WINDOW_H
#define MYELIN_IO_LOG_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/io/log.h"
#include "worker/io/offset_map.h"

/* What the loop asks of the log thread. A window has works that are DONE, and no others. */
enum log_command { COMMAND_DONE, COMMAND_RELEASE, COMMAND_READ_CONTROL, COMMAND_STOP };

/* One log_done, as it travels from the loop to the log thread and waits there (or another command: then what follows `tenure` is
 * 0). One block of memory. */
struct log_work {
    struct log_work *next;
    enum log_command command;
    int64_t tenure;
    int64_t offset; /* of the record that is finished; -1: none (a timer) */
    bool
        refused; /* ordered: the brokers cannot take its records: it waits in its place until the loop hands over others */
    bool taken; /* into the commit that is being planned */
    int64_t
        carry;   /* not of the loop: appends the record at `offset` again; the number of the attempt. 0: of the loop */
    size_t size; /* bytes of all records */
    size_t charged; /* taken from the budget for it */
    size_t count;
    size_t lead;                 /* of the records, those that come first: others name them */
    size_t placed;               /* log_place.c's: where these begin in its table */
    struct log_record records[]; /* their places and texts lie behind them */
};

struct log_works {
    struct log_work *first, *last;
    size_t count;
};

/* Carried records, sorted by an offset. */
struct log_moved_at {
    int64_t offset;
    struct log_moved *moved;
};
struct log_moved_list {
    struct log_moved_at *all;
    size_t count, capacity;
};

struct log_window {
    bool ordered;
    int64_t position;             /* the lowest offset that was not delivered and not passed by */
    int64_t found_at;             /* the committed offset at assignment */
    struct offset_map found;      /* what was done above it */
    struct log_delivered *ring;   /* delivered, from the lowest that is not committed on */
    size_t capacity, head, count; /* of `ring` */
    size_t in_order;              /* ordered: of `ring`, those at the front that are ready */
    size_t far;                   /* finished, and too far above the lowest to be in a map: they wait, not in `ready` */
    size_t uncommitted;           /* delivered and not committed */
    size_t with_loop;             /* of them, not finished */
    struct log_works ready;       /* in the order to commit */
    size_t size;                  /* bytes of records of all work it holds */
    size_t adrift; /* of them, of carried records that were not fetched yet: only fetching lets them be committed */
    /* Records that were appended again, or are about to be, by the offset that the loop knows; owned. */
    struct log_moved_list moved;
    /* Of them, those that were not fetched yet where they were appended, by that offset. */
    struct log_moved_list coming;
};

void log_work_free(struct log_work *work); /* NULL is fine */
void log_works_add(struct log_works *works, struct log_work *work);
struct log_work *log_works_take(struct log_works *works); /* NULL: empty */

/* The zero value is an empty window that begins at 0, and takes no memory. */
void log_window_start(struct log_window *window, bool ordered, int64_t committed, const struct offset_map *found);
void log_window_free(struct log_window *window);

/* The record at `offset` came. False: it was done before, or was delivered already: pass it by. */
bool log_window_deliver(struct log_window *window, int64_t offset);

/* When the record that was delivered last was (µs, any clock). */
void log_window_date(struct log_window *window, int64_t now_us);
/* Of the lowest that is not committed; INT64_MAX: there is none. A carried one keeps its time. */
int64_t log_window_oldest_us(const struct log_window *window);

/* The event of the record that was delivered last: held for log_window_carry. */
void log_window_keep(struct log_window *window, struct log_event *event);

/* Takes `work`, unless it is of a record that was not delivered or is finished already: then false. */
bool log_window_finish(struct log_window *window, struct log_work *work);

/* `work` of `ready` cannot be committed as it is: its record is with the loop again, and others are committed around it. In an
 * ordered window it keeps its place, and holds up what is behind it, until other work for the same offset is finished. A
 * timer, which has no offset, is freed. */
void log_window_refuse(struct log_window *window, struct log_work *work);

/* What a commit of the first `count` of `ready` says: the lowest offset that is not done then. `done`, if not NULL, is what is
 * done above; nothing in an ordered window. */
int64_t log_window_plan(struct log_window *window, size_t count, struct offset_map *done);

/* The first `count` of `ready` are committed: frees them. */
void log_window_committed(struct log_window *window, size_t count);

/* Offsets from the lowest that is not committed up to the position: what a map must hold. */
int64_t log_window_span(const struct log_window *window);

/* ---- carrying: log_carry.c ----
 * A record that the loop has had for so long that the window fills up behind it is appended again, as it was, in the
 * transaction that says that its old offset is done. The loop does not notice: what it hands over for the old offset is of
 * the new one, and the record is not delivered to it twice. */

/* Makes carries for all with the loop that are `lag` or more below the position; they are ready. They go to steps.`pool`
 * (borrowed: lives as long as the window). Numbers them from `*last` + 1. Returns how many. */
size_t log_window_carry(struct log_window *window, int64_t lag, struct str pool, int64_t *last);

/* The delivery report of the attempt `carry` for the record at `at`: where it lies, if its transaction is committed. */
void log_window_carried(struct log_window *window, int64_t at, int64_t carry, int64_t offset);

/* No transaction is under way: what was to be carried is not, so that work for it can be committed. */
void log_window_uncarry(struct log_window *window);

/* The brokers do not take this carry: its record stays where it is. */
void log_window_stay(struct log_window *window, struct log_work *work);

/* The offset by which the loop knows the record at `offset`. */
int64_t log_window_known(const struct log_window *window, int64_t offset);

#endif
