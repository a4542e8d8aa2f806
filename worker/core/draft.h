/*
 * draft.h: a plan while it is being made; shared by the files behind decide.h.
 *
 *   decide.c   the entries, and what each outcome of a call leads to
 *   walk.c     entering steps, walking on through pure ones, completing and failing a step, ending the run
 *   accept.c   is this output good enough: schemas, checks, criteria, judges
 *   agent.c    an agent's turn: the model call to make, and what its answer leads to
 *   guard.c    may this tool call be made: boundaries, parameters, approvals, budgets
 *   doubt.c    a write that may have happened
 *   scope.c    what an expression can see
 *   chain.c    what is stored in facts, so that the step event need not carry it
 */
#ifndef MYELIN_CORE_DRAFT_H
#define MYELIN_CORE_DRAFT_H

#include "worker/core/decide.h"

struct draft {
    const struct decide_env *env;
    const struct contract *contract;
    struct arena *arena;
    struct plan *plan;
    struct run *run;         /* our own copy, being changed */
    const struct step *step; /* of the contract, where the run stands; NULL before the start */
    size_t facts_capacity;
    int64_t
        event_ms; /* when what is being processed was written: the time that expressions see, the same on each delivery */
    struct expr_root *root;  /* NULL until an expression is evaluated; dropped when the state changes */
    const struct call *made; /* the tool call that was just answered, for .calls of a tool step */
    struct str made_result;
    bool bears; /* facts[bearer] tells what conversation[borne] says: it need not be stored beside it */
    size_t bearer, borne;
    struct str output; /* of the step completed last: the run's, when it ends here */
};

/* ---- draft.c ---- */
void draft_open(struct draft *draft, const struct decide_env *env, const struct run *run, struct plan *plan);
void draft_close(struct draft *draft);
struct fact *draft_fact(struct draft *draft, enum fact_kind kind); /* numbered and filled in but for the body */
struct step_state *draft_state(struct draft *draft);               /* of the current step; made when it is missing */
void draft_say(struct draft *draft, struct message message);       /* appends to the conversation */
const struct agent *draft_agent(const struct draft *draft);        /* of the current step; NULL = none */
bool draft_is_agent(
    const struct draft *draft); /* the current step talks to a model: agent, model, or a tool that is an agent */

/* NULL, or why this contract cannot have led to this state: it is damaged or forged. */
const char *draft_misfit(const struct draft *draft);

/* ---- scope.c ---- */
void scope_forget(struct draft *draft);
/* False: fails as the contract's author must read it ("steps.send.args: ..."). `calls` adds .calls; `candidate` is seen as
 * the current step's output (STR_NONE = the committed one). */
struct scope {
    const char *what; /* "args", "sees", ... for the message */
    bool calls;
    struct str candidate;
};
bool scope_eval(struct draft *draft, const struct expr *expr, struct scope scope, struct str *json,
                struct error *error);
bool scope_true(struct draft *draft, const struct expr *expr, struct scope scope, bool *truth, struct error *error);
/* Over a value of its own (a probe's answer, a call's arguments), not over the run. */
bool scope_true_over(struct draft *draft, const struct expr *expr, struct str json, bool *truth, struct error *error);
bool scope_eval_over(struct draft *draft, const struct expr *expr, struct str json, struct str *out,
                     struct error *error);
/* The calls of this visit as JSON: [{tool, args, result}]. */
struct str scope_calls(struct draft *draft);
/* A text as a JSON string. */
struct str scope_quote(struct arena *arena, struct str text);

