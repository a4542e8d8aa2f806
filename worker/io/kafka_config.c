#include "worker/io/kafka_config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"

#define RETRY_MS 50
#define ASKED_TIMES 4
#define ASK_MS 500 /* so long a leader is waited for, which may be dead, before it is asked who leads now */

/* What the settings may not touch: I1, I2 and I10 would be gone. */
static const char *const reserved[] = {
    "group.id",           "group.instance.id",    "transactional.id",
    "isolation.level",    "enable.auto.commit",   "enable.auto.offset.store",
    "enable.idempotence", "enable.partition.eof", "auto.offset.reset",
};

static void log_line(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    /* One list of properties serves consumers and producers: what is of the other kind is no news. */
    if (strcmp(facility, "CONFWARN") == 0)
        level = 7;
    LOGLINE(level <= 4 ? LOGLINE_WARN : LOGLINE_DEBUG, "kafka.client",
            LOG_S("client", client != NULL ? rd_kafka_name(client) : ""), LOG_S("facility", facility),
            LOG_S("text", text));
}

static bool is_secret(const char *name)
{
    return strstr(name, "password") != NULL || strstr(name, "secret") != NULL || strstr(name, "oauthbearer") != NULL ||
           strstr(name, ".key") != NULL || strstr(name, "jaas") != NULL;
}

static bool put(rd_kafka_conf_t *config, const char *name, const char *value, struct error *error)
{
    char text[256];
    switch (rd_kafka_conf_set(config, name, value, text, sizeof text)) {
    case RD_KAFKA_CONF_OK:
        return true;
    case RD_KAFKA_CONF_UNKNOWN:
        return error_set(error, ERROR_FATAL, "kafka property \"%s\": librdkafka %s knows no such property", name,
                         rd_kafka_version_str());
    default:
        return error_set(error, ERROR_FATAL, "kafka property \"%s\": %s", name,
                         is_secret(name) ? "librdkafka does not accept its value" : text);
    }
}

static bool put_all(rd_kafka_conf_t *config, const struct kafka_property *list, struct error *error)
{
    for (; list != NULL && list->name != NULL; list++) {
        if (list->value != NULL && !put(config, list->name, list->value, error))
            return false;
    }
    return true;
}

/* "name=value", spaces around the name are allowed. */
static bool put_setting(rd_kafka_conf_t *config, const char *setting, struct error *error)
{
    char name[128];
    setting += strspn(setting, " \t");
    const char *equals = strchr(setting, '=');
    if (equals == NULL)
        return error_set(error, ERROR_FATAL, "kafka property \"%.40s\" has no \"=\": write \"name=value\"", setting);
    size_t size = (size_t)(equals - setting);
    while (size > 0 && (setting[size - 1] == ' ' || setting[size - 1] == '\t'))
        size--;
    if (size == 0 || size >= sizeof name)
        return error_set(error, ERROR_FATAL, "kafka property \"%.40s\" has no name before its \"=\"", setting);
    memcpy(name, setting, size);
    name[size] = '\0';
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        if (strcmp(name, reserved[i]) == 0)
            return error_set(error, ERROR_FATAL,
                             "kafka property \"%s\" is set by Myelin itself, exactly once rests on it: remove it",
                             name);
    }
    return put(config, name, equals + 1, error);
}

rd_kafka_conf_t *kafka_config(const struct kafka_property *defaults, const char *const *properties, size_t count,
                              const struct kafka_property *own, struct error *error)
{
    rd_kafka_conf_t *config = rd_kafka_conf_new();
    /* A broker that was away for a while is to be found again within a second, not within librdkafka's ten. */
    bool ok = put(config, "client.id", "myelin", error) && put(config, "reconnect.backoff.max.ms", "1000", error) &&
              put(config, "log.connection.close", "false", error) && /* brokers close idle ones; nothing is lost */
              put_all(config, defaults, error);
    for (size_t i = 0; ok && i < count; i++)
        ok = put_setting(config, properties[i], error);
    ok = ok && put_all(config, own, error);
    char servers[8];
    size_t size = sizeof servers;
    if (ok && (rd_kafka_conf_get(config, "bootstrap.servers", NULL, &size) != RD_KAFKA_CONF_OK || size <= 1))
        ok = error_set(error, ERROR_FATAL, "no \"bootstrap.servers=HOST:PORT\" among the kafka properties");
    if (!ok) {
        rd_kafka_conf_destroy(config);
        return NULL;
    }
    rd_kafka_conf_set_log_cb(config, log_line);
    return config;
}

rd_kafka_t *kafka_open(rd_kafka_type_t type, rd_kafka_conf_t *config, struct error *error)
{
    char text[256];
    rd_kafka_t *client = rd_kafka_new(type, config, text, sizeof text);
    if (client == NULL) {
        rd_kafka_conf_destroy(config);
        error_set(error, ERROR_FATAL, "cannot make a Kafka client: %s", text);
    }
    return client;
}

rd_kafka_t *kafka_client(rd_kafka_type_t type, const struct kafka_property *defaults, const char *const *properties,
                         size_t count, const struct kafka_property *own, struct error *error)
{
    rd_kafka_conf_t *config = kafka_config(defaults, properties, count, own, error);
    return config == NULL ? NULL : kafka_open(type, config, error);
}

