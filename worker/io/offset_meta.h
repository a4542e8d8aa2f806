/*
 * offset_meta.h: the text that a committed offset carries (the metadata string of the offset commit). Pure.
 *
 * ASCII, fields separated by one space: VERSION COMMIT_SEQ [MAP]
 *   VERSION     1
 *   COMMIT_SEQ  decimal, plus 1 with each transaction that touches the partition: it tells after a doubtful commit whether
 *               that transaction happened (an offset alone cannot: a timer commits the same position again)
 *   MAP         what is done above the committed offset (offset_map.h); absent when nothing is
 * An empty text is what `topics create` commits: seq 0, nothing done.
 */
#ifndef MYELIN_IO_OFFSET_META_H
#define MYELIN_IO_OFFSET_META_H

#include <stdint.h>

#include "worker/base/bytes.h"
#include "worker/base/error.h"
#include "worker/io/offset_map.h"

struct offset_meta {
    int64_t commit_seq;
    struct offset_map done; /* above the committed offset */
};

/* The longest that offset_meta_write makes, with its NUL: version, commit_seq and map, 2 + 19 + 1 + 2,740 characters. A broker
 * takes 4,096 by default (offset.metadata.max.bytes). */
#define OFFSET_META_TEXT_SIZE (2 + 19 + 1 + OFFSET_MAP_TEXT_SIZE)

/* Any bytes, found beside `committed`. False with `error` (ERROR_POISON; says what is wrong with it). */
bool offset_meta_read(struct str text, int64_t committed, struct offset_meta *meta, struct error *error);

void offset_meta_write(const struct offset_meta *meta, int64_t committed, char text[OFFSET_META_TEXT_SIZE]);

#endif
