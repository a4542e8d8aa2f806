#include "worker/io/caller_easy.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker/base/budget.h"
#include "worker/base/crash.h"
#include "worker/io/clock.h"

#define HEADER_LINE_SIZE_MAX ((size_t)16 << 10) /* of a request (I7) */

/* ---- what libcurl calls ---- */

/* The last moment before the request leaves: the connection stands, TLS and proxy included, nothing of the request is out.
 * A second time would be a repetition that nobody ordered (libcurl does that when a reused connection proves dead): reads
 * may, a write never. */
/* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's signature */
static int about_to_send(void *context, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    struct caller_easy *easy = context;

    (void)remote_ip;
    (void)local_ip;
    (void)remote_port;
    (void)local_port;
    if (easy->write && easy->leaving)
        return CURL_PREREQFUNC_ABORT;
    if (easy->write && clock_boot_ms() > easy->send_until_boot_ms) {
        easy->late = true;
        return CURL_PREREQFUNC_ABORT;
    }
    easy->leaving = true;
    return CURL_PREREQFUNC_OK;
}

/* Room for a body of `size` bytes; false: there is no memory for it now. */
static bool make_room(struct caller_easy *easy, size_t size)
{
    size_t room = easy->room > 0 ? easy->room * 2 : CALLER_FREE_SIZE * 2;
    curl_off_t told = -1;

    if (size <= CALLER_FREE_SIZE || size <= easy->room)
        return true;
    (void)curl_easy_getinfo(easy->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &told);
    if (told >= 0 && (size_t)told >= size)
        room = (size_t)told;
    while (room < size)
        room *= 2;
    if (room > easy->answer_size_max)
        room = easy->answer_size_max;
    if (easy->call != NULL && !caller_admits(easy->call, (room - easy->room) * CALLER_ROOM_WEIGHT))
        return false;
    budget_take(BUDGET_ANSWERS, (room - easy->room) * CALLER_ROOM_WEIGHT);
    easy->room = room;
    return buf_reserve(&easy->body, room);
}

static size_t take_body(char *data, size_t one, size_t size, void *context)
{
    struct caller_easy *easy = context;

    (void)one; /* always 1 */
    if (size <= easy->answer_size_max - easy->body.size && !make_room(easy, easy->body.size + size))
        return CURL_WRITEFUNC_PAUSE;
    if (buf_put(&easy->body, data, size))
        return size;
    easy->too_large = true;
    return 0;
}

/* The value of the header line when its name is `name`, else STR_NONE. */
static struct str header_value(struct str line, const char *name)
{
    size_t size = strlen(name);
    const char *end = line.data + line.size;
    const char *at = line.data + size + 1;

    if (line.size <= size || line.data[size] != ':' || strncasecmp(line.data, name, size) != 0)
        return STR_NONE;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    while (end > at && isspace((unsigned char)end[-1]))
        end--;
    return (struct str){at, (size_t)(end - at)};
}

static size_t take_header(char *data, size_t one, size_t size, void *context)
{
    struct caller_easy *easy = context;
    struct str line = {data, size};
    struct str value;

    (void)one;
    easy->headers_size += size;
    if (easy->headers_size > CALLER_HEADERS_SIZE_MAX) {
        easy->headers_too_large = true;
        return 0;
    }
    if (size >= 5 && memcmp(data, "HTTP/", 5) == 0) { /* another answer: what came before was an interim one */
        easy->retry_after_ms = easy->retry_after_s_ms = 0;
        return size;
    }
    value = header_value(line, "retry-after-ms");
    if (value.data != NULL)
        easy->retry_after_ms = caller_easy_retry_after_ms(value, 1, clock_wall_ms());
    value = header_value(line, "retry-after");
    if (value.data != NULL)
        easy->retry_after_s_ms = caller_easy_retry_after_ms(value, 1000, clock_wall_ms());
    return size;
}

