/*
 * steps.<pool> and inbox keep for ever what nobody deletes; so their owner deletes what is committed, from time to time (Kafka's
 * DeleteRecords, KIP-107). Nothing waits for it: it is asked for, and its answer is looked for in each turn.
 *
 * ▲ A log that begins above its committed offset is not served. So only what a commit that was confirmed is above of goes; nothing
 * while one is in doubt; and of that only what was committed a whole period ago already: a broker that loses its last
 * seconds with its machine may lose a committed offset, and what was deleted is gone in any case.
 */
#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/log_internal.h"

#define ASK_MS 10000     /* until a broker has answered */
#define REPLICAS_MS 5000 /* that it may wait for its replicas */

/* Of those that are ours and served, what is to go; notes what goes the next time. NULL: nothing. */
static rd_kafka_topic_partition_list_t *find(struct log *log)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < log->partitions_count; i++) {
        struct log_partition *partition = log->partitions[i];
        if (partition->stage != STAGE_SERVING)
            continue;
        if (partition->trim_to - partition->begin >= LOG_TRIM_RECORDS)
            rd_kafka_topic_partition_list_add(list, partition->of->name, partition->number)->offset =
                partition->trim_to;
        partition->trim_to = partition->base;
    }
    if (list->cnt > 0)
        return list;
    rd_kafka_topic_partition_list_destroy(list);
    return NULL;
}

static void ask(struct log *log, const rd_kafka_topic_partition_list_t *list)
{
    char text[256];
    rd_kafka_DeleteRecords_t *wanted = rd_kafka_DeleteRecords_new(list);
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(log->ruler, RD_KAFKA_ADMIN_OP_DELETERECORDS);
    rd_kafka_AdminOptions_set_request_timeout(options, ASK_MS, text, sizeof text);
    rd_kafka_AdminOptions_set_operation_timeout(options, REPLICAS_MS, text, sizeof text);
    rd_kafka_DeleteRecords(log->ruler, &wanted, 1, options, log->trim_queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_DeleteRecords_destroy(wanted);
    log->trim_asked = true;
}

/* Once, until it works again: the topics only grow meanwhile. */
static void complain(struct log *log, const char *topic, int32_t number, rd_kafka_resp_err_t code, const char *reason)
{
    const char *what = "it is tried again";
    if (log->trim_failed)
        return;
    log->trim_failed = true;
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED)
        what = "the workers' Kafka user needs the right to DELETE on steps.<pool> and inbox, or they grow for ever";
    else if (code == RD_KAFKA_RESP_ERR_POLICY_VIOLATION)
        what = "its cleanup.policy must be delete, or it grows for ever; see: myelin topics check";
    LOG_WARN("trim.failed", LOG_S("topic", topic), LOG_I("partition", number), LOG_S("error", rd_kafka_err2name(code)),
             LOG_S("reason", reason), LOG_S("what", what));
}

static void take_answer(struct log *log, rd_kafka_event_t *event)
{
    const rd_kafka_DeleteRecords_result_t *result = rd_kafka_event_DeleteRecords_result(event);
    rd_kafka_resp_err_t failed = rd_kafka_event_error(event);
    const rd_kafka_topic_partition_list_t *list = failed || result == NULL
                                                      ? NULL
                                                      : rd_kafka_DeleteRecords_result_offsets(result);
    int64_t records = 0;
    bool all = list != NULL;
    if (list == NULL)
        complain(log, "", -1, failed, rd_kafka_event_error_string(event));
    for (int i = 0; list != NULL && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *one = &list->elems[i];
        struct log_partition *partition = log_partition_find(log, one->topic, one->partition);
        all = all && !one->err;
        if (one->err) {
            complain(log, one->topic, one->partition, one->err, rd_kafka_err2str(one->err));
        } else if (partition != NULL && one->offset > partition->begin) {
            records += one->offset - partition->begin;
            partition->begin = one->offset;
        }
    }
    log->trim_failed = log->trim_failed && !all;
    if (records > 0)
        LOG_INFO("log.trimmed", LOG_I("partitions", list->cnt), LOG_I("offsets", records));
}

void log_trim_serve(struct log *log)
{
    rd_kafka_event_t *event = log->trim_asked ? rd_kafka_queue_poll(log->trim_queue, 0) : NULL;
    if (event != NULL) {
        log->trim_asked = false;
        take_answer(log, event);
        rd_kafka_event_destroy(event);
    }
    int64_t now_us = clock_mono_us();
    if (log->trim_asked || log->doubt != NULL || now_us < log->trim_due_us)
        return;
    log->trim_due_us = now_us + log->trim_every_ms * 1000;
    rd_kafka_topic_partition_list_t *list = find(log);
    if (list == NULL)
        return;
    ask(log, list);
    rd_kafka_topic_partition_list_destroy(list);
}
