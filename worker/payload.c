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
#include "worker/io/fetch.h"

/* I7: no run that was written by a worker names more (RUN_WHOLE_MAX). */
#define FACTS_SIZE_MAX (2 * RUN_WHOLE_MAX)

struct payloads {
    struct cache *cache;
    struct fetch *fetch;
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
    payload_done done;
    void *context;
    const struct reference *asked; /* what is fetched now */
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

struct payloads *payload_open(const struct settings *settings, struct error *error)
{
    char topic[300];
    snprintf(topic, sizeof topic, "%s.history", settings->name_space.data);
    struct fetch *fetch = fetch_open(topic, (const char *const *)settings->kafka, settings->kafka_count, error);
    if (fetch == NULL)
        return NULL;
    struct payloads *payloads = mem_new(sizeof *payloads);
    *payloads = (struct payloads){.cache = cache_new(budget_cache()), .fetch = fetch};
    return payloads;
}

void payload_close(struct payloads *payloads)
{
    if (payloads == NULL)
        return;
    fetch_close(payloads->fetch);
    while (payloads->fetching != NULL)
        resolve_free(payloads->fetching);
    cache_free(payloads->cache);
    mem_free(payloads);
}

int payload_fd(const struct payloads *payloads)
{
    return fetch_fd(payloads->fetch);
}

void payload_ready(struct payloads *payloads)
{
    fetch_ready(payloads->fetch);
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

static void on_fetched(void *context, const struct fetched *fetched);

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

/* True: it is fetched now, `done` will be called later. */
static bool go_on(struct resolve *resolve)
{
    struct error error = {.class = ERROR_NONE};
    const struct reference *reference;
    while ((reference = missing(resolve)) != NULL) {
        struct str value = cache_get(resolve->payloads->cache, (const unsigned char *)reference->sha256.data);
        if (value.data == NULL) {
            resolve->asked = reference;
            fetch_start(resolve->payloads->fetch, reference->partition, reference->offset, on_fetched, resolve);
            return true;
        }
        if (!take(resolve, reference, value, &error)) {
            end_lost(resolve, reference, &error);
            return false;
        }
    }
    bool joined = join(resolve, &error);
    if (joined)
        end(resolve, NULL);
    else
        end_lost(resolve, resolve->run->at.chain, &error);
    return false;
}

static void on_fetched(void *context, const struct fetched *fetched)
{
    struct resolve *resolve = context;
    const struct reference *reference = resolve->asked;
    struct error error = fetched->error;
    for (size_t i = 0; i < fetched->count; i++)
        cache_put(resolve->payloads->cache, fetched->records[i].digest, fetched->records[i].value);
    if (resolve->cancelled) {
        resolve_free(resolve);
        return;
    }
    const struct fetched_record *record = fetched->count > 0 ? &fetched->records[fetched->count - 1] : NULL;
    bool same = record != NULL && memcmp(record->digest, reference->sha256.data, HASH_SIZE) == 0;
    if (record != NULL && !same)
        error_set(&error, ERROR_POISON, "it is another record: its hash is not the one that was written down");
    if (same && take(resolve, reference, record->value, &error))
        go_on(resolve);
    else
        end_lost(resolve, reference, &error);
}

struct resolve *payload_resolve(struct payloads *payloads, struct run *run, struct arena *arena, payload_done done,
                                void *context)
{
    struct resolve *resolve = mem_new(sizeof *resolve);
    *resolve = (struct resolve){
        .payloads = payloads, .run = run, .arena = arena, .done = done, .context = context, .chain = run->at.chain};
    if (!go_on(resolve))
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
