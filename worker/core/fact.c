#include "worker/core/fact.h"

#include <assert.h>

const char *fact_kind_name(enum fact_kind kind)
{
    static const char *const names[] = {
        "RunStarted",      "ModelAnswered",    "ToolAnswered", "CallFailed",   "CallRefused",
        "OutputRejected",  "CriterionChecked", "InDoubt",      "DoubtSettled", "StepWaiting",
        "ApprovalDecided", "StepCompleted",    "StepFailed",   "RunEnded",     "RequestAnswered",
    };
    assert((size_t)kind < sizeof(names) / sizeof(names[0]));
    return names[kind];
}

const char *call_origin_name(enum call_origin origin)
{
    static const char *const names[] = {"called", "reused", "adopted", "probed", "resolved"};
    assert((size_t)origin < sizeof(names) / sizeof(names[0]));
    return names[origin];
}
