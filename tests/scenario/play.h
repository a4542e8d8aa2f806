/*
 * play.h: plays a scenario (tests/scenario/NAME.txt): drives the core as the loop and the keeper's side do, and writes down
 * what it planned. tests/scenario/README.md lists the words of the language.
 */
#ifndef MYELIN_TESTS_SCENARIO_PLAY_H
#define MYELIN_TESTS_SCENARIO_PLAY_H

#include "worker/base/bytes.h"

/* Copies the scenario to `out`, with what was planned after each step in place of its lines "> ...". A script that makes no
 * sense, a plan that is not the same twice, and a record that does not survive its encoding fail the cmocka test. */
void play_file(const char *path, struct str script, struct buf *out);

#endif
