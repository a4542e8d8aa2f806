/*
 * kafka_config.h: librdkafka handles as Myelin wants them, and the questions that all of them ask of a cluster.
 *
 * Properties come in two layers: what the module needs by default, then "name=value" from the settings, which win. A few
 * are Myelin's own (isolation.level, enable.auto.commit, ...): exactly once rests on them, and setting one is an error.
 * librdkafka's own log lines go to logline as event=kafka.client.
 */
#ifndef MYELIN_IO_KAFKA_CONFIG_H
#define MYELIN_IO_KAFKA_CONFIG_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/base/bytes.h"
#include "worker/base/error.h"

struct kafka_property {
    const char *name, *value; /* value == NULL: leave librdkafka's default */
};

/* `defaults` and `own` end with a NULL name; `own` is set last. NULL with `error` (ERROR_FATAL; names the property, shows no
 * value that may be a secret). The caller owns the result. */
rd_kafka_conf_t *kafka_config(const struct kafka_property *defaults, const char *const *properties, size_t count,
                              const struct kafka_property *own, struct error *error);

/* Takes `config` in any case. */
rd_kafka_t *kafka_open(rd_kafka_type_t type, rd_kafka_conf_t *config, struct error *error);

/* kafka_config and kafka_open in one. */
rd_kafka_t *kafka_client(rd_kafka_type_t type, const struct kafka_property *defaults, const char *const *properties,
                         size_t count, const struct kafka_property *own, struct error *error);

/* A handle that sees what is not committed yet: `rd_kafka_query_watermark_offsets` of a read_committed handle gives the last
 * *stable* offset. Without a group; only for kafka_watermarks. */
rd_kafka_t *kafka_ruler(const char *const *properties, size_t count, struct error *error);

/* All topics of the cluster: rd_kafka_metadata_destroy. NULL with `error` ("cannot reach 127.0.0.1:9092 after 10 s: ..."). */
const struct rd_kafka_metadata *kafka_metadata(rd_kafka_t *client, int64_t timeout_ms, struct error *error);

/* Makes a handle know the topics that it was given with rd_kafka_topic_new: else they wait up to a second for librdkafka's
 * timer. */
rd_kafka_resp_err_t kafka_learn(rd_kafka_t *client, int timeout_ms);

/* Partitions of a topic in it; -1 = there is no such topic. */
int32_t kafka_partitions(const struct rd_kafka_metadata *metadata, const char *topic);

/* Sets the offset of each element to where that partition begins, or ends (the high watermark). ERROR_RETRY. */
enum kafka_edge { KAFKA_BEGIN, KAFKA_END };
bool kafka_watermarks(rd_kafka_t *ruler, rd_kafka_topic_partition_list_t *partitions, enum kafka_edge edge,
                      int timeout_ms, struct error *error);

/* Copies key and value (STR_NONE: none, a tombstone). `opaque` comes back with the delivery report. */
rd_kafka_resp_err_t kafka_produce(rd_kafka_t *producer, rd_kafka_topic_t *topic, int32_t partition, struct str key,
                                  struct str value, void *opaque);

/* Fills `error` from `failure` and destroys it. Always returns false. */
bool kafka_fail(struct error *error, enum error_class class, const char *what, rd_kafka_error_t *failure);

/* Where the partition counts are recorded: key of a record of `control` whose value is the count in decimal digits, no
 * Avro. The rest of the key is the topic's name without the namespace ("partitions/steps.default"). */
#define KAFKA_PARTITIONS_KEY "partitions/"

#endif
