/* adopt.h: partitions that no worker may serve, and how a person repairs them (design: "Topics"). Blocking. */
#ifndef MYELIN_IO_ADOPT_H
#define MYELIN_IO_ADOPT_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"
#include "worker/io/offset_meta.h"

/* What the group says of a partition, and where its log begins and ends. */
struct adopt_offsets {
    int64_t committed; /* negative: none */
    struct str metadata;
    int64_t begin, end;
    bool ordered; /* of an inbox: no map */
};

/* True: it may be served, and `meta` is what it carries. Else `error` says why not. Pure. */
bool adopt_check(const struct adopt_offsets *offsets, struct offset_meta *meta, struct error *error);

struct adopt_place {
    const char *name_space;
    const char *const *properties; /* librdkafka, "name=value" */
    size_t properties_count;
    const char *const *pools;
    size_t pools_count;
    int timeout_ms;
};

struct adopt_partition {
    const char *topic;
    int32_t partition;
    struct adopt_offsets offsets; /* without metadata */
    int64_t to;                   /* where it would be served from */
    const char *why;              /* it is not served */
};

/* All partitions of steps.<pool> and inbox that are not served, in the arena. */
bool adopt_find(const struct adopt_place *place, struct arena *arena, struct adopt_partition **found, size_t *count,
                struct error *error);

/* Commits `to` of each, with an empty map. The broker refuses it while the group has members. */
bool adopt_commit(const struct adopt_place *place, const struct adopt_partition *partitions, size_t count,
                  struct error *error);

#endif
