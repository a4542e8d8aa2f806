/*
 * A tool's answer, the arguments of a call, and what Redis keeps, of any bytes. The first byte says which:
 *
 *   a    an answer: the next byte gives the status, the rest is the body
 *   r    arguments: the next byte picks the method and the URL, the rest is the JSON
 *   u    what Redis keeps
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/call/tool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_tool: %s\n", what);
    abort();
}

static void examine(const struct call *call, const struct outcome *outcome)
{
    json_t *result = outcome->result.data == NULL ? NULL : json_read(outcome->result, TOOL_ANSWER_SIZE_MAX, NULL);

    must((outcome->kind == OUTCOME_ANSWERED) == (result != NULL), "answered without a result, or a result without");
    must((outcome->kind == OUTCOME_ANSWERED) == (outcome->reason.data == NULL), "not answered and no reason, or both");
    must(outcome->reason.size <= 400 && str_utf8_size(outcome->reason) == outcome->reason.size, "a bad reason");
    if (call->effect == EFFECT_WRITE)
        must(outcome->kind != OUTCOME_FAILED || outcome->executed_surely_not,
             "a write that failed and may have executed");
    else
        must(outcome->kind != OUTCOME_DOUBT, "a read in doubt");
    json_decref(result);
}

static void try_answer(struct call *call, const struct http_answer *answer, struct arena *arena)
{
    static const enum effect_class effects[] = {EFFECT_READ, EFFECT_WRITE};
    struct outcome outcome;

    for (size_t i = 0; i < 2; i++) {
        call->effect = effects[i];
        tool_outcome(call, answer, 1, arena, &outcome);
        examine(call, &outcome);
    }
}

static void try_request(struct call *call, struct tool *tool, unsigned choice, struct arena *arena)
{
    static const char *const methods[] = {"GET", "POST", "DELETE", "PUT"};
    static const char *const urls[] = {"http://h/x", "http://h/{a}/{b}?c={c}", "http://h/{key}?k",
                                       "http://h/${HOME:-x}/{a}"};
    struct http_request request;
    struct error error = {.class = ERROR_NONE};

    tool->method = str_of(methods[choice % 4]);
    tool->url = str_of(urls[choice / 4 % 4]);
    if (!tool_request(call, STR("run"), arena, &request, &error)) {
        must(error.class != ERROR_NONE && error.text[0] != '\0', "refused without a reason");
        return;
    }
    must(strncmp(request.url.data, "http://h/", 9) == 0 && strlen(request.url.data) == request.url.size, "a bad URL");
    for (size_t i = 9; i < request.url.size; i++)
        must(request.url.data[i] > ' ' && request.url.data[i] < 0x7f, "a character that must be encoded");
    must(strstr(request.url.data, "/../") == NULL && strstr(request.url.data, "/./") == NULL, "a path that climbs");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct tool tool = {.name = STR("t"), .agent = -1, .method = STR("POST"), .url = STR("http://h/")};
    struct call call = {.kind = CALL_TOOL, .key = STR("k"), .tool = &tool, .arguments = STR("{}")};
    struct http_answer answer = {.end = HTTP_ANSWERED};

    if (size >= 2 && data[0] == 'a') {
        answer.status = data[1] == '2' ? 200 : data[1] == '4' ? 429 : data[1] == '5' ? 500 : data[1];
        answer.body = arena_copy(arena, data + 2, size - 2);
        try_answer(&call, &answer, arena);
    } else if (size >= 2 && data[0] == 'r') {
        call.arguments = arena_copy(arena, data + 2, size - 2);
        try_request(&call, &tool, data[1], arena);
    } else if (size >= 1 && data[0] == 'u') {
        if (answer_unpack(arena_copy(arena, data + 1, size - 1), &answer))
            try_answer(&call, &answer, arena);
    }
    arena_free(arena);
    return 0;
}
