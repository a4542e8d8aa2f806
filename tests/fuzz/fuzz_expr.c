/* The first line is the value of .input, the rest is an expression: whatever they are, it is compiled or refused, and what it
 * gives is JSON that we read back. Programs that multiply are not run: 'x' * 1e9 is what the watchdog is for. */
#include <stdlib.h>
#include <string.h>

#include "worker/base/json.h"
#include "worker/contract/expr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);

/* libjq's parser does not free what it had read when it meets some syntax errors. The unit tests watch our own values. */
const char *__lsan_default_suppressions(void)
{
    return "leak:jv_mem_alloc\n";
}

const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void evaluate(const struct expr *expr, struct str input, struct arena *arena)
{
    struct expr_site site = {STR("run"), STR("step")};
    struct expr_root *root = expr_root_new();
    struct error error = {0};
    struct str json = STR_NONE;
    bool truth;

    expr_root_set(root, "input", input);
    if (expr_eval(expr, root, site, arena, &json, &error)) {
        json_t *value = json_read(json, EXPR_OUTPUT_SIZE_MAX, &error);
        check(value != NULL);
        json_decref(value);
        check(expr_true(expr, root, site, &truth, &error));
    } else {
        check(error.class == ERROR_POISON && error.text[0] != '\0');
    }
    expr_root_free(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    struct str all = arena_copy(arena, data, size), *names;
    const char *newline = memchr(all.data, '\n', all.size);
    size_t first = newline != NULL ? (size_t)(newline - all.data) : all.size;
    struct str input = arena_copy(arena, all.data, first);
    struct str text = newline != NULL ? arena_copy(arena, newline + 1, all.size - first - 1) : STR("");
    const struct expr *expr = expr_compile(text, &error);

    if (expr != NULL) {
        check(expr_roots(expr, arena, &names) <= text.size);
        if (memchr(text.data, '*', text.size) == NULL)
            evaluate(expr, input, arena);
    } else {
        check(error.class == ERROR_POISON && error.text[0] != '\0');
        check(str_utf8_size(str_of(error.text)) == strlen(error.text));
    }
    expr_cache_free();
    arena_free(arena);
    return 0;
}
