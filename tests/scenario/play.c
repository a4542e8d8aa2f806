#include "tests/scenario/play.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/scenario/play_internal.h"
#include "worker/base/units.h"

#define START_MS 1790000000000 /* any time after 2020 */
#define ENDED_KEEP_MS (7LL * 24 * 3600 * 1000)

/* ---- reading a line ---- */

static struct str trimmed(struct str text)
{
    while (text.size > 0 && isspace((unsigned char)text.data[text.size - 1]))
        text.size--;
    while (text.size > 0 && isspace((unsigned char)*text.data)) {
        text.data++;
        text.size--;
    }
    return text;
}

/* Takes `phrase` off the front of the line when it stands there. */
static bool take(struct str *line, const char *phrase)
{
    size_t size = strlen(phrase);
    if (line->size < size || memcmp(line->data, phrase, size) != 0 || (line->size > size && line->data[size] != ' '))
        return false;
    *line = trimmed((struct str){line->data + size, line->size - size});
    return true;
}

static struct str take_word(struct play *play, struct str *line)
{
    size_t size = 0;
    while (size < line->size && line->data[size] != ' ')
        size++;
    struct str text = arena_copy(play->arena, line->data, size);
    *line = trimmed((struct str){line->data + size, line->size - size});
    return text;
}

static struct str rest(struct play *play, struct str *line)
{
    struct str text = arena_copy(play->arena, line->data, line->size);
    *line = STR("");
    return text;
}

static int64_t take_duration(struct play *play, struct str *line)
{
    struct str text = take_word(play, line);
    int64_t ms;
    if (text.size > 0 && text.data[0] == '+')
        text = (struct str){text.data + 1, text.size - 1};
    if (!units_duration(text, &ms))
        drive_fail(play, "\"%.*s\" is no duration", STR_ARG(text));
    return ms;
}

/* ---- the contract ---- */

static struct str read_file(struct play *play, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return STR_NONE;
    struct buf buf;
    char block[4096];
    buf_init(&buf, (size_t)1 << 20);
    for (size_t size; (size = fread(block, 1, sizeof(block), file)) > 0;)
        buf_put(&buf, block, size);
    fclose(file);
    struct str text = arena_str(play->arena, buf_str(&buf));
    buf_free(&buf);
    return text;
}

static void choose_contract(struct play *play, struct str name)
{
    const char *const places[] = {"tests/scenario", "config/contracts"};
    for (size_t i = 0; i < 2 && play->contract_text.data == NULL; i++)
        play->contract_text = read_file(play, arena_printf(play->arena, "%s/%.*s", places[i], STR_ARG(name)).data);
    if (play->contract_text.data == NULL)
        drive_fail(play, "no contract %.*s", STR_ARG(name));
}

static const char *find(struct str text, struct str wanted)
{
    return memmem(text.data, text.size, wanted.data, wanted.size);
}

/* but OLD => NEW: the contract with one place changed. */
static void change_contract(struct play *play, struct str change)
{
    struct str text = play->contract_text;
    const char *arrow = find(change, STR(" =>")); /* nothing after it: it is taken away */
    if (text.data == NULL || arrow == NULL)
        drive_fail(play, "write: but OLD => NEW, after the contract");
    struct str from = trimmed((struct str){change.data, (size_t)(arrow - change.data)});
    struct str to = trimmed((struct str){arrow + 3, change.size - (size_t)(arrow + 3 - change.data)});
    const char *at = find(text, from);
    if (at == NULL)
        drive_fail(play, "the contract does not hold: %.*s", STR_ARG(from));
    struct str tail = {at + from.size, text.size - (size_t)(at - text.data) - from.size};
    if (find(tail, from) != NULL)
        drive_fail(play, "the contract holds this more than once: %.*s", STR_ARG(from));
    play->contract_text = arena_printf(play->arena, "%.*s%.*s%.*s", (int)(at - text.data), text.data, STR_ARG(to),
                                       STR_ARG(tail));
}

