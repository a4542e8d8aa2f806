#include "worker/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static void *checked(void *memory, size_t size)
{
    if (memory == NULL && size > 0) {
        fprintf(stderr, "out of memory: %zu bytes wanted\n", size);
        abort();
    }
    return memory;
}

void *mem_new(size_t size)
{
    return checked(calloc(1, size), size);
}

void *mem_resize(void *memory, size_t size)
{
    return checked(realloc(memory, size), size);
}

void mem_free(void *memory)
{
    free(memory);
}
