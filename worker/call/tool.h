/*
 * tool.h: a tool call (or the probe of a write) over HTTP, and its answer as an outcome.
 *
 * The arguments go as the JSON body (POST, PUT, PATCH) or, for {arg} in the URL, URL-encoded into it; a GET or DELETE
 * without placeholders gets them as query parameters. Headers sent: Content-Type, Idempotency-Key (I3), X-Myelin-Run, the
 * tool's own.
 */
#ifndef MYELIN_CALL_TOOL_H
#define MYELIN_CALL_TOOL_H

#include "worker/base/http.h"
#include "worker/core/plan.h"

#define TOOL_ANSWER_SIZE_MAX ((size_t)1 << 20)

bool tool_request(const struct call *call, struct str run, struct arena *arena, struct http_request *request,
                  struct error *error);

/* Section 5 of the design: a read fails or answers; a write answers (2xx), surely did not execute (not connected, 429, a
 * status in not_executed), or is in doubt (everything else): then until_ms is for the caller to fill in. */
void tool_outcome(const struct call *call, const struct http_answer *answer, int64_t at_ms, struct arena *arena,
                  struct outcome *outcome);

/* What is kept in Redis of a whole answer: "STATUS CONTENT-TYPE\nBODY", and back. */
struct str answer_pack(struct arena *arena, const struct http_answer *answer);
bool answer_unpack(struct str packed, struct http_answer *answer);

#endif
