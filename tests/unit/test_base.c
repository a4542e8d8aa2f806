/* worker/base: error, bytes, arena, logline, hash, json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/base/arena.h"
#include "worker/base/error.h"
#include "worker/base/hash.h"
#include "worker/base/json.h"
#include "worker/base/logline.h"

static void test_error(void **state)
{
    struct error error = {0};
    char long_text[2000];

    (void)state;
    assert_false(error_set(&error, ERROR_POISON, "line %d\nof \x80 %s", 7, "text"));
    assert_int_equal(error.class, ERROR_POISON);
    assert_string_equal(error.text, "line 7 of ? text");
    assert_false(error_wrap(&error, "file %s", "a.cfg"));
    assert_string_equal(error.text, "file a.cfg: line 7 of ? text");
    assert_int_equal(error.class, ERROR_POISON);
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_false(error_wrap(&error, "%s", long_text));
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    assert_false(error_set(&error, ERROR_FATAL, "%s", long_text));
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    assert_false(error_set(NULL, ERROR_FATAL, "nobody asked"));
    assert_false(error_wrap(NULL, "nobody asked"));
}

static void test_str(void **state)
{
    (void)state;
    assert_null(str_of(NULL).data);
    assert_true(str_is(str_of("abc"), "abc"));
    assert_false(str_is(STR("abc"), "abd"));
    assert_true(str_equal(STR_NONE, STR_NONE));
    assert_true(str_compare(STR("a"), STR("b")) < 0);
    assert_true(str_compare(STR("ab"), STR("a")) > 0);
    assert_true(str_compare(STR(""), STR_NONE) == 0);
    assert_true(str_compare(STR("\xff"), STR("a")) > 0);
}

static void test_utf8(void **state)
{
    static const char *const valid[] = {"",
                                        "plain ASCII, longer than eight",
                                        "\xc3\xa9",
                                        "\xe2\x82\xac",
                                        "\xf0\x9f\x98\x80",
                                        "\xed\x9f\xbf",
                                        "\xf4\x8f\xbf\xbf",
                                        "12345678\xe2\x82\xac"};
    static const char *const invalid[] = {"\x80",
                                          "\xc0\xaf",
                                          "\xc1\xbf",
                                          "\xe0\x9f\xbf",
                                          "\xed\xa0\x80",
                                          "\xf0\x8f\xbf\xbf",
                                          "\xf4\x90\x80\x80",
                                          "\xf5\x80\x80\x80",
                                          "\xe2\x82",
                                          "\xc3(",
                                          "\xff"};

    (void)state;
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++)
        assert_int_equal(str_utf8_size(str_of(valid[i])), strlen(valid[i]));
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++)
        assert_int_equal(str_utf8_size(str_of(invalid[i])), 0);
    assert_int_equal(str_utf8_size(STR("123456789\xc3")), 9);
}

static void test_buf(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 10);
    assert_string_equal(buf_str(&buf).data, "");
    assert_true(buf_puts(&buf, "12345"));
    assert_true(buf_printf(&buf, "%d", 67890));
    assert_false(buf_put(&buf, "x", 1));
    assert_true(buf.overflow);
    assert_false(buf_put(&buf, "", 0));
    assert_string_equal(buf_str(&buf).data, "1234567890");
    buf_clear(&buf);
    assert_false(buf.overflow);
    assert_false(buf_printf(&buf, "%s", "12345678901"));
    assert_int_equal(buf.size, 0);
    buf_free(&buf);
    buf_free(&buf);
    buf_init(&buf, SIZE_MAX);
    for (int i = 0; i < 10000; i++)
        assert_true(buf_put(&buf, "0123456789", 10));
    assert_int_equal(buf.size, 100000);
    assert_false(buf_put(&buf, "", SIZE_MAX));
    buf_free(&buf);
}

static void test_arena(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    for (int round = 0; round < 3; round++) {
        size_t asked = 0;

        for (size_t size = 0; size < 3000; size += 7) {
            unsigned char *data = arena_alloc(arena, size);

            assert_int_equal((uintptr_t)data % 16, 0);
            for (size_t i = 0; i < size; i++)
                assert_int_equal(data[i], 0);
            memset(data, 0xff, size);
            asked += size;
        }
        memset(arena_alloc(arena, 1 << 20), 1, 1 << 20);
        asked += 1 << 20;
        assert_int_equal(arena_size(arena), asked);
        assert_string_equal(arena_printf(arena, "%s-%d", "a", 1).data, "a-1");
        assert_null(arena_str(arena, STR_NONE).data);
        assert_string_equal(arena_str(arena, STR("")).data, "");
        assert_string_equal(arena_copy(arena, "abcdef", 3).data, "abc");
        assert_non_null(ARENA_ARRAY(arena, 0, int));
        arena_reset(arena);
        assert_int_equal(arena_size(arena), 0);
    }
    arena_free(arena);
    arena_free(NULL);
}

/* What a log line is, read back from a pipe that stands in for standard error. */
static const char *logged(enum logline_level level, const struct logline_field *fields, size_t count)
{
    static char text[8192];
    int ends[2], saved = dup(STDERR_FILENO);
    ssize_t size;

    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    logline_write(level, "thing.happened", fields, count);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    size = read(ends[0], text, sizeof text - 1);
    close(ends[0]);
    assert_true(size >= 0);
    text[size] = '\0';
    return text;
}

