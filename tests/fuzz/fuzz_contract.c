/*
 * A contract of any bytes, from a file and from a topic: a clear error or a contract that comes back the same,
 * never a crash. Also: where the scan finds nothing, libconfig finds the same values.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/contract/contract.h"

/* Compiled expressions are kept for the life of a thread: long for a fuzzer. */
#define CACHE_INPUTS_MAX 200

static void must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fuzz_contract: %s\n", what);
    abort();
}

/* What a contract says about itself: refused with a reason, or fit to travel. */
static void examine(struct contract *contract, const struct problems *problems)
{
    must((contract == NULL) == (problems->errors > 0), "refused without a reason, or accepted with one");
    for (size_t i = 0; i < problems->count; i++)
        must(strncmp(problems->list[i].text.data, "libconfig: ", sizeof("libconfig: ") - 1) != 0,
             "the scan and libconfig do not agree");
    if (contract == NULL)
        return;
    struct arena *arena = arena_new();
    struct contract_row *rows;
    must(contract_table(contract, arena, &rows) == contract->steps_count, "a step is not in the table");
    struct problems again;
    problems_init(&again);
    struct contract *copy = contract_load(contract->canonical, &again);
    must(copy != NULL && strcmp(copy->hash, contract->hash) == 0, "does not come back the same");
    contract_free(copy);
    problems_free(&again);
    arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int inputs;
    char path[64];
    struct problems problems;
    int fd = memfd_create("contract", MFD_CLOEXEC);
    must(fd >= 0 && write(fd, data, size) == (ssize_t)size, "no memory file");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    problems_init(&problems);
    struct contract *contract = contract_read_file(path, &problems);
    examine(contract, &problems);
    contract_free(contract);
    problems_free(&problems);
    close(fd);

    char *text = malloc(size + 1);
    must(text != NULL, "no memory");
    memcpy(text, data, size);
    text[size] = '\0';
    problems_init(&problems);
    contract = contract_load((struct str){.data = text, .size = size}, &problems);
    examine(contract, &problems);
    contract_free(contract);
    problems_free(&problems);
    free(text);
    if (++inputs % CACHE_INPUTS_MAX == 0)
        expr_cache_free();
    return 0;
}
