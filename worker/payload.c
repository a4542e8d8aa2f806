/*
 * payload.c: what a step event names is put back into it: from a cache, then from Kafka, its hash checked. Decisions see
 * whole runs only.
 *
 * A payload is a fact of the run: the RunStarted with the input, the StepCompleted with an output, and, each naming the one
 * before, those that hold the first messages of a conversation (core/chain.h).
 */
#include "worker/worker.h"

#include <string.h>

#include "worker/base/budget.h"
#include "worker/base/cache.h"
#include "worker/base/logline.h"
#include "worker/base/mem.h"
#include "worker/core/chain.h"
#include "worker/io/clock.h"

/* I7: no run that was written by a worker names more (RUN_WHOLE_MAX). */
#define FACTS_SIZE_MAX (2 * RUN_WHOLE_MAX)
/* A chain is followed backwards: how many records before the one that is named are read with it, at first and at most. */
#define BEHIND_FIRST 4
#define BEHIND_MAX 128
/* A new leader may say for a moment that there is no such record. */
#define PATIENCE_US (INT64_C(5) * 1000 * 1000)
#define AGAIN_US (INT64_C(250) * 1000)

struct payloads {
    struct cache *cache;
    struct readback *readback; /* borrowed */
    struct resolve *fetching;
};

/* One fact of a chain; those that come after it lie before it in the list, so that the first one is found first at last. */
struct part {
    struct part *next;
    struct fact fact;
};

struct resolve {
    struct resolve *next, **link; /* of payloads->fetching; link NULL = it is not in it */
    struct payloads *payloads;
    struct run *run;
    struct arena *arena;
    payload_more more;
    payload_done done;
    void *context;
    const struct reference *asked; /* what is fetched now */
    int64_t patient_until_us;      /* not there after that either: it is lost; 0 = it was not looked for yet */
    int64_t behind;                /* of the next of the chain */
    const struct reference *chain; /* the next of the chain; NULL = it was read to its beginning */
    struct part *parts;
    size_t parts_count;
    size_t size; /* bytes of the facts */
    bool cancelled;
};

static void resolve_free(struct resolve *resolve)
{
    if (resolve->link != NULL)
        *resolve->link = resolve->next;
    if (resolve->next != NULL)
        resolve->next->link = resolve->link;
    mem_free(resolve);
}

struct payloads *payload_open(struct readback *readback)
{
    struct payloads *payloads = mem_new(sizeof *payloads);
    *payloads = (struct payloads){.cache = cache_new(budget_cache()), .readback = readback};
    return payloads;
}

void payload_close(struct payloads *payloads)
{
    if (payloads == NULL)
        return;
    while (payloads->fetching != NULL)
        resolve_free(payloads->fetching);
    cache_free(payloads->cache);
    mem_free(payloads);
}

void payload_keep(struct payloads *payloads, const unsigned char *digest, struct str value)
{
    cache_put(payloads->cache, digest, value);
}

/* ---- what a fact is to the run ---- */

static bool take_chain(struct resolve *resolve, const struct reference *reference, struct part *part)
{
    const struct link *link = part->fact.link;
    bool says = link != NULL && (link->own || link->messages_count > 0);
    if (!says || resolve->parts_count >= (size_t)resolve->run->at.chained || !reference_sound(link->before) ||
        (link->before != NULL && link->before->offset >= reference->offset)) /* it comes to an end, whatever it says */
        return false;
    part->next = resolve->parts;
    resolve->parts = part;
    resolve->parts_count++;
    resolve->chain = link->before;
    return true;
}

static bool take_output(struct run *run, const struct reference *reference, const struct fact *fact)
{
    for (size_t i = 0; i < run->steps_count && fact->kind == FACT_STEP_COMPLETED; i++) {
        struct step_state *state = &run->steps[i];
        if (state->output_at != reference || !str_equal(state->name, fact->step))
            continue;
        state->output = fact->is.step_completed.output;
        return state->output.data != NULL;
    }
    return false;
}

