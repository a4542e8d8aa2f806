/*
 * ledger_address.h: HOST:PORT to an IP address, without ever holding up the loop. A part of the ledger.
 */
#ifndef MYELIN_IO_LEDGER_ADDRESS_H
#define MYELIN_IO_LEDGER_ADDRESS_H

#include <netdb.h>
#include <stdbool.h>

#include "worker/base/error.h"

struct ledger_address {
    char host[256], port[8];
    struct resolving *resolving; /* a name that is being looked up; NULL = none */
};

/* "HOST:PORT", "[IPV6]:PORT". ERROR_FATAL says what is wrong. */
bool ledger_address_parse(struct ledger_address *address, const char *text, struct error *error);

enum ledger_address_state { ADDRESS_FOUND, ADDRESS_WAIT, ADDRESS_FAILED };

/* Looks the host up; a name takes several calls (some milliseconds apart: WAIT). `attempt` picks among several addresses, so
 * that the next try is another one. FAILED with `error` (ERROR_RETRY). */
enum ledger_address_state ledger_address_find(struct ledger_address *address, unsigned attempt, char ip[64], int *port,
                                              struct error *error);
void ledger_address_free(struct ledger_address *address);

#endif
