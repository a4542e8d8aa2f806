#include "tests/sim/broker.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/judge.h"
#include "tests/sim/world.h"
#include "worker/base/hash.h"

#define JOIN_MS 2000 /* how long a rebalance waits for members that do not answer */

struct partition {
    struct logged *messages;
    int64_t count, capacity;
    int64_t settled; /* no transaction is open below */
    struct stored_offset committed, pending;
    struct transaction *pending_in; /* NULL: none */
};

struct member {
    bool in, joined;
    int generation;
    int64_t seen_us;
};

static struct {
    struct partition topics[TOPICS][PARTITIONS_MAX];
    struct transaction *transactions;
    struct member members[SLOTS];
    int owners[TOPICS][PARTITIONS_MAX]; /* a slot; -1: nobody */
    int generation;
    bool preparing;
    int64_t prepared_us;
} broker;

static const int32_t partitions[TOPICS] = {
    [TOPIC_STEPS] = 3,   [TOPIC_INBOX] = 2,   [TOPIC_WAITING] = 2,
    [TOPIC_HISTORY] = 2, [TOPIC_CONTROL] = 1, [TOPIC_DEAD] = 1,
};

const char *broker_topic_name(enum topic topic)
{
    static const char *const names[TOPICS] = {"sim.steps.default", "sim.inbox",   "sim.waiting",
                                              "sim.history",       "sim.control", "sim.dead"};
    return names[topic];
}

int32_t broker_partitions(enum topic topic)
{
    return partitions[topic];
}

int32_t broker_partition_of(enum topic topic, struct str run)
{
    return (int32_t)(hash_crc64_avro(run.data, run.size) % (uint64_t)partitions[topic]);
}

void broker_open(void)
{
    memset(&broker, 0, sizeof(broker));
    for (enum topic topic = TOPIC_STEPS; topic <= TOPIC_INBOX; topic++)
        for (int32_t i = 0; i < partitions[topic]; i++) {
            broker.owners[topic][i] = -1;
            offset_meta_write(&(struct offset_meta){0}, 0, broker.topics[topic][i].committed.metadata);
        }
}

/* ---- records ---- */

static int64_t append(enum topic topic, int32_t number, struct logged message)
{
    struct partition *partition = &broker.topics[topic][number];
    if (partition->count == partition->capacity) {
        int64_t capacity = partition->capacity == 0 ? 64 : partition->capacity * 2;
        struct logged *bigger = ARENA_ARRAY(world.arena, (size_t)capacity, struct logged);
        if (partition->count > 0)
            memcpy(bigger, partition->messages, (size_t)partition->count * sizeof(*bigger));
        partition->messages = bigger;
        partition->capacity = capacity;
    }
    partition->messages[partition->count] = message;
    return partition->count++;
}

int64_t broker_append(struct transaction *transaction, enum topic topic, int32_t number, struct str key,
                      struct str value)
{
    if (transaction != NULL && transaction->state != TRANSACTION_OPEN)
        return -1; /* its producer is fenced, and will hear of it */
    if (transaction != NULL)
        transaction->touched[topic][number]++;
    return append(topic, number,
                  (struct logged){.key = arena_str(world.arena, key),
                                  .value = arena_str(world.arena, value),
                                  .timestamp_ms = world_now_ms(),
                                  .transaction = transaction});
}

int64_t broker_end(enum topic topic, int32_t number)
{
    return broker.topics[topic][number].count;
}

int64_t broker_stable(enum topic topic, int32_t number)
{
    struct partition *partition = &broker.topics[topic][number];
    for (; partition->settled < partition->count; partition->settled++) {
        const struct transaction *transaction = partition->messages[partition->settled].transaction;
        if (transaction != NULL && transaction->state == TRANSACTION_OPEN)
            break;
    }
    return partition->settled;
}

struct logged *broker_at(enum topic topic, int32_t number, int64_t offset)
{
    return &broker.topics[topic][number].messages[offset];
}

const struct logged *broker_read(enum topic topic, int32_t number, int64_t offset)
{
    const struct logged *message = broker_at(topic, number, offset);
    const struct transaction *transaction = message->transaction;
    bool aborted = transaction != NULL && transaction->state != TRANSACTION_COMMITTED;
    return message->control || aborted ? NULL : message;
}

/* ---- transactions ---- */

struct transaction *broker_begin(int slot)
{
    struct transaction *transaction = ARENA_NEW(world.arena, struct transaction);
    *transaction = (struct transaction){.next = broker.transactions, .slot = slot, .began_us = world.now_us};
    return broker.transactions = transaction;
}