static bool take(struct resolve *resolve, const struct reference *reference, struct str value, struct error *error)
{
    struct run *run = resolve->run;
    struct record *record = ARENA_NEW(resolve->arena, struct record);
    resolve->size += value.size;
    if (resolve->size > FACTS_SIZE_MAX)
        return error_set(error, ERROR_POISON, "all that it names is over %zu MiB", FACTS_SIZE_MAX >> 20);
    if (!record_decode(value, resolve->arena, record, error))
        return false;
    struct part *part = ARENA_NEW(resolve->arena, struct part);
    bool fits = record->type == RECORD_FACT && str_equal(record->is.fact.run, run->id);
    if (fits)
        part->fact = record->is.fact;
    if (fits && reference == run->input_at) {
        fits = part->fact.kind == FACT_RUN_STARTED && part->fact.is.run_started.input.data != NULL;
        run->input = fits ? part->fact.is.run_started.input : STR_NONE;
    } else if (fits && reference == resolve->chain) {
        fits = take_chain(resolve, reference, part);
    } else if (fits) {
        fits = take_output(run, reference, &part->fact);
    }
    return fits || error_set(error, ERROR_POISON, "what is stored there is something else");
}

/* What is missing next; NULL: nothing. */
static const struct reference *missing(const struct resolve *resolve)
{
    const struct run *run = resolve->run;
    if (run->input_at != NULL && run->input.data == NULL)
        return run->input_at;
    for (size_t i = 0; i < run->steps_count; i++)
        if (run->steps[i].output_at != NULL && run->steps[i].output.data == NULL)
            return run->steps[i].output_at;
    return resolve->chain;
}

/* Bytes of what was taken in and of what is known to be missing; of a chain that is the next fact only. */
static size_t known_size(const struct resolve *resolve)
{
    const struct run *run = resolve->run;
    size_t size = resolve->size;
    if (run->input_at != NULL && run->input.data == NULL)
        size += (size_t)run->input_at->size;
    for (size_t i = 0; i < run->steps_count; i++)
        if (run->steps[i].output_at != NULL && run->steps[i].output.data == NULL)
            size += (size_t)run->steps[i].output_at->size;
    return size + (resolve->chain != NULL ? (size_t)resolve->chain->size : 0);
}

static bool may_go_on(struct resolve *resolve)
{
    if (resolve->more(resolve->context, known_size(resolve)))
        return true;
    resolve_free(resolve);
    return false;
}

/* The chain before what the step event itself has of the conversation. */
static bool join(struct resolve *resolve, struct error *error)
{
    struct cursor *at = &resolve->run->at;
    if (at->chain == NULL)
        return true;
    const struct fact **facts = ARENA_ARRAY(resolve->arena, resolve->parts_count + 1, const struct fact *);
    size_t count = 0;
    for (const struct part *part = resolve->parts; part != NULL; part = part->next)
        facts[count++] = &part->fact;
    struct message *chained;
    if (!chain_read(resolve->arena, facts, count, at->chained, &chained, error))
        return false;
    size_t chained_count = (size_t)at->chained;
    struct message *all = ARENA_ARRAY(resolve->arena, chained_count + at->conversation_count + 1, struct message);
    memcpy(all, chained, chained_count * sizeof all[0]);
    if (at->conversation_count > 0)
        memcpy(&all[chained_count], at->conversation, at->conversation_count * sizeof all[0]);
    at->conversation = all;
    at->conversation_count += chained_count;
    return true;
}

/* ---- one after the other ---- */

static void end(struct resolve *resolve, const struct error *error)
{
    payload_done done = resolve->done;
    void *context = resolve->context;
    resolve_free(resolve);
    done(context, error);
}

static void end_lost(struct resolve *resolve, const struct reference *reference, const struct error *why)
{
    struct error error;
    error_set(&error, ERROR_POISON, "a payload in history (partition %d, offset %lld) cannot be had: %s",
              (int)reference->partition, (long long)reference->offset, why->text);
    LOG_ERROR("payload.lost", LOG_STR("run", resolve->run->id), LOG_I("partition", reference->partition),
              LOG_I("offset", reference->offset), LOG_S("reason", why->text));
    end(resolve, &error);
}

