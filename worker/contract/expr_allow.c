#include "worker/contract/expr_allow.h"

#include "worker/contract/suggest.h"

/* Which arguments see the call's own input: bit N for argument N, in a call of one argument and in one of more. */
struct function {
    const char *name;
    unsigned char one, more;
};

#define NO_ARGUMENT 0, 0
#define ALL_ARGUMENTS 7, 7
#define FIRST_OF_MORE 0, 1  /* f(generator; per element) and f(per element) */
#define ALL_BUT_SECOND 5, 5 /* sub(regex; on the captures; flags) */
#define FIRST_ARGUMENT 1, 1

static const struct function functions[] = {
    {"IN", FIRST_ARGUMENT},
    {"INDEX", FIRST_OF_MORE},
    {"add", NO_ARGUMENT},
    {"all", FIRST_OF_MORE},
    {"any", FIRST_OF_MORE},
    {"arrays", NO_ARGUMENT},
    {"ascii_downcase", NO_ARGUMENT},
    {"ascii_upcase", NO_ARGUMENT},
    {"booleans", NO_ARGUMENT},
    {"capture", ALL_ARGUMENTS},
    {"ceil", NO_ARGUMENT},
    {"contains", ALL_ARGUMENTS},
    {"del", ALL_ARGUMENTS},
    {"delpaths", ALL_ARGUMENTS},
    {"empty", NO_ARGUMENT},
    {"endswith", ALL_ARGUMENTS},
    {"error", ALL_ARGUMENTS},
    {"explode", NO_ARGUMENT},
    {"fabs", NO_ARGUMENT},
    {"first", ALL_ARGUMENTS},
    {"flatten", ALL_ARGUMENTS},
    {"floor", NO_ARGUMENT},
    {"fmax", ALL_ARGUMENTS},
    {"fmin", ALL_ARGUMENTS},
    {"from_entries", NO_ARGUMENT},
    {"fromdate", NO_ARGUMENT},
    {"fromdateiso8601", NO_ARGUMENT},
    {"fromjson", NO_ARGUMENT},
    {"getpath", ALL_ARGUMENTS},
    {"group_by", NO_ARGUMENT},
    {"gsub", ALL_BUT_SECOND},
    {"has", ALL_ARGUMENTS},
    {"implode", NO_ARGUMENT},
    {"in", ALL_ARGUMENTS},
    {"index", ALL_ARGUMENTS},
    {"indices", ALL_ARGUMENTS},
    {"inside", ALL_ARGUMENTS},
    {"isempty", ALL_ARGUMENTS},
    {"iterables", NO_ARGUMENT},
    {"join", ALL_ARGUMENTS},
    {"keys", NO_ARGUMENT},
    {"keys_unsorted", NO_ARGUMENT},
    {"last", ALL_ARGUMENTS},
    {"leaf_paths", NO_ARGUMENT},
    {"length", NO_ARGUMENT},
    {"ltrimstr", ALL_ARGUMENTS},
    {"map", NO_ARGUMENT},
    {"map_values", NO_ARGUMENT},
    {"match", ALL_ARGUMENTS},
    {"max", NO_ARGUMENT},
    {"max_by", NO_ARGUMENT},
    {"min", NO_ARGUMENT},
    {"min_by", NO_ARGUMENT},
    {"not", NO_ARGUMENT},
    {"nth", ALL_ARGUMENTS},
    {"nulls", NO_ARGUMENT},
    {"numbers", NO_ARGUMENT},
    {"objects", NO_ARGUMENT},
    {"path", ALL_ARGUMENTS},
    {"paths", NO_ARGUMENT},
    {"reverse", NO_ARGUMENT},
    {"rindex", ALL_ARGUMENTS},
    {"round", NO_ARGUMENT},
    {"rtrimstr", ALL_ARGUMENTS},
    {"scalars", NO_ARGUMENT},
    {"scan", ALL_ARGUMENTS},
    {"select", ALL_ARGUMENTS},
    {"setpath", ALL_ARGUMENTS},
    {"sort", NO_ARGUMENT},
    {"sort_by", NO_ARGUMENT},
    {"split", ALL_ARGUMENTS},
    {"splits", ALL_ARGUMENTS},
    {"startswith", ALL_ARGUMENTS},
    {"strings", NO_ARGUMENT},
    {"sub", ALL_BUT_SECOND},
    {"test", ALL_ARGUMENTS},
    {"to_entries", NO_ARGUMENT},
    {"todate", NO_ARGUMENT},
    {"todateiso8601", NO_ARGUMENT},
    {"tojson", NO_ARGUMENT},
    {"tonumber", NO_ARGUMENT},
    {"tostring", NO_ARGUMENT},
    {"transpose", NO_ARGUMENT},
    {"trunc", NO_ARGUMENT},
    {"type", NO_ARGUMENT},
    {"unique", NO_ARGUMENT},
    {"unique_by", NO_ARGUMENT},
    {"utf8bytelength", NO_ARGUMENT},
    {"values", NO_ARGUMENT},
    {"walk", NO_ARGUMENT},
    {"with_entries", NO_ARGUMENT},
};
#define FUNCTIONS_COUNT (sizeof functions / sizeof functions[0])

