/* The ledger when Redis is away, comes back, forgets its scripts, or is not what it should be. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "tests/unit/ledger_fixture.h"
#include "tests/unit/redis_server.h"
#include "worker/io/ledger_link.h"
#include "worker/io/ledger_scripts.h"

#define LONG_MS 60000

/* The loop asks, and is busy with something else for longer than an answer may take: that is no silence of Redis. */
static void test_busy_before_it_is_sent(void **state)
{
    struct told told = {0};

    (void)state;
    (void)ledger_lease(worker[0], STR("k"), ledger_fixture_told, &told);
    (void)usleep((LEDGER_COMMAND_TIMEOUT_MS + 200) * 1000);
    ledger_fixture_run_until(&told);
    assert_int_equal(told.verdict, LEDGER_GO);
    assert_true(ledger_up(worker[0]));
}

/* kill -9, and again on the same data: the records are there, the incarnation is another one. */
static void test_restart(void **state)
{
    char before[100];
    struct told told = reserve(0, "k", LONG_MS);

    (void)state;
    expect(told, LEDGER_GO);
    (void)snprintf(before, sizeof before, "%s", ledger_incarnation(worker[0]));
    redis_server_kill();
    assert_true(ledger_fixture_wait_up(0, false));
    assert_string_equal(ledger_incarnation(worker[0]), "");
    assert_non_null(ledger_writes_refused(worker[0]));
    expect(reserve(0, "other", LONG_MS), LEDGER_DOWN);
    expect(takeover(0, "k", LONG_MS), LEDGER_DOWN);
    expect(complete(0, "k", told.fence, "x"), LEDGER_DOWN);
    expect(lease(0, "r"), LEDGER_DOWN);
    ledger_fixture_run_for(300);
    redis_server_again();
    assert_true(ledger_fixture_wait_up(0, true));
    assert_true(ledger_fixture_wait_up(1, true));
    assert_null(ledger_writes_refused(worker[0]));
    assert_memory_equal(ledger_incarnation(worker[0]), before, 32); /* the value is in the data */
    assert_string_not_equal(ledger_incarnation(worker[0]), before); /* the run_id is not */
    expect(reserve(1, "k", LONG_MS), LEDGER_DOUBT);
    expect(complete(0, "k", told.fence, "x"), LEDGER_GO);
    expect(reserve_suspect(1, "fresh", LONG_MS, before), LEDGER_DOUBT); /* the last second may be lost */
}

/* The answer to a reservation is lost, but Redis has made it: who asked may ask again and is not in doubt; others are. */
static void test_lost_answers(void **state)
{
    struct told reserved = {0}, taken = {0}, stored = {0}, held = reserve(0, "c", LONG_MS);

    (void)state;
    expect(reserve(1, "t", 10), LEDGER_GO);
    ledger_fixture_run_for(10 + SETTLE_MS + 20);
    redis_server_pause();
    (void)ledger_reserve(worker[0], STR("run"), STR("k"), LONG_MS, false, STR_NONE, ledger_fixture_told, &reserved);
    (void)ledger_takeover(worker[0], STR("run"), STR("t"), LONG_MS, ledger_fixture_told, &taken);
    (void)ledger_complete(worker[0], STR("run"), STR("c"), held.fence, STR("answer"), ledger_fixture_told, &stored);
    ledger_fixture_run_until(&reserved); /* after the time limit of a command */
    expect(reserved, LEDGER_DOWN);
    expect(taken, LEDGER_DOWN);
    expect(stored, LEDGER_DOWN);
    redis_server_go_on();
    assert_true(ledger_fixture_wait_up(0, true));
    assert_true(ledger_fixture_wait_up(1, true));
    assert_string_equal(redis_server_ask("HGET {test}:w:k state"), "reserved"); /* it did run */
    assert_string_equal(redis_server_ask("HGET {test}:w:t holder"), "a:1");
    expect(reserve(1, "k", LONG_MS), LEDGER_DOUBT);
    expect(reserve(0, "k", LONG_MS), LEDGER_GO);
    expect(reserve(0, "k", LONG_MS), LEDGER_DOUBT); /* that one was told */
    expect(reserve(0, "t", LONG_MS), LEDGER_DOUBT); /* a takeover's record stays in doubt */
    expect(takeover(1, "t", LONG_MS), LEDGER_DOUBT);
    expect(takeover(0, "t", LONG_MS), LEDGER_GO);
    expect(complete(0, "c", held.fence, "answer"), LEDGER_GO);
    assert_string_equal(reserve(1, "c", LONG_MS).result, "answer");
}

