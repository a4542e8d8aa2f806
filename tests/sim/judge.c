#include "tests/sim/judge.h"

#include <inttypes.h>
#include <string.h>

#include "tests/sim/outside.h"
#include "tests/sim/redis.h"
#include "tests/sim/world.h"
#include "worker/base/hash.h"
#include "worker/core/decide.h"

/* Something that was sent to the workers, and what came of it. */
struct sent {
    struct sent *next;
    struct str text;
    struct str run; /* requests */
    int wanted, seen;
};

static struct {
    struct judged_run *runs;
    struct sent *requests, *garbage;
    struct sent *told; /* keys of writes that history tells of */
    int64_t read[TOPICS][PARTITIONS_MAX];
} judge;

void judge_open(void)
{
    memset(&judge, 0, sizeof(judge));
}

struct judged_run *judge_runs(void)
{
    return judge.runs;
}

struct judged_run *judge_run(struct str id)
{
    struct judged_run *run = judge.runs;
    while (run != NULL && !str_equal(run->id, id))
        run = run->next;
    if (run != NULL)
        return run;
    run = ARENA_NEW(world.arena, struct judged_run);
    *run = (struct judged_run){.next = judge.runs, .id = arena_str(world.arena, id)};
    return judge.runs = run;
}

static struct sent *sent(struct sent **list, struct str text)
{
    struct sent *one = *list;
    while (one != NULL && !str_equal(one->text, text))
        one = one->next;
    if (one != NULL)
        return one;
    one = ARENA_NEW(world.arena, struct sent);
    *one = (struct sent){.next = *list, .text = arena_str(world.arena, text)};
    return *list = one;
}

void judge_refused(struct str run)
{
    tell("the brokers refuse something of %.*s", STR_ARG(run));
    judge_run(run)->refused = true;
}

void judge_garbage(struct str value)
{
    sent(&judge.garbage, value)->wanted++;
}

void judge_asked(struct str request_id, struct str run)
{
    struct sent *request = sent(&judge.requests, request_id);
    request->run = arena_str(world.arena, run);
    request->wanted++;
}

/* ---- offsets: I2 ---- */

struct position {
    struct offset_meta meta;
    int64_t offset;
};

static struct position position_of(const struct stored_offset *stored)
{
    struct position position = {.offset = stored->offset};
    struct error error;
    if (!offset_meta_read(str_of(stored->metadata), stored->offset, &position.meta, &error))
        wrong("an offset's metadata cannot be read: %s", error.text);
    return position;
}

static bool is_done(const struct position *position, int64_t offset)
{
    return offset < position->offset || offset_map_has(&position->meta.done, offset - position->offset);
}

void judge_offset(enum topic topic, int32_t number, const struct stored_offset *before,
                  const struct stored_offset *after)
{
    struct position old = position_of(before), new = position_of(after);
    if (new.meta.commit_seq != old.meta.commit_seq + 1)
        wrong("%s %d: commit_seq went from %" PRId64 " to %" PRId64, broker_topic_name(topic), number,
              old.meta.commit_seq, new.meta.commit_seq);
    for (int64_t i = old.offset; i < old.offset + old.meta.done.span || i < new.offset; i++)
        if (is_done(&old, i) && !is_done(&new, i))
            wrong("%s %d: offset %" PRId64 " was done and is not any more", broker_topic_name(topic), number, i);
}

/* ---- facts ---- */

static void check_tool_answered(const struct fact *fact)
{
    const struct fact_tool_answered *answered = &fact->is.tool_answered;
    if (!str_is(answered->effect, "write") || world.apart) /* then nobody here knows what was executed */
        return;
    sent(&judge.told, answered->key);
    if (outside_executed(answered->key) == 0)
        wrong("run %.*s, seq %" PRId64 ": %.*s is said to be done and never was", STR_ARG(fact->run), fact->seq,
              STR_ARG(answered->tool));
    struct str record = arena_printf(world.arena, "{sim}:w:%.*s", STR_ARG(answered->key));
    if (answered->origin == ORIGIN_CALLED && !redis_was_done(record)) /* I4 */
        wrong("run %.*s, seq %" PRId64 ": committed before its result was stored", STR_ARG(fact->run), fact->seq);
}

