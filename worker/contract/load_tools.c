#include "worker/contract/keys.h"

#include <stddef.h>

static const char *const METHODS[] = {"POST", "GET", "PUT", "PATCH", "DELETE", NULL};
/* What an endpoint can be: never EFFECT_NONE, for a call goes out. */
static const char *const EFFECTS[] = {"read", "write", NULL};
static const char *const ON_DOUBT[] = {"ask", "retry", "probe", "fail", NULL}; /* enum on_doubt */

/* clang-format off: tables */
#define TOOL(field) offsetof(struct tool_draft, tool.field)

/* A tool while it is read: what the contract keeps, and what decides about the rest. */
struct tool_draft {
    struct tool tool;
    int32_t method;
    int32_t effect;   /* in EFFECTS */
    int32_t on_doubt; /* -1 = not given */
};

static const struct key TOOL_KEYS[] = {
    {.name = "agent", .type = KEY_AGENT, .offset = TOOL(agent), .otherwise = -1},
    {.name = "description", .type = KEY_TEXT, .offset = TOOL(description)},
    {.name = "parameters", .type = KEY_SCHEMA, .offset = TOOL(parameters)},
    {.name = "url", .type = KEY_TEXT, .offset = TOOL(url)},
    {.name = "method", .type = KEY_WORD, .offset = offsetof(struct tool_draft, method), .words = METHODS},
    {.name = "headers", .type = KEY_GROUP},
    {.name = "effect", .type = KEY_WORD, .offset = offsetof(struct tool_draft, effect), .words = EFFECTS},
    {.name = "timeout",
     .type = KEY_DURATION,
     .offset = TOOL(timeout_ms),
     .low = 1,
     .high = HOUR_MS,
     .otherwise = 30 * SECOND_MS},
    {.name = "on_doubt",
     .type = KEY_WORD,
     .offset = offsetof(struct tool_draft, on_doubt),
     .otherwise = -1,
     .words = ON_DOUBT},
    {.name = "probe", .type = KEY_GROUP},
    {.name = "not_executed", .type = KEY_LIST},
    {.name = "mcp", .type = KEY_LATER},
    {.name = "gives", .type = KEY_LATER},
    {.name = "sees", .type = KEY_LATER},
    {.name = "undo", .type = KEY_LATER},
    {.name = "approval", .type = KEY_LATER},
};

static const struct key PROBE_KEYS[] = {
    {.name = "url", .type = KEY_TEXT, .required = true, .offset = offsetof(struct tool_probe, url)},
    {.name = "done",
     .type = KEY_EXPR,
     .required = true,
     .offset = offsetof(struct tool_probe, done),
     .roots = ROOTS_ANSWER},
    {.name = "not_done", .type = KEY_EXPR, .offset = offsetof(struct tool_probe, not_done), .roots = ROOTS_ANSWER},
    {.name = "result", .type = KEY_EXPR, .offset = offsetof(struct tool_probe, result), .roots = ROOTS_ANSWER},
    {.name = "after",
     .type = KEY_DURATION,
     .offset = offsetof(struct tool_probe, after_ms),
     .low = 1,
     .high = DAY_MS,
     .otherwise = 5 * SECOND_MS},
    {.name = "probes_max",
     .type = KEY_COUNT,
     .offset = offsetof(struct tool_probe, probes_max),
     .low = 1,
     .high = 100,
     .otherwise = 5},
};

#define AGENT(field) offsetof(struct agent, field)

static const struct key AGENT_KEYS[] = {
    {.name = "model", .type = KEY_TEXT, .required = true, .offset = AGENT(model)},
    {.name = "system", .type = KEY_TEXT, .offset = AGENT(system)},
    {.name = "tools", .type = KEY_LIST},
    {.name = "turns_max", .type = KEY_COUNT, .offset = AGENT(turns_max), .low = 1, .high = 100, .otherwise = 8},
    {.name = "output", .type = KEY_SCHEMA, .offset = AGENT(output)},
    {.name = "check", .type = KEY_EXPR, .offset = AGENT(check), .roots = ROOTS_WITH_CALLS},
    {.name = "pool", .type = KEY_NAME, .offset = AGENT(pool)},
    {.name = "fallback", .type = KEY_LATER},
    {.name = "fallback_model", .type = KEY_LATER},
    {.name = "fallback_models", .type = KEY_LATER},
    {.name = "models", .type = KEY_LATER},
    {.name = "approval", .type = KEY_LATER},
    {.name = "gives", .type = KEY_LATER},
    {.name = "mcp", .type = KEY_LATER},
};
/* clang-format on */

static void take_headers(struct load *load, const struct node *group, struct tool *tool)
{
    tool->headers = ARENA_ARRAY(load->arena, group->count + 1, struct tool_header);
    for (const struct node *node = group->first; node != NULL; node = node->next) {
        struct str value = tree_text(node);
        if (value.data == NULL)
            load_error(load, node, "is %s, must be a text in double quotes", keys_type_name(node));
        else
            tool->headers[tool->headers_count++] = (struct tool_header){.name = node->key, .value = value};
    }
}

/* HTTP statuses by which the tool says that it surely did nothing. A success cannot say that. */
static void take_not_executed(struct load *load, const struct node *list, struct tool *tool)
{
    tool->not_executed = ARENA_ARRAY(load->arena, list->count + 1, int32_t);
    for (const struct node *node = list->first; node != NULL; node = node->next) {
        json_int_t status = json_integer_value(node->json);
        if (!json_is_integer(node->json) || status < 300 || status > 599)
            load_error(load, node, "must be an HTTP status from 300 to 599");
        else
            tool->not_executed[tool->not_executed_count++] = (int32_t)status;
    }
}

