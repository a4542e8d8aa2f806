#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/clients.h"
#include "tests/sim/judge.h"
#include "tests/sim/log_thread.h"
#include "tests/sim/outside.h"
#include "tests/sim/redis.h"
#include "worker/base/mem.h"
#include "worker/delivery.h"
#include "worker/io/clock.h"
#include "worker/io/metrics.h"

#define BOOT_US 3600000000 /* what the other clocks show at the beginning */
#define CALM_STEPS_MAX 20000
#define RECORDS_MAX 8 /* log events in one go */
#define CONTRACT "tests/sim/trip.cfg"

struct world world;

/* ---- dice: splitmix64 ---- */

uint64_t dice(uint64_t sides)
{
    uint64_t z = world.dice += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % sides;
}

int64_t dice_between(int64_t low, int64_t high)
{
    return low + (int64_t)dice((uint64_t)(high - low) + 1);
}

bool trouble(uint64_t one_in)
{
    return world.troubled && dice(one_in) == 0;
}

/* ---- clock.h ---- */

int64_t world_now_ms(void)
{
    return START_MS + world.now_us / 1000;
}

/* To ask for the time is a call of a port as well. */
static void asked(void)
{
    if (world.running != NULL && world.troubled)
        (void)life_goes_on(world.running);
}

int64_t clock_wall_ms(void)
{
    asked();
    return world_now_ms() + (world.running != NULL ? world.running->skew_ms : 0);
}

int64_t clock_boot_ms(void)
{
    return (BOOT_US + world.now_us) / 1000;
}

int64_t clock_mono_us(void)
{
    return BOOT_US + world.now_us;
}

/* ---- telling ---- */

static void print(const char *format, va_list arguments)
{
    char text[600];
    (void)vsnprintf(text, sizeof(text), format, arguments);
    fprintf(stderr, "%10.3f %s\n", (double)world.now_us / 1e6, text);
}

void tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (world.verbose)
        print(format, arguments);
    va_end(arguments);
}

void wrong(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "WRONG, seed %llu, after %d deaths:\n", (unsigned long long)world.seed, world.deaths);
    print(format, arguments);
    va_end(arguments);
    _Exit(1);
}

/* ---- lives ---- */

/* To the other workers it is dead, whether it is or not. */
static void mishap(struct life *life)
{
    for (struct delivery *delivery = life->worker.deliveries; delivery != NULL; delivery = delivery->next)
        if (!delivery->orphan)
            broker_at(TOPIC_STEPS, delivery->source.partition, delivery->source.offset)->mishaps++;
}

static void die(struct life *life)
{
    tell("worker %d is killed, %d steps in hand", life->slot, life->worker.deliveries_count);
    life->dead = true;
    world.deaths++;
    mishap(life);
}

bool life_goes_on(struct life *life)
{
    if (life->dead || !world.troubled)
        return !life->dead;
    if (dice(20) == 0 && life->worker.log != NULL)
        log_thread_turn(life->worker.log);
    if (dice(700) == 0 && !life->dead)
        die(life);
    return !life->dead;
}

static void born(int slot)
{
    struct life *life = mem_new(sizeof(*life));
    struct error error;
    struct worker *worker = &life->worker;
    tell("worker %d starts", slot);
    *life = (struct life){.slot = slot, .settings = *world.settings, .skew_ms = dice_between(-300, 300)};
    life->settings.slot = slot == 0 ? "a" : "b";
    world.lives[slot] = world.running = life;
    worker->settings = &life->settings;
    snprintf(worker->name, sizeof(worker->name), "%s:%lld", life->settings.slot, (long long)world.now_us);
    struct ledger_settings ledger = {.address = "sim:0",
                                     .name_space = life->settings.name_space.data,
                                     .holder = worker->name,
                                     .slot = life->settings.slot,
                                     .settle_ms = life->settings.settle_ms,
                                     .lease_ms = life->settings.lease_ms};
    worker->metrics = meter_new(&life->settings);
    worker->contracts = contracts_new();
    worker->ledger = ledger_open(&ledger, -1, 0, &error);
    worker->caller = caller_open(NULL, -1, 0, &error);
    worker->payloads = payload_open(&life->settings, &error);
    worker->log = log_thread_open(life);
    world.running = NULL;
}

