/*
 * tool.h: a tool call (or the probe of a write) over HTTP, and its answer as an outcome.
 *
 * In the URL, {arg} is that argument and {key} the idempotency key, both URL-encoded. The arguments, all of them, are the JSON
 * body of a POST, PUT or PATCH; with another method those that are no placeholder become query parameters. A probe is a GET
 * of its URL and nothing else. Headers sent: Content-Type (with a body), Idempotency-Key (I3; not by a probe), X-Myelin-Run,
 * the tool's own.
 */
#ifndef MYELIN_CALL_TOOL_H
#define MYELIN_CALL_TOOL_H

#include "worker/base/http.h"
#include "worker/core/plan.h"

#define TOOL_ANSWER_SIZE_MAX ((size_t)1 << 20)

/* Everything in the arena. False with `error`: ERROR_RETRY for a variable of ${NAME} that this worker does not have,
 * ERROR_POISON for arguments that do not fit the URL. send_until_boot_ms is for the caller to fill in. */
bool tool_request(const struct call *call, struct str run, struct arena *arena, struct http_request *request,
                  struct error *error);

/* Section 5 of the design: a read fails or answers; a write answers (2xx, also when its answer was too large to keep: then
 * the result is {"truncated": true, ...}), surely did not execute (not sent, 429, a status in not_executed), or is in doubt
 * (everything else): then until_ms is for the caller to fill in. It says what became of this sending, nothing of an earlier
 * one. A write that did not execute may be retried, a read after 408, 409, 425, 429, 5xx and when there was no answer. The
 * result of a body that is no JSON is a JSON string, of none null. */
void tool_outcome(const struct call *call, const struct http_answer *answer, int64_t at_ms, struct arena *arena,
                  struct outcome *outcome);

/* What is kept in Redis of an answer: "STATUS CONTENT-TYPE\nBODY", and back; one that was too large to keep is
 * "STATUS+ CONTENT-TYPE\n". What was unpacked borrows from `packed`, its content type without a NUL after it. */
struct str answer_pack(struct arena *arena, const struct http_answer *answer);
bool answer_unpack(struct str packed, struct http_answer *answer);

#endif
