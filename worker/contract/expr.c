#include "worker/contract/expr.h"

#include <assert.h>
#include <float.h>
#include <jq.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/base/json.h"
#include "worker/contract/expr_allow.h"
#include "worker/contract/expr_lex.h"
#include "worker/contract/expr_roots.h"
#include "worker/contract/expr_watchdog.h"

#define BUCKETS 1024
#define PLAIN_SIZE_MAX 2048             /* of a message: more than an error's text holds */
#define SAFE_INTEGER 9007199254740992.0 /* 2^53: up to here a double holds every whole number */

struct expr {
    struct str text;
    jq_state *jq;
    struct expr *next; /* in its bucket */
    bool bound;        /* reads members of its root among `names` only */
    struct str *names;
    size_t names_count;
};

struct expr_root {
    jv value;        /* an object, or whatever expr_root_of was given */
    char broken[64]; /* what of it was no JSON, for the message; "" = all is well */
};

struct cache {
    struct arena *arena; /* owns the expressions and itself */
    struct expr *buckets[BUCKETS];
    size_t count;
    struct expr_watch *watch; /* NULL until the first evaluation */
};

static _Thread_local struct cache *cache;

static struct cache *cache_get(void)
{
    if (cache == NULL) {
        struct arena *arena = arena_new();
        cache = ARENA_NEW(arena, struct cache);
        cache->arena = arena;
    }
    return cache;
}

void expr_cache_free(void)
{
    if (cache == NULL)
        return;
    expr_watch_free(cache->watch);
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct expr *expr = cache->buckets[i]; expr != NULL; expr = expr->next)
            jq_teardown(&expr->jq);
    arena_free(cache->arena);
    cache = NULL;
}

/* FNV-1a, 64 bits. */
static struct expr **bucket(struct str text)
{
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < text.size; i++)
        hash = (hash ^ (unsigned char)text.data[i]) * 1099511628211u;
    return &cache_get()->buckets[hash % BUCKETS];
}

/* ---- compile ---- */

/* What jq said first while it compiled; a message that comes after another one is a consequence. */
struct complaint {
    struct arena *arena;
    struct str text;
};

static void complain(void *context, jv message)
{
    struct complaint *complaint = context;

    if (jv_get_kind(message) == JV_KIND_STRING && complaint->text.size == 0)
        complaint->text = arena_copy(complaint->arena, jv_string_value(message),
                                     (size_t)jv_string_length_bytes(jv_copy(message)));
    jv_free(message);
}

/* Without a callback of ours jq writes to standard error. */
static void swallow(void *unused, jv message)
{
    (void)unused;
    jv_free(message);
}

static void no_memory(void *unused)
{
    (void)unused;
    if (cache != NULL && cache->watch != NULL)
        expr_watch_exit(cache->watch, "no_memory", 0);
    fputs("myelin: out of memory\n", stderr);
    _Exit(EXPR_EXIT_CODE);
}

/* jq's names for its tokens, and its advice about shells, say nothing to the author of a contract. */
static struct str plain_words(struct arena *arena, struct str says)
{
    static const struct {
        const char *jq, *plain;
    } words[] = {
        {" (Unix shell quoting issues?)", ""},
        {"QQSTRING_START", "a string"},
        {"QQSTRING_END", "the end of a string"},
        {"$end", "end"},
        {"IDENT", "a name"},
        {"FIELD", "a .field"},
        {"LITERAL", "a number"},
        {"FORMAT", "an @format"},
        {"jq: error: ", ""},
    };
    struct buf plain;
    struct str copied;

