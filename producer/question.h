/* question.h: what a parked step asks a person, in full. */
#ifndef MYELIN_PRODUCER_QUESTION_H
#define MYELIN_PRODUCER_QUESTION_H

#include "producer/waiting.h"

#define QUESTION_HASH_SHOWN 16

/* Who asks, since when, until when, and every argument. */
void question_show(struct cmd *cmd, const struct waiting_step *step);
json_t *question_json(const struct waiting_step *step);

/* The parked step of this run and name that waits for `what`. NULL: said (what waits instead), *code is set. */
const struct waiting_step *question_find(struct cmd *cmd, struct str run, const char *step, enum waits_for what,
                                         int *code);

#endif
