#include "worker/io/adopt.h"

#include <inttypes.h>
#include <string.h>

#include "worker/io/kafka_config.h"
#include "worker/io/topics.h"

bool adopt_check(const struct adopt_offsets *offsets, struct offset_meta *meta, struct error *error)
{
    int64_t committed = offsets->committed;
    if (committed < 0)
        return error_set(
            error, ERROR_FATAL,
            "it has no committed offset; run: myelin topics create, if it is new; else: myelin doctor --adopt");
    if (!offset_meta_read(offsets->metadata, committed, meta, error))
        return error_wrap(error, "committed offset %" PRId64, committed);
    if (offsets->ordered && meta->done.span > 0)
        return error_set(error, ERROR_FATAL,
                         "its committed offset %" PRId64 " carries a map, and this version commits an inbox in order: "
                         "upgrade the worker",
                         committed);
    if (offsets->begin > committed)
        return error_set(error, ERROR_FATAL,
                         "records %" PRId64 " to %" PRId64
                         " are gone and were not processed; look, then: myelin doctor --adopt",
                         committed, offsets->begin - 1);
    if (offsets->end < committed)
        return error_set(error, ERROR_FATAL,
                         "its committed offset %" PRId64 " lies behind its end %" PRId64
                         ": the topic was made anew; look, then: myelin doctor --adopt",
                         committed, offsets->end);
    return true;
}

/* ---- asking ---- */

static rd_kafka_t *open_client(const struct adopt_place *place, struct error *error)
{
    const struct kafka_property own[] = {{"group.id", place->name_space},
                                         {"isolation.level", "read_committed"},
                                         {"enable.auto.commit", "false"},
                                         {NULL, NULL}};
    return kafka_client(RD_KAFKA_CONSUMER, NULL, place->properties, place->properties_count, own, error);
}

static void add(rd_kafka_topic_partition_list_t *list, const struct rd_kafka_metadata *metadata, const char *topic)
{
    int32_t partitions = kafka_partitions(metadata, topic);
    if (partitions > 0)
        rd_kafka_topic_partition_list_add_range(list, topic, 0, partitions - 1);
}

/* The offset of an element: the committed one. */
static bool ask_committed(const struct adopt_place *place, rd_kafka_t *client, rd_kafka_topic_partition_list_t *list,
                          struct error *error)
{
    rd_kafka_resp_err_t failed = rd_kafka_committed(client, list, place->timeout_ms);
    for (int i = 0; i < list->cnt && !failed; i++)
        failed = list->elems[i].err;
    return !failed || error_set(error, ERROR_RETRY, "cannot read the committed offsets of group %s: %s",
                                place->name_space, rd_kafka_err2str(failed));
}

/* What can be read again is: the committed offset when it is in the log, else where the log begins. */
static void judge(const rd_kafka_topic_partition_t *one, struct adopt_offsets offsets, struct arena *arena,
                  struct adopt_partition *found, size_t *count)
{
    struct offset_meta meta;
    struct error error;
    offsets.committed = one->offset;
    offsets.metadata = (struct str){one->metadata, one->metadata_size};
    if (adopt_check(&offsets, &meta, &error))
        return;
    offsets.metadata = STR_NONE;
    bool in_log = offsets.committed >= offsets.begin && offsets.committed <= offsets.end;
    found[(*count)++] = (struct adopt_partition){.topic = arena_str(arena, str_of(one->topic)).data,
                                                 .partition = one->partition,
                                                 .offsets = offsets,
                                                 .to = in_log ? offsets.committed : offsets.begin,
                                                 .why = arena_str(arena, str_of(error.text)).data};
}

bool adopt_find(const struct adopt_place *place, struct arena *arena, struct adopt_partition **found, size_t *count,
                struct error *error)
{
    rd_kafka_t *client = open_client(place, error);
    rd_kafka_t *ruler = client != NULL ? kafka_ruler(place->properties, place->properties_count, error) : NULL;
    const struct rd_kafka_metadata *metadata = ruler != NULL ? kafka_metadata(client, place->timeout_ms, error) : NULL;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
    const char *inbox = topics_name(arena, place->name_space, "inbox", NULL).data;
    *count = 0;
    for (size_t i = 0; metadata != NULL && i < place->pools_count; i++)
        add(list, metadata, topics_name(arena, place->name_space, "steps", place->pools[i]).data);
    if (metadata != NULL)
        add(list, metadata, inbox);
    rd_kafka_topic_partition_list_t *begin = rd_kafka_topic_partition_list_copy(list),
                                    *end = rd_kafka_topic_partition_list_copy(list);
    bool ok = metadata != NULL &&
              (list->cnt == 0 || (ask_committed(place, client, list, error) &&
                                  kafka_watermarks(ruler, begin, KAFKA_BEGIN, place->timeout_ms, error) &&
                                  kafka_watermarks(ruler, end, KAFKA_END, place->timeout_ms, error)));
    *found = ARENA_ARRAY(arena, (size_t)list->cnt + 1, struct adopt_partition);
    for (int i = 0; ok && i < list->cnt; i++) {
        struct adopt_offsets offsets = {.begin = begin->elems[i].offset,
                                        .end = end->elems[i].offset,
                                        .ordered = strcmp(list->elems[i].topic, inbox) == 0};
        judge(&list->elems[i], offsets, arena, *found, count);
    }
    rd_kafka_topic_partition_list_destroy(begin);
    rd_kafka_topic_partition_list_destroy(end);
    rd_kafka_topic_partition_list_destroy(list);
    if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    if (ruler != NULL)
        rd_kafka_destroy(ruler);
    if (client != NULL)
        rd_kafka_destroy(client);
    return ok;
}

bool adopt_commit(const struct adopt_place *place, const struct adopt_partition *partitions, size_t count,
                  struct error *error)
{
    rd_kafka_t *client = open_client(place, error);
    if (client == NULL)
        return false;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
    for (size_t i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, partitions[i].topic, partitions[i].partition)->offset =
            partitions[i].to;
    rd_kafka_resp_err_t failed = rd_kafka_commit(client, list, 0);
    for (int i = 0; i < list->cnt && !failed; i++)
        failed = list->elems[i].err;
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(client);
    if (failed == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID || failed == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION)
        return error_set(error, ERROR_FATAL, "the group %s has members: stop all workers first", place->name_space);
    return !failed ||
           error_set(error, ERROR_RETRY, "cannot commit for group %s: %s", place->name_space, rd_kafka_err2str(failed));
}
