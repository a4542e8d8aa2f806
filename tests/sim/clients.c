#include "tests/sim/clients.h"

#include <string.h>

#include "tests/sim/judge.h"
#include "tests/sim/outside.h"
#include "tests/sim/world.h"

#define RUNS_MAX 10
#define RUNS_APART_MAX 24
#define SAID_AGAIN_MS 3000 /* nothing came of what a person said: it is said again */

static struct {
    char hash[HASH_HEX_SIZE + 1];
    struct str asked[RUNS_APART_MAX]; /* the requests, to be sent again as they were */
    int runs, requests;
} clients;

static struct str encode(enum record_type type, const void *object)
{
    struct buf buf;
    struct error error;
    buf_init(&buf, CONTRACT_SIZE_MAX * 2);
    if (!record_encode(type, object, &buf, &error))
        wrong("a request cannot be encoded: %s", error.text);
    struct str bytes = arena_str(world.arena, buf_str(&buf));
    buf_free(&buf);
    return bytes;
}

static void send(struct str run, struct str value)
{
    broker_append(NULL, TOPIC_INBOX, broker_partition_of(TOPIC_INBOX, run), run, value);
}

static struct str new_request_id(struct str run)
{
    struct str id = arena_printf(world.arena, "request-%d", ++clients.requests);
    judge_asked(id, run);
    return id;
}

void clients_open(const char *path)
{
    struct problems problems;
    memset(&clients, 0, sizeof(clients));
    problems_init(&problems);
    struct contract *contract = contract_read_file(path, &problems);
    if (contract == NULL)
        wrong("%s:%d: %.*s", path, problems.list[0].line, STR_ARG(problems.list[0].text));
    memcpy(clients.hash, contract->hash, sizeof(clients.hash));
    struct contract_published published = {.name = contract->name,
                                           .hash = str_of(contract->hash),
                                           .canonical = contract->canonical,
                                           .by = STR("sim"),
                                           .at_ms = world_now_ms()};
    broker_append(NULL, TOPIC_CONTROL, 0, STR("contract"), encode(RECORD_CONTRACT_PUBLISHED, &published));
    contract_free(contract);
    problems_free(&problems);
}

/* ---- runs ---- */

/* UUID version 7, as `myelin run` makes them: its time keeps a forgotten run from being started again. */
static struct str run_name(int number)
{
    uint64_t ms = (uint64_t)world_now_ms();
    return arena_printf(world.arena, "%08llx-%04llx-7000-8000-%012d", (unsigned long long)(ms >> 16),
                        (unsigned long long)(ms & 0xffff), number);
}

static void ask_for_run(void)
{
    int number = clients.runs++;
    struct str run = run_name(number);
    struct run_requested request = {
        .run = run,
        .request_id = new_request_id(run),
        .contract = STR("trip"),
        .contract_hash = str_of(clients.hash),
        .input = arena_printf(world.arena, "{\"to\":\"place %d\",\"why\":\"%.*s\",\"ask\":%s}", number,
                              STR_ARG(outside_words()), dice(2) == 0 ? "true" : "false"),
        .by = STR("client"),
        .at_ms = world_now_ms(),
    };
    clients.asked[number] = encode(RECORD_RUN_REQUESTED, &request);
    (void)judge_run(request.run);
    send(request.run, clients.asked[number]);
}

/* The same request once more, as a client does that did not hear of it. */
static void ask_again(void)
{
    struct run_requested *request;
    struct record record;
    struct error error;
    int number = (int)dice((uint64_t)clients.runs);
    if (!record_decode(clients.asked[number], world.arena, &record, &error))
        wrong("a request cannot be read: %s", error.text);
    request = &record.is.run_requested;
    judge_asked(request->request_id, request->run);
    send(request->run, clients.asked[number]);
}

/* ---- people ---- */

static void decide_approval(const struct judged_run *run)
{
    struct decision decision = {.run = run->id,
                                .request_id = new_request_id(run->id),
                                .step = run->step,
                                .visit = run->visit,
                                .args_hash = run->args_hash,
                                .approved = dice(4) > 0,
                                .by = STR("person"),
                                .at_ms = world_now_ms()};
    send(run->id, encode(RECORD_DECISION, &decision));
}

/* A person looks whether it happened, and says what there is to see. */
static bool resolve(const struct judged_run *run)
{
    if (!outside_settled(run->key))
        return false;
    bool done = world.apart || outside_executed(run->key) > 0; /* apart nobody here knows */
    struct resolved resolved = {.run = run->id,
                                .request_id = new_request_id(run->id),
                                .step = run->step,
                                .kind = done ? RESOLUTION_DONE : RESOLUTION_NOT_DONE,
                                .result = done ? STR("{\"ok\":true}") : STR_NONE,
                                .by = STR("person"),
                                .at_ms = world_now_ms()};
    if (!done && dice(4) == 0)
        resolved.kind = RESOLUTION_FAIL;
    tell("a person says of %.*s: %s", STR_ARG(run->key), done ? "done" : "not done");
    send(run->id, encode(RECORD_RESOLVED, &resolved));
    return true;
}

static void people(void)
{
    for (struct judged_run *run = judge_runs(); run != NULL; run = run->next) {
        bool due = run->waits && world_now_ms() - run->said_ms > SAID_AGAIN_MS;
        if (!due || dice(6) > 0)
            continue;
        if (run->waits_for == WAITS_APPROVAL)
            decide_approval(run);
        else if (!resolve(run))
            continue;
        run->said_ms = world_now_ms();
    }
}

/* ---- what does not belong ---- */

static void garbage(void)
{
    struct str value = arena_printf(world.arena, "garbage %llu", (unsigned long long)dice(UINT64_MAX));
    enum topic topic = dice(2) == 0 ? TOPIC_STEPS : TOPIC_INBOX;
    judge_garbage(value);
    broker_append(NULL, topic, (int32_t)dice((uint64_t)broker_partitions(topic)), STR("nobody"), value);
}

void clients_serve(void)
{
    if (clients.runs < (world.apart ? RUNS_APART_MAX : RUNS_MAX) && dice(8) == 0)
        ask_for_run();
    if (clients.runs > 0 && trouble(100))
        ask_again();
    if (trouble(200))
        garbage();
    people();
}
