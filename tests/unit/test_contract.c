/*
 * Contracts that are good: what is loaded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "tests/unit/contracts.h"

/* ---- what is loaded ---- */

static void test_the_first_contract(void **state)
{
    (void)state;
    struct contract *c = contracts_read(FIRST);
    contracts_assert_str(c->name, "customer_research_to_followup");
    assert_int_equal(c->limits.deadline_ms, INT64_C(3) * 24 * 3600 * 1000);
    assert_int_equal(c->limits.steps_max, 50);
    assert_int_equal(c->limits.llm_tokens_max, 60000);
    assert_int_equal(c->limits.micro_usd_max, 500000);
    assert_int_equal(c->retry_budget, 3);
    assert_int_equal(c->violations_max, 3);
    assert_int_equal(c->on_violation, VIOLATION_TELL_MODEL);
    assert_int_equal(c->metrics_count, 7);
    assert_int_equal(c->start, contract_step(c, STR("research")));

    const struct tool *send = &c->tools[contract_tool(c, STR("send_email"))];
    assert_int_equal(send->effect, EFFECT_WRITE);
    assert_int_equal(send->on_doubt, DOUBT_PROBE);
    assert_int_equal(send->timeout_ms, 4000);
    contracts_assert_str(send->method, "POST");
    contracts_assert_str(send->url, "${TOOLS_URL}/send");
    assert_int_equal(send->agent, -1);
    assert_true(send->allowed);
    contracts_assert_str(send->probe->url, "${TOOLS_URL}/send/{key}");
    contracts_assert_str(expr_text(send->probe->done), ".status == 'sent'");
    assert_non_null(send->probe->not_done);
    assert_null(send->probe->result);
    assert_int_equal(send->probe->after_ms, 5000);
    assert_int_equal(send->probe->probes_max, 5);
    assert_int_equal(c->tools[contract_tool(c, STR("search_company"))].timeout_ms, 30000);
    const struct tool *draft_tool = &c->tools[contract_tool(c, STR("draft_email"))];
    assert_int_equal(draft_tool->agent, contract_agent(c, STR("writer")));
    assert_int_equal(draft_tool->effect, EFFECT_READ);
    assert_null(draft_tool->url.data);
    assert_null(draft_tool->method.data);

    const struct agent *researcher = &c->agents[contract_agent(c, STR("researcher"))];
    assert_int_equal(researcher->turns_max, 6);
    assert_int_equal(researcher->tools_count, 2);
    assert_int_equal(researcher->tools[0], contract_tool(c, STR("search_company")));
    assert_int_equal(researcher->tools[1], contract_tool(c, STR("retrieve_crm_context")));
    assert_null(researcher->output);
    assert_non_null(c->agents[contract_agent(c, STR("writer"))].output);
    assert_int_equal(c->agents[contract_agent(c, STR("writer"))].turns_max, 8);
    contract_free(c);
}

