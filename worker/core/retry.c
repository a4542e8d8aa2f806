#include "worker/base/hash.h"
#include "worker/core/draft.h"

/* An endpoint may ask for any time; one was seen asking for three days. Longer than this is not obeyed. */
#define RETRY_AFTER_MAX_MS (3600LL * 1000)

int64_t retry_delay_ms(const struct run *run, struct arena *arena, int64_t backoff_ms, int64_t backoff_max_ms,
                       int64_t retry_after_ms)
{
    int64_t delay = backoff_ms;
    for (int32_t i = 1; i < run->at.attempt && delay < backoff_max_ms; i++)
        delay *= 2;
    if (delay > backoff_max_ms)
        delay = backoff_max_ms;

    struct str parts[] = {run->id, run->at.branch, run->at.step, arena_printf(arena, "%d", run->at.visit),
                          arena_printf(arena, "%d", run->at.attempt)};
    struct str hash = hash_parts(arena, parts, sizeof(parts) / sizeof(parts[0]));
    int64_t jitter = 0; /* 0 .. 4095, from the first three hex digits */
    for (int i = 0; i < 3; i++)
        jitter = jitter * 16 + (hash.data[i] <= '9' ? hash.data[i] - '0' : hash.data[i] - 'a' + 10);
    delay = delay / 2 + delay / 2 * jitter / 4095;

    if (retry_after_ms > RETRY_AFTER_MAX_MS)
        retry_after_ms = RETRY_AFTER_MAX_MS;
    return delay > retry_after_ms ? delay : retry_after_ms;
}
