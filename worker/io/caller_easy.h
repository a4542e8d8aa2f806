/*
 * caller_easy.h: one HTTP request on one libcurl easy handle: how it is set up, what may leave when, how it ended.
 * A part of caller.c; nobody else includes it.
 */
#ifndef MYELIN_IO_CALLER_EASY_H
#define MYELIN_IO_CALLER_EASY_H

#include <curl/curl.h>

#include "worker/io/caller.h"

/* I7 */
#define CALLER_HEADERS_SIZE_MAX ((size_t)64 << 10)            /* of an answer, all lines together */
#define CALLER_RETRY_AFTER_MS_MAX ((int64_t)24 * 3600 * 1000) /* a longer wish is cut to this */

/* What an answer turns into (a result, its copy for Redis, records) comes before it is freed, and is as large. */
#define CALLER_ROOM_WEIGHT 4

struct caller_call;

struct caller_easy {
    CURL *curl;               /* owned; reused from call to call */
    struct caller_call *call; /* whose answer it is; NULL: nobody's, and it may take all the memory that it wants */
    struct curl_slist *headers;
    int64_t started_us, timeout_ms; /* CLOCK_MONOTONIC */
    int64_t send_until_boot_ms;
    bool write;
    bool leaving; /* libcurl was allowed to send: from here on the request may have arrived */
    bool late;    /* a write that was held back: its limit had passed */
    bool too_large, headers_too_large;
    size_t headers_size;
    size_t answer_size_max;
    int64_t retry_after_s_ms, retry_after_ms; /* from Retry-After, from retry-after-ms; 0 = none */
    struct buf body;
    size_t room;                    /* of the body, taken from the budget */
    size_t body_out, body_out_size; /* sent so far, of; crash builds only */
    char said[CURL_ERROR_SIZE];     /* libcurl's own words */
    char reason[CURL_ERROR_SIZE + 64];
    char *secret_user, *secret_query; /* parts of the URL that no reason may show; curl_free */
};

bool caller_easy_init(struct caller_easy *easy, struct error *error);
void caller_easy_free(struct caller_easy *easy);

/* Sets up the next request; copies all of it. False with `error` (ERROR_POISON) when it cannot be formed. */
bool caller_easy_prepare(struct caller_easy *easy, const struct caller_settings *settings,
                         const struct http_request *request, struct error *error);

/* caller.c: may the answer take so much more of the budget? False: not yet; it is resumed when it may. */
bool caller_admits(struct caller_call *call, size_t more);

/* How it ended; what `answer` points to is valid until caller_easy_clear. */
void caller_easy_answer(struct caller_easy *easy, CURLcode code, bool timed_out, struct http_answer *answer);

/* Frees what belongs to one request; the handle is kept for the next one. */
void caller_easy_clear(struct caller_easy *easy);

/* The value of a Retry-After (`unit_ms` 1000: seconds, also with a fraction, or an HTTP date: RFC 9110, 10.2.3) or
 * retry-after-ms header (`unit_ms` 1), as milliseconds from `now_wall_ms`, at most CALLER_RETRY_AFTER_MS_MAX. 0: none, in
 * the past, or not understood. */
int64_t caller_easy_retry_after_ms(struct str value, int64_t unit_ms, int64_t now_wall_ms);

#endif
