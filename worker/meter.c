/*
 * meter.c: what happened, as numbers; and what the admin port says.
 *
 * What facts tell is counted where they are handed over to be committed (commit_done), so that a number and `history` tell
 * the same story. They part only where a hand-over is dropped because its partition moved away: then the next owner counts
 * it as well. What the log thread and the keepers know is asked for when somebody wants to see it.
 */
#include <string.h>
#include <time.h>

#include "worker/base/budget.h"
#include "worker/io/admin.h"
#include "worker/io/clock.h"
#include "worker/io/metrics.h"
#include "worker/worker.h"

#define LABELS(...) ((const struct str[]){__VA_ARGS__})

static const char *const call_kinds[] = {"model", "tool", "probe"};

/* What is known beforehand is shown from the start, as 0. */
struct metrics *meter_new(const struct settings *settings)
{
    static const enum metric_id plain[] = {
        METRIC_DELIVERIES, METRIC_STEPS_COMMITTED, METRIC_RUNS_STARTED, METRIC_DOUBTS, METRIC_DEAD, METRIC_READ_BACK};
    static const char *const ends[] = {"answered", "failed", "doubt", "not_now", "reused", "adopted"};
    struct metrics *metrics = metrics_new();
    char schema[17];
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        metrics_add(metrics, plain[i], NULL, 0);
    for (size_t k = 0; k < sizeof(call_kinds) / sizeof(call_kinds[0]); k++)
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
            metrics_add(metrics, METRIC_CALLS, LABELS(str_of(call_kinds[k]), str_of(ends[i])), 0);
    metrics_add(metrics, METRIC_RUNS_ENDED, LABELS(str_of(run_status_name(RUN_COMPLETED))), 0);
    metrics_add(metrics, METRIC_RUNS_ENDED, LABELS(str_of(run_status_name(RUN_FAILED))), 0);
    metrics_add(metrics, METRIC_RETRIES, LABELS(STR("call")), 0);
    metrics_add(metrics, METRIC_RETRIES, LABELS(STR("output")), 0);
    (void)snprintf(schema, sizeof(schema), "%016llx", (unsigned long long)record_fingerprint(RECORD_STEP_READY));
    metrics_set(metrics, METRIC_BUILD, LABELS(STR(__VERSION__), str_of(schema)), 1);
    metrics_set(metrics, METRIC_START_TIME, NULL, (double)clock_wall_ms() / 1000);
    metrics_set(metrics, METRIC_IN_FLIGHT_LIMIT, NULL, settings->in_flight_max);
    return metrics;
}

void meter_name(struct metrics *metrics, struct str name_space, const char *slot)
{
    metrics_set(metrics, METRIC_WORKER, LABELS(name_space, str_of(slot)), 1);
}

/* ---- facts ---- */

static void model_answered(struct metrics *metrics, const struct fact_model_answered *fact)
{
    const struct str *model = &fact->model;
    if (fact->tokens_in >= 0)
        metrics_add(metrics, METRIC_TOKENS, LABELS(*model, STR("input")), (double)fact->tokens_in);
    if (fact->tokens_out >= 0)
        metrics_add(metrics, METRIC_TOKENS, LABELS(*model, STR("output")), (double)fact->tokens_out);
    metrics_add(metrics, METRIC_TOKENS_UNKNOWN, model, fact->tokens_in < 0 || fact->tokens_out < 0);
    metrics_add(metrics, METRIC_COST, model, fact->micro_usd > 0 ? (double)fact->micro_usd : 0);
    metrics_add(metrics, METRIC_COST_UNKNOWN, model, fact->micro_usd < 0);
}

static void doubt_settled(struct metrics *metrics, const struct fact_doubt_settled *fact)
{
    if (!str_is(fact->outcome, "unknown") || str_is(fact->how, "fail")) /* else: a probe that told nothing */
        metrics_add(metrics, METRIC_DOUBTS_SETTLED, LABELS(fact->how, fact->outcome), 1);
}

