/*
 * credits.c: back-pressure inside a worker: what a step event must have before it is worked on.
 *
 *   in flight    one of in_flight_max             \ together, before it is decoded; and memory for what it names when that is known
 *   memory       what decoding and calling take   /
 *   endpoint     one of calls_per_endpoint, of the HOST:PORT that its call goes to, before anything is reserved for that
 *
 * What has to wait holds its record and nothing else: it is decided again when its turn comes. Those that wait for an endpoint do
 * not count as in flight, so that the log hands over others: one that hangs does not starve the rest. Where several partitions
 * wait at one gate they take turns, and so do gates.
 *
 * A turn at an endpoint is that endpoint's credit: whoever gets it has it from then on, however long it takes to decide it again
 * (what it names may have to be fetched), and gives it back when it comes to another end.
 *
 * Credits that come back are handed out in credits_tick.
 */
#include <assert.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "worker/base/budget.h"
#include "worker/base/env.h"
#include "worker/base/mem.h"
#include "worker/delivery.h"
#include "worker/io/clock.h"

/* A step event and what it names decoded, its request as we and as libcurl hold it: beside the record itself. And what a call in
 * flight costs whatever its size: handles, buffers, a connection (measured: 23 KiB), and the start of its answer. */
#define STEP_WEIGHT 3
#define STEP_SIZE (((size_t)24 << 10) + CALLER_FREE_SIZE)
#define STEP_PART 4 /* of the budget: one that is larger counts as that, or its own answer might find nothing left */

#define BUCKETS 256
#define LOOK_MS 100 /* the log thread gives memory back without a word */

/* Those of one partition that wait at a gate, in the order of their coming. */
struct lane {
    struct lane *next; /* of the gate: a ring is walked by moving the first to the end */
    int64_t tenure;
    struct delivery *first, *last;
};

/* Where credits are handed out: one for each endpoint that is called or waited for, and one before all of them. */
struct gate {
    struct gate *next; /* of its bucket */
    struct lane *lanes;
    int32_t used, waiting;
    struct str endpoint; /* behind the struct; STR_NONE: the one before all */
};

struct credits {
    struct gate entry;
    struct gate *endpoints[BUCKETS];
    size_t first;                /* the bucket where handing out begins; BUCKETS is the entry: gates take turns */
    int32_t begun;               /* in flight */
    int32_t waiting;             /* at endpoints */
    int32_t told;                /* of these to the log */
    bool handing_out;            /* in credits_tick: gates stay where they are */
    struct delivery *beyond;     /* the one that was begun beyond the mark for the others; NULL: none */
    const struct delivery *turn; /* which is being let in: it has waited, and overtakes nobody */
    int64_t due_at_ms;           /* no deadline of one that waits is earlier; wall clock */
};

struct credits *credits_new(void)
{
    struct credits *credits = mem_new(sizeof(*credits));
    credits->due_at_ms = INT64_MAX;
    return credits;
}

void credits_free(struct credits *credits)
{
    mem_free(credits); /* its gates went with the last delivery that had to do with them */
}

/* ---- gates ---- */

/* "http://user:secret@Host:80/path?q" → "Host:80". */
static struct str authority_of(struct str url)
{
    const char *scheme = url.size > 0 ? strstr(url.data, "://") : NULL;
    if (scheme == NULL)
        return STR_NONE;
    struct str authority = {scheme + 3, strcspn(scheme + 3, "/?#")};
    const char *user_end = memrchr(authority.data, '@', authority.size);
    if (user_end != NULL) {
        authority.size -= (size_t)(user_end + 1 - authority.data);
        authority.data = user_end + 1;
    }
    return authority;
}

/* STR_NONE: not known; making the request will say why. */
static struct str endpoint_of(const struct delivery *delivery)
{
    const struct call *call = delivery->call;
    struct str url = STR_NONE;
    if (call->kind == CALL_MODEL) {
        const struct chat_model *model = settings_model(delivery->worker->settings, call->model);
        url = model != NULL ? model->url : STR_NONE;
    } else if (!env_expand(delivery->arena, call->kind == CALL_PROBE ? call->tool->probe->url : call->tool->url, &url,
                           NULL)) {
        url = STR_NONE;
    }
    return authority_of(url);
}