static const char *const formats[] = {"text", "json", "html", "uri", "csv", "tsv", "sh", "base64", "base64d"};
#define FORMATS_COUNT (sizeof formats / sizeof formats[0])

/* What people know from jq and look for, and why it is not here. */
#define LOOPS "it can loop without end; use map, any, all, add or reduce over values that are there"
#define CLOCK "an expression reads no clock; .run.age_s is the run's age, and times come with the data"
#define OUTSIDE "an expression sees its root and nothing else of the machine"
#define PRINTS "an expression prints nothing"
#define PARTS "an expression is one program without definitions or modules"
#define NAN "JSON has no such number"
static const struct refusal {
    const char *name, *why;
} refusals[] = {
    {"range", LOOPS},
    {"limit", LOOPS},
    {"while", LOOPS},
    {"until", LOOPS},
    {"repeat", LOOPS},
    {"recurse", LOOPS},
    {"foreach", LOOPS},
    {"label", LOOPS},
    {"break", LOOPS},
    {"combinations", LOOPS},
    {"recurse_down", LOOPS},
    {"now", CLOCK},
    {"localtime", CLOCK},
    {"mktime", CLOCK},
    {"gmtime", CLOCK},
    {"strftime", CLOCK},
    {"strptime", CLOCK},
    {"date", CLOCK},
    {"strflocaltime", CLOCK},
    {"env", OUTSIDE},
    {"ENV", OUTSIDE},
    {"input", OUTSIDE},
    {"inputs", OUTSIDE},
    {"input_filename", OUTSIDE},
    {"halt", OUTSIDE},
    {"halt_error", OUTSIDE},
    {"input_line_number", OUTSIDE},
    {"get_search_list", OUTSIDE},
    {"debug", PRINTS},
    {"stderr", PRINTS},
    {"def", PARTS},
    {"import", PARTS},
    {"include", PARTS},
    {"module", PARTS},
    {"modulemeta", PARTS},
    {"__loc__", PARTS},
    {"nan", NAN},
    {"infinite", NAN},
};

/*
 * What jq 1.6 gets so wrong that one value from outside would take the worker down with it:
 * - index, rindex, indices never return for an empty text, and count bytes where slices count code points;
 * - sub and gsub never return when the regex matches the empty text; with the flag g match reads behind the text when
 *   that happens before a character of several bytes. Oniguruma's option "n" (not empty) closes both;
 * - tonumber and fromjson let NaN in, and a slice with a NaN bound is an assertion, as is todate of a time out of range;
 * - % with a huge number and -1 is a division trap of the processor (`%` calls _mod; the sign of a divisor has no effect).
 * A name that begins with two underscores is the builtin itself (a jq definition calls itself by its own name).
 */
