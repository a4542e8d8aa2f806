/* history.h: the facts of one run, read from `history`. */
#ifndef MYELIN_PRODUCER_HISTORY_H
#define MYELIN_PRODUCER_HISTORY_H

#include "producer/cmd.h"
#include "worker/core/fact.h"
#include "worker/io/reader.h"

struct history {
    struct cmd *cmd;
    struct str run;
    int32_t partition;
    int64_t offset;      /* of the latest fact */
    struct arena *arena; /* of the latest fact */
};

/* When the run's facts may begin: `since` (--since, or NULL), the time in a UUIDv7, or what `waiting` says. False: said, with
 * what to do; return *code. */
bool history_from(struct cmd *cmd, struct str run, const char *since, int64_t *from_ms, int *code);

/* Starts to read; `from_ms` may be READER_FROM_END: only what is written from now on. False: said; return *code. */
bool history_open(struct history *history, struct cmd *cmd, struct str run, int64_t from_ms, int *code);
void history_close(struct history *history);

/* The next fact of the run; its texts are valid until the next call. READER_END: all that was there at the start was read;
 * what comes later follows. READER_TIMEOUT after `timeout_ms` (0 = never) without a fact. READER_ERROR: said. */
enum reader_got history_next(struct history *history, int64_t timeout_ms, struct fact *fact, int *code);

#endif
