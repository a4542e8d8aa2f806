#include "worker/io/ledger.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "worker/base/mem.h"
#include "worker/io/clock.h"
#include "worker/io/ledger_asks.h"
#include "worker/io/ledger_leases.h"
#include "worker/io/ledger_link.h"
#include "worker/io/ledger_returned.h"
#include "worker/io/ledger_slot.h"

#define SETTLE_MS_DEFAULT 1000
#define READ_KEEP_MS_DEFAULT ((int64_t)24 * 3600 * 1000)
#define LEASE_MS_DEFAULT 5000
#define COUNT_KEEP_MS ((int64_t)24 * 3600 * 1000)
#define POLL_MS_MIN 100 /* a read that somebody else has in flight: asked for again, ever more slowly */
#define POLL_MS_MAX 1000
#define REASON_SIZE 400
#define RESULT_SIZE_MAX (((size_t)1 << 20) + 4096) /* an answer and its first line */
#define NAME_SPACE_SIZE_MAX 200
#define NAME_SIZE (NAME_SPACE_SIZE_MAX + LEDGER_RUN_SIZE_MAX + 16)

enum kind { OP_RESERVE, OP_TAKEOVER, OP_COMPLETE, OP_LEASE, OP_COUNT, OP_FORGET };

struct ledger_op {
    struct ledger *ledger;
    struct ledger_op *before, *after; /* in `ended` or `waiting` */
    struct ledger_op **list;          /* the one it is in; NULL = its script is in flight */
    ledger_done *done;
    void *context;
    enum kind kind;
    bool cancelled;
    char key[LEDGER_KEY_SIZE_MAX + 1]; /* FORGET: none */
    char run[LEDGER_RUN_SIZE_MAX + 1]; /* RESERVE, TAKEOVER, COMPLETE, FORGET */
    struct ledger_ask ask;             /* RESERVE, TAKEOVER */
    int64_t timeout_ms, asked_boot_ms; /* RESERVE, TAKEOVER */
    int64_t poll_at_ms, poll_ms;       /* LEASE that waits */
    char reason[REASON_SIZE];          /* `ended`: why it is down */
};

struct ledger {
    struct ledger_settings settings;
    struct arena *arena; /* owns the texts of the settings */
    struct ledger_link *link;
    struct ledger_op *ended;   /* to be told LEDGER_DOWN */
    struct ledger_op *telling; /* those that are being told */
    struct ledger_op *waiting; /* leases of others */
    struct ledger_asks asks;
    struct ledger_leases leases;
    struct ledger_slot slot;
};

static void on_reply(void *context, const redisReply *reply);

/* ---- small things ---- */

static void put_in(struct ledger_op **list, struct ledger_op *op)
{
    op->before = NULL;
    op->after = *list;
    op->list = list;
    if (*list != NULL)
        (*list)->before = op;
    *list = op;
}

static void take_out(struct ledger_op *op)
{
    if (*op->list == op)
        *op->list = op->after;
    else
        op->before->after = op->after;
    if (op->after != NULL)
        op->after->before = op->before;
    op->list = NULL;
}

static enum ledger_ask_kind ask_kind(const struct ledger_op *op)
{
    return op->kind == OP_RESERVE ? ASK_RESERVE : ASK_TAKEOVER;
}

static struct str number(char text[24], int64_t value)
{
    (void)snprintf(text, 24, "%lld", (long long)value);
    return str_of(text);
}

/* The name of a record in Redis; `type` is 'w', 'r' or 'd'. */
static struct str record_key(const struct ledger *ledger, char type, const char *key, char name[NAME_SIZE])
{
    int size = snprintf(name, NAME_SIZE, "{%s}:%c:%s", ledger->settings.name_space, type, key);

    assert(size > 0 && size < NAME_SIZE);
    return str_of(name);
}

