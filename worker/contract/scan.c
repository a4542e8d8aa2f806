#include "worker/contract/scan.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "worker/base/json.h"
#include "worker/contract/lex.h"

enum expect {
    GROUP_NAME, /* a name, or the end of the group */
    GROUP_EQUALS,
    GROUP_VALUE,
    GROUP_AFTER, /* a separator, the next name, or the end */
    LIST_FIRST,  /* a value, or the end of the list */
    LIST_VALUE,  /* after a comma */
    LIST_AFTER,  /* a comma, or the end */
};

struct frame {
    char open;      /* '\0' = the file itself */
    int32_t line;   /* where it was opened */
    size_t text_at; /* of its opening sign in the mended text */
    bool mended;    /* written as [ ], but it holds groups: a list from now on */
    enum expect expect;
    int kind; /* of the elements of [ ]: a lex_kind, plus KIND_LONG; 0 = none yet */
};

/* libconfig tells 32 bits from 64 in [ ]. */
#define KIND_LONG 100

struct scanner {
    struct scan *scan;
    struct str file;
    struct problems *problems;
    struct lex lex;
    struct frame stack[JSON_DEPTH_MAX];
    size_t depth;    /* of the current frame: stack[depth] */
    struct str name; /* of the setting that is being read */
    int32_t name_line;
    struct lex_word last;
    int32_t line_out; /* of the mended text */
    bool failed;
};

static void say(struct scanner *s, int32_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void say(struct scanner *s, int32_t line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    problems_vadd(s->problems, s->file, line, false, format, arguments);
    va_end(arguments);
}

/* For what cannot be mended: nothing after it can be trusted. */
#define GIVE_UP(s, ...) (say((s), __VA_ARGS__), (void)((s)->failed = true))

int32_t scan_bytes(struct str text, const char **what)
{
    int32_t line = 1;
    if (text.size >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0) {
        *what = "starts with a byte order mark (BOM), which libconfig takes for garbage: save it as UTF-8 without BOM";
        return line;
    }
    for (size_t i = 0; i < text.size;) {
        unsigned char c = (unsigned char)text.data[i];
        size_t more = c < 0x80                  ? 0
                      : (c >= 0xC2 && c < 0xE0) ? 1
                      : (c & 0xF0U) == 0xE0     ? 2
                      : (c >= 0xF0 && c < 0xF5) ? 3
                                                : 4;
        *what = c == 0 ? "a NUL byte: the file is no text" : "invalid UTF-8: save the file as UTF-8";
        if (c == 0 || more == 4 || i + more >= text.size)
            return line;
        unsigned char second = more > 0 ? (unsigned char)text.data[i + 1] : 0;
        if ((c == 0xE0 && second < 0xA0) || (c == 0xED && second > 0x9F) || (c == 0xF0 && second < 0x90) ||
            (c == 0xF4 && second > 0x8F))
            return line; /* overlong, surrogate, beyond U+10FFFF */
        for (size_t k = 1; k <= more; k++)
            if (((unsigned char)text.data[i + k] & 0xC0U) != 0x80U)
                return line;
        line += c == '\n';
        i += more + 1;
    }
    return 0;
}

/* ---- the mended text ---- */

static void emit(struct scanner *s, int32_t line, struct str text)
{
    for (; s->line_out < line; s->line_out++)
        buf_puts(&s->scan->text, "\n");
    for (size_t i = 0; i < text.size; i++)
        s->line_out += text.data[i] == '\n';
    buf_put(&s->scan->text, text.data, text.size);
    buf_puts(&s->scan->text, " ");
}

/* A text without quotes, put into quotes. */
static void emit_quoted(struct scanner *s, int32_t line, struct str text)
{
    emit(s, line, STR("\""));
    s->scan->text.size--; /* the blank after the quote */
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '\\')
            buf_puts(&s->scan->text, "\\");
        buf_put(&s->scan->text, &text.data[i], 1);
    }
    buf_puts(&s->scan->text, "\" ");
}

static void note_value(struct scanner *s, int32_t line)
{
    s->scan->lines[s->scan->lines_count++] = line;
}

/* ---- values ---- */

