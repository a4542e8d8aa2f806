/* ledger_epoll.h: hiredis' event hooks on an epoll. A part of the ledger. */
#ifndef MYELIN_IO_LEDGER_EPOLL_H
#define MYELIN_IO_LEDGER_EPOLL_H

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

struct ledger_epoll {
    int epoll_fd, fd;
    uint32_t tag;     /* event.data.u64 = (uint64_t)tag << 32 | fd */
    uint32_t watched; /* events of fd; 0 = not registered */
    bool wants_write; /* hiredis has something to send */
};

/* Hooks a context that has just been made; `epoll` must live as long as it does. hiredis takes the socket out again itself. */
void ledger_epoll_attach(struct ledger_epoll *epoll, redisAsyncContext *redis);

/* Sends what there is to send, in one go; only what the socket does not take waits for it. May free `redis`. To be called
 * before epoll_wait. */
void ledger_epoll_flush(struct ledger_epoll *epoll, redisAsyncContext *redis);

#endif