static void fetch(struct resolve *resolve, const struct reference *reference, int64_t after_us)
{
    struct readback_wanted wanted = {.topic = READ_HISTORY,
                                     .partition = reference->partition,
                                     .offset = reference->offset,
                                     .behind = reference == resolve->chain ? resolve->behind : 0,
                                     .after_us = after_us,
                                     .hashed = true,
                                     .context = resolve};
    resolve->asked = reference;
    readback_ask(resolve->payloads->readback, &wanted, 1);
}

/* True: it is fetched now, `done` will be called later. */
static bool go_on(struct resolve *resolve)
{
    struct error error = {.class = ERROR_NONE};
    const struct reference *reference;
    while ((reference = missing(resolve)) != NULL) {
        struct str value = cache_get(resolve->payloads->cache, (const unsigned char *)reference->sha256.data);
        if (value.data == NULL) {
            if (!may_go_on(resolve))
                return false;
            resolve->patient_until_us = 0;
            fetch(resolve, reference, 0);
            if (reference == resolve->chain && resolve->behind < BEHIND_MAX)
                resolve->behind *= 2;
            return true;
        }
        if (!take(resolve, reference, value, &error)) {
            end_lost(resolve, reference, &error);
            return false;
        }
    }
    if (!may_go_on(resolve))
        return false;
    bool joined = join(resolve, &error);
    if (joined)
        end(resolve, NULL);
    else
        end_lost(resolve, resolve->run->at.chain, &error);
    return false;
}

/* Has it been said long enough? If not, it is asked for again. */
static bool is_lost(struct resolve *resolve, const struct readback_row *row)
{
    int64_t now_us = clock_mono_us();
    if (resolve->patient_until_us == 0)
        resolve->patient_until_us = now_us + PATIENCE_US;
    else if (row->wanted.after_us >= resolve->patient_until_us)
        return true;
    fetch(resolve, resolve->asked, now_us + AGAIN_US);
    return false;
}

static void on_answer(struct resolve *resolve, const struct readback_row *row)
{
    const struct reference *reference = resolve->asked;
    struct error error;
    if (row->not_there != NULL) {
        if (!is_lost(resolve, row))
            return;
        error_set(&error, ERROR_POISON, "partition %d has no record at %lld: %s", (int)reference->partition,
                  (long long)reference->offset, row->not_there);
        end_lost(resolve, reference, &error);
        return;
    }
    bool same = memcmp(row->digest, reference->sha256.data, HASH_SIZE) == 0;
    if (!same)
        error_set(&error, ERROR_POISON, "it is another record: its hash is not the one that was written down");
    if (same && take(resolve, reference, row->value, &error))
        go_on(resolve);
    else
        end_lost(resolve, reference, &error);
}

void payload_read(struct payloads *payloads, const struct readback_row *row)
{
    struct resolve *resolve = row->wanted.context;
    if (row->value.data != NULL)
        cache_put(payloads->cache, row->digest, row->value);
    if (!row->asked)
        return;
    if (resolve->cancelled)
        resolve_free(resolve);
    else
        on_answer(resolve, row);
}

struct resolve *payload_resolve(struct payloads *payloads, struct run *run, struct arena *arena, payload_more more,
                                payload_done done, void *context)
{
    struct resolve *resolve = mem_new(sizeof *resolve);
    *resolve = (struct resolve){.payloads = payloads,
                                .run = run,
                                .arena = arena,
                                .more = more,
                                .done = done,
                                .context = context,
                                .chain = run->at.chain,
                                .behind = BEHIND_FIRST};
    if (!may_go_on(resolve) || !go_on(resolve))
        return NULL;
    resolve->next = payloads->fetching;
    resolve->link = &payloads->fetching;
    if (resolve->next != NULL)
        resolve->next->link = &resolve->next;
    payloads->fetching = resolve;
    return resolve;
}

void payload_cancel(struct resolve *resolve)
{
    resolve->cancelled = true;
}
