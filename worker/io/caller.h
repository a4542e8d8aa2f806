/*
 * caller.h: HTTP calls, by libcurl multi on the loop's epoll. Knows nothing of models and tools.
 *
 * Verified TLS, http and https only, no redirects, bounded answers. A write goes out on a fresh HTTP/1.1 connection (libcurl
 * silently sends a request again when a reused connection turns out dead, or an HTTP/2 stream was refused), and not after
 * its limit: checked right before the request leaves (CURLOPT_PREREQFUNCTION), which also refuses a second sending. It is
 * given up half its timeout after that limit at the latest: ledger.h has the sum.
 *
 * An answer's memory is taken from the budget (base/budget.h) as it comes in. While there is none its socket is not read, its
 * server waits (as TCP makes it), and its timeout stands still; the one that waits longest goes on first.
 *
 * Proxies are those of the environment (http_proxy, https_proxy, no_proxy), as for every program on the machine; but a
 * loopback address is always called directly. SIGPIPE is ignored from caller_open on.
 */
#ifndef MYELIN_IO_CALLER_H
#define MYELIN_IO_CALLER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"
#include "worker/base/http.h"

/* The start of an answer, as much as libcurl reads at once, is part of what a call costs whatever its size. What is more is taken
 * from the budget before it is read: all of it when its length was told, else twice as much each time. (A server that tells a
 * length and sends little takes nothing.) */
#define CALLER_FREE_SIZE ((size_t)16 << 10)

struct caller;

struct caller_settings {
    int32_t connections_max; /* in all; default 1024 */
    int32_t
        connections_per_host_max; /* default 256; over 511 it is held by calls that the caller is given, not by itself */
    const char *ca_file;          /* NULL = the system's */
    int64_t connect_timeout_ms;   /* default 5000 */
};

/* Registers its sockets with `epoll_fd`, with event.data.u64 = (uint64_t)tag << 32 | fd. */
struct caller *caller_open(const struct caller_settings *settings, int epoll_fd, uint32_t tag, struct error *error);
void caller_close(struct caller *caller); /* calls in flight end without an answer */
void caller_ready(struct caller *caller, int fd, uint32_t epoll_events);
void caller_awake(struct caller *caller); /* the loop sleeps no more: it will call caller_tick before it does again */
int64_t caller_tick(struct caller *caller, int64_t now_mono_ms); /* when to call again (mono ms); INT64_MAX = never */

typedef void caller_done(void *context, const struct http_answer *answer);

/* Copies the request. Calls `done` exactly once, from caller_ready or caller_tick, never from within; caller_cancel makes it
 * never come. The answer is valid during the call only. NULL with `error` when the request cannot even be formed
 * (ERROR_POISON), or libcurl has no memory (ERROR_FATAL). */
struct caller_call;
struct caller_call *caller_start(struct caller *caller, const struct http_request *request, caller_done *done,
                                 void *context, struct error *error);
void caller_cancel(struct caller_call *call); /* NULL is fine; what was sent stays sent */
int32_t caller_in_flight(const struct caller *caller);
int32_t caller_paused(const struct caller *caller); /* of them, those whose answer waits for memory */

#endif
