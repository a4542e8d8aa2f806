/*
 * The ceiling: what this machine's broker gives to a bare consume-transform-produce loop of transactions, with nothing of
 * Myelin in it. Two producers in turn (--producers 1: one), strictly in single file; the offsets go into the transaction with the group's metadata.
 *
 *   ceiling --brokers LIST --group ID --in TOPIC --messages N --out TOPIC=FILE [--out TOPIC=FILE]... [--id TEXT]
 *           [--batch 4000] [--producers 2] [--in-flight 1000 --url URL]
 *   ceiling --brokers LIST --fill N --out TOPIC=FILE [--id TEXT]
 *   ceiling --calls N --url URL [--in-flight 1000]
 *
 * For each message taken from --in one record goes to each --out: the bytes of FILE, where --id, a run's id, becomes another one
 * each time, so that compression finds as much as in the real records. With --url each message costs one POST (libcurl multi,
 * --in-flight at once) before it counts as done. --fill only writes, --calls only calls. Prints one line of JSON; the clock starts when both
 * producers have committed once, which costs a new one half a second.
 */
#include <curl/curl.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OUTS_MAX = 8, PARTITIONS_MAX = 256, HELD_MAX = 1 << 16, TIMEOUT_MS = 30000, SILENCE_S = 60 };

struct out {
    const char *topic;
    char *bytes;
    size_t size, id_at[8], ids;
    rd_kafka_topic_t *handle[2];
};

static struct {
    const char *brokers, *group, *in, *id, *url;
    long messages, fill, calls, batch, producers, in_flight;
    struct out outs[OUTS_MAX];
    size_t outs_count;
} options = {.batch = 4000, .producers = 2, .in_flight = 1000};

/* What was consumed and is not committed yet, in order. */
static struct {
    int32_t partition[HELD_MAX];
    int64_t offset[HELD_MAX];
    long first, count;
} held;

static atomic_long calls_wanted, calls_ended, calls_failed;
static CURLM *multi;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "ceiling: %s: %s\n", what, why);
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- records ---- */

static void read_out(struct out *out, char *argument)
{
    char *equals = strchr(argument, '=');
    FILE *file = equals != NULL ? fopen(equals + 1, "rb") : NULL;
    if (file == NULL)
        die("--out wants TOPIC=FILE", argument);
    *equals = '\0';
    out->topic = argument;
    out->bytes = calloc(1, 1 << 20);
    if (out->bytes == NULL)
        die(out->topic, "no memory");
    out->size = fread(out->bytes, 1, (1 << 20) - 1, file);
    fclose(file);
    size_t size = options.id != NULL ? strlen(options.id) : 0;
    for (size_t at = 0; size > 0 && at + size <= out->size && out->ids < 8; at++)
        if (memcmp(out->bytes + at, options.id, size) == 0)
            out->id_at[out->ids++] = at;
}

/* Hexadecimal digits, other ones each time. */
static void next_id(char *id, size_t size)
{
    static uint64_t state = 0x9E3779B97F4A7C15U;
    for (size_t i = 0; i < size; i++) {
        if (i % 16 == 0) { /* xorshift64 */
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        id[i] = "0123456789abcdef"[state >> (4 * (i % 16)) & 15];
    }
}

static void produce(rd_kafka_t *producer, struct out *out, int which, const char *id, size_t id_size)
{
    for (size_t i = 0; i < out->ids; i++)
        memcpy(out->bytes + out->id_at[i], id, id_size);
    while (rd_kafka_produce(out->handle[which], RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, out->bytes, out->size, id,
                            id_size, NULL) != 0) {
        if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            die(out->topic, rd_kafka_err2str(rd_kafka_last_error()));
        rd_kafka_poll(producer, 5);
    }
}

static void produce_all(rd_kafka_t *producer, int which, long count)
{
    char id[64];
    size_t id_size = options.id != NULL ? strlen(options.id) : 36;
    id_size = id_size < sizeof id ? id_size : sizeof id;
    for (long n = 0; n < count; n++) {
        next_id(id, id_size);
        for (size_t i = 0; i < options.outs_count; i++)
            produce(producer, &options.outs[i], which, id, id_size);
    }
}

/* ---- Kafka ---- */

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        die(name, why);
}

static void on_report(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque)
{
    (void)producer, (void)opaque;
    if (message->err)
        die("a record was not written", rd_kafka_err2str(message->err));
}

static rd_kafka_t *open_client(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
    char why[256];
    set(conf, "bootstrap.servers", options.brokers);
    rd_kafka_t *client = rd_kafka_new(type, conf, why, sizeof why);
    if (client == NULL)
        die("no client", why);
    return client;
}