static struct gate **bucket_of(struct credits *credits, struct str endpoint)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < endpoint.size; i++)
        hash = (hash ^ (uint32_t)tolower((unsigned char)endpoint.data[i])) * 16777619u;
    return &credits->endpoints[hash % BUCKETS];
}

static struct gate *gate_of(struct credits *credits, struct str endpoint)
{
    struct gate **bucket = bucket_of(credits, endpoint);
    for (struct gate *gate = *bucket; gate != NULL; gate = gate->next)
        if (gate->endpoint.size == endpoint.size && strncasecmp(gate->endpoint.data, endpoint.data, endpoint.size) == 0)
            return gate;
    struct gate *gate = mem_new(sizeof(*gate) + endpoint.size + 1);
    char *name = (char *)(gate + 1);
    *gate = (struct gate){.next = *bucket, .endpoint = {name, endpoint.size}};
    memcpy(name, endpoint.data, endpoint.size);
    name[endpoint.size] = '\0';
    return *bucket = gate;
}

/* An endpoint that nobody calls or waits for is forgotten: their number has no limit. */
static void gate_drop(struct credits *credits, struct gate *gate)
{
    struct gate **link = bucket_of(credits, gate->endpoint);
    if (credits->handing_out || gate == &credits->entry || gate->used > 0 || gate->waiting > 0)
        return;
    while (*link != gate)
        link = &(*link)->next;
    *link = gate->next;
    mem_free(gate);
}

/* ---- waiting ---- */

static struct lane **lane_of(struct gate *gate, int64_t tenure)
{
    struct lane **link = &gate->lanes;
    while (*link != NULL && (*link)->tenure != tenure)
        link = &(*link)->next;
    return link;
}

static void wait_at(struct delivery *delivery, struct gate *gate)
{
    struct credits *credits = delivery->worker->credits;
    struct lane **link = lane_of(gate, delivery->source.tenure);
    if (*link == NULL) {
        *link = mem_new(sizeof(**link));
        (*link)->tenure = delivery->source.tenure;
    }
    struct lane *lane = *link;
    delivery->waits_at = gate;
    delivery->waits_before = lane->last;
    delivery->waits_after = NULL;
    *(lane->last != NULL ? &lane->last->waits_after : &lane->first) = delivery;
    lane->last = delivery;
    gate->waiting++;
    credits->waiting += gate != &credits->entry;
    if (delivery->wait_until_ms < credits->due_at_ms)
        credits->due_at_ms = delivery->wait_until_ms;
}

static void wait_no_more(struct delivery *delivery)
{
    struct credits *credits = delivery->worker->credits;
    struct gate *gate = delivery->waits_at;
    struct lane **link = lane_of(gate, delivery->source.tenure), *lane = *link;
    struct delivery *before = delivery->waits_before, *after = delivery->waits_after;
    assert(lane != NULL); /* it is in it */
    *(before != NULL ? &before->waits_after : &lane->first) = after;
    *(after != NULL ? &after->waits_before : &lane->last) = before;
    if (lane->first == NULL) {
        *link = lane->next;
        mem_free(lane);
    }
    delivery->waits_at = NULL;
    gate->waiting--;
    credits->waiting -= gate != &credits->entry;
}

/* Whose turn it is at a gate where something waits; its partition goes to the end of the line. */
static struct delivery *take_turn(struct gate *gate)
{
    struct lane *lane = gate->lanes, **end = &lane->next;
    struct delivery *delivery = lane->first;
    while (*end != NULL)
        end = &(*end)->next;
    if (lane->next != NULL) {
        gate->lanes = lane->next;
        *end = lane;
        lane->next = NULL;
    }
    wait_no_more(delivery);
    return delivery;
}

/* ---- taking and giving back ---- */

static size_t size_of(const struct delivery *delivery)
{
    size_t size = STEP_SIZE + STEP_WEIGHT * (delivery->source.value.size + delivery->named);
    size_t most = (size_t)budget_size() / STEP_PART;
    return most > 0 && size > most ? most : size;
}

/* Beyond the mark one at a time: a large one would wait for ever while smaller ones take what comes back. And one at least is always
 * in flight. */
