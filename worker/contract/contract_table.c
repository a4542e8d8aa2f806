/*
 * contract_table.c: the table of `contract show`: what a reader asks of each step before the first run.
 */
#include "worker/contract/contract.h"
#include "worker/contract/graph.h"

/* The steps in the order of a reading from the start: each way out to its end before the next one. */
static size_t reading_order(const struct contract *contract, struct arena *arena, int32_t *order)
{
    size_t count = 0, depth = 0;
    bool *seen = ARENA_ARRAY(arena, contract->steps_count, bool);
    int32_t *stack = ARENA_ARRAY(arena, contract->steps_count, int32_t);
    size_t *way = ARENA_ARRAY(arena, contract->steps_count, size_t);
    stack[depth++] = contract->start;
    seen[contract->start] = true;
    order[count++] = contract->start;
    while (depth > 0) {
        int32_t at = stack[depth - 1];
        if (way[at] >= graph_ways(&contract->steps[at])) {
            depth--;
            continue;
        }
        int32_t to = graph_way(&contract->steps[at], way[at]++);
        if (to < 0 || seen[to])
            continue;
        seen[to] = true;
        order[count++] = to;
        stack[depth++] = to;
    }
    return count;
}

/* What happens to a write when its worker dies in it. */
static struct str repeat_of_write(const struct tool *tool)
{
    switch (tool->on_doubt) {
    case DOUBT_PROBE:
        return STR("probed");
    case DOUBT_RETRY:
        return STR("same key");
    case DOUBT_FAIL:
        return STR("fails");
    case DOUBT_ASK:
        break;
    }
    return STR("asks");
}

static void describe_call(const struct tool *tool, struct contract_row *row)
{
    bool write = tool->effect == EFFECT_WRITE;
    row->outside = write ? STR("call") : STR("read");
    row->writes = write ? STR("YES") : STR("-");
    row->repeat = write ? repeat_of_write(tool) : STR("reused");
}

/* An agent's step touches what its tools touch; of several writes the first one that asks a person speaks for all. */
static void describe_agent(const struct contract *contract, const struct agent *agent, struct contract_row *row)
{
    bool written = false;
    row->decided_by = STR("model");
    row->outside = STR("read");
    row->repeat = STR("reused");
    for (size_t i = 0; i < agent->tools_count; i++) {
        const struct tool *tool = &contract->tools[agent->tools[i]];
        if (tool->effect != EFFECT_WRITE || (written && tool->on_doubt != DOUBT_ASK))
            continue;
        written = true;
        describe_call(tool, row);
    }
}

static struct contract_row describe(const struct contract *contract, const struct step *step)
{
    struct contract_row row = {.step = step->name,
                               .kind = str_of(step_kind_name(step->kind)),
                               .decided_by = STR("rule"),
                               .outside = STR("-"),
                               .writes = STR("-"),
                               .person = STR("-"),
                               .repeat = STR("-")};
    switch (step->kind) {
    case STEP_AGENT:
        describe_agent(contract, &contract->agents[step->agent], &row);
        break;
    case STEP_MODEL:
        row.decided_by = STR("model");
        row.outside = STR("read");
        row.repeat = STR("reused");
        break;
    case STEP_TOOL:
        if (step->agent >= 0)
            describe_agent(contract, &contract->agents[step->agent], &row);
        else
            describe_call(&contract->tools[step->tool], &row);
        break;
    case STEP_APPROVAL:
        row.decided_by = STR("person");
        row.person = contract->checkpoints[step->checkpoint].required ? STR("required") : STR("optional");
        break;
    case STEP_ROUTER:
        break;
    }
    if (step->guarded_by >= 0)
        row.person = contract->steps[contract->checkpoints[step->guarded_by].step].name;
    return row;
}

size_t contract_table(const struct contract *contract, struct arena *arena, struct contract_row **rows)
{
    int32_t *order = ARENA_ARRAY(arena, contract->steps_count, int32_t);
    size_t count = reading_order(contract, arena, order);
    *rows = ARENA_ARRAY(arena, count, struct contract_row);
    for (size_t i = 0; i < count; i++)
        (*rows)[i] = describe(contract, &contract->steps[order[i]]);
    return count;
}
