#include "worker/core/fold_put.h"

#include <string.h>

#include "worker/base/json.h"

/* I7: a fact is smaller than any message of the brokers. */
#define FACT_JSON_SIZE_MAX ((size_t)8 << 20)

/* Takes `value`; NULL (a text that is no UTF-8) becomes null: a fact must not make the whole state unreadable. */
static void put(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value != NULL ? value : json_null());
}

void put_text(json_t *object, const char *name, struct str text)
{
    put(object, name, text.data != NULL ? json_stringn(text.data, text.size) : NULL);
}

void put_json(json_t *object, const char *name, struct str text)
{
    json_t *value = text.data != NULL ? json_read(text, FACT_JSON_SIZE_MAX, NULL) : NULL;
    put(object, name, value != NULL || text.data == NULL ? value : json_stringn(text.data, text.size));
}

void put_number(json_t *object, const char *name, int64_t number)
{
    put(object, name, json_integer((json_int_t)number));
}

void put_known(json_t *object, const char *name, int64_t number)
{
    put(object, name, number >= 0 ? json_integer((json_int_t)number) : NULL);
}

void put_time(json_t *object, const char *name, int64_t ms)
{
    put(object, name, ms != 0 ? json_integer((json_int_t)ms) : NULL);
}

void put_bool(json_t *object, const char *name, bool yes)
{
    put(object, name, json_boolean(yes));
}

bool put_is(const json_t *object, const char *name, struct str text)
{
    const json_t *value = json_object_get(object, name);
    return json_is_string(value) && json_string_length(value) == text.size &&
           (text.size == 0 || memcmp(json_string_value(value), text.data, text.size) == 0);
}
