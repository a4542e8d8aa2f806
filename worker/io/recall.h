/*
 * recall.h: reads rows of `waiting` again, by the offsets at which they lie. A thread of its own, with a consumer of its own
 * that is made when it is needed first: neither the loop nor a commit waits for it.
 *
 * Rows of one partition are read in the order of their offsets, those near each other in one go. What is asked for is
 * answered, however long it takes: while no broker answers it is said loudly (event=waiting.late), and tried on.
 */
#ifndef MYELIN_IO_RECALL_H
#define MYELIN_IO_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

struct recall;

/* The properties are borrowed ("name=value", for librdkafka). NULL with `error`: ERROR_FATAL. */
struct recall *recall_open(const char *name_space, const char *const *properties, size_t count, struct error *error);
void recall_close(struct recall *recall); /* what was not read is not answered; NULL is fine */

int recall_fd(const struct recall *recall); /* readable when recall_next has something */

struct recall_wanted {
    int32_t partition;
    int64_t offset;
    int64_t tenure; /* the asker's, as `row` and `size`: they come back with the answer */
    uint32_t row;
    size_t size;
    int64_t after_us; /* not to be read before then (clock_mono_us); 0 = now */
};
void recall_ask(struct recall *recall, const struct recall_wanted *wanted, size_t count); /* copied */

struct recall_row {
    struct recall_row *next; /* recall.c's */
    struct recall_wanted wanted;
    bool found;            /* false: there is no record at this offset */
    struct str key, value; /* behind the struct; value.data == NULL: a tombstone */
};
struct recall_row *recall_next(struct recall *recall); /* the caller frees it; NULL: nothing now */
void recall_row_free(struct recall_row *row);

#endif
