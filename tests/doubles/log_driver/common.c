#include "tests/doubles/log_driver/driver.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"

volatile sig_atomic_t stop_asked;

_Noreturn void die(const char *what)
{
    fprintf(stderr, "log_driver: %s\n", what);
    exit(EX_SOFTWARE);
}

int parse_number(const char *text)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < INT32_MIN || value > INT32_MAX)
        die("a number is none");
    return (int)value;
}

/* xorshift32 (Marsaglia 2003): enough to shuffle, and no state that others share. */
uint32_t dice(uint32_t sides)
{
    static uint32_t state;
    if (state == 0)
        state = ((uint32_t)clock_wall_ms() ^ ((uint32_t)getpid() << 16)) | 1;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % sides;
}

struct str text(char *buffer, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, size, format, arguments);
    va_end(arguments);
    return str_of(buffer);
}

void name_of(const struct options *options, const char *what, char *name, size_t size)
{
    snprintf(name, size, "%s.%s", options->name_space, what);
}

int run_number(struct str run)
{
    int found = run.size > 1 && run.data[0] == 'r' ? parse_number(run.data + 1) : -1;
    return found < RUNS_MAX ? found : -1;
}

struct log_record record(enum topic topic, struct str run, struct str value)
{
    return (struct log_record){.topic = topic, .pool = STR("default"), .partition = -1, .run = run, .value = value};
}

struct log *open_log(const struct options *options, const char *slot)
{
    static const char *const pools[] = {"default"};
    struct error error;
    struct log_settings settings = {.name_space = options->name_space,
                                    .slot = slot,
                                    .slot_pinned = options->pinned,
                                    .pools = pools,
                                    .pools_count = 1,
                                    .serve_inbox = true,
                                    .properties = options->properties,
                                    .properties_count = options->properties_count,
                                    .in_flight_max = options->in_flight,
                                    .trim_every_ms = options->trim_every_ms,
                                    .control_ready_ms = 20000};
    struct log *log = log_open(&settings, &error);
    if (log == NULL)
        LOG_ERROR("start.failed", LOG_S("reason", error.text));
    return log;
}
