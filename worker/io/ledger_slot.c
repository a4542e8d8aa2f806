#include "worker/io/ledger_slot.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/ledger_info.h"
#include "worker/io/ledger_link.h"
#include "worker/io/ledger_returned.h"

#define AGAIN_MS 100 /* after no answer: those who live say it in time when Redis is back */
#define LOUD_MS 10000

void ledger_slot_init(struct ledger_slot *slot, struct ledger_link *link, const char *name_space)
{
    char host[100] = "", random[LEDGER_INFO_RANDOM_SIZE + 1];

    (void)gethostname(host, sizeof host - 1);
    ledger_info_random(random);
    *slot = (struct ledger_slot){.link = link};
    (void)snprintf(slot->life_key, sizeof slot->life_key, "{%s}:slots", name_space);
    (void)snprintf(slot->prefix, sizeof slot->prefix, "{%s}:slot:", name_space);
    (void)snprintf(slot->holder, sizeof slot->holder, "%s:%s", host, random);
}

void ledger_slot_claim(struct ledger_slot *slot, int64_t lease_ms, int64_t start_ms)
{
    slot->lease_ms = lease_ms;
    slot->start_ms = start_ms;
    slot->due_ms = 0;
}

int32_t ledger_slot_number(const struct ledger_slot *slot)
{
    return slot->number;
}

bool ledger_slot_lost(const struct ledger_slot *slot)
{
    return slot->lost;
}

/* Why there is none yet; not each time. */
static void tell_waiting(struct ledger_slot *slot, int64_t now_ms, const char *reason, int64_t wait_ms)
{
    if (slot->number != 0 || now_ms < slot->loud_ms)
        return;
    slot->loud_ms = now_ms + LOUD_MS;
    LOG_WARN("slot.waits", LOG_S("reason", reason), LOG_I("wait_ms", wait_ms));
}

/* How long it is asked for. */
static int64_t keep_ms(const struct ledger_slot *slot)
{
    return slot->number == 0 ? slot->lease_ms + slot->start_ms : slot->lease_ms;
}

static void take(struct ledger_slot *slot, int32_t number, int64_t now_ms)
{
    slot->due_ms = now_ms + slot->lease_ms / 3;
    slot->sure_ms = slot->asked_ms + keep_ms(slot);
    slot->said_late = false;
    if (slot->number == 0)
        LOG_INFO("slot.claimed", LOG_I("number", number), LOG_S("holder", slot->holder),
                 LOG_I("lease_ms", slot->lease_ms));
    slot->number = number;
}

static void refuse(struct ledger_slot *slot, const struct ledger_returned *returned, int64_t now_ms)
{
    if (slot->number != 0) {
        slot->lost = true;
        LOG_ERROR("slot.lost", LOG_I("number", slot->number), LOG_STR("holder", returned->text),
                  LOG_S("reason",
                        "this worker could not renew its slot for longer than slot_lease, and another one claimed it"));
    } else if (returned->wait_ms > 0) {
        slot->due_ms = now_ms + returned->wait_ms;
        tell_waiting(slot, now_ms,
                     "Redis is new, was started again or lost its keys: workers that have a slot say so first",
                     returned->wait_ms);
    } else {
        slot->due_ms = now_ms + slot->lease_ms / 3;
        tell_waiting(slot, now_ms, "all slots are taken", slot->lease_ms / 3);
    }
}

static void on_reply(void *context, const redisReply *reply)
{
    struct ledger_slot *slot = context;
    struct ledger_returned returned;
    int64_t now_ms = clock_mono_us() / 1000;

    slot->asked = false;
    slot->due_ms = now_ms + AGAIN_MS;
    if (!ledger_returned_read(reply, &returned))
        tell_waiting(slot, now_ms,
                     reply != NULL && reply->type == REDIS_REPLY_ERROR ? reply->str : "Redis does not answer",
                     AGAIN_MS);
    else if (str_is(returned.verdict, "go"))
        take(slot, (int32_t)returned.fence, now_ms);
    else
        refuse(slot, &returned, now_ms);
}

static struct str number_text(char text[24], int64_t value)
{
    (void)snprintf(text, 24, "%lld", (long long)value);
    return str_of(text);
}

static void ask(struct ledger_slot *slot, int64_t now_ms)
{
    char keep[24], number[24], max[24], wait[24];
    struct str keys[2] = {str_of(slot->life_key), str_of(slot->prefix)};
    struct str arguments[6] = {
        str_of(ledger_link_run_id(slot->link)), str_of(slot->holder),
        number_text(keep, keep_ms(slot)),       number_text(number, slot->number),
        number_text(max, LEDGER_SLOTS_MAX),     number_text(wait, slot->lease_ms),
    };

    slot->asked_ms = now_ms;
    slot->asked = ledger_link_call(slot->link, LEDGER_SCRIPT_SLOT, keys, 2, arguments, 6, on_reply, slot);
    if (slot->asked)
        return;
    slot->due_ms = now_ms + AGAIN_MS;
    tell_waiting(slot, now_ms, ledger_link_reason(slot->link), AGAIN_MS);
}

int64_t ledger_slot_tick(struct ledger_slot *slot, int64_t now_mono_ms)
{
    if (slot->lease_ms == 0 || slot->lost)
        return INT64_MAX;
    if (!slot->asked && now_mono_ms >= slot->due_ms)
        ask(slot, now_mono_ms);
    if (slot->number != 0 && now_mono_ms > slot->sure_ms && !slot->said_late) {
        slot->said_late = true;
        LOG_WARN("slot.unsure", LOG_I("number", slot->number),
                 LOG_S("reason",
                       "it could not be renewed in Redis for longer than slot_lease: going on; should another worker "
                       "claim it, Kafka decides"));
    }
    return slot->asked ? INT64_MAX : slot->due_ms;
}

static void on_released(void *context, const redisReply *reply)
{
    (void)context;
    (void)reply;
}

void ledger_slot_release(struct ledger_slot *slot)
{
    char name[300];
    struct str key, holder = str_of(slot->holder);

    slot->lease_ms = 0;
    if (slot->number == 0)
        return;
    (void)snprintf(name, sizeof name, "%s%d", slot->prefix, (int)slot->number);
    key = str_of(name);
    (void)ledger_link_call(slot->link, LEDGER_SCRIPT_RELEASE, &key, 1, &holder, 1, on_released, NULL);
}
