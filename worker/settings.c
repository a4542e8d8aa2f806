#include "worker/settings.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "worker/contract/source.h"
#include "worker/option.h"

#define SECOND INT64_C(1000)
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)
#define MODELS_MAX 100

/* ---- what single values must be ---- */

static bool made_of(struct str text, const char *first, const char *rest)
{
    for (size_t i = 0; i < text.size; i++)
        if (strchr(i == 0 ? first : rest, text.data[i]) == NULL)
            return false;
    return text.size > 0;
}

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

/* A part of topic names, so that it must be legal there. */
static const char *check_topic_part(struct str text, struct arena *arena)
{
    (void)arena;
    return made_of(text, LOWER DIGITS, LOWER DIGITS "_-") ? NULL
                                                          : "must be of a-z 0-9 _ - and start with a letter or digit";
}

static const char *check_slot(struct str text, struct arena *arena)
{
    (void)arena;
    return made_of(text, LOWER UPPER DIGITS, LOWER UPPER DIGITS "_.-")
               ? NULL
               : "must be of letters, digits, _ . - and start with a letter or digit";
}

static const char *check_address(struct str text, struct arena *arena)
{
    (void)arena;
    static const char *const must = "must be HOST:PORT, for example \"127.0.0.1:6379\"";
    const char *colon = strrchr(text.data, ':');
    if (colon == NULL || colon == text.data || !made_of(str_of(colon + 1), DIGITS, DIGITS) || strlen(colon + 1) > 5)
        return must;
    long port = strtol(colon + 1, NULL, 10);
    return port >= 1 && port <= 65535 && strpbrk(text.data, "/@ \t") == NULL ? NULL : must;
}

/* Where to listen: an address of this machine, not a name, which may be that of another interface than was meant. */
static const char *check_listen(struct str text, struct arena *arena)
{
    static const char *const must = "must be IP:PORT, for example \"127.0.0.1:9464\" (port 0: a free one), or empty";
    const char *colon = strrchr(text.data, ':');
    if (colon == NULL || colon == text.data || !made_of(str_of(colon + 1), DIGITS, DIGITS) || strlen(colon + 1) > 5 ||
        strtol(colon + 1, NULL, 10) > 65535)
        return must;
    struct in6_addr ip;
    struct str host = arena_copy(arena, text.data, (size_t)(colon - text.data));
    if (host.size > 2 && host.data[0] == '[' && host.data[host.size - 1] == ']')
        return inet_pton(AF_INET6, arena_copy(arena, host.data + 1, host.size - 2).data, &ip) == 1 ? NULL : must;
    return inet_pton(AF_INET, host.data, &ip) == 1 ? NULL : must;
}

/* What the runtime's guarantees rest on is not for settings. */
static const char *check_kafka(struct str text, struct arena *arena)
{
    static const char *const ours[] = {
        "group.id",
        "group.instance.id",
        "transactional.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "isolation.level",
        "enable.idempotence",
        "partitioner",
        "go.delivery.reports",
    };
    const char *equals = memchr(text.data, '=', text.size);
    if (equals == NULL || equals == text.data)
        return "must be \"name=value\", as librdkafka's CONFIGURATION.md lists them";
    struct str name = arena_copy(arena, text.data, (size_t)(equals - text.data));
    if (!made_of(name, LOWER, LOWER DIGITS "._"))
        return arena_printf(arena, "has the name \"%s\": a librdkafka property is of a-z 0-9 . _, without spaces",
                            name.data)
            .data;
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (str_is(name, ours[i]))
            return arena_printf(arena, "sets %s, which Myelin decides itself: remove it", name.data).data;
    if (equals[1] == '\0')
        return arena_printf(arena, "gives no value for %s", name.data).data;
    return NULL;
}

static const char *check_log_level(struct str text, struct arena *arena)
{
    (void)arena;
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        if (str_is(text, levels[i]))
            return NULL;
    return "must be debug, info, warn or error";
}

