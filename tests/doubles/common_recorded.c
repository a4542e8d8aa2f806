#include "tests/doubles/common_recorded.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static json_t *normal_new(const json_t *value)
{
    const char *key;
    json_t *each, *copy;
    size_t index;
    double number = json_real_value(value);
    if (json_is_real(value) && number > -9e15 && number < 9e15 && (double)(json_int_t)number >= number &&
        (double)(json_int_t)number <= number)
        return json_integer((json_int_t)number);
    if (json_is_object(value)) {
        copy = json_object();
        json_object_foreach((json_t *)value, key, each)
            json_object_set_new(copy, key, normal_new(each));
        return copy;
    }
    if (json_is_array(value)) {
        copy = json_array();
        json_array_foreach((json_t *)value, index, each)
            json_array_append_new(copy, normal_new(each));
        return copy;
    }
    return json_incref((json_t *)value);
}

char *recorded_canonical(const json_t *value)
{
    json_t *normal = normal_new(value);
    char *text = json_dumps(normal, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    assert(text);
    json_decref(normal);
    return text;
}

static char *call_name(const char *tool, const json_t *args)
{
    char *canonical = recorded_canonical(args), *name = NULL;
    if (asprintf(&name, "%s %s", tool, canonical) < 0)
        abort();
    free(canonical);
    return name;
}

static bool conversation_add(struct recorded *recorded, const json_t *line)
{
    const char *id = json_string_value(json_object_get(line, "id"));
    const json_t *list = json_object_get(line, "calls");
    if (!id || !json_is_array(list))
        return false;
    json_t *calls = json_object(), *each;
    json_object_set_new(recorded->conversations, id, calls);
    size_t index;
    json_array_foreach((json_t *)list, index, each) {
        const char *tool = json_string_value(json_object_get(each, "tool"));
        json_t *args = json_object_get(each, "args"), *content = json_object_get(each, "content");
        if (!tool || !args || !json_is_string(content))
            return false;
        char *name = call_name(tool, args);
        if (!json_object_get(calls, name))
            json_object_set_new(calls, name, json_array());
        json_array_append(json_object_get(calls, name), content);
        free(name);
    }
    return true;
}

bool recorded_load(struct recorded *recorded, const char *path)
{
    if (!recorded->conversations) {
        recorded->conversations = json_object();
        recorded->given = json_object();
    }
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return false;
    }
    json_error_t error;
    bool ok = true;
    for (json_t *line; ok && (line = json_loadf(file, JSON_DISABLE_EOF_CHECK, &error));) {
        ok = conversation_add(recorded, line);
        json_decref(line);
    }
    ok = ok && feof(file);
    if (!ok)
        fprintf(stderr, "%s: a line is {\"id\", \"calls\": [{\"tool\", \"args\", \"content\"}]}\n", path);
    fclose(file);
    return ok;
}

static const char *first_of_any(const struct recorded *recorded, const char *call)
{
    const char *id;
    json_t *calls;
    json_object_foreach(recorded->conversations, id, calls) {
        const json_t *texts = json_object_get(calls, call);
        if (texts)
            return json_string_value(json_array_get(texts, 0));
    }
    return NULL;
}

const char *recorded_next(struct recorded *recorded, const char *run, const char *tool, const json_t *args)
{
    char *call = call_name(tool, args), *place = NULL;
    const json_t *calls = run ? json_object_get(recorded->conversations, run) : NULL;
    const char *text = NULL;
    if (!calls) {
        text = first_of_any(recorded, call);
    } else {
        if (asprintf(&place, "%s %s", run, call) < 0)
            abort();
        json_int_t given = json_integer_value(json_object_get(recorded->given, place));
        text = json_string_value(json_array_get(json_object_get(calls, call), (size_t)given));
        json_object_set_new(recorded->given, place, json_integer(given + 1));
    }
    free(place);
    free(call);
    return text;
}

void recorded_free(struct recorded *recorded)
{
    json_decref(recorded->conversations);
    json_decref(recorded->given);
}
