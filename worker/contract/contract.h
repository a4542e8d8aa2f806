/*
 * contract.h: a workflow's definition, checked and ready to run. Data, never code.
 *
 * A contract is written in libconfig (contract_read_file), travels as canonical JSON (`canonical`, its SHA-256 is the
 * contract's identity) and is loaded from that by whoever runs it (contract_load). Both ways go through the same check.
 * All names are indexes into the arrays here once it is loaded; -1 says "none".
 */
#ifndef MYELIN_CONTRACT_CONTRACT_H
#define MYELIN_CONTRACT_CONTRACT_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"
#include "worker/base/hash.h"
#include "worker/contract/expr.h"
#include "worker/contract/schema.h"

enum effect_class { EFFECT_NONE, EFFECT_READ, EFFECT_WRITE };
enum on_doubt { DOUBT_ASK, DOUBT_RETRY, DOUBT_PROBE, DOUBT_FAIL };
enum on_violation { VIOLATION_TELL_MODEL, VIOLATION_STOP, VIOLATION_ASK };
enum timeout_action { TIMEOUT_PAUSE, TIMEOUT_REJECT };
enum step_kind { STEP_AGENT, STEP_MODEL, STEP_TOOL, STEP_ROUTER, STEP_APPROVAL };
enum edge { EDGE_NEXT, EDGE_APPROVED, EDGE_REJECTED, EDGE_TIMED_OUT, EDGE_FAILED, EDGE_COUNT };

/* Where an edge leads: a step's index, or one of these. */
#define TARGET_NONE (-1)
#define TARGET_END (-2)

/* Limits of the language itself (I7). */
#define CONTRACT_SIZE_MAX ((size_t)256 << 10)
#define CONTRACT_STEPS_MAX 200
#define CONTRACT_TOOLS_MAX 200
#define CONTRACT_AGENTS_MAX 100

struct contract_limits {
    int64_t deadline_ms;    /* elapsed, waiting included; default 7d */
    int32_t steps_max;      /* committed steps of the run; default 200 */
    int64_t llm_tokens_max; /* prompt + completion; default 1,000,000 */
    int64_t micro_usd_max;  /* 1 USD = 1,000,000; default 10 USD */
};

struct criterion {
    struct str says;
    int32_t after; /* step whose next is committed only when this holds; -1 = the end of the run (unless before >= 0) */
    int32_t before;           /* step that is entered only when this holds; -1 = none */
    const struct expr *check; /* or NULL */
    int32_t judge;            /* agent that must answer yes; -1 = none */
    const struct expr *sees;  /* what the judge is shown besides the default; NULL = {saw, output, calls} */
};

struct metric {
    struct str name, threshold; /* "unsafe_action_rate", "<= 0%" */
};

enum forbidden_kind { FORBIDDEN_TOOL, FORBIDDEN_WITHOUT_APPROVAL, FORBIDDEN_ACTION };
struct forbidden {
    struct str name; /* as written in forbidden_actions */
    enum forbidden_kind kind;
    int32_t tool; /* -1 when it names a tool the contract does not have (then it can only be asked for in vain) */
    const struct expr *when; /* FORBIDDEN_ACTION: the root `.` is the call's args object itself */
};

struct checkpoint {
    int32_t step;       /* the approval step */
    int32_t guards;     /* the step it guards; -1 = none */
    bool required;      /* default true */
    int64_t timeout_ms; /* default 24h */
    enum timeout_action timeout_action;
};

struct tool_header {
    struct str name, value; /* value may hold ${NAME} */
};

struct tool_probe {
    struct str url;                              /* may hold ${NAME}, {key}, {arg} */
    const struct expr *done, *not_done, *result; /* over the status answer; not_done and result may be NULL */
    int64_t after_ms;                            /* between two probes; default 5s */
    int32_t probes_max;                          /* then ask; default 5 */
};

struct tool {
    struct str name, description;
    int32_t agent;     /* >= 0: the tool is an agent; the HTTP fields are empty then */
    struct str method; /* default "POST" */
    struct str url;    /* may hold ${NAME} (resolved when called) and {arg} (URL-encoded) */
    struct tool_header *headers;
    size_t headers_count;
    enum effect_class effect; /* an agent tool: EFFECT_READ */
    int64_t timeout_ms;       /* default 30s */
    enum on_doubt on_doubt;   /* its own, or what duplicate_side_effect_policy says: block = ask */
    struct tool_probe *probe; /* NULL unless on_doubt is DOUBT_PROBE */
    int32_t *not_executed;    /* HTTP statuses that say "surely not executed" */
    size_t not_executed_count;
    struct schema *parameters; /* NULL = none given */
    bool allowed;              /* boundaries.allowed_tools */
};

