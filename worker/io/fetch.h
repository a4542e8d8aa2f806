/*
 * fetch.h: single records of `history`, by partition and offset: what a step event names and no cache has.
 *
 * A thread of its own reads; nothing here blocks, but fetch_open and fetch_close. It reads uncommitted: who names a record was
 * committed with it or after it, and an open transaction of anybody else must not be waited for. A broker that does not answer
 * is waited for, as long as it takes.
 */
#ifndef MYELIN_IO_FETCH_H
#define MYELIN_IO_FETCH_H

#include <stdint.h>

#include "worker/base/error.h"
#include "worker/base/hash.h"

struct fetch;

/* Of topic `topic`. Properties as in settings.kafka. NULL with `error`. */
struct fetch *fetch_open(const char *topic, const char *const *properties, size_t count, struct error *error);
void fetch_close(struct fetch *fetch); /* whoever waits is not called any more; NULL is fine */

struct fetched_record {
    struct str value;
    unsigned char digest[HASH_SIZE]; /* of the value */
};

/* Borrowed from the call of fetch_done. `count` 0: there is no such record (any more); `error` says why. Else the last one
 * is the one that was asked for, and before it some of those that lie before it: they may be asked for next. */
struct fetched {
    struct fetched_record *records;
    size_t count;
    struct error error;
};
typedef void (*fetch_done)(void *context, const struct fetched *fetched);

void fetch_start(struct fetch *fetch, int32_t partition, int64_t offset, fetch_done done, void *context);

int fetch_fd(const struct fetch *fetch); /* readable when there are answers */
void fetch_ready(struct fetch *fetch);   /* calls who waits for them */

#endif
