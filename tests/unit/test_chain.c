/* worker/core/chain: what an agent's step events leave to facts, and that the facts have it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "tests/unit/contracts.h"
#include "worker/base/hash.h"
#include "worker/core/chain.h"
#include "worker/io/log_internal.h"
#include "worker/worker.h"

#define NOW_MS 1790000000000
#define FACTS_MAX 100
#define HASH "0123456789abcdef0123456789abcdef"

/* A run, the history that it leaves (offsets are indexes), and what its last step event holds. */
struct world {
    struct arena *arena;
    struct contract *contract;
    struct decide_env env;
    struct plan plan;
    struct run *run;    /* whole */
    struct run *stored; /* as it is written */
    struct fact history[FACTS_MAX];
    int64_t history_count;
};

static struct str long_text(struct world *world, char c, size_t size)
{
    char *text = arena_alloc(world->arena, size + 1);
    memset(text, c, size);
    return (struct str){text, size};
}

static struct message *follow(struct world *world, const struct run *stored)
{
    const struct fact *facts[FACTS_MAX];
    size_t count = 0;
    for (const struct reference *at = stored->at.chain; at != NULL; at = facts[FACTS_MAX - count]->link->before)
        facts[FACTS_MAX - ++count] = &world->history[at->offset];
    struct message *messages = NULL;
    struct error error;
    if (!chain_read(world->arena, &facts[FACTS_MAX - count], count, stored->at.chained, &messages, &error))
        fail_msg("%s", error.text);
    return messages;
}

static void assert_same(const struct message *got, const struct message *wanted)
{
    assert_int_equal(got->role, wanted->role);
    assert_int_equal(got->answer, wanted->answer);
    assert_true(str_equal(got->content, wanted->content) &&
                (got->content.data == NULL) == (wanted->content.data == NULL));
    assert_true(str_equal(got->call_id, wanted->call_id));
    assert_int_equal(got->calls_count, wanted->calls_count);
    for (size_t i = 0; i < got->calls_count; i++)
        assert_true(str_equal(got->calls[i].id, wanted->calls[i].id) &&
                    str_equal(got->calls[i].arguments, wanted->calls[i].arguments));
}

static struct str encode(struct world *world, enum record_type type, const void *object)
{
    struct buf buf;
    struct error error;
    buf_init(&buf, RUN_WHOLE_MAX);
    if (!record_encode(type, object, &buf, &error))
        fail_msg("%s", error.text);
    struct str bytes = arena_str(world->arena, buf_str(&buf));
    buf_free(&buf);
    return bytes;
}

/* As the step event is written, and read again: the log knows where the facts lie when it is encoded. */
static struct run *write_and_read(struct world *world)
{
    const struct plan *plan = &world->plan;
    struct log log = {.placed = NULL};
    struct log_work work = {.lead = plan->facts_count};
    struct log_record record = {.value = encode(world, RECORD_STEP_READY, run_stored(world->arena, plan->run))};
    struct record *read = ARENA_NEW(world->arena, struct record);
    struct error error;
    log.placed = ARENA_ARRAY(world->arena, plan->facts_count + 1, struct log_placed);
    for (size_t i = 0; i < plan->facts_count; i++)
        log.placed[i].offset = world->history_count + (int64_t)i;
    commit_places(world->arena, plan, 0, &record);
    log_place_fill(&log, &work, &record);
    assert_true(record_decode(record.value, world->arena, read, &error));
    return &read->is.step_ready;
}

/* The plan is committed: its facts are in history, and what its step event names can be read there. */
static void commit(struct world *world)
{
    struct plan *plan = &world->plan;
    assert_null(plan->call);
    for (size_t i = 0; i < plan->stored_count; i++) {
        struct str fact = encode(world, RECORD_FACT, &plan->facts[plan->stored[i].fact]);
        unsigned char *digest = arena_alloc(world->arena, HASH_SIZE);
        hash_sha256_raw(fact, digest);
        *plan->stored[i].at = (struct reference){.sha256 = {(const char *)digest, HASH_SIZE},
                                                 .partition = INT32_MIN,
                                                 .offset = INT64_MIN,
                                                 .size = (int32_t)fact.size};
    }
    if (plan->next != NEXT_END)
        world->stored = write_and_read(world);
    for (size_t i = 0; i < plan->stored_count; i++) {
        plan->stored[i].at->partition = 0;
        plan->stored[i].at->offset = world->history_count + (int64_t)plan->stored[i].fact;
    }
    for (size_t i = 0; i < plan->facts_count; i++)
        world->history[world->history_count++] = plan->facts[i];
    if (plan->next == NEXT_END)
        return;
    world->run = plan->run;
    assert_null(run_unsound(world->stored));
    const struct cursor *whole = &world->run->at, *stored = &world->stored->at;
    assert_int_equal(stored->conversation_count + (size_t)stored->chained, whole->conversation_count);
    const struct message *chained = stored->chain != NULL ? follow(world, world->stored) : NULL;
    for (size_t i = 0; i < whole->conversation_count; i++)
        assert_same(i < (size_t)stored->chained ? &chained[i] : &stored->conversation[i - (size_t)stored->chained],
                    &whole->conversation[i]);
}

