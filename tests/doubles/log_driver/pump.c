#include "tests/doubles/log_driver/driver.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sysexits.h>

#include "worker/io/clock.h"

int pump(const struct options *options, const char *slot, int count)
{
    struct log *log = open_log(options, slot);
    if (log == NULL)
        return EX_UNAVAILABLE;
    struct pollfd fd = {.fd = log_fd(log), .events = POLLIN};
    int64_t first_us = 0, committed = 0, commits = 0;
    bool stopped = false, stopping = false;
    while (!stopped) {
        struct log_event event;
        poll(&fd, 1, 100);
        while (log_next(log, &event)) {
            if (event.kind == LOG_RECORD) {
                if (first_us == 0)
                    first_us = clock_mono_us();
                struct log_record fact = record(TOPIC_HISTORY, event.key, event.value);
                log_done(log, &event, event.offset, &fact, 1);
            } else if (event.kind == LOG_REVOKED || event.kind == LOG_LOST) {
                log_release(log, event.tenure);
            } else if (event.kind == LOG_COMMITTED) {
                committed += event.commit_steps;
                commits++;
            } else if (event.kind == LOG_STOPPED) {
                stopped = true;
            }
            log_event_free(&event);
        }
        if ((committed >= count || stop_asked) && !stopping) {
            double seconds = (double)(clock_mono_us() - first_us) / 1e6;
            printf("records=%" PRId64 " seconds=%.2f per_s=%.0f commits=%" PRId64 " per_commit=%.0f\n", committed,
                   seconds, (double)committed / seconds, commits,
                   (double)committed / (double)(commits > 0 ? commits : 1));
            stopping = true;
            log_stop(log);
        }
    }
    log_close(log);
    return EX_OK;
}
