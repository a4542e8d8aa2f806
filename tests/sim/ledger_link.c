/* The connection to Redis: commands and answers take their time, arrive in order, and are lost with the connection. */
#include "worker/io/ledger_link.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/redis.h"
#include "tests/sim/world.h"
#include "worker/base/mem.h"
#include "worker/io/clock.h"
#include "worker/io/ledger_info.h"

#define TRIP_MS_MAX 8 /* one way */
#define RECONNECT_MS 100
#define HEALTH_MS 1000

/* A command on its way: to Redis, then back. */
struct trip {
    struct trip *next;
    struct redis_command command;
    ledger_link_done *done;
    void *context;
    int64_t arrives_us, returns_us;
    bool lost; /* never arrives */
    bool ran;
    const redisReply *reply;
};

/* Of connections that are lost, and of the dead: what was sent may still arrive, and nobody is told. */
static struct trip *strays;

struct ledger_link {
    struct life *life;
    bool up;
    struct trip *trips, **last;
    int64_t arrives_us, returns_us; /* of the last one */
    int64_t due_ms;                 /* to connect, or to look */
    struct ledger_info info;
    char name_space[64], value[40], known[40], random[LEDGER_INFO_RANDOM_SIZE + 1];
    char incarnation[LEDGER_INFO_RUN_ID_SIZE + 48];
};

static struct ledger_link *links[SLOTS];

struct ledger_link *ledger_link_open(const struct ledger_settings *settings, int epoll_fd, uint32_t tag,
                                     struct error *error)
{
    struct ledger_link *link = mem_new(sizeof(*link));
    (void)epoll_fd;
    (void)tag;
    (void)error;
    link->life = world.running;
    links[link->life->slot] = link;
    link->last = &link->trips;
    (void)snprintf(link->name_space, sizeof(link->name_space), "%s", settings->name_space);
    return link;
}

/* ---- trips ---- */

static struct trip *take_first(struct ledger_link *link)
{
    struct trip *trip = link->trips;
    link->trips = trip->next;
    if (link->trips == NULL)
        link->last = &link->trips;
    return trip;
}

static void lost(const struct trip *trip)
{
    if (trip->command.script == LEDGER_SCRIPT_COUNT)
        redis_lose_count(trip->command.keys[0]);
}

static void arrive(struct trip *trip)
{
    if (!trip->ran && !trip->lost && redis_reachable())
        trip->reply = redis_run(&trip->command);
    if (!trip->ran && trip->reply == NULL)
        lost(trip);
    trip->ran = true;
}

void redis_arrivals_open(void)
{
    strays = NULL;
}

void redis_arrivals(void)
{
    for (struct trip **at = &strays; *at != NULL;) {
        struct trip *trip = *at;
        if (trip->arrives_us > world.now_us) {
            at = &trip->next;
            continue;
        }
        *at = trip->next;
        arrive(trip);
    }
    for (int i = 0; i < SLOTS; i++)
        for (struct trip *trip = links[i] != NULL ? links[i]->trips : NULL; trip != NULL; trip = trip->next)
            if (trip->arrives_us <= world.now_us)
                arrive(trip);
}

static void lose_all(struct ledger_link *link)
{
    bool reached = true;
    while (link->trips != NULL) {
        struct trip *trip = take_first(link);
        trip->done(trip->context, NULL);
        reached = reached && dice(4) > 0; /* in order: from some one on they do not get there */
        if (!reached && !trip->ran)
            lost(trip);
        if (!reached || trip->ran)
            continue;
        trip->next = strays;
        strays = trip;
    }
}

static void go_down(struct ledger_link *link)
{
    link->up = false;
    link->incarnation[0] = '\0';
    link->due_ms = clock_mono_us() / 1000 + RECONNECT_MS;
    lose_all(link);
}

