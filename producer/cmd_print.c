/* cmd_print.c: the output of the commands (cmd.h), for people and for programs. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "producer/cmd.h"
#include "worker/base/json.h"

#define ARGUMENT_SIZE_MAX ((size_t)1 << 20)
#define ESCAPE '\033'

/* By enum cmd_paint. */
static const char *const paints[] = {"0", "1", "2", "31", "32", "33"};

/* What cmd_painted writes: its size, or 0. Nothing else, for other such sequences hide what follows: "\033[8m". */
static size_t colour_size(const char *text)
{
    size_t digits = *text == ESCAPE && text[1] == '[' ? strspn(text + 2, "0123456789") : 0;
    for (size_t i = 0; digits > 0 && text[2 + digits] == 'm' && i < sizeof(paints) / sizeof(paints[0]); i++)
        if (strlen(paints[i]) == digits && memcmp(text + 2, paints[i], digits) == 0)
            return digits + 3;
    return 0;
}

/* Characters that turn the direction of writing (U+202A to U+202E, U+2066 to U+2069): a text could be read backwards. */
static bool turns_direction(const char *c)
{
    unsigned char second = (unsigned char)c[1], third = second != 0 ? (unsigned char)c[2] : 0;
    return (unsigned char)c[0] == 0xE2 &&
           ((second == 0x80 && third >= 0xAA && third <= 0xAE) || (second == 0x81 && third >= 0xA6 && third <= 0xA9));
}

/* What a terminal would obey becomes '?': C0 but for newline, DEL, C1 (U+0080 to U+009F), and what turns the direction. In a
 * line of ours our colours stay; no text from outside has any. */
static void make_printable(char *text, bool ours)
{
    for (char *c = text; *c != '\0'; c++) {
        for (size_t size; ours && (size = colour_size(c)) > 0;)
            c += size;
        unsigned char byte = (unsigned char)*c, next = byte != 0 ? (unsigned char)c[1] : 0;
        if (byte == '\0')
            return;
        bool control = (byte < 0x20 && byte != '\n') || byte == 0x7F;
        if (byte == 0xC2 && next >= 0x80 && next < 0xA0)
            c[0] = c[1] = '?';
        else if (turns_direction(c))
            c[0] = c[1] = c[2] = '?';
        else if (control)
            *c = '?';
    }
}

/* ---- lines ---- */

int cmd_fail(const struct cmd *cmd, enum cmd_exit code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    struct str text = arena_vprintf(cmd->arena, format, arguments);
    va_end(arguments);
    make_printable((char *)text.data, true);
    fflush(stdout);
    fprintf(stderr, "myelin %s: %s\n", cmd->name, text.data);
    if (cmd->json) {
        json_t *object = json_object();
        json_object_set_new(object, "error", json_stringn(text.data, text.size));
        json_object_set_new(object, "exit", json_integer(code));
        cmd_json(cmd, object);
    }
    return (int)code;
}

void cmd_warn(const struct cmd *cmd, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    struct str text = arena_vprintf(cmd->arena, format, arguments);
    va_end(arguments);
    make_printable((char *)text.data, true);
    fflush(stdout);
    fprintf(stderr, "myelin %s: warning: %s\n", cmd->name, text.data);
}

int cmd_error(const struct cmd *cmd, enum cmd_exit code, const struct error *error)
{
    return cmd_fail(cmd, code, "%s", error->text);
}

void cmd_say(const struct cmd *cmd, const char *format, ...)
{
    if (cmd->json)
        return;
    va_list arguments;
    va_start(arguments, format);
    struct str text = arena_vprintf(cmd->arena, format, arguments);
    va_end(arguments);
    make_printable((char *)text.data, true);
    printf("%s\n", text.data);
}

void cmd_json(const struct cmd *cmd, json_t *object)
{
    if (cmd->json && object != NULL) {
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
    }
    json_decref(object);
}

const char *cmd_painted(const struct cmd *cmd, enum cmd_paint paint, const char *text)
{
    if (!cmd->color || paint == CMD_PLAIN)
        return text;
    return arena_printf(cmd->arena, "%c[%sm%s%c[0m", ESCAPE, paints[paint], text, ESCAPE).data;
}

/* ---- tables ---- */

/* Characters that take up room: no continuation bytes, no colour sequences. */
static size_t shown_width(const char *text)
{
    size_t width = 0;
    for (const char *c = text; *c != '\0'; c++) {
        c += colour_size(c);
        if (*c == '\0')
            break;
        width += ((unsigned char)*c & 0xC0U) != 0x80U;
    }
    return width;
}

void cmd_table_start(struct cmd_table *table, const struct cmd *cmd, const char *const *head, size_t columns)
{
    *table = (struct cmd_table){.cmd = cmd, .columns = columns};
    const char **painted = ARENA_ARRAY(cmd->arena, columns, const char *);
    for (size_t i = 0; i < columns; i++)
        painted[i] = cmd_painted(cmd, CMD_BOLD, head[i]);
    cmd_table_row(table, painted);
}

