/*
 * contracts.h: what the tests of contracts share.
 */
#ifndef MYELIN_TESTS_UNIT_CONTRACTS_H
#define MYELIN_TESTS_UNIT_CONTRACTS_H

#include "worker/contract/contract.h"

#define FIRST "config/contracts/customer_research_to_followup.cfg"
#define EVERY_KEY "tests/contracts/good/every_key.cfg"

#define SMALL_STEPS "steps = { b = { model = \"m\"; next = \"a\"; }; a = { model = \"m\"; next = \"end\"; }; }; "
#define SMALL "contract = { name = \"small\"; goal = \"Say it.\"; " SMALL_STEPS "};\n"

/* Fail the test, and print the problems, when there is one. */
struct contract *contracts_read(const char *path);
struct contract *contracts_load(struct str canonical);

/* A file of its own, which the caller unlinks. */
struct draft {
    char path[64];
};
struct draft contracts_draft(const char *text, size_t size);

/* The rows of `contract show`, "research | agent | ...". In the arena. */
struct str contracts_table(struct arena *arena, const struct contract *contract);

void contracts_assert_str(struct str got, const char *wanted);

int contracts_free_expressions(void **state); /* a group's teardown */

#endif