static void begin_with(struct world *world, const char *path, struct str question)
{
    *world = (struct world){.arena = arena_new(), .contract = contracts_read(path)};
    world->env = (struct decide_env){.contract = world->contract,
                                     .arena = world->arena,
                                     .name_space = STR("test"),
                                     .now_ms = NOW_MS,
                                     .backoff_ms = 1000,
                                     .backoff_max_ms = 60000};
    struct run_requested request = {
        .run = STR("run-1"),
        .input = arena_printf(world->arena, "{\"question\":\"%.*s\"}", STR_ARG(question)),
    };
    decide_run(&world->env, &request, &world->plan);
    commit(world);
}

static void begin(struct world *world, struct str question)
{
    begin_with(world, "tests/scenario/clerk.cfg", question);
}

static void end(struct world *world)
{
    contract_free(world->contract);
    arena_free(world->arena);
}

static void answer(struct world *world, struct outcome outcome)
{
    decide_step(&world->env, world->run, &world->plan);
    const struct call *call = world->plan.call;
    assert_non_null(call);
    outcome.at_ms = NOW_MS;
    decide_outcome(&world->env, world->run, call, &outcome, &world->plan);
    commit(world);
}

static void asks(struct world *world, struct str content, struct str arguments)
{
    struct tool_request *calls = ARENA_ARRAY(world->arena, 2, struct tool_request);
    for (int i = 0; i < 2; i++)
        calls[i] = (struct tool_request){
            .id = arena_printf(world->arena, "c%d-%lld", i, (long long)world->history_count),
            .tool = i == 0 ? STR("look_up") : STR("nothing"),
            .arguments = arguments};
    answer(world, (struct outcome){.kind = OUTCOME_ANSWERED, .content = content, .calls = calls, .calls_count = 2});
}

static void looked_up(struct world *world, struct str result)
{
    answer(world, (struct outcome){.kind = OUTCOME_ANSWERED, .result = result});
}

static void refused(struct world *world)
{
    decide_step(&world->env, world->run, &world->plan);
    commit(world);
    assert_int_equal(world->run->at.conversation[world->run->at.conversation_count - 1].answer, ANSWER_REFUSED);
}

static void test_short_ones_stand_in_the_step_event(void **state)
{
    (void)state;
    struct world world;
    begin(&world, STR("Who?"));
    asks(&world, STR_NONE, STR("{\"id\":\"1\"}"));
    looked_up(&world, long_text(&world, '1', 3000));
    refused(&world);
    assert_null(world.stored->input_at);
    assert_null(world.stored->at.chain);
    assert_int_equal(world.stored->at.conversation_count, 4);
    for (int64_t i = 0; i < world.history_count; i++)
        assert_null(world.history[i].link);
    end(&world);
}

static void test_each_message_is_stored_once(void **state)
{
    (void)state;
    struct world world;
    begin(&world, STR("Who?"));
    asks(&world, STR("Let me see."), STR("{\"id\":\"1\"}"));
    assert_null(world.stored->at.chain);
    looked_up(&world, long_text(&world, '1', 5000));
    assert_int_equal(world.stored->at.chained, 3); /* with those before */
    assert_int_equal(world.stored->at.conversation_count, 0);
    refused(&world); /* told in words that stand nowhere else */
    assert_int_equal(world.stored->at.chained, 4);
    asks(&world, STR(""), STR("{\"id\":\"2\"}"));
    looked_up(&world, STR("2"));
    refused(&world);
    answer(&world, (struct outcome){.kind = OUTCOME_ANSWERED, .content = STR("no JSON")});
    assert_int_equal(world.stored->at.chained, 8);
    assert_int_equal(world.stored->at.conversation_count, 1); /* why it was rejected: the next fact takes it */
    answer(&world, (struct outcome){.kind = OUTCOME_ANSWERED, .content = STR("[]")});
    assert_int_equal(world.stored->at.chained, 10);
    answer(&world, (struct outcome){.kind = OUTCOME_ANSWERED, .content = STR("{\"answer\":\"Jane\"}")});
    assert_int_equal(world.plan.next, NEXT_END);
    size_t stored = 0;
    for (int64_t i = 0; i < world.history_count; i++)
        stored += world.history[i].link != NULL ? world.history[i].link->messages_count : 0;
    assert_int_equal(stored, 1 + 1 + 2 + 1); /* the question, the first answer; two refusals; one rejection */
    end(&world);
}

/* A truncated answer is said again in part: it is no fact's own message. */
static void test_a_cut_answer(void **state)
{
    (void)state;
    struct world world;
    begin(&world, STR("Who?"));
    struct outcome cut = {.kind = OUTCOME_ANSWERED, .content = long_text(&world, 'x', 6000), .truncated = true};
    cut.calls = ARENA_NEW(world.arena, struct tool_request);
    cut.calls_count = 1;
    answer(&world, cut);
    assert_int_equal(world.stored->at.chained, 3);
    assert_false(world.history[world.stored->at.chain->offset].link->own);
    end(&world);
}