/* Of the set of a run's records. */
static struct str run_key(const struct ledger *ledger, const char *run, char name[NAME_SIZE])
{
    (void)snprintf(name, NAME_SIZE, "{%s}:k:%s", ledger->settings.name_space, run);
    return str_of(name);
}

static struct str incarnation_key(const struct ledger *ledger, char name[NAME_SIZE])
{
    (void)snprintf(name, NAME_SIZE, "{%s}:incarnation", ledger->settings.name_space);
    return str_of(name);
}

static struct ledger_op *new_op(struct ledger *ledger, enum kind kind, struct str run, struct str key,
                                ledger_done *done, void *context)
{
    struct ledger_op *op = mem_new(sizeof *op);

    assert((kind == OP_FORGET || key.size > 0) && key.size <= LEDGER_KEY_SIZE_MAX);
    op->ledger = ledger;
    op->kind = kind;
    op->done = done;
    op->context = context;
    (void)snprintf(op->key, sizeof op->key, "%.*s", STR_ARG(key));
    (void)snprintf(op->run, sizeof op->run, "%.*s", STR_ARG(run));
    return op;
}

/* Tells the answer, from ledger_ready or ledger_tick; the op is gone afterwards. */
static void answer(struct ledger_op *op, const struct ledger_answer *answer)
{
    if (!op->cancelled)
        op->done(op->context, answer);
    mem_free(op);
}

/* DOWN is never told from within a call of the ledger's user, nor from within hiredis. */
static void end_down(struct ledger_op *op, const char *reason)
{
    (void)snprintf(op->reason, sizeof op->reason, "%s", reason);
    put_in(&op->ledger->ended, op);
    ledger_link_wake(op->ledger->link);
}

static void tell_ended(struct ledger *ledger)
{
    struct ledger_op *op;

    while ((op = ledger->ended) != NULL) {
        take_out(op);
        put_in(&ledger->telling, op);
    }
    /* What is asked anew from within `done` is told the next time: Redis is still down. */
    while ((op = ledger->telling) != NULL) {
        take_out(op);
        answer(op, &(struct ledger_answer){.verdict = LEDGER_DOWN, .reason = str_of(op->reason)});
    }
}

/* ---- sending ---- */

static void send_op(struct ledger_op *op, enum ledger_script script, const struct str *keys, size_t keys_count,
                    const struct str *arguments, size_t arguments_count)
{
    struct ledger_link *link = op->ledger->link;

    if (!ledger_link_call(link, script, keys, keys_count, arguments, arguments_count, on_reply, op))
        end_down(op, ledger_link_up(link) ? "Redis: the command could not be sent" : ledger_link_reason(link));
}

/* RESERVE and TAKEOVER: a write record is asked for. `known`: see ledger_link_known; "" = nobody can have started before. */
static void ask_for_record(struct ledger_op *op, enum ledger_script script, const char *known)
{
    struct ledger *ledger = op->ledger;
    const char *refused = ledger_link_writes_refused(ledger->link);
    char names[3][NAME_SIZE], hold[24], try[24];
    struct str keys[3], arguments[6];

    if (refused != NULL) {
        end_down(op, refused);
        return;
    }
    ledger_asks_begin(&ledger->asks, ask_kind(op), op->key, &op->ask);
    keys[0] = record_key(ledger, 'w', op->key, names[0]);
    keys[1] = incarnation_key(ledger, names[1]);
    keys[2] = run_key(ledger, op->run, names[2]);
    arguments[0] = str_of(ledger_link_random(ledger->link));
    arguments[1] = str_of(ledger->settings.holder);
    arguments[2] = str_of(op->ask.name);
    arguments[3] = number(try, op->ask.try);
    arguments[4] = number(hold, op->timeout_ms + ledger->settings.settle_ms);
    arguments[5] = str_of(known);
    op->asked_boot_ms = clock_boot_ms(); /* before it leaves: Redis' `until` is counted from later */
    send_op(op, script, keys, 3, arguments, 6);
}

