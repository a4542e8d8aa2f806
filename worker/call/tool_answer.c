#include <stdio.h>
#include <string.h>

#include "worker/base/env.h"
#include "worker/base/json.h"
#include "worker/call/excerpt.h"
#include "worker/call/tool.h"

#define TOO_LARGE_REASON "the answer is over 1048576 bytes"
_Static_assert(TOOL_ANSWER_SIZE_MAX == 1048576, "the reason names it");

#define CONTENT_TYPE_SIZE_MAX 128

/* The body as JSON text: JSON as it is, anything else as a JSON string, nothing as null. STR_NONE: too large as a string. */
static struct str result_of(struct str body, struct arena *arena)
{
    struct str result;
    json_t *value;

    if (body.size >= 3 && memcmp(body.data, "\xef\xbb\xbf", 3) == 0) /* a byte order mark, as some servers send */
        body = (struct str){body.data + 3, body.size - 3};
    if (body.size == 0 || strspn(body.data, " \t\r\n") == body.size)
        return STR("null");
    value = json_read(body, TOOL_ANSWER_SIZE_MAX, NULL);
    if (value == NULL) {
        body = excerpt_utf8(arena, body);
        value = json_stringn(body.data, body.size);
    }
    if (value == NULL)
        return STR_NONE;
    result = json_text(arena, value);
    json_decref(value);
    return result.size <= TOOL_ANSWER_SIZE_MAX ? result : STR_NONE;
}

/* The call was made, its answer is lost: that is known, so it is no failure of a write. */
static void answered_too_large(struct arena *arena, struct outcome *outcome)
{
    outcome->kind = OUTCOME_ANSWERED;
    outcome->result = arena_str(arena, STR("{\"truncated\":true,\"reason\":\"" TOO_LARGE_REASON "\"}"));
}

static void failed(struct outcome *outcome, struct str reason, bool retryable)
{
    outcome->kind = OUTCOME_FAILED;
    outcome->reason = reason;
    outcome->retryable = retryable;
}

static void doubt(struct outcome *outcome, struct str reason)
{
    outcome->kind = OUTCOME_DOUBT;
    outcome->reason = reason;
}

/* The values of the tool's headers that come from the environment, and what follows a scheme as in "Bearer ...". */
static size_t secrets_of(const struct tool *tool, struct arena *arena, struct str *secrets)
{
    size_t count = 0;

    for (size_t i = 0; i < tool->headers_count; i++) {
        struct str value;
        const char *space;

        if (memmem(tool->headers[i].value.data, tool->headers[i].value.size, "${", 2) == NULL ||
            !env_expand(arena, tool->headers[i].value, &value, NULL))
            continue;
        secrets[count++] = value;
        space = memchr(value.data, ' ', value.size);
        if (space != NULL)
            secrets[count++] = str_of(space + 1);
    }
    return count;
}

/* "HTTP 503: " and the body's start. */
static struct str status_reason(const struct call *call, const struct http_answer *answer, struct arena *arena)
{
    struct str *secrets = ARENA_ARRAY(arena, 2 * call->tool->headers_count + 1, struct str);
    size_t count = secrets_of(call->tool, arena, secrets);
    struct str start = excerpt(arena, answer->body, secrets, count);

    return arena_printf(arena, "HTTP %d%s%.*s", answer->status, start.size > 0 ? ": " : "", STR_ARG(start));
}

static bool is_not_executed(const struct tool *tool, int32_t status)
{
    if (status == 429)
        return true;
    for (size_t i = 0; i < tool->not_executed_count; i++) {
        if (tool->not_executed[i] == status)
            return true;
    }
    return false;
}

/* I5: the only failures of a write are those where it surely did not execute. */
static void write_outcome(const struct call *call, const struct http_answer *answer, struct str reason,
                          struct arena *arena, struct outcome *outcome)
{
    bool whole = answer->end == HTTP_ANSWERED, status_known = whole || answer->end == HTTP_TOO_LARGE;

