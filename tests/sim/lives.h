/* lives.h: the lives of the workers. */
#ifndef MYELIN_SIM_LIVES_H
#define MYELIN_SIM_LIVES_H

#include "tests/sim/world.h"

void life_begin(int slot);          /* of a worker, in world.lives */
void life_serve(struct life *life); /* turns of its two threads, or what else happens to it; it may be gone then */
void life_turn(struct life *life);  /* a turn of its loop, as in main.c */
void life_end(struct life *life);   /* what is not durable goes with it */

/* ---- readback.c ---- */
void readback_told(struct readback *readback, const struct log_event *event); /* a row of `waiting`, for worlds apart */

#endif
