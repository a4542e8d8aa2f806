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

static void add_write(void *context)
{
    struct ledger_epoll *epoll = context;
    watch(epoll, epoll->watched | (uint32_t)EPOLLOUT);
}

static void delete_write(void *context)
{
    struct ledger_epoll *epoll = context;
    watch(epoll, epoll->watched & ~(uint32_t)EPOLLOUT);
}

static void clean_up(void *context)
{
    watch(context, 0);
}

void ledger_epoll_attach(struct ledger_epoll *epoll, redisAsyncContext *redis)
{
    epoll->fd = redis->c.fd;
    epoll->watched = 0;
    redis->ev.data = epoll;
    redis->ev.addRead = add_read;
    redis->ev.delRead = delete_read;
    redis->ev.addWrite = add_write;
    redis->ev.delWrite = delete_write;
    redis->ev.cleanup = clean_up;
}
