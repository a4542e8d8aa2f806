/*
 * loop.c: THE MAIN PATH. The life of a step event:
 *
 *   loop_step ── decode ── plan ── on_whole ──> reserve ──> on_reserved ──> call ──> on_answer ──> store ──> on_stored
 *                           │           (ledger)                (caller)          (a write's result)  │
 *                           └────────────────────────── finish <── decide ────────────────────────────┘
 *                                                         └── commit: facts, next event, offset: one transaction
 */
#include "worker/delivery.h"

#include <string.h>

#include "worker/base/crash.h"
#include "worker/base/logline.h"
#include "worker/base/mem.h"
#include "worker/call/chat.h"
#include "worker/call/tool.h"
#include "worker/io/clock.h"

/* How long a finished write waits before it tries again to store its result in a Redis that is down. */
#define STORE_AGAIN_MS 500
/* A write that somebody else has in flight: its record is looked at again, ever more slowly. */
#define LOOK_AGAIN_MS_MIN 50
#define LOOK_AGAIN_MS_MAX 500

static void on_reserved(void *context, const struct ledger_answer *answer);
static void on_answer(void *context, const struct http_answer *answer);
static void on_stored(void *context, const struct ledger_answer *answer);
static void on_released(void *context, const struct ledger_answer *answer);

void delivery_release(struct delivery *delivery)
{
    struct worker *worker = delivery->worker;
    *(delivery->previous != NULL ? &delivery->previous->next : &worker->deliveries) = delivery->next;
    if (delivery->next != NULL)
        delivery->next->previous = delivery->previous;
    worker->deliveries_count--;
    worker->begun_count -= delivery->begun;
    orphan_unkeep(delivery);
    credits_release(delivery);
    if (worker->alone == delivery)
        worker->alone = NULL;
    log_event_free(&delivery->source);
    arena_free(delivery->arena);
    mem_free(delivery);
}

static bool write_down(struct delivery *delivery, struct plan *plan, struct commit *commit)
{
    commit_open(commit, delivery->worker, delivery->arena, &delivery->source);
    commit_plan(commit, plan);
    return !commit->failed;
}

/* Steps that need no call go into this commit as well. One step at a time when workers may have died here: of which one? */
static bool write_down_ahead(struct delivery *delivery, struct commit *commit)
{
    struct plan plan = delivery->plan;
    return delivery->env.contract != NULL && !delivery->source.suspect && delivery->worker->alone == NULL &&
           decide_ahead(&delivery->env, delivery->run, &plan) && write_down(delivery, &plan, commit);
}

/* Commits what was decided. A plan that cannot be written down (too large, no valid text) ends its run with that reason; that
 * a write happened, and with what, is written down all the same. */
static void finish(struct delivery *delivery)
{
    if (delivery->orphan) {
        delivery_release(delivery);
        return;
    }
    struct commit commit;
    bool written = write_down_ahead(delivery, &commit) || write_down(delivery, &delivery->plan, &commit);
    bool happened = delivery->call != NULL && delivery->call->kind == CALL_TOOL &&
                    delivery->call->effect == EFFECT_WRITE && delivery->outcome.result.data != NULL;
    if (!written && happened) { /* a read that does not fit ends the run: nothing goes on with data that nobody gave */
        delivery->outcome.result = STR("{\"truncated\":true}");
        decide_outcome(&delivery->env, delivery->run, delivery->call, &delivery->outcome, &delivery->plan);
        written = write_down(delivery, &delivery->plan, &commit);
    }
    if (!written) {
        struct str reason = arena_printf(delivery->arena, "cannot be written down: %s", commit.error.text);
        decide_abandon(&delivery->env, delivery->run, reason, &delivery->plan);
        write_down(delivery, &delivery->plan, &commit);
    }
    commit_done(&commit);
    if (delivery->source.suspect) /* whatever becomes of the commit: nobody died of it here */
        alone_take_back(delivery);
    delivery_release(delivery);
}