/* A late copy of the lost question arrives after its repetition: it must not take the record away from who was told. */
static void test_late_question(void **state)
{
    struct told lost = {0}, told;
    char ask[80];
    redisContext *redis;

    (void)state;
    redis_server_pause();
    (void)ledger_reserve(worker[0], STR("run"), STR("k"), LONG_MS, false, STR_NONE, ledger_fixture_told, &lost);
    ledger_fixture_run_until(&lost);
    redis_server_go_on();
    assert_true(ledger_fixture_wait_up(0, true));
    told = reserve(0, "k", LONG_MS);
    expect(told, LEDGER_GO);
    (void)snprintf(ask, sizeof ask, "%s", redis_server_ask("HGET {test}:w:k ask"));
    assert_true(strlen(ask) > 32);
    assert_string_equal(redis_server_ask("HGET {test}:w:k try"), "2");
    redis = redisConnect("127.0.0.1", redis_server_port());
    assert_non_null(redis);
    for (int try = 1; try <= 2; try++) { /* the one that was lost, and a copy of the one that was answered */
        redisReply *reply = redisCommand(redis, "EVAL %s 2 {test}:w:k {test}:incarnation random a:1 %s %d 60000 %s",
                                         ledger_script_text(LEDGER_SCRIPT_RESERVE), ask, try, "");

        assert_non_null(reply);
        assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
        assert_string_equal(reply->element[0]->str, "doubt");
        freeReplyObject(reply);
    }
    redisFree(redis);
    expect(complete(0, "k", told.fence, "answer"), LEDGER_GO); /* not refused: the fence is still ours */
}

static void test_scripts_forgotten(void **state)
{
    (void)state;
    (void)redis_server_ask("SCRIPT FLUSH");
    for (int i = 0; i < 2; i++) {
        struct told told = reserve(0, i == 0 ? "k0" : "k1", LONG_MS);

        expect(told, LEDGER_GO);
        expect(complete(0, i == 0 ? "k0" : "k1", told.fence, "x"), LEDGER_GO);
        expect(lease(0, i == 0 ? "r0" : "r1"), LEDGER_GO);
    }
    assert_true(ledger_up(worker[0]));
}

static void again(void *context, const struct ledger_answer *answer)
{
    struct told *told = context;

    ledger_fixture_told(told, answer);
    if (told->times < 1000)
        (void)ledger_lease(worker[2], STR("k"), again, told);
}

static void test_nobody_there(void **state)
{
    struct told told = {0};
    int64_t began_ms = ledger_fixture_mono_ms();

    (void)state;
    ledger_fixture_open(2, (struct ledger_settings){.slot = "c", .holder = "c:1", .address = "127.0.0.1:1"});
    for (int i = 0; i < 50; i++)
        expect(lease(2, "k"), LEDGER_DOWN);
    assert_true(ledger_fixture_mono_ms() - began_ms < 2000); /* at once, not after a time limit */
    told = reserve(2, "k", LONG_MS);
    assert_non_null(strstr(told.reason, "Redis at 127.0.0.1:1: Connection refused"));
    assert_string_equal(ledger_writes_refused(worker[2]), told.reason);
    memset(&told, 0, sizeof told);
    (void)ledger_lease(worker[2], STR("k"), again, &told); /* who asks again from within does not stop the loop */
    ledger_fixture_turn(0);
    ledger_fixture_turn(0);
    assert_true(told.times < 10);
    while (told.times < 1000)
        ledger_fixture_turn(0);
}

static void test_names(void **state)
{
    char address[40];

    (void)state;
    (void)snprintf(address, sizeof address, "localhost:%d", redis_server_port());
    ledger_fixture_open(2, (struct ledger_settings){.slot = "c", .holder = "c:1", .address = address});
    assert_true(ledger_fixture_wait_up(2, true));
    ledger_fixture_close(2);
    ledger_fixture_open(2, (struct ledger_settings){.slot = "c", .holder = "c:1", .address = "nobody.invalid:6379"});
    for (int64_t end_ms = ledger_fixture_mono_ms() + 8000; ledger_fixture_mono_ms() < end_ms;) {
        struct told told = lease(2, "k");

        expect(told, LEDGER_DOWN);
        if (strstr(told.reason, "cannot look up \"nobody.invalid\"") != NULL)
            return;
        ledger_fixture_run_for(50);
    }
    print_message("(this machine's resolver takes over 8 s to say no)\n");
}

static void test_bad_addresses(void **state)
{
    static const char *const addresses[] = {"", "localhost", ":6379", "h:", "h:0", "h:65536", "h:x", "h:1x", "[]:1"};
    int epoll_fd = epoll_create1(0);

    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        const struct ledger_settings settings = {
            .address = addresses[i], .name_space = "n", .holder = "h", .slot = "s"};
        struct error error = {0};

        assert_null(ledger_open(&settings, epoll_fd, 1, &error));
        assert_int_equal(error.class, ERROR_FATAL);
        assert_non_null(strstr(error.text, "HOST:PORT"));
    }
    (void)close(epoll_fd);
}

