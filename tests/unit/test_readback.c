/* worker/io/readback on librdkafka's mock cluster: what is there, what is said not to be there, and what is waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>

#include "worker/base/logline.h"
#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/readback.h"

#define HISTORY 0
#define WAITING 1
#define RECORDS 20
#define API_FETCH 1
#define SECONDS 30
#define NONE (-1)

/* Of all tests; each has topics of its own. */
static rd_kafka_t *owner, *producer;
static rd_kafka_mock_cluster_t *cluster;
static char servers[200];

struct stand {
    char names[2][40];
    const char *topics[2];
    rd_kafka_topic_t *handles[2];
    struct readback *readback;
};

static int open_cluster(void **state)
{
    static const struct kafka_property plain[] = {{NULL, NULL}};
    const char *const properties[] = {servers};
    rd_kafka_conf_t *quiet = rd_kafka_conf_new();
    struct error error;
    (void)state;
    logline_level(LOGLINE_ERROR);
    assert_int_equal(rd_kafka_conf_set(quiet, "log_level", "0", NULL, 0), RD_KAFKA_CONF_OK);
    owner = kafka_open(RD_KAFKA_PRODUCER, quiet, &error);
    cluster = rd_kafka_mock_cluster_new(owner, 1);
    (void)snprintf(servers, sizeof servers, "bootstrap.servers=%s", rd_kafka_mock_cluster_bootstraps(cluster));
    producer = kafka_client(RD_KAFKA_PRODUCER, plain, properties, 1, plain, &error);
    assert_non_null(producer);
    return 0;
}

static int close_cluster(void **state)
{
    (void)state;
    rd_kafka_destroy(producer);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(owner);
    return 0;
}

static void produce(struct stand *stand, size_t topic, int32_t partition, struct str key, struct str value)
{
    assert_int_equal(kafka_produce(producer, stand->handles[topic], partition, key, value, NULL), 0);
}

static void flush(void)
{
    assert_int_equal(rd_kafka_flush(producer, SECONDS * 1000), 0);
}

static int open_stand(void **state)
{
    static int number;
    struct stand *stand = calloc(1, sizeof *stand);
    number++;
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(stand->names[i], sizeof stand->names[i], "%d.%s", number, i == HISTORY ? "history" : "waiting");
        stand->topics[i] = stand->names[i];
        rd_kafka_mock_topic_create(cluster, stand->topics[i], 3, 1);
        stand->handles[i] = rd_kafka_topic_new(producer, stand->topics[i], NULL);
    }
    assert_int_equal(kafka_learn(producer, SECONDS * 1000), 0);
    for (size_t topic = 0; topic < 2; topic++) {
        for (int i = 0; i < RECORDS; i++) {
            char key[20], value[40];
            (void)snprintf(key, sizeof key, "%d", i);
            (void)snprintf(value, sizeof value, "%zu %d", topic, i);
            produce(stand, topic, 0, str_of(key), str_of(value));
        }
        produce(stand, topic, 1, STR("0"), STR("alone"));
    }
    flush();
    *state = stand;
    return 0;
}

static int close_stand(void **state)
{
    struct stand *stand = *state;
    readback_close(stand->readback);
    for (size_t i = 0; i < 2; i++)
        rd_kafka_topic_destroy(stand->handles[i]);
    free(stand);
    return 0;
}

static void open_readback(struct stand *stand)
{
    static const char *const properties[] = {servers};
    struct error error;
    stand->readback = readback_open(stand->topics, 2, properties, 1, &error);
    assert_non_null(stand->readback);
}

static void ask(struct stand *stand, size_t topic, int32_t partition, int64_t offset, int64_t behind)
{
    struct readback_wanted wanted = {
        .topic = topic, .partition = partition, .offset = offset, .behind = behind, .hashed = topic == HISTORY};
    if (stand->readback == NULL)
        open_readback(stand);
    readback_ask(stand->readback, &wanted, 1);
}

/* NULL: none comes in so much time. */
static struct readback_row *row_within(struct stand *stand, int64_t ms)
{
    int64_t until_us = clock_mono_us() + ms * 1000, left_us;
    struct readback_row *row;
    while ((row = readback_next(stand->readback)) == NULL && (left_us = until_us - clock_mono_us()) > 0)
        (void)poll(&(struct pollfd){.fd = readback_fd(stand->readback), .events = POLLIN}, 1,
                   (int)(left_us / 1000) + 1);
    return row;
}

