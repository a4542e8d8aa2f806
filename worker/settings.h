/*
 * settings.h: config/worker.cfg and config/producer.cfg: one table of names, types, defaults and limits, from which parsing,
 * the unknown-name check and `--help` come.
 */
#ifndef MYELIN_SETTINGS_H
#define MYELIN_SETTINGS_H

#include "worker/base/arena.h"
#include "worker/base/error.h"
#include "worker/call/chat.h"

struct settings {
    struct arena *arena;   /* owns everything */
    struct str name_space; /* default "myelin"; [a-z0-9][a-z0-9_-]* */
    const char **kafka;    /* "name=value" for librdkafka, NULL-terminated; ${NAME} expanded */
    size_t kafka_count;
    const char *redis;          /* HOST:PORT */
    const char *redis_username; /* NULL = none */
    const char *redis_password; /* NULL = none */
    const char *slot;           /* stable per worker, and then also its group.instance.id; NULL = claimed in Redis */
    const char **pools;         /* default {"default"} */
    size_t pools_count;
    bool serve_inbox;                                               /* default true */
    int32_t in_flight_max;                                          /* default 1000 */
    int32_t calls_per_endpoint;                                     /* of them; default 256 */
    int64_t memory_max;                                             /* bytes; default 512 MiB */
    int32_t steps_partitions, inbox_partitions, history_partitions; /* for topics create; default 8 */
    int32_t replication;                /* for topics create; default 0: 3, or 1 where there are fewer brokers */
    int64_t ended_keep_ms;              /* default 7d */
    int32_t crashes_max;                /* default 3 */
    int32_t keeper_memory_kib;          /* default 8192 */
    int64_t backoff_ms, backoff_max_ms; /* of retries; default 500 ms, 60 s */
    int64_t grace_ms;                   /* of SIGTERM; default 25 s */
    int64_t settle_ms;                  /* default 1 s */
    int64_t lease_ms;                   /* default 5 s */
    int64_t slot_lease_ms;              /* default 10 s */
    int64_t trim_every_ms;              /* default 60 s */
    const char *admin;                  /* IP:PORT of the admin port; NULL = none */
    struct str log_level;               /* debug info warn error */
    struct chat_model *models;
    size_t models_count;
};

/* NULL with `error` (ERROR_FATAL, "file:line: what is wrong, what is allowed"). `path` NULL = the defaults alone. */
struct settings *settings_read(const char *path, struct error *error);
void settings_free(struct settings *settings);

/* The file to read: `given` (--config) if any, else $MYELIN_CONFIG, else config/NAME, else /etc/myelin/NAME; NULL when there
 * is none of them. A file that was named is not looked for: settings_read says what is wrong with it. */
const char *settings_find(const char *given, const char *name, struct arena *arena);

const struct chat_model *settings_model(const struct settings *settings, struct str name); /* NULL = none */

/* "default = ... (what it means)" for each name, for --help. In the arena. */
struct str settings_help(struct arena *arena);

#endif