int64_t caller_easy_retry_after_ms(struct str value, int64_t unit_ms, int64_t now_wall_ms)
{
    char text[64], *end;
    double number, ms;
    time_t date;

    if (value.size == 0 || value.size >= sizeof text)
        return 0;
    memcpy(text, value.data, value.size);
    text[value.size] = '\0';
    if (isdigit((unsigned char)text[0]) || text[0] == '.') {
        number = strtod(text, &end);
        if (*end != '\0' || !isfinite(number))
            return 0;
        ms = number * (double)unit_ms;
    } else {
        date = unit_ms == 1000 ? curl_getdate(text, NULL) : -1;
        if (date == -1)
            return 0;
        ms = (double)date * 1000 - (double)now_wall_ms;
    }
    if (ms <= 0)
        return 0;
    return ms >= (double)CALLER_RETRY_AFTER_MS_MAX ? CALLER_RETRY_AFTER_MS_MAX : (int64_t)ceil(ms);
}

#ifdef MYELIN_CRASH_POINTS
/* Only libcurl's trace tells when the last byte of a request is in the socket. */
static int sent(CURL *curl, curl_infotype type, char *data, size_t size, void *context)
{
    struct caller_easy *easy = context;

    (void)curl;
    (void)data;
    if (type == CURLINFO_DATA_OUT)
        easy->body_out += size;
    if ((type == CURLINFO_HEADER_OUT && easy->body_out_size == 0) ||
        (type == CURLINFO_DATA_OUT && easy->body_out == easy->body_out_size))
        CRASH_POINT("after_call_sent");
    return 0;
}
#endif

/* ---- the request ---- */

static bool is_loopback(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 || strncmp(host, "127.", 4) == 0;
}

/* The parts of the URL that matter to us. `direct`: it names this machine. */
static bool read_url(struct caller_easy *easy, struct str url, bool *direct, struct error *error)
{
    CURLU *parsed = curl_url();
    char *scheme = NULL, *host = NULL, *user = NULL, *password = NULL, *query = NULL;
    bool good = parsed != NULL && url.data != NULL && strlen(url.data) == url.size &&
                curl_url_set(parsed, CURLUPART_URL, url.data, 0) == CURLUE_OK &&
                curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);

    if (good) {
        *direct = is_loopback(host);
        (void)curl_url_get(parsed, CURLUPART_USER, &user, 0);
        (void)curl_url_get(parsed, CURLUPART_PASSWORD, &password, 0);
        (void)curl_url_get(parsed, CURLUPART_QUERY, &query, 0);
        easy->secret_user = password != NULL ? password : user;
        easy->secret_query = query;
        if (password != NULL)
            curl_free(user);
    } else {
        /* The URL itself is not shown: it may hold a key. */
        (void)error_set(error, ERROR_POISON, "the URL is not valid: it must be http://HOST... or https://HOST...");
    }
    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(parsed);
    return good;
}

/* RFC 9110, 5.6.2: a token. */
static bool is_token(struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (!isalnum(c) && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
            return false;
    }
    return text.size > 0;
}

