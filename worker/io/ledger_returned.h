/* ledger_returned.h: what the scripts return, see ledger_scripts.h. A part of the ledger. */
#ifndef MYELIN_IO_LEDGER_RETURNED_H
#define MYELIN_IO_LEDGER_RETURNED_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/base/bytes.h"

/* Texts are the reply's. */
struct ledger_returned {
    struct str verdict, incarnation, text;
    int64_t fence, wait_ms;
};

/* False: the connection was lost (NULL), an error, or nothing that a script of ours returns. */
bool ledger_returned_read(const redisReply *reply, struct ledger_returned *returned);

#endif
