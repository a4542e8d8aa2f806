/*
 * suggest.h: "did you mean": the allowed name that is nearest to a wrong one.
 */
#ifndef MYELIN_CONTRACT_SUGGEST_H
#define MYELIN_CONTRACT_SUGGEST_H

#include "worker/base/arena.h"

/* The name of `allowed` (entries may be absent) that was most likely meant, copied into the arena, or STR_NONE. Upper and
 * lower case count as the same letter. Near is: one typing error, two from six letters on, three from nine on, where an
 * error is a letter too many, missing or wrong, or two that changed places (optimal string alignment); failing that,
 * the shortest name that begins with `wrong` (at least three letters). On a tie the first one listed. Names over 64 bytes
 * are never near. */
struct str suggest(struct arena *arena, struct str wrong, const struct str *allowed, size_t count);

/* As suggest, as a clause to put behind a message: `, did you mean "length"?`, or "" when nothing is near. */
struct str suggest_clause(struct arena *arena, struct str wrong, const struct str *allowed, size_t count);

#endif
