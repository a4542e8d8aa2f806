/* JSON Schema: which schemas are refused, with which words, and what a schema says of a value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "worker/base/json.h"
#include "worker/contract/schema.h"

/* JSON with single quotes, so that the tests can be read. */
static json_t *json_of(const char *text)
{
    char copy[4096];
    struct error error = {0};
    size_t size = strlen(text);

    assert_true(size < sizeof copy);
    for (size_t i = 0; i <= size; i++)
        copy[i] = text[i] == '\'' ? '"' : text[i];
    json_t *value = json_read((struct str){copy, size}, sizeof copy, &error);
    if (value == NULL)
        print_error("%s: %s\n", text, error.text);
    assert_non_null(value);
    return value;
}

/* All problems, one a line: "path: text". */
struct problems_seen {
    char text[8192];
    size_t count;
};

static void see(void *context, const json_t *at, const char *path, const char *text)
{
    struct problems_seen *seen = context;
    size_t used = strlen(seen->text);

    assert_non_null(at);
    snprintf(seen->text + used, sizeof seen->text - used, "%s: %s\n", path, text);
    seen->count++;
}

static void assert_bad_at(const char *schema, const char *expected, int line)
{
    struct arena *arena = arena_new();
    struct problems_seen seen = {.count = 0};
    json_t *source = json_of(schema);

    _assert_true(schema_compile(arena, source, see, &seen) == NULL, schema, __FILE__, line);
    _assert_string_equal(seen.text, expected, __FILE__, line);
    json_decref(source);
    arena_free(arena);
}
#define assert_bad(schema, expected) assert_bad_at((schema), (expected), __LINE__)

/* `expected` NULL: the value fits. */
static void assert_check_at(const char *schema_source, const char *value_source, const char *expected, int line)
{
    struct arena *arena = arena_new();
    struct problems_seen seen = {.count = 0};
    struct error error = {0};
    json_t *source = json_of(schema_source), *value = json_of(value_source);
    struct schema *schema = schema_compile(arena, source, see, &seen);

    _assert_string_equal(seen.text, "", __FILE__, line);
    bool fits = schema_check(schema, value, &error);
    _assert_string_equal(fits ? "(fits)" : error.text, expected == NULL ? "(fits)" : expected, __FILE__, line);
    _assert_int_equal(error.class, expected == NULL ? ERROR_NONE : ERROR_POISON, __FILE__, line);
    json_decref(source);
    json_decref(value);
    arena_free(arena);
}
#define assert_fits(schema, value) assert_check_at((schema), (value), NULL, __LINE__)
#define assert_misfit(schema, value, says) assert_check_at((schema), (value), (says), __LINE__)

