/* worker/base/cache: bounded in bytes, the least recently asked for goes first, against plain arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/base/cache.h"

static struct str value_of(int number, size_t size, unsigned char digest[HASH_SIZE])
{
    static char bytes[1000];
    memset(bytes, number, sizeof bytes);
    (void)snprintf(bytes, sizeof bytes, "%d", number);
    struct str value = {bytes, size};
    hash_sha256_raw(value, digest);
    return value;
}

static void put(struct cache *cache, int number, size_t size)
{
    unsigned char digest[HASH_SIZE];
    struct str value = value_of(number, size, digest);
    cache_put(cache, digest, value);
}

static bool has(struct cache *cache, int number, size_t size)
{
    unsigned char digest[HASH_SIZE];
    struct str wanted = value_of(number, size, digest), got = cache_get(cache, digest);
    assert_true(got.data == NULL || (str_equal(got, wanted) && got.data[got.size] == '\0'));
    return got.data != NULL;
}

static void test_least_recently_asked_for_goes_first(void **state)
{
    (void)state;
    struct cache *cache = cache_new(1000);
    for (int i = 0; i < 10; i++)
        put(cache, i, 100);
    for (int i = 0; i < 10; i++)
        assert_true(has(cache, i, 100));
    assert_true(has(cache, 0, 100));
    put(cache, 10, 100);
    assert_true(has(cache, 0, 100));
    assert_false(has(cache, 1, 100));
    put(cache, 11, 250); /* three go for it */
    for (int i = 2; i < 5; i++)
        assert_false(has(cache, i, 100));
    put(cache, 11, 250); /* once is enough: there is no room for it twice */
    for (int i = 5; i < 11; i++)
        assert_true(has(cache, i, 100));
    assert_true(has(cache, 0, 100) && has(cache, 11, 250));
    cache_free(cache);
}

static void test_too_large(void **state)
{
    (void)state;
    struct cache *cache = cache_new(300);
    put(cache, 1, 200);
    put(cache, 2, 301);
    assert_true(has(cache, 1, 200));
    assert_false(has(cache, 2, 301));
    put(cache, 3, 300);
    assert_false(has(cache, 1, 200));
    assert_true(has(cache, 3, 300));
    cache_free(cache);
    cache_free(NULL);
}

static void test_many(void **state)
{
    (void)state;
    struct cache *cache = cache_new(50000 * (size_t)20);
    for (int i = 0; i < 60000; i++)
        put(cache, i, 20);
    for (int i = 0; i < 60000; i++)
        assert_true(has(cache, i, 20) == (i >= 10000));
    cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_recently_asked_for_goes_first),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
