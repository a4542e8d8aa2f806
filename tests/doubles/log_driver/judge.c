#include "tests/doubles/log_driver/driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/reader.h"

#define BROKER_BACK_S 30 /* one that was frozen leads its partitions again only some time later, on a busy machine */

static void on_report(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
    (void)producer, (void)opaque;
    if (message->err)
        die(rd_kafka_err2str(message->err));
}

void put_many(const struct options *options, const char *what, int first, int count, int size)
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
    int64_t until_us = clock_mono_us() + BROKER_BACK_S * INT64_C(1000000);
    while (reader != NULL && !reader_start(reader, topic, -1, READER_FROM_START, &error)) {
        if (error.class != ERROR_RETRY || clock_mono_us() > until_us)
            die(error.text);
    }
    if (reader == NULL)
        die(error.text);
    return reader;
}

int watch(const struct options *options, int count, int timeout_s)
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
    int hop = parse_number(word);
    return hop < hops ? 3 + hop : -1;
}

int check_facts(const struct options *options, int count, int hops)
{
    struct reader *reader = open_reader(options, "history");
    struct reader_record got;
    struct error error;
    enum reader_got what;
    int wrong = 0, facts = hops + 3;
    uint8_t *seen = calloc((size_t)count * (size_t)facts, 1);
    if (seen == NULL)
        abort();
    while ((what = reader_next(reader, 10000, &got, &error)) == READER_RECORD) {
        int run = run_number(got.key), fact = fact_number(got.value, hops);
        if (run < 0 || run >= count || fact < 0)
            die("history: a fact that is none");
        seen[run * facts + fact]++;
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

int check_rows(const struct options *options)
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
