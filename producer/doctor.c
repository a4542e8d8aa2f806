/* myelin doctor */
#include <inttypes.h>
#include <string.h>

#include "producer/commands.h"
#include "producer/doctor.h"
#include "worker/io/look.h"
#include "worker/io/topics.h"

#define LOOK_TIMEOUT_MS 5000

static const char *const help =
    "Looks at everything that a run needs, and says of each thing whether it is well, and what to do when it is not: Kafka,\n"
    "the topics, the workers' group, Redis, the published contracts, the models that they use, and the variables of their\n"
    "tools (as set here; what counts is the workers' environment). The models are those of worker.cfg.\n"
    "Exit code 0: nothing failed; warnings are no failure.\n\n"
    "With --adopt it repairs partitions that no worker serves, because their committed offset is missing, cannot be read, or\n"
    "lies outside of the log: it says what is skipped or done again, and with --yes commits an offset from which they are\n"
    "served. All workers must be stopped. TOPIC is without the namespace; without TOPIC PARTITION it is about all of them.\n\n"
    "  myelin doctor\n"
    "  myelin doctor --worker-config /etc/myelin/worker.cfg\n"
    "  myelin doctor --adopt steps.default 3 --yes";

void doctor_say(struct doctor *doctor, enum doctor_verdict verdict, const char *what, const char *format, ...)
{
    static const char *const words[] = {"ok", "warn", "FAIL"};
    static const enum cmd_paint paints[] = {CMD_GREEN, CMD_YELLOW, CMD_RED};
    struct cmd *cmd = doctor->cmd;
    va_list arguments;
    va_start(arguments, format);
    const char *text = cmd_short(cmd, arena_vprintf(cmd->arena, format, arguments), 0);
    va_end(arguments);
    doctor->failures += verdict == DOCTOR_FAIL;
    doctor->warnings += verdict == DOCTOR_WARN;
    const char *padded = arena_printf(cmd->arena, "%-4s", words[verdict]).data;
    cmd_say(cmd, "%s  %-10s %s", cmd_painted(cmd, paints[verdict], padded), what, text);
    cmd_json(cmd, json_pack("{s:s, s:s, s:s}", "verdict", words[verdict], "what", what, "text", text));
}

/* ---- settings ---- */

static struct settings *read_settings(struct doctor *doctor, const char *what, const char *path)
{
    struct error error;
    struct settings *settings = settings_read(path, &error);
    if (settings == NULL)
        doctor_say(doctor, DOCTOR_FAIL, "settings", "%s", error.text);
    else
        doctor_say(doctor, DOCTOR_OK, "settings", "%s: %s, namespace %s", what,
                   path != NULL ? path : "built-in defaults", settings->name_space.data);
    return settings;
}

static bool look_at_settings(struct doctor *doctor, const char *worker_config)
{
    struct cmd *cmd = doctor->cmd;
    cmd->settings = read_settings(doctor, "command line", settings_find(cmd->config, "producer.cfg", cmd->arena));
    doctor->worker = read_settings(doctor, "worker", settings_find(worker_config, "worker.cfg", cmd->arena));
    if (cmd->settings != NULL && doctor->worker != NULL &&
        !str_equal(cmd->settings->name_space, doctor->worker->name_space))
        doctor_say(doctor, DOCTOR_FAIL, "settings",
                   "the command line is in namespace %s and the worker in %s: they do not see each other",
                   cmd->settings->name_space.data, doctor->worker->name_space.data);
    return cmd->settings != NULL;
}

/* ---- Kafka ---- */

static void tell_topic(void *context, const char *topic, const char *text, bool problem)
{
    struct doctor *doctor = context;
    doctor->topic_problems += problem;
    if (problem)
        doctor_say(doctor, DOCTOR_FAIL, "topic", "%s: %s", topic, text);
}

static void look_at_topics(struct doctor *doctor)
{
    const struct settings *settings = doctor->cmd->settings;
    const struct topics_plan plan = {
        .name_space = settings->name_space.data,
        .properties = settings->kafka,
        .properties_count = settings->kafka_count,
        .pools = settings->pools,
        .pools_count = settings->pools_count,
        .steps_partitions = settings->steps_partitions,
        .inbox_partitions = settings->inbox_partitions,
        .history_partitions = settings->history_partitions,
        .replication = 1,
    };
    struct error error;
    doctor->topics = topics_check(&plan, tell_topic, doctor, &error);
    if (doctor->topics)
        doctor_say(doctor, DOCTOR_OK, "topics", "all are as a worker needs them");
    else
        doctor_say(doctor, DOCTOR_FAIL, "topics", "%s; missing ones: myelin topics create", error.text);
}

static void look_at_workers(struct doctor *doctor, int64_t timeout_ms)
{
    const struct settings *settings = doctor->cmd->settings;
    struct look_group group;
    struct error error;
    if (!look_group(settings->kafka, settings->kafka_count, settings->name_space.data, timeout_ms, doctor->cmd->arena,
                    &group, &error))
        doctor_say(doctor, DOCTOR_WARN, "workers", "%s", error.text);
    else if (group.members == 0)
        doctor_say(doctor, DOCTOR_WARN, "workers",
                   "none is in the group %s: runs wait until one comes; start myelin-worker",
                   settings->name_space.data);
    else
        doctor_say(doctor, DOCTOR_OK, "workers", "%d in the group %s, which is %s: %s", (int)group.members,
                   settings->name_space.data, group.state, group.clients);
}

