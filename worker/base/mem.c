#include "worker/base/mem.h"

#include <malloc.h>
#include <pthread.h>
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

/* glibc keeps what lies between blocks in use for ever; to look for it takes tens of milliseconds. */
static void *give_back(void *nothing)
{
    malloc_trim(0);
    return nothing;
}

void mem_give_back(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, give_back, NULL) == 0)
        pthread_detach(thread);
}
