/*
 * units.h: durations, sizes and money, as people write them in contracts and settings: "500ms", "24h", "512MiB", "2.50".
 * Never a bare number: its unit would be a guess.
 */
#ifndef MYELIN_BASE_UNITS_H
#define MYELIN_BASE_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"

#define UNITS_DURATION_SAYS "a whole number and a unit (ms, s, m, h, d), for example \"5s\""
#define UNITS_SIZE_SAYS "a whole number and a unit (B, KiB, MiB, GiB), for example \"512MiB\""
#define UNITS_USD_SAYS "US dollars with at most 6 decimals, for example \"2.50\""

/* "500ms" "5s" "10m" "24h" "7d" → milliseconds. False: not of this form, or over 100 years. */
bool units_duration(struct str text, int64_t *ms);
/* The largest unit that divides it: 86400000 → "1d", 90000 → "90s". */
struct str units_duration_text(struct arena *arena, int64_t ms);

/* "64KiB" "512MiB" "2GiB" → bytes. False: not of this form, or over 1024 GiB. */
bool units_size(struct str text, int64_t *bytes);
/* The largest unit that divides it: 1048576 → "1MiB". */
struct str units_size_text(struct arena *arena, int64_t bytes);

/* "2.50" → 2,500,000 millionths. False: not of this form, or over a billion dollars. */
bool units_usd(struct str text, int64_t *micro_usd);
/* At least two decimals, no more than needed: 2500000 → "2.50", 11234 → "0.011234". */
struct str units_usd_text(struct arena *arena, int64_t micro_usd);

#endif
