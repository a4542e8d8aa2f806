/*
 * load.h: what the parts of the loader and of the check share. Nobody outside of worker/contract includes it.
 *
 * The order: names first (so that everything can refer to everything), then each group by its table of keys,
 * then the checks that look at the whole. A part that could not be read gets a harmless value, so that the rest
 * is still checked; a contract with errors is never handed out.
 */
#ifndef MYELIN_CONTRACT_LOAD_H
#define MYELIN_CONTRACT_LOAD_H

#include "worker/contract/problems.h"
#include "worker/contract/tree.h"

#define SECOND_MS INT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS (60 * MINUTE_MS)
#define DAY_MS (24 * HOUR_MS)

/* I7: expressions of one contract. Each takes 21 ms to compile, so this is the longest that a strange contract
 * holds a worker up: 10 s. */
#define LOAD_EXPRS_MAX 500

/* What an expression may read from its root besides the input, vars, run and the steps. */
enum roots {
    ROOTS_RUN,        /* nothing besides */
    ROOTS_WITH_CALLS, /* .calls of the step it belongs to */
    ROOTS_ARGS,       /* the root is a call's arguments */
    ROOTS_ANSWER,     /* the root is what a tool answered: anything */
};

/* An expression and where it stands. */
struct use {
    const struct expr *expr;
    const struct node *node;
    enum roots roots;
    int32_t tool; /* ROOTS_ARGS: whose arguments; -1 = not known */
    struct use *next;
};

struct load {
    struct arena *arena;
    struct contract *contract;
    struct problems *problems;
    struct str file;
    const struct node *root;
    const struct node **tool_nodes, **agent_nodes, **step_nodes; /* by index, as the contract's arrays */
    const struct node **checkpoint_nodes, **criterion_nodes;
    struct str *tool_names, *agent_names, *step_names;
    struct str *vars; /* what the steps' `set` name */
    size_t vars_count;
    struct use *uses, *uses_last;
    size_t exprs_count;
    bool *loose;       /* by step: an edge of it leads nobody knows where (a mistake that was reported) */
    bool choices;      /* a step chooses its way in a manner that is not supported yet: any step may follow */
    bool doubt_policy; /* duplicate_side_effect_policy was given */
};

void load_error(struct load *load, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void load_warning(struct load *load, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

int32_t load_find(const struct str *names, size_t count, struct str name); /* its index, -1 */

/* "a, b, c", cut when there are many; "none" when there are none. */
struct str load_list(struct load *load, const struct str *names, size_t count);

/* What stands between a wrong name and the list of the right ones: `, did you mean "draft"? ` or `; `. */
const char *load_near(struct load *load, struct str word, const struct str *names, size_t count);

/* Reports a name that nothing has: `no such tool "x", did you mean "y"? the tools are: ...`. Returns what was
 * probably meant, so that one slip of the pen does not make the rest unreachable; -1 when nothing is near. */
int32_t load_unknown(struct load *load, const struct node *node, const char *what, const struct str *names,
                     size_t count);

/* Letters, digits and _, a small letter first, at most 64; `reserved` may be NULL, else ends with NULL. */
bool load_name(struct load *load, const struct node *node, struct str name, const char *const *reserved);

/* Remembers an expression for the check of what it reads. */
void load_use(struct load *load, const struct expr *expr, const struct node *node, enum roots roots);

/* The parts, each in a file of its own. */
void load_names(struct load *load);      /* load.c */
void load_tools(struct load *load);      /* load_tools.c */
void load_agents(struct load *load);     /* load_tools.c */
void load_steps(struct load *load);      /* load_steps.c */
void load_run(struct load *load);        /* load_run.c: limits, criteria, boundaries, recovery, checkpoints */
void load_boundaries(struct load *load); /* load_run.c; needs the tools */
void load_checkpoints(struct load *load);
void load_criteria(struct load *load);
void check_texts(struct load *load); /* check.c: what is asked of every text */
void check_roots(struct load *load); /* check_roots.c: what the expressions read */
void check_tools(struct load *load); /* check.c */
void check_graph(struct load *load); /* graph.c */

#endif
