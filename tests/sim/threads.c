/*
 * threads.c: what two threads of a worker share, for ThreadSanitizer: the loop with Redis and the tools, and the log thread with Kafka
 * and its clients, each in a world of its own; nothing but log.c, its rings and blocks between them, and no lock. The watchdog of
 * expressions looks on at both. Time is real.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "tests/sim/clients.h"
#include "tests/sim/judge.h"
#include "tests/sim/lives.h"
#include "tests/sim/log_thread.h"
#include "tests/sim/outside.h"
#include "tests/sim/redis.h"
#include "worker/base/logline.h"
#include "worker/io/admin.h"
#include "worker/io/clock.h"

#define SETTINGS "tests/sim/worker.cfg"
#define CONTRACT "tests/sim/trip.cfg"
#define RUNS_WANTED 12 /* ended */
#define SECONDS_MAX 60

static struct settings *settings;
static atomic_int ended; /* runs; relaxed, so that it puts nothing else in order */

static void open_world(uint64_t seed)
{
    world = (struct world){.seed = seed, .dice = seed, .apart = true, .settings = settings, .arena = arena_new()};
    world_pass_time();
}

static void sleep_on(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    poll(&ready, 1, 1);
}

/* ---- the log thread ---- */

static void log_side_turn(struct log *log)
{
    world_pass_time();
    broker_serve();
    clients_serve();
    if (trouble(2000))
        broker_rebalance();
    log_thread_turn(log);
    int count = 0;
    for (const struct judged_run *run = judge_runs(); run != NULL; run = run->next)
        count += run->ended;
    atomic_store_explicit(&ended, count, memory_order_relaxed);
}

void *log_thread(void *argument)
{
    struct log *log = argument;
    open_world(2);
    world.troubled = true;
    judge_open();
    broker_open();
    clients_open(CONTRACT);
    while (!log->stopped && !atomic_load(&log->quit)) {
        log_side_turn(log);
        sleep_on(log->to_log.fd);
    }
    arena_free(world.arena);
    expr_cache_free();
    return argument;
}

/* ---- the loop thread ---- */

static void look_at_numbers(struct worker *worker)
{
    struct admin_page page = {.status = 404};
    buf_init(&page.body, ADMIN_BODY_MAX);
    meter_page(worker, "/metrics", &page);
    buf_free(&page.body);
}

static void loop_side_turn(struct life *life)
{
    world_pass_time();
    redis_arrivals();
    outside_serve();
    life_turn(life);
    if (dice(20) == 0)
        look_at_numbers(&life->worker);
    sleep_on(log_fd(life->worker.log));
}

int main(void)
{
    struct error error;
    logline_level(LOGLINE_ERROR + 1);
    settings = record_open(&error) ? settings_read(SETTINGS, &error) : NULL;
    if (settings == NULL)
        return fprintf(stderr, "%s\n", error.text), EX_CONFIG;
    open_world(1);
    redis_open();
    outside_open();
    life_begin(0);
    struct life *life = world.lives[0];
    int64_t until_us = world.now_us + SECONDS_MAX * 1000000;
    while (world.now_us < until_us && atomic_load_explicit(&ended, memory_order_relaxed) < RUNS_WANTED)
        loop_side_turn(life);
    int count = atomic_load_explicit(&ended, memory_order_relaxed);
    log_stop(life->worker.log);
    while (!life->worker.log_stopped)
        loop_side_turn(life);
    life_end(life);
    arena_free(world.arena);
    settings_free(settings);
    expr_cache_free();
    record_close();
    printf("%d runs ended, wanted: %d\n", count, RUNS_WANTED);
    return count >= RUNS_WANTED ? EX_OK : EX_SOFTWARE;
}
