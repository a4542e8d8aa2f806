/* show.h: a run's state in words. */
#ifndef MYELIN_PRODUCER_SHOW_H
#define MYELIN_PRODUCER_SHOW_H

#include "producer/cmd.h"
#include "producer/waiting.h"
#include "worker/contract/contract.h"

/* The record that the run goes on from after a crash. */
struct show_resume {
    const char *topic;
    int32_t partition;
    int64_t offset;
    bool known;
};

/* `state` is what fold_json makes; `contract` may be NULL (then less is said of what may be repeated). */
void show_state(struct cmd *cmd, const json_t *state, const struct contract *contract,
                const struct show_resume *resume);

#endif