/* In [ ] all elements are of one kind. `mended`: the word was reported already. */
static void note_kind(struct scanner *s, int32_t line, int kind, bool mended)
{
    struct frame *frame = &s->stack[s->depth];
    if (frame->open != '[' || frame->mended)
        return;
    if (frame->kind != 0 && frame->kind != kind) {
        if (!mended)
            say(s, line, "two types in [ ]: it takes one type only, ( ) takes any");
        s->scan->text.data[frame->text_at] = '(';
        frame->mended = true;
    }
    frame->kind = kind;
}

/* An integer without the suffix L is 32 bits wide to libconfig, and cut without a word. */
static void take_integer(struct scanner *s, const struct lex_word *word)
{
    char digits[32];
    bool hex = word->text.size > 1 && (word->text.data[1] == 'x' || word->text.data[1] == 'X');
    bool is_long = word->text.data[word->text.size - 1] == 'L';
    struct str text = word->text;
    while (text.size > 0 && text.data[text.size - 1] == 'L')
        text.size--;
    memset(digits, 0, sizeof(digits));
    memcpy(digits, text.data, text.size < sizeof(digits) ? text.size : sizeof(digits) - 1);
    errno = 0;
    long long value = strtoll(digits, NULL, hex ? 16 : 10);
    if (errno == ERANGE || text.size >= sizeof(digits)) {
        say(s, word->line, "%.*s does not fit 64 bits", STR_ARG(word->text));
        emit(s, word->line, STR("9223372036854775807L"));
        note_kind(s, word->line, LEX_INTEGER + KIND_LONG, true);
        return;
    }
    bool cut = !is_long && (value < INT_MIN || value > INT_MAX);
    note_kind(s, word->line, LEX_INTEGER + (is_long || cut ? KIND_LONG : 0), cut);
    emit(s, word->line, word->text);
    if (!cut)
        return;
    say(s, word->line, "%.*s does not fit 32 bits and libconfig would silently read %d: write %.*sL",
        STR_ARG(word->text), (int)(unsigned)value, STR_ARG(word->text));
    s->scan->text.size--;
    buf_puts(&s->scan->text, "L ");
}

/* "5s" without quotes is a number and a name to libconfig. */
static void take_number(struct scanner *s, const struct lex_word *word)
{
    char next = s->lex.at < s->lex.text.size ? s->lex.text.data[s->lex.at] : '\0';
    if (isalpha((unsigned char)next) || next == '%' || next == '.' || next == '_') {
        struct str text = lex_bare_text(&s->lex, word);
        say(s, word->line, "%.*s without quotes is no number and no text: write \"%.*s\"", STR_ARG(text),
            STR_ARG(text));
        note_kind(s, word->line, LEX_STRING, true);
        emit_quoted(s, word->line, text);
    } else if (word->kind == LEX_INTEGER) {
        take_integer(s, word);
    } else {
        bool digit = false;
        for (size_t i = 0; i < word->text.size; i++)
            digit = digit || isdigit((unsigned char)word->text.data[i]);
        /* The word's end is a separator or a bracket, which stops strtod; the text as a whole ends with a NUL. */
        bool finite = digit && isfinite(strtod(word->text.data, NULL));
        if (!digit)
            say(s, word->line, "%.*s is no number, although libconfig reads 0", STR_ARG(word->text));
        else if (!finite)
            say(s, word->line, "%.*s is too large for a number", STR_ARG(word->text));
        note_kind(s, word->line, LEX_FLOAT, false);
        emit(s, word->line, finite ? word->text : STR("0.0"));
    }
}

/* "\x00" ends a string for libconfig, and \x80 and above is half a character. */
static void take_string(struct scanner *s, const struct lex_word *word)
{
    emit(s, word->line, word->text);
    char *mended = s->scan->text.data + s->scan->text.size - 1 - word->text.size;
    for (size_t i = 0; i + 3 < word->text.size; i++) {
        if (mended[i] != '\\')
            continue;
        if ((mended[i + 1] == 'x' || mended[i + 1] == 'X') && isxdigit((unsigned char)mended[i + 2]) &&
            isxdigit((unsigned char)mended[i + 3])) {
            char digits[3] = {mended[i + 2], mended[i + 3], '\0'};
            long byte = strtol(digits, NULL, 16);
            if (byte == 0 || byte >= 0x80) {
                say(s, word->line, "\\x%s in a string: %s", digits,
                    byte == 0 ? "libconfig would cut the string there" : "write the character itself, in UTF-8");
                mended[i + 2] = '2'; /* a blank */
                mended[i + 3] = '0';
            }
        }
        i++; /* the character that is escaped */
    }
}

