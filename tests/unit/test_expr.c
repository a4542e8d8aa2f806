/* Expressions: what is legal, what may be called and what comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/contract/expr.h"

static const struct expr_site site = {{"run-1", 5}, {"draft", 5}};

static int teardown(void **state)
{
    (void)state;
    expr_cache_free();
    return 0;
}

static struct expr_root *sample_root(void)
{
    struct expr_root *root = expr_root_new();

    expr_root_set(root, "input",
                  STR("{\"name\":\"Ada\",\"score\":98.7,\"id\":9007199254740993,\"list\":[3,1,2],"
                      "\"text\":\"日本x a b\",\"nan\":\"nan\",\"empty\":\"\",\"huge\":1e308}"));
    expr_root_set(root, "draft", STR("{\"subject\":\"it's \\\"on\\\"\",\"ok\":false}"));
    expr_root_set(root, "none", STR_NONE);
    return root;
}

static void assert_value_at(const char *program, const char *expected, int line)
{
    struct error error = {0};
    struct arena *arena = arena_new();
    struct expr_root *root = sample_root();
    const struct expr *expr = expr_compile(str_of(program), &error);
    struct str json = STR("(error)");

    if (expr == NULL || !expr_eval(expr, root, site, arena, &json, &error))
        print_error("%s: %s\n", program, error.text);
    _assert_string_equal(json.data, expected, __FILE__, line);
    expr_root_free(root);
    arena_free(arena);
}
#define assert_value(program, expected) assert_value_at((program), (expected), __LINE__)

/* The program is refused with a text that holds `says`. */
static void assert_refused_at(const char *program, size_t size, const char *says, int line)
{
    struct error error = {0};
    const struct expr *expr = expr_compile((struct str){program, size}, &error);

    if (expr != NULL || strstr(error.text, says) == NULL)
        print_error("%s: %s\n", program, expr != NULL ? "was compiled" : error.text);
    _assert_true(expr == NULL, "refused", __FILE__, line);
    _assert_true(strstr(error.text, says) != NULL, says, __FILE__, line);
    _assert_int_equal(error.class, ERROR_POISON, __FILE__, line);
}
#define assert_refused(program, says) assert_refused_at((program), strlen(program), (says), __LINE__)

/* It compiles, and running it fails with a text that holds `says`. */
static void assert_fails_at(const char *program, const char *says, int line)
{
    struct error error = {0};
    struct arena *arena = arena_new();
    struct expr_root *root = sample_root();
    const struct expr *expr = expr_compile(str_of(program), &error);
    struct str json = STR_NONE;
    bool truth;

    _assert_true(expr != NULL, error.text, __FILE__, line);
    _assert_true(!expr_eval(expr, root, site, arena, &json, &error), program, __FILE__, line);
    if (strstr(error.text, says) == NULL)
        print_error("%s: %s\n", program, error.text);
    _assert_true(strstr(error.text, says) != NULL, says, __FILE__, line);
    _assert_int_equal(error.class, ERROR_POISON, __FILE__, line);
    (void)expr_true(expr, root, site, &truth, &error);
    expr_root_free(root);
    arena_free(arena);
}
#define assert_fails(program, says) assert_fails_at((program), (says), __LINE__)

static void single_quotes_make_strings(void **state)
{
    (void)state;
    assert_value(".input.name == 'Ada'", "true");
    assert_value("'say \"hi\" \\'now\\' \\\\ \\n \\u0041'", "\"say \\\"hi\\\" 'now' \\\\ \\n A\"");
    assert_value("'\\(.input.list | length) of \\('x\\(.input.name)')'", "\"3 of xAda\"");
    assert_value("\"it's \\(.input.name)\"", "\"it's Ada\"");
    assert_value("'' + 'é'", "\"é\"");
    assert_value(".draft.subject == 'it\\'s \"on\"'", "true");
    assert_value(".draft['subject'] # don't mind the quote here", "\"it's \\\"on\\\"\"");
    assert_value("@uri 'a b/\\(.input.name + ' &')'", "\"a b/Ada%20%26\"");
    assert_value("{'a b': 1, \"c\": 2}", "{\"a b\":1,\"c\":2}");
    assert_value("{e1: 1} | .e1 + (.e1 // 5)", "2"); /* jq 1.6 alone takes .e1 for a number */
}

