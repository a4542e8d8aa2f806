/* Single records of `history`: each comes after a while, and with it some that lie before it; see worker/io/fetch.h. */
#include "worker/io/fetch.h"

#include <string.h>

#include "tests/sim/broker.h"
#include "tests/sim/world.h"
#include "worker/base/mem.h"

#define FETCH_MS_MAX 200
#define BEHIND_MAX 3 /* records before the one asked for */

struct request {
    struct request *next;
    int32_t partition;
    int64_t offset, answers_us;
    fetch_done done;
    void *context;
};

struct fetch {
    struct life *life;
    struct request *requests;
};

struct fetch *fetch_open(const char *topic, const char *const *properties, size_t count, struct error *error)
{
    struct fetch *fetch = mem_new(sizeof(*fetch));
    (void)topic;
    (void)properties;
    (void)count;
    (void)error;
    fetch->life = world.running;
    return fetch;
}

void fetch_close(struct fetch *fetch)
{
    mem_free(fetch); /* requests are the world's */
}

void fetch_start(struct fetch *fetch, int32_t partition, int64_t offset, fetch_done done, void *context)
{
    if (world.apart)
        wrong("what the worker wrote itself is not in its cache");
    struct request *request = ARENA_NEW(world.arena, struct request);
    *request = (struct request){.next = fetch->requests,
                                .partition = partition,
                                .offset = offset,
                                .answers_us = world.now_us + dice_between(0, FETCH_MS_MAX) * 1000,
                                .done = done,
                                .context = context};
    fetch->requests = request;
    (void)life_goes_on(fetch->life);
}

int fetch_fd(const struct fetch *fetch)
{
    (void)fetch;
    return -1;
}

/* Uncommitted and aborted records as well. */
static void answer(const struct request *request)
{
    struct fetched_record records[BEHIND_MAX + 1];
    struct fetched fetched = {.records = records};
    int64_t behind = dice_between(0, BEHIND_MAX), from = request->offset - behind;
    bool there = request->offset >= 0 && request->partition >= 0 &&
                 request->partition < broker_partitions(TOPIC_HISTORY) &&
                 request->offset < broker_end(TOPIC_HISTORY, request->partition) &&
                 !broker_at(TOPIC_HISTORY, request->partition, request->offset)->control;
    if (!there)
        error_set(&fetched.error, ERROR_POISON, "partition %d has no record at %lld", (int)request->partition,
                  (long long)request->offset);
    for (int64_t offset = from < 0 ? 0 : from; there && offset <= request->offset; offset++) {
        const struct logged *record = broker_at(TOPIC_HISTORY, request->partition, offset);
        if (record->control)
            continue;
        struct fetched_record *one = &records[fetched.count++];
        one->value = record->value;
        hash_sha256_raw(one->value, one->digest);
    }
    tell("payload %d:%lld fetched", (int)request->partition, (long long)request->offset);
    request->done(request->context, &fetched);
}

void fetch_ready(struct fetch *fetch)
{
    for (struct request **at = &fetch->requests; *at != NULL;) {
        struct request *request = *at;
        if (request->answers_us > world.now_us || !life_goes_on(fetch->life)) {
            at = &request->next;
            continue;
        }
        *at = request->next;
        answer(request); /* may ask for more, in front */
        at = &fetch->requests;
    }
}
