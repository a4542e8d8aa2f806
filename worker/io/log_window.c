#include "worker/io/log_window.h"

#include <assert.h>
#include <stdlib.h>

struct log_delivered {
    int64_t offset;
    struct log_work *work;   /* NULL: the loop has it */
    struct log_works behind; /* timers that must wait for it */
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
    return &window->delivered[(window->head + index) & (window->capacity - 1)];
}

void log_window_free(struct log_window *window)
{
    for (size_t i = 0; i < window->count; i++) {
        free(at(window, i)->work);
        free_all(&at(window, i)->behind);
    }
    free_all(&window->ready);
    free(window->delivered);
    *window = (struct log_window){0};
}

static void grow(struct log_window *window)
{
    size_t capacity = window->capacity == 0 ? 64 : window->capacity * 2;
    struct log_delivered *bigger = calloc(capacity, sizeof *bigger);
    if (bigger == NULL)
        abort();
    for (size_t i = 0; i < window->count; i++)
        bigger[i] = *at(window, i);
    free(window->delivered);
    window->delivered = bigger;
    window->capacity = capacity;
    window->head = 0;
}

void log_window_deliver(struct log_window *window, int64_t offset)
{
    assert(window->count == 0 || at(window, window->count - 1)->offset < offset);
    if (window->count == window->capacity)
        grow(window);
    window->count++;
    window->with_loop++;
    *at(window, window->count - 1) = (struct log_delivered){.offset = offset};
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

/* Everything finished at the front becomes ready. */
static void advance(struct log_window *window)
{
    while (window->count > 0 && at(window, 0)->work != NULL) {
        struct log_delivered *front = at(window, 0);
        struct log_work *timer;
        log_works_add(&window->ready, front->work);
        while ((timer = log_works_take(&front->behind)) != NULL)
            log_works_add(&window->ready, timer);
        window->head = (window->head + 1) & (window->capacity - 1);
        window->count--;
    }
}

static bool finish_timer(struct log_window *window, struct log_work *work)
{
    size_t last = window->count;
    while (last > 0 && at(window, last - 1)->work == NULL)
        last--;
    if (last == 0)
        log_works_add(&window->ready, work);
    else
        log_works_add(&at(window, last - 1)->behind, work);
    return true;
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
    if (work->offset >= 0)
        return;
    window->size -= work->size;
    swap(&window->ready, work, NULL);
    free(work);
}

/* Puts `work` in the place of the refused one with its offset. */
static bool replace_refused(struct log_window *window, struct log_work *work)
{
    struct log_work *old = window->ready.first;
    while (old != NULL && !(old->refused && old->offset == work->offset))
        old = old->next;
    if (old == NULL)
        return false;
    window->size -= old->size;
    swap(&window->ready, old, work);
    free(old);
    return true;
}

bool log_window_finish(struct log_window *window, struct log_work *work)
{
    bool taken;
    if (work->offset < 0) {
        taken = finish_timer(window, work);
    } else {
        struct log_delivered *delivered = find(window, work->offset);
        taken = delivered != NULL && delivered->work == NULL;
        if (taken) {
            delivered->work = work;
            window->with_loop--;
            advance(window);
        } else {
            taken = replace_refused(window, work);
        }
    }
    if (taken)
        window->size += work->size;
    return taken;
}

void log_window_committed(struct log_window *window, size_t count)
{
    for (; count > 0; count--) {
        struct log_work *work = log_works_take(&window->ready);
        window->size -= work->size;
        free(work);
    }
}

size_t log_window_span(const struct log_window *window)
{
    return window->count + window->ready.count;
}