void cmd_table_row(struct cmd_table *table, const char *const *cells)
{
    if (table->rows == table->capacity) {
        size_t capacity = table->capacity == 0 ? 16 : table->capacity * 2;
        const char **grown = ARENA_ARRAY(table->cmd->arena, capacity * table->columns, const char *);
        if (table->rows > 0)
            memcpy(grown, table->cells, table->rows * table->columns * sizeof(grown[0]));
        table->cells = grown;
        table->capacity = capacity;
    }
    memcpy(table->cells + table->rows * table->columns, cells, table->columns * sizeof(cells[0]));
    table->rows++;
}

void cmd_table_print(const struct cmd_table *table)
{
    if (table->cmd->json)
        return;
    for (size_t row = 0; row < table->rows; row++) {
        const char *const *cells = table->cells + row * table->columns;
        size_t columns = table->columns;
        while (columns > 1 && *cells[columns - 1] == '\0')
            columns--; /* nothing is left to print in this row */
        for (size_t column = 0; column < columns; column++) {
            size_t widest = 0;
            for (size_t k = 0; k < table->rows; k++) {
                size_t width = shown_width(table->cells[k * table->columns + column]);
                widest = width > widest ? width : widest;
            }
            bool last = column + 1 == columns;
            int padding = last ? 0 : (int)(widest - shown_width(cells[column]) + 2);
            printf("%s%*s", cells[column], padding, "");
        }
        putchar('\n');
    }
}

/* ---- small things ---- */

const char *cmd_short(const struct cmd *cmd, struct str text, size_t columns)
{
    size_t size = 0, width = 0;
    while (size < text.size && (columns == 0 || width < columns)) {
        size++;
        while (size < text.size && ((unsigned char)text.data[size] & 0xC0U) == 0x80U)
            size++;
        width++;
    }
    bool cut = size < text.size;
    struct str copy = arena_printf(cmd->arena, "%.*s%s", (int)size, text.data != NULL ? text.data : "",
                                   cut ? "..." : "");
    make_printable((char *)copy.data, false);
    for (char *c = strchr(copy.data, '\n'); c != NULL; c = strchr(c, '\n'))
        *c = ' ';
    return copy.data;
}

const char *cmd_span(const struct cmd *cmd, int64_t ms)
{
    long long s = ms > 0 ? ms / 1000 : 0;
    if (s < 60)
        return arena_printf(cmd->arena, "%llds", s).data;
    if (s < 3600)
        return arena_printf(cmd->arena, "%lldm", s / 60).data;
    if (s < 86400)
        return arena_printf(cmd->arena, "%lldh %lldm", s / 3600, s % 3600 / 60).data;
    return arena_printf(cmd->arena, "%lldd %lldh", s / 86400, s % 86400 / 3600).data;
}

const char *cmd_number(const struct cmd *cmd, int64_t number)
{
    struct str digits = arena_printf(cmd->arena, "%lld", (long long)number);
    char *text = arena_alloc(cmd->arena, digits.size * 2 + 1), *out = text;
    for (size_t i = 0; i < digits.size; i++) {
        if (i > 0 && (digits.size - i) % 3 == 0 && digits.data[i - 1] != '-')
            *out++ = ',';
        *out++ = digits.data[i];
    }
    return text;
}

const char *cmd_time(const struct cmd *cmd, int64_t at_ms)
{
    char text[32];
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm utc;
    if (gmtime_r(&seconds, &utc) == NULL || strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%SZ", &utc) == 0)
        return "?";
    return arena_copy(cmd->arena, text, strlen(text)).data;
}

struct str cmd_user(const struct cmd *cmd)
{
    const char *named = getenv("MYELIN_USER");
    const struct passwd *account = getpwuid(getuid());
    if (named != NULL && *named != '\0')
        return arena_str(cmd->arena, str_of(named));
    return account != NULL ? arena_str(cmd->arena, str_of(account->pw_name))
                           : arena_printf(cmd->arena, "uid %u", (unsigned)getuid());
}

static bool read_stream(const struct cmd *cmd, FILE *stream, struct str *text)
{
    char *data = arena_alloc(cmd->arena, ARGUMENT_SIZE_MAX + 2);
    size_t size = fread(data, 1, ARGUMENT_SIZE_MAX + 1, stream);
    *text = (struct str){data, size};
    return ferror(stream) == 0;
}

json_t *cmd_json_argument(const struct cmd *cmd, const char *option, const char *argument, int *code)
{
    struct str text = str_of(argument);
    const char *from = option;
    if (strcmp(argument, "-") == 0) {
        from = "standard input";
        if (!read_stream(cmd, stdin, &text)) {
            *code = cmd_fail(cmd, CMD_NO_INPUT, "standard input cannot be read: %s", strerrordesc_np(errno));
            return NULL;
        }
    } else if (*argument == '@') {
        from = argument + 1;
        FILE *file = fopen(from, "re");
        bool read = file != NULL && read_stream(cmd, file, &text);
        int reason = errno;
        if (file != NULL)
            fclose(file);
        if (!read) {
            *code = cmd_fail(cmd, CMD_NO_INPUT, "%s: cannot be read: %s", from, strerrordesc_np(reason));
            return NULL;
        }
    }
    struct error error;
    json_t *value = json_read(text, ARGUMENT_SIZE_MAX, &error);
    if (value == NULL)
        *code = cmd_fail(cmd, CMD_DATA, "%s: %s", from, error.text);
    return value;
}
