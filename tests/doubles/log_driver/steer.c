/* A loop that somebody else steers, line by line: what is finished when is up to the test. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "tests/doubles/log_driver/driver.h"

struct steered {
    struct log *log;
    struct log_event *events; /* of steps, not finished */
    size_t count, capacity;
    bool stopped, failed;
};

static void keep(struct steered *steered, const struct log_event *event)
{
    if (steered->count == steered->capacity) {
        steered->capacity = steered->capacity * 2 + 64;
        steered->events = realloc(steered->events, steered->capacity * sizeof *steered->events);
        if (steered->events == NULL)
            abort();
    }
    steered->events[steered->count++] = *event;
    printf("got %" PRId32 " %" PRId64 " %s %s\n", event->partition, event->offset, event->key.data,
           event->suspect ? "suspect" : "fresh");
}

static void drop(struct steered *steered, int64_t tenure)
{
    for (size_t i = 0; i < steered->count; i++) {
        if (steered->events[i].tenure == tenure) {
            log_event_free(&steered->events[i]);
            steered->events[i--] = steered->events[--steered->count];
        }
    }
    log_release(steered->log, tenure);
}

static void on_event(struct steered *steered, struct log_event *event)
{
    switch (event->kind) {
    case LOG_RECORD:
        keep(steered, event);
        return;
    case LOG_REVOKED:
    case LOG_LOST:
        printf("revoked %" PRId32 "\n", event->partition);
        drop(steered, event->tenure);
        break;
    case LOG_ASSIGNED:
        if (event->topic == TOPIC_STEPS)
            printf("assigned %" PRId32 " %" PRId64 " %s\n", event->partition, event->offset,
                   event->kept != 0 ? "kept" : "new");
        break;
    case LOG_COMMITTED:
        printf("committed %" PRId32 "\n", event->commit_steps);
        break;
    case LOG_REFUSED:
        printf("refused %" PRId32 " %" PRId64 "\n", event->partition, event->offset);
        break;
    case LOG_STOPPED:
        steered->stopped = true;
        steered->failed = event->reason != NULL;
        break;
    default:
        break;
    }
    log_event_free(event);
}

static size_t find(const struct steered *steered, int64_t partition, int64_t offset)
{
    size_t i = 0;
    while (i < steered->count && (steered->events[i].partition != partition || steered->events[i].offset != offset))
        i++;
    if (i == steered->count)
        die("done: no such record");
    return i;
}

/* A fact, and what comes next is a step of another pool. */
static void hand_on(struct steered *steered, int64_t partition, int64_t offset, const char *pool)
{
    const struct log_event *event = &steered->events[find(steered, partition, offset)];
    struct log_record made[] = {record(TOPIC_HISTORY, event->key, STR("handed on")),
                                record(TOPIC_STEPS, event->key, event->value)};
    made[1].pool = str_of(pool);
    log_done(steered->log, event, made, 2);
}

/* The fact tells which record it is of. A fact of `size` bytes more may be one that no broker takes. */
static void finish(struct steered *steered, int partition, int64_t offset, int size, bool forget)
{
    char fact[64], *fat = NULL;
    size_t i = find(steered, partition, offset);
    struct log_record made = record(TOPIC_HISTORY, steered->events[i].key,
                                    text(fact, sizeof fact, "%d %" PRId64, partition, offset));
    if (size > 0) {
        fat = malloc((size_t)size + 1);
        for (int c = 0; fat != NULL && c < size; c++)
            fat[c] = (char)('a' + dice(26));
        made.value = (struct str){fat, (size_t)size};
    }
    log_done(steered->log, &steered->events[i], &made, 1);
    free(fat);
    if (!forget)
        return;
    log_event_free(&steered->events[i]);
    steered->events[i] = steered->events[--steered->count];
}

/* The numbers behind the first word. */
static int numbers_of(const char *line, int64_t numbers[3])
{
    const char *at = line + strcspn(line, " ");
    int count = 0;
    while (*at == ' ' && count < 3) {
        char *end;
        numbers[count++] = strtoll(at + 1, &end, 10);
        at = end;
    }
    return count;
}

static void on_line(struct steered *steered, const char *line)
{
    int64_t numbers[3];
    int count = numbers_of(line, numbers);
    if (strncmp(line, "done ", 5) == 0 && count == 2)
        finish(steered, (int)numbers[0], numbers[1], 0, true);
    else if (strncmp(line, "fat ", 4) == 0 && count == 3)
        finish(steered, (int)numbers[0], numbers[1], (int)numbers[2], false);
    else if (strncmp(line, "pool ", 5) == 0 && count == 3)
        hand_on(steered, numbers[0], numbers[1], strrchr(line, ' ') + 1);
    else if (strcmp(line, "stop") == 0)
        log_stop(steered->log);
    else
        die("no such line");
}

/* The lines that are whole. */
static void on_input(struct steered *steered, char *held, size_t *held_size, size_t size_max)
{
    ssize_t got = read(STDIN_FILENO, held + *held_size, size_max - *held_size);
    if (got <= 0)
        exit(EX_OK); /* who steered us is gone */
    *held_size += (size_t)got;
    char *line = held, *end;
    while ((end = memchr(line, '\n', *held_size - (size_t)(line - held))) != NULL) {
        *end = '\0';
        on_line(steered, line);
        line = end + 1;
    }
    *held_size -= (size_t)(line - held);
    memmove(held, line, *held_size);
}

int steer(const struct options *options, const char *slot)
{
    static char held[65536];
    size_t held_size = 0;
    struct steered steered = {.log = open_log(options, slot)};
    if (steered.log == NULL)
        return EX_UNAVAILABLE;
    struct pollfd fds[] = {{.fd = log_fd(steered.log), .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    while (!steered.stopped) {
        struct log_event event;
        poll(fds, 2, 10);
        if (fds[1].revents != 0)
            on_input(&steered, held, &held_size, sizeof held);
        for (int i = 0; i < 500 && log_next(steered.log, &event); i++)
            on_event(&steered, &event);
        fflush(stdout);
    }
    log_close(steered.log);
    for (size_t i = 0; i < steered.count; i++)
        log_event_free(&steered.events[i]);
    free(steered.events);
    return steered.failed ? EX_UNAVAILABLE : EX_OK;
}