/* A tool is an endpoint or an agent; what belongs to the one makes no sense on the other. */
static void check_form(struct load *load, const struct node *node)
{
    static const char *const http_keys[] = {"url",     "method",   "headers", "effect",
                                            "timeout", "on_doubt", "probe",   "not_executed"};
    const struct node *agent = tree_member(node, "agent"), *url = tree_member(node, "url");
    if (tree_member(node, "mcp") != NULL)
        return; /* said: not supported yet */
    if (agent == NULL && url == NULL)
        load_error(load, node, "says not what it is: give it a url, or agent = \"...\"");
    for (size_t i = 0; agent != NULL && i < KEYS_COUNT(http_keys); i++) {
        const struct node *member = tree_member(node, http_keys[i]);
        if (member != NULL)
            load_error(load, member, "makes no sense on a tool that is an agent");
    }
    if (agent == NULL && url != NULL && tree_member(node, "effect") == NULL)
        load_error(load, node, "effect is missing: \"read\" when a second call does no harm, else \"write\"");
}

/* Its effect, and what becomes of a write of which nobody knows whether it happened (I5). */
static void take_doubt(struct load *load, const struct node *node, struct tool_draft *draft)
{
    const struct node *on_doubt = tree_member(node, "on_doubt"), *probe = keys_group(node, "probe");
    struct tool *tool = &draft->tool;
    tool->effect = draft->effect == 0 ? EFFECT_READ : EFFECT_WRITE;
    tool->on_doubt = draft->on_doubt < 0 ? DOUBT_ASK : (enum on_doubt)draft->on_doubt;
    if (tool->effect != EFFECT_WRITE) {
        const struct node *given = on_doubt != NULL ? on_doubt : probe;
        if (given != NULL && str_is(tree_text(tree_member(node, "effect")), "read"))
            load_error(load, given, "makes no sense here: only a tool with effect = \"write\" can be in doubt");
        return;
    }
    if (on_doubt == NULL && !load->doubt_policy)
        load_error(
            load, node,
            "a write without on_doubt: say what to do when nobody knows whether it happened (\"ask\" a person, "
            "\"retry\" with the same key, \"probe\", \"fail\"), or set recovery_policy.duplicate_side_effect_policy");
    if (draft->on_doubt == DOUBT_PROBE && probe == NULL)
        load_error(load, on_doubt, "\"probe\" needs the group probe = { url = \"...\"; done = \"jq\"; }");
    if (probe != NULL && draft->on_doubt != DOUBT_PROBE)
        load_error(load, probe, "is never used: write on_doubt = \"probe\"");
    if (probe == NULL)
        return;
    tool->probe = ARENA_NEW(load->arena, struct tool_probe);
    keys_load(load, probe, PROBE_KEYS, KEYS_COUNT(PROBE_KEYS), tool->probe);
}

void load_tools(struct load *load)
{
    for (size_t i = 0; i < load->contract->tools_count; i++) {
        const struct node *node = load->tool_nodes[i];
        struct tool_draft draft = {.tool = {.name = node->key}};
        keys_load(load, json_is_object(node->json) ? node : NULL, TOOL_KEYS, KEYS_COUNT(TOOL_KEYS), &draft);
        if (json_is_object(node->json)) {
            check_form(load, node);
            take_doubt(load, node, &draft);
        }
        if (draft.tool.agent < 0)
            draft.tool.method = str_of(METHODS[draft.method]);
        if (keys_group(node, "headers") != NULL)
            take_headers(load, keys_group(node, "headers"), &draft.tool);
        if (keys_list(node, "not_executed") != NULL)
            take_not_executed(load, keys_list(node, "not_executed"), &draft.tool);
        load->contract->tools[i] = draft.tool;
    }
}

static void take_agent_tools(struct load *load, const struct node *list, struct agent *agent)
{
    agent->tools = ARENA_ARRAY(load->arena, list->count + 1, int32_t);
    for (const struct node *node = list->first; node != NULL; node = node->next) {
        struct str name = tree_text(node);
        int32_t tool = load_find(load->tool_names, load->contract->tools_count, name);
        bool twice = false;
        for (size_t i = 0; i < agent->tools_count; i++)
            twice = twice || (tool >= 0 && agent->tools[i] == tool);
        if (tool < 0)
            load_unknown(load, node, "tool", load->tool_names, load->contract->tools_count);
        else if (twice)
            load_error(load, node, "\"%.*s\" stands here twice", STR_ARG(name));
        else
            agent->tools[agent->tools_count++] = tool;
    }
}

void load_agents(struct load *load)
{
    for (size_t i = 0; i < load->contract->agents_count; i++) {
        const struct node *node = load->agent_nodes[i];
        struct agent *agent = &load->contract->agents[i];
        agent->name = node->key;
        keys_load(load, json_is_object(node->json) ? node : NULL, AGENT_KEYS, KEYS_COUNT(AGENT_KEYS), agent);
        const struct node *model = tree_member(node, "model");
        agent->model_line = model != NULL ? model->line : 0;
        if (keys_list(node, "tools") != NULL)
            take_agent_tools(load, keys_list(node, "tools"), agent);
    }
}
