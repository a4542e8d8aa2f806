/* control.h: what the topic `control` knows: the versions of contracts, and schemas. */
#ifndef MYELIN_PRODUCER_CONTROL_H
#define MYELIN_PRODUCER_CONTROL_H

#include "producer/cmd.h"
#include "worker/contract/contract.h"
#include "worker/core/inbox.h"

/* A published version; later ones of the same name come later. */
struct control_version {
    struct contract_published published;
    int64_t offset;
};

struct control {
    struct control_version *versions;
    size_t count, capacity;
    struct str *schemas; /* fingerprints that are published, as their keys say them */
    size_t schemas_count, schemas_capacity;
};

/* `control` as it was when this was first asked for; schemas of other versions are known to record_decode from then on, so
 * whoever reads records asks for it first. NULL: said; return *code. */
const struct control *control_get(struct cmd *cmd, int *code);

/* NAME (its latest version) or NAME@HASHPREFIX. NULL: said, with what there is; *code is set. */
const struct control_version *control_find(struct cmd *cmd, const struct control *control, struct str name, int *code);
/* A version by its whole hash; NULL = it is not published. */
const struct control_version *control_hash(const struct control *control, struct str hash);

/* The contract of a version, checked; NULL when it does not load (said as a warning), or when `version` is NULL. Free it with
 * contract_free. */
struct contract *control_load(struct cmd *cmd, const struct control_version *version);

/* Publishes those of our schemas that `control` lacks. How many, or -1: said; return *code. */
int control_publish_schemas(struct cmd *cmd, const struct control *control, int *code);

#define CONTROL_HASH_SHOWN 12 /* characters of a hash that people see */

#endif