void ledger_link_close(struct ledger_link *link)
{
    links[link->life->slot] = NULL;
    lose_all(link);
    mem_free(link);
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static struct str keep(struct str text)
{
    return arena_str(world.arena, text);
}

bool ledger_link_call(struct ledger_link *link, enum ledger_script script, const struct str *keys, size_t keys_count,
                      const struct str *arguments, size_t arguments_count, ledger_link_done *done, void *context)
{
    bool alive = life_goes_on(link->life);
    if (!link->up && script == LEDGER_SCRIPT_COUNT)
        redis_lose_count(keep(keys[0]));
    if (!link->up)
        return false;
    struct trip *trip = ARENA_NEW(world.arena, struct trip);
    trip->command = (struct redis_command){.script = script, .keys_count = keys_count};
    for (size_t i = 0; i < keys_count; i++)
        trip->command.keys[i] = keep(keys[i]);
    for (size_t i = 0; i < arguments_count; i++)
        trip->command.arguments[i] = keep(arguments[i]);
    trip->done = done;
    trip->context = context;
    trip->lost = !alive;
    trip->arrives_us = later(link->arrives_us, world.now_us + dice_between(0, TRIP_MS_MAX) * 1000);
    trip->returns_us = later(link->returns_us, trip->arrives_us + dice_between(0, TRIP_MS_MAX) * 1000);
    link->arrives_us = trip->arrives_us;
    link->returns_us = trip->returns_us;
    *link->last = trip;
    link->last = &trip->next;
    (void)life_goes_on(link->life);
    return true;
}

/* ---- the loop's side ---- */

void ledger_link_wake(struct ledger_link *link)
{
    (void)link; /* nobody sleeps here */
}

static void set_incarnation(struct ledger_link *link)
{
    (void)snprintf(link->incarnation, sizeof(link->incarnation), "%s-%s", link->value, link->info.run_id);
}

static const struct redis_command *hello(struct ledger_link *link, char key[80])
{
    static struct redis_command command;
    (void)snprintf(key, 80, "{%s}:incarnation", link->name_space);
    command = (struct redis_command){.script = LEDGER_SCRIPT_HELLO, .keys = {str_of(key)}, .keys_count = 1};
    command.arguments[0] = str_of(ledger_link_random(link));
    return &command;
}

static void connect_now(struct ledger_link *link)
{
    char key[80];
    const redisReply *reply = redis_run(hello(link, key));
    (void)snprintf(link->info.run_id, sizeof(link->info.run_id), "%s", redis_run_id());
    (void)snprintf(link->value, sizeof(link->value), "%s", reply->str);
    link->up = true;
    set_incarnation(link);
}

static void on_look(void *context, const redisReply *reply)
{
    if (reply != NULL)
        ledger_link_saw(context, (struct str){reply->str, reply->len});
}

/* What is asked for is on its way at once. */
void ledger_link_flush(struct ledger_link *link)
{
    (void)link;
}

int64_t ledger_link_tick(struct ledger_link *link, int64_t now_mono_ms)
{
    char key[80];
    if (now_mono_ms < link->due_ms)
        return link->due_ms;
    link->due_ms = now_mono_ms + (link->up ? HEALTH_MS : RECONNECT_MS);
    if (link->up) {
        const struct redis_command *command = hello(link, key);
        ledger_link_call(link, LEDGER_SCRIPT_HELLO, command->keys, 1, command->arguments, 1, on_look, link);
    } else if (redis_reachable() && life_goes_on(link->life)) {
        connect_now(link);
    }
    return link->due_ms;
}

/* Answers that are due; or the connection breaks. */
void ledger_link_ready(struct ledger_link *link, int fd, uint32_t epoll_events)
{
    (void)fd;
    (void)epoll_events;
    if (link->up && (!redis_reachable() || strcmp(link->info.run_id, redis_run_id()) != 0 || trouble(150))) {
        go_down(link);
        return;
    }
    while (link->trips != NULL && link->trips->returns_us <= world.now_us && life_goes_on(link->life)) {
        struct trip *trip = take_first(link);
        arrive(trip);
        trip->done(trip->context, trip->reply);
    }
}

bool ledger_link_up(const struct ledger_link *link)
{
    return link->up;
}

bool ledger_link_idle(const struct ledger_link *link)
{
    return link->trips == NULL;
}

const char *ledger_link_reason(const struct ledger_link *link)
{
    return link->up ? "" : "Redis is away";
}

const char *ledger_link_incarnation(const struct ledger_link *link)
{
    return link->incarnation;
}

const char *ledger_link_run_id(const struct ledger_link *link)
{
    return link->info.run_id;
}

const char *ledger_link_writes_refused(const struct ledger_link *link)
{
    return link->up ? NULL : "Redis is away";
}

void ledger_link_saw(struct ledger_link *link, struct str value)
{
    if (value.size == 0 || value.size >= sizeof(link->value) || !link->up)
        return;
    (void)snprintf(link->value, sizeof(link->value), "%.*s", STR_ARG(value));
    set_incarnation(link);
}

const char *ledger_link_known(struct ledger_link *link, struct str incarnation)
{
    ledger_info_known(&link->info, incarnation, link->known, sizeof(link->known));
    return link->known;
}

const char *ledger_link_random(struct ledger_link *link)
{
    for (size_t i = 0; i < LEDGER_INFO_RANDOM_SIZE; i++)
        link->random[i] = "0123456789abcdef"[dice(16)];
    return link->random;
}
