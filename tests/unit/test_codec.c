/* worker/wire: schemas and their fingerprints, and the reader and the writer on bytes made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/base/json.h"
#include "worker/wire/codec.h"

struct part {
    struct str text;
};
struct thing {
    int32_t small;
    int64_t large;
    bool flag;
    struct str text, maybe, raw;
    enum { COLOUR_RED, COLOUR_BLUE } colour;
    struct part *parts;
    size_t parts_count;
    enum { SHAPE_ROUND, SHAPE_FLAT } shape;
    union {
        struct part round;
        struct part flat;
    } is;
};

static const char *const colours[] = {"red", "blue"};
static const struct codec_field part_fields[] = {{.name = "text", .kind = CODEC_TEXT}};
static const struct codec_struct part_table = {"Part", sizeof(struct part), part_fields, 1};
static const struct codec_struct shapes[] = {
    {"Round", sizeof(struct part), part_fields, 1},
    {"Flat", sizeof(struct part), part_fields, 1},
};
static const struct codec_field thing_fields[] = {
    {.name = "small", .kind = CODEC_INT, .offset = offsetof(struct thing, small)},
    {.name = "large", .kind = CODEC_LONG, .offset = offsetof(struct thing, large)},
    {.name = "flag", .kind = CODEC_BOOL, .offset = offsetof(struct thing, flag)},
    {.name = "text", .kind = CODEC_TEXT, .offset = offsetof(struct thing, text)},
    {.name = "maybe", .kind = CODEC_TEXT_NULL, .offset = offsetof(struct thing, maybe)},
    {.name = "raw", .kind = CODEC_BYTES, .offset = offsetof(struct thing, raw)},
    {.name = "colour", .kind = CODEC_ENUM, .offset = offsetof(struct thing, colour), .symbols = colours, .count = 2},
    {.name = "parts",
     .kind = CODEC_ARRAY,
     .offset = offsetof(struct thing, parts),
     .beside_offset = offsetof(struct thing, parts_count),
     .nested = &part_table},
    {.name = "shape",
     .kind = CODEC_ONE_OF,
     .offset = offsetof(struct thing, is),
     .beside_offset = offsetof(struct thing, shape),
     .nested = shapes,
     .count = 2},
};
static const struct codec_struct thing_table = {"Thing", sizeof(struct thing), thing_fields, 9};

#define PART(name) "{'type':'record','name':'" name "','fields':[{'name':'text','type':'string'}]}"
#define COLOUR "{'type':'enum','name':'Colour','symbols':['red','blue','unknown'],'default':'unknown'}"
#define THING(before, small, colour, shape)                                                                            \
    "{'type':'record','name':'Thing','fields':[" before "{'name':'small','type':'" small "','default':0},"             \
    "{'name':'large','type':'long','default':0},{'name':'flag','type':'boolean','default':false},"                     \
    "{'name':'text','type':'string'},{'name':'maybe','type':['null','string'],'default':null},"                        \
    "{'name':'raw','type':'bytes','default':''},{'name':'colour','type':" colour "},"                                  \
    "{'name':'parts','type':{'type':'array','items':" PART("Part") "},'default':[]},"                                  \
                                                                   "{'name':'shape','type':[" shape "]}]}"
#define OURS THING("", "int", COLOUR, PART("Round") "," PART("Flat"))

/* With ' for ", so that a schema can be read. */
static struct str quoted(struct arena *arena, const char *text)
{
    char *copy = arena_alloc(arena, strlen(text) + 1);

    for (size_t i = 0; text[i] != '\0'; i++)
        copy[i] = text[i] == '\'' ? '"' : text[i];
    return str_of(copy);
}

static const struct avsc_node *schema_of(struct arena *arena, const char *text)
{
    struct error error = {0};
    const struct avsc_node *schema = avsc_read(arena, quoted(arena, text), &error);

    if (schema == NULL)
        fail_msg("%s", error.text);
    return schema;
}

/* Reads bytes that were written by `written`; false with the reason in `error`. */
static bool read_by(struct arena *arena, const char *written, const char *bytes, size_t size, struct thing *thing,
                    struct error *error)
{
    const struct codec_reader *reader = codec_reader_new(arena, &thing_table, schema_of(arena, OURS),
                                                         schema_of(arena, written), error);
    char *exact = malloc(size > 0 ? size : 1); /* so that a byte too far is found */
    bool done;

