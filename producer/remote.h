/* remote.h: Kafka for the commands: one reader and one writer a command, opened when they are first needed. */
#ifndef MYELIN_PRODUCER_REMOTE_H
#define MYELIN_PRODUCER_REMOTE_H

#include "producer/cmd.h"
#include "worker/io/reader.h"
#include "worker/io/writer.h"
#include "worker/record.h"

/* What is not there yet is opened, the settings too. NULL: said; return *code. */
struct reader *remote_reader(struct cmd *cmd, int *code);
struct writer *remote_writer(struct cmd *cmd, int *code);
void remote_close(struct cmd *cmd);

/* NAMESPACE.WHAT; needs the settings. In the arena. */
const char *remote_topic(struct cmd *cmd, const char *what);

/* Encodes and sends one record; `partition` -1: by the key. False: said; return *code. */
bool remote_send(struct cmd *cmd, const char *what, int32_t partition, struct str key, enum record_type type,
                 const void *object, int *code);

/* Starts to read. False: said; return *code. */
bool remote_start(struct cmd *cmd, const char *what, int32_t partition, int64_t from_ms, int *code);

/* The partition of `what` that the run's records are in, or -1: said. */
int32_t remote_partition(struct cmd *cmd, const char *what, struct str run, int *code);

/* As reader_next; trouble is said, and *code set. Without a `timeout_ms` it may wait for ever (0). */
enum reader_got remote_next(struct cmd *cmd, int64_t timeout_ms, struct reader_record *record, int *code);

#endif