/* One fact is the input and the beginning of the conversation: both name it. */
static void test_input_and_output(void **state)
{
    (void)state;
    struct world world;
    char text[6001];
    memset(text, 'q', 6000);
    text[6000] = '\0';
    begin(&world, str_of(text));
    assert_non_null(world.stored->input_at);
    assert_null(world.stored->input.data);
    assert_int_equal(world.history[world.stored->input_at->offset].kind, FACT_RUN_STARTED);
    assert_int_equal(world.stored->at.chained, 1); /* what the agent sees is the input */
    assert_int_equal(world.stored->at.chain->offset, world.stored->input_at->offset);
    end(&world);
}

/* So are an output, and what the next step sees of it. */
static void test_what_an_agent_sees_of_an_output(void **state)
{
    (void)state;
    struct world world;
    const char text[] =
        "contract = { name = \"pass\"; goal = \"Pass it on.\"; boundaries = { allowed_tools = [\"fetch\"]; };\n"
        "  tools = { fetch = { url = \"http://pages.example\"; effect = \"read\"; }; }; start = \"page\";\n"
        "  steps = { page = { tool = \"fetch\"; args = \"{}\"; next = \"say\"; };\n"
        "            say = { model = \"m\"; sees = \".page\"; next = \"end\"; }; }; };\n";
    struct draft draft = contracts_draft(text, strlen(text));
    begin_with(&world, draft.path, STR("?"));
    unlink(draft.path);
    looked_up(&world, arena_printf(world.arena, "\"%s\"", long_text(&world, 'p', 5000).data));
    assert_string_equal(world.run->at.step.data, "say");
    assert_int_equal(world.history[world.stored->at.chain->offset].kind, FACT_STEP_COMPLETED);
    assert_int_equal(world.stored->at.chain->offset, world.stored->steps[0].output_at->offset);
    end(&world);
}

static void test_too_much_in_memory(void **state)
{
    (void)state;
    struct world world;
    begin(&world, STR("Who?"));
    struct message *said = ARENA_ARRAY(world.arena, 20, struct message);
    for (int i = 0; i < 20; i++)
        said[i] = (struct message){.role = ROLE_USER, .content = long_text(&world, 'x', 900000)};
    world.run->at.conversation = said;
    world.run->at.conversation_count = 20;
    asks(&world, STR(""), STR("{}"));
    assert_int_equal(world.plan.next, NEXT_END);
    assert_non_null(strstr(world.plan.closed.reason.data, "conversation are over 16 MiB"));
    end(&world);
}

/* Facts that anybody may have written. */
static void test_no_chain(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct message *messages;
    struct error error;
    struct link own = {.own = true};
    struct fact told = {.kind = FACT_TOOL_ANSWERED, .is.tool_answered = {.result = STR("1")}, .link = &own};
    struct fact ended = {.kind = FACT_RUN_ENDED, .link = &own};
    const struct fact *facts[] = {&told, &ended};
    assert_false(chain_read(arena, facts, 1, 1, &messages, &error)); /* an answer that nobody asked for */
    assert_false(chain_read(arena, &facts[1], 1, 1, &messages, &error));
    assert_false(chain_read(arena, facts, 2, 3, &messages, &error));
    told.link = NULL;
    assert_false(chain_read(arena, facts, 1, 1, &messages, &error));
    arena_free(arena);
}

static void test_unsound_references(void **state)
{
    (void)state;
    struct reference good = {.sha256 = STR(HASH), .size = 1}, bad = good;
    assert_true(reference_sound(NULL));
    assert_true(reference_sound(&good));
    bad.sha256.size = 31;
    assert_false(reference_sound(&bad));
    bad = good;
    bad.offset = -1;
    assert_false(reference_sound(&bad));
    bad = good;
    bad.partition = INT32_MIN;
    assert_false(reference_sound(&bad));
    struct step_state step = {.output_at = &bad};
    struct run run = {.steps = &step, .steps_count = 1, .at = {.judging = -1}};
    assert_string_equal(run_unsound(&run), "reference");
    step.output_at = &good;
    assert_null(run_unsound(&run));
    run.at.chained = 1;
    assert_string_equal(run_unsound(&run), "chain");
    run.at.chain = &good;
    assert_null(run_unsound(&run));
    run.at.chained = 0;
    assert_string_equal(run_unsound(&run), "chain");
    run.at.chained = -1;
    assert_string_equal(run_unsound(&run), "chain");
}

static int open_records(void **state)
{
    struct error error;
    (void)state;
    return record_open(&error) ? 0 : -1;
}

static int close_records(void **state)
{
    record_close();
    return contracts_free_expressions(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_ones_stand_in_the_step_event),
        cmocka_unit_test(test_each_message_is_stored_once),
        cmocka_unit_test(test_a_cut_answer),
        cmocka_unit_test(test_input_and_output),
        cmocka_unit_test(test_what_an_agent_sees_of_an_output),
        cmocka_unit_test(test_too_much_in_memory),
        cmocka_unit_test(test_no_chain),
        cmocka_unit_test(test_unsound_references),
    };
    return cmocka_run_group_tests_name("chain", tests, open_records, close_records);
}
