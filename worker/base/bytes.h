/*
 * bytes.h: text that somebody else owns (`struct str`), and a buffer that grows up to a stated limit (`struct buf`).
 */
#ifndef MYELIN_BASE_BYTES_H
#define MYELIN_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Borrowed bytes. `data[size]` is always a NUL that does not count, so `data` may be handed to C functions where the text
 * holds no NUL of its own. The zero value {NULL, 0} is "absent"; an empty text has data != NULL.
 */
struct str {
    const char *data;
    size_t size;
};

#define STR(literal) ((struct str){.data = "" literal, .size = sizeof(literal) - 1})
#define STR_NONE ((struct str){.data = NULL, .size = 0})
/* For printf("%.*s"). */
#define STR_ARG(s) (int)(s).size, ((s).data != NULL ? (s).data : "")

struct str str_of(const char *text); /* borrows; NULL gives STR_NONE */
bool str_equal(struct str a, struct str b);
bool str_is(struct str a, const char *text);
int str_compare(struct str a, struct str b); /* memcmp order, shorter first */

/* The size of the longest prefix that is valid UTF-8 (RFC 3629); text.size when all of it is. */
size_t str_utf8_size(struct str text);

/* A buffer that grows by malloc, never beyond `size_max`. After a write that did not fit `overflow` is true and stays so
 * until buf_clear; the bytes so far are kept. Running out of memory ends the process. */
struct buf {
    char *data; /* owned; data[size] is NUL once anything was written */
    size_t size;
    size_t capacity;
    size_t size_max;
    bool overflow;
};

void buf_init(struct buf *buf, size_t size_max);
void buf_free(struct buf *buf); /* zeroes it: may be called twice */
void buf_clear(struct buf *buf);
bool buf_reserve(struct buf *buf, size_t size); /* room for so many bytes in all, and no more; false: over size_max */
bool buf_put(struct buf *buf, const void *data, size_t size);
bool buf_puts(struct buf *buf, const char *text);
bool buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct str buf_str(const struct buf *buf); /* borrows until the next write */

#endif