    if (reader == NULL)
        fail_msg("%s", error->text);
    assert_non_null(exact);
    memcpy(exact, bytes, size);
    done = codec_read(reader, (struct str){exact, size}, arena, thing, error);
    free(exact);
    return done;
}

#define REFUSED(written, says, ...)                                                                                    \
    do {                                                                                                               \
        static const char refused[] = {__VA_ARGS__};                                                                   \
        check_refused((written), (says), refused, sizeof refused);                                                     \
    } while (0)

static void check_refused(const char *written, const char *says, const char *bytes, size_t size)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    struct thing thing;

    assert_false(read_by(arena, written, bytes, size, &thing, &error));
    assert_int_equal(error.class, ERROR_POISON);
    if (strstr(error.text, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.text, says);
    assert_true(arena_size(arena) < 100000);
    arena_free(arena);
}

/* Bytes after `small large flag` and a text, up to the colour: all empty. */
#define START 2, 4, 1, 2, 'a', 0, 0

static void test_read(void **state)
{
    static const char bytes[] = {START, 2, 4, 2, 'x', 4, 'y', 'z', 0, 2, 2, 'f'};
    struct arena *arena = arena_new();
    struct error error = {0};
    struct thing thing;

    (void)state;
    if (!read_by(arena, OURS, bytes, sizeof bytes, &thing, &error))
        fail_msg("%s", error.text);
    assert_int_equal(thing.small, 1);
    assert_int_equal(thing.large, 2);
    assert_true(thing.flag);
    assert_string_equal(thing.text.data, "a");
    assert_null(thing.maybe.data);
    assert_string_equal(thing.raw.data, "");
    assert_int_equal(thing.colour, COLOUR_BLUE);
    assert_int_equal(thing.parts_count, 2);
    assert_string_equal(thing.parts[1].text.data, "yz");
    assert_int_equal(thing.shape, SHAPE_FLAT);
    assert_string_equal(thing.is.flat.text.data, "f");
    for (size_t size = 0; size < sizeof bytes; size++)
        assert_false(read_by(arena, OURS, bytes, size, &thing, &error));
    assert_false(codec_read(codec_reader_new(arena, &thing_table, schema_of(arena, OURS), schema_of(arena, OURS), NULL),
                            STR_NONE, arena, &thing, &error));
    arena_free(arena);
}

static void test_blocks(void **state)
{
    /* Three blocks; the second with its size. */
    static const char bytes[] = {START, 0, 2, 2, 'x', 3, 8, 2, 'y', 2, 'z', 2, 0, 0, 0, 0};
    struct arena *arena = arena_new();
    struct error error = {0};
    struct thing thing;

    (void)state;
    if (!read_by(arena, OURS, bytes, sizeof bytes, &thing, &error))
        fail_msg("%s", error.text);
    assert_int_equal(thing.parts_count, 4);
    assert_string_equal(thing.parts[0].text.data, "x");
    assert_string_equal(thing.parts[2].text.data, "z");
    assert_string_equal(thing.parts[3].text.data, "");
    arena_free(arena);
}

#define FF (char)0xff
#define B(byte) ((char)(byte))

