#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/settings.h"

static const char *const variables[] = {
    "MYELIN_NAMESPACE", "MYELIN_KAFKA",          "MYELIN_REDIS",  "MYELIN_REDIS_USERNAME",
    "MYELIN_SLOT",      "MYELIN_REDIS_PASSWORD", "MODEL_URL",     "MODEL_KEY",
    "MODEL_NAME",       "MODEL_USD_IN",          "MODEL_USD_OUT", "MYELIN_CONFIG"};

static int clear_environment(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    return 0;
}

/* Reads a file of this text; its name in messages becomes FILE. */
static struct settings *read_text(const char *text, size_t size, struct error *error)
{
    char path[] = "/tmp/myelin-settings-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), (ssize_t)size);
    close(fd);
    struct settings *settings = settings_read(path, error);
    unlink(path);
    if (settings == NULL) {
        char *at = strstr(error->text, path);
        assert_non_null(at); /* every message says where */
        size_t rest = strlen(at + strlen(path)) + 1;
        memmove(at + 4, at + strlen(path), rest);
        memcpy(at, "FILE", 4);
    }
    return settings;
}

static struct settings *read_good(const char *text)
{
    struct error error = {.text = ""};
    struct settings *settings = read_text(text, strlen(text), &error);
    if (settings == NULL)
        fail_msg("%s\nwas refused: %s", text, error.text);
    return settings;
}

#define MODEL(more) "models = { default = { url = \"http://x/v1\"; model = \"m\"; " more " }; };"