rd_kafka_t *kafka_ruler(const char *const *properties, size_t count, struct error *error)
{
    static const struct kafka_property own[] = {{"isolation.level", "read_uncommitted"}, {NULL, NULL}};
    return kafka_client(RD_KAFKA_CONSUMER, NULL, properties, count, own, error);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

const struct rd_kafka_metadata *kafka_metadata(rd_kafka_t *client, int64_t timeout_ms, struct error *error)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t failed;
    int64_t until_us = clock_mono_us() + timeout_ms * 1000, left_ms = timeout_ms;
    /* The broker that was asked may have gone meanwhile. librdkafka does not always connect for a request that it has to send again;
     * another one it does connect for. */
    do {
        int64_t slice_ms = timeout_ms / ASKED_TIMES > ASK_MS ? timeout_ms / ASKED_TIMES : ASK_MS;
        failed = rd_kafka_metadata(client, 1, NULL, &metadata, (int)smaller(left_ms, slice_ms));
        left_ms = (until_us - clock_mono_us() + 999) / 1000;
    } while ((failed == RD_KAFKA_RESP_ERR__TRANSPORT || failed == RD_KAFKA_RESP_ERR__TIMED_OUT) && left_ms > 0);
    if (failed == RD_KAFKA_RESP_ERR_NO_ERROR)
        return metadata;
    char servers[200] = "";
    size_t size = sizeof servers;
    rd_kafka_conf_get(rd_kafka_conf(client), "bootstrap.servers", servers, &size);
    if (failed == RD_KAFKA_RESP_ERR__TRANSPORT || failed == RD_KAFKA_RESP_ERR__TIMED_OUT ||
        failed == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
        error_set(error, ERROR_FATAL, "cannot reach %s after %" PRId64 " s: is Kafka up? (make up)", servers,
                  (timeout_ms + 999) / 1000);
    else
        error_set(error, ERROR_FATAL, "%s does not say what topics it has: %s", servers, rd_kafka_err2str(failed));
    return NULL;
}

static rd_kafka_resp_err_t learn(rd_kafka_t *client, bool all, int timeout_ms)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t failed = rd_kafka_metadata(client, all, NULL, &metadata, timeout_ms);
    if (!failed)
        rd_kafka_metadata_destroy(metadata);
    return failed;
}

rd_kafka_resp_err_t kafka_learn(rd_kafka_t *client, int timeout_ms)
{
    return learn(client, false, timeout_ms);
}

int32_t kafka_partitions(const struct rd_kafka_metadata *metadata, const char *topic)
{
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const struct rd_kafka_metadata_topic *one = &metadata->topics[i];
        if (one->err == RD_KAFKA_RESP_ERR_NO_ERROR && strcmp(one->topic, topic) == 0)
            return one->partition_cnt;
    }
    return -1;
}

static rd_kafka_resp_err_t ask_edges(rd_kafka_t *ruler, rd_kafka_topic_partition_list_t *partitions,
                                     enum kafka_edge edge, int timeout_ms)
{
    /* ListOffsets takes -1 for "latest" and -2 for "earliest" where a timestamp stands (Kafka protocol guide), and so one
     * request a broker answers for all partitions. */
    for (int i = 0; i < partitions->cnt; i++)
        partitions->elems[i].offset = edge == KAFKA_END ? RD_KAFKA_OFFSET_END : RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_resp_err_t failed = rd_kafka_offsets_for_times(ruler, partitions, timeout_ms);
    for (int i = 0; i < partitions->cnt && !failed; i++) {
        const rd_kafka_topic_partition_t *one = &partitions->elems[i];
        failed = one->err;
        if (!failed && one->offset < 0)
            failed = RD_KAFKA_RESP_ERR__NO_OFFSET;
    }
    return failed;
}

bool kafka_watermarks(rd_kafka_t *ruler, rd_kafka_topic_partition_list_t *partitions, enum kafka_edge edge,
                      int timeout_ms, struct error *error)
{
    rd_kafka_resp_err_t failed = RD_KAFKA_RESP_ERR_NO_ERROR;
    int64_t left_ms = timeout_ms, until_ms = clock_mono_us() / 1000 + timeout_ms;
    if (partitions->cnt == 0)
        return true;
    /* A partition that has just been made, or that is changing its leader, has an answer a moment later. */
    while (left_ms > 0) {
        failed = ask_edges(ruler, partitions, edge, (int)smaller(left_ms, smaller(timeout_ms / 2, ASK_MS)));
        if (!failed)
            return true;
        left_ms = until_ms - clock_mono_us() / 1000;
        /* Who leads what now: else the leader that is known is asked until its metadata is too old, dead or not. */
        if (left_ms > 0)
            learn(ruler, true, (int)smaller(left_ms, ASK_MS));
        if (left_ms > RETRY_MS)
            rd_kafka_poll(ruler, RETRY_MS);
        left_ms = until_ms - clock_mono_us() / 1000;
    }
    return error_set(error, ERROR_RETRY, "cannot ask where the partitions of %s %s: %s", partitions->elems[0].topic,
                     edge == KAFKA_END ? "end" : "begin", rd_kafka_err2str(failed));
}

rd_kafka_resp_err_t kafka_produce(rd_kafka_t *producer, rd_kafka_topic_t *topic, int32_t partition, struct str key,
                                  struct str value, void *opaque)
{
    const rd_kafka_vu_t parts[] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = topic},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = partition},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {(void *)(uintptr_t)key.data, key.size}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {(void *)(uintptr_t)value.data, value.size}},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = opaque},
    };
    rd_kafka_error_t *failed = rd_kafka_produceva(producer, parts, sizeof parts / sizeof parts[0]);
    rd_kafka_resp_err_t code = rd_kafka_error_code(failed); /* none: RD_KAFKA_RESP_ERR_NO_ERROR */
    if (failed != NULL)
        rd_kafka_error_destroy(failed);
    return code;
}

bool kafka_fail(struct error *error, enum error_class class, const char *what, rd_kafka_error_t *failure)
{
    error_set(error, class, "%s: %s (%s)", what, rd_kafka_error_string(failure), rd_kafka_error_name(failure));
    rd_kafka_error_destroy(failure);
    return false;
}