/* As worker/io/log_producer.c makes them. `which` < 0: without transactions. */
static rd_kafka_t *open_producer(int which)
{
    char id[300];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "linger.ms", which < 0 ? "5" : "0");
    set(conf, "retry.backoff.ms", "10");
    set(conf, "partitioner", "murmur2_random");
    set(conf, "compression.codec", "lz4");
    set(conf, "queue.buffering.max.messages", "1000000");
    if (which >= 0) {
        snprintf(id, sizeof id, "%s-%d", options.group, which);
        set(conf, "transactional.id", id);
    }
    rd_kafka_conf_set_dr_msg_cb(conf, on_report); /* without one each commit waits 10 ms */
    rd_kafka_t *producer = open_client(RD_KAFKA_PRODUCER, conf);
    for (size_t i = 0; i < options.outs_count; i++)
        options.outs[i].handle[which > 0] = rd_kafka_topic_new(producer, options.outs[i].topic, NULL);
    return producer;
}

static rd_kafka_t *open_consumer(void)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", options.group);
    set(conf, "enable.auto.commit", "false");
    set(conf, "auto.offset.reset", "earliest");
    set(conf, "isolation.level", "read_committed");
    set(conf, "fetch.wait.max.ms", "100");
    rd_kafka_t *consumer = open_client(RD_KAFKA_CONSUMER, conf);
    rd_kafka_poll_set_consumer(consumer);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, options.in, RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(consumer, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    return consumer;
}

static void check(rd_kafka_error_t *error, const char *what)
{
    if (error != NULL)
        die(what, rd_kafka_error_string(error));
}

/* Takes up to `room` messages; waits for the first one only when there is nothing else to do. */
static long consume(rd_kafka_queue_t *queue, long room, bool idle)
{
    static rd_kafka_message_t *messages[HELD_MAX];
    if (room <= 0)
        return 0;
    ssize_t count = rd_kafka_consume_batch_queue(queue, idle ? 5 : 0, messages, (size_t)room);
    long taken = 0;
    for (ssize_t i = 0; i < count; i++) {
        if (!messages[i]->err) {
            long at = (held.first + held.count++) % HELD_MAX;
            held.partition[at] = messages[i]->partition;
            held.offset[at] = messages[i]->offset;
            taken++;
        }
        rd_kafka_message_destroy(messages[i]);
    }
    return taken;
}

/* The oldest `count` held messages: records and offsets in one transaction. */
static void transact(rd_kafka_t *producer, int which, rd_kafka_t *consumer, long count)
{
    static int64_t next[PARTITIONS_MAX];
    memset(next, 0, sizeof next);
    for (long i = 0; i < count; i++) {
        long at = (held.first + i) % HELD_MAX;
        next[held.partition[at] % PARTITIONS_MAX] = held.offset[at] + 1;
    }
    held.first = (held.first + count) % HELD_MAX;
    held.count -= count;
    check(rd_kafka_begin_transaction(producer), "begin");
    produce_all(producer, which, count);
    rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(8);
    for (int32_t p = 0; p < PARTITIONS_MAX; p++)
        if (next[p] > 0)
            rd_kafka_topic_partition_list_add(offsets, options.in, p)->offset = next[p];
    rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata(consumer);
    check(rd_kafka_send_offsets_to_transaction(producer, offsets, group, TIMEOUT_MS), "offsets");
    rd_kafka_consumer_group_metadata_destroy(group);
    rd_kafka_topic_partition_list_destroy(offsets);
    check(rd_kafka_commit_transaction(producer, TIMEOUT_MS), "commit");
}

/* ---- HTTP: a thread that makes calls until as many have ended as were wanted ---- */

static size_t swallow(char *bytes, size_t size, size_t count, void *context)
{
    (void)bytes, (void)context;
    return size * count;
}

