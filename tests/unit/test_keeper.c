#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/contract/contract.h"
#include "worker/core/keeper.h"

#define KEEP_MS 1000000
#define NOW_MS 1790000000000

static struct run_row open_row(const char *run)
{
    return (struct run_row){.run = str_of(run),
                            .contract = STR("c"),
                            .contract_hash = STR("hash"),
                            .input_hash = STR("input"),
                            .status = RUN_RUNNING,
                            .requested_by = STR("me"),
                            .started_at_ms = NOW_MS};
}

static struct step_parked parked_step(const char *run, const char *branch, int64_t due_at_ms)
{
    return (struct step_parked){.run = str_of(run),
                                .branch = str_of(branch),
                                .step = STR("ask"),
                                .visit = 2,
                                .due_at_ms = due_at_ms,
                                .event = STR("e")};
}

struct world {
    struct keeper *keeper;
    struct arena *arena;
    struct waiting_row row; /* of the latest change */
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    world->keeper = keeper_new(KEEP_MS);
    world->arena = arena_new();
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    keeper_free(world->keeper);
    keeper_free(NULL);
    arena_free(world->arena);
    free(world);
    return 0;
}

static void open_run(struct world *world, const char *run)
{
    struct run_row *row = ARENA_NEW(world->arena, struct run_row);
    *row = open_row(arena_str(world->arena, str_of(run)).data); /* the row that is written borrows it */
    keeper_open(world->keeper, row, world->arena, &world->row);
    assert_string_equal(world->row.key.data, run);
}

static void park(struct world *world, struct step_parked parked)
{
    struct step_parked *kept = ARENA_NEW(world->arena, struct step_parked);
    *kept = parked;
    kept->run = arena_str(world->arena, parked.run);
    keeper_park(world->keeper, kept, world->arena, &world->row);
    assert_ptr_equal(world->row.parked, kept);
}

static void close_run(struct world *world, const char *run, int64_t at_ms)
{
    struct run_closed closed = {
        .run = str_of(run), .status = RUN_COMPLETED, .reason = STR("completed"), .output = STR("7"), .at_ms = at_ms};
    keeper_close(world->keeper, &closed, world->arena, &world->row);
}

static void test_open_and_close(void **state)
{
    struct world *world = *state;
    open_run(world, "r1");
    open_run(world, "r2");
    assert_int_equal(keeper_open_count(world->keeper), 2);
    assert_int_equal(keeper_run(world->keeper, STR("r1"))->ended_at_ms, 0);
    close_run(world, "r1", NOW_MS + 5);
    assert_int_equal(keeper_open_count(world->keeper), 1);
    const struct run_row *row = keeper_run(world->keeper, STR("r1"));
    assert_int_equal(row->status, RUN_COMPLETED);
    assert_string_equal(row->reason.data, "completed");
    assert_string_equal(row->input_hash.data, "input"); /* what it was started with stays */
    assert_null(row->output.data);                      /* not kept in memory, but written: */
    assert_string_equal(world->row.run->output.data, "7");
    assert_string_equal(world->row.run->requested_by.data, "me");
    close_run(world, "never-opened", NOW_MS); /* by a worker that knows better */
    assert_int_equal(keeper_run(world->keeper, STR("never-opened"))->status, RUN_COMPLETED);
    assert_int_equal(keeper_open_count(world->keeper), 1);
    keeper_forget(world->keeper, STR("r1"), world->arena, &world->row);
    assert_string_equal(world->row.key.data, "r1");
    assert_true(world->row.run == NULL && world->row.parked == NULL);
    assert_null(keeper_run(world->keeper, STR("r1")));
    assert_null(keeper_run(world->keeper, STR("r3")));
}

