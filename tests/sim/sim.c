/*
 * The simulation: the real loop and core in a world that goes wrong. See README.md.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "tests/sim/log_thread.h"
#include "worker/base/logline.h"

#define SETTINGS "tests/sim/worker.cfg"
#define ENDED_KEEP_MS 90000 /* far below what the settings allow, so that runs are forgotten */
#define FOUND "tests/sim/found.txt"

static const char help[] =
    "Usage: sim [--seeds COUNT] [--steps COUNT]     the seeds 1 to COUNT (200), each with so many steps (500)\n"
    "       sim --seed N [--steps COUNT] [--tell]   one seed; --tell prints what happens\n"
    "       sim --found                             those that found something once, of " FOUND "\n"
    "Run it from the root of the source.\n";

static int replay_found(struct settings *settings)
{
    char line[400];
    FILE *file = fopen(FOUND, "r");
    int count = 0;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        char *rest;
        uint64_t seed = strtoull(line, &rest, 10);
        long steps = strtol(rest, NULL, 10);
        if (line[0] == '#' || steps <= 0)
            continue;
        world_run(seed, (int)steps, settings, false);
        count++;
    }
    if (file != NULL)
        fclose(file);
    return count;
}

/* log.c is whole only with it; no thread is started here. */
void *log_thread(void *argument)
{
    return argument;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},  {"seeds", required_argument, NULL, 'c'},
        {"steps", required_argument, NULL, 'n'}, {"tell", no_argument, NULL, 't'},
        {"found", no_argument, NULL, 'f'},       {0},
    };
    uint64_t first = 1, last = 200;
    int steps = 500;
    bool verbose = false, found = false;
    struct error error;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 's')
            first = last = strtoull(optarg, NULL, 10);
        else if (option == 'c')
            last = strtoull(optarg, NULL, 10);
        else if (option == 'n')
            steps = (int)strtol(optarg, NULL, 10);
        else if (option == 't')
            verbose = true;
        else if (option == 'f')
            found = true;
        else
            return fputs(help, stderr), EX_USAGE;
    }
    logline_level(verbose ? LOGLINE_INFO : LOGLINE_ERROR + 1);
    struct settings *settings = record_open(&error) ? settings_read(SETTINGS, &error) : NULL;
    if (settings == NULL)
        return fprintf(stderr, "%s\n", error.text), EX_CONFIG;
    settings->ended_keep_ms = ENDED_KEEP_MS;
    int count = found ? replay_found(settings) : 0;
    if (found && count == 0)
        return fputs("no seeds in " FOUND "\n", stderr), EX_NOINPUT;
    for (uint64_t seed = first; !found && seed <= last; seed++, count++)
        world_run(seed, steps, settings, verbose);
    settings_free(settings);
    record_close();
    expr_cache_free();
    printf("%d seeds, all well\n", count);
    return EX_OK;
}
