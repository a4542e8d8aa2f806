#include "tests/sim/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

#define ENTRIES_MAX 4096
#define REPLICA_MS 300 /* how far behind the replica may be */

enum state { STATE_NONE, STATE_RESERVED, STATE_DONE, STATE_NOT_DONE };

/* A record of any kind; the name says of which (see ledger_scripts.h). The zero value is not there. */
struct entry {
    struct str name, set; /* set: of a write's run */
    enum state state;
    int64_t fence, until_ms, try;
    struct str holder, ask, slot, result;
    int64_t begun, alone;
    int64_t expires_ms; /* 0 = never */
};

struct data {
    struct entry entries[ENTRIES_MAX];
    size_t count;
    struct str incarnation; /* absent: nobody has written one */
};

static struct {
    struct data now, replica;
    int64_t replica_at_ms;
    int64_t away_until_us;
    char run_id[41];
    struct str done[ENTRIES_MAX]; /* names of writes whose result was stored at some time */
    struct str lost[ENTRIES_MAX]; /* names of counts, once for each change that was lost */
    size_t done_count, lost_count;
} redis;

/* ---- records ---- */

static struct entry *find(struct str name)
{
    for (size_t i = 0; i < redis.now.count; i++) {
        struct entry *entry = &redis.now.entries[i];
        if (!str_equal(entry->name, name))
            continue;
        if (entry->expires_ms != 0 && entry->expires_ms <= world_now_ms())
            *entry = (struct entry){.name = entry->name};
        return entry;
    }
    if (redis.now.count == ENTRIES_MAX)
        wrong("the simulated Redis is full");
    struct entry *entry = &redis.now.entries[redis.now.count++];
    *entry = (struct entry){.name = arena_str(world.arena, name)};
    return entry;
}

static int64_t number(struct str text)
{
    return strtoll(text.data, NULL, 10);
}

static struct str keep(struct str text)
{
    return arena_str(world.arena, text);
}

static struct str incarnation(struct str random)
{
    if (redis.now.incarnation.data == NULL)
        redis.now.incarnation = keep(random);
    return redis.now.incarnation;
}

/* ---- replies ---- */

static redisReply *reply_text(struct str text)
{
    redisReply *reply = ARENA_NEW(world.arena, redisReply);
    *reply = (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)keep(text).data, .len = text.size};
    return reply;
}

static redisReply *reply_number(int64_t value)
{
    redisReply *reply = ARENA_NEW(world.arena, redisReply);
    *reply = (redisReply){.type = REDIS_REPLY_INTEGER, .integer = value};
    return reply;
}

static const redisReply *returned(const char *verdict, int64_t fence, int64_t wait_ms, struct str known,
                                  struct str text)
{
    redisReply *reply = ARENA_NEW(world.arena, redisReply), **elements = ARENA_ARRAY(world.arena, 5, redisReply *);
    elements[0] = reply_text(str_of(verdict));
    elements[1] = reply_number(fence);
    elements[2] = reply_number(wait_ms);
    elements[3] = reply_text(known);
    elements[4] = reply_text(text.data != NULL ? text : STR(""));
    *reply = (redisReply){.type = REDIS_REPLY_ARRAY, .elements = 5, .element = elements};
    return reply;
}

/* ---- scripts: line by line those of ledger_scripts.c ---- */

static void hold(struct entry *entry, const struct redis_command *command, int64_t fence, struct str holder,
                 struct str ask)
{
    entry->state = STATE_RESERVED;
    entry->fence = fence;
    entry->holder = keep(holder);
    entry->ask = keep(ask);
    entry->try = number(command->arguments[3]);
    entry->until_ms = world_now_ms() + number(command->arguments[4]);
    entry->result = STR_NONE;
    entry->set = keep(command->keys[2]);
}