static void test_the_first_contracts_steps(void **state)
{
    (void)state;
    struct contract *c = contracts_read(FIRST);
    int32_t research = contract_step(c, STR("research")), draft = contract_step(c, STR("draft"));
    int32_t approve = contract_step(c, STR("approve_final_email")), send = contract_step(c, STR("send"));
    assert_int_equal(c->steps[research].kind, STEP_AGENT);
    assert_int_equal(c->steps[research].edges[EDGE_NEXT], draft);
    assert_int_equal(c->steps[research].edges[EDGE_FAILED], TARGET_NONE);
    assert_int_equal(c->steps[research].visits_max, 1);
    contracts_assert_str(c->steps[research].pool, "default");
    assert_int_equal(c->steps[draft].kind, STEP_TOOL);
    assert_int_equal(c->steps[draft].agent, contract_agent(c, STR("writer")));
    contracts_assert_str(c->steps[draft].artifact, "email_draft");
    assert_int_equal(c->steps[draft].visits_max, 4);
    assert_int_equal(c->steps[approve].kind, STEP_APPROVAL);
    assert_int_equal(c->steps[approve].edges[EDGE_APPROVED], send);
    assert_int_equal(c->steps[approve].edges[EDGE_REJECTED], draft);
    assert_int_equal(c->steps[approve].edges[EDGE_NEXT], TARGET_NONE);
    assert_int_equal(c->steps[approve].checkpoint, 0);
    /* It is on the loop that draft bounds. */
    assert_int_equal(c->steps[approve].visits_max, c->limits.steps_max);
    assert_int_equal(c->steps[send].edges[EDGE_NEXT], TARGET_END);
    assert_int_equal(c->steps[send].guarded_by, 0);
    assert_int_equal(c->steps[send].checkpoint, -1);
    assert_int_equal(c->steps[draft].guarded_by, -1);

    assert_int_equal(c->checkpoints_count, 1);
    assert_int_equal(c->checkpoints[0].step, approve);
    assert_int_equal(c->checkpoints[0].guards, send);
    assert_true(c->checkpoints[0].required);
    assert_int_equal(c->checkpoints[0].timeout_ms, INT64_C(24) * 3600 * 1000);
    assert_int_equal(c->checkpoints[0].timeout_action, TIMEOUT_PAUSE);

    assert_int_equal(c->criteria_count, 3);
    assert_int_equal(c->criteria[0].after, research);
    assert_int_equal(c->criteria[0].before, -1);
    assert_int_equal(c->criteria[0].judge, -1);
    assert_non_null(c->criteria[0].check);
    assert_int_equal(c->criteria[1].judge, contract_agent(c, STR("reviewer")));
    assert_null(c->criteria[1].check);
    assert_non_null(c->criteria[1].sees);
    assert_int_equal(c->criteria[2].before, send);
    assert_int_equal(c->criteria[2].after, -1);

    assert_int_equal(c->forbidden_count, 2);
    assert_int_equal(c->forbidden[0].kind, FORBIDDEN_WITHOUT_APPROVAL);
    assert_int_equal(c->forbidden[0].tool, contract_tool(c, STR("send_email")));
    assert_int_equal(c->forbidden[1].kind, FORBIDDEN_ACTION);
    assert_int_equal(c->forbidden[1].tool, contract_tool(c, STR("retrieve_crm_context")));
    assert_non_null(c->forbidden[1].when);
    contract_free(c);
}

