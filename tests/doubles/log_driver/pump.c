#include "tests/doubles/log_driver/driver.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "worker/io/clock.h"

#define TIMES_MAX 100000

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

int pump(const struct options *options, const char *slot, int count)
{
    struct log *log = open_log(options, slot);
    if (log == NULL)
        return EX_UNAVAILABLE;
    struct pollfd fd = {.fd = log_fd(log), .events = POLLIN};
    int64_t first_us = 0, committed = 0, commits = 0, *times_us = calloc(TIMES_MAX, sizeof *times_us);
    if (times_us == NULL)
        abort();
    bool stopped = false, stopping = false;
    while (!stopped) {
        struct log_event event;
        poll(&fd, 1, 100);
        while (log_next(log, &event)) {
            if (event.kind == LOG_RECORD) {
                if (first_us == 0)
                    first_us = clock_mono_us();
                struct log_record fact = record(TOPIC_HISTORY, event.key, event.value);
                log_done(log, &event, &fact, 1);
            } else if (event.kind == LOG_REVOKED || event.kind == LOG_LOST) {
                log_release(log, event.tenure);
            } else if (event.kind == LOG_COMMITTED) {
                committed += event.commit_steps;
                times_us[commits++ % TIMES_MAX] = event.commit_us;
            } else if (event.kind == LOG_STOPPED) {
                stopped = true;
            }
            log_event_free(&event);
        }
        if ((committed >= count || stop_asked) && !stopping) {
            double seconds = (double)(clock_mono_us() - first_us) / 1e6;
            size_t times = commits < TIMES_MAX ? (size_t)commits : TIMES_MAX;
            qsort(times_us, times, sizeof *times_us, compare);
            printf("records=%" PRId64 " seconds=%.2f per_s=%.0f commits=%" PRId64
                   " per_commit=%.0f commit_p50_us=%" PRId64 " commit_p90_us=%" PRId64 " commit_p99_us=%" PRId64 "\n",
                   committed, seconds, (double)committed / seconds, commits,
                   (double)committed / (double)(commits > 0 ? commits : 1), times_us[times / 2],
                   times_us[times * 90 / 100], times_us[times * 99 / 100]);
            stopping = true;
            log_stop(log);
        }
    }
    log_close(log);
    free(times_us);
    return EX_OK;
}
