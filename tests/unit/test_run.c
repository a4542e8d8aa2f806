#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/core/draft.h"

static struct run some_run(void)
{
    return (struct run){
        .id = STR("run-1"),
        .at = {.branch = STR(""), .step = STR("send"), .visit = 1, .attempt = 1, .call = 0, .judging = -1},
    };
}

static struct str key_of(struct arena *arena, const struct run *run)
{
    return run_call_key(arena, STR("test"), run);
}

static int compare_keys(const void *a, const void *b)
{
    return str_compare(*(const struct str *)a, *(const struct str *)b);
}

/* I3: stable over attempt, turn, time, incarnation and all that was used; every other name of a call gives another key. */
static void test_keys(void **state)
{
    (void)state;
    static const char *const ids[] = {"run-1", "run-2", "run-12", "run"}, *const branches[] = {"", "a", "a/b", "1"};
    static const char *const steps[] = {"send", "send2", "2", "b"};
    struct arena *arena = arena_new();
    struct str *keys = calloc(4 * 4 * 4 * 5 * 5, sizeof(*keys));
    size_t count = 0;
    assert_non_null(keys);
    for (int i = 0; i < 4 * 4 * 4 * 5 * 5; i++) {
        struct run run = some_run();
        run.id = str_of(ids[i % 4]);
        run.at.branch = str_of(branches[i / 4 % 4]);
        run.at.step = str_of(steps[i / 16 % 4]);
        run.at.visit = 1 + i / 64 % 5;
        run.at.call = i / 320;
        keys[count++] = key_of(arena, &run);
        assert_int_equal(keys[i].size, 32);
        assert_int_equal(strspn(keys[i].data, "0123456789abcdef"), 32);
        struct run later = run;
        later.at.attempt = 7;
        later.at.turn = 3;
        later.usage.steps = 12;
        later.written_at_ms = 99;
        later.incarnation = STR("other");
        later.at.doubt.state = DOUBT_SETTLING;
        assert_true(str_equal(keys[i], key_of(arena, &later)));
        assert_false(str_equal(keys[i], run_call_key(arena, STR("tes"), &run)));
    }
    qsort(keys, count, sizeof(*keys), compare_keys);
    for (size_t i = 1; i < count; i++)
        assert_false(str_equal(keys[i - 1], keys[i]));
    free(keys);
    arena_free(arena);
}

/* A key is written down in ledgers and at tools: it must never change from one version to the next. */
static void test_key_is_for_ever(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct run run = some_run();
    assert_string_equal(key_of(arena, &run).data, "8d9df9c81ed000dd7a34363fce870d9b");
    arena_free(arena);
}

static void test_copy(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct step_state steps[] = {{.name = STR("a"), .visits = 1}};
    struct approval approvals[] = {{.step = STR("ask")}};
    struct message conversation[] = {{.content = STR("hi")}};
    struct run run = some_run();
    run.steps = steps;
    run.steps_count = 1;
    run.approvals = approvals;
    run.approvals_count = 1;
    run.at.conversation = conversation;
    run.at.conversation_count = 1;
    struct run *copy = run_copy(arena, &run);
    copy->steps[0].visits = 9;
    copy->approvals[0].spent = true;
    copy->at.conversation[0].content = STR_NONE;
    assert_int_equal(steps[0].visits, 1);
    assert_false(approvals[0].spent);
    assert_non_null(conversation[0].content.data);
    assert_ptr_equal(run_step(&run, STR("a")), &steps[0]);
    assert_null(run_step(&run, STR("b")));
    assert_ptr_equal(run_approval(&run, STR("ask")), &approvals[0]);
    assert_null(run_approval(&run, STR("b")));
    arena_free(arena);
}

static void test_pending_call(void **state)
{
    (void)state;
    struct tool_request asked[] = {{.tool = STR("one")}, {.tool = STR("two")}};
    struct message said[] = {
        {.role = ROLE_USER}, {.role = ROLE_ASSISTANT, .calls = asked, .calls_count = 2},
        {.role = ROLE_TOOL}, {.role = ROLE_TOOL},
        {.role = ROLE_USER},
    };
    struct run run = some_run();
    run.at.conversation = said;
    assert_null(run_pending_call(&run)); /* nothing was said */
    run.at.conversation_count = 1;
    assert_null(run_pending_call(&run));
    run.at.conversation_count = 2;
    assert_ptr_equal(run_pending_call(&run), &asked[0]);
    run.at.conversation_count = 3;
    assert_ptr_equal(run_pending_call(&run), &asked[1]);
    run.at.conversation_count = 4;
    assert_null(run_pending_call(&run));
    run.at.conversation_count = 5;
    assert_null(run_pending_call(&run));
    run.at.conversation = &said[2]; /* answers to nothing */
    run.at.conversation_count = 2;
    assert_null(run_pending_call(&run));
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(run_status_name(RUN_PAUSED), "paused");
    assert_string_equal(step_status_name(STEP_IN_DOUBT), "in_doubt");
    assert_string_equal(waits_for_name(WAITS_RESOLUTION), "resolution");
    assert_string_equal(fact_kind_name(FACT_REQUEST_ANSWERED), "RequestAnswered");
    assert_string_equal(call_origin_name(ORIGIN_RESOLVED), "resolved");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),         cmocka_unit_test(test_key_is_for_ever), cmocka_unit_test(test_copy),
        cmocka_unit_test(test_pending_call), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
