#include "producer/control.h"

#include <inttypes.h>
#include <string.h>

#include "producer/remote.h"
#include "worker/contract/suggest.h"
#include "worker/wire/avsc.h"
#include "worker/wire/schemas.h"

#define READ_TIMEOUT_MS 15000
#define CONTRACT_KEY "contract/"
#define SCHEMA_KEY "schema/"

static bool starts(struct str text, const char *prefix)
{
    return text.size >= strlen(prefix) && memcmp(text.data, prefix, strlen(prefix)) == 0;
}

/* A list that grows in the arena: room for one more. */
static void *room(struct arena *arena, void *list, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return list;
    *capacity = *capacity == 0 ? 16 : *capacity * 2;
    void *grown = arena_array(arena, *capacity, size);
    if (count > 0)
        memcpy(grown, list, count * size);
    return grown;
}

/* A contract record as it was read: decoded when all schemas are known, for another version of Myelin may have written it. */
struct raw {
    struct str key, value;
    int64_t offset;
};

static void take_contract(struct cmd *cmd, struct control *control, const struct raw *raw)
{
    struct record record;
    struct error error;
    if (!record_decode(raw->value, cmd->arena, &record, &error)) {
        cmd_warn(cmd, "control@%" PRId64 " (%.*s) cannot be read and is left out: %s", raw->offset, STR_ARG(raw->key),
                 error.text);
        return;
    }
    if (record.type != RECORD_CONTRACT_PUBLISHED)
        return;
    control->versions = room(cmd->arena, control->versions, control->count, &control->capacity,
                             sizeof(control->versions[0]));
    control->versions[control->count++] = (struct control_version){.published = record.is.contract_published,
                                                                   .offset = raw->offset};
}

/* What cannot be read is no reason to stop: the record that needs that schema will say so. */
static void take_schema(struct cmd *cmd, struct control *control, const struct reader_record *read)
{
    struct record record;
    struct error error;
    if (!record_decode(read->value, cmd->arena, &record, &error) || record.type != RECORD_SCHEMA_PUBLISHED)
        return;
    record_schema_add(record.is.schema_published.text, &error);
    control->schemas = room(cmd->arena, control->schemas, control->schemas_count, &control->schemas_capacity,
                            sizeof(struct str));
    control->schemas[control->schemas_count++] = arena_str(cmd->arena, read->key);
}

static bool read_topic(struct cmd *cmd, struct control *control, int *code)
{
    if (!remote_start(cmd, "control", 0, READER_FROM_START, code))
        return false;
    enum reader_got got;
    struct reader_record read;
    struct raw *contracts = NULL;
    size_t count = 0, capacity = 0;
    while ((got = remote_next(cmd, cmd_timeout(cmd, READ_TIMEOUT_MS), &read, code)) == READER_RECORD) {
        if (read.value.data == NULL || read.key.data == NULL)
            continue;
        if (starts(read.key, SCHEMA_KEY))
            take_schema(cmd, control, &read);
        if (!starts(read.key, CONTRACT_KEY))
            continue;
        contracts = room(cmd->arena, contracts, count, &capacity, sizeof(contracts[0]));
        contracts[count++] = (struct raw){arena_str(cmd->arena, read.key), arena_str(cmd->arena, read.value),
                                          read.offset};
    }
    if (got == READER_TIMEOUT)
        *code = cmd_fail(cmd, CMD_UNAVAILABLE,
                         "the topic control could not be read to its end in time: is Kafka well?");
    for (size_t i = 0; got == READER_END && i < count; i++)
        take_contract(cmd, control, &contracts[i]);
    return got == READER_END;
}

const struct control *control_get(struct cmd *cmd, int *code)
{
    if (cmd->control == NULL) {
        struct control *control = ARENA_NEW(cmd->arena, struct control);
        if (!read_topic(cmd, control, code))
            return NULL;
        cmd->control = control;
    }
    return cmd->control;
}

