#include "worker/contract/keys.h"

#include <stddef.h>
#include <string.h>

/* clang-format off: tables */
#define USD INT64_C(1000000)

static const struct key LIMIT_KEYS[] = {
    {.name = "deadline",
     .type = KEY_DURATION,
     .offset = offsetof(struct contract_limits, deadline_ms),
     .low = SECOND_MS,
     .high = 366 * DAY_MS,
     .otherwise = 7 * DAY_MS},
    {.name = "steps",
     .type = KEY_COUNT,
     .offset = offsetof(struct contract_limits, steps_max),
     .low = 1,
     .high = 100000,
     .otherwise = 200},
    {.name = "llm_tokens",
     .type = KEY_BIG_COUNT,
     .offset = offsetof(struct contract_limits, llm_tokens_max),
     .low = 1,
     .high = INT64_C(1000000000000),
     .otherwise = 1000000},
    {.name = "usd",
     .type = KEY_MONEY,
     .offset = offsetof(struct contract_limits, micro_usd_max),
     .low = 1,
     .high = 1000000 * USD,
     .otherwise = 10 * USD},
};

static const char *const POLICIES[] = {"block", NULL};
struct recovery {
    int32_t retry_budget, policy;
    bool resume;
};
static const struct key RECOVERY_KEYS[] = {
    {.name = "retry_budget",
     .type = KEY_COUNT,
     .offset = offsetof(struct recovery, retry_budget),
     .low = 0,
     .high = 10,
     .otherwise = 3},
    {.name = "duplicate_side_effect_policy",
     .type = KEY_WORD,
     .offset = offsetof(struct recovery, policy),
     .words = POLICIES},
    {.name = "resume_from_last_committed_step",
     .type = KEY_BOOL,
     .offset = offsetof(struct recovery, resume),
     .otherwise = 1},
};

static const struct key DURABLE_KEYS[] = {{.name = "required", .type = KEY_LIST, .required = true}};

static const char *const VIOLATIONS[] = {"tell_model", "stop", "ask", NULL}; /* enum on_violation */
static const struct key BOUNDARY_KEYS[] = {
    {.name = "allowed_tools", .type = KEY_LIST},
    {.name = "forbidden_actions", .type = KEY_LIST},
    {.name = "actions", .type = KEY_GROUP},
    {.name = "on_violation", .type = KEY_WORD, .offset = offsetof(struct contract, on_violation), .words = VIOLATIONS},
    {.name = "violations_max",
     .type = KEY_COUNT,
     .offset = offsetof(struct contract, violations_max),
     .low = 1,
     .high = 100,
     .otherwise = 3},
};
static const struct key ACTION_KEYS[] = {
    {.name = "tool", .type = KEY_TOOL, .required = true, .offset = offsetof(struct forbidden, tool), .otherwise = -1},
    {.name = "when",
     .type = KEY_EXPR,
     .required = true,
     .offset = offsetof(struct forbidden, when),
     .roots = ROOTS_ARGS},
};

/* enum timeout_action, then what it does not have yet. */
static const char *const TIMEOUT_ACTIONS[] = {"pause", "reject", "escalate", "approve", NULL};
static const struct key CHECKPOINT_KEYS[] = {
    {.name = "step", .type = KEY_STEP, .required = true, .offset = offsetof(struct checkpoint, step), .otherwise = -1},
    {.name = "guards", .type = KEY_STEP, .offset = offsetof(struct checkpoint, guards), .otherwise = -1},
    {.name = "required", .type = KEY_BOOL, .offset = offsetof(struct checkpoint, required), .otherwise = 1},
    {.name = "timeout",
     .type = KEY_DURATION,
     .offset = offsetof(struct checkpoint, timeout_ms),
     .low = 1,
     .high = 366 * DAY_MS,
     .otherwise = DAY_MS},
    {.name = "timeout_action",
     .type = KEY_WORD,
     .offset = offsetof(struct checkpoint, timeout_action),
     .words = TIMEOUT_ACTIONS},
    {.name = "escalate_to", .type = KEY_LATER},
    {.name = "approvals_needed", .type = KEY_LATER},
    {.name = "approvers", .type = KEY_LATER},
    {.name = "asks", .type = KEY_LATER},
    {.name = "choices", .type = KEY_LATER},
};