static void each_bad_keyword_is_named(void **state)
{
    (void)state;
    assert_bad("{'type': 'strng'}",
               "type: type is one of \"object\" \"array\" \"string\" \"number\" \"integer\" \"boolean\" "
               "\"null\", or a list of them, did you mean \"string\"?\n");
    assert_bad("{'type': []}", "type: a list of types must not be empty\n");
    assert_bad("{'type': ['string', 'string']}", "type[1]: \"string\" stands here twice\n");
    assert_bad("{'type': 5}", "type: type is one of \"object\" \"array\" \"string\" \"number\" \"integer\" \"boolean\" "
                              "\"null\", or a list of them\n");
    assert_bad("{'properties': []}", "properties: properties is a group: a schema under the name of each property\n");
    assert_bad("{'properties': {'a': 'string'}}",
               "properties.a: a schema is a group of keywords, for example { type = \"string\"; }\n");
    assert_bad("{'required': 'to'}", "required: required is a list of names, for example [\"to\", \"subject\"]\n");
    assert_bad("{'required': ['a', 5]}", "required[1]: required is a list of names: strings\n");
    assert_bad("{'required': ['a', 'a']}", "required[1]: \"a\" stands here twice\n");
    assert_bad("{'items': true}", "items: a schema is a group of keywords, for example { type = \"string\"; }\n");
    assert_bad("{'enum': []}", "enum: enum is a list of at least one value\n");
    assert_bad("{'enum': 'a'}", "enum: enum is a list of at least one value\n");
    assert_bad("{'enum': [1, 2, 1.0]}", "enum[2]: this value stands in enum twice\n");
    assert_bad("{'minimum': '1'}", "minimum: minimum is a number\n");
    assert_bad("{'maximum': null}", "maximum: maximum is a number\n");
    assert_bad("{'minLength': -1}", "minLength: minLength is a whole number, 0 or more\n");
    assert_bad("{'maxLength': 1.5}", "maxLength: maxLength is a whole number, 0 or more\n");
    assert_bad("{'minItems': '2'}", "minItems: minItems is a whole number, 0 or more\n");
    assert_bad("{'maxItems': -9}", "maxItems: maxItems is a whole number, 0 or more\n");
    assert_bad("{'additionalProperties': 'no'}",
               "additionalProperties: additionalProperties is true, false or a schema\n");
    assert_bad("{'format': 'mail'}",
               "format: format is \"email\", \"uri\" or \"date-time\", did you mean \"email\"?\n");
    assert_bad("{'format': 'ipv4'}", "format: format is \"email\", \"uri\" or \"date-time\"\n");
    assert_bad("{'format': 4}", "format: format is \"email\", \"uri\" or \"date-time\"\n");
    assert_bad("{'title': 4}", "title: title is a text\n");
    assert_bad("[]", ": a schema is a group of keywords, for example { type = \"string\"; }\n");
}

static void an_unknown_keyword_says_what_is_known(void **state)
{
    (void)state;
    assert_bad(
        "{'properties': {'to': {'min_length': 3}}}",
        "properties.to.min_length: \"min_length\" is not supported in a schema (allowed: type properties required items "
        "enum const minimum maximum minLength maxLength minItems maxItems additionalProperties format description "
        "title), did you mean \"minLength\"?\n");
    assert_bad(
        "{'pattern': 'a'}",
        "pattern: \"pattern\" is not supported in a schema (allowed: type properties required items enum const minimum "
        "maximum minLength maxLength minItems maxItems additionalProperties format description title)\n");
}

static void all_problems_are_told_at_once(void **state)
{
    (void)state;
    assert_bad(
        "{'type': 'object', 'required': ['a', 1], 'properties': {'a': {'type': 'array', 'items': {'minimum': 'x', "
        "'format': 'x'}}, 'b': {'minLength': -1}}, 'additionalProperties': {'enum': []}}",
        "required[1]: required is a list of names: strings\n"
        "properties.a.items.minimum: minimum is a number\n"
        "properties.a.items.format: format is \"email\", \"uri\" or \"date-time\"\n"
        "properties.b.minLength: minLength is a whole number, 0 or more\n"
        "additionalProperties.enum: enum is a list of at least one value\n");
}

static void a_schema_that_contradicts_itself_is_refused(void **state)
{
    (void)state;
    assert_bad("{'minimum': 5, 'maximum': 4.5}", "minimum: minimum is more than maximum: nothing fits\n");
    assert_bad("{'minLength': 5, 'maxLength': 4}", "minLength: minLength is more than maxLength: nothing fits\n");
    assert_bad("{'minItems': 5, 'maxItems': 4}", "minItems: minItems is more than maxItems: nothing fits\n");
    assert_bad("{'type': 'number', 'minLength': 5}", "minLength: minLength has no effect on this type\n");
    assert_bad("{'type': 'array', 'required': ['a']}", "required: required has no effect on this type\n");
    assert_bad("{'type': ['integer', 'null'], 'format': 'uri'}", "format: format has no effect on this type\n");
    assert_bad("{'properties': {}, 'items': {}}", "items: items has no effect on this type\n");
    assert_bad("{'type': 'string', 'enum': ['a', 1]}", "enum[1]: this value is not of the schema's type\n");
    assert_bad("{'type': 'string', 'const': null}", "const: const is not of the schema's type\n");
    assert_bad("{'required': ['compnay'], 'properties': {'company': {}}}",
               "required[0]: \"compnay\" is required, but properties does not have it, did you mean \"company\"?\n");
    assert_bad("{'required': ['x'], 'properties': {'company': {}}, 'additionalProperties': false}",
               "required[0]: \"x\" is required, but properties does not have it\n");
    assert_fits("{'required': ['x'], 'properties': {'company': {}}}", "{'x': 1}");
    assert_fits("{'type': ['integer', 'string'], 'minimum': 1, 'minLength': 1}", "'a'");
    assert_fits("{'type': 'integer', 'enum': [1.0, 2]}", "1");
}