struct contract *control_load(struct cmd *cmd, const struct control_version *version)
{
    struct problems problems;
    if (version == NULL)
        return NULL;
    problems_init(&problems);
    struct contract *contract = contract_load(version->published.canonical, &problems);
    if (contract == NULL && problems.count > 0)
        cmd_warn(cmd, "%.*s@%.*s does not load: %.*s", STR_ARG(version->published.name), CONTROL_HASH_SHOWN,
                 version->published.hash.data, STR_ARG(problems.list[0].text));
    problems_free(&problems);
    return contract;
}

const struct control_version *control_hash(const struct control *control, struct str hash)
{
    for (size_t i = control->count; i > 0; i--)
        if (str_equal(control->versions[i - 1].published.hash, hash))
            return &control->versions[i - 1];
    return NULL;
}

/* How many versions of `name` have a hash that begins with `prefix`; `latest` is the last of them. */
static size_t count_versions(const struct control *control, struct str name, struct str prefix,
                             const struct control_version **latest)
{
    size_t count = 0;
    *latest = NULL;
    for (size_t i = 0; i < control->count; i++) {
        const struct contract_published *published = &control->versions[i].published;
        if (!str_equal(published->name, name) || published->hash.size < prefix.size ||
            memcmp(published->hash.data, prefix.data, prefix.size) != 0)
            continue;
        /* The same version published again is the same version. */
        if (*latest == NULL || !str_equal((*latest)->published.hash, published->hash))
            count++;
        *latest = &control->versions[i];
    }
    return count;
}

const struct control_version *control_find(struct cmd *cmd, const struct control *control, struct str name, int *code)
{
    const char *at = memchr(name.data, '@', name.size);
    struct str bare = at != NULL ? (struct str){name.data, (size_t)(at - name.data)} : name;
    struct str prefix = at != NULL ? str_of(at + 1) : STR("");
    const struct control_version *latest, *any;
    size_t matching = count_versions(control, bare, prefix, &latest);
    *code = CMD_NO_INPUT;
    if (matching == 1 || (matching > 1 && at == NULL))
        return latest;
    if (matching > 1) {
        cmd_fail(cmd, CMD_NO_INPUT,
                 "%zu versions of %.*s begin with %s: write more of the hash; see: myelin contract list %.*s", matching,
                 STR_ARG(bare), prefix.data, STR_ARG(bare));
        return NULL;
    }
    if (count_versions(control, bare, STR(""), &any) > 0) {
        cmd_fail(cmd, CMD_NO_INPUT, "%.*s has no published version %s; see: myelin contract list %.*s", STR_ARG(bare),
                 prefix.data, STR_ARG(bare));
        return NULL;
    }
    struct str *names = ARENA_ARRAY(cmd->arena, control->count + 1, struct str);
    for (size_t i = 0; i < control->count; i++)
        names[i] = control->versions[i].published.name;
    struct str clause = suggest_clause(cmd->arena, bare, names, control->count);
    cmd_fail(cmd, CMD_NO_INPUT, "no contract \"%.*s\" is published%.*s%s", STR_ARG(bare), STR_ARG(clause),
             clause.size > 0 ? "" : "; publish it: myelin contract publish FILE");
    return NULL;
}

int control_publish_schemas(struct cmd *cmd, const struct control *control, int *code)
{
    int published = 0;
    for (size_t i = 0; i < embedded_schemas_count; i++) {
        const struct embedded_schema *embedded = &embedded_schemas[i];
        struct error error;
        struct str text = {embedded->text, embedded->size};
        const struct avsc_node *schema = avsc_read(cmd->arena, text, &error);
        if (schema == NULL) {
            *code = cmd_fail(cmd, CMD_INTERNAL, "schemas/%s.avsc: %s", embedded->name, error.text);
            return -1;
        }
        struct str key = arena_printf(cmd->arena, SCHEMA_KEY "%016" PRIx64, avsc_fingerprint(schema));
        bool there = false;
        for (size_t k = 0; k < control->schemas_count; k++)
            there = there || str_equal(control->schemas[k], key);
        struct schema_published record = {.name = str_of(embedded->name), .text = text};
        if (there)
            continue;
        if (!remote_send(cmd, "control", 0, key, RECORD_SCHEMA_PUBLISHED, &record, code))
            return -1;
        published++;
    }
    return published;
}
