/*
 * excerpt.h: a piece of somebody else's text that is fit for a reason: one line of valid UTF-8, short, without our secrets.
 */
#ifndef MYELIN_CALL_EXCERPT_H
#define MYELIN_CALL_EXCERPT_H

#include "worker/base/arena.h"

#define EXCERPT_SIZE_MAX 300

/* The start of `text`, at most EXCERPT_SIZE_MAX bytes and "..." when there was more. What is no UTF-8 becomes U+FFFD, what
 * is no character a space; where one of the secrets (of at least 4 bytes) occurs stands "[secret]": endpoints do echo keys. */
struct str excerpt(struct arena *arena, struct str text, const struct str *secrets, size_t secrets_count);

/* All of `text` as valid UTF-8 without NUL: what is not becomes U+FFFD. `text` itself when nothing is wrong with it. */
struct str excerpt_utf8(struct arena *arena, struct str text);

/* A status that may go away by itself: 408, 409, 425, 429, 5xx. */
bool excerpt_status_retryable(int32_t status);

#endif
