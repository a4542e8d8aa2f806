/*
 * check.c: what is asked of the parts together: every text, and the tools with those who use them. The graph
 * has a file of its own, and so have the expressions.
 */
#include <string.h>
#include <strings.h>

#include "worker/contract/keys.h"

/* ---- every text ---- */

static bool is_env_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* The first ${NAME} in a text, or STR_NONE. */
static struct str find_variable(struct str text)
{
    for (size_t i = 0; i + 3 < text.size; i++) {
        if (text.data[i] != '$' || text.data[i + 1] != '{' || !is_env_char(text.data[i + 2]))
            continue;
        const char *end = memchr(text.data + i, '}', text.size - i);
        return (struct str){.data = text.data + i,
                            .size = end != NULL ? (size_t)(end - text.data) + 1 - i : text.size - i};
    }
    return STR_NONE;
}

/* tools.NAME.url, tools.NAME.headers.NAME, tools.NAME.probe.url */
static bool may_hold_variables(const struct load *load, const struct node *node)
{
    const struct node *tools = tree_member(load->root, "tools"), *parent = node->parent;
    const struct node *above = parent != NULL ? parent->parent : NULL;
    if (tools == NULL || above == NULL)
        return false;
    if (above == tools)
        return str_is(node->key, "url");
    return above->parent == tools &&
           (str_is(parent->key, "headers") || (str_is(parent->key, "probe") && str_is(node->key, "url")));
}

static void check_text(struct load *load, const struct node *node)
{
    struct str text = tree_text(node), variable = find_variable(text);
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if ((c >= 0x20 && c != 0x7F) || c == '\n' || c == '\r' || c == '\t')
            continue;
        load_error(load, node, "holds the control character 0x%02x", c);
        break;
    }
    if (variable.data != NULL && !may_hold_variables(load, node))
        load_error(load, node, "%.*s would stay as it is: variables are for url and headers alone", STR_ARG(variable));
    for (const struct node *child = node->first; child != NULL; child = child->next)
        check_text(load, child);
}

void check_texts(struct load *load)
{
    check_text(load, load->root);
}

/* ---- URLs and headers ---- */

/* `{name}` must be a parameter, `{key}` is the idempotency key, `${NAME}` a variable. */
static void check_placeholders(struct load *load, const struct node *node, const struct node *parameters)
{
    struct str url = tree_text(node);
    const struct node *properties = keys_group(parameters, "properties");
    size_t known_count = 0;
    struct str *known = ARENA_ARRAY(load->arena, (properties != NULL ? properties->count : 0) + 1, struct str);
    known[known_count++] = STR("key");
    for (const struct node *one = properties != NULL ? properties->first : NULL; one != NULL; one = one->next)
        known[known_count++] = one->key;
    for (size_t i = 0; i < url.size; i++) {
        if (url.data[i] == '}')
            load_error(load, node, "a `}` that closes nothing");
        if (url.data[i] != '{')
            continue;
        const char *end = memchr(url.data + i, '}', url.size - i);
        if (end == NULL) {
            load_error(load, node, "a `{` that is never closed");
            return;
        }
        struct str name = {.data = url.data + i + 1, .size = (size_t)(end - url.data) - i - 1};
        bool variable = i > 0 && url.data[i - 1] == '$';
        if (variable && (name.size == 0 || !is_env_char(*name.data)))
            load_error(load, node, "${%.*s} names no variable", STR_ARG(name));
        else if (!variable && load_find(known, known_count, name) < 0)
            load_error(load, node, "{%.*s} is no parameter of this tool%sknown here: %s", STR_ARG(name),
                       load_near(load, name, known, known_count), load_list(load, known, known_count).data);
        i = (size_t)(end - url.data);
    }
}

static void check_url(struct load *load, const struct node *node, const struct node *parameters)
{
    struct str url = tree_text(node);
    if (url.size == 0)
        return; /* said by the table */
    bool http = url.size > 7 && strncasecmp(url.data, "http://", 7) == 0;
    bool https = url.size > 8 && strncasecmp(url.data, "https://", 8) == 0;
    if (!http && !https && (url.size < 3 || strncmp(url.data, "${", 2) != 0))
        load_error(load, node, "must start with http://, https:// or ${NAME}");
    if (strpbrk(url.data, " \t\r\n\"<>\\") != NULL)
        load_error(load, node, "a URL has no blanks, quotes, backslashes, < or >");
    check_placeholders(load, node, parameters);
}

static void check_headers(struct load *load, const struct node *headers)
{
    static const char *const ours[] = {"idempotency-key", "x-myelin-run",      "host",
                                       "content-length",  "transfer-encoding", "connection"};
    for (const struct node *node = headers != NULL ? headers->first : NULL; node != NULL; node = node->next) {
        for (size_t i = 0; i < KEYS_COUNT(ours); i++)
            if (strcasecmp(node->key.data, ours[i]) == 0)
                load_error(load, node,
                           "is set by the runtime, which needs it as it is: leave it out. Allowed are Authorization, "
                           "Content-Type and headers of the tool's own");
        bool good = node->key.size > 0;
        for (size_t i = 0; i < node->key.size; i++)
            good = good && (is_env_char(node->key.data[i]) || node->key.data[i] == '-');
        if (!good)
            load_error(load, node, "is no header name: letters, digits, - and _");
        if (tree_text(node).data != NULL && strpbrk(tree_text(node).data, "\r\n") != NULL)
            load_error(load, node, "a header is one line");
    }
}

