/* look.h: a look at the outside from the command line: is it there, and is it as Myelin needs it? Blocking. */
#ifndef MYELIN_IO_LOOK_H
#define MYELIN_IO_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

struct look_kafka {
    int32_t brokers;
    const char *names;   /* "127.0.0.1:9092 (1), ..." */
    const char *cluster; /* its id, or "" */
    const char *library; /* version of librdkafka */
    const char *release; /* the Kafka release that it is at least, by the protocol it speaks: "4.1"; "" = not known */
    bool transactions;   /* it checks the group of offsets in a transaction (Kafka 2.5): what exactly once rests on */
};
/* False with `error`: not reachable. Texts in the arena. */
bool look_kafka(const char *const *properties, size_t count, int64_t timeout_ms, struct arena *arena,
                struct look_kafka *look, struct error *error);

struct look_group {
    const char *state; /* "Stable", "Empty", "Dead", ... */
    int32_t members;
    const char *clients; /* client ids and hosts of the members */
};
/* The consumer group of a namespace's workers. */
bool look_group(const char *const *properties, size_t count, const char *group, int64_t timeout_ms, struct arena *arena,
                struct look_group *look, struct error *error);

struct look_redis {
    const char *version, *run_id, *role, *maxmemory_policy;
    bool append_only;  /* appendonly yes */
    const char *fsync; /* appendfsync; "" when it may not be asked */
    int64_t ping_us;
};
bool look_redis(const char *address, const char *username, const char *password, int64_t timeout_ms,
                struct arena *arena, struct look_redis *look, struct error *error);

/* Does HOST accept a connection on this port? */
bool look_tcp(const char *host, const char *port, int64_t timeout_ms, struct error *error);

#endif
