/* worker/core/decide: what the scenarios cannot tell: states that no contract leads to, and loops too long to print. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/contract/contract.h"
#include "worker/contract/expr.h"
#include "worker/core/decide.h"

#define NOW_MS 1790000000000

struct world {
    struct arena *arena;
    struct contract *contract;
    struct decide_env env;
    struct run run;
    struct plan plan;
};

static void load(struct world *world, const char *path)
{
    struct problems problems;
    problems_init(&problems);
    world->arena = arena_new();
    world->contract = contract_read_file(path, &problems);
    problems_free(&problems);
    assert_non_null(world->contract);
    world->env = (struct decide_env){.contract = world->contract,
                                     .arena = world->arena,
                                     .name_space = STR("test"),
                                     .now_ms = NOW_MS,
                                     .backoff_ms = 1000,
                                     .backoff_max_ms = 60000};
    world->run = (struct run){
        .id = STR("run-1"),
        .contract = world->contract->name,
        .contract_hash = str_of(world->contract->hash),
        .started_at_ms = NOW_MS,
        .deadline_at_ms = NOW_MS + 1000000,
        .input = STR("{}"),
        .vars = STR("{}"),
        .usage = {.steps = 1},
        .at = {.branch = STR(""), .step = STR(""), .visit = 1, .attempt = 1, .judging = -1},
        .written_at_ms = NOW_MS,
    };
}

static void unload(struct world *world)
{
    contract_free(world->contract);
    arena_free(world->arena);
}

static void assert_ended(const struct world *world, const char *reason)
{
    assert_null(world->plan.call);
    assert_int_equal(world->plan.next, NEXT_END);
    assert_int_equal(world->plan.closed.status, RUN_FAILED);
    if (strstr(world->plan.closed.reason.data, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", world->plan.closed.reason.data, reason);
}

static void assert_step_ends(struct world *world, const char *step, const char *reason)
{
    world->run.at.step = str_of(step);
    decide_step(&world->env, &world->run, &world->plan);
    assert_ended(world, reason);
}

static struct step_parked parked_at(const struct world *world, enum waits_for what)
{
    return (struct step_parked){.run = world->run.id,
                                .branch = world->run.at.branch,
                                .step = world->run.at.step,
                                .visit = world->run.at.visit,
                                .waits_for = what,
                                .reason = STR("because"),
                                .guards = STR("")};
}

static void assert_wake_ends(struct world *world, const struct step_parked *parked, const char *reason)
{
    struct decision decision = {.approved = true, .by = STR("ann")};
    struct resolved resolved = {.kind = RESOLUTION_DONE, .by = STR("ann")};
    struct wake wake = {
        .kind = parked->waits_for == WAITS_TIMER      ? WAKE_DUE
                : parked->waits_for == WAITS_APPROVAL ? WAKE_DECISION
                                                      : WAKE_RESOLUTION,
        .decision = &decision,
        .resolution = &resolved,
    };
    decide_wake(&world->env, &world->run, parked, &wake, &world->plan);
    assert_ended(world, reason);
}

/* Whoever can write to the topics can write any state: it ends its run, it never ends the worker. */
static void test_states_that_do_not_fit(void **state)
{
    (void)state;
    struct world world;
    load(&world, "config/contracts/customer_research_to_followup.cfg");
    assert_step_ends(&world, "approve_final_email", "an approval waits for a person");
    world.run.at.judging = 3;
    assert_step_ends(&world, "draft", "no judge decides that criterion");
    world.run.at.judging = 0;
    assert_step_ends(&world, "draft", "no judge decides that criterion");
    world.run.at.judging = -1;
    world.run.at.doubt.state = DOUBT_SETTLING;
    assert_step_ends(&world, "draft", "a doubt without a write");
    assert_step_ends(&world, "approve_final_email", "an approval waits");
    struct tool_request calls[] = {{.id = STR("1"), .tool = STR("search_company"), .arguments = STR("{}")}};
    struct message said[] = {{.role = ROLE_ASSISTANT, .calls = calls, .calls_count = 1}};
    world.run.at.conversation = said;
    world.run.at.conversation_count = 1;
    assert_step_ends(&world, "research", "a doubt without a write"); /* of a read */
    calls[0].tool = STR("no_such_tool");
    assert_step_ends(&world, "research", "a doubt without a write");
    unload(&world);
    load(&world, "tests/scenario/flow.cfg");
    assert_step_ends(&world, "enough", "a router never waits");
    unload(&world);
}

