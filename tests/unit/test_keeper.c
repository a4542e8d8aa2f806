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
    struct keeper_bodies *bodies;
    struct keeper *keeper;
    struct arena *arena;
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    world->bodies = keeper_bodies_new(SIZE_MAX);
    world->keeper = keeper_new(KEEP_MS, world->bodies);
    world->arena = arena_new();
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    keeper_free(world->keeper);
    keeper_free(NULL);
    assert_int_equal(keeper_bodies_size(world->bodies), 0);
    keeper_bodies_free(world->bodies);
    arena_free(world->arena);
    free(world);
    return 0;
}

/* A body is any bytes to the keeper. */
static void open_run(struct world *world, const char *run)
{
    struct run_row row = open_row(run);
    keeper_put_run(world->keeper, &row, STR("an open run"));
}

static void park(struct world *world, struct step_parked parked)
{
    keeper_put_parked(world->keeper, &parked, STR("a parked step"));
}

static void close_run(struct world *world, const char *run, int64_t at_ms)
{
    struct run_closed closed = {
        .run = str_of(run), .status = RUN_COMPLETED, .reason = STR("completed"), .output = STR("7"), .at_ms = at_ms};
    struct run_row open = open_row(run), ended = keeper_ended(&open, &closed);
    assert_true(ended.status == RUN_COMPLETED && ended.ended_at_ms == at_ms && str_is(ended.reason, "completed"));
    assert_true(str_is(ended.output, "7") && str_is(ended.input_hash, "input") && str_is(ended.requested_by, "me"));
    keeper_put_run(world->keeper, &ended, STR("an ended run"));
}

static bool body_is(struct world *world, uint32_t row, const char *text)
{
    return row != 0 && str_is(keeper_body(world->keeper, row), text);
}

static void test_open_and_close(void **state)
{
    struct world *world = *state;
    open_run(world, "r1");
    open_run(world, "r2");
    assert_int_equal(keeper_open_count(world->keeper), 2);
    assert_true(body_is(world, keeper_run(world->keeper, STR("r1")), "an open run"));
    assert_true(keeper_is_open(world->keeper, keeper_run(world->keeper, STR("r1"))));
    close_run(world, "r1", NOW_MS + 5);
    assert_int_equal(keeper_open_count(world->keeper), 1);
    assert_true(body_is(world, keeper_run(world->keeper, STR("r1")), "an ended run"));
    assert_false(keeper_is_open(world->keeper, keeper_run(world->keeper, STR("r1"))));
    assert_false(keeper_is_open(world->keeper, keeper_run(world->keeper, STR("r3"))));
    keeper_forget(world->keeper, STR("r1"));
    assert_int_equal(keeper_run(world->keeper, STR("r1")), 0);
    assert_int_equal(keeper_run(world->keeper, STR("r3")), 0);
    assert_int_equal(keeper_open_count(world->keeper), 1);
}

static void test_park_and_release(void **state)
{
    struct world *world = *state;
    open_run(world, "r1");
    assert_string_equal(keeper_parked_key(world->arena, STR("r1"), STR("")).data, "r1/");
    assert_string_equal(keeper_parked_key(world->arena, STR("r1"), STR("left")).data, "r1/left");
    park(world, parked_step("r1", "", 50));
    park(world, parked_step("r1", "left", 40));
    assert_int_equal(keeper_parked_count(world->keeper), 2);
    assert_int_equal(keeper_due_ms(world->keeper), 40);
    struct step_parked later = parked_step("r1", "left", 60);
    keeper_put_parked(world->keeper, &later, STR("replaces"));
    assert_int_equal(keeper_parked_count(world->keeper), 2);
    assert_int_equal(keeper_due_ms(world->keeper), 50);
    assert_true(body_is(world, keeper_parked(world->keeper, STR("r1"), STR("")), "a parked step"));
    assert_true(body_is(world, keeper_parked(world->keeper, STR("r1"), STR("left")), "replaces"));
    assert_int_equal(keeper_parked(world->keeper, STR("r1"), STR("right")), 0);
    assert_int_equal(keeper_parked(world->keeper, STR("r2"), STR("")), 0);
    park(world, parked_step("r2", "", 30));
    assert_int_equal(keeper_run(world->keeper, STR("r2")), 0); /* it has a parked step, and no row */
    keeper_release(world->keeper, STR("r2"), STR(""));
    uint32_t first = keeper_parked_first(world->keeper, keeper_run(world->keeper, STR("r1")));
    uint32_t next = keeper_parked_next(world->keeper, first);
    assert_true(first != 0 && next != 0 && first != next);
    assert_int_equal(keeper_parked_next(world->keeper, next), 0);
    assert_int_equal(keeper_parked_first(world->keeper, 0), 0);
    keeper_release(world->keeper, STR("r1"), STR("left"));
    keeper_release(world->keeper, STR("r1"), STR("left")); /* again: nothing */
    assert_int_equal(keeper_parked_count(world->keeper), 1);
    keeper_load_tombstone(world->keeper, STR("r9/x"));
    keeper_load_tombstone(world->keeper, STR_NONE);
    keeper_release(world->keeper, STR("r1"), STR(""));
    assert_int_equal(keeper_parked_count(world->keeper), 0);
    assert_int_equal(keeper_due_ms(world->keeper), INT64_MAX);
    assert_int_equal(keeper_parked_first(world->keeper, keeper_run(world->keeper, STR("r1"))), 0);
}

