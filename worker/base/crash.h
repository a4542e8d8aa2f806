/*
 * crash.h: named points where a test build can be told to die, as kill -9 would.
 *
 * In a build with -DMYELIN_CRASH_POINTS the environment variable MYELIN_CRASH_AT holds "name" (the first time that point
 * is reached) or "name:N" (the N-th time, from 1). Elsewhere, and so in every shipped binary, a point compiles to nothing.
 */
#ifndef MYELIN_BASE_CRASH_H
#define MYELIN_BASE_CRASH_H

#ifdef MYELIN_CRASH_POINTS
void crash_point(const char *name);
#define CRASH_POINT(name) crash_point(name)
#else
#define CRASH_POINT(name) ((void)0)
#endif

#endif
