#include "worker/io/log_window.h"

#include <assert.h>
#include <stdlib.h>

struct log_delivered {
    int64_t offset;
    struct log_work *work; /* NULL: the loop has it, or it is committed */
    bool committed;
    bool far;                /* counted in window->far */
    struct log_works behind; /* ordered: timers that must wait for it */
};

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
        free(work);
}

static struct log_delivered *at(const struct log_window *window, size_t index)
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
    for (size_t i = window->in_order; i < window->count; i++) {
        if (window->ordered || at(window, i)->far)
            free(at(window, i)->work);
        free_all(&at(window, i)->behind);
    }
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
        bigger[i] = *at(window, i);
    free(window->ring);
    window->ring = bigger;
    window->capacity = capacity;
    window->head = 0;
}

bool log_window_deliver(struct log_window *window, int64_t offset)
{
    if (offset < window->position)
        return false;
    window->position = offset + 1;
    if (offset_map_has(&window->found, offset - window->found_at))
        return false;
    if (window->count == window->capacity)
        grow(window);
    window->count++;
    window->uncommitted++;
    window->with_loop++;
    *at(window, window->count - 1) = (struct log_delivered){.offset = offset};
    return true;
}

/* Offsets rise, so: by halves. NULL: not there. */
static struct log_delivered *find(const struct log_window *window, int64_t offset)
{
    size_t low = 0, high = window->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (at(window, middle)->offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < window->count && at(window, low)->offset == offset ? at(window, low) : NULL;
}

/* ---- finished ---- */

/* Ordered: everything finished at the front becomes ready. */
static void advance(struct log_window *window)
{
    while (window->in_order < window->count && at(window, window->in_order)->work != NULL) {
        struct log_delivered *next = at(window, window->in_order++);
        struct log_work *timer;
        log_works_add(&window->ready, next->work);
        while ((timer = log_works_take(&next->behind)) != NULL)
            log_works_add(&window->ready, timer);
    }
}

static bool fits_map(const struct log_window *window, int64_t offset)
{
    return offset - at(window, 0)->offset < OFFSET_MAP_WINDOW;
}

static void finish_record(struct log_window *window, struct log_delivered *delivered, struct log_work *work)
{
    delivered->work = work;
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
    while (last > window->in_order && at(window, last - 1)->work == NULL)
        last--;
    if (window->ordered && last > window->in_order)
        log_works_add(&at(window, last - 1)->behind, work);
    else
        log_works_add(&window->ready, work);
}

/* Takes `old` out of `works`, and puts `work` in its place, if there is one. */
static void swap(struct log_works *works, const struct log_work *old, struct log_work *work)
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
        find(window, work->offset)->work = NULL;
        window->with_loop++;
    }
    window->size -= work->size;
    swap(&window->ready, work, NULL);
    free(work);
}

bool log_window_finish(struct log_window *window, struct log_work *work)
{
    struct log_delivered *delivered = find(window, work->offset);
    if (work->offset < 0) {
        finish_timer(window, work);
    } else if (delivered == NULL || delivered->committed) {
        return false;
    } else if (delivered->work == NULL) {
        finish_record(window, delivered, work);
    } else if (delivered->work->refused) {
        struct log_work *old = delivered->work;
        delivered->work = work;
        window->size -= old->size;
        swap(&window->ready, old, work);
        free(old);
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
    while (i < window->count && is_done(at(window, i)))
        i++;
    int64_t base = i < window->count ? at(window, i)->offset : pass_found(window, window->position), from = base + 1;
    if (done != NULL)
        *done = (struct offset_map){.span = 0};
    if (done != NULL && !window->ordered) {
        for (i++; i < window->count; i++) {
            if (is_done(at(window, i)))
                continue;
            offset_map_mark(done, from - base, at(window, i)->offset - base);
            from = at(window, i)->offset + 1;
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
        struct log_delivered *delivered = at(window, i);
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
        struct log_delivered *delivered = find(window, work->offset);
        if (delivered != NULL) {
            delivered->committed = true;
            delivered->work = NULL;
            window->uncommitted--;
        }
        window->size -= work->size;
        free(work);
    }
    while (window->count > 0 && at(window, 0)->committed) {
        window->head = (window->head + 1) & (window->capacity - 1);
        window->count--;
        window->in_order -= window->in_order > 0;
    }
    fetch_far(window);
}

int64_t log_window_span(const struct log_window *window)
{
    return window->count > 0 ? window->position - at(window, 0)->offset : 0;
}