/* The call has ended, as delivery->outcome says: what does it lead to? */
static void decide(struct delivery *delivery)
{
    struct worker *worker = delivery->worker;
    delivery->outcome.at_ms = clock_wall_ms();
    delivery->env.now_ms = delivery->outcome.at_ms;
    meter_call(worker->metrics, delivery->call, &delivery->outcome);
    if (delivery->orphan) { /* nothing is decided, and an expression that kills would not be counted */
        finish(delivery);
        return;
    }
    decide_outcome(&delivery->env, delivery->run, delivery->call, &delivery->outcome, &delivery->plan);
    if (delivery->plan.not_done && delivery->fence > 0)
        ledger_complete(worker->ledger, delivery->run->id, delivery->call->key, delivery->fence, STR_NONE, on_released,
                        delivery);
    else
        finish(delivery);
}

static void on_released(void *context, const struct ledger_answer *answer)
{
    (void)answer; /* not released: the next reservation finds the record in doubt and waits its time */
    finish(context);
}

/* ---- call ---- */

static void outcome_of(struct delivery *delivery, const struct http_answer *answer)
{
    int64_t now_ms = clock_wall_ms();
    if (delivery->call->kind == CALL_MODEL)
        chat_outcome(delivery->model, delivery->call, answer, now_ms, delivery->arena, &delivery->outcome);
    else
        tool_outcome(delivery->call, answer, now_ms, delivery->arena, &delivery->outcome);
}

static void fail(struct delivery *delivery, const char *reason, bool retryable)
{
    delivery->outcome = (struct outcome){
        .kind = OUTCOME_FAILED,
        .reason = arena_str(delivery->arena, str_of(reason)),
        .retryable = retryable,
        .executed_surely_not = true,
    };
}

static bool form_request(struct delivery *delivery, struct http_request *request, struct error *error)
{
    const struct call *call = delivery->call;
    if (call->kind != CALL_MODEL)
        return tool_request(call, delivery->run->id, delivery->arena, request, error);
    delivery->model = settings_model(delivery->worker->settings, call->model);
    if (delivery->model == NULL)
        return error_set(error, ERROR_RETRY, "the model \"%.*s\" is not in this worker's settings (models)",
                         STR_ARG(call->model));
    return chat_request(delivery->model, call, delivery->run->id, delivery->arena, request, error);
}

/* I5: may an earlier delivery have started this call? An event that waited because Redis could not be asked stays suspect. */
static bool suspect(const struct delivery *delivery)
{
    return delivery->source.suspect || delivery->run->at.suspect;
}

/* I5: does it settle a write that this sending surely did not execute? Not when one before it may have, unless a person said
 * that it did not, and nobody sent it since. */
static bool settles(const struct delivery *delivery)
{
    return !delivery->call->takeover ||
           (delivery->run->at.resolution.kind == RESOLUTION_NOT_DONE && !suspect(delivery));
}

/* The call ended without an answer of its own: give back what was reserved, then decide. */
static void give_back(struct delivery *delivery)
{
    if (delivery->leased)
        ledger_store(delivery->worker->ledger, delivery->call->key, STR_NONE);
    if (delivery->fence > 0 && delivery->call->kind == CALL_TOOL && settles(delivery))
        ledger_complete(delivery->worker->ledger, delivery->run->id, delivery->call->key, delivery->fence, STR_NONE,
                        on_stored, delivery);
    else
        decide(delivery);
}

static void call(struct delivery *delivery)
{
    struct http_request request = {0};
    struct error error = {.class = ERROR_NONE};
    bool formed = form_request(delivery, &request, &error);
    request.write = delivery->call->effect == EFFECT_WRITE;
    request.send_until_boot_ms = delivery->send_until_boot_ms;
    int64_t left_ms = delivery->run->deadline_at_ms - clock_wall_ms();
    if (formed && !request.write &&
        request.timeout_ms > left_ms) /* nobody waits for an answer beyond the run's deadline */
        request.timeout_ms = left_ms > 1 ? left_ms : 1;
    credits_calling(delivery, request.body.size);
    CRASH_POINT("before_call");
    delivery->calling = formed && caller_start(delivery->worker->caller, &request, on_answer, delivery, &error) != NULL;
    if (delivery->calling)
        return;
    fail(delivery, error.text, error.class == ERROR_RETRY);
    give_back(delivery);
}

