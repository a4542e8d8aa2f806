/*
 * log_driver: the log (worker/io/log.h) under a loop that knows nothing of contracts, to see exactly once with nothing around
 * it. Values are text: no Avro.
 *
 *   log_driver topics NS PARTITIONS            make the topics
 *   log_driver load NS FIRST COUNT             ask for runs FIRST ... FIRST+COUNT-1 (records of inbox)
 *   log_driver serve NS SLOT HOPS DELAY_MS [pinned] [verbose] [fat] [in_flight=N] [NAME=VALUE for librdkafka ...]
 *   log_driver check NS COUNT HOPS             every fact exactly once, nothing waits any more
 *   log_driver watch NS COUNT TIMEOUT_S        until that many runs have ended
 *   log_driver flood NS COUNT SIZE             COUNT records of SIZE bytes for steps.default, for `pump`
 *   log_driver pump NS SLOT COUNT [...]        each record of steps becomes one of history; says how fast
 *
 * A run: inbox "open" -> row "open" in waiting; a timer then makes it "ticked" and puts hop 0 on steps; each hop makes the
 * next one; the last one tells inbox "end", which removes the row. Each of these transactions adds one fact to history. So
 * records, timers, rebuilt tables and their fences all have to work for the facts to come out once.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/log.h"
#include "worker/io/reader.h"
#include "worker/io/topics.h"

#define OPTIONS_MAX 16
#define PARTITIONS_MAX 64
#define RUNS_MAX 100000
#define TICK_MS 3
#define FAT_EVERY 10 /* with `fat`, each tenth run writes a fact at hop 0 that no broker takes */
#define FAT_SIZE 50000

static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "log_driver: %s\n", what);
    exit(EX_SOFTWARE);
}

/* ---- what the command line says ---- */

struct options {
    const char *name_space;
    const char *properties[OPTIONS_MAX];
    size_t properties_count;
    char servers[200];
    bool pinned, fat;
    int32_t in_flight;
};

static void read_options(struct options *options, int count, char **words)
{
    const char *servers = getenv("MYELIN_KAFKA");
    if (servers == NULL)
        die("MYELIN_KAFKA is not set");
    snprintf(options->servers, sizeof options->servers, "bootstrap.servers=%s", servers);
    options->properties[options->properties_count++] = options->servers;
    options->in_flight = 1000;
    for (int i = 0; i < count && options->properties_count < OPTIONS_MAX; i++) {
        if (strcmp(words[i], "verbose") == 0)
            logline_level(LOGLINE_DEBUG);
        else if (strcmp(words[i], "pinned") == 0)
            options->pinned = true;
        else if (strcmp(words[i], "fat") == 0)
            options->fat = true;
        else if (strncmp(words[i], "in_flight=", 10) == 0)
            options->in_flight = atoi(words[i] + 10);
        else
            options->properties[options->properties_count++] = words[i];
    }
}

/* ---- the loop ---- */

enum table_state { RUN_UNKNOWN, RUN_OPEN, RUN_TICKED };

/* One partition of inbox, as its keeper sees it. */
struct table {
    struct log_event source; /* of its tenure; no memory */
    bool awake;              /* the backlog was read: timers may fire */
    int64_t tick_ms;
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
    struct pending *pending;
    size_t pending_count, pending_capacity;
    int64_t seen_us[RUNS_MAX]; /* when its last hop was handed over */
    int64_t *latencies_us;
    size_t latencies_count, latencies_capacity;
    int64_t commits, commit_us, steps;
    bool stopped, failed, fat;
    char *fat_value;
};

static void done(struct driver *driver, const struct log_event *source, int64_t offset,
                 const struct log_record *records, size_t count)
{
    log_done(driver->log, source, offset, records, count);
}

static struct log_record record(enum topic topic, struct str run, struct str value)
{
    return (struct log_record){.topic = topic, .pool = STR("default"), .partition = -1, .run = run, .value = value};
}

static struct str text(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static struct str text(char *buffer, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, size, format, arguments);
    va_end(arguments);
    return str_of(buffer);
}

