#include "tests/doubles/common_http.h"

#include <arpa/inet.h>
#include <assert.h>
#include <err.h>
#include <errno.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BODY_SIZE_MAX = 64 << 20,
    CONNECTIONS_MAX = 16384,
    CONNECTION_MEMORY_SIZE = 16384,
    HOLD_LOOK_MS = 50 /* how often a held connection is looked at: has the client left? */
};

enum outcome { OUTCOME_NONE, OUTCOME_ANSWER, OUTCOME_CUT };

/* The part of an exchange that only this file touches. */
struct http_wait {
    struct MHD_Connection *connection;
    bool complete; /* the whole request is here, on_request has run */
    bool suspended;
    enum outcome outcome;
    struct MHD_Response *response;
    unsigned status;
    long long due_ms;
    long long order; /* ties of due_ms run in the order they were made */
    http_step step;
};

static struct {
    const struct http_settings *settings;
    struct MHD_Daemon *daemon;
    long seq;
    long long order;
    struct http_exchange **timers; /* a binary heap, the soonest first */
    size_t timers_count, timers_capacity;
} server;

static long long monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- timers ---- */

static bool timer_before(size_t a, size_t b)
{
    const struct http_wait *l = server.timers[a]->wait, *r = server.timers[b]->wait;
    return l->due_ms != r->due_ms ? l->due_ms < r->due_ms : l->order < r->order;
}

static void timer_swap(size_t a, size_t b)
{
    struct http_exchange *x = server.timers[a];
    server.timers[a] = server.timers[b];
    server.timers[b] = x;
}

static void timer_push(struct http_exchange *x)
{
    if (server.timers_count == server.timers_capacity) {
        server.timers_capacity = server.timers_capacity ? server.timers_capacity * 2 : 64;
        server.timers = realloc(server.timers, server.timers_capacity * sizeof(struct http_exchange *));
        assert(server.timers);
    }
    size_t i = server.timers_count++;
    server.timers[i] = x;
    for (; i && timer_before(i, (i - 1) / 2); i = (i - 1) / 2)
        timer_swap(i, (i - 1) / 2);
}

static struct http_exchange *timer_pop(void)
{
    struct http_exchange *first = server.timers[0];
    server.timers[0] = server.timers[--server.timers_count];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2; child++)
            if (child < server.timers_count && timer_before(child, least))
                least = child;
        if (least == i)
            return first;
        timer_swap(i, least);
        i = least;
    }
}

/* ---- what may happen to an exchange ---- */

static void decide(struct http_exchange *x, enum outcome outcome)
{
    assert(x->wait->outcome == OUTCOME_NONE);
    x->wait->outcome = outcome;
    if (x->wait->suspended) {
        x->wait->suspended = false;
        MHD_resume_connection(x->wait->connection);
    }
}

struct cut_body {
    char *bytes;
    size_t cut_at;
};

static ssize_t cut_body_read(void *cls, uint64_t position, char *buffer, size_t room)
{
    const struct cut_body *body = cls;
    if (position >= body->cut_at)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t left = body->cut_at - (size_t)position;
    size_t size = left < room ? left : room;
    memcpy(buffer, body->bytes + position, size);
    return (ssize_t)size;
}

static void cut_body_free(void *cls)
{
    struct cut_body *body = cls;
    free(body->bytes);
    free(body);
}

static struct MHD_Response *response_new(const struct http_answer *answer)
{
    if (answer->cut == HTTP_CUT_NONE)
        return MHD_create_response_from_buffer(answer->body_size, answer->body, MHD_RESPMEM_MUST_FREE);
    struct cut_body *body = malloc(sizeof *body);
    assert(body);
    *body = (struct cut_body){answer->body, answer->cut == HTTP_CUT_BODY ? answer->body_size / 2 : 0};
    return MHD_create_response_from_callback(answer->body_size, 4096, cut_body_read, body, cut_body_free);
}

void http_answer(struct http_exchange *x, const struct http_answer *answer)
{
    struct MHD_Response *response = response_new(answer);
    assert(response);
    MHD_add_response_header(response, "Content-Type", answer->type);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)answer->headers, name, value) {
        char number[32];
        if (json_is_number(value))
            snprintf(number, sizeof number, "%g", json_number_value(value));
        MHD_add_response_header(response, name, json_is_number(value) ? number : json_string_value(value));
    }
    x->wait->response = response;
    x->wait->status = answer->status;
    decide(x, OUTCOME_ANSWER);
}

void http_cut(struct http_exchange *x)
{
    decide(x, OUTCOME_CUT);
}

void http_later(struct http_exchange *x, long delay_ms, http_step step)
{
    struct http_wait *wait = x->wait;
    wait->step = step;
    wait->due_ms = monotonic_ms() + delay_ms;
    wait->order = server.order++;
    if (!wait->suspended) {
        wait->suspended = true;
        MHD_suspend_connection(wait->connection);
    }
    timer_push(x);
}

void http_hold(struct http_exchange *x)
{
    if (http_client_left(x))
        http_cut(x);
    else
        http_later(x, HOLD_LOOK_MS, http_hold);
}

static int socket_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

bool http_client_left(const struct http_exchange *x)
{
    char byte;
    ssize_t n = recv(socket_of(x->wait->connection), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

unsigned http_peer_port(const struct http_exchange *x)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->wait->connection,
                                                                   MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    struct sockaddr_in address;
    memcpy(&address, info->client_addr, sizeof address);
    return ntohs(address.sin_port);
}

const char *http_header(const struct http_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->wait->connection, MHD_HEADER_KIND, name);
}

