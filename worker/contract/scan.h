/*
 * scan.h: reads a contract's raw text before libconfig does, for two reasons.
 *
 * libconfig 1.5 lies in places: it cuts an integer over 32 bits, joins strings where a comma was forgotten,
 * swallows the rest of the file after an unclosed comment, and refuses a comment on a last line without a
 * newline. And where it does refuse, it knows a line and the words "syntax error". The scan walks the same
 * grammar (lib/grammar.y and lib/scanner.l of libconfig 1.5), says what is wrong and what was probably meant,
 * and notes the line of every value, which libconfig gets wrong where a list is written over several lines.
 *
 * Most mistakes are mended in the copy that libconfig gets, so that one forgotten comma does not hide the other
 * problems of the file. A mended file is still refused.
 */
#ifndef MYELIN_CONTRACT_SCAN_H
#define MYELIN_CONTRACT_SCAN_H

#include "worker/contract/problems.h"

struct scan {
    struct buf text; /* owned: what libconfig is given. Comments are gone, lines are where they were. */
    int32_t *lines;  /* in the arena: the line of each value, in the order of the text, a group before its members */
    size_t lines_count;
};

/* False when the text cannot be understood (said in `problems`). scan_free either way. */
bool scan_text(struct scan *scan, struct str text, struct str file, struct arena *arena, struct problems *problems);
void scan_free(struct scan *scan);

/* The line of the first byte that is no valid UTF-8 (RFC 3629), is a NUL or starts a BOM; 0 = clean. `what`
 * says which. */
int32_t scan_bytes(struct str text, const char **what);

#endif
