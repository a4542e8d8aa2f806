#include "tests/doubles/log_driver/driver.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"

#define PARTITIONS_MAX 64
#define TICK_MS 3
#define RIPE_MS 20   /* from open to the timer: so that it is committed by itself */
#define FAT_EVERY 10 /* with `fat`, each tenth run writes a fact at hop 0 that no broker takes */
#define FAT_SIZE 50000
#define TWIN_SIZE 15000 /* with `twins`, hop 0 of each run writes two records of this size to dead, in one partition */

enum table_state { RUN_UNKNOWN, RUN_OPEN, RUN_TICKED };

/* One partition of inbox, as its keeper sees it. */
struct table {
    struct log_event source; /* a timer's, of its tenure; no memory */
    bool awake;              /* the backlog was read: timers may fire */
    int64_t tick_ms;
    int rows; /* of `waiting`, so far */
};

struct pending {
    struct log_event event;
    int64_t due_ms;
};

struct driver {
    struct log *log;
    int hops, delay_ms;
    struct table tables[PARTITIONS_MAX];
    uint8_t runs[RUNS_MAX]; /* enum table_state */
    uint8_t run_partition[RUNS_MAX];
    int64_t ripe_ms[RUNS_MAX];
    struct pending *pending;
    size_t pending_count, pending_capacity;
    int64_t seen_us[RUNS_MAX]; /* when its last hop was handed over */
    int64_t *latencies_us;
    size_t latencies_count, latencies_capacity;
    int64_t commits, commit_us, steps;
    bool stopped, failed, fat, twins;
    char *fat_value;
};

/* A row of `waiting` beside the inbox record that made it. */
static struct log_record row(int32_t partition, struct str run, struct str value)
{
    struct log_record made = record(TOPIC_WAITING, run, value);
    made.partition = partition;
    return made;
}

static void on_inbox(struct driver *driver, const struct log_event *event)
{
    char fact[64], run[32];
    int number = run_number(event->key);
    text(run, sizeof run, "%s", event->key.data);
    if (number < 0)
        die("inbox: a run that is none");
    if (str_is(event->value, "open")) {
        if (driver->runs[number] != RUN_UNKNOWN)
            die("opened twice");
        driver->runs[number] = RUN_OPEN;
        driver->ripe_ms[number] = clock_mono_us() / 1000 + RIPE_MS;
        driver->run_partition[number] = (uint8_t)event->partition;
        struct log_record records[] = {row(event->partition, str_of(run), STR("open")),
                                       record(TOPIC_HISTORY, str_of(run), text(fact, sizeof fact, "%s open", run))};
        log_done(driver->log, event, records, 2);
    } else {
        if (driver->runs[number] != RUN_TICKED) {
            fprintf(stderr, "%s ends, but its row says %d\n", run, driver->runs[number]);
            die("a row of waiting is missing");
        }
        driver->runs[number] = RUN_UNKNOWN;
        struct log_record records[] = {row(event->partition, str_of(run), STR_NONE),
                                       record(TOPIC_HISTORY, str_of(run), text(fact, sizeof fact, "%s end", run))};
        log_done(driver->log, event, records, 2);
    }
}

static void on_timer(struct driver *driver, int32_t partition, int number)
{
    char run[32], fact[64], hop[64];
    text(run, sizeof run, "r%d", number);
    driver->runs[number] = RUN_TICKED;
    struct log_record records[] = {row(partition, str_of(run), STR("ticked")),
                                   record(TOPIC_HISTORY, str_of(run), text(fact, sizeof fact, "%s tick", run)),
                                   record(TOPIC_STEPS, str_of(run), text(hop, sizeof hop, "0"))};
    log_done(driver->log, &driver->tables[partition].source, records, 3);
}

