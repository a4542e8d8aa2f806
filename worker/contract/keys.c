#include "worker/contract/keys.h"

#include <string.h>

#include "worker/base/units.h"

_Static_assert(sizeof(enum on_doubt) == sizeof(int32_t), "KEY_WORD fills enums through an int32_t");

const char *keys_type_name(const struct node *node)
{
    switch (json_typeof(node->json)) {
    case JSON_OBJECT:
        return "a group";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    default:
        return "null";
    }
}

const struct node *keys_group(const struct node *group, const char *name)
{
    const struct node *member = tree_member(group, name);
    return member != NULL && json_is_object(member->json) ? member : NULL;
}

const struct node *keys_list(const struct node *group, const char *name)
{
    const struct node *member = tree_member(group, name);
    return member != NULL && json_is_array(member->json) ? member : NULL;
}

static void wrong_type(struct load *load, const struct node *node, const char *wanted)
{
    load_error(load, node, "is %s, must be %s", keys_type_name(node), wanted);
}

/* ---- one value each; each says itself what is wrong, and leaves the default then ---- */

static void take_text(struct load *load, const struct key *key, const struct node *node, struct str *field)
{
    struct str text = tree_text(node);
    if (text.data == NULL)
        wrong_type(load, node, key->type == KEY_NAME ? "a name in double quotes" : "a text in double quotes");
    else if (text.size == 0)
        load_error(load, node, "is empty: write what it is, or leave it out");
    else if (key->type == KEY_TEXT || load_name(load, node, text, NULL))
        *field = text;
}

static void take_count(struct load *load, const struct key *key, const struct node *node, char *field)
{
    int64_t value = json_integer_value(node->json);
    if (!json_is_integer(node->json)) {
        wrong_type(load, node, "a whole number without quotes");
        return;
    }
    if (value < key->low || value > key->high) {
        load_error(load, node, "is %lld, allowed are %lld to %lld", (long long)value, (long long)key->low,
                   (long long)key->high);
        return;
    }
    int32_t narrow = (int32_t)value;
    if (key->type == KEY_COUNT)
        memcpy(field, &narrow, sizeof(narrow));
    else
        memcpy(field, &value, sizeof(value));
}

static void take_duration(struct load *load, const struct key *key, const struct node *node, int64_t *field)
{
    int64_t ms;
    struct str text = tree_text(node);
    if (json_is_number(node->json))
        load_error(load, node, "a duration without its unit: write \"%gs\" (or ms, m, h, d)",
                   json_number_value(node->json));
    else if (text.data == NULL)
        wrong_type(load, node, UNITS_DURATION_SAYS);
    else if (!units_duration(text, &ms))
        load_error(load, node, "\"%.*s\" is no duration: write " UNITS_DURATION_SAYS, STR_ARG(text));
    else if (ms < key->low || ms > key->high)
        load_error(load, node, "is \"%.*s\", allowed are \"%s\" to \"%s\"", STR_ARG(text),
                   units_duration_text(load->arena, key->low).data, units_duration_text(load->arena, key->high).data);
    else
        *field = ms;
}

static void take_money(struct load *load, const struct key *key, const struct node *node, int64_t *field)
{
    int64_t micro_usd;
    struct str text = tree_text(node);
    if (json_is_number(node->json))
        load_error(load, node, "money without quotes is a fraction, which is not exact: write \"%.2f\"",
                   json_number_value(node->json));
    else if (text.data == NULL)
        wrong_type(load, node, UNITS_USD_SAYS);
    else if (!units_usd(text, &micro_usd))
        load_error(load, node, "\"%.*s\" is no amount: write " UNITS_USD_SAYS, STR_ARG(text));
    else if (micro_usd < key->low || micro_usd > key->high)
        load_error(load, node, "is \"%.*s\", allowed are \"%s\" to \"%s\"", STR_ARG(text),
                   units_usd_text(load->arena, key->low).data, units_usd_text(load->arena, key->high).data);
    else
        *field = micro_usd;
}