static void a_syntax_error_says_where(void **state)
{
    (void)state;
    assert_refused("'abc", "line 1, column 1: this string has no closing '");
    assert_refused(".a == \"abc", "column 7: this string has no closing \"");
    assert_refused("'a\\(.b'", "column 7: this string");
    assert_refused("'x\\qy'", "column 3: \\q is no escape");
    assert_refused("'\\u12g4'", "column 2: \\u wants four");
    assert_refused("(.a", "column 1: ( has no )");
    assert_refused(".a]", "column 3: ] closes nothing");
    assert_refused("[.a)", "column 1: [ has no ]");
    assert_refused("if .a then 1", "column 1: if has no `end`");
    assert_refused(".a | {b: , c}", "line 1, column 10: syntax error, unexpected ','");
    assert_refused("'\"\"\"' | }", "column 9: } closes nothing");
    assert_refused("'\"\"\"' | | 1", "line 1, column 9: syntax error, unexpected '|'");
    assert_refused(".a |\n  'é' 'b'", "line 2, column 7: syntax error, unexpected a string");
    assert_refused("(.input.text | index('é')) | 'é' 5", "line 1, column 34: syntax error, unexpected a number");
    assert_refused(".a +", "syntax error, unexpected end");
    assert_refused("1.2.3", "column 1: this is no number");
    assert_refused("1e", "this is no number");
    assert_refused(".a & .b", "column 4: `&` means nothing here");
    assert_refused(".été", "column 2: `é` means nothing here");
    assert_refused("$x", "column 1: $x is not defined");
    assert_refused(".a | join", "column 6: join/0 is not defined");
    assert_refused(".a?//'x'", "put a space: `? //`");
    assert_refused("", "an empty expression");
    assert_refused_at(NULL, 0, "an empty expression", __LINE__);
    assert_refused(" # nothing", "an empty expression");
    assert_refused_at(".a\0b", 4, "column 3: a NUL character", __LINE__);
    assert_refused("'\xff'", "column 2: not valid UTF-8");
    assert_refused(".a \x01", "a control character (0x01)");
}

static void a_program_is_bounded(void **state)
{
    char text[(8 << 10) + 2];

    (void)state;
    memset(text, '-', sizeof text);
    assert_refused_at(text, sizeof text - 1, "the limit is 8192", __LINE__);
    text[8191] = '1';
    text[8192] = '\0';
    assert_value(text, "-1");
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    assert_refused_at(text, 130, "nested deeper than 64", __LINE__);
}

static void what_is_not_on_the_list_is_refused(void **state)
{
    static const char *const never[] = {
        "now",
        "localtime",
        "env",
        "env.HOME",
        "$ENV",
        "{$ENV}",
        "input",
        "inputs",
        "debug",
        "stderr",
        "get_search_list",
        "input_filename",
        "halt",
        "'x' | halt_error",
        "range(5)",
        "limit(1; .a)",
        "while(true; .)",
        "until(false; .)",
        "repeat(.)",
        "recurse",
        "recurse(.a)",
        "def f: f; f",
        "foreach .a as $x (0; .)",
        "label $x | 1",
        "$__loc__",
        "{$__loc__}",
        "nan",
        "infinite",
        "import 'a' as a; 1",
        "include 'a'; 1",
        "modulemeta",
        "[.a[] | mktime]",
        "'\\(now)'",
        "{a: now}",
        "{(env): 1}",
        ".a[now]",
        "_modify(.a; 1)",
        "__match('a'; 'g')",
        "_nwise(1)",
        "splits_",
        "builtins",
        "$__prog_args",
        "ltrimstr::x",
        "[1] | combinations",
        "getpath(['a']) | strptime('%s')",
        "@base32d",
        "@sh_ 'x'",
        "{@nope 'x': 1}",
        "tojson | error::now",
    };

    (void)state;
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        assert_refused(never[i], "column");
    assert_refused("1 + now", "line 1, column 5: `now` is not allowed: an expression reads no clock");
    assert_refused("$ENV.PATH", "`$ENV` is not allowed");
    assert_refused(".a | lenght",
                   "column 6: `lenght` is no function that an expression may call, did you mean \"length\"?");
    assert_refused("True", "did you mean \"true\"?");
    assert_refused("draft.subject", "a path begins with a dot (.draft)");
    assert_refused(".a.send-mail", "`-mail` subtracts; a name with a dash");
    assert_refused("@base46", "did you mean \"base64\"?");
}

