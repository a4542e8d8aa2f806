#include "worker/io/offset_meta.h"

#include <inttypes.h>
#include <stdio.h>

/* Decimal digits from `at` up to a space or the end; no sign, no leading zero. False when there is no such number. */
static bool read_number(struct str text, size_t *at, int64_t *number)
{
    size_t start = *at;
    *number = 0;
    while (*at < text.size && text.data[*at] >= '0' && text.data[*at] <= '9') {
        int digit = text.data[*at] - '0';
        if (*number > (INT64_MAX - digit) / 10)
            return false;
        *number = *number * 10 + digit;
        (*at)++;
    }
    bool padded = *at - start > 1 && text.data[start] == '0';
    return *at > start && !padded && (*at == text.size || text.data[*at] == ' ');
}

bool offset_meta_read(struct str text, int64_t committed, struct offset_meta *meta, struct error *error)
{
    size_t at = 0;
    int64_t version;
    *meta = (struct offset_meta){.commit_seq = 0};
    if (text.size > 0 && text.data[text.size - 1] == '\0')
        text.size--; /* the Python client counts it */
    if (text.size == 0)
        return true;
    if (!read_number(text, &at, &version))
        return error_set(error, ERROR_POISON, "the metadata of its committed offset is not Myelin's");
    if (version != 1)
        return error_set(error, ERROR_POISON,
                         "the metadata of its committed offset has version %" PRId64 ", this worker reads version 1: "
                         "upgrade the worker",
                         version);
    if (at == text.size || (at++, !read_number(text, &at, &meta->commit_seq)))
        return error_set(error, ERROR_POISON, "the metadata of its committed offset has no commit_seq");
    if (at == text.size)
        return true;
    at++; /* the space */
    struct offset_map_place place = {committed, meta->commit_seq};
    return offset_map_read((struct str){text.data + at, text.size - at}, place, &meta->done, error);
}

void offset_meta_write(const struct offset_meta *meta, int64_t committed, char text[OFFSET_META_TEXT_SIZE])
{
    int size = snprintf(text, OFFSET_META_TEXT_SIZE, "1 %" PRId64 " ", meta->commit_seq);
    offset_map_write(&meta->done, (struct offset_map_place){committed, meta->commit_seq}, text + size);
    if (meta->done.span == 0)
        text[size - 1] = '\0';
}