static void test_every_key(void **state)
{
    (void)state;
    struct contract *c = contracts_read(EVERY_KEY);
    contracts_assert_str(c->goal, "Sort a ticket, answer it, book the answer. A text may stand in two parts.");
    assert_int_equal(c->limits.steps_max, 100000);
    assert_int_equal(c->limits.llm_tokens_max, INT64_C(1000000000000));
    assert_int_equal(c->limits.micro_usd_max, 1);
    assert_int_equal(c->on_violation, VIOLATION_STOP);
    assert_int_equal(c->violations_max, 1);
    assert_int_equal(c->retry_budget, 0);
    assert_int_equal(c->checkpoints[0].timeout_action, TIMEOUT_REJECT);
    assert_false(c->checkpoints[1].required);
    assert_int_equal(c->checkpoints[1].guards, -1);
    assert_int_equal(c->checkpoints[1].timeout_ms, 500);

    const struct tool *look = &c->tools[contract_tool(c, STR("look_up"))];
    contracts_assert_str(look->method, "GET");
    assert_int_equal(look->timeout_ms, 1);
    assert_int_equal(look->headers_count, 2);
    contracts_assert_str(look->headers[0].name, "Authorization");
    contracts_assert_str(look->headers[0].value, "Bearer ${LOOK_TOKEN}");
    const struct tool *book = &c->tools[contract_tool(c, STR("book_it"))];
    assert_int_equal(book->not_executed_count, 2);
    assert_int_equal(book->not_executed[1], 423);
    assert_int_equal(book->probe->after_ms, 10);
    assert_int_equal(book->probe->probes_max, 100);
    assert_non_null(book->probe->result);
    const struct tool *drop = &c->tools[contract_tool(c, STR("drop_all"))];
    assert_false(drop->allowed);
    assert_int_equal(drop->on_doubt, DOUBT_FAIL);

    const struct step *sort = &c->steps[contract_step(c, STR("sort"))];
    assert_int_equal(sort->set_count, 2);
    contracts_assert_str(sort->set[0].name, "kind");
    contracts_assert_str(expr_text(sort->set[0].value), ".sort.kind");
    contracts_assert_str(sort->pool, "gpu");
    contracts_assert_str(c->steps[contract_step(c, STR("polish"))].pool, "heavy"); /* its agent's */
    contracts_assert_str(c->steps[contract_step(c, STR("answer"))].pool, "default");
    assert_int_equal(sort->edges[EDGE_FAILED], contract_step(c, STR("glance")));
    const struct step *route = &c->steps[contract_step(c, STR("route"))];
    assert_int_equal(route->kind, STEP_ROUTER);
    assert_int_equal(route->cases_count, 3);
    assert_int_equal(route->cases[0].target, TARGET_END);
    assert_int_equal(route->cases[1].target, contract_step(c, STR("sort")));
    assert_null(route->cases[2].when);
    const struct step *answer = &c->steps[contract_step(c, STR("answer"))];
    assert_int_equal(answer->kind, STEP_MODEL);
    contracts_assert_str(answer->model, "default");
    contracts_assert_str(answer->system, "Answer.");
    assert_int_equal(answer->agent, -1);
    contract_free(c);
}

static void test_defaults(void **state)
{
    (void)state;
    struct contract *c = contracts_read("tests/contracts/good/smallest.cfg");
    assert_int_equal(c->limits.deadline_ms, INT64_C(7) * 24 * 3600 * 1000);
    assert_int_equal(c->limits.steps_max, 200);
    assert_int_equal(c->limits.llm_tokens_max, 1000000);
    assert_int_equal(c->limits.micro_usd_max, 10000000);
    assert_int_equal(c->retry_budget, 3);
    assert_int_equal(c->violations_max, 3);
    assert_int_equal(c->on_violation, VIOLATION_TELL_MODEL);
    assert_null(c->input);
    assert_int_equal(c->start, 0);
    assert_int_equal(c->steps[0].visits_max, 1);
    for (int edge = EDGE_APPROVED; edge < EDGE_COUNT; edge++)
        assert_int_equal(c->steps[0].edges[edge], TARGET_NONE);
    contract_free(c);
}

static void test_schemas_in_files(void **state)
{
    (void)state;
    struct contract *c = contracts_read("tests/contracts/good/schema_file.cfg");
    assert_non_null(c->input);
    assert_non_null(strstr(c->canonical.data, "\"input\":{\"properties\":{\"question\":"));
    assert_non_null(strstr(c->canonical.data, "answer-text"));
    assert_null(strchr(c->canonical.data, '@'));
    json_t *fits = json_pack("{s:s}", "answer-text", "x"), *misfit = json_pack("{s:i}", "answer-text", 1);
    struct error error;
    assert_true(schema_check(c->steps[0].output, fits, &error));
    assert_false(schema_check(c->steps[0].output, misfit, &error));
    json_decref(fits);
    json_decref(misfit);
    contract_free(c);
}

#define SHARED "../shared/contracts/customer_research_to_followup.cfg"

static void test_the_shared_contract_as_it_stands(void **state)
{
    (void)state;
    if (access(SHARED, R_OK) != 0)
        skip();
    contract_free(contracts_read(SHARED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_contract), cmocka_unit_test(test_the_first_contracts_steps),
        cmocka_unit_test(test_every_key),          cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_schemas_in_files),   cmocka_unit_test(test_the_shared_contract_as_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, contracts_free_expressions);
}