static int run_number(struct str run)
{
    int number = run.size > 1 && run.data[0] == 'r' ? atoi(run.data + 1) : -1;
    return number < RUNS_MAX ? number : -1;
}

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
        driver->run_partition[number] = (uint8_t)event->partition;
        struct log_record records[] = {row(event->partition, str_of(run), STR("open")),
                                       record(TOPIC_HISTORY, str_of(run), text(fact, sizeof fact, "%s open", run))};
        done(driver, event, event->offset, records, 2);
    } else {
        if (driver->runs[number] != RUN_TICKED) {
            fprintf(stderr, "%s ends, but its row says %d\n", run, driver->runs[number]);
            die("a row of waiting is missing");
        }
        driver->runs[number] = RUN_UNKNOWN;
        struct log_record records[] = {row(event->partition, str_of(run), STR_NONE),
                                       record(TOPIC_HISTORY, str_of(run), text(fact, sizeof fact, "%s end", run))};
        done(driver, event, event->offset, records, 2);
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
    done(driver, &driver->tables[partition].source, -1, records, 3);
}

/* `refused`: the brokers did not take what this made the first time. */
static void on_step_done(struct driver *driver, const struct log_event *event, int hop, bool refused)
{
    char fact[64], next[64];
    struct log_record records[] = {
        record(TOPIC_HISTORY, event->key, text(fact, sizeof fact, "%s %d", event->key.data, hop)),
        hop + 1 < driver->hops ? record(TOPIC_STEPS, event->key, text(next, sizeof next, "%d", hop + 1))
                               : record(TOPIC_INBOX, event->key, STR("end"))};
    if (driver->fat && !refused && hop == 0 && run_number(event->key) % FAT_EVERY == 0)
        records[0].value = (struct str){driver->fat_value, FAT_SIZE};
    done(driver, event, event->offset, records, 2);
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
        on_step_done(driver, event, atoi(event->value.data), false);
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
        *event, now_us / 1000 + (rand() % 10 == 0 ? 10 : 1) * (rand() % driver->delay_ms)};
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
        if (event->topic == TOPIC_INBOX) {
            forget_table(driver, event->partition);
            driver->tables[event->partition].source = *event;
        }
        break;
    case LOG_WAITING_ROW:
        on_row(driver, event);
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
        driver->failed = event->error.class != ERROR_NONE;
        if (driver->failed)
            LOG_ERROR("stopped", LOG_S("reason", event->error.text));
        break;
    case LOG_CONTROL:
    case LOG_CONTROL_END:
    case LOG_WAITING_END:
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
        on_step_done(driver, &event, atoi(event.value.data), false);
        log_event_free(&event);
    }
    for (int p = 0; p < PARTITIONS_MAX; p++) {
        struct table *table = &driver->tables[p];
        if (!table->awake || now_ms < table->tick_ms)
            continue;
        table->tick_ms = now_ms + TICK_MS;
        for (int n = 0; n < RUNS_MAX; n++) {
            if (driver->runs[n] == RUN_OPEN && driver->run_partition[n] == p)
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

static struct log *open_log(const struct options *options, const char *slot)
{
    static const char *const pools[] = {"default"};
    struct error error;
    struct log_settings settings = {.name_space = options->name_space,
                                    .slot = slot,
                                    .slot_pinned = options->pinned,
                                    .pools = pools,
                                    .pools_count = 1,
                                    .serve_inbox = true,
                                    .properties = options->properties,
                                    .properties_count = options->properties_count,
                                    .in_flight_max = options->in_flight,
                                    .control_ready_ms = 20000};
    struct log *log = log_open(&settings, &error);
    if (log == NULL)
        LOG_ERROR("start.failed", LOG_S("reason", error.text));
    return log;
}

static int serve(const struct options *options, const char *slot, int hops, int delay_ms)
{
    struct driver *driver = calloc(1, sizeof *driver);
    if (driver == NULL)
        abort();
    driver->hops = hops;
    driver->delay_ms = delay_ms;
    driver->fat = options->fat;
    driver->fat_value = calloc(1, FAT_SIZE + 1);
    for (int i = 0; i < FAT_SIZE && driver->fat_value != NULL; i++)
        driver->fat_value[i] = (char)('a' + rand() % 26); /* does not compress much */
    driver->latencies_capacity = 1000000;
    driver->latencies_us = calloc(driver->latencies_capacity, sizeof(int64_t));
    srand((unsigned)clock_wall_ms());
    driver->log = open_log(options, slot);
    if (driver->log == NULL)
        return EX_UNAVAILABLE;
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
    for (size_t i = 0; i < driver->pending_count; i++)
        log_event_free(&driver->pending[i].event);
    int status = driver->failed ? EX_UNAVAILABLE : EX_OK;
    free(driver->pending);
    free(driver->latencies_us);
    free(driver->fat_value);
    free(driver);
    return status;
}

/* ---- loading, watching, checking ---- */

static void name_of(const struct options *options, const char *what, char *name, size_t size)
{
    snprintf(name, size, "%s.%s", options->name_space, what);
}

static void on_report(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
    (void)producer, (void)opaque;
    if (message->err)
        die(rd_kafka_err2str(message->err));
}

static void put_many(const struct options *options, const char *what, int first, int count, int size)
{
    static const struct kafka_property defaults[] = {
        {"linger.ms", "5"}, {"partitioner", "murmur2_random"}, {NULL, NULL}};
    static const struct kafka_property own[] = {{"enable.idempotence", "true"}, {NULL, NULL}};
    struct error error;
    char topic[200], run[32], *value = calloc(1, (size_t)size + 1);
    name_of(options, what, topic, sizeof topic);
    rd_kafka_conf_t *config = kafka_config(defaults, options->properties, options->properties_count, own, &error);
    if (config == NULL || value == NULL)
        die(error.text);
    rd_kafka_conf_set_dr_msg_cb(config, on_report);
    rd_kafka_t *producer = kafka_open(RD_KAFKA_PRODUCER, config, &error);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(producer, topic, NULL);
    memset(value, 'x', (size_t)size);
    for (int i = first; i < first + count; i++) {
        struct str key = text(run, sizeof run, "r%d", i);
        while (kafka_produce(producer, handle, RD_KAFKA_PARTITION_UA, key,
                             size == 0 ? STR("open") : (struct str){value, (size_t)size}, NULL))
            rd_kafka_poll(producer, 10);
    }
    rd_kafka_flush(producer, 30000);
    rd_kafka_topic_destroy(handle);
    rd_kafka_destroy(producer);
    free(value);
}

static struct reader *open_reader(const struct options *options, const char *what)
{
    struct error error;
    char topic[200];
    name_of(options, what, topic, sizeof topic);
    struct reader *reader = reader_open(options->properties, options->properties_count, &error);
    if (reader == NULL || !reader_start(reader, topic, -1, READER_FROM_START, &error))
        die(error.text);
    return reader;
}

static int watch(const struct options *options, int count, int timeout_s)
{
    struct reader *reader = open_reader(options, "history");
    struct reader_record got;
    struct error error;
    int64_t until_us = clock_mono_us() + timeout_s * INT64_C(1000000);
    int ended = 0;
    while (ended < count && clock_mono_us() < until_us) {
        enum reader_got what = reader_next(reader, 500, &got, &error);
        if (what == READER_ERROR)
            die(error.text);
        if (what == READER_RECORD && got.value.size > 4 && strcmp(got.value.data + got.value.size - 4, " end") == 0)
            ended++;
    }
    reader_close(reader);
    printf("ended=%d\n", ended);
    return ended == count ? EX_OK : EX_TEMPFAIL;
}

/* Facts by number: 0 open, 1 tick, 2 end, 3 and up the hops. */
static int fact_number(struct str fact, int hops)
{
    const char *word = strchr(fact.data, ' ');
    if (word == NULL)
        return -1;
    if (strcmp(word, " open") == 0)
        return 0;
    if (strcmp(word, " tick") == 0)
        return 1;
    if (strcmp(word, " end") == 0)
        return 2;
    int hop = atoi(word);
    return hop < hops ? 3 + hop : -1;
}

static int check_facts(const struct options *options, int count, int hops)
{
    struct reader *reader = open_reader(options, "history");
    struct reader_record got;
    struct error error;
    enum reader_got what;
    int wrong = 0, facts = hops + 3;
    uint8_t *seen = calloc((size_t)(count * facts), 1);
    if (seen == NULL)
        abort();
    while ((what = reader_next(reader, 10000, &got, &error)) == READER_RECORD) {
        int number = run_number(got.key), fact = fact_number(got.value, hops);
        if (number < 0 || number >= count || fact < 0)
            die("history: a fact that is none");
        seen[number * facts + fact]++;
    }
    if (what != READER_END)
        die("history could not be read to its end");
    for (int i = 0; i < count * facts; i++) {
        if (seen[i] == 1)
            continue;
        if (wrong++ < 20)
            printf("run r%d, fact %d: %d times\n", i / facts, i % facts, seen[i]);
    }
    printf("facts=%d wrong=%d\n", count * facts, wrong);
    free(seen);
    reader_close(reader);
    return wrong;
}

static int check_rows(const struct options *options)
{
    struct reader *reader = open_reader(options, "waiting");
    struct reader_record got;
    struct error error;
    enum reader_got what;
    int rows = 0;
    uint8_t *there = calloc(RUNS_MAX, 1);
    if (there == NULL)
        abort();
    while ((what = reader_next(reader, 10000, &got, &error)) == READER_RECORD)
        there[run_number(got.key)] = got.value.data != NULL;
    if (what != READER_END)
        die("waiting could not be read to its end");
    for (int i = 0; i < RUNS_MAX; i++)
        rows += there[i];
    printf("rows_left=%d\n", rows);
    free(there);
    reader_close(reader);
    return rows;
}

/* ---- the fastest that the log goes ---- */

static int pump(const struct options *options, const char *slot, int count)
{
    struct log *log = open_log(options, slot);
    if (log == NULL)
        return EX_UNAVAILABLE;
    struct pollfd fd = {.fd = log_fd(log), .events = POLLIN};
    int64_t first_us = 0, committed = 0, commits = 0;
    bool stopped = false, stopping = false;
    while (!stopped) {
        struct log_event event;
        poll(&fd, 1, 100);
        while (log_next(log, &event)) {
            if (event.kind == LOG_RECORD) {
                if (first_us == 0)
                    first_us = clock_mono_us();
                struct log_record fact = record(TOPIC_HISTORY, event.key, event.value);
                log_done(log, &event, event.offset, &fact, 1);
            } else if (event.kind == LOG_REVOKED || event.kind == LOG_LOST) {
                log_release(log, event.tenure);
            } else if (event.kind == LOG_COMMITTED) {
                committed += event.commit_steps;
                commits++;
            } else if (event.kind == LOG_STOPPED) {
                stopped = true;
            }
            log_event_free(&event);
        }
        if ((committed >= count || stop_asked) && !stopping) {
            double seconds = (double)(clock_mono_us() - first_us) / 1e6;
            printf("records=%" PRId64 " seconds=%.2f per_s=%.0f commits=%" PRId64 " per_commit=%.0f\n", committed,
                   seconds, (double)committed / seconds, commits,
                   (double)committed / (double)(commits > 0 ? commits : 1));
            stopping = true;
            log_stop(log);
        }
    }
    log_close(log);
    return EX_OK;
}

/* ---- commands ---- */

static void report(void *context, const char *topic, const char *line, bool problem)
{
    (void)context;
    printf("%s%s: %s\n", problem ? "! " : "", topic, line);
}

static int topics(const struct options *options, int partitions)
{
    static const char *const pools[] = {"default"};
    struct error error;
    struct topics_plan plan = {.name_space = options->name_space,
                               .properties = options->properties,
                               .properties_count = options->properties_count,
                               .pools = pools,
                               .pools_count = 1,
                               .steps_partitions = partitions,
                               .inbox_partitions = partitions,
                               .history_partitions = partitions,
                               .replication = 1};
    if (topics_create(&plan, report, NULL, &error))
        return EX_OK;
    fprintf(stderr, "%s\n", error.text);
    return EX_UNAVAILABLE;
}

int main(int argc, char **argv)
{
    struct options options = {.properties_count = 0};
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (argc < 4)
        die("see the head of tests/doubles/log_driver.c");
    const char *command = argv[1];
    options.name_space = argv[2];
    bool is_serve = strcmp(command, "serve") == 0 && argc >= 6, is_pump = strcmp(command, "pump") == 0 && argc >= 5;
    int skip = is_serve ? 6 : is_pump || argc >= 5 ? 5 : 4;
    read_options(&options, argc - skip, argv + skip);
    if (is_serve)
        return serve(&options, argv[3], atoi(argv[4]), atoi(argv[5]));
    if (is_pump)
        return pump(&options, argv[3], atoi(argv[4]));
    if (strcmp(command, "topics") == 0)
        return topics(&options, atoi(argv[3]));
    if (strcmp(command, "watch") == 0 && argc >= 5)
        return watch(&options, atoi(argv[3]), atoi(argv[4]));
    if (strcmp(command, "check") == 0 && argc >= 5)
        return check_facts(&options, atoi(argv[3]), atoi(argv[4])) + check_rows(&options) > 0 ? EX_DATAERR : EX_OK;
    if (strcmp(command, "load") == 0 && argc >= 5)
        put_many(&options, "inbox", atoi(argv[3]), atoi(argv[4]), 0);
    else if (strcmp(command, "flood") == 0 && argc >= 5)
        put_many(&options, "steps.default", 0, atoi(argv[3]), atoi(argv[4]));
    else
        die("no such command, or words are missing");
    return EX_OK;
}
