/*
 * expr_allow.h: what an expression may call. Used by expr.c and expr_roots.c only.
 *
 * Allowed is what gives the same answer for the same input (I8), ends by itself (I7: no loop but over values that are
 * there) and cannot bring libjq down. Some functions of jq 1.6 do not keep that as they are; for those a definition of our own
 * is put before the program (`expr_allow_prelude` says what each one mends).
 */
#ifndef MYELIN_CONTRACT_EXPR_ALLOW_H
#define MYELIN_CONTRACT_EXPR_ALLOW_H

#include "worker/contract/expr_lex.h"

/* False with `error` (ERROR_POISON), which names the first thing that is not allowed, why, and what may have been meant. */
bool expr_allow_check(struct arena *arena, const struct expr_lexed *lexed, struct error *error);

/* The definitions to put before the program, one line that ends with a newline, or "" when it needs none. In the arena. */
struct str expr_allow_prelude(struct arena *arena, const struct expr_lexed *lexed);

/* True when argument `index` (from 0) of `count` is evaluated on the same input as the call itself: in `select(.a)` it is,
 * in `map(.a)` it is not. */
bool expr_allow_same_input(struct str function, size_t index, size_t count);

#endif
