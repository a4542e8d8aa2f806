/* myelin topics create | check */
#include "worker/io/topics.h"
#include "producer/commands.h"
#include "producer/control.h"
#include "worker/io/look.h"

#define BROKERS_TIMEOUT_MS 10000

struct telling {
    const struct cmd *cmd;
    size_t problems;
};

static void tell(void *context, const char *topic, const char *text, bool problem)
{
    struct telling *telling = context;
    const struct cmd *cmd = telling->cmd;
    telling->problems += problem;
    cmd_say(cmd, "%s %s: %s", problem ? cmd_painted(cmd, CMD_RED, "FAIL") : cmd_painted(cmd, CMD_GREEN, "ok  "), topic,
            text);
    cmd_json(cmd, json_pack("{s:s, s:s, s:b}", "topic", topic, "text", text, "problem", (int)problem));
}

static bool plan_topics(struct cmd *cmd, struct topics_plan *plan, int *code)
{
    if (!cmd_settings(cmd, code))
        return false;
    const struct settings *settings = cmd->settings;
    *plan = (struct topics_plan){
        .name_space = settings->name_space.data,
        .properties = settings->kafka,
        .properties_count = settings->kafka_count,
        .pools = settings->pools,
        .pools_count = settings->pools_count,
        .steps_partitions = settings->steps_partitions,
        .inbox_partitions = settings->inbox_partitions,
        .history_partitions = settings->history_partitions,
        .replication = settings->replication,
    };
    if (plan->replication > 0)
        return true;
    struct look_kafka kafka;
    struct error error;
    if (!look_kafka(settings->kafka, settings->kafka_count, cmd_timeout(cmd, BROKERS_TIMEOUT_MS), cmd->arena, &kafka,
                    &error)) {
        *code = cmd_error(cmd, CMD_UNAVAILABLE, &error);
        return false;
    }
    plan->replication = kafka.brokers >= 3 ? 3 : 1;
    return true;
}

int cmd_topics_create(struct cmd *cmd)
{
    int code;
    const struct cmd_syntax syntax = {
        .help =
            "Makes the topics of the namespace that are missing, with the partitions that the settings say, commits the first\n"
            "offset of each, and publishes the schemas. What is there already is not changed: it may be run again.\n\n"
            "  myelin topics create\n"
            "  MYELIN_NAMESPACE=demo myelin topics create",
    };
    struct telling telling = {.cmd = cmd};
    struct topics_plan plan;
    struct error error;
    if (!cmd_parse(cmd, &syntax, &code) || !plan_topics(cmd, &plan, &code))
        return code;
    if (!topics_create(&plan, tell, &telling, &error))
        return cmd_error(cmd, telling.problems > 0 ? CMD_NO : CMD_UNAVAILABLE, &error);
    const struct control *control = control_get(cmd, &code);
    int schemas = control != NULL ? control_publish_schemas(cmd, control, &code) : -1;
    if (schemas < 0)
        return code;
    tell(&telling, "schemas", schemas > 0 ? arena_printf(cmd->arena, "%d published", schemas).data : "are there",
         false);
    return CMD_OK;
}

int cmd_topics_check(struct cmd *cmd)
{
    int code;
    const struct cmd_syntax syntax = {
        .help = "Says of each topic of the namespace whether it is as a worker needs it. Changes nothing.\n\n"
                "  myelin topics check",
    };
    struct telling telling = {.cmd = cmd};
    struct topics_plan plan;
    struct error error;
    if (!cmd_parse(cmd, &syntax, &code) || !plan_topics(cmd, &plan, &code))
        return code;
    if (topics_check(&plan, tell, &telling, &error)) {
        tell(&telling, cmd->settings->name_space.data, "all topics are as a worker needs them", false);
        return CMD_OK;
    }
    return cmd_error(cmd, telling.problems > 0 ? CMD_NO : CMD_UNAVAILABLE, &error);
}
