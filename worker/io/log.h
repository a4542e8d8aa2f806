/*
 * log.h: Kafka, as the loop sees it: step events come in, finished work goes out, exactly once.
 *
 * One thread of its own ("log") owns the consumer, the two transactional producers, rebalance and commit, so that a commit and a
 * revoke cannot race. Between it and the loop stand two bounded single-producer rings with an eventfd each. No function
 * here blocks, but for log_open and log_close.
 *
 * For each assigned partition the loop sees, in this order: LOG_ASSIGNED, then (inbox only) LOG_WAITING_ROW ... and
 * LOG_WAITING_END, then LOG_RECORD ..., at last LOG_REVOKED. `tenure` numbers that ownership; everything handed back carries
 * it, and what belongs to another tenure is dropped (I10).
 *
 * I1, I2: the records of a log_done, and that its source is done, become visible in one transaction. Those of steps.<pool> in
 * any order: beside the committed offset stands a map of what is done above it, and the next owner is not handed that again.
 * Those of an inbox in the order of their offsets, for a keeper's decision builds on the ones before: a finished one waits in
 * memory until all below it are finished.
 */
#ifndef MYELIN_IO_LOG_H
#define MYELIN_IO_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"

enum topic { TOPIC_STEPS, TOPIC_INBOX, TOPIC_WAITING, TOPIC_HISTORY, TOPIC_CONTROL, TOPIC_DEAD };

struct log_settings {
    const char *name_space;
    const char *slot;         /* stable name of this worker: transactional.id is NAMESPACE-SLOT-a, and -b */
    bool slot_pinned;         /* then also group.instance.id */
    const char *const *pools; /* topics steps.<pool> to subscribe to */
    size_t pools_count;
    bool serve_inbox;
    const char *const *properties; /* "name=value" for librdkafka; they win over the defaults here */
    size_t properties_count;
    int32_t in_flight_max; /* records handed to the loop, not finished and not waiting; ring capacity */
    int64_t
        trim_every_ms; /* how often what is committed of steps and inbox is deleted; only what was so by the last time */
    int64_t control_ready_ms; /* how long log_open waits for the brokers and for `control` */
};

struct log;

/* Connects, checks the topics, fences the previous holder of the slot (init_transactions), starts the thread and joins the
 * group. NULL with `error` (ERROR_FATAL; says what to do: "run: myelin topics create"). Settings are copied. */
struct log *log_open(const struct log_settings *settings, struct error *error);

enum log_event_kind {
    LOG_RECORD,  /* a record of steps.<pool> or inbox */
    LOG_CONTROL, /* a record of `control`, of all partitions, without tenure */
    LOG_CONTROL_END, /* control was read to its high watermark as of log_open, or of log_read_control; `offset`: its number */
    LOG_ASSIGNED,
    LOG_WAITING_ROW, /* a row of `waiting`; value.data == NULL: tombstone */
    LOG_WAITING_END, /* the keeper's table is complete up to the high watermark */
    LOG_BACKLOG_END, /* inbox: its records below the high watermark at assignment were all handed over (at once when there
                         were none): timers may fire from now on */
    LOG_REVOKED,     /* stop: what is done was or will be committed by the log thread; answer with log_release */
    LOG_LOST,        /* as LOG_REVOKED, but nothing of it can be committed any more */
    LOG_REFUSED, /* the brokers will never take the records of that log_done (too large, no such topic): `reason` says why,
                         `offset` which, `key` its run. Nothing of it was written. The record is with the loop again until
                         log_done is called for this offset with records that say so; in an inbox all behind it waits for
                         that. A timer's (offset -1) is dropped: say so in another */
    LOG_COMMITTED, /* for observers: one transaction was committed */
    LOG_PLACED,    /* records that were handed over with a ticket are committed: `placed` says where they lie */
    LOG_STOPPED,   /* all is committed that could be (after log_stop); or a fatal error: `reason` says which */
};

/* Where a record lies now, and stays. */
struct log_ticket {
    int64_t ticket, offset;
};

