#include "worker/io/topics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/io/kafka_config.h"
#include "worker/io/reader.h"
#include "worker/io/writer.h"

#define TIMEOUT_MS 10000
#define CONFIGS_MAX 6

/* One librdkafka topic configuration. */
struct config {
    const char *name, *value;
    bool needed; /* a worker relies on it; else it is only what we create with */
};

struct spec {
    const char *what; /* the topic's name without namespace and pool */
    bool pooled;      /* one a pool */
    bool consumed;    /* by the group: every partition needs a committed offset */
    struct config configs[CONFIGS_MAX];
};

/* Design: "Topics". What is not compacted is never deleted by age: steps and inbox are trimmed below what is committed. */
static const struct spec specs[] = {
    {"steps",
     true,
     true,
     {{"cleanup.policy", "delete", true},
      {"retention.ms", "-1", true},
      {"retention.bytes", "-1", true},
      {"segment.bytes", "134217728", false}}}, /* what was trimmed is on the disk until its segment is full */
    /* An approval's time is when the broker got it. */
    {"inbox",
     false,
     true,
     {{"cleanup.policy", "delete", true},
      {"retention.ms", "-1", true},
      {"retention.bytes", "-1", true},
      {"segment.bytes", "134217728", false},
      {"message.timestamp.type", "LogAppendTime", true}}},
    /* Small segments and a low dirty ratio: a rebuild reads what was not compacted yet. */
    {"waiting",
     false,
     false,
     {{"cleanup.policy", "compact", true},
      {"min.cleanable.dirty.ratio", "0.1", false},
      {"segment.bytes", "67108864", false},
      {"segment.ms", "3600000", false}}},
    {"history",
     false,
     false,
     {{"cleanup.policy", "delete", true}, {"retention.ms", "-1", false}, {"retention.bytes", "-1", false}}},
    {"control", false, false, {{"cleanup.policy", "compact", true}, {"segment.ms", "86400000", false}}},
    {"dead",
     false,
     false,
     {{"cleanup.policy", "delete", true}, {"retention.ms", "-1", false}, {"retention.bytes", "-1", false}}},
};
#define SPECS_COUNT (sizeof specs / sizeof specs[0])

struct topic {
    const struct spec *spec;
    const char *name; /* whole */
    int32_t wanted;   /* partitions, when it is created */
    int32_t there;    /* partitions in the cluster, -1 = no such topic */
    int32_t recorded; /* partitions by `control`, -1 = nothing recorded */
    bool problem;     /* a line was reported as one */
};

struct job {
    const struct topics_plan *plan;
    topics_report *report;
    void *context;
    struct arena *arena;
    struct topic *topics;
    size_t count;
    rd_kafka_t *client; /* for admin requests, offsets and metadata: of the group, and never a member of it */
    bool problem;
};

struct str topics_name(struct arena *arena, const char *name_space, const char *what, const char *pool)
{
    if (pool == NULL)
        return arena_printf(arena, "%s.%s", name_space, what);
    return arena_printf(arena, "%s.%s.%s", name_space, what, pool);
}

static void say(struct job *job, struct topic *topic, bool problem, const char *text)
{
    topic->problem = topic->problem || problem;
    job->problem = job->problem || problem;
    job->report(job->context, topic->name, text, problem);
}

static int32_t wanted(const struct topics_plan *plan, const char *what)
{
    if (strcmp(what, "steps") == 0)
        return plan->steps_partitions;
    if (strcmp(what, "inbox") == 0 || strcmp(what, "waiting") == 0)
        return plan->inbox_partitions;
    if (strcmp(what, "history") == 0)
        return plan->history_partitions;
    return 1;
}

static void add_topic(struct job *job, const struct spec *spec, const char *pool)
{
    job->topics[job->count++] = (struct topic){
        .spec = spec,
        .name = topics_name(job->arena, job->plan->name_space, spec->what, pool).data,
        .wanted = wanted(job->plan, spec->what),
        .there = -1,
        .recorded = -1};
}

static void job_close(struct job *job)
{
    if (job->client != NULL)
        rd_kafka_destroy(job->client);
    arena_free(job->arena);
}

static bool look(struct job *job, struct error *error)
{
    const struct rd_kafka_metadata *metadata = kafka_metadata(job->client, TIMEOUT_MS, error);
    if (metadata == NULL)
        return false;
    for (size_t i = 0; i < job->count; i++)
        job->topics[i].there = kafka_partitions(metadata, job->topics[i].name);
    rd_kafka_metadata_destroy(metadata);
    return true;
}

