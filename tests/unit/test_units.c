#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/base/units.h"

static void test_durations_that_people_write(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {{"0s", 0},       {"1ms", 1},        {"500ms", 500},   {"5s", 5000},
                 {"10m", 600000}, {"24h", 86400000}, {"7d", 604800000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ms = -1;
        assert_true(units_duration(str_of(cases[i].text), &ms));
        assert_int_equal(ms, cases[i].ms);
    }
}

static void test_what_is_no_duration(void **state)
{
    (void)state;
    static const char *const cases[] = {"",
                                        "5",
                                        "s",
                                        "-5s",
                                        "+5s",
                                        "5 s",
                                        "5sec",
                                        "5S",
                                        "1.5h",
                                        " 5s",
                                        "5s ",
                                        "0x5s",
                                        "1h30m",
                                        "36601d",
                                        "99999999999999999999s",
                                        "9223372036854775807ms"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ms;
        assert_false(units_duration(str_of(cases[i]), &ms));
    }
    int64_t ms;
    assert_false(units_duration(STR("5s\0x"), &ms)); /* a NUL is no end */
    assert_false(units_duration(STR_NONE, &ms));
}

static void test_money_that_people_write(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t micro_usd;
    } cases[] = {
        {"0", 0}, {"2.50", 2500000}, {"10", 10000000}, {"0.000001", 1}, {"1000000000.999999", 1000000000999999}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t micro_usd = -1;
        assert_true(units_usd(str_of(cases[i].text), &micro_usd));
        assert_int_equal(micro_usd, cases[i].micro_usd);
    }
    static const char *const wrong[] = {"", ".5", "5.", "$5", "5 USD", "-1", "1e3", "0.0000001", "1,50", "1000000001"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        int64_t micro_usd;
        assert_false(units_usd(str_of(wrong[i]), &micro_usd));
    }
}

static void test_sizes(void **state)
{
    static const char *const wrong[] = {"", "512", "MiB", "1.5GiB", "512 MiB", "512MB", "512mib", "-1KiB", "1025GiB"};
    int64_t bytes = -1;
    (void)state;
    assert_true(units_size(STR("0B"), &bytes) && bytes == 0);
    assert_true(units_size(STR("64KiB"), &bytes) && bytes == 65536);
    assert_true(units_size(STR("512MiB"), &bytes) && bytes == 536870912);
    assert_true(units_size(STR("1024GiB"), &bytes) && bytes == INT64_C(1) << 40);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(units_size(str_of(wrong[i]), &bytes));
}

static void test_texts_read_back(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    assert_string_equal(units_duration_text(arena, 0).data, "0ms");
    assert_string_equal(units_duration_text(arena, 604800000).data, "7d");
    assert_string_equal(units_duration_text(arena, 90000).data, "90s");
    assert_string_equal(units_duration_text(arena, 1500).data, "1500ms");
    assert_string_equal(units_size_text(arena, 1536 << 10).data, "1536KiB");
    assert_string_equal(units_size_text(arena, 2 << 20).data, "2MiB");
    assert_string_equal(units_usd_text(arena, 0).data, "0.00");
    assert_string_equal(units_usd_text(arena, 2500000).data, "2.50");
    assert_string_equal(units_usd_text(arena, 11234).data, "0.011234");
    assert_string_equal(units_usd_text(arena, -500000).data, "-0.50");
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations_that_people_write),
        cmocka_unit_test(test_what_is_no_duration),
        cmocka_unit_test(test_money_that_people_write),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_texts_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
