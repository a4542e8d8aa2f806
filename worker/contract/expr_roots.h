/*
 * expr_roots.h: what a program reads from its root. Used by expr.c only.
 */
#ifndef MYELIN_CONTRACT_EXPR_ROOTS_H
#define MYELIN_CONTRACT_EXPR_ROOTS_H

#include "worker/contract/expr_lex.h"

/* The distinct first segments of the paths on the root, in the order of the program (see expr_roots in expr.h). `lexed` must
 * be a program that jq compiled. In the arena. */
size_t expr_roots_find(struct arena *arena, const struct expr_lexed *lexed, struct str **names);

#endif