static const struct key CRITERIA_KEYS[] = {{.name = "output", .type = KEY_LIST},
                                           {.name = "metrics", .type = KEY_GROUP}};
static const struct key CRITERION_KEYS[] = {
    {.name = "says", .type = KEY_TEXT, .required = true, .offset = offsetof(struct criterion, says)},
    {.name = "after", .type = KEY_STEP, .offset = offsetof(struct criterion, after), .otherwise = -1},
    {.name = "before", .type = KEY_STEP, .offset = offsetof(struct criterion, before), .otherwise = -1},
    {.name = "check", .type = KEY_EXPR, .offset = offsetof(struct criterion, check), .roots = ROOTS_WITH_CALLS},
    {.name = "judge", .type = KEY_AGENT, .offset = offsetof(struct criterion, judge), .otherwise = -1},
    {.name = "sees", .type = KEY_EXPR, .offset = offsetof(struct criterion, sees), .roots = ROOTS_WITH_CALLS},
};

/* The parts of every run's state (design.md section 7). */
static const char *const PARTS[] = {
    "current_step",        "completed_steps",        "tool_calls", "retries", "approvals",
    "generated_artifacts", "committed_side_effects", "usage"};
#define PARTS_REQUIRED (KEYS_COUNT(PARTS) - 1) /* all but usage */

struct top {
    struct str name, goal;
    struct schema *input;
    int32_t start;
};
static const struct key TOP_KEYS[] = {
    {.name = "name", .type = KEY_NAME, .required = true, .offset = offsetof(struct top, name)},
    {.name = "goal", .type = KEY_TEXT, .required = true, .offset = offsetof(struct top, goal)},
    {.name = "input", .type = KEY_SCHEMA, .offset = offsetof(struct top, input)},
    {.name = "limits", .type = KEY_GROUP},
    {.name = "success_criteria", .type = KEY_GROUP},
    {.name = "durable_state", .type = KEY_GROUP},
    {.name = "boundaries", .type = KEY_GROUP},
    {.name = "recovery_policy", .type = KEY_GROUP},
    {.name = "human_checkpoints", .type = KEY_LIST},
    {.name = "tools", .type = KEY_GROUP},
    {.name = "agents", .type = KEY_GROUP},
    {.name = "start", .type = KEY_STEP, .offset = offsetof(struct top, start), .otherwise = -1},
    {.name = "steps", .type = KEY_GROUP, .required = true},
    {.name = "mcp", .type = KEY_LATER},
    {.name = "children", .type = KEY_LATER},
};
/* clang-format on */

static void take_durable_state(struct load *load)
{
    const struct node *group = keys_group(load->root, "durable_state");
    struct str parts[KEYS_COUNT(PARTS)];
    bool given[KEYS_COUNT(PARTS)] = {false};
    for (size_t i = 0; i < KEYS_COUNT(PARTS); i++)
        parts[i] = str_of(PARTS[i]);
    if (group == NULL)
        return;
    keys_load(load, group, DURABLE_KEYS, KEYS_COUNT(DURABLE_KEYS), load->contract);
    const struct node *list = keys_list(group, "required");
    for (const struct node *node = list != NULL ? list->first : NULL; node != NULL; node = node->next) {
        int32_t part = load_find(parts, KEYS_COUNT(PARTS), tree_text(node));
        if (part < 0)
            part = load_unknown(load, node, "part", parts, KEYS_COUNT(PARTS));
        else if (given[part])
            load_error(load, node, "\"%s\" stands here twice", PARTS[part]);
        if (part >= 0)
            given[part] = true;
    }
    for (size_t i = 0; i < PARTS_REQUIRED; i++)
        if (!given[i] && list != NULL)
            load_error(load, list, "\"%s\" is missing: every run keeps it, and the contract says so", PARTS[i]);
}

void load_run(struct load *load)
{
    struct contract *contract = load->contract;
    struct top top = {.start = -1};
    struct recovery recovery = {.resume = true};
    keys_load(load, load->root, TOP_KEYS, KEYS_COUNT(TOP_KEYS), &top);
    contract->name = top.name;
    contract->goal = top.goal;
    contract->input = top.input;
    contract->start = top.start;
    keys_load(load, keys_group(load->root, "limits"), LIMIT_KEYS, KEYS_COUNT(LIMIT_KEYS), &contract->limits);
    const struct node *policy = keys_group(load->root, "recovery_policy");
    keys_load(load, policy, RECOVERY_KEYS, KEYS_COUNT(RECOVERY_KEYS), &recovery);
    contract->retry_budget = recovery.retry_budget;
    load->doubt_policy = tree_member(policy, "duplicate_side_effect_policy") != NULL;
    if (!recovery.resume)
        load_error(load, tree_member(policy, "resume_from_last_committed_step"),
                   "is always true: every step event is a checkpoint; write true or leave it out");
    take_durable_state(load);
}

