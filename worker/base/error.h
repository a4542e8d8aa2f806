/*
 * error.h: what went wrong, and what the caller must do about it.
 *
 * A function that can fail takes a `struct error *` last, fills it and returns false (or NULL). It never logs: return or
 * log, never both. An answer of the outside world that we do not like (an HTTP 500, a refused call) is an outcome, not an
 * error.
 */
#ifndef MYELIN_BASE_ERROR_H
#define MYELIN_BASE_ERROR_H

#include <stdbool.h>

enum error_class {
    ERROR_NONE = 0,
    ERROR_RETRY,  /* try again later, nothing was changed */
    ERROR_ABORT,  /* abort the transaction, then do the same again */
    ERROR_POISON, /* this input can never be processed: it goes to `dead` with its reason */
    ERROR_FATAL,  /* this process cannot go on: say so and exit */
};

struct error {
    enum error_class class;
    char text[512]; /* one line, no newline: what failed, where, and what to do next; never a secret */
};

/* Fills `error` (may be NULL: then nothing happens). Always returns false, so that `return error_set(...)` reads well. */
bool error_set(struct error *error, enum error_class class, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts `format`, then ": ", before the text that is there; the class stays. Always returns false. */
bool error_wrap(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
