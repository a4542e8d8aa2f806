#include "tests/doubles/common_script.h"

#include <assert.h>
#include <dirent.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const rule_keys[] = {"name", "times", "match", "answer", NULL};
static const char *const counting_keys[] = {"nth", "nth_per_key", "nth_per_run", NULL};

static bool listed(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(key, *list) == 0)
            return true;
    return false;
}

/* The first key of `object` that is in neither list, or NULL. */
static const char *stranger(json_t *object, const char *const *list, const char *const *more)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
        if (!listed(key, list) && (!more || !listed(key, more)))
            return key;
    return NULL;
}

static const char *rule_fault(const struct script *script, json_t *rule, const char **key)
{
    json_t *match = json_object_get(rule, "match"), *answer = json_object_get(rule, "answer");
    *key = "";
    if (!json_is_object(rule) || !json_is_object(answer) || (match && !json_is_object(match)))
        return "a rule is {\"match\": {...}, \"answer\": {...}}";
    if ((*key = stranger(rule, rule_keys, NULL)))
        return "unknown key of a rule:";
    if ((*key = stranger(match, script->match_keys, counting_keys)))
        return "unknown key of a match:";
    if ((*key = stranger(answer, script->answer_keys, NULL)))
        return "unknown key of an answer:";
    return NULL;
}

static bool load_file(struct script *script, const char *path)
{
    json_error_t error;
    json_t *rules = json_load_file(path, 0, &error), *rule;
    if (!json_is_array(rules)) {
        fprintf(stderr, "%s:%d: %s\n", path, rules ? 1 : error.line,
                rules ? "a script is an array of rules" : error.text);
        json_decref(rules);
        return false;
    }
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t index;
    json_array_foreach(rules, index, rule) {
        const char *key, *fault = rule_fault(script, rule, &key);
        if (fault) {
            fprintf(stderr, "%s: rule %zu: %s %s\n", path, index + 1, fault, key);
            json_decref(rules);
            return false;
        }
        if (!json_object_get(rule, "name"))
            json_object_set_new(rule, "name", json_sprintf("%s#%zu", base, index + 1));
        json_object_set_new(rule, "counts", json_object());
        json_array_append(script->rules, rule);
    }
    json_decref(rules);
    return true;
}

static int is_json(const struct dirent *entry)
{
    size_t size = strlen(entry->d_name);
    return size > 5 && strcmp(entry->d_name + size - 5, ".json") == 0;
}

bool script_load(struct script *script, const char *path)
{
    if (!script->rules)
        script->rules = json_array();
    struct stat about;
    if (stat(path, &about)) {
        warn("%s", path);
        return false;
    }
    if (!S_ISDIR(about.st_mode))
        return load_file(script, path);
    struct dirent **entries;
    int count = scandir(path, &entries, is_json, alphasort);
    bool ok = count >= 0;
    for (int i = 0; i < count; i++) {
        char *file = NULL;
        if (asprintf(&file, "%s/%s", path, entries[i]->d_name) < 0)
            abort();
        ok = ok && load_file(script, file);
        free(file);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return ok;
}

/* Adds 1 to the count of that name and returns it. */
static json_int_t counted(json_t *counts, const char *prefix, const char *name)
{
    char *key = NULL;
    if (asprintf(&key, "%s%s", prefix, name ? name : "") < 0)
        abort();
    json_int_t count = json_integer_value(json_object_get(counts, key)) + 1;
    json_object_set_new(counts, key, json_integer(count));
    free(key);
    return count;
}

static bool turn_has_come(json_t *rule, const struct script_request *request)
{
    json_t *match = json_object_get(rule, "match"), *counts = json_object_get(rule, "counts");
    json_t *nth = json_object_get(match, "nth"), *per_key = json_object_get(match, "nth_per_key");
    json_t *per_run = json_object_get(match, "nth_per_run");
    bool come = true;
    if (nth)
        come = counted(counts, "all", NULL) == json_integer_value(nth) && come;
    if (per_key)
        come = counted(counts, "key ", request->key) == json_integer_value(per_key) && come;
    if (per_run)
        come = counted(counts, "run ", request->run) == json_integer_value(per_run) && come;
    return come;
}

const json_t *script_choose(struct script *script, const struct script_request *request, script_meets meets)
{
    const json_t *chosen = NULL;
    size_t index;
    json_t *rule;
    json_array_foreach(script->rules, index, rule) {
        if (!meets(json_object_get(rule, "match"), request->what) || !turn_has_come(rule, request))
            continue;
        json_t *counts = json_object_get(rule, "counts"), *times = json_object_get(rule, "times");
        if (chosen || (times && json_integer_value(json_object_get(counts, "taken")) >= json_integer_value(times)))
            continue;
        counted(counts, "taken", NULL);
        chosen = rule;
    }
    return chosen;
}

void script_free(struct script *script)
{
    json_decref(script->rules);
    script->rules = NULL;
}

bool script_contains(const char *text, const json_t *needle)
{
    if (json_is_string(needle))
        return strstr(text, json_string_value(needle)) != NULL;
    size_t index;
    json_t *each;
    json_array_foreach((json_t *)needle, index, each)
        if (!json_is_string(each) || !strstr(text, json_string_value(each)))
            return false;
    return json_is_array(needle);
}
