/*
 * broker.h: Kafka: topics, transactions, the group. What a broker acknowledged is never lost; all else may be.
 */
#ifndef MYELIN_SIM_BROKER_H
#define MYELIN_SIM_BROKER_H

#include "worker/io/log.h"
#include "worker/io/offset_meta.h"

#define TOPICS 6            /* enum topic */
#define PARTITIONS_MAX 3    /* of a topic */
#define TRANSACTION_MS 5000 /* transaction.timeout.ms */
#define SESSION_MS 6000     /* session.timeout.ms */

enum transaction_state { TRANSACTION_OPEN, TRANSACTION_COMMITTED, TRANSACTION_ABORTED };
struct transaction {
    struct transaction *next;
    int slot;
    int64_t began_us;
    enum transaction_state state;
    int32_t touched[TOPICS][PARTITIONS_MAX]; /* records in it */
};

struct logged {
    struct str key, value;
    int64_t timestamp_ms;
    const struct transaction *transaction; /* NULL: none */
    bool control;                          /* a transaction's marker: takes an offset, is never read */
    int mishaps;                           /* of workers that had it in their hands: they died, or froze */
};

struct stored_offset {
    int64_t offset;
    char metadata[OFFSET_META_TEXT_SIZE];
};

void broker_open(void);
void broker_serve(void); /* ends what took too long */

const char *broker_topic_name(enum topic topic);
int32_t broker_partitions(enum topic topic);
int32_t broker_partition_of(enum topic topic, struct str run);

/* ---- records ---- */
/* `transaction` NULL: visible at once. Copies; returns the offset. */
int64_t broker_append(struct transaction *transaction, enum topic topic, int32_t partition, struct str key,
                      struct str value);
int64_t broker_end(enum topic topic, int32_t partition);    /* the high watermark */
int64_t broker_stable(enum topic topic, int32_t partition); /* where the first open transaction begins, or the end */
struct logged *broker_at(enum topic topic, int32_t partition, int64_t offset);
/* NULL: there is nothing to read at this offset (a marker, an aborted record). */
const struct logged *broker_read(enum topic topic, int32_t partition, int64_t offset);

/* ---- transactions ---- */
struct transaction *broker_begin(int slot);
/* False: that member is not in the group, or of another generation (I10). */
bool broker_send_offset(struct transaction *transaction, int generation, enum topic topic, int32_t partition,
                        int64_t offset, const char *metadata);
/* False: it was ended by somebody else. */
bool broker_finish(struct transaction *transaction, bool commit);
void broker_fence(int slot); /* init_transactions: ends what its dead self left open */
/* False: a transaction on it is open. */
bool broker_committed(enum topic topic, int32_t partition, struct stored_offset *offset);

/* ---- the group ---- */
struct membership {
    bool member;
    int generation;
    bool rejoin;  /* a rebalance is under way: it is to let go of all and to join */
    bool settled; /* no rebalance is under way: what it owns is its own */
};
struct membership broker_heartbeat(int slot);
void broker_join(int slot);
void broker_leave(int slot);
void broker_rebalance(void);
bool broker_owns(int slot, enum topic topic, int32_t partition);

#endif
