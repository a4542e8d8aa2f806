#include "worker/contract/expr_roots.h"

#include "worker/contract/expr_allow.h"

/*
 * A walk along jq's grammar that carries one thing: is the input here still the root? Only what changes the input matters,
 * so the binary operators need no precedence but these: `|` (the right side gets the left side's output; binds last),
 * `TERM as PATTERN |` (the right side keeps the input) and `|=` (the right side gets the old value). jq has compiled the
 * program, so what stands here is well-formed; each step moves on all the same, whatever it meets. Levels are bounded
 * (EXPR_LEVELS_MAX), and so is the recursion.
 */
struct walk {
    struct arena *arena;
    const struct expr_token *tokens, *end; /* `end` is the EXPR_END */
    struct str *names;
    size_t count;
};

static void walk_exp(struct walk *walk, bool root, bool in_object);

static bool at_op(const struct walk *walk, const char *text)
{
    return expr_token_is(walk->tokens, EXPR_OP, text);
}

static bool at_keyword(const struct walk *walk, const char *text)
{
    return expr_token_is(walk->tokens, EXPR_KEYWORD, text);
}

static void next(struct walk *walk)
{
    if (walk->tokens < walk->end)
        walk->tokens++;
}

static bool skip_op(struct walk *walk, const char *text)
{
    if (!at_op(walk, text))
        return false;
    next(walk);
    return true;
}

static void add(struct walk *walk, bool root, struct str name)
{
    if (!root || name.data == NULL)
        return;
    for (size_t i = 0; i < walk->count; i++)
        if (str_equal(walk->names[i], name))
            return;
    walk->names[walk->count++] = name;
}

static bool opens(const struct expr_token *token)
{
    return token->kind == EXPR_INTERPOLATE || token->kind == EXPR_STRING || expr_token_is(token, EXPR_OP, "(") ||
           expr_token_is(token, EXPR_OP, "[") || expr_token_is(token, EXPR_OP, "{");
}

static bool closes(const struct expr_token *token)
{
    return token->kind == EXPR_RESUME || token->kind == EXPR_STRING_CLOSE || expr_token_is(token, EXPR_OP, ")") ||
           expr_token_is(token, EXPR_OP, "]") || expr_token_is(token, EXPR_OP, "}");
}

/* What ends an expression: a closing bracket, the ; of arguments, the : of a slice, a word of if ... end. */
static bool ends(const struct walk *walk, bool in_object)
{
    return walk->tokens == walk->end || closes(walk->tokens) || at_op(walk, ";") || at_op(walk, ":") ||
           (in_object && at_op(walk, ",")) || at_keyword(walk, "then") || at_keyword(walk, "elif") ||
           at_keyword(walk, "else") || at_keyword(walk, "end");
}

static size_t arguments_count(const struct walk *walk)
{
    size_t count = 1, depth = 0;

    for (const struct expr_token *token = walk->tokens; token < walk->end; token++) {
        if (opens(token))
            depth++;
        else if (closes(token) && depth-- == 0)
            break;
        else if (depth == 0 && expr_token_is(token, EXPR_OP, ";"))
            count++;
    }
    return count;
}

static void walk_string(struct walk *walk, bool root)
{
    next(walk);
    while (walk->tokens < walk->end && walk->tokens->kind != EXPR_STRING_CLOSE) {
        if (walk->tokens->kind == EXPR_INTERPOLATE) {
            next(walk);
            walk_exp(walk, root, false);
        }
        next(walk);
    }
    next(walk);
}

static void walk_call(struct walk *walk, bool root)
{
    struct str function = walk->tokens->text;
    size_t index = 0;

    next(walk);
    if (!skip_op(walk, "("))
        return;
    size_t count = arguments_count(walk);
    do
        walk_exp(walk, root && expr_allow_same_input(function, index++, count), false);
    while (skip_op(walk, ";"));
    skip_op(walk, ")");
}