static void test_park_and_release(void **state)
{
    struct world *world = *state;
    park(world, parked_step("r1", "", 50));
    assert_string_equal(world->row.key.data, "r1/");
    park(world, parked_step("r1", "left", 40));
    assert_string_equal(world->row.key.data, "r1/left");
    assert_int_equal(keeper_parked_count(world->keeper), 2);
    park(world, parked_step("r1", "", 60)); /* replaces */
    assert_int_equal(keeper_parked_count(world->keeper), 2);
    assert_int_equal(keeper_parked(world->keeper, STR("r1"), STR(""))->due_at_ms, 60);
    assert_int_equal(keeper_parked(world->keeper, STR("r1"), STR("left"))->due_at_ms, 40);
    assert_null(keeper_parked(world->keeper, STR("r1"), STR("right")));
    assert_null(keeper_parked(world->keeper, STR("r2"), STR("")));
    assert_non_null(keeper_parked_step(world->keeper, STR("r1"), STR("ask")));
    assert_null(keeper_parked_step(world->keeper, STR("r1"), STR("send")));
    assert_null(keeper_parked_step(world->keeper, STR("r2"), STR("ask")));
    keeper_release(world->keeper, STR("r1"), STR("left"), world->arena, &world->row);
    assert_string_equal(world->row.key.data, "r1/left");
    assert_true(world->row.run == NULL && world->row.parked == NULL);
    keeper_release(world->keeper, STR("r1"), STR("left"), world->arena, &world->row); /* again: nothing */
    assert_int_equal(keeper_parked_count(world->keeper), 1);
    keeper_load_tombstone(world->keeper, STR("r9/x"));
    keeper_load_tombstone(world->keeper, STR_NONE);
    keeper_release(world->keeper, STR("r1"), STR(""), world->arena, &world->row);
    assert_int_equal(keeper_parked_count(world->keeper), 0);
    assert_int_equal(keeper_due_ms(world->keeper), INT64_MAX);
}

static enum start_verdict verdict(struct world *world, const char *run, const char *hash)
{
    struct run_requested request = {.run = str_of(run)};
    return keeper_start_verdict(world->keeper, &request, str_of(hash), NOW_MS);
}

static void uuid7(char *text, size_t size, int64_t ms)
{
    snprintf(text, size, "%08x-%04x-7abc-8def-0123456789ab", (unsigned)(ms >> 16), (unsigned)(ms & 0xFFFF));
}

static void test_start_verdicts(void **state)
{
    struct world *world = *state;
    char id[40];
    open_run(world, "r1");
    assert_int_equal(verdict(world, "r1", "input"), START_SAME);
    assert_int_equal(verdict(world, "r1", "other"), START_CONFLICT);
    assert_int_equal(verdict(world, "r2", "input"), START_NEW);
    close_run(world, "r1", NOW_MS);
    assert_int_equal(verdict(world, "r1", "input"), START_SAME);
    uuid7(id, sizeof(id), NOW_MS - KEEP_MS);
    assert_int_equal(verdict(world, id, "input"), START_NEW);
    uuid7(id, sizeof(id), NOW_MS - KEEP_MS - 1);
    assert_int_equal(verdict(world, id, "input"), START_TOO_OLD);
    for (size_t i = 0; id[i] != '\0'; i++)
        id[i] = id[i] >= 'a' && id[i] <= 'f' ? (char)(id[i] - 'a' + 'A') : id[i];
    assert_int_equal(verdict(world, id, "input"), START_TOO_OLD);
    open_run(world, id);
    assert_int_equal(verdict(world, id, "input"), START_SAME);
    /* What is no UUIDv7 has no age. */
    assert_int_equal(verdict(world, "01890a5d-ac96-474b-bcce-b302099a8057", "input"), START_NEW);
    assert_int_equal(verdict(world, "01890a5d.ac96-774b-bcce-b302099a8057", "input"), START_NEW);
    assert_int_equal(verdict(world, "01890a5d-ac96.774b-bcce-b302099a8057", "input"), START_NEW);
    assert_int_equal(verdict(world, "0189za5d-ac96-774b-bcce-b302099a8057", "input"), START_NEW);
    assert_int_equal(verdict(world, "0189 a5d-ac96-774b-bcce-b302099a8057", "input"), START_NEW);
}

