/* Connecting: handles, topics and their partition counts. On the caller's thread, before the log thread runs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"

#define FETCH_ONCE_SIZE_MAX (1024 * 1024) /* librdkafka's default; a larger record still comes, alone */
#define ASK_TOPICS_US 1000000
#define COOPERATIVE_FROM 0x020601ff /* librdkafka's version: before, cooperative-sticky can spin for ever */

static char *copy_text(const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        abort();
    return copy;
}

static void copy_settings(struct log *log, const struct log_settings *settings)
{
    log->name_space = copy_text(settings->name_space);
    log->slot = copy_text(settings->slot);
    log->slot_pinned = settings->slot_pinned;
    log->in_flight_max = settings->in_flight_max;
    log->trim_every_ms = settings->trim_every_ms;
    log->properties_count = settings->properties_count;
    log->properties = calloc(settings->properties_count + 1, sizeof *log->properties);
    if (log->properties == NULL)
        abort();
    for (size_t i = 0; i < settings->properties_count; i++)
        log->properties[i] = copy_text(settings->properties[i]);
    log->control_end = -1;
    log->oldest_us = INT64_MAX;
    log->burst_max = LOG_BURST_WORKS_MAX;
}

/* ---- topics ---- */

struct log_topic *log_topic_find(const struct log *log, enum topic topic, struct str pool)
{
    for (size_t i = 0; i < log->topics_count; i++) {
        struct log_topic *one = log->topics[i];
        if (one->topic == topic && (topic != TOPIC_STEPS || str_is(pool, one->pool)))
            return one;
    }
    return NULL;
}

struct log_topic *log_topic_named(const struct log *log, const char *name)
{
    for (size_t i = 0; i < log->topics_count; i++) {
        if (strcmp(log->topics[i]->name, name) == 0)
            return log->topics[i];
    }
    return NULL;
}

static void add_topic(struct log *log, enum topic topic, const char *name, const char *pool, int32_t partitions)
{
    struct log_topic *one = calloc(1, sizeof *one);
    struct log_topic **more = realloc(log->topics, (log->topics_count + 1) * sizeof *more);
    if (one == NULL || more == NULL)
        abort();
    *one = (struct log_topic){.topic = topic,
                              .name = copy_text(name),
                              .pool = pool != NULL ? copy_text(pool) : NULL,
                              .partitions = partitions,
                              .left = calloc((size_t)partitions, sizeof *one->left),
                              .index = log->topics_count};
    if (one->left == NULL)
        abort();
    log->topics = more;
    log->topics[log->topics_count++] = one;
}

/* Adds the topics of the namespace that are not known yet. */
static void learn_topics(struct log *log, const struct rd_kafka_metadata *metadata)
{
    static const struct {
        enum topic topic;
        const char *what;
    } names[] = {{TOPIC_INBOX, "inbox"},
                 {TOPIC_WAITING, "waiting"},
                 {TOPIC_HISTORY, "history"},
                 {TOPIC_CONTROL, "control"},
                 {TOPIC_DEAD, "dead"}};
    size_t skip = strlen(log->name_space) + 1;
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const char *name = metadata->topics[i].topic;
        int32_t partitions = metadata->topics[i].partition_cnt;
        if (metadata->topics[i].err || strncmp(name, log->name_space, skip - 1) != 0 || name[skip - 1] != '.' ||
            log_topic_named(log, name) != NULL)
            continue;
        if (strncmp(name + skip, "steps.", 6) == 0)
            add_topic(log, TOPIC_STEPS, name, name + skip + 6, partitions);
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
            if (strcmp(name + skip, names[n].what) == 0)
                add_topic(log, names[n].topic, name, NULL, partitions);
        }
    }
}

struct log_topic *log_topic_resolve(struct log *log, enum topic topic, struct str pool)
{
    struct log_topic *found = log_topic_find(log, topic, pool);
    if (found != NULL || clock_mono_us() < log->topics_asked_us + ASK_TOPICS_US)
        return found;
    log->topics_asked_us = clock_mono_us();
    const struct rd_kafka_metadata *metadata = kafka_metadata(log->ruler, LOG_SLICE_MS, NULL);
    if (metadata != NULL) {
        learn_topics(log, metadata);
        rd_kafka_metadata_destroy(metadata);
        log_producers_topics(log);
    }
    return log_topic_find(log, topic, pool);
}