static void test_refused(void **state)
{
    (void)state;
    REFUSED(OURS, "1 bytes too many", START, 0, 0, 0, 0, 9);
    REFUSED(OURS, "small: cut off", FF);
    REFUSED(OURS, "over 64 bits", 2, FF, FF, FF, FF, FF, FF, FF, FF, FF, 2);
    REFUSED(OURS, "over 64 bits", 2, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, FF, 1);
    REFUSED(OURS, "small: a number of over 32 bits", B(0x80), B(0x80), B(0x80), B(0x80), 0x20);
    REFUSED(OURS, "flag: a boolean", 2, 4, 2);
    REFUSED(OURS, "text: longer", 2, 4, 1, 1, 'a');
    REFUSED(OURS, "text: longer", 2, 4, 1, 4, 'a');
    REFUSED(OURS, "text: longer", 2, 4, 1, B(0xfe), FF, FF, FF, FF, FF, FF, FF, FF, 1);
    REFUSED(OURS, "text: no valid UTF-8", 2, 4, 1, 2, FF);
    REFUSED(OURS, "maybe: no such union branch", 2, 4, 1, 0, 4);
    REFUSED(OURS, "maybe: no such union branch", 2, 4, 1, 0, 1);
    REFUSED(OURS, "colour: no such union branch or enum symbol", START, 6);
    REFUSED(OURS, "symbol \"unknown\" is not known", START, 4);
    REFUSED(OURS, "shape: no such union branch", START, 0, 0, B(0x80), B(0x80), B(0x80), B(0x80), 0x10);
    /* Counts: more than the bytes, the largest, the smallest, negative without a size, sizes that lie. */
    REFUSED(OURS, "parts: more items", START, 0, 100, 0, 0, 0);
    REFUSED(OURS, "parts: more items", START, 0, B(0xfe), FF, FF, FF, FF, FF, FF, FF, FF, 1);
    REFUSED(OURS, "parts: a block longer", START, 0, FF, FF, FF, FF, FF, FF, FF, FF, FF, 1, 0);
    REFUSED(OURS, "parts: more items", START, 0, 99, 2, 0);
    REFUSED(OURS, "parts: a block longer", START, 0, 1, 1, 0);
    REFUSED(OURS, "parts: a block longer", START, 0, 1, 100, 0);
    REFUSED(OURS, "parts: a block that does not end", START, 0, 1, 4, 0, 0, 0, 0);
    REFUSED(OURS, "parts: [1]: text: longer", START, 0, 4, 0, 10);
}

/* What the other version has besides, of every type, is walked over as carefully. */
static void test_skipped(void **state)
{
    static const char other[] = THING(
        "{'name':'s1','type':['null','float','double']},{'name':'s2','type':{'type':'map','values':'int'}},"
        "{'name':'s3','type':{'type':'fixed','name':'F','size':3}},"
        "{'name':'s4','type':{'type':'record','name':'Tree','fields':[{'name':'down','type':['null','Tree']}]}},"
        "{'name':'s5','type':{'type':'array','items':'boolean'}},{'name':'s6','type':'string'},",
        "long", COLOUR, PART("Flat") "," PART("Cube") "," PART("Round"));
    static const char bytes[] = {4, 1, 2, 3, 4, 5, 6, 7, 8, 2,   2,     'k', 9, 0, 'f', 'f', 'f',
                                 2, 2, 0, 3, 4, 1, 0, 0, 2, 'x', START, 0,   0, 4, 2,   'r'};
    struct arena *arena = arena_new();
    struct error error = {0};
    struct thing thing;

    (void)state;
    if (!read_by(arena, other, bytes, sizeof bytes, &thing, &error))
        fail_msg("%s", error.text);
    assert_int_equal(thing.shape, SHAPE_ROUND);
    assert_string_equal(thing.is.round.text.data, "r");
    for (size_t size = 0; size < sizeof bytes; size++)
        assert_false(read_by(arena, other, bytes, size, &thing, &error));
    arena_free(arena);
    REFUSED(other, "s1: no such union branch", 6);
    REFUSED(other, "s2: no valid UTF-8", 0, 2, 2, FF, 0, 0, 0, 0);
    REFUSED(other, "s2: more items", 0, 100);
    REFUSED(other, "s3: cut off", 0, 0, 1, 2);
    REFUSED(other, "s4: down: ", 0, 0, 1, 2, 3, 9);
    REFUSED(other, "s5: a boolean", 0, 0, 1, 2, 3, 0, 2, 2);
    REFUSED(other, "s6: no valid UTF-8", 0, 0, 1, 2, 3, 0, 0, 2, FF);
    REFUSED(other, "shape: written as record Cube", 0, 0, 1, 2, 3, 0, 0, 0, START, 0, 0, 2, 0);
    /* small was a long here: fits 64 bits, not 32. */
    REFUSED(other, "small: a number of over 32 bits", 0, 0, 1, 2, 3, 0, 0, 0, B(0x80), B(0x80), B(0x80), B(0x80), 0x20);
}