bool broker_send_offset(struct transaction *transaction, int generation, enum topic topic, int32_t number,
                        int64_t offset, const char *metadata)
{
    const struct member *member = &broker.members[transaction->slot];
    struct partition *partition = &broker.topics[topic][number];
    if (transaction->state != TRANSACTION_OPEN || !member->in || member->generation != generation)
        return false;
    if (partition->pending_in != NULL && partition->pending_in != transaction)
        wrong("two open transactions on the offset of %s %d", broker_topic_name(topic), number);
    partition->pending_in = transaction;
    partition->pending.offset = offset;
    (void)snprintf(partition->pending.metadata, sizeof(partition->pending.metadata), "%s", metadata);
    return true;
}

static void finish_partition(struct transaction *transaction, enum topic topic, int32_t number)
{
    struct partition *partition = &broker.topics[topic][number];
    bool commit = transaction->state == TRANSACTION_COMMITTED;
    if (partition->pending_in == transaction) {
        partition->pending_in = NULL;
        if (commit)
            judge_offset(topic, number, &partition->committed, &partition->pending);
        if (commit)
            partition->committed = partition->pending;
    }
    if (transaction->touched[topic][number] > 0)
        append(topic, number, (struct logged){.control = true});
}

bool broker_finish(struct transaction *transaction, bool commit)
{
    if (transaction->state != TRANSACTION_OPEN)
        return false;
    transaction->state = commit ? TRANSACTION_COMMITTED : TRANSACTION_ABORTED;
    for (enum topic topic = 0; topic < TOPICS; topic++)
        for (int32_t i = 0; i < partitions[topic]; i++)
            finish_partition(transaction, topic, i);
    if (commit)
        judge_read();
    return true;
}

void broker_fence(int slot)
{
    for (struct transaction *one = broker.transactions; one != NULL; one = one->next)
        if (one->slot == slot && one->state == TRANSACTION_OPEN)
            broker_finish(one, false);
}

bool broker_committed(enum topic topic, int32_t number, struct stored_offset *offset)
{
    const struct partition *partition = &broker.topics[topic][number];
    *offset = partition->committed;
    return partition->pending_in == NULL;
}

/* ---- the group ---- */

/* Eager, as range is: everybody lets go of everything. */
void broker_rebalance(void)
{
    if (broker.preparing)
        return;
    tell("rebalance");
    broker.preparing = true;
    broker.prepared_us = world.now_us + JOIN_MS * 1000;
    for (int i = 0; i < SLOTS; i++)
        broker.members[i].joined = false;
}

void broker_join(int slot)
{
    struct member *member = &broker.members[slot];
    bool same = member->in && !broker.preparing && dice(2) == 0; /* a static member that came back in time */
    member->seen_us = world.now_us;
    if (same)
        return;
    if (!broker.preparing)
        broker_rebalance();
    member->in = member->joined = true;
}

void broker_leave(int slot)
{
    if (broker.members[slot].in)
        broker_rebalance();
    broker.members[slot].in = false;
}

struct membership broker_heartbeat(int slot)
{
    struct member *member = &broker.members[slot];
    member->seen_us = world.now_us;
    return (struct membership){.member = member->in,
                               .generation = broker.generation,
                               .rejoin = broker.preparing && !member->joined,
                               .settled = !broker.preparing};
}

static void assign(void)
{
    int present[SLOTS], count = 0;
    broker.preparing = false;
    broker.generation++;
    for (int i = 0; i < SLOTS; i++) {
        broker.members[i].in = broker.members[i].joined;
        broker.members[i].generation = broker.generation;
        if (broker.members[i].in)
            present[count++] = i;
    }
    for (enum topic topic = TOPIC_STEPS; topic <= TOPIC_INBOX; topic++)
        for (int32_t i = 0; i < partitions[topic]; i++)
            broker.owners[topic][i] = count > 0 ? present[dice((uint64_t)count)] : -1;
}

bool broker_owns(int slot, enum topic topic, int32_t number)
{
    return broker.owners[topic][number] == slot;
}

void broker_serve(void)
{
    bool all = true;
    for (struct transaction *one = broker.transactions; one != NULL; one = one->next)
        if (one->state == TRANSACTION_OPEN && world.now_us - one->began_us > TRANSACTION_MS * 1000)
            broker_finish(one, false);
    for (int i = 0; i < SLOTS; i++) {
        struct member *member = &broker.members[i];
        if (member->in && world.now_us - member->seen_us > SESSION_MS * 1000)
            broker_leave(i);
        all = all && (!member->in || member->joined);
    }
    if (broker.preparing && (all || world.now_us > broker.prepared_us))
        assign();
}
