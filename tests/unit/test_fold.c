#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/core/fold.h"

#define RUN STR("01998f2c")

/* A run being told: facts are numbered and a second apart; each has a source of its own unless `offset` is kept. */
struct story {
    struct fold *fold;
    int64_t seq, offset;
};

static struct story story_new(void)
{
    return (struct story){.fold = fold_new(RUN), .offset = 100};
}

static struct fact fact_at(struct story *story, enum fact_kind kind, const char *step, int32_t visit)
{
    return (struct fact){
        .run = RUN,
        .contract_hash = STR("7c1f2e"),
        .seq = story->seq++,
        .at_ms = 1000 * story->seq,
        .branch = STR(""),
        .step = str_of(step),
        .visit = visit,
        .attempt = 1,
        .source_topic = STR("demo.steps.default"),
        .source_partition = 3,
        .source_offset = story->offset++,
        .kind = kind,
    };
}

static void started(struct story *story)
{
    struct fact fact = fact_at(story, FACT_RUN_STARTED, "", 0);
    fact.source_topic = STR("demo.inbox");
    fact.is.run_started = (struct fact_run_started){.contract = STR("followup"),
                                                    .requested_by = STR("me"),
                                                    .goal = STR("g"),
                                                    .input = STR("{\"company\":\"Acme\"}")};
    fold_add(story->fold, &fact);
}

static void model(struct story *story, const char *step, int64_t tokens, int64_t micro_usd)
{
    struct fact fact = fact_at(story, FACT_MODEL_ANSWERED, step, 1);
    fact.is.model_answered = (struct fact_model_answered){.agent = STR("researcher"),
                                                          .model = STR("default"),
                                                          .tokens_in = tokens,
                                                          .tokens_out = tokens,
                                                          .tokens_cached = -1,
                                                          .micro_usd = micro_usd,
                                                          .key = STR("m1")};
    fold_add(story->fold, &fact);
}

static void tool(struct story *story, const char *step, const char *effect, const char *key, enum call_origin origin,
                 const char *approval)
{
    struct fact fact = fact_at(story, FACT_TOOL_ANSWERED, step, 1);
    fact.is.tool_answered = (struct fact_tool_answered){.tool = STR("send_email"),
                                                        .effect = str_of(effect),
                                                        .key = str_of(key),
                                                        .arguments = STR("{\"to\":\"jane@acme.example\"}"),
                                                        .result = STR("{\"id\":7}"),
                                                        .http_status = 200,
                                                        .origin = origin,
                                                        .approval = str_of(approval)};
    fold_add(story->fold, &fact);
}

static void completed(struct story *story, const char *step, int32_t visit, const char *target, const char *artifact)
{
    struct fact fact = fact_at(story, FACT_STEP_COMPLETED, step, visit);
    fact.is.step_completed = (struct fact_step_completed){
        .output = STR("{\"n\":1.5}"), .edge = STR("next"), .target = str_of(target), .artifact = str_of(artifact)};
    fold_add(story->fold, &fact);
}

static void waiting(struct story *story, const char *step, int32_t visit, const char *what, int64_t due_at_ms)
{
    struct fact fact = fact_at(story, FACT_STEP_WAITING, step, visit);
    fact.is.step_waiting = (struct fact_step_waiting){.waits_for = str_of(what),
                                                      .reason = STR("why"),
                                                      .due_at_ms = due_at_ms,
                                                      .guards = STR("send"),
                                                      .tool = STR("send_email"),
                                                      .arguments = STR("{\"to\":\"jane@acme.example\"}"),
                                                      .args_hash = STR("91be"),
                                                      .planned = true};
    fold_add(story->fold, &fact);
}

static void decided(struct story *story, const char *step, int32_t visit, const char *decision)
{
    struct fact fact = fact_at(story, FACT_APPROVAL_DECIDED, step, visit);
    fact.is.approval_decided = (struct fact_approval_decided){.decision = str_of(decision),
                                                              .guards = STR("send"),
                                                              .by = STR("me"),
                                                              .reason = STR("fine"),
                                                              .args_hash = STR("91be")};
    fold_add(story->fold, &fact);
}

static void doubt(struct story *story, const char *key)
{
    struct fact fact = fact_at(story, FACT_IN_DOUBT, "send", 1);
    fact.is.in_doubt = (struct fact_in_doubt){.tool = STR("send_email"),
                                              .key = str_of(key),
                                              .arguments = STR("{}"),
                                              .reason = STR("reserved by another"),
                                              .policy = STR("probe"),
                                              .until_ms = 99000};
    fold_add(story->fold, &fact);
}

