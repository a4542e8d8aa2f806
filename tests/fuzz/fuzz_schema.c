/* The first line is a schema, the rest a value: the schema is compiled or all that is wrong with it is said, and the value
 * fits or is told in one line why not. What is sent to a model is a schema too, and says the same of an object. */
#include <stdlib.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/contract/schema.h"

#define INPUT_SIZE_MAX ((size_t)1 << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void see(void *context, const json_t *at, const char *path, const char *text)
{
    size_t *problems = context;

    check(at != NULL && path != NULL && text[0] != '\0');
    ++*problems;
}

static void check_value(const struct schema *schema, const struct schema *again, const json_t *value)
{
    struct error error = {0}, second = {0};
    bool fits = schema_check(schema, value, &error);

    check(fits || (error.class == ERROR_POISON && error.text[0] != '\0'));
    check(str_utf8_size(str_of(error.text)) == strlen(error.text));
    check(!json_is_object(value) ||
          (schema_check(again, value, &second) == fits && strcmp(error.text, second.text) == 0));
}

static void check_schema(struct arena *arena, const json_t *source, struct str rest)
{
    size_t problems = 0;
    struct schema *schema = schema_compile(arena, source, see, &problems);

    check((schema == NULL) == (problems > 0));
    if (schema == NULL)
        return;
    json_t *written = json_read(schema_text(schema, arena), INPUT_SIZE_MAX * 2, NULL);
    struct schema *again = written != NULL ? schema_compile(arena, written, see, &problems) : NULL;
    check(again != NULL);
    json_t *value = json_read(rest, INPUT_SIZE_MAX, NULL);
    if (value != NULL)
        check_value(schema, again, value);
    json_decref(value);
    json_decref(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct str all = arena_copy(arena, data, size);
    const char *newline = memchr(all.data, '\n', all.size);
    size_t first = newline != NULL ? (size_t)(newline - all.data) : all.size;
    json_t *source = json_read(arena_copy(arena, all.data, first), INPUT_SIZE_MAX, NULL);
    struct str rest = newline != NULL ? arena_copy(arena, newline + 1, all.size - first - 1) : STR("");

    if (source != NULL)
        check_schema(arena, source, rest);
    json_decref(source);
    arena_free(arena);
    return 0;
}