static void a_schema_is_bounded_in_depth(void **state)
{
    struct arena *arena = arena_new();
    struct problems_seen seen = {.count = 0};

    (void)state;
    json_t *source = json_object();
    for (int i = 0; i < 31; i++)
        source = json_pack("{s:o}", "items", source);
    assert_non_null(schema_compile(arena, source, see, &seen));
    source = json_pack("{s:o}", "items", source);
    assert_null(schema_compile(arena, source, see, &seen));
    assert_int_equal(seen.count, 1);
    assert_non_null(strstr(seen.text, "schemas nested deeper than 32 levels"));
    assert_null(schema_compile(arena, source, NULL, NULL));
    json_decref(source);
    arena_free(arena);
}

static void a_type_is_checked(void **state)
{
    (void)state;
    assert_fits("{}", "[1, null]");
    assert_fits("{'type': 'object'}", "{}");
    assert_fits("{'type': 'array'}", "[]");
    assert_fits("{'type': 'string'}", "''");
    assert_fits("{'type': 'number'}", "1");
    assert_fits("{'type': 'number'}", "1.5");
    assert_fits("{'type': 'integer'}", "1");
    assert_fits("{'type': 'integer'}", "1.0");
    assert_fits("{'type': 'boolean'}", "false");
    assert_fits("{'type': 'null'}", "null");
    assert_fits("{'type': ['string', 'null']}", "null");
    assert_misfit("{'type': 'object'}", "[]", "is an array, must be an object");
    assert_misfit("{'type': 'integer'}", "1.5", "is a number with a fraction, must be an integer");
    assert_misfit("{'type': 'string'}", "1", "is a number, must be a string");
    assert_misfit("{'type': 'string'}", "1.25", "is a number, must be a string");
    assert_misfit("{'type': ['string', 'null']}", "true", "is a boolean, must be a string or null");
    assert_misfit("{'type': 'boolean'}", "null", "is null, must be a boolean");
    assert_misfit("{'required': ['a']}", "'x'", "is a string, must be an object");
    assert_misfit("{'properties': {}}", "5", "is a number, must be an object");
}

static void the_place_of_a_misfit_is_named(void **state)
{
    static const char schema[] =
        "{'required': ['summary', 'claims'], 'properties': {'summary': {'type': 'string'}, 'claims': "
        "{'type': 'array', 'items': {'required': ['source'], 'properties': {'source': {'type': 'string'}, "
        "'tags': {'items': {'items': {'type': 'null'}}}}}}}}";

    (void)state;
    assert_fits(schema, "{'summary': 's', 'claims': [{'source': 'x', 'more': 1}], 'extra': []}");
    assert_misfit(schema, "{'summary': 's', 'claims': [{'source': 'x'}, {'source': 'x'}, {'source': 5}]}",
                  "claims[2].source: is a number, must be a string");
    assert_misfit(schema, "{'summary': 's', 'claims': [{}]}", "claims[0].source: is missing, it is required");
    assert_misfit(schema, "{'claims': []}", "summary: is missing, it is required");
    assert_misfit(schema, "{'summary': 's', 'claims': [{'source': '', 'tags': [[null], [null, 1]]}]}",
                  "claims[0].tags[1][1]: is a number, must be null");
    assert_misfit("{'items': {'type': 'string'}}", "['a', {}]", "[1]: is an object, must be a string");
}

