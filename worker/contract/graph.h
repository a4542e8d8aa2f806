/*
 * graph.h: which step can come after which.
 */
#ifndef MYELIN_CONTRACT_GRAPH_H
#define MYELIN_CONTRACT_GRAPH_H

#include "worker/contract/contract.h"

/* The ways out of a step: its edges, then a router's cases. TARGET_NONE where there is none. */
size_t graph_ways(const struct step *step);
int32_t graph_way(const struct step *step, size_t way);

/* reach[a * steps_count + b]: one step or more lead from a to b. */
bool *graph_reach(const struct contract *contract, struct arena *arena);

#endif
