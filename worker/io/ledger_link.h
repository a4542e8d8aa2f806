/*
 * ledger_link.h: the connection to Redis under the ledger: hiredis 0.14 on the loop's epoll, with what it leaves to its user:
 * timeouts, reconnects with back-off, and a look at who is at the other end. Knows scripts, not what they mean.
 */
#ifndef MYELIN_IO_LEDGER_LINK_H
#define MYELIN_IO_LEDGER_LINK_H

#include <hiredis/hiredis.h>

#include "worker/base/bytes.h"
#include "worker/io/ledger.h"
#include "worker/io/ledger_scripts.h"

/* I7 */
#define LEDGER_COMMAND_TIMEOUT_MS 3000  /* an older command without an answer: the connection is given up */
#define LEDGER_GREETING_TIMEOUT_MS 3000 /* from connect() to ready */
#define LEDGER_ARGUMENTS_MAX 160        /* of one command */

struct ledger_link;

struct ledger_link *ledger_link_open(const struct ledger_settings *settings, int epoll_fd, uint32_t tag,
                                     struct error *error);
/* Commands in flight end without an answer: `done` is called with NULL, from within. */
void ledger_link_close(struct ledger_link *link);

/* Wakes the loop, so that it calls ledger_tick again before it sleeps. */
void ledger_link_wake(struct ledger_link *link);
void ledger_link_ready(struct ledger_link *link, int fd, uint32_t epoll_events);
int64_t ledger_link_tick(struct ledger_link *link, int64_t now_mono_ms);
void ledger_link_flush(struct ledger_link *link);

bool ledger_link_up(const struct ledger_link *link);
bool ledger_link_idle(const struct ledger_link *link);                  /* no command waits for its answer */
const char *ledger_link_reason(const struct ledger_link *link);         /* why it is not up */
const char *ledger_link_incarnation(const struct ledger_link *link);    /* "" while down */
const char *ledger_link_run_id(const struct ledger_link *link);         /* another one in each life of the server */
const char *ledger_link_writes_refused(const struct ledger_link *link); /* NULL = allowed */

/* The value beside the keys, as a script has just seen it. */
void ledger_link_saw(struct ledger_link *link, struct str value);

/* What a suspect event's incarnation is to a script: the value to compare with what stands beside the keys, or "-", which
 * equals none, when it is another server's or not known. Valid until the next call. */
const char *ledger_link_known(struct ledger_link *link, struct str incarnation);

/* 32 hex digits of the system's random source; valid until the next call. */
const char *ledger_link_random(struct ledger_link *link);

/* `reply` NULL: the connection was lost, nobody knows whether the script ran. Else an error reply, or what it returned; it is
 * valid during the call only. Called from ledger_link_ready, _tick and _close, never from ledger_link_call. */
typedef void ledger_link_done(void *context, const redisReply *reply);

/* Runs a script; copies everything. False: not up, nothing was sent and `done` is not called. */
bool ledger_link_call(struct ledger_link *link, enum ledger_script script, const struct str *keys, size_t keys_count,
                      const struct str *arguments, size_t arguments_count, ledger_link_done *done, void *context);

#endif