static void count(struct metrics *metrics, const struct fact *fact)
{
    switch (fact->kind) {
    case FACT_RUN_STARTED:
        metrics_add(metrics, METRIC_RUNS_STARTED, NULL, 1);
        break;
    case FACT_MODEL_ANSWERED:
        model_answered(metrics, &fact->is.model_answered);
        break;
    case FACT_CALL_FAILED:
        metrics_add(metrics, METRIC_RETRIES, LABELS(STR("call")), fact->is.call_failed.retry);
        break;
    case FACT_OUTPUT_REJECTED:
        metrics_add(metrics, METRIC_RETRIES, LABELS(STR("output")), fact->is.output_rejected.retry);
        break;
    case FACT_CALL_REFUSED:
        metrics_add(metrics, METRIC_REFUSALS, &fact->is.call_refused.rule, 1);
        break;
    case FACT_IN_DOUBT:
        metrics_add(metrics, METRIC_DOUBTS, NULL, 1);
        break;
    case FACT_DOUBT_SETTLED:
        doubt_settled(metrics, &fact->is.doubt_settled);
        break;
    case FACT_TOOL_ANSWERED:
    case FACT_CRITERION_CHECKED:
    case FACT_STEP_WAITING:
    case FACT_APPROVAL_DECIDED:
    case FACT_STEP_COMPLETED:
    case FACT_STEP_FAILED:
    case FACT_RUN_ENDED: /* a run that cannot be read ends without one: commit->ended */
    case FACT_REQUEST_ANSWERED:
        break;
    }
}

void meter_commit(struct metrics *metrics, const struct commit *commit)
{
    for (const struct counted *counted = commit->counted; counted != NULL; counted = counted->next)
        count(metrics, &counted->fact);
    if (commit->ended != NULL)
        metrics_add(metrics, METRIC_RUNS_ENDED, LABELS(str_of(commit->ended)), 1);
    metrics_add(metrics, METRIC_DEAD, NULL, commit->dead_count);
}

/* ---- the loop ---- */

void meter_delivery(struct metrics *metrics)
{
    metrics_add(metrics, METRIC_DELIVERIES, NULL, 1);
}

void meter_committed(struct metrics *metrics, const struct log_event *event)
{
    metrics_add(metrics, METRIC_STEPS_COMMITTED, NULL, event->commit_steps);
    metrics_observe(metrics, METRIC_COMMIT_STEPS, NULL, event->commit_steps);
    if (event->commit_us > 0) /* else it was in doubt, and found committed later */
        metrics_observe(metrics, METRIC_COMMIT_DURATION, NULL, (double)event->commit_us / 1e6);
}

void meter_request(struct metrics *metrics, const struct call *call, const struct http_answer *answer)
{
    metrics_observe(metrics, METRIC_CALL_DURATION, LABELS(str_of(call_kinds[call->kind])),
                    (double)answer->duration_ms / 1000);
}

static const char *end_of(const struct outcome *outcome)
{
    switch (outcome->kind) {
    case OUTCOME_FAILED:
        return "failed";
    case OUTCOME_DOUBT:
        return "doubt";
    case OUTCOME_NOT_NOW:
        return "not_now";
    case OUTCOME_ANSWERED:
        break;
    }
    return outcome->origin == ORIGIN_REUSED ? "reused" : outcome->origin == ORIGIN_ADOPTED ? "adopted" : "answered";
}

void meter_call(struct metrics *metrics, const struct call *call, const struct outcome *outcome)
{
    metrics_add(metrics, METRIC_CALLS, LABELS(str_of(call_kinds[call->kind]), str_of(end_of(outcome))), 1);
}

/* ---- what the admin port says ---- */

/* NULL = ready; else why not. */
static const char *not_ready(const struct worker *worker, const struct log_numbers *numbers)
{
    if (worker->stopping)
        return "stopping";
    if (worker->slot[0] == '\0')
        return "no slot is claimed yet";
    if (worker->log == NULL || !worker->control_read)
        return "control is not read yet";
    if (!numbers->in_group)
        return "the consumer group is not joined yet";
    return ledger_up(worker->ledger) ? NULL : "Redis does not answer";
}

static void collect_in_flight(const struct worker *worker)
{
    static const enum effect_class effects[] = {EFFECT_NONE, EFFECT_READ, EFFECT_WRITE};
    struct loop_numbers numbers = {0};
    loop_numbers(worker, &numbers);
    metrics_set(worker->metrics, METRIC_IN_FLIGHT, LABELS(STR("none"), STR("none")), numbers.without_call);
    for (size_t k = 0; k < sizeof(call_kinds) / sizeof(call_kinds[0]); k++)
        for (size_t e = 0; e < sizeof(effects) / sizeof(effects[0]); e++)
            metrics_set(worker->metrics, METRIC_IN_FLIGHT,
                        LABELS(str_of(call_kinds[k]), str_of(effect_class_name(effects[e]))), numbers.calls[k][e]);
}

