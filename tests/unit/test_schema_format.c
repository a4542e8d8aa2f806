/* The formats email, uri and date-time: what fits and what does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "worker/contract/schema_format.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void assert_format(enum schema_format format, const char *const *texts, size_t count, bool fits)
{
    for (size_t i = 0; i < count; i++) {
        if (schema_format_fits(format, str_of(texts[i])) != fits)
            print_error("%s: %s\n", texts[i], fits ? "refused" : "accepted");
        assert_int_equal(schema_format_fits(format, str_of(texts[i])), fits);
    }
}

static void email(void **state)
{
    static const char *const good[] = {
        "ada@example.com",
        "a.b+tag@mail.example.co.uk",
        "x@localhost",
        "!#$%&'*+-/=?^_`{|}~@a-b.de",
        "\"a b\\\"c@d\"@example.com",
        "ada@[192.0.2.1]",
        "ada@[IPv6:2001:db8::1]",
        "1234567890123456789012345678901234567890123456789012345678901234@example.com",
        "a@123.com",
    };
    static const char *const bad[] = {
        "",
        "ada",
        "@example.com",
        "ada@",
        ".ada@example.com",
        "ada.@example.com",
        "a..b@example.com",
        "a b@example.com",
        "ada@exa mple.com",
        "ada@-example.com",
        "ada@example-.com",
        "ada@example..com",
        "ada@.example.com",
        "ada@example.com.",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com, eve@example.com",
        "Ada <ada@example.com>",
        "a@b@example.com",
        "\"a\"b@example.com",
        "\"a@example.com",
        "\"a\\\"@example.com",
        "ada@[192.0.2]",
        "ada@[IPv6:192.0.2.1]",
        "ada@[example]",
        "ada@[]",
        "ad\xc3\xa4@example.com",
        "ada@ex\xc3\xa4mple.com",
        "12345678901234567890123456789012345678901234567890123456789012345@example.com",
        "a@1234567890123456789012345678901234567890123456789012345678901234.com",
    };
    char text[300];

    (void)state;
    assert_format(SCHEMA_FORMAT_EMAIL, good, COUNT(good), true);
    assert_format(SCHEMA_FORMAT_EMAIL, bad, COUNT(bad), false);
    assert_false(schema_format_fits(SCHEMA_FORMAT_EMAIL, (struct str){"a\0b@example.com", 15}));
    memset(text, 'a', sizeof text);
    text[1] = '@';
    for (size_t i = 10; i < sizeof text; i += 10)
        text[i] = '.';
    assert_true(schema_format_fits(SCHEMA_FORMAT_EMAIL, (struct str){text, 254}));
    assert_false(schema_format_fits(SCHEMA_FORMAT_EMAIL, (struct str){text, 255}));
}

static void uri(void **state)
{
    static const char *const good[] = {
        "https://example.com",
        "https://example.com/a/b;c=d?e=f&g=%20#h/?",
        "HTTP://user:pw@example.com:8080/",
        "http://[2001:db8::1]:80/x",
        "http://127.0.0.1:9/",
        "http://example.com:",
        "mailto:ada@example.com",
        "urn:isbn:0451450523",
        "file:///etc/hosts",
        "tel:+1-816-555-1212",
        "a+b-c.1:x",
        "x:",
    };
    static const char *const bad[] = {
        "",
        "example.com",
        "/path",
        "//example.com/x",
        "http:",
        "http://",
        "https:///x",
        "http:/x",
        "1http://x",
        ":x",
        "ht tp://x",
        "http://a b/",
        "http://x/a b",
        "http://x/%2",
        "http://x/%zz",
        "http://x/<y>",
        "http://x/\"y\"",
        "http://x/\\y",
        "http://x/#a#b",
        "http://x:80a/",
        "http://[::1/",
        "http://[zz]/",
        "http://[::1]x/",
        "http://x/{y}",
        "http://\xc3\xa4.de/",
        "http://x/|",
        "http://x/^",
        "http://x/[y]",
        "http://us[er@x/",
        "http://x\n/",
    };

    (void)state;
    assert_format(SCHEMA_FORMAT_URI, good, COUNT(good), true);
    assert_format(SCHEMA_FORMAT_URI, bad, COUNT(bad), false);
    assert_false(schema_format_fits(SCHEMA_FORMAT_URI, (struct str){"x:\0", 3}));
}

static void date_time(void **state)
{
    static const char *const good[] = {
        "2026-11-22T17:40:00Z", "2026-11-22t17:40:00z",      "2024-02-29T00:00:00+00:00",
        "2000-02-29T00:00:00Z", "2026-11-22T17:40:00.1Z",    "2026-11-22T17:40:00.123456789012-23:59",
        "1990-12-31T23:59:60Z", "1990-12-31T15:59:60-08:00", "1991-01-01T08:59:60+09:00",
        "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    };
    static const char *const bad[] = {
        "",
        "2026-11-22",
        "2026-11-22 17:40:00Z",
        "2026-11-22T17:40:00",
        "2026-11-22T17:40Z",
        "2026-11-22T17:40:00+0100",
        "2026-11-22T17:40:00+01",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T23:60:00Z",
        "2026-11-22T23:59:61Z",
        "2026-11-22T22:59:60Z",
        "1990-12-31T23:59:60+01:00",
        "2026-11-22T17:40:00.Z",
        "2026-11-22T17:40:00+24:00",
        "2026-11-22T17:40:00+01:60",
        "2026-11-22T17:40:00Zx",
        "26-11-22T17:40:00Z",
        "+2026-11-22T17:40:00Z",
        "2026-1-22T17:40:00Z",
        "2026-11-22T7:40:00Z",
        " 2026-11-22T17:40:00Z",
    };

    (void)state;
    assert_format(SCHEMA_FORMAT_DATE_TIME, good, COUNT(good), true);
    assert_format(SCHEMA_FORMAT_DATE_TIME, bad, COUNT(bad), false);
}

/* Every truncation of a good text is looked at without a byte read too far (ASan, valgrind). */
static void no_byte_is_read_behind_the_text(void **state)
{
    static const char *const texts[] = {"\"a\\\"b\"@[IPv6:2001:db8::1]", "http://u:p@[2001:db8::1]:80/a%20b?c#d%20",
                                        "2024-02-29T23:59:60.123+01:30"};

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        for (size_t size = 0; size <= strlen(texts[i]); size++) {
            char *exact = test_malloc(size + 1);
            memcpy(exact, texts[i], size);
            for (int format = SCHEMA_FORMAT_NONE; format <= SCHEMA_FORMAT_DATE_TIME; format++)
                (void)schema_format_fits((enum schema_format)format, (struct str){exact, size});
            test_free(exact);
        }
    }
}

static void formats_have_names(void **state)
{
    enum schema_format format = SCHEMA_FORMAT_NONE;

    (void)state;
    assert_true(schema_format_parse(STR("email"), &format));
    assert_int_equal(format, SCHEMA_FORMAT_EMAIL);
    assert_true(schema_format_parse(STR("uri"), &format));
    assert_int_equal(format, SCHEMA_FORMAT_URI);
    assert_true(schema_format_parse(STR("date-time"), &format));
    assert_int_equal(format, SCHEMA_FORMAT_DATE_TIME);
    assert_false(schema_format_parse(STR("date"), &format));
    assert_false(schema_format_parse(STR_NONE, &format));
    /* Each example fits its own format. */
    for (int f = SCHEMA_FORMAT_EMAIL; f <= SCHEMA_FORMAT_DATE_TIME; f++) {
        const char *example = strrchr(schema_format_wants((enum schema_format)f), ' ') + 1;
        assert_true(schema_format_fits((enum schema_format)f, str_of(example)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(email),
        cmocka_unit_test(uri),
        cmocka_unit_test(date_time),
        cmocka_unit_test(no_byte_is_read_behind_the_text),
        cmocka_unit_test(formats_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