/* A class of bad settings: the text of the file, and the whole message. */
static const struct {
    const char *name, *text, *message;
} bad[] = {
    {"unknown option", "namspace = \"a\";", "FILE:1: unknown option \"namspace\", did you mean \"namespace\"?"},
    {"unknown option of a model", "\n" MODEL("timeuot = \"5s\";"),
     "FILE:2: unknown option \"models.default.timeuot\", did you mean \"timeout\"?"},
    {"option given twice", "slot = \"a\";\nslot = \"b\";",
     "FILE:2: a name stands here twice: once in a group is allowed"},
    {"number for a text", "namespace = 5;", "FILE:1: namespace is a number, must be a text in quotes"},
    {"group for a text", "redis = { host = \"a\"; };", "FILE:1: redis is a group, must be a text in quotes"},
    {"text without quotes", "namespace = demo;", "FILE:1: a text needs double quotes: write \"demo\""},
    {"text for a number", "in_flight_max = \"many\";", "FILE:1: in_flight_max is \"many\", must be a whole number"},
    {"fraction for a number", "in_flight_max = 1.5;", "FILE:1: in_flight_max is a fraction, must be a whole number"},
    {"number below its limit", "in_flight_max = 0;", "FILE:1: in_flight_max is 0, must be 1 to 100000"},
    {"number over its limit", "steps_partitions = 1001;", "FILE:1: steps_partitions is 1001, must be 1 to 1000"},
    {"number that libconfig cuts", "in_flight_max = 9999999999;",
     "FILE:1: 9999999999 does not fit 32 bits and libconfig would silently read 1410065407: write 9999999999L (and 1 more)"},
    {"number over 64 bits", "in_flight_max = 99999999999999999999;",
     "FILE:1: 99999999999999999999 does not fit 64 bits (and 1 more)"},
    {"number for true or false", "serve_inbox = 1;", "FILE:1: serve_inbox is a number, must be true or false"},
    {"text for true or false", "serve_inbox = \"yes\";", "FILE:1: serve_inbox is \"yes\", must be true or false"},
    {"duration without a unit", "grace = 25;",
     "FILE:1: grace is 25 of what? Write \"25s\", or another unit (ms, s, m, h, d)"},
    {"duration of an unknown unit", "grace = \"25sec\";",
     "FILE:1: grace is \"25sec\", must be a whole number and a unit (ms, s, m, h, d), for example \"5s\""},
    {"duration without quotes", "grace = 25s;", "FILE:1: 25s without quotes is no number and no text: write \"25s\""},
    {"duration over its limit", "lease = \"2h\";", "FILE:1: lease is \"2h\", must be 500ms to 1h"},
    {"duration below its limit", "ended_keep = \"5m\";", "FILE:1: ended_keep is \"5m\", must be 1h to 366d"},
    {"size without a unit", "memory_max = 512;",
     "FILE:1: memory_max is 512 of what? Write \"512MiB\", or another unit (B, KiB, MiB, GiB)"},
    {"size of an unknown unit", "memory_max = \"512MB\";",
     "FILE:1: memory_max is \"512MB\", must be a whole number and a unit (B, KiB, MiB, GiB), for example \"512MiB\""},
    {"size below its limit", "memory_max = \"1MiB\";", "FILE:1: memory_max is \"1MiB\", must be 64MiB to 1024GiB"},
    {"namespace with a capital letter", "namespace = \"Demo\";",
     "FILE:1: namespace is \"Demo\", must be of a-z 0-9 _ - and start with a letter or digit"},
    {"namespace that is empty", "namespace = \"\";",
     "FILE:1: namespace is empty: starts the names of topics, of the consumer group and of Redis keys: one namespace, one "
     "Myelin"},
    {"slot with a space", "slot = \"my host\";",
     "FILE:1: slot is \"my host\", must be of letters, digits, _ . - and start with a letter or digit"},
    {"Redis without a port", "redis = \"localhost\";",
     "FILE:1: redis is \"localhost\", must be HOST:PORT, for example \"127.0.0.1:6379\""},
    {"Redis with an impossible port", "redis = \"localhost:70000\";",
     "FILE:1: redis is \"localhost:70000\", must be HOST:PORT, for example \"127.0.0.1:6379\""},
    {"user of Redis without a password", "redis_username = \"me\";",
     "FILE:1: redis_username is given without redis_password"},
    {"Kafka property without a value", "kafka = [\"bootstrap.servers=a:9092\",\n \"linger.ms\"];",
     "FILE:1: kafka[1] must be \"name=value\", as librdkafka's CONFIGURATION.md lists them"},
    {"Kafka property with an empty value", "kafka = [\"bootstrap.servers=\"];",
     "FILE:1: kafka[0] gives no value for bootstrap.servers"},
    {"Kafka property that is Myelin's", "kafka = [\"bootstrap.servers=a:1\", \"group.id=x\"];",
     "FILE:1: kafka[1] sets group.id, which Myelin decides itself: remove it"},
    {"Kafka property given twice", "kafka = [\"bootstrap.servers=a:1\", \"bootstrap.servers=b:1\"];",
     "FILE:1: kafka gives \"bootstrap.servers\" twice, in [0] and [1]"},
    {"Kafka without brokers", "kafka = [\"linger.ms=5\"];",
     "FILE:1: kafka does not say where the brokers are: add \"bootstrap.servers=HOST:PORT\""},
    {"Kafka property with a space in its name", "kafka = [\"bootstrap.servers =a:1\"];",
     "FILE:1: kafka[0] has the name \"bootstrap.servers \": a librdkafka property is of a-z 0-9 . _, without spaces"},
    {"forgotten comma in a list", "pools = [\"default\"\n \"heavy\"];",
     "FILE:1: a comma is missing after \"default\": libconfig would join it with the text that follows"},
    {"list that is empty", "pools = [];", "FILE:1: pools has 0 entries, must have 1 to 64"},
    {"list with a number in it", "pools = [1, 2];", "FILE:1: pools[0] is a number, must be a text in quotes"},
    {"pool named twice", "pools = [\"a\", \"b\", \"a\"];", "FILE:1: pools names \"a\" twice"},
    {"admin port without an address", "admin = \":9464\";",
     "FILE:1: admin is \":9464\", must be IP:PORT, for example \"127.0.0.1:9464\" (port 0: a free one), or empty"},
    {"admin port at a name", "admin = \"localhost:9464\";",
     "FILE:1: admin is \"localhost:9464\", must be IP:PORT, for example \"127.0.0.1:9464\" (port 0: a free one), or empty"},
    {"admin port at half an IPv6 address", "admin = \"[::1:9464\";",
     "FILE:1: admin is \"[::1:9464\", must be IP:PORT, for example \"127.0.0.1:9464\" (port 0: a free one), or empty"},
    {"log level that does not exist", "log_level = \"verbose\";",
     "FILE:1: log_level is \"verbose\", must be debug, info, warn or error"},
    {"longest delay below the first", "backoff = \"5s\";\nbackoff_max = \"1s\";",
     "FILE:2: backoff_max is shorter than backoff"},
    {"variable that is not set", "redis = \"${MYELIN_TEST_NOWHERE}\";",
     "FILE:1: redis cannot be read: the environment variable MYELIN_TEST_NOWHERE is not set (nor MYELIN_TEST_NOWHERE_FILE, "
     "which would name a file)"},
    {"variable that is not closed", "redis = \"${MYELIN_REDIS\";",
     "FILE:1: redis cannot be read: \"${\" without \"}\""},
    {"model without a url", "models = {\n  small = { model = \"m\"; };\n};",
     "FILE:2: models.small.url is missing: base of an OpenAI-compatible endpoint, for example \"https://api.example.com/v1\""},
    {"model without a name", "models = { small = { url = \"http://x\"; }; };",
     "FILE:1: models.small.model is missing: as the endpoint calls it"},
    {"model url of another kind", "models = { a = { url = \"ftp://x\"; model = \"m\"; }; };",
     "FILE:1: models.a.url is \"ftp://x\", must start with http:// or https://"},
    {"models as a list", "models = ( { url = \"http://x\"; } );",
     "FILE:1: models is a list, must be groups by name, { NAME = { ... }; }"},
    {"model that is no group", "models = { default = \"gpt\"; };",
     "FILE:1: models.default must be a group, { url = \"...\"; model = \"...\"; }"},
    {"price as a bare number", MODEL("usd_in = 2.5;"),
     "FILE:1: models.default.usd_in is a bare number: write it as a text, \"2.5\" (a float cannot hold cents)"},
    {"price with a currency sign", MODEL("usd_in = \"$2.50\";"),
     "FILE:1: models.default.usd_in is \"$2.50\", must be US dollars with at most 6 decimals, for example \"2.50\""},
    {"response format that does not exist", MODEL("response_format = \"xml\";"),
     "FILE:1: models.default.response_format is \"xml\", must be json_schema, json_object or none"},
    {"extra that is Myelin's", MODEL("extra = { stream = true; };"),
     "FILE:1: models.default.extra sets \"stream\", which Myelin decides itself: remove it"},
    {"extra that is no group", MODEL("extra = \"seed=7\";"),
     "FILE:1: models.default.extra is a text, must be a group, { ... }"},
    {"bracket that is not closed", "models = {\n default = {\n", "FILE:2: the `{` opened here is never closed"},
    {"text that is not closed", "slot = \"a;\n",
     "FILE:1: the text that starts here is never closed: a double quote is missing, here or before"},
    {"several mistakes at once", "grace = 25;\nslot = 5;\nlease = 1;",
     "FILE:1: grace is 25 of what? Write \"25s\", or another unit (ms, s, m, h, d) (and 2 more)"},
};

