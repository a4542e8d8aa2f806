#include "worker/base/env.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_SIZE_MAX 128
#define VALUE_SIZE_MAX ((size_t)64 << 10)     /* of one variable or file (I7) */
#define EXPANDED_SIZE_MAX ((size_t)256 << 10) /* of the whole text */

/* The size of the variable name that `text` starts with: [A-Za-z_][A-Za-z0-9_]*. */
static size_t name_size(struct str text)
{
    size_t size = 0;

    while (size < text.size) {
        char c = text.data[size];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';

        if (!letter && (size == 0 || c < '0' || c > '9'))
            break;
        size++;
    }
    return size;
}

/* Appends the content of the file named by the environment variable `pointer` (NAME_FILE). `found` stays false when that
 * variable is not set. */
static bool put_file(struct buf *out, const char *pointer, bool *found, struct error *error)
{
    const char *path = getenv(pointer);
    char value[VALUE_SIZE_MAX + 1];
    struct stat status;
    size_t size = 0;
    ssize_t got = 1;
    int fd;

    if (path == NULL || path[0] == '\0')
        return true;
    *found = true;
    /* O_NONBLOCK: a FIFO in its place must not hold up whoever asks. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(error, ERROR_FATAL, "cannot open the file that %s names: %s", pointer, strerrordesc_np(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        (void)close(fd);
        return error_set(error, ERROR_FATAL, "what %s names is no regular file", pointer);
    }
    while (got > 0 && size < sizeof value) {
        got = read(fd, value + size, sizeof value - size);
        if (got > 0)
            size += (size_t)got;
    }
    (void)close(fd);
    if (got < 0)
        return error_set(error, ERROR_FATAL, "cannot read the file that %s names: %s", pointer, strerrordesc_np(errno));
    if (size > VALUE_SIZE_MAX)
        return error_set(error, ERROR_FATAL, "the file that %s names is over %zu bytes", pointer, VALUE_SIZE_MAX);
    if (size > 0 && value[size - 1] == '\n')
        size--;
    if (size > 0 && value[size - 1] == '\r')
        size--;
    if (memchr(value, '\0', size) != NULL)
        return error_set(error, ERROR_FATAL, "the file that %s names holds a NUL byte", pointer);
    (void)buf_put(out, value, size);
    return true;
}

/* Appends the value of what stands between "${" and "}". */
static bool put_variable(struct buf *out, struct str inner, struct error *error)
{
    size_t size = name_size(inner);
    struct str rest = {inner.data + size, inner.size - size};
    bool has_default = rest.size >= 2 && memcmp(rest.data, ":-", 2) == 0;
    char name[NAME_SIZE_MAX + sizeof "_FILE"];
    const char *value;
    bool found = false;

    if (size == 0 || size > NAME_SIZE_MAX || (rest.size > 0 && !has_default))
        return error_set(error, ERROR_FATAL, "write ${NAME} or ${NAME:-default}; NAME is of A-Z a-z 0-9 _, at most %d",
                         NAME_SIZE_MAX);
    memcpy(name, inner.data, size);
    name[size] = '\0';
    value = getenv(name);
    /* As in a shell, ":-" takes an empty variable for one that is not set. */
    if (value != NULL && (value[0] != '\0' || !has_default)) {
        if (strlen(value) > VALUE_SIZE_MAX)
            return error_set(error, ERROR_FATAL, "the environment variable %s is over %zu bytes", name, VALUE_SIZE_MAX);
        (void)buf_puts(out, value);
        return true;
    }
    memcpy(name + size, "_FILE", sizeof "_FILE");
    if (!put_file(out, name, &found, error))
        return false;
    if (found)
        return true;
    if (has_default) {
        (void)buf_put(out, rest.data + 2, rest.size - 2);
        return true;
    }
    return error_set(error, ERROR_FATAL, "the environment variable %.*s is not set (nor %s, which would name a file)",
                     (int)size, name, name);
}

static bool expand(struct buf *out, struct str text, struct error *error)
{
    size_t at = 0;

    while (at < text.size) {
        struct str rest = {text.data + at, text.size - at};
        const char *open = memmem(rest.data, rest.size, "${", 2);
        const char *close;
        size_t plain = open == NULL ? rest.size : (size_t)(open - rest.data);
        struct str inner;

        (void)buf_put(out, rest.data, plain);
        if (open == NULL)
            break;
        inner = (struct str){open + 2, rest.size - plain - 2};
        close = memchr(inner.data, '}', inner.size);
        if (close == NULL)
            return error_set(error, ERROR_FATAL, "\"${\" without \"}\"");
        inner.size = (size_t)(close - inner.data);
        if (!put_variable(out, inner, error))
            return false;
        at += plain + 2 + inner.size + 1;
    }
    if (out->overflow)
        return error_set(error, ERROR_FATAL, "over %zu bytes after its variables were filled in", EXPANDED_SIZE_MAX);
    return true;
}

bool env_expand(struct arena *arena, struct str text, struct str *expanded, struct error *error)
{
    struct buf out;
    bool good;

    if (text.data == NULL) {
        *expanded = STR_NONE;
        return true;
    }
    buf_init(&out, EXPANDED_SIZE_MAX);
    good = expand(&out, text, error);
    if (good)
        *expanded = arena_str(arena, buf_str(&out));
    buf_free(&out);
    return good;
}
