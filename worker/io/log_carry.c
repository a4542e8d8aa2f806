#include <assert.h>
#include <stdlib.h>

#include "worker/io/log_block.h"
#include "worker/io/log_window_internal.h"

struct log_moved *log_moved_known(const struct log_window *window, int64_t known)
{
    struct log_moved *moved = window->moved;
    while (moved != NULL && moved->known != known)
        moved = moved->next;
    return moved;
}

int64_t log_window_known(const struct log_window *window, int64_t offset)
{
    const struct log_moved *moved = window->moved;
    while (moved != NULL && moved->at != offset)
        moved = moved->next;
    return moved != NULL ? moved->known : offset;
}

static struct log_moved *moved_by(const struct log_window *window, int64_t carry)
{
    struct log_moved *moved = window->moved;
    while (moved != NULL && (moved->carry == NULL || moved->carry->carry != carry))
        moved = moved->next;
    return moved;
}

static struct log_moved *moved_new(struct log_window *window, struct log_delivered *delivered)
{
    struct log_moved *moved = calloc(1, sizeof *moved);
    if (moved == NULL)
        abort();
    *moved = (struct log_moved){.next = window->moved,
                                .known = delivered->offset,
                                .at = delivered->offset,
                                .to = -1,
                                .source = delivered->source,
                                .since_us = delivered->since_us};
    delivered->source = NULL;
    return window->moved = moved;
}

static void moved_free(struct log_moved *moved)
{
    log_work_free(moved->held);
    log_block_drop(moved->source);
    free(moved);
}

void log_moved_free_all(struct log_window *window)
{
    struct log_moved *moved;
    while ((moved = window->moved) != NULL) {
        window->moved = moved->next;
        moved_free(moved);
    }
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

void log_window_carried(struct log_window *window, int64_t carry, int64_t offset)
{
    struct log_moved *moved = moved_by(window, carry);
    if (moved != NULL)
        moved->to = offset;
}

static void uncarry(struct log_window *window, struct log_moved *moved)
{
    struct log_work *carry = moved->carry;
    if (carry == NULL)
        return;
    log_window_find(window, moved->at)->work = NULL;
    log_works_swap(&window->ready, carry, NULL);
    window->size -= carry->size;
    log_work_free(carry);
    moved->carry = NULL;
    settle(window, moved);
}

void log_window_uncarry(struct log_window *window)
{
    for (struct log_moved *moved = window->moved; moved != NULL; moved = moved->next)
        uncarry(window, moved);
}

void log_window_stay(struct log_window *window, const struct log_work *work)
{
    struct log_moved *moved = moved_by(window, work->carry);
    moved->stays = true;
    uncarry(window, moved);
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
    struct log_moved **link = &window->moved;
    while (*link != moved)
        link = &(*link)->next;
    *link = moved->next;
    moved_free(moved);
}

bool log_moved_arrive(struct log_window *window, int64_t offset)
{
    struct log_moved *moved = window->moved;
    /* While its commit is in doubt, that it can be read is the proof: readers see what is committed. */
    while (moved != NULL && (moved->carry != NULL ? moved->to : moved->at) != offset)
        moved = moved->next;
    if (moved == NULL)
        return false;
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
