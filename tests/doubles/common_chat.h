/* Reading an OpenAI-compatible chat completions request. Format: POST /v1/chat/completions of
 * openai-openapi 2.3.0; only what a client of tools and text needs. */
#ifndef TESTS_DOUBLES_COMMON_CHAT_H
#define TESTS_DOUBLES_COMMON_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* What is wrong with a request that a strict server would refuse, as malloc'ed text; NULL when
 * nothing is. The conversation is checked too: each tool call of an assistant message must be
 * answered by exactly one tool message before the next turn. */
char *chat_fault(const json_t *request);

/* The content of a message as malloc'ed text: a string, or the text parts of an array joined. */
char *chat_text(const json_t *message);

/* Whether one message of that role contains `needle` (as script_contains). "developer" counts as
 * "system". */
bool chat_says(const json_t *messages, const char *role, const json_t *needle);

/* The first message of that role, or NULL. Borrowed. */
const json_t *chat_first(const json_t *messages, const char *role);

/* Assistant messages so far. */
size_t chat_turns(const json_t *messages);

/* Whether a tool of that name is offered. */
bool chat_offers(const json_t *request, const char *tool);

/* Bytes of text in all messages and their tool calls. */
size_t chat_size(const json_t *messages);

#endif
