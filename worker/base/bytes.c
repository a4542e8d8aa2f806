#include "worker/base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct str str_of(const char *text)
{
    return text == NULL ? STR_NONE : (struct str){text, strlen(text)};
}

bool str_equal(struct str a, struct str b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

bool str_is(struct str a, const char *text)
{
    return str_equal(a, str_of(text));
}

int str_compare(struct str a, struct str b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);

    if (order != 0)
        return order;
    return a.size < b.size ? -1 : a.size > b.size;
}

/* The size of the well-formed UTF-8 sequence at `s` (RFC 3629: no surrogates, no overlong form, up to U+10FFFF), or 0. */
static size_t sequence_size(const unsigned char *s, size_t size)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t want;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        want = 2;
    } else if (s[0] >= 0xe0 && s[0] <= 0xef) {
        want = 3;
        low = s[0] == 0xe0 ? 0xa0 : low;
        high = s[0] == 0xed ? 0x9f : high;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        want = 4;
        low = s[0] == 0xf0 ? 0x90 : low;
        high = s[0] == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (size < want || s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < want; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    return want;
}

size_t str_utf8_size(struct str text)
{
    const unsigned char *s = (const unsigned char *)text.data;
    size_t at = 0;

    while (at < text.size) {
        uint64_t eight;
        size_t size;

        /* Most text is ASCII: eight bytes at a time. */
        if (text.size - at >= sizeof eight) {
            memcpy(&eight, s + at, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        size = sequence_size(s + at, text.size - at);
        if (size == 0)
            break;
        at += size;
    }
    return at;
}

void buf_init(struct buf *buf, size_t size_max)
{
    *buf = (struct buf){.size_max = size_max};
}

void buf_free(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){0};
}

void buf_clear(struct buf *buf)
{
    buf->size = 0;
    buf->overflow = false;
    if (buf->data != NULL)
        buf->data[0] = '\0';
}

static void grow(struct buf *buf, size_t capacity)
{
    char *data = realloc(buf->data, capacity);

    if (data == NULL) {
        (void)fprintf(stderr, "out of memory: %zu bytes\n", capacity);
        abort();
    }
    if (buf->capacity == 0)
        data[0] = '\0';
    buf->data = data;
    buf->capacity = capacity;
}

bool buf_reserve(struct buf *buf, size_t size)
{
    if (size > buf->size_max)
        return false;
    if (size >= buf->capacity)
        grow(buf, size + 1);
    return true;
}

/* Room for `size` more bytes and the NUL; false when that is over the limit. */
static bool make_room(struct buf *buf, size_t size)
{
    size_t capacity = buf->capacity == 0 ? 64 : buf->capacity;
    size_t limit = buf->size_max < SIZE_MAX / 4 ? buf->size_max : SIZE_MAX / 4;

    /* SIZE_MAX / 4: an "unlimited" buffer must not make the sums below wrap around. */
    if (buf->overflow || size > limit || buf->size > limit - size) {
        buf->overflow = true;
        return false;
    }
    while (capacity < buf->size + size + 1)
        capacity *= 2;
    if (capacity > buf->capacity)
        grow(buf, capacity);
    return true;
}

bool buf_put(struct buf *buf, const void *data, size_t size)
{
    if (!make_room(buf, size))
        return false;
    if (size > 0)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
    return true;
}

bool buf_puts(struct buf *buf, const char *text)
{
    return buf_put(buf, text, strlen(text));
}

bool buf_printf(struct buf *buf, const char *format, ...)
{
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (size < 0 || !make_room(buf, (size_t)size)) {
        buf->overflow = true;
        return false;
    }
    va_start(arguments, format);
    (void)vsnprintf(buf->data + buf->size, (size_t)size + 1, format, arguments);
    va_end(arguments);
    buf->size += (size_t)size;
    return true;
}

struct str buf_str(const struct buf *buf)
{
    return buf->data == NULL ? STR("") : (struct str){buf->data, buf->size};
}
