/* mem.h: memory that outlives an arena. Never NULL: a machine without memory ends the process with a message. */
#ifndef MYELIN_BASE_MEM_H
#define MYELIN_BASE_MEM_H

#include <stddef.h>

void *mem_new(size_t size); /* zeroed */
void *mem_resize(void *memory, size_t size);
void mem_free(void *memory); /* NULL is fine */

/* Gives the system back what was freed, after much was: a while from now, without keeping the caller waiting. */
void mem_give_back(void);

#endif
