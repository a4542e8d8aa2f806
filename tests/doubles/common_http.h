/* The HTTP side of a double: one server on 127.0.0.1, one thread.
 *
 * libmicrohttpd runs inside our own epoll loop, so a request that waits costs a suspended
 * connection and an entry in one heap of timers, never a thread: thousands may wait at once.
 *
 * A request is an exchange. The double's `on_request` decides what happens to it by exactly one of
 * http_answer, http_cut, http_later or http_hold; the step given to http_later decides again. */
#ifndef TESTS_DOUBLES_COMMON_HTTP_H
#define TESTS_DOUBLES_COMMON_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct http_exchange;
typedef void (*http_step)(struct http_exchange *x);

struct http_exchange {
    long seq;           /* 1, 2, 3 ... in order of arrival */
    const char *method; /* borrowed from the connection */
    const char *path;   /* percent-decoded, without the query; borrowed from the connection */
    json_t *query;      /* object: query argument -> string */
    char *body;         /* always ends with a NUL that body_size does not count */
    size_t body_size;
    void *context; /* as given to http_serve */
    void *app;     /* the double's own part; freed by its on_end */
    struct http_wait *wait;
};

enum http_cut {
    HTTP_CUT_NONE,
    HTTP_CUT_HEADERS, /* the headers leave, then the connection closes */
    HTTP_CUT_BODY     /* half of the announced body leaves, then the connection closes */
};

struct http_answer {
    unsigned status;
    const char *type;      /* Content-Type; borrowed */
    const json_t *headers; /* further headers, name -> string or number; borrowed, may be NULL */
    char *body;            /* malloc'ed; taken */
    size_t body_size;
    enum http_cut cut;
};

struct http_settings {
    unsigned short port;   /* 0: the system picks one */
    const char *port_file; /* NULL: none; else gets "PORT\n", written whole */
    http_step on_request;
    http_step on_end; /* the exchange is over, whichever way */
    void *context;
};

/* Serves until SIGTERM or SIGINT; returns the exit status. */
int http_serve(const struct http_settings *settings);

/* A request header, or NULL. Borrowed until the exchange ends. */
const char *http_header(const struct http_exchange *x, const char *name);

/* The client's port: tells which process asked. */
unsigned http_peer_port(const struct http_exchange *x);

void http_answer(struct http_exchange *x, const struct http_answer *answer);

/* Closes the connection without a byte of answer. */
void http_cut(struct http_exchange *x);

/* Runs `step` after delay_ms, in order of due time. */
void http_later(struct http_exchange *x, long delay_ms, http_step step);

/* Keeps the connection open, silent, until the client leaves. */
void http_hold(struct http_exchange *x);

/* Whether the client has closed its side. */
bool http_client_left(const struct http_exchange *x);

#endif
