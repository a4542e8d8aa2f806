#include "worker/contract/lex.h"

#include <string.h>
#include <strings.h>

void lex_init(struct lex *lex, struct str text)
{
    *lex = (struct lex){.text = text, .at = 0, .line = 1};
}

static char at(const struct lex *lex, size_t position)
{
    return position < lex->text.size ? lex->text.data[position] : '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*';
}

static bool is_name(char c)
{
    return is_name_start(c) || is_digit(c) || c == '_' || c == '-';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

/* Blanks and comments. False when a comment is never closed; `lex` then stands at its start. */
static bool skip_blank(struct lex *lex)
{
    for (;;) {
        char c = at(lex, lex->at);
        if (is_blank(c)) {
            lex->line += c == '\n';
            lex->at++;
        } else if (c == '#' || (c == '/' && at(lex, lex->at + 1) == '/')) {
            while (lex->at < lex->text.size && at(lex, lex->at) != '\n')
                lex->at++;
        } else if (c == '/' && at(lex, lex->at + 1) == '*') {
            const char *start = lex->text.data + lex->at;
            const char *end = memmem(start + 2, lex->text.size - lex->at - 2, "*/", 2);
            if (end == NULL)
                return false;
            for (const char *p = start; p < end; p++)
                lex->line += *p == '\n';
            lex->at += (size_t)(end - start) + 2;
        } else {
            return true;
        }
    }
}

/* The size of the number at `from`, 0 = none. The longest match, as flex does it. */
static size_t number_size(const struct lex *lex, size_t from, bool *is_float)
{
    size_t p = from;
    *is_float = false;
    if (at(lex, p) == '0' && (at(lex, p + 1) == 'x' || at(lex, p + 1) == 'X') && is_hex(at(lex, p + 2))) {
        for (p += 2; is_hex(at(lex, p)); p++)
            ;
    } else {
        p += at(lex, p) == '-' || at(lex, p) == '+';
        size_t digits = p;
        while (is_digit(at(lex, p)))
            p++;
        bool any = p > digits;
        if (at(lex, p) == '.') {
            *is_float = true;
            for (p++; is_digit(at(lex, p)); p++)
                ;
        }
        if (!any && !*is_float)
            return 0;
        size_t e = p + 1;
        if ((at(lex, p) == 'e' || at(lex, p) == 'E') && (any || *is_float)) {
            e += at(lex, e) == '-' || at(lex, e) == '+';
            if (is_digit(at(lex, e))) {
                *is_float = true;
                for (p = e; is_digit(at(lex, p)); p++)
                    ;
            }
        }
        if (*is_float)
            return p - from;
    }
    for (int i = 0; i < 2 && at(lex, p) == 'L'; i++)
        p++;
    return p - from;
}

static void take_string(struct lex *lex, struct lex_word *word)
{
    size_t p = lex->at + 1;
    while (p < lex->text.size && lex->text.data[p] != '"') {
        p += lex->text.data[p] == '\\' && p + 1 < lex->text.size ? 1 : 0;
        lex->line += lex->text.data[p] == '\n';
        p++;
    }
    word->kind = p < lex->text.size ? LEX_STRING : LEX_OPEN_STRING;
    word->text.size = (p < lex->text.size ? p + 1 : p) - lex->at;
    word->line_last = lex->line;
}

static void take_name(struct lex *lex, struct lex_word *word)
{
    size_t p = lex->at;
    while (is_name(at(lex, p)))
        p++;
    word->text.size = p - lex->at;
    bool is_true = word->text.size == 4 && strncasecmp(word->text.data, "true", 4) == 0;
    bool is_false = word->text.size == 5 && strncasecmp(word->text.data, "false", 5) == 0;
    word->kind = is_true || is_false ? LEX_BOOL : LEX_NAME;
}

static enum lex_kind sign_kind(char c)
{
    switch (c) {
    case '=':
    case ':':
        return LEX_EQUALS;
    case ',':
        return LEX_COMMA;
    case ';':
        return LEX_SEMICOLON;
    case '{':
    case '(':
    case '[':
        return LEX_OPEN;
    case '}':
    case ')':
    case ']':
        return LEX_CLOSE;
    default:
        return LEX_GARBAGE;
    }
}

struct lex_word lex_next(struct lex *lex)
{
    size_t before = lex->at;
    bool closed = skip_blank(lex);
    struct lex_word word = {.kind = LEX_END, .line = lex->line, .line_last = lex->line};
    word.text = (struct str){.data = lex->text.data + lex->at, .size = 1};
    word.glued = before == lex->at && before > 0;
    if (!closed) {
        word.kind = LEX_OPEN_COMMENT;
        return word;
    }
    if (lex->at >= lex->text.size)
        return word;
    bool is_float;
    char c = at(lex, lex->at);
    size_t number = number_size(lex, lex->at, &is_float);
    if (c == '"') {
        take_string(lex, &word);
    } else if (is_name_start(c)) {
        take_name(lex, &word);
    } else if (number > 0) {
        word.text.size = number;
        word.kind = is_float ? LEX_FLOAT : LEX_INTEGER;
    } else if (c == '@' && strncmp(word.text.data, "@include", sizeof("@include") - 1) == 0) {
        word.kind = LEX_INCLUDE;
    } else {
        word.kind = sign_kind(c);
    }
    lex->at += word.text.size;
    return word;
}

struct str lex_bare_text(struct lex *lex, const struct lex_word *first)
{
    static const char ends[] = ";,})]\n\"#";
    while (lex->at < lex->text.size && memchr(ends, lex->text.data[lex->at], sizeof(ends) - 1) == NULL)
        lex->at++;
    size_t size = (size_t)(lex->text.data + lex->at - first->text.data);
    while (size > 0 && is_blank(first->text.data[size - 1]))
        size--;
    return (struct str){.data = first->text.data, .size = size};
}

char lex_peek(const struct lex *lex)
{
    size_t p = lex->at;
    while (p < lex->text.size && is_blank(lex->text.data[p]))
        p++;
    return at(lex, p);
}