/* ---- boundaries ---- */

static void take_allowed(struct load *load, const struct node *list)
{
    struct contract *contract = load->contract;
    for (size_t i = 0; i < contract->tools_count; i++)
        contract->tools[i].allowed = list == NULL;
    for (const struct node *node = list != NULL ? list->first : NULL; node != NULL; node = node->next) {
        int32_t tool = load_find(load->tool_names, contract->tools_count, tree_text(node));
        if (tool < 0)
            tool = load_unknown(load, node, "tool", load->tool_names, contract->tools_count);
        else if (contract->tools[tool].allowed)
            load_error(load, node, "\"%.*s\" stands here twice", STR_ARG(load->tool_names[tool]));
        if (tool >= 0)
            contract->tools[tool].allowed = true;
    }
}

/* A name in forbidden_actions: a tool, TOOL_without_approval, or one of `actions`. */
static void take_forbidden(struct load *load, const struct node *node, const struct node *actions,
                           struct forbidden *forbidden)
{
    static const char suffix[] = "_without_approval";
    const struct contract *contract = load->contract;
    struct str name = tree_text(node), stem = name;
    struct str *known = ARENA_ARRAY(load->arena, 2 * contract->tools_count + (actions != NULL ? actions->count : 0) + 1,
                                    struct str);
    size_t count = 0;
    *forbidden = (struct forbidden){.name = name, .kind = FORBIDDEN_TOOL};
    forbidden->tool = load_find(load->tool_names, contract->tools_count, name);
    if (name.data == NULL)
        load_error(load, node, "is %s, must be the name of an action in double quotes", keys_type_name(node));
    if (name.data == NULL || forbidden->tool >= 0)
        return;
    const struct node *action = tree_member(actions, name.data);
    if (action != NULL) {
        forbidden->kind = FORBIDDEN_ACTION;
        keys_load(load, json_is_object(action->json) ? action : NULL, ACTION_KEYS, KEYS_COUNT(ACTION_KEYS), forbidden);
        if (forbidden->when != NULL)
            load->uses_last->tool = forbidden->tool; /* the last one is this `when` */
        return;
    }
    if (name.size > sizeof(suffix) - 1 &&
        memcmp(name.data + name.size - (sizeof(suffix) - 1), suffix, sizeof(suffix) - 1) == 0)
        stem.size -= sizeof(suffix) - 1;
    forbidden->tool = load_find(load->tool_names, contract->tools_count, stem);
    forbidden->kind = FORBIDDEN_WITHOUT_APPROVAL;
    if (forbidden->tool >= 0)
        return;
    for (size_t i = 0; i < contract->tools_count; i++) {
        known[count++] = load->tool_names[i];
        known[count++] = arena_printf(load->arena, "%.*s%s", STR_ARG(load->tool_names[i]), suffix);
    }
    for (const struct node *entry = actions != NULL ? actions->first : NULL; entry != NULL; entry = entry->next)
        known[count++] = entry->key;
    load_error(load, node,
               "no such action \"%.*s\"%san action is a tool, TOOL_without_approval, or a name of boundaries.actions",
               STR_ARG(name), load_near(load, name, known, count));
}

/* Entries of `actions` that nothing forbids are still read, so that their mistakes show. */
static void check_action(struct load *load, const struct node *action, const struct node *list)
{
    bool used = false;
    for (const struct node *node = list != NULL ? list->first : NULL; node != NULL; node = node->next)
        used = used || str_equal(tree_text(node), action->key);
    load_name(load, action, action->key, NULL);
    if (!json_is_object(action->json))
        load_error(load, action, "must be a group: { tool = \"...\"; when = \"jq over the arguments\"; }");
    if (load_find(load->tool_names, load->contract->tools_count, action->key) >= 0)
        load_error(load, action, "is the name of a tool, too: take another one");
    if (used)
        return;
    struct forbidden unused = {.tool = -1};
    keys_load(load, json_is_object(action->json) ? action : NULL, ACTION_KEYS, KEYS_COUNT(ACTION_KEYS), &unused);
    if (unused.when != NULL)
        load->uses_last->tool = unused.tool;
    load_warning(load, action, "is not in forbidden_actions, so nothing forbids it");
}

