/* The tools that the demo's contract calls, so that it needs no script: /search, /crm, /send. */
#ifndef TESTS_DOUBLES_COMMON_DEMO_H
#define TESTS_DOUBLES_COMMON_DEMO_H

#include <jansson.h>

/* What that tool answers when it acts for the nth time (from 1); NULL: no such tool. */
json_t *demo_result(const char *tool, const json_t *args, json_int_t nth);

#endif
