/*
 * budget.h: the memory that the work of this process may take, all together. Counted, not allocated: who holds what grows with
 * the work takes its bytes here and gives them back. Any thread.
 *
 * The stages of the work are admitted up to different marks, later ones up to higher ones: what has begun can always go on to
 * its end, where it gives back what it took. So nothing waits for memory in a circle:
 *
 *   an eighth     is not counted: half of it is librdkafka's, to fetch ahead (budget_fetch), half a cache's (budget_cache)
 *   a quarter     for events that wait in our hands; half of it for those that wait in the inbox
 *   up to 4/8     of everything: more events are handed over, and begun
 *   up to 6/8     one is begun, when none other was beyond that mark
 *   up to 6/8     answers are read
 *   up to 7/8     one answer is read, when none other is
 */
#ifndef MYELIN_BASE_BUDGET_H
#define MYELIN_BASE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum budget_use {
    BUDGET_EVENTS, /* records from the log, until they are finished */
    BUDGET_STEPS, /* what step events that were begun take beside themselves: decoded, what they name, planned, requests */
    BUDGET_ANSWERS, /* of models and tools, and what they turn into */
    BUDGET_LEDGER,  /* results on their way to Redis */
    BUDGET_COMMITS, /* what was decided, until it is committed */
    BUDGET_USES,
};

enum budget_stage {
    BUDGET_KEEP,      /* records of the inbox, behind one that waits */
    BUDGET_HAND_OVER, /* step events */
    BUDGET_BEGIN,
    BUDGET_BEGIN_ONE,
    BUDGET_READ,
    BUDGET_READ_ONE,
};

void budget_open(int64_t bytes); /* before it is called, and with 0, everything is admitted */
int64_t budget_size(void);
size_t budget_fetch(size_t partitions);   /* bytes ahead of one of so many: 64 KiB to 8 MiB; with no limit that */
size_t budget_cache(void);                /* bytes; with no limit 64 MiB */
int64_t budget_used(enum budget_use use); /* bytes */
const char *budget_use_name(enum budget_use use); /* "events" */

void budget_take(enum budget_use use, size_t bytes);
void budget_give(enum budget_use use, size_t bytes);

/* May that stage take `more` bytes? Negative: so many of what is taken are not counted. Takes nothing. */
bool budget_admits(enum budget_stage stage, int64_t more);

#endif
