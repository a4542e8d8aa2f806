/* guard.c: may this tool call be made? The runtime refuses before the call; the refusal is a fact (I6). */
#include <string.h>

#include "worker/base/hash.h"
#include "worker/base/json.h"
#include "worker/core/draft.h"

struct str guard_args_hash(struct draft *draft, struct str step, int32_t visit, struct str tool, struct str arguments)
{
    struct str parts[] = {
        draft->run->id, draft->run->at.branch, step, arena_printf(draft->arena, "%d", visit), tool, arguments,
    };
    return hash_parts(draft->arena, parts, sizeof(parts) / sizeof(parts[0]));
}

static bool refuse(struct verdict *verdict, const char *rule, struct str reason, bool violation)
{
    verdict->admitted = false;
    verdict->rule = rule;
    verdict->reason = reason;
    verdict->violation = violation;
    return false;
}

/* Does a forbidden action cover this call? `tool` is NULL when the contract has no tool of that name. */
static bool not_forbidden(struct draft *draft, struct str name, const struct tool *tool, struct verdict *verdict)
{
    const struct contract *contract = draft->contract;
    for (size_t i = 0; i < contract->forbidden_count; i++) {
        const struct forbidden *forbidden = &contract->forbidden[i];
        bool covered = str_equal(forbidden->name, name); /* asked for by its own name, whatever it is */
        if (tool != NULL && forbidden->tool == tool - contract->tools) {
            struct error error;
            if (forbidden->kind == FORBIDDEN_TOOL)
                covered = true;
            else if (forbidden->kind == FORBIDDEN_ACTION && verdict->arguments_valid &&
                     !scope_true_over(draft, forbidden->when, verdict->arguments, &covered, &error))
                return refuse(
                    verdict, "boundaries.forbidden_actions",
                    arena_printf(draft->arena, "%.*s cannot be ruled out: %s", STR_ARG(forbidden->name), error.text),
                    true);
        }
        if (covered)
            return refuse(verdict, "boundaries.forbidden_actions",
                          arena_printf(draft->arena, "%.*s is forbidden", STR_ARG(forbidden->name)), true);
    }
    return true;
}

static const struct forbidden *needs_approval(const struct contract *contract, const struct tool *tool)
{
    for (size_t i = 0; i < contract->forbidden_count; i++) {
        const struct forbidden *forbidden = &contract->forbidden[i];
        if (forbidden->kind == FORBIDDEN_WITHOUT_APPROVAL && forbidden->tool == tool - contract->tools)
            return forbidden;
    }
    return NULL;
}

/* Is there an approval for exactly this call, and is it not spent? */
static bool approved(struct draft *draft, const struct tool *tool, struct verdict *verdict)
{
    const struct contract *contract = draft->contract;
    const struct step *step = draft->step;
    const struct forbidden *forbidden = needs_approval(contract, tool);
    const struct checkpoint *checkpoint = step->guarded_by >= 0 ? &contract->checkpoints[step->guarded_by] : NULL;
    bool required = forbidden != NULL || (checkpoint != NULL && checkpoint->required);
    if (!required)
        return true;
    const char *rule = forbidden != NULL ? "boundaries.forbidden_actions" : "human_checkpoints";
    const struct approval *approval = checkpoint != NULL && !draft_is_agent(draft)
                                          ? run_approval(draft->run, contract->steps[checkpoint->step].name)
                                          : NULL;
    if (approval == NULL || !approval->approved)
        return refuse(verdict, rule, arena_printf(draft->arena, "%s was not approved by a person", tool->name.data),
                      true);
    if (approval->spent)
        return refuse(verdict, rule, STR("the approval is spent: it admitted a call already"), true);
    if (approval->guards_visit != draft->run->at.visit)
        return refuse(verdict, rule, STR("the approval is for another visit of this step"), true);
    struct str hash = guard_args_hash(draft, step->name, draft->run->at.visit, tool->name, verdict->arguments);
    if (!str_equal(hash, approval->args_hash))
        return refuse(verdict, rule, STR("the arguments are not the ones that were approved"), true);
    verdict->approval = approval->step;
    verdict->args_hash = hash;
    return true;
}

