/* ask.h: a request to the workers and their answer: a record for `inbox`, then RequestAnswered in `history`. */
#ifndef MYELIN_PRODUCER_ASK_H
#define MYELIN_PRODUCER_ASK_H

#include "producer/cmd.h"
#include "worker/record.h"

struct ask_answer {
    bool accepted;
    struct str reason;
    int64_t answered_at_ms;
};

/* Sends `object` and waits for the answer to `request_id` until the deadline (--timeout, else 30 s). False: said (nobody
 * answered, Kafka cannot be reached); return *code. */
bool ask(struct cmd *cmd, struct str run, struct str request_id, enum record_type type, const void *object,
         struct ask_answer *answer, int *code);

#endif