/* Nothing that ends a header line early (CR, LF, NUL) or that proxies take differently. */
static bool is_header_value(struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool add_line(struct caller_easy *easy, const char *line)
{
    struct curl_slist *headers = curl_slist_append(easy->headers, line);

    if (headers == NULL)
        return false;
    easy->headers = headers;
    return true;
}

static bool add_headers(struct caller_easy *easy, const struct http_request *request, struct error *error)
{
    bool typed = false, fits = true;
    struct buf line;

    buf_init(&line, HEADER_LINE_SIZE_MAX);
    for (size_t i = 0; i < request->headers_count && fits; i++) {
        const struct http_header *header = &request->headers[i];

        if (!is_token(header->name) || !is_header_value(header->value)) {
            buf_free(&line);
            return error_set(error, ERROR_POISON,
                             "header %zu (%.40s): a name of letters, digits and dashes and a value "
                             "without control characters are allowed",
                             i + 1, is_token(header->name) ? header->name.data : "its name is not valid");
        }
        typed = typed || (header->name.size == 12 && strncasecmp(header->name.data, "content-type", 12) == 0);
        buf_clear(&line);
        /* "Name;" is libcurl's way to say a header without a value. */
        fits = header->value.size > 0 ? buf_printf(&line, "%.*s: %.*s", STR_ARG(header->name), STR_ARG(header->value))
                                      : buf_printf(&line, "%.*s;", STR_ARG(header->name));
        fits = fits && add_line(easy, line.data);
    }
    buf_free(&line);
    /* No 100-continue: a round trip, and a wait of 1 s at servers that do not know it. No content type made up by libcurl. */
    fits = fits && add_line(easy, "Expect:") && (typed || add_line(easy, "Content-Type:"));
    return fits || error_set(error, ERROR_POISON, "a header is over %zu bytes", HEADER_LINE_SIZE_MAX);
}

static CURLcode set_method(CURL *curl, struct str method, struct str body)
{
    bool has_body = body.data != NULL;
    CURLcode code = CURLE_OK;

    if (has_body || str_is(method, "POST")) {
        code = curl_easy_setopt(curl, CURLOPT_POST, 1L);
        if (code == CURLE_OK)
            code = curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.size);
        if (code == CURLE_OK)
            code = curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, has_body ? body.data : "");
    } else if (str_is(method, "HEAD")) {
        code = curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    }
    if (code == CURLE_OK && !str_is(method, "GET") && !str_is(method, "POST") && !str_is(method, "HEAD"))
        code = curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method.data);
    else if (code == CURLE_OK && has_body && !str_is(method, "POST"))
        code = curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method.data);
    return code;
}

#define SET(option, value)                                                                                             \
    do {                                                                                                               \
        if (code == CURLE_OK)                                                                                          \
            code = curl_easy_setopt(easy->curl, option, value);                                                        \
    } while (0)

/* What holds for every request. */
static CURLcode set_rules(struct caller_easy *easy, const struct caller_settings *settings, bool direct)
{
    CURLcode code = CURLE_OK;

    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    if (settings->ca_file != NULL)
        SET(CURLOPT_CAINFO, settings->ca_file);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)settings->connect_timeout_ms);
    /* A resolver that hangs must not hold up the loop when its call is given up: libcurl then leaves the thread alone. */
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_USERAGENT, "myelin");
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    /* http_proxy, https_proxy and no_proxy of the environment are obeyed, as by everything on the machine; but a proxy
     * cannot reach this machine's own loopback. */
    if (direct)
        SET(CURLOPT_PROXY, "");
    SET(CURLOPT_ERRORBUFFER, easy->said);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, easy);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, easy);
    SET(CURLOPT_PREREQFUNCTION, about_to_send);
    SET(CURLOPT_PREREQDATA, easy);
#ifdef MYELIN_CRASH_POINTS
    SET(CURLOPT_DEBUGFUNCTION, sent);
    SET(CURLOPT_DEBUGDATA, easy);
    SET(CURLOPT_VERBOSE, 1L);
#endif
    return code;
}

bool caller_easy_prepare(struct caller_easy *easy, const struct caller_settings *settings,
                         const struct http_request *request, struct error *error)
{
    CURLcode code;
    bool direct;

    easy->write = request->write;
    easy->send_until_boot_ms = request->send_until_boot_ms;
    easy->timeout_ms = request->timeout_ms;
    easy->answer_size_max = request->answer_size_max;
    easy->body.size_max = request->answer_size_max;
    easy->body_out_size = request->body.size;
    easy->started_us = clock_mono_us();
    if (!is_token(request->method) || request->method.size > 20)
        return error_set(error, ERROR_POISON, "not an HTTP method");
    if (!read_url(easy, request->url, &direct, error) || !add_headers(easy, request, error))
        return false;
    code = set_rules(easy, settings, direct);
    SET(CURLOPT_URL, request->url.data);
    SET(CURLOPT_HTTPHEADER, easy->headers);
    if (easy->write) {
        /* A connection of its own: on a reused one that proves dead libcurl would send the request again by itself. HTTP/1.1:
         * with HTTP/2 it also does after REFUSED_STREAM. */
        SET(CURLOPT_FRESH_CONNECT, 1L);
        SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    }
    if (code == CURLE_OK)
        code = set_method(easy->curl, request->method, request->body);
    return code == CURLE_OK || error_set(error, ERROR_POISON, "libcurl: %s", curl_easy_strerror(code));
}

