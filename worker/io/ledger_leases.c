#include "worker/io/ledger_leases.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/mem.h"
#include "worker/io/ledger.h"

struct lease {
    struct lease *before, *after; /* by when they are to be renewed */
    int64_t since_ms, renew_ms;
    char key[LEDGER_KEY_SIZE_MAX + 1];
};

static int compare(const void *left, const void *right)
{
    return strcmp(((const struct lease *)left)->key, ((const struct lease *)right)->key);
}

static void take_out(struct ledger_leases *leases, struct lease *lease)
{
    *(lease->before != NULL ? &lease->before->after : &leases->first) = lease->after;
    *(lease->after != NULL ? &lease->after->before : &leases->last) = lease->before;
}

/* All are renewed after the same time: the next in line is the last one. */
static void put_last(struct ledger_leases *leases, struct lease *lease, int64_t now_ms)
{
    lease->renew_ms = now_ms + leases->lease_ms / 3;
    lease->before = leases->last;
    lease->after = NULL;
    *(leases->last != NULL ? &leases->last->after : &leases->first) = lease;
    leases->last = lease;
}

static void drop(struct ledger_leases *leases, struct lease *lease)
{
    take_out(leases, lease);
    tdelete(lease, &leases->by_key, compare);
    mem_free(lease);
}

void ledger_leases_init(struct ledger_leases *leases, int64_t lease_ms)
{
    *leases = (struct ledger_leases){.lease_ms = lease_ms};
}

void ledger_leases_free(struct ledger_leases *leases)
{
    while (leases->first != NULL)
        drop(leases, leases->first);
}

void ledger_leases_add(struct ledger_leases *leases, const char *key, int64_t now_ms)
{
    struct lease *lease = mem_new(sizeof *lease);

    ledger_leases_remove(leases, key);
    lease->since_ms = now_ms;
    (void)snprintf(lease->key, sizeof lease->key, "%s", key);
    if (tsearch(lease, &leases->by_key, compare) == NULL)
        abort(); /* no memory */
    put_last(leases, lease, now_ms);
}

void ledger_leases_remove(struct ledger_leases *leases, const char *key)
{
    struct lease wanted, **found;

    (void)snprintf(wanted.key, sizeof wanted.key, "%s", key);
    found = tfind(&wanted, &leases->by_key, compare);
    if (found != NULL)
        drop(leases, *found);
}

size_t ledger_leases_due(struct ledger_leases *leases, int64_t now_ms, const char *keys[LEDGER_LEASES_BATCH])
{
    size_t count = 0;

    while (leases->first != NULL && leases->first->renew_ms <= now_ms && count < LEDGER_LEASES_BATCH) {
        struct lease *lease = leases->first;

        if (now_ms - lease->since_ms > LEDGER_LEASE_LIFE_MS_MAX) {
            drop(leases, lease);
            continue;
        }
        take_out(leases, lease);
        put_last(leases, lease, now_ms);
        keys[count++] = lease->key;
    }
    return count;
}

int64_t ledger_leases_next_ms(const struct ledger_leases *leases)
{
    return leases->first != NULL ? leases->first->renew_ms : INT64_MAX;
}