void load_boundaries(struct load *load)
{
    struct contract *contract = load->contract;
    const struct node *group = keys_group(load->root, "boundaries");
    const struct node *list = keys_list(group, "forbidden_actions"), *actions = keys_group(group, "actions");
    keys_load(load, group, BOUNDARY_KEYS, KEYS_COUNT(BOUNDARY_KEYS), contract);
    take_allowed(load, keys_list(group, "allowed_tools"));
    contract->forbidden = ARENA_ARRAY(load->arena, (list != NULL ? list->count : 0) + 1, struct forbidden);
    for (const struct node *node = list != NULL ? list->first : NULL; node != NULL; node = node->next)
        take_forbidden(load, node, actions, &contract->forbidden[contract->forbidden_count++]);
    for (const struct node *action = actions != NULL ? actions->first : NULL; action != NULL; action = action->next)
        check_action(load, action, list);
}

/* ---- checkpoints and criteria ---- */

static void take_checkpoint(struct load *load, const struct node *node, struct checkpoint *checkpoint)
{
    struct contract *contract = load->contract;
    int32_t index = (int32_t)(checkpoint - contract->checkpoints);
    keys_load(load, node, CHECKPOINT_KEYS, KEYS_COUNT(CHECKPOINT_KEYS), checkpoint);
    struct step *step = checkpoint->step >= 0 ? &contract->steps[checkpoint->step] : NULL;
    struct step *guarded = checkpoint->guards >= 0 ? &contract->steps[checkpoint->guards] : NULL;
    const struct node *step_node = tree_member(node, "step"), *guards_node = tree_member(node, "guards");
    if (step != NULL && step->kind != STEP_APPROVAL)
        load_error(load, step_node, "\"%.*s\" is no approval: give that step approval = true", STR_ARG(step->name));
    else if (step != NULL && step->checkpoint >= 0)
        load_error(load, step_node, "\"%.*s\" has an entry already", STR_ARG(step->name));
    else if (step != NULL)
        step->checkpoint = index;
    bool write = guarded != NULL && guarded->kind == STEP_TOOL && guarded->tool >= 0 && guarded->agent < 0;
    if (guarded != NULL && !write && (guarded->kind != STEP_TOOL || guarded->tool >= 0))
        load_error(load, guards_node,
                   "\"%.*s\" calls no tool endpoint: a person approves a call's arguments, and it has none",
                   STR_ARG(guarded->name));
    else if (guarded != NULL && guarded->guarded_by >= 0)
        load_error(load, guards_node, "\"%.*s\" is guarded already: two approvals of one step are not supported yet",
                   STR_ARG(guarded->name));
    else if (guarded != NULL)
        guarded->guarded_by = index;
    if ((int)checkpoint->timeout_action <= (int)TIMEOUT_REJECT)
        return;
    const struct node *action = tree_member(node, "timeout_action");
    write = write && contract->tools[guarded->tool].effect == EFFECT_WRITE;
    load_error(load, action, "\"%s\" is %s: write \"pause\" or \"reject\"", TIMEOUT_ACTIONS[checkpoint->timeout_action],
               str_is(tree_text(action), "approve") && write ? "refused on a guarded write: silence is no consent"
                                                             : "not supported yet");
    checkpoint->timeout_action = TIMEOUT_PAUSE;
}

void load_checkpoints(struct load *load)
{
    struct contract *contract = load->contract;
    const struct node *list = keys_list(load->root, "human_checkpoints");
    size_t count = list != NULL ? list->count : 0;
    contract->checkpoints = ARENA_ARRAY(load->arena, count + 1, struct checkpoint);
    load->checkpoint_nodes = ARENA_ARRAY(load->arena, count + 1, const struct node *);
    for (const struct node *node = count > 0 ? list->first : NULL; node != NULL; node = node->next) {
        if (!json_is_object(node->json)) {
            load_error(load, node, "must be a group: { step = \"...\"; guards = \"...\"; timeout = \"24h\"; }");
            continue;
        }
        load->checkpoint_nodes[contract->checkpoints_count] = node;
        take_checkpoint(load, node, &contract->checkpoints[contract->checkpoints_count++]);
    }
}

