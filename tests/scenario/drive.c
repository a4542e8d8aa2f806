/* drive.c: the core, driven as worker/loop.c and worker/inbox.c drive it: every state travels through its record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/scenario/play_internal.h"
#include "worker/base/json.h"

void drive_fail(const struct play *play, const char *format, ...)
{
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fail_msg("%s:%d: %s", play->path, play->line, text);
    abort(); /* fail_msg does not return */
}

static struct str encode(struct play *play, enum record_type type, const void *object)
{
    struct buf buf;
    struct error error;
    buf_init(&buf, (size_t)1 << 20);
    if (!record_encode(type, object, &buf, &error))
        drive_fail(play, "a %s cannot be encoded: %s", record_name(type), error.text);
    struct str bytes = arena_str(play->arena, buf_str(&buf));
    buf_free(&buf);
    return bytes;
}

static struct record *decode(struct play *play, enum record_type type, struct str bytes)
{
    struct record *record = ARENA_NEW(play->arena, struct record);
    struct error error;
    if (!record_decode(bytes, play->arena, record, &error))
        drive_fail(play, "a %s cannot be decoded: %s", record_name(type), error.text);
    assert_int_equal(record->type, type);
    return record;
}

static struct record *travel(struct play *play, enum record_type type, const void *object)
{
    return decode(play, type, encode(play, type, object));
}

/* ---- every decision is made twice: the same inputs give the same plan (I8) ---- */

struct input {
    const struct run_requested *request; /* decide_run, or */
    const struct run *run;
    const struct call *call; /* decide_outcome */
    const struct outcome *outcome;
    const struct step_parked *parked; /* decide_wake; none of these: decide_step */
    const struct wake *wake;
};

static struct decide_env env_of(const struct play *play, struct arena *arena)
{
    return (struct decide_env){
        .contract = play->contract,
        .arena = arena,
        .name_space = STR("test"),
        .now_ms = play->now_ms,
        .backoff_ms = 1000,
        .backoff_max_ms = 60000,
    };
}

static void decide_once(const struct play *play, const struct input *input, struct arena *arena, struct plan *plan)
{
    struct decide_env env = env_of(play, arena);
    if (input->request != NULL)
        decide_run(&env, input->request, plan);
    else if (input->outcome != NULL)
        decide_outcome(&env, input->run, input->call, input->outcome, plan);
    else if (input->wake != NULL)
        decide_wake(&env, input->run, input->parked, input->wake, plan);
    else
        decide_step(&env, input->run, plan);
}

static void put(struct buf *buf, struct str text)
{
    buf_printf(buf, "%zu:", text.size);
    if (text.size > 0)
        buf_put(buf, text.data, text.size);
}

static void put_call(struct play *play, struct buf *buf, const struct call *call, const struct run *run)
{
    struct trace trace = {.out = buf, .arena = play->arena, .now_ms = play->now_ms};
    trace_call(&trace, call, run, 0);
    put(buf, call->key);
    put(buf, call->args_hash);
    put(buf, call->system);
}

/* All that a plan says, as bytes. */
static struct buf bytes_of(struct play *play, const struct plan *plan, const struct run *run)
{
    struct buf buf;
    struct error error;
    buf_init(&buf, (size_t)8 << 20);
    if (plan->call != NULL) {
        put_call(play, &buf, plan->call, run);
        return buf;
    }
    bool ok = true;
    for (size_t i = 0; i < plan->facts_count; i++)
        ok = ok && record_encode(RECORD_FACT, &plan->facts[i], &buf, &error);
    buf_printf(&buf, "next %d not_done %d", plan->next, plan->not_done);
    put(&buf, plan->pool);
    if (plan->next != NEXT_END)
        ok = ok && record_encode(RECORD_STEP_READY, plan->run, &buf, &error);
    struct step_parked parked = plan->parked;
    parked.event = STR("");
    if (plan->next == NEXT_PARK)
        ok = ok && record_encode(RECORD_STEP_PARKED, &parked, &buf, &error);
    if (plan->next == NEXT_END)
        ok = ok && record_encode(RECORD_RUN_CLOSED, &plan->closed, &buf, &error);
    if (!ok)
        drive_fail(play, "the plan cannot be written down: %s", error.text);
    return buf;
}

