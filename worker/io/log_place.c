/*
 * ▲ Where a record lies is known from its delivery report only, and an abort changes it. So in each transaction records that
 * others name are produced first; when all reports are there, the others get written into them where those lie.
 */
#include <stdlib.h>

#include "worker/io/log_internal.h"

void log_place_begin(struct log *log)
{
    log->awaited_before += (int64_t)log->awaited_count;
    log->awaited_count = 0;
}

/* A number and no pointer: a report may come when the transaction is long aborted and the work is gone. Below zero, for above
 * are the numbers of carries. */
void *log_place_await(struct log *log, struct log_work *work, size_t record)
{
    if (record >= work->lead)
        return NULL;
    if (log->awaited_count == log->awaited_capacity) {
        log->awaited_capacity = log->awaited_capacity == 0 ? 256 : log->awaited_capacity * 2;
        log->awaited = realloc(log->awaited, log->awaited_capacity * sizeof *log->awaited);
        if (log->awaited == NULL)
            abort();
    }
    work->spots[record].offset = -1;
    log->awaited[log->awaited_count++] = (struct log_awaited){work, record};
    return (void *)(intptr_t) - (log->awaited_before + (int64_t)log->awaited_count);
}

void log_place_report(struct log *log, intptr_t opaque, int32_t partition, int64_t offset)
{
    int64_t index = -opaque - log->awaited_before - 1;
    if (index < 0 || index >= (int64_t)log->awaited_count)
        return;
    const struct log_awaited *awaited = &log->awaited[index];
    awaited->work->spots[awaited->record] = (struct log_spot){partition, offset};
}

bool log_place_known(const struct log *log)
{
    for (size_t i = 0; i < log->awaited_count; i++) {
        if (log->awaited[i].work->spots[log->awaited[i].record].offset < 0)
            return false;
    }
    return true;
}

/* Zigzag, seven bits a byte, lowest first, and more bytes than the number needs: Avro 1.11 specification, "Binary Encoding". */
static char *put(char *at, uint64_t zigzag, int bytes)
{
    for (int i = 0; i < bytes; i++, zigzag >>= 7)
        at[i] = (char)((zigzag & 0x7f) | (i + 1 < bytes ? 0x80 : 0));
    return at + bytes;
}

void log_place_fill(const struct log_work *work, const struct log_record *record)
{
    for (size_t i = 0; i < record->places_count; i++) {
        const struct log_place *place = &record->places[i];
        const struct log_spot *spot = &work->spots[place->of];
        char *at = (char *)(uintptr_t)record->value.data + place->at;
        at = put(at, (uint64_t)spot->partition << 1, 5);
        put(at, (uint64_t)spot->offset << 1, 10);
    }
}