static void take_word(struct load *load, const struct key *key, const struct node *node, char *field)
{
    struct str words[16];
    size_t count = 0;
    for (; key->words[count] != NULL; count++)
        words[count] = str_of(key->words[count]);
    struct str text = tree_text(node);
    for (int32_t i = 0; i < (int32_t)count; i++) {
        if (!str_equal(text, words[i]))
            continue;
        memcpy(field, &i, sizeof(i));
        return;
    }
    if (text.data == NULL)
        wrong_type(load, node, arena_printf(load->arena, "one of %s", load_list(load, words, count).data).data);
    else
        load_error(load, node, "\"%.*s\" is not known here%sallowed are: %s", STR_ARG(text),
                   load_near(load, text, words, count), load_list(load, words, count).data);
}

static void take_expr(struct load *load, const struct key *key, const struct node *node, const struct expr **field)
{
    struct error error;
    struct str text = tree_text(node);
    if (text.data == NULL) {
        wrong_type(load, node, "a jq expression in double quotes");
        return;
    }
    if (++load->exprs_count > LOAD_EXPRS_MAX) {
        if (load->exprs_count == LOAD_EXPRS_MAX + 1)
            load_error(load, load->root, "more than %d expressions in one contract", LOAD_EXPRS_MAX);
        return;
    }
    *field = expr_compile(text, &error);
    if (*field == NULL)
        load_error(load, node, "bad jq: %s", error.text);
    else
        load_use(load, *field, node, key->roots);
}

struct schema_place {
    struct load *load;
    const struct node *node;
};

static void schema_problem_at(void *context, const json_t *at, const char *path, const char *text)
{
    struct schema_place *place = context;
    const struct node *node = tree_find(place->node, path);
    /* `at` and the path mean the same; a name with a dot in it cannot be found by its path. */
    if (node->json == at || at == NULL)
        load_error(place->load, node, "%s", text);
    else
        load_error(place->load, place->node, "%s: %s", path, text);
}

static void take_schema(struct load *load, const struct node *node, struct schema **field)
{
    struct schema_place place = {.load = load, .node = node};
    struct str text = tree_text(node);
    if (text.size > 0 && *text.data == '@') {
        /* In a file it was tried already, and what was wrong was said. */
        if (node->line == 0)
            load_error(load, node,
                       "\"@file\" is inlined when a contract is published: here the schema itself must stand");
        return;
    }
    if (!json_is_object(node->json))
        wrong_type(load, node, "a schema: a group of JSON Schema keywords, or \"@file.json\"");
    else
        *field = schema_compile(load->arena, node->json, schema_problem_at, &place);
}

static void take_reference(struct load *load, const struct key *key, const struct node *node, int32_t *field)
{
    const struct contract *contract = load->contract;
    struct str text = tree_text(node);
    const char *what = key->type == KEY_AGENT ? "agent" : key->type == KEY_TOOL ? "tool" : "step";
    const struct str *names = key->type == KEY_AGENT  ? load->agent_names
                              : key->type == KEY_TOOL ? load->tool_names
                                                      : load->step_names;
    size_t count = key->type == KEY_AGENT  ? contract->agents_count
                   : key->type == KEY_TOOL ? contract->tools_count
                                           : contract->steps_count;
    if (key->type == KEY_TARGET && str_is(text, "end")) {
        *field = TARGET_END;
    } else if (key->type == KEY_TARGET && str_is(text, "undo")) {
        load_error(load, node, "\"undo\" is not supported yet: name a step, or \"end\"");
        *field = TARGET_END;
    } else {
        *field = load_find(names, count, text);
        if (*field < 0)
            *field = load_unknown(load, node, what, names, count);
    }
}

