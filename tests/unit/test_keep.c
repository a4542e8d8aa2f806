/* worker/keep, inbox, wake: what a record that waits costs, and what it finds when its turn comes. The ports are this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/base/hash.h"
#include "worker/inbox.h"
#include "worker/io/metrics.h"

#define RUNS_MAX 200
#define TURNS 1000
#define MEMORY_KIB 8192 /* room for all bodies */
#define AT_A_TIME 16    /* states that are fetched */

/* A state that is being fetched. */
struct resolve {
    struct run *run;
    payload_done done;
    void *context;
    bool cancelled;
};

static struct {
    struct arena *arena;
    struct settings settings;
    struct worker worker;
    struct readback_wanted asked[RUNS_MAX];
    size_t asked_count, answered;
    struct str rows[2 * RUNS_MAX]; /* of `waiting`, by their offsets */
    struct str keys[2 * RUNS_MAX];
    int64_t rows_count, records_count;
    struct resolve resolves[RUNS_MAX];
    size_t resolves_count;
    struct record *done[RUNS_MAX]; /* the first record of each commit */
    size_t done_count;
    int decoded, hashed;
    int64_t readings; /* of control */
} world;

/* ---- ports ---- */

bool __real_record_decode(struct str bytes, struct arena *arena, struct record *record, struct error *error);
bool __wrap_record_decode(struct str bytes, struct arena *arena, struct record *record, struct error *error);
struct hash_id __real_hash_id(const struct str *parts, size_t count);
struct hash_id __wrap_hash_id(const struct str *parts, size_t count);

bool __wrap_record_decode(struct str bytes, struct arena *arena, struct record *record, struct error *error)
{
    world.decoded++;
    return __real_record_decode(bytes, arena, record, error);
}

struct hash_id __wrap_hash_id(const struct str *parts, size_t count)
{
    world.hashed++;
    return __real_hash_id(parts, count);
}

void readback_ask(struct readback *readback, const struct readback_wanted *wanted, size_t count)
{
    (void)readback;
    for (size_t i = 0; i < count; i++)
        world.asked[world.asked_count++] = wanted[i];
}

struct resolve *payload_resolve(struct payloads *payloads, struct run *run, struct arena *arena, payload_more more,
                                payload_done done, void *context)
{
    (void)payloads, (void)arena, (void)more;
    struct resolve *resolve = &world.resolves[world.resolves_count++];
    *resolve = (struct resolve){.run = run, .done = done, .context = context};
    return resolve;
}

void payload_cancel(struct resolve *resolve)
{
    resolve->cancelled = true;
}

void payload_keep(struct payloads *payloads, const unsigned char *digest, struct str value)
{
    (void)payloads, (void)digest, (void)value;
}

void log_done(struct log *log, const struct log_event *source, const struct log_record *records, size_t count)
{
    (void)log, (void)source;
    struct record *record = ARENA_NEW(world.arena, struct record);
    struct error error;
    assert_true(count > 0 && __real_record_decode(records[0].value, world.arena, record, &error));
    world.done[world.done_count++] = record;
}

void log_event_free(struct log_event *event)
{
    (void)event;
}

int64_t log_read_control(struct log *log)
{
    (void)log;
    return ++world.readings;
}

void meter_commit(struct metrics *metrics, const struct commit *commit)
{
    (void)metrics, (void)commit;
}

void metrics_add(struct metrics *metrics, enum metric_id metric, const struct str *labels, double more)
{
    (void)metrics, (void)metric, (void)labels, (void)more;
}

/* ---- what happens ---- */

static struct str encode(enum record_type type, const void *object)
{
    struct buf buf;
    struct error error;
    buf_init(&buf, 1 << 20);
    if (!record_encode(type, object, &buf, &error))
        fail_msg("%s", error.text);
    struct str bytes = arena_str(world.arena, buf_str(&buf));
    buf_free(&buf);
    return bytes;
}

