/* play_internal.h: shared by play.c (the words of the language) and drive.c (the core, driven). Nobody else includes it. */
#ifndef MYELIN_TESTS_SCENARIO_PLAY_INTERNAL_H
#define MYELIN_TESTS_SCENARIO_PLAY_INTERNAL_H

#include "tests/scenario/trace.h"
#include "worker/core/decide.h"
#include "worker/core/fold.h"
#include "worker/core/keeper.h"
#include "worker/record.h"

struct play {
    const char *path;
    int line;
    struct arena *arena;
    struct str contract_text;  /* the file's, with the scenario's changes */
    struct contract *contract; /* NULL until the first step */
    struct keeper *keeper;
    struct fold *fold;
    struct trace trace;
    int64_t now_ms;
    int64_t delay_ms; /* how long the next step event is on its way */
    struct str run_id;
    struct str event;        /* the step event in our hands, encoded */
    struct run *run;         /* as it was decoded from there */
    const struct call *call; /* in flight; NULL = none */
    size_t said;             /* messages that were shown, of this visit */
    struct str said_step;
    int32_t said_visit;
    int64_t tokens_in, tokens_out, micro_usd; /* of the next model answers */
    int64_t deliveries;
};

void drive_fail(const struct play *play, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
void drive_run(struct play *play, const struct run_requested *request);
void drive_deliver(struct play *play); /* the step event reaches a worker (again) */
void drive_show(struct play *play);    /* the state in the latest event */
void drive_outcome(struct play *play, const struct outcome *outcome);
void drive_time(struct play *play, int64_t ms); /* the clock goes on; what is due happens on the way */
/* What waits at this step, or at any (STR_NONE); NULL = nothing. */
const struct step_parked *drive_parked(struct play *play, struct str run, struct str step);
void drive_decision(struct play *play, struct decision *decision);
void drive_resolution(struct play *play, struct resolved *resolved);

#endif
