#include "worker/contract/keys.h"

#include <stddef.h>

/* clang-format off: tables */
#define STEP(field) offsetof(struct step, field)
#define EDGE(edge) (offsetof(struct step, edges) + sizeof(int32_t) * (edge))
#define VISITS_MAX_HIGH 10000

static const struct key STEP_KEYS[] = {
    {.name = "agent", .type = KEY_AGENT, .offset = STEP(agent), .otherwise = -1},
    {.name = "model", .type = KEY_TEXT, .offset = STEP(model)},
    {.name = "tool", .type = KEY_TOOL, .offset = STEP(tool), .otherwise = -1},
    {.name = "router", .type = KEY_LIST},
    {.name = "approval", .type = KEY_ANY},
    {.name = "system", .type = KEY_TEXT, .offset = STEP(system)},
    {.name = "sees", .type = KEY_EXPR, .offset = STEP(sees)},
    {.name = "args", .type = KEY_EXPR, .offset = STEP(args)},
    {.name = "output", .type = KEY_SCHEMA, .offset = STEP(output)},
    {.name = "check", .type = KEY_EXPR, .offset = STEP(check), .roots = ROOTS_WITH_CALLS},
    {.name = "set", .type = KEY_GROUP},
    {.name = "artifact", .type = KEY_NAME, .offset = STEP(artifact)},
    {.name = "visits_max", .type = KEY_COUNT, .offset = STEP(visits_max), .low = 1, .high = VISITS_MAX_HIGH},
    {.name = "pool", .type = KEY_NAME, .offset = STEP(pool)},
    {.name = "next", .type = KEY_TARGET, .offset = EDGE(EDGE_NEXT), .otherwise = TARGET_NONE},
    {.name = "approved", .type = KEY_TARGET, .offset = EDGE(EDGE_APPROVED), .otherwise = TARGET_NONE},
    {.name = "rejected", .type = KEY_TARGET, .offset = EDGE(EDGE_REJECTED), .otherwise = TARGET_NONE},
    {.name = "timed_out", .type = KEY_TARGET, .offset = EDGE(EDGE_TIMED_OUT), .otherwise = TARGET_NONE},
    {.name = "failed", .type = KEY_TARGET, .offset = EDGE(EDGE_FAILED), .otherwise = TARGET_NONE},
    {.name = "map", .type = KEY_LATER},
    {.name = "sleep", .type = KEY_LATER},
    {.name = "wait", .type = KEY_LATER},
    {.name = "emit", .type = KEY_LATER},
    {.name = "child", .type = KEY_LATER},
    {.name = "undo", .type = KEY_LATER},
    {.name = "chooses", .type = KEY_LATER},
    {.name = "fallback", .type = KEY_LATER},
    {.name = "mcp", .type = KEY_LATER},
};

/* Steps of these kinds exist in the language, not yet here: reported once, and not asked for a kind that is. */
static const char *const LATER_KINDS[] = {"map", "sleep", "wait", "emit", "child"};

#define BIT(kind) (1U << (kind))
#define THINKS (BIT(STEP_AGENT) | BIT(STEP_MODEL))
#define CALLS (THINKS | BIT(STEP_TOOL))

static const char *const KINDS[] = {"agent", "model", "tool", "router", "approval"}; /* enum step_kind */

/* Which keys mean something on which kinds of step. */
static const struct {
    const char *key;
    unsigned kinds;
} FITS[] = {
    {"system", BIT(STEP_MODEL)},
    {"sees", CALLS},
    {"args", BIT(STEP_TOOL)},
    {"output", CALLS},
    {"check", CALLS},
    {"artifact", CALLS},
    {"pool", CALLS},
    {"set", CALLS | BIT(STEP_APPROVAL)},
    {"next", CALLS},
    {"approved", BIT(STEP_APPROVAL)},
    {"rejected", BIT(STEP_APPROVAL)},
    {"timed_out", CALLS | BIT(STEP_APPROVAL)},
};

static const struct key CASE_KEYS[] = {
    {.name = "when", .type = KEY_EXPR, .offset = offsetof(struct router_case, when)},
    {.name = "next", .type = KEY_TARGET, .offset = offsetof(struct router_case, target), .otherwise = TARGET_NONE},
};
static const struct key ELSE_KEYS[] = {
    {.name = "else",
     .type = KEY_TARGET,
     .required = true,
     .offset = offsetof(struct router_case, target),
     .otherwise = TARGET_NONE},
};
/* clang-format on */

