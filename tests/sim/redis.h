/* redis.h: a Redis that runs the ledger's scripts (worker/io/ledger_scripts.c), each in one go, and that forgets. */
#ifndef MYELIN_SIM_REDIS_H
#define MYELIN_SIM_REDIS_H

#include <hiredis/hiredis.h>

#include "worker/base/bytes.h"
#include "worker/io/ledger_scripts.h"

#define REDIS_TEXTS_MAX 160

/* A script and what it is given. */
struct redis_command {
    enum ledger_script script;
    struct str keys[REDIS_TEXTS_MAX], arguments[8];
    size_t keys_count;
};

/* What it returns: in the world's arena. */
const redisReply *redis_run(const struct redis_command *command);

/* ledger_link.c: the commands that have got here are run, in order, also those of the dead. */
void redis_arrivals_open(void);
void redis_arrivals(void);

void redis_open(void);
bool redis_reachable(void);
const char *redis_run_id(void); /* another one in each life of the server */

/* ---- trouble ---- */
void redis_serve(void); /* now and then: goes away, comes back, is wiped, fails over to a replica that lags */
void redis_heal(void);

/* Was the result of this write ever stored, whatever was forgotten since? */
bool redis_was_done(struct str name);
/* A change of this count was lost on the way, or was forgotten. */
void redis_lose_count(struct str name);
int redis_lost_counts(struct str name);

#endif
