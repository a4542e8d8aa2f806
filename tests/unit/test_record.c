/*
 * worker/record: every record there and back, and what was written by every version so far.
 *
 * tests/golden/records/NAME-FINGERPRINT.txt holds what one version wrote: its schema, then a record in hex and the same
 * as JSON, again and again. Files are added, never changed: history must stay readable. `test_record --golden` writes
 * those of this version that are missing.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/record_fill.h"
#include "worker/base/json.h"
#include "worker/record_tables.h"

#define GOLDEN "tests/golden/records"

static int open_records(void **state)
{
    struct error error = {0};

    (void)state;
    if (!record_open(&error))
        print_error("%s\n", error.text);
    return error.class == ERROR_NONE ? 0 : -1;
}

static int close_records(void **state)
{
    (void)state;
    record_close();
    return 0;
}

static struct str json_of(enum record_type type, const void *object, struct arena *arena)
{
    json_t *json = record_json(type, object);
    struct str text = json_text(arena, json);

    json_decref(json);
    return text;
}

static struct str encoded(enum record_type type, const void *object, struct arena *arena)
{
    struct error error = {0};
    struct buf bytes;
    struct str copy;

    buf_init(&bytes, 1 << 20);
    if (!record_encode(type, object, &bytes, &error))
        fail_msg("%s", error.text);
    copy = arena_str(arena, buf_str(&bytes));
    buf_free(&bytes);
    return copy;
}

static void check_there_and_back(enum record_type type, const void *object, struct arena *arena)
{
    struct error error = {0};
    struct record record;

    if (!record_decode(encoded(type, object, arena), arena, &record, &error))
        fail_msg("%s", error.text);
    assert_int_equal(record.type, type);
    assert_string_equal(json_of(type, object, arena).data, json_of(type, &record.is, arena).data);
}

static void test_all_set(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    for (int type = 0; type < RECORD_TYPES_COUNT; type++) {
        /* The fill goes through bodies and symbols by the round. */
        for (int round = 0; round < 20; round++)
            check_there_and_back((enum record_type)type, record_fill((enum record_type)type, round, arena), arena);
    }
    arena_free(arena);
}

static void test_all_absent(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    for (int type = 0; type < RECORD_TYPES_COUNT; type++)
        check_there_and_back((enum record_type)type, arena_alloc(arena, record_tables[type]->size), arena);
    arena_free(arena);
}

/* What is null stays null and what is empty stays empty, where the schema can tell. */
static void test_absent_is_not_empty(void **state)
{
    struct arena *arena = arena_new();
    struct dead_letter letter = {.reason = STR("why"), .key = STR("")};
    struct record record;

    (void)state;
    assert_true(record_decode(encoded(RECORD_DEAD_LETTER, &letter, arena), arena, &record, NULL));
    assert_non_null(record.is.dead_letter.key.data);
    assert_null(record.is.dead_letter.value.data);
    assert_null(record.is.dead_letter.run.data);
    assert_string_equal(record.is.dead_letter.source_topic.data, "");
    arena_free(arena);
}

static void test_cut_anywhere(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    for (int type = 0; type < RECORD_TYPES_COUNT; type++) {
        struct str whole = encoded((enum record_type)type, record_fill((enum record_type)type, 1, arena), arena);

        for (size_t size = 0; size < whole.size; size++) {
            char *cut = malloc(size > 0 ? size : 1); /* so that a byte too far is found */
            struct arena *small = arena_new();
            struct error error = {0};
            struct record record;

            assert_non_null(cut);
            memcpy(cut, whole.data, size);
            assert_false(record_decode((struct str){cut, size}, small, &record, &error));
            assert_int_equal(error.class, ERROR_POISON);
            arena_free(small);
            free(cut);
        }
    }
    arena_free(arena);
}

static void check_refused(struct str bytes, enum error_class class, const char *says)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    struct record record;

    assert_false(record_decode(bytes, arena, &record, &error));
    assert_int_equal(error.class, class);
    if (strstr(error.text, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.text, says);
    arena_free(arena);
}

static void test_heads(void **state)
{
    (void)state;
    check_refused(STR_NONE, ERROR_POISON, "not a record: 0 bytes");
    check_refused(STR("{\"json\": true}"), ERROR_POISON, "C3 01");
    check_refused(STR("\xc3\x01"
                      "1234567"),
                  ERROR_POISON, "not a record: 9 bytes");
    check_refused(STR("\xc3\x02"
                      "12345678"),
                  ERROR_POISON, "C3 01");
    check_refused(STR("\0\0\0\0\1xxxxxxxxxx"), ERROR_POISON, "registry");
    check_refused(STR("\xc3\x01"
                      "12345678"),
                  ERROR_RETRY, "schema/3837363534333231");
}

