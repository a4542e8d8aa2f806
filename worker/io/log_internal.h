/*
 * log_internal.h: what the parts of log.c share. Nobody else includes this.
 *
 *   log.c            the loop's side: what log.h declares, the two rings
 *   log_open.c       connecting: handles, topics, partition counts
 *   log_thread.c     the log thread: its turn, its sleep, records from queues to the loop
 *   log_rebalance.c  assign (the barrier, what is served, where it starts) and revoke (commit, let go)
 *   log_partition.c  the partitions that are ours
 *   log_barrier.c    asks for committed offsets, on a thread of its own
 *   log_reader.c     `control`, and the keeper's rows of `waiting`
 *   log_commit.c     the burst: begin, produce, send offsets, commit; what an error means
 *   log_send.c       a transaction's offsets, by a thread that may not come back
 *   log_place.c      where records lie, as the delivery reports say
 *   log_producer.c   the two transactional producers: made, warmed up, re-created; whose turn it is
 *   log_doubt.c      a doubtful commit settled; who has the slot
 *   log_trim.c       deletes what is committed
 *   log_numbers.c    what is told of all this
 *   log_window.c, log_carry.c, log_block.c, log_ring.c, offset_meta.c, offset_map.c   pure parts
 *
 * `struct log` is split by thread: what the loop thread owns, what the log thread owns, and what both may touch.
 */
#ifndef MYELIN_IO_LOG_INTERNAL_H
#define MYELIN_IO_LOG_INTERNAL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "worker/io/log.h"
#include "worker/io/log_block.h"
#include "worker/io/log_ring.h"
#include "worker/io/log_window.h"

/* I7 */
#define LOG_WINDOW_MAX OFFSET_MAP_WINDOW        /* offsets from the lowest that is not done, of one partition */
#define LOG_CARRY_AT (LOG_WINDOW_MAX / 4 * 3)   /* a record that lags so far behind is appended again */
#define LOG_ADRIFT_BYTES_MAX (16 * 1024 * 1024) /* of one partition, of carried records; above it no more are carried */
#define LOG_BURST_WORKS_MAX 5000                /* of one transaction */
#define LOG_BURST_BYTES_MAX (8 * 1024 * 1024)
#define LOG_BATCH_MAX 512     /* messages taken from one queue at a time */
#define LOG_RELEASE_MS 1000   /* how long the loop has to answer LOG_REVOKED */
#define LOG_LEAVE_MS 4000     /* how long a revoke may take in all */
#define LOG_LOUD_MS 10000     /* how often a partition that is not served is complained about */
#define LOG_TAINT_US 400000   /* longer than any answer takes that was not asked for twice */
#define LOG_TRIM_RECORDS 1000 /* fewer offsets are not worth a request */
#define LOG_SLICE_MS 500      /* the longest that a blocking request keeps the consumer waiting */

/* How we left a partition. */
struct log_left {
    int64_t tenure, seq; /* 0: we never had it */
};

/* A topic that records go to or come from. */
struct log_topic {
    enum topic topic;
    char *name; /* whole; never moves */
    char *pool; /* steps; else NULL */
    int32_t partitions;
    bool subscribed;
    struct log_left *left; /* by partition */
    size_t index;          /* in log->topics, and in those of each producer */
};

enum log_stage {
    STAGE_BARRIER,  /* its committed offset is asked for; nothing is fetched */
    STAGE_UNSERVED, /* something is wrong with it: it waits for a person */
    STAGE_REBUILD,  /* inbox: the rows of `waiting` come first */
    STAGE_SERVING,
};

struct log_partition {
    struct log_topic *of;
    int32_t number;
    int64_t tenure;
    enum log_stage stage;
    bool asked;       /* the request under way asks for its committed offset */
    bool told;        /* the loop knows that we have it */
    bool leaving;     /* the loop was told that we let it go */
    bool released;    /* and has handed over the last of it */
    int64_t retry_us; /* STAGE_BARRIER, STAGE_UNSERVED: when to ask (again) */
    int64_t loud_us;  /* when to complain again */
    char why[512];    /* STAGE_UNSERVED */

