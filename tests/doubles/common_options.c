#include "tests/doubles/common_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

static void usage(FILE *out, const char *program, const char *flag, const char *about)
{
    fprintf(out,
            "usage: %s [--port N] [--port-file FILE] [--script FILE|DIR]... "
            "[--recorded FILE.jsonl]... [--ledger FILE] [--%s]\n"
            "  --port 0 picks a free one; it is printed as \"listening 127.0.0.1:PORT\"\n"
            "  --%s: %s\n"
            "  formats: tests/doubles/README.md\n",
            program, flag, flag, about);
}

static unsigned short port_number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long port = strtoul(text, &end, 10);
    if (errno || end == text || *end || port > 65535) {
        fprintf(stderr, "--port takes a number from 0 to 65535, not \"%s\"\n", text);
        exit(EX_USAGE);
    }
    return (unsigned short)port;
}

static void add(const char **list, size_t *count, const char *path)
{
    if (*count == OPTIONS_PATHS_MAX) {
        fprintf(stderr, "at most %d files of one kind\n", OPTIONS_PATHS_MAX);
        exit(EX_USAGE);
    }
    list[(*count)++] = path;
}

struct options options_parse(int argc, char **argv, const char *flag, const char *about)
{
    const struct option known[] = {
        {"port", required_argument, NULL, 'p'},   {"port-file", required_argument, NULL, 'f'},
        {"script", required_argument, NULL, 's'}, {"recorded", required_argument, NULL, 'r'},
        {"ledger", required_argument, NULL, 'l'}, {flag, no_argument, NULL, 'x'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    struct options options = {0};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 'p':
            options.port = port_number(optarg);
            break;
        case 'f':
            options.port_file = optarg;
            break;
        case 's':
            add(options.scripts, &options.scripts_count, optarg);
            break;
        case 'r':
            add(options.recorded, &options.recorded_count, optarg);
            break;
        case 'l':
            options.ledger = optarg;
            break;
        case 'x':
            options.flag = true;
            break;
        case 'h':
            usage(stdout, argv[0], flag, about);
            exit(0);
        default:
            usage(stderr, argv[0], flag, about);
            exit(EX_USAGE);
        }
    if (optind < argc) {
        fprintf(stderr, "unexpected argument \"%s\"\n", argv[optind]);
        exit(EX_USAGE);
    }
    return options;
}