/* The next row is this one; `number` NONE: it is not there. */
static void comes(struct stand *stand, size_t topic, int32_t partition, int64_t offset, int number, bool asked)
{
    struct readback_row *row = row_within(stand, SECONDS * 1000);
    char key[20], value[40];
    unsigned char digest[HASH_SIZE] = {0};
    assert_non_null(row);
    assert_int_equal(row->wanted.topic, topic);
    assert_int_equal(row->wanted.partition, partition);
    assert_int_equal(row->wanted.offset, offset);
    assert_int_equal(row->asked, asked);
    (void)snprintf(key, sizeof key, "%d", number);
    (void)snprintf(value, sizeof value, "%zu %d", topic, number);
    if (number == NONE) {
        assert_non_null(row->not_there);
    } else {
        assert_null(row->not_there);
        assert_string_equal(row->key.data, key);
        assert_string_equal(row->value.data, partition == 1 ? "alone" : value);
        if (topic == HISTORY)
            hash_sha256_raw(row->value, digest);
    }
    assert_memory_equal(row->digest, digest, HASH_SIZE);
    readback_row_free(row);
}

static void comes_not(struct stand *stand, size_t topic, int32_t partition, int64_t offset, const char *not_there)
{
    struct readback_row *row = row_within(stand, SECONDS * 1000);
    assert_non_null(row);
    assert_int_equal(row->wanted.topic, topic);
    assert_int_equal(row->wanted.partition, partition);
    assert_int_equal(row->wanted.offset, offset);
    assert_true(row->asked);
    assert_non_null(row->not_there);
    assert_string_equal(row->not_there, not_there);
    readback_row_free(row);
}

/* ---- what is there ---- */

static void test_in_the_order_of_offsets(void **state)
{
    struct stand *stand = *state;
    static const int64_t offsets[] = {15, 3, 19, 3, 0};
    struct readback_wanted wanted[5];
    for (size_t i = 0; i < 5; i++)
        wanted[i] = (struct readback_wanted){.topic = WAITING, .offset = offsets[i], .row = (uint32_t)i};
    open_readback(stand);
    readback_ask(stand->readback, wanted, 5);
    comes(stand, WAITING, 0, 0, 0, true);
    comes(stand, WAITING, 0, 3, 3, true);
    comes(stand, WAITING, 0, 3, 3, true);
    comes(stand, WAITING, 0, 15, 15, true);
    comes(stand, WAITING, 0, 19, 19, true);
    ask(stand, HISTORY, 0, 3, 0); /* another topic, the same number */
    comes(stand, HISTORY, 0, 3, 3, true);
    ask(stand, WAITING, 0, 2, 0);
    comes(stand, WAITING, 0, 2, 2, true);
    assert_null(row_within(stand, 0));
}

static void test_some_that_lie_before_it(void **state)
{
    struct stand *stand = *state;
    ask(stand, HISTORY, 0, 15, 3);
    for (int i = 12; i < 15; i++)
        comes(stand, HISTORY, 0, i, i, false);
    comes(stand, HISTORY, 0, 15, 15, true);
    ask(stand, HISTORY, 0, 1, 128);
    comes(stand, HISTORY, 0, 0, 0, false);
    comes(stand, HISTORY, 0, 1, 1, true);
}

/* Of what lies before it the nearest, so that it is never very much; and a large one comes, whatever a fetch holds. */
static void test_large_ones(void **state)
{
    struct stand *stand = *state;
    size_t size = 400000;
    char *bytes = malloc(size + 1);
    memset(bytes, 'x', size);
    bytes[size] = '\0';
    for (int i = 0; i < 5; i++)
        produce(stand, HISTORY, 2, STR_NONE, (struct str){bytes, size});
    flush();
    free(bytes);
    ask(stand, HISTORY, 2, 4, 4);
    for (int64_t offset = 2; offset <= 4; offset++) {
        struct readback_row *row = row_within(stand, SECONDS * 1000);
        assert_non_null(row);
        assert_int_equal(row->wanted.offset, offset);
        assert_int_equal(row->value.size, size);
        assert_int_equal(row->asked, offset == 4);
        readback_row_free(row);
    }
}

/* ---- what is not ---- */