/* ">= 95%", "< 0.1": a comparison and a number. */
static bool is_threshold(struct str text)
{
    const char *at = text.data;
    size_t digits = 0, points = 0;
    at += *at == '<' || *at == '>' || (*at == '=' && at[1] == '=') ? 1 : 0;
    at += at > text.data && *at == '=' ? 1 : 0;
    if (at == text.data)
        return false;
    while (*at == ' ')
        at++;
    for (; (*at >= '0' && *at <= '9') || *at == '.'; at++) {
        points += *at == '.';
        digits += *at != '.';
    }
    at += *at == '%';
    return digits > 0 && points <= 1 && *at == '\0' && at == text.data + text.size;
}

static void take_metrics(struct load *load, const struct node *group)
{
    struct contract *contract = load->contract;
    contract->metrics = ARENA_ARRAY(load->arena, group->count + 1, struct metric);
    for (const struct node *node = group->first; node != NULL; node = node->next) {
        struct str threshold = tree_text(node);
        load_name(load, node, node->key, NULL);
        if (threshold.data == NULL || !is_threshold(threshold))
            load_error(load, node, "must be a threshold: >= <= < > or ==, then a number, such as \">= 95%%\"");
        contract->metrics[contract->metrics_count++] = (struct metric){.name = node->key, .threshold = threshold};
    }
}

static void check_criterion(struct load *load, const struct node *node, const struct criterion *criterion)
{
    const struct node *check = tree_member(node, "check"), *judge = tree_member(node, "judge");
    const struct node *sees = tree_member(node, "sees"), *before = tree_member(node, "before");
    if (before != NULL && tree_member(node, "after") != NULL)
        load_error(load, before, "stands beside after: a criterion is asked once, either after a step or before one");
    if (check == NULL && judge == NULL)
        load_error(load, node, "nothing decides: give it check = \"jq\" or judge = \"agent\"");
    if (check != NULL && judge != NULL)
        load_error(load, judge, "stands beside check: make two criteria of it");
    if (sees != NULL && judge == NULL)
        load_error(load, sees, "makes no sense without judge: it is what the judge is shown");
    if (before != NULL && judge != NULL)
        load_error(load, judge, "cannot stand before a step: a gate is a check; ask the judge after an earlier step");
    const struct step *after = criterion->after >= 0 ? &load->contract->steps[criterion->after] : NULL;
    if (after != NULL && (after->kind == STEP_ROUTER || after->kind == STEP_APPROVAL))
        load_error(load, tree_member(node, "after"),
                   "\"%.*s\" is a step with %s, which makes nothing that can be judged", STR_ARG(after->name),
                   step_kind_name(after->kind));
    if (criterion->judge >= 0 && load->contract->agents[criterion->judge].tools_count > 0)
        load_error(load, judge, "\"%.*s\" has tools: a judge answers yes or no from what it is shown",
                   STR_ARG(load->contract->agents[criterion->judge].name));
}

void load_criteria(struct load *load)
{
    struct contract *contract = load->contract;
    const struct node *group = keys_group(load->root, "success_criteria");
    const struct node *list = keys_list(group, "output"), *metrics = keys_group(group, "metrics");
    size_t count = list != NULL ? list->count : 0;
    keys_load(load, group, CRITERIA_KEYS, KEYS_COUNT(CRITERIA_KEYS), contract);
    contract->criteria = ARENA_ARRAY(load->arena, count + 1, struct criterion);
    load->criterion_nodes = ARENA_ARRAY(load->arena, count + 1, const struct node *);
    for (const struct node *node = count > 0 ? list->first : NULL; node != NULL; node = node->next) {
        if (!json_is_object(node->json)) {
            load_error(load, node, "must be a group: { says = \"...\"; after = \"step\"; check = \"jq\"; }");
            continue;
        }
        struct criterion *criterion = &contract->criteria[contract->criteria_count];
        load->criterion_nodes[contract->criteria_count++] = node;
        keys_load(load, node, CRITERION_KEYS, KEYS_COUNT(CRITERION_KEYS), criterion);
        check_criterion(load, node, criterion);
    }
    if (metrics != NULL)
        take_metrics(load, metrics);
}
