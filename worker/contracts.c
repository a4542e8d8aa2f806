#include "worker/worker.h"

#include "worker/base/logline.h"
#include "worker/base/mem.h"

struct version {
    struct contract *contract; /* NULL: refused */
    char hash[HASH_HEX_SIZE + 1];
    char refused[512];
    struct version *next;
};

struct contracts {
    struct version *versions; /* a handful: a list will do */
};

struct contracts *contracts_new(void)
{
    return mem_new(sizeof(struct contracts));
}

void contracts_free(struct contracts *contracts)
{
    while (contracts != NULL && contracts->versions != NULL) {
        struct version *version = contracts->versions;
        contracts->versions = version->next;
        contract_free(version->contract);
        mem_free(version);
    }
    mem_free(contracts);
}

static const struct version *find(const struct contracts *contracts, struct str hash)
{
    for (const struct version *version = contracts->versions; version != NULL; version = version->next)
        if (str_is(hash, version->hash))
            return version;
    return NULL;
}

/* A contract is checked again here: one that was forced into the topic is refused, whatever hash it claims. */
static void add_version(struct contracts *contracts, const struct contract_published *published)
{
    if (published->hash.size != HASH_HEX_SIZE || find(contracts, published->hash) != NULL)
        return;
    struct problems problems;
    problems_init(&problems);
    struct version *version = mem_new(sizeof(*version));
    version->contract = contract_load(published->canonical, &problems);
    snprintf(version->hash, sizeof(version->hash), "%.*s", STR_ARG(published->hash));
    if (version->contract != NULL && !str_is(published->hash, version->contract->hash)) {
        contract_free(version->contract);
        version->contract = NULL;
        snprintf(version->refused, sizeof(version->refused),
                 "its content does not have the hash that it was published under");
    } else if (version->contract == NULL) {
        for (size_t i = 0; i < problems.count && version->refused[0] == '\0'; i++)
            if (!problems.list[i].warning)
                snprintf(version->refused, sizeof(version->refused), "%.*s", STR_ARG(problems.list[i].text));
    }
    if (version->contract != NULL)
        LOG_INFO("contract.known", LOG_STR("contract", published->name), LOG_S("hash", version->hash));
    else
        LOG_ERROR("contract.refused", LOG_STR("contract", published->name), LOG_S("hash", version->hash),
                  LOG_S("reason", version->refused));
    version->next = contracts->versions;
    contracts->versions = version;
    problems_free(&problems);
}

void contracts_add(struct contracts *contracts, const struct log_event *event)
{
    if (event->value.data == NULL)
        return;
    struct arena *arena = arena_new();
    struct record record;
    struct error error;
    if (!record_decode(event->value, arena, &record, &error))
        LOG_ERROR("control.unreadable", LOG_I("offset", event->offset), LOG_S("reason", error.text));
    else if (record.type == RECORD_CONTRACT_PUBLISHED)
        add_version(contracts, &record.is.contract_published);
    else if (record.type == RECORD_SCHEMA_PUBLISHED && !record_schema_add(record.is.schema_published.text, &error))
        LOG_ERROR("schema.refused", LOG_I("offset", event->offset), LOG_S("reason", error.text));
    arena_free(arena);
}

const struct contract *contracts_find(const struct contracts *contracts, struct str hash, const char **refused)
{
    const struct version *version = find(contracts, hash);
    *refused = version != NULL && version->contract == NULL ? version->refused : NULL;
    return version != NULL ? version->contract : NULL;
}