void keys_take(struct load *load, const struct key *key, const struct node *node, void *field)
{
    switch (key->type) {
    case KEY_TEXT:
    case KEY_NAME:
        take_text(load, key, node, field);
        return;
    case KEY_BOOL:
        if (json_is_boolean(node->json))
            *(bool *)field = json_is_true(node->json);
        else
            wrong_type(load, node, "true or false, without quotes");
        return;
    case KEY_COUNT:
    case KEY_BIG_COUNT:
        take_count(load, key, node, field);
        return;
    case KEY_DURATION:
        take_duration(load, key, node, field);
        return;
    case KEY_MONEY:
        take_money(load, key, node, field);
        return;
    case KEY_WORD:
        take_word(load, key, node, field);
        return;
    case KEY_EXPR:
        take_expr(load, key, node, field);
        return;
    case KEY_SCHEMA:
        take_schema(load, node, field);
        return;
    case KEY_AGENT:
    case KEY_TOOL:
    case KEY_STEP:
    case KEY_TARGET:
        take_reference(load, key, node, field);
        return;
    case KEY_GROUP:
        if (!json_is_object(node->json))
            wrong_type(load, node, "a group { ... }");
        return;
    case KEY_LIST:
        if (!json_is_array(node->json))
            wrong_type(load, node, "a list");
        return;
    case KEY_LATER:
        load_error(load, node, "is not supported yet");
        return;
    case KEY_ANY:
        return;
    }
}

static void set_default(const struct key *key, char *field)
{
    struct str text = str_of(key->text);
    int32_t narrow = (int32_t)key->otherwise;
    switch (key->type) {
    case KEY_TEXT:
    case KEY_NAME:
        memcpy(field, &text, sizeof(text));
        return;
    case KEY_BOOL:
        *(bool *)field = key->otherwise != 0;
        return;
    case KEY_COUNT:
    case KEY_WORD:
    case KEY_AGENT:
    case KEY_TOOL:
    case KEY_STEP:
    case KEY_TARGET:
        memcpy(field, &narrow, sizeof(narrow));
        return;
    case KEY_BIG_COUNT:
    case KEY_DURATION:
    case KEY_MONEY:
        memcpy(field, &key->otherwise, sizeof(key->otherwise));
        return;
    default: /* pointers are NULL in a fresh struct; groups, lists and what comes later have no field */
        return;
    }
}

static void unknown_key(struct load *load, const struct node *group, const struct node *member, const struct key *keys,
                        size_t count)
{
    struct str *names = ARENA_ARRAY(load->arena, count, struct str);
    size_t known = 0;
    for (size_t i = 0; i < count; i++)
        if (keys[i].type != KEY_LATER)
            names[known++] = str_of(keys[i].name);
    struct node at = *group;
    at.line = member->line;
    load_error(load, &at, "unknown key \"%.*s\"%sknown here: %s", STR_ARG(member->key),
               load_near(load, member->key, names, known), load_list(load, names, known).data);
}

void keys_load_also(struct load *load, const struct node *group, const struct key *keys, size_t count, void *target,
                    const struct str *also, size_t also_count)
{
    for (size_t i = 0; i < count; i++) {
        char *field = (char *)target + keys[i].offset;
        const struct node *node = tree_member(group, keys[i].name);
        set_default(&keys[i], field);
        if (node != NULL)
            keys_take(load, &keys[i], node, field);
        else if (keys[i].required && group != NULL)
            load_error(load, group, "%s is missing", keys[i].name);
    }
    for (const struct node *member = group != NULL ? group->first : NULL; member != NULL; member = member->next) {
        bool known = load_find(also, also_count, member->key) >= 0;
        for (size_t i = 0; i < count && !known; i++)
            known = str_is(member->key, keys[i].name);
        if (!known)
            unknown_key(load, group, member, keys, count);
    }
}

void keys_load(struct load *load, const struct node *group, const struct key *keys, size_t count, void *target)
{
    keys_load_also(load, group, keys, count, target, NULL, 0);
}