static const char *check_url(struct str text, struct arena *arena)
{
    (void)arena;
    bool http = strncasecmp(text.data, "http://", 7) == 0 && text.size > 7;
    bool https = strncasecmp(text.data, "https://", 8) == 0 && text.size > 8;
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)text.data[i] <= ' ' || text.data[i] == 0x7F)
            return "must be a URL without spaces";
    return http || https ? NULL : "must start with http:// or https://";
}

/* The key goes into a header line. */
static const char *check_key(struct str text, struct arena *arena)
{
    (void)arena;
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)text.data[i] < ' ' || text.data[i] == 0x7F)
            return "holds a control character (a line break at its end?), which a header cannot carry";
    return NULL;
}

static const char *check_response_format(struct str text, struct arena *arena)
{
    (void)arena;
    return str_is(text, "json_schema") || str_is(text, "json_object") || str_is(text, "none")
               ? NULL
               : "must be json_schema, json_object or none";
}

/* `extra` is merged into the request: what Myelin itself says there would be lost or doubled. */
static const char *check_extra(struct str text, struct arena *arena)
{
    static const char *const ours[] = {
        "model",  "messages", "tools",    "tool_choice", "response_format", "max_tokens", "max_completion_tokens",
        "stream", "n",        "functions"};
    const char *must = NULL;
    json_t *extra = json_loads(text.data, 0, NULL);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]) && must == NULL; i++)
        if (json_object_get(extra, ours[i]) != NULL)
            must = arena_printf(arena, "sets \"%s\", which Myelin decides itself: remove it", ours[i]).data;
    json_decref(extra);
    return must;
}

/* ---- the tables ---- */

#define AT(member) offsetof(struct settings, member)

/* A list and its count are filled in as one struct option_list. */
_Static_assert(AT(kafka_count) == AT(kafka) + offsetof(struct option_list, count), "kafka, kafka_count");
_Static_assert(AT(pools_count) == AT(pools) + offsetof(struct option_list, count), "pools, pools_count");