/* ---- walk.c ---- */
/* Goes to `target` (a step, TARGET_END) and on until the plan is complete; TARGET_NONE: it is complete already. */
void walk_to(struct draft *draft, int32_t target);
void walk_again(struct draft *draft); /* the same step once more, at once: NEXT_STEP */
void walk_park(struct draft *draft, enum waits_for what, struct str reason, int64_t due_at_ms);
/* The step is done with this output: sets variables, states the fact, walks on. */
void walk_complete(struct draft *draft, struct str output, enum edge edge);
void walk_fail(struct draft *draft, struct str reason, bool refused); /* follows the failed edge, or fails the run */
void walk_end(struct draft *draft, enum run_status status, struct str reason, struct str output);
/* The end of the run was reached: the criteria that are due at the end, from `criterion` on, then RUN_COMPLETED. */
void walk_finish(struct draft *draft, size_t criterion);
/* STR_NONE, or which limit is spent. `steps`: those that count. */
struct str walk_spent(struct draft *draft, int32_t steps);

/* ---- accept.c ---- */
void accept_output(struct draft *draft, struct str output);
void accept_reject(struct draft *draft, const char *rule, struct str output, struct str reason);
void accept_judged(struct draft *draft, const struct outcome *outcome);
const struct call *accept_judge_call(struct draft *draft); /* NULL: the plan is complete */

/* ---- agent.c ---- */
const struct call *agent_model_call(struct draft *draft);
void agent_answered(struct draft *draft, const struct outcome *outcome);
void agent_tool_answer(struct draft *draft, enum answer_kind kind, struct str content);
struct str agent_system(struct draft *draft, struct str own);

/* ---- chain.c ---- */
/* The state will name this fact of the plan. */
const struct reference *chain_store(struct draft *draft, size_t fact);
void chain_bear(struct draft *draft);                    /* the latest fact tells what the latest message says */
size_t chain_size(const struct cursor *at, size_t from); /* bytes of the messages from there on */
/* The plan is complete: what of the conversation goes into its facts. */
void chain_close(struct draft *draft);

/* ---- guard.c ---- */
/* What decides about a tool call before it is made. */
struct verdict {
    bool admitted;
    bool violation; /* of a boundary: counts against violations_max */
    bool arguments_valid;
    const char *rule; /* when refused */
    struct str reason;
    struct str arguments;           /* JSON object, as it will be sent */
    struct str approval, args_hash; /* the decision that the call spends */
};
void guard_tool_step(struct draft *draft, const struct tool *tool, struct verdict *verdict);
void guard_request(struct draft *draft, const struct tool_request *request, const struct tool **tool,
                   struct verdict *verdict);
void guard_refuse(struct draft *draft, struct str tool, struct str arguments, const struct verdict *verdict);
/* What an approval is bound to: (run, branch, step, visit, tool, canonical arguments). */
struct str guard_args_hash(struct draft *draft, struct str step, int32_t visit, struct str tool, struct str arguments);

/* ---- doubt.c ---- */
const struct tool *doubt_tool(const struct draft *draft); /* that the current call is of; NULL = none */
void doubt_ask(struct draft *draft, const struct call *call, struct str reason); /* a person settles it */
void doubt_raised(struct draft *draft, const struct call *call, const struct outcome *outcome);
const struct call *doubt_call(struct draft *draft); /* the probe or the repetition; NULL: the plan is complete */
void doubt_probed(struct draft *draft, const struct call *call, const struct outcome *outcome);
/* A write answered: if it was in doubt, it is no more; how is a fact. */
void doubt_over(struct draft *draft, const struct call *call, const struct outcome *outcome);
void doubt_resolved(struct draft *draft, const struct step_parked *parked, const struct resolved *resolved);

/* ---- decide.c ---- */
const struct call *decide_tool_call(struct draft *draft, const struct tool *tool, const struct verdict *verdict);
void decide_tool_answered(struct draft *draft, const struct call *call, const struct outcome *outcome);

/* ---- retry.c ---- */
/* Exponential back-off with jitter derived from (run, branch, step, visit, attempt): the same inputs give the same delay. */
int64_t retry_delay_ms(const struct run *run, struct arena *arena, int64_t backoff_ms, int64_t backoff_max_ms,
                       int64_t retry_after_ms);

#endif