static void settled(struct story *story, const char *key, const char *how, const char *outcome)
{
    struct fact fact = fact_at(story, FACT_DOUBT_SETTLED, "send", 1);
    fact.is.doubt_settled = (struct fact_doubt_settled){
        .tool = STR("send_email"), .key = str_of(key), .how = str_of(how), .outcome = str_of(outcome)};
    fold_add(story->fold, &fact);
}

/* What `path` ("usage.steps", "approvals.0.spent") leads to, as JSON text; compared with `expected`. */
static void expect(const struct story *story, const char *path, const char *expected)
{
    json_t *state = fold_json(story->fold);
    json_t *at = state;
    char rest[200];
    assert_true(strlen(path) < sizeof(rest));
    memcpy(rest, path, strlen(path) + 1);
    char *save = NULL;
    for (char *part = strtok_r(rest, ".", &save); part != NULL && at != NULL; part = strtok_r(NULL, ".", &save))
        at = json_is_array(at) ? json_array_get(at, strtoul(part, NULL, 10)) : json_object_get(at, part);
    char *text = at != NULL ? json_dumps(at, JSON_ENCODE_ANY | JSON_COMPACT) : strdup("(absent)");
    if (strcmp(text, expected) != 0)
        fail_msg("%s is %s, expected %s", path, text, expected);
    free(text);
    json_decref(state);
}

static void test_a_whole_run(void **unused)
{
    (void)unused;
    struct story story = story_new();
    assert_false(fold_known(story.fold));
    started(&story);
    assert_true(fold_known(story.fold));
    expect(&story, "status", "\"running\"");
    expect(&story, "input", "{\"company\":\"Acme\"}");
    expect(&story, "current_step.0.step", "\"\"");

    model(&story, "research", 100, 250);
    tool(&story, "research", "read", "k1", ORIGIN_REUSED, NULL);
    expect(&story, "current_step.0.step", "\"research\"");
    expect(&story, "current_step.0.owner", "\"worker\"");
    completed(&story, "research", 1, "draft", NULL);
    expect(&story, "current_step.0.step", "\"draft\"");
    expect(&story, "current_step.0.visit", "1");
    completed(&story, "draft", 1, "approve", "email_draft");
    waiting(&story, "approve", 1, "approval", 50000);
    expect(&story, "status", "\"waiting\"");
    expect(&story, "current_step.0.owner", "\"waiting\"");
    expect(&story, "current_step.0.who", "\"person\"");
    expect(&story, "current_step.0.due_at_ms", "50000");
    expect(&story, "approvals.0.decision", "\"waiting\"");
    decided(&story, "approve", 1, "approved");
    completed(&story, "approve", 1, "send", NULL);
    expect(&story, "approvals.0.spent", "false");
    tool(&story, "send", "write", "5f0c", ORIGIN_CALLED, "approve");
    completed(&story, "send", 1, "end", NULL);
    expect(&story, "current_step", "[]");

    struct fact end = fact_at(&story, FACT_RUN_ENDED, "send", 1);
    end.source_offset = story.offset - 2; /* the same transaction */
    end.is.run_ended = (struct fact_run_ended){.status = RUN_COMPLETED,
                                               .reason = STR("completed"),
                                               .output = STR("{\"id\":7}"),
                                               .usage = {.steps = 4, .tokens_in = 100}};
    fold_add(story.fold, &end);
    assert_true(fold_ended(story.fold));
    expect(&story, "status", "\"completed\"");
    expect(&story, "reason", "\"completed\"");
    expect(&story, "output", "{\"id\":7}");
    expect(&story, "usage.steps", "4");
    expect(&story, "approvals.0.spent_by", "{\"step\":\"send\",\"visit\":1,\"key\":\"5f0c\"}");
    expect(&story, "generated_artifacts", "{\"email_draft\":{\"step\":\"draft\",\"visit\":1,\"output\":{\"n\":1.5}}}");
    expect(&story, "tool_calls.0.origin", "\"reused\"");
    expect(&story, "committed_side_effects.0.key", "\"5f0c\"");
    expect(&story, "committed_side_effects.0.known", "\"called\"");
    expect(&story, "committed_side_effects.1", "(absent)");
    expect(&story, "facts", "11");
    expect(&story, "gaps", "0");
    fold_free(story.fold);
}

static void test_an_empty_state_has_all_parts(void **unused)
{
    (void)unused;
    static const char *const parts[] = {
        "current_step",        "completed_steps",        "tool_calls", "retries", "approvals",
        "generated_artifacts", "committed_side_effects", "refusals",   "doubts",  "usage"};
    struct story story = story_new();
    json_t *state = fold_json(story.fold);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        assert_non_null(json_object_get(state, parts[i]));
    assert_true(json_is_null(json_object_get(state, "contract")));
    json_decref(state);
    fold_free(story.fold);
}

