/* HTTP calls: they leave when the loop has its turn, and not after their limit; see outside.h for what becomes of them. */
#include "worker/io/caller.h"

#include "tests/sim/outside.h"
#include "tests/sim/world.h"
#include "worker/base/mem.h"
#include "worker/io/clock.h"

#define LEAVE_MS_MAX 900 /* a connection must be found */

struct caller_call {
    struct caller_call *next;
    struct http_request request;
    caller_done *done;
    void *context;
    int64_t leaves_us, began_us, give_up_us;
    struct exchange *exchange; /* NULL: it has not left */
};

struct caller {
    struct life *life;
    struct caller_call *calls;
    int32_t count;
};

struct caller *caller_open(const struct caller_settings *settings, int epoll_fd, uint32_t tag, struct error *error)
{
    struct caller *caller = mem_new(sizeof(*caller));
    (void)settings;
    (void)epoll_fd;
    (void)tag;
    (void)error;
    caller->life = world.running;
    return caller;
}

void caller_close(struct caller *caller)
{
    mem_free(caller); /* what was sent stays sent */
}

static struct str keep(struct str text)
{
    return arena_str(world.arena, text);
}

static struct http_request copy(const struct http_request *request)
{
    struct http_header *headers = ARENA_ARRAY(world.arena, request->headers_count + 1, struct http_header);
    struct http_request kept = *request;
    for (size_t i = 0; i < request->headers_count; i++)
        headers[i] = (struct http_header){keep(request->headers[i].name), keep(request->headers[i].value)};
    kept.headers = headers;
    kept.url = keep(request->url);
    kept.body = keep(request->body);
    return kept;
}

struct caller_call *caller_start(struct caller *caller, const struct http_request *request, caller_done *done,
                                 void *context, struct error *error)
{
    struct caller_call *call = ARENA_NEW(world.arena, struct caller_call);
    (void)error;
    *call = (struct caller_call){.next = caller->calls,
                                 .request = copy(request),
                                 .done = done,
                                 .context = context,
                                 .began_us = world.now_us,
                                 .leaves_us = world.now_us +
                                              dice_between(0, world.apart ? LEAVE_MS_MAX / 30 : LEAVE_MS_MAX) * 1000,
                                 .give_up_us = world.now_us + request->timeout_ms * 1000};
    if (request->write) { /* see io/ledger.h for the sum */
        int64_t left_ms = request->send_until_boot_ms + request->timeout_ms / 2 - clock_boot_ms();
        if (left_ms < request->timeout_ms)
            call->give_up_us = world.now_us + left_ms * 1000;
    }
    caller->calls = call;
    caller->count++;
    (void)life_goes_on(caller->life);
    return call;
}

int32_t caller_in_flight(const struct caller *caller)
{
    return caller->count;
}

int32_t caller_paused(const struct caller *caller)
{
    (void)caller;
    return 0;
}

/* ---- how it goes on ---- */

static void answer(struct caller *caller, struct caller_call *call, struct http_answer answer)
{
    struct caller_call **at = &caller->calls;
    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    caller->count--;
    answer.duration_ms = (world.now_us - call->began_us) / 1000;
    call->done(call->context, &answer);
}

/* True: it has ended. */
static bool serve(struct caller *caller, struct caller_call *call)
{
    const struct exchange *exchange = call->exchange;
    if (exchange != NULL && exchange->answers_us <= world.now_us) {
        answer(caller, call,
               (struct http_answer){.end = HTTP_ANSWERED,
                                    .status = exchange->status,
                                    .body = exchange->answer,
                                    .content_type = STR("application/json")});
        return true;
    }
    if (world.now_us >= call->give_up_us) {
        answer(caller, call,
               (struct http_answer){.end = exchange != NULL ? HTTP_UNKNOWN : HTTP_NOT_SENT, .reason = "timed out"});
        return true;
    }
    if (exchange != NULL || world.now_us < call->leaves_us || !life_goes_on(caller->life))
        return false;
    bool late = call->request.write && clock_boot_ms() > call->request.send_until_boot_ms;
    call->exchange = late ? NULL : outside_send(&call->request);
    if (call->exchange == NULL)
        answer(caller, call,
               (struct http_answer){.end = HTTP_NOT_SENT, .reason = late ? "too late to be sent" : "no connection"});
    return call->exchange == NULL;
}

int64_t caller_tick(struct caller *caller, int64_t now_mono_ms)
{
    (void)now_mono_ms;
    for (struct caller_call *call = caller->calls, *next; call != NULL && !caller->life->dead; call = next) {
        next = call->next;
        (void)serve(caller, call);
    }
    return INT64_MAX;
}