    if (status_known && answer->status >= 200 && answer->status <= 299) {
        outcome->kind = OUTCOME_ANSWERED;
        outcome->result = whole ? result_of(answer->body, arena) : STR_NONE;
        if (outcome->result.data == NULL)
            answered_too_large(arena, outcome);
        return;
    }
    outcome->executed_surely_not = answer->end == HTTP_NOT_SENT ||
                                   (status_known && is_not_executed(call->tool, answer->status));
    if (outcome->executed_surely_not)
        failed(outcome, reason, true);
    else
        doubt(outcome, reason);
}

static void read_outcome(const struct http_answer *answer, struct str reason, struct arena *arena,
                         struct outcome *outcome)
{
    if (answer->end == HTTP_NOT_SENT || answer->end == HTTP_UNKNOWN) {
        failed(outcome, reason, true);
    } else if (answer->status < 200 || answer->status > 299) {
        failed(outcome, reason, excerpt_status_retryable(answer->status));
    } else {
        outcome->result = answer->end == HTTP_ANSWERED ? result_of(answer->body, arena) : STR_NONE;
        if (outcome->result.data != NULL)
            outcome->kind = OUTCOME_ANSWERED;
        else
            failed(outcome, STR(TOO_LARGE_REASON), false); /* it would be as large again */
    }
}

void tool_outcome(const struct call *call, const struct http_answer *answer, int64_t at_ms, struct arena *arena,
                  struct outcome *outcome)
{
    struct str reason = answer->end == HTTP_ANSWERED
                            ? status_reason(call, answer, arena)
                            : arena_str(arena, answer->reason != NULL ? str_of(answer->reason) : STR("no answer"));

    if (answer->end == HTTP_TOO_LARGE)
        reason = arena_printf(arena, "HTTP %d: " TOO_LARGE_REASON, answer->status);
    *outcome = (struct outcome){
        .at_ms = at_ms,
        .duration_ms = answer->duration_ms,
        .origin = ORIGIN_CALLED,
        .http_status = answer->status,
        .tokens_in = -1,
        .tokens_out = -1,
        .tokens_cached = -1,
        .micro_usd = -1,
    };
    if (call->effect == EFFECT_WRITE)
        write_outcome(call, answer, reason, arena, outcome);
    else
        read_outcome(answer, reason, arena, outcome);
    if (outcome->kind == OUTCOME_ANSWERED)
        outcome->reason = STR_NONE;
    else
        outcome->retry_after_ms = answer->retry_after_ms;
}

/* ---- what Redis keeps ---- */

struct str answer_pack(struct arena *arena, const struct http_answer *answer)
{
    bool whole = answer->end == HTTP_ANSWERED;
    char type[CONTENT_TYPE_SIZE_MAX];
    struct buf packed;
    size_t size = 0;
    struct str kept;

    while (size < answer->content_type.size && size < sizeof type &&
           (unsigned char)answer->content_type.data[size] >= 0x20) {
        type[size] = answer->content_type.data[size];
        size++;
    }
    buf_init(&packed, SIZE_MAX);
    (void)buf_printf(&packed, "%03d%s %.*s\n", answer->status, whole ? "" : "+", (int)size, type);
    if (whole)
        (void)buf_put(&packed, answer->body.data, answer->body.size);
    kept = arena_str(arena, buf_str(&packed));
    buf_free(&packed);
    return kept;
}

bool answer_unpack(struct str packed, struct http_answer *answer)
{
    const char *line_end = packed.size > 0 ? memchr(packed.data, '\n', packed.size) : NULL;
    size_t at = 3;
    bool cut;

    if (line_end == NULL || line_end - packed.data < 4)
        return false;
    *answer = (struct http_answer){0};
    for (size_t i = 0; i < 3; i++) {
        if (packed.data[i] < '0' || packed.data[i] > '9')
            return false;
        answer->status = answer->status * 10 + (packed.data[i] - '0');
    }
    cut = packed.data[at] == '+';
    at += cut;
    if (packed.data[at] != ' ')
        return false;
    answer->end = cut ? HTTP_TOO_LARGE : HTTP_ANSWERED;
    answer->reason = cut ? TOO_LARGE_REASON : NULL;
    answer->content_type = (struct str){packed.data + at + 1, (size_t)(line_end - packed.data) - at - 1};
    answer->body = (struct str){line_end + 1, packed.size - (size_t)(line_end + 1 - packed.data)};
    return true;
}
