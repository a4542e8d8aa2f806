#include "worker/contract/expr_lex.h"

#include <ctype.h>
#include <string.h>

/* What is open: a bracket by its character, 'i' for \( ), 'f' for if ... end, a string by its quote. */
struct level {
    char kind;
    bool key; /* '{': the next token is a key */
    size_t at;
    struct expr_token *token; /* what opened it */
};

struct lexer {
    struct arena *arena;
    struct str text;
    size_t at;
    struct expr_lexed *lexed;
    char *program; /* at most two bytes for one of `text` */
    uint32_t *source;
    size_t program_size;
    struct level levels[EXPR_LEVELS_MAX];
    size_t depth;
    struct error *error;
};

static const char *const keywords[] = {"as",     "import",  "include", "module", "def",    "if",  "then",
                                       "else",   "elif",    "and",     "or",     "end",    "try", "catch",
                                       "reduce", "foreach", "label",   "break",  "__loc__"};

/* Longest first: the first that fits is taken. */
static const char *const operators[] = {
    "?//", "//=", "==", "!=", "//", "|=", "+=", "-=", "*=", "/=", "%=", "<=", ">=", "..",
    ".",   "?",   "=",  ";",  ",",  ":",  "|",  "+",  "-",  "*",  "/",  "%",  "<",  ">"};

bool expr_token_is(const struct expr_token *token, enum expr_token_kind kind, const char *text)
{
    return token->kind == kind && str_is(token->text, text);
}

struct str expr_lex_position(struct arena *arena, struct str text, size_t at)
{
    int line = 1, column = 1;