static void test_bad_settings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error error = {.text = ""};
        struct settings *settings = read_text(bad[i].text, strlen(bad[i].text), &error);
        if (settings != NULL)
            fail_msg("%s: was accepted", bad[i].name);
        if (strcmp(error.text, bad[i].message) != 0)
            fail_msg("%s:\n  said     %s\n  expected %s", bad[i].name, error.text, bad[i].message);
        assert_int_equal(error.class, ERROR_FATAL);
    }
}

static void test_bytes_that_are_no_text(void **state)
{
    (void)state;
    struct error error;
    assert_null(read_text("slot = \"\xff\";", 11, &error));
    assert_non_null(strstr(error.text, "FILE:1: invalid UTF-8"));
    assert_null(read_text("slot = \"a\0b\";", 13, &error));
    assert_non_null(strstr(error.text, "FILE:1: a NUL byte"));
    assert_null(read_text("\xef\xbb\xbfslot = \"a\";", 14, &error));
    assert_non_null(strstr(error.text, "FILE:1: starts with a byte order mark"));
    setenv("MYELIN_SLOT", "\xc3", 1);
    assert_null(settings_read(NULL, &error));
    assert_string_equal(error.text,
                        "built-in settings: slot (its default) is no UTF-8 after its variables were filled in");
    unsetenv("MYELIN_SLOT");
}

