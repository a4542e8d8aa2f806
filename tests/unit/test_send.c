/* Sending a transaction's offsets, by a librdkafka that may not come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "worker/io/log_internal.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool hangs; /* the next call hangs until this is false */
static int calls, destroyed;
static pid_t called_by;

/* ---- librdkafka ---- */

rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(rd_kafka_t *handle, const rd_kafka_topic_partition_list_t *list,
                                                       const rd_kafka_consumer_group_metadata_t *group, int timeout_ms)
{
    (void)handle, (void)group, (void)timeout_ms;
    pthread_mutex_lock(&lock);
    calls++;
    called_by = gettid();
    pthread_cond_broadcast(&changed);
    while (hangs)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return list->cnt == 0 ? rd_kafka_error_new(RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, "no offsets") : NULL;
}

void rd_kafka_destroy(rd_kafka_t *handle)
{
    (void)handle;
    pthread_mutex_lock(&lock);
    destroyed++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* ---- the caller ---- */

static void set_hangs(bool value)
{
    pthread_mutex_lock(&lock);
    hangs = value;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_destroyed(int count)
{
    pthread_mutex_lock(&lock);
    while (destroyed < count)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static rd_kafka_resp_err_t send_offsets(struct log_producer *producer, int offsets)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    for (int i = 0; i < offsets; i++)
        rd_kafka_topic_partition_list_add(list, "topic", i)->offset = i;
    rd_kafka_error_t *error = log_send_offsets(producer, list, rd_kafka_consumer_group_metadata_new("group"), 1);
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    if (error != NULL)
        rd_kafka_error_destroy(error);
    return code;
}

/* No thread is made for each: it would be one in every commit. */
static void test_one_thread_for_all(void **state)
{
    (void)state;
    struct log_producer producer = {.id = "a"};
    assert_int_equal(send_offsets(&producer, 1), 0);
    pid_t first = called_by;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(send_offsets(&producer, i % 2), i % 2 == 0 ? RD_KAFKA_RESP_ERR_INVALID_TXN_STATE : 0);
        assert_int_equal(called_by, first);
    }
    log_send_close(&producer);
    assert_null(producer.sender);
}

/* The one that hangs goes with its handle, whenever it comes back, and another takes its place. */
static void test_given_up(void **state)
{
    (void)state;
    struct log_producer producer = {.id = "a"};
    int before = calls;
    destroyed = 0;
    set_hangs(true);
    assert_int_equal(send_offsets(&producer, 1), RD_KAFKA_RESP_ERR__TIMED_OUT);
    assert_true(producer.stuck);
    assert_true(log_send_abandon(&producer));
    assert_false(producer.stuck);
    assert_null(producer.sender);
    assert_int_equal(destroyed, 0);
    set_hangs(false);
    wait_destroyed(1);
    assert_int_equal(send_offsets(&producer, 1), 0);
    assert_int_equal(calls, before + 2);
    log_send_close(&producer);
}

/* It comes back while it is given up: either it was in time, and goes on, or handle and thread are gone. */
static void test_comes_back_late(void **state)
{
    (void)state;
    struct log_producer producer = {.id = "a"};
    destroyed = 0;
    set_hangs(true);
    assert_int_equal(send_offsets(&producer, 0), RD_KAFKA_RESP_ERR__TIMED_OUT);
    const struct log_sender *sender = producer.sender;
    set_hangs(false);
    bool abandoned = log_send_abandon(&producer);
    assert_int_equal(send_offsets(&producer, 1), 0); /* its error is of the call before, and nobody wants it any more */
    assert_true(abandoned || producer.sender == sender);
    log_send_close(&producer);
    wait_destroyed(abandoned);
    assert_int_equal(destroyed, abandoned);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread_for_all),
        cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_comes_back_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
