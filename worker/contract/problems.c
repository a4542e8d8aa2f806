#include "worker/contract/problems.h"

#include <string.h>

void problems_init(struct problems *problems)
{
    memset(problems, 0, sizeof(*problems));
    problems->arena = arena_new();
}

void problems_free(struct problems *problems)
{
    arena_free(problems->arena);
    memset(problems, 0, sizeof(*problems));
}

/* Cuts at a character's border and takes out what a terminal would obey. */
static struct str printable(struct arena *arena, struct str text)
{
    size_t size = text.size;
    bool cut = size > PROBLEM_SIZE_MAX;
    if (cut) {
        size = PROBLEM_SIZE_MAX;
        while (size > 0 && ((unsigned char)text.data[size] & 0xC0U) == 0x80U)
            size--;
    }
    char *copy = arena_alloc(arena, size + sizeof(" ..."));
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        copy[i] = c == '\n' || c == '\t' ? ' ' : (char)(c < 0x20 || c == 0x7F ? '?' : c);
    }
    if (cut) {
        memcpy(copy + size, " ...", sizeof(" ...") - 1);
        size += sizeof(" ...") - 1;
    }
    return (struct str){.data = copy, .size = size};
}

void problems_vadd(struct problems *problems, struct str file, int32_t line, bool warning, const char *format,
                   va_list arguments)
{
    if (!warning)
        problems->errors++;
    if (problems->count > PROBLEMS_MAX)
        return;
    if (problems->list == NULL)
        problems->list = ARENA_ARRAY(problems->arena, PROBLEMS_MAX + 1, struct problem);
    struct problem *problem = &problems->list[problems->count++];
    problem->file = arena_str(problems->arena, file);
    if (problems->count > PROBLEMS_MAX) {
        problem->line = INT32_MAX; /* sorts last */
        problem->text = STR("more problems than are shown here: mend these first");
        return;
    }
    problem->line = line;
    problem->warning = warning;
    problem->text = printable(problems->arena, arena_vprintf(problems->arena, format, arguments));
}

void problems_add(struct problems *problems, struct str file, int32_t line, bool warning, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    problems_vadd(problems, file, line, warning, format, arguments);
    va_end(arguments);
}

void problems_sort(struct problems *problems, size_t from)
{
    /* By insertion: few, nearly in order, and qsort would not keep the order within a line. */
    for (size_t i = from + 1; i < problems->count; i++) {
        struct problem moving = problems->list[i];
        size_t to = i;
        for (; to > from && problems->list[to - 1].line > moving.line; to--)
            problems->list[to] = problems->list[to - 1];
        problems->list[to] = moving;
    }
    for (size_t i = from; i < problems->count; i++)
        if (problems->list[i].line == INT32_MAX)
            problems->list[i].line = 0;
}
