/*
 * lex.h: the words of libconfig 1.5 (lib/scanner.l), with the line on which each starts.
 */
#ifndef MYELIN_CONTRACT_LEX_H
#define MYELIN_CONTRACT_LEX_H

#include "worker/base/bytes.h"

enum lex_kind {
    LEX_END,
    LEX_NAME,
    LEX_EQUALS, /* = or : */
    LEX_COMMA,
    LEX_SEMICOLON,
    LEX_OPEN,   /* { ( [ */
    LEX_CLOSE,  /* } ) ] */
    LEX_STRING, /* with its quotes */
    LEX_INTEGER,
    LEX_FLOAT,
    LEX_BOOL,
    LEX_INCLUDE,
    LEX_GARBAGE,
    LEX_OPEN_STRING,  /* never closed: runs to the end of the text */
    LEX_OPEN_COMMENT, /* the same; libconfig takes it for a comment */
};

struct lex_word {
    enum lex_kind kind;
    struct str text;         /* borrows from the text; no NUL after it */
    int32_t line, line_last; /* they differ for a string over several lines */
    bool glued;              /* nothing between it and the word before */
};

struct lex {
    struct str text;
    size_t at;
    int32_t line;
};

void lex_init(struct lex *lex, struct str text);
struct lex_word lex_next(struct lex *lex);

/* Takes the rest of a line up to what ends a value, for a text whose quotes were forgotten. Trimmed. */
struct str lex_bare_text(struct lex *lex, const struct lex_word *first);

/* The next character that is no blank, without taking it; 0 at the end. */
char lex_peek(const struct lex *lex);

#endif