static void test_texts_must_be_utf8(void **state)
{
    struct decision decision = {.run = STR("r"), .reason = STR("\xff")};
    struct error error = {0};
    struct buf out;

    (void)state;
    buf_init(&out, 1000);
    assert_false(record_encode(RECORD_DECISION, &decision, &out, &error));
    assert_int_equal(error.class, ERROR_POISON);
    assert_string_equal(error.text, "Decision: reason: no valid UTF-8 at byte 0");
    assert_int_equal(out.size, 0);
    buf_free(&out);
}

static void test_other_versions(void **state)
{
    static const char older[] = "{\"type\":\"record\",\"name\":\"myelin.SchemaPublished\",\"fields\":["
                                "{\"name\":\"text\",\"type\":\"string\"},{\"name\":\"name\",\"type\":\"string\"}]}";
    struct arena *arena = arena_new();
    struct error error = {0};

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(record_schema_add(str_of(older), &error)); /* again and again: once is kept */
    for (int type = 0; type < RECORD_TYPES_COUNT; type++)
        assert_true(record_schema_add(record_schema((enum record_type)type), &error));
    assert_false(record_schema_add(STR("\"string\""), &error));
    assert_int_equal(error.class, ERROR_POISON);
    assert_false(record_schema_add(STR("{\"type\":"), &error));
    assert_false(record_schema_add(STR_NONE, &error));
    for (int i = 0; i < 2000; i++) {
        struct str text = arena_printf(arena, "{\"type\":\"record\",\"name\":\"Later%d\",\"fields\":[]}", i);

        if (!record_schema_add(text, &error))
            break;
        assert_true(i < 1000);
    }
    assert_non_null(strstr(error.text, "over 1000 schemas"));
    arena_free(arena);
    record_close();
    (void)open_records(state);
}

/* The symbols on the wire are the words of the core. */
static void test_words(void **state)
{
    struct arena *arena = arena_new();

    (void)state;
    for (int i = 0; i <= RUN_CANCELLED; i++) {
        struct run_closed closed = {.status = (enum run_status)i};
        json_t *json = record_json(RECORD_RUN_CLOSED, &closed);

        assert_string_equal(json_string_value(json_object_get(json, "status")), run_status_name((enum run_status)i));
        json_decref(json);
    }
    for (int i = 0; i <= STEP_IN_DOUBT; i++) {
        struct step_state step = {.status = (enum step_status)i};
        struct run run = {.steps = &step, .steps_count = 1};
        json_t *json = record_json(RECORD_STEP_READY, &run);
        json_t *first = json_array_get(json_object_get(json, "steps"), 0);

        assert_string_equal(json_string_value(json_object_get(first, "status")), step_status_name((enum step_status)i));
        json_decref(json);
    }
    for (int i = 0; i <= WAITS_RESOLUTION; i++) {
        struct step_parked parked = {.waits_for = (enum waits_for)i};
        json_t *json = record_json(RECORD_STEP_PARKED, &parked);

        assert_string_equal(json_string_value(json_object_get(json, "waits_for")), waits_for_name((enum waits_for)i));
        json_decref(json);
    }
    for (int i = 0; i <= FACT_REQUEST_ANSWERED; i++) {
        struct fact fact = {.kind = (enum fact_kind)i};
        json_t *json = record_json(RECORD_FACT, &fact);

        assert_non_null(json_object_get(json_object_get(json, "body"), fact_kind_name((enum fact_kind)i)));
        json_decref(json);
    }
    for (int i = 0; i <= ORIGIN_RESOLVED; i++) {
        struct fact fact = {.kind = FACT_TOOL_ANSWERED, .is.tool_answered.origin = (enum call_origin)i};
        json_t *json = record_json(RECORD_FACT, &fact);
        json_t *body = json_object_get(json_object_get(json, "body"), "ToolAnswered");

        assert_string_equal(json_string_value(json_object_get(body, "origin")), call_origin_name((enum call_origin)i));
        json_decref(json);
    }
    arena_free(arena);
}

/* ---- golden records ---- */

static struct str golden_path(enum record_type type, struct arena *arena)
{
    return arena_printf(arena, GOLDEN "/%s-%016llx.txt", record_name(type),
                        (unsigned long long)record_fingerprint(type));
}

/* Each body of a fact; of the others two records with all set, and one with nothing. */
static int golden_rounds(enum record_type type)
{
    return type == RECORD_FACT ? FACT_REQUEST_ANSWERED + 2 : 3;
}

static const void *golden_record(enum record_type type, int round, struct arena *arena)
{
    return round + 1 == golden_rounds(type) ? arena_alloc(arena, record_tables[type]->size)
                                            : record_fill(type, round, arena);
}

static struct str hex_of(struct str bytes, struct arena *arena)
{
    char *hex = arena_alloc(arena, 2 * bytes.size + 1);

    for (size_t i = 0; i < bytes.size; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", (unsigned)(unsigned char)bytes.data[i]);
    return str_of(hex);
}

static struct str bytes_of(const char *hex, struct arena *arena)
{
    size_t size = strlen(hex) / 2;
    char *bytes = arena_alloc(arena, size + 1);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)strtoul((char[]){hex[2 * i], hex[2 * i + 1], '\0'}, NULL, 16);
    return (struct str){bytes, size};
}