struct ledger_op *ledger_reserve(struct ledger *ledger, struct str run, struct str key, int64_t timeout_ms,
                                 bool suspect, struct str incarnation, ledger_done *done, void *context)
{
    struct ledger_op *op = new_op(ledger, OP_RESERVE, run, key, done, context);

    op->timeout_ms = timeout_ms;
    ask_for_record(op, LEDGER_SCRIPT_RESERVE, suspect ? ledger_link_known(ledger->link, incarnation) : "");
    return op;
}

struct ledger_op *ledger_takeover(struct ledger *ledger, struct str run, struct str key, int64_t timeout_ms,
                                  ledger_done *done, void *context)
{
    struct ledger_op *op = new_op(ledger, OP_TAKEOVER, run, key, done, context);

    op->timeout_ms = timeout_ms;
    ask_for_record(op, LEDGER_SCRIPT_TAKEOVER, "");
    return op;
}

struct ledger_op *ledger_complete(struct ledger *ledger, struct str run, struct str key, int64_t fence,
                                  struct str result, ledger_done *done, void *context)
{
    struct ledger_op *op = new_op(ledger, OP_COMPLETE, run, key, done, context);
    char names[3][NAME_SIZE], fence_text[24];
    bool is_done = result.data != NULL;
    struct str keys[3], arguments[5];

    assert(result.size <= RESULT_SIZE_MAX);
    keys[0] = record_key(ledger, 'w', op->key, names[0]);
    keys[1] = incarnation_key(ledger, names[1]);
    keys[2] = run_key(ledger, op->run, names[2]);
    arguments[0] = str_of(ledger_link_random(ledger->link));
    arguments[1] = number(fence_text, fence);
    arguments[2] = str_of(ledger->settings.holder);
    arguments[3] = is_done ? STR("done") : STR("not_done");
    arguments[4] = is_done ? result : STR("");
    send_op(op, LEDGER_SCRIPT_COMPLETE, keys, 3, arguments, 5);
    return op;
}

static void ask_for_lease(struct ledger_op *op)
{
    struct ledger *ledger = op->ledger;
    char name[NAME_SIZE], lease[24];
    struct str key = record_key(ledger, 'r', op->key, name);
    struct str arguments[3] = {str_of(ledger->settings.holder), str_of(ledger->settings.slot),
                               number(lease, ledger->settings.lease_ms)};

    send_op(op, LEDGER_SCRIPT_LEASE, &key, 1, arguments, 3);
}

struct ledger_op *ledger_lease(struct ledger *ledger, struct str key, ledger_done *done, void *context)
{
    struct ledger_op *op = new_op(ledger, OP_LEASE, STR_NONE, key, done, context);

    op->poll_ms = POLL_MS_MIN;
    ask_for_lease(op);
    return op;
}

/* Not awaited: a result that does not get there costs a call that is made again. */
static void ignore_reply(void *context, const redisReply *reply)
{
    (void)context;
    (void)reply;
}

static void release_lease(struct ledger *ledger, const char *key)
{
    char name[NAME_SIZE];
    struct str record = record_key(ledger, 'r', key, name), holder = str_of(ledger->settings.holder);

    (void)ledger_link_call(ledger->link, LEDGER_SCRIPT_RELEASE, &record, 1, &holder, 1, ignore_reply, NULL);
}

void ledger_store(struct ledger *ledger, struct str key, struct str result)
{
    char text[LEDGER_KEY_SIZE_MAX + 1] = "", name[NAME_SIZE], keep[24];
    struct str record, arguments[2];

    assert(key.size > 0 && key.size <= LEDGER_KEY_SIZE_MAX && result.size <= RESULT_SIZE_MAX);
    memcpy(text, key.data, key.size);
    ledger_leases_remove(&ledger->leases, text);
    if (result.data == NULL) {
        release_lease(ledger, text);
        return;
    }
    record = record_key(ledger, 'r', text, name);
    arguments[0] = result;
    arguments[1] = number(keep, ledger->settings.read_keep_ms);
    (void)ledger_link_call(ledger->link, LEDGER_SCRIPT_STORE, &record, 1, arguments, 2, ignore_reply, NULL);
}