    for (size_t i = 0; i < at && i < text.size; i++) {
        if (text.data[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text.data[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return arena_printf(arena, "line %d, column %d", line, column);
}

static bool fail(struct lexer *lexer, size_t at, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool fail(struct lexer *lexer, size_t at, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    struct str says = arena_vprintf(lexer->arena, format, arguments);
    va_end(arguments);
    struct str where = expr_lex_position(lexer->arena, lexer->text, at);
    return error_set(lexer->error, ERROR_POISON, "%.*s: %.*s", STR_ARG(where), STR_ARG(says));
}

/* The byte `ahead` of the next one, 0 past the end (the text holds no NUL of its own). */
static char peek(const struct lexer *lexer, size_t ahead)
{
    return lexer->at + ahead < lexer->text.size ? lexer->text.data[lexer->at + ahead] : '\0';
}

static void emit(struct lexer *lexer, char c, size_t at)
{
    lexer->program[lexer->program_size] = c;
    lexer->source[lexer->program_size++] = (uint32_t)at;
}

static void copy(struct lexer *lexer, size_t size)
{
    for (size_t i = 0; i < size; i++, lexer->at++)
        emit(lexer, lexer->text.data[lexer->at], lexer->at);
}

/* Adds a token of `size` bytes that stands at the current byte; it is copied later. */
static struct expr_token *token(struct lexer *lexer, enum expr_token_kind kind, size_t skip, size_t size)
{
    struct expr_token *added = &lexer->lexed->tokens[lexer->lexed->tokens_count++];
    struct level *level = lexer->depth > 0 ? &lexer->levels[lexer->depth - 1] : NULL;

    added->kind = kind;
    added->at = lexer->at;
    added->text = (struct str){lexer->text.data + lexer->at + skip, size - skip};
    if (level != NULL && level->kind == '{') {
        added->key = level->key;
        level->key = kind == EXPR_OP && str_is(added->text, ",");
    }
    return added;
}

/* Opens a level at the current byte; `opening` is its token. */
static bool open_level(struct lexer *lexer, char kind, struct expr_token *opening)
{
    if (lexer->depth == EXPR_LEVELS_MAX)
        return fail(lexer, lexer->at, "nested deeper than %d levels", EXPR_LEVELS_MAX);
    lexer->levels[lexer->depth++] = (struct level){.kind = kind, .key = kind == '{', .at = lexer->at, .token = opening};
    return true;
}

static const char *level_name(char kind)
{
    switch (kind) {
    case '(':
        return "( ";
    case '[':
        return "[ ";
    case '{':
        return "{ ";
    case 'i':
        return "\\( ";
    case 'f':
        return "if ";
    default:
        return "string ";
    }
}

static bool unclosed(struct lexer *lexer)
{
    const struct level *level = &lexer->levels[lexer->depth - 1];
    const char *wants = level->kind == 'f' ? "`end`" : level->kind == '[' ? "]" : level->kind == '{' ? "}" : ")";

    if (level->kind == '\'' || level->kind == '"')
        return fail(lexer, level->at, "this string has no closing %c", level->kind);
    return fail(lexer, level->at, "%shas no %s", level_name(level->kind), wants);
}

/* Closes the innermost level if it is of one of these kinds. */
static bool close_level(struct lexer *lexer, const char *kinds, const char *closer)
{
    if (lexer->depth == 0)
        return fail(lexer, lexer->at, "%s closes nothing", closer);
    if (strchr(kinds, lexer->levels[lexer->depth - 1].kind) == NULL)
        return unclosed(lexer);
    lexer->depth--;
    return true;
}

static bool escape(struct lexer *lexer, char quote)
{
    char c = peek(lexer, 1);

    if (c == 'u') {
        for (size_t i = 2; i < 6; i++)
            if (!isxdigit((unsigned char)peek(lexer, i)))
                return fail(lexer, lexer->at, "\\u wants four hexadecimal digits");
        copy(lexer, 6);
    } else if (c == '\'' && quote == '\'') {
        lexer->at++; /* jq has no \' : inside its double quotes a single one needs no escape */
        copy(lexer, 1);
    } else if (c != '\0' && strchr("\"\\/bfnrt", c) != NULL) {
        copy(lexer, 2);
    } else {
        return fail(lexer, lexer->at,
                    "\\%c is no escape of a string (those are \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX \\( \\'); "
                    "a backslash itself is written \\\\",
                    c >= ' ' && c < 0x7f ? c : '?');
    }
    lexer->levels[lexer->depth - 1].token->text = STR_NONE;
    return true;
}

/* One step inside a string: an escape, the start of an interpolation, the end, or a byte of text. */
static bool string_step(struct lexer *lexer, char quote)
{
    char c = peek(lexer, 0);
    struct expr_token *opening = lexer->levels[lexer->depth - 1].token;

    if (c == quote) {
        if (opening->text.data != NULL)
            opening->text.size = lexer->at - opening->at - 1;
        emit(lexer, '"', lexer->at);
        lexer->depth--;
        token(lexer, EXPR_STRING_CLOSE, 0, 1);
        lexer->at++;
        return true;
    }
    if (c == '\\' && peek(lexer, 1) == '(') {
        opening->text = STR_NONE;
        if (!open_level(lexer, 'i', token(lexer, EXPR_INTERPOLATE, 0, 2)))
            return false;
        copy(lexer, 2);
        return true;
    }
    if (c == '\\')
        return escape(lexer, quote);
    if (c == '"')
        emit(lexer, '\\', lexer->at);
    copy(lexer, 1);
    return true;
}

static bool string_open(struct lexer *lexer, char quote)
{
    if (!open_level(lexer, quote, token(lexer, EXPR_STRING, 1, 1)))
        return false;
    emit(lexer, '"', lexer->at);
    lexer->at++;
    return true;
}

static bool name_start(char c)
{
    return isalpha((unsigned char)c) || c == '_';
}

static size_t name_size(const struct lexer *lexer, size_t from)
{
    size_t size = from;

    while (isalnum((unsigned char)peek(lexer, size)) || peek(lexer, size) == '_')
        size++;
    return size;
}

static bool word(struct lexer *lexer)
{
    size_t size = name_size(lexer, 0);
    struct str text = {lexer->text.data + lexer->at, size};
    bool keyword = false;

    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        keyword = keyword || str_is(text, keywords[i]);
    struct expr_token *added = token(lexer, keyword ? EXPR_KEYWORD : EXPR_IDENT, 0, size);
    if (!added->key && str_is(text, "if") && !open_level(lexer, 'f', added))
        return false;
    if (!added->key && str_is(text, "end") && !close_level(lexer, "f", "`end`"))
        return false;
    copy(lexer, size);
    return true;
}

static bool number(struct lexer *lexer)
{
    size_t size = 0, digits = 0;

    for (; isdigit((unsigned char)peek(lexer, size)); size++)
        digits++;
    if (peek(lexer, size) == '.')
        for (size++; isdigit((unsigned char)peek(lexer, size)); size++)
            digits++;
    if (peek(lexer, size) == 'e' || peek(lexer, size) == 'E') {
        size += peek(lexer, size + 1) == '+' || peek(lexer, size + 1) == '-' ? 2 : 1;
        if (!isdigit((unsigned char)peek(lexer, size)))
            digits = 0;
        while (isdigit((unsigned char)peek(lexer, size)))
            size++;
    }
    char next = peek(lexer, size);
    if (digits == 0 || next == '.' || name_start(next))
        return fail(lexer, lexer->at, "this is no number");
    token(lexer, EXPR_NUMBER, 0, size);
    copy(lexer, size);
    return true;
}

static bool bracket(struct lexer *lexer, char c)
{
    if (c == '(' || c == '[' || c == '{') {
        if (!open_level(lexer, c, token(lexer, EXPR_OP, 0, 1)))
            return false;
        copy(lexer, 1);
        return true;
    }
    bool resumes = lexer->depth > 0 && lexer->levels[lexer->depth - 1].kind == 'i';
    if (!close_level(lexer, c == ')' ? "(i" : c == ']' ? "[" : "{", c == ')' ? ")" : c == ']' ? "]" : "}"))
        return false;
    token(lexer, resumes ? EXPR_RESUME : EXPR_OP, 0, 1);
    copy(lexer, 1);
    return true;
}

static bool operator(struct lexer *lexer)
{
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        size_t size = strlen(operators[i]);
        if (size > lexer->text.size - lexer->at || memcmp(lexer->text.data + lexer->at, operators[i], size) != 0)
            continue;
        token(lexer, EXPR_OP, 0, size);
        copy(lexer, size);
        return true;
    }
    size_t size = 1;
    while (((unsigned char)peek(lexer, size) & 0xc0) == 0x80)
        size++;
    if (peek(lexer, 0) < ' ' && size == 1)
        return fail(lexer, lexer->at, "a control character (0x%02x)", (unsigned)(unsigned char)peek(lexer, 0));
    return fail(lexer, lexer->at, "`%.*s` means nothing here; text goes in single quotes", (int)size,
                lexer->text.data + lexer->at);
}

/* .name, $name or @name. */
static void name(struct lexer *lexer, char sigil)
{
    size_t size = name_size(lexer, 1);
    struct expr_token *added = token(lexer,
                                     sigil == '.'   ? EXPR_FIELD
                                     : sigil == '$' ? EXPR_VARIABLE
                                                    : EXPR_FORMAT,
                                     1, size);
    bool digits = added->text.size > 1;

    for (size_t i = 1; i < added->text.size; i++)
        digits = digits && isdigit((unsigned char)added->text.data[i]);
    if (sigil == '.' && digits && (added->text.data[0] == 'e' || added->text.data[0] == 'E')) {
        /* jq 1.6 reads .e5 as a number and fails; ."e5" means the field. */
        copy(lexer, 1);
        emit(lexer, '"', lexer->at);
        copy(lexer, size - 1);
        emit(lexer, '"', lexer->at - 1);
        return;
    }
    copy(lexer, size);
}

/* One token, blank or comment outside of strings. */
static bool step(struct lexer *lexer)
{
    char c = peek(lexer, 0), next = peek(lexer, 1);

    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        copy(lexer, 1);
        return true;
    }
    if (c == '#') {
        while (lexer->at < lexer->text.size && peek(lexer, 0) != '\n' && peek(lexer, 0) != '\r')
            copy(lexer, 1);
        return true;
    }
    if (c == '\'' || c == '"')
        return string_open(lexer, c);
    if (strchr("()[]{}", c) != NULL)
        return bracket(lexer, c);
    if (name_start(c))
        return word(lexer);
    if (isdigit((unsigned char)c) || (c == '.' && isdigit((unsigned char)next)))
        return number(lexer);
    if ((c == '.' || c == '$' || c == '@') && name_start(next)) {
        name(lexer, c);
        return true;
    }
    return operator(lexer);
}

static bool check_bytes(struct lexer *lexer)
{
    size_t valid = str_utf8_size(lexer->text);
    const char *nul = memchr(lexer->text.data, '\0', lexer->text.size);

    if (valid < lexer->text.size)
        return fail(lexer, valid, "not valid UTF-8");
    return nul == NULL || fail(lexer, (size_t)(nul - lexer->text.data), "a NUL character");
}

bool expr_lex(struct arena *arena, struct str text, struct expr_lexed *lexed, struct error *error)
{
    struct lexer lexer = {.arena = arena, .text = text, .lexed = lexed, .error = error};

    if (text.size == 0)
        return error_set(error, ERROR_POISON, "an empty expression");
    if (text.size > EXPR_TEXT_SIZE_MAX)
        return error_set(error, ERROR_POISON, "an expression of %zu bytes, the limit is %zu", text.size,
                         EXPR_TEXT_SIZE_MAX);
    if (!check_bytes(&lexer))
        return false;
    /* Each byte gives at most two of the program and one token, or two tokens where \( opens (two bytes). */
    lexer.program = ARENA_ARRAY(arena, 2 * text.size + 1, char);
    lexer.source = ARENA_ARRAY(arena, 2 * text.size + 1, uint32_t);
    *lexed = (struct expr_lexed){.text = text, .tokens = ARENA_ARRAY(arena, text.size + 1, struct expr_token)};
    while (lexer.at < text.size) {
        char inside = lexer.depth > 0 ? lexer.levels[lexer.depth - 1].kind : '\0';
        if (!(inside == '\'' || inside == '"' ? string_step(&lexer, inside) : step(&lexer)))
            return false;
    }
    if (lexer.depth > 0)
        return unclosed(&lexer);
    token(&lexer, EXPR_END, 0, 0);
    lexer.source[lexer.program_size] = (uint32_t)text.size;
    lexed->program = (struct str){lexer.program, lexer.program_size}; /* the array is zeroed: a NUL follows */
    lexed->source = lexer.source;
    if (lexed->tokens_count == 1)
        return error_set(error, ERROR_POISON, "an empty expression");
    return true;
}
