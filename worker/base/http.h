/* http.h: an HTTP request and how it ended, as plain data: what call/ makes and reads, and io/caller carries out. */
#ifndef MYELIN_BASE_HTTP_H
#define MYELIN_BASE_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/bytes.h"

struct http_header {
    struct str name, value;
};

struct http_request {
    struct str method, url;
    const struct http_header *headers;
    size_t headers_count;
    struct str body; /* STR_NONE = none */
    int64_t timeout_ms;
    size_t answer_size_max;
    bool write; /* a write effect */
    int64_t
        send_until_boot_ms; /* write: not sent after this time (clock_boot_ms), and given up timeout_ms / 2 after it */
};

enum http_end {
    HTTP_ANSWERED,  /* status and body are whole */
    HTTP_NOT_SENT,  /* not a byte of the request left this process */
    HTTP_UNKNOWN,   /* it left, or may have: no whole answer */
    HTTP_TOO_LARGE, /* an answer over answer_size_max: it was executed, its result is lost */
};

struct http_answer {
    enum http_end end;
    int32_t status;
    struct str body, content_type;
    int64_t retry_after_ms; /* from Retry-After or retry-after-ms; 0 = none */
    int64_t duration_ms;
    const char *reason; /* not HTTP_ANSWERED: what happened, without secrets (no user info, no query of the URL) */
};

#endif