static bool check_topics(struct log *log, const struct log_settings *settings, struct error *error)
{
    static const char *const needed[] = {"inbox", "waiting", "history", "control", "dead"};
    char name[300];
    for (size_t i = 0; i < sizeof needed / sizeof needed[0] + settings->pools_count; i++) {
        bool pool = i >= sizeof needed / sizeof needed[0];
        if (pool)
            snprintf(name, sizeof name, "%s.steps.%s", log->name_space,
                     settings->pools[i - sizeof needed / sizeof needed[0]]);
        else
            snprintf(name, sizeof name, "%s.%s", log->name_space, needed[i]);
        struct log_topic *topic = log_topic_named(log, name);
        if (topic == NULL)
            return error_set(error, ERROR_FATAL, "topic %s is missing; run: myelin topics create", name);
        topic->subscribed = pool || (topic->topic == TOPIC_INBOX && settings->serve_inbox);
    }
    const struct log_topic *inbox = log_topic_find(log, TOPIC_INBOX, STR_NONE);
    const struct log_topic *waiting = log_topic_find(log, TOPIC_WAITING, STR_NONE);
    if (inbox->partitions != waiting->partitions)
        return error_set(error, ERROR_FATAL,
                         "%s has %" PRId32 " partitions and %s has %" PRId32
                         ", they must be the same; see: myelin topics check",
                         inbox->name, inbox->partitions, waiting->name, waiting->partitions);
    return true;
}

/* ---- handles ---- */

/* A group's members must agree on it: they leave it before one of them comes with the other. */
static const char *assignor(void)
{
    return rd_kafka_version() >= COOPERATIVE_FROM ? "cooperative-sticky" : "range";
}

static void log_consumer_error(rd_kafka_t *client, int code, const char *reason, void *opaque)
{
    (void)client, (void)opaque;
    LOG_WARN("kafka.trouble", LOG_S("error", rd_kafka_err2name((rd_kafka_resp_err_t)code)), LOG_S("reason", reason));
}

/* ▲ Bytes that librdkafka may have ready for one partition: its limit holds for each partition queue. */
static size_t fetch_ahead(const struct log *log)
{
    size_t partitions = 0;
    for (size_t i = 0; i < log->topics_count; i++)
        partitions += log->topics[i]->subscribed ? (size_t)log->topics[i]->partitions : 0;
    return budget_fetch(partitions);
}

bool log_consumer_open(struct log *log, struct error *error)
{
    size_t ahead = fetch_ahead(log);
    char queued[24], once[24];
    snprintf(queued, sizeof queued, "%zu", ahead / 1024);
    snprintf(once, sizeof once, "%zu", ahead < FETCH_ONCE_SIZE_MAX ? ahead : FETCH_ONCE_SIZE_MAX);
    const struct kafka_property defaults[] = {
        {"session.timeout.ms", "6000"},
        {"heartbeat.interval.ms", "500"},
        {"max.poll.interval.ms", "45000"},
        {"queued.max.messages.kbytes", queued},
        {"fetch.message.max.bytes", once},
        {"fetch.wait.max.ms", "100"}, /* a partition whose queue was full waits for the fetch under way */
        {"fetch.error.backoff.ms", "50"},
        {"statistics.interval.ms", "2000"},
        {NULL, NULL},
    };
    const struct kafka_property own[] = {
        {"group.id", log->name_space},
        {"group.instance.id", log->slot_pinned ? log->slot : NULL},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"isolation.level", "read_committed"},
        {"partition.assignment.strategy", assignor()},
        {NULL, NULL},
    };
    rd_kafka_conf_t *config = kafka_config(defaults, (const char *const *)log->properties, log->properties_count, own,
                                           error);
    if (config == NULL)
        return false;
    rd_kafka_conf_set_opaque(config, log);
    rd_kafka_conf_set_rebalance_cb(config, log_on_rebalance);
    rd_kafka_conf_set_error_cb(config, log_consumer_error);
    rd_kafka_conf_set_stats_cb(config, log_on_statistics);
    log->consumer = kafka_open(RD_KAFKA_CONSUMER, config, error);
    if (log->consumer == NULL)
        return false;
    rd_kafka_poll_set_consumer(log->consumer);
    log->consumer_queue = rd_kafka_queue_get_consumer(log->consumer);
    rd_kafka_queue_io_event_enable(log->consumer_queue, log->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    return true;
}

