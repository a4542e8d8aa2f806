#include "tests/unit/http_server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TARGETS_MAX 2000

static int listener, full_listener, full_clients[8];
static int port, closed_port, full_port;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t accepted = PTHREAD_COND_INITIALIZER;
static char targets[TARGETS_MAX][160];
static int targets_count, connections, threads;
static int accepted_from; /* the port that the newest accepted connection came from */
static bool cut_at_accept, stopping;
static pid_t tls_pid = -1;
static char tls_folder[64], tls_key[80], tls_cert[80];

static int listen_on(int backlog, int *chosen)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert(fd >= 0);
    assert(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    assert(listen(fd, backlog) == 0);
    assert(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    *chosen = ntohs(address.sin_port);
    return fd;
}

static const char *url_of(int at, const char *path)
{
    static char urls[8][300];
    static int next;
    char *url = urls[next++ % 8];

    (void)snprintf(url, 300, "http://127.0.0.1:%d%s", at, path);
    return url;
}

const char *http_server_url(const char *path)
{
    return url_of(port, path);
}

const char *http_server_closed_url(const char *path)
{
    return url_of(closed_port, path);
}

const char *http_server_full_url(const char *path)
{
    return url_of(full_port, path);
}

static void put(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Makes close() send a reset. */
static void reset_on_close(int fd)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* Until the other side goes or the test ends. */
static void stay_silent(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLRDHUP};

    while (!stopping && poll(&ready, 1, 20) == 0)
        continue;
}

static void put_size(int fd, size_t size, bool chunked)
{
    char block[4096];

    memset(block, 'x', sizeof block);
    if (chunked)
        put(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    else
        (void)dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
    while (size > 0) {
        size_t now = size < sizeof block ? size : sizeof block;

        if (chunked)
            (void)dprintf(fd, "%zx\r\n", now);
        if (send(fd, block, now, MSG_NOSIGNAL) < 0)
            return;
        if (chunked)
            put(fd, "\r\n");
        size -= now;
    }
    if (chunked)
        put(fd, "0\r\n\r\n");
}

static void put_retry(int fd, const char *encoded)
{
    char line[160];
    size_t size = 0;

    for (; *encoded != '\0' && size < sizeof line - 1; encoded++) {
        const char digits[] = {encoded[0] == '%' ? encoded[1] : 'x', encoded[0] == '%' ? encoded[2] : 'x', '\0'};
        char *end;
        long byte = strtol(digits, &end, 16);

        line[size++] = end == digits + 2 ? (char)byte : *encoded;
        encoded += end == digits + 2 ? 2 : 0;
    }
    line[size] = '\0';
    (void)dprintf(fd, "HTTP/1.1 429 Slow\r\n%s\r\nContent-Length: 0\r\n\r\n", line);
}

static void put_endless_headers(int fd)
{
    put(fd, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 100000; i++) {
        char line[64];

        (void)snprintf(line, sizeof line, "X-Header-%d: and another one, and more to come\r\n", i);
        if (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
            return;
    }
}

/* Answers one request; false: close the connection. */
static bool serve(int fd, const char *target, const char *request, size_t size, int nth)
{
    if (strcmp(target, "/ok") == 0 || strcmp(target, "http://far.test/ok") == 0) {
        put(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}");
        return true;
    }
    if (strncmp(target, "/echo", 5) == 0) {
        (void)dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
        (void)!send(fd, request, size, MSG_NOSIGNAL);
        return true;
    }
    if (strcmp(target, "/stale") == 0 && nth == 0) {
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        return true;
    }
    if (strncmp(target, "/size/", 6) == 0)
        put_size(fd, strtoul(target + 6, NULL, 10), false);
    else if (strncmp(target, "/chunked/", 9) == 0)
        put_size(fd, strtoul(target + 9, NULL, 10), true);
    else if (strncmp(target, "/retry/", 7) == 0)
        put_retry(fd, target + 7);
    else if (strcmp(target, "/redirect") == 0)
        put(fd, "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n");
    else if (strcmp(target, "/silent") == 0)
        stay_silent(fd);
    else if (strcmp(target, "/drip") == 0) {
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
        for (int i = 0; i < 500 && !stopping && send(fd, "x", 1, MSG_NOSIGNAL) == 1; i++)
            (void)usleep(20000);
    } else if (strcmp(target, "/garbage") == 0)
        put(fd, "\x01\x02 this is no HTTP\r\n\r\n");
    else if (strcmp(target, "/headers/endless") == 0)
        put_endless_headers(fd);
    else if (strcmp(target, "/cut/continue") == 0)
        put(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    else if (strcmp(target, "/cut/status") == 0)
        put(fd, "HTTP/1.1 20");
    else if (strcmp(target, "/cut/headers") == 0)
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n");
    else if (strcmp(target, "/cut/body") == 0)
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"ok\"");
    else if (strcmp(target, "/cut/chunk") == 0)
        put(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ok\"\r\n");
    return false; /* /cut/request, and the second of /stale: nothing */
}

static void remember(const char *target)
{
    (void)pthread_mutex_lock(&lock);
    if (targets_count < TARGETS_MAX)
        (void)snprintf(targets[targets_count++], sizeof targets[0], "%s", target);
    (void)pthread_mutex_unlock(&lock);
}

/* Reads one request, body included. 0 = the connection ended. */
static size_t read_request(int fd, char *request, size_t size_max)
{
    size_t size = 0, wanted = 0;
    ssize_t got;

    do {
        char *end, *length;

        got = recv(fd, request + size, size_max - size - 1, 0);
        if (got <= 0 || (size == 0 && request[0] == 0x16)) /* 0x16: a TLS handshake */
            return 0;
        size += (size_t)got;
        request[size] = '\0';
        end = strstr(request, "\r\n\r\n");
        length = strcasestr(request, "\r\nContent-Length:");
        if (end != NULL)
            wanted = (size_t)(end - request) + 4 +
                     (length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0);
    } while (wanted == 0 || size < wanted);
    return size;
}

static void *serve_connection(void *context)
{
    int fd = (int)(long)context;
    char request[8192];
    size_t size;

    for (int nth = 0; (size = read_request(fd, request, sizeof request)) > 0; nth++) {
        const char *method_end = strchr(request, ' ');
        char target[160];

        if (method_end == NULL)
            break;
        (void)snprintf(target, sizeof target, "%.*s", (int)strcspn(method_end + 1, " \r"), method_end + 1);
        remember(target);
        if (!serve(fd, target, request, size, nth))
            break;
    }
    (void)close(fd);
    (void)pthread_mutex_lock(&lock);
    threads--;
    (void)pthread_mutex_unlock(&lock);
    return NULL;
}

static void *serve_all(void *context)
{
    (void)context;
    while (!stopping) {
        struct sockaddr_in from = {0};
        socklen_t from_size = sizeof from;
        int fd = accept(listener, (struct sockaddr *)&from, &from_size);
        pthread_t thread;
        bool cut;

        if (fd < 0)
            continue;
        (void)pthread_mutex_lock(&lock);
        connections++;
        accepted_from = ntohs(from.sin_port);
        (void)pthread_cond_broadcast(&accepted);
        cut = cut_at_accept || stopping;
        threads += !cut;
        (void)pthread_mutex_unlock(&lock);
        if (cut) {
            reset_on_close(fd);
            (void)close(fd);
            continue;
        }
        assert(pthread_create(&thread, NULL, serve_connection, (void *)(long)fd) == 0);
        (void)pthread_detach(thread);
    }
    return NULL;
}

static pthread_t acceptor;

/* Keeps the socket, whatever becomes of it. */
static int connect_to(int at, int flags)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    address.sin_port = htons((uint16_t)at);
    (void)connect(fd, (struct sockaddr *)&address, sizeof address);
    return fd;
}

void http_server_start(void)
{
    int closed = listen_on(1, &closed_port);

    (void)close(closed);
    listener = listen_on(512, &port);
    /* A listener that accepts nobody: once its queue is full the kernel drops what knocks. */
    full_listener = listen_on(0, &full_port);
    for (size_t i = 0; i < sizeof full_clients / sizeof full_clients[0]; i++)
        full_clients[i] = connect_to(full_port, SOCK_NONBLOCK);
    (void)usleep(20000);
    assert(pthread_create(&acceptor, NULL, serve_all, NULL) == 0);
}

void http_server_stop(void)
{
    int waiting = 1;

    stopping = true;
    (void)close(connect_to(port, 0));
    (void)pthread_join(acceptor, NULL);
    for (int i = 0; i < 100 && waiting > 0; i++) {
        (void)usleep(20000);
        (void)pthread_mutex_lock(&lock);
        waiting = threads;
        (void)pthread_mutex_unlock(&lock);
    }
    for (size_t i = 0; i < sizeof full_clients / sizeof full_clients[0]; i++)
        (void)close(full_clients[i]);
    (void)close(full_listener);
    (void)close(listener);
}

/* A connection of an earlier test may still wait to be accepted, and would be counted in the next one. They are accepted in the
 * order they came, so once this one is, none of them is left. */
void http_server_reset(void)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    struct timespec end;
    int fd = connect_to(port, 0);

    assert(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    assert(clock_gettime(CLOCK_REALTIME, &end) == 0);
    end.tv_sec += 20;
    (void)pthread_mutex_lock(&lock);
    while (accepted_from != ntohs(address.sin_port))
        assert(pthread_cond_timedwait(&accepted, &lock, &end) == 0);
    targets_count = connections = 0;
    cut_at_accept = false;
    (void)pthread_mutex_unlock(&lock);
    (void)close(fd);
}

void http_server_cut_at_accept(bool cut)
{
    (void)pthread_mutex_lock(&lock);
    cut_at_accept = cut;
    (void)pthread_mutex_unlock(&lock);
}

int http_server_received(const char *path)
{
    int count = 0;

    (void)pthread_mutex_lock(&lock);
    for (int i = 0; i < targets_count; i++)
        count += strcmp(targets[i], path) == 0;
    (void)pthread_mutex_unlock(&lock);
    return count;
}

int http_server_connections(void)
{
    int count;

    (void)pthread_mutex_lock(&lock);
    count = connections;
    (void)pthread_mutex_unlock(&lock);
    return count;
}

/* Starts openssl with these arguments and nothing to say. */
static pid_t start_openssl(const char *const *arguments)
{
    posix_spawn_file_actions_t quiet;
    pid_t pid = -1;

    (void)posix_spawn_file_actions_init(&quiet);
    for (int fd = 0; fd < 3; fd++)
        (void)posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_RDWR, 0);
    if (posix_spawnp(&pid, "openssl", &quiet, NULL, (char *const *)arguments, environ) != 0)
        pid = -1;
    (void)posix_spawn_file_actions_destroy(&quiet);
    return pid;
}

static bool make_certificate(void)
{
    const char *const arguments[] = {"openssl", "req",   "-x509", "-newkey",  "rsa:2048", "-nodes",
                                     "-days",   "1",     "-subj", "/CN=test", "-addext",  "subjectAltName=IP:127.0.0.1",
                                     "-keyout", tls_key, "-out",  tls_cert,   NULL};
    pid_t pid;
    int status;

    (void)snprintf(tls_folder, sizeof tls_folder, "/tmp/test_caller.XXXXXX");
    assert(mkdtemp(tls_folder) != NULL);
    (void)snprintf(tls_key, sizeof tls_key, "%s/key", tls_folder);
    (void)snprintf(tls_cert, sizeof tls_cert, "%s/cert", tls_folder);
    pid = start_openssl(arguments);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool accepts(int at)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), failed;

    address.sin_port = htons((uint16_t)at);
    failed = connect(fd, (struct sockaddr *)&address, sizeof address);
    (void)close(fd);
    return failed == 0;
}

bool http_server_tls_start(char *url, char *ca_file, size_t size)
{
    char at[16];
    const char *const arguments[] = {"openssl", "s_server", "-accept", at,     "-key",
                                     tls_key,   "-cert",    tls_cert,  "-www", NULL};
    int tls_port, fd = listen_on(1, &tls_port);

    (void)close(fd);
    if (!make_certificate())
        return false;
    (void)snprintf(url, size, "https://127.0.0.1:%d/", tls_port);
    (void)snprintf(ca_file, size, "%s", tls_cert);
    (void)snprintf(at, sizeof at, "%d", tls_port);
    tls_pid = start_openssl(arguments);
    for (int i = 0; i < 250 && tls_pid > 0; i++) {
        if (accepts(tls_port))
            return true;
        (void)usleep(20000);
    }
    return false;
}

void http_server_tls_stop(void)
{
    if (tls_pid > 0) {
        (void)kill(tls_pid, SIGKILL);
        (void)waitpid(tls_pid, NULL, 0);
    }
    (void)unlink(tls_key);
    (void)unlink(tls_cert);
    (void)rmdir(tls_folder);
}
