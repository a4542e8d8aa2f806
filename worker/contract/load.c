#include <string.h>

#include "worker/contract/keys.h"
#include "worker/contract/suggest.h"

#define NAME_SIZE_MAX 64
#define LIST_SHOWN_MAX 40

static void report(struct load *load, const struct node *node, bool warning, const char *format, va_list arguments)
{
    struct str path = tree_path(load->arena, node);
    struct str text = arena_vprintf(load->arena, format, arguments);
    problems_add(load->problems, load->file, node->line, warning, "%.*s%s%.*s", STR_ARG(path),
                 path.size > 0 ? ": " : "", STR_ARG(text));
}

void load_error(struct load *load, const struct node *node, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report(load, node, false, format, arguments);
    va_end(arguments);
}

void load_warning(struct load *load, const struct node *node, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report(load, node, true, format, arguments);
    va_end(arguments);
}

int32_t load_find(const struct str *names, size_t count, struct str name)
{
    for (size_t i = 0; i < count; i++)
        if (str_equal(names[i], name))
            return (int32_t)i;
    return -1;
}

struct str load_list(struct load *load, const struct str *names, size_t count)
{
    struct str list = count == 0 ? STR("none") : STR("");
    for (size_t i = 0; i < count && i < LIST_SHOWN_MAX; i++)
        list = arena_printf(load->arena, "%.*s%s%.*s", STR_ARG(list), i > 0 ? ", " : "", STR_ARG(names[i]));
    return count <= LIST_SHOWN_MAX ? list : arena_printf(load->arena, "%.*s, ...", STR_ARG(list));
}

const char *load_near(struct load *load, struct str word, const struct str *names, size_t count)
{
    struct str clause = suggest_clause(load->arena, word, names, count);
    return clause.size > 0 ? arena_printf(load->arena, "%.*s ", STR_ARG(clause)).data : "; ";
}

int32_t load_unknown(struct load *load, const struct node *node, const char *what, const struct str *names,
                     size_t count)
{
    struct str text = tree_text(node);
    if (text.data == NULL) {
        load_error(load, node, "is %s, must be the name of a %s in double quotes", keys_type_name(node), what);
        return -1;
    }
    struct str near = suggest(load->arena, text, names, count);
    load_error(load, node, "no such %s \"%.*s\"%sthe %ss are: %s", what, STR_ARG(text),
               load_near(load, text, names, count), what, load_list(load, names, count).data);
    return near.data != NULL ? load_find(names, count, near) : -1;
}

bool load_name(struct load *load, const struct node *node, struct str name, const char *const *reserved)
{
    bool good = name.size > 0 && name.size <= NAME_SIZE_MAX && name.data[0] >= 'a' && name.data[0] <= 'z';
    for (size_t i = 0; i < name.size; i++) {
        char c = name.data[i];
        good = good && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_');
    }
    if (!good) {
        bool dash = memchr(name.data, '-', name.size) != NULL;
        load_error(load, node, "\"%.*s\" is no name: small letters, digits and _, a letter first, at most %d%s",
                   STR_ARG(name), NAME_SIZE_MAX, dash ? "; jq would subtract at a dash: write _" : "");
        return false;
    }
    for (; reserved != NULL && *reserved != NULL; reserved++) {
        if (!str_is(name, *reserved))
            continue;
        load_error(load, node, "\"%.*s\" is reserved: expressions and edges use the word; take another name",
                   STR_ARG(name));
        return false;
    }
    return true;
}

void load_use(struct load *load, const struct expr *expr, const struct node *node, enum roots roots)
{
    struct use *use = ARENA_NEW(load->arena, struct use);
    *use = (struct use){.expr = expr, .node = node, .roots = roots, .tool = -1};
    if (load->uses == NULL)
        load->uses = use;
    else
        load->uses_last->next = use;
    load->uses_last = use;
}

/* ---- names ---- */

struct named_group {
    const char *what;
    size_t count_max;
    const char *const *reserved;
    const struct node **nodes;
    struct str *names;
    size_t count;
};

/* The members of a group whose keys are names of the author's choice. */
static void take_names(struct load *load, const char *key, struct named_group *named)
{
    const struct node *group = tree_member(load->root, key);
    size_t count = group != NULL && json_is_object(group->json) ? group->count : 0;
    if (count > named->count_max) {
        load_error(load, group, "%zu %s, allowed are %zu", count, key, named->count_max);
        count = named->count_max;
    }
    named->nodes = ARENA_ARRAY(load->arena, count + 1, const struct node *);
    named->names = ARENA_ARRAY(load->arena, count + 1, struct str);
    const struct node *node = count > 0 ? group->first : NULL;
    for (; node != NULL && named->count < count; node = node->next) {
        load_name(load, node, node->key, named->reserved);
        if (!json_is_object(node->json))
            load_error(load, node, "must be a group { ... }");
        named->nodes[named->count] = node;
        named->names[named->count++] = node->key;
    }
}

static void take_vars(struct load *load)
{
    size_t count = 0;
    for (size_t i = 0; i < load->contract->steps_count; i++) {
        const struct node *set = tree_member(load->step_nodes[i], "set");
        count += set != NULL ? set->count : 0;
    }
    load->vars = ARENA_ARRAY(load->arena, count + 1, struct str);
    for (size_t i = 0; i < load->contract->steps_count; i++) {
        const struct node *set = tree_member(load->step_nodes[i], "set");
        for (const struct node *var = set != NULL ? set->first : NULL; var != NULL; var = var->next)
            if (var->key.data != NULL && load_find(load->vars, load->vars_count, var->key) < 0)
                load->vars[load->vars_count++] = var->key;
    }
}

void load_names(struct load *load)
{
    /* `calls` is a root of a step's check; a step of that name could not be read there. */
    static const char *const reserved[] = {"input", "run", "vars", "start", "end", "undo", "calls", NULL};
    struct named_group tools = {.count_max = CONTRACT_TOOLS_MAX};
    struct named_group agents = {.count_max = CONTRACT_AGENTS_MAX};
    struct named_group steps = {.count_max = CONTRACT_STEPS_MAX, .reserved = reserved};
    struct contract *contract = load->contract;
    take_names(load, "tools", &tools);
    take_names(load, "agents", &agents);
    take_names(load, "steps", &steps);
    load->tool_nodes = tools.nodes;
    load->tool_names = tools.names;
    load->agent_nodes = agents.nodes;
    load->agent_names = agents.names;
    load->step_nodes = steps.nodes;
    load->step_names = steps.names;
    contract->tools_count = tools.count;
    contract->agents_count = agents.count;
    contract->steps_count = steps.count;
    contract->tools = ARENA_ARRAY(load->arena, tools.count + 1, struct tool);
    contract->agents = ARENA_ARRAY(load->arena, agents.count + 1, struct agent);
    contract->steps = ARENA_ARRAY(load->arena, steps.count + 1, struct step);
    load->loose = ARENA_ARRAY(load->arena, steps.count + 1, bool);
    take_vars(load);
}
