/* tell.h: facts in words, one line each, as `follow` prints them. */
#ifndef MYELIN_PRODUCER_TELL_H
#define MYELIN_PRODUCER_TELL_H

#include "producer/cmd.h"
#include "worker/core/fact.h"

struct tell {
    const struct cmd *cmd;
    int64_t started_at_ms; /* of the run */
    int step_width;        /* of the widest step so far */
    int unpriced;          /* model answers so far whose price is not known */
};

/* The line of the fact: elapsed time, step, what happened, partition@offset of the event that caused it; and what a person
 * must know to act on it. With --json: the fact as an object. `offset`: of the fact in `history`. */
void tell_fact(struct tell *tell, const struct fact *fact, int32_t partition, int64_t offset);

/* Arguments that a person decides about: every member in full, on lines of its own. */
void tell_arguments(const struct cmd *cmd, struct str arguments, const char *indent);

/* "search_company("Acme GmbH")": the values of the arguments, cut to fit a line. */
const char *tell_call(const struct cmd *cmd, struct str tool, struct str arguments);

#endif
