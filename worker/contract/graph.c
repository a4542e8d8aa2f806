/*
 * graph.c: the steps as a graph: what can be reached, what comes to an end, which loops have no bound, and whether an
 * approval can be walked around. At most CONTRACT_STEPS_MAX steps, so nothing here is clever.
 */
#include "worker/contract/graph.h"

#include <string.h>

#include "worker/base/units.h"
#include "worker/contract/keys.h"

size_t graph_ways(const struct step *step)
{
    return EDGE_COUNT + step->cases_count;
}

int32_t graph_way(const struct step *step, size_t way)
{
    return way < EDGE_COUNT ? step->edges[way] : step->cases[way - EDGE_COUNT].target;
}

/* Marks what follows `from` (not `from` itself, unless a loop leads back), passing through `passable` steps only. */
static void mark_after(const struct contract *contract, size_t from, const bool *passable, bool *marked, int32_t *stack)
{
    size_t depth = 0;
    stack[depth++] = (int32_t)from;
    while (depth > 0) {
        const struct step *step = &contract->steps[stack[--depth]];
        for (size_t way = 0; way < graph_ways(step); way++) {
            int32_t to = graph_way(step, way);
            if (to < 0 || marked[to] || (passable != NULL && !passable[to]))
                continue;
            marked[to] = true;
            stack[depth++] = to;
        }
    }
}

static bool *reach_through(const struct contract *contract, struct arena *arena, const bool *passable)
{
    size_t count = contract->steps_count;
    bool *reach = ARENA_ARRAY(arena, count * count + 1, bool);
    int32_t *stack = ARENA_ARRAY(arena, count + 1, int32_t);
    for (size_t i = 0; i < count; i++)
        if (passable == NULL || passable[i])
            mark_after(contract, i, passable, reach + i * count, stack);
    return reach;
}

bool *graph_reach(const struct contract *contract, struct arena *arena)
{
    return reach_through(contract, arena, NULL);
}

/* ---- what can be reached, and what ends ---- */

/* Of the steps that are out of reach the first ones only: what follows them is out of reach for their sake. */
static void check_reachable(struct load *load, const bool *reach)
{
    const struct contract *contract = load->contract;
    size_t count = contract->steps_count, start = (size_t)contract->start;
    bool *reported = ARENA_ARRAY(load->arena, count + 1, bool);
    for (size_t i = 0; i < count; i++) {
        if (i == start || reach[start * count + i])
            continue;
        bool first = true;
        for (size_t k = 0; k < count; k++) {
            bool lost = k != start && !reach[start * count + k];
            bool loop = reach[i * count + k] && reach[k * count + i]; /* of a lost loop the first step is reported */
            first = first && !(lost && k != i && reach[k * count + i] && (!loop || reported[k]));
        }
        if (!first)
            continue;
        reported[i] = true;
        load_error(load, load->step_nodes[i], "cannot be reached: no path leads here from the start, \"%.*s\"",
                   STR_ARG(contract->steps[start].name));
    }
}

static void check_ends(struct load *load, const bool *reach)
{
    const struct contract *contract = load->contract;
    size_t count = contract->steps_count;
    bool *ends = ARENA_ARRAY(load->arena, count + 1, bool); /* here, or nobody knows */
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        ends[i] = load->loose[i];
        for (size_t way = 0; way < graph_ways(&contract->steps[i]); way++)
            ends[i] = ends[i] || graph_way(&contract->steps[i], way) == TARGET_END;
        any = any || ends[i];
    }
    if (!any) {
        load_error(load, tree_member(load->root, "steps"), "no way to the end: no edge leads to \"end\"");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bool can = ends[i];
        bool leads_on = false; /* without any edge: said already */
        for (size_t k = 0; k < count; k++) {
            can = can || (reach[i * count + k] && ends[k]);
            leads_on = leads_on || reach[i * count + k];
        }
        if (!can && leads_on)
            load_error(load, load->step_nodes[i], "no way to the end from here: every path leads round in a circle");
    }
}

/* ---- loops ---- */

/* The names along the shortest path from one step to another, "a -> b -> a". */
static struct str path_text(struct load *load, size_t from, size_t to, const bool *passable)
{
    const struct contract *contract = load->contract;
    size_t count = contract->steps_count, head = 0, tail = 0;
    int32_t *queue = ARENA_ARRAY(load->arena, count + 1, int32_t),
            *before = ARENA_ARRAY(load->arena, count + 1, int32_t);
    for (size_t i = 0; i < count; i++)
        before[i] = -1;
    queue[tail++] = (int32_t)from;
    while (head < tail && before[to] < 0) {
        int32_t at = queue[head++];
        for (size_t way = 0; way < graph_ways(&contract->steps[at]); way++) {
            int32_t next = graph_way(&contract->steps[at], way);
            if (next < 0 || before[next] >= 0 || !passable[next])
                continue;
            before[next] = at;
            if (next != (int32_t)from)
                queue[tail++] = next;
        }
    }
    struct str text = contract->steps[to].name;
    int32_t at = (int32_t)to;
    do {
        at = before[at];
        text = arena_printf(load->arena, "%.*s -> %.*s", STR_ARG(contract->steps[at].name), STR_ARG(text));
    } while (at != (int32_t)from);
    return text;
}

