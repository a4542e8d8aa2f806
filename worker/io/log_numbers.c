/* What is told of the log: counted by its thread, read by the loop. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "worker/io/clock.h"
#include "worker/io/log_internal.h"

#define COUNT_US 250000 /* how often queues are looked into */

static void set(atomic_int *number, int64_t value)
{
    atomic_store_explicit(number, (int)value, memory_order_relaxed);
}

/* Of steps only: inbox needs no credits but its window's. */
static void count_held_back(struct log *log)
{
    int64_t held[LOG_CREDITS] = {0};
    for (size_t i = 0; i < log->partitions_count; i++) {
        const struct log_partition *partition = log->partitions[i];
        enum log_credit missing = LOG_CREDIT_IN_FLIGHT;
        if (partition->stage != STAGE_SERVING || partition->of->topic != TOPIC_STEPS || partition->queue == NULL)
            continue;
        if (log_window_span(&partition->window) >= LOG_WINDOW_MAX)
            missing = LOG_CREDIT_WINDOW;
        else if (log->no_memory)
            missing = LOG_CREDIT_MEMORY;
        else if (log->with_loop_steps - atomic_load(&log->waiting_steps) < log->in_flight_max)
            continue; /* nothing is: it is on its way */
        held[missing] += (int64_t)rd_kafka_queue_length(partition->queue);
    }
    for (size_t i = 0; i < LOG_CREDITS; i++)
        set(&log->held_back[i], held[i]);
}

void log_numbers_publish(struct log *log)
{
    int64_t with_loop = 0, done = 0, span_max = 0, oldest_us = INT64_MAX, now_us = clock_mono_us();
    for (size_t i = 0; i < log->partitions_count; i++) {
        const struct log_window *window = &log->partitions[i]->window;
        int64_t span = log_window_span(window), since_us = log_window_oldest_us(window);
        with_loop += (int64_t)window->with_loop;
        if (window->uncommitted > window->with_loop) /* carried ones are with the loop only */
            done += (int64_t)(window->uncommitted - window->with_loop);
        span_max = span > span_max ? span : span_max;
        oldest_us = since_us < oldest_us ? since_us : oldest_us;
    }
    set(&log->partitions_owned, (int64_t)log->partitions_count);
    set(&log->records_in_flight, with_loop);
    set(&log->waiting_for_commit, done);
    set(&log->window_span, span_max);
    atomic_store_explicit(&log->oldest_us, oldest_us, memory_order_relaxed);
    if (now_us >= log->numbers_us) {
        log->numbers_us = now_us + COUNT_US;
        count_held_back(log);
    }
}

static int64_t number_of(const json_t *object, const char *name)
{
    return (int64_t)json_integer_value(json_object_get(object, name));
}

static bool is(const json_t *object, const char *name, const char *text)
{
    const char *found = json_string_value(json_object_get(object, name));
    return found != NULL && strcmp(found, text) == 0;
}

/* Records that committed readers can see, above what was taken from the queue. Both are below 0 while they are not known. */
static void count_lag(const struct log *log, const json_t *topics, int64_t *steps, int64_t *inbox)
{
    for (size_t i = 0; i < log->partitions_count; i++) {
        const struct log_partition *partition = log->partitions[i];
        const json_t *of = json_object_get(json_object_get(topics, partition->of->name), "partitions");
        char name[16];
        (void)snprintf(name, sizeof name, "%d", (int)partition->number);
        const json_t *one = json_object_get(of, name);
        int64_t end = number_of(one, "ls_offset"), reached = number_of(one, "app_offset");
        if (reached < partition->base)
            reached = partition->base;
        if (end > reached)
            *(partition->of->topic == TOPIC_STEPS ? steps : inbox) += end - reached;
    }
}

int log_on_statistics(rd_kafka_t *consumer, char *text, size_t size, void *opaque)
{
    struct log *log = opaque;
    json_t *root = json_loadb(text, size, 0, NULL); /* not by json_read: librdkafka says some names twice */
    int64_t up = 0, steps = 0, inbox = 0;
    const char *name;
    json_t *broker;
    (void)consumer;
    json_object_foreach(json_object_get(root, "brokers"), name, broker)
        up += is(broker, "state", "UP") && !is(broker, "source", "logical"); /* the coordinator is one of the others */
    count_lag(log, json_object_get(root, "topics"), &steps, &inbox);
    json_decref(root);
    set(&log->brokers_up, up);
    atomic_store_explicit(&log->lag_steps, steps, memory_order_relaxed);
    atomic_store_explicit(&log->lag_inbox, inbox, memory_order_relaxed);
    return 0; /* librdkafka frees the text */
}

/* ---- the loop's side ---- */

void log_numbers(const struct log *log, struct log_numbers *numbers)
{
    int64_t oldest_us = atomic_load(&log->oldest_us);
    *numbers = (struct log_numbers){
        .partitions_owned = atomic_load(&log->partitions_owned),
        .records_in_flight = atomic_load(&log->records_in_flight),
        .waiting_for_commit = atomic_load(&log->waiting_for_commit),
        .commits = atomic_load(&log->commits),
        .aborts = atomic_load(&log->aborts),
        .producers_recreated = atomic_load(&log->producers_recreated),
        .window_used = (double)atomic_load(&log->window_span) / LOG_WINDOW_MAX,
        .oldest_s = oldest_us == INT64_MAX ? 0 : (double)(clock_mono_us() - oldest_us) / 1e6,
        .lag_steps = atomic_load(&log->lag_steps),
        .lag_inbox = atomic_load(&log->lag_inbox),
        .brokers_up = atomic_load(&log->brokers_up),
        .in_group = atomic_load(&log->in_group),
    };
    for (size_t i = 0; i < LOG_CREDITS; i++)
        numbers->held_back[i] = atomic_load(&log->held_back[i]);
}
