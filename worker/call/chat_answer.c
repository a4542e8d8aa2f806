#include <math.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/call/chat.h"
#include "worker/call/excerpt.h"

/* I7 */
#define CALLS_MAX 128     /* tool calls in one answer */
#define ID_SIZE_MAX 128   /* of a tool call's id; a longer one is replaced */
#define WORD_SIZE_MAX 128 /* of finish_reason and the model's name */
#define TOKENS_MAX 1e12   /* a count beyond is taken for nonsense: unknown */

/* What an answer is read with. */
struct reading {
    const struct chat_model *model;
    const struct call *call;
    struct arena *arena;
    struct outcome *outcome;
};

static void failed(struct reading *reading, bool retryable, struct str reason)
{
    struct outcome *outcome = reading->outcome;

    outcome->kind = OUTCOME_FAILED;
    outcome->reason = reason;
    outcome->retryable = retryable;
    outcome->content = STR_NONE;
    outcome->calls = NULL;
    outcome->calls_count = 0;
}

static struct str excerpt_of(const struct reading *reading, struct str text)
{
    return excerpt(reading->arena, text, &reading->model->key, 1);
}

/* ---- errors ---- */

/* 429 also says "you have no money left", which waiting does not change. */
static bool is_quota(struct str word)
{
    static const char *const words[] = {
        "insufficient_quota",           "credit_balance_exhausted",          "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (str_is(word, words[i]))
            return true;
    }
    return false;
}

/* Codes of an error that came with status 200 and will not go away. */
static bool is_final(struct str word)
{
    static const char *const words[] = {
        "context_length_exceeded",  "invalid_request_error", "invalid_api_key",  "model_not_found",
        "content_policy_violation", "authentication_error",  "permission_error", "not_found_error",
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (str_is(word, words[i]))
            return true;
    }
    return is_quota(word);
}

static struct str borrowed(const json_t *object, const char *name)
{
    const json_t *member = json_object_get(object, name);

    return json_is_string(member) ? (struct str){json_string_value(member), json_string_length(member)} : STR_NONE;
}

/* {"error": {"message", "type", "code"}}, {"error": "text"}, {"message": ...}, {"detail": ...}: what went wrong, in words. */
static struct str message_in(const json_t *root, const json_t *error)
{
    static const char *const names[] = {"message", "detail", "error"};

    for (size_t i = 0; i < 3; i++) {
        struct str text = borrowed(error, names[i]);

        if (text.size > 0)
            return text;
        text = borrowed(root, names[i]);
        if (text.size > 0)
            return text;
    }
    return STR_NONE;
}

/* `status` is what HTTP said; an error in an answer of status 200 may name its own. */
static void failed_by(struct reading *reading, int32_t status, const json_t *root, const json_t *error, struct str body)
{
    const json_t *code = json_object_get(error, "code");
    struct str word = borrowed(error, "code"), type = borrowed(error, "type"), message = message_in(root, error);
    struct arena *arena = reading->arena;
    bool retryable;

    if (json_is_integer(code) && status < 400 && json_integer_value(code) >= 400 && json_integer_value(code) <= 599)
        status = (int32_t)json_integer_value(code);
    if (status >= 400)
        retryable = excerpt_status_retryable(status) && !is_quota(word) && !is_quota(type);
    else
        retryable = status >= 200 && status <= 299 && !is_final(word) && !is_final(type);
    if (word.size == 0)
        word = type;
    word = excerpt_of(reading, word);
    message = excerpt_of(reading, message.size > 0 ? message : body);
    failed(reading, retryable,
           arena_printf(arena, "HTTP %d%s%.*s%s%.*s", status, word.size > 0 ? " " : "", STR_ARG(word),
                        message.size > 0 ? ": " : "", STR_ARG(message)));
}

/* ---- content ---- */

/* Text, or a list of parts of which the texts count. */
static struct str content_of(const struct reading *reading, const json_t *content)
{
    struct buf text;
    struct str joined;
    const json_t *part;
    size_t i;

    if (json_is_string(content))
        return arena_copy(reading->arena, json_string_value(content), json_string_length(content));
    if (!json_is_array(content))
        return STR_NONE;
    buf_init(&text, CHAT_ANSWER_SIZE_MAX);
    json_array_foreach(content, i, part) {
        struct str piece = json_is_string(part) ? (struct str){json_string_value(part), json_string_length(part)}
                                                : borrowed(part, "text");

        (void)buf_put(&text, piece.data, piece.size);
    }
    joined = text.size > 0 ? arena_str(reading->arena, buf_str(&text)) : STR_NONE;
    buf_free(&text);
    return joined;
}