    rd_kafka_queue_t *queue; /* split off the consumer's; of log->queues; NULL until it is assigned */
    int64_t base, seq;       /* the committed offset and its commit_seq */
    int64_t begin;           /* where its log begins, as far as we know */
    int64_t trim_to;         /* what was committed when it was last looked for what to delete */
    int64_t suspect_below;   /* the high watermark at assignment */
    bool backlog_told;       /* inbox: LOG_BACKLOG_END was sent */
    int64_t waiting_end;     /* STAGE_REBUILD: the high watermark of its partition of `waiting` */
    int64_t waiting_reached;
    struct log_window window;
    size_t burst; /* works of `window.ready` in the transaction under way or in doubt; 0 = it is not in it */
    int64_t burst_base;
    int64_t held_us; /* 0, or: its first work fails by itself, and is tried again by itself, not before */
};

/* A partition's queue outlives its tenure: what librdkafka still puts into it must be taken out at the end, or the consumer
 * cannot be destroyed (librdkafka before 2.6.1, issue 4724, when a topic was deleted). */
struct log_queue {
    const struct log_topic *of;
    int32_t number;
    rd_kafka_queue_t *queue;
};

/* One request for committed offsets at a time. */
struct log_barrier {
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    rd_kafka_topic_partition_list_t *asked, *answer; /* owned */
    bool quit;

    bool started;
    bool busy; /* the log thread's: asked, and not answered yet */
};

enum log_producer_state {
    PRODUCER_MAKING, /* a thread makes it (anew); it is the only one to touch it */
    PRODUCER_FENCED, /* the same, but init_transactions has returned: what the one before it left is decided */
    PRODUCER_READY,  /* the log thread's */
    PRODUCER_FAILED, /* the thread gave up: `error` */
};

struct log_producer_topic {
    char *name; /* of struct log_topic */
    rd_kafka_topic_t *handle;
};

/* One of the two that take turns. */
struct log_producer {
    struct log *log;
    char id[300]; /* transactional.id */
    atomic_int state;
    pthread_t thread; /* MAKING, FENCED */
    bool threaded;    /* and not joined yet */

    rd_kafka_t *handle;
    struct log_producer_topic *topics; /* as log->topics, and perhaps fewer */
    size_t topics_count;
    struct log_sender *sender; /* log_send.c's; NULL: there was no transaction yet */
    bool stuck;                /* its call into the handle has not come back: see log_send_abandon */
    int64_t timeout_ms;        /* transaction.timeout.ms */
    int64_t loud_us;
    bool tainted;                      /* a late copy of one of its requests may hit its next transaction */
    size_t unreported;                 /* records of its transaction without a delivery report that says yes */
    rd_kafka_resp_err_t report_failed; /* first delivery report of its transaction that says no */
    struct error error;                /* why it is not ready */
};

#define LOG_PRODUCERS 2

/* A record of the transaction under way or in doubt whose place is wanted: others name it, it is a carry, or has a ticket. */
struct log_placed {
    int64_t tenure, carry, ticket;
    int64_t of; /* the offset of the record that is carried */
    int32_t partition;
    int64_t offset; /* -1: its delivery report is missing, or did not say where */
};

struct log {
    /* ---- set by log_open ---- */
    char *name_space, *slot;
    bool slot_pinned;
    char **properties;
    size_t properties_count;
    int32_t in_flight_max;
    int64_t trim_every_ms;
    pthread_t thread;
    bool started;

    /* ---- the loop thread's ---- */
    struct log_works backlog; /* did not fit into the ring */
    int64_t control_asked;    /* readings */

    /* ---- both ---- */
    struct log_ring to_loop; /* struct log_event */
    struct log_ring to_log;  /* struct log_work */
    atomic_bool quit;        /* log_close: end at once */
    atomic_bool disconnect;  /* producers in the making: give up */
    atomic_int partitions_owned, records_in_flight, waiting_for_commit, window_span, brokers_up;
    atomic_int held_back[LOG_CREDITS];
    atomic_llong commits, aborts, producers_recreated, oldest_us, lag_steps, lag_inbox;
    atomic_bool in_group;
    atomic_int waiting_steps; /* with the loop, and not in flight */

    /* ---- the log thread's ---- */
    int wake_fd;               /* eventfd: some queue of librdkafka has something */
    struct log_event **outbox; /* did not fit into the ring; ring buffer of its own */
    size_t outbox_capacity, outbox_head, outbox_count;
    struct log_topic **topics;
    size_t topics_count;
    int64_t topics_asked_us;

