/* uuid.h: run ids. Ours are UUIDv7 (RFC 9562): they begin with their time, so that a run is found in `history` by its id. */
#ifndef MYELIN_PRODUCER_UUID_H
#define MYELIN_PRODUCER_UUID_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"

#define UUID_RUN_ID_SAYS "it is of letters, digits, . _ -, at most 128"

struct str uuid_new(struct arena *arena, int64_t now_ms);
int64_t uuid_time_ms(struct str id); /* -1 = no whole UUIDv7 */
bool uuid_is_run_id(struct str id);  /* [A-Za-z0-9._-]{1,128}: what a run may be called */

#endif
