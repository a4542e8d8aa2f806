#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/io/log_block.h"
#include "worker/io/log_window_internal.h"

/* ---- sorted by an offset ---- */

/* The index of the first that is not below. */
static size_t list_at(const struct log_moved_list *list, int64_t offset)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->all[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct log_moved *list_find(const struct log_moved_list *list, int64_t offset)
{
    size_t at = list_at(list, offset);
    return at < list->count && list->all[at].offset == offset ? list->all[at].moved : NULL;
}

/* Offsets mostly rise, so: at the end. */
static void list_put(struct log_moved_list *list, int64_t offset, struct log_moved *moved)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->all = realloc(list->all, list->capacity * sizeof *list->all);
        if (list->all == NULL)
            abort();
    }
    size_t at = list_at(list, offset);
    memmove(&list->all[at + 1], &list->all[at], (list->count++ - at) * sizeof *list->all);
    list->all[at] = (struct log_moved_at){offset, moved};
}

static void list_drop(struct log_moved_list *list, int64_t offset)
{
    if (list_find(list, offset) == NULL)
        return;
    size_t at = list_at(list, offset);
    memmove(&list->all[at], &list->all[at + 1], (--list->count - at) * sizeof *list->all);
}

/* ---- what is carried ---- */

struct log_moved *log_moved_known(const struct log_window *window, int64_t known)
{
    return list_find(&window->moved, known);
}

/* The one that is in the ring there. */
static struct log_moved *moved_at(const struct log_window *window, int64_t offset)
{
    const struct log_delivered *delivered = log_window_find(window, offset);
    return delivered != NULL ? delivered->moved : NULL;
}

int64_t log_window_known(const struct log_window *window, int64_t offset)
{
    const struct log_moved *moved = moved_at(window, offset);
    return moved != NULL ? moved->known : offset;
}

static struct log_moved *moved_new(struct log_window *window, struct log_delivered *delivered)
{
    struct log_moved *moved = calloc(1, sizeof *moved);
    if (moved == NULL)
        abort();
    *moved = (struct log_moved){.known = delivered->offset,
                                .at = delivered->offset,
                                .to = -1,
                                .source = delivered->source,
                                .since_us = delivered->since_us};
    delivered->source = NULL;
    list_put(&window->moved, moved->known, moved);
    return moved;
}

static void moved_free(struct log_moved *moved)
{
    log_work_free(moved->held);
    log_block_drop(moved->source);
    free(moved);
}

void log_moved_free_all(struct log_window *window)
{
    for (size_t i = 0; i < window->moved.count; i++)
        moved_free(window->moved.all[i].moved);
    free(window->moved.all);
    free(window->coming.all);
}

/* ---- making a carry ---- */

/* The texts stay those of the event, which `moved` holds. */
static struct log_work *work_new(const struct log_event *source, struct str pool, int64_t offset, int64_t number)
{
    struct log_work *work = calloc(1, sizeof *work + sizeof work->records[0]);
    if (work == NULL)
        abort();
    work->tenure = source->tenure;
    work->offset = offset;
    work->carry = number;
    work->size = source->key.size + source->value.size;
    work->count = 1;
    work->records[0] = (struct log_record){.topic = source->topic,
                                           .pool = pool,
                                           .partition = source->partition,
                                           .run = source->key,
                                           .key = source->key,
                                           .value = source->value};
    return work;
}

size_t log_window_carry(struct log_window *window, int64_t lag, struct str pool, int64_t *last)
{
    size_t count = 0;
    for (size_t i = 0; i < window->count; i++) {
        struct log_delivered *delivered = log_window_at(window, i);
        struct log_moved *moved = delivered->moved;
        if (window->position - delivered->offset < lag)
            break;
        if (delivered->committed || delivered->work != NULL || (moved == NULL && delivered->source == NULL))
            continue;
        if (moved == NULL)
            moved = delivered->moved = moved_new(window, delivered);
        if (moved->stays)
            continue;
        moved->to = -1;
        moved->carry = delivered->work = work_new(moved->source, pool, delivered->offset, ++*last);
        log_works_add(&window->ready, moved->carry);
        window->size += moved->carry->size;
        count++;
    }
    return count;
}

/* ---- what becomes of it ---- */

/* It is clear where the record is, and it is in the ring: what the loop has handed over for it is finished there. */
static void settle(struct log_window *window, struct log_moved *moved)
{
    struct log_delivered *delivered = log_window_find(window, moved->at);
    struct log_work *held = moved->held;
    if (moved->carry != NULL || held == NULL || delivered == NULL)
        return;
    moved->held = NULL;
    window->adrift -= held->size;
    held->offset = moved->at;
    window->with_loop++;
    log_window_finished(window, delivered, held);
}

/* Where its carry was put; -1: nowhere any more. */
static void put_to(struct log_window *window, struct log_moved *moved, int64_t offset)
{
    list_drop(&window->coming, moved->to);
    moved->to = offset;
    if (offset >= 0)
        list_put(&window->coming, offset, moved);
}

void log_window_carried(struct log_window *window, int64_t at, int64_t carry, int64_t offset)
{
    struct log_moved *moved = moved_at(window, at);
    if (moved != NULL && moved->carry != NULL && moved->carry->carry == carry)
        put_to(window, moved, offset);
}

/* Its carry is out of `ready`: the record stays where it is. */
static void uncarry(struct log_window *window, struct log_work *carry)
{
    struct log_delivered *delivered = log_window_find(window, carry->offset);
    struct log_moved *moved = delivered->moved;
    delivered->work = NULL;
    put_to(window, moved, -1);
    window->size -= carry->size;
    log_work_free(carry);
    moved->carry = NULL;
    settle(window, moved);
}

void log_window_uncarry(struct log_window *window)
{
    struct log_works all = window->ready;
    struct log_work *work;
    if (window->moved.count == 0)
        return;
    window->ready = (struct log_works){0};
    while ((work = log_works_take(&all)) != NULL) {
        if (work->carry == 0)
            log_works_add(&window->ready, work);
        else
            uncarry(window, work);
    }
}

void log_window_stay(struct log_window *window, struct log_work *work)
{
    log_window_find(window, work->offset)->moved->stays = true;
    log_works_swap(&window->ready, work, NULL);
    uncarry(window, work);
}

void log_moved_committed(struct log_window *window, struct log_moved *moved, const struct log_work *work)
{
    if (work->carry != 0) {
        assert(moved->to >= 0); /* all_placed of log_commit.c */
        moved->at = moved->to;
        moved->carry = NULL;
        settle(window, moved);
        return;
    }
    list_drop(&window->moved, moved->known);
    moved_free(moved);
}

bool log_moved_arrive(struct log_window *window, int64_t offset)
{
    /* While its commit is in doubt, that it can be read is the proof: readers see what is committed. */
    struct log_moved *moved = list_find(&window->coming, offset);
    if (moved == NULL)
        return false;
    list_drop(&window->coming, offset);
    struct log_delivered *delivered = log_window_push(window, offset);
    delivered->moved = moved;
    delivered->since_us = moved->since_us;
    settle(window, moved);
    return true;
}

bool log_moved_finish(struct log_window *window, struct log_moved *moved, struct log_work *work)
{
    const struct log_delivered *delivered = log_window_find(window, moved->at);
    bool finished = moved->held != NULL || (moved->carry == NULL && delivered != NULL && delivered->work != NULL);
    if (finished)
        return false;
    moved->held = work;
    window->adrift += work->size;
    window->with_loop--;
    settle(window, moved);
    return true;
}
