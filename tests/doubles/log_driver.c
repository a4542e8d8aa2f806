/*
 * log_driver: the log (worker/io/log.h) under a loop that knows nothing of contracts, to see exactly once with nothing around
 * it. Values are text: no Avro.
 *
 *   log_driver topics NS PARTITIONS            make the topics
 *   log_driver load NS FIRST COUNT             ask for runs FIRST ... FIRST+COUNT-1 (records of inbox)
 *   log_driver serve NS SLOT HOPS DELAY_MS [pinned] [verbose] [fat] [twins] [in_flight=N] [trim=MS] [NAME=VALUE for librdkafka ...]
 *   log_driver check NS COUNT HOPS             every fact exactly once, nothing waits any more
 *   log_driver watch NS COUNT TIMEOUT_S        until that many runs have ended
 *   log_driver flood NS COUNT SIZE             COUNT records of SIZE bytes for steps.default, for `pump`
 *   log_driver pump NS SLOT COUNT [...]        each record of steps becomes one of history; says how fast
 *   log_driver steer NS SLOT [...]             says what it gets of steps, and finishes what stdin says:
 *                                              "done PARTITION OFFSET", "fat PARTITION OFFSET SIZE",
 *                                              "pool PARTITION OFFSET POOL" (goes on there), "stop"
 *
 * A run: inbox "open" -> row "open" in waiting; a timer then makes it "ticked" and puts hop 0 on steps; each hop makes the
 * next one; the last one tells inbox "end", which removes the row. Each of these transactions adds one fact to history. So
 * records, timers, rebuilt tables and their fences all have to work for the facts to come out once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "tests/doubles/log_driver/driver.h"
#include "worker/base/logline.h"
#include "worker/io/topics.h"

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop_asked = 1;
}

static void read_options(struct options *options, int count, char **words)
{
    const char *servers = getenv("MYELIN_KAFKA");
    if (servers == NULL)
        die("MYELIN_KAFKA is not set");
    snprintf(options->servers, sizeof options->servers, "bootstrap.servers=%s", servers);
    options->properties[options->properties_count++] = options->servers;
    options->in_flight = 1000;
    options->trim_every_ms = 60000;
    for (int i = 0; i < count && options->properties_count < OPTIONS_MAX; i++) {
        if (strcmp(words[i], "verbose") == 0)
            logline_level(LOGLINE_DEBUG);
        else if (strcmp(words[i], "pinned") == 0)
            options->pinned = true;
        else if (strcmp(words[i], "fat") == 0)
            options->fat = true;
        else if (strcmp(words[i], "twins") == 0)
            options->twins = true;
        else if (strncmp(words[i], "in_flight=", 10) == 0)
            options->in_flight = parse_number(words[i] + 10);
        else if (strncmp(words[i], "trim=", 5) == 0)
            options->trim_every_ms = parse_number(words[i] + 5);
        else
            options->properties[options->properties_count++] = words[i];
    }
}

static void report(void *context, const char *topic, const char *line, bool problem)
{
    (void)context;
    printf("%s%s: %s\n", problem ? "! " : "", topic, line);
}

static int topics(const struct options *options, int partitions)
{
    static const char *const pools[] = {"default"};
    struct error error;
    struct topics_plan plan = {.name_space = options->name_space,
                               .properties = options->properties,
                               .properties_count = options->properties_count,
                               .pools = pools,
                               .pools_count = 1,
                               .steps_partitions = partitions,
                               .inbox_partitions = partitions,
                               .history_partitions = partitions,
                               .replication = 1};
    if (topics_create(&plan, report, NULL, &error))
        return EX_OK;
    fprintf(stderr, "%s\n", error.text);
    return EX_UNAVAILABLE;
}

int main(int argc, char **argv)
{
    struct options options = {.properties_count = 0};
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (argc < 4)
        die("see the head of tests/doubles/log_driver.c");
    const char *command = argv[1];
    options.name_space = argv[2];
    bool is_serve = strcmp(command, "serve") == 0 && argc >= 6, is_pump = strcmp(command, "pump") == 0 && argc >= 5;
    bool is_steer = strcmp(command, "steer") == 0;
    int skip = is_serve ? 6 : is_pump || (argc >= 5 && !is_steer) ? 5 : 4;
    read_options(&options, argc - skip, argv + skip);
    if (is_serve)
        return serve(&options, argv[3], parse_number(argv[4]), parse_number(argv[5]));
    if (is_pump)
        return pump(&options, argv[3], parse_number(argv[4]));
    if (is_steer)
        return steer(&options, argv[3]);
    if (strcmp(command, "topics") == 0)
        return topics(&options, parse_number(argv[3]));
    if (strcmp(command, "watch") == 0 && argc >= 5)
        return watch(&options, parse_number(argv[3]), parse_number(argv[4]));
    if (strcmp(command, "check") == 0 && argc >= 5)
        return check_facts(&options, parse_number(argv[3]), parse_number(argv[4])) + check_rows(&options) > 0
                   ? EX_DATAERR
                   : EX_OK;
    if (strcmp(command, "load") == 0 && argc >= 5)
        put_many(&options, "inbox", parse_number(argv[3]), parse_number(argv[4]), 0);
    else if (strcmp(command, "flood") == 0 && argc >= 5)
        put_many(&options, "steps.default", 0, parse_number(argv[3]), parse_number(argv[4]));
    else
        die("no such command, or words are missing");
    return EX_OK;
}
