/*
 * Step events that workers die of: an expression that eats memory or time (libjq cannot be stopped, the watchdog ends the process),
 * or a fault of ours. Each delivery that an earlier owner may have begun is counted in Redis, and taken back by whoever lived to
 * decide it or to lose it. After two of them the event runs alone in its worker, so that it takes nobody with it; only workers
 * that died while it was alone count against it, for of the others it may have been the neighbour. After `crashes_max` of them
 * it goes to `dead`, and ends its run.
 *
 * Without Redis nothing is counted, and everything is tried.
 */
#include <inttypes.h>

#include "worker/base/hash.h"
#include "worker/base/logline.h"
#include "worker/delivery.h"
#include "worker/io/clock.h"

#define BEGUN_MAX 2 /* before it runs alone */

static void count(struct delivery *delivery, int32_t begun, int32_t alone, ledger_done *done)
{
    /* Not its offset: a record that lags is appended again (io/log_carry.c), byte for byte. */
    const struct log_event *source = &delivery->source;
    struct str parts[] = {str_of(source->topic_name), source->key, source->value};
    struct ledger_op *op = ledger_count(delivery->worker->ledger, hash_parts(delivery->arena, parts, 3), begun, alone,
                                        done, delivery);
    if (done == NULL)
        ledger_cancel(op);
}

/* I5: could this step have ordered a write that nobody knows the end of? */
static bool may_write(const struct delivery *delivery)
{
    const char *refused;
    const struct run *run = delivery->run;
    const struct contract *contract = contracts_find(delivery->worker->contracts, run->contract_hash, &refused);
    int32_t index = contract != NULL ? contract_step(contract, run->at.step) : -1;
    return index < 0 || run->at.doubt.state != DOUBT_NONE || contract_may_write(contract, &contract->steps[index]);
}

/* I9: goes to `dead`, and ends its run with that reason. */
static void give_up(struct delivery *delivery, int64_t begun, int64_t alone)
{
    struct error error;
    struct str reason = arena_printf(delivery->arena,
                                     "its worker died each time that it ran this step (%" PRId64 " times, %" PRId64
                                     " of them it ran nothing else): see the workers' logs",
                                     begun, alone);
    if (!delivery_decode(delivery, &error)) {
        delivery_poison(delivery, reason.data);
        return;
    }
    if (may_write(delivery))
        reason = arena_printf(delivery->arena, "%.*s. %s", STR_ARG(reason), DECIDE_MAY_HAVE_WRITTEN);
    struct commit commit;
    delivery->env.now_ms = clock_wall_ms();
    decide_abandon(&delivery->env, delivery->run, reason, &delivery->plan);
    commit_open(&commit, delivery->worker, delivery->arena, &delivery->source);
    commit_plan(&commit, &delivery->plan);
    commit_dead(&commit, reason, delivery->run->id);
    commit_done(&commit);
    delivery_release(delivery);
}

static void on_counted(void *context, const struct ledger_answer *answer)
{
    struct delivery *delivery = context;
    struct worker *worker = delivery->worker;
    if (delivery->orphan) {
        delivery_release(delivery);
    } else if (answer->verdict != LEDGER_GO || answer->begun < BEGUN_MAX) {
        delivery_begin(delivery);
    } else if (answer->alone >= worker->settings->crashes_max) {
        give_up(delivery, answer->begun, answer->alone);
    } else {
        LOG_WARN("step.alone", LOG_STR("run", delivery->source.key), LOG_S("topic", delivery->source.topic_name),
                 LOG_I("partition", delivery->source.partition), LOG_I("offset", delivery->source.offset),
                 LOG_I("begun", answer->begun), LOG_I("alone", answer->alone));
        delivery->solitary = delivery->held = worker->held = true;
        alone_tick(worker);
    }
}

static void on_counted_alone(void *context, const struct ledger_answer *answer)
{
    struct delivery *delivery = context;
    (void)answer; /* Redis is down: it is not counted, and run alone all the same */
    if (delivery->orphan)
        delivery_release(delivery);
    else
        delivery_begin(delivery);
}

/* Whoever waits for that something ran alone, or wants to be alone, and now can. */
void alone_tick(struct worker *worker)
{
    /* Without Redis everything is tried: what is begun may wait for it for long. */
    bool up = ledger_up(worker->ledger);
    if (!worker->held)
        return;
    worker->held = false;
    for (struct delivery *delivery = worker->deliveries, *next; delivery != NULL; delivery = next) {
        next = delivery->next;
        if (delivery->held && delivery->orphan)
            delivery_release(delivery);
        else if (delivery->held && delivery->solitary && worker->alone == NULL)
            worker->alone = delivery;
    }
    for (struct delivery *delivery = worker->deliveries; delivery != NULL; delivery = delivery->next)
        worker->held = worker->held || delivery->held;
    if (worker->alone != NULL && worker->alone->held && (worker->begun_count == 0 || !up)) {
        worker->alone->held = false;
        worker->alone->counted_alone = true;
        count(worker->alone, 0, 1, on_counted_alone);
    }
    for (struct delivery *delivery = worker->deliveries, *next; delivery != NULL && (worker->alone == NULL || !up);
         delivery = next) {
        next = delivery->next;
        if (delivery->held)
            delivery_begin(delivery);
    }
}

void alone_count(struct delivery *delivery)
{
    count(delivery, 1, 0, on_counted);
}

void alone_take_back(struct delivery *delivery)
{
    count(delivery, -1, delivery->counted_alone ? -1 : 0, NULL);
}

void alone_keep(struct delivery *delivery)
{
    count(delivery, 1, delivery->counted_alone ? 1 : 0, NULL);
}
