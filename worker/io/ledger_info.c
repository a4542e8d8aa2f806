#include "worker/io/ledger_info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void take(struct str line, const char *name, char *value, size_t size)
{
    size_t name_size = strlen(name);

    if (line.size > name_size && line.data[name_size] == ':' && memcmp(line.data, name, name_size) == 0)
        (void)snprintf(value, size, "%.*s", (int)(line.size - name_size - 1), line.data + name_size + 1);
}

void ledger_info_read(struct ledger_info *info, struct str text)
{
    char loading[4] = "";

    *info = (struct ledger_info){0};
    for (size_t at = 0; at < text.size;) {
        struct str line = {text.data + at, strcspn(text.data + at, "\r\n")};

        take(line, "run_id", info->run_id, sizeof info->run_id);
        take(line, "role", info->role, sizeof info->role);
        take(line, "maxmemory_policy", info->policy, sizeof info->policy);
        take(line, "loading", loading, sizeof loading);
        at += line.size + 1;
    }
    info->loading = strcmp(loading, "1") == 0;
}

bool ledger_info_usable(const struct ledger_info *info, char *reason, size_t size)
{
    if (strcmp(info->role, "master") != 0)
        (void)snprintf(reason, size, "is no primary (role %s): nothing can be written there",
                       info->role[0] == '\0' ? "not known" : info->role);
    else if (info->loading)
        (void)snprintf(reason, size, "is still loading its data");
    else if (info->run_id[0] == '\0')
        (void)snprintf(reason, size, "does not say its run_id (INFO server)");
    else
        return true;
    return false;
}

void ledger_info_writes(const struct ledger_info *info, char *reason, size_t size)
{
    reason[0] = '\0';
    if (strcmp(info->policy, "noeviction") != 0)
        (void)snprintf(reason, size,
                       "maxmemory-policy is %s, must be noeviction: Redis may forget which writes were made",
                       info->policy[0] == '\0' ? "not known" : info->policy);
}

void ledger_info_known(const struct ledger_info *info, struct str incarnation, char *value, size_t size)
{
    const char *dash = incarnation.size > 0 ? memchr(incarnation.data, '-', incarnation.size) : NULL;
    size_t value_size = dash == NULL ? 0 : (size_t)(dash - incarnation.data);
    bool same = value_size > 0 && value_size < size &&
                str_is((struct str){dash + 1, incarnation.size - value_size - 1}, info->run_id);

    (void)snprintf(value, size, "%.*s", same ? (int)value_size : 1, same ? incarnation.data : "-");
}

void ledger_info_random(char text[LEDGER_INFO_RANDOM_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[LEDGER_INFO_RANDOM_SIZE / 2];

    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        abort(); /* cannot be: up to 256 bytes come whole, once the system has started */
    for (size_t i = 0; i < sizeof bytes; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[LEDGER_INFO_RANDOM_SIZE] = '\0';
}
