/* Recorded tool answers: what a tool said to the same call in a recorded conversation. */
#ifndef TESTS_DOUBLES_COMMON_RECORDED_H
#define TESTS_DOUBLES_COMMON_RECORDED_H

#include <jansson.h>
#include <stdbool.h>

struct recorded {
    json_t *conversations; /* id -> call -> array of texts, in the order recorded */
    json_t *given;         /* conversation and call -> how many were given */
};

/* Adds a file of lines {"id", "calls": [{"tool", "args", "content"}]}. False, with a message on
 * stderr, for anything else. */
bool recorded_load(struct recorded *recorded, const char *path);

/* The text of the next answer to this call: of conversation `run` when it is known, else the first
 * of any conversation. NULL when none is left. Borrowed. */
const char *recorded_next(struct recorded *recorded, const char *run, const char *tool, const json_t *args);

void recorded_free(struct recorded *recorded);

/* Sorted keys, no spaces, 1.0 as 1: malloc'ed text that equal values share. */
char *recorded_canonical(const json_t *value);

#endif
