#include "worker/base/units.h"

#include <inttypes.h>
#include <string.h>

#define DURATION_MAX_MS (100LL * 366 * 24 * 3600 * 1000)
#define USD_MAX 1000000000LL
#define MICRO INT64_C(1000000)

/* The largest first, for units_duration_text. */
static const struct {
    const char *name;
    int64_t ms;
} units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

#define UNITS_COUNT (sizeof(units) / sizeof(units[0]))

/* The digits at the start of `text`, and how many there were; 0 = none, or more than `digits_max`. */
static size_t read_digits(struct str text, size_t digits_max, int64_t *value)
{
    size_t count = 0;
    *value = 0;
    while (count < text.size && text.data[count] >= '0' && text.data[count] <= '9') {
        if (count == digits_max)
            return 0;
        *value = *value * 10 + (text.data[count++] - '0');
    }
    return count;
}

bool units_duration(struct str text, int64_t *ms)
{
    int64_t number;
    size_t digits = read_digits(text, 15, &number);
    if (digits == 0)
        return false;
    struct str unit = {text.data + digits, text.size - digits};
    for (size_t i = 0; i < UNITS_COUNT; i++) {
        if (!str_is(unit, units[i].name))
            continue;
        if (number > DURATION_MAX_MS / units[i].ms)
            return false;
        *ms = number * units[i].ms;
        return true;
    }
    return false;
}

struct str units_duration_text(struct arena *arena, int64_t ms)
{
    size_t unit = UNITS_COUNT - 1;
    for (size_t i = 0; i < UNITS_COUNT; i++) {
        if (ms != 0 && ms % units[i].ms == 0) {
            unit = i;
            break;
        }
    }
    return arena_printf(arena, "%" PRId64 "%s", ms / units[unit].ms, units[unit].name);
}

bool units_usd(struct str text, int64_t *micro_usd)
{
    int64_t dollars;
    size_t digits = read_digits(text, 10, &dollars);
    if (digits == 0 || dollars > USD_MAX)
        return false;
    int64_t fraction = 0;
    if (digits < text.size) {
        struct str rest = {text.data + digits + 1, text.size - digits - 1};
        size_t decimals = read_digits(rest, 6, &fraction);
        if (text.data[digits] != '.' || decimals == 0 || decimals != rest.size)
            return false;
        for (size_t i = decimals; i < 6; i++)
            fraction *= 10;
    }
    *micro_usd = dollars * MICRO + fraction;
    return true;
}

struct str units_usd_text(struct arena *arena, int64_t micro_usd)
{
    bool negative = micro_usd < 0;
    uint64_t micro = negative ? (uint64_t)0 - (uint64_t)micro_usd : (uint64_t)micro_usd;
    int decimals = 6;
    uint64_t fraction = micro % (uint64_t)MICRO;
    while (decimals > 2 && fraction % 10 == 0) {
        fraction /= 10;
        decimals--;
    }
    return arena_printf(arena, "%s%" PRIu64 ".%0*" PRIu64, negative ? "-" : "", micro / (uint64_t)MICRO, decimals,
                        fraction);
}