static void on_answer(void *context, const struct http_answer *answer)
{
    struct delivery *delivery = context;
    struct ledger *ledger = delivery->worker->ledger;
    const struct call *made = delivery->call;
    CRASH_POINT("after_answer");
    meter_request(delivery->worker->metrics, made, answer);
    outcome_of(delivery, answer);
    credits_answered(delivery);
    bool answered = delivery->outcome.kind == OUTCOME_ANSWERED;
    struct str packed = answered ? answer_pack(delivery->arena, answer) : STR_NONE;
    if (delivery->leased)
        ledger_store(ledger, made->key, packed);
    bool settled = answered || (delivery->outcome.executed_surely_not && settles(delivery));
    if (made->effect == EFFECT_WRITE && delivery->fence > 0 && settled) {
        delivery->packed = packed;
        ledger_complete(ledger, delivery->run->id, made->key, delivery->fence, packed, on_stored,
                        delivery); /* I4: before the commit */
        return;
    }
    if (delivery->outcome.kind == OUTCOME_DOUBT) /* nobody acts before the time that the reservation gave */
        delivery->outcome.until_ms = delivery->until_ms;
    decide(delivery);
}

/* Redis is asked again, for what loop_tick sees. */
static void ask_again(struct delivery *delivery, int64_t wait_ms)
{
    struct worker *worker = delivery->worker;
    delivery->again_ms = clock_mono_us() / 1000 + wait_ms;
    if (delivery->again_ms < worker->again_ms)
        worker->again_ms = delivery->again_ms;
}

static void on_stored(void *context, const struct ledger_answer *answer)
{
    struct delivery *delivery = context;
    CRASH_POINT("after_stored");
    if (answer->verdict == LEDGER_DOWN && !delivery->orphan && !delivery->worker->stopping) {
        ask_again(delivery, STORE_AGAIN_MS); /* I4: it waits, and so does the commit */
        return;
    }
    if (answer->verdict != LEDGER_GO)
        delivery->outcome = (struct outcome){
            .kind = OUTCOME_DOUBT,
            .reason = answer->verdict == LEDGER_REFUSED ? STR("another worker took this write over")
                                                        : STR("its result could not be stored: Redis does not answer"),
            .until_ms = clock_wall_ms() + delivery->call->timeout_ms + delivery->worker->settings->settle_ms,
        };
    decide(delivery);
}

/* ---- reserve ---- */

static void must_wait(struct delivery *delivery, struct str why)
{
    delivery->outcome = (struct outcome){
        .kind = OUTCOME_NOT_NOW,
        .reason = arena_printf(delivery->arena, "writes must wait: %.*s", STR_ARG(why)),
        .suspect = suspect(delivery),
    };
    decide(delivery);
}

static void reserve(struct delivery *delivery)
{
    struct ledger *ledger = delivery->worker->ledger;
    const struct call *wanted = delivery->call;
    bool write = wanted->effect == EFFECT_WRITE || wanted->takeover;
    const char *refused = write ? ledger_writes_refused(ledger) : NULL;
    CRASH_POINT("before_reserve");
    if (refused != NULL) {
        must_wait(delivery, str_of(refused));
    } else if (wanted->takeover) { /* a probe sends no write: its hold on the record needs no time of its own */
        int64_t timeout_ms = wanted->kind == CALL_PROBE ? 0 : wanted->timeout_ms;
        ledger_takeover(ledger, delivery->run->id, wanted->key, timeout_ms, on_reserved, delivery);
    } else if (write) {
        ledger_reserve(ledger, delivery->run->id, wanted->key, wanted->timeout_ms, suspect(delivery),
                       delivery->run->incarnation, on_reserved, delivery);
    } else if (wanted->effect == EFFECT_READ) {
        ledger_lease(ledger, wanted->key, on_reserved, delivery);
    } else {
        call(delivery);
    }
}

/* The partition went away before the call went out: the next owner may start at once; not so when the record was taken over,
 * for what was in doubt before still is. */
static void let_go(struct delivery *delivery)
{
    if (delivery->leased)
        ledger_store(delivery->worker->ledger, delivery->call->key, STR_NONE);
    if (delivery->fence > 0 && settles(delivery))
        ledger_complete(delivery->worker->ledger, delivery->run->id, delivery->call->key, delivery->fence, STR_NONE,
                        on_released, delivery);
    else
        finish(delivery);
}

