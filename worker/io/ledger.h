/*
 * ledger.h: Redis: which calls were already made. Never the source of truth for a run.
 *
 * Writes (I4, I5): a record is reserved(fence, until) → done(result) | not_done, one Lua script each to reserve, complete and
 * take over. Reads: a lease (in flight by whom, until when, renewed while it runs), then the stored result for a while.
 * Asynchronous, on the loop thread; answers come as calls of the given function, also when Redis is gone.
 *
 * The time of a write. `before` is CLOCK_BOOTTIME before we asked, `at` is Redis' time when it reserved (so at >= before):
 *
 *   leaves      at the latest   before + timeout / 2                send_until_boot_ms; else it is not sent
 *   given up    at the latest   before + timeout                    io/caller: send_until_boot_ms + timeout / 2
 *   others act  not before      at + timeout + settle               until_ms, by Redis' clock
 *
 * So when somebody else looks, the request has been over, or given up by us, for `settle`, and the tool had at least
 * timeout / 2 + settle since it left. (An answer that waits for our memory is read later: its tool has acted.) What remains: a
 * tool that acts still later; Redis' clock stepping forward by more than `settle`; a pause of this process between its last look
 * at the clock and the first byte. Only a tool that honours keys closes these.
 */
#ifndef MYELIN_IO_LEDGER_H
#define MYELIN_IO_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

#define LEDGER_KEY_SIZE_MAX 64  /* of a call's key: text without NUL */
#define LEDGER_RUN_SIZE_MAX 128 /* of a run's id; of a longer one this much counts */

struct ledger;
struct ledger_slot;

struct ledger_settings {
    const char *address;  /* HOST:PORT */
    const char *password; /* or NULL; user in `username`, or NULL */
    const char *username;
    const char *name_space;
    const char *holder; /* who reserves and leases: SLOT:EPOCH, other for each life of the process */
    const char
        *slot; /* a lease of the same slot but another holder is our own dead self's: taken at once. NULL = neither
                             is known yet: ledger_name */
    int64_t settle_ms;    /* added to a write's timeout: default 1000 */
    int64_t read_keep_ms; /* how long a read's result is kept: default 24h */
    int64_t lease_ms;     /* of a read in flight; renewed at a third of it: default 5000 */
    int64_t reconnect_ms_max;
};

/* Starts to connect; never fails because Redis is down. `epoll_fd` is the loop's: the ledger registers its own sockets with
 * event.data.u64 = (uint64_t)tag << 32 | fd and wants ledger_ready for them. */
struct ledger *ledger_open(const struct ledger_settings *settings, int epoll_fd, uint32_t tag, struct error *error);
void ledger_close(struct ledger *ledger);
void ledger_ready(struct ledger *ledger, int fd, uint32_t epoll_events);
/* Timers: reconnects, lease renewals, polls of leased reads. Returns when it wants to be called again (clock_mono_us / 1000). */
int64_t ledger_tick(struct ledger *ledger, int64_t now_mono_ms);
void ledger_flush(struct ledger *ledger); /* sends what was asked for: the last thing before the loop sleeps */

/* What claims a slot for a worker whose settings name none: ledger_slot.h. */
struct ledger_slot *ledger_slot(struct ledger *ledger);
/* Slot and holder, before anything is asked for; copied. */
void ledger_name(struct ledger *ledger, const char *slot, const char *holder);

bool ledger_up(const struct ledger *ledger);
/* The incarnation of Redis as known now: a random value beside the keys and the server's run_id. "" while down. */
const char *ledger_incarnation(const struct ledger *ledger);
/* NULL = writes are allowed; else why not ("maxmemory-policy is allkeys-lru, must be noeviction", "Redis is not reachable"). */
const char *ledger_writes_refused(const struct ledger *ledger);

enum ledger_verdict {
    LEDGER_GO,      /* reserved or leased by us: make the call */
    LEDGER_STORED,  /* the result is known: do not make the call */
    LEDGER_DOUBT,   /* WRITE: another holder reserved it, or its record is lost: nobody acts before until_ms */
    LEDGER_DOWN,    /* Redis did not answer: a read goes on without it, a write must wait */
    LEDGER_REFUSED, /* COMPLETE: somebody took it over with a higher fence: the result is not ours to store */
};
struct ledger_answer {
    enum ledger_verdict verdict;
    struct str result;          /* STORED: as it was stored; valid during the call only */
    int64_t fence;              /* GO of a write */
    int64_t send_until_boot_ms; /* GO of a write: not sent after this (clock_boot_ms) */
    int64_t until_ms;           /* GO of a write, DOUBT: nobody else acts before; on this machine's wall clock */
    struct str reason;          /* DOUBT, DOWN, REFUSED; valid during the call only */
    int64_t begun, alone;       /* GO of ledger_count: the sums */
};
typedef void ledger_done(void *context, const struct ledger_answer *answer);

/* Every operation calls `done` exactly once, later, from ledger_ready or ledger_tick; the operation is gone then.
 * ledger_cancel makes it never come: what it may bring is given back. */
struct ledger_op;

/* A write's record belongs to `run`, and lives until ledger_forget: nothing expires under an open run.
 * suspect: an earlier owner may have started the call; `incarnation`: as the step event carries it. Suspect, another
 * incarnation and no result: DOUBT for a whole time, whatever else the record says. It may be that of a replica that lagged. */
struct ledger_op *ledger_reserve(struct ledger *ledger, struct str run, struct str key, int64_t timeout_ms,
                                 bool suspect, struct str incarnation, ledger_done *done, void *context);
/* A write in doubt whose time has passed: take it over with a higher fence. GO: it is ours, to probe or to send. STORED: it is
 * known now. DOUBT: wait (again) until until_ms, because the time has not passed on Redis' clock, or the record is lost. */
struct ledger_op *ledger_takeover(struct ledger *ledger, struct str run, struct str key, int64_t timeout_ms,
                                  ledger_done *done, void *context);
/* Stores the result of a write (`result`), or that it surely did not execute (STR_NONE). GO = stored, REFUSED = not ours any
 * more, DOWN = not known: do it again. Doing it again does no harm. A record that vanished is stored. */
struct ledger_op *ledger_complete(struct ledger *ledger, struct str run, struct str key, int64_t fence,
                                  struct str result, ledger_done *done, void *context);
/* A read: STORED, GO (leased), or, after having waited for another's lease, either. DOWN at once when Redis is. A GO is
 * renewed until ledger_store: call that however the read ends. */
struct ledger_op *ledger_lease(struct ledger *ledger, struct str key, ledger_done *done, void *context);
/* The read's result; not awaited. STR_NONE: it failed, give the lease back. */
void ledger_store(struct ledger *ledger, struct str key, struct str result);
/* Deletes the records of all writes of a run that is remembered no longer, as far as they are from before `before_ms` (wall clock,
 * with room for clocks that differ): a worker that was frozen may ask when a new run has the id. `fence` of GO: how many. GO or DOWN. */
struct ledger_op *ledger_forget(struct ledger *ledger, struct str run, int64_t before_ms, ledger_done *done,
                                void *context);
/* How often a step event was begun by a worker that did not get it done, and how often of these it was alone there: adds to both
 * (negative: takes back), and tells the sums. GO or DOWN. They are kept for a day after the last change. `key`: one an event. */
struct ledger_op *ledger_count(struct ledger *ledger, struct str key, int32_t begun, int32_t alone, ledger_done *done,
                               void *context);
void ledger_cancel(struct ledger_op *op);

/* Has Redis answered everything, also what nobody awaits? Closed before that, a result may never get there. */
bool ledger_idle(const struct ledger *ledger);

#endif