static void load_contract(struct play *play)
{
    if (play->contract != NULL)
        return;
    char path[] = P_tmpdir "/scenario-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, play->contract_text.data, play->contract_text.size) != (ssize_t)play->contract_text.size)
        drive_fail(play, "cannot write a temporary file");
    close(fd);
    struct problems problems;
    problems_init(&problems);
    play->contract = contract_read_file(path, &problems);
    unlink(path);
    struct str first = problems.count > 0 ? arena_str(play->arena, problems.list[0].text) : STR("no reason given");
    int line = problems.count > 0 ? problems.list[0].line : 0;
    problems_free(&problems);
    if (play->contract == NULL)
        drive_fail(play, "the contract, line %d: %.*s", line, STR_ARG(first));
}

/* ---- answers ---- */

static void answered(struct play *play, struct outcome outcome)
{
    outcome.at_ms = play->now_ms;
    outcome.duration_ms = 10;
    drive_outcome(play, &outcome);
}

static const struct call *expect_call(struct play *play, bool model)
{
    if (play->call == NULL || (play->call->kind == CALL_MODEL) != model)
        drive_fail(play, "no %s call is in flight", model ? "model" : "tool");
    return play->call;
}

static struct outcome model_outcome(struct play *play)
{
    expect_call(play, true);
    return (struct outcome){
        .kind = OUTCOME_ANSWERED,
        .http_status = 200,
        .finish_reason = STR("stop"),
        .response_model = STR("model-1"),
        .tokens_in = play->tokens_in,
        .tokens_out = play->tokens_out,
        .tokens_cached = -1,
        .micro_usd = play->micro_usd,
    };
}

/* TOOL ARGUMENTS | TOOL ARGUMENTS ... */
static void read_requests(struct play *play, struct str *line, struct outcome *outcome)
{
    outcome->calls = ARENA_ARRAY(play->arena, 20, struct tool_request);
    while (line->size > 0 && outcome->calls_count < 20) {
        const char *bar = find(*line, STR(" | "));
        struct str one = {line->data, bar != NULL ? (size_t)(bar - line->data) : line->size};
        *line = bar != NULL ? trimmed((struct str){bar + 3, line->size - one.size - 3}) : STR("");
        struct tool_request *request = &outcome->calls[outcome->calls_count];
        request->tool = take_word(play, &one);
        request->id = arena_printf(play->arena, "call_%zu", ++outcome->calls_count);
        request->arguments = arena_copy(play->arena, one.data, one.size);
    }
    outcome->finish_reason = STR("tool_calls");
}

static bool model_step(struct play *play, struct str *line)
{
    if (take(line, "model answers")) {
        struct outcome outcome = model_outcome(play);
        outcome.content = rest(play, line);
        answered(play, outcome);
    } else if (take(line, "model calls")) {
        struct outcome outcome = model_outcome(play);
        read_requests(play, line, &outcome);
        answered(play, outcome);
    } else if (take(line, "model is cut")) {
        struct outcome outcome = model_outcome(play);
        outcome.truncated = true;
        if (take(line, "calls"))
            read_requests(play, line, &outcome);
        else
            outcome.content = rest(play, line);
        outcome.finish_reason = STR("length");
        answered(play, outcome);
    } else {
        return false;
    }
    return true;
}

static bool surely_not_executed(const struct tool *tool, int32_t status)
{
    bool surely = status == 0 || status == 429;
    for (size_t i = 0; i < tool->not_executed_count; i++)
        surely = surely || tool->not_executed[i] == status;
    return surely;
}

/* STATUS or "network", then "retry-after DURATION". As worker/call/tool.h classifies it. */
static void fails(struct play *play, struct str *line)
{
    const struct call *call = play->call;
    struct outcome outcome = {.kind = OUTCOME_FAILED};
    bool network = take(line, "network");
    outcome.http_status = network ? 0 : (int32_t)strtol(take_word(play, line).data, NULL, 10);
    outcome.reason = network ? STR("cannot connect") : arena_printf(play->arena, "HTTP %d", outcome.http_status);
    if (take(line, "retry-after"))
        outcome.retry_after_ms = take_duration(play, line);
    int32_t status = outcome.http_status;
    outcome.retryable = network || status == 408 || status == 409 || status == 429 || status >= 500;
    if (call->kind == CALL_TOOL && call->effect == EFFECT_WRITE) {
        outcome.executed_surely_not = surely_not_executed(call->tool, status);
        outcome.retryable = outcome.executed_surely_not;
        if (!outcome.executed_surely_not)
            outcome = (struct outcome){.kind = OUTCOME_DOUBT,
                                       .http_status = status,
                                       .reason = outcome.reason,
                                       .until_ms = play->now_ms + call->timeout_ms + 1000};
    }
    answered(play, outcome);
}

