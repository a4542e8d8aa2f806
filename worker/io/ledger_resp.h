/* ledger_resp.h: commands as Redis reads them (RESP2: "Redis serialization protocol specification"). A part of the ledger. */
#ifndef MYELIN_IO_LEDGER_RESP_H
#define MYELIN_IO_LEDGER_RESP_H

#include "worker/base/bytes.h"

#define LEDGER_RESP_HEAD_SIZE 128 /* at most, of a head by a script's hash, and a count behind it */

/* A command of `count` words, and its first two: EVAL or EVALSHA, and the script or its hash. */
void ledger_resp_head(struct buf *out, size_t count, const char *word, const char *script);
void ledger_resp_bulks(struct buf *out, const struct str *texts, size_t count);
size_t ledger_resp_size(const struct str *texts, size_t count); /* at most, of these as bulks */

#endif