/* ---- tool calls ---- */

static bool id_is_taken(const struct reading *reading, struct str id, size_t before)
{
    const struct call *call = reading->call;

    for (size_t i = 0; i < before; i++) {
        if (str_equal(reading->outcome->calls[i].id, id))
            return true;
    }
    for (size_t i = 0; i < call->conversation_count; i++) {
        for (size_t j = 0; j < call->conversation[i].calls_count; j++) {
            if (str_equal(call->conversation[i].calls[j].id, id))
                return true;
        }
    }
    return false;
}

/* An id that is missing, too long or used before (some servers count from 0 in each answer) is replaced by one that is made
 * from the call's key, so that reading the stored answer again gives the same. */
static struct str id_of(const struct reading *reading, const json_t *item, size_t index)
{
    struct str id = json_member_str(reading->arena, item, "id");

    if (id.size > 0 && id.size <= ID_SIZE_MAX && !id_is_taken(reading, id, index))
        return id;
    return arena_printf(reading->arena, "call_%.*s_%zu", STR_ARG(reading->call->key), index);
}

/* Some servers send the arguments as JSON instead of as text, or nothing when a tool takes none. */
static struct str arguments_of(const struct reading *reading, const json_t *function)
{
    const json_t *arguments = json_object_get(function, "arguments");
    struct str text = borrowed(function, "arguments");

    if (arguments == NULL || json_is_null(arguments))
        return STR("{}");
    if (text.data == NULL)
        return json_text(reading->arena, arguments);
    return strspn(text.data, " \t\r\n") == text.size ? STR("{}") : arena_str(reading->arena, text);
}

static void read_calls(struct reading *reading, const json_t *list)
{
    struct outcome *outcome = reading->outcome;
    const json_t *item;
    size_t i;

    outcome->calls = ARENA_ARRAY(reading->arena, json_array_size(list), struct tool_request);
    json_array_foreach(list, i, item) {
        const json_t *function = json_object_get(item, "function");
        struct str name = json_member_str(reading->arena, function, "name");

        outcome->calls[i] = (struct tool_request){
            .id = id_of(reading, item, i),
            .tool = name.data != NULL ? name : STR(""),
            .arguments = arguments_of(reading, function),
        };
        outcome->calls_count = i + 1;
    }
}

/* The form before tool_calls; still what some servers answer: {"function_call": {"name", "arguments"}}. */
static void read_old_call(struct reading *reading, const json_t *function)
{
    struct outcome *outcome = reading->outcome;

    outcome->calls = ARENA_NEW(reading->arena, struct tool_request);
    outcome->calls_count = 1;
    outcome->calls[0] = (struct tool_request){
        .id = id_of(reading, NULL, 0),
        .tool = json_member_str(reading->arena, function, "name"),
        .arguments = arguments_of(reading, function),
    };
    if (outcome->calls[0].tool.data == NULL)
        outcome->calls[0].tool = STR("");
}

/* ---- usage ---- */

static int64_t tokens_of(const json_t *object, const char *name, const char *other)
{
    const json_t *count = json_object_get(object, name);
    double number;

    if (count == NULL)
        count = json_object_get(object, other);
    number = json_is_number(count) ? json_number_value(count) : -1; /* some servers send 12.0 */
    return number >= 0 && number <= TOKENS_MAX ? (int64_t)number : -1;
}

static void read_usage(struct reading *reading, const json_t *usage)
{
    const struct chat_model *model = reading->model;
    struct outcome *outcome = reading->outcome;
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    int64_t cached, cached_price = model->micro_usd_cached >= 0 ? model->micro_usd_cached : model->micro_usd_in;
    long double cost;

    outcome->tokens_in = tokens_of(usage, "prompt_tokens", "input_tokens");
    outcome->tokens_out = tokens_of(usage, "completion_tokens", "output_tokens");
    outcome->tokens_cached = tokens_of(details != NULL ? details : json_object_get(usage, "input_tokens_details"),
                                       "cached_tokens", "cached_tokens");
    if (outcome->tokens_cached > outcome->tokens_in) /* they are a part of tokens_in */
        outcome->tokens_cached = outcome->tokens_in;
    if (outcome->tokens_in < 0 || outcome->tokens_out < 0 || model->micro_usd_in < 0 || model->micro_usd_out < 0)
        return;
    cached = outcome->tokens_cached > 0 ? outcome->tokens_cached : 0;
    cost = (long double)(outcome->tokens_in - cached) * (long double)model->micro_usd_in +
           (long double)cached * (long double)cached_price +
           (long double)outcome->tokens_out * (long double)model->micro_usd_out;
    cost = ceill(cost / 1000000); /* prices are per 1,000,000 tokens; a budget is never undercharged */
    outcome->micro_usd = cost < (long double)(INT64_MAX / 2) ? (int64_t)cost : INT64_MAX / 2;
}