static bool job_open(struct job *job, const struct topics_plan *plan, topics_report *report, void *context,
                     struct error *error)
{
    *job = (struct job){.plan = plan, .report = report, .context = context, .arena = arena_new()};
    const struct kafka_property own[] = {{"group.id", plan->name_space},
                                         {"isolation.level", "read_committed"},
                                         {"enable.auto.commit", "false"},
                                         {NULL, NULL}};
    job->topics = ARENA_ARRAY(job->arena, SPECS_COUNT + plan->pools_count, struct topic);
    for (size_t i = 0; i < SPECS_COUNT; i++) {
        if (!specs[i].pooled)
            add_topic(job, &specs[i], NULL);
        for (size_t p = 0; specs[i].pooled && p < plan->pools_count; p++)
            add_topic(job, &specs[i], plan->pools[p]);
    }
    job->client = kafka_client(RD_KAFKA_CONSUMER, NULL, plan->properties, plan->properties_count, own, error);
    if (job->client != NULL && look(job, error))
        return true;
    job_close(job);
    return false;
}

/* ---- what `control` says of partition counts ---- */

/* The topic that a record of `control` counts, or NULL. */
static struct topic *counted_by(struct job *job, const struct reader_record *record)
{
    struct str key = record->key;
    size_t skip = strlen(KAFKA_PARTITIONS_KEY), space = strlen(job->plan->name_space) + 1;
    if (key.size <= skip || memcmp(key.data, KAFKA_PARTITIONS_KEY, skip) != 0)
        return NULL;
    for (size_t i = 0; i < job->count; i++) {
        if (strcmp(job->topics[i].name + space, key.data + skip) == 0)
            return &job->topics[i];
    }
    return NULL;
}

static bool read_recorded(struct job *job, struct error *error)
{
    const char *control = topics_name(job->arena, job->plan->name_space, "control", NULL).data;
    struct reader *reader = reader_open(job->plan->properties, job->plan->properties_count, error);
    if (reader == NULL)
        return false;
    bool ok = reader_start(reader, control, 0, READER_FROM_START, error);
    enum reader_got got = READER_RECORD;
    while (ok && got == READER_RECORD) {
        struct reader_record record;
        got = reader_next(reader, TIMEOUT_MS, &record, error);
        if (got == READER_TIMEOUT)
            ok = error_set(error, ERROR_RETRY, "%s could not be read to its end within %d ms", control, TIMEOUT_MS);
        struct topic *topic = got == READER_RECORD ? counted_by(job, &record) : NULL;
        if (topic != NULL)
            topic->recorded = record.value.data == NULL ? -1 : (int32_t)strtol(record.value.data, NULL, 10);
    }
    reader_close(reader);
    return ok && got != READER_ERROR;
}

static bool record_counts(struct job *job, struct error *error)
{
    const char *control = topics_name(job->arena, job->plan->name_space, "control", NULL).data;
    size_t space = strlen(job->plan->name_space) + 1;
    struct writer *writer = writer_open(job->plan->properties, job->plan->properties_count, error);
    if (writer == NULL)
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < job->count; i++) {
        const struct topic *topic = &job->topics[i];
        if (topic->recorded >= 0)
            continue;
        struct str key = arena_printf(job->arena, KAFKA_PARTITIONS_KEY "%s", topic->name + space);
        struct str value = arena_printf(job->arena, "%" PRId32, topic->there);
        ok = writer_put(writer, control, 0, key, value, TIMEOUT_MS, error);
    }
    writer_close(writer);
    return ok;
}

/* ---- creating ---- */

static rd_kafka_event_t *await(rd_kafka_queue_t *queue, const char *what, struct error *error)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT_MS + 5000);
    if (event == NULL)
        error_set(error, ERROR_RETRY, "%s: no answer from the brokers within %d ms", what, TIMEOUT_MS);
    else if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
        error_set(error, ERROR_RETRY, "%s: %s", what, rd_kafka_event_error_string(event));
    else
        return event;
    if (event != NULL)
        rd_kafka_event_destroy(event);
    return NULL;
}