/* A word without quotes where a value belongs. */
static void take_bare(struct scanner *s, const struct lex_word *word, bool in_group)
{
    char next = lex_peek(&s->lex);
    bool url = next == ':' && s->lex.at + 2 < s->lex.text.size && memcmp(s->lex.text.data + s->lex.at, "://", 3) == 0;
    if (!url && (next == '=' || next == ':') && in_group) {
        GIVE_UP(s, s->name_line, "%.*s has no value: after the = comes \"%.*s =\"", STR_ARG(s->name),
                STR_ARG(word->text));
        return;
    }
    struct str text = lex_bare_text(&s->lex, word);
    say(s, word->line, "a text needs double quotes: write \"%.*s\"", STR_ARG(text));
    note_kind(s, word->line, LEX_STRING, true);
    emit_quoted(s, word->line, text);
}

static void take_open(struct scanner *s, const struct lex_word *word)
{
    struct frame *frame = &s->stack[s->depth];
    if (frame->open == '[' && !frame->mended) {
        say(s, frame->line, "%s in [ ]: groups and lists go in a list with ( )",
            *word->text.data == '{' ? "a group" : "a list");
        s->scan->text.data[frame->text_at] = '(';
        frame->mended = true;
    }
    if (s->depth + 1 >= JSON_DEPTH_MAX) {
        GIVE_UP(s, word->line, "nested deeper than %d", JSON_DEPTH_MAX);
        return;
    }
    emit(s, word->line, word->text);
    char open = *word->text.data;
    s->stack[++s->depth] = (struct frame){.open = open,
                                          .line = word->line,
                                          .text_at = s->scan->text.size - 2,
                                          .expect = open == '{' ? GROUP_NAME : LIST_FIRST};
}

/* True when the word starts a value. The frame's state is set first: a group or list pushes its own frame. */
static bool take_value(struct scanner *s, const struct lex_word *word)
{
    struct frame *frame = &s->stack[s->depth];
    bool in_group = frame->expect == GROUP_VALUE;
    if (word->kind != LEX_OPEN && word->kind != LEX_STRING && word->kind != LEX_INTEGER && word->kind != LEX_FLOAT &&
        word->kind != LEX_BOOL && word->kind != LEX_NAME)
        return false;
    note_value(s, in_group ? s->name_line : word->line);
    frame->expect = in_group ? GROUP_AFTER : LIST_AFTER;
    if (word->kind == LEX_NAME) {
        take_bare(s, word, in_group);
    } else if (word->kind == LEX_OPEN) {
        take_open(s, word);
    } else if (word->kind == LEX_INTEGER || word->kind == LEX_FLOAT) {
        take_number(s, word);
    } else {
        note_kind(s, word->line, (int)word->kind, false);
        if (word->kind == LEX_STRING)
            take_string(s, word);
        else
            emit(s, word->line, word->text);
    }
    return true;
}

/* ---- groups and lists ---- */

static const char *word_text(const struct lex_word *word, char *text, size_t size)
{
    if (word->kind == LEX_END)
        return "the end of the file";
    size_t shown = word->text.size < size - 3 ? word->text.size : size - 3;
    while (shown > 1 && ((unsigned char)word->text.data[shown - 1] & 0x80U) != 0 && word->kind != LEX_GARBAGE)
        shown--;
    if (word->kind == LEX_GARBAGE && ((unsigned char)*word->text.data & 0x80U) != 0)
        return "a character that is not ASCII";
    text[0] = '`';
    memcpy(text + 1, word->text.data, shown);
    text[shown + 1] = '`';
    text[shown + 2] = '\0';
    return text;
}

