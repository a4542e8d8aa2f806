/* clock.h: the only place that asks for the time. */
#ifndef MYELIN_IO_CLOCK_H
#define MYELIN_IO_CLOCK_H

#include <stdint.h>

int64_t clock_wall_ms(void); /* CLOCK_REALTIME, milliseconds since 1970: for events, facts and due times */
int64_t clock_boot_ms(void); /* CLOCK_BOOTTIME: for limits that a suspended machine must not stretch */
int64_t clock_mono_us(void); /* CLOCK_MONOTONIC, microseconds: for durations */

#endif
