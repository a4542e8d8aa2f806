/*
 * problems.h: the findings of a check, collected so that a person sees all of them at once.
 */
#ifndef MYELIN_CONTRACT_PROBLEMS_H
#define MYELIN_CONTRACT_PROBLEMS_H

#include <stdarg.h>

#include "worker/contract/contract.h"

/* I7: what a report may hold. The last line says how many more there are. */
#define PROBLEMS_MAX 200
#define PROBLEM_SIZE_MAX 700

/* Adds one. Control characters become '?', so that a contract cannot write to a terminal through its own
 * errors. `file` is copied. */
void problems_add(struct problems *problems, struct str file, int32_t line, bool warning, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void problems_vadd(struct problems *problems, struct str file, int32_t line, bool warning, const char *format,
                   va_list arguments) __attribute__((format(printf, 5, 0)));

/* Puts those from index `from` on in the order of their lines; those of one line in the order they were found. */
void problems_sort(struct problems *problems, size_t from);

#endif
