/*
 * expr_lex.h: reads the text of an expression: its tokens, and the jq program that it stands for. Used by expr.c only.
 *
 * jq hands out no syntax tree, so what has to be known of a program before it runs (which functions it calls, what it
 * reads from its root) is taken from these tokens. They follow jq 1.6 (its lexer.l); where jq would be lax ("1.2.3" is
 * one number to it) this is strict, so nothing is read here in one way and by jq in another.
 */
#ifndef MYELIN_CONTRACT_EXPR_LEX_H
#define MYELIN_CONTRACT_EXPR_LEX_H

#include "worker/base/arena.h"
#include "worker/base/error.h"

/* Limits of one program (I7). Brackets, strings and if ... end count as levels; jq compiles by recursion. */
#define EXPR_TEXT_SIZE_MAX ((size_t)8 << 10)
#define EXPR_LEVELS_MAX 64

enum expr_token_kind {
    EXPR_END,      /* after the last one, so that looking one ahead is always fine */
    EXPR_FIELD,    /* .name; text without the dot */
    EXPR_IDENT,    /* name: a function call, or an object key (see `key`) */
    EXPR_KEYWORD,  /* if, as, and, ... */
    EXPR_VARIABLE, /* $name; text without the dollar */
    EXPR_NUMBER,
    EXPR_FORMAT,       /* @name; text without the @ */
    EXPR_STRING,       /* a string opens; text is what it says when that needs no unescaping, else absent */
    EXPR_INTERPOLATE,  /* \( inside a string */
    EXPR_RESUME,       /* the ) that ends it */
    EXPR_STRING_CLOSE, /* the string ends */
    EXPR_OP,           /* everything else; text is the operator or bracket */
};

struct expr_token {
    enum expr_token_kind kind;
    bool key;  /* stands where an object (or a pattern) wants a key */
    size_t at; /* byte in the expression's text */
    struct str text;
};

/* All in the arena of expr_lex; token texts point into `text`. */
struct expr_lexed {
    struct str text;
    struct str program;        /* legal jq, same lines */
    const uint32_t *source;    /* for each byte of `program` and its end: the byte of `text` it stands for */
    struct expr_token *tokens; /* EXPR_END is the last */
    size_t tokens_count;
};

/* False with `error` (ERROR_POISON): too long, not UTF-8, a string or bracket that does not end, an escape or a character that jq
 * does not know. `text` must live as long as `lexed`. */
bool expr_lex(struct arena *arena, struct str text, struct expr_lexed *lexed, struct error *error);

/* "line 1, column 7", in the arena; counted from 1, in code points, `at` in bytes. */
struct str expr_lex_position(struct arena *arena, struct str text, size_t at);

bool expr_token_is(const struct expr_token *token, enum expr_token_kind kind, const char *text);

#endif
