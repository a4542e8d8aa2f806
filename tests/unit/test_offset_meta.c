/* What a committed offset's metadata says, and what it must not be taken for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "worker/io/offset_meta.h"

static int64_t seq_of(const char *text)
{
    struct offset_meta meta;
    struct error error;
    assert_true(offset_meta_read(str_of(text), 0, &meta, &error));
    return meta.commit_seq;
}

static void refused(const char *text, size_t size, const char *why)
{
    struct offset_meta meta;
    struct error error = {.class = ERROR_NONE};
    assert_false(offset_meta_read((struct str){text, size}, 0, &meta, &error));
    assert_int_equal(error.class, ERROR_POISON);
    if (strstr(error.text, why) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", text, error.text, why);
}

static void test_what_we_write_reads_back(void **state)
{
    (void)state;
    const int64_t seqs[] = {0, 1, 9, 10, 123456789, INT64_MAX};
    for (size_t i = 0; i < sizeof seqs / sizeof seqs[0]; i++) {
        char text[OFFSET_META_TEXT_SIZE];
        offset_meta_write(&(struct offset_meta){.commit_seq = seqs[i]}, 0, text);
        assert_int_equal(seq_of(text), seqs[i]);
    }
}

static void test_the_text_is_fixed(void **state)
{
    (void)state;
    char text[OFFSET_META_TEXT_SIZE];
    offset_meta_write(&(struct offset_meta){.commit_seq = 17}, 0, text);
    assert_string_equal(text, "1 17"); /* other versions and other tools read it */
}

static void test_empty_is_the_beginning(void **state)
{
    (void)state;
    struct offset_meta meta;
    assert_int_equal(seq_of(""), 0);
    assert_true(offset_meta_read(STR_NONE, 0, &meta, NULL));
    assert_true(
        offset_meta_read((struct str){"1 17", 5}, 0, &meta, NULL)); /* with the NUL, as the Python client commits it */
    assert_int_equal(meta.commit_seq, 17);
}

static void test_a_newer_one_is_refused(void **state)
{
    (void)state;
    refused("2 17", 4, "version 2");
    refused("10 17 AAAA", 10, "version 10");
    refused("0 17", 4, "version 0");
}

static void test_a_map_that_is_none(void **state)
{
    (void)state;
    refused("1 17 ", 5, "map");
    refused("1 17 AAAA", 9, "map");
    refused("1 17\n", 5, "commit_seq");
}

static void test_a_map_belongs_to_its_place(void **state)
{
    (void)state;
    struct offset_meta meta = {.commit_seq = 17}, got;
    struct error error;
    char text[OFFSET_META_TEXT_SIZE];
    offset_map_mark(&meta.done, 1, 3);
    offset_meta_write(&meta, 100, text);
    assert_string_equal(text, "1 17 AAADBl5RY4E="); /* other tools read it */
    assert_true(offset_meta_read(str_of(text), 100, &got, &error));
    assert_int_equal(got.commit_seq, 17);
    assert_memory_equal(&got.done, &meta.done, sizeof got.done);
    assert_false(offset_meta_read(str_of(text), 101, &got, &error));
    text[3] = '8';
    assert_false(offset_meta_read(str_of(text), 100, &got, &error));
    assert_non_null(strstr(error.text, "of another offset"));
}

static void test_anything_else_is_refused(void **state)
{
    (void)state;
    refused("hello", 5, "not Myelin's");
    refused(" 1 17", 5, "not Myelin's");
    refused("+1 17", 5, "not Myelin's");
    refused("01 17", 5, "not Myelin's");
    refused("1", 1, "commit_seq");
    refused("1 ", 2, "commit_seq");
    refused("1 -1", 4, "commit_seq");
    refused("1 017", 5, "commit_seq");
    refused("1 9223372036854775808", 21, "commit_seq");
    refused("1 99999999999999999999999", 25, "commit_seq");
    refused("1\0 17", 5, "not Myelin's");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_we_write_reads_back), cmocka_unit_test(test_the_text_is_fixed),
        cmocka_unit_test(test_empty_is_the_beginning),   cmocka_unit_test(test_a_newer_one_is_refused),
        cmocka_unit_test(test_a_map_that_is_none),       cmocka_unit_test(test_a_map_belongs_to_its_place),
        cmocka_unit_test(test_anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