static void test_wakes_that_do_not_fit(void **state)
{
    (void)state;
    struct world world;
    load(&world, "config/contracts/customer_research_to_followup.cfg");
    world.run.at.step = STR("approve_final_email");
    struct step_parked parked = parked_at(&world, WAITS_TIMER);
    assert_wake_ends(&world, &parked, "an approval waits for a person");
    parked = parked_at(&world, WAITS_APPROVAL);
    parked.visit = 2;
    assert_wake_ends(&world, &parked, "what waits is another step");
    parked = parked_at(&world, WAITS_APPROVAL);
    parked.step = STR("send");
    assert_wake_ends(&world, &parked, "what waits is another step");
    parked = parked_at(&world, WAITS_APPROVAL);
    parked.run = STR("run-2");
    assert_wake_ends(&world, &parked, "what waits is another step");
    parked = parked_at(&world, WAITS_APPROVAL);
    parked.branch = STR("left");
    assert_wake_ends(&world, &parked, "what waits is another step");
    world.run.at.doubt.state = DOUBT_ASKED;
    parked = parked_at(&world, WAITS_APPROVAL);
    assert_wake_ends(&world, &parked, "a doubt without a write");
    world.run.at.doubt.state = DOUBT_NONE;
    world.run.at.step = STR("research");
    parked = parked_at(&world, WAITS_APPROVAL);
    assert_wake_ends(&world, &parked, "no call waits for a person");
    parked = parked_at(&world, WAITS_RESOLUTION);
    assert_wake_ends(&world, &parked, "no write in doubt waits for a person");
    unload(&world);
}

static void test_abandoned(void **state)
{
    (void)state;
    struct world world;
    load(&world, "tests/scenario/send.cfg");
    world.run.at.step = STR("send");
    decide_abandon(&world.env, &world.run, STR("too large"), &world.plan);
    assert_ended(&world, "too large");
    assert_string_equal(world.plan.facts[0].step.data, "send");
    world.env.contract = NULL; /* it may be the very thing that is not known */
    decide_abandon(&world.env, &world.run, STR("no such contract"), &world.plan);
    assert_ended(&world, "no such contract");
    assert_int_equal(world.plan.facts_count, 1);
    unload(&world);
}

static void test_pure_loop_ends(void **state)
{
    (void)state;
    struct world world;
    load(&world, "tests/scenario/flow.cfg");
    struct step *router = &world.contract->steps[contract_step(world.contract, STR("enough"))];
    struct run_requested request = {.run = STR("run-1"), .by = STR("me"), .input = STR("{}")};
    for (size_t i = 0; i < router->cases_count; i++)
        router->cases[i].target = contract_step(world.contract, STR("enough"));
    router->visits_max = DECIDE_WALK_MAX + 10;
    world.contract->start = contract_step(world.contract, STR("enough"));
    decide_run(&world.env, &request, &world.plan);
    assert_ended(&world, "a loop of steps that neither call nor wait");
    assert_int_equal(world.plan.facts_count, DECIDE_WALK_MAX + 2);
    router->visits_max = 5;
    decide_run(&world.env, &request, &world.plan);
    assert_ended(&world, "visits_max = 5 is reached");
    unload(&world);
}

/* What the contract's check refuses, and the core must survive all the same. */
static void test_forced_contracts(void **state)
{
    (void)state;
    struct world world;
    load(&world, "tests/scenario/flow.cfg");
    struct run_requested request = {.run = STR("run-1"), .by = STR("me"), .input = STR("{}")};
    world.contract->criteria[0].before = contract_step(world.contract, STR("fetch"));
    world.contract->criteria[0].check = NULL; /* a judge before a step */
    decide_run(&world.env, &request, &world.plan);
    assert_ended(&world, "a judge cannot stand before a step");
    struct step *router = &world.contract->steps[contract_step(world.contract, STR("enough"))];
    world.contract->start = contract_step(world.contract, STR("enough"));
    router->cases_count = 0;
    decide_run(&world.env, &request, &world.plan);
    assert_ended(&world, "no case of the router holds");
    unload(&world);
    load(&world, "tests/scenario/send.cfg");
    world.contract->tools[0].allowed = false;
    request.input = STR("{\"text\":\"hi\"}");
    decide_run(&world.env, &request, &world.plan);
    world.run = *world.plan.run;
    decide_step(&world.env, &world.run, &world.plan);
    assert_ended(&world, "send is not allowed");
    unload(&world);
}