/* What is not durable goes with it. */
static void bury(struct life *life)
{
    struct worker *worker = &life->worker;
    world.running = life;
    life->dead = true;
    caller_close(worker->caller);
    payload_close(worker->payloads);
    inbox_free(worker);
    ledger_close(worker->ledger);
    loop_free(worker);
    log_close(worker->log);
    contracts_free(worker->contracts);
    metrics_free(worker->metrics);
    world.running = NULL;
    world.lives[life->slot] = NULL;
    world.starts_us[life->slot] = world.now_us +
                                  (world.troubled ? dice_between(0, dice(2) == 0 ? 300 : 9000) * 1000 : 0);
    mem_free(life);
}

/* A turn of the loop, as in main.c. */
static void turn_loop(struct life *life)
{
    struct worker *worker = &life->worker;
    struct log_event event;
    int64_t now_ms = clock_mono_us() / 1000;
    ledger_ready(worker->ledger, 0, 0);
    payload_ready(worker->payloads);
    ledger_tick(worker->ledger, now_ms);
    caller_tick(worker->caller, now_ms);
    loop_tick(worker, now_ms);
    inbox_tick(worker, clock_wall_ms());
    for (int i = 0; i < RECORDS_MAX && !life->dead && log_next(worker->log, &event); i++)
        event_take(worker, &event);
}

/* SIGTERM. */
static void stop(struct life *life)
{
    tell("worker %d is asked to stop", life->slot);
    life->worker.stopping = true;
    life->worker.stop_by_ms = clock_mono_us() / 1000 + life->settings.grace_ms;
    log_stop(life->worker.log);
}

static bool is_over(const struct life *life)
{
    const struct worker *worker = &life->worker;
    bool stored = worker->deliveries_count == 0 && ledger_idle(worker->ledger);
    return life->dead || (worker->log_stopped && (stored || clock_mono_us() / 1000 >= worker->stop_by_ms));
}

static void live(struct life *life)
{
    if (world.now_us < life->frozen_until_us)
        return;
    if (trouble(300)) {
        life->frozen_until_us = world.now_us + dice_between(10, dice(2) == 0 ? 500 : 12000) * 1000;
        tell("worker %d is frozen for %lld ms", life->slot, (long long)(life->frozen_until_us - world.now_us) / 1000);
        mishap(life);
        return;
    }
    if (trouble(500) && !life->worker.stopping)
        stop(life);
    world.running = life;
    if (dice(4) > 0)
        log_thread_turn(life->worker.log);
    if (dice(4) > 0 && !life->dead)
        turn_loop(life);
    world.running = NULL;
    if (is_over(life))
        bury(life);
}

/* ---- the world ---- */

static void pass_time(void)
{
    static const int64_t longest_ms[] = {1, 5, 10, 20, 20, 50, 100, 1500};
    world.now_us += dice_between(0, longest_ms[dice(sizeof(longest_ms) / sizeof(longest_ms[0]))] * 1000);
}

static void step(void)
{
    pass_time();
    broker_serve();
    redis_serve();
    redis_arrivals();
    outside_serve();
    clients_serve();
    if (trouble(100))
        broker_rebalance();
    int first = (int)dice(SLOTS);
    for (int i = 0; i < SLOTS; i++) {
        int slot = (first + i) % SLOTS;
        if (world.lives[slot] == NULL && world.now_us >= world.starts_us[slot])
            born(slot);
        else if (world.lives[slot] != NULL)
            live(world.lives[slot]);
    }
}

/* Nothing goes wrong any more: everything must come to its end. */
static void calm(void)
{
    world.troubled = false;
    redis_heal();
    for (int i = 0; i < SLOTS; i++)
        world.starts_us[i] = 0;
    for (int i = 0; i < CALM_STEPS_MAX && !judge_all_ended(); i++) {
        step();
        judge_read();
    }
    judge_end();
}

void world_run(uint64_t seed, int steps, struct settings *settings, bool verbose)
{
    world = (struct world){.seed = seed, .dice = seed, .settings = settings, .verbose = verbose, .arena = arena_new()};
    judge_open();
    broker_open();
    redis_open();
    outside_open();
    clients_open(CONTRACT);
    world.troubled = true;
    for (int i = 0; i < steps; i++)
        step();
    calm();
    for (int i = 0; i < SLOTS; i++)
        if (world.lives[i] != NULL)
            bury(world.lives[i]);
    arena_free(world.arena);
}