/* Every loop needs one step at least whose visits are counted (I7). Without those steps no loop may be left. */
static void check_loops(struct load *load, const bool *reach)
{
    struct contract *contract = load->contract;
    size_t count = contract->steps_count;
    bool *uncounted = ARENA_ARRAY(load->arena, count + 1, bool);
    for (size_t i = 0; i < count; i++)
        uncounted[i] = tree_member(load->step_nodes[i], "visits_max") == NULL;
    bool *loop = reach_through(contract, load->arena, uncounted);
    for (size_t i = 0; i < count; i++) {
        bool first = loop[i * count + i];
        for (size_t k = 0; k < count; k++) {
            bool same = loop[i * count + k] && loop[k * count + i];
            first = first && !(same && load->step_nodes[k]->index < load->step_nodes[i]->index);
        }
        if (first)
            load_error(load, load->step_nodes[i], "a loop without a bound: %s; give one of its steps visits_max",
                       path_text(load, i, i, uncounted).data);
        /* On a loop that another step bounds, this one may come as often as the run has steps. */
        if (uncounted[i])
            contract->steps[i].visits_max = reach[i * count + i] ? contract->limits.steps_max : 1;
    }
}

/* ---- approvals ---- */

/*
 * Can the guarded step be entered without the approval's yes since it last ran? Walks the steps twice over:
 * `fresh` is whether the last thing that the approval step said was yes, and the guarded step has not used it
 * up. Returns the path that is open, or STR_NONE.
 */
static struct str way_around(struct load *load, const struct checkpoint *checkpoint)
{
    const struct contract *contract = load->contract;
    size_t count = contract->steps_count, head = 0, tail = 0;
    int32_t *before = ARENA_ARRAY(load->arena, 2 * count + 1, int32_t); /* state = 2 * step + fresh */
    int32_t *queue = ARENA_ARRAY(load->arena, 2 * count + 1, int32_t);
    int32_t goal = 2 * checkpoint->guards, none = -1, first = 2 * contract->start;
    for (size_t i = 0; i < 2 * count; i++)
        before[i] = none;
    before[first] = first;
    queue[tail++] = first;
    while (head < tail && before[goal] == none) {
        int32_t state = queue[head++], at = state / 2;
        const struct step *step = &contract->steps[at];
        for (size_t way = 0; way < graph_ways(step); way++) {
            int32_t to = graph_way(step, way);
            bool fresh = state % 2 == 1;
            if (at == checkpoint->step)
                fresh = way == EDGE_APPROVED;
            else if (at == checkpoint->guards)
                fresh = false;
            int32_t next = 2 * to + (fresh ? 1 : 0);
            if (to < 0 || before[next] != none)
                continue;
            before[next] = state;
            queue[tail++] = next;
        }
    }
    if (before[goal] == none)
        return STR_NONE;
    struct str path = contract->steps[goal / 2].name;
    for (int32_t state = goal; state != first; state = before[state])
        path = arena_printf(load->arena, "%.*s -> %.*s", STR_ARG(contract->steps[before[state] / 2].name),
                            STR_ARG(path));
    return path;
}

/* The person sees the arguments when asked. What only comes to be after the yes was not seen. */
static void check_seen(struct load *load, const struct checkpoint *checkpoint)
{
    const struct contract *contract = load->contract;
    const struct step *guarded = &contract->steps[checkpoint->guards];
    int32_t approved = contract->steps[checkpoint->step].edges[EDGE_APPROVED];
    size_t count = contract->steps_count;
    bool *passable = ARENA_ARRAY(load->arena, count + 1, bool), *later = ARENA_ARRAY(load->arena, count + 1, bool);
    int32_t *stack = ARENA_ARRAY(load->arena, count + 1, int32_t);
    for (size_t i = 0; i < count; i++)
        passable[i] = (int32_t)i != checkpoint->step && (int32_t)i != checkpoint->guards;
    if (approved >= 0 && approved != checkpoint->guards) {
        later[approved] = true;
        mark_after(contract, (size_t)approved, passable, later, stack);
    }
    later[checkpoint->step] = true;
    if (guarded->args == NULL)
        return;
    struct str *roots;
    size_t roots_count = expr_roots(guarded->args, load->arena, &roots);
    for (size_t i = 0; i < roots_count; i++) {
        int32_t step = contract_step(contract, roots[i]);
        if (step >= 0 && later[step])
            load_error(load, tree_member(load->step_nodes[checkpoint->guards], "args"),
                       "read .%.*s, which is not there yet when the person of \"%.*s\" is shown these arguments",
                       STR_ARG(roots[i]), STR_ARG(contract->steps[checkpoint->step].name));
    }
}

