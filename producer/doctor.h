/* doctor.h: the doctor's verdicts, and the part of it that looks at contracts. */
#ifndef MYELIN_PRODUCER_DOCTOR_H
#define MYELIN_PRODUCER_DOCTOR_H

#include "producer/cmd.h"

enum doctor_verdict { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor {
    struct cmd *cmd;
    struct settings *worker; /* of worker.cfg; NULL = they are wrong */
    size_t failures, warnings, topic_problems;
    bool topics; /* they are there */
};

/* The partitions that no worker serves: says so; and repairs them, or only shows what that would do. */
void doctor_partitions(struct doctor *doctor, int64_t timeout_ms);
int doctor_adopt(struct doctor *doctor, bool yes, int64_t timeout_ms);

void doctor_say(struct doctor *doctor, enum doctor_verdict verdict, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The latest version of each published contract: does it load, are its models in the settings, are the variables of its
 * tools set? */
void doctor_contracts(struct doctor *doctor);
/* Does the endpoint of each model accept connections? */
void doctor_models(struct doctor *doctor, int64_t timeout_ms);

#endif
