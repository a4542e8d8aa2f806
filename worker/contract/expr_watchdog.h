/*
 * expr_watchdog.h: ends the process when one evaluation takes too much. Used by expr.c only.
 *
 * libjq cannot be interrupted, so a thread of its own looks on. It wakes ten times a second, a hundred times while it sees
 * the same evaluation a second time. What it measures is the evaluating thread's own CPU time (a machine that stood still,
 * a debugger or a busy neighbour harm no run), and how far the process's resident memory grew since the evaluation was
 * first seen or shortly before. The evaluating thread only sets and clears a word; it makes no system call.
 */
#ifndef MYELIN_CONTRACT_EXPR_WATCHDOG_H
#define MYELIN_CONTRACT_EXPR_WATCHDOG_H

#include "worker/base/bytes.h"
#include "worker/base/error.h"

/* One thread's evaluations. */
struct expr_watch;

/* Takes up the calling thread; the first one starts the watchdog. NULL with `error` (ERROR_RETRY) when there is no thread to be had.
 * To be called by the thread that evaluates; a process that forks must do so before. */
struct expr_watch *expr_watch_new(struct error *error);

/* The last one stops the watchdog and waits for it. */
void expr_watch_free(struct expr_watch *watch);

/* Around an evaluation. Borrows the texts until expr_watch_end. Does not return from the end of one that the watchdog has
 * given up: the process is about to exit. */
void expr_watch_begin(struct expr_watch *watch, struct str run, struct str step, struct str text);
void expr_watch_end(struct expr_watch *watch);

/* The last words and the exit, also for libjq's "no memory". Only between begin and end. */
_Noreturn void expr_watch_exit(const struct expr_watch *watch, const char *limit, long long limit_value);

#endif
