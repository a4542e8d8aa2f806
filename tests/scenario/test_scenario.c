/*
 * Golden traces: each NAME.txt of tests/scenario says what comes in, and after each step what the core plans. One test a file.
 * UPDATE=1 build/tests/scenario/test_scenario [NAME]   writes what is planned now into the files: read the difference in git.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <glob.h>

#include "tests/scenario/play.h"
#include "worker/contract/expr.h"
#include "worker/record.h"

#define SCRIPT_SIZE_MAX ((size_t)1 << 20)
#define LINES_MAX 2000

static struct buf read_script(const char *path)
{
    struct buf buf;
    char block[4096];
    buf_init(&buf, SCRIPT_SIZE_MAX);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    for (size_t size; (size = fread(block, 1, sizeof(block), file)) > 0;)
        buf_put(&buf, block, size);
    fclose(file);
    assert_false(buf.overflow);
    return buf;
}

static size_t split(const struct buf *text, struct str *lines)
{
    size_t count = 0;
    for (const char *at = text->data, *end = at + text->size; at < end && count < LINES_MAX;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        lines[count++] = (struct str){at, (size_t)((newline != NULL ? newline : end) - at)};
        at += lines[count - 1].size + 1;
    }
    return count;
}

/* The longest common lines, then "-" what the file says and "+" what is planned now, with where it happened. */
static void print_difference(const char *path, const struct buf *expected, const struct buf *actual)
{
    static struct str old[LINES_MAX], new[LINES_MAX];
    size_t old_count = split(expected, old), new_count = split(actual, new);
    uint16_t(*common)[LINES_MAX + 1] = calloc(LINES_MAX + 1, sizeof(*common));
    assert_non_null(common);
    for (size_t i = old_count; i-- > 0;)
        for (size_t k = new_count; k-- > 0;)
            common[i][k] = str_equal(old[i], new[k])             ? (uint16_t)(common[i + 1][k + 1] + 1)
                           : common[i + 1][k] > common[i][k + 1] ? common[i + 1][k]
                                                                 : common[i][k + 1];
    for (size_t i = 0, k = 0; i < old_count || k < new_count;) {
        if (i < old_count && k < new_count && str_equal(old[i], new[k])) {
            if (old[i].size > 0 && old[i].data[0] != '>' && old[i].data[0] != '#')
                print_message("  %.*s\n", STR_ARG(old[i]));
            i++;
            k++;
        } else if (k == new_count || (i < old_count && common[i + 1][k] >= common[i][k + 1])) {
            print_error("%s:%zu: - %.*s\n", path, i + 1, STR_ARG(old[i]));
            i++;
        } else {
            print_error("%s:%zu: + %.*s\n", path, i + 1, STR_ARG(new[k]));
            k++;
        }
    }
    free(common);
}

static void test_scenario(void **state)
{
    const char *path = *state;
    struct buf expected = read_script(path), actual;
    buf_init(&actual, SCRIPT_SIZE_MAX);
    play_file(path, buf_str(&expected), &actual);
    assert_false(actual.overflow);
    bool same = str_equal(buf_str(&expected), buf_str(&actual));
    bool update = getenv("UPDATE") != NULL;
    if (!same && update) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(actual.data, 1, actual.size, file), actual.size);
        assert_int_equal(fclose(file), 0);
    } else if (!same) {
        print_difference(path, &expected, &actual);
    }
    buf_free(&expected);
    buf_free(&actual);
    if (!same && !update)
        fail_msg("%s: the core plans something else (- the file, + now); if that is right: UPDATE=1", path);
}

static int open_records(void **state)
{
    (void)state;
    struct error error;
    return record_open(&error) ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    expr_cache_free();
    record_close();
    return 0;
}

int main(int argc, char **argv)
{
    glob_t found;
    if (glob("tests/scenario/*.txt", 0, NULL, &found) != 0) {
        fprintf(stderr, "no tests/scenario/*.txt here: run it from the top of the tree\n");
        return 1;
    }
    struct CMUnitTest *tests = calloc(found.gl_pathc, sizeof(*tests));
    char **names = calloc(found.gl_pathc, sizeof(*names));
    size_t count = 0;
    for (size_t i = 0; i < found.gl_pathc && tests != NULL && names != NULL; i++) {
        const char *name = strrchr(found.gl_pathv[i], '/') + 1;
        if (argc > 1 && strstr(name, argv[1]) == NULL)
            continue;
        names[count] = strndup(name, strlen(name) - strlen(".txt"));
        tests[count] = (struct CMUnitTest){
            .name = names[count], .test_func = test_scenario, .initial_state = found.gl_pathv[i]};
        count++;
    }
    int failed = count > 0 ? _cmocka_run_group_tests("scenario", tests, count, open_records, close_all) : 1;
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
    free(tests);
    globfree(&found);
    return failed;
}