/* Redis holds the result already. */
static void ledger_has(struct play *play, struct str result)
{
    bool model = play->call != NULL && play->call->kind == CALL_MODEL;
    if (model) {
        struct outcome outcome = model_outcome(play);
        outcome.content = result;
        outcome.origin = ORIGIN_REUSED;
        answered(play, outcome);
        return;
    }
    struct call *call = ARENA_NEW(play->arena, struct call);
    *call = *expect_call(play, false);
    bool write = call->effect == EFFECT_WRITE || call->takeover;
    call->kind = CALL_TOOL;
    call->effect = write ? EFFECT_WRITE : call->effect;
    play->call = call;
    answered(play, (struct outcome){.kind = OUTCOME_ANSWERED,
                                    .http_status = 200,
                                    .origin = write ? ORIGIN_ADOPTED : ORIGIN_REUSED,
                                    .result = result});
}

static bool outside_step(struct play *play, struct str *line)
{
    if (take(line, "tool answers") || take(line, "probe answers")) {
        expect_call(play, false);
        answered(play, (struct outcome){.kind = OUTCOME_ANSWERED, .http_status = 200, .result = rest(play, line)});
    } else if (take(line, "model fails")) {
        expect_call(play, true);
        fails(play, line);
    } else if (take(line, "tool fails") || take(line, "probe fails")) {
        expect_call(play, false);
        fails(play, line);
    } else if (take(line, "in doubt until")) {
        expect_call(play, false);
        int64_t until_ms = play->now_ms + take_duration(play, line);
        struct str why = line->size > 0 ? rest(play, line) : STR("no answer");
        answered(play, (struct outcome){.kind = OUTCOME_DOUBT, .reason = why, .until_ms = until_ms});
    } else if (take(line, "ledger holds until")) {
        expect_call(play, false);
        answered(play, (struct outcome){.kind = OUTCOME_DOUBT,
                                        .reason = STR("another worker reserved it"),
                                        .until_ms = play->now_ms + take_duration(play, line),
                                        .held = true});
    } else if (take(line, "ledger down")) {
        answered(play,
                 (struct outcome){.kind = OUTCOME_NOT_NOW, .reason = STR("writes must wait: Redis is not reachable")});
    } else if (take(line, "ledger has")) {
        ledger_has(play, rest(play, line));
    } else if (take(line, "deliver again")) {
        drive_deliver(play);
    } else if (take(line, "delivery takes")) {
        play->delay_ms = take_duration(play, line);
    } else if (take(line, "time")) {
        drive_time(play, take_duration(play, line));
    } else {
        return false;
    }
    return true;
}

/* ---- people ---- */

/* What the person was looking at: the one step that waits, unless the script says something else. */
static struct str waiting_step(struct play *play)
{
    const struct step_parked *parked = drive_parked(play, play->run_id, STR_NONE);
    return parked != NULL ? parked->step : STR("nothing");
}

static void decision_step(struct play *play, struct str *line, bool approved)
{
    struct decision decision = {
        .run = play->run_id,
        .request_id = STR("request-2"),
        .step = arena_str(play->arena, waiting_step(play)),
        .args_hash = STR(""),
        .approved = approved,
        .by = take_word(play, line),
    };
    if (take(line, "of run"))
        decision.run = take_word(play, line);
    if (take(line, "at step"))
        decision.step = take_word(play, line);
    if (take(line, "visit"))
        decision.visit = (int32_t)strtol(take_word(play, line).data, NULL, 10);
    if (take(line, "shown"))
        decision.args_hash = take_word(play, line);
    if (line->size > 0)
        decision.reason = rest(play, line);
    drive_decision(play, &decision);
}