/* Types without bytes must not keep us busy, nor recursion end the process. */
static void test_bombs(void **state)
{
    static char deep[200];
    struct arena *arena = arena_new();
    struct buf text;

    (void)state;
    memset(deep, 2, sizeof deep);
    check_refused(THING("{'name':'s','type':{'type':'record','name':'Tree','fields':[{'name':'down','type':['null',"
                        "'Tree']}]}},",
                        "int", COLOUR, PART("Round")),
                  "nested too deep", deep, sizeof deep);
    check_refused(THING("{'name':'s','type':{'type':'record','name':'T','fields':[{'name':'t','type':'T'}]}},", "int",
                        COLOUR, PART("Round")),
                  "nested too deep", deep, 0);
    REFUSED(THING("{'name':'s','type':{'type':'array','items':'null'}},", "int", COLOUR, PART("Round")), "more items",
            B(0xfe), FF, FF, FF, FF, 1, 0, 0, 0);
    /* R1 holds R0 twice, R2 holds R1 twice ...: 2^30 values of no byte. */
    buf_init(&text, 1 << 16);
    buf_puts(&text, "{'name':'r0','type':{'type':'record','name':'R0','fields':[]}},");
    for (int i = 1; i <= 30; i++)
        buf_printf(&text,
                   "{'name':'r%d','type':{'type':'record','name':'R%d','fields':[{'name':'a','type':'R%d'},"
                   "{'name':'b','type':'R%d'}]}},",
                   i, i, i - 1, i - 1);
    check_refused(arena_printf(arena, "{'type':'record','name':'Thing','fields':[%s%s", buf_str(&text).data,
                               strstr(OURS, "{'name':'small'"))
                      .data,
                  "too many empty values", deep, 0);
    buf_free(&text);
    arena_free(arena);
}

static void check_version(const char *written, const char *says)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    const struct codec_reader *reader = codec_reader_new(arena, &thing_table, schema_of(arena, OURS),
                                                         schema_of(arena, written), &error);

    if (says == NULL) {
        assert_non_null(reader);
    } else {
        assert_null(reader);
        assert_int_equal(error.class, ERROR_POISON);
        if (strstr(error.text, says) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error.text, says);
    }
    arena_free(arena);
}

static void test_versions(void **state)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    struct thing thing;

    (void)state;
    /* Only what has no default; order changed; a union around everything. */
    static const char least[] = "{'type':'record','name':'elsewhere.Thing','fields':[{'name':'shape','type':[" PART(
        "Flat") "]},"
                "{'name':'text','type':['null','bytes']},{'name':'colour','type':['null'," COLOUR "]}]}";
    static const char bytes[] = {0, 2, 'f', 2, 2, 't', 2, 2};
    if (!read_by(arena, least, bytes, sizeof bytes, &thing, &error))
        fail_msg("%s", error.text);
    assert_string_equal(thing.text.data, "t");
    assert_int_equal(thing.colour, COLOUR_BLUE);
    assert_int_equal(thing.shape, SHAPE_FLAT);
    assert_int_equal(thing.small, 0);
    assert_null(thing.maybe.data);
    assert_null(thing.parts);
    REFUSED(least, "text: written as null", 0, 2, 'f', 0);
    REFUSED(least, "text: no valid UTF-8", 0, 2, 'f', 2, 2, FF);

    check_version("{'type':'record','name':'Thing','fields':[{'name':'text','type':'string'}]}", "no field colour");
    check_version("{'type':'record','name':'Other','fields':[]}", "written as record");
    check_version("'string'", "written as string");
    check_version(THING("", "string", COLOUR, PART("Flat")), "Thing.small: written as string");
    check_version(THING("", "int", "'string'", PART("Flat")), "Thing.colour: written as string");
    check_version(THING("", "int", "['null','int']", PART("Flat")), "Thing.colour: written as union");
    check_version(THING("", "int", COLOUR, "'null'"), "Thing.shape: written as union");
    check_version(THING("", "int", COLOUR, "'null'," PART("Flat")), NULL);
    arena_free(arena);
}