/* ---- the answer ---- */

/* libcurl's words name hosts and ports; should they ever quote a secret part of the URL, they are not used. */
static const char *safe_words(const struct caller_easy *easy, CURLcode code)
{
    const char *secrets[] = {easy->secret_user, easy->secret_query};

    if (easy->said[0] == '\0')
        return curl_easy_strerror(code);
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        if (secrets[i] != NULL && secrets[i][0] != '\0' && strstr(easy->said, secrets[i]) != NULL)
            return curl_easy_strerror(code);
    }
    return easy->said;
}

static void set_reason(struct caller_easy *easy, CURLcode code, bool timed_out)
{
    char *reason = easy->reason;
    size_t size = sizeof easy->reason;

    if (easy->late)
        (void)snprintf(reason, size, "not sent: the connection stood too late for this write's time limit");
    else if (timed_out && easy->leaving)
        (void)snprintf(reason, size, "no whole answer within %lld ms", (long long)easy->timeout_ms);
    else if (timed_out)
        (void)snprintf(reason, size, "no connection within %lld ms", (long long)easy->timeout_ms);
    else if (easy->too_large)
        (void)snprintf(reason, size, "the answer is over %zu bytes", easy->answer_size_max);
    else if (easy->headers_too_large)
        (void)snprintf(reason, size, "the answer's headers are over %zu bytes", CALLER_HEADERS_SIZE_MAX);
    else
        (void)snprintf(reason, size, "%s", safe_words(easy, code));
}

void caller_easy_answer(struct caller_easy *easy, CURLcode code, bool timed_out, struct http_answer *answer)
{
    char *content_type = NULL;
    long status = 0;

    (void)curl_easy_getinfo(easy->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(easy->curl, CURLINFO_CONTENT_TYPE, &content_type);
    *answer = (struct http_answer){
        .status = easy->leaving ? (int32_t)status : 0,
        .content_type = str_of(content_type),
        .retry_after_ms = easy->retry_after_ms > 0 ? easy->retry_after_ms : easy->retry_after_s_ms,
        .duration_ms = (clock_mono_us() - easy->started_us) / 1000,
    };
    if (!timed_out && code == CURLE_OK) {
        answer->end = HTTP_ANSWERED;
        answer->body = buf_str(&easy->body);
        return;
    }
    answer->end = !easy->leaving ? HTTP_NOT_SENT : easy->too_large ? HTTP_TOO_LARGE : HTTP_UNKNOWN;
    set_reason(easy, code, timed_out);
    answer->reason = easy->reason;
}

/* ---- life ---- */

bool caller_easy_init(struct caller_easy *easy, struct error *error)
{
    *easy = (struct caller_easy){.curl = curl_easy_init()};
    buf_init(&easy->body, 0);
    return easy->curl != NULL || error_set(error, ERROR_FATAL, "libcurl: no memory for a handle");
}

void caller_easy_clear(struct caller_easy *easy)
{
    CURL *curl = easy->curl;

    curl_easy_reset(curl); /* before the list of headers goes, which it borrows */
    curl_slist_free_all(easy->headers);
    curl_free(easy->secret_user);
    curl_free(easy->secret_query);
    buf_free(&easy->body);
    budget_give(BUDGET_ANSWERS, easy->room * CALLER_ROOM_WEIGHT);
    *easy = (struct caller_easy){.curl = curl};
}

void caller_easy_free(struct caller_easy *easy)
{
    caller_easy_clear(easy);
    curl_easy_cleanup(easy->curl);
    easy->curl = NULL;
}
