/* agent.c: an agent's turn. Every model answer and every tool call is a committed step of its own. */
#include "worker/base/json.h"
#include "worker/core/draft.h"

/* Goal and criteria stand before every agent's own system text. */
struct str agent_system(struct draft *draft, struct str own)
{
    const struct contract *contract = draft->contract;
    struct str text = arena_printf(draft->arena, "Goal: %.*s", STR_ARG(contract->goal));
    for (size_t i = 0; i < contract->criteria_count; i++)
        text = arena_printf(draft->arena, "%.*s\n%s- %.*s", STR_ARG(text), i == 0 ? "Success criteria:\n" : "",
                            STR_ARG(contract->criteria[i].says));
    return own.size > 0 ? arena_printf(draft->arena, "%.*s\n\n%.*s", STR_ARG(text), STR_ARG(own)) : text;
}

const struct call *agent_model_call(struct draft *draft)
{
    const struct agent *agent = draft_agent(draft);
    struct run *run = draft->run;
    if (agent != NULL && run->at.turn >= agent->turns_max) {
        walk_fail(draft,
                  arena_printf(draft->arena, "agents.%s.turns_max = %d is reached", agent->name.data, agent->turns_max),
                  false);
        return NULL;
    }
    struct call *call = ARENA_NEW(draft->arena, struct call);
    *call = (struct call){
        .kind = CALL_MODEL,
        .effect = EFFECT_READ,
        .key = run_call_key(draft->arena, draft->env->name_space, run),
        .agent = agent != NULL ? agent->name : STR(""),
        .model = agent != NULL ? agent->model : draft->step->model,
        .system = agent_system(draft, agent != NULL ? agent->system : draft->step->system),
        .conversation = run->at.conversation,
        .conversation_count = run->at.conversation_count,
        .output = draft->step->output != NULL ? draft->step->output
                  : agent != NULL             ? agent->output
                                              : NULL,
    };
    if (agent != NULL && agent->tools_count > 0) {
        call->tools = ARENA_ARRAY(draft->arena, agent->tools_count, const struct tool *);
        for (size_t i = 0; i < agent->tools_count; i++)
            call->tools[call->tools_count++] = &draft->contract->tools[agent->tools[i]];
    }
    return call;
}

/* A model asked for JSON often puts a fence around it: ```json ... ``` */
static struct str without_fence(struct draft *draft, struct str text)
{
    const char *from = text.data, *to = text.data + text.size;
    while (from < to && (*from == ' ' || *from == '\n' || *from == '\r' || *from == '\t'))
        from++;
    while (to > from && (to[-1] == ' ' || to[-1] == '\n' || to[-1] == '\r' || to[-1] == '\t'))
        to--;
    if (to - from < 6 || from[0] != '`' || from[1] != '`' || from[2] != '`' || to[-1] != '`' || to[-2] != '`' ||
        to[-3] != '`')
        return arena_copy(draft->arena, from, (size_t)(to - from));
    to -= 3;
    from += 3;
    const char *word = from; /* the name of the language, if a blank follows */
    while (word < to && *word >= 'a' && *word <= 'z')
        word++;
    if (word < to && (*word == ' ' || *word == '\n' || *word == '\r'))
        from = word;
    return arena_copy(draft->arena, from, (size_t)(to - from));
}

static void final_answer(struct draft *draft, struct str content)
{
    const struct agent *agent = draft_agent(draft);
    bool typed = draft->step->output != NULL || (agent != NULL && agent->output != NULL);
    if (!typed) {
        accept_output(draft,
                      arena_printf(draft->arena, "{\"text\":%.*s}", STR_ARG(scope_quote(draft->arena, content))));
        return;
    }
    struct error error;
    json_t *value = json_read(without_fence(draft, content), RUN_STATE_SIZE_MAX, &error);
    if (value == NULL) {
        accept_reject(draft, "output", content,
                      arena_printf(draft->arena, "the answer must be one JSON value: %s", error.text));
        return;
    }
    struct str output = json_text(draft->arena, value);
    json_decref(value);
    accept_output(draft, output);
}

void agent_answered(struct draft *draft, const struct outcome *outcome)
{
    struct run *run = draft->run;
    run->at.turn++;
    bool empty = outcome->calls_count == 0 && outcome->content.size == 0;
    if (outcome->truncated || empty) { /* a cut tool call must never be executed: it is not even remembered */
        struct str cut = outcome->content.data != NULL ? outcome->content : STR("");
        if (cut.size > 0)
            draft_say(draft, (struct message){.role = ROLE_ASSISTANT, .content = cut});
        accept_reject(draft, "answer", cut,
                      empty ? STR("the answer was empty") : STR("the answer was cut by a length limit; be shorter"));
        return;
    }
    draft_say(draft, (struct message){
                         .role = ROLE_ASSISTANT,
                         .content = outcome->content,
                         .calls = outcome->calls,
                         .calls_count = outcome->calls_count,
                     });
    chain_bear(draft);
    if (outcome->calls_count > 0)
        walk_again(draft);
    else
        final_answer(draft, outcome->content);
}

void agent_tool_answer(struct draft *draft, enum answer_kind kind, struct str content)
{
    const struct tool_request *request = run_pending_call(draft->run);
    draft_say(draft, (struct message){
                         .role = ROLE_TOOL,
                         .content = content,
                         .call_id = request->id,
                         .answer = kind,
                     });
    if (kind == ANSWER_DONE)
        chain_bear(draft);
    walk_again(draft);
}
