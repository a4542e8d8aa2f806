/* ledger_info.h: what Redis says of itself (INFO), as far as the ledger's promises depend on it. A part of the ledger. */
#ifndef MYELIN_IO_LEDGER_INFO_H
#define MYELIN_IO_LEDGER_INFO_H

#include "worker/base/bytes.h"

#define LEDGER_INFO_RUN_ID_SIZE 40
#define LEDGER_INFO_RANDOM_SIZE 32

struct ledger_info {
    char run_id[LEDGER_INFO_RUN_ID_SIZE + 1]; /* another one in each life of the server */
    char role[16];                            /* master, slave, sentinel */
    char policy[32];                          /* maxmemory_policy */
    bool loading;
};

/* The lines of INFO, "name:value\r\n"; what is absent stays "". */
void ledger_info_read(struct ledger_info *info, struct str text);

/* False with the reason: nothing can be kept there (a replica, a sentinel, still loading, no run_id). */
bool ledger_info_usable(const struct ledger_info *info, char *reason, size_t size);

/* Why no write may start, or "". INFO says the policy also where CONFIG is forbidden. */
void ledger_info_writes(const struct ledger_info *info, char *reason, size_t size);

/* An incarnation is "VALUE-RUN_ID". Its value when it is of this server; else "-", which equals no value. */
void ledger_info_known(const struct ledger_info *info, struct str incarnation, char *value, size_t size);

/* Hex digits of the system's random source. */
void ledger_info_random(char text[LEDGER_INFO_RANDOM_SIZE + 1]);

#endif
