/* main.c: the subcommands. */
#include "producer/commands.h"

static const struct commands_entry entries[] = {
    {"contract check", cmd_contract_check, "FILE...", "report every problem of contracts"},
    {"contract show", cmd_contract_show, "FILE | NAME[@HASH]", "what each step does, touches and needs"},
    {"contract publish", cmd_contract_publish, "FILE...", "make a contract known to the workers"},
    {"contract list", cmd_contract_list, "[NAME]", "the versions that are published"},
    {"topics create", cmd_topics_create, "", "make the topics of the namespace"},
    {"topics check", cmd_topics_check, "", "are the topics as a worker needs them"},
    {"run", cmd_run, "CONTRACT[@HASH] --input JSON|@FILE|-", "start a run"},
    {"runs", cmd_runs, "", "open and ended runs"},
    {"show", cmd_show, "RUN", "what happened, what is pending, what comes next"},
    {"follow", cmd_follow, "RUN", "watch a run as it goes"},
    {"approvals", cmd_approvals, "", "what waits for a person"},
    {"approve", cmd_approve, "RUN STEP", "say yes to what a step asks"},
    {"reject", cmd_reject, "RUN STEP", "say no to what a step asks"},
    {"resolve", cmd_resolve, "RUN STEP --done JSON | --not-done | --fail", "settle a write in doubt"},
    {"dead list", cmd_dead_list, "", "what could not be processed, and why"},
    {"dead show", cmd_dead_show, "PARTITION@OFFSET", "one of them with its bytes"},
    {"doctor", cmd_doctor, "[--adopt [TOPIC PARTITION]]", "is everything there that a run needs"},
};

int main(int argc, char **argv)
{
    return commands_main(entries, sizeof(entries) / sizeof(entries[0]), argc, argv);
}
