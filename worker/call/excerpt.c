#include "worker/call/excerpt.h"

#include <string.h>

#define SECRET_SIZE_MIN 4
#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* The size of the secret that stands at the start of `text`; 0 = none. */
static size_t secret_at(struct str text, const struct str *secrets, size_t count)
{
    size_t longest = 0;

    for (size_t i = 0; i < count; i++) {
        size_t size = secrets[i].size;

        if (size >= SECRET_SIZE_MIN && size > longest && size <= text.size &&
            memcmp(text.data, secrets[i].data, size) == 0)
            longest = size;
    }
    return longest;
}

/* Appends the one character at the start of `text`, as it may stand in a line; its size in `text`. */
static size_t put_character(struct buf *line, struct str text)
{
    size_t window = text.size < 4 ? text.size : 4, size = 1;
    unsigned char first = (unsigned char)text.data[0];

    if (first < 0x20 || first == 0x7f) {
        (void)buf_put(line, " ", 1);
        return 1;
    }
    while (size <= window && str_utf8_size((struct str){text.data, size}) != size)
        size++;
    if (size > window) {
        (void)buf_puts(line, REPLACEMENT);
        return 1;
    }
    (void)buf_put(line, text.data, size);
    return size;
}

struct str excerpt(struct arena *arena, struct str text, const struct str *secrets, size_t secrets_count)
{
    struct str cut;
    struct buf line;
    size_t at = 0;

    buf_init(&line, EXCERPT_SIZE_MAX + 64);
    while (at < text.size && line.size < EXCERPT_SIZE_MAX) {
        struct str rest = {text.data + at, text.size - at};
        size_t secret = secret_at(rest, secrets, secrets_count);

        if (secret > 0)
            (void)buf_puts(&line, "[secret]");
        at += secret > 0 ? secret : put_character(&line, rest);
    }
    if (at < text.size)
        (void)buf_puts(&line, "...");
    cut = arena_str(arena, buf_str(&line));
    buf_free(&line);
    return cut;
}

struct str excerpt_utf8(struct arena *arena, struct str text)
{
    struct str clean;
    struct buf out;
    size_t at = 0;

    if (text.size == 0 || (str_utf8_size(text) == text.size && memchr(text.data, '\0', text.size) == NULL))
        return text;
    buf_init(&out, SIZE_MAX);
    while (at < text.size) {
        struct str rest = {text.data + at, text.size - at};
        const char *nul;

        rest.size = str_utf8_size(rest);
        nul = rest.size > 0 ? memchr(rest.data, '\0', rest.size) : NULL;
        if (nul != NULL)
            rest.size = (size_t)(nul - rest.data);
        (void)buf_put(&out, rest.data, rest.size);
        at += rest.size;
        if (at < text.size) {
            (void)buf_puts(&out, REPLACEMENT);
            at++;
        }
    }
    clean = arena_str(arena, buf_str(&out));
    buf_free(&out);
    return clean;
}

bool excerpt_status_retryable(int32_t status)
{
    return status == 408 || status == 409 || status == 425 || status == 429 || (status >= 500 && status <= 599);
}
