/*
 * chat.h: a model call as an OpenAI-compatible chat completion, and its answer as an outcome.
 *
 * Source: openai-openapi 2.3.0, POST /chat/completions. Only what the user configured and what the contract needs is sent:
 * compatible servers refuse fields that they do not know. Nothing in an answer is trusted: `finish_reason` lies (tool_calls
 * decide), arguments are text that may be no JSON, `usage` may be absent (unknown, not 0).
 */
#ifndef MYELIN_CALL_CHAT_H
#define MYELIN_CALL_CHAT_H

#include "worker/base/http.h"
#include "worker/core/plan.h"

/* A model of the settings. */
struct chat_model {
    struct str name;    /* as contracts call it */
    struct str url;     /* base, for example https://api.example.com/v1 ; "/chat/completions" is appended */
    struct str key;     /* secret; may be absent */
    struct str model;   /* as the endpoint calls it */
    int64_t timeout_ms; /* default 120 s */
    int64_t micro_usd_in, micro_usd_out; /* per 1,000,000 tokens; -1 = price not known */
    int64_t micro_usd_cached;            /* per 1,000,000 cached input tokens; -1 = as input */
    int32_t max_tokens;                  /* 0 = not sent */
    bool max_tokens_legacy;              /* send max_tokens instead of max_completion_tokens */
    struct str response_format;          /* "json_schema" (default), "json_object" or "none": what the endpoint knows */
    struct str extra; /* JSON object merged into the request body (temperature, seed, ...); may be absent */
};

#define CHAT_ANSWER_SIZE_MAX ((size_t)1 << 20)

/* The HTTP request of a CALL_MODEL; everything in the arena. `run` is sent as X-Myelin-Run. */
bool chat_request(const struct chat_model *model, const struct call *call, struct str run, struct arena *arena,
                  struct http_request *request, struct error *error);

/* What the answer means. Never fails: what cannot be understood is an OUTCOME_FAILED that says why. `at_ms` is the time. */
void chat_outcome(const struct chat_model *model, const struct call *call, const struct http_answer *answer,
                  int64_t at_ms, struct arena *arena, struct outcome *outcome);

#endif
