#include "worker/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker/base/bytes.h"

/* Error texts end up in log lines and in records: they are one line of valid UTF-8 whatever was printed into them. */
static void clean(char *text)
{
    size_t size = strlen(text), at = 0;

    while (at < size) {
        size_t valid = str_utf8_size((struct str){text + at, size - at});

        for (size_t i = 0; i < valid; i++) {
            unsigned char c = (unsigned char)text[at + i];

            if (c < 0x20 || c == 0x7f)
                text[at + i] = ' ';
        }
        at += valid;
        if (at < size)
            text[at++] = '?';
    }
}

bool error_set(struct error *error, enum error_class class, const char *format, ...)
{
    va_list arguments;

    if (error == NULL)
        return false;
    error->class = class;
    va_start(arguments, format);
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    clean(error->text);
    return false;
}

bool error_wrap(struct error *error, const char *format, ...)
{
    char text[2 * sizeof error->text];
    int size;
    va_list arguments;

    if (error == NULL)
        return false;
    va_start(arguments, format);
    size = vsnprintf(text, sizeof text / 2, format, arguments);
    va_end(arguments);
    size = size < 0 ? 0 : size < (int)sizeof text / 2 ? size : (int)sizeof text / 2 - 1;
    (void)snprintf(text + size, sizeof text - (size_t)size, ": %s", error->text);
    text[sizeof error->text - 1] = '\0';
    memcpy(error->text, text, sizeof error->text);
    clean(error->text);
    return false;
}
