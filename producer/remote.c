#include "producer/remote.h"

#include "worker/io/topics.h"

#define SEND_TIMEOUT_MS 10000
#define RECORD_SIZE_MAX ((size_t)1 << 20)
#define FOR_EVER_MS (INT64_C(3600) * 1000)

struct reader *remote_reader(struct cmd *cmd, int *code)
{
    struct error error;
    if (!cmd_settings(cmd, code))
        return NULL;
    if (cmd->reader == NULL)
        cmd->reader = reader_open(cmd->settings->kafka, cmd->settings->kafka_count, &error);
    if (cmd->reader == NULL)
        *code = cmd_error(cmd, CMD_UNAVAILABLE, &error);
    return cmd->reader;
}

struct writer *remote_writer(struct cmd *cmd, int *code)
{
    struct error error;
    if (!cmd_settings(cmd, code))
        return NULL;
    if (cmd->writer == NULL)
        cmd->writer = writer_open(cmd->settings->kafka, cmd->settings->kafka_count, &error);
    if (cmd->writer == NULL)
        *code = cmd_error(cmd, CMD_UNAVAILABLE, &error);
    return cmd->writer;
}

void remote_close(struct cmd *cmd)
{
    reader_close(cmd->reader);
    cmd->reader = NULL;
    if (cmd->writer != NULL)
        writer_close(cmd->writer);
    cmd->writer = NULL;
}

const char *remote_topic(struct cmd *cmd, const char *what)
{
    return topics_name(cmd->arena, cmd->settings->name_space.data, what, NULL).data;
}

bool remote_send(struct cmd *cmd, const char *what, int32_t partition, struct str key, enum record_type type,
                 const void *object, int *code)
{
    struct writer *writer = remote_writer(cmd, code);
    if (writer == NULL)
        return false;
    struct buf bytes;
    struct error error;
    buf_init(&bytes, RECORD_SIZE_MAX);
    bool sent = record_encode(type, object, &bytes, &error);
    *code = CMD_DATA;
    if (sent) {
        *code = CMD_UNAVAILABLE;
        sent = writer_put(writer, remote_topic(cmd, what), partition, key, buf_str(&bytes),
                          cmd_timeout(cmd, SEND_TIMEOUT_MS), &error);
    }
    buf_free(&bytes);
    if (!sent)
        cmd_error(cmd, (enum cmd_exit) * code, &error);
    return sent;
}

bool remote_start(struct cmd *cmd, const char *what, int32_t partition, int64_t from_ms, int *code)
{
    struct error error;
    struct reader *reader = remote_reader(cmd, code);
    if (reader == NULL)
        return false;
    if (!reader_start(reader, remote_topic(cmd, what), partition, from_ms, &error)) {
        *code = cmd_error(cmd, CMD_UNAVAILABLE, &error);
        return false;
    }
    return true;
}

int32_t remote_partition(struct cmd *cmd, const char *what, struct str run, int *code)
{
    struct error error;
    struct reader *reader = remote_reader(cmd, code);
    if (reader == NULL)
        return -1;
    int32_t partition = reader_partition_of(reader, remote_topic(cmd, what), run, &error);
    if (partition < 0)
        *code = cmd_error(cmd, CMD_UNAVAILABLE, &error);
    return partition;
}

enum reader_got remote_next(struct cmd *cmd, int64_t timeout_ms, struct reader_record *record, int *code)
{
    struct error error;
    enum reader_got got = reader_next(cmd->reader, timeout_ms > 0 ? timeout_ms : FOR_EVER_MS, record, &error);
    if (got == READER_ERROR)
        *code = cmd_error(cmd, CMD_UNAVAILABLE, &error);
    return got;
}