static void test_logline(void **state)
{
    static char long_text[3000];
    struct logline_field many[20];
    const char *line;

    (void)state;
    line = logged(LOGLINE_WARN,
                  (struct logline_field[]){LOG_S("plain", "a.b-c"), LOG_S("quoted", "a \"b\"\n\x01\\"),
                                           LOG_I("number", -7), LOG_STR("empty", STR_NONE), LOG_S("text", "\xc3\xa9")},
                  5);
    assert_true(strncmp(line, "time=20", 7) == 0 && line[28] == 'Z' && line[29] == ' ');
    assert_string_equal(line + 30,
                        "level=warn event=thing.happened plain=a.b-c quoted=\"a \\\"b\\\"\\n\\x01\\\\\" number=-7"
                        " empty=\"\" text=\xc3\xa9\n");
    assert_string_equal(logged(LOGLINE_DEBUG, NULL, 0), "");
    logline_level(LOGLINE_DEBUG);
    assert_non_null(strstr(logged(LOGLINE_DEBUG, NULL, 0), "level=debug"));
    logline_level(LOGLINE_INFO);

    memset(long_text, 'x', sizeof long_text - 1);
    memcpy(long_text + 1023, "\xc3\xa9", 2);
    line = logged(LOGLINE_INFO, (struct logline_field[]){LOG_S("long", long_text), LOG_I("last", 1)}, 2);
    assert_non_null(strstr(line, "x... last=1\n"));
    assert_null(strchr(line, '\xc3'));
    for (size_t i = 0; i < 20; i++)
        many[i] = LOG_S("long", long_text);
    many[19] = LOG_I("last", 1);
    line = logged(LOGLINE_INFO, many, 20);
    assert_true(strlen(line) <= 4096);
    assert_non_null(strstr(line, " last=1 cut=true\n"));
}