    buf_init(&plain, PLAIN_SIZE_MAX);
    for (size_t at = 0; at < says.size;) {
        size_t found = 0;
        for (size_t i = 0; i < sizeof words / sizeof words[0] && found == 0; i++) {
            size_t size = strlen(words[i].jq);
            if (size <= says.size - at && memcmp(says.data + at, words[i].jq, size) == 0) {
                buf_puts(&plain, words[i].plain);
                found = size;
            }
        }
        if (found == 0)
            buf_put(&plain, says.data + at, 1);
        at += found > 0 ? found : 1;
    }
    copied = arena_copy(arena, plain.data, plain.size);
    buf_free(&plain);
    return copied;
}

/*
 * jq 1.6 says "MESSAGE at <top-level>, line N:\nTHE LINE" and then one blank for each byte before the place in the line.
 * `source` begins with `prelude` (whole lines), the rest is the lexed program.
 */
static bool syntax_error(struct arena *arena, const struct expr_lexed *lexed, struct str source, size_t prelude_size,
                         struct str says, struct error *error)
{
    static const char marker[] = " at <top-level>, line ";
    const char *at = strstr(says.data, marker);
    const char *shown = at != NULL ? strchr(at, '\n') : NULL;

    if (shown == NULL)
        return error_set(error, ERROR_POISON, "jq cannot compile this: %.*s", STR_ARG(plain_words(arena, says)));
    long line = strtol(at + sizeof marker - 1, NULL, 10);
    size_t start = 0;
    for (; line > 1; line--) {
        const char *newline = memchr(source.data + start, '\n', source.size - start);
        start = newline != NULL ? (size_t)(newline - source.data) + 1 : source.size;
    }
    const char *newline = memchr(source.data + start, '\n', source.size - start);
    size_t line_size = newline != NULL ? (size_t)(newline - source.data) - start : source.size - start;
    size_t shown_size = says.size - (size_t)(shown + 1 - says.data);
    size_t place = start + (shown_size > line_size ? shown_size - line_size : 0);
    place = place > prelude_size ? place - prelude_size : 0;
    if (place > lexed->program.size)
        place = lexed->program.size;
    struct str where = expr_lex_position(arena, lexed->text, lexed->source[place]);
    struct str message = plain_words(arena, (struct str){says.data, (size_t)(at - says.data)});
    return error_set(error, ERROR_POISON, "%.*s: %.*s", STR_ARG(where), STR_ARG(message));
}

/* libjq 1.6 puts the definitions of ~/.jq before every program, so there `map` may mean anything (I8). */
static bool home_is_clean(struct error *error)
{
    const char *home = getenv("HOME");
    char path[PATH_MAX];
    struct stat status;

    if (home == NULL || snprintf(path, sizeof path, "%s/.jq", home) >= (int)sizeof path)
        return true;
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode))
        return true;
    return error_set(
        error, ERROR_FATAL,
        "libjq would read %.200s, which may change what expressions mean: move it away, or set HOME to another directory",
        path);
}

static jq_state *compile(struct arena *arena, const struct expr_lexed *lexed, struct error *error)
{
    struct complaint complaint = {.arena = arena, .text = STR("")};
    struct str prelude = expr_allow_prelude(arena, lexed);
    struct str source = arena_printf(arena, "%s%s", prelude.data, lexed->program.data);
    jq_state *jq;

    if (!home_is_clean(error))
        return NULL;
    jq = jq_init();
    if (jq == NULL)
        no_memory(NULL);
    jq_set_nomem_handler(jq, no_memory, NULL);
    jq_set_error_cb(jq, complain, &complaint);
    if (!jq_compile(jq, source.data)) {
        syntax_error(arena, lexed, source, prelude.size, complaint.text, error);
        jq_teardown(&jq);
        return NULL;
    }
    jq_set_error_cb(jq, swallow, NULL);
    return jq;
}

