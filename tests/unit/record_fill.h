/* record_fill.h: records with every field set to a value of its own, made from the field tables. */
#ifndef MYELIN_TESTS_UNIT_RECORD_FILL_H
#define MYELIN_TESTS_UNIT_RECORD_FILL_H

#include "worker/record.h"

/* The struct of that type, in the arena. `round` 0, 1, 2 ... goes through the symbols of enums, the bodies of facts, true
 * and false, numbers small and large; no two fields of one record have the same text or number. */
void *record_fill(enum record_type type, int round, struct arena *arena);

#endif
