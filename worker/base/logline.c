#include "worker/base/logline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE_MAX 4096  /* PIPE_BUF: a write of that size to a pipe is not mixed with those of other processes */
#define VALUE_SIZE_MAX 1024 /* of a value as given; what is over is cut and ends with "..." */

static atomic_int level_lowest = LOGLINE_INFO;

/* A line under way. What does not fit whole is left out, and the line then ends with cut=true. */
struct line {
    char text[LINE_SIZE_MAX];
    size_t size;
    bool cut;
};

#define LINE_ROOM (LINE_SIZE_MAX - sizeof " cut=true\n")

static bool put(struct line *line, const char *text, size_t size)
{
    if (size > LINE_ROOM - line->size)
        return false;
    memcpy(line->text + line->size, text, size);
    line->size += size;
    return true;
}

static bool is_plain(struct str value)
{
    for (size_t i = 0; i < value.size; i++) {
        unsigned char c = (unsigned char)value.data[i];

        if (c <= ' ' || c == '"' || c == '\\' || c == '=' || c == 0x7f)
            return false;
    }
    return value.size > 0;
}

static bool put_quoted(struct line *line, struct str value)
{
    bool fits = put(line, "\"", 1);

    for (size_t i = 0; fits && i < value.size; i++) {
        unsigned char c = (unsigned char)value.data[i];
        char escape[8];

        if (c == '"' || c == '\\') {
            fits = put(line, (char[]){'\\', (char)c}, 2);
        } else if (c == '\n') {
            fits = put(line, "\\n", 2);
        } else if (c < 0x20 || c == 0x7f) {
            (void)snprintf(escape, sizeof escape, "\\x%02x", (unsigned)c);
            fits = put(line, escape, 4);
        } else {
            fits = put(line, (const char *)&value.data[i], 1);
        }
    }
    return fits && put(line, "\"", 1);
}

static bool put_text(struct line *line, struct str value)
{
    char shortened[VALUE_SIZE_MAX + 4];

    if (value.size > VALUE_SIZE_MAX) {
        size_t size = str_utf8_size((struct str){value.data, VALUE_SIZE_MAX});

        /* Not in the middle of a character; text that is no UTF-8 anyway is cut where it is. */
        size = size + 4 > VALUE_SIZE_MAX ? size : VALUE_SIZE_MAX;
        memcpy(shortened, value.data, size);
        memcpy(shortened + size, "...", 4);
        value = (struct str){shortened, size + 3};
    }
    return is_plain(value) ? put(line, value.data, value.size) : put_quoted(line, value);
}

static void put_field(struct line *line, const struct logline_field *field)
{
    size_t before = line->size;
    char number[24];
    bool fits = put(line, " ", 1) && put(line, field->key, strlen(field->key)) && put(line, "=", 1);

    if (fits && field->text.data != NULL) {
        fits = put_text(line, field->text);
    } else if (fits) {
        int size = snprintf(number, sizeof number, "%" PRId64, field->number);

        fits = put(line, number, (size_t)size);
    }
    if (!fits) {
        line->size = before;
        line->cut = true;
    }
}

static void put_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    char text[64];
    size_t size;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size = strftime(text, sizeof text, "time=%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(text + size, sizeof text - size, ".%03dZ", (int)(now.tv_nsec / 1000000));
    (void)put(line, text, strlen(text));
}

void logline_level(enum logline_level lowest)
{
    atomic_store(&level_lowest, (int)lowest);
}

void logline_write(enum logline_level level, const char *event, const struct logline_field *fields, size_t count)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    struct line line;
    int saved = errno;

    if ((int)level < atomic_load(&level_lowest))
        return;
    line.size = 0;
    line.cut = false;
    put_time(&line);
    put_field(&line, &LOG_S("level", names[level]));
    put_field(&line, &LOG_S("event", event));
    for (size_t i = 0; i < count; i++)
        put_field(&line, &fields[i]);
    memcpy(line.text + line.size, line.cut ? " cut=true\n" : "\n", line.cut ? 10 : 1);
    line.size += line.cut ? 10 : 1;
    while (write(STDERR_FILENO, line.text, line.size) < 0 && errno == EINTR) {
    }
    errno = saved;
}