static enum start_verdict verdict(struct world *world, const char *run, const char *hash)
{
    struct run_requested request = {.run = str_of(run)};
    struct run_row row = open_row(run);
    return keeper_start_verdict(world->keeper, &request, keeper_run(world->keeper, str_of(run)) != 0 ? &row : NULL,
                                str_of(hash), NOW_MS);
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
    /* Its row cannot be read, or is of another run with the same hash: never a second run under this id. */
    struct run_requested request = {.run = STR("r1")};
    struct run_row other = open_row("r2");
    assert_int_equal(keeper_start_verdict(world->keeper, &request, NULL, STR("input"), NOW_MS), START_CONFLICT);
    assert_int_equal(keeper_start_verdict(world->keeper, &request, &other, STR("input"), NOW_MS), START_CONFLICT);
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

static const char *refuse(struct world *world, const struct decision *decision, const struct step_parked *parked)
{
    return keeper_refuse_decision(world->keeper, decision, parked, world->arena);
}

static const char *refuse_resolution(struct world *world, const struct resolved *resolved,
                                     const struct step_parked *parked)
{
    return keeper_refuse_resolution(world->keeper, resolved, parked, world->arena);
}

static void test_refused_decisions(void **state)
{
    struct world *world = *state;
    struct decision decision = {.run = STR("r1"), .step = STR("ask"), .args_hash = STR(""), .at_ms = NOW_MS};
    struct step_parked parked = parked_step("r1", "", NOW_MS + 10);
    assert_string_equal(refuse(world, &decision, NULL), "there is no run r1");
    open_run(world, "r1");
    assert_string_equal(refuse(world, &decision, NULL), "step ask waits for no approval");
    /* for a timer */
    assert_string_equal(refuse(world, &decision, &parked), "step ask waits for no approval");
    parked.waits_for = WAITS_APPROVAL;
    parked.args_hash = STR("shown");
    assert_null(refuse(world, &decision, &parked));
    decision.visit = 1;
    assert_string_equal(refuse(world, &decision, &parked), "the decision is for visit 1 of ask, visit 2 waits");
    decision.visit = 2;
    decision.args_hash = STR("other");
    assert_non_null(refuse(world, &decision, &parked));
    decision.args_hash = STR("shown");
    assert_null(refuse(world, &decision, &parked));
    decision.at_ms = NOW_MS + 10; /* late; the run waits on all the same with timeout_action = pause */
    assert_null(refuse(world, &decision, &parked));
    parked.timeout_action = TIMEOUT_REJECT;
    assert_non_null(refuse(world, &decision, &parked));
    decision.at_ms = NOW_MS + 9;
    assert_null(refuse(world, &decision, &parked));
    parked.due_at_ms = 0;
    decision.at_ms = NOW_MS + 99;
    assert_null(refuse(world, &decision, &parked));
    close_run(world, "r1", NOW_MS + 1);
    assert_string_equal(refuse(world, &decision, &parked), "the run has ended: completed");
}

static void test_refused_resolutions(void **state)
{
    struct world *world = *state;
    struct resolved resolved = {.run = STR("r1"), .step = STR("ask"), .kind = RESOLUTION_DONE};
    struct step_parked parked = parked_step("r1", "", 0);
    assert_non_null(refuse_resolution(world, &resolved, NULL));
    open_run(world, "r1");
    assert_non_null(refuse_resolution(world, &resolved, NULL));
    parked.waits_for = WAITS_APPROVAL;
    assert_non_null(refuse_resolution(world, &resolved, &parked));
    parked.waits_for = WAITS_RESOLUTION;
    assert_null(refuse_resolution(world, &resolved, &parked));
    resolved.result = STR("{\"id\":7}");
    assert_null(refuse_resolution(world, &resolved, &parked));
    resolved.result = STR("{\"id\":");
    assert_non_null(refuse_resolution(world, &resolved, &parked));
    resolved.result = STR_NONE;
    resolved.kind = RESOLUTION_NONE;
    assert_non_null(refuse_resolution(world, &resolved, &parked));
}

static void test_due(void **state)
{
    struct world *world = *state;
    struct step_parked parked = parked_step("r1", "", 100);
    assert_int_equal(keeper_next_due(world->keeper, INT64_MAX - 1), 0);
    open_run(world, "r1"); /* an open run that does not wait looks after itself */
    assert_int_equal(keeper_due_ms(world->keeper), INT64_MAX);
    parked.run_deadline_at_ms = 150;
    park(world, parked);
    assert_int_equal(keeper_due_ms(world->keeper), 100);
    assert_int_equal(keeper_next_due(world->keeper, 99), 0);
    assert_int_equal(keeper_next_due(world->keeper, 100), keeper_parked(world->keeper, STR("r1"), STR("")));
    assert_false(keeper_row_ended(world->keeper, keeper_next_due(world->keeper, 100)));
    assert_false(keeper_past_deadline(&parked, 149));
    assert_true(keeper_past_deadline(&parked, 150)); /* it goes before the timer */
    uint32_t waiting = keeper_parked(world->keeper, STR("r1"), STR(""));
    keeper_aside(world->keeper, waiting, true); /* its state is fetched first */
    assert_int_equal(keeper_next_due(world->keeper, 150), 0);
    keeper_aside(world->keeper, waiting, false);
    assert_int_equal(keeper_next_due(world->keeper, 150), waiting);
    parked.due_at_ms = 0;
    park(world, parked);
    assert_int_equal(keeper_due_ms(world->keeper), 150);
    park(world, parked_step("r1", "left", 120)); /* one run, two branches */
    assert_int_equal(keeper_next_due(world->keeper, 130), keeper_parked(world->keeper, STR("r1"), STR("left")));
    close_run(world, "r1", 500); /* what it left waiting is not woken */
    assert_int_equal(keeper_due_ms(world->keeper), 500 + KEEP_MS);
    keeper_release(world->keeper, STR("r1"), STR("left"));
    keeper_release(world->keeper, STR("r1"), STR(""));
    uint32_t row = keeper_next_due(world->keeper, 500 + KEEP_MS);
    assert_int_equal(row, keeper_run(world->keeper, STR("r1")));
    assert_true(keeper_row_ended(world->keeper, row));
    keeper_keep(world->keeper, row, 600 + KEEP_MS); /* something about it must be done first */
    assert_int_equal(keeper_next_due(world->keeper, 599 + KEEP_MS), 0);
    assert_int_equal(keeper_next_due(world->keeper, 600 + KEEP_MS), row);
}

/* Only a run that is open wakes: whatever is left of others, and in whatever order it is loaded. */
static void test_due_while_open(void **state)
{
    struct world *world = *state;
    struct run_row open = open_row("r1"), ended = open;
    struct step_parked parked = parked_step("r1", "", 100);
    ended.ended_at_ms = 50;
    keeper_load_parked(world->keeper, &parked, 1, 10);
    assert_int_equal(keeper_due_ms(world->keeper), INT64_MAX);
    keeper_load_run(world->keeper, &open, 2, 10);
    assert_int_equal(keeper_due_ms(world->keeper), 100);
    keeper_load_run(world->keeper, &ended, 3, 10);
    assert_int_equal(keeper_due_ms(world->keeper), 50 + KEEP_MS);
    keeper_forget(world->keeper, STR("r1"));
    assert_int_equal(keeper_parked_count(world->keeper), 1);
    assert_int_equal(keeper_due_ms(world->keeper), INT64_MAX);
    keeper_load_run(world->keeper, &open, 4, 10); /* the id is used again */
    assert_int_equal(keeper_due_ms(world->keeper), 100);
}

/* Everything comes due once, earliest first. */
static void test_due_order(void **state)
{
    struct world *world = *state;
    uint64_t seed = 7;
    int64_t due_ms[300];
    for (int i = 0; i < 300; i++) {
        struct step_parked parked = parked_step(arena_printf(world->arena, "run-%d", i).data, "", 0);
        seed = seed * 6364136223846793005U + 1442695040888963407U; /* Knuth's MMIX */
        parked.due_at_ms = due_ms[i] = 1 + (int64_t)(seed >> 33) % 1000;
        open_run(world, parked.run.data);
        keeper_put_parked(world->keeper, &parked, arena_printf(world->arena, "%d", i));
    }
    int64_t before_ms = 0;
    int woken = 0;
    for (uint32_t row; (row = keeper_next_due(world->keeper, 2000)) != 0; woken++) {
        long i = strtol(keeper_body(world->keeper, row).data, NULL, 10);
        assert_true(due_ms[i] >= before_ms && due_ms[i] == keeper_due_ms(world->keeper));
        before_ms = due_ms[i];
        keeper_release(world->keeper, arena_printf(world->arena, "run-%ld", i), STR(""));
    }
    assert_int_equal(woken, 300);
}

int main(void)
{
#define KEEPER_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        KEEPER_TEST(test_open_and_close),    KEEPER_TEST(test_park_and_release),    KEEPER_TEST(test_start_verdicts),
        KEEPER_TEST(test_refused_decisions), KEEPER_TEST(test_refused_resolutions), KEEPER_TEST(test_due),
        KEEPER_TEST(test_due_while_open),    KEEPER_TEST(test_due_order),
    };
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