static rd_kafka_NewTopic_t *new_topic(const struct job *job, const struct topic *topic, struct error *error)
{
    char text[256];
    rd_kafka_NewTopic_t *new = rd_kafka_NewTopic_new(topic->name, topic->wanted, job->plan->replication, text,
                                                     sizeof text);
    if (new == NULL) {
        error_set(error, ERROR_FATAL, "cannot create %s: %s", topic->name, text);
        return NULL;
    }
    for (const struct config *config = topic->spec->configs; config->name != NULL; config++)
        rd_kafka_NewTopic_set_config(new, config->name, config->value);
    return new;
}

/* Asks for all that are missing in one request. */
static bool request_topics(struct job *job, rd_kafka_NewTopic_t **list, size_t count, struct error *error)
{
    char text[256];
    rd_kafka_queue_t *queue = rd_kafka_queue_new(job->client);
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(job->client, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_operation_timeout(options, TIMEOUT_MS, text, sizeof text);
    rd_kafka_CreateTopics(job->client, list, count, options, queue);
    rd_kafka_event_t *event = await(queue, "creating topics", error);
    bool ok = event != NULL;
    size_t answers = 0;
    const rd_kafka_topic_result_t **answer =
        ok ? rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &answers) : NULL;
    for (size_t i = 0; i < answers; i++) {
        rd_kafka_resp_err_t failed = rd_kafka_topic_result_error(answer[i]);
        if (failed && failed != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
            const char *why = rd_kafka_topic_result_error_string(answer[i]);
            ok = error_set(error, ERROR_FATAL, "cannot create %s: %s", rd_kafka_topic_result_name(answer[i]),
                           why != NULL ? why : rd_kafka_err2str(failed));
        }
    }
    if (event != NULL)
        rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    return ok;
}

static bool all_there(const struct job *job)
{
    for (size_t i = 0; i < job->count; i++) {
        if (job->topics[i].there < 0)
            return false;
    }
    return true;
}

static bool create_missing(struct job *job, struct error *error)
{
    rd_kafka_NewTopic_t **list = ARENA_ARRAY(job->arena, job->count, rd_kafka_NewTopic_t *);
    size_t count = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < job->count; i++) {
        struct topic *topic = &job->topics[i];
        if (topic->there < 0)
            ok = (list[count] = new_topic(job, topic, error)) != NULL;
        count += topic->there < 0 && ok;
    }
    ok = ok && (count == 0 || request_topics(job, list, count, error));
    for (size_t i = 0; ok && i < job->count; i++) {
        struct topic *topic = &job->topics[i];
        char text[64];
        snprintf(text, sizeof text, "created, %" PRId32 " partition%s", topic->wanted, topic->wanted == 1 ? "" : "s");
        if (topic->there < 0)
            say(job, topic, false, text);
    }
    rd_kafka_NewTopic_destroy_array(list, count);
    /* Each broker learns of new topics a moment later. */
    for (int tries = 0; ok && count > 0 && tries < 100; tries++) {
        ok = look(job, error);
        if (ok && all_there(job))
            return true;
        rd_kafka_poll(job->client, 50);
    }
    if (ok && count > 0)
        return error_set(error, ERROR_RETRY, "topics were created but the brokers do not show them yet: try again");
    return ok;
}

/* ---- committed offsets ---- */

/* The partitions of all consumed topics that are there. */
static rd_kafka_topic_partition_list_t *consumed(const struct job *job)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
    for (size_t i = 0; i < job->count; i++) {
        if (job->topics[i].spec->consumed && job->topics[i].there > 0)
            rd_kafka_topic_partition_list_add_range(list, job->topics[i].name, 0, job->topics[i].there - 1);
    }
    return list;
}

/* Of `list`, what has no committed offset. NULL with `error`. */
static rd_kafka_topic_partition_list_t *uncommitted(struct job *job, rd_kafka_topic_partition_list_t *list,
                                                    struct error *error)
{
    rd_kafka_topic_partition_list_t *none = rd_kafka_topic_partition_list_new(16);
    rd_kafka_resp_err_t failed = list->cnt == 0 ? RD_KAFKA_RESP_ERR_NO_ERROR
                                                : rd_kafka_committed(job->client, list, TIMEOUT_MS);
    for (int i = 0; i < list->cnt && !failed; i++) {
        failed = list->elems[i].err;
        if (!failed && list->elems[i].offset < 0)
            rd_kafka_topic_partition_list_add(none, list->elems[i].topic, list->elems[i].partition)->offset = 0;
    }
    if (!failed)
        return none;
    error_set(error, ERROR_RETRY, "cannot read the committed offsets of group %s: %s", job->plan->name_space,
              rd_kafka_err2str(failed));
    rd_kafka_topic_partition_list_destroy(none);
    return NULL;
}

