/* Single records of `history` and rows of `waiting`: each comes after a while; see worker/io/readback.h. */
#include "worker/io/readback.h"

#include <string.h>

#include "tests/sim/broker.h"
#include "tests/sim/lives.h"
#include "tests/sim/world.h"
#include "worker/base/mem.h"
#include "worker/io/clock.h"

#define READ_MS_MAX 200
#define AWAY_MS_MAX 8000 /* longer than anybody is patient with what is not there ... */
#define NEW_MS_MAX 4000  /* ... and shorter */
#define BEHIND_MAX 3

struct asked {
    struct asked *next;
    struct readback_wanted wanted;
    int64_t answers_us;
    bool leader_is_new; /* what is said is as old as the question */
};

/* With a world of its own the loop cannot look at the broker: rows as they were told at the rebuild. */
struct told {
    struct told *next;
    int32_t partition;
    int64_t offset;
    struct str key, value;
};

/* A record that was asked for: until when its leader is so new that it does not have it. */
struct known {
    struct known *next;
    int32_t partition;
    int64_t offset, new_until_us;
};

struct readback {
    struct life *life;
    struct asked *asked;
    struct told *told;
    struct known *known;
    struct readback_row *read, **read_last;
};

struct readback *readback_open(const char *const *topics, size_t topics_count, const char *const *properties,
                               size_t properties_count, struct error *error)
{
    struct readback *readback = mem_new(sizeof(*readback));
    (void)topics;
    (void)topics_count;
    (void)properties;
    (void)properties_count;
    (void)error;
    readback->life = world.running;
    readback->read_last = &readback->read;
    return readback;
}

void readback_close(struct readback *readback)
{
    while (readback->read != NULL) {
        struct readback_row *next = readback->read->next;
        readback_row_free(readback->read);
        readback->read = next;
    }
    mem_free(readback); /* what was asked is the world's */
}

int readback_fd(const struct readback *readback)
{
    (void)readback;
    return -1;
}

static bool leader_is_new(struct readback *readback, const struct readback_wanted *wanted)
{
    struct known *known = readback->known;
    while (known != NULL && (known->partition != wanted->partition || known->offset != wanted->offset))
        known = known->next;
    if (known == NULL) {
        known = ARENA_NEW(world.arena, struct known);
        *known = (struct known){.next = readback->known, .partition = wanted->partition, .offset = wanted->offset};
        known->new_until_us = trouble(3) ? world.now_us + dice_between(0, NEW_MS_MAX) * 1000 : 0;
        readback->known = known;
    }
    return world.now_us < known->new_until_us;
}

void readback_ask(struct readback *readback, const struct readback_wanted *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (world.apart && wanted[i].topic == READ_HISTORY)
            wrong("what the worker wrote itself is not in its cache");
        struct asked *asked = ARENA_NEW(world.arena, struct asked);
        int64_t ms_max = wanted[i].topic == READ_HISTORY && trouble(4) ? AWAY_MS_MAX : READ_MS_MAX;
        *asked = (struct asked){.next = readback->asked,
                                .wanted = wanted[i],
                                .answers_us = world.now_us + dice_between(0, ms_max) * 1000,
                                .leader_is_new = wanted[i].topic == READ_HISTORY &&
                                                 leader_is_new(readback, &wanted[i])};
        readback->asked = asked;
    }
    if (count > 0)
        (void)life_goes_on(readback->life);
}

void readback_told(struct readback *readback, const struct log_event *event)
{
    struct told *told = ARENA_NEW(world.arena, struct told);
    *told = (struct told){.next = readback->told,
                          .partition = event->partition,
                          .offset = event->offset,
                          .key = arena_str(world.arena, event->key),
                          .value = arena_str(world.arena, event->value)};
    readback->told = told;
}

static struct readback_row *append(struct readback *readback, const struct readback_wanted *wanted, bool asked)
{
    struct readback_row *row = mem_new(sizeof(*row));
    row->wanted = *wanted;
    row->asked = asked;
    *readback->read_last = row;
    readback->read_last = &row->next;
    return row;
}

/* Uncommitted and aborted records as well, and some of those before it. */
static void read_history(struct readback *readback, const struct asked *asked)
{
    const struct readback_wanted *wanted = &asked->wanted;
    int64_t behind = dice_between(0, wanted->behind < BEHIND_MAX ? wanted->behind : BEHIND_MAX);
    int64_t from = wanted->offset > behind ? wanted->offset - behind : 0;
    bool there = wanted->offset >= 0 && wanted->partition >= 0 &&
                 wanted->partition < broker_partitions(TOPIC_HISTORY) &&
                 wanted->offset < broker_end(TOPIC_HISTORY, wanted->partition) &&
                 !broker_at(TOPIC_HISTORY, wanted->partition, wanted->offset)->control;
    if (!there || asked->leader_is_new) {
        append(readback, wanted, true)->not_there = there ? "its leader is new" : "it is not there";
        return;
    }
    for (int64_t offset = from; offset <= wanted->offset; offset++) {
        const struct logged *record = broker_at(TOPIC_HISTORY, wanted->partition, offset);
        if (record->control)
            continue;
        struct readback_row *row = append(readback, wanted, offset == wanted->offset);
        row->wanted.offset = offset;
        row->value = record->value;
        hash_sha256_raw(row->value, row->digest);
    }
    tell("payload %d:%lld read", (int)wanted->partition, (long long)wanted->offset);
}

static void read_waiting(struct readback *readback, const struct readback_wanted *wanted)
{
    const struct told *told = readback->told;
    const struct logged *lies = NULL;
    while (told != NULL && (told->partition != wanted->partition || told->offset != wanted->offset))
        told = told->next;
    if (!world.apart && wanted->offset < broker_end(TOPIC_WAITING, wanted->partition))
        lies = broker_read(TOPIC_WAITING, wanted->partition, wanted->offset);
    if (world.apart ? told == NULL : lies == NULL)
        wrong("row %d:%lld of waiting is asked for, and not there", (int)wanted->partition, (long long)wanted->offset);
    struct readback_row *row = append(readback, wanted, true);
    row->key = lies != NULL ? lies->key : told->key;
    row->value = lies != NULL ? lies->value : told->value;
}

static void read_one(struct readback *readback)
{
    for (struct asked **at = &readback->asked; *at != NULL; at = &(*at)->next) {
        const struct asked *asked = *at;
        bool due = asked->answers_us <= world.now_us && asked->wanted.after_us <= clock_mono_us();
        if (!due || !life_goes_on(readback->life))
            continue;
        *at = asked->next;
        if (asked->wanted.topic == READ_HISTORY)
            read_history(readback, asked);
        else
            read_waiting(readback, &asked->wanted);
        return;
    }
}

struct readback_row *readback_next(struct readback *readback)
{
    if (readback->read == NULL)
        read_one(readback);
    struct readback_row *row = readback->read;
    if (row == NULL)
        return NULL;
    readback->read = row->next;
    if (readback->read == NULL)
        readback->read_last = &readback->read;
    return row;
}

void readback_row_free(struct readback_row *row)
{
    mem_free(row);
}