/* Closes the current frame, or says which one was left open. */
static void take_close(struct scanner *s, const struct lex_word *word)
{
    struct frame *frame = &s->stack[s->depth];
    static const char pairs[] = "{}()[]";
    if (frame->open == '\0') {
        GIVE_UP(s, word->line, "`%c` closes nothing: one too many", *word->text.data);
        return;
    }
    char close = strchr(pairs, frame->open)[1];
    if (*word->text.data != close) {
        GIVE_UP(s, word->line, "`%c` closes the `%c` of line %d: a `%c` is missing before it", *word->text.data,
                frame->open, (int)frame->line, close);
        return;
    }
    emit(s, word->line, frame->mended ? STR(")") : (struct str){.data = &close, .size = 1});
    s->depth--;
}

static void unexpected(struct scanner *s, const struct lex_word *word, const char *wanted)
{
    char text[40];
    const char *found = word_text(word, text, sizeof(text));
    const struct frame *frame = &s->stack[s->depth];
    if (word->kind == LEX_END && frame->open != '\0')
        GIVE_UP(s, frame->line, "the `%c` opened here is never closed", frame->open);
    else if (word->kind == LEX_STRING && frame->expect == GROUP_NAME)
        GIVE_UP(s, word->line, "a name stands without quotes, and = after it");
    else if (*word->text.data == '\'' && word->kind == LEX_GARBAGE)
        GIVE_UP(s, word->line, "a text stands in double quotes, not in single ones");
    else if (s->name.size > 0 && word->kind == LEX_FLOAT && *word->text.data == '.' && frame->expect == GROUP_EQUALS)
        GIVE_UP(s, word->line, "a dot in the name %.*s...: a name has letters, digits and _", STR_ARG(s->name));
    else
        GIVE_UP(s, word->line, "%s where %s was expected", found, wanted);
}

static void in_group(struct scanner *s, const struct lex_word *word)
{
    struct frame *frame = &s->stack[s->depth];
    switch (frame->expect) {
    case GROUP_AFTER:
        frame->expect = GROUP_NAME;
        if (word->kind == LEX_SEMICOLON || word->kind == LEX_COMMA) {
            emit(s, word->line, word->text);
            return;
        }
        if (word->kind == LEX_STRING && s->last.kind == LEX_STRING) { /* "a" "b" is one text, over several lines */
            frame->expect = GROUP_AFTER;
            take_string(s, word);
            return;
        }
        if (word->kind != LEX_NAME && word->kind != LEX_CLOSE && word->kind != LEX_END) {
            unexpected(s, word, "`;` or the next name");
            return;
        }
        in_group(s, word);
        return;
    case GROUP_NAME:
        if (word->kind == LEX_SEMICOLON || word->kind == LEX_COMMA) {
            say(s, word->line, "a `%c` too many", *word->text.data);
        } else if (word->kind == LEX_CLOSE) {
            take_close(s, word);
        } else if (word->kind == LEX_NAME) {
            s->name = word->text;
            s->name_line = word->line;
            frame->expect = GROUP_EQUALS;
            emit(s, word->line, word->text);
        } else {
            unexpected(s, word, frame->open == '\0' ? "a name" : "a name or `}`");
        }
        return;
    case GROUP_EQUALS:
        frame->expect = GROUP_VALUE;
        if (word->kind == LEX_EQUALS) {
            emit(s, word->line, STR("="));
        } else if (word->kind == LEX_STRING || word->kind == LEX_OPEN || word->kind == LEX_INTEGER) {
            say(s, word->line, "a `=` is missing after %.*s", STR_ARG(s->name));
            emit(s, word->line, STR("="));
            take_value(s, word);
        } else {
            frame->expect = GROUP_EQUALS;
            unexpected(s, word, "`=`");
        }
        return;
    default:
        if (!take_value(s, word) && word->kind == LEX_GARBAGE)
            unexpected(s, word, "a value");
        else if (frame->expect == GROUP_VALUE)
            GIVE_UP(s, s->name_line, "%.*s has no value", STR_ARG(s->name));
        return;
    }
}

