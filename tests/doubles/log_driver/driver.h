/* driver.h: what the parts of log_driver share. */
#ifndef TESTS_DOUBLES_LOG_DRIVER_H
#define TESTS_DOUBLES_LOG_DRIVER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/io/log.h"

#define OPTIONS_MAX 16
#define RUNS_MAX 100000

struct options {
    const char *name_space;
    const char *properties[OPTIONS_MAX];
    size_t properties_count;
    char servers[200];
    bool pinned, fat, twins;
    int32_t in_flight, trim_every_ms;
};

extern volatile sig_atomic_t stop_asked; /* SIGTERM or SIGINT came */

_Noreturn void die(const char *what);
int parse_number(const char *text); /* dies when it is none */
uint32_t dice(uint32_t sides);      /* 0 to sides - 1 */

/* Into `buffer`, borrowed. */
struct str text(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
void name_of(const struct options *options, const char *what, char *name, size_t size);
int run_number(struct str run); /* of "r17"; -1: no run */
struct log_record record(enum topic topic, struct str run, struct str value);
struct log *open_log(const struct options *options, const char *slot); /* NULL: the reason is logged */

int serve(const struct options *options, const char *slot, int hops, int delay_ms);
int pump(const struct options *options, const char *slot, int count);
int steer(const struct options *options, const char *slot);
void put_many(const struct options *options, const char *what, int first, int count, int size);
int watch(const struct options *options, int count, int timeout_s);
int check_facts(const struct options *options, int count, int hops); /* how many are wrong */
int check_rows(const struct options *options);                       /* how many are left */

#endif