static void decide(struct play *play, const struct input *input, struct plan *plan)
{
    struct arena *other = arena_new();
    struct plan again;
    decide_once(play, input, play->arena, plan);
    decide_once(play, input, other, &again);
    struct buf once = bytes_of(play, plan, input->run), twice = bytes_of(play, &again, input->run);
    assert_int_equal(once.size, twice.size);
    assert_memory_equal(once.data, twice.data, once.size);
    buf_free(&once);
    buf_free(&twice);
    arena_free(other);
}

/* Steps that are decided ahead, in one commit, are decided as one by one, each from its own step event. Says how many. */
static void tell_ahead(struct play *play, const struct run *from, const struct plan *plan)
{
    struct decide_env env = env_of(play, play->arena);
    struct plan together = *plan, last = *plan;
    if (!decide_ahead(&env, from, &together))
        return;
    struct plan apart = {.facts = ARENA_ARRAY(play->arena, together.facts_count, struct fact)};
    int steps = 0;
    for (;;) {
        assert_true(apart.facts_count + last.facts_count <= together.facts_count);
        memcpy(&apart.facts[apart.facts_count], last.facts, last.facts_count * sizeof(struct fact));
        apart.facts_count += last.facts_count;
        if (apart.facts_count == together.facts_count)
            break;
        const struct record *event = travel(play, RECORD_STEP_READY, last.run);
        decide_step(&env, &event->is.step_ready, &last);
        steps++;
    }
    last.facts = apart.facts;
    last.facts_count = apart.facts_count;
    last.not_done = plan->not_done;
    struct buf one = bytes_of(play, &together, from), other = bytes_of(play, &last, from);
    assert_int_equal(one.size, other.size);
    assert_memory_equal(one.data, other.data, one.size);
    buf_free(&one);
    buf_free(&other);
    trace_line(&play->trace, "steps of this commit beside it: %d", steps);
}

/* ---- what a plan leads to ---- */

/* What is folded from the facts must be what the run itself counted. */
static void check_usage(struct play *play, const struct usage *usage)
{
    json_t *state = fold_json(play->fold);
    const json_t *folded = json_object_get(state, "usage");
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"model_calls", usage->model_calls},
        {"tool_calls", usage->tool_calls},
        {"writes", usage->writes},
        {"retries", usage->retries},
        {"refusals", usage->refusals},
        {"tokens_in", usage->tokens_in},
        {"tokens_out", usage->tokens_out},
        {"micro_usd", usage->micro_usd},
        {"tokens_unknown", usage->tokens_unknown},
    };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        json_int_t value = json_integer_value(json_object_get(folded, counts[i].name));
        if (value != counts[i].value)
            drive_fail(play, "usage.%s is %lld by the run and %lld by its facts", counts[i].name,
                       (long long)counts[i].value, (long long)value);
    }
    assert_int_equal(json_integer_value(json_object_get(state, "gaps")), 0);
    json_decref(state);
}

static void tell_facts(struct play *play, struct plan *plan)
{
    for (size_t i = 0; i < plan->facts_count; i++) {
        struct fact *fact = &plan->facts[i];
        fact->worker = STR("worker-1");
        fact->source_topic = STR("test.steps.default");
        fact->source_partition = 0;
        fact->source_offset = play->deliveries;
        const struct record *record = travel(play, RECORD_FACT, fact);
        trace_fact(&play->trace, &record->is.fact);
        fold_add(play->fold, &record->is.fact);
    }
}

static struct str event_of(struct play *play, struct run *run)
{
    run->incarnation = STR("redis-1");
    run->written_at_ms = play->now_ms;
    return encode(play, RECORD_STEP_READY, run);
}

