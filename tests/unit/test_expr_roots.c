/* What an expression reads from its root: the first segments of the paths on it, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "worker/contract/expr.h"

static int teardown(void **state)
{
    (void)state;
    expr_cache_free();
    return 0;
}

static void assert_roots_at(const char *program, const char *expected, int line)
{
    struct error error = {0};
    struct arena *arena = arena_new();
    const struct expr *expr = expr_compile(str_of(program), &error);
    struct str *names, joined = STR("");

    _assert_true(expr != NULL, error.text, __FILE__, line);
    size_t count = expr_roots(expr, arena, &names);
    for (size_t i = 0; i < count; i++)
        joined = arena_printf(arena, "%.*s%s%.*s", STR_ARG(joined), i > 0 ? " " : "", STR_ARG(names[i]));
    if (strcmp(joined.data, expected) != 0)
        print_error("%s\n", program);
    _assert_string_equal(joined.data, expected, __FILE__, line);
    arena_free(arena);
}
#define assert_roots(program, expected) assert_roots_at((program), (expected), __LINE__)

static void first_segments_are_found(void **state)
{
    (void)state;
    assert_roots(".draft.subject", "draft");
    assert_roots(".['draft'].x", "draft");
    assert_roots(".\"draft\".x", "draft");
    assert_roots(". | .draft", "draft");
    assert_roots(". .draft", "draft");
    assert_roots(".e5.x", "e5");
    assert_roots(".[.key]", "key");
    assert_roots(".['a\\(.b)']", "b");
    assert_roots("[.calls[] | select(.tool == 'x') | .result]", "calls");
    assert_roots("{summary: .research.summary, objection: .approve_final_email.reason?}",
                 "research approve_final_email");
    assert_roots("[.a] - [.b]", "a b");
    assert_roots(
        "[.research.claims[].source] - [.calls[] | select(.tool == 'search_company') | .result.pages[].url] == []",
        "research calls");
    assert_roots("{a, b: .c, 'd', \"e\": .f.g, (.h): [.i]}", "a c d f h i");
    assert_roots(".k as $k | {$k, a}", "k a");
    assert_roots("{a: .b | .c, d: .e}", "b e");
    assert_roots("{@base64 'k': .a, b}", "a b");
    assert_roots(". as $r | $r.foo", "");
    assert_roots(".a as $x | .b + $x.c", "a b");
    assert_roots(".a as {k: $x, l: [$y]} | .b", "a b");
    assert_roots(".a.b[.c].d[.e:.f]", "a c e f");
    assert_roots(".a.b.a, .a", "a");
    assert_roots("'\\(.a) \\(.b | .c)'", "a b");
    assert_roots("if .a then .b elif .c then .d else .e end | .f", "a b c d e");
    assert_roots("select(.a) | .b", "a");
    assert_roots("map(.x)", "");
    assert_roots("map_values(.x) | any(.y)", "");
    assert_roots("any(.calls[]; .ok) and all(.z)", "calls");
    assert_roots(".a | IN(.b; .c)", "a");
    assert_roots("IN(.a) or IN(.b; .c)", "a b");
    assert_roots("sub(.a; .b; .c)", "a c");
    assert_roots(".x | contains({a: .b})", "x");
    assert_roots("has('a') and (.b | test('x'; .c))", "b");
    assert_roots("contains({a: .b})", "b");
    assert_roots("reduce .a[] as $x (.b; . + .c)", "a b");
    assert_roots("try .a catch .b", "a");
    assert_roots("try error('x') catch .foo | .bar", "");
    assert_roots("(.a |= .b), .c", "a c");
    assert_roots(".a |= .b // .c", "a c");
    assert_roots(".a = .b", "a b");
    assert_roots(".a += .b", "a b");
    assert_roots("-.a * (.b + -.c) // .d and (.e | not)", "a b c d e");
    assert_roots("(.) | .a", "");
    assert_roots("..", "");
    assert_roots(".a? // .b?", "a b");
    assert_roots("{a: {b}}", "b");
    assert_roots("[{a: .x}[], {y}]", "x y");
    assert_roots(".classify.confidence >= 0.8 and (.classify.category | IN('billing', 'login'))", "classify");
    assert_roots("{parts: [.each[] | select(.ok) | .one.summary], missing: [.each[] | select(.ok | not) | .doc.id]}",
                 "each");
    assert_roots(".run.age_s < 7 * 86400", "run");
}

/* Evaluates on a root with all members, and on one with only those that may be read: both must say the same. */
static void assert_same_on_less_at(const char *program, const char *left_out, int line)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    static const char *const values[] = {"{\"b\":1,\"k\":\"c\"}", "[1,2]", "\"text\"", "null"};
    struct error error = {0};
    struct arena *arena = arena_new();
    const struct expr *expr = expr_compile(str_of(program), &error);
    _assert_true(expr != NULL, error.text, __FILE__, line);
    struct expr_root *all = expr_root_new(), *less = expr_root_new();
    struct str without = STR("");
    for (size_t i = 0; i < 4; i++) {
        expr_root_set(all, names[i], str_of(values[i]));
        if (expr_may_read(expr, str_of(names[i])))
            expr_root_set(less, names[i], str_of(values[i]));
        else
            without = arena_printf(arena, "%s%s", without.data, names[i]);
        assert_int_equal(expr_root_has(less, names[i]), expr_may_read(expr, str_of(names[i])));
    }
    struct expr_site site = {STR("r"), STR("s")};
    struct str one = STR("failed"), other = STR("failed");
    (void)expr_eval(expr, all, site, arena, &one, &error);
    (void)expr_eval(expr, less, site, arena, &other, &error);
    if (!str_equal(one, other) || strcmp(without.data, left_out) != 0)
        print_error("%s: %.*s, %.*s, without %s\n", program, STR_ARG(one), STR_ARG(other), without.data);
    _assert_true(str_equal(one, other), program, __FILE__, line);
    _assert_string_equal(without.data, left_out, __FILE__, line);
    expr_root_free(all);
    expr_root_free(less);
    arena_free(arena);
}
#define assert_same_on_less(program, left_out) assert_same_on_less_at((program), (left_out), __LINE__)

