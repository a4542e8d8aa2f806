/*
 * offset_map.h: what is done above a committed offset, and its text. Pure.
 *
 * Positions count from the committed offset, which is the lowest that is not done: 0 is never marked. The window is what fits
 * into the metadata of a committed offset, whatever the pattern. It lies in io, for io may not include core, and only io/log uses it.
 *
 * The text is base64 (RFC 4648, padded) of
 *   kind   1 byte: 0 = bits, 1 = runs; whichever is shorter, bits when they are equal
 *   span   2 bytes, big-endian: positions up to and with the highest that is done
 *   body   bits: (span + 7) / 8 bytes, position i is bit i & 7 of byte i >> 3, those above the span are 0
 *          runs: lengths in LEB128 that add up to the span: not done, done, not done, ..., done
 *   crc    4 bytes, big-endian: CRC-32 (zlib's) of the committed offset and commit_seq (8 bytes each, big-endian), then kind, span, body:
 *          a map that was moved to another offset would skip what nobody has done
 */
#ifndef MYELIN_IO_OFFSET_MAP_H
#define MYELIN_IO_OFFSET_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/bytes.h"
#include "worker/base/error.h"

#define OFFSET_MAP_WINDOW 16384

/* Runs are written only where they are shorter than the bits: 1 + 2 + 16,384 / 8 + 4 = 2,055 bytes at most, 2,740 characters. */
#define OFFSET_MAP_BYTES_MAX (1 + 2 + OFFSET_MAP_WINDOW / 8 + 4)
#define OFFSET_MAP_TEXT_SIZE ((OFFSET_MAP_BYTES_MAX + 2) / 3 * 4 + 1) /* with its NUL */

struct offset_map { /* the zero value: nothing is done */
    int32_t span;   /* one more than the highest position that is done */
    uint8_t bits[OFFSET_MAP_WINDOW / 8];
};

/* Positions `first` to `end` - 1 are done; what lies outside of the window is left out. */
void offset_map_mark(struct offset_map *map, int64_t first, int64_t end);

bool offset_map_has(const struct offset_map *map, int64_t position); /* false outside of the window */

/* To which committed offset the map belongs. */
struct offset_map_place {
    int64_t committed, commit_seq;
};

/* "" when nothing is done. Position 0 must not be. */
void offset_map_write(const struct offset_map *map, struct offset_map_place place, char text[OFFSET_MAP_TEXT_SIZE]);

/* Any bytes but none. Takes exactly what offset_map_write makes; else false with `error` (ERROR_POISON). */
bool offset_map_read(struct str text, struct offset_map_place place, struct offset_map *map, struct error *error);

#endif
