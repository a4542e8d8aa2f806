/* The demo's control: a plain consume-call-produce loop, as people write it. It is careful (the
 * offset is committed only after the result is produced) and still does a call twice when it is
 * killed between the call and the commit. */
#include <curl/curl.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why)) {
        fprintf(stderr, "plain_loop: %s\n", why);
        exit(1);
    }
}

static rd_kafka_t *client(rd_kafka_type_t type, const char *brokers, const char *group)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", brokers);
    if (group) {
        set(conf, "group.id", group);
        set(conf, "group.instance.id", "plain"); /* restarted, it goes on at once */
        set(conf, "enable.auto.commit", "false");
        set(conf, "auto.offset.reset", "earliest");
    }
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk)
        fprintf(stderr, "plain_loop: %s\n", why);
    return rk;
}

/* The answer is printed to `answer`; nonzero: the call failed. */
static int call(CURL *curl, const rd_kafka_message_t *message, FILE *answer)
{
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, (const char *)message->payload);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)message->len);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    return curl_easy_perform(curl) != CURLE_OK;
}

int main(int argc, char **argv)
{
    const char *names[] = {"--brokers", "--group", "--in", "--out", "--url"}, *values[5] = {0};
    for (int i = 1; i + 1 < argc; i += 2)
        for (int n = 0; n < 5; n++)
            if (strcmp(argv[i], names[n]) == 0)
                values[n] = argv[i + 1];
    for (int n = 0; n < 5; n++)
        if (!values[n])
            return fprintf(stderr, "plain_loop: %s is missing\n", names[n]), 64;
    rd_kafka_t *consumer = client(RD_KAFKA_CONSUMER, values[0], values[1]);
    rd_kafka_t *producer = client(RD_KAFKA_PRODUCER, values[0], NULL);
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    CURL *curl = curl_easy_init();
    if (!consumer || !producer || !curl)
        return 1;
    rd_kafka_topic_t *out = rd_kafka_topic_new(producer, values[3], NULL);
    rd_kafka_topic_partition_list_add(topics, values[2], RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(consumer, topics);
    curl_easy_setopt(curl, CURLOPT_URL, values[4]);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    for (;;) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 1000);
        if (!message || message->err) {
            if (message)
                rd_kafka_message_destroy(message);
            continue;
        }
        char *text = NULL;
        size_t size = 0;
        FILE *answer = open_memstream(&text, &size);
        int failed = call(curl, message, answer);
        fclose(answer);
        if (!failed) {
            rd_kafka_produce(out, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, text, size, NULL, 0, NULL);
            rd_kafka_flush(producer, 10000);
            rd_kafka_commit_message(consumer, message, 0);
        }
        free(text);
        rd_kafka_message_destroy(message);
    }
}
