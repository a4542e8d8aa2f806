/*
 * ▲ Where a record lies is known from its delivery report only, and an abort changes it. Three want to know: records that name it (they
 * are produced when the reports are there, with the place written into them), what is carried (it is known again by its new
 * offset), and the loop, by a ticket (LOG_PLACED, once it is committed).
 */
#include <stdlib.h>

#include "worker/io/log_internal.h"

void log_place_begin(struct log *log)
{
    log->placed_before += (int64_t)log->placed_count;
    log->placed_count = 0;
}

/* A number and no pointer: a report may come when the transaction is long aborted and the work is gone. */
void *log_place_await(struct log *log, struct log_work *work, size_t index)
{
    const struct log_record *record = &work->records[index];
    if (index >= work->lead && work->carry == 0 && record->ticket == 0)
        return NULL;
    if (log->placed_count == log->placed_capacity) {
        log->placed_capacity = log->placed_capacity == 0 ? 256 : log->placed_capacity * 2;
        log->placed = realloc(log->placed, log->placed_capacity * sizeof *log->placed);
        if (log->placed == NULL)
            abort();
    }
    if (index == 0)
        work->placed = log->placed_count;
    log->placed[log->placed_count++] = (struct log_placed){
        .tenure = work->tenure, .carry = work->carry, .ticket = record->ticket, .of = work->offset, .offset = -1};
    return (void *)(intptr_t)(log->placed_before + (int64_t)log->placed_count);
}

void log_place_report(struct log *log, intptr_t number, int32_t partition, int64_t offset)
{
    int64_t index = number - log->placed_before - 1;
    if (index < 0 || index >= (int64_t)log->placed_count)
        return;
    struct log_placed *placed = &log->placed[index];
    placed->partition = partition;
    placed->offset = offset;
    struct log_partition *from = placed->carry != 0 ? log_partition_of(log, placed->tenure) : NULL;
    if (from != NULL)
        log_window_carried(&from->window, placed->of, placed->carry, offset);
}

bool log_place_known(const struct log *log)
{
    for (size_t i = 0; i < log->placed_count; i++) {
        if (log->placed[i].offset < 0)
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

void log_place_fill(const struct log *log, const struct log_work *work, const struct log_record *record)
{
    for (size_t i = 0; i < record->places_count; i++) {
        const struct log_place *place = &record->places[i];
        const struct log_placed *named = &log->placed[work->placed + place->of];
        char *at = (char *)(uintptr_t)record->value.data + place->at;
        at = put(at, (uint64_t)named->partition << 1, 5);
        put(at, (uint64_t)named->offset << 1, 10);
    }
}

/* Tickets of one tenure stand together. */
void log_place_tell(struct log *log)
{
    const struct log_placed *placed = log->placed;
    for (size_t first = 0, next; first < log->placed_count; first = next) {
        struct log_partition *partition = placed[first].ticket != 0 ? log_partition_of(log, placed[first].tenure)
                                                                    : NULL;
        next = first + 1;
        if (partition == NULL) /* nobody asked; or it was lost while in doubt */
            continue;
        while (next < log->placed_count && placed[next].tenure == placed[first].tenure && placed[next].ticket != 0)
            next++;
        struct log_event *event = log_event_new(LOG_PLACED, partition, (next - first) * sizeof(struct log_ticket));
        struct log_ticket *tickets = (struct log_ticket *)(event + 1);
        for (size_t i = first; i < next; i++)
            tickets[i - first] = (struct log_ticket){placed[i].ticket, placed[i].offset};
        event->placed = tickets;
        event->placed_count = next - first;
        log_push(log, event);
    }
}