static void write_run(struct play *play, const struct run_row *row)
{
    struct str body = encode(play, RECORD_RUN_ROW, row);
    keeper_put_run(play->keeper, &decode(play, RECORD_RUN_ROW, body)->is.run_row, body);
}

static const struct step_parked *parked_at(struct play *play, uint32_t row)
{
    return &decode(play, RECORD_STEP_PARKED, keeper_body(play->keeper, row))->is.step_parked;
}

const struct step_parked *drive_parked(struct play *play, struct str run, struct str step)
{
    for (uint32_t row = keeper_parked_first(play->keeper, keeper_run(play->keeper, run)); row != 0;
         row = keeper_parked_next(play->keeper, row)) {
        const struct step_parked *parked = parked_at(play, row);
        if (step.data == NULL || str_equal(parked->step, step))
            return parked;
    }
    return NULL;
}

/* `from`: the step event that was decided; NULL = something else was. */
static void apply(struct play *play, const struct run *from, struct plan *plan)
{
    play->call = NULL;
    tell_facts(play, plan);
    if (plan->not_done)
        trace_line(&play->trace, "release the record of the write: surely not done");
    switch (plan->next) {
    case NEXT_STEP:
        check_usage(play, &plan->run->usage);
        play->event = event_of(play, plan->run);
        trace_line(&play->trace, "next step %.*s on %.*s", STR_ARG(plan->run->at.step), STR_ARG(plan->pool));
        if (from != NULL)
            tell_ahead(play, from, plan);
        drive_deliver(play);
        break;
    case NEXT_PARK: {
        check_usage(play, &plan->run->usage);
        plan->parked.event = play->event = event_of(play, plan->run);
        struct str body = encode(play, RECORD_STEP_PARKED, &plan->parked);
        const struct step_parked *parked = &decode(play, RECORD_STEP_PARKED, body)->is.step_parked;
        trace_parked(&play->trace, parked);
        keeper_put_parked(play->keeper, parked, body);
        break;
    }
    case NEXT_END: {
        const struct run_closed *closed = &travel(play, RECORD_RUN_CLOSED, &plan->closed)->is.run_closed;
        struct str open = keeper_body(play->keeper, keeper_run(play->keeper, closed->run));
        struct run_row ended = keeper_ended(&decode(play, RECORD_RUN_ROW, open)->is.run_row, closed);
        trace_closed(&play->trace, closed);
        write_run(play, &ended);
        break;
    }
    }
}

void drive_show(struct play *play)
{
    trace_state(&play->trace, &decode(play, RECORD_STEP_READY, play->event)->is.step_ready);
}

void drive_deliver(struct play *play)
{
    if (play->event.data == NULL)
        drive_fail(play, "there is no step event");
    play->now_ms += play->delay_ms;
    play->trace.now_ms = play->now_ms;
    play->delay_ms = 0;
    play->deliveries++;
    play->run = &decode(play, RECORD_STEP_READY, play->event)->is.step_ready;
    struct plan plan;
    decide(play, &(struct input){.run = play->run}, &plan);
    if (plan.call == NULL) {
        apply(play, play->run, &plan);
        return;
    }
    const struct cursor *at = &play->run->at;
    if (!str_equal(at->step, play->said_step) || at->visit != play->said_visit || at->conversation_count < play->said)
        play->said = 0;
    trace_call(&play->trace, plan.call, play->run, play->said);
    play->said = plan.call->kind == CALL_MODEL ? at->conversation_count : play->said;
    play->said_step = at->step;
    play->said_visit = at->visit;
    play->call = plan.call;
}