static void test_files_that_cannot_be_read(void **state)
{
    (void)state;
    struct error error;
    assert_null(settings_read("/nonexistent/worker.cfg", &error));
    assert_string_equal(error.text, "/nonexistent/worker.cfg: cannot be opened: No such file or directory");
    assert_null(settings_read("/tmp", &error));
    assert_string_equal(error.text, "/tmp: is no regular file");
}

static void test_a_secret_is_never_shown(void **state)
{
    (void)state;
    struct error error;
    static const char *const texts[] = {
        "kafka = [\"bootstrap.servers=a:1\", \"group.id=hunter2\"];",
        "kafka = [\"bootstrap.servers=a:1\", \"hunter2\"];",
        "kafka = [\"bootstrap.servers=a:1\", \"sasl password=hunter2\"];",
        "redis_password = (\"hunter2\");",
        MODEL("key = \"hunter2\n\";"),
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_null(read_text(texts[i], strlen(texts[i]), &error));
        assert_null(strstr(error.text, "hunter2"));
    }
}

static void test_defaults(void **state)
{
    (void)state;
    struct error error;
    struct settings *settings = settings_read(NULL, &error);
    assert_non_null(settings);
    assert_string_equal(settings->name_space.data, "myelin");
    assert_int_equal(settings->kafka_count, 1);
    assert_string_equal(settings->kafka[0], "bootstrap.servers=127.0.0.1:9092");
    assert_null(settings->kafka[1]);
    assert_string_equal(settings->redis, "127.0.0.1:6379");
    assert_null(settings->redis_username);
    assert_null(settings->redis_password);
    assert_null(settings->slot);
    assert_int_equal(settings->pools_count, 1);
    assert_string_equal(settings->pools[0], "default");
    assert_true(settings->serve_inbox);
    assert_int_equal(settings->in_flight_max, 1000);
    assert_int_equal(settings->calls_per_endpoint, 256);
    assert_int_equal(settings->memory_max, 512LL << 20);
    assert_int_equal(settings->history_partitions, 8);
    assert_int_equal(settings->ended_keep_ms, 7LL * 24 * 3600 * 1000);
    assert_int_equal(settings->crashes_max, 3);
    assert_int_equal(settings->backoff_ms, 500);
    assert_int_equal(settings->backoff_max_ms, 60000);
    assert_int_equal(settings->grace_ms, 25000);
    assert_int_equal(settings->settle_ms, 1000);
    assert_int_equal(settings->lease_ms, 5000);
    assert_int_equal(settings->slot_lease_ms, 10000);
    assert_int_equal(settings->trim_every_ms, 60000);
    assert_string_equal(settings->log_level.data, "info");
    assert_int_equal(settings->models_count, 0);
    assert_null(settings_model(settings, STR("default")));
    settings_free(settings);
}

static void test_the_environment_fills_in(void **state)
{
    (void)state;
    setenv("MYELIN_NAMESPACE", "demo", 1);
    setenv("MYELIN_SLOT", "worker-a", 1);
    setenv("MYELIN_TEST_IN_FLIGHT", "50", 1);
    struct settings *settings = read_good(
        "in_flight_max = \"${MYELIN_TEST_IN_FLIGHT}\"; serve_inbox = \"${NO_SUCH:-false}\";");
    assert_string_equal(settings->name_space.data, "demo");
    assert_string_equal(settings->slot, "worker-a");
    assert_int_equal(settings->in_flight_max, 50);
    assert_false(settings->serve_inbox);
    settings_free(settings);
    unsetenv("MYELIN_TEST_IN_FLIGHT");
    clear_environment(state);
}