static void walk_object(struct walk *walk, bool root)
{
    next(walk);
    while (walk->tokens < walk->end && !skip_op(walk, "}")) {
        const struct expr_token *key = walk->tokens;
        if (skip_op(walk, "(")) {
            walk_exp(walk, root, false);
            skip_op(walk, ")");
        } else if (key->kind == EXPR_STRING) {
            walk_string(walk, root);
        } else {
            next(walk); /* of @format "key" too: the string is the next round's key */
        }
        if (skip_op(walk, ":"))
            walk_exp(walk, root, true);
        else if (key->kind == EXPR_IDENT || key->kind == EXPR_STRING)
            add(walk, root, key->text); /* {name} is {name: .name} */
        skip_op(walk, ",");
    }
}

static void walk_reduce(struct walk *walk, bool root);

/* What follows a term: .field .'field' [index] [from:to] ? ; an index is evaluated on the input of the whole term. */
static void walk_suffixes(struct walk *walk, bool root)
{
    while (walk->tokens < walk->end) {
        if (walk->tokens->kind == EXPR_FIELD || at_op(walk, "?")) {
            next(walk);
        } else if (at_op(walk, ".") && walk->tokens[1].kind == EXPR_STRING) {
            next(walk);
            walk_string(walk, root);
        } else if (skip_op(walk, "[")) {
            walk_exp(walk, root, false);
            if (skip_op(walk, ":"))
                walk_exp(walk, root, false);
            skip_op(walk, "]");
        } else {
            return;
        }
    }
}

/* A term that begins with a dot. True when it is the dot alone: the input itself. */
static bool walk_dot(struct walk *walk, bool root)
{
    const struct expr_token *segment = walk->tokens + 1;

    next(walk);
    if (segment->kind == EXPR_FIELD) { /* `. .a` is .a */
        add(walk, root, segment->text);
    } else if (segment->kind == EXPR_STRING) {
        add(walk, root, segment->text);
        walk_string(walk, root);
    } else if (at_op(walk, "[")) {
        /* .['a'] and nothing more inside: a string without interpolation is two tokens. */
        if (segment[1].kind == EXPR_STRING && segment[2].kind == EXPR_STRING_CLOSE &&
            expr_token_is(&segment[3], EXPR_OP, "]"))
            add(walk, root, segment[1].text);
    } else {
        return true;
    }
    walk_suffixes(walk, root);
    return false;
}

/* One term. True when it is `.` alone. */
static bool walk_term(struct walk *walk, bool root)
{
    if (at_op(walk, "."))
        return walk_dot(walk, root);
    if (walk->tokens->kind == EXPR_FIELD) {
        add(walk, root, walk->tokens->text);
        next(walk);
    } else if (walk->tokens->kind == EXPR_STRING) {
        walk_string(walk, root);
    } else if (walk->tokens->kind == EXPR_IDENT) {
        walk_call(walk, root);
    } else if (at_op(walk, "{")) {
        walk_object(walk, root);
    } else if (skip_op(walk, "(")) {
        walk_exp(walk, root, false);
        skip_op(walk, ")");
    } else if (skip_op(walk, "[")) {
        walk_exp(walk, root, false);
        skip_op(walk, "]");
    } else if (at_keyword(walk, "reduce")) {
        walk_reduce(walk, root);
    } else if (at_keyword(walk, "if")) {
        while (walk->tokens < walk->end && !at_keyword(walk, "end")) {
            next(walk); /* if, then, elif, else */
            walk_exp(walk, root, false);
        }
        next(walk);
    } else {
        next(walk); /* a number, a variable, `..`, or the format of the string that follows */
    }
    walk_suffixes(walk, root);
    return false;
}

/* From `as` to behind the pattern: what it reads, it reads from the term's output. */
static void skip_pattern(struct walk *walk)
{
    size_t depth = 0;

    next(walk);
    while (walk->tokens < walk->end && (depth > 0 || (!at_op(walk, "|") && !at_op(walk, "(")))) {
        if (opens(walk->tokens))
            depth++;
        else if (closes(walk->tokens))
            depth--;
        next(walk);
    }
}

/* reduce TERM as PATTERN (INIT; UPDATE): the update gets what was reduced so far. */
static void walk_reduce(struct walk *walk, bool root)
{
    next(walk);
    walk_term(walk, root);
    skip_pattern(walk);
    skip_op(walk, "(");
    walk_exp(walk, root, false);
    skip_op(walk, ";");
    walk_exp(walk, false, false);
    skip_op(walk, ")");
}

