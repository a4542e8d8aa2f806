/* A loop as the worker's around one caller, for the tests of the HTTP port. */
#ifndef MYELIN_TESTS_UNIT_CALLER_FIXTURE_H
#define MYELIN_TESTS_UNIT_CALLER_FIXTURE_H

#include "worker/io/caller.h"

/* How a call ended. */
struct ended {
    int times;
    struct http_answer answer; /* its texts: below */
    char body[1024], type[128], reason[512];
    struct caller_call *cancel;       /* cancelled from within */
    const struct http_request *again; /* started from within */
    struct ended *again_ended;
};

extern int caller_fixture_epoll_fd;
extern struct caller *caller_fixture_caller;

void caller_fixture_open(const struct caller_settings *settings); /* closes the one before */
int caller_fixture_set_up(void **state);                          /* default settings, counters of the server at 0 */
int caller_fixture_tear_down(void **state);

int64_t caller_fixture_mono_ms(void);
void caller_fixture_turn(int64_t wait_ms_max); /* one turn of the loop: tick, sleep, hand out events */
void caller_fixture_run_until(const struct ended *ended);
void caller_fixture_run_for(int64_t ms);

void caller_fixture_done(void *context, const struct http_answer *answer); /* context: struct ended */
struct caller_call *caller_fixture_start(const struct http_request *request, struct ended *ended);
struct ended caller_fixture_call(const struct http_request *request); /* starts it and runs until its end */

/* POST with a small body when `write`, else GET; 5 s, answers to 1,000 bytes. */
struct http_request caller_fixture_request(const char *url, bool write);

#endif