static void in_list(struct scanner *s, const struct lex_word *word)
{
    struct frame *frame = &s->stack[s->depth];
    if (word->kind == LEX_CLOSE) {
        if (frame->expect == LIST_VALUE) {
            say(s, s->last.line, "a comma after the last element: libconfig takes none there");
            size_t comma = s->scan->text.size;
            while (s->scan->text.data[comma - 1] != ',')
                comma--;
            s->scan->text.data[comma - 1] = ' ';
        }
        take_close(s, word);
        return;
    }
    if (frame->expect != LIST_AFTER) {
        if (!take_value(s, word))
            unexpected(s, word, "a value");
        return;
    }
    if (word->kind == LEX_COMMA || word->kind == LEX_SEMICOLON) {
        if (word->kind == LEX_SEMICOLON)
            say(s, word->line, "in a list a comma stands between two elements, not a `;`");
        emit(s, word->line, STR(","));
        frame->expect = LIST_VALUE;
        return;
    }
    frame->expect = LIST_VALUE;
    if (word->kind == LEX_STRING && s->last.kind == LEX_STRING)
        say(s, s->last.line, "a comma is missing after %.*s: libconfig would join it with the text that follows",
            (int)(s->last.text.size < 200 ? s->last.text.size : 200), s->last.text.data);
    else if (word->kind == LEX_OPEN || word->kind == LEX_STRING || word->kind == LEX_INTEGER || word->kind == LEX_FLOAT)
        say(s, s->last.line, "a comma is missing between two elements");
    else {
        frame->expect = LIST_AFTER;
        unexpected(s, word, "a comma or the end of the list");
        return;
    }
    emit(s, word->line, STR(","));
    take_value(s, word);
}

/* What no grammar can use. True when it was said. */
static bool is_hopeless(struct scanner *s, const struct lex_word *word)
{
    bool ran_over = s->last.kind == LEX_STRING && s->last.line_last > s->last.line && word->glued;
    if (ran_over && (word->kind == LEX_NAME || word->kind == LEX_INTEGER || word->kind == LEX_OPEN_STRING))
        GIVE_UP(s, s->last.line, "the text that starts here runs on to line %d: is its closing quote missing?",
                (int)s->last.line_last);
    else if (word->kind == LEX_OPEN_STRING)
        GIVE_UP(s, word->line, "the text that starts here is never closed: a double quote is missing, here or before");
    else if (word->kind == LEX_OPEN_COMMENT)
        GIVE_UP(s, word->line,
                "the comment that starts here is never closed: libconfig would silently drop the rest of the file");
    else if (word->kind == LEX_INCLUDE)
        GIVE_UP(s, word->line,
                "@include is not supported: a contract is one file, so that its lines and its hash say what runs; "
                "a schema may stand beside it, as \"@file.json\"");
    return s->failed;
}

bool scan_text(struct scan *scan, struct str text, struct str file, struct arena *arena, struct problems *problems)
{
    memset(scan, 0, sizeof(*scan));
    /* A comma, a quote or a blank is added to each word at most. */
    buf_init(&scan->text, text.size * 6 + 64);
    scan->lines = ARENA_ARRAY(arena, text.size + 1, int32_t); /* a value takes a byte at least */
    struct scanner s = {.scan = scan, .file = file, .problems = problems, .line_out = 1};
    const char *what = NULL;
    int32_t line = scan_bytes(text, &what);
    if (line > 0) {
        GIVE_UP(&s, line, "%s", what);
        return false;
    }
    lex_init(&s.lex, text);
    for (struct lex_word word = lex_next(&s.lex); !s.failed; word = lex_next(&s.lex)) {
        if (is_hopeless(&s, &word))
            break;
        if (word.kind == LEX_END && s.depth == 0 &&
            (s.stack[0].expect == GROUP_NAME || s.stack[0].expect == GROUP_AFTER))
            break;
        if (s.stack[s.depth].expect < LIST_FIRST)
            in_group(&s, &word);
        else
            in_list(&s, &word);
        s.last = word;
    }
    buf_puts(&scan->text, "\n"); /* libconfig refuses a comment on a last line without one */
    return !s.failed && !scan->text.overflow;
}

void scan_free(struct scan *scan)
{
    buf_free(&scan->text);
}
