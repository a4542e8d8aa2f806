/*
 * logline.h: one line of key=value a thing that happened, to standard error.
 *
 *   time=2026-11-22T17:40:01.123Z level=info event=partition.assigned topic=demo.steps.default partition=3 tenure=1
 *
 * `event` names are fixed; ids stand under the same key everywhere (run, step, key, topic, partition, offset, tenure). A
 * value with a space, a quote or a control character is quoted and escaped. Never a secret, a prompt or a payload.
 * Thread-safe: a line is one write(2).
 */
#ifndef MYELIN_BASE_LOGLINE_H
#define MYELIN_BASE_LOGLINE_H

#include <stdint.h>

#include "worker/base/bytes.h"

enum logline_level { LOGLINE_DEBUG, LOGLINE_INFO, LOGLINE_WARN, LOGLINE_ERROR };

struct logline_field {
    const char *key;
    struct str text; /* used when text.data != NULL */
    int64_t number;
};

#define LOG_S(key, value) ((struct logline_field){(key), str_of(value), 0})
#define LOG_STR(key, value) ((struct logline_field){(key), (value).data != NULL ? (value) : STR(""), 0})
#define LOG_I(key, value) ((struct logline_field){(key), {NULL, 0}, (int64_t)(value)})

#define LOGLINE(level, event, ...)                                                                                     \
    logline_write((level), (event), (struct logline_field[]){__VA_ARGS__},                                             \
                  sizeof((struct logline_field[]){__VA_ARGS__}) / sizeof(struct logline_field))
#define LOG_DEBUG(event, ...) LOGLINE(LOGLINE_DEBUG, event, __VA_ARGS__)
#define LOG_INFO(event, ...) LOGLINE(LOGLINE_INFO, event, __VA_ARGS__)
#define LOG_WARN(event, ...) LOGLINE(LOGLINE_WARN, event, __VA_ARGS__)
#define LOG_ERROR(event, ...) LOGLINE(LOGLINE_ERROR, event, __VA_ARGS__)

void logline_level(enum logline_level lowest); /* default LOGLINE_INFO */
void logline_write(enum logline_level level, const char *event, const struct logline_field *fields, size_t count);

#endif