static void test_hash(void **state)
{
    struct arena *arena = arena_new();
    struct str one = hash_parts(arena, (struct str[]){STR("ab"), STR("c")}, 2);
    struct str two = hash_parts(arena, (struct str[]){STR("a"), STR("bc")}, 2);

    (void)state;
    assert_string_equal(hash_sha256(arena, STR("abc")).data,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_string_equal(hash_sha256(arena, STR_NONE).data,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_int_equal(one.size, HASH_HEX_SIZE);
    assert_false(str_equal(one, two));
    assert_string_equal(one.data, hash_sha256(arena, STR("\0\0\0\0\0\0\0\2ab\0\0\0\0\0\0\0\1c")).data);
    /* From the test data of Avro (share/test/data/schema-tests.txt). */
    assert_true(hash_crc64_avro("\"null\"", 6) == UINT64_C(0x63dd24e7cc258f8a));
    assert_true(hash_crc64_avro("\"int\"", 5) == UINT64_C(0x7275d51a3f395c8f));
    assert_true(hash_crc64_avro("\"string\"", 8) == UINT64_C(0x8f014872634503c7));
    assert_true(hash_crc64_avro("", 0) == UINT64_C(0xc15d213aa4d7a795));
    arena_free(arena);
}

static void check_json(struct arena *arena, const char *text, const char *want, const char *want_canonical)
{
    struct error error = {0};
    json_t *value = json_read(str_of(text), 1 << 20, &error), *again;

    if (value == NULL)
        fail_msg("%s: %s", text, error.text);
    assert_string_equal(json_text(arena, value).data, want);
    assert_string_equal(json_canonical(arena, value).data, want_canonical);
    again = json_read(json_text(arena, value), 1 << 20, &error);
    assert_true(json_equal(value, again));
    json_decref(again);
    json_decref(value);
}

static void test_json_text(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    check_json(arena, " [98.7, 0.1, 1e300, 1.5e-7, 3.0, -0.0, 1e20]", "[98.7,0.1,1e+300,1.5e-07,3.0,-0.0,1e+20]",
               "[98.7,0.1,1e+300,1.5e-07,3,0,1e+20]");
    check_json(arena, "[0.30000000000000004, 5e-324, 1.7976931348623157e308]",
               "[0.30000000000000004,4.94065645841247e-324,1.7976931348623157e+308]",
               "[0.30000000000000004,4.94065645841247e-324,1.7976931348623157e+308]");
    check_json(arena, "9007199254740993.0", "9007199254740992.0", "9007199254740992");
    check_json(arena, "-9223372036854775808", "-9223372036854775808", "-9223372036854775808");
    check_json(arena, "{\"b\": 1, \"a\": {\"z\": null, \"y\": [true, false]}, \"B\": {}, \"\xc3\xa9\": []}",
               "{\"b\":1,\"a\":{\"z\":null,\"y\":[true,false]},\"B\":{},\"\xc3\xa9\":[]}",
               "{\"B\":{},\"a\":{\"y\":[true,false],\"z\":null},\"b\":1,\"\xc3\xa9\":[]}");
    check_json(arena, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u20ac\\ud83d\\ude00\x7f\"",
               "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"",
               "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"");
    arena_free(arena);
}

static void test_json_refused(void **state)
{
    static const char *const refused[] = {
        "",     "{",     "1 2", "{\"a\":1,\"a\":2}",    "\"\\u0000\"", "\"\xff\"", "nan",
        "[1,]", "1e999", "'a'", "99999999999999999999", "\"\\ud800\""};
    char deep[2000];
    struct error error = {0};
    json_t *value;

    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        error.class = ERROR_NONE;
        assert_null(json_read(str_of(refused[i]), 1000, &error));
        assert_int_equal(error.class, ERROR_POISON);
    }
    assert_null(json_read(STR_NONE, 1000, &error));
    assert_null(json_read(STR("\"a\0b\""), 1000, &error));
    assert_null(json_read(STR("[1,2]"), 4, &error));
    assert_null(json_read(STR("{\"password\": \"s3cret\" oops}"), 1000, &error));
    assert_null(strstr(error.text, "oops"));
    assert_non_null(strstr(error.text, "line 1"));
    memset(deep, '[', sizeof deep);
    memset(deep + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    value = json_read((struct str){deep, 2 * JSON_DEPTH_MAX}, sizeof deep, &error);
    assert_non_null(value);
    json_decref(value);
    memset(deep, '[', JSON_DEPTH_MAX + 1);
    memset(deep + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_null(json_read((struct str){deep, 2 * JSON_DEPTH_MAX + 2}, sizeof deep, &error));
}

static void test_json_member(void **state)
{
    struct arena *arena = arena_new();
    json_t *object = json_read(STR("{\"a\": \"text\", \"b\": 1, \"c\": \"\"}"), 100, NULL);

    (void)state;
    assert_string_equal(json_member_str(arena, object, "a").data, "text");
    assert_null(json_member_str(arena, object, "b").data);
    assert_string_equal(json_member_str(arena, object, "c").data, "");
    assert_null(json_member_str(arena, object, "d").data);
    assert_null(json_member_str(arena, NULL, "d").data);
    json_decref(object);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),       cmocka_unit_test(test_str),       cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_buf),         cmocka_unit_test(test_arena),     cmocka_unit_test(test_logline),
        cmocka_unit_test(test_hash),        cmocka_unit_test(test_json_text), cmocka_unit_test(test_json_refused),
        cmocka_unit_test(test_json_member),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
