#include "worker/io/clock.h"

#include <assert.h>
#include <time.h>

static struct timespec now(clockid_t id)
{
    struct timespec at;
    int failed = clock_gettime(id, &at);
    assert(failed == 0); /* only an unknown clock fails, and all of these are in every Linux */
    return at;
}

int64_t clock_wall_ms(void)
{
    struct timespec at = now(CLOCK_REALTIME);
    return (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

int64_t clock_boot_ms(void)
{
    struct timespec at = now(CLOCK_BOOTTIME);
    return (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

int64_t clock_mono_us(void)
{
    struct timespec at = now(CLOCK_MONOTONIC);
    return (int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}
