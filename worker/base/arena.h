/*
 * arena.h: memory that is released all at once: one arena a delivery, a contract or a command.
 *
 * Never returns NULL: what is put into an arena was size-checked before, and a machine without memory ends the process
 * with a message. Not thread-safe: an arena belongs to one thread at a time.
 */
#ifndef MYELIN_BASE_ARENA_H
#define MYELIN_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "worker/base/bytes.h"

struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *arena);         /* NULL is fine */
void arena_reset(struct arena *arena);        /* frees all that was allocated, keeps one block for the next use */
size_t arena_size(const struct arena *arena); /* bytes asked for since the last reset */

void *arena_alloc(struct arena *arena, size_t size);                       /* zeroed, aligned for any type */
void *arena_array(struct arena *arena, size_t count, size_t size);         /* zeroed; checks count * size */
struct str arena_copy(struct arena *arena, const void *data, size_t size); /* adds the NUL */
struct str arena_str(struct arena *arena, struct str text);                /* STR_NONE stays STR_NONE */
struct str arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct str arena_vprintf(struct arena *arena, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0), nonnull(2)));

#define ARENA_NEW(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, count, type) ((type *)arena_array((arena), (count), sizeof(type)))

#endif
