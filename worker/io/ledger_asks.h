/*
 * ledger_asks.h: questions for a write's record whose answer was lost with the connection. A part of the ledger.
 *
 * Redis may have given us the record; nobody of us acted on it, for nobody was told. When the same key is asked for again,
 * the same name and a higher try let the script see that, and the write does not end in doubt because Redis was away for a
 * moment. A question that was answered is forgotten: its name is never used again.
 */
#ifndef MYELIN_IO_LEDGER_ASKS_H
#define MYELIN_IO_LEDGER_ASKS_H

#include "worker/io/ledger.h"

#define LEDGER_ASKS_MAX 1024 /* remembered (I7); a forgotten one only means doubt */

/* A record that was taken over stays in doubt, one that was reserved does not: each kind remembers for itself. */
enum ledger_ask_kind { ASK_RESERVE = 1, ASK_TAKEOVER };

struct ledger_ask {
    char name[64]; /* RANDOM/COUNT: no other process, and no other question of this one, has it */
    int64_t try;   /* from 1 */
};

struct ledger_asks {
    char process[40]; /* random */
    int64_t count;
    struct {
        enum ledger_ask_kind kind; /* 0 = free */
        char key[LEDGER_KEY_SIZE_MAX + 1];
        struct ledger_ask ask;
    } kept[LEDGER_ASKS_MAX];
    uint32_t kept_count, next;
};

void ledger_asks_init(struct ledger_asks *asks);

/* A new question, or the one that is remembered for this key, once more. */
void ledger_asks_begin(struct ledger_asks *asks, enum ledger_ask_kind kind, const char *key, struct ledger_ask *ask);
/* No answer came, or one that nobody will act on. */
void ledger_asks_keep(struct ledger_asks *asks, enum ledger_ask_kind kind, const char *key,
                      const struct ledger_ask *ask);
/* It was answered. */
void ledger_asks_forget(struct ledger_asks *asks, enum ledger_ask_kind kind, const char *key);

#endif