static const redisReply *reserve_or_take_over(const struct redis_command *command, bool takeover)
{
    const struct str *arguments = command->arguments;
    struct entry *entry = find(command->keys[0]);
    struct str known = incarnation(arguments[0]);
    int64_t hold_ms = number(arguments[4]), left_ms = entry->until_ms - world_now_ms();
    bool unheard = entry->ask.size > 0 && str_equal(entry->ask, arguments[2]) && entry->try < number(arguments[3]);
    bool forgot = !takeover && arguments[5].size > 0 && !str_equal(arguments[5], known);
    if (entry->state == STATE_DONE)
        return returned("stored", entry->fence, 0, known, entry->result);
    if (forgot || (takeover && entry->state == STATE_NONE)) {
        hold(entry, command, entry->fence, STR(""), STR(""));
        return returned("doubt", entry->fence, hold_ms, known, STR(""));
    }
    if (entry->state == STATE_RESERVED && !unheard && (!takeover || left_ms > 0))
        return returned("doubt", entry->fence, left_ms > 0 ? left_ms : 0, known, entry->holder);
    int64_t fence = entry->fence + 1 > world_now_ms() ? entry->fence + 1 : world_now_ms();
    hold(entry, command, fence, arguments[1], arguments[2]);
    return returned("go", fence, hold_ms, known, STR(""));
}

static const redisReply *complete(const struct redis_command *command)
{
    const struct str *arguments = command->arguments;
    struct entry *entry = find(command->keys[0]);
    struct str known = incarnation(arguments[0]);
    int64_t fence = number(arguments[1]);
    bool done = str_is(arguments[3], "done");
    if (entry->state != STATE_NONE && entry->fence > fence)
        return returned("refused", entry->fence, 0, known, STR(""));
    if (entry->state != STATE_DONE)
        *entry = (struct entry){.name = entry->name,
                                .set = keep(command->keys[2]),
                                .state = done ? STATE_DONE : STATE_NOT_DONE,
                                .fence = fence,
                                .holder = keep(arguments[2]),
                                .result = done ? keep(arguments[4]) : STR_NONE};
    if (entry->state == STATE_DONE && !redis_was_done(entry->name) && redis.done_count < ENTRIES_MAX)
        redis.done[redis.done_count++] = entry->name;
    return returned("go", fence, 0, known, STR(""));
}

static const redisReply *lease(const struct redis_command *command)
{
    const struct str *arguments = command->arguments;
    struct entry *entry = find(command->keys[0]);
    bool own_dead_self = str_equal(entry->slot, arguments[1]) && !str_equal(entry->holder, arguments[0]);
    if (entry->result.data != NULL)
        return returned("stored", 0, 0, STR(""), entry->result);
    if (entry->holder.data != NULL && !own_dead_self)
        return returned("held", 0, entry->expires_ms - world_now_ms(), STR(""), entry->holder);
    entry->holder = keep(arguments[0]);
    entry->slot = keep(arguments[1]);
    entry->expires_ms = world_now_ms() + number(arguments[2]);
    return returned("go", 0, 0, STR(""), STR(""));
}

static const redisReply *renew(const struct redis_command *command)
{
    for (size_t i = 0; i < command->keys_count; i++) {
        struct entry *entry = find(command->keys[i]);
        if (entry->result.data != NULL ||
            (entry->holder.data != NULL && !str_equal(entry->holder, command->arguments[0])))
            continue;
        entry->holder = keep(command->arguments[0]);
        entry->slot = entry->slot.data != NULL ? entry->slot : keep(command->arguments[1]);
        entry->expires_ms = world_now_ms() + number(command->arguments[2]);
    }
    return reply_number((int64_t)command->keys_count);
}

static const redisReply *store(const struct redis_command *command)
{
    struct entry *entry = find(command->keys[0]);
    if (entry->result.data == NULL)
        *entry = (struct entry){.name = entry->name,
                                .result = keep(command->arguments[0]),
                                .expires_ms = world_now_ms() + number(command->arguments[1])};
    return reply_number(1);
}

static const redisReply *release(const struct redis_command *command)
{
    struct entry *entry = find(command->keys[0]);
    if (str_equal(entry->holder, command->arguments[0]))
        *entry = (struct entry){.name = entry->name};
    return reply_number(1);
}