/* I5: what settles a doubt is what the contract says, or the result itself. */
static void check_doubt_settled(const struct fact *fact)
{
    const struct fact_doubt_settled *settled = &fact->is.doubt_settled;
    bool may = str_is(settled->how, "person") || str_is(settled->how, "ledger") ||
               (str_is(settled->tool, "note") && str_is(settled->how, "retry")) ||
               (str_is(settled->tool, "book") && str_is(settled->how, "probe"));
    /* After "not done" the call is made anew. */
    may = may || (str_is(settled->how, "retry") && str_is(settled->outcome, "done") && str_is(settled->tool, "book"));
    if (!may)
        wrong("run %.*s, seq %" PRId64 ": %.*s must not be settled by %.*s", STR_ARG(fact->run), fact->seq,
              STR_ARG(settled->tool), STR_ARG(settled->how));
}

static void check_order(struct judged_run *run, const struct fact *fact)
{
    if (fact->seq != run->facts)
        wrong("run %.*s: fact %s has seq %" PRId64 ", expected %" PRId64, STR_ARG(fact->run),
              fact_kind_name(fact->kind), fact->seq, run->facts);
    if (run->ended)
        wrong("run %.*s: fact %s after its end", STR_ARG(fact->run), fact_kind_name(fact->kind));
    if (run->forgotten && fact->source_offset < 0)
        wrong("run %.*s: fact %s of a timer after it was forgotten", STR_ARG(fact->run), fact_kind_name(fact->kind));
    run->facts++;
    run->started = true;
}

static void waits(struct judged_run *run, const struct fact *fact)
{
    const struct fact_step_waiting *waiting = &fact->is.step_waiting;
    run->waits = !str_is(waiting->waits_for, "timer");
    run->waits_for = str_is(waiting->waits_for, "approval") ? WAITS_APPROVAL : WAITS_RESOLUTION;
    run->step = arena_str(world.arena, fact->step);
    run->visit = fact->visit;
    run->args_hash = arena_str(world.arena, waiting->args_hash);
    run->key = arena_str(world.arena, waiting->key);
}

static void judge_fact(const struct fact *fact)
{
    if (fact->seq < 0) {
        sent(&judge.requests, fact->is.request_answered.request_id)->seen++;
        return;
    }
    struct judged_run *run = judge_run(fact->run);
    tell("  %.*s %" PRId64 " %s %.*s", STR_ARG(fact->run), fact->seq, fact_kind_name(fact->kind), STR_ARG(fact->step));
    check_order(run, fact);
    run->waits = false;
    switch (fact->kind) {
    case FACT_TOOL_ANSWERED:
        check_tool_answered(fact);
        break;
    case FACT_CALL_FAILED: /* and a worker that lost the partition may make it after all: see README.md */
        sent(&judge.told, fact->is.call_failed.key);
        break;
    case FACT_IN_DOUBT:
        sent(&judge.told, fact->is.in_doubt.key);
        break;
    case FACT_DOUBT_SETTLED:
        check_doubt_settled(fact);
        break;
    case FACT_STEP_WAITING:
        waits(run, fact);
        break;
    case FACT_RUN_ENDED:
        run->ended = true;
        run->unasked = fact->is.run_ended.reason.data != NULL &&
                       strstr(fact->is.run_ended.reason.data, DECIDE_MAY_HAVE_WRITTEN) != NULL;
        if (fact->is.run_ended.reason.data != NULL && strstr(fact->is.run_ended.reason.data, "cannot be had") != NULL)
            wrong("run %.*s: %.*s", STR_ARG(fact->run), STR_ARG(fact->is.run_ended.reason));
        break;
    default:
        break;
    }
}

