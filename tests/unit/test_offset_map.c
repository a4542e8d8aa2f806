/* The map of what is done above a committed offset: against a plain set, and that every pattern fits what a broker takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "worker/io/offset_meta.h"

#define METADATA_MAX 4096 /* offset.metadata.max.bytes, a broker's default */

/* A linear congruential generator (Knuth, MMIX): the same numbers for the same seed everywhere. */
static int dice(uint64_t *state, int sides)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int)((*state >> 33) % (uint64_t)sides);
}

/* Written and read back, it is the same; returns how long the whole text is. */
static size_t round_trip(const struct offset_map *map, int64_t committed, int64_t seq)
{
    static char text[OFFSET_META_TEXT_SIZE];
    static struct offset_meta meta, got;
    struct error error = {.class = ERROR_NONE};
    meta = (struct offset_meta){.commit_seq = seq, .done = *map};
    memset(text, 'x', sizeof text);
    offset_meta_write(&meta, committed, text);
    size_t size = strlen(text);
    assert_true(size < METADATA_MAX);
    for (size_t i = 0; i < size; i++)
        assert_true(text[i] >= ' ' && text[i] <= '~');
    if (!offset_meta_read((struct str){text, size}, committed, &got, &error))
        fail_msg("%s: %s", error.text, text);
    assert_int_equal(got.commit_seq, seq);
    assert_memory_equal(&got.done, map, sizeof *map);
    return size;
}

static void test_random_against_a_set(void **state)
{
    (void)state;
    static bool set[OFFSET_MAP_WINDOW];
    uint64_t seed = 4;
    for (int round = 0; round < 3000; round++) {
        struct offset_map map = {.span = 0};
        int scale = 1 << dice(&seed, 14), span = 0;
        memset(set, 0, sizeof set);
        for (int n = dice(&seed, 40); n > 0; n--) {
            int first = 1 + dice(&seed, OFFSET_MAP_WINDOW + 20), end = first + dice(&seed, scale);
            offset_map_mark(&map, first, end);
            for (int i = first; i < end && i < OFFSET_MAP_WINDOW; i++) {
                set[i] = true;
                span = i >= span ? i + 1 : span;
            }
        }
        assert_int_equal(map.span, span);
        for (int i = 0; i < OFFSET_MAP_WINDOW; i++) {
            if (offset_map_has(&map, i) != set[i])
                fail_msg("round %d: position %d", round, i);
        }
        round_trip(&map, dice(&seed, 1 << 30), dice(&seed, 1 << 30));
    }
}

static void test_outside_of_the_window(void **state)
{
    (void)state;
    struct offset_map map = {.span = 0};
    offset_map_mark(&map, 5, 5);
    offset_map_mark(&map, OFFSET_MAP_WINDOW, INT64_MAX);
    offset_map_mark(&map, INT64_MIN, 0);
    assert_int_equal(map.span, 0);
    offset_map_mark(&map, OFFSET_MAP_WINDOW - 1, INT64_MAX);
    assert_int_equal(map.span, OFFSET_MAP_WINDOW);
    assert_false(offset_map_has(&map, -1));
    assert_false(offset_map_has(&map, OFFSET_MAP_WINDOW));
    assert_false(offset_map_has(&map, OFFSET_MAP_WINDOW - 2));
    assert_true(offset_map_has(&map, OFFSET_MAP_WINDOW - 1));
    assert_false(offset_map_has(&map, INT64_MAX));
}

/* Runs of `done` after runs of `open` through the whole window. */
static size_t stripes(int open, int done)
{
    struct offset_map map = {.span = 0};
    for (int at = open; at < OFFSET_MAP_WINDOW; at += open + done)
        offset_map_mark(&map, at, at + done);
    return round_trip(&map, INT64_MAX, INT64_MAX);
}

/* The greatest numbers, the widest span, and every pattern that is hard for one of the two bodies. */
static void test_the_worst_fits(void **state)
{
    (void)state;
    uint64_t seed = 11;
    size_t worst = 0;
    for (int open = 1; open < OFFSET_MAP_WINDOW; open = open < 300 ? open + 1 : open * 2) {
        for (int done = 1; done < OFFSET_MAP_WINDOW; done = done < 20 ? done + 1 : done * 3) {
            size_t size = stripes(open, done);
            worst = size > worst ? size : worst;
        }
    }
    for (int percent = 1; percent < 100; percent++) {
        struct offset_map map = {.span = 0};
        for (int i = 1; i < OFFSET_MAP_WINDOW; i++) {
            if (dice(&seed, 100) < percent || i == OFFSET_MAP_WINDOW - 1)
                offset_map_mark(&map, i, i + 1);
        }
        size_t size = round_trip(&map, INT64_MAX, INT64_MAX);
        worst = size > worst ? size : worst;
    }
    assert_int_equal(worst, OFFSET_META_TEXT_SIZE - 1); /* the bound in the header is met, and none is above it */
    assert_true(OFFSET_META_TEXT_SIZE - 1 <= METADATA_MAX);
}

/* One stuck call with all above it done is a few bytes, not two thousand. */
static void test_the_usual_is_short(void **state)
{
    (void)state;
    struct offset_map map = {.span = 0};
    offset_map_mark(&map, 1, OFFSET_MAP_WINDOW);
    assert_true(round_trip(&map, 0, 1) < 24);
    assert_true(stripes(1000, 1) < 100);
    map = (struct offset_map){.span = 0};
    assert_int_equal(round_trip(&map, 0, 1), strlen("1 1"));
}

/* Each character changed: refused, with a reason; never taken for another map. */
static void test_damage_is_seen(void **state)
{
    (void)state;
    uint64_t seed = 12;
    char text[OFFSET_META_TEXT_SIZE];
    struct offset_meta meta = {.commit_seq = 5}, got;
    offset_map_mark(&meta.done, 3, 9);
    offset_map_mark(&meta.done, 11, 12);
    offset_map_mark(&meta.done, 300, 301);
    offset_meta_write(&meta, 70, text);
    size_t size = strlen(text);
    for (int round = 0; round < 20000; round++) {
        struct error error = {.class = ERROR_NONE};
        size_t at = 4 + (size_t)dice(&seed, (int)size - 4);
        char was = text[at];
        text[at] = (char)dice(&seed, 256);
        if (text[at] != was) {
            assert_false(offset_meta_read((struct str){text, size}, 70, &got, &error));
            assert_int_equal(error.class, ERROR_POISON);
        }
        text[at] = was;
        assert_false(offset_meta_read((struct str){text, 4 + (size_t)dice(&seed, (int)size - 4)}, 70, &got, &error));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_against_a_set), cmocka_unit_test(test_outside_of_the_window),
        cmocka_unit_test(test_the_worst_fits),       cmocka_unit_test(test_the_usual_is_short),
        cmocka_unit_test(test_damage_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
