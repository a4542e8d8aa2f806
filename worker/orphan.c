/*
 * Step events whose partition was let go while their calls were in flight. The calls go on and store their results, and nothing is
 * decided. When the partition comes back and nobody committed for it in between (its commit_seq is the one that we left), the
 * calls are kept: their step events are handed over again, are known again by what they say (an offset changes when a record is
 * carried), and are bound to the new tenure. So no call is made or waited for a second time. Whatever ended in between has its
 * result in Redis, as for any other owner.
 */
#include <search.h>
#include <string.h>

#include "worker/base/logline.h"
#include "worker/delivery.h"

static int compare_text(struct str a, struct str b)
{
    if (a.size != b.size)
        return a.size < b.size ? -1 : 1;
    return a.size == 0 ? 0 : memcmp(a.data, b.data, a.size);
}

static int compare(const void *left, const void *right)
{
    const struct log_event *a = &((const struct delivery *)left)->source,
                           *b = &((const struct delivery *)right)->source;
    if (a->tenure != b->tenure)
        return a->tenure < b->tenure ? -1 : 1;
    int by_key = compare_text(a->key, b->key);
    return by_key != 0 ? by_key : compare_text(a->value, b->value);
}

/* What is worth to be kept: a call in flight, or a read that waits for another's lease. A write that is still being reserved
 * is given back: somebody else may have begun it in between, and only a new delivery is suspect enough. */
static bool is_worth(const struct delivery *delivery)
{
    const struct call *call = delivery->call;
    return delivery->calling || (call != NULL && call->effect == EFFECT_READ && !call->takeover);
}

void orphan_unkeep(struct delivery *delivery)
{
    if (!delivery->kept)
        return;
    delivery->kept = false;
    tdelete(delivery, &delivery->worker->kept, compare);
}

void loop_orphan(struct worker *worker, int64_t tenure)
{
    for (struct delivery *delivery = worker->deliveries, *next; delivery != NULL; delivery = next) {
        next = delivery->next;
        if (delivery->source.tenure != tenure)
            continue;
        orphan_unkeep(delivery);
        if (delivery->orphan)
            continue;
        delivery->orphan = true;
        if (delivery->source.suspect)
            alone_take_back(delivery);
        credits_let_go(delivery);
        /* It waits for a credit, for `control`, which is read no more, or for what somebody else has in flight. */
        if (delivery->waits_at != NULL || (delivery->begun && delivery->env.contract == NULL) ||
            (delivery->again_ms > 0 && delivery->fence == 0))
            delivery_release(delivery);
    }
}

void loop_keep(struct worker *worker, const struct log_event *assigned)
{
    int64_t calls = 0;
    for (struct delivery *delivery = worker->deliveries; delivery != NULL; delivery = delivery->next) {
        if (delivery->source.tenure != assigned->kept || !is_worth(delivery))
            continue;
        delivery->source.tenure = assigned->tenure;
        struct delivery **found = tsearch(delivery, &worker->kept, compare);
        delivery->kept = found != NULL && *found == delivery; /* not the second of two that say the same */
        calls += delivery->kept;
    }
    LOG_INFO("assign.kept", LOG_S("topic", assigned->topic_name), LOG_I("partition", assigned->partition),
             LOG_I("tenure", assigned->tenure), LOG_I("before", assigned->kept), LOG_I("calls", calls));
}

bool orphan_bind(struct worker *worker, struct log_event *event)
{
    const struct delivery wanted = {.source = *event};
    struct delivery **found = tfind(&wanted, &worker->kept, compare);
    if (found == NULL)
        return false;
    struct delivery *delivery = *found;
    orphan_unkeep(delivery);
    delivery->orphan = false;
    delivery->source.offset = event->offset;
    if (delivery->source.suspect)
        alone_keep(delivery);
    credits_keep(delivery);
    log_event_free(event);
    return true;
}