    rd_kafka_t *consumer;
    rd_kafka_queue_t *consumer_queue;
    struct log_barrier barrier;
    bool joined;
    bool consumer_broken;              /* it is to be made anew */
    int64_t join_us;                   /* not before */
    int fences_in_a_row;               /* of the consumer, without an assignment in between */
    struct log_partition **partitions; /* by tenure */
    size_t partitions_count, partitions_capacity;
    struct log_queue *queues; /* of every partition that was ever assigned */
    size_t queues_count;
    size_t next_queue; /* where to begin: queues take turns */
    int64_t last_tenure;
    int64_t with_loop_steps; /* credits in use */
    int64_t last_carry;      /* numbers the attempts */
    bool no_memory;          /* no steps were handed over for want of it */
    int64_t numbers_us;      /* when to count again what is costly to count */

    rd_kafka_t *reader; /* read_committed, no group: `control` and `waiting` */
    rd_kafka_t *ruler;  /* read_uncommitted, no group: high watermarks */
    rd_kafka_queue_t *reader_queue;
    rd_kafka_topic_t *control, *waiting;
    const char *control_name, *waiting_name;
    int64_t control_end; /* where LOG_CONTROL_END is due; -1: not due */
    int64_t control_reached;
    int64_t control_wanted;  /* the reading whose control_end must be asked for; -1: none */
    int64_t control_reading; /* the one that control_end is of */
    bool control_known;      /* it was read once */

    rd_kafka_queue_t *trim_queue; /* of `ruler`: answers */
    bool trim_asked;              /* and not answered yet */
    bool trim_failed;             /* the last time; it was said */
    int64_t trim_due_us;

    struct log_producer producers[LOG_PRODUCERS]; /* -a, -b */
    size_t turn;                                  /* whose it is */
    struct log_producer
        *doubt; /* its transaction, that of partitions' `burst`, may have been committed: nothing else may be */
    int64_t doubt_retry_us, doubt_loud_us;
    bool fenced_once;                /* the last transaction was fenced, and taken for a doubt */
    rd_kafka_resp_err_t failed_code; /* why the last transaction failed */
    char failed_text[512];
    int64_t commit_retry_us;
    int aborts_in_a_row;
    rd_kafka_resp_err_t before_code; /* why the one before it did; 0 after a commit */
    struct log_placed *placed;       /* a delivery report finds its own by its number: log_place.c */
    size_t placed_count, placed_capacity;
    int64_t placed_before; /* numbers given in transactions before: their reports may still come, and find nothing */
    size_t burst_max;
    bool apart; /* the next transaction, of one work: each record in a batch of its own */

    bool stopping, stopped, failed;
    struct error error; /* `failed` */
};

/* ---- log_open.c ---- */
bool log_connect(struct log *log, const struct log_settings *settings, struct error *error);
void log_disconnect(struct log *log);
bool log_consumer_open(struct log *log, struct error *error);
void log_consumer_close(struct log *log); /* leaves the group, when it is a dynamic member of it */
/* NULL: there is no such topic. `pool` only for steps. */
struct log_topic *log_topic_find(const struct log *log, enum topic topic, struct str pool);
/* As log_topic_find, and asks the cluster when a pool is new (at most once a second). */
struct log_topic *log_topic_resolve(struct log *log, enum topic topic, struct str pool);
struct log_topic *log_topic_named(const struct log *log, const char *name);

/* ---- log_thread.c ---- */
void *log_thread(void *argument); /* the struct log */
/* With `extra` zeroed bytes behind it, for texts. */
struct log_event *log_event_new(enum log_event_kind kind, const struct log_partition *partition, size_t extra);
void log_push(struct log *log, struct log_event *event); /* takes; never fails, keeps the order */
/* An event with a copy of the message's key and value (each with its NUL). Does not take the message. */
struct log_event *log_event_of(enum log_event_kind kind, const rd_kafka_message_t *message);
void log_flush(struct log *log);
bool log_take_commands(struct log *log); /* true: there were some */
void log_sleep(struct log *log, int64_t until_us);
void log_fail(struct log *log, const struct error *error); /* the thread ends with it */

/* ---- log_rebalance.c ---- */
void log_on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t what, rd_kafka_topic_partition_list_t *list,
                      void *opaque);
bool log_barrier_serve(struct log *log); /* true: something changed */
/* Tells the loop to let go of these partitions (NULL: of all), waits for it, commits what is done, forgets them. */
void log_leave(struct log *log, rd_kafka_topic_partition_list_t *taken);
void log_partitions_free(struct log *log);
void log_lose_all(struct log *log);    /* they are somebody else's already */
void log_queues_free(struct log *log); /* once the consumer is closed */
void log_unserve(struct log_partition *partition, const char *why);