/* `refused`: the brokers did not take what this made the first time. */
static void on_step_done(struct driver *driver, const struct log_event *event, int hop, bool refused)
{
    char fact[64], next[64];
    /* Different ones: the second would be nothing, compressed. */
    struct str twins[] = {{driver->fat_value, TWIN_SIZE}, {driver->fat_value + TWIN_SIZE, TWIN_SIZE}};
    struct log_record records[] = {
        record(TOPIC_HISTORY, event->key, text(fact, sizeof fact, "%s %d", event->key.data, hop)),
        hop + 1 < driver->hops ? record(TOPIC_STEPS, event->key, text(next, sizeof next, "%d", hop + 1))
                               : record(TOPIC_INBOX, event->key, STR("end")),
        record(TOPIC_DEAD, event->key, twins[0]), record(TOPIC_DEAD, event->key, twins[1])};
    if (driver->fat && !refused && hop == 0 && run_number(event->key) % FAT_EVERY == 0)
        records[0].value = (struct str){driver->fat_value, FAT_SIZE};
    log_done(driver->log, event, records, driver->twins && hop == 0 ? 4 : 2);
}

static void on_step(struct driver *driver, struct log_event *event)
{
    int number = run_number(event->key);
    int64_t now_us = clock_mono_us();
    if (number < 0)
        die("steps: a run that is none");
    if (driver->seen_us[number] != 0 && driver->delay_ms == 0 && driver->latencies_count < driver->latencies_capacity)
        driver->latencies_us[driver->latencies_count++] = now_us - driver->seen_us[number];
    driver->seen_us[number] = now_us;
    if (driver->delay_ms == 0) {
        on_step_done(driver, event, parse_number(event->value.data), false);
        log_event_free(event);
        return;
    }
    if (driver->pending_count == driver->pending_capacity) {
        driver->pending_capacity = driver->pending_capacity * 2 + 64;
        driver->pending = realloc(driver->pending, driver->pending_capacity * sizeof *driver->pending);
        if (driver->pending == NULL)
            abort();
    }
    driver->pending[driver->pending_count++] = (struct pending){
        *event, now_us / 1000 + (dice(10) == 0 ? 10 : 1) * (int)dice((uint32_t)driver->delay_ms)};
}

static void forget_table(struct driver *driver, int32_t partition)
{
    for (int i = 0; i < RUNS_MAX; i++) {
        if (driver->run_partition[i] == partition)
            driver->runs[i] = RUN_UNKNOWN;
    }
    driver->tables[partition] = (struct table){.awake = false};
}

static void on_row(struct driver *driver, const struct log_event *event)
{
    int number = run_number(event->key);
    if (number < 0)
        die("waiting: a run that is none");
    driver->run_partition[number] = (uint8_t)event->partition;
    driver->runs[number] = event->value.data == NULL      ? RUN_UNKNOWN
                           : str_is(event->value, "open") ? RUN_OPEN
                                                          : RUN_TICKED;
}

static void on_event(struct driver *driver, struct log_event *event)
{
    switch (event->kind) {
    case LOG_RECORD:
        if (event->topic == TOPIC_STEPS) {
            on_step(driver, event);
            return;
        }
        on_inbox(driver, event);
        break;
    case LOG_ASSIGNED:
        fprintf(stderr, "assigned %s %" PRId32 " at %" PRId64 "\n", event->topic == TOPIC_STEPS ? "steps" : "inbox",
                event->partition, event->offset);
        if (event->topic == TOPIC_INBOX) {
            forget_table(driver, event->partition);
            driver->tables[event->partition].source = *event;
            driver->tables[event->partition].source.offset = -1;
        }
        break;
    case LOG_WAITING_ROW:
        on_row(driver, event);
        driver->tables[event->partition].rows++;
        break;
    case LOG_WAITING_END:
        fprintf(stderr, "rebuilt %" PRId32 " of %d rows\n", event->partition, driver->tables[event->partition].rows);
        break;
    case LOG_BACKLOG_END:
        driver->tables[event->partition].awake = true;
        break;
    case LOG_REVOKED:
    case LOG_LOST:
        if (event->topic == TOPIC_INBOX)
            forget_table(driver, event->partition);
        for (size_t i = 0; i < driver->pending_count; i++) {
            if (driver->pending[i].event.tenure == event->tenure) {
                log_event_free(&driver->pending[i].event);
                driver->pending[i--] = driver->pending[--driver->pending_count];
            }
        }
        log_release(driver->log, event->tenure);
        break;
    case LOG_COMMITTED:
        driver->commits++;
        driver->commit_us += event->commit_us;
        driver->steps += event->commit_steps;
        break;
    case LOG_REFUSED:
        on_step_done(driver, event, 0, true);
        break;
    case LOG_STOPPED:
        driver->stopped = true;
        driver->failed = event->reason != NULL;
        if (driver->failed)
            LOG_ERROR("stopped", LOG_S("reason", event->reason));
        break;
    case LOG_PLACED:
    case LOG_CONTROL:
    case LOG_CONTROL_END:
        break;
    }
    log_event_free(event);
}

