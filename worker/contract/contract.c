#include "worker/contract/contract.h"

#include <string.h>

#include "worker/base/json.h"
#include "worker/contract/load.h"
#include "worker/contract/source.h"

const char *edge_name(enum edge edge)
{
    static const char *const names[EDGE_COUNT] = {"next", "approved", "rejected", "timed_out", "failed"};
    return names[edge];
}

const char *effect_class_name(enum effect_class effect)
{
    static const char *const names[] = {"none", "read", "write"};
    return names[effect];
}

const char *step_kind_name(enum step_kind kind)
{
    static const char *const names[] = {"agent", "model", "tool", "router", "approval"};
    return names[kind];
}

int32_t contract_step(const struct contract *contract, struct str name)
{
    for (size_t i = 0; i < contract->steps_count; i++)
        if (str_equal(contract->steps[i].name, name))
            return (int32_t)i;
    return -1;
}

bool contract_may_write(const struct contract *contract, const struct step *step)
{
    bool may = step->tool >= 0 && contract->tools[step->tool].effect == EFFECT_WRITE;
    for (size_t i = 0; step->agent >= 0 && i < contract->agents[step->agent].tools_count; i++)
        may = may || contract->tools[contract->agents[step->agent].tools[i]].effect == EFFECT_WRITE;
    return may;
}

int32_t contract_tool(const struct contract *contract, struct str name)
{
    for (size_t i = 0; i < contract->tools_count; i++)
        if (str_equal(contract->tools[i].name, name))
            return (int32_t)i;
    return -1;
}

int32_t contract_agent(const struct contract *contract, struct str name)
{
    for (size_t i = 0; i < contract->agents_count; i++)
        if (str_equal(contract->agents[i].name, name))
            return (int32_t)i;
    return -1;
}

void contract_free(struct contract *contract)
{
    if (contract == NULL)
        return;
    json_decref(contract->source);
    json_decref(contract->judge_answer);
    arena_free(contract->arena); /* the contract itself, too */
}

static void add_judge(struct contract *contract)
{
    contract->judge_answer = json_pack("{s:s, s:[s,s], s:{s:{s:s, s:[s,s]}, s:{s:s}}}", "type", "object", "required",
                                       "answer", "reason", "properties", "answer", "type", "string", "enum", "yes",
                                       "no", "reason", "type", "string");
    contract->judge_output = schema_compile(contract->arena, contract->judge_answer, NULL, NULL);
}

/* Everything that is asked of a contract, wherever it came from. Takes `arena` and the root's json. NULL when
 * there are more errors than `errors_before`: a slip that the reading mended is a slip all the same. */
static struct contract *take_tree(struct node *root, struct str file, struct arena *arena, struct problems *problems,
                                  size_t errors_before)
{
    struct contract *contract = ARENA_NEW(arena, struct contract);
    struct load load = {.arena = arena, .contract = contract, .problems = problems, .file = file, .root = root};
    contract->arena = arena;
    contract->source = root->json;
    add_judge(contract);
    check_texts(&load);
    load_names(&load);
    load_run(&load);
    load_agents(&load);
    load_tools(&load);
    load_steps(&load);
    load_boundaries(&load);
    load_checkpoints(&load);
    load_criteria(&load);
    check_roots(&load);
    check_tools(&load);
    check_graph(&load);

    contract->canonical = json_canonical(arena, contract->source);
    if (contract->canonical.size > CONTRACT_SIZE_MAX)
        load_error(&load, root, "the contract with its schemas is %zu bytes, allowed are %zu", contract->canonical.size,
                   CONTRACT_SIZE_MAX);
    memcpy(contract->hash, hash_sha256(arena, contract->canonical).data, HASH_HEX_SIZE + 1);
    if (problems->errors == errors_before)
        return contract;
    contract_free(contract);
    return NULL;
}

struct contract *contract_read_file(const char *path, struct problems *problems)
{
    struct arena *arena = arena_new();
    struct contract *contract = NULL;
    size_t from = problems->count;
    size_t errors_before = problems->errors;
    struct node *root = source_read_file(path, arena, problems);
    if (root != NULL) {
        source_inline_schemas(root, path, arena, problems);
        contract = take_tree(root, str_of(path), arena, problems, errors_before);
    } else {
        arena_free(arena);
    }
    problems_sort(problems, from);
    return contract;
}

struct contract *contract_load(struct str canonical, struct problems *problems)
{
    struct error error;
    json_t *json = json_read(canonical, CONTRACT_SIZE_MAX, &error);
    if (!json_is_object(json)) {
        problems_add(problems, STR("contract"), 0, false, "%s", json == NULL ? error.text : "is no JSON object");
        json_decref(json);
        return NULL;
    }
    struct arena *arena = arena_new();
    size_t from = problems->count;
    struct node *root = tree_build(arena, json, NULL, 0);
    struct str name = json_member_str(arena, json, "name");
    struct str file = name.data != NULL ? arena_printf(arena, "contract %.*s", STR_ARG(name)) : STR("contract");
    struct contract *contract = take_tree(root, file, arena, problems, problems->errors);
    problems_sort(problems, from);
    return contract;
}