static bool may_hold(const struct delivery *delivery, size_t size)
{
    const struct delivery *beyond = delivery->worker->credits->beyond;
    int64_t more = (int64_t)size - (int64_t)delivery->charged;
    return more <= 0 || budget_admits(BUDGET_BEGIN, more) ||
           ((beyond == NULL || beyond == delivery) && budget_admits(BUDGET_BEGIN_ONE, more)) ||
           delivery->worker->credits->begun == delivery->in_flight;
}

static bool may_begin(const struct delivery *delivery)
{
    const struct worker *worker = delivery->worker;
    return worker->credits->begun < worker->settings->in_flight_max && may_hold(delivery, size_of(delivery));
}

static void hold(struct delivery *delivery, size_t size)
{
    if (size <= delivery->charged)
        return;
    budget_take(BUDGET_STEPS, size - delivery->charged);
    delivery->charged = size;
}

/* It may, as may_hold says. */
static void admit(struct delivery *delivery)
{
    size_t size = size_of(delivery);
    if (size > delivery->charged && !budget_admits(BUDGET_BEGIN, (int64_t)(size - delivery->charged)))
        delivery->worker->credits->beyond = delivery;
    hold(delivery, size);
}

static void give_back_memory(struct delivery *delivery)
{
    if (delivery->worker->credits->beyond == delivery)
        delivery->worker->credits->beyond = NULL;
    budget_give(BUDGET_STEPS, delivery->charged);
    delivery->charged = 0;
}

bool credits_begin(struct delivery *delivery)
{
    struct credits *credits = delivery->worker->credits;
    delivery->wait_until_ms = INT64_MAX;
    if ((credits->entry.waiting > 0 && credits->turn != delivery) || !may_begin(delivery)) {
        credits_pass(delivery);
        wait_at(delivery, &credits->entry);
        return false;
    }
    credits->begun++;
    delivery->in_flight = true;
    admit(delivery);
    return true;
}

void credits_let_go(struct delivery *delivery)
{
    struct credits *credits = delivery->worker->credits;
    credits->begun -= delivery->in_flight;
    delivery->in_flight = false;
}

void credits_keep(struct delivery *delivery)
{
    delivery->worker->credits->begun++;
    delivery->in_flight = true;
}

void credits_pass(struct delivery *delivery)
{
    struct gate *gate = delivery->calls_at;
    if (gate == NULL)
        return;
    gate->used--;
    delivery->calls_at = NULL;
    gate_drop(delivery->worker->credits, gate);
}

bool credits_named(void *context, size_t size)
{
    struct delivery *delivery = context;
    if (delivery->orphan || size <= delivery->named)
        return true;
    delivery->named = size;
    if (may_hold(delivery, size_of(delivery))) {
        admit(delivery);
        return true;
    }
    credits_pass(delivery);
    credits_let_go(delivery);
    give_back_memory(delivery);
    wait_at(delivery, &delivery->worker->credits->entry);
    delivery_forget(delivery);
    return false;
}

bool credits_call(struct delivery *delivery)
{
    struct worker *worker = delivery->worker;
    struct credits *credits = worker->credits;
    struct str endpoint = endpoint_of(delivery);
    struct gate *gate = endpoint.size > 0 ? gate_of(credits, endpoint) : NULL;
    if (delivery->calls_at != gate)
        credits_pass(delivery); /* its turn was at another one */
    if (delivery->calls_at == gate)
        return true;
    if (gate->used < worker->settings->calls_per_endpoint && gate->waiting == 0) {
        gate->used++;
        delivery->calls_at = gate;
        return true;
    }
    int64_t deadline_ms = delivery->run->deadline_at_ms;
    delivery->wait_until_ms = deadline_ms > clock_wall_ms() ? deadline_ms : INT64_MAX;
    credits_let_go(delivery);
    give_back_memory(delivery);
    wait_at(delivery, gate);
    return false;
}

void credits_calling(struct delivery *delivery, size_t request)
{
    size_t size = STEP_SIZE + arena_size(delivery->arena) + request;
    if (budget_admits(BUDGET_READ, (int64_t)size - (int64_t)delivery->charged))
        hold(delivery, size);
}