static void take_router(struct load *load, const struct node *list, size_t step_index, struct step *step)
{
    const struct node *otherwise = NULL;
    step->cases = ARENA_ARRAY(load->arena, list->count + 1, struct router_case);
    for (const struct node *node = list->first; node != NULL; node = node->next) {
        struct router_case *one = &step->cases[step->cases_count++];
        *one = (struct router_case){.target = TARGET_NONE};
        if (otherwise != NULL)
            load_error(load, node, "is never reached: it stands after else");
        if (!json_is_object(node->json)) {
            load_error(load, node, "must be { when = \"jq\"; next = \"step\"; } or, last, { else = \"step\"; }");
        } else if (tree_member(node, "else") != NULL) {
            keys_load(load, node, ELSE_KEYS, KEYS_COUNT(ELSE_KEYS), one);
            otherwise = node;
        } else {
            keys_load(load, node, CASE_KEYS, KEYS_COUNT(CASE_KEYS), one);
            if (tree_member(node, "when") == NULL || tree_member(node, "next") == NULL)
                load_error(load, node, "a case needs both: when = \"jq\"; next = \"step\"");
        }
        load->loose[step_index] = load->loose[step_index] || one->target == TARGET_NONE;
    }
    if (otherwise == NULL)
        load_error(load, list,
                   "has no else: end it with { else = \"step\"; }, so that no run is left without a way on");
}

static void take_set(struct load *load, const struct node *group, struct step *step)
{
    static const struct key key = {.type = KEY_EXPR};
    step->set = ARENA_ARRAY(load->arena, group->count + 1, struct assignment);
    for (const struct node *node = group->first; node != NULL; node = node->next) {
        struct assignment *assignment = &step->set[step->set_count++];
        load_name(load, node, node->key, NULL);
        assignment->name = node->key;
        keys_take(load, &key, node, &assignment->value);
    }
}

/* The one key that says what a step is. */
static bool take_kind(struct load *load, const struct node *node, struct step *step)
{
    int found = 0;
    struct str given = STR("");
    for (size_t i = 0; i < KEYS_COUNT(KINDS); i++) {
        if (tree_member(node, KINDS[i]) == NULL)
            continue;
        given = arena_printf(load->arena, "%.*s%s%s", STR_ARG(given), found > 0 ? " and " : "", KINDS[i]);
        if (found++ == 0)
            step->kind = (enum step_kind)i;
    }
    for (size_t i = 0; i < KEYS_COUNT(LATER_KINDS); i++)
        if (tree_member(node, LATER_KINDS[i]) != NULL)
            return false;
    if (found == 0)
        load_error(load, node, "says not what it does: give it one of agent, model, tool, router, approval");
    if (found > 1)
        load_error(load, node, "is %.*s at once: a step does one thing; make two steps of it", STR_ARG(given));
    return found == 1;
}

static void check_approval(struct load *load, const struct node *node)
{
    const struct node *approval = tree_member(node, "approval");
    if (approval != NULL && json_is_string(approval->json))
        load_error(load, approval, "\"%.*s\" is not supported yet: write approval = true",
                   STR_ARG(tree_text(approval)));
    else if (approval != NULL && !json_is_true(approval->json))
        load_error(load, approval, "must be true, or left out");
}