static void test_wrong_policy(void **state)
{
    struct told told;

    (void)state;
    (void)redis_server_ask("CONFIG SET maxmemory-policy allkeys-lru");
    ledger_fixture_worker(2, "c", "c:1");
    assert_non_null(strstr(ledger_writes_refused(worker[2]), "maxmemory-policy is allkeys-lru, must be noeviction"));
    told = reserve(2, "k", LONG_MS);
    expect(told, LEDGER_DOWN);
    assert_string_equal(told.reason, ledger_writes_refused(worker[2]));
    expect(takeover(2, "k", LONG_MS), LEDGER_DOWN);
    expect(complete(2, "k", 5, "x"), LEDGER_GO); /* a result that is there is better kept than not */
    expect(lease(2, "r"), LEDGER_GO);
    (void)redis_server_ask("CONFIG SET maxmemory-policy noeviction");
    ledger_fixture_close(2);
    ledger_fixture_worker(2, "c", "c:1");
    assert_null(ledger_writes_refused(worker[2]));
}

/* The policy is changed while we are connected: noticed within the time between two looks at INFO. */
static void test_policy_changes(void **state)
{
    (void)state;
    (void)redis_server_ask("CONFIG SET maxmemory-policy volatile-ttl");
    for (int i = 0; i < 130 && ledger_writes_refused(worker[0]) == NULL; i++)
        ledger_fixture_run_for(100);
    assert_non_null(ledger_writes_refused(worker[0]));
    (void)redis_server_ask("CONFIG SET maxmemory-policy noeviction");
}

static void test_replica(void **state)
{
    (void)state;
    (void)redis_server_ask("REPLICAOF 127.0.0.1 1");
    ledger_fixture_open(2, (struct ledger_settings){.slot = "c", .holder = "c:1"});
    ledger_fixture_run_for(300);
    assert_false(ledger_up(worker[2]));
    assert_non_null(strstr(ledger_writes_refused(worker[2]), "no primary (role slave)"));
    expect(reserve(0, "k", LONG_MS), LEDGER_DOWN); /* was connected before: READONLY */
    (void)redis_server_ask("REPLICAOF NO ONE");
    assert_true(ledger_fixture_wait_up(2, true));
    assert_true(ledger_fixture_wait_up(0, true));
    expect(reserve(0, "k", LONG_MS), LEDGER_GO);
}

static void test_out_of_memory(void **state)
{
    struct told told;

    (void)state;
    (void)redis_server_ask("CONFIG SET maxmemory 1");
    told = reserve(0, "k", LONG_MS);
    expect(told, LEDGER_DOWN);
    assert_non_null(strstr(told.reason, "OOM"));
    (void)redis_server_ask("CONFIG SET maxmemory 0");
    expect(reserve(0, "k", LONG_MS), LEDGER_GO);
}

static void test_password(void **state)
{
    static const struct {
        const char *username, *password;
        bool good;
    } cases[] = {
        {NULL, "s3same", true},      {"worker", "w0rker", true},  {NULL, "wr0ng", false},
        {"nobody", "w0rker", false}, {"worker", "s3same", false},
    };

    (void)state;
    (void)redis_server_ask("ACL SETUSER worker on >w0rker ~* +@all");
    (void)redis_server_ask("ACL SETUSER default resetpass >s3same");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ledger_fixture_open(
            2, (struct ledger_settings){
                   .slot = "c", .holder = "c:1", .username = cases[i].username, .password = cases[i].password});
        if (cases[i].good) {
            assert_true(ledger_fixture_wait_up(2, true));
            expect(reserve(2, cases[i].password, LONG_MS), LEDGER_GO);
        } else {
            ledger_fixture_run_for(200);
            assert_false(ledger_up(worker[2]));
            assert_non_null(strstr(ledger_writes_refused(worker[2]), "AUTH: WRONGPASS"));
            assert_null(strstr(ledger_writes_refused(worker[2]), cases[i].password));
        }
        ledger_fixture_close(2);
    }
    ledger_fixture_open(2, (struct ledger_settings){.slot = "c", .holder = "c:1"});
    ledger_fixture_run_for(200);
    assert_non_null(strstr(ledger_writes_refused(worker[2]), "NOAUTH"));
    redis_server_kill(); /* what was set is gone with the process */
    redis_server_again();
}

/* Everything in flight ends without a word. */
static void test_close(void **state)
{
    struct told never = {0};

    (void)state;
    for (int i = 0; i < 20; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "k%d", i);
        (void)ledger_reserve(worker[0], STR("run"), str_of(key), LONG_MS, false, STR_NONE, ledger_fixture_told, &never);
        (void)ledger_lease(worker[0], str_of(key), ledger_fixture_told, &never);
    }
    ledger_fixture_close(0);
    ledger_fixture_run_for(30);
    assert_int_equal(never.times, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ledger_fixture_set_up, ledger_fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_busy_before_it_is_sent),
        TEST(test_restart),
        TEST(test_lost_answers),
        TEST(test_late_question),
        TEST(test_scripts_forgotten),
        TEST(test_nobody_there),
        TEST(test_names),
        cmocka_unit_test(test_bad_addresses),
        TEST(test_wrong_policy),
        TEST(test_policy_changes),
        TEST(test_replica),
        TEST(test_out_of_memory),
        TEST(test_password),
        TEST(test_close),
    };
    int failed;

    if (!redis_server_start()) {
        print_message("[  SKIPPED ] there is no redis-server here\n");
        return 0;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    redis_server_end();
    return failed;
}
