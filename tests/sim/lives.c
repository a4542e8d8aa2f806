#include "tests/sim/lives.h"

#include <stdio.h>

#include "tests/sim/broker.h"
#include "tests/sim/log_thread.h"
#include "worker/base/mem.h"
#include "worker/delivery.h"
#include "worker/io/clock.h"
#include "worker/io/metrics.h"

#define RECORDS_MAX 8 /* log events in one go */

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
    if (world.apart || life->dead || !world.troubled)
        return world.apart || !life->dead;
    if (dice(20) == 0 && life->worker.log != NULL)
        log_thread_turn(life->worker.log);
    if (dice(700) == 0 && !life->dead)
        die(life);
    return !life->dead;
}

void life_begin(int slot)
{
    struct life *life = mem_new(sizeof(*life));
    struct error error;
    struct worker *worker = &life->worker;
    tell("worker %d starts", slot);
    *life = (struct life){.slot = slot, .settings = *world.settings, .skew_ms = dice_between(-300, 300)};
    life->settings.slot = slot == 0 ? "a" : "b";
    life->settings.keeper_memory_kib = world.apart ? 262144 : 1; /* so that rows are read back */
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
    worker->credits = credits_new();
    worker->ledger = ledger_open(&ledger, -1, 0, &error);
    worker->caller = caller_open(NULL, -1, 0, &error);
    worker->readback = readback_open(NULL, 0, NULL, 0, &error);
    worker->payloads = payload_open(worker->readback);
    keep_open(worker);
    struct log_settings log = {.slot = life->settings.slot, .in_flight_max = life->settings.in_flight_max};
    worker->log = world.apart ? log_open(&log, &error) : log_thread_open(life);
    world.running = NULL;
}

/* What is not durable goes with it. */
void life_end(struct life *life)
{
    struct worker *worker = &life->worker;
    world.running = life;
    life->dead = true;
    caller_close(worker->caller);
    keep_free(worker);
    ledger_close(worker->ledger);
    loop_free(worker);
    readback_close(worker->readback);
    payload_close(worker->payloads);
    credits_free(worker->credits);
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
void life_turn(struct life *life)
{
    struct worker *worker = &life->worker;
    struct log_event event;
    int64_t now_ms = clock_mono_us() / 1000;
    ledger_ready(worker->ledger, 0, 0);
    event_read(worker);
    ledger_tick(worker->ledger, now_ms);
    caller_tick(worker->caller, now_ms);
    loop_tick(worker, now_ms);
    keep_tick(worker, clock_wall_ms());
    for (int i = 0; i < RECORDS_MAX && !life->dead && log_next(worker->log, &event); i++) {
        if (world.apart && event.kind == LOG_WAITING_ROW)
            readback_told(worker->readback, &event);
        event_take(worker, &event);
    }
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

void life_serve(struct life *life)
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
        life_turn(life);
    world.running = NULL;
    if (is_over(life))
        life_end(life);
}
