#include <assert.h>
#include <stdlib.h>

#include "worker/base/budget.h"
#include "worker/io/log_block.h"
#include "worker/io/log_window_internal.h"

void log_work_free(struct log_work *work)
{
    if (work != NULL)
        budget_give(BUDGET_COMMITS, work->charged);
    free(work);
}

void log_works_add(struct log_works *works, struct log_work *work)
{
    work->next = NULL;
    if (works->last != NULL)
        works->last->next = work;
    else
        works->first = work;
    works->last = work;
    works->count++;
}

struct log_work *log_works_take(struct log_works *works)
{
    struct log_work *work = works->first;
    if (work == NULL)
        return NULL;
    works->first = work->next;
    if (works->first == NULL)
        works->last = NULL;
    works->count--;
    return work;
}

static void free_all(struct log_works *works)
{
    struct log_work *work;
    while ((work = log_works_take(works)) != NULL)
        log_work_free(work);
}

struct log_delivered *log_window_at(const struct log_window *window, size_t index)
{
    return &window->ring[(window->head + index) & (window->capacity - 1)];
}

void log_window_start(struct log_window *window, bool ordered, int64_t committed, const struct offset_map *found)
{
    *window = (struct log_window){.ordered = ordered, .position = committed, .found_at = committed, .found = *found};
}

void log_window_free(struct log_window *window)
{
    free_all(&window->ready);
    for (size_t i = 0; i < window->count; i++) {
        struct log_delivered *delivered = log_window_at(window, i);
        if ((window->ordered && i >= window->in_order) || delivered->far)
            log_work_free(delivered->work);
        free_all(&delivered->behind);
        log_block_drop(delivered->source);
    }
    log_moved_free_all(window);
    free(window->ring);
    *window = (struct log_window){.count = 0};
}

static void grow(struct log_window *window)
{
    size_t capacity = window->capacity == 0 ? 64 : window->capacity * 2;
    struct log_delivered *bigger = calloc(capacity, sizeof *bigger);
    if (bigger == NULL)
        abort();
    for (size_t i = 0; i < window->count; i++)
        bigger[i] = *log_window_at(window, i);
    free(window->ring);
    window->ring = bigger;
    window->capacity = capacity;
    window->head = 0;
}

struct log_delivered *log_window_push(struct log_window *window, int64_t offset)
{
    if (window->count == window->capacity)
        grow(window);
    window->count++;
    window->uncommitted++;
    struct log_delivered *pushed = log_window_at(window, window->count - 1);
    *pushed = (struct log_delivered){.offset = offset};
    return pushed;
}

bool log_window_deliver(struct log_window *window, int64_t offset)
{
    if (offset < window->position)
        return false;
    window->position = offset + 1;
    if (log_moved_arrive(window, offset))
        return false;
    if (offset_map_has(&window->found, offset - window->found_at))
        return false;
    window->with_loop++;
    log_window_push(window, offset);
    return true;
}

void log_window_date(struct log_window *window, int64_t now_us)
{
    log_window_at(window, window->count - 1)->since_us = now_us;
}

int64_t log_window_oldest_us(const struct log_window *window)
{
    return window->count > 0 ? log_window_at(window, 0)->since_us : INT64_MAX;
}

void log_window_keep(struct log_window *window, struct log_event *event)
{
    log_window_at(window, window->count - 1)->source = log_block_hold(event);
}

/* Offsets rise, so: by halves. */
struct log_delivered *log_window_find(const struct log_window *window, int64_t offset)
{
    size_t low = 0, high = window->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log_window_at(window, middle)->offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < window->count && log_window_at(window, low)->offset == offset ? log_window_at(window, low) : NULL;
}

/* ---- finished ---- */

/* Ordered: everything finished at the front becomes ready. */
static void advance(struct log_window *window)
{
    while (window->in_order < window->count && log_window_at(window, window->in_order)->work != NULL) {
        struct log_delivered *next = log_window_at(window, window->in_order++);
        struct log_work *timer;
        log_works_add(&window->ready, next->work);
        while ((timer = log_works_take(&next->behind)) != NULL)
            log_works_add(&window->ready, timer);
    }
}

static bool fits_map(const struct log_window *window, int64_t offset)
{
    return offset - log_window_at(window, 0)->offset < OFFSET_MAP_WINDOW;
}

void log_window_finished(struct log_window *window, struct log_delivered *delivered, struct log_work *work)
{
    delivered->work = work;
    log_block_drop(delivered->source);
    delivered->source = NULL;
    window->with_loop--;
    if (window->ordered) {
        advance(window);
    } else if (fits_map(window, delivered->offset)) {
        log_works_add(&window->ready, work);
    } else {
        delivered->far = true;
        window->far++;
    }
}

