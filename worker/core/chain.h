/*
 * chain.h: how a conversation is stored once, however long it gets.
 *
 * Up to RUN_INLINE_MAX it stands in the step event. From then on its messages stand in facts that are written anyway: what a
 * model said in ModelAnswered, what a tool answered in ToolAnswered; others (what an agent was asked, why a call was refused)
 * in the link of the fact that is next. Each link names the fact with the one before, the step event names the last. So
 * every message is stored once, and what a run stores grows with its conversation, not with its square. Pure.
 */
#ifndef MYELIN_CORE_CHAIN_H
#define MYELIN_CORE_CHAIN_H

#include "worker/base/error.h"
#include "worker/core/fact.h"

/* The conversation that the facts of a chain hold, the first one first. False: they hold none, or not `chained` messages (ERROR_POISON). The texts
 * are the facts'. */
bool chain_read(struct arena *arena, const struct fact *const *facts, size_t count, int32_t chained,
                struct message **messages, struct error *error);

#endif
