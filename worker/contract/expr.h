/*
 * expr.h: the contract's expressions: jq (libjq 1.6) with strings in single quotes and an allow-list of builtins.
 *
 * `'` is no legal jq, so 'text' is translated to "text" in place (inside it, \( ) interpolation works as in jq, `"` stands for
 * itself and \' is a single quote). A program is compiled on first use (21 ms: libjq reads its own library each time) and
 * cached by its text for the life of the thread. Everything here belongs to one thread: libjq keeps state per thread.
 *
 * Other than jq: index, rindex and indices count code points, regex matches of the empty text are left out of a global
 * match, NaN never comes in, and what may be called is a list (expr_allow.c says which and why). jq counts in doubles: a
 * result that holds a whole number beyond 2^53 is an error rather than a rounded id; a comparison of two such numbers is still
 * one of rounded numbers.
 */
#ifndef MYELIN_CONTRACT_EXPR_H
#define MYELIN_CONTRACT_EXPR_H

#include "worker/base/arena.h"
#include "worker/base/error.h"

struct expr; /* one compiled program; owned by the cache, lives until expr_cache_free */

/* Limits of one evaluation. Beyond them the watchdog writes one line (event=expr.watchdog run= step= limit= expr=) to standard
 * error and ends the process with EXPR_EXIT_CODE (libjq cannot be interrupted; the next delivery is counted as a crash).
 * Time is the CPU time of the evaluating thread, memory is how far the process's resident size grows meanwhile; both are
 * looked at by a thread that starts with the first evaluation, every 10 ms once an evaluation takes longer than 100 ms. A
 * process that forks does so before its first evaluation. */
#define EXPR_TIME_MAX_MS 2000
#define EXPR_MEMORY_MAX ((size_t)512 << 20)
#define EXPR_EXIT_CODE 124 /* as timeout(1) */
#define EXPR_OUTPUT_SIZE_MAX ((size_t)1 << 20)

/* How many different expressions a thread may hold (I7); one takes 3 to 60 KiB. */
#define EXPR_CACHED_MAX 10000

/* NULL with `error`: syntax (with the position in `text`), or a builtin outside the allow-list (with did-you-mean). */
const struct expr *expr_compile(struct str text, struct error *error);

/* The distinct first segments of the paths that the program reads from its root (`.draft.subject` → "draft"), so that a
 * check can say which of them name nothing. Only paths on the root `.` are reported, not those after a pipe. In the arena. */
size_t expr_roots(const struct expr *expr, struct arena *arena, struct str **names);

/* Whether the program may read this member of its root. False only when it surely does not: then who builds a root may leave
 * it out. */
bool expr_may_read(const struct expr *expr, struct str member);

/* The program as it was written. */
struct str expr_text(const struct expr *expr);

/* What an expression can see: an object built once a delivery from JSON texts, member by member as it is asked for. */
struct expr_root;
struct expr_root *expr_root_new(void);
/* A root that is any JSON value, for expressions over an answer or a call's arguments; `json` as in expr_root_set. */
struct expr_root *expr_root_of(struct str json);
void expr_root_free(struct expr_root *root);
/* Sets a member of a root of expr_root_new; `json` is valid JSON text (it was checked when it came in), STR_NONE sets null.
 * Where a text is no JSON after all, every later evaluation on this root fails and says so. */
void expr_root_set(struct expr_root *root, const char *member, struct str json);

bool expr_root_has(const struct expr_root *root, const char *member);

/* Who is asking, for the watchdog's last words. */
struct expr_site {
    struct str run;
    struct str step;
};

/* Evaluates to exactly one JSON value, as compact text in the arena. False with `error` (ERROR_POISON): a jq error, no
 * output, more than one output, or an output over EXPR_OUTPUT_SIZE_MAX. */
bool expr_eval(const struct expr *expr, const struct expr_root *root, struct expr_site site, struct arena *arena,
               struct str *json, struct error *error);

/* As expr_eval, then jq's truth: everything but null and false is true. */
bool expr_true(const struct expr *expr, const struct expr_root *root, struct expr_site site, bool *truth,
               struct error *error);

/* Of the calling thread. Its expressions are gone after this. */
void expr_cache_free(void);

#endif