const struct expr *expr_compile(struct str text, struct error *error)
{
    struct expr **link = bucket(text), *expr = NULL;
    struct expr_lexed lexed;
    jq_state *jq;

    for (struct expr *known = *link; known != NULL; known = known->next)
        if (str_equal(known->text, text))
            return known;
    if (cache->count == EXPR_CACHED_MAX) {
        error_set(error, ERROR_FATAL, "%d different expressions in this process: start it anew", EXPR_CACHED_MAX);
        return NULL;
    }
    struct arena *arena = arena_new();
    if (expr_lex(arena, text, &lexed, error) && expr_allow_check(arena, &lexed, error) &&
        (jq = compile(arena, &lexed, error)) != NULL) {
        expr = ARENA_NEW(cache->arena, struct expr);
        *expr = (struct expr){.text = arena_str(cache->arena, text), .jq = jq, .next = *link};
        expr->bound = expr_roots_bound(cache->arena, &lexed, &expr->names, &expr->names_count);
        *link = expr;
        cache->count++;
    }
    arena_free(arena);
    return expr;
}

size_t expr_roots(const struct expr *expr, struct arena *arena, struct str **names)
{
    struct arena *own = arena_new();
    struct expr_lexed lexed;
    struct str *found = NULL;
    size_t count = expr_lex(own, expr->text, &lexed, NULL) ? expr_roots_find(own, &lexed, &found) : 0;

    *names = ARENA_ARRAY(arena, count, struct str);
    for (size_t i = 0; i < count; i++)
        (*names)[i] = arena_str(arena, found[i]);
    arena_free(own);
    return count;
}

bool expr_may_read(const struct expr *expr, struct str member)
{
    for (size_t i = 0; i < expr->names_count; i++)
        if (str_equal(expr->names[i], member))
            return true;
    return !expr->bound;
}

struct str expr_text(const struct expr *expr)
{
    return expr->text;
}

/* ---- the root ---- */

static struct expr_root *root_of(jv value)
{
    struct expr_root *root = calloc(1, sizeof *root);

    if (root == NULL)
        no_memory(NULL);
    root->value = value;
    return root;
}

struct expr_root *expr_root_new(void)
{
    return root_of(jv_object());
}

/* The value of a JSON text; null, and a word in `root`, when it is none. */
static jv parse(struct expr_root *root, const char *what, struct str json)
{
    if (json.data == NULL)
        return jv_null();
    jv value = json.size <= INT_MAX ? jv_parse_sized(json.data, (int)json.size) : jv_invalid();
    if (jv_is_valid(value))
        return value;
    jv_free(value);
    snprintf(root->broken, sizeof root->broken, "%s", what);
    return jv_null();
}

struct expr_root *expr_root_of(struct str json)
{
    struct expr_root *root = root_of(jv_null());

    root->value = parse(root, "its root", json);
    return root;
}

void expr_root_set(struct expr_root *root, const char *member, struct str json)
{
    assert(jv_get_kind(root->value) == JV_KIND_OBJECT);
    root->value = jv_object_set(root->value, jv_string(member), parse(root, member, json));
}

bool expr_root_has(const struct expr_root *root, const char *member)
{
    return jv_object_has(jv_copy(root->value), jv_string(member)) != 0;
}

void expr_root_free(struct expr_root *root)
{
    if (root == NULL)
        return;
    jv_free(root->value);
    free(root);
}

/* ---- evaluate ---- */

static bool eval_error(const struct expr *expr, struct error *error, const char *says)
{
    return error_set(error, ERROR_POISON, "in `%.120s%s`: %s", expr->text.data, expr->text.size > 120 ? "..." : "",
                     says);
}

/* jq_next gave no value: an error or the end. Takes `ended`. */
static bool no_value(const struct expr *expr, jv ended, struct error *error)
{
    if (!jv_invalid_has_msg(jv_copy(ended))) {
        jv_free(ended);
        return eval_error(expr, error, "gives no value; end it with `// null`, or collect what it gives in [ ]");
    }
    jv message = jv_invalid_get_msg(ended);
    if (jv_get_kind(message) != JV_KIND_STRING)
        message = jv_dump_string(message, 0);
    eval_error(expr, error, jv_string_value(message));
    jv_free(message);
    return false;
}