static void test_write(void **state)
{
    struct arena *arena = arena_new();
    struct str text = quoted(arena, OURS);
    struct error error = {0};
    struct codec_writer *writer = codec_writer_new(&thing_table, avsc_read(arena, text, &error), text, &error);
    struct part parts[] = {{STR("x")}, {STR("bad \xff")}};
    struct thing thing = {.small = -1, .text = STR("a"), .parts = parts, .parts_count = 1, .shape = SHAPE_FLAT};
    struct buf out;

    (void)state;
    assert_non_null(writer);
    buf_init(&out, 20);
    assert_true(codec_write(writer, &thing, STR("head"), &out, &error));
    assert_int_equal(out.size, 18);
    assert_memory_equal(out.data, "head\1\0\0\2a\0\0\0\2\2x\0\2\0", 18);
    assert_false(codec_write(writer, &thing, STR("head"), &out, &error));
    assert_int_equal(error.class, ERROR_POISON);
    assert_non_null(strstr(error.text, "Thing: 18 bytes do not fit"));
    buf_clear(&out);
    thing.parts_count = 2;
    assert_false(codec_write(writer, &thing, STR(""), &out, &error));
    assert_string_equal(error.text, "Thing: parts: [1]: text: no valid UTF-8 at byte 4");
    thing.parts_count = 0;
    thing.shape = 2;
    assert_false(codec_write(writer, &thing, STR(""), &out, &error));
    assert_string_equal(error.text, "Thing: shape: no such enum value: 2");
    thing.shape = SHAPE_ROUND;
    memset(&thing.colour, 0xff, sizeof thing.colour);
    assert_false(codec_write(writer, &thing, STR(""), &out, &error));
    assert_string_equal(error.text, "Thing: colour: no such enum value: -1");
    assert_int_equal(out.size, 0);
    buf_free(&out);

    /* Over every limit: refused, not cut. */
    buf_init(&out, SIZE_MAX);
    thing.colour = COLOUR_RED;
    thing.raw = (struct str){calloc(1, CODEC_SIZE_MAX + 1), CODEC_SIZE_MAX};
    assert_false(codec_write(writer, &thing, STR(""), &out, &error));
    assert_int_equal(error.class, ERROR_POISON);
    thing.raw.size = 1 << 20;
    assert_true(codec_write(writer, &thing, STR(""), &out, &error));
    free((void *)(uintptr_t)thing.raw.data);
    buf_free(&out);
    codec_writer_free(writer);
    codec_writer_free(NULL);
    arena_free(arena);
}

static void check_table(const char *schema, const char *says)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    struct str text = quoted(arena, schema);

    assert_null(codec_writer_new(&thing_table, avsc_read(arena, text, &error), text, &error));
    assert_int_equal(error.class, ERROR_FATAL);
    if (strstr(error.text, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.text, says);
    arena_free(arena);
}

static void test_table_and_schema_differ(void **state)
{
    (void)state;
    check_table("'int'", "no record Thing");
    check_table("{'type':'record','name':'Thing','fields':[]}", "field 0 is small in the table");
    check_table(THING("{'name':'more','type':'int'},", "int", COLOUR, PART("Round")), "field 0 is small");
    check_table(THING("", "long", COLOUR, PART("Round") "," PART("Flat")), "type of small");
    check_table(THING("", "int", COLOUR, PART("Flat") "," PART("Round")), "no record Round");
    check_table(THING("", "int", COLOUR, PART("Round")), "type of shape");
    check_table(THING("", "int", "{'type':'enum','name':'C','symbols':['red','blue']}", PART("Round") "," PART("Flat")),
                "type of colour");
    check_table(THING("", "int", "{'type':'enum','name':'C','symbols':['blue','red','unknown']}",
                      PART("Round") "," PART("Flat")),
                "type of colour");
}

static void test_default_is_zero(void **state)
{
    static const struct codec_field fields[] = {{.name = "a", .kind = CODEC_INT}};
    static const struct codec_struct table = {"T", sizeof(int32_t), fields, 1};
    struct arena *arena = arena_new();
    struct error error = {0};
    struct str text = quoted(arena, "{'type':'record','name':'T','fields':[{'name':'a','type':'int','default':-1}]}");

    (void)state;
    assert_null(codec_writer_new(&table, avsc_read(arena, text, &error), text, &error));
    assert_non_null(strstr(error.text, "default of a is not its zero value"));
    arena_free(arena);
}

