/* contracts.h: contracts from files, with their problems told. */
#ifndef MYELIN_PRODUCER_CONTRACTS_H
#define MYELIN_PRODUCER_CONTRACTS_H

#include "producer/cmd.h"
#include "worker/contract/contract.h"
#include "worker/settings.h"

/* Reads and checks a file and says all that is wrong with it, then whether it is good. NULL when it has an error. `worker` may be
 * NULL; when it has models, a good contract's models must be among them. */
struct contract *contracts_read(const struct cmd *cmd, const char *path, const struct settings *worker);

/* "customer_research_to_followup@7c1f2e0d4b11" */
const char *contracts_label(const struct cmd *cmd, struct str name, struct str hash);

#endif