static void test_at_the_end_and_above(void **state)
{
    struct stand *stand = *state;
    for (int again = 0; again < 2; again++) {
        ask(stand, WAITING, 0, RECORDS, 0);
        comes_not(stand, WAITING, 0, RECORDS, "it ends before");
        ask(stand, WAITING, 0, RECORDS + 5, 0);
        comes_not(stand, WAITING, 0, RECORDS + 5, "it ends before");
        ask(stand, HISTORY, 0, 1000000000, 128);
        comes_not(stand, HISTORY, 0, 1000000000, "it ends before");
        ask(stand, HISTORY, 0, RECORDS + 1, 128);
        comes_not(stand, HISTORY, 0, RECORDS + 1, "it ends before");
    }
    ask(stand, WAITING, 2, 0, 0); /* nothing lies there */
    comes_not(stand, WAITING, 2, 0, "it ends before");
    ask(stand, WAITING, 2, 7, 0);
    comes_not(stand, WAITING, 2, 7, "it ends before");
    produce(stand, WAITING, 0, STR("20"), STR("1 20"));
    flush();
    ask(stand, WAITING, 0, RECORDS, 0);
    comes(stand, WAITING, 0, RECORDS, RECORDS, true);
}

static void test_together_with_what_is_there(void **state)
{
    struct stand *stand = *state;
    struct readback_wanted wanted[4] = {{.topic = WAITING, .offset = RECORDS + 1},
                                        {.topic = WAITING, .offset = RECORDS},
                                        {.topic = WAITING, .offset = RECORDS - 1},
                                        {.topic = WAITING, .offset = INT64_C(1) << 40}};
    open_readback(stand);
    readback_ask(stand->readback, wanted, 4);
    comes(stand, WAITING, 0, RECORDS - 1, RECORDS - 1, true);
    comes_not(stand, WAITING, 0, RECORDS, "it ends before");
    comes_not(stand, WAITING, 0, RECORDS + 1, "it ends before");
    comes_not(stand, WAITING, 0, INT64_C(1) << 40, "it ends before");
}

static void test_deleted(void **state)
{
    struct stand *stand = *state;
    size_t size = 900000;
    char *bytes = malloc(size + 1);
    memset(bytes, 'x', size);
    bytes[size] = '\0';
    for (int i = 0; i < 7; i++) /* the mock keeps 5 MiB of a partition */
        produce(stand, WAITING, 0, STR_NONE, (struct str){bytes, size});
    flush();
    free(bytes);
    ask(stand, WAITING, 0, 3, 0);
    comes_not(stand, WAITING, 0, 3, "it was deleted");
}

static void test_no_such_partition(void **state)
{
    struct stand *stand = *state;
    ask(stand, HISTORY, 2000000000, 3, 0);
    ask(stand, HISTORY, 0, 3, 0);
    bool first = true;
    for (int i = 0; i < 2; i++) {
        struct readback_row *row = row_within(stand, SECONDS * 1000);
        assert_non_null(row);
        if (row->wanted.partition == 0) {
            assert_null(row->not_there);
            first = false;
        } else {
            assert_string_equal(row->not_there, "there is no such partition");
        }
        readback_row_free(row);
    }
    assert_false(first);
}

/* ---- what is waited for ---- */

static void test_errors_are_no_answer(void **state)
{
    struct stand *stand = *state;
    rd_kafka_mock_broker_push_request_error_rtts(cluster, 1, API_FETCH, 4, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                                 0, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, 0,
                                                 RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, 0, RD_KAFKA_RESP_ERR_UNKNOWN,
                                                 0);
    ask(stand, HISTORY, 0, 3, 0);
    comes(stand, HISTORY, 0, 3, 3, true);
    size_t left = 1;
    assert_int_equal(rd_kafka_mock_broker_error_stack_cnt(cluster, 1, API_FETCH, &left), 0);
    assert_int_equal(left, 0);
}