static const struct option options[] = {
    {"namespace", OPTION_STR, AT(name_space), "\"${MYELIN_NAMESPACE:-myelin}\"", 1, 100, check_topic_part, false,
     "starts the names of topics, of the consumer group and of Redis keys: one namespace, one Myelin"},
    {"kafka", OPTION_LIST, AT(kafka), "[\"bootstrap.servers=${MYELIN_KAFKA:-127.0.0.1:9092}\"]", 1, 200, check_kafka,
     true, "librdkafka properties, \"name=value\" each: brokers, SASL, TLS, tuning"},
    {"redis", OPTION_TEXT, AT(redis), "\"${MYELIN_REDIS:-127.0.0.1:6379}\"", 1, 300, check_address, false,
     "HOST:PORT of Redis"},
    {"redis_username", OPTION_TEXT, AT(redis_username), "\"${MYELIN_REDIS_USERNAME:-}\"", 0, 300, NULL, false,
     "of a Redis with ACLs; empty = none"},
    {"redis_password", OPTION_TEXT, AT(redis_password), "\"${MYELIN_REDIS_PASSWORD:-}\"", 0, 1000, NULL, true,
     "empty = none; ${NAME} is also read from the file that NAME_FILE names"},
    {"slot", OPTION_TEXT, AT(slot), "\"${MYELIN_SLOT:-}\"", 0, 100, check_slot, false,
     "stable name of this worker, used by no other at the same time; empty = a free one, and no static group membership"},
    {"pools", OPTION_LIST, AT(pools), "[\"default\"]", 1, 64, check_topic_part, false,
     "pools of steps that this worker serves, and that `topics create` makes"},
    {"serve_inbox", OPTION_BOOL, AT(serve_inbox), "true", 0, 0, NULL, false,
     "also keep what waits: timers, approvals, open runs"},
    {"in_flight_max", OPTION_NUMBER, AT(in_flight_max), "1000", 1, 100000, NULL, false,
     "steps a worker works on at once"},
    {"calls_per_endpoint", OPTION_NUMBER, AT(calls_per_endpoint), "256", 1, 100000, NULL, false,
     "of them, calls to one HOST:PORT; what is beyond that waits, and hinders nobody"},
    {"memory_max", OPTION_SIZE, AT(memory_max), "\"512MiB\"", 64 << 20, INT64_C(1) << 40, NULL, false,
     "memory for the steps worked on, all together; the program itself comes on top, with about 40 MiB"},
    {"steps_partitions", OPTION_NUMBER, AT(steps_partitions), "8", 1, 1000, NULL, false,
     "of each steps topic, for `topics create`; bounds how many workers can share a pool"},
    {"inbox_partitions", OPTION_NUMBER, AT(inbox_partitions), "8", 1, 1000, NULL, false,
     "of inbox and of waiting, for `topics create`"},
    {"history_partitions", OPTION_NUMBER, AT(history_partitions), "8", 1, 1000, NULL, false,
     "of history, for `topics create`"},
    {"replication", OPTION_NUMBER, AT(replication), "0", 0, 15, NULL, false,
     "copies of each partition, for `topics create`; 0 = 3, or 1 where there are fewer brokers"},
    {"ended_keep", OPTION_DURATION, AT(ended_keep_ms), "\"7d\"", HOUR, 366 * DAY, NULL, false,
     "how long an ended run is remembered: the same id with the same input is then answered, not run again"},
    {"crashes_max", OPTION_NUMBER, AT(crashes_max), "3", 1, 1000, NULL, false,
     "workers that die while they run only this step, before it goes to `dead` and its run fails"},
    {"keeper_memory_kib", OPTION_NUMBER, AT(keeper_memory_kib), "8192", 0, 64 << 20, NULL, false,
     "how much of what waits is kept in memory, in KiB; the rest is read from Kafka again when it goes on"},
    {"backoff", OPTION_DURATION, AT(backoff_ms), "\"500ms\"", 1, HOUR, NULL, false,
     "first delay of a retry; it doubles, with jitter"},
    {"backoff_max", OPTION_DURATION, AT(backoff_max_ms), "\"60s\"", 1, DAY, NULL, false, "longest delay of a retry"},
    {"grace", OPTION_DURATION, AT(grace_ms), "\"25s\"", 0, HOUR, NULL, false,
     "after SIGTERM: time for calls in flight, before the worker leaves"},
    {"settle", OPTION_DURATION, AT(settle_ms), "\"1s\"", 1, HOUR, NULL, false,
     "added to a write's timeout before anybody else may act on it"},
    {"lease", OPTION_DURATION, AT(lease_ms), "\"5s\"", 500, HOUR, NULL, false,
     "how long a read in flight keeps others from making it too; renewed while it runs"},
    {"slot_lease", OPTION_DURATION, AT(slot_lease_ms), "\"10s\"", SECOND, HOUR, NULL, false,
     "without a slot: how long the one that was claimed in Redis stays its own when it cannot be renewed there"},
    {"trim_every", OPTION_DURATION, AT(trim_every_ms), "\"60s\"", SECOND, DAY, NULL, false,
     "how often what is committed of steps and inbox is deleted from Kafka; only what was committed by the last time"},
    {"admin", OPTION_TEXT, AT(admin), "\"${MYELIN_ADMIN:-127.0.0.1:9464}\"", 0, 100, check_listen, false,
     "IP:PORT of /metrics, /live and /ready; when the port is taken, a free one; port 0 = a free one; empty = none"},
    {"log_level", OPTION_STR, AT(log_level), "\"info\"", 1, 10, check_log_level, false, "debug, info, warn or error"},
    {"models", OPTION_GROUP, 0, "{}", 0, 0, NULL, false, "model endpoints by the names that contracts use"},
};

