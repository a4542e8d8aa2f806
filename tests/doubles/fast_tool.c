/*
 * A tool that costs next to nothing: any request with a whole body is answered 200 {"ok":true}, after --delay-ms. One thread,
 * epoll, keep-alive, no parsing beyond Content-Length. The tool double of the tests keeps a ledger and follows a script, which
 * costs more than the calls that are to be measured here.
 *
 *   fast_tool [--delay-ms N] [--size N] [--gather N] [--port-file FILE]      SIGTERM: prints how many it answered, exit 0
 *
 *   --size     of an answer's body, in bytes: a text of so many x
 *   --gather   no answer before so many requests wait for one, then all at once
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FDS_MAX = 65536, REQUEST_SIZE_MAX = 65536 };

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n"
#define BODY "{\"ok\":true}"

/* A connection; `life` tells its answers from those of an earlier one with the same descriptor. */
struct connection {
    char *bytes;
    size_t size;
    size_t left; /* of the answer, to be written */
    uint32_t life;
};

/* Answers that wait. All wait equally long, so the first is the first due. */
struct due {
    int64_t at_us;
    int fd;
    uint32_t life;
};

static struct connection connections[FDS_MAX];
static struct due *queue;
static size_t queue_first, queue_count, queue_room;
static int64_t delay_us;
static size_t gather, body_size = sizeof BODY - 1;
static char *whole_answer;
static size_t whole_answer_size;
static int epoll;
static long answered;
static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    stop = number;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void make_answer(void)
{
    whole_answer = malloc(body_size + 200);
    if (whole_answer == NULL)
        die("memory");
    size_t head = (size_t)snprintf(whole_answer, 200, HEAD, body_size);
    memset(whole_answer + head, 'x', body_size);
    if (body_size < sizeof BODY)
        memcpy(whole_answer + head, BODY, sizeof BODY - 1);
    whole_answer_size = head + body_size;
}

/* As much of it as the socket takes; the rest when it takes more. */
static void go_on(int fd)
{
    struct connection *c = &connections[fd];
    bool waited = c->left < whole_answer_size;
    ssize_t done = write(fd, whole_answer + whole_answer_size - c->left, c->left);
    c->left -= done > 0 ? (size_t)done : 0;
    answered += c->left == 0;
    if (waited == (c->left > 0))
        return;
    struct epoll_event event = {.events = EPOLLIN | (c->left > 0 ? EPOLLOUT : 0), .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

static void answer(int fd)
{
    connections[fd].left = whole_answer_size;
    go_on(fd);
}

static void later(int fd)
{
    if (queue_count == queue_room) {
        size_t room = queue_room > 0 ? queue_room * 2 : 1024;
        struct due *larger = malloc(room * sizeof *larger);
        if (larger == NULL)
            die("memory");
        for (size_t i = 0; i < queue_count; i++)
            larger[i] = queue[(queue_first + i) % queue_room];
        free(queue);
        queue = larger;
        queue_first = 0;
        queue_room = room;
    }
    queue[(queue_first + queue_count++) % queue_room] = (struct due){now_us() + delay_us, fd, connections[fd].life};
}

/* Answers what is due; returns how long epoll may sleep, in ms. */
static int serve_due(void)
{
    if (queue_count < gather)
        return -1;
    gather = 0;
    while (queue_count > 0) {
        struct due *due = &queue[queue_first];
        int64_t left_us = due->at_us - now_us();
        if (left_us > 0)
            return (int)((left_us + 999) / 1000);
        if (connections[due->fd].life == due->life)
            answer(due->fd);
        queue_first = (queue_first + 1) % queue_room;
        queue_count--;
    }
    return -1;
}

/* The size of the first whole request in the buffer, 0 = not whole yet. */
static size_t whole(const struct connection *c)
{
    const char *end = memmem(c->bytes, c->size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - c->bytes) + 4, body = 0;
    for (const char *line = c->bytes; line < end;) {
        const char *next = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        if (strncasecmp(line, "Content-Length:", 15) == 0)
            body = strtoul(line + 15, NULL, 10);
        line = next != NULL ? next + 2 : end;
    }
    return c->size >= head + body ? head + body : 0;
}

static void drop(int fd)
{
    connections[fd].life++;
    connections[fd].size = connections[fd].left = 0;
    close(fd);
}

static void serve(int fd)
{
    struct connection *c = &connections[fd];
    if (c->bytes == NULL && (c->bytes = malloc(REQUEST_SIZE_MAX)) == NULL)
        die("memory");
    ssize_t got = read(fd, c->bytes + c->size, REQUEST_SIZE_MAX - c->size);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        drop(fd);
        return;
    }
    c->size += (size_t)got;
    for (size_t size; (size = whole(c)) > 0;) {
        memmove(c->bytes, c->bytes + size, c->size - size);
        c->size -= size;
        if (delay_us > 0 || gather > 0)
            later(fd);
        else
            answer(fd);
    }
}

static void greet(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (fd >= FDS_MAX || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            close(fd);
    }
}

/* Whole or not at all: somebody waits for the file. */
static void say_port(const char *port_file, int port)
{
    char path[4096];
    if (port_file == NULL) {
        printf("%d\n", port);
        fflush(stdout);
        return;
    }
    snprintf(path, sizeof path, "%s.new", port_file);
    FILE *file = fopen(path, "w");
    if (file == NULL || fprintf(file, "%d\n", port) < 0 || fclose(file) != 0 || rename(path, port_file) != 0)
        die(port_file);
}

static int listen_on(const char *port_file)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 16384) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        die("listen");
    say_port(port_file, ntohs(address.sin_port));
    return listener;
}

int main(int argc, char **argv)
{
    const char *port_file = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--delay-ms") == 0)
            delay_us = strtol(argv[i + 1], NULL, 10) * 1000;
        else if (strcmp(argv[i], "--size") == 0)
            body_size = strtoul(argv[i + 1], NULL, 10) > body_size ? strtoul(argv[i + 1], NULL, 10) : body_size;
        else if (strcmp(argv[i], "--gather") == 0)
            gather = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--port-file") == 0)
            port_file = argv[i + 1];
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    make_answer();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(port_file);
    struct epoll_event events[512], event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0)
        die("epoll");
    while (!stop) {
        int count = epoll_wait(epoll, events, 512, serve_due());
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                greet(listener);
            else if ((events[i].events & EPOLLOUT) != 0 && connections[fd].left > 0)
                go_on(fd);
            else
                serve(fd);
        }
    }
    fprintf(stderr, "answered %ld\n", answered);
    return 0;
}
