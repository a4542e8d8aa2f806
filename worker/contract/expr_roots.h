/*
 * expr_roots.h: what a program reads from its root. Used by expr.c only.
 */
#ifndef MYELIN_CONTRACT_EXPR_ROOTS_H
#define MYELIN_CONTRACT_EXPR_ROOTS_H

#include "worker/contract/expr_lex.h"

/* The distinct first segments of the paths on the root, in the order of the program (see expr_roots in expr.h). `lexed` must
 * be a program that jq compiled. In the arena. */
size_t expr_roots_find(struct arena *arena, const struct expr_lexed *lexed, struct str **names);

/* True when the program reads nothing of its root but members among `names`: every name that stands anywhere in it, and it has
 * nothing that could read a member without naming it (`.` or `..` alone, a function, an assignment, a key that is computed). */
bool expr_roots_bound(struct arena *arena, const struct expr_lexed *lexed, struct str **names, size_t *count);

#endif