static void names_that_are_no_calls_are_free(void **state)
{
    (void)state;
    assert_value("{now: 1, env: 2, if: 3, range: 4, def: 5} | .now + .env + .if + .range + .def", "15");
    assert_value("1 as $now | 2 as $range | {$now, r: $range}", "{\"now\":1,\"r\":2}");
    assert_value("{a: 5} as {a: $env} | $env", "5");
    assert_value("'now' + ' env'", "\"now env\"");
    assert_value(". as {input: {name: $value}} | $value", "\"Ada\"");
}

static void values_come_out_as_compact_json(void **state)
{
    (void)state;
    assert_value("{to: .input.name, n: (.input.list | sort | .[0]), s: .draft.missing}",
                 "{\"to\":\"Ada\",\"n\":1,\"s\":null}");
    assert_value(".none", "null");
    assert_value(".nothing.at.all", "null");
    assert_value("{s: .input.score, h: 0.1, third: (1 / 3), m: -0.5, k: 1e3}",
                 "{\"s\":98.7,\"h\":0.1,\"third\":0.3333333333333333,\"m\":-0.5,\"k\":1000}");
    assert_value("[.input.list[] | select(. > 1)] | add", "5");
    assert_value("reduce .input.list[] as $x (0; . + $x)", "6");
    assert_value("if .draft.ok then 1 elif (.input.list | length) == 3 then 'three' else 0 end", "\"three\"");
    assert_value("try (.input.name | tonumber) catch 'no'", "\"no\"");
    assert_value(".input.huge", "1e+308");
    assert_value("9007199254740991", "9007199254740991");
    assert_value("'9007199254740993'", "\"9007199254740993\"");
    assert_value("[.input.id == 9007199254740992]", "[true]"); /* what is known not to be told apart */
}

static void an_inexact_number_is_an_error(void **state)
{
    (void)state;
    assert_fails(".input.id", "beyond 2^53");
    assert_fails("{a: [-9007199254740993]}", "beyond 2^53");
    assert_fails("1e1000", "beyond 2^53");
    assert_fails("[.input.huge * 10]", "beyond 2^53");
}

static void exactly_one_value_is_wanted(void **state)
{
    (void)state;
    assert_fails("empty", "gives no value");
    assert_fails(".input.list[]", "gives more than one value");
    assert_fails("1, error('late')", "late");
    assert_fails("error('broken: \\(.input.name)')", "in `error('broken: \\(.input.name)')`: broken: Ada");
    assert_fails("error({code: 5})", "{\"code\":5}");
    assert_fails("error(null)", "gives no value");
    assert_fails(".input.name.first", "Cannot index string with");
    assert_fails("'x\\ny' | error", "x y");
    assert_fails("{a: ([0] | implode)}", "a text with a NUL");
    assert_value("'\\\\u0000'", "\"\\\\u0000\"");
    /* After an error the same program works again. */
    assert_value(".input.list | first(.[])", "3");
}

static void the_output_is_bounded(void **state)
{
    (void)state;
    assert_value("'abcdefgh' * 131071 | utf8bytelength", "1048568");
    assert_fails("'abcdefgh' * 131072", "gives more than 1 MiB");
    assert_fails("reduce ('x' * 70 | explode[]) as $x (null; [.])", "nested too deeply");
    assert_value("reduce ('x' * 63 | explode[]) as $x (null; [.]) | tojson | length", "130");
}