struct agent {
    struct str name, model, system; /* model: a name in the worker's settings */
    int32_t model_line;             /* where the file says it; 0 = not known */
    int32_t *tools;
    size_t tools_count;
    int32_t turns_max;     /* default 8 */
    struct schema *output; /* NULL: the output is {"text": content} */
    const struct expr *check;
    struct str pool; /* of the steps that it is; may be absent */
};

struct router_case {
    const struct expr *when; /* NULL = else */
    int32_t target;
};

struct assignment {
    struct str name; /* .vars.<name> */
    const struct expr *value;
};

struct step {
    struct str name;
    enum step_kind kind;
    int32_t agent;    /* STEP_AGENT, and STEP_TOOL whose tool is an agent */
    int32_t tool;     /* STEP_TOOL */
    struct str model; /* STEP_MODEL */
    int32_t model_line;
    struct str system; /* STEP_MODEL: its own system text; may be absent */
    const struct expr *sees, *args, *check;
    struct schema *output; /* the step's own; an agent's own is checked as well */
    struct assignment *set;
    size_t set_count;
    struct str artifact; /* name, or absent */
    struct router_case *cases;
    size_t cases_count;
    int32_t edges[EDGE_COUNT]; /* TARGET_NONE, TARGET_END or a step */
    int32_t visits_max;        /* default 1 unless the step is on a loop, where it must be given */
    int32_t checkpoint;        /* STEP_APPROVAL: its entry in checkpoints; -1 else */
    int32_t guarded_by;        /* the checkpoint that guards this step; -1 else */
    struct str pool;           /* topic steps.<pool>: its own, else its agent's, else "default" */
};

struct contract {
    struct arena *arena; /* owns everything below */
    json_t *source;      /* owned */
    struct str name, goal, canonical;
    char hash[HASH_HEX_SIZE + 1]; /* of `canonical` */
    struct schema *input;         /* NULL = anything */
    struct contract_limits limits;
    struct criterion *criteria;
    size_t criteria_count;
    struct metric *metrics;
    size_t metrics_count;
    struct forbidden *forbidden;
    size_t forbidden_count;
    enum on_violation on_violation;
    int32_t violations_max; /* default 3 */
    int32_t retry_budget;   /* default 3: at most 4 attempts */
    struct checkpoint *checkpoints;
    size_t checkpoints_count;
    struct tool *tools;
    size_t tools_count;
    struct agent *agents;
    size_t agents_count;
    struct step *steps;
    size_t steps_count;
    int32_t start;
    json_t *judge_answer;        /* owned */
    struct schema *judge_output; /* {answer: yes|no, reason}: what every judge must answer */
};

/* One finding of the check. `line` 0: the whole file. */
struct problem {
    struct str file;
    int32_t line;
    bool warning;
    struct str text; /* what is wrong, what is allowed, did you mean ... */
};

struct problems {
    struct arena *arena; /* owns the texts */
    struct problem *list;
    size_t count;
    size_t errors; /* those that are no warnings */
};

void problems_init(struct problems *problems);
void problems_free(struct problems *problems);

/* Reads a libconfig file, inlines "@file" schemas (beside it), checks. NULL when there was an error in `problems`; warnings
 * alone do not stop it. All problems are reported at once, in the order of their lines. */
struct contract *contract_read_file(const char *path, struct problems *problems);

/* Loads and checks the canonical JSON that was published. The hash is computed here, never taken from outside. */
struct contract *contract_load(struct str canonical, struct problems *problems);

void contract_free(struct contract *contract);

int32_t contract_step(const struct contract *contract, struct str name);           /* index, -1 = no such step */
int32_t contract_tool(const struct contract *contract, struct str name);           /* index, -1 */
int32_t contract_agent(const struct contract *contract, struct str name);          /* index, -1 */
bool contract_may_write(const struct contract *contract, const struct step *step); /* itself, or its agent */
const char *edge_name(enum edge edge);                                             /* "next", "approved", ... */
const char *effect_class_name(enum effect_class effect);                           /* "none", "read", "write" */
const char *step_kind_name(enum step_kind kind);

/* The table of `contract show`: for each step decided by, touches outside, writes, needs a person, may be repeated. */
struct contract_row {
    struct str step, kind, decided_by, outside, writes, person, repeat;
};
size_t contract_table(const struct contract *contract, struct arena *arena, struct contract_row **rows);

#endif