static void test_usage_before_the_end(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    model(&story, "research", 100, 250);
    model(&story, "research", -1, -1);
    expect(&story, "usage.steps", "2"); /* the inbox record is no step */
    expect(&story, "usage.tokens_in", "100");
    expect(&story, "usage.tokens_unknown", "1");
    expect(&story, "usage.micro_usd", "250");
    expect(&story, "usage.micro_usd_unknown", "1");
    expect(&story, "model_calls.1.tokens_in", "null");
    fold_free(story.fold);
}

/* Without events of their own; an agent's refusals in its own step are none. */
static void test_steps_that_were_decided_together(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    static const struct {
        const char *step;
        int32_t visit;
        const char *steps;
    } refused[] = {{"ask", 1, "1"}, {"ask", 1, "1"}, {"two", 1, "2"}, {"three", 1, "3"}, {"three", 2, "4"}};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct fact fact = fact_at(&story, FACT_CALL_REFUSED, refused[i].step, refused[i].visit);
        fact.source_offset = 500;
        fact.is.call_refused = (struct fact_call_refused){.tool = STR("send_email"),
                                                          .arguments = STR("{}"),
                                                          .rule = STR("parameters"),
                                                          .reason = STR("to: is missing")};
        fold_add(story.fold, &fact);
        expect(&story, "usage.steps", refused[i].steps);
    }
    fold_free(story.fold);
}

static void test_gaps_and_repeats(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    story.seq--;
    started(&story); /* the same seq again: counted, not applied */
    story.seq += 2;
    model(&story, "research", 1, 1);
    assert_int_equal(fold_gaps(story.fold), 2);
    expect(&story, "repeats", "1");
    expect(&story, "facts", "2");
    fold_free(story.fold);
}

static void test_what_is_not_of_the_run(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    struct fact other = fact_at(&story, FACT_STEP_COMPLETED, "x", 1);
    other.run = STR("01998f2d");
    fold_add(story.fold, &other);
    struct fact answer = fact_at(&story, FACT_REQUEST_ANSWERED, "", 0);
    answer.seq = -1;
    fold_add(story.fold, &answer);
    expect(&story, "facts", "1");
    expect(&story, "gaps", "0");
    expect(&story, "current_step.0.step", "\"\"");
    fold_free(story.fold);
}

static void test_a_loop_counts_its_visits(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    completed(&story, "draft", 1, "approve", "email");
    waiting(&story, "approve", 1, "approval", 0);
    decided(&story, "approve", 1, "rejected");
    completed(&story, "approve", 1, "draft", NULL);
    expect(&story, "current_step.0.visit", "2");
    completed(&story, "draft", 2, "approve", "email");
    expect(&story, "current_step.0.visit", "2");
    expect(&story, "generated_artifacts.email.visit", "2");
    waiting(&story, "approve", 2, "approval", 0);
    decided(&story, "approve", 2, "approved");
    completed(&story, "approve", 2, "send", NULL);
    tool(&story, "send", "write", "k", ORIGIN_CALLED, "approve");
    expect(&story, "approvals.0.spent", "false"); /* the rejected one admits nothing */
    expect(&story, "approvals.1.spent", "true");
    fold_free(story.fold);
}

static void test_an_approval_that_waits_on_is_one_question(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    waiting(&story, "approve", 1, "approval", 50000);
    waiting(&story, "approve", 1, "approval", 0); /* its time has passed, timeout_action = pause */
    expect(&story, "approvals.1", "(absent)");
    expect(&story, "approvals.0.due_at_ms", "null");
    expect(&story, "approvals.0.by", "null");
    fold_free(story.fold);
}

static void test_a_doubt_that_a_probe_settles(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    doubt(&story, "5f0c");
    expect(&story, "current_step.0.status", "\"in_doubt\"");
    waiting(&story, "send", 1, "timer", 99000);
    expect(&story, "current_step.0.status", "\"in_doubt\"");
    expect(&story, "current_step.0.who", "\"timer\"");
    settled(&story, "5f0c", "probe", "unknown");
    expect(&story, "doubts.0.settled", "false");
    doubt(&story, "5f0c"); /* raised again: the same doubt */
    settled(&story, "5f0c", "probe", "done");
    tool(&story, "send", "write", "5f0c", ORIGIN_PROBED, NULL);
    expect(&story, "doubts.1", "(absent)");
    expect(&story, "doubts.0.settled", "true");
    expect(&story, "doubts.0.how", "\"probe\"");
    expect(&story, "committed_side_effects.0.known", "\"probed\"");
    expect(&story, "current_step.0.status", "\"running\"");
    fold_free(story.fold);
}