static const struct mend {
    const char *names[8];
    const char *text;
} mends[] = {
    {{"index", "rindex", "indices"},
     "def __indices($i): indices($i); "
     "def indices($i): if type == \"string\" and ($i | type) == \"string\" then if $i == \"\" then [] else ($i | length) as $n "
     "| [foreach split($i)[:-1][] as $part (-$n; . + $n + ($part | length); .)] end else __indices($i) end; "
     "def index($i): indices($i) | .[0]; "
     "def rindex($i): indices($i) | .[-1:][0]; "},
    {{"match", "capture", "scan", "split", "splits", "sub", "gsub"},
     "def __match($re; $flags): match($re; $flags); "
     "def match($re; $flags): __match($re; if ($flags | type) == \"string\" and ($flags | contains(\"g\")) "
     "then $flags + \"n\" else $flags end); "
     "def match($re): if ($re | type) == \"array\" then match($re[0]; $re[1]) else match($re; null) end; "
     "def __named: [.captures[] | select(.name != null) | {key: .name, value: .string}] | from_entries; "
     "def capture($re; $flags): match($re; $flags) | __named; "
     "def capture($re): match($re) | __named; "
     "def scan($re): match($re; \"g\") | if (.captures | length) > 0 then [.captures[].string] else .string end; "
     "def splits($re; $flags): . as $s | [match($re; \"g\" + $flags) | .offset, .offset + .length] "
     "| [0] + . + [$s | length] | _nwise(2) | $s[.[0]:.[1]]; "
     "def splits($re): splits($re; null); "
     "def split($re; $flags): [splits($re; $flags)]; "
     "def sub($re; by; $flags): . as $s | reduce match($re; $flags) as $m ({out: \"\", at: 0}; ($m | [__named | by]) as $new "
     "| if ($new | length) == 1 then {out: (.out + $s[.at:$m.offset] + $new[0]), at: ($m.offset + $m.length)} "
     "else error(\"what replaces a match must be one value\") end) | .out + $s[.at:]; "
     "def sub($re; by): sub($re; by; null); "
     "def gsub($re; by; $flags): sub($re; by; \"g\" + $flags); "
     "def gsub($re; by): sub($re; by; \"g\"); "},
    {{"tonumber"},
     "def __tonumber: tonumber; def tonumber: __tonumber | if isnan then error(\"NaN is no number\") else . end; "},
    {{"fromjson"},
     "def __fromjson: fromjson; "
     "def fromjson: __fromjson | if any(.. | numbers; isnan) then error(\"NaN is no JSON\") else . end; "},
    {{"%", "%="},
     "def __mod($a; $b): $a % $b; "
     "def _mod($a; $b): __mod($a; if ($b | type) == \"number\" then $b | fabs else $b end); "},
    {{"todate", "todateiso8601"},
     "def __todate: todate; "
     "def todate: if type == \"number\" and . >= -62167219200 and . < 253402300800 then __todate "
     "else error(\"a time must be a number of seconds in the years 0 to 9999\") end; "
     "def todateiso8601: todate; "},
};

static const struct function *find(struct str name)
{
    for (size_t i = 0; i < FUNCTIONS_COUNT; i++)
        if (str_is(name, functions[i].name))
            return &functions[i];
    return NULL;
}

bool expr_allow_same_input(struct str function, size_t index, size_t count)
{
    const struct function *known = find(function);

    return known != NULL && index < 8 && ((count == 1 ? known->one : known->more) >> index & 1) != 0;
}

static bool refuse(struct arena *arena, const struct expr_lexed *lexed, size_t at, struct error *error, struct str says)
{
    struct str where = expr_lex_position(arena, lexed->text, at);

    return error_set(error, ERROR_POISON, "%.*s: %.*s", STR_ARG(where), STR_ARG(says));
}

static const char *reason(struct str name)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        if (str_is(name, refusals[i].name))
            return refusals[i].why;
    return NULL;
}

/* Is the name the rest of one with dashes, as in `.send-mail`? jq subtracts there. */
static bool after_dash(const struct expr_token *token, size_t index)
{
    const struct expr_token *dash = token - 1, *before = token - 2;

    return index >= 2 && expr_token_is(dash, EXPR_OP, "-") && dash->at + 1 == token->at &&
           (before->kind == EXPR_FIELD || before->kind == EXPR_IDENT) &&
           before->text.data + before->text.size == dash->text.data;
}

static struct str unknown(struct arena *arena, const struct expr_lexed *lexed, size_t index)
{
    const struct expr_token *token = &lexed->tokens[index];
    struct str names[FUNCTIONS_COUNT + 3], near;