static bool look_at_kafka(struct doctor *doctor, int64_t timeout_ms)
{
    const struct settings *settings = doctor->cmd->settings;
    struct look_kafka kafka;
    struct error error;
    if (!look_kafka(settings->kafka, settings->kafka_count, timeout_ms, doctor->cmd->arena, &kafka, &error)) {
        doctor_say(doctor, DOCTOR_FAIL, "kafka",
                   "%s; is the address right? It is `kafka` in the settings, or $MYELIN_KAFKA", error.text);
        return false;
    }
    doctor_say(doctor, DOCTOR_OK, "kafka", "%d broker%s: %s; cluster %s; Kafka %s%s; librdkafka %s", (int)kafka.brokers,
               kafka.brokers == 1 ? "" : "s", kafka.names, kafka.cluster,
               *kafka.release != '\0' ? kafka.release : "of unknown release", *kafka.release != '\0' ? " or later" : "",
               kafka.library);
    if (!kafka.transactions)
        doctor_say(doctor, DOCTOR_FAIL, "kafka",
                   "it is older than 2.5 and does not check who commits offsets in a transaction: upgrade it");
    if (kafka.brokers < 3)
        doctor_say(doctor, DOCTOR_WARN, "kafka",
                   "%d broker%s: what a lost disk takes with it is gone; three for production", (int)kafka.brokers,
                   kafka.brokers == 1 ? "" : "s");
    look_at_topics(doctor);
    if (doctor->topics)
        doctor_partitions(doctor, timeout_ms);
    look_at_workers(doctor, timeout_ms);
    return true;
}

/* ---- Redis ---- */

static void look_at_redis(struct doctor *doctor, int64_t timeout_ms)
{
    const struct settings *settings = doctor->worker != NULL ? doctor->worker : doctor->cmd->settings;
    struct look_redis redis;
    struct error error;
    if (!look_redis(settings->redis, settings->redis_username, settings->redis_password, timeout_ms, doctor->cmd->arena,
                    &redis, &error)) {
        doctor_say(doctor, DOCTOR_FAIL, "redis",
                   "%s; without it writes wait. Its address is `redis` in the settings, or $MYELIN_REDIS", error.text);
        return;
    }
    doctor_say(doctor, DOCTOR_OK, "redis", "%s at %s, %s, run_id %.12s, answers in %" PRId64 " us", redis.version,
               settings->redis, redis.role, redis.run_id, redis.ping_us);
    if (strcmp(redis.maxmemory_policy, "noeviction") != 0)
        doctor_say(
            doctor, DOCTOR_FAIL, "redis",
            "maxmemory-policy is %s: it may forget a write; set noeviction (CONFIG SET maxmemory-policy noeviction)",
            redis.maxmemory_policy);
    if (strcmp(redis.role, "master") != 0)
        doctor_say(doctor, DOCTOR_FAIL, "redis", "it is a %s: writes go to the master", redis.role);
    if (!redis.append_only)
        doctor_say(doctor, DOCTOR_WARN, "redis",
                   "no append-only file: a restart puts writes in flight in doubt; CONFIG SET appendonly yes");
    else if (strcmp(redis.fsync, "no") == 0)
        doctor_say(doctor, DOCTOR_WARN, "redis",
                   "appendfsync is no: a crash of the machine puts recent writes in doubt; everysec or always");
}

int cmd_doctor(struct cmd *cmd)
{
    int code;
    const char *worker_config = NULL;
    bool adopt = false, yes = false;
    const struct cmd_option options[] = {
        {"worker-config", "FILE", &worker_config, NULL,
         "the worker's settings; else config/worker.cfg, /etc/myelin/worker.cfg"},
        {"adopt", NULL, NULL, &adopt, "show what it takes to serve partitions that are not served"},
        {"yes", NULL, NULL, &yes, "with --adopt: do it"}};
    const struct cmd_syntax syntax = {.options = options, .options_count = 3, .arguments_max = 2, .help = help};
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    if (cmd->arguments_count == 1 || (!adopt && (yes || cmd->arguments_count > 0)))
        return cmd_fail(cmd, CMD_USAGE, "say: --adopt [TOPIC PARTITION] [--yes]");
    struct doctor doctor = {.cmd = cmd};
    int64_t timeout_ms = cmd_timeout(cmd, LOOK_TIMEOUT_MS);
    if (adopt)
        return cmd_settings(cmd, &code) ? doctor_adopt(&doctor, yes, timeout_ms) : code;
    if (look_at_settings(&doctor, worker_config)) {
        bool kafka = look_at_kafka(&doctor, timeout_ms);
        look_at_redis(&doctor, timeout_ms);
        if (kafka && doctor.topics)
            doctor_contracts(&doctor);
        doctor_models(&doctor, timeout_ms);
    }
    cmd_say(cmd, "%zu failed, %zu warnings", doctor.failures, doctor.warnings);
    settings_free(doctor.worker);
    return doctor.failures > 0 ? CMD_NO : CMD_OK;
}