static void resolve_step(struct play *play, struct str *line)
{
    struct resolved resolved = {
        .run = play->run_id,
        .request_id = STR("request-3"),
        .step = arena_str(play->arena, waiting_step(play)),
        .by = take_word(play, line),
    };
    if (take(line, "not done"))
        resolved.kind = RESOLUTION_NOT_DONE;
    else if (take(line, "failed"))
        resolved.kind = RESOLUTION_FAIL;
    else if (take(line, "done"))
        resolved.kind = RESOLUTION_DONE;
    if (line->size > 0)
        resolved.result = rest(play, line);
    drive_resolution(play, &resolved);
}

/* force STEP EDGE TARGET: a contract as no check would let it pass, to see what the worker itself refuses. */
static void force(struct play *play, struct str *line)
{
    struct str from = take_word(play, line), edge = take_word(play, line), to = take_word(play, line);
    int32_t step = contract_step(play->contract, from), target = contract_step(play->contract, to);
    if (step < 0 || target < 0)
        drive_fail(play, "write: force STEP EDGE STEP");
    for (int i = 0; i < EDGE_COUNT; i++)
        if (str_is(edge, edge_name((enum edge)i)))
            play->contract->steps[step].edges[i] = target;
    play->contract->steps[target].visits_max = 10;
}

static bool people_step(struct play *play, struct str *line)
{
    if (take(line, "run")) {
        struct run_requested request = {
            .run = take(line, "as") ? take_word(play, line) : STR("run-1"),
            .request_id = STR("request-1"),
            .contract = play->contract->name,
            .contract_hash = str_of(play->contract->hash),
            .by = STR("me"),
            .at_ms = play->now_ms,
        };
        request.input = line->size > 0 ? rest(play, line) : STR("{}");
        drive_run(play, &request);
    } else if (take(line, "approve by")) {
        decision_step(play, line, true);
    } else if (take(line, "reject by")) {
        decision_step(play, line, false);
    } else if (take(line, "resolve by")) {
        resolve_step(play, line);
    } else if (take(line, "force")) {
        force(play, line);
    } else if (take(line, "show")) {
        drive_show(play);
    } else if (take(line, "usage absent")) {
        play->tokens_in = play->tokens_out = play->micro_usd = -1;
    } else if (take(line, "usage")) {
        play->tokens_in = strtoll(take_word(play, line).data, NULL, 10);
        play->tokens_out = strtoll(take_word(play, line).data, NULL, 10);
        if (!units_usd(take_word(play, line), &play->micro_usd))
            drive_fail(play, "write: usage TOKENS_IN TOKENS_OUT USD");
    } else {
        return false;
    }
    return true;
}

/* ---- the script ---- */

static void step(struct play *play, struct str line)
{
    if (take(&line, "contract")) {
        choose_contract(play, take_word(play, &line));
    } else if (take(&line, "but")) {
        change_contract(play, line);
        line = STR("");
    } else {
        load_contract(play);
        if (!people_step(play, &line) && !model_step(play, &line) && !outside_step(play, &line))
            drive_fail(play, "what is this? %.*s", STR_ARG(line));
    }
    if (line.size > 0)
        drive_fail(play, "what is this at the end? %.*s", STR_ARG(line));
}

void play_file(const char *path, struct str script, struct buf *out)
{
    struct keeper_bodies *bodies = keeper_bodies_new(SIZE_MAX);
    struct play play = {
        .path = path,
        .arena = arena_new(),
        .keeper = keeper_new(ENDED_KEEP_MS, bodies),
        .now_ms = START_MS,
        .tokens_in = 100,
        .tokens_out = 20,
        .micro_usd = 1000,
    };
    play.trace = (struct trace){.out = out, .arena = play.arena, .now_ms = START_MS};
    for (const char *at = script.data, *end = script.data + script.size; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        struct str line = {at, (size_t)((newline != NULL ? newline : end) - at)};
        at += line.size + 1;
        play.line++;
        if (line.size > 0 && line.data[0] == '>')
            continue;
        buf_put(out, line.data, line.size);
        buf_puts(out, "\n");
        line = trimmed(line);
        if (line.size > 0 && line.data[0] != '#')
            step(&play, line);
    }
    contract_free(play.contract);
    keeper_free(play.keeper);
    keeper_bodies_free(bodies);
    fold_free(play.fold);
    arena_free(play.arena);
}