static void tell(enum log_event_kind kind, struct str key, struct str value, int64_t offset)
{
    struct log_event event = {.kind = kind,
                              .topic = TOPIC_INBOX,
                              .topic_name = "inbox",
                              .tenure = 1,
                              .offset = offset,
                              .timestamp_ms = 1000 + offset,
                              .key = key,
                              .value = value};
    keep_event(&world.worker, &event);
}

static void record(struct str run, struct str value)
{
    tell(LOG_RECORD, run, value, world.records_count++);
}

static void row(struct str key, struct str value)
{
    world.keys[world.rows_count] = key;
    world.rows[world.rows_count] = value;
    tell(LOG_WAITING_ROW, key, value, world.rows_count++);
}

/* Waits for a person, or until then, in a state of which `facts` tells. */
static struct str parked(struct str run, int64_t facts, int64_t due_at_ms)
{
    struct run state = {.id = run, .contract_hash = STR("nobody's"), .facts = facts, .at = {.judging = -1}};
    struct step_parked parked = {.run = run,
                                 .branch = STR(""),
                                 .step = STR("ask"),
                                 .visit = 1,
                                 .waits_for = WAITS_APPROVAL,
                                 .due_at_ms = due_at_ms,
                                 .event = encode(RECORD_STEP_READY, &state)};
    return encode(RECORD_STEP_PARKED, &parked);
}

static struct str decision(struct str run)
{
    struct decision decision = {.run = run, .request_id = STR("q"), .step = STR("ask"), .approved = true};
    return encode(RECORD_DECISION, &decision);
}

static struct str run_name(int number)
{
    return arena_printf(world.arena, "run-%d", number);
}

/* Open runs that wait, of which no body is in memory. */
static void begin_due(int runs, int memory_kib, int64_t due_at_ms)
{
    struct error error;
    memset(&world, 0, sizeof(world));
    assert_true(record_open(&error));
    world.arena = arena_new();
    world.settings = (struct settings){
        .name_space = STR("test"), .keeper_memory_kib = memory_kib, .ended_keep_ms = 1000000};
    world.worker.settings = &world.settings;
    world.worker.contracts = contracts_new();
    keep_open(&world.worker);
    tell(LOG_ASSIGNED, STR_NONE, STR_NONE, 0);
    for (int i = 0; i < runs; i++) {
        struct run_row open = {.run = run_name(i), .status = RUN_RUNNING};
        row(open.run, encode(RECORD_RUN_ROW, &open));
        row(arena_printf(world.arena, "run-%d/", i), parked(run_name(i), 5, due_at_ms));
    }
    tell(LOG_WAITING_END, STR_NONE, STR_NONE, 0);
    tell(LOG_BACKLOG_END, STR_NONE, STR_NONE, 0);
    keep_tick(&world.worker, 0);
    world.decoded = world.hashed = 0;
}

static void begin(int runs, int memory_kib)
{
    begin_due(runs, memory_kib, 0);
}

static void end(void)
{
    keep_free(&world.worker);
    contracts_free(world.worker.contracts);
    arena_free(world.arena);
    record_close();
}

static void turn(void)
{
    keep_tick(&world.worker, 2000);
}

/* All that was asked for is answered. */
static void bodies_come(void)
{
    while (world.answered < world.asked_count) {
        int64_t offset = world.asked[world.answered].offset;
        struct readback_row row = {.wanted = world.asked[world.answered++],
                                   .asked = true,
                                   .key = world.keys[offset],
                                   .value = world.rows[offset]};
        keep_recalled(&world.worker, &row);
    }
    turn();
}

static void state_comes(size_t number)
{
    world.resolves[number].done(world.resolves[number].context, NULL);
    turn();
}

/* ---- tests ---- */

