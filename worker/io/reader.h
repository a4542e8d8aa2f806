/*
 * reader.h: reading a topic without a group: for the command line, and for whoever wants to look. Blocking.
 */
#ifndef MYELIN_IO_READER_H
#define MYELIN_IO_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

struct reader;

/* read_committed. Properties as in settings.kafka ("name=value"). */
struct reader *reader_open(const char *const *properties, size_t count, struct error *error);
void reader_close(struct reader *reader);

/* Partitions of a topic, or -1 with `error` ("topic ... does not exist; run: myelin topics create"). */
int32_t reader_partitions(struct reader *reader, const char *topic, struct error *error);
/* The partition that a run id falls into (murmur2_random, as Java clients do). */
int32_t reader_partition_of(struct reader *reader, const char *topic, struct str run, struct error *error);

/* Where reading starts. */
#define READER_FROM_START (-1)
#define READER_FROM_END (-2)

/* Starts at `from_ms` (wall clock; or one of the above) in one partition, or in all (`partition` -1). */
bool reader_start(struct reader *reader, const char *topic, int32_t partition, int64_t from_ms, struct error *error);

struct reader_record {
    struct str key, value; /* value.data == NULL: tombstone; valid until the next call */
    int32_t partition;
    int64_t offset, timestamp_ms;
};
enum reader_got { READER_RECORD, READER_END, READER_TIMEOUT, READER_ERROR };
/* READER_END: all partitions were read to the high watermark as of reader_start (following goes on after it). */
enum reader_got reader_next(struct reader *reader, int64_t timeout_ms, struct reader_record *record,
                            struct error *error);

#endif