/* Canonical arguments in the verdict, checked against the tool's parameters. */
static bool fit_parameters(struct draft *draft, const struct tool *tool, struct str text, struct verdict *verdict)
{
    struct error error = {.class = ERROR_NONE};
    struct str given = text.size > 0 ? text : STR("{}"); /* some models send "" for no arguments */
    json_t *value = json_read(given, RUN_STATE_SIZE_MAX, &error);
    bool fits = value != NULL;
    if (fits && !json_is_object(value))
        fits = error_set(&error, ERROR_POISON, "the arguments must be a JSON object");
    if (fits && tool != NULL && tool->parameters != NULL)
        fits = schema_check(tool->parameters, value, &error);
    if (fits)
        verdict->arguments = json_canonical(draft->arena, value);
    json_decref(value);
    verdict->arguments_valid = fits;
    if (!fits)
        refuse(verdict, "parameters", arena_str(draft->arena, str_of(error.text)), false);
    return fits;
}

void guard_tool_step(struct draft *draft, const struct tool *tool, struct verdict *verdict)
{
    memset(verdict, 0, sizeof(*verdict));
    struct str arguments = STR("{}");
    struct error error;
    if (draft->run->at.doubt.arguments.data != NULL)
        arguments = draft->run->at.doubt.arguments;
    else if (draft->step->args != NULL &&
             !scope_eval(draft, draft->step->args, (struct scope){.what = "args"}, &arguments, &error)) {
        refuse(verdict, "args", arena_str(draft->arena, str_of(error.text)), false);
        return;
    }
    if (!fit_parameters(draft, tool, arguments, verdict))
        return;
    if (!tool->allowed) {
        refuse(verdict, "boundaries.allowed_tools", arena_printf(draft->arena, "%s is not allowed", tool->name.data),
               true);
        return;
    }
    verdict->admitted = not_forbidden(draft, tool->name, tool, verdict) && approved(draft, tool, verdict);
}

static bool agent_has(const struct draft *draft, int32_t tool)
{
    const struct agent *agent = draft_agent(draft);
    for (size_t i = 0; agent != NULL && i < agent->tools_count; i++)
        if (agent->tools[i] == tool)
            return true;
    return false;
}

void guard_request(struct draft *draft, const struct tool_request *request, const struct tool **tool,
                   struct verdict *verdict)
{
    memset(verdict, 0, sizeof(*verdict));
    int32_t index = contract_tool(draft->contract, request->tool);
    *tool = index >= 0 ? &draft->contract->tools[index] : NULL;
    struct verdict parameters = {0};
    bool fits = fit_parameters(draft, *tool, request->arguments, &parameters);
    verdict->arguments = parameters.arguments;
    verdict->arguments_valid = fits;
    /* The boundary comes first: what may not be done is refused as such, however well or badly it was asked for. */
    if (!not_forbidden(draft, request->tool, *tool, verdict))
        return;
    if (*tool == NULL || !(*tool)->allowed) {
        refuse(verdict, "boundaries.allowed_tools",
               arena_printf(draft->arena, "%.*s is not an allowed tool", STR_ARG(request->tool)), true);
        return;
    }
    if (!approved(draft, *tool, verdict))
        return;
    if (!agent_has(draft, index)) {
        refuse(verdict, "agents.tools",
               arena_printf(draft->arena, "%.*s is not a tool of this agent", STR_ARG(request->tool)), true);
        return;
    }
    if (!fits) {
        *verdict = parameters;
        return;
    }
    verdict->admitted = true;
}

void guard_refuse(struct draft *draft, struct str tool, struct str arguments, const struct verdict *verdict)
{
    struct fact *fact = draft_fact(draft, FACT_CALL_REFUSED);
    fact->is.call_refused = (struct fact_call_refused){
        .tool = tool,
        .arguments = arguments,
        .arguments_valid = verdict->arguments_valid,
        .rule = str_of(verdict->rule),
        .reason = verdict->reason,
    };
    draft->run->usage.refusals++;
    if (verdict->violation)
        draft->run->violations++;
}