static bool commit_in_transaction(rd_kafka_t *producer, const struct job *job,
                                  const rd_kafka_topic_partition_list_t *offsets, struct error *error)
{
    rd_kafka_error_t *failed = rd_kafka_begin_transaction(producer);
    rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata_new(job->plan->name_space);
    if (failed == NULL)
        failed = rd_kafka_send_offsets_to_transaction(producer, offsets, group, TIMEOUT_MS);
    if (failed == NULL)
        failed = rd_kafka_commit_transaction(producer, TIMEOUT_MS);
    rd_kafka_consumer_group_metadata_destroy(group);
    return failed == NULL || kafka_fail(error, ERROR_RETRY, "cannot commit the first offsets", failed);
}

/*
 * Offset 0 where nothing is committed. A plain commit is refused while the group has members, and two `topics create` at a
 * time could set back a partition that a worker has begun to serve. So: a transaction under a name of its own. Group
 * metadata that no member took is not checked (generation -1, KIP-447), and init_transactions fences the other `topics
 * create`: only the last one looks and commits.
 */
static bool commit_first_offsets(struct job *job, struct error *error)
{
    const char *name = topics_name(job->arena, job->plan->name_space, "topics-create", NULL).data;
    const struct kafka_property own[] = {{"transactional.id", name}, {NULL, NULL}};
    rd_kafka_topic_partition_list_t *list = consumed(job), *none = uncommitted(job, list, error);
    bool ok = none != NULL;
    if (ok && none->cnt > 0) {
        rd_kafka_t *producer = kafka_client(RD_KAFKA_PRODUCER, NULL, job->plan->properties, job->plan->properties_count,
                                            own, error);
        rd_kafka_error_t *failed = producer == NULL ? NULL : rd_kafka_init_transactions(producer, TIMEOUT_MS);
        ok = producer != NULL;
        if (failed != NULL)
            ok = kafka_fail(error, ERROR_RETRY, "cannot prepare to commit the first offsets", failed);
        rd_kafka_topic_partition_list_destroy(none);
        none = ok ? uncommitted(job, list, error) : NULL;
        ok = none != NULL && (none->cnt == 0 || commit_in_transaction(producer, job, none, error));
        if (producer != NULL)
            rd_kafka_destroy(producer);
    }
    if (none != NULL)
        rd_kafka_topic_partition_list_destroy(none);
    rd_kafka_topic_partition_list_destroy(list);
    return ok;
}

static bool check_offsets(struct job *job, struct error *error)
{
    rd_kafka_topic_partition_list_t *list = consumed(job), *none = uncommitted(job, list, error);
    for (size_t i = 0; none != NULL && i < job->count; i++) {
        int without = 0;
        for (int n = 0; n < none->cnt; n++)
            without += strcmp(none->elems[n].topic, job->topics[i].name) == 0;
        char text[160];
        snprintf(text, sizeof text,
                 "%d of %" PRId32 " partitions have no committed offset and are not served; run: myelin topics create",
                 without, job->topics[i].there);
        if (without > 0)
            say(job, &job->topics[i], true, text);
    }
    bool ok = none != NULL;
    if (none != NULL)
        rd_kafka_topic_partition_list_destroy(none);
    rd_kafka_topic_partition_list_destroy(list);
    return ok;
}

/* ---- comparing ---- */

static void compare_config(struct job *job, struct topic *topic, const char *name, const char *value)
{
    for (const struct config *config = topic->spec->configs; config->name != NULL; config++) {
        char text[200];
        if (strcmp(config->name, name) != 0 || strcmp(config->value, value) == 0)
            continue;
        snprintf(text, sizeof text, "%s is %.60s, %s %s", name, value, config->needed ? "must be" : "we make it",
                 config->value);
        say(job, topic, config->needed, text);
    }
}

static void compare_configs(struct job *job, const rd_kafka_ConfigResource_t *resource)
{
    size_t entries = 0;
    const rd_kafka_ConfigEntry_t **entry = rd_kafka_ConfigResource_configs(resource, &entries);
    for (size_t i = 0; i < job->count; i++) {
        if (strcmp(job->topics[i].name, rd_kafka_ConfigResource_name(resource)) != 0)
            continue;
        for (size_t n = 0; n < entries; n++) {
            const char *value = rd_kafka_ConfigEntry_value(entry[n]);
            compare_config(job, &job->topics[i], rd_kafka_ConfigEntry_name(entry[n]), value != NULL ? value : "");
        }
    }
}