static void test_refused_decisions(void **state)
{
    struct world *world = *state;
    struct decision decision = {.run = STR("r1"), .step = STR("ask"), .args_hash = STR(""), .at_ms = NOW_MS};
    struct step_parked parked = parked_step("r1", "", NOW_MS + 10);
    assert_string_equal(keeper_refuse_decision(world->keeper, &decision, world->arena), "there is no run r1");
    open_run(world, "r1");
    assert_string_equal(keeper_refuse_decision(world->keeper, &decision, world->arena),
                        "step ask waits for no approval");
    park(world, parked); /* for a timer */
    assert_string_equal(keeper_refuse_decision(world->keeper, &decision, world->arena),
                        "step ask waits for no approval");
    parked.waits_for = WAITS_APPROVAL;
    parked.args_hash = STR("shown");
    park(world, parked);
    assert_null(keeper_refuse_decision(world->keeper, &decision, world->arena));
    decision.visit = 1;
    assert_string_equal(keeper_refuse_decision(world->keeper, &decision, world->arena),
                        "the decision is for visit 1 of ask, visit 2 waits");
    decision.visit = 2;
    decision.args_hash = STR("other");
    assert_non_null(keeper_refuse_decision(world->keeper, &decision, world->arena));
    decision.args_hash = STR("shown");
    assert_null(keeper_refuse_decision(world->keeper, &decision, world->arena));
    decision.at_ms = NOW_MS + 10; /* late; the run waits on all the same with timeout_action = pause */
    assert_null(keeper_refuse_decision(world->keeper, &decision, world->arena));
    parked.timeout_action = TIMEOUT_REJECT;
    park(world, parked);
    assert_non_null(keeper_refuse_decision(world->keeper, &decision, world->arena));
    decision.at_ms = NOW_MS + 9;
    assert_null(keeper_refuse_decision(world->keeper, &decision, world->arena));
    parked.due_at_ms = 0;
    decision.at_ms = NOW_MS + 99;
    park(world, parked);
    assert_null(keeper_refuse_decision(world->keeper, &decision, world->arena));
    close_run(world, "r1", NOW_MS + 1);
    assert_string_equal(keeper_refuse_decision(world->keeper, &decision, world->arena), "the run has ended: completed");
}

static void test_refused_resolutions(void **state)
{
    struct world *world = *state;
    struct resolved resolved = {.run = STR("r1"), .step = STR("ask"), .kind = RESOLUTION_DONE};
    struct step_parked parked = parked_step("r1", "", 0);
    assert_non_null(keeper_refuse_resolution(world->keeper, &resolved, world->arena));
    open_run(world, "r1");
    assert_non_null(keeper_refuse_resolution(world->keeper, &resolved, world->arena));
    parked.waits_for = WAITS_APPROVAL;
    park(world, parked);
    assert_non_null(keeper_refuse_resolution(world->keeper, &resolved, world->arena));
    parked.waits_for = WAITS_RESOLUTION;
    park(world, parked);
    assert_null(keeper_refuse_resolution(world->keeper, &resolved, world->arena));
    resolved.result = STR("{\"id\":7}");
    assert_null(keeper_refuse_resolution(world->keeper, &resolved, world->arena));
    resolved.result = STR("{\"id\":");
    assert_non_null(keeper_refuse_resolution(world->keeper, &resolved, world->arena));
    resolved.result = STR_NONE;
    resolved.kind = RESOLUTION_NONE;
    assert_non_null(keeper_refuse_resolution(world->keeper, &resolved, world->arena));
}