static void test_a_state_is_awaited_for_nothing(void **state)
{
    (void)state;
    begin(1, MEMORY_KIB);
    record(run_name(0), decision(run_name(0)));
    turn();
    assert_int_equal(world.asked_count, 1);
    bodies_come();
    assert_int_equal(world.resolves_count, 1);
    assert_int_equal(world.decoded, 3); /* the record, the parked step, the state in it */
    int hashed = world.hashed;
    for (int i = 0; i < TURNS; i++)
        turn();
    assert_int_equal(world.done_count, 0);
    assert_int_equal(world.hashed, hashed);
    state_comes(0);
    assert_int_equal(world.done_count, 1);
    assert_int_equal(world.done[0]->is.fact.kind, FACT_RUN_ENDED); /* nobody knows its contract */
    assert_int_equal(world.done[0]->is.fact.seq, 5);
    assert_int_equal(world.decoded, 3);
    end();
}

static void test_those_behind_are_looked_at_when_something_came(void **state)
{
    (void)state;
    begin(RUNS_MAX, MEMORY_KIB);
    for (int i = 0; i < RUNS_MAX; i++)
        record(run_name(i), decision(run_name(i)));
    turn();
    assert_int_equal(world.asked_count, RUNS_MAX);
    assert_int_equal(world.decoded, RUNS_MAX);
    world.hashed = 0;
    for (int i = 0; i < TURNS; i++)
        turn();
    assert_int_equal(world.hashed, TURNS); /* the first one's run, which is looked for */
    bodies_come();
    assert_int_equal(world.resolves_count, AT_A_TIME);
    for (size_t i = 0; i < RUNS_MAX; i++)
        state_comes(i);
    assert_int_equal(world.done_count, RUNS_MAX);
    assert_int_equal(world.decoded, 3 * RUNS_MAX);
    end();
}

/* Its state was begun to be fetched while it stood behind others, and one of these changes what waits. */
static void test_what_is_decided_is_what_waits_then(void **state)
{
    (void)state;
    begin(2, MEMORY_KIB);
    record(run_name(0), decision(run_name(0)));
    record(run_name(1), parked(run_name(1), 7, 0));
    record(run_name(1), decision(run_name(1)));
    turn();
    bodies_come();
    assert_int_equal(world.resolves_count, 2);
    assert_int_equal(world.resolves[1].run->facts, 5);
    state_comes(0);
    assert_true(world.resolves[1].cancelled);
    assert_int_equal(world.resolves_count, 3);
    state_comes(2);
    assert_int_equal(world.done_count, 3);
    assert_int_equal(world.done[2]->is.fact.kind, FACT_RUN_ENDED);
    assert_int_equal(world.done[2]->is.fact.seq, 7);
    assert_int_equal(world.asked_count, 2); /* it was just written */
    end();
}

static void test_what_is_due_is_read_once(void **state)
{
    (void)state;
    begin(1, MEMORY_KIB);
    record(run_name(0), parked(run_name(0), 7, 1500));
    for (int i = 0; i < TURNS; i++)
        turn();
    assert_int_equal(world.resolves_count, 1);
    assert_int_equal(world.done_count, 1); /* it was parked */
    state_comes(0);
    assert_int_equal(world.done_count, 2);
    assert_int_equal(world.done[1]->is.fact.seq, 7);
    assert_int_equal(world.decoded, 3); /* the record, the row, the state */
    end();
}

/* Its body was read, and goes while its state is fetched: it is not read again, or it could be so for ever. */
static void test_no_room_for_what_is_due(void **state)
{
    (void)state;
    begin_due(1, 0, 1500);
    turn();
    assert_int_equal(world.asked_count, 1);
    bodies_come();
    assert_int_equal(world.resolves_count, 1);
    turn();
    state_comes(0);
    assert_int_equal(world.done_count, 1);
    assert_int_equal(world.asked_count, 1);
    assert_false(world.resolves[0].cancelled);
    end();
}