static void check_checkpoints(struct load *load)
{
    const struct contract *contract = load->contract;
    for (size_t i = 0; i < contract->checkpoints_count; i++) {
        const struct checkpoint *checkpoint = &contract->checkpoints[i];
        const struct node *node = load->checkpoint_nodes[i];
        if (checkpoint->timeout_ms >= contract->limits.deadline_ms)
            load_error(load, tree_member(node, "timeout") != NULL ? tree_member(node, "timeout") : node,
                       "the timeout of %s never passes: the run's deadline (limits.deadline) is %s",
                       units_duration_text(load->arena, checkpoint->timeout_ms).data,
                       units_duration_text(load->arena, contract->limits.deadline_ms).data);
        bool sound = checkpoint->step >= 0 && contract->steps[checkpoint->step].kind == STEP_APPROVAL &&
                     checkpoint->guards >= 0 && contract->steps[checkpoint->guards].guarded_by == (int32_t)i;
        if (!sound || contract->start < 0)
            continue;
        struct str path = checkpoint->required ? way_around(load, checkpoint) : STR_NONE;
        if (path.data != NULL)
            load_error(load, tree_member(node, "guards"), "\"%.*s\" can be reached without a yes of \"%.*s\": %s",
                       STR_ARG(contract->steps[checkpoint->guards].name),
                       STR_ARG(contract->steps[checkpoint->step].name), path.data);
        check_seen(load, checkpoint);
    }
    for (size_t i = 0; i < contract->steps_count; i++)
        if (contract->steps[i].kind == STEP_APPROVAL && contract->steps[i].checkpoint < 0 &&
            tree_member(load->step_nodes[i], "approval") != NULL)
            load_error(load, load->step_nodes[i],
                       "an approval needs its entry: human_checkpoints = ({ step = \"%.*s\"; guards = "
                       "\"...\"; timeout = \"24h\"; })",
                       STR_ARG(contract->steps[i].name));
}

/* ---- criteria ---- */

/* Warns when a criterion reads only what was known before a write and is asked after it: too late to be of use. */
static void check_criterion_time(struct load *load, size_t index, const bool *reach)
{
    const struct contract *contract = load->contract;
    const struct criterion *criterion = &contract->criteria[index];
    const struct expr *expr = criterion->judge >= 0 ? criterion->sees : criterion->check;
    size_t count = contract->steps_count, roots_count;
    int32_t point = criterion->before >= 0 ? criterion->before : criterion->after;
    struct str *roots;
    if (expr == NULL)
        return;
    roots_count = expr_roots(expr, load->arena, &roots);
    for (size_t w = 0; w < count; w++) {
        const struct step *write = &contract->steps[w];
        bool writes = write->kind == STEP_TOOL && write->tool >= 0 &&
                      contract->tools[write->tool].effect == EFFECT_WRITE;
        bool earlier = point < 0 || reach[w * count + (size_t)point] || (criterion->after == (int32_t)w);
        bool known = writes && earlier;
        for (size_t i = 0; known && i < roots_count; i++) {
            int32_t step = contract_step(contract, roots[i]);
            if (str_is(roots[i], "input"))
                continue;
            /* .vars, .run and .calls may hold anything: no warning then */
            known = step >= 0 && step != (int32_t)w && !reach[w * count + (size_t)step];
        }
        if (!known)
            continue;
        load_warning(load, load->criterion_nodes[index],
                     "is asked after the write of \"%.*s\" although it reads only what was known "
                     "before: write before = \"%.*s\"",
                     STR_ARG(write->name), STR_ARG(write->name));
        return;
    }
}

void check_graph(struct load *load)
{
    const struct contract *contract = load->contract;
    if (contract->steps_count == 0)
        return;
    bool *reach = graph_reach(contract, load->arena);
    if (contract->start >= 0 && !load->choices)
        check_reachable(load, reach);
    check_ends(load, reach);
    check_loops(load, reach);
    check_checkpoints(load);
    for (size_t i = 0; i < contract->criteria_count; i++)
        check_criterion_time(load, i, reach);
}
