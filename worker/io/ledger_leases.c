#include "worker/io/ledger_leases.h"

#include <stdio.h>
#include <string.h>

#include "worker/base/mem.h"
#include "worker/io/ledger.h"

struct lease {
    struct lease *next;
    int64_t since_ms, renew_ms;
    char key[LEDGER_KEY_SIZE_MAX + 1];
};

void ledger_leases_init(struct ledger_leases *leases, int64_t lease_ms)
{
    *leases = (struct ledger_leases){.lease_ms = lease_ms};
}

void ledger_leases_free(struct ledger_leases *leases)
{
    for (struct lease *lease = leases->first, *next; lease != NULL; lease = next) {
        next = lease->next;
        mem_free(lease);
    }
    leases->first = NULL;
}

void ledger_leases_add(struct ledger_leases *leases, const char *key, int64_t now_ms)
{
    struct lease *lease = mem_new(sizeof *lease);

    ledger_leases_remove(leases, key);
    *lease = (struct lease){.next = leases->first, .since_ms = now_ms, .renew_ms = now_ms + leases->lease_ms / 3};
    (void)snprintf(lease->key, sizeof lease->key, "%s", key);
    leases->first = lease;
}

void ledger_leases_remove(struct ledger_leases *leases, const char *key)
{
    for (struct lease **at = &leases->first; *at != NULL; at = &(*at)->next) {
        struct lease *lease = *at;

        if (strcmp(lease->key, key) == 0) {
            *at = lease->next;
            mem_free(lease);
            return;
        }
    }
}

size_t ledger_leases_due(struct ledger_leases *leases, int64_t now_ms, const char *keys[LEDGER_LEASES_BATCH])
{
    struct lease **at = &leases->first;
    size_t count = 0;

    while (*at != NULL && count < LEDGER_LEASES_BATCH) {
        struct lease *lease = *at;

        if (now_ms - lease->since_ms > LEDGER_LEASE_LIFE_MS_MAX) {
            *at = lease->next;
            mem_free(lease);
            continue;
        }
        if (lease->renew_ms <= now_ms) {
            lease->renew_ms = now_ms + leases->lease_ms / 3;
            keys[count++] = lease->key;
        }
        at = &lease->next;
    }
    return count;
}

int64_t ledger_leases_next_ms(const struct ledger_leases *leases)
{
    int64_t next_ms = INT64_MAX;

    for (const struct lease *lease = leases->first; lease != NULL; lease = lease->next)
        next_ms = lease->renew_ms < next_ms ? lease->renew_ms : next_ms;
    return next_ms;
}
