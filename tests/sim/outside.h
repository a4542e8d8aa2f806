/*
 * outside.h: the tools and the model at the other end of HTTP, and what became of each request. They write down what they executed,
 * and a worker that is dead or frozen does not keep them from it.
 */
#ifndef MYELIN_SIM_OUTSIDE_H
#define MYELIN_SIM_OUTSIDE_H

#include "worker/base/http.h"

/* A request that has left. */
struct exchange {
    struct exchange *next;
    struct str tool, key, run, body;
    bool write, probe, honours_keys;
    int64_t executes_us; /* INT64_MAX: never */
    int64_t answers_us;  /* INT64_MAX: never */
    int32_t status;
    struct str answer;
};

void outside_open(void);
void outside_serve(void); /* what is due is executed */
struct str outside_words(
    void); /* a text, now and then so long that it is stored by itself; in the arena of the world */

/* Leaves now. Copies. NULL: no connection. */
struct exchange *outside_send(const struct http_request *request);

/* ---- for who judges ---- */
int outside_executed(struct str key); /* how often */
bool outside_settled(struct str key); /* nothing under this key is on its way */
/* Calls `look` for each write that was executed. */
void outside_each(void (*look)(struct str tool, struct str key, struct str run));

#endif
