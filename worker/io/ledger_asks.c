#include "worker/io/ledger_asks.h"

#include <stdio.h>
#include <string.h>

#include "worker/io/ledger_info.h"

void ledger_asks_init(struct ledger_asks *asks)
{
    _Static_assert(sizeof asks->process > LEDGER_INFO_RANDOM_SIZE, "the name of a process is random");
    memset(asks, 0, sizeof *asks);
    ledger_info_random(asks->process);
}

/* Its place in `kept`, or LEDGER_ASKS_MAX. */
static uint32_t find(const struct ledger_asks *asks, enum ledger_ask_kind kind, const char *key)
{
    for (uint32_t i = 0; i < LEDGER_ASKS_MAX && asks->kept_count > 0; i++) {
        if (asks->kept[i].kind == kind && strcmp(asks->kept[i].key, key) == 0)
            return i;
    }
    return LEDGER_ASKS_MAX;
}

void ledger_asks_begin(struct ledger_asks *asks, enum ledger_ask_kind kind, const char *key, struct ledger_ask *ask)
{
    uint32_t at = find(asks, kind, key);

    if (at < LEDGER_ASKS_MAX) {
        asks->kept[at].ask.try++;
        *ask = asks->kept[at].ask;
        return;
    }
    (void)snprintf(ask->name, sizeof ask->name, "%s/%lld", asks->process, (long long)++asks->count);
    ask->try = 1;
}

void ledger_asks_keep(struct ledger_asks *asks, enum ledger_ask_kind kind, const char *key,
                      const struct ledger_ask *ask)
{
    uint32_t at = find(asks, kind, key);

    if (at == LEDGER_ASKS_MAX) {
        at = asks->next++ % LEDGER_ASKS_MAX; /* the oldest goes */
        asks->kept_count += asks->kept[at].kind == 0;
    }
    asks->kept[at].kind = kind;
    (void)snprintf(asks->kept[at].key, sizeof asks->kept[at].key, "%s", key);
    asks->kept[at].ask = *ask;
}

void ledger_asks_forget(struct ledger_asks *asks, enum ledger_ask_kind kind, const char *key)
{
    uint32_t at = find(asks, kind, key);

    if (at == LEDGER_ASKS_MAX)
        return;
    asks->kept[at].kind = 0;
    asks->kept_count--;
}