static bool check_configs(struct job *job, struct error *error)
{
    rd_kafka_ConfigResource_t **list = ARENA_ARRAY(job->arena, job->count, rd_kafka_ConfigResource_t *);
    size_t count = 0;
    for (size_t i = 0; i < job->count; i++) {
        if (job->topics[i].there >= 0)
            list[count++] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, job->topics[i].name);
    }
    if (count == 0)
        return true;
    rd_kafka_queue_t *queue = rd_kafka_queue_new(job->client);
    rd_kafka_DescribeConfigs(job->client, list, count, NULL, queue);
    rd_kafka_event_t *event = await(queue, "reading the topics' configuration", error);
    size_t answers = 0;
    const rd_kafka_ConfigResource_t **answer = event == NULL
                                                   ? NULL
                                                   : rd_kafka_DescribeConfigs_result_resources(
                                                         rd_kafka_event_DescribeConfigs_result(event), &answers);
    for (size_t i = 0; i < answers; i++)
        compare_configs(job, answer[i]);
    if (event != NULL)
        rd_kafka_event_destroy(event);
    rd_kafka_ConfigResource_destroy_array(list, count);
    rd_kafka_queue_destroy(queue);
    return event != NULL;
}

static struct topic *find(struct job *job, const char *what)
{
    for (size_t i = 0; i < job->count; i++) {
        if (strcmp(job->topics[i].spec->what, what) == 0)
            return &job->topics[i];
    }
    return NULL;
}

static void check_counts(struct job *job)
{
    char text[160];
    for (size_t i = 0; i < job->count; i++) {
        struct topic *topic = &job->topics[i];
        if (topic->there < 0) {
            say(job, topic, true, "is missing; run: myelin topics create");
        } else if (topic->recorded >= 0 && topic->recorded != topic->there) {
            snprintf(text, sizeof text,
                     "has %" PRId32 " partitions, but runs were spread over %" PRId32
                     ": they would not be found; a topic cannot be repartitioned in place",
                     topic->there, topic->recorded);
            say(job, topic, true, text);
        }
    }
    struct topic *inbox = find(job, "inbox"), *waiting = find(job, "waiting"), *control = find(job, "control");
    snprintf(text, sizeof text, "has %" PRId32 " partitions, inbox has %" PRId32 ": they must be the same",
             waiting->there, inbox->there);
    if (waiting->there >= 0 && inbox->there >= 0 && waiting->there != inbox->there)
        say(job, waiting, true, text);
    snprintf(text, sizeof text, "has %" PRId32 " partitions, must have 1", control->there);
    if (control->there > 1)
        say(job, control, true, text);
}

/* Everything but offsets: the counts, what is recorded of them, the configuration. */
static bool compare(struct job *job, struct error *error)
{
    if (find(job, "control")->there > 0 && !read_recorded(job, error))
        return false;
    check_counts(job);
    return check_configs(job, error);
}

bool topics_create(const struct topics_plan *plan, topics_report *report, void *context, struct error *error)
{
    struct job job;
    if (!job_open(&job, plan, report, context, error))
        return false;
    bool *old = ARENA_ARRAY(job.arena, job.count, bool);
    for (size_t i = 0; i < job.count; i++)
        old[i] = job.topics[i].there >= 0;
    bool ok = create_missing(&job, error) && compare(&job, error);
    if (ok && job.problem)
        ok = error_set(error, ERROR_FATAL,
                       "topics that are there are not as they must be: nothing of them was changed");
    ok = ok && record_counts(&job, error) && commit_first_offsets(&job, error);
    for (size_t i = 0; i < job.count; i++) {
        char text[64];
        snprintf(text, sizeof text, "is there, %" PRId32 " partition%s", job.topics[i].there,
                 job.topics[i].there == 1 ? "" : "s");
        if (old[i] && !job.topics[i].problem)
            say(&job, &job.topics[i], false, text);
    }
    job_close(&job);
    return ok;
}

bool topics_check(const struct topics_plan *plan, topics_report *report, void *context, struct error *error)
{
    struct job job;
    if (!job_open(&job, plan, report, context, error))
        return false;
    bool ok = compare(&job, error) && check_offsets(&job, error);
    if (ok && job.problem)
        ok = error_set(error, ERROR_FATAL, "the topics of namespace %s are not as a worker needs them",
                       plan->name_space);
    job_close(&job);
    return ok;
}