/* ---- dead: I9 ---- */

/* Workers died with it in their hands, or seemed to; or Redis lost that they did not. See worker/alone.c. */
static bool died_of(const struct dead_letter *letter)
{
    struct str parts[] = {letter->source_topic, letter->key, letter->value};
    struct str count = arena_printf(world.arena, "{sim}:d:%s", hash_parts(world.arena, parts, 3).data);
    int mishaps = redis_lost_counts(count);
    for (int32_t i = 0; i < broker_partitions(TOPIC_STEPS); i++)
        for (int64_t offset = 0; offset < broker_end(TOPIC_STEPS, i); offset++)
            if (str_equal(broker_at(TOPIC_STEPS, i, offset)->value, letter->value))
                mishaps += broker_at(TOPIC_STEPS, i, offset)->mishaps;
    return strncmp(letter->reason.data, "its worker died", 15) == 0 && mishaps >= 2;
}

static void judge_dead(const struct dead_letter *letter)
{
    struct sent *garbage = judge.garbage;
    while (garbage != NULL && !str_equal(garbage->text, letter->value))
        garbage = garbage->next;
    tell("dead: %.*s", STR_ARG(letter->reason));
    if (garbage != NULL)
        garbage->seen++;
    else if (died_of(letter))
        judge_run(letter->run)->refused = true;
    else if (letter->run.data == NULL || !judge_run(letter->run)->refused)
        wrong("run %.*s: in dead without cause: %.*s", STR_ARG(letter->run), STR_ARG(letter->reason));
}

/* ---- what step events name ---- */

static void check_reference(const struct run *run, const struct reference *at)
{
    unsigned char digest[HASH_SIZE];
    if (at == NULL)
        return;
    bool there = at->partition >= 0 && at->partition < broker_partitions(TOPIC_HISTORY) && at->offset >= 0 &&
                 at->offset < broker_end(TOPIC_HISTORY, at->partition);
    const struct logged *named = there ? broker_read(TOPIC_HISTORY, at->partition, at->offset) : NULL;
    if (named != NULL)
        hash_sha256_raw(named->value, digest);
    if (named == NULL || at->sha256.size != HASH_SIZE || memcmp(at->sha256.data, digest, HASH_SIZE) != 0)
        wrong("run %.*s: its step %.*s names %d:%" PRId64 " in history, which is not there", STR_ARG(run->id),
              STR_ARG(run->at.step), (int)at->partition, at->offset);
}

/* I1: what a step event names is committed with it, or was before. */
static void judge_event(struct str event, struct arena *arena)
{
    struct record record;
    struct error error;
    if (!record_decode(event, arena, &record, &error))
        return; /* garbage */
    if (record.type == RECORD_STEP_PARKED)
        judge_event(record.is.step_parked.event, arena);
    if (record.type != RECORD_STEP_READY)
        return;
    const struct run *run = &record.is.step_ready;
    check_reference(run, run->input_at);
    check_reference(run, run->at.chain);
    for (size_t i = 0; i < run->steps_count; i++)
        check_reference(run, run->steps[i].output_at);
}

/* ---- records ---- */

/* The keeper's row of a run is deleted: nothing of it waits any more. */
static void judge_row(const struct logged *row)
{
    if (row->value.data == NULL && memchr(row->key.data, '/', row->key.size) == NULL)
        judge_run(row->key)->forgotten = true;
}

static void judge_message(enum topic topic, const struct logged *message)
{
    if (topic == TOPIC_WAITING) {
        judge_row(message);
        return;
    }
    struct arena *arena = arena_new();
    struct record record;
    struct error error;
    if (topic == TOPIC_STEPS || topic == TOPIC_INBOX) {
        judge_event(message->value, arena);
        arena_free(arena);
        return;
    }
    if (!record_decode(message->value, arena, &record, &error))
        wrong("%s holds what cannot be read: %s", broker_topic_name(topic), error.text);
    if (topic == TOPIC_HISTORY)
        judge_fact(&record.is.fact);
    else
        judge_dead(&record.is.dead_letter);
    arena_free(arena);
}

