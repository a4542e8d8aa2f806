/* ledger_leases.h: the leases that this process holds, and when they must be renewed. A part of the ledger. */
#ifndef MYELIN_IO_LEDGER_LEASES_H
#define MYELIN_IO_LEDGER_LEASES_H

#include <stddef.h>
#include <stdint.h>

/* I7 */
#define LEDGER_LEASES_BATCH 128                         /* renewed by one script */
#define LEDGER_LEASE_LIFE_MS_MAX ((int64_t)3600 * 1000) /* a call is over by then, or was forgotten */

struct lease;

struct ledger_leases {
    struct lease *first, *last; /* in the order in which they are due */
    void *by_key;               /* tsearch */
    int64_t lease_ms;
};

void ledger_leases_init(struct ledger_leases *leases, int64_t lease_ms);
void ledger_leases_free(struct ledger_leases *leases);
void ledger_leases_add(struct ledger_leases *leases, const char *key, int64_t now_ms); /* copies the key */
void ledger_leases_remove(struct ledger_leases *leases, const char *key);

/* Up to LEDGER_LEASES_BATCH keys that are to be renewed now, and notes that they are; 0 = none (left). A key is due each third
 * of the lease. Those that live for too long are dropped. The keys are valid until the next change. */
size_t ledger_leases_due(struct ledger_leases *leases, int64_t now_ms, const char *keys[LEDGER_LEASES_BATCH]);
int64_t ledger_leases_next_ms(const struct ledger_leases *leases); /* INT64_MAX = never */

#endif
