/*
 * world.h: the simulated world: its time, its dice, and the lives of its workers.
 *
 * One thread. Everything that happens is drawn from one seed, so that a seed tells the same story again. The workers are the real
 * loop and core; the ports under them are fakes of the same headers, whose other side is the world's:
 *
 *   clock.h        world.c    a virtual clock
 *   log.h          log.c and log_ring.c of the worker, over the log thread of log_thread.c, over broker.h
 *   ledger.h       ledger.c of the worker, over ledger_link.c, over redis.h
 *   caller.h       caller.c, over outside.h
 */
#ifndef MYELIN_SIM_WORLD_H
#define MYELIN_SIM_WORLD_H

#include "worker/worker.h"

#define SLOTS 2
#define START_MS 1790000000000 /* of the wall clock: any time after 2020 */

/* A worker from its start to its death. Killed at a call of a port it runs on for a moment, but nothing of it has any effect. */
struct life {
    int slot;
    struct settings settings;
    struct worker worker;
    bool dead;
    int64_t frozen_until_us; /* SIGSTOP */
    int64_t skew_ms;         /* of its wall clock */
};

struct world {
    uint64_t seed, dice;
    int64_t now_us;
    bool troubled; /* things go wrong */
    bool
        apart; /* threads.c: the log thread is a thread, and has a world of its own: broker and clients; time is real */
    bool verbose;
    struct settings *settings;
    struct arena *arena;       /* until the end of the world */
    struct life *lives[SLOTS]; /* NULL: not started */
    int64_t starts_us[SLOTS];  /* when it will be */
    struct life *running;      /* whose code is running; NULL: the world's own */
    int deaths;
};
extern _Thread_local struct world world;

/* ---- dice ---- */
uint64_t dice(uint64_t sides);                   /* 0 to sides - 1 */
int64_t dice_between(int64_t low, int64_t high); /* both included */
bool trouble(uint64_t one_in);                   /* something goes wrong; never in an untroubled world */

int64_t world_now_ms(void); /* true wall clock time */

/* ---- lives ---- */
/* Around what a port does for a worker: it may be killed here, or its log thread be quicker than its loop. False: it is dead. */
bool life_goes_on(struct life *life);

/* Prints what happened, when somebody wants to see it. */
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The world is not as it should be: prints why and how to see it again, and ends the program. */
_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

void world_pass_time(void);
void world_run(uint64_t seed, int steps, struct settings *settings, bool verbose);

#endif