    if (after_dash(token, index))
        return arena_printf(arena, "`-%.*s` subtracts; a name with a dash is read by .['like-this']",
                            STR_ARG(token->text));
    for (size_t i = 0; i < FUNCTIONS_COUNT; i++)
        names[i] = str_of(functions[i].name);
    names[FUNCTIONS_COUNT] = STR("true");
    names[FUNCTIONS_COUNT + 1] = STR("false");
    names[FUNCTIONS_COUNT + 2] = STR("null");
    near = suggest_clause(arena, token->text, names, FUNCTIONS_COUNT + 3);
    if (near.size == 0 && !expr_token_is(token + 1, EXPR_OP, "("))
        near = arena_printf(arena, "; a path begins with a dot (.%.*s), a text stands in single quotes",
                            STR_ARG(token->text));
    return arena_printf(arena, "`%.*s` is no function that an expression may call%.*s", STR_ARG(token->text),
                        STR_ARG(near));
}

static bool check_ident(struct arena *arena, const struct expr_lexed *lexed, size_t index, struct error *error)
{
    const struct expr_token *token = &lexed->tokens[index];
    const char *why = reason(token->text);

    if (find(token->text) != NULL || str_is(token->text, "true") || str_is(token->text, "false") ||
        str_is(token->text, "null"))
        return true;
    return refuse(arena, lexed, token->at, error,
                  why != NULL ? arena_printf(arena, "`%.*s` is not allowed: %s", STR_ARG(token->text), why)
                              : unknown(arena, lexed, index));
}

static bool check_format(struct arena *arena, const struct expr_lexed *lexed, const struct expr_token *token,
                         struct error *error)
{
    struct str names[FORMATS_COUNT];

    for (size_t i = 0; i < FORMATS_COUNT; i++) {
        names[i] = str_of(formats[i]);
        if (str_equal(names[i], token->text))
            return true;
    }
    struct str near = suggest_clause(arena, token->text, names, FORMATS_COUNT);
    return refuse(
        arena, lexed, token->at, error,
        arena_printf(arena, "@%.*s is no format%.*s (allowed: @text @json @html @uri @csv @tsv @sh @base64 @base64d)",
                     STR_ARG(token->text), STR_ARG(near)));
}

/* $ENV and $__loc__ are jq's; any other variable is what the program binds it to. */
static bool own_variable(struct str name)
{
    return !str_is(name, "ENV") && !str_is(name, "__loc__");
}

static bool check_token(struct arena *arena, const struct expr_lexed *lexed, size_t index, struct error *error)
{
    const struct expr_token *token = &lexed->tokens[index];
    const char *why;

    switch (token->kind) {
    case EXPR_IDENT:
        return token->key || check_ident(arena, lexed, index, error);
    case EXPR_FORMAT:
        return check_format(arena, lexed, token, error);
    case EXPR_KEYWORD:
    case EXPR_VARIABLE:
        why = reason(token->text);
        if (why == NULL || (token->kind == EXPR_KEYWORD ? token->key : own_variable(token->text)))
            return true;
        return refuse(arena, lexed, token->at, error,
                      arena_printf(arena, "`%s%.*s` is not allowed: %s", token->kind == EXPR_VARIABLE ? "$" : "",
                                   STR_ARG(token->text), why));
    case EXPR_OP:
        if (!str_is(token->text, "?//"))
            return true;
        return refuse(arena, lexed, token->at, error, STR("jq 1.6 reads `?//` as one word; put a space: `? //`"));
    default:
        return true;
    }
}

bool expr_allow_check(struct arena *arena, const struct expr_lexed *lexed, struct error *error)
{
    for (size_t i = 0; i < lexed->tokens_count; i++)
        if (!check_token(arena, lexed, i, error))
            return false;
    return true;
}

static bool calls(const struct expr_lexed *lexed, const struct mend *mend)
{
    for (size_t i = 0; i < lexed->tokens_count; i++)
        for (size_t j = 0; j < 8 && mend->names[j] != NULL; j++)
            if (!lexed->tokens[i].key && (expr_token_is(&lexed->tokens[i], EXPR_IDENT, mend->names[j]) ||
                                          expr_token_is(&lexed->tokens[i], EXPR_OP, mend->names[j])))
                return true;
    return false;
}

struct str expr_allow_prelude(struct arena *arena, const struct expr_lexed *lexed)
{
    struct str prelude = STR("");

    for (size_t i = 0; i < sizeof mends / sizeof mends[0]; i++)
        if (calls(lexed, &mends[i]))
            prelude = arena_printf(arena, "%.*s%s", STR_ARG(prelude), mends[i].text);
    return prelude.size == 0 ? prelude : arena_printf(arena, "%.*s\n", STR_ARG(prelude));
}
