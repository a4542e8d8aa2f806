/*
 * A model's answer of any bytes: an outcome that holds what plan.h says, and a conversation that can be sent back.
 * Input: one digit, which gives the status (2: 200, 4: 429, 5: 500, else 400), then the body.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/call/chat.h"
#include "worker/call/tool.h"

#define KEY "00112233445566778899aabbccddeeff"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_chat: %s\n", what);
    abort();
}

static void must_be_text(struct str text, size_t size_max)
{
    must(text.size == 0 || str_utf8_size(text) == text.size, "a text that is no UTF-8");
    must(text.size == 0 || memchr(text.data, '\0', text.size) == NULL, "a text with a NUL");
    must(text.data == NULL || text.data[text.size] == '\0', "a text without a NUL after it");
    must(text.size <= size_max, "a text that is not bounded");
}

static void examine(const struct outcome *outcome)
{
    must_be_text(outcome->content, CHAT_ANSWER_SIZE_MAX);
    must_be_text(outcome->finish_reason, 128);
    must_be_text(outcome->response_model, 128);
    must_be_text(outcome->reason, 1000);
    must(outcome->kind == OUTCOME_ANSWERED || outcome->kind == OUTCOME_FAILED, "a kind that no model has");
    must((outcome->kind == OUTCOME_FAILED) == (outcome->reason.size > 0),
         "failed without a reason, or a reason without");
    must(!outcome->truncated || outcome->calls_count == 0, "a call that was cut");
    must(outcome->kind == OUTCOME_ANSWERED || outcome->calls_count == 0, "calls of an answer that failed");
    must(outcome->tokens_in >= -1 && outcome->tokens_out >= -1 && outcome->tokens_cached <= outcome->tokens_in,
         "tokens that cannot be");
    must(outcome->micro_usd >= -1, "a price below nothing");
    for (size_t i = 0; i < outcome->calls_count; i++) {
        must_be_text(outcome->calls[i].id, 128);
        must_be_text(outcome->calls[i].tool, CHAT_ANSWER_SIZE_MAX);
        must_be_text(outcome->calls[i].arguments, CHAT_ANSWER_SIZE_MAX);
        must(outcome->calls[i].id.size > 0 && outcome->calls[i].tool.data != NULL, "a call without id or name");
        for (size_t j = 0; j < i; j++)
            must(!str_equal(outcome->calls[i].id, outcome->calls[j].id), "two calls with one id");
    }
}

/* Whatever it said, the next request can say it back. */
static void send_back(const struct chat_model *model, struct call *call, const struct outcome *outcome,
                      struct arena *arena)
{
    struct message messages[] = {
        {.role = ROLE_ASSISTANT,
         .content = outcome->content,
         .calls = outcome->calls,
         .calls_count = outcome->calls_count},
        {.role = ROLE_TOOL,
         .call_id = outcome->calls_count > 0 ? outcome->calls[0].id : STR("x"),
         .content = outcome->content},
    };
    struct http_request request;
    struct error error = {.class = ERROR_NONE};
    json_t *body;

    call->conversation = messages;
    call->conversation_count = 2;
    must(chat_request(model, call, STR("run"), arena, &request, &error), error.text);
    body = json_read(request.body, (size_t)64 << 20, &error);
    must(body != NULL, error.text);
    json_decref(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct chat_model model = {
        .name = STR("m"), .url = STR("http://h/v1"), .key = STR("sk-secret"), .micro_usd_in = 7, .micro_usd_out = 9};
    struct call call = {.kind = CALL_MODEL, .effect = EFFECT_READ, .key = STR(KEY)};
    struct arena *arena = arena_new();
    struct http_answer answer = {.end = HTTP_ANSWERED}, again;
    struct outcome outcome;

    if (size > 0) {
        answer.status = data[0] == '2' ? 200 : data[0] == '4' ? 429 : data[0] == '5' ? 500 : 400;
        answer.body = arena_copy(arena, data + 1, size - 1);
        chat_outcome(&model, &call, &answer, 1, arena, &outcome);
        examine(&outcome);
        if (outcome.kind == OUTCOME_ANSWERED)
            send_back(&model, &call, &outcome, arena);
        must(answer_unpack(answer_pack(arena, &answer), &again) && str_equal(again.body, answer.body) &&
                 again.status == answer.status,
             "packed and unpacked it is another answer");
    }
    arena_free(arena);
    return 0;
}