struct ledger_op *ledger_forget(struct ledger *ledger, struct str run, int64_t before_ms, ledger_done *done,
                                void *context)
{
    struct ledger_op *op = new_op(ledger, OP_FORGET, run, STR_NONE, done, context);
    char name[NAME_SIZE], before[24];
    struct str key = run_key(ledger, op->run, name), argument = number(before, before_ms);

    send_op(op, LEDGER_SCRIPT_FORGET, &key, 1, &argument, 1);
    return op;
}

struct ledger_op *ledger_count(struct ledger *ledger, struct str key, int32_t begun, int32_t alone, ledger_done *done,
                               void *context)
{
    struct ledger_op *op = new_op(ledger, OP_COUNT, STR_NONE, key, done, context);
    char name[NAME_SIZE], texts[3][24];
    struct str record = record_key(ledger, 'd', op->key, name);
    struct str arguments[3] = {number(texts[0], begun), number(texts[1], alone), number(texts[2], COUNT_KEEP_MS)};

    send_op(op, LEDGER_SCRIPT_COUNT, &record, 1, arguments, 3);
    return op;
}

void ledger_cancel(struct ledger_op *op)
{
    if (op == NULL)
        return;
    if (op->list != NULL) {
        take_out(op);
        mem_free(op);
    } else {
        op->cancelled = true; /* its answer is on the way: on_reply gives back what it brings */
    }
}

/* ---- answers ---- */

/* Nobody is there any more for whom this was reserved or leased. */
static void give_back(struct ledger_op *op, const struct ledger_returned *returned)
{
    struct ledger *ledger = op->ledger;

    if (!str_is(returned->verdict, "go"))
        return;
    if (op->kind == OP_LEASE)
        release_lease(ledger, op->key);
    if (op->kind == OP_RESERVE || op->kind == OP_TAKEOVER)
        ledger_asks_keep(&ledger->asks, ask_kind(op), op->key, &op->ask); /* nobody acts on it */
    if (op->kind == OP_RESERVE) /* surely not executed; after a takeover what was in doubt still is */
        ledger_cancel(
            ledger_complete(ledger, str_of(op->run), str_of(op->key), returned->fence, STR_NONE, op->done, NULL));
}

/* The connection was lost, or Redis refused the script. */
static void unanswered(struct ledger_op *op, const redisReply *reply)
{
    char reason[REASON_SIZE];

    if (op->kind == OP_RESERVE || op->kind == OP_TAKEOVER)
        ledger_asks_keep(&op->ledger->asks, ask_kind(op), op->key, &op->ask);
    if (op->cancelled) {
        mem_free(op);
        return;
    }
    if (reply == NULL)
        (void)snprintf(reason, sizeof reason, "the connection to Redis was lost before it answered");
    else
        (void)snprintf(reason, sizeof reason, "Redis: %s",
                       reply->type == REDIS_REPLY_ERROR ? reply->str : "an answer that no script of ours gives");
    end_down(op, reason);
}

static void wait_for_lease(struct ledger_op *op, int64_t lease_left_ms)
{
    int64_t wait_ms = op->poll_ms;

    op->poll_ms = op->poll_ms * 2 < POLL_MS_MAX ? op->poll_ms * 2 : POLL_MS_MAX;
    if (lease_left_ms >= 0 && lease_left_ms + 1 < wait_ms)
        wait_ms = lease_left_ms + 1; /* it may be over then */
    op->poll_at_ms = clock_mono_us() / 1000 + wait_ms;
    put_in(&op->ledger->waiting, op);
}

