/* Rows of `waiting` by their offsets: each comes after a while; see worker/io/recall.h. */
#include "worker/io/recall.h"

#include <string.h>

#include "tests/sim/broker.h"
#include "tests/sim/lives.h"
#include "tests/sim/world.h"
#include "worker/base/mem.h"
#include "worker/io/clock.h"

#define RECALL_MS_MAX 200

struct asked {
    struct asked *next;
    struct recall_wanted wanted;
    int64_t answers_us;
};

/* With a world of its own the loop cannot look at the broker: rows as they were told at the rebuild. */
struct told {
    struct told *next;
    int32_t partition;
    int64_t offset;
    struct str key, value;
};

struct recall {
    struct life *life;
    struct asked *asked;
    struct told *told;
};

struct recall *recall_open(const char *name_space, const char *const *properties, size_t count, struct error *error)
{
    struct recall *recall = mem_new(sizeof(*recall));
    (void)name_space;
    (void)properties;
    (void)count;
    (void)error;
    recall->life = world.running;
    return recall;
}

void recall_close(struct recall *recall)
{
    mem_free(recall); /* what was asked is the world's */
}

int recall_fd(const struct recall *recall)
{
    (void)recall;
    return -1;
}

void recall_ask(struct recall *recall, const struct recall_wanted *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct asked *asked = ARENA_NEW(world.arena, struct asked);
        *asked = (struct asked){.next = recall->asked,
                                .wanted = wanted[i],
                                .answers_us = world.now_us + dice_between(0, RECALL_MS_MAX) * 1000};
        recall->asked = asked;
    }
    if (count > 0)
        (void)life_goes_on(recall->life);
}

void recall_told(struct recall *recall, const struct log_event *event)
{
    struct told *told = ARENA_NEW(world.arena, struct told);
    *told = (struct told){.next = recall->told,
                          .partition = event->partition,
                          .offset = event->offset,
                          .key = arena_str(world.arena, event->key),
                          .value = arena_str(world.arena, event->value)};
    recall->told = told;
}

static bool find(const struct recall *recall, const struct recall_wanted *wanted, struct recall_row *row)
{
    const struct told *told = recall->told;
    const struct logged *lies = NULL;
    while (told != NULL && (told->partition != wanted->partition || told->offset != wanted->offset))
        told = told->next;
    if (!world.apart && wanted->offset < broker_end(TOPIC_WAITING, wanted->partition))
        lies = broker_read(TOPIC_WAITING, wanted->partition, wanted->offset);
    row->key = lies != NULL ? lies->key : told != NULL ? told->key : STR_NONE;
    row->value = lies != NULL ? lies->value : told != NULL ? told->value : STR_NONE;
    return lies != NULL || (world.apart && told != NULL);
}

static struct recall_row *answer(const struct recall *recall, const struct recall_wanted *wanted)
{
    struct recall_row *row = mem_new(sizeof(*row));
    row->wanted = *wanted;
    row->found = find(recall, wanted, row);
    if (!row->found)
        wrong("row %d:%lld of waiting is asked for, and not there", (int)wanted->partition, (long long)wanted->offset);
    return row;
}

struct recall_row *recall_next(struct recall *recall)
{
    for (struct asked **at = &recall->asked; *at != NULL; at = &(*at)->next) {
        const struct asked *asked = *at;
        if (asked->answers_us > world.now_us || asked->wanted.after_us > clock_mono_us() || !life_goes_on(recall->life))
            continue;
        *at = asked->next;
        return answer(recall, &asked->wanted);
    }
    return NULL;
}

void recall_row_free(struct recall_row *row)
{
    mem_free(row);
}
