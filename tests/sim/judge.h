/* judge.h: reads what is committed, as anybody may, and says when a promise is broken (the numbers are those of worker/DESIGN.md). */
#ifndef MYELIN_SIM_JUDGE_H
#define MYELIN_SIM_JUDGE_H

#include "tests/sim/broker.h"
#include "worker/core/fact.h"
#include "worker/core/inbox.h"

/* A run, as history tells it. */
struct judged_run {
    struct judged_run *next;
    struct str id;
    int64_t facts; /* how many: the number of the next one */
    bool started, ended;
    bool refused; /* the brokers did not take something of it: it may end without a word */
    bool unasked; /* it ended before anybody asked for its write, and its reason says so */
    bool forgotten;
    bool waits; /* for a person, as the last fact says: */
    enum waits_for waits_for;
    struct str step, args_hash, key;
    int32_t visit;
    int64_t said_ms; /* when a person answered last */
};

void judge_open(void);
struct judged_run *judge_run(struct str id); /* made when it is not there */
struct judged_run *judge_runs(void);

/* ---- what is told ---- */
void judge_read(void); /* something was committed */
void judge_offset(enum topic topic, int32_t partition, const struct stored_offset *before,
                  const struct stored_offset *after);
void judge_refused(struct str run);
void judge_garbage(struct str value);                    /* it belongs into `dead` */
void judge_asked(struct str request_id, struct str run); /* wants one answer more */

/* ---- the end ---- */
bool judge_all_ended(void);
void judge_end(void); /* all is calm and nothing was left to do: is it so? */

#endif