static void answer_go(struct ledger_op *op, const struct ledger_returned *returned)
{
    struct ledger *ledger = op->ledger;
    struct ledger_answer go = {.verdict = LEDGER_GO};

    if (op->kind == OP_LEASE)
        ledger_leases_add(&ledger->leases, op->key, clock_mono_us() / 1000);
    go.fence = returned->fence;
    if (op->kind == OP_RESERVE || op->kind == OP_TAKEOVER) {
        go.send_until_boot_ms = op->asked_boot_ms + op->timeout_ms / 2;
        go.until_ms = clock_wall_ms() + returned->wait_ms;
    }
    if (op->kind == OP_COUNT) {
        go.begun = returned->fence;
        go.alone = returned->wait_ms;
    }
    answer(op, &go);
}

static void answer_doubt(struct ledger_op *op, const struct ledger_returned *returned)
{
    char reason[REASON_SIZE];

    if (returned->text.size > 0)
        (void)snprintf(reason, sizeof reason, "reserved by %.*s, whose result is not known", STR_ARG(returned->text));
    else
        (void)snprintf(reason, sizeof reason, "its record in Redis is lost: an earlier owner may have made the call");
    answer(op, &(struct ledger_answer){
                   .verdict = LEDGER_DOUBT,
                   .until_ms = clock_wall_ms() + returned->wait_ms,
                   .reason = str_of(reason),
               });
}

static void on_reply(void *context, const redisReply *reply)
{
    struct ledger_op *op = context;
    struct ledger_returned returned;

    if (!ledger_returned_read(reply, &returned)) {
        unanswered(op, reply);
        return;
    }
    ledger_link_saw(op->ledger->link, returned.incarnation);
    if (op->kind == OP_RESERVE || op->kind == OP_TAKEOVER)
        ledger_asks_forget(&op->ledger->asks, ask_kind(op), op->key);
    if (op->cancelled) {
        give_back(op, &returned);
        mem_free(op);
    } else if (str_is(returned.verdict, "go")) {
        answer_go(op, &returned);
    } else if (str_is(returned.verdict, "stored")) {
        answer(op, &(struct ledger_answer){.verdict = LEDGER_STORED, .result = returned.text});
    } else if (str_is(returned.verdict, "doubt")) {
        answer_doubt(op, &returned);
    } else if (str_is(returned.verdict, "held")) {
        wait_for_lease(op, returned.wait_ms);
    } else {
        answer(op, &(struct ledger_answer){.verdict = LEDGER_REFUSED, .reason = STR("taken over with a higher fence")});
    }
}

/* ---- time ---- */

/* Asks again for the leases of others that are due. When Redis went away each is told so by send_op. */
static int64_t poll_waiting(struct ledger *ledger, int64_t now_ms)
{
    bool up = ledger_link_up(ledger->link);
    int64_t due_ms = INT64_MAX;
    struct ledger_op *after;

    for (struct ledger_op *op = ledger->waiting; op != NULL; op = after) {
        after = op->after;
        if (op->poll_at_ms <= now_ms || !up) {
            take_out(op);
            ask_for_lease(op);
        } else if (op->poll_at_ms < due_ms) {
            due_ms = op->poll_at_ms;
        }
    }
    return due_ms;
}

static void renew_leases(struct ledger *ledger, int64_t now_ms)
{
    char names[LEDGER_LEASES_BATCH][NAME_SIZE], lease_ms[24];
    const char *due[LEDGER_LEASES_BATCH];
    struct str keys[LEDGER_LEASES_BATCH];
    struct str arguments[3] = {str_of(ledger->settings.holder), str_of(ledger->settings.slot),
                               number(lease_ms, ledger->settings.lease_ms)};
    size_t count;

    while ((count = ledger_leases_due(&ledger->leases, now_ms, due)) > 0) {
        for (size_t i = 0; i < count; i++)
            keys[i] = record_key(ledger, 'r', due[i], names[i]);
        (void)ledger_link_call(ledger->link, LEDGER_SCRIPT_RENEW, keys, count, arguments, 3, ignore_reply, NULL);
    }
}