static void test_models(void **state)
{
    (void)state;
    setenv("MYELIN_TEST_KEY", "hunter2", 1);
    struct settings *settings = read_good(
        "models = { default = { url = \"http://127.0.0.1:8080/v1\"; key = \"${MYELIN_TEST_KEY}\"; model = \"big\";\n"
        "  usd_in = \"2.50\"; usd_out = \"10\"; timeout = \"90s\"; max_tokens = 4096;\n"
        "  extra = { temperature = 0.5; stop = [\"a\", \"b\"]; user = \"${MYELIN_TEST_KEY}\"; }; };\n"
        "  small = { url = \"https://x\"; model = \"s\"; response_format = \"none\"; }; };");
    const struct chat_model *model = settings_model(settings, STR("default"));
    assert_non_null(model);
    assert_string_equal(model->key.data, "hunter2");
    assert_int_equal(model->micro_usd_in, 2500000);
    assert_int_equal(model->micro_usd_out, 10000000);
    assert_int_equal(model->micro_usd_cached, -1);
    assert_int_equal(model->timeout_ms, 90000);
    assert_int_equal(model->max_tokens, 4096);
    assert_string_equal(model->extra.data, "{\"temperature\":0.5,\"stop\":[\"a\",\"b\"],\"user\":\"hunter2\"}");
    model = settings_model(settings, STR("small"));
    assert_non_null(model);
    assert_null(model->key.data);
    assert_null(model->extra.data);
    assert_int_equal(model->micro_usd_in, -1);
    assert_int_equal(model->timeout_ms, 120000);
    assert_string_equal(model->response_format.data, "none");
    assert_null(settings_model(settings, STR("large")));
    settings_free(settings);
    unsetenv("MYELIN_TEST_KEY");
}

/* The files that we ship say what the built-in defaults are, all of them. */
static void test_the_shipped_files(void **state)
{
    (void)state;
    struct error error = {.text = ""};
    struct settings *defaults = settings_read(NULL, &error);
    static const char *const paths[] = {"config/worker.cfg", "config/producer.cfg"};
    for (size_t i = 0; i < 2; i++) {
        struct settings *settings = settings_read(paths[i], &error);
        if (settings == NULL)
            fail_msg("%s", error.text);
        assert_string_equal(settings->name_space.data, defaults->name_space.data);
        assert_string_equal(settings->kafka[0], defaults->kafka[0]);
        assert_string_equal(settings->redis, defaults->redis);
        assert_int_equal(settings->in_flight_max, defaults->in_flight_max);
        assert_int_equal(settings->replication, defaults->replication);
        assert_int_equal(settings->ended_keep_ms, defaults->ended_keep_ms);
        assert_int_equal(settings->crashes_max, defaults->crashes_max);
        assert_int_equal(settings->backoff_ms, defaults->backoff_ms);
        assert_int_equal(settings->backoff_max_ms, defaults->backoff_max_ms);
        assert_int_equal(settings->grace_ms, defaults->grace_ms);
        assert_int_equal(settings->settle_ms, defaults->settle_ms);
        assert_int_equal(settings->lease_ms, defaults->lease_ms);
        assert_int_equal(settings->models_count, i == 0 ? 2 : 0);
        settings_free(settings);
    }
    settings_free(defaults);
}

static void test_worker_cfg_names_every_option(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct str help = settings_help(arena);
    char *text = arena_alloc(arena, 65536);
    FILE *file = fopen("config/worker.cfg", "r");
    assert_non_null(file);
    assert_true(fread(text, 1, 65535, file) > 0);
    fclose(file);
    size_t options = 0;
    for (const char *line = help.data; *line != '\0'; line = strchr(line, '\n') + 1) {
        const char *name = line + strspn(line, " ");
        size_t size = strcspn(name, " ");
        if (strncmp(name + size, " = ", 3) != 0)
            continue; /* a meaning */
        struct str assignment = arena_printf(arena, "%.*s =", (int)size, name);
        if (strstr(text, assignment.data) == NULL)
            fail_msg("config/worker.cfg does not say: %s", assignment.data);
        options++;
    }
    assert_true(options > 25);
    arena_free(arena);
}

static void test_where_the_file_is_found(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    assert_string_equal(settings_find(NULL, "worker.cfg", arena), "config/worker.cfg");
    setenv("MYELIN_CONFIG", "from-environment.cfg", 1);
    assert_string_equal(settings_find(NULL, "worker.cfg", arena), "from-environment.cfg");
    assert_string_equal(settings_find("given.cfg", "worker.cfg", arena), "given.cfg");
    clear_environment(state);
    assert_null(settings_find(NULL, "no-such.cfg", arena));
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_bytes_that_are_no_text),
        cmocka_unit_test(test_files_that_cannot_be_read),
        cmocka_unit_test(test_a_secret_is_never_shown),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_the_environment_fills_in),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_the_shipped_files),
        cmocka_unit_test(test_worker_cfg_names_every_option),
        cmocka_unit_test(test_where_the_file_is_found),
    };
    return cmocka_run_group_tests(tests, clear_environment, NULL);
}