void drive_run(struct play *play, const struct run_requested *request)
{
    struct str hash = request->input;
    const struct run_requested *asked = &travel(play, RECORD_RUN_REQUESTED, request)->is.run_requested;
    static const char *const verdicts[] = {"new", "the same run", "another run with this id", "too old"};
    uint32_t number = keeper_run(play->keeper, asked->run);
    const struct run_row *known = number != 0
                                      ? &decode(play, RECORD_RUN_ROW, keeper_body(play->keeper, number))->is.run_row
                                      : NULL;
    enum start_verdict verdict = keeper_start_verdict(play->keeper, asked, known, hash, play->now_ms);
    if (verdict != START_NEW) {
        trace_line(&play->trace, "not started: %s", verdicts[verdict]);
        return;
    }
    struct run_row row = {
        .run = asked->run,
        .contract = play->contract->name,
        .contract_hash = str_of(play->contract->hash),
        .input_hash = hash,
        .status = RUN_RUNNING,
        .requested_by = asked->by,
        .started_at_ms = play->now_ms,
        .deadline_at_ms = play->now_ms + play->contract->limits.deadline_ms,
    };
    write_run(play, &row);
    play->run_id = asked->run;
    fold_free(play->fold);
    play->fold = fold_new(asked->run);
    struct plan plan;
    decide(play, &(struct input){.request = asked}, &plan);
    apply(play, NULL, &plan);
}

void drive_outcome(struct play *play, const struct outcome *outcome)
{
    if (play->call == NULL)
        drive_fail(play, "no call is in flight");
    struct plan plan;
    decide(play, &(struct input){.run = play->run, .call = play->call, .outcome = outcome}, &plan);
    apply(play, play->run, &plan);
}

/* As worker/inbox.c: the keeper lets go of the step before the plan is written down. */
static void wake(struct play *play, const struct step_parked *parked, const struct wake *cause)
{
    const struct run *run = &decode(play, RECORD_STEP_READY, parked->event)->is.step_ready;
    struct plan plan;
    play->deliveries++;
    decide(play, &(struct input){.run = run, .parked = parked, .wake = cause}, &plan);
    keeper_release(play->keeper, run->id, run->at.branch);
    apply(play, NULL, &plan);
}

void drive_time(struct play *play, int64_t ms)
{
    int64_t until_ms = play->now_ms + ms;
    while (keeper_due_ms(play->keeper) <= until_ms) {
        play->now_ms = keeper_due_ms(play->keeper) > play->now_ms ? keeper_due_ms(play->keeper) : play->now_ms;
        play->trace.now_ms = play->now_ms;
        uint32_t row = keeper_next_due(play->keeper, play->now_ms);
        if (keeper_row_ended(play->keeper, row)) {
            trace_line(&play->trace, "the ended run is forgotten");
            keeper_forget(play->keeper, decode(play, RECORD_RUN_ROW, keeper_body(play->keeper, row))->is.run_row.run);
            continue;
        }
        const struct step_parked *parked = parked_at(play, row);
        bool deadline = keeper_past_deadline(parked, play->now_ms);
        trace_line(&play->trace, "%s", deadline ? "the run's deadline has passed" : "its time has come");
        wake(play, parked, &(struct wake){.kind = deadline ? WAKE_DEADLINE : WAKE_DUE});
    }
    play->now_ms = play->now_ms > until_ms ? play->now_ms : until_ms;
    play->trace.now_ms = play->now_ms;
}

void drive_decision(struct play *play, struct decision *decision)
{
    decision->at_ms = play->now_ms;
    const struct decision *sent = &travel(play, RECORD_DECISION, decision)->is.decision;
    const struct step_parked *parked = drive_parked(play, sent->run, sent->step);
    const char *refused = keeper_refuse_decision(play->keeper, sent, parked, play->arena);
    if (refused != NULL)
        trace_line(&play->trace, "refused: %s", refused);
    else
        wake(play, parked, &(struct wake){.kind = WAKE_DECISION, .decision = sent});
}

void drive_resolution(struct play *play, struct resolved *resolved)
{
    resolved->at_ms = play->now_ms;
    const struct resolved *sent = &travel(play, RECORD_RESOLVED, resolved)->is.resolved;
    const struct step_parked *parked = drive_parked(play, sent->run, sent->step);
    const char *refused = keeper_refuse_resolution(play->keeper, sent, parked, play->arena);
    if (refused != NULL)
        trace_line(&play->trace, "refused: %s", refused);
    else
        wake(play, parked, &(struct wake){.kind = WAKE_RESOLUTION, .resolution = sent});
}
