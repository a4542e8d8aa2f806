#include "worker/base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* Nothing without -fsanitize=address; with it, a byte read or written outside of an allocation is found at once. */
#include <sanitizer/asan_interface.h>

#define ALIGNMENT 16u
#define BLOCK_SIZE_FIRST ((size_t)4 << 10)
#define BLOCK_SIZE_MAX ((size_t)256 << 10) /* of blocks shared by small allocations; also the most that a reset keeps */

#ifdef __SANITIZE_ADDRESS__
#define GAP ALIGNMENT
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GAP ALIGNMENT
#endif
#endif
#ifndef GAP
#define GAP 0u
#endif

struct block {
    struct block *next; /* the one before it */
    size_t size, used;  /* bytes of `data` */
    _Alignas(ALIGNMENT) unsigned char data[];
};

struct arena {
    struct block *top; /* owned list; small allocations come from the first */
    size_t asked;
};

static void *must(void *memory, size_t size)
{
    if (memory == NULL) {
        (void)fprintf(stderr, "out of memory: %zu bytes\n", size);
        abort();
    }
    return memory;
}

static void block_free(struct block *block)
{
    ASAN_UNPOISON_MEMORY_REGION(block->data, block->size);
    free(block);
}

/* A new block for at least `size` bytes. A large allocation gets a block of its own *behind* the top, so that the rest
 * of the top stays in use. */
static struct block *block_new(struct arena *arena, size_t size)
{
    size_t block_size = arena->top == NULL ? BLOCK_SIZE_FIRST : arena->top->size * 2;
    struct block *block;

    if (block_size > BLOCK_SIZE_MAX)
        block_size = BLOCK_SIZE_MAX;
    if (size > block_size)
        block_size = size;
    block = must(malloc(sizeof *block + block_size), block_size);
    block->size = block_size;
    block->used = 0;
    ASAN_POISON_MEMORY_REGION(block->data, block_size);
    if (arena->top != NULL && size == block_size) {
        block->next = arena->top->next;
        arena->top->next = block;
    } else {
        block->next = arena->top;
        arena->top = block;
    }
    return block;
}

struct arena *arena_new(void)
{
    return must(calloc(1, sizeof(struct arena)), sizeof(struct arena));
}

void arena_free(struct arena *arena)
{
    if (arena == NULL)
        return;
    while (arena->top != NULL) {
        struct block *next = arena->top->next;

        block_free(arena->top);
        arena->top = next;
    }
    free(arena);
}

void arena_reset(struct arena *arena)
{
    struct block *keep = NULL, *block = arena->top;

    while (block != NULL) {
        struct block *next = block->next;

        if (block->size <= BLOCK_SIZE_MAX && (keep == NULL || keep->size < block->size)) {
            if (keep != NULL)
                block_free(keep);
            keep = block;
        } else {
            block_free(block);
        }
        block = next;
    }
    if (keep != NULL) {
        keep->next = NULL;
        keep->used = 0;
        ASAN_POISON_MEMORY_REGION(keep->data, keep->size);
    }
    arena->top = keep;
    arena->asked = 0;
}

size_t arena_size(const struct arena *arena)
{
    return arena->asked;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    struct block *block = arena->top;
    size_t padded;
    unsigned char *data;

    if (size > SIZE_MAX / 2)
        must(NULL, size);
    padded = (size + GAP + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (block == NULL || block->size - block->used < padded)
        block = block_new(arena, padded);
    data = block->data + block->used;
    block->used += padded;
    arena->asked += size;
    ASAN_UNPOISON_MEMORY_REGION(data, size);
    memset(data, 0, size);
    return data;
}

void *arena_array(struct arena *arena, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / 2 / size)
        must(NULL, SIZE_MAX);
    return arena_alloc(arena, count * size);
}

struct str arena_copy(struct arena *arena, const void *data, size_t size)
{
    char *copy = arena_alloc(arena, size + 1);

    if (size > 0)
        memcpy(copy, data, size);
    return (struct str){copy, size};
}

struct str arena_str(struct arena *arena, struct str text)
{
    return text.data == NULL ? STR_NONE : arena_copy(arena, text.data, text.size);
}

struct str arena_vprintf(struct arena *arena, const char *format, va_list arguments)
{
    va_list again;
    char *text;
    int size;

    va_copy(again, arguments);
    size = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (size < 0)
        size = 0;
    text = arena_alloc(arena, (size_t)size + 1);
    (void)vsnprintf(text, (size_t)size + 1, format, arguments);
    return (struct str){text, (size_t)size};
}

struct str arena_printf(struct arena *arena, const char *format, ...)
{
    va_list arguments;
    struct str text;

    va_start(arguments, format);
    text = arena_vprintf(arena, format, arguments);
    va_end(arguments);
    return text;
}
