/* follow.h: watching a run; `run --follow` uses it too. */
#ifndef MYELIN_PRODUCER_FOLLOW_H
#define MYELIN_PRODUCER_FOLLOW_H

#include "producer/cmd.h"

/* Tells the run's facts from `from_ms` on (0: find out) until it ends, or waits for a person when `until_waiting`. Returns
 * the exit code by how it ended. */
int follow_run(struct cmd *cmd, struct str run, int64_t from_ms, bool until_waiting);

#endif
