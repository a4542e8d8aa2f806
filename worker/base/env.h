/*
 * env.h: ${NAME} in settings, URLs and headers.
 *
 * ${NAME} is the environment variable NAME; where it is not set, the content of the file named by NAME_FILE (without the
 * last newline), so that secrets can be mounted; else the default of ${NAME:-default}.
 */
#ifndef MYELIN_BASE_ENV_H
#define MYELIN_BASE_ENV_H

#include "worker/base/arena.h"
#include "worker/base/error.h"

/* The text with every ${...} replaced. False with `error` (ERROR_FATAL), which names the variable that is missing and
 * never shows a value. */
bool env_expand(struct arena *arena, struct str text, struct str *expanded, struct error *error);

#endif
