/*
 * readback.h: single records of topics, by partition and offset: what a step event names (`history`), rows of what waits
 * (`waiting`). A thread of its own reads, with a consumer of its own that is made when it is needed first; nothing here blocks but
 * readback_close.
 *
 * What is wanted of one partition at the same time is read in the order of the offsets, records near each other in one go; what is
 * asked for meanwhile comes after it. Partitions do not wait for each other. A record that is not there is answered at once, and
 * only when the partition itself shows it: a new leader may do so for a moment, so whoever asked has the patience to ask again.
 * A broker that does not answer, or with an error, is waited for as long as it takes, loudly (event=readback.late).
 */
#ifndef MYELIN_IO_READBACK_H
#define MYELIN_IO_READBACK_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/bytes.h"
#include "worker/base/error.h"
#include "worker/base/hash.h"

struct readback;

/* Names are copied; the properties are borrowed ("name=value", for librdkafka). NULL with `error`: ERROR_FATAL. */
struct readback *readback_open(const char *const *topics, size_t topics_count, const char *const *properties,
                               size_t properties_count, struct error *error);
void readback_close(struct readback *readback); /* what was not read is not answered; NULL is fine */

int readback_fd(const struct readback *readback); /* readable when readback_next has something */

struct readback_wanted {
    size_t topic; /* its place in `topics` */
    int32_t partition;
    int64_t offset;
    int64_t behind; /* records right before it may be asked for next: so many are handed over too, when they come by */
    int64_t after_us; /* not to be read before then (clock_mono_us); 0 = now */
    bool hashed;      /* with a digest */
    /* The asker's; they come back with the answer. */
    void *context;
    int64_t tenure;
    uint32_t row;
    size_t size;
};
void readback_ask(struct readback *readback, const struct readback_wanted *wanted, size_t count); /* copied */

struct readback_row {
    struct readback_row *next; /* readback.c's */
    struct readback_wanted wanted;
    bool asked; /* false: it lies before what was, and comes before it; of `wanted`, only where it lies counts */
    const char *not_there;           /* why there is no such record (any more); NULL: there is */
    struct str key, value;           /* behind the struct; value.data == NULL: a tombstone */
    unsigned char digest[HASH_SIZE]; /* of the value */
};
struct readback_row *readback_next(struct readback *readback); /* the caller frees it; NULL: nothing now */
void readback_row_free(struct readback_row *row);

#endif