/* ---- log_partition.c ---- */
struct log_partition *log_partition_of(const struct log *log, int64_t tenure);
struct log_partition *log_partition_find(const struct log *log, const char *topic, int32_t number);

/* ---- log_barrier.c ---- */
bool log_barrier_open(struct log *log);
void log_barrier_close(struct log *log); /* before the consumer is destroyed */
/* Not while one is `busy`. Takes the list; it comes back with offset, metadata and err of each. */
void log_barrier_ask(struct log *log, rd_kafka_topic_partition_list_t *list);
rd_kafka_topic_partition_list_t *log_barrier_answer(struct log *log); /* NULL: not yet; the caller frees it */

/* ---- log_reader.c ---- */
bool log_reader_open(struct log *log, struct error *error);
bool log_reader_serve(struct log *log); /* true: there was something */
void log_rebuild_start(struct log *log, struct log_partition *partition);
void log_rebuild_stop(struct log *log, const struct log_partition *partition);

/* ---- log_commit.c ---- */
bool log_commit_serve(struct log *log); /* one transaction, if there is something to commit; true: there was */
void log_commit_confirmed(struct log *log, int64_t took_us); /* the burst is known to be committed */
void log_commit_failed(struct log *log);                     /* it is known not to be: what failed in it is looked at */
bool log_commit_leaving(const struct log *log);   /* something of a partition that is let go is not committed */
int64_t log_commit_due_us(const struct log *log); /* when there is something to commit; INT64_MAX: nothing */
void log_on_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque);

/* ---- log_place.c ---- */
void log_place_begin(struct log *log); /* a transaction begins: nothing is known yet */
/* The opaque of a record's message, by which log_place_report knows it again; NULL: nobody wants to know where it lies. */
void *log_place_await(struct log *log, struct log_work *work, size_t index);
void log_place_report(struct log *log, intptr_t number, int32_t partition, int64_t offset);
bool log_place_known(const struct log *log); /* all that is awaited was told */
/* Writes into the record where those lie that it names. */
void log_place_fill(const struct log *log, const struct log_work *work, const struct log_record *record);
void log_place_tell(struct log *log); /* the transaction is committed: LOG_PLACED to who gave tickets */

/* ---- log_producer.c ---- */
/* Both, made and warmed up, beside each other. */
bool log_producers_open(struct log *log, int64_t timeout_ms, struct error *error);
void log_producers_close(struct log *log);
/* Never blocks: a producer that cannot be used again is made anew by a thread. */
void log_producers_serve(struct log *log);
/* Who may begin a transaction now: the one whose turn it is, or the other one while that is made anew. NULL: nobody. */
struct log_producer *log_producer_next(struct log *log);
/* It cannot be used any more, and is made anew. */
void log_producer_remake(struct log_producer *producer);
/* Makes the producers know all topics of the table. */
void log_producers_topics(struct log *log);
rd_kafka_topic_t *log_producer_topic(struct log_producer *producer, const struct log_topic *topic);
/* A transaction that changes nothing: an offset of `control`, which the group does not consume, is sent and taken back. */
rd_kafka_error_t *log_producer_try(struct log_producer *producer, int timeout_ms);

/* ---- log_send.c ---- */
/* As rd_kafka_send_offsets_to_transaction, takes list and group, and comes back: when librdkafka does not, the producer is `stuck` and
 * can only be discarded, and whether the offsets were sent is not known. */
rd_kafka_error_t *log_send_offsets(struct log_producer *producer, rd_kafka_topic_partition_list_t *list,
                                   rd_kafka_consumer_group_metadata_t *group, int timeout_ms);
/* Of a producer that is stuck: true: its handle is gone with the call that is stuck in it. False: the call has come back by now. */
bool log_send_abandon(struct log_producer *producer);
void log_send_close(struct log_producer *producer); /* not of one that is stuck */

/* ---- log_trim.c ---- */
void log_trim_serve(struct log *log); /* never blocks */

/* ---- log_numbers.c ---- */
void log_numbers_publish(struct log *log); /* from the log thread, for log_numbers */
/* librdkafka's statistics, of the consumer. */
int log_on_statistics(rd_kafka_t *consumer, char *text, size_t size, void *opaque);

/* ---- log_doubt.c ---- */
void log_doubt_serve(struct log *log); /* settles it, when it can be; blocks for at most LOG_SLICE_MS */
/* ▲ Of all live processes that were started with our slot, the one whose producer -a was made last has it. */
bool log_holds_slot(struct log *log);

#endif
