/*
 * fold.h: the state of a run, folded from its facts: what `myelin show` prints, and what any reader of `history` can
 * rebuild. Pure.
 *
 * The parts and their names are those of a contract's durable_state: current_step, completed_steps, tool_calls, retries,
 * approvals, generated_artifacts, committed_side_effects, and usage.
 */
#ifndef MYELIN_CORE_FOLD_H
#define MYELIN_CORE_FOLD_H

#include <jansson.h>

#include "worker/core/fact.h"

struct fold;

struct fold *fold_new(struct str run);
void fold_free(struct fold *fold);

/* Facts in the order of `history`. A fact of another run is ignored; a gap in seq or a repeated seq is counted. */
void fold_add(struct fold *fold, const struct fact *fact);

bool fold_known(const struct fold *fold); /* RunStarted was seen */
bool fold_ended(const struct fold *fold);
int64_t fold_gaps(const struct fold *fold);

/* A new reference: {"run": ..., "contract": ..., "contract_hash": ..., "status": ..., "reason": ..., "started_at_ms": ...,
 * "ended_at_ms": ..., "input": ..., "output": ..., "current_step": [...], "completed_steps": [...], "tool_calls": [...],
 * "retries": [...], "approvals": [...], "generated_artifacts": {...}, "committed_side_effects": [...], "refusals": [...],
 * "usage": {...}, "facts": N, "gaps": N}. schemas/README.md gives the rules of the fold, fact by fact. */
json_t *fold_json(const struct fold *fold);

#endif