void credits_answered(struct delivery *delivery)
{
    hold(delivery, STEP_SIZE + arena_size(delivery->arena));
    credits_pass(delivery);
}

void credits_release(struct delivery *delivery)
{
    struct gate *gate = delivery->waits_at;
    if (gate != NULL) {
        wait_no_more(delivery);
        gate_drop(delivery->worker->credits, gate);
    }
    credits_pass(delivery);
    credits_let_go(delivery);
    give_back_memory(delivery);
}

/* ---- handing out ---- */

static void let_in(struct delivery *delivery)
{
    struct credits *credits = delivery->worker->credits;
    credits->turn = delivery;
    delivery_begin(delivery);
    credits->turn = NULL;
}

/* Lets in who waits at `gate`, as long as there is something to be had; false: nobody. */
static bool hand_out(struct worker *worker, struct gate *gate)
{
    bool entry = gate == &worker->credits->entry, any = false;
    while (gate->waiting > 0 && (entry || gate->used < worker->settings->calls_per_endpoint) &&
           may_begin(gate->lanes->first)) {
        struct delivery *delivery = take_turn(gate);
        if (!entry) {
            gate->used++;
            delivery->calls_at = gate;
        }
        let_in(delivery);
        any = true;
    }
    return any;
}

/* Memory may be too little for all: who got some first comes last the next time. */
static void hand_out_all(struct worker *worker)
{
    struct credits *credits = worker->credits;
    size_t first = credits->first;
    bool any = false;
    for (size_t i = 0; i <= BUCKETS; i++) {
        size_t at = (first + i) % (BUCKETS + 1);
        struct gate *gate = at == BUCKETS ? &credits->entry : credits->endpoints[at];
        bool got = false;
        for (; gate != NULL; gate = gate->next)
            got = hand_out(worker, gate) || got;
        if (got && !any)
            credits->first = (at + 1) % (BUCKETS + 1);
        any = any || got;
    }
}

/* The run's deadline has come while its step waits: it is decided again, which ends it. */
static void let_expire(struct worker *worker, int64_t now_ms)
{
    struct credits *credits = worker->credits;
    credits->due_at_ms = INT64_MAX;
    for (struct delivery *delivery = worker->deliveries, *next; delivery != NULL; delivery = next) {
        next = delivery->next;
        if (delivery->waits_at != NULL && delivery->wait_until_ms <= now_ms) {
            wait_no_more(delivery);
            let_in(delivery);
        } else if (delivery->waits_at != NULL && delivery->wait_until_ms < credits->due_at_ms) {
            credits->due_at_ms = delivery->wait_until_ms;
        }
    }
}

static void drop_gates(struct credits *credits)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct gate *gate = credits->endpoints[i], *next; gate != NULL; gate = next) {
            next = gate->next;
            gate_drop(credits, gate);
        }
}

int64_t credits_tick(struct worker *worker, int64_t now_mono_ms)
{
    struct credits *credits = worker->credits;
    int64_t now_ms = clock_wall_ms(), next_ms = INT64_MAX;
    if (credits->waiting + credits->entry.waiting > 0) {
        credits->handing_out = true;
        if (now_ms >= credits->due_at_ms)
            let_expire(worker, now_ms);
        hand_out_all(worker);
        credits->handing_out = false;
        drop_gates(credits);
    }
    if (credits->told != credits->waiting)
        log_waiting(worker->log, credits->told = credits->waiting);
    if (credits->waiting > 0 && credits->due_at_ms < INT64_MAX)
        next_ms = now_mono_ms + credits->due_at_ms - now_ms;
    if (credits->entry.waiting > 0 && now_mono_ms + LOOK_MS < next_ms)
        next_ms = now_mono_ms + LOOK_MS;
    return next_ms;
}

void credits_numbers(const struct worker *worker, struct credits_numbers *numbers)
{
    const struct credits *credits = worker->credits;
    bool many = credits->begun >= worker->settings->in_flight_max;
    *numbers = (struct credits_numbers){
        .endpoint = credits->waiting,
        .in_flight = many ? credits->entry.waiting : 0,
        .memory = many ? 0 : credits->entry.waiting,
    };
}