static void what_is_never_read_is_left_out(void **state)
{
    (void)state;
    assert_same_on_less(".a.k", "bcd");
    assert_same_on_less(".a.b", "cd"); /* a name is a name, wherever it stands */
    assert_same_on_less("{n: (.b[0] + 1), m: 'c'}", "acd");
    assert_same_on_less("{a, 'b', \"c\"}", "d");
    assert_same_on_less(".b == [1, 2] and .c != 'x' or null", "ad");
    assert_same_on_less("if .d then .b[0] elif true then .c // 1 else empty end", "a");
    assert_same_on_less("'\\(.c)!'", "abd");
    assert_same_on_less(".a[.c]?", "bd");
}

/* Without naming it a program can reach a member in these ways. */
static void what_may_be_read_stays(void **state)
{
    (void)state;
    static const char *const programs[] = {
        ".",
        "[..]",
        "[.[]]",
        "[.b[1:]] | .[0]",
        ". as $all | $all.b",
        ". as {b: $x} | $x",
        ".['b']",
        ".\"b\"",
        ".[.a.k]",
        ".['' + 'b']",
        "{'\\(.a.k)'}",
        "keys",
        "length",
        "to_entries",
        "tojson",
        "@json",
        "has('b')",
        "map_values(.)",
        "del(.a)",
        "[paths]",
        ".a = 1",
        ".a |= 1",
        ".n += 1",
        "getpath(['b'])",
        "if . then 1 else 2 end",
        "reduce .a as $x (.; .)",
        "select(.a) | .c",
        "try error('x') catch .",
    };
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
        assert_same_on_less(programs[i], "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(first_segments_are_found, teardown),
        cmocka_unit_test_teardown(what_is_never_read_is_left_out, teardown),
        cmocka_unit_test_teardown(what_may_be_read_stays, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
