/* The watchdog: what ends the process, what it says then, and that it leaves the rest alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/contract/expr.h"

static const struct expr_site site = {{"run-1", 5}, {"draft", 5}};

static int teardown(void **state)
{
    (void)state;
    expr_cache_free();
    return 0;
}

/* Evaluates in a child process; what it writes to standard error goes to `said`. Returns the child's status. */
static int in_a_child(const char *program, char *said, size_t size)
{
    int ends[2], status = -1;
    size_t at = 0;
    ssize_t got;

    expr_cache_free(); /* stops the watchdog: from here on there is one thread */
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct expr_root *root = expr_root_new();
        struct arena *arena = arena_new();
        struct error error = {0};
        struct str json;
        dup2(ends[1], STDERR_FILENO);
        expr_root_set(root, "list",
                      STR("[0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9]"));
        bool good = expr_eval(expr_compile(str_of(program), &error), root, site, arena, &json, &error);
        expr_root_free(root);
        arena_free(arena);
        expr_cache_free();
        _exit(good ? 0 : 1);
    }
    close(ends[1]);
    while (at < size - 1 && (got = read(ends[0], said + at, size - 1 - at)) > 0)
        at += (size_t)got;
    said[at] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void assert_ended(const char *program, const char *limit)
{
    char said[4096];
    int status = in_a_child(program, said, sizeof said);

    if (!WIFEXITED(status) || WEXITSTATUS(status) != EXPR_EXIT_CODE)
        print_error("status %x: %s\n", (unsigned)status, said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXPR_EXIT_CODE);
    assert_non_null(strstr(said, "event=expr.watchdog"));
    assert_non_null(strstr(said, "run=run-1"));
    assert_non_null(strstr(said, "step=draft"));
    assert_non_null(strstr(said, limit));
    assert_non_null(strstr(said, "expr="));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void the_watchdog_ends_what_takes_too_long(void **state)
{
    (void)state;
    assert_ended(
        "reduce (.list[] as $a | .list[] as $b | .list[] as $c | .list[] as $d | .list[] as $e | .list[]) as $x (0; . + 1)",
        "limit=time_ms limit_value=2000");
}

static void the_watchdog_ends_what_takes_too_much(void **state)
{
    (void)state;
    assert_ended("reduce .list[] as $x ('xxxxxxxxxxxxxxxx'; . + .) | length", "limit=memory_size");
}

static void the_watchdog_leaves_the_others_alone(void **state)
{
    char said[4096];

    (void)state;
    assert_int_equal(in_a_child("[.list[] as $a | .list[] as $b | .list[] as $c | 1] | length", said, sizeof said), 0);
    assert_string_equal(said, "");
}

static void *evaluate_a_lot(void *result)
{
    struct expr_root *root = expr_root_new();
    struct arena *arena = arena_new();
    struct error error = {0};
    const struct expr *expr = expr_compile(STR("[.list[] | . * 2] | add"), &error);
    struct str json = STR_NONE;
    int good = 0;

    expr_root_set(root, "list", STR("[3,1,2]"));
    for (int i = 0; i < 2000 && expr != NULL; i++) {
        good += expr_eval(expr, root, site, arena, &json, &error) && str_is(json, "12");
        arena_reset(arena);
    }
    *(int *)result = good;
    expr_root_free(root);
    arena_free(arena);
    expr_cache_free();
    return NULL;
}

static void each_thread_has_its_own(void **state)
{
    pthread_t threads[2];
    int good[2] = {0, 0};

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, evaluate_a_lot, &good[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(good[0], 2000);
    assert_int_equal(good[1], 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_watchdog_ends_what_takes_too_long, teardown),
        cmocka_unit_test_teardown(the_watchdog_ends_what_takes_too_much, teardown),
        cmocka_unit_test_teardown(the_watchdog_leaves_the_others_alone, teardown),
        cmocka_unit_test_teardown(each_thread_has_its_own, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