static const redisReply *count(const struct redis_command *command)
{
    struct entry *entry = find(command->keys[0]);
    entry->begun += number(command->arguments[0]);
    entry->alone += number(command->arguments[1]);
    entry->expires_ms = world_now_ms() + number(command->arguments[2]);
    return returned("go", entry->begun, entry->alone, STR(""), STR(""));
}

static const redisReply *forget(const struct redis_command *command)
{
    int64_t before_ms = number(command->arguments[0]), gone = 0;
    for (size_t i = 0; i < redis.now.count; i++) {
        struct entry *entry = &redis.now.entries[i];
        if (!str_equal(entry->set, command->keys[0]) || entry->fence >= before_ms || entry->until_ms >= before_ms)
            continue;
        *entry = (struct entry){.name = entry->name};
        gone++;
    }
    return returned("go", gone, 0, STR(""), STR(""));
}

const redisReply *redis_run(const struct redis_command *command)
{
    switch (command->script) {
    case LEDGER_SCRIPT_RESERVE:
        return reserve_or_take_over(command, false);
    case LEDGER_SCRIPT_TAKEOVER:
        return reserve_or_take_over(command, true);
    case LEDGER_SCRIPT_COMPLETE:
        return complete(command);
    case LEDGER_SCRIPT_LEASE:
        return lease(command);
    case LEDGER_SCRIPT_RENEW:
        return renew(command);
    case LEDGER_SCRIPT_STORE:
        return store(command);
    case LEDGER_SCRIPT_RELEASE:
        return release(command);
    case LEDGER_SCRIPT_COUNT:
        return count(command);
    case LEDGER_SCRIPT_FORGET:
        return forget(command);
    case LEDGER_SCRIPT_HELLO:
    case LEDGER_SCRIPT_SLOT: /* these workers have theirs by their settings */
    case LEDGER_SCRIPTS_COUNT:
        break;
    }
    return reply_text(incarnation(command->arguments[0]));
}

/* ---- life ---- */

static void new_run_id(void)
{
    for (size_t i = 0; i < sizeof(redis.run_id) - 1; i++)
        redis.run_id[i] = "0123456789abcdef"[dice(16)];
}

void redis_open(void)
{
    memset(&redis, 0, sizeof(redis));
    new_run_id();
    redis_arrivals_open();
}

bool redis_reachable(void)
{
    return world.now_us >= redis.away_until_us;
}

const char *redis_run_id(void)
{
    return redis.run_id;
}

bool redis_was_done(struct str name)
{
    for (size_t i = 0; i < redis.done_count; i++)
        if (str_equal(redis.done[i], name))
            return true;
    return false;
}

void redis_lose_count(struct str name)
{
    if (redis.lost_count < ENTRIES_MAX)
        redis.lost[redis.lost_count++] = name;
}

int redis_lost_counts(struct str name)
{
    int count = 0;
    for (size_t i = 0; i < redis.lost_count; i++)
        count += str_equal(redis.lost[i], name);
    return count;
}

static void fail_over(void)
{
    for (size_t i = 0; i < redis.now.count; i++)
        if (redis.now.entries[i].begun != 0 || redis.now.entries[i].alone != 0)
            redis_lose_count(redis.now.entries[i].name);
    redis.now = redis.replica;
    new_run_id();
}

static void go_away(void)
{
    redis.away_until_us = world.now_us + dice_between(10, 4000) * 1000;
}

void redis_serve(void)
{
    if (world_now_ms() - redis.replica_at_ms > REPLICA_MS && dice(8) == 0) {
        redis.replica = redis.now;
        redis.replica_at_ms = world_now_ms();
    }
    if (trouble(150)) {
        tell("redis is away");
        go_away();
    } else if (trouble(400)) {
        tell("redis is wiped");
        redis.now = (struct data){.count = 0};
    } else if (trouble(400)) {
        tell("redis fails over to a replica that lags");
        fail_over();
        go_away();
    }
}

void redis_heal(void)
{
    redis.away_until_us = 0;
}
