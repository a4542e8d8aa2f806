#include "worker/base/units.h"

#include <inttypes.h>
#include <string.h>

#define DURATION_MAX_MS (100LL * 366 * 24 * 3600 * 1000)
#define SIZE_MAX_BYTES (INT64_C(1) << 40)
#define USD_MAX 1000000000LL
#define MICRO INT64_C(1000000)

struct unit {
    const char *name;
    int64_t worth;
};

/* The largest first, for what is written; a zeroed one ends the list. */
static const struct unit durations[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {0}};
static const struct unit sizes[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {0}};

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

static bool read_amount(struct str text, const struct unit *units, int64_t max, int64_t *amount)
{
    int64_t number;
    size_t digits = read_digits(text, 15, &number);
    if (digits == 0)
        return false;
    struct str name = {text.data + digits, text.size - digits};
    for (const struct unit *unit = units; unit->name != NULL; unit++) {
        if (!str_is(name, unit->name))
            continue;
        if (number > max / unit->worth)
            return false;
        *amount = number * unit->worth;
        return true;
    }
    return false;
}

static struct str amount_text(struct arena *arena, const struct unit *units, int64_t amount)
{
    const struct unit *unit = units;
    while (unit->worth > 1 && (amount == 0 || amount % unit->worth != 0))
        unit++;
    return arena_printf(arena, "%" PRId64 "%s", amount / unit->worth, unit->name);
}

bool units_duration(struct str text, int64_t *ms)
{
    return read_amount(text, durations, DURATION_MAX_MS, ms);
}

struct str units_duration_text(struct arena *arena, int64_t ms)
{
    return amount_text(arena, durations, ms);
}

bool units_size(struct str text, int64_t *bytes)
{
    return read_amount(text, sizes, SIZE_MAX_BYTES, bytes);
}

struct str units_size_text(struct arena *arena, int64_t bytes)
{
    return amount_text(arena, sizes, bytes);
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
