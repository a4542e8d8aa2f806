/* The keeper's table and its bodies beside a naive model, with a `waiting` of its own from which bodies are read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/core/keeper.h"

#define KEEP_MS 1000000
#define RUNS 24
#define BRANCHES 3
#define ROWS (RUNS * (BRANCHES + 1)) /* of each run its own, then those of its branches */
#define LOG_MAX 1000
#define BODIES_SIZE_MAX 600 /* some five bodies */

/* ---- the model ---- */

struct naive {
    bool known, asked, placed, seen; /* `seen`: its body was used since the last trim */
    char body[32];
    int64_t ticket, offset; /* of its latest row; the offset counts once it is placed */
    int64_t at_ms;          /* a run: its end, 0 = open; a parked step: due */
};

struct pending {
    int64_t ticket, offset;
};

struct world {
    struct keeper *keeper;
    struct keeper_bodies *bodies;
    struct arena *arena;
    struct naive rows[ROWS];
    struct {
        struct str key, body; /* body.data == NULL: a tombstone */
        int64_t at_ms;        /* as in the model */
        bool parked;
    } log[LOG_MAX]; /* `waiting` */
    int64_t log_count;
    struct pending pending[LOG_MAX]; /* written and not placed yet, in order */
    size_t pending_first, pending_count;
    uint64_t seed;
};

static const char *const branches[BRANCHES] = {"", "a", "a/b"};

static uint64_t next_random(struct world *world)
{
    world->seed ^= world->seed << 13; /* xorshift64 (Marsaglia, 2003) */
    world->seed ^= world->seed >> 7;
    world->seed ^= world->seed << 17;
    return world->seed;
}

static struct str run_name(struct world *world, int i)
{
    return arena_printf(world->arena, "run-%d", i / (BRANCHES + 1));
}

static bool is_run(int i)
{
    return i % (BRANCHES + 1) == 0;
}

static struct str branch_name(int i)
{
    return str_of(branches[i % (BRANCHES + 1) - 1]);
}

static struct str key_of(struct world *world, int i)
{
    struct str run = run_name(world, i);
    return is_run(i) ? run : keeper_parked_key(world->arena, run, branch_name(i));
}

static uint32_t row_of(struct world *world, const struct keeper *keeper, int i)
{
    return is_run(i) ? keeper_run(keeper, run_name(world, i))
                     : keeper_parked(keeper, run_name(world, i), branch_name(i));
}

/* ---- what happens ---- */

static void write_down(struct world *world, int i, struct str body)
{
    struct naive *naive = &world->rows[i];
    world->log[world->log_count].key = key_of(world, i);
    world->log[world->log_count].body = body;
    world->log[world->log_count].at_ms = naive->at_ms;
    world->log[world->log_count].parked = !is_run(i);
    naive->offset = world->log_count++;
}

static struct run_row run_row(struct str run, int64_t ended_at_ms)
{
    return (struct run_row){
        .run = run, .status = ended_at_ms > 0 ? RUN_COMPLETED : RUN_RUNNING, .ended_at_ms = ended_at_ms};
}

static struct step_parked step_parked(struct str run, struct str branch, int64_t due_at_ms)
{
    return (struct step_parked){.run = run, .branch = branch, .due_at_ms = due_at_ms};
}

static void put(struct world *world, int i)
{
    struct naive *naive = &world->rows[i];
    int64_t at_ms = next_random(world) % 2 == 0 ? 0 : 1 + (int64_t)(next_random(world) % 5000);
    *naive = (struct naive){.known = true, .seen = true, .at_ms = at_ms};
    snprintf(naive->body, sizeof(naive->body), "row %d, version %d", i, (int)world->log_count);
    struct run_row row = run_row(run_name(world, i), at_ms);
    struct str body = arena_str(world->arena, str_of(naive->body));
    if (is_run(i)) {
        naive->ticket = keeper_put_run(world->keeper, &row, body);
    } else {
        struct step_parked parked = step_parked(run_name(world, i), branch_name(i), at_ms);
        naive->ticket = keeper_put_parked(world->keeper, &parked, body);
    }
    write_down(world, i, body);
    world->pending[world->pending_count++] = (struct pending){naive->ticket, naive->offset};
}

static void take(struct world *world, int i)
{
    if (is_run(i))
        keeper_forget(world->keeper, run_name(world, i));
    else
        keeper_release(world->keeper, run_name(world, i), branch_name(i));
    world->rows[i] = (struct naive){.known = false};
    write_down(world, i, STR_NONE);
}

/* Some of what was written is committed: in the order in which it was. */
static void place(struct world *world)
{
    for (uint64_t n = next_random(world) % 6; n > 0 && world->pending_first < world->pending_count; n--) {
        struct pending *pending = &world->pending[world->pending_first++];
        keeper_placed(world->keeper, pending->ticket, pending->offset);
        for (int i = 0; i < ROWS; i++)
            world->rows[i].placed = world->rows[i].placed ||
                                    (world->rows[i].known && world->rows[i].ticket == pending->ticket);
    }
}