static void test_bad_schemas(void **state)
{
    static const char *const bad[] = {
        "",
        "nonsense",
        "1",
        "[]",
        "{}",
        "'thing'",
        "{'type':'thing'}",
        "{'type':7}",
        "['int','int']",
        "['null',['int']]",
        "['null',{'type':'array'}]",
        "{'type':'record','fields':[]}",
        "{'type':'record','name':'1a','fields':[]}",
        "{'type':'record','name':'a..b','fields':[]}",
        "{'type':'record','name':'a.','fields':[]}",
        "{'type':'record','name':'int','fields':[]}",
        "{'type':'record','name':'A','namespace':'b-c','fields':[]}",
        "{'type':'record','name':'A'}",
        "{'type':'record','name':'A','fields':[{}]}",
        "{'type':'record','name':'A','fields':[{'name':'a.b','type':'int'}]}",
        "{'type':'record','name':'A','fields':[{'name':'a'}]}",
        "{'type':'record','name':'A','fields':[{'name':'a','type':'int'},{'name':'a','type':'int'}]}",
        "{'type':'record','name':'A','fields':[{'name':'a','type':{'type':'fixed','name':'A','size':1}}]}",
        "{'type':'enum','name':'A'}",
        "{'type':'enum','name':'A','symbols':[]}",
        "{'type':'enum','name':'A','symbols':['a','a']}",
        "{'type':'enum','name':'A','symbols':[1]}",
        "{'type':'enum','name':'A','symbols':['a b']}",
        "{'type':'fixed','name':'A'}",
        "{'type':'fixed','name':'A','size':-1}",
        "{'type':'map','values':'nope'}",
        "{'type':'union'}",
    };
    struct arena *arena = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error error = {0};

        if (avsc_read(arena, quoted(arena, bad[i]), &error) != NULL)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(error.class, ERROR_POISON);
    }
    arena_free(arena);
}

static void test_large_schemas(void **state)
{
    struct arena *arena = arena_new();
    struct error error = {0};
    struct buf text;

    (void)state;
    buf_init(&text, 1 << 20);
    buf_puts(&text, "[\"null\"");
    for (int i = 0; i < AVSC_MEMBERS_MAX; i++)
        buf_printf(&text, ",{\"type\":\"fixed\",\"name\":\"F%d\",\"size\":1}", i);
    buf_puts(&text, "]");
    assert_null(avsc_read(arena, buf_str(&text), &error));
    assert_non_null(strstr(error.text, "too many"));
    buf_clear(&text);
    buf_puts(&text, "\"int\"");
    for (int i = 0; i < JSON_DEPTH_MAX; i++) {
        struct str inner = arena_str(arena, buf_str(&text));

        buf_clear(&text);
        buf_printf(&text, "{\"type\":\"array\",\"items\":%s}", inner.data);
    }
    assert_non_null(avsc_read(arena, buf_str(&text), &error));
    assert_null(avsc_read(arena, arena_printf(arena, "[%s]", buf_str(&text).data), &error));
    assert_null(avsc_read(arena, (struct str){arena_alloc(arena, 300000), 299999}, &error));
    buf_free(&text);
    arena_free(arena);
}

static void test_canonical(void **state)
{
    struct arena *arena = arena_new();
    const struct avsc_node *schema;

    (void)state;
    schema = schema_of(arena, "{'doc':'d','fields':[{'type':{'type':'int'},'name':'a','default':1},{'name':'b',"
                              "'type':['null','Me']},{'name':'c','type':{'type':'enum','symbols':['X'],'name':'E'}},"
                              "{'name':'d','type':{'type':'map','values':'E'}}],'namespace':'n.s','name':'Me',"
                              "'type':'record'}");
    assert_string_equal(avsc_canonical(arena, schema).data,
                        quoted(arena, "{'name':'n.s.Me','type':'record','fields':[{'name':'a','type':'int'},"
                                      "{'name':'b','type':['null','n.s.Me']},{'name':'c','type':{'name':'n.s.E',"
                                      "'type':'enum','symbols':['X']}},{'name':'d','type':{'type':'map',"
                                      "'values':'n.s.E'}}]}")
                            .data);
    assert_true(str_is(avsc_short_name(schema), "Me"));
    /* From the test data of Avro (share/test/data/schema-tests.txt). */
    assert_true(avsc_fingerprint(schema_of(arena, "'null'")) == UINT64_C(0x63dd24e7cc258f8a));
    assert_true(avsc_fingerprint(schema_of(arena, "{'type':'boolean'}")) == UINT64_C(0x9f42fc78a4d4f764));
    assert_true(avsc_fingerprint(schema_of(arena, "{'type':'fixed','name':'foo','size':15}")) ==
                UINT64_C(0x18602ec3ed31a504));
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_skipped),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_table_and_schema_differ),
        cmocka_unit_test(test_default_is_zero),
        cmocka_unit_test(test_bad_schemas),
        cmocka_unit_test(test_large_schemas),
        cmocka_unit_test(test_canonical),
    };

    return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