static void other_properties_can_be_refused_or_checked(void **state)
{
    (void)state;
    assert_fits("{'properties': {'a': {}}, 'additionalProperties': true}", "{'b': 1}");
    assert_misfit("{'properties': {'to': {}, 'body': {}}, 'additionalProperties': false}", "{'to': 1, 'cc': 2}",
                  "cc: is not allowed here; allowed: \"to\", \"body\"");
    assert_misfit("{'type': 'object', 'additionalProperties': false}", "{'cc': 2}", "cc: is not allowed here");
    assert_fits("{'properties': {'a': {}}, 'additionalProperties': {'type': 'integer'}, 'type': 'object'}",
                "{'a': '', 'b': 1}");
    assert_misfit("{'properties': {'a': {}}, 'additionalProperties': {'type': 'integer'}}", "{'a': '', 'b': 'x'}",
                  "b: is a string, must be an integer");
}

static void enum_and_const_compare_as_json_does(void **state)
{
    (void)state;
    assert_fits("{'enum': ['a', 1, null, {'x': [1.0]}]}", "{'x': [1]}");
    assert_fits("{'enum': ['a', 1, null]}", "1.0");
    assert_misfit("{'enum': ['a', 1, 2.5, null, true, [1], {}]}", "'b'",
                  "must be one of \"a\", 1, 2.5, null, true, an array, an object");
    assert_misfit("{'enum': [{'x': 1}]}", "{'x': 1, 'y': 1}", "must be one of an object");
    assert_misfit("{'enum': [{'x': 1, 'y': 1}]}", "{'x': 1, 'z': 1}", "must be one of an object");
    assert_misfit("{'enum': [[1, 2]]}", "[1]", "must be one of an array");
    assert_misfit("{'enum': [[1]]}", "[1, 2]", "must be one of an array");
    assert_misfit("{'enum': [1]}", "true", "must be one of 1");
    assert_fits("{'const': 'yes'}", "'yes'");
    assert_misfit("{'const': 'yes'}", "'no'", "must be \"yes\"");
    assert_misfit("{'const': null}", "0", "must be null");
    assert_misfit("{'const': 9007199254740993}", "9007199254740992", "must be 9007199254740993");
}

static void a_long_list_of_values_is_cut(void **state)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    json_t *values = json_array();

    (void)state;
    for (int i = 0; i < 100; i++)
        json_array_append_new(values, json_sprintf("value%d", i));
    json_t *source = json_pack("{s:o}", "enum", values);
    assert_false(schema_check(schema_compile(arena, source, NULL, NULL), json_null(), &error));
    assert_int_equal(strncmp(error.text, "must be one of \"value0\", \"value1\"", 33), 0);
    assert_string_equal(error.text + strlen(error.text) - 5, "\" ...");
    assert_true(strlen(error.text) < 230);
    json_decref(source);
    arena_free(arena);
}

static void numbers_have_bounds(void **state)
{
    (void)state;
    assert_fits("{'minimum': 1, 'maximum': 5}", "1");
    assert_fits("{'minimum': 1, 'maximum': 5}", "5.0");
    assert_fits("{'minimum': 1}", "'text'");
    assert_misfit("{'minimum': 1}", "0.5", "is 0.5, must be at least 1");
    assert_misfit("{'maximum': 5}", "6", "is 6, must be at most 5");
    assert_misfit("{'maximum': 9007199254740992}", "9007199254740993",
                  "is 9007199254740993, must be at most 9007199254740992");
    assert_misfit("{'maximum': 1e18}", "1000000000000000001", "is 1000000000000000001, must be at most 1e+18");
    assert_fits("{'maximum': 1e300}", "9223372036854775807");
    assert_fits("{'minimum': -1e300}", "-9223372036854775807");
    assert_misfit("{'minimum': 2.5}", "2", "is 2, must be at least 2.5");
    assert_misfit("{'maximum': -2.5}", "-2", "is -2, must be at most -2.5");
    assert_fits("{'minimum': 2.5, 'maximum': 3.5}", "3");
    assert_misfit("{'maximum': 3}", "3.5", "is 3.5, must be at most 3");
    assert_misfit("{'maximum': 3.25}", "3.5", "is 3.5, must be at most 3.25");
}