static void test_a_doubt_that_the_ledger_settles(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    doubt(&story, "5f0c");
    tool(&story, "send", "write", "5f0c", ORIGIN_ADOPTED, NULL);
    expect(&story, "doubts.0.how", "\"ledger\"");
    expect(&story, "doubts.0.outcome", "\"done\"");
    doubt(&story, "77aa");
    waiting(&story, "send", 1, "resolution", 0);
    expect(&story, "current_step.0.who", "\"person\"");
    expect(&story, "current_step.0.status", "\"in_doubt\"");
    expect(&story, "approvals", "[]"); /* a resolution is no approval */
    fold_free(story.fold);
}

static void test_a_retry_that_surely_did_not_execute(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    doubt(&story, "5f0c");
    struct fact fact = fact_at(&story, FACT_CALL_FAILED, "send", 1);
    fact.is.call_failed = (struct fact_call_failed){.target = STR("send_email"),
                                                    .key = STR("5f0c"),
                                                    .reason = STR("429"),
                                                    .executed_surely_not = true,
                                                    .retry = true,
                                                    .due_at_ms = 7000};
    fold_add(story.fold, &fact);
    expect(&story, "doubts.0.settled", "false"); /* the second sending says nothing about the first */
    expect(&story, "retries.0.reason", "\"429\"");
    expect(&story, "retries.0.due_at_ms", "7000");
    expect(&story, "current_step.0.status", "\"in_doubt\"");
    fact = fact_at(&story, FACT_CALL_FAILED, "send", 1);
    fact.is.call_failed = (struct fact_call_failed){.target = STR("send_email"), .reason = STR("404")};
    fold_add(story.fold, &fact);
    expect(&story, "retries.1", "(absent)"); /* a failure that is not tried again is no retry */
    expect(&story, "usage.retries", "1");
    fold_free(story.fold);
}

static void test_refusals_and_rejections(void **unused)
{
    (void)unused;
    struct story story = story_new();
    started(&story);
    struct fact fact = fact_at(&story, FACT_CALL_REFUSED, "research", 1);
    fact.is.call_refused = (struct fact_call_refused){.tool = STR("export_contact_list"),
                                                      .arguments = STR("{broken"),
                                                      .rule = STR("boundaries.forbidden_actions"),
                                                      .reason = STR("it is forbidden")};
    fold_add(story.fold, &fact);
    expect(&story, "refusals.0.rule", "\"boundaries.forbidden_actions\"");
    expect(&story, "refusals.0.arguments", "\"{broken\"");
    fact = fact_at(&story, FACT_OUTPUT_REJECTED, "research", 1);
    fact.is.output_rejected = (struct fact_output_rejected){
        .rule = STR("check"), .reason = STR("no source"), .retry = true};
    fold_add(story.fold, &fact);
    expect(&story, "retries.0.rule", "\"check\"");
    expect(&story, "retries.0.what", "\"research\"");
    fact = fact_at(&story, FACT_STEP_FAILED, "research", 1);
    fact.is.step_failed = (struct fact_step_failed){
        .reason = STR("gate"), .edge = STR("failed"), .target = STR("sorry")};
    fold_add(story.fold, &fact);
    expect(&story, "failed_steps.0.status", "\"failed\"");
    expect(&story, "current_step.0.step", "\"sorry\"");
    expect(&story, "completed_steps", "[]");
    fold_free(story.fold);
}

static void test_texts_that_are_no_json_and_no_utf8(void **unused)
{
    (void)unused;
    struct story story = story_new();
    struct fact fact = fact_at(&story, FACT_RUN_STARTED, "", 0);
    fact.is.run_started = (struct fact_run_started){.contract = STR("\xff\xfe"), .input = STR("{oops")};
    fold_add(story.fold, &fact);
    expect(&story, "contract", "null");
    expect(&story, "input", "\"{oops\"");
    fold_free(story.fold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_run),
        cmocka_unit_test(test_an_empty_state_has_all_parts),
        cmocka_unit_test(test_usage_before_the_end),
        cmocka_unit_test(test_steps_that_were_decided_together),
        cmocka_unit_test(test_gaps_and_repeats),
        cmocka_unit_test(test_what_is_not_of_the_run),
        cmocka_unit_test(test_a_loop_counts_its_visits),
        cmocka_unit_test(test_an_approval_that_waits_on_is_one_question),
        cmocka_unit_test(test_a_doubt_that_a_probe_settles),
        cmocka_unit_test(test_a_doubt_that_the_ledger_settles),
        cmocka_unit_test(test_a_retry_that_surely_did_not_execute),
        cmocka_unit_test(test_refusals_and_rejections),
        cmocka_unit_test(test_texts_that_are_no_json_and_no_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