/* ---- libmicrohttpd's callbacks ---- */

static enum MHD_Result query_add(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    (void)kind;
    json_object_set_new(cls, key, value ? json_string(value) : json_null());
    return MHD_YES;
}

static struct http_exchange *exchange_new(struct MHD_Connection *connection, const char *method, const char *url)
{
    struct http_exchange *x = calloc(1, sizeof *x);
    assert(x);
    x->wait = calloc(1, sizeof *x->wait);
    x->body = calloc(1, 1);
    assert(x->wait && x->body);
    x->wait->connection = connection;
    x->method = method;
    x->path = url;
    x->query = json_object();
    x->context = server.settings->context;
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, query_add, x->query);
    return x;
}

static enum MHD_Result body_add(struct http_exchange *x, const char *data, size_t size)
{
    if (size > BODY_SIZE_MAX - x->body_size)
        return MHD_NO;
    x->body = realloc(x->body, x->body_size + size + 1);
    assert(x->body);
    memcpy(x->body + x->body_size, data, size);
    x->body_size += size;
    x->body[x->body_size] = '\0';
    return MHD_YES;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                 const char *version, const char *data, size_t *data_size, void **slot)
{
    (void)cls;
    (void)version;
    struct http_exchange *x = *slot;
    if (!x) {
        *slot = exchange_new(connection, method, url);
        return MHD_YES;
    }
    if (*data_size) {
        size_t size = *data_size;
        *data_size = 0;
        return body_add(x, data, size);
    }
    if (!x->wait->complete) {
        x->wait->complete = true;
        x->seq = ++server.seq;
        server.settings->on_request(x);
    }
    if (x->wait->outcome == OUTCOME_NONE)
        return MHD_YES;
    if (x->wait->outcome == OUTCOME_CUT)
        return MHD_NO;
    return MHD_queue_response(connection, x->wait->status, x->wait->response);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **slot,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)connection;
    (void)code;
    struct http_exchange *x = *slot;
    if (!x)
        return;
    *slot = NULL;
    if (x->wait->complete)
        server.settings->on_end(x);
    if (x->wait->response)
        MHD_destroy_response(x->wait->response);
    json_decref(x->query);
    free(x->body);
    free(x->wait);
    free(x);
}

/* ---- the loop ---- */

/* Milliseconds to the next timer, at most a minute; 0: one is due. */
static int timers_next_ms(void)
{
    if (!server.timers_count)
        return 60000;
    long long left_ms = server.timers[0]->wait->due_ms - monotonic_ms();
    return left_ms <= 0 ? 0 : left_ms < 60000 ? (int)left_ms : 60000;
}

static void loop(int epoll, int signals)
{
    for (;;) {
        while (timers_next_ms() == 0) {
            struct http_exchange *x = timer_pop();
            x->wait->step(x);
        }
        MHD_run(server.daemon); /* also sends what the timers resumed: nothing else would wake it */
        int timeout_ms = timers_next_ms();
        MHD_UNSIGNED_LONG_LONG mhd_ms;
        if (MHD_get_timeout(server.daemon, &mhd_ms) == MHD_YES && mhd_ms < (unsigned)timeout_ms)
            timeout_ms = (int)mhd_ms;
        struct epoll_event events[2];
        int n = epoll_wait(epoll, events, 2, timeout_ms);
        for (int i = 0; i < n; i++)
            if (events[i].data.fd == signals)
                return;
    }
}

static int listener_new(unsigned short *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &size)) {
        warn("cannot listen on 127.0.0.1:%u", *port);
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

/* Whoever reads the file never sees half a number. */
static bool port_file_write(const char *path, unsigned short port)
{
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.new", path) < 0)
        abort();
    FILE *file = fopen(temporary, "w");
    bool ok = file && fprintf(file, "%u\n", port) > 0;
    ok = file && !fclose(file) && ok && !rename(temporary, path);
    if (!ok)
        warn("cannot write %s", path);
    free(temporary);
    return ok;
}

static int signals_new(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* What still waits is cut; a daemon with suspended connections cannot be stopped. */
static void stop(void)
{
    while (server.timers_count)
        http_cut(timer_pop());
    MHD_run(server.daemon);
    MHD_stop_daemon(server.daemon);
    free(server.timers);
}

int http_serve(const struct http_settings *settings)
{
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    unsigned short port = settings->port;
    int listener = listener_new(&port);
    if (listener < 0)
        return 1;
    server.settings = settings;
    server.daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, port, NULL, NULL, on_access, NULL, MHD_OPTION_LISTEN_SOCKET, listener,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_SIZE, MHD_OPTION_END);
    if (!server.daemon) {
        fprintf(stderr, "cannot start the HTTP server\n");
        return 1;
    }
    int epoll = epoll_create1(EPOLL_CLOEXEC), signals = signals_new();
    int daemon = MHD_get_daemon_info(server.daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    epoll_ctl(epoll, EPOLL_CTL_ADD, daemon, &(struct epoll_event){.events = EPOLLIN, .data.fd = daemon});
    epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &(struct epoll_event){.events = EPOLLIN, .data.fd = signals});
    if (settings->port_file && !port_file_write(settings->port_file, port))
        return 1;
    printf("listening 127.0.0.1:%u\n", port);
    fflush(stdout);
    loop(epoll, signals);
    stop();
    close(signals);
    close(epoll);
    return 0;
}
