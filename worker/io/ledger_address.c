#include "worker/io/ledger_address.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the resolver's own thread works on: it must stay where it is until that thread is done. */
struct resolving {
    char host[256], port[8];
    struct addrinfo hints;
    struct gaicb request;
};

bool ledger_address_parse(struct ledger_address *address, const char *text, struct error *error)
{
    const char *colon = strrchr(text, ':'), *host = text;
    size_t size = colon == NULL ? 0 : (size_t)(colon - text);
    char *end;
    long port = colon == NULL ? 0 : strtol(colon + 1, &end, 10);

    *address = (struct ledger_address){0};
    if (size >= 2 && host[0] == '[' && host[size - 1] == ']') {
        host++;
        size -= 2;
    }
    if (size == 0 || size >= sizeof address->host || port < 1 || port > 65535 || *end != '\0')
        return error_set(error, ERROR_FATAL, "the address of Redis is \"%s\"; it must be HOST:PORT", text);
    memcpy(address->host, host, size);
    (void)snprintf(address->port, sizeof address->port, "%ld", port);
    return true;
}

static bool is_numeric(const char *host)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* glibc's getaddrinfo in a thread of its own. */
static bool begin(struct ledger_address *address)
{
    struct resolving *resolving = calloc(1, sizeof *resolving);
    struct gaicb *list[1];

    if (resolving == NULL)
        return false;
    memcpy(resolving->host, address->host, sizeof resolving->host);
    memcpy(resolving->port, address->port, sizeof resolving->port);
    resolving->hints.ai_socktype = SOCK_STREAM;
    resolving->request.ar_name = resolving->host;
    resolving->request.ar_service = resolving->port;
    resolving->request.ar_request = &resolving->hints;
    list[0] = &resolving->request;
    if (getaddrinfo_a(GAI_NOWAIT, list, 1, NULL) != 0) {
        free(resolving);
        return false;
    }
    address->resolving = resolving;
    return true;
}

static bool pick(const struct addrinfo *found, unsigned attempt, char ip[64])
{
    const struct addrinfo *item;
    unsigned count = 0;

    for (item = found; item != NULL; item = item->ai_next)
        count++;
    if (count == 0)
        return false;
    item = found;
    for (unsigned i = attempt % count; i > 0; i--)
        item = item->ai_next;
    return getnameinfo(item->ai_addr, item->ai_addrlen, ip, 64, NULL, 0, NI_NUMERICHOST) == 0;
}

enum ledger_address_state ledger_address_find(struct ledger_address *address, unsigned attempt, char ip[64], int *port,
                                              struct error *error)
{
    struct resolving *resolving;
    bool found;
    int code;

    *port = (int)strtol(address->port, NULL, 10);
    if (is_numeric(address->host)) {
        (void)snprintf(ip, 64, "%.63s", address->host);
        return ADDRESS_FOUND;
    }
    if (address->resolving == NULL && !begin(address)) {
        (void)error_set(error, ERROR_RETRY, "cannot look up \"%s\": no memory", address->host);
        return ADDRESS_FAILED;
    }
    resolving = address->resolving;
    code = gai_error(&resolving->request);
    if (code == EAI_INPROGRESS)
        return ADDRESS_WAIT;
    address->resolving = NULL;
    found = code == 0 && pick(resolving->request.ar_result, attempt, ip);
    if (!found)
        (void)error_set(error, ERROR_RETRY, "cannot look up \"%s\": %s", address->host,
                        gai_strerror(code == 0 ? EAI_NODATA : code));
    if (resolving->request.ar_result != NULL)
        freeaddrinfo(resolving->request.ar_result);
    free(resolving);
    return found ? ADDRESS_FOUND : ADDRESS_FAILED;
}

void ledger_address_free(struct ledger_address *address)
{
    struct resolving *resolving = address->resolving;
    int code;

    if (resolving == NULL)
        return;
    address->resolving = NULL;
    code = gai_cancel(&resolving->request);
    /* A look-up that is under way cannot be stopped, and its thread will write here: then the memory is left to it. */
    if (code == EAI_CANCELED || code == EAI_ALLDONE) {
        if (resolving->request.ar_result != NULL)
            freeaddrinfo(resolving->request.ar_result);
        free(resolving);
    }
}
