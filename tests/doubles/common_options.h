/* The command line that both doubles share. */
#ifndef TESTS_DOUBLES_COMMON_OPTIONS_H
#define TESTS_DOUBLES_COMMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

enum { OPTIONS_PATHS_MAX = 32 };

struct options {
    unsigned short port;
    const char *port_file, *ledger;
    const char *scripts[OPTIONS_PATHS_MAX], *recorded[OPTIONS_PATHS_MAX];
    size_t scripts_count, recorded_count;
    bool flag; /* the double's own switch was given */
};

/* `flag` is the double's own switch and `about` its one-line meaning. Strings are borrowed from
 * argv. Exits 0 after --help, 64 after a message for what it does not understand. */
struct options options_parse(int argc, char **argv, const char *flag, const char *about);

#endif
