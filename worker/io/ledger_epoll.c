#include "worker/io/ledger_epoll.h"

#include <sys/epoll.h>

static void watch(struct ledger_epoll *epoll, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)epoll->tag << 32 | (uint32_t)epoll->fd};
    int action = epoll->watched == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

    if (events == epoll->watched)
        return;
    (void)epoll_ctl(epoll->epoll_fd, action, epoll->fd,
                    &event); /* fails only for want of memory: then a timeout ends it */
    epoll->watched = events;
}

static void add_read(void *context)
{
    struct ledger_epoll *epoll = context;
    watch(epoll, epoll->watched | (uint32_t)EPOLLIN);
}

static void delete_read(void *context)
{
    struct ledger_epoll *epoll = context;
    watch(epoll, epoll->watched & ~(uint32_t)EPOLLIN);
}

/* hiredis asks at each command. All commands of a turn go out together, without a wait for the socket: ledger_epoll_flush. */
static void add_write(void *context)
{
    struct ledger_epoll *epoll = context;
    epoll->wants_write = true;
}

static void delete_write(void *context)
{
    struct ledger_epoll *epoll = context;
    epoll->wants_write = false;
    watch(epoll, epoll->watched & ~(uint32_t)EPOLLOUT);
}

static void clean_up(void *context)
{
    struct ledger_epoll *epoll = context;
    epoll->wants_write = false;
    watch(epoll, 0);
}

void ledger_epoll_attach(struct ledger_epoll *epoll, redisAsyncContext *redis)
{
    epoll->fd = redis->c.fd;
    epoll->watched = 0;
    epoll->wants_write = false;
    redis->ev.data = epoll;
    redis->ev.addRead = add_read;
    redis->ev.delRead = delete_read;
    redis->ev.addWrite = add_write;
    redis->ev.delWrite = delete_write;
    redis->ev.cleanup = clean_up;
}

void ledger_epoll_flush(struct ledger_epoll *epoll, redisAsyncContext *redis)
{
    if (epoll->wants_write && (redis->c.flags & REDIS_CONNECTED) != 0 && (epoll->watched & EPOLLOUT) == 0)
        redisAsyncHandleWrite(redis);
    if (epoll->wants_write)
        watch(epoll, epoll->watched | (uint32_t)EPOLLOUT);
}