/* Each of these takes libjq 1.6 down, or gives a wrong answer without a word; see expr_allow.c. */
static void what_jq_gets_wrong_is_mended(void **state)
{
    (void)state;
    assert_value("[.input.name | index(''), rindex(''), indices('')]", "[null,null,[]]");
    assert_value("[.input.text | index('x'), rindex(' '), indices(' '), index('zz')]", "[2,5,[3,5],null]");
    assert_value(".input.text | .[:index('x')]", "\"日本\"");
    assert_value("[[1, 2, 1] | index(1), rindex(1), indices(1), indices([2, 1])]", "[0,2,[0,2],[1]]");
    assert_value(".none | index('a')", "null");
    assert_value(".input.name | gsub(''; '-')", "\"Ada\"");
    assert_value(".input.text | gsub(' *$|^x*'; '')", "\"日本x a b\"");
    assert_value(".input.text | gsub('(?<c>[ab本])'; '<\\(.c)>')", "\"日<本>x <a> <b>\"");
    assert_value(".input.text | sub('(?<c>[ab])'; '[\\(.c)]')", "\"日本x [a] b\"");
    assert_value("'aAbB' | gsub('a'; '_'; 'i')", "\"__bB\"");
    assert_value("'aXbX' | sub('x'; '_'; 'gi')", "\"a_b_\"");
    assert_value("[.input.text | match(''; 'g') | .offset]", "[]");
    assert_value("[.input.text | match('[ab]'; 'g') | .offset]", "[4,6]");
    assert_value("[.input.text | match(['[AB]', 'gi']) | .string]", "[\"a\",\"b\"]");
    assert_value("[.input.text | match('a').offset]", "[4]");
    assert_value("[.input.text | splits(' *')]", "[\"日本x\",\"a\",\"b\"]");
    assert_value(".input.text | split(' +'; null)", "[\"日本x\",\"a\",\"b\"]");
    assert_value(".input.text | split(' ')", "[\"日本x\",\"a\",\"b\"]");
    assert_value("[.input.text | scan('[a-z]')]", "[\"x\",\"a\",\"b\"]");
    assert_value("[.input.text | scan('([a-z]) ([a-z])')]", "[[\"x\",\"a\"]]");
    assert_value(".input.text | capture('(?<first>[a-z]) (?<second>[a-z])')", "{\"first\":\"x\",\"second\":\"a\"}");
    assert_fails("'ab' | gsub('a'; 'x', 'y')", "what replaces a match must be one value");
    assert_fails(".input.nan | tonumber", "NaN is no number");
    assert_fails("'[nan]' | fromjson", "NaN is no JSON");
    assert_value("['12', ' 1.5 ' | tonumber]", "[12,1.5]");
    assert_value("'{\"a\":[1]}' | fromjson", "{\"a\":[1]}");
    assert_fails(".input.huge | todate", "a time must be a number");
    assert_value("[0, 1425599507 | todate] | map(fromdate)", "[0,1425599507]");
    assert_value("[-(.input.huge) % -1, 7 % -4, -7 % 4]", "[-0,3,-3]");
    assert_value("{n: 7} | .n %= -4", "{\"n\":3}");
    assert_fails("5 % 0", "divisor is zero");
}

static void truth_is_jqs(void **state)
{
    static const struct {
        const char *program;
        bool truth;
    } cases[] = {
        {"null", false}, {"false", false}, {"true", true},       {"0", true},
        {"''", true},    {"[]", true},     {".draft.ok", false}, {".input.name == 'Ada'", true},
    };
    struct expr_root *root = sample_root();
    struct error error = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool truth = !cases[i].truth;
        assert_true(expr_true(expr_compile(str_of(cases[i].program), &error), root, site, &truth, &error));
        assert_int_equal(truth, cases[i].truth);
    }
    bool truth;
    assert_false(expr_true(expr_compile(STR("empty"), &error), root, site, &truth, &error));
    assert_false(expr_true(expr_compile(STR("true, true"), &error), root, site, &truth, &error));
    assert_non_null(strstr(error.text, "more than one value"));
    expr_root_free(root);
}

static void a_program_is_compiled_once(void **state)
{
    struct error error = {0};
    char text[] = ".input.name";
    const struct expr *first = expr_compile(str_of(text), &error);

    (void)state;
    assert_non_null(first);
    assert_ptr_equal(first, expr_compile(STR(".input.name"), &error));
    assert_ptr_not_equal(first, expr_compile(STR(".input.name "), &error));
    memset(text, 'x', sizeof text - 1); /* the text was borrowed for the call only */
    assert_true(str_is(expr_text(first), ".input.name"));
}