void ledger_ready(struct ledger *ledger, int fd, uint32_t epoll_events)
{
    ledger_link_ready(ledger->link, fd, epoll_events);
    tell_ended(ledger);
}

int64_t ledger_tick(struct ledger *ledger, int64_t now_mono_ms)
{
    int64_t due_ms = ledger_link_tick(ledger->link, now_mono_ms), poll_ms, renew_ms;

    renew_leases(ledger, now_mono_ms);
    poll_ms = poll_waiting(ledger, now_mono_ms);
    tell_ended(ledger);
    renew_ms = ledger_slot_tick(&ledger->slot, now_mono_ms);
    due_ms = renew_ms < due_ms ? renew_ms : due_ms;
    renew_ms = ledger_leases_next_ms(&ledger->leases);
    due_ms = poll_ms < due_ms ? poll_ms : due_ms;
    return renew_ms < due_ms ? renew_ms : due_ms;
}

void ledger_flush(struct ledger *ledger)
{
    ledger_link_flush(ledger->link);
}

bool ledger_up(const struct ledger *ledger)
{
    return ledger_link_up(ledger->link);
}

const char *ledger_incarnation(const struct ledger *ledger)
{
    return ledger_link_incarnation(ledger->link);
}

const char *ledger_writes_refused(const struct ledger *ledger)
{
    return ledger_link_writes_refused(ledger->link);
}

/* ---- life ---- */

void ledger_name(struct ledger *ledger, const char *slot, const char *holder)
{
    ledger->settings.slot = arena_str(ledger->arena, str_of(slot)).data;
    ledger->settings.holder = arena_str(ledger->arena, str_of(holder)).data;
}

struct ledger_slot *ledger_slot(struct ledger *ledger)
{
    return &ledger->slot;
}

struct ledger *ledger_open(const struct ledger_settings *settings, int epoll_fd, uint32_t tag, struct error *error)
{
    struct ledger *ledger = mem_new(sizeof *ledger);
    struct ledger_settings *own = &ledger->settings;

    ledger->arena = arena_new();
    *own = *settings;
    own->slot = own->holder = "";
    own->name_space = arena_str(ledger->arena, str_of(settings->name_space)).data;
    own->settle_ms = settings->settle_ms > 0 ? settings->settle_ms : SETTLE_MS_DEFAULT;
    own->read_keep_ms = settings->read_keep_ms > 0 ? settings->read_keep_ms : READ_KEEP_MS_DEFAULT;
    own->lease_ms = settings->lease_ms > 0 ? settings->lease_ms : LEASE_MS_DEFAULT;
    ledger_asks_init(&ledger->asks);
    ledger_leases_init(&ledger->leases, own->lease_ms);
    if (strlen(own->name_space) <= NAME_SPACE_SIZE_MAX)
        ledger->link = ledger_link_open(settings, epoll_fd, tag, error);
    else
        (void)error_set(error, ERROR_FATAL, "the namespace is over %d characters", NAME_SPACE_SIZE_MAX);
    if (ledger->link == NULL) {
        ledger_close(ledger);
        return NULL;
    }
    if (settings->slot != NULL)
        ledger_name(ledger, settings->slot, settings->holder);
    ledger_slot_init(&ledger->slot, ledger->link, own->name_space);
    return ledger;
}

static void free_ops(struct ledger_op *list)
{
    for (struct ledger_op *op = list, *after; op != NULL; op = after) {
        after = op->after;
        mem_free(op);
    }
}

bool ledger_idle(const struct ledger *ledger)
{
    return ledger_link_idle(ledger->link);
}

void ledger_close(struct ledger *ledger)
{
    if (ledger == NULL)
        return;
    if (ledger->link != NULL)
        ledger_link_close(ledger->link);
    free_ops(ledger->ended); /* those in flight have got here, too */
    free_ops(ledger->waiting);
    ledger_leases_free(&ledger->leases);
    arena_free(ledger->arena);
    mem_free(ledger);
}