static void collect_credits(const struct worker *worker, const struct log_numbers *numbers)
{
    struct metrics *metrics = worker->metrics;
    struct credits_numbers waiting = {0};
    credits_numbers(worker, &waiting);
    metrics_set(metrics, METRIC_CREDITS_MISSING, LABELS(STR("endpoint")), waiting.endpoint);
    metrics_set(metrics, METRIC_CREDITS_MISSING, LABELS(STR("in_flight")),
                waiting.in_flight + numbers->held_back[LOG_CREDIT_IN_FLIGHT]);
    metrics_set(metrics, METRIC_CREDITS_MISSING, LABELS(STR("memory")),
                waiting.memory + numbers->held_back[LOG_CREDIT_MEMORY]);
    metrics_set(metrics, METRIC_CREDITS_MISSING, LABELS(STR("window")), numbers->held_back[LOG_CREDIT_WINDOW]);
    metrics_set(metrics, METRIC_WINDOW_USED, NULL, numbers->window_used);
    metrics_set(metrics, METRIC_OLDEST, NULL, numbers->oldest_s);
    metrics_set(metrics, METRIC_LAG, LABELS(STR("steps")), (double)numbers->lag_steps);
    metrics_set(metrics, METRIC_LAG, LABELS(STR("inbox")), (double)numbers->lag_inbox);
    metrics_set(metrics, METRIC_KAFKA_BROKERS, NULL, numbers->brokers_up);
    metrics_set(metrics, METRIC_PAUSED, NULL, caller_paused(worker->caller));
    for (enum budget_use use = 0; use < BUDGET_USES; use++)
        metrics_set(metrics, METRIC_MEMORY, LABELS(str_of(budget_use_name(use))), (double)budget_used(use));
    metrics_set(metrics, METRIC_MEMORY_LIMIT, NULL, (double)budget_size());
}

static void collect(const struct worker *worker, const struct log_numbers *numbers)
{
    struct metrics *metrics = worker->metrics;
    struct timespec cpu = {0};
    size_t open = 0, parked = 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    keep_numbers(worker, &open, &parked);
    collect_in_flight(worker);
    collect_credits(worker, numbers);
    metrics_set(metrics, METRIC_CPU, NULL, (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
    metrics_set(metrics, METRIC_READY, NULL, not_ready(worker, numbers) == NULL);
    metrics_set(metrics, METRIC_REDIS_UP, NULL, ledger_up(worker->ledger));
    metrics_set(metrics, METRIC_REDIS_WRITES, NULL, ledger_writes_refused(worker->ledger) == NULL);
    metrics_set(metrics, METRIC_REQUESTS, NULL, caller_in_flight(worker->caller));
    metrics_set(metrics, METRIC_PARTITIONS, NULL, numbers->partitions_owned);
    metrics_set(metrics, METRIC_WAITING_FOR_COMMIT, NULL, numbers->waiting_for_commit);
    metrics_set(metrics, METRIC_ABORTED, NULL, (double)numbers->aborts);
    metrics_set(metrics, METRIC_RECREATED, NULL, (double)numbers->producers_recreated);
    metrics_set(metrics, METRIC_RUNS_OPEN, NULL, (double)open);
    metrics_set(metrics, METRIC_PARKED, NULL, (double)parked);
    metrics_set(metrics, METRIC_KEEPER_MEMORY, NULL, (double)keeper_bodies_size(worker->bodies));
}

void meter_page(void *context, const char *path, struct admin_page *page)
{
    struct worker *worker = context;
    struct log_numbers numbers = {0};
    if (worker->log != NULL)
        log_numbers(worker->log, &numbers);
    if (strcmp(path, "/metrics") == 0) {
        collect(worker, &numbers);
        page->status = 200;
        page->type = METRICS_CONTENT_TYPE;
        metrics_write(worker->metrics, &page->body);
    } else if (strcmp(path, "/live") == 0) {
        page->status = 200;
        buf_puts(&page->body, "live\n");
    } else if (strcmp(path, "/ready") == 0) {
        const char *why = not_ready(worker, &numbers);
        page->status = why == NULL ? 200 : 503;
        buf_printf(&page->body, "%s\n", why == NULL ? "ready" : why);
    } else {
        buf_puts(&page->body, "/metrics, /live, /ready\n");
    }
}