/* Of two that are about one step the second finds nothing that waits. */
static void test_a_second_decision(void **state)
{
    (void)state;
    begin(1, MEMORY_KIB);
    record(run_name(0), decision(run_name(0)));
    record(run_name(0), decision(run_name(0)));
    turn();
    bodies_come();
    assert_int_equal(world.resolves_count, 1);
    state_comes(0);
    assert_int_equal(world.done_count, 2);
    assert_int_equal(world.done[1]->is.fact.kind, FACT_REQUEST_ANSWERED);
    assert_false(world.done[1]->is.fact.is.request_answered.accepted);
    end();
}

/* A body that was read while its record stood behind another is gone when its turn comes: what it said was taken from it before. */
static void test_no_room_for_bodies(void **state)
{
    (void)state;
    begin(2, 0);
    record(run_name(0), decision(run_name(0)));
    record(run_name(1), decision(run_name(1)));
    turn();
    assert_int_equal(world.asked_count, 1);
    bodies_come();
    assert_int_equal(world.asked_count, 2);
    bodies_come();
    assert_int_equal(world.resolves_count, 2);
    turn();
    turn();
    state_comes(1);
    state_comes(0);
    assert_int_equal(world.done_count, 2);
    assert_int_equal(world.asked_count, 2);
    end();
}

/* What was begun for a record goes when its run ends before that record's turn. */
static void test_its_run_ends_before(void **state)
{
    struct run_closed closed = {.status = RUN_FAILED, .reason = STR("an end"), .at_ms = 1000};
    (void)state;
    begin(2, MEMORY_KIB);
    closed.run = run_name(1);
    record(run_name(0), decision(run_name(0)));
    record(run_name(1), encode(RECORD_RUN_CLOSED, &closed));
    record(run_name(1), decision(run_name(1)));
    turn();
    bodies_come();
    assert_int_equal(world.resolves_count, 2);
    state_comes(0);
    assert_int_equal(world.done_count, 3);
    assert_true(world.resolves[1].cancelled);
    end();
}

/* When many are due at once, one that is whole lets in the next. */
static void test_many_are_due(void **state)
{
    (void)state;
    begin_due(AT_A_TIME + 4, MEMORY_KIB, 1500);
    turn();
    bodies_come();
    assert_int_equal(world.resolves_count, AT_A_TIME);
    state_comes(0);
    assert_int_equal(world.done_count, 1);
    assert_int_equal(world.resolves_count, AT_A_TIME + 1);
    end();
}

/* A contract that is not known is looked for in `control` as it is from then on: the end of an earlier reading says nothing. */
static void test_readings_of_control(void **state)
{
    (void)state;
    begin(0, MEMORY_KIB);
    for (int i = 0; i < 2; i++) {
        struct run_requested request = {.run = run_name(i),
                                        .request_id = STR("q"),
                                        .contract = STR("new"),
                                        .contract_hash = STR("h"),
                                        .input = STR("{}")};
        record(request.run, encode(RECORD_RUN_REQUESTED, &request));
    }
    assert_int_equal(world.readings, 2);
    for (int64_t reading = 0; reading <= 2; reading++) {
        keep_contracts_read(&world.worker, reading);
        assert_int_equal(world.done_count, reading);
    }
    assert_int_equal(world.readings, 2);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_state_is_awaited_for_nothing),
        cmocka_unit_test(test_those_behind_are_looked_at_when_something_came),
        cmocka_unit_test(test_what_is_decided_is_what_waits_then),
        cmocka_unit_test(test_what_is_due_is_read_once),
        cmocka_unit_test(test_no_room_for_what_is_due),
        cmocka_unit_test(test_a_second_decision),
        cmocka_unit_test(test_no_room_for_bodies),
        cmocka_unit_test(test_its_run_ends_before),
        cmocka_unit_test(test_many_are_due),
        cmocka_unit_test(test_readings_of_control),
    };
    return cmocka_run_group_tests_name("keep", tests, NULL, NULL);
}
