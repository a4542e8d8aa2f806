#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/clients.h"
#include "tests/sim/judge.h"
#include "tests/sim/lives.h"
#include "tests/sim/outside.h"
#include "tests/sim/redis.h"
#include "worker/base/budget.h"
#include "worker/io/clock.h"

#define BOOT_US 3600000000 /* what the other clocks show at the beginning */
#define CALM_STEPS_MAX 20000
/* Of all workers together, in turn: so little that they have to wait for each other, or that only some steps are whole. */
#define MEMORY_MAX(seed) ((seed) % 2 == 0 ? 64 << 10 : 384 << 10)
#define CONTRACT "tests/sim/trip.cfg"

_Thread_local struct world world;

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

/* ---- the world ---- */

void world_pass_time(void)
{
    static const int64_t longest_ms[] = {1, 5, 10, 20, 20, 50, 100, 1500};
    struct timespec now;
    if (!world.apart) {
        world.now_us += dice_between(0, longest_ms[dice(sizeof(longest_ms) / sizeof(longest_ms[0]))] * 1000);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    world.now_us = now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void step(void)
{
    world_pass_time();
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
            life_begin(slot);
        else if (world.lives[slot] != NULL)
            life_serve(world.lives[slot]);
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
    budget_open(MEMORY_MAX(seed));
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
            life_end(world.lives[i]);
    for (enum budget_use use = 0; use < BUDGET_USES; use++)
        if (budget_used(use) != 0)
            wrong("of the budget for %s %lld bytes were never given back", budget_use_name(use),
                  (long long)budget_used(use));
    arena_free(world.arena);
}
