/* fold_put.h: members of a state's JSON. What is absent is null, so that each object always has the same members. */
#ifndef MYELIN_CORE_FOLD_PUT_H
#define MYELIN_CORE_FOLD_PUT_H

#include <jansson.h>

#include "worker/base/bytes.h"

void put_text(json_t *object, const char *name, struct str text);
void put_json(json_t *object, const char *name, struct str text); /* JSON text as the value it stands for */
void put_number(json_t *object, const char *name, int64_t number);
void put_known(json_t *object, const char *name, int64_t number); /* below 0 = not known */
void put_time(json_t *object, const char *name, int64_t ms);      /* 0 = none */
void put_bool(json_t *object, const char *name, bool yes);

/* True when the member is a string and this text. */
bool put_is(const json_t *object, const char *name, struct str text);

#endif
