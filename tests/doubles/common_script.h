/* Scripts: lists of rules, each a `match` and an `answer` (README.md). What a match means is the
 * double's business; this file loads the rules, keeps their counts and chooses. */
#ifndef TESTS_DOUBLES_COMMON_SCRIPT_H
#define TESTS_DOUBLES_COMMON_SCRIPT_H

#include <jansson.h>
#include <stdbool.h>

struct script {
    json_t *rules;                 /* array of {match, answer, name, times, and counts} */
    const char *const *match_keys; /* what a double understands, NULL at the end; borrowed */
    const char *const *answer_keys;
};

/* What is asked, for the counting conditions; NULL where unknown. */
struct script_request {
    const char *key; /* of the call: the same for each try of it */
    const char *run;
    const void *what; /* for `meets` */
};

typedef bool (*script_meets)(const json_t *match, const void *what);

/* Adds the rules of a file, or of each *.json in a directory in the order of their names. False,
 * with a message on stderr, for what is unreadable or holds an unknown key. */
bool script_load(struct script *script, const char *path);

/* The first rule whose conditions are all met, counting ones last; NULL: none. `nth`, `nth_per_key`
 * and `nth_per_run` count every request that meets the rule's other conditions, also when an
 * earlier rule takes it. Borrowed. */
const json_t *script_choose(struct script *script, const struct script_request *request, script_meets meets);

void script_free(struct script *script);

/* Whether `text` contains `needle`: a string, or an array of strings that must all be there. */
bool script_contains(const char *text, const json_t *needle);

#endif
