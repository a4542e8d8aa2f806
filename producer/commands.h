/* commands.h: the subcommands by name, and how the right one is found. */
#ifndef MYELIN_PRODUCER_COMMANDS_H
#define MYELIN_PRODUCER_COMMANDS_H

#include "producer/cmd.h"

cmd_function cmd_contract_check, cmd_contract_show, cmd_contract_publish, cmd_contract_list, cmd_topics_create,
    cmd_topics_check, cmd_run, cmd_runs, cmd_show, cmd_follow, cmd_approvals, cmd_approve, cmd_reject, cmd_resolve,
    cmd_dead_list, cmd_dead_show, cmd_doctor;

struct commands_entry {
    const char *name; /* one word, or two */
    cmd_function *run;
    const char *usage, *says;
};

/* The whole program: finds the command, runs it, returns its exit code. */
int commands_main(const struct commands_entry *entries, size_t count, int argc, char **argv);

#endif
