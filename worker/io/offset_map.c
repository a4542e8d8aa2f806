#include "worker/io/offset_map.h"

#include <assert.h>
#include <string.h>

#define HEAD_SIZE 3 /* kind and span */
#define CRC_SIZE 4
#define LENGTH_BITS 7 /* LEB128: in each byte, above them: more follows */

enum kind { KIND_BITS, KIND_RUNS };

/* ---- positions ---- */

static bool bit(const uint8_t *bits, int32_t position)
{
    return bits[position >> 3] >> (position & 7) & 1;
}

void offset_map_mark(struct offset_map *map, int64_t first, int64_t end)
{
    int32_t at = first < 0 ? 0 : first < OFFSET_MAP_WINDOW ? (int32_t)first : OFFSET_MAP_WINDOW;
    int32_t stop = end < OFFSET_MAP_WINDOW ? (int32_t)end : OFFSET_MAP_WINDOW;
    if (at < stop && stop > map->span)
        map->span = stop;
    while (at < stop) {
        if ((at & 7) == 0 && stop - at >= 8) {
            map->bits[at >> 3] = 0xff;
            at += 8;
        } else {
            map->bits[at >> 3] |= (uint8_t)(1 << (at & 7));
            at++;
        }
    }
}

bool offset_map_has(const struct offset_map *map, int64_t position)
{
    return position >= 0 && position < map->span && bit(map->bits, (int32_t)position);
}

/* ---- the two bodies ---- */

/* Where the run that begins at `at` ends. */
static int32_t run_end(const struct offset_map *map, int32_t at)
{
    bool done = bit(map->bits, at);
    uint8_t whole = done ? 0xff : 0;
    while (at < map->span && bit(map->bits, at) == done)
        at += (at & 7) == 0 && map->span - at >= 8 && map->bits[at >> 3] == whole ? 8 : 1;
    return at;
}