static void test_due(void **state)
{
    struct world *world = *state;
    struct step_parked parked = parked_step("r1", "", 100);
    assert_int_equal(keeper_next_due(world->keeper, INT64_MAX - 1).kind, KEEPER_DUE_NONE);
    open_run(world, "r1"); /* an open run that does not wait looks after itself */
    assert_int_equal(keeper_due_ms(world->keeper), INT64_MAX);
    parked.run_deadline_at_ms = 150;
    park(world, parked);
    assert_int_equal(keeper_due_ms(world->keeper), 100);
    assert_int_equal(keeper_next_due(world->keeper, 99).kind, KEEPER_DUE_NONE);
    struct keeper_due due = keeper_next_due(world->keeper, 100);
    assert_int_equal(due.kind, KEEPER_DUE_STEP);
    assert_ptr_equal(due.parked, keeper_parked(world->keeper, STR("r1"), STR("")));
    due = keeper_next_due(world->keeper, 150); /* the deadline goes before the timer */
    assert_int_equal(due.kind, KEEPER_DUE_DEADLINE);
    keeper_keep(world->keeper, STR("r1"), INT64_MAX); /* its state is fetched first */
    assert_int_equal(keeper_next_due(world->keeper, 150).kind, KEEPER_DUE_NONE);
    keeper_keep(world->keeper, STR("r1"), 0);
    assert_int_equal(keeper_next_due(world->keeper, 150).kind, KEEPER_DUE_DEADLINE);
    parked.due_at_ms = 0;
    park(world, parked);
    assert_int_equal(keeper_due_ms(world->keeper), 150);
    struct step_parked left = parked_step("r1", "left", 120); /* one entry, two branches */
    park(world, left);
    due = keeper_next_due(world->keeper, 130);
    assert_int_equal(due.kind, KEEPER_DUE_STEP);
    assert_string_equal(due.parked->branch.data, "left");
    keeper_release(world->keeper, STR("r1"), STR("left"), world->arena, &world->row);
    keeper_release(world->keeper, STR("r1"), STR(""), world->arena, &world->row);
    assert_int_equal(keeper_due_ms(world->keeper), INT64_MAX);
    close_run(world, "r1", 500);
    assert_int_equal(keeper_due_ms(world->keeper), 500 + KEEP_MS);
    due = keeper_next_due(world->keeper, 500 + KEEP_MS);
    assert_int_equal(due.kind, KEEPER_DUE_FORGET);
    assert_string_equal(due.run.data, "r1");
    keeper_keep(world->keeper, STR("r1"), 600 + KEEP_MS); /* something about it must be done first */
    assert_int_equal(keeper_next_due(world->keeper, 599 + KEEP_MS).kind, KEEPER_DUE_NONE);
    assert_int_equal(keeper_next_due(world->keeper, 600 + KEEP_MS).kind, KEEPER_DUE_FORGET);
    keeper_keep(world->keeper, STR("nobody"), 0);
}

/* ---- a keeper beside a naive model, and one that is rebuilt from the rows that were written ---- */

#define RUNS 24
#define BRANCHES 3

struct naive {
    bool known, parked[BRANCHES];
    int64_t ended_at_ms, due_at_ms[BRANCHES], deadline_at_ms[BRANCHES];
};

static const char *const branch_names[BRANCHES] = {"", "a", "a/b"};

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13; /* xorshift64 (Marsaglia, 2003) */
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static int64_t naive_due(const struct naive *runs)
{
    int64_t due = INT64_MAX;
    for (int i = 0; i < RUNS; i++) {
        if (runs[i].known && runs[i].ended_at_ms > 0) {
            due = runs[i].ended_at_ms + KEEP_MS < due ? runs[i].ended_at_ms + KEEP_MS : due;
            continue;
        }
        for (int k = 0; k < BRANCHES; k++) {
            if (!runs[i].parked[k])
                continue;
            due = runs[i].due_at_ms[k] > 0 && runs[i].due_at_ms[k] < due ? runs[i].due_at_ms[k] : due;
            due = runs[i].deadline_at_ms[k] > 0 && runs[i].deadline_at_ms[k] < due ? runs[i].deadline_at_ms[k] : due;
        }
    }
    return due;
}

static void write_down(struct keeper *other, const struct waiting_row *row)
{
    if (row->run != NULL)
        keeper_load_run(other, row->run);
    else if (row->parked != NULL)
        keeper_load_parked(other, row->parked);
    else
        keeper_load_tombstone(other, row->key);
}

