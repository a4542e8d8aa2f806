#include "worker/io/caller.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/io/caller_easy.h"
#include "worker/io/clock.h"

#define CONNECTIONS_MAX_DEFAULT 1024
#define CONNECTIONS_PER_HOST_MAX_DEFAULT 256
#define CONNECT_TIMEOUT_MS_DEFAULT 5000
#define RESUME_LOOK_MS 100 /* other threads give memory back without a word */
#define LANE_CONNECTIONS 256
#define LANES_MAX 32

/* libcurl looks through all connections to a host for one that is free, and through all calls that ended for each one: with thousands
 * in one multi handle it does little else. So there are several, and a call goes to the one that has the fewest. */
struct lane {
    struct caller *caller;
    CURLM *multi;
    int64_t timer_ms; /* when libcurl wants to be called; INT64_MAX = never */
    int32_t calls_count;
};

struct caller_call {
    struct caller *caller;
    struct lane *lane;
    struct caller_call *before, *after; /* in flight; in the pool only `after` */
    caller_done *done;
    void *context;
    int64_t deadline_ms; /* CLOCK_MONOTONIC */
    bool answering;      /* `done` is being called: there is nothing left to cancel */

    struct caller_call *paused_before, *paused_after;
    int64_t paused_ms; /* since when its answer waits for memory; 0 = it does not */
    size_t wants;      /* so much */
    struct caller_easy easy;
};

struct caller {
    struct caller_settings settings;
    struct lane lanes[LANES_MAX];
    int lanes_count;
    unsigned char *lane_of; /* by socket */
    size_t sockets_max;
    int epoll_fd, wake_fd; /* wake_fd: an eventfd that says "call caller_tick sooner than you were told" */
    uint32_t tag;
    struct caller_call *calls;
    struct caller_call *paused, *paused_last; /* whose answers wait for memory, in the order in which they began to */
    struct caller_call *resuming;             /* one of them, which goes on now; out of the list already */
    struct caller_call *first;                /* whose answer is read beyond the mark that holds for the others */
    int32_t paused_count;
    struct caller_call *pool; /* for the next calls; as many as were once in flight at the same time */
    int32_t calls_count;
    int64_t deadline_ms; /* no call's deadline is earlier; may be too early, then a look at all of them corrects it */
    int64_t promised_ms; /* what the last caller_tick returned */
};

static int64_t now_ms(void)
{
    return clock_mono_us() / 1000;
}

static uint64_t epoll_key(const struct caller *caller, int fd)
{
    return (uint64_t)caller->tag << 32 | (uint32_t)fd;
}

/* Something is due at `due_ms`: when that is before what the loop was told, it is woken. */
static void wake_before(struct caller *caller, int64_t due_ms)
{
    uint64_t one = 1;

    if (due_ms >= caller->promised_ms)
        return;
    caller->promised_ms = due_ms;
    (void)!write(caller->wake_fd, &one, sizeof one); /* fails only when it is already readable */
}

/* ---- what libcurl calls ---- */

static void note_lane(struct caller *caller, curl_socket_t fd, const struct lane *lane)
{
    size_t at = (size_t)fd;

    if (at >= caller->sockets_max) {
        size_t more = at * 2 + 64;

        caller->lane_of = realloc(caller->lane_of, more);
        if (caller->lane_of == NULL)
            abort(); /* no memory */
        memset(caller->lane_of + caller->sockets_max, 0, more - caller->sockets_max);
        caller->sockets_max = more;
    }
    caller->lane_of[at] = (unsigned char)(lane - caller->lanes);
}

