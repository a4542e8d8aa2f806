#include "worker/worker.h"

#include <string.h>

#include "worker/base/hash.h"
#include "worker/base/logline.h"
#include "worker/io/clock.h"

/* What one record may take: message.max.bytes of a broker with default settings, less room for its frame. */
#define RECORD_SIZE_MAX ((size_t)1000 << 10)

void commit_open(struct commit *commit, struct worker *worker, struct arena *arena, const struct log_event *source)
{
    *commit = (struct commit){.worker = worker, .arena = arena, .source = source};
}

static struct str encode(struct commit *commit, enum record_type type, const void *object, size_t size_max)
{
    struct buf buf;
    buf_init(&buf, size_max);
    struct str bytes = STR_NONE;
    if (!commit->failed && record_encode(type, object, &buf, &commit->error))
        bytes = arena_str(commit->arena, buf_str(&buf));
    else
        commit->failed = true;
    buf_free(&buf);
    return bytes;
}

static void add(struct commit *commit, struct log_record record)
{
    if (commit->count == commit->capacity) {
        commit->capacity = commit->capacity == 0 ? 8 : commit->capacity * 2;
        struct log_record *records = ARENA_ARRAY(commit->arena, commit->capacity, struct log_record);
        if (commit->count > 0)
            memcpy(records, commit->records, commit->count * sizeof(records[0]));
        commit->records = records;
    }
    commit->records[commit->count++] = record;
}

void commit_fact(struct commit *commit, struct fact *fact)
{
    fact->worker = str_of(commit->worker->name);
    fact->source_topic = str_of(commit->source->topic_name);
    fact->source_partition = commit->source->partition;
    fact->source_offset = commit->source->offset;
    struct counted *counted = ARENA_NEW(commit->arena, struct counted);
    *counted = (struct counted){.next = commit->counted, .fact = *fact};
    commit->counted = counted;
    add(commit, (struct log_record){
                    .topic = TOPIC_HISTORY,
                    .partition = -1,
                    .run = fact->run,
                    .value = encode(commit, RECORD_FACT, fact, RECORD_SIZE_MAX),
                });
}

struct str commit_row_body(struct commit *commit, enum record_type type, const void *row)
{
    return encode(commit, type, row, RECORD_SIZE_MAX);
}

void commit_row(struct commit *commit, struct str run, struct str key, struct str body, int64_t ticket)
{
    add(commit, (struct log_record){
                    .topic = TOPIC_WAITING,
                    .partition = commit->source->partition,
                    .run = run,
                    .key = key,
                    .value = body,
                    .ticket = ticket,
                });
}

/* The state names facts of this plan: all but where they lie, which the log will know. */
static void name_facts(struct commit *commit, const struct plan *plan, size_t first)
{
    for (size_t i = 0; i < plan->stored_count && !commit->failed; i++) {
        struct str value = commit->records[first + plan->stored[i].fact].value;
        unsigned char *digest = arena_alloc(commit->arena, HASH_SIZE);
        hash_sha256_raw(value, digest);
        payload_keep(commit->worker->payloads, digest, value);
        *plan->stored[i].at = (struct reference){
            .sha256 = {(const char *)digest, HASH_SIZE},
            .partition = INT32_MIN, /* as long as they can get: see struct log_place */
            .offset = INT64_MIN,
            .size = (int32_t)value.size,
        };
    }
}

void commit_places(struct arena *arena, const struct plan *plan, size_t first, struct log_record *record)
{
    const char *end = record->value.data + record->value.size;
    for (size_t i = 0; i < plan->stored_count; i++) {
        const char *hash = record->value.data, *wanted = plan->stored[i].at->sha256.data;
        while ((hash = memmem(hash, (size_t)(end - hash), wanted, HASH_SIZE)) != NULL) {
            struct log_place *places = ARENA_ARRAY(arena, record->places_count + 1, struct log_place);
            if (record->places_count > 0)
                memcpy(places, record->places, record->places_count * sizeof(places[0]));
            hash += HASH_SIZE;
            places[record->places_count++] = (struct log_place){.of = first + plan->stored[i].fact,
                                                                .at = (size_t)(hash - record->value.data)};
            record->places = places;
        }
    }
}

static struct str encode_run(struct commit *commit, struct run *run)
{
    if (!run->at.suspect)
        run->incarnation = arena_str(commit->arena, str_of(ledger_incarnation(commit->worker->ledger)));
    run->written_at_ms = clock_wall_ms();
    return encode(commit, RECORD_STEP_READY, run_stored(commit->arena, run), RUN_STATE_SIZE_MAX);
}

void commit_plan(struct commit *commit, struct plan *plan)
{
    size_t first = commit->count;
    for (size_t i = 0; i < plan->facts_count; i++)
        commit_fact(commit, &plan->facts[i]);
    name_facts(commit, plan, first);
    struct log_record record = {.partition = -1};
    switch (plan->next) {
    case NEXT_STEP:
        record.topic = TOPIC_STEPS;
        record.pool = plan->pool;
        record.run = plan->run->id;
        record.value = encode_run(commit, plan->run);
        break;
    case NEXT_PARK:
        plan->parked.event = encode_run(commit, plan->run);
        record.topic = TOPIC_INBOX;
        record.run = plan->parked.run;
        record.value = encode(commit, RECORD_STEP_PARKED, &plan->parked, RECORD_SIZE_MAX);
        break;
    case NEXT_END:
        commit->ended = run_status_name(plan->closed.status);
        record.topic = TOPIC_INBOX;
        record.run = plan->closed.run;
        record.value = encode(commit, RECORD_RUN_CLOSED, &plan->closed, RECORD_SIZE_MAX);
        break;
    }
    if (plan->next != NEXT_END && !commit->failed)
        commit_places(commit->arena, plan, first, &record);
    add(commit, record);
}

void commit_dead(struct commit *commit, struct str reason, struct str run)
{
    const struct log_event *source = commit->source;
    struct dead_letter letter = {
        .reason = reason,
        .source_topic = str_of(source->topic_name),
        .source_partition = source->partition,
        .source_offset = source->offset,
        .key = source->key.data != NULL ? source->key : STR(""),
        .value = source->value.data != NULL ? source->value : STR(""),
        .at_ms = clock_wall_ms(),
        .worker = str_of(commit->worker->name),
        .run = run,
    };
    LOG_ERROR("record.dead", LOG_S("topic", source->topic_name), LOG_I("partition", source->partition),
              LOG_I("offset", source->offset), LOG_STR("run", run), LOG_STR("reason", reason));
    if (letter.value.size > RECORD_SIZE_MAX / 2) /* the reason matters more than the last byte of it */
        letter.value = arena_copy(commit->arena, letter.value.data, RECORD_SIZE_MAX / 2);
    commit->dead_count++;
    add(commit, (struct log_record){
                    .topic = TOPIC_DEAD,
                    .partition = -1,
                    .run = run.data != NULL ? run : letter.key,
                    .value = encode(commit, RECORD_DEAD_LETTER, &letter, RECORD_SIZE_MAX),
                });
}

void commit_done(struct commit *commit)
{
    if (commit->failed) {
        struct str reason = arena_str(commit->arena, str_of(commit->error.text));
        commit->failed = false;
        commit->count = 0;
        commit->counted = NULL;
        commit->ended = NULL;
        commit->dead_count = 0;
        commit_dead(commit, reason, STR_NONE);
    }
    meter_commit(commit->worker->metrics, commit);
    log_done(commit->worker->log, commit->source, commit->records, commit->count);
}
