/* By libmicrohttpd, whose own epoll is one descriptor of the loop's. */
#include "worker/io/admin.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/base/mem.h"

/* I7 */
#define CONNECTIONS_MAX 32
#define CONNECTION_TIMEOUT_S 5u
#define CONNECTION_MEMORY_MAX ((size_t)16 << 10) /* of a request's head */
#define BACKLOG 64

struct admin {
    struct MHD_Daemon *daemon;
    admin_serve *serve;
    void *context;
    int epoll_fd, fd; /* fd: libmicrohttpd's own epoll */
    int32_t port;
};

/* ---- listening ---- */

/* The address, as struct addrinfo to be freed; NULL with `error`. */
static struct addrinfo *resolve(const char *address, struct error *error)
{
    char host[64] = "";
    const char *colon = strrchr(address, ':');
    size_t size = colon != NULL ? (size_t)(colon - address) : 0;
    bool bracketed = size > 2 && address[0] == '[' && address[size - 1] == ']';
    const char *from = bracketed ? address + 1 : address;
    size -= bracketed ? 2 : 0;
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (size > 0 && size < sizeof(host)) {
        memcpy(host, from, size);
        if (getaddrinfo(host, colon + 1, &hints, &found) == 0)
            return found;
    }
    error_set(error, ERROR_FATAL, "admin = \"%s\": must be IP:PORT", address);
    return NULL;
}

/* A listening socket, or -1 with errno. */
static int listen_at(const struct sockaddr *address, socklen_t size)
{
    int yes = 1;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    /* A port whose last connections still linger is free to a worker that was restarted. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(fd, address, size) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static int32_t port_of(int fd)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof(bound);
    char port[8] = "";
    if (getsockname(fd, (struct sockaddr *)&bound, &size) == 0)
        (void)getnameinfo((struct sockaddr *)&bound, size, NULL, 0, port, sizeof(port), NI_NUMERICSERV);
    return (int32_t)strtol(port, NULL, 10);
}

/* The same address with port 0. Both kinds of address hold the port in the same place (RFC 3493). */
static void any_port(struct sockaddr *address)
{
    in_port_t none = 0;
    memcpy(address->sa_data, &none, sizeof(none));
}

static int open_socket(const char *address, struct error *error)
{
    struct addrinfo *found = resolve(address, error);
    if (found == NULL)
        return -1;
    int fd = listen_at(found->ai_addr, found->ai_addrlen);
    if (fd < 0 && errno == EADDRINUSE) {
        any_port(found->ai_addr);
        fd = listen_at(found->ai_addr, found->ai_addrlen);
        if (fd >= 0)
            LOG_WARN("admin.port_taken", LOG_S("address", address), LOG_I("instead", port_of(fd)),
                     LOG_S("reason",
                           "another process listens there; set `admin` (MYELIN_ADMIN) of each worker on a machine"));
    }
    if (fd < 0) {
        char why[128];
        error_set(error, ERROR_FATAL, "admin = \"%s\": cannot listen there: %s", address,
                  strerror_r(errno, why, sizeof(why)));
    }
    freeaddrinfo(found);
    return fd;
}

/* ---- answering ---- */

static enum MHD_Result answer(struct MHD_Connection *connection, struct admin_page *page)
{
    if (page->body.overflow) {
        page->status = MHD_HTTP_INTERNAL_SERVER_ERROR;
        buf_clear(&page->body);
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(page->body.size, page->body.data,
                                                                    MHD_RESPMEM_MUST_COPY);
    buf_free(&page->body);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", page->type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    if (page->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, "Allow", "GET");
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)page->status, response);
    MHD_destroy_response(response);
    return result;
}

/* Answers at once, so that a body, if there is one, is never read: libmicrohttpd then closes the connection. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *body, size_t *body_size, void **slot)
{
    struct admin *admin = context;
    struct admin_page page = {.status = MHD_HTTP_NOT_FOUND, .type = "text/plain; charset=utf-8"};
    (void)version, (void)body, (void)slot;
    *body_size = 0; /* nothing of it is left for another call */
    buf_init(&page.body, ADMIN_BODY_MAX);
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0) {
        admin->serve(admin->context, url, &page);
    } else {
        page.status = MHD_HTTP_METHOD_NOT_ALLOWED;
        buf_puts(&page.body, "GET only\n");
    }
    return answer(connection, &page);
}

/* ---- the loop's side ---- */

static bool watch(struct admin *admin, uint32_t tag)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL)
        return false;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)tag << 32 | (uint32_t)info->epoll_fd};
    admin->fd = info->epoll_fd;
    return epoll_ctl(admin->epoll_fd, EPOLL_CTL_ADD, admin->fd, &event) == 0;
}

struct admin *admin_open(const char *address, int epoll_fd, uint32_t tag, admin_serve *serve, void *context,
                         struct error *error)
{
    int fd = open_socket(address, error);
    if (fd < 0)
        return NULL;
    struct admin *admin = mem_new(sizeof(*admin));
    *admin = (struct admin){.serve = serve, .context = context, .epoll_fd = epoll_fd, .fd = -1, .port = port_of(fd)};
    admin->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, admin, MHD_OPTION_LISTEN_SOCKET, fd,
                                     MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
                                     MHD_OPTION_CONNECTION_TIMEOUT, CONNECTION_TIMEOUT_S,
                                     MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY_MAX, MHD_OPTION_END);
    if (admin->daemon == NULL)
        close(fd);
    if (admin->daemon == NULL || !watch(admin, tag)) {
        error_set(error, ERROR_FATAL, "admin = \"%s\": libmicrohttpd cannot start", address);
        admin_close(admin);
        return NULL;
    }
    LOG_INFO("admin.listens", LOG_S("address", address), LOG_I("port", admin->port));
    return admin;
}

void admin_close(struct admin *admin)
{
    if (admin == NULL)
        return;
    if (admin->fd >= 0)
        (void)epoll_ctl(admin->epoll_fd, EPOLL_CTL_DEL, admin->fd, NULL);
    if (admin->daemon != NULL)
        MHD_stop_daemon(admin->daemon); /* closes the listening socket */
    mem_free(admin);
}

static unsigned connections(const struct admin *admin)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    return info != NULL ? info->num_connections : 0;
}

/* At its limit of connections libmicrohttpd stops to watch the listening socket, and looks whether there is room again only
 * when it begins to run. When connections have just ended nothing might ever wake it for that: so it runs once more then. */
void admin_ready(struct admin *admin)
{
    unsigned before;
    do {
        before = connections(admin);
        (void)MHD_run(admin->daemon);
    } while (connections(admin) < before);
}

int64_t admin_tick(struct admin *admin, int64_t now_mono_ms)
{
    MHD_UNSIGNED_LONG_LONG left_ms;
    if (admin == NULL || MHD_get_timeout(admin->daemon, &left_ms) != MHD_YES)
        return INT64_MAX;
    if (left_ms == 0) {
        admin_ready(admin);
        if (MHD_get_timeout(admin->daemon, &left_ms) != MHD_YES)
            return INT64_MAX;
    }
    return now_mono_ms + (int64_t)left_ms;
}

int32_t admin_port(const struct admin *admin)
{
    return admin->port;
}