static void test_a_topic_that_is_not_known_yet(void **state)
{
    struct stand *stand = *state;
    rd_kafka_mock_topic_set_error(cluster, stand->topics[HISTORY], RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    ask(stand, HISTORY, 0, 3, 0);
    ask(stand, WAITING, 0, 3, 0);
    comes(stand, WAITING, 0, 3, 3, true);
    assert_null(row_within(stand, 300));
    rd_kafka_mock_topic_set_error(cluster, stand->topics[HISTORY], RD_KAFKA_RESP_ERR_NO_ERROR);
    comes(stand, HISTORY, 0, 3, 3, true);
}

static void test_a_partition_without_a_leader_holds_up_nobody(void **state)
{
    struct stand *stand = *state;
    struct readback_wanted both[2] = {{.topic = WAITING, .partition = 1},
                                      {.topic = HISTORY, .partition = 1, .hashed = true}};
    rd_kafka_mock_partition_set_leader(cluster, stand->topics[HISTORY], 1, -1);
    open_readback(stand);
    readback_ask(stand->readback, both, 2);
    comes(stand, WAITING, 1, 0, 0, true);
    for (int i = 0; i < 5; i++) {
        ask(stand, HISTORY, 0, i, 0);
        comes(stand, HISTORY, 0, i, i, true);
        ask(stand, WAITING, 1, i, 0);
        comes(stand, WAITING, 1, i, i == 0 ? 0 : NONE, true);
    }
    rd_kafka_mock_partition_set_leader(cluster, stand->topics[HISTORY], 1, 1);
    comes(stand, HISTORY, 1, 0, 0, true);
}

/* librdkafka tells an end once. */
static void test_at_the_end_asked_for_meanwhile(void **state)
{
    struct stand *stand = *state;
    rd_kafka_mock_partition_set_leader(cluster, stand->topics[HISTORY], 1, -1);
    for (int i = 0; i < 3; i++) {
        ask(stand, HISTORY, 1, 1, 0);
        ask(stand, WAITING, 0, i, 0);
        comes(stand, WAITING, 0, i, i, true);
    }
    rd_kafka_mock_partition_set_leader(cluster, stand->topics[HISTORY], 1, 1);
    for (int i = 0; i < 3; i++)
        comes_not(stand, HISTORY, 1, 1, "it ends before");
}

static void test_a_broker_that_is_away(void **state)
{
    struct stand *stand = *state;
    ask(stand, WAITING, 0, RECORDS, 0);
    comes_not(stand, WAITING, 0, RECORDS, "it ends before");

    rd_kafka_mock_broker_set_down(cluster, 1);
    ask(stand, WAITING, 0, 5, 0);
    ask(stand, HISTORY, 1, 0, 0);
    assert_null(row_within(stand, 1000));

    rd_kafka_mock_broker_set_up(cluster, 1);
    bool waiting = false, history = false;
    for (int i = 0; i < 2; i++) {
        struct readback_row *row = row_within(stand, SECONDS * 1000);
        assert_non_null(row);
        assert_null(row->not_there);
        *(row->wanted.topic == WAITING ? &waiting : &history) = true;
        readback_row_free(row);
    }
    assert_true(waiting && history);
}

static void test_not_before_its_time(void **state)
{
    struct stand *stand = *state;
    struct readback_wanted later = {.topic = WAITING, .offset = 3, .after_us = clock_mono_us() + 300000};
    open_readback(stand);
    readback_ask(stand->readback, &later, 1);
    ask(stand, WAITING, 0, 5, 0);
    comes(stand, WAITING, 0, 5, 5, true);
    comes(stand, WAITING, 0, 3, 3, true);
    assert_true(clock_mono_us() >= later.after_us);
}

/* Closed with questions and answers left; ASan has a word. */
static void test_closed_in_the_middle(void **state)
{
    struct stand *stand = *state;
    rd_kafka_mock_partition_set_leader(cluster, stand->topics[HISTORY], 1, -1);
    ask(stand, HISTORY, 1, 0, 0);
    ask(stand, HISTORY, 0, 15, 15);
    ask(stand, WAITING, 0, RECORDS + 1000, 0);
    readback_row_free(row_within(stand, SECONDS * 1000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_stand, close_stand)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_in_the_order_of_offsets),
        TEST(test_some_that_lie_before_it),
        TEST(test_large_ones),
        TEST(test_at_the_end_and_above),
        TEST(test_together_with_what_is_there),
        TEST(test_deleted),
        TEST(test_no_such_partition),
        TEST(test_errors_are_no_answer),
        TEST(test_a_topic_that_is_not_known_yet),
        TEST(test_a_partition_without_a_leader_holds_up_nobody),
        TEST(test_a_broker_that_is_away),
        TEST(test_at_the_end_asked_for_meanwhile),
        TEST(test_not_before_its_time),
        TEST(test_closed_in_the_middle),
    };
    return cmocka_run_group_tests(tests, open_cluster, close_cluster);
}