#define IN(member) offsetof(struct chat_model, member)

static const struct option model_options[] = {
    {"url", OPTION_STR, IN(url), NULL, 1, 2000, check_url, false,
     "base of an OpenAI-compatible endpoint, for example \"https://api.example.com/v1\""},
    {"key", OPTION_STR, IN(key), "\"\"", 0, 4000, check_key, true, "sent as bearer token; empty = none"},
    {"model", OPTION_STR, IN(model), NULL, 1, 300, NULL, false, "as the endpoint calls it"},
    {"usd_in", OPTION_USD, IN(micro_usd_in), "\"\"", 0, 0, NULL, false,
     "US dollars for 1,000,000 input tokens; empty = not known"},
    {"usd_out", OPTION_USD, IN(micro_usd_out), "\"\"", 0, 0, NULL, false,
     "US dollars for 1,000,000 output tokens; empty = not known"},
    {"usd_cached", OPTION_USD, IN(micro_usd_cached), "\"\"", 0, 0, NULL, false,
     "US dollars for 1,000,000 cached input tokens; empty = as usd_in"},
    {"timeout", OPTION_DURATION, IN(timeout_ms), "\"120s\"", 1, HOUR, NULL, false, "of one call"},
    {"max_tokens", OPTION_NUMBER, IN(max_tokens), "0", 0, 10000000, NULL, false,
     "of one answer; 0 = the endpoint's own limit"},
    {"max_tokens_legacy", OPTION_BOOL, IN(max_tokens_legacy), "false", 0, 0, NULL, false,
     "say max_tokens instead of max_completion_tokens, for endpoints that know only that"},
    {"response_format", OPTION_STR, IN(response_format), "\"json_schema\"", 1, 20, check_response_format, false,
     "how the endpoint is asked for JSON: json_schema, json_object or none"},
    {"extra", OPTION_JSON, IN(extra), "{}", 0, 16 << 10, check_extra, false,
     "merged into each request, for example { temperature = 0.2; seed = 7; }"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- checks that look at more than one value ---- */

/* The property's name, up to '='. */
static struct str property_name(const char *property)
{
    return (struct str){property, strcspn(property, "=")};
}

static void check_properties(const struct option_reading *reading, const struct settings *settings,
                             const struct node *node)
{
    bool brokers = false;
    for (size_t i = 0; i < settings->kafka_count; i++) {
        struct str name = property_name(settings->kafka[i]);
        brokers = brokers || str_is(name, "bootstrap.servers") || str_is(name, "metadata.broker.list");
        for (size_t k = 0; k < i; k++)
            if (str_equal(name, property_name(settings->kafka[k])))
                option_problem(reading, node, "kafka gives \"%.*s\" twice, in [%zu] and [%zu]", STR_ARG(name), k, i);
    }
    if (!brokers)
        option_problem(reading, node, "kafka does not say where the brokers are: add \"bootstrap.servers=HOST:PORT\"");
}

static void check_together(const struct option_reading *reading, const struct settings *settings,
                           const struct node *root)
{
    const struct node *pools = tree_member(root, "pools");
    if (settings->kafka != NULL)
        check_properties(reading, settings, tree_member(root, "kafka"));
    for (size_t i = 1; i < settings->pools_count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(settings->pools[i], settings->pools[k]) == 0)
                option_problem(reading, pools, "pools names \"%s\" twice", settings->pools[i]);
    if (settings->backoff_ms > 0 && settings->backoff_max_ms > 0 && settings->backoff_max_ms < settings->backoff_ms) {
        const struct node *max = tree_member(root, "backoff_max");
        option_problem(reading, max != NULL ? max : tree_member(root, "backoff"),
                       "backoff_max is shorter than backoff");
    }
    if (settings->redis_username != NULL && settings->redis_password == NULL)
        option_problem(reading, tree_member(root, "redis_username"), "redis_username is given without redis_password");
}

static void read_models(const struct option_reading *reading, struct settings *settings, const struct node *models)
{
    if (models == NULL || !json_is_object(models->json) || models->count == 0)
        return;
    if (models->count > MODELS_MAX) {
        option_problem(reading, models, "models has %zu entries, must have at most %d", models->count, MODELS_MAX);
        return;
    }
    settings->models = ARENA_ARRAY(reading->arena, models->count, struct chat_model);
    for (const struct node *node = models->first; node != NULL; node = node->next) {
        if (!json_is_object(node->json)) {
            option_problem(reading, node, "models.%.*s must be a group, { url = \"...\"; model = \"...\"; }",
                           STR_ARG(node->key));
            continue;
        }
        struct chat_model *model = &settings->models[settings->models_count++];
        model->name = arena_str(reading->arena, node->key);
        struct str prefix = arena_printf(reading->arena, "models.%.*s.", STR_ARG(node->key));
        option_read(reading, model_options, COUNT(model_options), node, prefix.data, model);
    }
}

static bool report(struct problems *problems, struct error *error)
{
    if (problems->errors == 0)
        return true;
    problems_sort(problems, 0);
    size_t first = 0;
    while (problems->list[first].warning)
        first++;
    const struct problem *problem = &problems->list[first];
    struct str more = problems->errors > 1 ? arena_printf(problems->arena, " (and %zu more)", problems->errors - 1)
                                           : STR("");
    if (problem->line > 0)
        return error_set(error, ERROR_FATAL, "%.*s:%d: %.*s%s", STR_ARG(problem->file), (int)problem->line,
                         STR_ARG(problem->text), more.data);
    return error_set(error, ERROR_FATAL, "%.*s: %.*s%s", STR_ARG(problem->file), STR_ARG(problem->text), more.data);
}

struct settings *settings_read(const char *path, struct error *error)
{
    struct arena *arena = arena_new();
    struct settings *settings = ARENA_NEW(arena, struct settings);
    struct problems problems;
    problems_init(&problems);
    settings->arena = arena;
    struct option_reading reading = {arena, &problems, path != NULL ? str_of(path) : STR("built-in settings")};
    struct node *root = path != NULL ? source_read_tree(path, arena, &problems) : NULL;
    if (path == NULL || root != NULL) {
        option_read(&reading, options, COUNT(options), root, "", settings);
        read_models(&reading, settings, tree_member(root, "models"));
        check_together(&reading, settings, root);
    }
    if (root != NULL)
        json_decref(root->json);
    if (!report(&problems, error)) {
        settings_free(settings);
        settings = NULL;
    }
    problems_free(&problems);
    return settings;
}

void settings_free(struct settings *settings)
{
    if (settings != NULL)
        arena_free(settings->arena);
}

const char *settings_find(const char *given, const char *name, struct arena *arena)
{
    const char *named = given != NULL ? given : getenv("MYELIN_CONFIG");
    if (named != NULL && *named != '\0')
        return named;
    static const char *const directories[] = {"config", "/etc/myelin"};
    for (size_t i = 0; i < COUNT(directories); i++) {
        const char *path = arena_printf(arena, "%s/%s", directories[i], name).data;
        if (access(path, F_OK) == 0)
            return path;
    }
    return NULL;
}

const struct chat_model *settings_model(const struct settings *settings, struct str name)
{
    for (size_t i = 0; i < settings->models_count; i++)
        if (str_equal(settings->models[i].name, name))
            return &settings->models[i];
    return NULL;
}

struct str settings_help(struct arena *arena)
{
    struct str main = option_help(options, COUNT(options), "  ", arena);
    struct str models = option_help(model_options, COUNT(model_options), "    ", arena);
    return arena_printf(arena, "%s  models = { NAME = { ... }; }, each with:\n%s", main.data, models.data);
}