/* The one value of the program. The caller frees it. */
static bool one_value(const struct expr *expr, const struct expr_root *root, jv *value, struct error *error)
{
    jq_start(expr->jq, jv_copy(root->value), 0);
    *value = jq_next(expr->jq);
    if (!jv_is_valid(*value))
        return no_value(expr, *value, error);
    jv second = jq_next(expr->jq);
    if (!jv_is_valid(second) && !jv_invalid_has_msg(jv_copy(second))) {
        jv_free(second);
        return true;
    }
    jv_free(*value);
    if (!jv_is_valid(second))
        return no_value(expr, second, error);
    jv_free(second);
    jq_start(expr->jq, jv_null(), 0); /* lets go of what is still on its way */
    return eval_error(expr, error, "gives more than one value; collect them in [ ], or take first(...)");
}

static bool begin(const struct expr *expr, const struct expr_root *root, struct expr_site site, struct error *error)
{
    struct cache *own = cache_get();

    if (root->broken[0] != '\0')
        return error_set(error, ERROR_POISON, "what an expression sees as %s is no JSON", root->broken);
    if (own->watch == NULL)
        own->watch = expr_watch_new(error);
    if (own->watch == NULL)
        return false;
    expr_watch_begin(own->watch, site.run, site.step, expr->text);
    return true;
}

/* Over the text of a result: what makes it a value that json_read refuses, or one that jq may have rounded. NULL = fine. */
static const char *unsound(const char *json)
{
    size_t depth = 0;

    for (const char *c = json; *c != '\0'; c++) {
        if (*c == '"') {
            for (c++; *c != '"'; c++) {
                if (strncmp(c, "\\u0000", 6) == 0)
                    return "gives a text with a NUL character";
                c += *c == '\\';
            }
        } else if (*c == '[' || *c == '{') {
            if (++depth > JSON_DEPTH_MAX)
                return "gives a value that is nested too deeply";
        } else if (*c == ']' || *c == '}') {
            depth--;
        } else if (*c >= '0' && *c <= '9') {
            size_t size = strspn(c, "0123456789");
            bool whole = strchr(".eE", c[size]) == NULL || c[size] == '\0';
            size_t all = strspn(c, "0123456789.eE+-");
            double number = size >= 16 || !whole ? strtod(c, NULL) : 0;
            if ((whole && number >= SAFE_INTEGER) || number >= DBL_MAX)
                return "gives a number that jq cannot hold exactly (beyond 2^53); carry it as a string";
            c += all - 1;
        }
    }
    return NULL;
}

bool expr_eval(const struct expr *expr, const struct expr_root *root, struct expr_site site, struct arena *arena,
               struct str *json, struct error *error)
{
    jv value;

    if (!begin(expr, root, site, error))
        return false;
    if (!one_value(expr, root, &value, error)) {
        expr_watch_end(cache->watch);
        return false;
    }
    jv text = jv_dump_string(value, 0);
    expr_watch_end(cache->watch);
    size_t size = (size_t)jv_string_length_bytes(jv_copy(text));
    const char *wrong = size > EXPR_OUTPUT_SIZE_MAX ? "gives more than 1 MiB" : unsound(jv_string_value(text));
    if (wrong == NULL)
        *json = arena_copy(arena, jv_string_value(text), size);
    jv_free(text);
    return wrong == NULL || eval_error(expr, error, wrong);
}

bool expr_true(const struct expr *expr, const struct expr_root *root, struct expr_site site, bool *truth,
               struct error *error)
{
    jv value;

    if (!begin(expr, root, site, error))
        return false;
    bool good = one_value(expr, root, &value, error);
    expr_watch_end(cache->watch);
    if (good) {
        *truth = jv_get_kind(value) != JV_KIND_NULL && jv_get_kind(value) != JV_KIND_FALSE;
        jv_free(value);
    }
    return good;
}