void log_consumer_close(struct log *log)
{
    if (log->joined)
        rd_kafka_consumer_close(log->consumer);
    log->joined = false;
    log_queues_free(log);
    if (log->consumer_queue != NULL)
        rd_kafka_queue_destroy(log->consumer_queue);
    if (log->consumer != NULL)
        rd_kafka_destroy(log->consumer);
    log->consumer_queue = NULL;
    log->consumer = NULL;
}

bool log_connect(struct log *log, const struct log_settings *settings, struct error *error)
{
    int64_t until_ms = clock_mono_us() / 1000 + settings->control_ready_ms;
    log->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (log->wake_fd < 0)
        abort();
    copy_settings(log, settings);
    log->ruler = kafka_ruler((const char *const *)log->properties, log->properties_count, error);
    if (log->ruler == NULL)
        return false;
    log->trim_queue = rd_kafka_queue_new(log->ruler);
    const struct rd_kafka_metadata *metadata = kafka_metadata(log->ruler, settings->control_ready_ms, error);
    if (metadata == NULL)
        return false;
    learn_topics(log, metadata);
    rd_kafka_metadata_destroy(metadata);
    if (!check_topics(log, settings, error) || !log_consumer_open(log, error) || !log_reader_open(log, error))
        return false;
    int64_t left_ms = until_ms - clock_mono_us() / 1000;
    if (!log_producers_open(log, left_ms < LOG_SLICE_MS ? LOG_SLICE_MS : left_ms, error))
        return false;
    if (!log_barrier_open(log))
        return error_set(error, ERROR_FATAL, "cannot start a thread");
    LOG_INFO("log.open", LOG_S("namespace", log->name_space), LOG_S("slot", log->slot),
             LOG_S("member", log->slot_pinned ? "static" : "dynamic"), LOG_S("assignor", assignor()),
             LOG_S("why", "cooperative-sticky is safe from librdkafka 2.6.1 on"),
             LOG_S("librdkafka", rd_kafka_version_str()));
    return true;
}

void log_disconnect(struct log *log)
{
    log_barrier_close(log);
    log_partitions_free(log);
    log_producers_close(log);
    log_consumer_close(log);
    if (log->reader_queue != NULL)
        rd_kafka_queue_destroy(log->reader_queue);
    if (log->control != NULL)
        rd_kafka_topic_destroy(log->control);
    if (log->waiting != NULL)
        rd_kafka_topic_destroy(log->waiting);
    if (log->reader != NULL)
        rd_kafka_destroy(log->reader);
    if (log->trim_queue != NULL)
        rd_kafka_queue_destroy(log->trim_queue);
    if (log->ruler != NULL)
        rd_kafka_destroy(log->ruler);
    for (size_t i = 0; i < log->topics_count; i++) {
        free(log->topics[i]->name);
        free(log->topics[i]->pool);
        free(log->topics[i]->left);
        free(log->topics[i]);
    }
    for (size_t i = 0; i < log->properties_count && log->properties != NULL; i++)
        free(log->properties[i]);
    for (; log->outbox_count > 0; log->outbox_count--)
        log_block_drop(log->outbox[log->outbox_head++ & (log->outbox_capacity - 1)]);
    free(log->outbox);
    free(log->placed);
    free(log->topics);
    free(log->properties);
    free(log->name_space);
    free(log->slot);
    close(log->wake_fd);
}
