/* doctor_contracts.c: what the published contracts need. */
#include <string.h>

#include "producer/contracts.h"
#include "producer/control.h"
#include "producer/doctor.h"
#include "worker/base/env.h"
#include "worker/io/look.h"

#define NAMES_MAX 200

/* Names that were told already: a variable is told once, not once a tool. */
struct told {
    const char *names[NAMES_MAX];
    size_t count;
};

static bool told_before(struct told *told, const char *name)
{
    for (size_t i = 0; i < told->count; i++)
        if (strcmp(told->names[i], name) == 0)
            return true;
    if (told->count < NAMES_MAX)
        told->names[told->count++] = name;
    return false;
}

/* ---- variables of tools ---- */

static void look_at_text(struct doctor *doctor, const char *label, const struct tool *tool, struct str text,
                         struct told *told)
{
    struct error error;
    struct str expanded;
    struct arena *arena = doctor->cmd->arena;
    if (text.data == NULL || env_expand(arena, text, &expanded, &error))
        return;
    const char *copy = arena_copy(arena, error.text, strlen(error.text)).data;
    if (!told_before(told, copy))
        doctor_say(doctor, DOCTOR_WARN, "tool", "%s of %s: %s: set it for the workers", tool->name.data, label, copy);
}

static void look_at_tools(struct doctor *doctor, const struct contract *contract, const char *label, struct told *told)
{
    for (size_t i = 0; i < contract->tools_count; i++) {
        const struct tool *tool = &contract->tools[i];
        look_at_text(doctor, label, tool, tool->url, told);
        for (size_t k = 0; k < tool->headers_count; k++)
            look_at_text(doctor, label, tool, tool->headers[k].value, told);
        if (tool->probe != NULL)
            look_at_text(doctor, label, tool, tool->probe->url, told);
    }
}

/* ---- models ---- */

static void look_at_model(struct doctor *doctor, const char *label, const char *who, struct str model)
{
    if (doctor->worker == NULL || model.size == 0 || settings_model(doctor->worker, model) != NULL)
        return;
    doctor_say(doctor, DOCTOR_FAIL, "model",
               "%s of %s asks for the model \"%s\", which worker.cfg does not have: add it to models", who, label,
               model.data);
}

static void look_at_models_of(struct doctor *doctor, const struct contract *contract, const char *label)
{
    for (size_t i = 0; i < contract->agents_count; i++)
        look_at_model(doctor, label, contract->agents[i].name.data, contract->agents[i].model);
    for (size_t i = 0; i < contract->steps_count; i++)
        if (contract->steps[i].kind == STEP_MODEL)
            look_at_model(doctor, label, contract->steps[i].name.data, contract->steps[i].model);
}

void doctor_contracts(struct doctor *doctor)
{
    int code;
    struct cmd *cmd = doctor->cmd;
    const struct control *control = control_get(cmd, &code);
    struct told told = {.count = 0};
    if (control == NULL) {
        doctor_say(doctor, DOCTOR_FAIL, "contracts", "the topic control cannot be read");
        return;
    }
    if (control->count == 0)
        doctor_say(doctor, DOCTOR_WARN, "contracts", "none is published yet: myelin contract publish FILE");
    for (size_t i = 0; i < control->count; i++) {
        const struct contract_published *published = &control->versions[i].published;
        bool latest = true;
        for (size_t k = i + 1; k < control->count; k++)
            latest = latest && !str_equal(published->name, control->versions[k].published.name);
        if (!latest)
            continue;
        const char *label = contracts_label(cmd, published->name, published->hash);
        struct contract *contract = control_load(cmd, &control->versions[i]);
        if (contract == NULL) {
            doctor_say(doctor, DOCTOR_FAIL, "contract", "%s does not load: publish it again from its file", label);
            continue;
        }
        doctor_say(doctor, DOCTOR_OK, "contract", "%s loads, %zu steps", label, contract->steps_count);
        look_at_tools(doctor, contract, label, &told);
        look_at_models_of(doctor, contract, label);
        contract_free(contract);
    }
}

/* ---- model endpoints ---- */

/* "https://user@host:8443/v1" → host and port; only what is needed to connect. */
static bool split_url(struct arena *arena, const char *url, const char **host, const char **port)
{
    const char *scheme_end = strstr(url, "://");
    if (scheme_end == NULL)
        return false;
    const char *from = scheme_end + 3, *end = from + strcspn(from, "/?#");
    for (const char *c = from; c < end; c++)
        if (*c == '@')
            from = c + 1;
    const char *host_end = *from == '[' ? memchr(from, ']', (size_t)(end - from))
                                        : memchr(from, ':', (size_t)(end - from));
    if (*from == '[' && host_end == NULL)
        return false;
    const char *port_at = *from == '[' ? host_end + 1 : host_end;
    if (host_end == NULL)
        host_end = port_at = end;
    from += *from == '[';
    *host = arena_copy(arena, from, (size_t)(host_end - from)).data;
    bool has_port = port_at < end && *port_at == ':';
    *port = has_port                        ? arena_copy(arena, port_at + 1, (size_t)(end - port_at - 1)).data
            : strncmp(url, "https", 5) == 0 ? "443"
                                            : "80";
    return **host != '\0';
}

void doctor_models(struct doctor *doctor, int64_t timeout_ms)
{
    struct told told = {.count = 0};
    if (doctor->worker == NULL)
        return;
    if (doctor->worker->models_count == 0)
        doctor_say(doctor, DOCTOR_WARN, "model", "worker.cfg has no models: contracts with agents cannot run");
    for (size_t i = 0; i < doctor->worker->models_count; i++) {
        const struct chat_model *model = &doctor->worker->models[i];
        const char *host, *port;
        struct error error;
        if (!split_url(doctor->cmd->arena, model->url.data, &host, &port)) {
            doctor_say(doctor, DOCTOR_FAIL, "model", "%s: its url has no host", model->name.data);
            continue;
        }
        const char *place = arena_printf(doctor->cmd->arena, "%s:%s", host, port).data;
        if (model->micro_usd_in < 0 || model->micro_usd_out < 0)
            doctor_say(doctor, DOCTOR_WARN, "model",
                       "%s: its price is not known (usd_in, usd_out): a contract's limit in usd cannot hold",
                       model->name.data);
        if (told_before(&told, place))
            continue;
        if (look_tcp(host, port, timeout_ms, &error))
            doctor_say(doctor, DOCTOR_OK, "model", "%s: %s at %s accepts connections", model->name.data,
                       model->model.data, place);
        else
            doctor_say(doctor, DOCTOR_FAIL, "model", "%s: %s; its url is in worker.cfg, or $MODEL_URL",
                       model->name.data, error.text);
    }
}