/* ---- tools and who uses them ---- */

/* The node that names tool `tool` in an agent's list. */
static const struct node *tool_in_agent(const struct load *load, size_t agent, int32_t tool)
{
    const struct node *list = keys_list(load->agent_nodes[agent], "tools");
    for (const struct node *node = list->first; node != NULL; node = node->next)
        if (str_equal(tree_text(node), load->tool_names[tool]))
            return node;
    return list;
}

/* The rule that forbids a tool in a certain way, or NULL. */
static const struct forbidden *forbidden_as(const struct contract *contract, int32_t tool, enum forbidden_kind kind)
{
    for (size_t i = 0; i < contract->forbidden_count; i++)
        if (contract->forbidden[i].tool == tool && contract->forbidden[i].kind == kind)
            return &contract->forbidden[i];
    return NULL;
}

static void check_use(struct load *load, const struct node *node, int32_t tool)
{
    const struct contract *contract = load->contract;
    if (!contract->tools[tool].allowed)
        load_error(load, node, "\"%.*s\" is not in boundaries.allowed_tools: every call would be refused",
                   STR_ARG(load->tool_names[tool]));
    if (forbidden_as(contract, tool, FORBIDDEN_TOOL) != NULL)
        load_error(load, node, "\"%.*s\" is in boundaries.forbidden_actions: every call would be refused",
                   STR_ARG(load->tool_names[tool]));
}

static void check_agents_tools(struct load *load)
{
    const struct contract *contract = load->contract;
    for (size_t i = 0; i < contract->agents_count; i++)
        for (size_t k = 0; k < contract->agents[i].tools_count; k++) {
            int32_t index = contract->agents[i].tools[k];
            const struct tool *tool = &contract->tools[index];
            const struct node *node = tool_in_agent(load, i, index);
            check_use(load, node, index);
            if (tool->agent >= 0) {
                load_error(load, node,
                           "\"%.*s\" is an agent: an agent as another one's tool is not supported yet, make it a step",
                           STR_ARG(tool->name));
                continue;
            }
            if (tree_member(load->tool_nodes[index], "description") == NULL)
                load_error(load, load->tool_nodes[index],
                           "description is missing: the model of agents.%.*s may call it and must "
                           "know what it does",
                           STR_ARG(contract->agents[i].name));
            if (tree_member(load->tool_nodes[index], "parameters") == NULL)
                load_error(load, load->tool_nodes[index],
                           "parameters is missing: the model of agents.%.*s may call it and must "
                           "know its arguments",
                           STR_ARG(contract->agents[i].name));
            if (forbidden_as(contract, index, FORBIDDEN_WITHOUT_APPROVAL) != NULL)
                load_warning(load, node,
                             "every call will be refused: an agent cannot ask for an approval yet; make it a step");
        }
}

static void check_steps_tools(struct load *load)
{
    const struct contract *contract = load->contract;
    for (size_t i = 0; i < contract->steps_count; i++) {
        const struct step *step = &contract->steps[i];
        if (step->kind != STEP_TOOL || step->tool < 0)
            continue;
        const struct node *node = tree_member(load->step_nodes[i], "tool");
        const struct node *parameters = keys_group(load->tool_nodes[step->tool], "parameters");
        const struct node *required = keys_list(parameters, "required");
        check_use(load, node, step->tool);
        bool guarded = step->guarded_by >= 0 && contract->checkpoints[step->guarded_by].required;
        const struct forbidden *rule = forbidden_as(contract, step->tool, FORBIDDEN_WITHOUT_APPROVAL);
        if (rule != NULL && !guarded)
            load_error(
                load, node,
                "\"%.*s\" is forbidden (boundaries.forbidden_actions), and no required checkpoint guards this step",
                STR_ARG(rule->name));
        if (step->agent < 0 && required != NULL && required->count > 0 &&
            tree_member(load->step_nodes[i], "args") == NULL)
            load_error(load, load->step_nodes[i], "args is missing: the tool requires %zu parameters", required->count);
    }
}

void check_tools(struct load *load)
{
    const struct contract *contract = load->contract;
    for (size_t i = 0; i < contract->tools_count; i++) {
        const struct node *node = load->tool_nodes[i], *parameters = keys_group(node, "parameters");
        const struct node *url = tree_member(node, "url"), *probe_url = tree_member(keys_group(node, "probe"), "url");
        if (url != NULL)
            check_url(load, url, parameters);
        if (probe_url != NULL)
            check_url(load, probe_url, parameters);
        check_headers(load, keys_group(node, "headers"));
    }
    check_agents_tools(load);
    check_steps_tools(load);
    for (size_t i = 0; i < contract->forbidden_count; i++) {
        const struct forbidden *rule = &contract->forbidden[i];
        const struct node *list = keys_list(keys_group(load->root, "boundaries"), "allowed_tools");
        for (const struct node *node = list != NULL ? list->first : NULL; node != NULL; node = node->next)
            if (rule->kind == FORBIDDEN_TOOL && rule->tool >= 0 && str_equal(tree_text(node), rule->name))
                load_error(load, node, "\"%.*s\" is in forbidden_actions, too", STR_ARG(rule->name));
    }
}