struct log_event {
    enum log_event_kind kind;
    enum topic topic;       /* TOPIC_STEPS or TOPIC_INBOX for RECORD/ASSIGNED/REVOKED/LOST */
    const char *topic_name; /* valid as long as the log */
    int32_t partition;
    int64_t tenure;
    int64_t offset;        /* RECORD: its own; ASSIGNED: where it starts */
    int64_t kept;          /* ASSIGNED, steps: our tenure before, when nobody committed for it in between; 0 = none */
    int64_t timestamp_ms;  /* RECORD: the broker's or the producer's */
    bool suspect;          /* RECORD: below the high watermark at assignment: an earlier owner may have started it */
    struct str key, value; /* owned by the event until log_event_free */
    void *memory;          /* what log_event_free frees */
    int64_t commit_us;     /* COMMITTED: from begin to confirmed; 0 = was in doubt */
    int32_t commit_steps;  /* COMMITTED: source records finished by it */
    const struct log_ticket *placed; /* PLACED: owned as `value` */
    size_t placed_count;
    const char *reason; /* REFUSED; STOPPED: NULL, or of a fatal error. Owned as `value` */
};

int log_fd(const struct log *log);                       /* readable when log_next has something */
bool log_next(struct log *log, struct log_event *event); /* false: nothing now (and the fd is drained) */
void log_event_free(struct log_event *event);

/*
 * Where one record of a log_done names another one: LOG_PLACE_SIZE bytes of its value, which the log fills in with partition and
 * offset of that one, in whatever transaction both are committed at last (an abort changes them). They are an int and a
 * long of Avro, in as many bytes as those ever take: so they can be exchanged, and a reader need not know. INT32_MIN and
 * INT64_MIN, encoded, leave just that room.
 */
#define LOG_PLACE_SIZE ((size_t)15)
struct log_place {
    size_t of; /* the record that is named: its index. It comes before all records that name one */
    size_t at; /* in the value of the one that names it */
};

struct log_record {
    enum topic topic;
    struct str pool;   /* TOPIC_STEPS */
    int32_t partition; /* -1: by the run id (murmur2); else this one (waiting: that of the inbox) */
    struct str run;    /* decides the partition */
    struct str key;    /* the record's key; STR_NONE = the run id */
    struct str value;  /* data == NULL: tombstone */
    const struct log_place *places;
    size_t places_count;
    int64_t ticket; /* of the caller: LOG_PLACED tells it with the offset, when it is committed; 0 = not wanted */
};

/* This source record is finished: its records and its offset go into one transaction. Offset -1: a decision without a
 * source record (a timer): the position of `topic`/`partition` is committed again with the next commit_seq, so that an owner
 * that was replaced is fenced. Copies all it needs. */
void log_done(struct log *log, const struct log_event *source, const struct log_record *records, size_t count);

/* After LOG_REVOKED or LOG_LOST: every log_done of that tenure has been handed over. */
void log_release(struct log *log, int64_t tenure);

/* Of the records of steps that were handed over, so many wait for others of their kind to end, and do not count as in flight. */
void log_waiting(struct log *log, int32_t steps);

/* Reads `control` to its high watermark of now, or a later one. Returns the number of this reading, from 1 on: it has ended with a
 * LOG_CONTROL_END of that number or a higher one. */
int64_t log_read_control(struct log *log);

/* I12: finish what is handed over, commit, leave the group; LOG_STOPPED follows. */
void log_stop(struct log *log);
void log_close(struct log *log);

enum log_credit { LOG_CREDIT_IN_FLIGHT, LOG_CREDIT_MEMORY, LOG_CREDIT_WINDOW, LOG_CREDITS };

/* For metrics and the log. What costs time to find out is up to 2 s old. */
struct log_numbers {
    int32_t partitions_owned, records_in_flight, waiting_for_commit;
    int64_t commits, aborts, producers_recreated;
    int32_t held_back[LOG_CREDITS]; /* records fetched, and not handed over for want of that */
    double window_used;             /* 0 to 1, of the partition that uses most of its */
    double oldest_s;                /* age of the oldest delivery that is not committed; 0 = none */
    int64_t lag_steps, lag_inbox;   /* records in the brokers' logs above what was handed over, as of the last fetch */
    int32_t brokers_up;             /* to which the consumer is connected */
    bool in_group;                  /* the group has given us our partitions, which may be none */
};
void log_numbers(const struct log *log, struct log_numbers *numbers);

#endif