static void walk_exp(struct walk *walk, bool root, bool in_object)
{
    bool here = root; /* this stage of the pipe has the root as its input */
    bool old = false; /* right of |= */
    bool only_dot = false;
    size_t items = 0; /* terms and operators of this stage */

    while (!ends(walk, in_object)) {
        if (skip_op(walk, "|")) {
            here = here && items == 1 && only_dot;
            old = false;
            items = 0;
        } else if (at_keyword(walk, "as")) {
            skip_pattern(walk);
            skip_op(walk, "|");
            old = false;
            items = 0;
        } else if (at_keyword(walk, "catch")) {
            next(walk);
            walk_term(walk, false); /* its input is the error */
            items += 2;
        } else if (skip_op(walk, ",") || skip_op(walk, "//")) {
            old = false;
            items += 2;
        } else if (walk->tokens->kind == EXPR_OP && !at_op(walk, ".") && !at_op(walk, "..") && !opens(walk->tokens)) {
            old = old || at_op(walk, "|=");
            next(walk);
            items += 2;
        } else if (walk->tokens->kind == EXPR_KEYWORD && !at_keyword(walk, "if") && !at_keyword(walk, "reduce")) {
            next(walk); /* and, or, try */
            items += 2;
        } else {
            only_dot = walk_term(walk, here && !old);
            items++;
        }
    }
}

size_t expr_roots_find(struct arena *arena, const struct expr_lexed *lexed, struct str **names)
{
    struct walk walk = {.arena = arena, .tokens = lexed->tokens, .end = lexed->tokens + lexed->tokens_count - 1};

    walk.names = ARENA_ARRAY(arena, lexed->tokens_count, struct str);
    while (walk.tokens < walk.end) {
        walk_exp(&walk, true, false);
        next(&walk);
    }
    for (size_t i = 0; i < walk.count; i++)
        walk.names[i] = arena_str(arena, walk.names[i]);
    *names = walk.names;
    return walk.count;
}

/* ---- what it can read at most ---- */

static bool among(const struct expr_token *token, enum expr_token_kind kind, const char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (expr_token_is(token, kind, texts[i]))
            return true;
    return false;
}

#define AMONG(token, kind, texts) among(token, kind, texts, sizeof(texts) / sizeof((texts)[0]))

/* A token that takes no part in reading the root, or reads a member that it names itself. */
static bool harmless(const struct expr_token *token)
{
    static const char *const ops[] = {"(", ")", "[", "]", "{",  "}",  ",", ":",  "+", "-",  "*",
                                      "/", "%", "|", "?", "==", "!=", "<", "<=", ">", ">=", "//"};
    static const char *const words[] = {"and", "or", "if", "then", "elif", "else", "end"};
    static const char *const constants[] = {"null", "true", "false", "empty"};
    switch (token->kind) {
    case EXPR_FIELD:
    case EXPR_NUMBER:
    case EXPR_INTERPOLATE:
    case EXPR_RESUME:
    case EXPR_STRING_CLOSE:
    case EXPR_END:
        return true;
    case EXPR_STRING: /* as a key it may be computed, and {"name"} reads .name */
        return !token->key || (token->text.data != NULL && token[1].kind == EXPR_STRING_CLOSE);
    case EXPR_IDENT:
        return token->key || AMONG(token, EXPR_IDENT, constants);
    case EXPR_KEYWORD:
        return token->key || AMONG(token, EXPR_KEYWORD, words);
    case EXPR_OP:
        return AMONG(token, EXPR_OP, ops);
    case EXPR_VARIABLE:
    case EXPR_FORMAT:
        break;
    }
    return false;
}

bool expr_roots_bound(struct arena *arena, const struct expr_lexed *lexed, struct str **names, size_t *count)
{
    *names = ARENA_ARRAY(arena, lexed->tokens_count, struct str);
    *count = 0;
    for (size_t i = 0; i < lexed->tokens_count; i++) {
        const struct expr_token *token = &lexed->tokens[i];
        if (!harmless(token))
            return false;
        if (token->kind == EXPR_FIELD || token->key)
            (*names)[(*count)++] = arena_str(arena, token->text);
    }
    return true;
}