/* A body is there as it was written last, or can be asked for where it lies. */
static void look(struct world *world, int i)
{
    struct naive *naive = &world->rows[i];
    uint32_t row = row_of(world, world->keeper, i);
    if (row == 0)
        return;
    struct str body = keeper_body(world->keeper, row);
    if (body.data != NULL) {
        assert_string_equal(body.data, naive->body);
        assert_int_equal(keeper_ask(world->keeper, row), -1);
        naive->seen = true;
        return;
    }
    assert_true(naive->placed && !naive->seen);
    assert_int_equal(keeper_size(world->keeper, row), strlen(naive->body));
    assert_int_equal(keeper_ask(world->keeper, row), naive->asked ? -1 : naive->offset);
    naive->asked = true;
}

/* One that was asked for comes, or an answer that nobody waits for any more, or the wrong one. */
static void recall(struct world *world, int i)
{
    struct naive *naive = &world->rows[i];
    uint32_t row = row_of(world, world->keeper, i);
    if (row == 0)
        return;
    struct str key = key_of(world, i), body = str_of(naive->body);
    enum keeper_recall unless = naive->asked ? RECALL_WRONG : RECALL_UNWANTED;
    assert_int_equal(keeper_recalled(world->keeper, row, naive->offset + 1, key, STR("x")), RECALL_UNWANTED);
    assert_int_equal(keeper_recalled(world->keeper, row, naive->offset, STR("run-0/other"), STR("x")), unless);
    assert_int_equal(keeper_recalled(world->keeper, row, naive->offset, key, STR_NONE), unless);
    assert_int_equal(keeper_recalled(world->keeper, row, naive->offset, key, body),
                     naive->asked ? RECALL_TAKEN : RECALL_UNWANTED);
    if (naive->asked)
        assert_string_equal(keeper_body(world->keeper, row).data, naive->body);
    naive->seen = naive->seen || naive->asked;
    naive->asked = false;
}

static void trim(struct world *world)
{
    size_t before = keeper_bodies_size(world->bodies);
    keeper_bodies_trim(world->bodies);
    size_t after = keeper_bodies_size(world->bodies);
    assert_true(after <= before && (after == before || before > BODIES_SIZE_MAX));
    for (int i = 0; i < ROWS; i++)
        world->rows[i].seen = false;
}

static void change(struct world *world)
{
    int i = (int)(next_random(world) % ROWS);
    switch (next_random(world) % 8) {
    case 0:
    case 1:
    case 2:
        put(world, i);
        break;
    case 3:
        take(world, i);
        break;
    case 4:
        place(world);
        break;
    case 5:
        trim(world);
        break;
    case 6:
        look(world, i);
        break;
    default:
        recall(world, i);
    }
}

/* ---- compared ---- */

static int64_t naive_due(const struct world *world, int i)
{
    const struct naive *naive = &world->rows[i], *run = &world->rows[i - i % (BRANCHES + 1)];
    if (!naive->known || naive->asked || naive->at_ms == 0)
        return INT64_MAX;
    if (is_run(i))
        return naive->at_ms + KEEP_MS;
    return run->known && run->at_ms == 0 ? naive->at_ms : INT64_MAX;
}

static void compare(struct world *world, struct keeper *keeper, bool asked)
{
    size_t open = 0, parked = 0;
    int64_t due_ms = INT64_MAX;
    for (int i = 0; i < ROWS; i++) {
        struct naive *naive = &world->rows[i];
        bool was_asked = naive->asked;
        uint32_t row = row_of(world, keeper, i);
        assert_int_equal(row != 0, naive->known);
        naive->asked = naive->asked && asked;
        open += is_run(i) && naive->known && naive->at_ms == 0;
        parked += !is_run(i) && naive->known;
        due_ms = naive_due(world, i) < due_ms ? naive_due(world, i) : due_ms;
        naive->asked = was_asked;
    }
    assert_int_equal(keeper_open_count(keeper), open);
    assert_int_equal(keeper_parked_count(keeper), parked);
    assert_int_equal(keeper_due_ms(keeper), due_ms);
}

/* From `waiting` alone comes the same table, which has no body and knows where each lies. */
static void rebuild(struct world *world)
{
    struct keeper_bodies *bodies = keeper_bodies_new(0);
    struct keeper *keeper = keeper_new(KEEP_MS, bodies);
    for (int64_t at = 0; at < world->log_count; at++) {
        struct str key = world->log[at].key, body = world->log[at].body;
        size_t run_size = strcspn(key.data, "/");
        struct str run = {key.data, run_size};
        if (body.data == NULL) {
            keeper_load_tombstone(keeper, key);
        } else if (world->log[at].parked) {
            struct str branch = {key.data + run_size + 1, key.size - run_size - 1};
            struct step_parked parked = step_parked(run, branch, world->log[at].at_ms);
            keeper_load_parked(keeper, &parked, at, body.size);
        } else {
            struct run_row row = run_row(run, world->log[at].at_ms);
            keeper_load_run(keeper, &row, at, body.size);
        }
    }
    compare(world, keeper, false);
    for (int i = 0; i < ROWS; i++) {
        uint32_t row = row_of(world, keeper, i);
        if (row == 0)
            continue;
        assert_null(keeper_body(keeper, row).data);
        assert_int_equal(keeper_size(keeper, row), strlen(world->rows[i].body));
        assert_int_equal(keeper_ask(keeper, row), world->rows[i].offset);
    }
    assert_int_equal(keeper_due_ms(keeper), INT64_MAX); /* all are being read */
    keeper_free(keeper);
    keeper_bodies_free(bodies);
}