/* What is due, in random order. */
static void fire(struct driver *driver)
{
    int64_t now_ms = clock_mono_us() / 1000;
    for (size_t i = driver->pending_count; i > 0; i--) {
        struct pending *one = &driver->pending[i - 1];
        if (one->due_ms > now_ms)
            continue;
        struct log_event event = one->event;
        *one = driver->pending[--driver->pending_count];
        on_step_done(driver, &event, parse_number(event.value.data), false);
        log_event_free(&event);
    }
    for (int p = 0; p < PARTITIONS_MAX; p++) {
        struct table *table = &driver->tables[p];
        if (!table->awake || now_ms < table->tick_ms)
            continue;
        table->tick_ms = now_ms + TICK_MS;
        for (int n = 0; n < RUNS_MAX; n++) {
            if (driver->runs[n] == RUN_OPEN && driver->run_partition[n] == p && driver->ripe_ms[n] <= now_ms)
                on_timer(driver, p, n);
        }
    }
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void tell_latencies(struct driver *driver)
{
    size_t count = driver->latencies_count;
    if (count > 0) {
        qsort(driver->latencies_us, count, sizeof *driver->latencies_us, compare);
        printf("hops=%zu hop_p50_us=%" PRId64 " hop_p99_us=%" PRId64 " ", count, driver->latencies_us[count / 2],
               driver->latencies_us[count * 99 / 100]);
    }
    printf("commits=%" PRId64 " steps=%" PRId64 " commit_mean_us=%" PRId64 "\n", driver->commits, driver->steps,
           driver->commits > 0 ? driver->commit_us / driver->commits : 0);
}

static void driver_free(struct driver *driver)
{
    for (size_t i = 0; i < driver->pending_count; i++)
        log_event_free(&driver->pending[i].event);
    free(driver->pending);
    free(driver->latencies_us);
    free(driver->fat_value);
    free(driver);
}

int serve(const struct options *options, const char *slot, int hops, int delay_ms)
{
    struct driver *driver = calloc(1, sizeof *driver);
    if (driver == NULL)
        abort();
    driver->hops = hops;
    driver->delay_ms = delay_ms;
    driver->fat = options->fat;
    driver->twins = options->twins;
    driver->fat_value = calloc(1, FAT_SIZE + 1);
    for (int i = 0; i < FAT_SIZE && driver->fat_value != NULL; i++)
        driver->fat_value[i] = (char)('a' + dice(26)); /* does not compress much */
    driver->latencies_capacity = 1000000;
    driver->latencies_us = calloc(driver->latencies_capacity, sizeof(int64_t));
    driver->log = open_log(options, slot);
    if (driver->log == NULL) {
        driver_free(driver);
        return EX_UNAVAILABLE;
    }
    struct pollfd fd = {.fd = log_fd(driver->log), .events = POLLIN};
    bool stopping = false;
    while (!driver->stopped) {
        if (poll(&fd, 1, 2) < 0 && errno != EINTR)
            die("poll");
        if (stop_asked && !stopping) {
            stopping = true;
            log_stop(driver->log);
        }
        struct log_event event;
        for (int i = 0; i < 500 && log_next(driver->log, &event); i++)
            on_event(driver, &event);
        fire(driver);
    }
    log_close(driver->log);
    tell_latencies(driver);
    int status = driver->failed ? EX_UNAVAILABLE : EX_OK;
    driver_free(driver);
    return status;
}
