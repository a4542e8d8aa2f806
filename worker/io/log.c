/* The loop's side of the log. Nothing here blocks, but log_open and log_close. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log_internal.h"

#define RING_SLACK 1024 /* above the credits: inbox and control need none */

/* ---- opening and closing ---- */

struct log *log_open(const struct log_settings *settings, struct error *error)
{
    struct log *log = calloc(1, sizeof *log);
    if (log == NULL)
        abort();
    log_ring_open(&log->to_log, &log->to_loop, (size_t)settings->in_flight_max + RING_SLACK);
    log_ring_open(&log->to_loop, &log->to_log, (size_t)settings->in_flight_max + RING_SLACK);
    if (!log_connect(log, settings, error)) {
        log_close(log);
        return NULL;
    }
    if (pthread_create(&log->thread, NULL, log_thread, log) != 0) {
        error_set(error, ERROR_FATAL, "cannot start the log thread");
        log_close(log);
        return NULL;
    }
    pthread_setname_np(log->thread, "log");
    log->started = true;
    return log;
}

void log_close(struct log *log)
{
    if (log == NULL)
        return;
    if (log->started) {
        atomic_store(&log->quit, true);
        log_ring_wake(log->wake_fd);
        pthread_join(log->thread, NULL);
    }
    struct log_event *event;
    struct log_work *work;
    while ((event = log_ring_pop(&log->to_loop)) != NULL)
        log_block_drop(event);
    while ((work = log_ring_pop(&log->to_log)) != NULL || (work = log_works_take(&log->backlog)) != NULL)
        log_work_free(work);
    log_disconnect(log);
    log_ring_close(&log->to_loop);
    log_ring_close(&log->to_log);
    free(log);
}

/* ---- events ---- */

int log_fd(const struct log *log)
{
    return log->to_loop.fd;
}

/* What did not fit into the ring, in order. */
static void push_backlog(struct log *log)
{
    while (log->backlog.first != NULL && !log_ring_full(&log->to_log))
        log_ring_push(&log->to_log, log_works_take(&log->backlog));
}

bool log_next(struct log *log, struct log_event *event)
{
    push_backlog(log);
    struct log_event *next = log_ring_pop(&log->to_loop);
    if (next == NULL) {
        push_backlog(log); /* now that we are woken when there is room */
        return false;
    }
    *event = *next;
    event->memory = next;
    return true;
}

void log_event_free(struct log_event *event)
{
    log_block_drop(event->memory);
    event->memory = NULL;
    event->key = event->value = STR_NONE;
}

/* ---- commands ---- */

static void push(struct log *log, struct log_work *work)
{
    push_backlog(log);
    if (log->backlog.first != NULL || !log_ring_push(&log->to_log, work))
        log_works_add(&log->backlog, work);
}

static void push_command(struct log *log, enum log_command command, int64_t tenure)
{
    struct log_work *work = calloc(1, sizeof *work);
    if (work == NULL)
        abort();
    work->command = command;
    work->tenure = tenure;
    push(log, work);
}

/* Where the text now lies; STR_NONE stays STR_NONE. */
static struct str move_text(char **at, struct str text)
{
    if (text.data == NULL)
        return STR_NONE;
    struct str copy = {*at, text.size};
    memcpy(*at, text.data, text.size);
    (*at)[text.size] = '\0';
    *at += text.size + 1;
    return copy;
}

/* What must be known before the records that name others can be produced. */
static size_t lead_of(const struct log_record *records, size_t count, size_t *places)
{
    size_t lead = 0, first = count;
    for (size_t i = 0; i < count; i++) {
        for (size_t p = 0; p < records[i].places_count; p++) {
            const struct log_place *place = &records[i].places[p];
            assert(place->at + LOG_PLACE_SIZE <= records[i].value.size);
            lead = place->of + 1 > lead ? place->of + 1 : lead;
        }
        *places += records[i].places_count;
        first = records[i].places_count > 0 && i < first ? i : first;
    }
    assert(lead <= first);
    return lead;
}

void log_done(struct log *log, const struct log_event *source, const struct log_record *records, size_t count)
{
    size_t size = 0, kept = 0, places_count = 0, lead = lead_of(records, count, &places_count);
    for (size_t i = 0; i < count; i++) {
        size += records[i].pool.size + records[i].run.size + records[i].key.size + records[i].value.size + 4;
        kept += records[i].ticket > 0 ? records[i].value.size : 0; /* by the keeper, until it is told where it lies */
    }
    size_t whole = sizeof(struct log_work) + count * sizeof(struct log_record) +
                   places_count * sizeof(struct log_place) + size;
    struct log_work *work = malloc(whole);
    if (work == NULL)
        abort();
    *work = (struct log_work){.tenure = source->tenure,
                              .offset = source->offset,
                              .size = size,
                              .charged = whole + kept,
                              .count = count,
                              .lead = lead};
    budget_take(BUDGET_COMMITS, whole + kept);
    struct log_place *places = (struct log_place *)(void *)&work->records[count];
    char *at = (char *)&places[places_count];
    for (size_t i = 0; i < count; i++) {
        const struct log_record *record = &records[i];
        assert(record->run.data != NULL || record->key.data != NULL || record->partition >= 0);
        work->records[i] = (struct log_record){.topic = record->topic,
                                               .pool = move_text(&at, record->pool),
                                               .partition = record->partition,
                                               .run = move_text(&at, record->run),
                                               .key = move_text(&at, record->key),
                                               .value = move_text(&at, record->value),
                                               .ticket = record->ticket,
                                               .places = places,
                                               .places_count = record->places_count};
        if (record->places_count > 0)
            memcpy(places, record->places, record->places_count * sizeof places[0]);
        places += record->places_count;
    }
    push(log, work);
}

void log_release(struct log *log, int64_t tenure)
{
    push_command(log, COMMAND_RELEASE, tenure);
}

void log_waiting(struct log *log, int32_t steps)
{
    atomic_store(&log->waiting_steps, steps);
    log_ring_wake(log->wake_fd);
}

int64_t log_read_control(struct log *log)
{
    push_command(log, COMMAND_READ_CONTROL, ++log->control_asked);
    return log->control_asked;
}

void log_stop(struct log *log)
{
    push_command(log, COMMAND_STOP, 0);
}
