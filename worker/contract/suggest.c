#include "worker/contract/suggest.h"

#include <string.h>

#define NAME_SIZE_MAX 64
#define ERRORS_MAX 3
#define PREFIX_SIZE_MIN 3

/* ASCII only: names of the language are ASCII, other bytes compare as they are. */
static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The distance of optimal string alignment (insert, delete, replace, swap of neighbours), by rows. */
static size_t distance(struct str a, struct str b)
{
    size_t rows[3][NAME_SIZE_MAX + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];

    for (size_t j = 0; j <= b.size; j++)
        above[j] = j;
    memset(before, 0, sizeof rows[0]);
    for (size_t i = 1; i <= a.size; i++) {
        size_t *oldest = before;
        row[0] = i;
        for (size_t j = 1; j <= b.size; j++) {
            size_t replace = above[j - 1] + (lower(a.data[i - 1]) != lower(b.data[j - 1]));
            row[j] = smaller(replace, smaller(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && lower(a.data[i - 1]) == lower(b.data[j - 2]) &&
                lower(a.data[i - 2]) == lower(b.data[j - 1]))
                row[j] = smaller(row[j], before[j - 2] + 1);
        }
        before = above;
        above = row;
        row = oldest;
    }
    return above[b.size];
}

static bool begins(struct str name, struct str start)
{
    if (start.size < PREFIX_SIZE_MIN || name.size <= start.size)
        return false;
    for (size_t i = 0; i < start.size; i++)
        if (lower(name.data[i]) != lower(start.data[i]))
            return false;
    return true;
}

struct str suggest(struct arena *arena, struct str wrong, const struct str *allowed, size_t count)
{
    struct str nearest = STR_NONE, longer = STR_NONE;
    size_t near = wrong.size < 6 ? 1 : smaller(wrong.size / 3, ERRORS_MAX);
    size_t errors = near + 1; /* to beat */

    if (wrong.size == 0 || wrong.size > NAME_SIZE_MAX)
        return STR_NONE;
    for (size_t i = 0; i < count; i++) {
        struct str name = allowed[i];
        if (name.size == 0 || name.size > NAME_SIZE_MAX)
            continue;
        size_t d = distance(wrong, name);
        /* A name of which every letter is wrong is not near, however short it is. */
        if (d < errors && d < name.size && d < wrong.size) {
            errors = d;
            nearest = name;
        }
        if (begins(name, wrong) && (longer.data == NULL || name.size < longer.size))
            longer = name;
    }
    return arena_str(arena, nearest.data != NULL ? nearest : longer);
}

struct str suggest_clause(struct arena *arena, struct str wrong, const struct str *allowed, size_t count)
{
    struct str name = suggest(arena, wrong, allowed, count);

    if (name.data == NULL)
        return STR("");
    return arena_printf(arena, ", did you mean \"%.*s\"?", STR_ARG(name));
}
