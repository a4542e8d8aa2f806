/*
 * check_roots.c: what the expressions read. A path whose first name means nothing is null for ever in jq: here
 * it is an error, with the name that was probably meant.
 */
#include <string.h>

#include "worker/contract/keys.h"

/* The names after `.vars` in an expression, outside of its strings (a string's \( ) is code again). */
struct var_reader {
    struct str text;
    size_t at;
};

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static struct str next_var(struct var_reader *r)
{
    static const char root[] = ".vars.";
    for (; r->at + sizeof(root) - 1 < r->text.size; r->at++) {
        const char *here = r->text.data + r->at;
        bool member = r->at > 0 && (is_word(here[-1]) || strchr("]?\"", here[-1]) != NULL);
        if (member || strncmp(here, root, sizeof(root) - 1) != 0)
            continue;
        struct str name = {.data = here + sizeof(root) - 1, .size = 0};
        while (is_word(name.data[name.size]))
            name.size++;
        r->at += sizeof(root) - 1 + name.size;
        if (name.size > 0)
            return name;
    }
    return STR_NONE;
}

static void check_vars(struct load *load, const struct use *use)
{
    struct var_reader reader = {.text = expr_text(use->expr)};
    for (struct str name = next_var(&reader); name.data != NULL; name = next_var(&reader))
        if (load_find(load->vars, load->vars_count, name) < 0)
            load_error(load, use->node, ".vars.%.*s is set by no step%sset are: %s", STR_ARG(name),
                       load_near(load, name, load->vars, load->vars_count),
                       load_list(load, load->vars, load->vars_count).data);
}

/* Has the expression's criterion or step calls of its own to look at? At the end of a run, and before a step,
 * there are none. */
static bool has_calls(const struct use *use)
{
    const struct node *owner = use->node->parent;
    bool criterion = owner->key.data == NULL;
    return use->roots == ROOTS_WITH_CALLS && (!criterion || tree_member(owner, "after") != NULL);
}

static void check_use_roots(struct load *load, const struct use *use)
{
    const struct contract *contract = load->contract;
    struct str *known = ARENA_ARRAY(load->arena, contract->steps_count + 4, struct str);
    size_t known_count = 0;
    if (use->roots == ROOTS_ARGS) {
        const struct node *parameters = use->tool >= 0 ? keys_group(load->tool_nodes[use->tool], "parameters") : NULL;
        const struct node *properties = keys_group(parameters, "properties");
        if (properties == NULL)
            return;
        known = ARENA_ARRAY(load->arena, properties->count + 1, struct str);
        for (const struct node *one = properties->first; one != NULL; one = one->next)
            known[known_count++] = one->key;
    } else {
        known[known_count++] = STR("input");
        known[known_count++] = STR("vars");
        known[known_count++] = STR("run");
        if (has_calls(use))
            known[known_count++] = STR("calls");
        for (size_t i = 0; i < contract->steps_count; i++)
            known[known_count++] = load->step_names[i];
        check_vars(load, use);
    }
    struct str *roots;
    size_t count = expr_roots(use->expr, load->arena, &roots);
    for (size_t i = 0; i < count; i++) {
        if (load_find(known, known_count, roots[i]) >= 0)
            continue;
        if (str_is(roots[i], "calls") && use->roots != ROOTS_ARGS)
            load_error(load, use->node,
                       ".calls means nothing here: it is for a step's check, and for a criterion with after");
        else
            load_error(load, use->node, ".%.*s names nothing%sknown here: %s", STR_ARG(roots[i]),
                       load_near(load, roots[i], known, known_count), load_list(load, known, known_count).data);
    }
}

void check_roots(struct load *load)
{
    for (const struct use *use = load->uses; use != NULL; use = use->next)
        if (use->roots != ROOTS_ANSWER)
            check_use_roots(load, use);
}