static void adopt(struct delivery *delivery, struct str packed)
{
    struct http_answer answer = {.end = HTTP_ANSWERED};
    bool write = delivery->call->effect == EFFECT_WRITE || delivery->call->takeover;
    if (delivery->call->kind == CALL_PROBE) { /* the result of the write itself turned up: no need to probe */
        struct call *written = ARENA_NEW(delivery->arena, struct call);
        *written = *delivery->call;
        written->kind = CALL_TOOL;
        written->effect = EFFECT_WRITE;
        delivery->call = written;
    }
    struct str kept = arena_str(delivery->arena, packed);
    if (delivery->call->kind == CALL_MODEL)
        delivery->model = settings_model(delivery->worker->settings, delivery->call->model);
    bool unpacked = answer_unpack(kept, &answer);
    if (write && !unpacked) { /* whatever it says: it is done */
        LOG_ERROR("ledger.unreadable", LOG_STR("run", delivery->run->id), LOG_STR("key", delivery->call->key));
        delivery->outcome = (struct outcome){.kind = OUTCOME_ANSWERED, .origin = ORIGIN_ADOPTED, .result = STR("null")};
    } else if (!unpacked || (delivery->call->kind == CALL_MODEL && delivery->model == NULL)) {
        fail(delivery, "the stored answer of this call cannot be read, or its model is not in this worker's settings",
             true);
    } else {
        outcome_of(delivery, &answer);
        delivery->outcome.origin = write ? ORIGIN_ADOPTED : ORIGIN_REUSED;
    }
    decide(delivery);
}

/* I5: a person said that it did not happen, so it was ordered once more; an earlier delivery may have sent that. */
static bool ordered_before(const struct delivery *delivery)
{
    return delivery->call->takeover && delivery->call->kind == CALL_TOOL && !settles(delivery) &&
           delivery->run->at.resolution.kind == RESOLUTION_NOT_DONE;
}

/* Another worker has the write in flight. That one may well be alive, and store its result in a moment (so it is when it let the
 * partition go); the doubt begins when its time is over. What this life of Redis said counts from now on; should it be lost
 * meanwhile, with its record, the next one is another. */
static bool look_again(struct delivery *delivery, const struct ledger_answer *answer)
{
    int64_t left_ms = answer->until_ms - clock_wall_ms();
    if (left_ms <= 0 || delivery->call->takeover || delivery->orphan)
        return false;
    delivery->run->at.suspect = true;
    delivery->run->incarnation = arena_str(delivery->arena, str_of(ledger_incarnation(delivery->worker->ledger)));
    delivery->look_ms = delivery->look_ms == 0 ? LOOK_AGAIN_MS_MIN : delivery->look_ms * 2;
    if (delivery->look_ms > LOOK_AGAIN_MS_MAX)
        delivery->look_ms = LOOK_AGAIN_MS_MAX;
    ask_again(delivery, delivery->look_ms < left_ms ? delivery->look_ms : left_ms + 1);
    return true;
}

static void on_reserved(void *context, const struct ledger_answer *answer)
{
    struct delivery *delivery = context;
    const struct call *wanted = delivery->call;
    bool write = wanted->effect == EFFECT_WRITE || wanted->takeover;
    bool again = ordered_before(delivery) && (answer->verdict == LEDGER_GO || answer->verdict == LEDGER_DOUBT);
    CRASH_POINT("after_reserve");
    if (again) {
        delivery->outcome = (struct outcome){
            .kind = OUTCOME_DOUBT,
            .reason = STR("it was ordered once more, and an earlier owner may have made that call"),
            .until_ms = answer->until_ms,
        };
        decide(delivery);
    } else if (answer->verdict == LEDGER_GO) {
        delivery->leased = !write;
        delivery->fence = write ? answer->fence : 0;
        delivery->send_until_boot_ms = answer->send_until_boot_ms;
        delivery->until_ms = answer->until_ms;
        if (delivery->orphan)
            let_go(delivery);
        else
            call(delivery);
    } else if (answer->verdict == LEDGER_STORED) {
        adopt(delivery, answer->result);
    } else if (answer->verdict == LEDGER_DOUBT && look_again(delivery, answer)) {
        return;
    } else if (answer->verdict == LEDGER_DOUBT) {
        delivery->outcome = (struct outcome){
            .kind = OUTCOME_DOUBT,
            .reason = arena_str(delivery->arena, answer->reason),
            .until_ms = answer->until_ms,
            .held = true,
        };
        decide(delivery);
    } else if (write) {
        must_wait(delivery, answer->reason);
    } else if (delivery->orphan) {
        finish(delivery);
    } else {
        call(delivery); /* Redis is down: a read goes on without it */
    }
}

