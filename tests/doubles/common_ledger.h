/* The ledger: JSON lines of what came in and what was done, the outside judge of the tests.
 * Each line is one write(2) to a file opened with O_APPEND, made before the thing it tells of is
 * answered, so a killed double or a killed client loses nothing. */
#ifndef TESTS_DOUBLES_COMMON_LEDGER_H
#define TESTS_DOUBLES_COMMON_LEDGER_H

#include <jansson.h>
#include <stdbool.h>

/* NULL: nothing is written. False, with a message on stderr, when it cannot be opened. */
bool ledger_open(const char *path);

/* Takes `line`, an object; adds time_ms (since 1970) in front. */
void ledger_write(json_t *line);

void ledger_close(void);

#endif