/* I1: whatever is in it is visible now. Facts are judged in the order of the log, which is that of the commits. */
void judge_read(void)
{
    static const enum topic topics[] = {TOPIC_HISTORY, TOPIC_DEAD, TOPIC_STEPS, TOPIC_INBOX, TOPIC_WAITING};
    for (size_t t = 0; t < sizeof(topics) / sizeof(topics[0]); t++)
        for (int32_t i = 0; i < broker_partitions(topics[t]); i++) {
            int64_t *read = &judge.read[topics[t]][i], stable = broker_stable(topics[t], i);
            for (; *read < stable; ++*read) {
                const struct logged *message = broker_read(topics[t], i, *read);
                if (message != NULL)
                    judge_message(topics[t], message);
            }
        }
}

/* ---- the end ---- */

/* Whoever asks is answered once; but when the brokers refuse the answer, `dead` says so. */
static bool is_seen(const struct sent *one)
{
    bool may_lack = one->run.data != NULL && judge_run(one->run)->refused;
    return one->seen == one->wanted || (may_lack && one->seen < one->wanted);
}

static bool all_seen(const struct sent *list)
{
    for (; list != NULL; list = list->next)
        if (!is_seen(list))
            return false;
    return true;
}

/* The first that is not done, or the end. */
static int64_t open_at(enum topic topic, int32_t number)
{
    struct stored_offset stored;
    (void)broker_committed(topic, number, &stored);
    struct position position = position_of(&stored);
    int64_t offset = stored.offset;
    while (offset < broker_end(topic, number) &&
           (is_done(&position, offset) || broker_read(topic, number, offset) == NULL))
        offset++;
    return offset;
}

static bool all_consumed(void)
{
    for (enum topic topic = TOPIC_STEPS; topic <= TOPIC_INBOX; topic++)
        for (int32_t i = 0; i < broker_partitions(topic); i++)
            if (open_at(topic, i) < broker_end(topic, i))
                return false;
    return true;
}

bool judge_all_ended(void)
{
    for (const struct judged_run *run = judge.runs; run != NULL; run = run->next)
        if (!run->ended && !run->refused)
            return false;
    return all_consumed() && all_seen(judge.requests) && all_seen(judge.garbage);
}

static void told(struct str tool, struct str key, struct str run)
{
    const struct sent *one = judge.told;
    while (one != NULL && !str_equal(one->text, key))
        one = one->next;
    if (one == NULL && !judge_run(run)->refused && !judge_run(run)->unasked)
        wrong("%.*s was executed for run %.*s (key %.*s), and history does not tell of it", STR_ARG(tool), STR_ARG(run),
              STR_ARG(key));
}

void judge_end(void)
{
    for (const struct judged_run *run = judge.runs; run != NULL; run = run->next)
        if (!run->ended && !run->refused)
            wrong("run %.*s neither ends nor waits for anybody: %" PRId64 " facts", STR_ARG(run->id), run->facts);
    for (enum topic topic = TOPIC_STEPS; topic <= TOPIC_INBOX; topic++)
        for (int32_t i = 0; i < broker_partitions(topic); i++)
            if (open_at(topic, i) < broker_end(topic, i))
                wrong("%s %d: offset %" PRId64 " is never done", broker_topic_name(topic), i, open_at(topic, i));
    for (const struct sent *one = judge.requests; one != NULL; one = one->next)
        if (!is_seen(one))
            wrong("request %.*s: %d sent, %d answered", STR_ARG(one->text), one->wanted, one->seen);
    for (const struct sent *one = judge.garbage; one != NULL; one = one->next)
        if (!is_seen(one))
            wrong("garbage: %d sent, %d in dead", one->wanted, one->seen);
    outside_each(told);
}
