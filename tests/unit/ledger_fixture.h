/* Workers' ledgers on one epoll, against one redis-server: for the tests of the ledger. */
#ifndef MYELIN_TESTS_UNIT_LEDGER_FIXTURE_H
#define MYELIN_TESTS_UNIT_LEDGER_FIXTURE_H

#include "worker/io/ledger.h"

#define WORKERS_MAX 4
#define SETTLE_MS 200
#define LEASE_MS 400

extern struct ledger *worker[WORKERS_MAX]; /* NULL = not open */

/* Holder "HOLDER" in slot "SLOT"; waits until it is up. */
void ledger_fixture_worker(int index, const char *slot, const char *holder);
/* The same, with settings of one's own; does not wait. `address` NULL: the server's. */
void ledger_fixture_open(int index, struct ledger_settings settings);
void ledger_fixture_close(int index);

/* Empties the server and opens workers 0 (a:1) and 1 (b:1). */
int ledger_fixture_set_up(void **state);
int ledger_fixture_tear_down(void **state);

int64_t ledger_fixture_mono_ms(void);
void ledger_fixture_turn(int64_t wait_ms_max); /* one turn of a loop as the worker's, for all of them */
void ledger_fixture_run_for(int64_t ms);
bool ledger_fixture_wait_up(int index, bool up); /* up to 10 s */

/* What an operation was told. */
struct told {
    int times;
    enum ledger_verdict verdict;
    int64_t fence, send_until_boot_ms, until_ms, begun, alone;
    char result[64], reason[400];
    size_t result_size;
    uint64_t result_sum; /* of all its bytes */
};
void ledger_fixture_told(void *context, const struct ledger_answer *answer); /* context: struct told */
void ledger_fixture_run_until(const struct told *told);

/* Fails the test, at the caller's line, when another verdict came. */
#define expect(told_, verdict_) expect_verdict((told_), (verdict_), __FILE__, __LINE__)
void expect_verdict(struct told told, enum ledger_verdict verdict, const char *file, int line);

/* Each runs the loop until the answer. Write calls with a timeout of `timeout_ms`. */
struct told reserve(int index, const char *key, int64_t timeout_ms);
struct told reserve_suspect(int index, const char *key, int64_t timeout_ms, const char *incarnation);
struct told takeover(int index, const char *key, int64_t timeout_ms);
struct told complete(int index, const char *key, int64_t fence, const char *result); /* NULL = not done */
struct told lease(int index, const char *key);
struct told count(int index, const char *key, int begun, int alone);

#endif