static CURL *new_call(struct curl_slist *headers)
{
    CURL *call = curl_easy_init();
    curl_easy_setopt(call, CURLOPT_URL, options.url);
    curl_easy_setopt(call, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(call, CURLOPT_POSTFIELDS, "{\"n\":12345678}");
    curl_easy_setopt(call, CURLOPT_WRITEFUNCTION, swallow);
    curl_easy_setopt(call, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(call, CURLOPT_NOPROXY, "*");
    return call;
}

static void *make_calls(void *context)
{
    (void)context;
    long started = 0, spare = options.in_flight, left;
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    CURL **calls = calloc((size_t)options.in_flight, sizeof *calls);
    if (calls == NULL)
        die("calls", "no memory");
    for (long i = 0; i < options.in_flight; i++)
        calls[i] = new_call(headers);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, options.in_flight);
    for (;;) {
        for (; spare > 0 && started < atomic_load(&calls_wanted); started++)
            curl_multi_add_handle(multi, calls[--spare]);
        int running, more;
        curl_multi_perform(multi, &running);
        CURLMsg *message;
        while ((message = curl_multi_info_read(multi, &more)) != NULL) {
            long status = 0;
            CURL *call = message->easy_handle;
            curl_easy_getinfo(call, CURLINFO_RESPONSE_CODE, &status);
            if (message->data.result != CURLE_OK || status != 200)
                atomic_fetch_add(&calls_failed, 1);
            curl_multi_remove_handle(multi, call);
            calls[spare++] = call;
            atomic_fetch_add(&calls_ended, 1);
        }
        left = atomic_load(&calls_wanted) - started;
        if (spare == 0 || left == 0)
            curl_multi_poll(multi, NULL, 0, 10, NULL);
    }
    return NULL;
}

/* ---- the loop ---- */

static void run(void)
{
    rd_kafka_t *producers[2] = {open_producer(0), open_producer(1)};
    for (int i = 0; i < 2; i++)
        check(rd_kafka_init_transactions(producers[i], TIMEOUT_MS), "init");
    rd_kafka_t *consumer = open_consumer();
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(consumer);
    pthread_t thread;
    if (options.url != NULL) {
        multi = curl_multi_init();
        pthread_create(&thread, NULL, make_calls, NULL);
    }
    long room_max = options.url != NULL ? options.in_flight : options.batch;
    long moved = 0, transactions = 0, before = 0;
    double from = 0, last = now_s();
    while (moved < options.messages) {
        long taken = consume(queue, room_max - held.count, held.count == 0);
        long done = held.count;
        if (options.url != NULL) {
            atomic_fetch_add(&calls_wanted, taken);
            if (taken > 0)
                curl_multi_wakeup(multi);
            done = atomic_load(&calls_ended) - moved;
        }
        if (done > 0 && transactions < 2) /* the first of each producer is its warm-up, and a small one */
            done = 1;
        if (done > 0) {
            int which = (int)(transactions++ % options.producers);
            transact(producers[which], which, consumer, done);
            moved += done;
            last = now_s();
            if (transactions == 2) {
                from = last;
                before = moved;
            }
        } else if (now_s() - last > SILENCE_S) {
            die(options.in, "no message for a minute");
        }
        for (int i = 0; i < 2; i++)
            rd_kafka_poll(producers[i], 0);
    }
    printf("{\"messages\": %ld, \"seconds\": %.6f, \"transactions\": %ld, \"records\": %ld, \"calls_failed\": %ld}\n",
           moved - before, last - from, transactions - 2, (moved - before) * (long)options.outs_count,
           atomic_load(&calls_failed));
    fflush(stdout);
    exit(0); /* nothing is open; the system takes the rest */
}

static void call_only(void)
{
    pthread_t thread;
    multi = curl_multi_init();
    atomic_store(&calls_wanted, options.calls);
    double from = now_s();
    pthread_create(&thread, NULL, make_calls, NULL);
    while (atomic_load(&calls_ended) < options.calls)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    printf("{\"messages\": %ld, \"seconds\": %.6f, \"calls_failed\": %ld}\n", options.calls, now_s() - from,
           atomic_load(&calls_failed));
}

static void fill(void)
{
    rd_kafka_t *producer = open_producer(-1);
    produce_all(producer, 0, options.fill);
    if (rd_kafka_flush(producer, TIMEOUT_MS) != RD_KAFKA_RESP_ERR_NO_ERROR)
        die(options.outs[0].topic, "not written in time");
}

int main(int argc, char **argv)
{
    struct {
        const char *name, **text;
        long *number;
    } known[] = {
        {"--brokers", &options.brokers, NULL},
        {"--group", &options.group, NULL},
        {"--in", &options.in, NULL},
        {"--id", &options.id, NULL},
        {"--url", &options.url, NULL},
        {"--messages", NULL, &options.messages},
        {"--fill", NULL, &options.fill},
        {"--calls", NULL, &options.calls},
        {"--batch", NULL, &options.batch},
        {"--producers", NULL, &options.producers},
        {"--in-flight", NULL, &options.in_flight},
    };
    char *outs[OUTS_MAX];
    size_t outs_count = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        size_t k = 0, count = sizeof known / sizeof known[0];
        while (k < count && strcmp(argv[i], known[k].name) != 0)
            k++;
        if (k < count && known[k].text != NULL)
            *known[k].text = argv[i + 1];
        else if (k < count)
            *known[k].number = strtol(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--out") == 0 && outs_count < OUTS_MAX)
            outs[outs_count++] = argv[i + 1];
        else
            die(argv[i], "not known; the head of tests/bench/ceiling.c lists what is");
    }
    for (size_t i = 0; i < outs_count; i++)
        read_out(&options.outs[options.outs_count++], outs[i]);
    bool kafka = options.brokers != NULL && options.outs_count > 0;
    bool sound = (options.producers == 1 || options.producers == 2) && options.batch > 0 && options.batch <= HELD_MAX &&
                 options.in_flight > 0 && options.in_flight <= HELD_MAX;
    if (!sound)
        die("usage", "--batch and --in-flight are 1 to 65536, --producers 1 or 2");
    if (options.calls > 0 && options.url != NULL)
        call_only();
    else if (kafka && options.fill > 0)
        fill();
    else if (kafka && options.in != NULL && options.group != NULL && options.messages > 0)
        run();
    else
        die("usage", "the head of tests/bench/ceiling.c");
    return 0;
}
