/*
 * log_block.h: an event and its bytes in one block of memory, which the loop and the log thread both hold: the loop until it is
 * through with the event, the log thread (a record of steps) until it cannot have to append it again.
 */
#ifndef MYELIN_IO_LOG_BLOCK_H
#define MYELIN_IO_LOG_BLOCK_H

#include "worker/io/log.h"

/* A zeroed event, held once, and room for `extra` bytes behind it, not zeroed. */
struct log_event *log_block_new(size_t extra);
struct log_event *log_block_hold(struct log_event *event);
void log_block_drop(struct log_event *event); /* NULL: nothing; any thread */

#endif
