/*
 * offset_meta.h: the text that a committed offset carries (the metadata string of the offset commit). Pure.
 *
 * ASCII, fields separated by one space: VERSION COMMIT_SEQ [MAP]
 *   VERSION     1
 *   COMMIT_SEQ  decimal, plus 1 with each transaction that touches the partition: it tells after a doubtful commit whether
 *               that transaction happened (an offset alone cannot: a timer commits the same position again)
 *   MAP         what is done above the committed offset. This version writes none, and cannot read one: a partition that
 *               carries a map was served by a newer worker, and must not be served by this one.
 * An empty text is what `topics create` commits: seq 0, nothing done.
 */
#ifndef MYELIN_IO_OFFSET_META_H
#define MYELIN_IO_OFFSET_META_H

#include <stdint.h>

#include "worker/base/bytes.h"
#include "worker/base/error.h"

struct offset_meta {
    int64_t commit_seq;
};

#define OFFSET_META_TEXT_SIZE 32 /* the longest that offset_meta_write makes, with its NUL */

/* Any bytes. False with `error` (ERROR_POISON; says what is wrong with it). */
bool offset_meta_read(struct str text, struct offset_meta *meta, struct error *error);

void offset_meta_write(const struct offset_meta *meta, char text[OFFSET_META_TEXT_SIZE]);

#endif