static void change(struct world *world, struct naive *runs, uint64_t *seed)
{
    int i = (int)(next_random(seed) % RUNS), k = (int)(next_random(seed) % BRANCHES);
    char id[16];
    snprintf(id, sizeof(id), "run-%d", i);
    struct str branch = str_of(branch_names[k]);
    switch (next_random(seed) % 8) {
    case 0:
    case 1:
        open_run(world, id);
        runs[i].known = true;
        runs[i].ended_at_ms = 0;
        break;
    case 2: {
        int64_t at_ms = 1 + (int64_t)(next_random(seed) % 10000);
        close_run(world, id, at_ms);
        runs[i].known = true;
        runs[i].ended_at_ms = at_ms;
        break;
    }
    case 3:
        keeper_forget(world->keeper, str_of(id), world->arena, &world->row);
        runs[i].known = false;
        break;
    case 4:
    case 5:
    case 6: {
        struct step_parked parked = parked_step(id, branch_names[k],
                                                (int64_t)(next_random(seed) % 4 * (next_random(seed) % 5000)));
        parked.run_deadline_at_ms = (int64_t)(next_random(seed) % 2 * (next_random(seed) % 9000));
        park(world, parked);
        runs[i].parked[k] = true;
        runs[i].due_at_ms[k] = parked.due_at_ms;
        runs[i].deadline_at_ms[k] = parked.run_deadline_at_ms;
        break;
    }
    default:
        keeper_release(world->keeper, str_of(id), branch, world->arena, &world->row);
        runs[i].parked[k] = false;
    }
}

static void compare(struct keeper *keeper, const struct naive *runs)
{
    size_t open = 0, parked = 0;
    for (int i = 0; i < RUNS; i++) {
        char id[16];
        snprintf(id, sizeof(id), "run-%d", i);
        const struct run_row *row = keeper_run(keeper, str_of(id));
        assert_int_equal(row != NULL, runs[i].known);
        assert_true(row == NULL || row->ended_at_ms == runs[i].ended_at_ms);
        open += runs[i].known && runs[i].ended_at_ms == 0;
        for (int k = 0; k < BRANCHES; k++) {
            const struct step_parked *step = keeper_parked(keeper, str_of(id), str_of(branch_names[k]));
            assert_int_equal(step != NULL, runs[i].parked[k]);
            assert_true(step == NULL || step->due_at_ms == runs[i].due_at_ms[k]);
            assert_true(step == NULL || strcmp(step->event.data, "e") == 0);
            parked += runs[i].parked[k];
        }
    }
    assert_int_equal(keeper_open_count(keeper), open);
    assert_int_equal(keeper_parked_count(keeper), parked);
    assert_int_equal(keeper_due_ms(keeper), naive_due(runs));
}

static void test_against_a_naive_model(void **state)
{
    struct world *world = *state;
    for (uint64_t start = 1; start <= 40; start++) {
        uint64_t seed = start * 0x9E3779B97F4A7C15U;
        struct naive runs[RUNS] = {0};
        struct keeper *rebuilt = keeper_new(KEEP_MS);
        for (int step = 0; step < 400; step++) {
            change(world, runs, &seed);
            write_down(rebuilt, &world->row);
            if (step % 20 == 0)
                compare(world->keeper, runs);
        }
        compare(world->keeper, runs);
        compare(rebuilt, runs);
        keeper_free(rebuilt);
        keeper_free(world->keeper);
        world->keeper = keeper_new(KEEP_MS);
        arena_reset(world->arena);
    }
}

/* Everything comes due once, earliest first. */
static void test_due_order(void **state)
{
    struct world *world = *state;
    uint64_t seed = 7;
    for (int i = 0; i < 300; i++) {
        struct step_parked parked = parked_step(arena_printf(world->arena, "run-%d", i).data, "", 0);
        parked.due_at_ms = 1 + (int64_t)(next_random(&seed) % 1000);
        park(world, parked);
    }
    int64_t before_ms = 0;
    int woken = 0;
    for (struct keeper_due due; (due = keeper_next_due(world->keeper, 2000)).kind == KEEPER_DUE_STEP; woken++) {
        assert_true(due.parked->due_at_ms >= before_ms);
        before_ms = due.parked->due_at_ms;
        keeper_release(world->keeper, arena_str(world->arena, due.run), STR(""), world->arena, &world->row);
    }
    assert_int_equal(woken, 300);
}

int main(void)
{
#define KEEPER_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        KEEPER_TEST(test_open_and_close),        KEEPER_TEST(test_park_and_release),
        KEEPER_TEST(test_start_verdicts),        KEEPER_TEST(test_refused_decisions),
        KEEPER_TEST(test_refused_resolutions),   KEEPER_TEST(test_due),
        KEEPER_TEST(test_against_a_naive_model), KEEPER_TEST(test_due_order),
    };
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