int64_t loop_tick(struct worker *worker, int64_t now_mono_ms)
{
    int64_t next_ms = INT64_MAX;
    alone_tick(worker);
    int64_t credits_ms = credits_tick(worker, now_mono_ms);
    if (now_mono_ms < worker->again_ms) /* not a look at thousands of calls at each turn of the loop */
        return credits_ms < worker->again_ms ? credits_ms : worker->again_ms;
    worker->again_ms = INT64_MAX;
    for (struct delivery *delivery = worker->deliveries, *next; delivery != NULL; delivery = next) {
        next = delivery->next;
        if (delivery->again_ms > now_mono_ms)
            next_ms = delivery->again_ms < next_ms ? delivery->again_ms : next_ms;
        if (delivery->again_ms == 0 || delivery->again_ms > now_mono_ms)
            continue;
        delivery->again_ms = 0;
        if (delivery->fence > 0)
            ledger_complete(worker->ledger, delivery->run->id, delivery->call->key, delivery->fence, delivery->packed,
                            on_stored, delivery);
        else
            reserve(delivery);
    }
    worker->again_ms = next_ms < worker->again_ms ? next_ms : worker->again_ms;
    return credits_ms < worker->again_ms ? credits_ms : worker->again_ms;
}

/* ---- plan ---- */

void delivery_forget(struct delivery *delivery)
{
    arena_free(delivery->arena);
    delivery->arena = delivery->env.arena = arena_new();
    delivery->env.contract = NULL;
    delivery->run = NULL;
    delivery->call = NULL;
    delivery->begun = false;
    delivery->worker->begun_count--;
}

/* What the step event names was put back into it, or is lost. */
static void on_whole(void *context, const struct error *lost)
{
    struct delivery *delivery = context;
    if (lost != NULL && !delivery->orphan)
        decide_abandon(&delivery->env, delivery->run, arena_str(delivery->arena, str_of(lost->text)), &delivery->plan);
    if (lost != NULL || delivery->orphan) {
        finish(delivery);
        return;
    }
    delivery->env.now_ms = clock_wall_ms();
    decide_step(&delivery->env, delivery->run, &delivery->plan);
    delivery->call = delivery->plan.call;
    if (delivery->call == NULL)
        finish(delivery);
    else if (credits_call(delivery))
        reserve(delivery);
    else
        delivery_forget(delivery);
}

static void plan(struct delivery *delivery, const struct contract *contract, const char *refused)
{
    delivery->env.contract = contract;
    delivery->env.now_ms = clock_wall_ms();
    if (delivery->env.contract == NULL || contract_step(delivery->env.contract, delivery->run->at.step) < 0) {
        struct str reason = delivery->env.contract != NULL
                                ? arena_printf(delivery->arena, "the contract has no step \"%.*s\"",
                                               STR_ARG(delivery->run->at.step))
                            : refused != NULL
                                ? arena_printf(delivery->arena, "the contract is refused: %s", refused)
                                : arena_printf(delivery->arena, "no contract with hash %.*s was published",
                                               STR_ARG(delivery->run->contract_hash));
        decide_abandon(&delivery->env, delivery->run, reason, &delivery->plan);
        finish(delivery);
        return;
    }
    payload_resolve(delivery->worker->payloads, delivery->run, delivery->arena, credits_named, on_whole, delivery);
}

void delivery_poison(struct delivery *delivery, const char *reason)
{
    struct commit commit;
    struct str text = arena_str(delivery->arena, str_of(reason)), run = STR_NONE;
    commit_open(&commit, delivery->worker, delivery->arena, &delivery->source);
    if (delivery->unsound != NULL) { /* I9: else its run would be open for ever, and nobody told */
        run = delivery->unsound->id;
        delivery->env.now_ms = clock_wall_ms();
        decide_abandon(&delivery->env, delivery->unsound, text, &delivery->plan);
        commit_plan(&commit, &delivery->plan);
    }
    commit_dead(&commit, text, run);
    commit_done(&commit);
    delivery_release(delivery);
}

