/* writer.h: writing single records with an idempotent producer: what the command line sends. Blocking. */
#ifndef MYELIN_IO_WRITER_H
#define MYELIN_IO_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

struct writer;

struct writer *writer_open(const char *const *properties, size_t count, struct error *error);
void writer_close(struct writer *writer);

/* Partition by the run id, or -1 by the key. Returns when the brokers have it (acks=all), or with `error`. */
bool writer_put(struct writer *writer, const char *topic, int32_t partition, struct str key, struct str value,
                int64_t timeout_ms, struct error *error);

#endif