/* The next line without its newline, in the arena; false at the end. */
static bool next_line(FILE *file, struct arena *arena, struct str *line)
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t size = getline(&text, &capacity, file);

    if (size > 0)
        *line = arena_copy(arena, text, text[size - 1] == '\n' ? (size_t)size - 1 : (size_t)size);
    free(text);
    return size > 0;
}

static int write_golden(void)
{
    struct arena *arena = arena_new();

    for (int i = 0; i < RECORD_TYPES_COUNT; i++) {
        enum record_type type = (enum record_type)i;
        const struct avsc_node *schema = avsc_read(arena, record_schema(type), NULL);
        struct str path = golden_path(type, arena);
        FILE *file = fopen(path.data, "wx");

        if (file == NULL)
            continue;
        (void)printf("%s\n", path.data);
        (void)fprintf(file, "%s\n", avsc_canonical(arena, schema).data);
        for (int round = 0; round < golden_rounds(type); round++) {
            const void *object = golden_record(type, round, arena);

            (void)fprintf(file, "%s\n", hex_of(encoded(type, object, arena), arena).data);
            (void)fprintf(file, "%s\n", json_of(type, object, arena).data);
        }
        (void)fclose(file);
    }
    arena_free(arena);
    return 0;
}

static void test_golden_of_this_version(void **state)
{
    struct arena *arena = arena_new();
    struct str line;

    (void)state;
    for (int i = 0; i < RECORD_TYPES_COUNT; i++) {
        enum record_type type = (enum record_type)i;
        struct str path = golden_path(type, arena);
        FILE *file = fopen(path.data, "r");

        if (file == NULL)
            fail_msg(
                "no %s: the schema of %s changed. See schemas/README.md; if that was meant, run test_record --golden",
                path.data, record_name(type));
        assert_true(next_line(file, arena, &line));
        for (int round = 0; round < golden_rounds(type); round++) {
            const void *object = golden_record(type, round, arena);

            assert_true(next_line(file, arena, &line));
            assert_string_equal(line.data, hex_of(encoded(type, object, arena), arena).data);
            assert_true(next_line(file, arena, &line));
        }
        assert_false(next_line(file, arena, &line));
        (void)fclose(file);
    }
    arena_free(arena);
}

/* True when all that `want` says is in `got`, which may say more. */
static bool contains(const json_t *got, const json_t *want)
{
    json_t *object = (json_t *)(uintptr_t)want;

    if (json_is_array(want)) {
        for (size_t i = 0; i < json_array_size(want); i++) {
            if (!contains(json_array_get(got, i), json_array_get(want, i)))
                return false;
        }
        return json_array_size(got) == json_array_size(want);
    }
    if (!json_is_object(want))
        return json_equal(got, want) == 1;
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        if (!contains(json_object_get(got, json_object_iter_key(at)), json_object_iter_value(at)))
            return false;
    }
    return true;
}

static void check_golden(const char *path)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    FILE *file = fopen(path, "r");
    struct str line;
    int records = 0;

    assert_non_null(file);
    assert_true(next_line(file, arena, &line));
    if (!record_schema_add(line, &error))
        fail_msg("%s: %s", path, error.text);
    while (next_line(file, arena, &line)) {
        struct record record;
        json_t *got, *want;

        if (!record_decode(bytes_of(line.data, arena), arena, &record, &error))
            fail_msg("%s: %s", path, error.text);
        assert_true(next_line(file, arena, &line));
        got = record_json(record.type, &record.is);
        want = json_loadb(line.data, line.size, JSON_ALLOW_NUL, NULL); /* bytes may hold one */
        assert_non_null(want);
        if (!contains(got, want))
            fail_msg("%s: %s\nread as %s", path, line.data, json_text(arena, got).data);
        json_decref(got);
        json_decref(want);
        records++;
    }
    assert_true(records > 0);
    (void)fclose(file);
    arena_free(arena);
}

static void test_golden_of_all_versions(void **state)
{
    DIR *directory = opendir(GOLDEN);
    const struct dirent *entry;
    char path[512];
    int files = 0;

    (void)state;
    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, GOLDEN "/%s", entry->d_name);
        check_golden(path);
        files++;
    }
    (void)closedir(directory);
    assert_true(files >= RECORD_TYPES_COUNT);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_set),
        cmocka_unit_test(test_all_absent),
        cmocka_unit_test(test_absent_is_not_empty),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_texts_must_be_utf8),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_golden_of_this_version),
        cmocka_unit_test(test_golden_of_all_versions),
    };

    if (argc == 2 && strcmp(argv[1], "--golden") == 0)
        return open_records(NULL) == 0 ? write_golden() : 1;
    return cmocka_run_group_tests_name("record", tests, open_records, close_records);
}