/* 0: they would not be shorter than `size_max`. */
static size_t put_runs(const struct offset_map *map, uint8_t *body, size_t size_max)
{
    size_t size = 0;
    for (int32_t at = 0; at < map->span;) {
        int32_t end = run_end(map, at), left = end - at;
        for (at = end; left > 0 && size < size_max; left >>= LENGTH_BITS)
            body[size++] = (uint8_t)((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
        if (size == size_max)
            return 0;
    }
    return size;
}

static bool get_runs(const uint8_t *body, size_t size, int32_t span, struct offset_map *map)
{
    int32_t at = 0;
    bool done = false;
    for (size_t i = 0; i < size; done = !done) {
        int32_t length = 0;
        for (int shift = 0;; shift += LENGTH_BITS) {
            if (i == size || shift > 2 * LENGTH_BITS)
                return false;
            length |= (body[i] & 0x7f) << shift;
            if (body[i++] < 0x80)
                break;
        }
        if (length > span - at)
            return false;
        if (done)
            offset_map_mark(map, at, at + length);
        at += length;
    }
    return at == span;
}

static bool get_body(const uint8_t *body, size_t size, enum kind kind, int32_t span, struct offset_map *map)
{
    *map = (struct offset_map){.span = 0};
    if (kind == KIND_RUNS)
        return get_runs(body, size, span, map);
    if (kind != KIND_BITS || size != (size_t)(span + 7) / 8)
        return false;
    map->span = span;
    memcpy(map->bits, body, size);
    return true;
}

/* ---- text ---- */

static uint32_t crc(uint32_t so_far, const uint8_t *bytes, size_t size)
{
    /* What four bits more do to the remainder (polynomial 0x04c11db7, reflected). */
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    so_far = ~so_far;
    for (size_t i = 0; i < size; i++) {
        so_far ^= bytes[i];
        so_far = so_far >> 4 ^ table[so_far & 15];
        so_far = so_far >> 4 ^ table[so_far & 15];
    }
    return ~so_far;
}

static void put_big(uint8_t *bytes, uint64_t number, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(number >> (8 * (size - 1 - i)));
}

static uint32_t crc_at(struct offset_map_place place, const uint8_t *bytes, size_t size)
{
    uint8_t head[16];
    put_big(head, (uint64_t)place.committed, 8);
    put_big(head + 8, (uint64_t)place.commit_seq, 8);
    return crc(crc(0, head, sizeof head), bytes, size);
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_base64(const uint8_t *bytes, size_t size, char *text)
{
    for (size_t i = 0; i < size; i += 3, text += 4) {
        uint32_t three = (uint32_t)bytes[i] << 16;
        three |= i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0;
        three |= i + 2 < size ? bytes[i + 2] : 0;
        for (int c = 0; c < 4; c++)
            text[c] = alphabet[three >> (18 - 6 * c) & 63];
        if (i + 2 >= size)
            text[3] = '=';
        if (i + 1 >= size)
            text[2] = '=';
    }
    *text = '\0';
}

static bool get_base64(struct str text, uint8_t bytes[OFFSET_MAP_BYTES_MAX], size_t *size)
{
    uint32_t held = 0, bits = 0;
    *size = 0;
    if (text.size % 4 != 0 || text.size >= OFFSET_MAP_TEXT_SIZE)
        return false;
    while (text.size > 0 && text.data[text.size - 1] == '=')
        text.size--;
    for (size_t i = 0; i < text.size; i++) {
        const char *found = text.data[i] != '\0' ? strchr(alphabet, text.data[i]) : NULL;
        if (found == NULL)
            return false;
        held = held << 6 | (uint32_t)(found - alphabet);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes[(*size)++] = (uint8_t)(held >> bits);
        }
    }
    return true;
}

void offset_map_write(const struct offset_map *map, struct offset_map_place place, char text[OFFSET_MAP_TEXT_SIZE])
{
    uint8_t bytes[OFFSET_MAP_BYTES_MAX];
    size_t bits_size = (size_t)(map->span + 7) / 8;
    text[0] = '\0';
    if (map->span == 0)
        return;
    assert(!bit(map->bits, 0));
    size_t size = put_runs(map, bytes + HEAD_SIZE, bits_size);
    bytes[0] = size > 0 ? KIND_RUNS : KIND_BITS;
    put_big(bytes + 1, (uint64_t)map->span, 2);
    if (size == 0) {
        size = bits_size;
        memcpy(bytes + HEAD_SIZE, map->bits, size);
    }
    size += HEAD_SIZE;
    put_big(bytes + size, crc_at(place, bytes, size), CRC_SIZE);
    put_base64(bytes, size + CRC_SIZE, text);
}

bool offset_map_read(struct str text, struct offset_map_place place, struct offset_map *map, struct error *error)
{
    uint8_t bytes[OFFSET_MAP_BYTES_MAX], sum[CRC_SIZE];
    char again[OFFSET_MAP_TEXT_SIZE];
    size_t size;
    if (!get_base64(text, bytes, &size) || size <= HEAD_SIZE + CRC_SIZE)
        return error_set(error, ERROR_POISON, "the map of its committed offset is not one");
    size -= CRC_SIZE;
    put_big(sum, crc_at(place, bytes, size), CRC_SIZE);
    if (memcmp(sum, bytes + size, CRC_SIZE) != 0)
        return error_set(error, ERROR_POISON,
                         "the map of its committed offset is damaged, or of another offset or commit_seq");
    int32_t span = bytes[1] << 8 | bytes[2];
    bool right = span > 0 && span <= OFFSET_MAP_WINDOW &&
                 get_body(bytes + HEAD_SIZE, size - HEAD_SIZE, (enum kind)bytes[0], span, map) && !bit(map->bits, 0) &&
                 map->span == span && bit(map->bits, span - 1);
    if (right) { /* one text for one map, or two workers would not agree on what another has written */
        offset_map_write(map, place, again);
        right = str_is(text, again);
    }
    return right || error_set(error, ERROR_POISON, "the map of its committed offset is none that this version writes");
}