static void finish_timer(struct log_window *window, struct log_work *work)
{
    size_t last = window->count;
    while (last > window->in_order && log_window_at(window, last - 1)->work == NULL)
        last--;
    if (window->ordered && last > window->in_order)
        log_works_add(&log_window_at(window, last - 1)->behind, work);
    else
        log_works_add(&window->ready, work);
}

void log_works_swap(struct log_works *works, const struct log_work *old, struct log_work *work)
{
    struct log_works all = *works;
    struct log_work *one;
    *works = (struct log_works){0};
    while ((one = log_works_take(&all)) != NULL) {
        if (one != old)
            log_works_add(works, one);
        else if (work != NULL)
            log_works_add(works, work);
    }
}

void log_window_refuse(struct log_window *window, struct log_work *work)
{
    work->refused = true;
    if (window->ordered && work->offset >= 0)
        return;
    if (work->offset >= 0) {
        log_window_find(window, work->offset)->work = NULL;
        window->with_loop++;
    }
    window->size -= work->size;
    log_works_swap(&window->ready, work, NULL);
    log_work_free(work);
}

bool log_window_finish(struct log_window *window, struct log_work *work)
{
    struct log_delivered *delivered = log_window_find(window, work->offset);
    struct log_moved *moved = log_moved_known(window, work->offset);
    if (work->offset < 0) {
        finish_timer(window, work);
    } else if (moved != NULL) {
        if (!log_moved_finish(window, moved, work))
            return false;
    } else if (delivered == NULL || delivered->committed) {
        return false;
    } else if (delivered->work == NULL) {
        log_window_finished(window, delivered, work);
    } else if (delivered->work->refused) {
        struct log_work *old = delivered->work;
        delivered->work = work;
        window->size -= old->size;
        log_works_swap(&window->ready, old, work);
        log_work_free(old);
    } else {
        return false;
    }
    window->size += work->size;
    return true;
}

/* ---- committed ---- */

static bool is_done(const struct log_delivered *delivered)
{
    return delivered->committed || (delivered->work != NULL && delivered->work->taken);
}

static int64_t pass_found(const struct log_window *window, int64_t offset)
{
    while (offset_map_has(&window->found, offset - window->found_at))
        offset++;
    return offset;
}

/* What was found done and has not come by yet. */
static void mark_found(const struct log_window *window, int64_t base, struct offset_map *done)
{
    for (int64_t i = window->position - window->found_at; i < window->found.span; i++) {
        if (offset_map_has(&window->found, i))
            offset_map_mark(done, window->found_at + i - base, window->found_at + i - base + 1);
    }
}

int64_t log_window_plan(struct log_window *window, size_t count, struct offset_map *done)
{
    struct log_work *work = window->ready.first;
    for (size_t n = 0; n < count; n++, work = work->next)
        work->taken = true;
    size_t i = 0;
    while (i < window->count && is_done(log_window_at(window, i)))
        i++;
    int64_t base = i < window->count ? log_window_at(window, i)->offset : pass_found(window, window->position),
            from = base + 1;
    if (done != NULL)
        *done = (struct offset_map){.span = 0};
    if (done != NULL && !window->ordered) {
        for (i++; i < window->count; i++) {
            if (is_done(log_window_at(window, i)))
                continue;
            offset_map_mark(done, from - base, log_window_at(window, i)->offset - base);
            from = log_window_at(window, i)->offset + 1;
        }
        offset_map_mark(done, from - base, window->position - base);
        mark_found(window, base, done);
    }
    for (work = window->ready.first; count > 0; count--, work = work->next)
        work->taken = false;
    return base;
}

/* Those that waited for the lowest to move. */
static void fetch_far(struct log_window *window)
{
    for (size_t i = 0; i < window->count && window->far > 0; i++) {
        struct log_delivered *delivered = log_window_at(window, i);
        if (!delivered->far || !fits_map(window, delivered->offset))
            continue;
        delivered->far = false;
        window->far--;
        log_works_add(&window->ready, delivered->work);
    }
}

void log_window_committed(struct log_window *window, size_t count)
{
    for (; count > 0; count--) {
        struct log_work *work = log_works_take(&window->ready);
        struct log_delivered *delivered = log_window_find(window, work->offset);
        if (delivered != NULL) {
            delivered->committed = true;
            delivered->work = NULL;
            window->uncommitted--;
            if (delivered->moved != NULL)
                log_moved_committed(window, delivered->moved, work);
            delivered->moved = NULL;
        }
        window->size -= work->size;
        log_work_free(work);
    }
    while (window->count > 0 && log_window_at(window, 0)->committed) {
        window->head = (window->head + 1) & (window->capacity - 1);
        window->count--;
        window->in_order -= window->in_order > 0;
    }
    fetch_far(window);
}

int64_t log_window_span(const struct log_window *window)
{
    return window->count > 0 ? window->position - log_window_at(window, 0)->offset : 0;
}