/* ---- the answer ---- */

static bool is_cut(struct str finish_reason)
{
    return str_is(finish_reason, "length") || str_is(finish_reason, "max_tokens") ||
           str_is(finish_reason, "model_length");
}

static struct str word_of(const struct reading *reading, const json_t *object, const char *name)
{
    struct str word = borrowed(object, name);

    return word.data == NULL || word.size > WORD_SIZE_MAX ? STR("") : arena_str(reading->arena, word);
}

static void read_message(struct reading *reading, const json_t *message)
{
    struct outcome *outcome = reading->outcome;
    const json_t *calls = json_object_get(message, "tool_calls"), *old_call = json_object_get(message, "function_call");
    struct str refusal = borrowed(message, "refusal");

    outcome->content = content_of(reading, json_object_get(message, "content"));
    outcome->truncated = is_cut(outcome->finish_reason);
    if (str_is(outcome->finish_reason, "content_filter")) {
        outcome->content = STR_NONE; /* what the filter left is not what the model said */
        return;
    }
    if (refusal.size > 0 && outcome->content.size == 0) {
        outcome->content = arena_str(reading->arena, refusal);
        outcome->finish_reason = STR("refusal");
    }
    if (outcome->truncated) /* a cut call must never be executed: it does not even get out of here */
        return;
    if (json_array_size(calls) > CALLS_MAX)
        failed(reading, true,
               arena_printf(reading->arena, "the model asked for %zu tool calls at once; at most %d are allowed",
                            json_array_size(calls), CALLS_MAX));
    else if (json_array_size(calls) > 0)
        read_calls(reading, calls);
    else if (json_is_object(old_call))
        read_old_call(reading, old_call);
}

static void read_answer(struct reading *reading, const json_t *root, struct str body)
{
    struct outcome *outcome = reading->outcome;
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    const json_t *error = json_object_get(root, "error");

    if (error == NULL || json_is_null(error))
        error = json_object_get(choice, "error");
    if (error != NULL && !json_is_null(error)) {
        failed_by(reading, outcome->http_status, root, error, body);
        return;
    }
    if (!json_is_object(message)) {
        failed(reading, true, STR("the answer has no choices[0].message"));
        return;
    }
    outcome->kind = OUTCOME_ANSWERED;
    outcome->finish_reason = word_of(reading, choice, "finish_reason");
    outcome->response_model = word_of(reading, root, "model");
    read_usage(reading, json_object_get(root, "usage"));
    if (str_is(outcome->finish_reason, "error"))
        failed(reading, true, STR("the endpoint broke off the answer (finish_reason error)"));
    else
        read_message(reading, message);
}

static void read_body(struct reading *reading, const struct http_answer *answer)
{
    struct error error = {.class = ERROR_NONE};
    json_t *root = json_read(answer->body, CHAT_ANSWER_SIZE_MAX, &error);
    bool good = answer->status >= 200 && answer->status <= 299;

    if (!good)
        failed_by(reading, answer->status, root, json_object_get(root, "error"), answer->body);
    else if (root == NULL)
        failed(reading, true, arena_printf(reading->arena, "the answer is %s", error.text));
    else
        read_answer(reading, root, answer->body);
    json_decref(root);
}

void chat_outcome(const struct chat_model *model, const struct call *call, const struct http_answer *answer,
                  int64_t at_ms, struct arena *arena, struct outcome *outcome)
{
    struct reading reading = {.model = model, .call = call, .arena = arena, .outcome = outcome};

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
    if (answer->end == HTTP_ANSWERED)
        read_body(&reading, answer);
    else
        failed(&reading, answer->end != HTTP_TOO_LARGE,
               answer->reason != NULL ? arena_str(arena, str_of(answer->reason)) : STR("no answer"));
    if (outcome->kind == OUTCOME_FAILED)
        outcome->retry_after_ms = answer->retry_after_ms;
}