static int watch_socket(CURL *curl, curl_socket_t fd, int what, void *context, void *known)
{
    struct lane *lane = context;
    struct caller *caller = lane->caller;
    struct epoll_event event = {.data.u64 = epoll_key(caller, fd)};
    int failed;

    (void)curl;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(caller->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);
    failed = epoll_ctl(caller->epoll_fd, known == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
    if (failed != 0 && errno == EEXIST)
        failed = epoll_ctl(caller->epoll_fd, EPOLL_CTL_MOD, fd, &event);
    else if (failed != 0 && errno == ENOENT)
        failed = epoll_ctl(caller->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    (void)curl_multi_assign(lane->multi, fd, caller);
    note_lane(caller, fd, lane);
    return failed; /* -1 makes libcurl give up this transfer */
}

static int set_timer(CURLM *multi, long timeout_ms, void *context)
{
    struct lane *lane = context;

    (void)multi;
    lane->timer_ms = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
    wake_before(lane->caller, lane->timer_ms);
    return 0;
}

/* ---- memory ---- */

/* Answers that were begun could hold all the memory that answers may have, and each wait for more. So one goes on beyond that
 * mark, the same until its end: for it alone there is room. */
static bool may_read(struct caller_call *call, size_t more)
{
    struct caller *caller = call->caller;
    bool may = budget_admits(BUDGET_READ, (int64_t)more);

    if (!may && (caller->first == NULL || caller->first == call)) {
        caller->first = call;
        may = budget_admits(BUDGET_READ_ONE, (int64_t)more);
    }
    return may;
}

/* One that holds memory already goes before those that do not. */
static void pause_call(struct caller_call *call, size_t more)
{
    struct caller *caller = call->caller;
    struct caller_call *before = call->easy.room > 0 ? NULL : caller->paused_last;
    struct caller_call *after = call->easy.room > 0 ? caller->paused : NULL;

    call->wants = more;
    call->paused_ms = now_ms();
    call->paused_before = before;
    call->paused_after = after;
    *(before != NULL ? &before->paused_after : &caller->paused) = call;
    *(after != NULL ? &after->paused_before : &caller->paused_last) = call;
    caller->paused_count++;
}

static void unpause(struct caller_call *call)
{
    struct caller *caller = call->caller;
    struct caller_call *before = call->paused_before, *after = call->paused_after;

    *(before != NULL ? &before->paused_after : &caller->paused) = after;
    *(after != NULL ? &after->paused_before : &caller->paused_last) = before;
    call->paused_ms = 0;
    caller->paused_count--;
}

bool caller_admits(struct caller_call *call, size_t more)
{
    const struct caller *caller = call->caller;
    bool waits = call->easy.room == 0 && caller->paused != NULL && caller->resuming != call;

    if (!waits && may_read(call, more))
        return true;
    pause_call(call, more);
    return false;
}

static struct caller_call *next_paused(const struct caller *caller)
{
    return caller->first != NULL && caller->first->paused_ms > 0 ? caller->first : caller->paused;
}

/* The time that an answer waited for our memory is not its server's: its call has that much longer. For a write this is safe: it
 * was executed, and whoever took its record over meanwhile refuses the result (its fence). */
static void resume(struct caller *caller)
{
    for (struct caller_call *call; (call = next_paused(caller)) != NULL && may_read(call, call->wants);) {
        caller->resuming = call;
        call->deadline_ms += now_ms() - call->paused_ms;
        if (call->deadline_ms < caller->deadline_ms)
            caller->deadline_ms = call->deadline_ms;
        unpause(call);
        (void)curl_easy_pause(call->easy.curl, CURLPAUSE_CONT); /* gives what libcurl has to take_body, at once */
        caller->resuming = NULL;
    }
}

/* ---- one call ---- */

static void unlink_call(struct caller_call *call)
{
    struct caller *caller = call->caller;

    (void)curl_multi_remove_handle(call->lane->multi, call->easy.curl);
    call->lane->calls_count--;
    if (call->paused_ms > 0)
        unpause(call);
    if (caller->first == call)
        caller->first = NULL;
    if (caller->calls == call)
        caller->calls = call->after;
    else
        call->before->after = call->after;
    if (call->after != NULL)
        call->after->before = call->before;
    caller->calls_count--;
}

static void recycle(struct caller_call *call)
{
    struct caller *caller = call->caller;

    caller_easy_clear(&call->easy);
    call->after = caller->pool;
    caller->pool = call;
}

static void answer(struct caller_call *call, CURLcode code, bool timed_out)
{
    struct http_answer answer;

    call->answering = true;
    caller_easy_answer(&call->easy, code, timed_out, &answer);
    unlink_call(call);
    call->done(call->context, &answer);
    recycle(call);
}

static void answer_finished(struct lane *lane)
{
    CURLMsg *message;
    int left;

    /* curl_multi_remove_handle also removes the messages of a call that `done` cancels. */
    while ((message = curl_multi_info_read(lane->multi, &left)) != NULL) {
        struct caller_call *call = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        answer(call, message->data.result, false);
    }
}

/* A call whose time is up, or NULL; then `deadline_ms` is the earliest of those that are left. */
static struct caller_call *overdue(struct caller *caller, int64_t at_ms)
{
    if (at_ms < caller->deadline_ms)
        return NULL;
    caller->deadline_ms = INT64_MAX;
    for (struct caller_call *call = caller->calls; call != NULL; call = call->after) {
        if (call->paused_ms > 0)
            continue;
        if (call->deadline_ms < caller->deadline_ms)
            caller->deadline_ms = call->deadline_ms;
        if (call->deadline_ms <= at_ms)
            return call;
    }
    return NULL;
}

/* libcurl has timeouts of its own, but none for a request that waits for a free connection. */
static void answer_overdue(struct caller *caller, int64_t at_ms)
{
    struct caller_call *call;

    while ((call = overdue(caller, at_ms)) != NULL)
        answer(call, CURLE_OPERATION_TIMEDOUT, true);
}

/* A write must be over when the time after which others may act has come: see ledger.h for the sum. */
static int64_t time_left_ms(const struct http_request *request)
{
    int64_t left_ms;

    if (!request->write)
        return request->timeout_ms;
    left_ms = request->send_until_boot_ms + request->timeout_ms / 2 - clock_boot_ms();
    return left_ms < request->timeout_ms ? left_ms : request->timeout_ms;
}

static struct lane *emptiest(struct caller *caller)
{
    struct lane *found = &caller->lanes[0];

    for (int i = 1; i < caller->lanes_count; i++)
        found = caller->lanes[i].calls_count < found->calls_count ? &caller->lanes[i] : found;
    return found;
}

static struct caller_call *new_call(struct caller *caller, struct error *error)
{
    struct caller_call *call = caller->pool;

    if (call != NULL) {
        caller->pool = call->after;
        return call;
    }
    call = calloc(1, sizeof *call);
    if (call == NULL || !caller_easy_init(&call->easy, error)) {
        free(call);
        (void)error_set(error, ERROR_FATAL, "no memory for a call");
        return NULL;
    }
    call->caller = caller;
    return call;
}

struct caller_call *caller_start(struct caller *caller, const struct http_request *request, caller_done *done,
                                 void *context, struct error *error)
{
    struct caller_call *call = new_call(caller, error);
    CURLMcode code;

    if (call == NULL)
        return NULL;
    if (!caller_easy_prepare(&call->easy, &caller->settings, request, error)) {
        recycle(call);
        return NULL;
    }
    call->easy.call = call;
    call->done = done;
    call->context = context;
    call->answering = false;
    call->deadline_ms = now_ms() + time_left_ms(request);
    (void)curl_easy_setopt(call->easy.curl, CURLOPT_PRIVATE, call);
    call->lane = emptiest(caller);
    code = curl_multi_add_handle(call->lane->multi, call->easy.curl);
    if (code != CURLM_OK) {
        (void)error_set(error, ERROR_FATAL, "libcurl: %s", curl_multi_strerror(code));
        recycle(call);
        return NULL;
    }
    call->before = NULL;
    call->after = caller->calls;
    if (caller->calls != NULL)
        caller->calls->before = call;
    caller->calls = call;
    caller->calls_count++;
    call->lane->calls_count++;
    if (call->deadline_ms < caller->deadline_ms)
        caller->deadline_ms = call->deadline_ms;
    return call; /* the loop is awake: adding the handle set libcurl's timer */
}

void caller_cancel(struct caller_call *call)
{
    if (call == NULL || call->answering)
        return;
    unlink_call(call);
    recycle(call);
}

int32_t caller_in_flight(const struct caller *caller)
{
    return caller->calls_count;
}

int32_t caller_paused(const struct caller *caller)
{
    return caller->paused_count;
}

/* ---- the loop's side ---- */

void caller_ready(struct caller *caller, int fd, uint32_t epoll_events)
{
    int running, action = 0;
    uint64_t count;
    struct lane *lane;

    if (fd == caller->wake_fd) {
        (void)!read(fd, &count, sizeof count); /* the loop calls caller_tick before it sleeps again */
        return;
    }
    if ((epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        action |= CURL_CSELECT_IN;
    if ((epoll_events & (EPOLLOUT | EPOLLERR)) != 0)
        action |= CURL_CSELECT_OUT;
    lane = &caller->lanes[(size_t)fd < caller->sockets_max ? caller->lane_of[fd] : 0];
    (void)curl_multi_socket_action(lane->multi, fd, action, &running);
    answer_finished(lane);
}

static void turn(struct lane *lane, int64_t now_mono_ms)
{
    int running;

    if (now_mono_ms >= lane->timer_ms) {
        lane->timer_ms = INT64_MAX;
        (void)curl_multi_socket_action(lane->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    answer_finished(lane);
}

void caller_awake(struct caller *caller)
{
    caller->promised_ms = INT64_MIN; /* no need to wake anybody */
}

int64_t caller_tick(struct caller *caller, int64_t now_mono_ms)
{
    int64_t next_ms = INT64_MAX;

    caller_awake(caller);
    resume(caller);
    for (int i = 0; i < caller->lanes_count; i++)
        turn(&caller->lanes[i], now_mono_ms);
    answer_overdue(caller, now_mono_ms);
    for (int i = 0; i < caller->lanes_count; i++) /* what ended may have begun others, in any of them */
        next_ms = caller->lanes[i].timer_ms < next_ms ? caller->lanes[i].timer_ms : next_ms;
    caller->promised_ms = next_ms < caller->deadline_ms ? next_ms : caller->deadline_ms;
    if (caller->paused != NULL && now_mono_ms + RESUME_LOOK_MS < caller->promised_ms)
        caller->promised_ms = now_mono_ms + RESUME_LOOK_MS;
    return caller->promised_ms;
}

#define SET(option, value)                                                                                             \
    do {                                                                                                               \
        if (code == CURLM_OK)                                                                                          \
            code = curl_multi_setopt(lane->multi, option, value);                                                      \
    } while (0)

static bool open_lane(struct caller *caller, struct lane *lane)
{
    CURLMcode code = CURLM_OK;
    long connections_max = caller->settings.connections_max / caller->lanes_count + 1;

    *lane = (struct lane){.caller = caller, .multi = curl_multi_init(), .timer_ms = INT64_MAX};
    if (lane->multi == NULL)
        return false;
    SET(CURLMOPT_SOCKETFUNCTION, watch_socket);
    SET(CURLMOPT_SOCKETDATA, lane);
    SET(CURLMOPT_TIMERFUNCTION, set_timer);
    SET(CURLMOPT_TIMERDATA, lane);
    SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, connections_max);
    SET(CURLMOPT_MAX_HOST_CONNECTIONS, (long)caller->settings.connections_per_host_max);
    SET(CURLMOPT_MAXCONNECTS, connections_max);
    return code == CURLM_OK;
}

static bool open_lanes(struct caller *caller)
{
    int count = caller->settings.connections_per_host_max / LANE_CONNECTIONS;

    caller->lanes_count = count < 1 ? 1 : count > LANES_MAX ? LANES_MAX : count;
    for (int i = 0; i < caller->lanes_count; i++) {
        if (!open_lane(caller, &caller->lanes[i]))
            return false;
    }
    return true;
}

struct caller *caller_open(const struct caller_settings *settings, int epoll_fd, uint32_t tag, struct error *error)
{
    struct caller *caller = calloc(1, sizeof *caller);
    struct epoll_event event = {.events = EPOLLIN};

    if (caller == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(caller);
        (void)error_set(error, ERROR_FATAL, "libcurl does not start");
        return NULL;
    }
    /* OpenSSL writes to sockets that the other side may have closed. */
    (void)sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    *caller = (struct caller){.settings = *settings, .epoll_fd = epoll_fd, .tag = tag, .wake_fd = -1};
    caller->deadline_ms = caller->promised_ms = INT64_MAX;
    if (caller->settings.connections_max <= 0)
        caller->settings.connections_max = CONNECTIONS_MAX_DEFAULT;
    if (caller->settings.connections_per_host_max <= 0)
        caller->settings.connections_per_host_max = CONNECTIONS_PER_HOST_MAX_DEFAULT;
    if (caller->settings.connect_timeout_ms <= 0)
        caller->settings.connect_timeout_ms = CONNECT_TIMEOUT_MS_DEFAULT;
    caller->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    event.data.u64 = epoll_key(caller, caller->wake_fd);
    if (caller->wake_fd < 0 || !open_lanes(caller) ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, caller->wake_fd, &event) != 0) {
        caller_close(caller);
        (void)error_set(error, ERROR_FATAL, "the HTTP client does not start: %s", strerrordesc_np(errno));
        return NULL;
    }
    return caller;
}

static void free_call(struct caller_call *call)
{
    caller_easy_free(&call->easy);
    free(call);
}

void caller_close(struct caller *caller)
{
    struct caller_call *after;

    if (caller == NULL)
        return;
    for (struct caller_call *call = caller->calls; call != NULL; call = after) {
        after = call->after;
        (void)curl_multi_remove_handle(call->lane->multi, call->easy.curl);
        free_call(call);
    }
    for (struct caller_call *call = caller->pool; call != NULL; call = after) {
        after = call->after;
        free_call(call);
    }
    for (int i = 0; i < caller->lanes_count; i++) {
        if (caller->lanes[i].multi != NULL)
            (void)curl_multi_cleanup(caller->lanes[i].multi);
    }
    free(caller->lane_of);
    if (caller->wake_fd >= 0)
        (void)close(caller->wake_fd);
    free(caller);
    curl_global_cleanup();
}