/* Keys and edges that mean nothing on a step of this kind. */
static void check_kind(struct load *load, const struct node *node, const struct step *step, bool has_choices)
{
    bool by_agent = step->tool >= 0 && load->contract->tools[step->tool].agent >= 0;
    const char *kind = KINDS[step->kind];
    for (size_t i = 0; i < KEYS_COUNT(FITS); i++) {
        const struct node *member = tree_member(node, FITS[i].key);
        if (member == NULL || (FITS[i].kinds & BIT(step->kind)) != 0)
            continue;
        const char *instead = step->kind == STEP_ROUTER && str_is(member->key, "next")
                                  ? ": its cases say where it goes on"
                              : step->kind == STEP_APPROVAL && str_is(member->key, "next")
                                  ? ": write approved = \"...\""
                              : str_is(member->key, "args") ? ": write sees = \"...\""
                                                            : "";
        load_error(load, member, "makes no sense on a step with %s%s", kind, instead);
    }
    const struct node *sees = tree_member(node, "sees"), *args = tree_member(node, "args");
    if (step->kind == STEP_TOOL && step->tool >= 0 && by_agent && args != NULL)
        load_error(load, args, "makes no sense on a tool that is an agent: write sees = \"...\"");
    if (step->kind == STEP_TOOL && step->tool >= 0 && !by_agent && sees != NULL)
        load_error(load, sees, "makes no sense on a tool: write args = \"...\", the whole of what is sent");
    if ((BIT(step->kind) & CALLS) != 0 && tree_member(node, "next") == NULL && tree_member(node, "chooses") == NULL)
        load_error(load, node, "next is missing: where does it go on? To finish, write next = \"end\"");
    if (step->kind == STEP_APPROVAL && tree_member(node, "approved") == NULL && !has_choices)
        load_error(load, node, "approved is missing: where does it go on after a yes?");
}

/* An approval with choices has an edge for each: known names, although they are not supported yet. */
static struct str *choices(struct load *load, struct str step, size_t *count)
{
    struct str *names = NULL;
    *count = 0;
    const struct node *list = keys_list(load->root, "human_checkpoints");
    for (const struct node *entry = list != NULL ? list->first : NULL; entry != NULL; entry = entry->next) {
        const struct node *given = keys_list(entry, "choices");
        if (given == NULL || !str_equal(tree_text(tree_member(entry, "step")), step))
            continue;
        names = ARENA_ARRAY(load->arena, given->count + 1, struct str);
        for (const struct node *choice = given->first; choice != NULL; choice = choice->next)
            names[(*count)++] = tree_text(choice);
    }
    return names;
}

static void take_step(struct load *load, size_t index)
{
    const struct node *node = load->step_nodes[index];
    const struct node *group = json_is_object(node->json) ? node : NULL;
    struct step *step = &load->contract->steps[index];
    size_t choices_count;
    struct str *also = choices(load, node->key, &choices_count);
    step->name = node->key;
    step->checkpoint = -1;
    step->guarded_by = -1;
    keys_load_also(load, group, STEP_KEYS, KEYS_COUNT(STEP_KEYS), step, also, choices_count);
    const struct node *model = tree_member(group, "model");
    step->model_line = model != NULL ? model->line : 0;
    for (int edge = 0; edge < EDGE_COUNT; edge++)
        if (tree_member(node, edge_name((enum edge)edge)) != NULL && step->edges[edge] == TARGET_NONE)
            load->loose[index] = true;
    if (keys_list(node, "router") != NULL)
        take_router(load, keys_list(node, "router"), index, step);
    if (keys_group(node, "set") != NULL)
        take_set(load, keys_group(node, "set"), step);
    check_approval(load, node);
    if (group != NULL && take_kind(load, node, step))
        check_kind(load, node, step, choices_count > 0);
    else
        load->loose[index] = true;
    if (choices_count > 0 || tree_member(node, "chooses") != NULL)
        load->choices = load->loose[index] = true;
    if (step->kind == STEP_TOOL && step->tool >= 0)
        step->agent = load->contract->tools[step->tool].agent;
    if (step->pool.size == 0 && step->agent >= 0)
        step->pool = load->contract->agents[step->agent].pool;
    if (step->pool.size == 0)
        step->pool = STR("default");
}

void load_steps(struct load *load)
{
    struct contract *contract = load->contract;
    const struct node *start = tree_member(load->root, "start");
    int32_t first = -1;
    for (size_t i = 0; i < contract->steps_count; i++) {
        take_step(load, i);
        if (first < 0 || load->step_nodes[i]->index < load->step_nodes[first]->index)
            first = (int32_t)i;
    }
    const struct node *group = tree_member(load->root, "steps");
    if (group != NULL && json_is_object(group->json) && contract->steps_count == 0)
        load_error(load, group, "is empty: a contract has one step at least");
    /* The canonical form sorts the steps, so it always says where a run starts. */
    if (start == NULL && first >= 0) {
        contract->start = first;
        json_object_set_new(load->root->json, "start", json_string(contract->steps[first].name.data));
    }
}