static void a_root_changes_member_by_member(void **state)
{
    struct expr_root *root = expr_root_new();
    struct arena *arena = arena_new();
    struct error error = {0};
    const struct expr *expr = expr_compile(STR("{a, b}"), &error);
    struct str json;

    (void)state;
    expr_root_set(root, "a", STR("[1]"));
    assert_true(expr_eval(expr, root, site, arena, &json, &error));
    assert_string_equal(json.data, "{\"a\":[1],\"b\":null}");
    expr_root_set(root, "a", STR("2"));
    expr_root_set(root, "b", STR("\"x\""));
    assert_true(expr_eval(expr, root, site, arena, &json, &error));
    assert_string_equal(json.data, "{\"a\":2,\"b\":\"x\"}");
    expr_root_set(root, "b", STR("{no json"));
    assert_false(expr_eval(expr, root, site, arena, &json, &error));
    assert_non_null(strstr(error.text, "sees as b is no JSON"));
    expr_root_free(root);
    arena_free(arena);
}

static void a_root_can_be_any_value(void **state)
{
    static const char *const cases[][2] = {
        {"[1,2]", "[1,2]"}, {"\"x\"", "\"x\""}, {"5", "5"}, {"{\"a\":1}", "{\"a\":1}"}};
    struct arena *arena = arena_new();
    struct error error = {0};
    const struct expr *expr = expr_compile(STR("."), &error);
    struct str json;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct expr_root *root = expr_root_of(str_of(cases[i][0]));
        assert_true(expr_eval(expr, root, site, arena, &json, &error));
        assert_string_equal(json.data, cases[i][1]);
        expr_root_free(root);
    }
    struct expr_root *root = expr_root_of(STR_NONE);
    assert_true(expr_eval(expr, root, site, arena, &json, &error));
    assert_string_equal(json.data, "null");
    expr_root_free(root);
    root = expr_root_of(STR("{"));
    assert_false(expr_eval(expr, root, site, arena, &json, &error));
    assert_non_null(strstr(error.text, "its root is no JSON"));
    expr_root_free(root);
    expr_root_free(NULL);
    arena_free(arena);
}

/* libjq reads definitions from ~/.jq; with them the same contract could mean something else on another machine. */
static void definitions_in_the_home_directory_are_refused(void **state)
{
    char directory[] = "/tmp/myelin-test-XXXXXX", path[64];
    char *home = getenv("HOME") != NULL ? strdup(getenv("HOME")) : NULL;
    struct error error = {0};

    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/.jq", directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("def map(f): 42;", file);
    fclose(file);
    setenv("HOME", directory, 1);
    assert_null(expr_compile(STR("[1] | map(. + 1) # home"), &error));
    assert_non_null(strstr(error.text, path));
    assert_int_equal(error.class, ERROR_FATAL);
    unlink(path);
    assert_non_null(expr_compile(STR("[1] | map(. + 1) # home"), &error));
    rmdir(directory);
    if (home != NULL)
        setenv("HOME", home, 1);
    else
        unsetenv("HOME");
    free(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(single_quotes_make_strings, teardown),
        cmocka_unit_test_teardown(a_syntax_error_says_where, teardown),
        cmocka_unit_test_teardown(a_program_is_bounded, teardown),
        cmocka_unit_test_teardown(what_is_not_on_the_list_is_refused, teardown),
        cmocka_unit_test_teardown(names_that_are_no_calls_are_free, teardown),
        cmocka_unit_test_teardown(values_come_out_as_compact_json, teardown),
        cmocka_unit_test_teardown(an_inexact_number_is_an_error, teardown),
        cmocka_unit_test_teardown(exactly_one_value_is_wanted, teardown),
        cmocka_unit_test_teardown(the_output_is_bounded, teardown),
        cmocka_unit_test_teardown(what_jq_gets_wrong_is_mended, teardown),
        cmocka_unit_test_teardown(truth_is_jqs, teardown),
        cmocka_unit_test_teardown(a_program_is_compiled_once, teardown),
        cmocka_unit_test_teardown(a_root_changes_member_by_member, teardown),
        cmocka_unit_test_teardown(a_root_can_be_any_value, teardown),
        cmocka_unit_test_teardown(definitions_in_the_home_directory_are_refused, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