/* I5: the deadline ends a run whose step somebody may have begun before; the reason is all that can tell of its write. */
static void test_deadline_before_anybody_asked(void **state)
{
    (void)state;
    struct world world;
    load(&world, "tests/scenario/send.cfg");
    world.run.at.step = STR("send");
    world.run.deadline_at_ms = world.env.now_ms;
    for (int i = 0; i < 4; i++) {
        world.env.suspect = i == 1;
        world.run.at.suspect = i == 2;
        world.contract->tools[0].effect = i == 3 ? EFFECT_READ : EFFECT_WRITE;
        decide_step(&world.env, &world.run, &world.plan);
        assert_ended(&world, "limits.deadline");
        bool said = strstr(world.plan.closed.reason.data, DECIDE_MAY_HAVE_WRITTEN) != NULL;
        assert_int_equal(said, i == 1 || i == 2);
        struct step_parked parked = parked_at(&world, WAITS_TIMER);
        struct wake wake = {.kind = WAKE_DEADLINE};
        decide_wake(&world.env, &world.run, &parked, &wake, &world.plan);
        assert_ended(&world, "limits.deadline");
        said = strstr(world.plan.closed.reason.data, DECIDE_MAY_HAVE_WRITTEN) != NULL;
        assert_int_equal(said, i == 2);
    }
    unload(&world);
}

/* A write in doubt that is no longer admitted is not repeated: a person decides, and after that it is refused. */
static void test_doubt_no_longer_admitted(void **state)
{
    (void)state;
    struct world world;
    load(&world, "tests/scenario/send.cfg");
    world.contract->tools[0].on_doubt = DOUBT_RETRY;
    world.contract->tools[0].allowed = false;
    world.run.at.step = STR("send");
    world.run.at.doubt = (struct doubt){.state = DOUBT_SETTLING, .arguments = STR("{\"text\":\"hi\"}")};
    decide_step(&world.env, &world.run, &world.plan);
    assert_int_equal(world.plan.next, NEXT_PARK);
    assert_int_equal(world.plan.parked.waits_for, WAITS_RESOLUTION);
    assert_string_equal(world.plan.parked.arguments.data, "{\"text\":\"hi\"}");
    assert_int_equal(world.plan.run->at.doubt.state, DOUBT_ASKED);
    world.run.at.resolution.kind = RESOLUTION_NOT_DONE;
    decide_step(&world.env, &world.run, &world.plan);
    assert_ended(&world, "no longer admitted");
    unload(&world);
}

/* Blanks and a fence around JSON are no part of it; calls that nobody asked for are no calls. */
static void test_answers_as_models_write_them(void **state)
{
    (void)state;
    static const char *const answers[] = {
        " \t\r\n{\"answer\":\"Jane\"}\n\r\t ",
        "```json\n{\"answer\":\"Jane\"}\n```\n",
        "```\r\n{\"answer\":\"Jane\"}```",
        "```json {\"answer\":\"Jane\"}```",
    };
    static const char *const no_answers[] = {"   ",      "``x{}```", "```{}``x", "`x`{}```",
                                             "x``{}```", "```{}`x`", "```{}x``", "```json```"};
    struct world world;
    load(&world, "tests/scenario/clerk.cfg");
    world.run.at.step = STR("work");
    struct message said[] = {{.role = ROLE_TOOL, .content = STR("7"), .call_id = STR("1")}};
    world.run.at.conversation = said;
    world.run.at.conversation_count = 1;
    world.contract->steps[0].check = expr_compile(STR(".calls == []"), NULL);
    decide_step(&world.env, &world.run, &world.plan);
    const struct call *call = world.plan.call;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct outcome outcome = {.kind = OUTCOME_ANSWERED, .content = str_of(answers[i])};
        decide_outcome(&world.env, &world.run, call, &outcome, &world.plan);
        assert_int_equal(world.plan.next, NEXT_END);
        assert_string_equal(world.plan.closed.output.data, "{\"answer\":\"Jane\"}");
    }
    for (size_t i = 0; i < sizeof(no_answers) / sizeof(no_answers[0]); i++) {
        struct outcome outcome = {.kind = OUTCOME_ANSWERED, .content = str_of(no_answers[i])};
        decide_outcome(&world.env, &world.run, call, &outcome, &world.plan);
        assert_int_equal(world.plan.next, NEXT_STEP);
    }
    unload(&world);
}

static int free_expressions(void **state)
{
    (void)state;
    expr_cache_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_that_do_not_fit),
        cmocka_unit_test(test_wakes_that_do_not_fit),
        cmocka_unit_test(test_abandoned),
        cmocka_unit_test(test_pure_loop_ends),
        cmocka_unit_test(test_forced_contracts),
        cmocka_unit_test(test_deadline_before_anybody_asked),
        cmocka_unit_test(test_doubt_no_longer_admitted),
        cmocka_unit_test(test_answers_as_models_write_them),
    };
    return cmocka_run_group_tests_name("decide", tests, NULL, free_expressions);
}
