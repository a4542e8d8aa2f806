/* topics.h: making and checking the topics of a namespace (design: "Topics"). Blocking. */
#ifndef MYELIN_IO_TOPICS_H
#define MYELIN_IO_TOPICS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

struct topics_plan {
    const char *name_space;
    const char *const *properties; /* librdkafka, "name=value" */
    size_t properties_count;
    const char *const *pools;
    size_t pools_count;
    int32_t steps_partitions, inbox_partitions, history_partitions;
    int32_t replication;
};

/* One line a topic for the person: "created", "is there", or what differs. */
typedef void topics_report(void *context, const char *topic, const char *text, bool problem);

/* Creates what is missing (cleanup, retention, timestamps), commits offset 0 with an empty map for every partition of steps
 * and inbox that has none; changes nothing that is there. */
bool topics_create(const struct topics_plan *plan, topics_report *report, void *context, struct error *error);

/* True when everything is as a worker needs it. */
bool topics_check(const struct topics_plan *plan, topics_report *report, void *context, struct error *error);

/* NAMESPACE.steps.POOL and so on, in the arena; `pool` only for steps. */
struct str topics_name(struct arena *arena, const char *name_space, const char *what, const char *pool);

#endif