static void test_against_a_naive_model(void **state)
{
    (void)state;
    for (uint64_t start = 1; start <= 60; start++) {
        struct world *world = calloc(1, sizeof(*world));
        world->seed = start * 0x9E3779B97F4A7C15U;
        world->arena = arena_new();
        world->bodies = keeper_bodies_new(BODIES_SIZE_MAX);
        world->keeper = keeper_new(KEEP_MS, world->bodies);
        while (world->log_count < LOG_MAX - 1) {
            change(world);
            if (world->log_count % 20 == 0)
                compare(world, world->keeper, true);
        }
        compare(world, world->keeper, true);
        rebuild(world);
        keeper_free(world->keeper);
        assert_int_equal(keeper_bodies_size(world->bodies), 0);
        keeper_bodies_free(world->bodies);
        arena_free(world->arena);
        free(world);
    }
}

/* What was used least recently goes first; what cannot be read back stays, and what was used since the last trim. */
static void test_what_stays_in_memory(void **state)
{
    (void)state;
    struct keeper_bodies *bodies = keeper_bodies_new(0);
    struct keeper *keeper = keeper_new(KEEP_MS, bodies);
    struct run_row a = run_row(STR("a"), 0), b = run_row(STR("b"), 0);
    int64_t ticket = keeper_put_run(keeper, &a, STR("A"));
    keeper_put_run(keeper, &b, STR("B"));
    keeper_bodies_trim(bodies);
    keeper_bodies_trim(bodies);
    assert_string_equal(keeper_body(keeper, keeper_run(keeper, STR("a"))).data, "A"); /* not placed */
    keeper_placed(keeper, ticket, 70);
    keeper_bodies_trim(bodies);
    assert_string_equal(keeper_body(keeper, keeper_run(keeper, STR("a"))).data, "A"); /* just used */
    keeper_bodies_trim(bodies);
    keeper_bodies_trim(bodies);
    assert_null(keeper_body(keeper, keeper_run(keeper, STR("a"))).data);
    assert_string_equal(keeper_body(keeper, keeper_run(keeper, STR("b"))).data, "B");
    assert_int_equal(keeper_ask(keeper, keeper_run(keeper, STR("a"))), 70);
    keeper_free(keeper); /* with what is in memory, and what is being read */
    assert_int_equal(keeper_bodies_size(bodies), 0);
    keeper_bodies_free(bodies);
}

/* Runs of many sizes come and go: the table finds each, and forgets each. */
static void test_many(void **state)
{
    (void)state;
    struct keeper_bodies *bodies = keeper_bodies_new(0);
    struct keeper *keeper = keeper_new(KEEP_MS, bodies);
    struct arena *arena = arena_new();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20000; i++) {
            struct str run = arena_printf(arena, "run-%d", i);
            struct run_row row = run_row(run, 0);
            struct step_parked parked = step_parked(run, STR(""), 1000 + i);
            keeper_load_run(keeper, &row, 2 * i, 100);
            keeper_load_parked(keeper, &parked, 2 * i + 1, 200);
        }
        assert_true(keeper_open_count(keeper) == 20000 && keeper_parked_count(keeper) == 20000);
        for (int i = 0; i < 20000; i++) {
            struct str run = arena_printf(arena, "run-%d", i);
            assert_int_equal(keeper_size(keeper, keeper_run(keeper, run)), 100);
            assert_int_equal(keeper_next_due(keeper, 1000 + i), keeper_parked(keeper, run, STR("")));
            assert_int_equal(keeper_ask(keeper, keeper_parked_first(keeper, keeper_run(keeper, run))), 2 * i + 1);
            keeper_release(keeper, run, STR(""));
            assert_int_equal(keeper_parked(keeper, run, STR("")), 0);
            keeper_forget(keeper, run);
            assert_int_equal(keeper_run(keeper, run), 0);
        }
        assert_true(keeper_open_count(keeper) == 0 && keeper_parked_count(keeper) == 0);
        arena_reset(arena);
    }
    keeper_free(keeper);
    keeper_bodies_free(bodies);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_naive_model),
        cmocka_unit_test(test_what_stays_in_memory),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests_name("keeper_table", tests, NULL, NULL);
}