static void lengths_count_code_points(void **state)
{
    (void)state;
    assert_fits("{'minLength': 3, 'maxLength': 3}", "'日本x'");
    assert_fits("{'maxLength': 1}", "'\xf0\x9f\x98\x80'");
    assert_misfit("{'minLength': 3}", "'日本'", "has 2 characters, must have at least 3");
    assert_misfit("{'maxLength': 2}", "'abc'", "has 3 characters, must have at most 2");
    assert_fits("{'minItems': 1, 'maxItems': 2}", "[1, 2]");
    assert_misfit("{'minItems': 1}", "[]", "has 0 items, must have at least 1");
    assert_misfit("{'maxItems': 2}", "[1, 2, 3]", "has 3 items, must have at most 2");
}

static void a_schema_becomes_text_for_a_model(void **state)
{
    static const char *const cases[][2] = {
        {"{'required': ['q'], 'properties': {'q': {'type': 'string'}}}",
         "{\"required\":[\"q\"],\"properties\":{\"q\":{\"type\":\"string\"}},\"type\":\"object\"}"},
        {"{'type': 'object', 'properties': {'a': {'items': {'required': ['x']}, 'type': 'array'}}}",
         "{\"type\":\"object\",\"properties\":{\"a\":{\"items\":{\"required\":[\"x\"],\"type\":\"object\"},\"type\":\"array\"}}}"},
        {"{}", "{\"type\":\"object\",\"properties\":{}}"},
        {"{'required': ['task']}", "{\"required\":[\"task\"],\"type\":\"object\",\"properties\":{}}"},
        {"{'enum': ['yes', 'no']}", "{\"enum\":[\"yes\",\"no\"]}"},
        {"{'type': ['object', 'null']}", "{\"type\":[\"object\",\"null\"]}"},
        {"{'format': 'uri'}", "{\"format\":\"uri\"}"},
        {"{'type': 'string'}", "{\"type\":\"string\"}"},
        {"{'type': 'object', 'additionalProperties': {'properties': {}}}",
         "{\"type\":\"object\",\"additionalProperties\":{\"properties\":{},\"type\":\"object\"},\"properties\":{}}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena *arena = arena_new();
        json_t *source = json_of(cases[i][0]), *before = json_deep_copy(source);
        struct schema *schema = schema_compile(arena, source, NULL, NULL);
        assert_non_null(schema);
        assert_string_equal(schema_text(schema, arena).data, cases[i][1]);
        assert_true(json_equal(source, before)); /* it is borrowed, and part of the contract's hash */
        json_decref(source);
        json_decref(before);
        arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_keyword_is_named),
        cmocka_unit_test(an_unknown_keyword_says_what_is_known),
        cmocka_unit_test(all_problems_are_told_at_once),
        cmocka_unit_test(a_schema_that_contradicts_itself_is_refused),
        cmocka_unit_test(a_schema_is_bounded_in_depth),
        cmocka_unit_test(a_type_is_checked),
        cmocka_unit_test(the_place_of_a_misfit_is_named),
        cmocka_unit_test(other_properties_can_be_refused_or_checked),
        cmocka_unit_test(enum_and_const_compare_as_json_does),
        cmocka_unit_test(a_long_list_of_values_is_cut),
        cmocka_unit_test(numbers_have_bounds),
        cmocka_unit_test(lengths_count_code_points),
        cmocka_unit_test(a_schema_becomes_text_for_a_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
