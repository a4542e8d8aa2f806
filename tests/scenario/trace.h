/*
 * trace.h: what the core planned, in words: one line each, as the golden texts of tests/scenario hold them.
 */
#ifndef MYELIN_TESTS_SCENARIO_TRACE_H
#define MYELIN_TESTS_SCENARIO_TRACE_H

#include "worker/core/plan.h"

/* Where a trace goes, and what its times are relative to. */
struct trace {
    struct buf *out;
    struct arena *arena; /* for texts on the way */
    int64_t now_ms;
};

void trace_line(struct trace *trace, const char *format, ...) __attribute__((format(printf, 2, 3)));
void trace_fact(struct trace *trace, const struct fact *fact);
/* `said` messages of the conversation were shown already. */
void trace_call(struct trace *trace, const struct call *call, const struct run *run, size_t said);
void trace_parked(struct trace *trace, const struct step_parked *parked);
void trace_closed(struct trace *trace, const struct run_closed *closed);
void trace_state(struct trace *trace, const struct run *run);

#endif