bool delivery_decode(struct delivery *delivery, struct error *error)
{
    struct record *record = ARENA_NEW(delivery->arena, struct record);
    if (!record_decode(delivery->source.value, delivery->arena, record, error))
        return false;
    if (record->type == RECORD_STEP_READY)
        delivery->run = &record->is.step_ready;
    else
        error_set(error, ERROR_POISON, "a %s does not belong here", record_name(record->type));
    const char *unsound = delivery->run != NULL ? run_unsound(delivery->run) : NULL;
    if (unsound != NULL) {
        delivery->unsound = run_can_end(delivery->run) ? delivery->run : NULL;
        delivery->run = NULL;
        error_set(error, ERROR_POISON, "its %s is out of all bounds", unsound);
    }
    return delivery->run != NULL;
}

static struct delivery *deliver(struct worker *worker, struct log_event *event)
{
    struct arena *arena = arena_new();
    struct delivery *delivery = mem_new(sizeof(*delivery));
    *delivery = (struct delivery){
        .worker = worker,
        .next = worker->deliveries,
        .source = *event,
        .arena = arena,
        .env = {.arena = arena,
                .name_space = worker->settings->name_space,
                .backoff_ms = worker->settings->backoff_ms,
                .backoff_max_ms = worker->settings->backoff_max_ms,
                .suspect = event->suspect},
    };
    if (worker->deliveries != NULL)
        worker->deliveries->previous = delivery;
    worker->deliveries = delivery;
    worker->deliveries_count++;
    return delivery;
}

void loop_step(struct worker *worker, struct log_event *event)
{
    if (orphan_bind(worker, event))
        return;
    struct delivery *delivery = deliver(worker, event);
    meter_delivery(worker->metrics);
    if (event->suspect)
        alone_count(delivery);
    else
        delivery_begin(delivery);
}

void delivery_begin(struct delivery *delivery)
{
    struct worker *worker = delivery->worker;
    struct error error = {.class = ERROR_NONE};
    delivery->held = worker->alone != NULL && worker->alone != delivery && ledger_up(worker->ledger);
    worker->held = worker->held || delivery->held;
    if (delivery->held)
        credits_pass(delivery);
    if (delivery->held || !credits_begin(delivery))
        return;
    delivery->begun = true;
    worker->begun_count++;
    bool decoded = delivery_decode(delivery, &error);
    CRASH_POINT("after_decode");
    const struct contract *contract = NULL;
    const char *refused = NULL;
    if (decoded)
        contract = contracts_find(worker->contracts, delivery->run->contract_hash, &refused);
    if (contract != NULL || refused != NULL)
        plan(delivery, contract, refused);
    else if (decoded || error.class == ERROR_RETRY) /* a contract or a schema that may be on its way: `control` knows */
        delivery->reading = log_read_control(worker->log);
    else
        delivery_poison(delivery, error.text);
}

void loop_contracts_read(struct worker *worker, int64_t reading)
{
    for (struct delivery *delivery = worker->deliveries, *next; delivery != NULL; delivery = next) {
        struct error error;
        next = delivery->next;
        if (delivery->env.contract != NULL || !delivery->begun || delivery->reading > reading)
            continue;
        if (delivery->orphan) {
            delivery_release(delivery);
        } else if (delivery->run != NULL || delivery_decode(delivery, &error)) {
            const char *refused;
            const struct contract *contract = contracts_find(worker->contracts, delivery->run->contract_hash, &refused);
            plan(delivery, contract, refused);
        } else {
            delivery_poison(delivery, error.text);
        }
    }
}

void loop_numbers(const struct worker *worker, struct loop_numbers *numbers)
{
    *numbers = (struct loop_numbers){.without_call = 0};
    for (const struct delivery *delivery = worker->deliveries; delivery != NULL; delivery = delivery->next) {
        const struct call *wanted = delivery->call;
        if (delivery->waits_at != NULL)
            continue;
        if (wanted != NULL)
            numbers->calls[wanted->kind][wanted->effect]++;
        else
            numbers->without_call++;
    }
}

void loop_free(struct worker *worker)
{
    while (worker->deliveries != NULL)
        delivery_release(worker->deliveries);
}
