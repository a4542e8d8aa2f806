/*
 * admin.h: a small HTTP server on the loop's epoll, for who operates a worker: GET only, a few pages, bounded.
 *
 * No thread of its own: it answers while the loop turns, so that an answer says that it does. Everything is read only and
 * without authentication: give it an address that only those reach who may see numbers.
 */
#ifndef MYELIN_IO_ADMIN_H
#define MYELIN_IO_ADMIN_H

#include "worker/base/bytes.h"
#include "worker/base/error.h"

struct admin;

struct admin_page {
    int status; /* 404 until somebody says otherwise */
    const char *type;
    struct buf body; /* up to ADMIN_BODY_MAX; over it the answer is a 500 */
};

#define ADMIN_BODY_MAX ((size_t)4 << 20) /* I7 */

/* Fills in the page of that path (without its query). Called from admin_ready and admin_tick only. */
typedef void admin_serve(void *context, const char *path, struct admin_page *page);

/* Listens at `address`, IP:PORT ("127.0.0.1:9464", "[::1]:0"); port 0 = a free one. When the port is taken, by another
 * worker on this machine as a rule, it takes a free one and says so in the log: numbers never keep a worker from its work.
 * The log says where it listens (event=admin.listens). NULL with `error` (ERROR_FATAL): that address is not this machine's,
 * or not allowed. `epoll_fd` is the loop's; wants admin_ready for event.data.u64 = (uint64_t)tag << 32 | fd. */
struct admin *admin_open(const char *address, int epoll_fd, uint32_t tag, admin_serve *serve, void *context,
                         struct error *error);
void admin_close(struct admin *admin); /* NULL is fine */
void admin_ready(struct admin *admin);
/* When to call again (mono ms); INT64_MAX = never. NULL is fine. */
int64_t admin_tick(struct admin *admin, int64_t now_mono_ms);
int32_t admin_port(const struct admin *admin);

#endif
