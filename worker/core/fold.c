#include "worker/core/fold.h"

#include <string.h>

#include "worker/core/fold_put.h"
#include "worker/core/fold_state.h"

struct fold *fold_new(struct str run)
{
    struct arena *arena = arena_new();
    struct fold *fold = ARENA_NEW(arena, struct fold);
    *fold = (struct fold){
        .arena = arena,
        .run = arena_str(arena, run),
        .head = json_object(),
        .completed_steps = json_array(),
        .failed_steps = json_array(),
        .tool_calls = json_array(),
        .model_calls = json_array(),
        .retries = json_array(),
        .approvals = json_array(),
        .artifacts = json_object(),
        .side_effects = json_array(),
        .refusals = json_array(),
        .doubts = json_array(),
        .criteria = json_array(),
        .source_partition = -1,
        .source_offset = -1,
    };
    return fold;
}

void fold_free(struct fold *fold)
{
    if (fold == NULL)
        return;
    json_decref(fold->head);
    json_decref(fold->completed_steps);
    json_decref(fold->failed_steps);
    json_decref(fold->tool_calls);
    json_decref(fold->model_calls);
    json_decref(fold->retries);
    json_decref(fold->approvals);
    json_decref(fold->artifacts);
    json_decref(fold->side_effects);
    json_decref(fold->refusals);
    json_decref(fold->doubts);
    json_decref(fold->criteria);
    arena_free(fold->arena);
}

/* A step event that was worked off is a committed step: its facts stand together in `history`. So is a step that was decided with it
 * (ahead.c): it has no event of its own, and was refused. */
static void count_steps(struct fold *fold, const struct fact *fact)
{
    bool same = fact->source_partition == fold->source_partition && fact->source_offset == fold->source_offset &&
                str_equal(fact->source_topic, fold->source_topic);
    bool own = fact->visit == fold->source_visit && str_equal(fact->step, fold->source_step);
    if (same && (own || fact->kind != FACT_CALL_REFUSED))
        return;
    if (!str_equal(fact->source_topic, fold->source_topic))
        fold->source_topic = arena_str(fold->arena, fact->source_topic);
    fold->source_partition = fact->source_partition;
    fold->source_offset = fact->source_offset;
    if (!str_equal(fact->step, fold->source_step))
        fold->source_step = arena_str(fold->arena, fact->step);
    fold->source_visit = fact->visit;
    if (fact->source_offset >= 0 && fact->source_topic.data != NULL &&
        strstr(fact->source_topic.data, ".steps.") != NULL)
        fold->usage.steps++;
}

void fold_add(struct fold *fold, const struct fact *fact)
{
    if (!str_equal(fact->run, fold->run) || fact->seq < 0)
        return;
    if (fact->seq < fold->seq_next) {
        fold->repeats++;
        return;
    }
    fold->gaps += fact->seq - fold->seq_next;
    fold->seq_next = fact->seq + 1;
    fold->facts++;
    count_steps(fold, fact);
    fold_apply(fold, fact);
}

bool fold_known(const struct fold *fold)
{
    return fold->known;
}

bool fold_ended(const struct fold *fold)
{
    return fold->ended;
}

int64_t fold_gaps(const struct fold *fold)
{
    return fold->gaps;
}

/* ---- the state as JSON ---- */

static const char *status_of(const struct fold *fold)
{
    bool waiting = fold->active_count > 0;
    for (size_t i = 0; i < fold->active_count; i++)
        waiting = waiting && strcmp(fold->active[i].owner, "waiting") == 0;
    if (fold->ended)
        return run_status_name(fold->status);
    return run_status_name(waiting ? RUN_WAITING : RUN_RUNNING);
}

static json_t *current_step(const struct fold *fold)
{
    json_t *list = json_array();
    for (size_t i = 0; i < fold->active_count; i++) {
        const struct active *active = &fold->active[i];
        json_t *entry = json_object();
        put_text(entry, "step", active->step);
        put_text(entry, "branch", active->branch);
        put_number(entry, "visit", active->visit);
        put_number(entry, "attempt", active->attempt);
        put_text(entry, "status", str_of(step_status_name(active->status)));
        put_text(entry, "owner", str_of(active->owner));
        put_text(entry, "who", str_of(active->who));
        put_text(entry, "waits_for", active->waits_for);
        put_text(entry, "reason", active->reason);
        put_number(entry, "since_ms", active->since_ms);
        put_time(entry, "due_at_ms", active->due_at_ms);
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *usage_json(const struct fold *fold)
{
    const struct usage *usage = &fold->usage;
    json_t *json = json_object();
    put_number(json, "steps", usage->steps);
    put_number(json, "model_calls", usage->model_calls);
    put_number(json, "tool_calls", usage->tool_calls);
    put_number(json, "writes", usage->writes);
    put_number(json, "retries", usage->retries);
    put_number(json, "refusals", usage->refusals);
    put_number(json, "tokens_in", usage->tokens_in);
    put_number(json, "tokens_out", usage->tokens_out);
    put_number(json, "tokens_unknown", usage->tokens_unknown);
    put_number(json, "micro_usd", usage->micro_usd);
    put_number(json, "micro_usd_unknown", fold->usd_unknown);
    return json;
}

json_t *fold_json(const struct fold *fold)
{
    static const char *const head[] = {"contract",       "contract_hash", "requested_by", "goal",  "started_at_ms",
                                       "deadline_at_ms", "ended_at_ms",   "reason",       "input", "output"};
    json_t *json = json_object();
    put_text(json, "run", fold->run);
    put_text(json, "status", str_of(status_of(fold)));
    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++) {
        json_t *value = json_object_get(fold->head, head[i]);
        json_object_set_new(json, head[i], value != NULL ? json_incref(value) : json_null());
    }
    json_object_set_new(json, "current_step", current_step(fold));
    /* Copies: what is handed out does not change with the next fact. */
    json_object_set_new(json, "completed_steps", json_deep_copy(fold->completed_steps));
    json_object_set_new(json, "failed_steps", json_deep_copy(fold->failed_steps));
    json_object_set_new(json, "tool_calls", json_deep_copy(fold->tool_calls));
    json_object_set_new(json, "model_calls", json_deep_copy(fold->model_calls));
    json_object_set_new(json, "retries", json_deep_copy(fold->retries));
    json_object_set_new(json, "approvals", json_deep_copy(fold->approvals));
    json_object_set_new(json, "generated_artifacts", json_deep_copy(fold->artifacts));
    json_object_set_new(json, "committed_side_effects", json_deep_copy(fold->side_effects));
    json_object_set_new(json, "refusals", json_deep_copy(fold->refusals));
    json_object_set_new(json, "doubts", json_deep_copy(fold->doubts));
    json_object_set_new(json, "criteria", json_deep_copy(fold->criteria));
    json_object_set_new(json, "usage", usage_json(fold));
    put_number(json, "facts", fold->facts);
    put_number(json, "gaps", fold->gaps);
    put_number(json, "repeats", fold->repeats);
    return json;
}
