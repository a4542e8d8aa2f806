#include "tests/unit/record_fill.h"

#include <string.h>

#include "worker/record_tables.h"

struct fill {
    struct arena *arena;
    int round;
    int64_t next; /* grows with every field */
};

static void fill_struct(struct fill *fill, const struct codec_struct *table, char *object);

/* Short, longer than one length byte can say, and with characters of one to four bytes. */
static struct str text_of(struct fill *fill, const char *name)
{
    static const char *const tails[] = {"", " \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", " \"quoted\\\"\n\t"};
    int width = fill->next % 7 == 0 ? 200 : 1;

    return arena_printf(fill->arena, "%s %0*lld%s", name, width, (long long)fill->next,
                        tails[(fill->round + fill->next) % 3]);
}

static struct str bytes_of(struct fill *fill)
{
    char bytes[256];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)((int64_t)i + fill->next);
    return arena_copy(fill->arena, bytes, sizeof bytes);
}

static void fill_array(struct fill *fill, const struct codec_field *field, char *object)
{
    size_t count = fill->round % 20 == 19 ? 70 : (size_t)(fill->round % 3) + 1;
    char *items = arena_array(fill->arena, count, field->nested->size);

    for (size_t i = 0; i < count; i++)
        fill_struct(fill, field->nested, items + i * field->nested->size);
    memcpy(object + field->offset, &items, sizeof items);
    memcpy(object + field->beside_offset, &count, sizeof count);
}

static void fill_field(struct fill *fill, const struct codec_field *field, char *object)
{
    char *at = object + field->offset;
    bool flag = (fill->next + fill->round) % 2 == 0;
    int64_t number = fill->next * (fill->round % 2 == 0 ? 1 : -1000000007);
    int32_t small = (int32_t)number, chosen = 0;
    struct str text;
    char *pointed;

    fill->next++;
    switch (field->kind) {
    case CODEC_BOOL:
        memcpy(at, &flag, sizeof flag);
        break;
    case CODEC_INT:
        memcpy(at, &small, sizeof small);
        break;
    case CODEC_LONG:
        number = fill->round == 7 ? INT64_MIN : fill->round == 8 ? INT64_MAX : number;
        memcpy(at, &number, sizeof number);
        break;
    case CODEC_TEXT:
    case CODEC_TEXT_NULL:
        text = text_of(fill, field->name);
        memcpy(at, &text, sizeof text);
        break;
    case CODEC_BYTES:
    case CODEC_BYTES_NULL:
        text = bytes_of(fill);
        memcpy(at, &text, sizeof text);
        break;
    case CODEC_ENUM:
        chosen = fill->round % (int32_t)field->count;
        memcpy(at, &chosen, sizeof chosen);
        break;
    case CODEC_STRUCT:
        fill_struct(fill, field->nested, at);
        break;
    case CODEC_STRUCT_NULL:
        pointed = arena_alloc(fill->arena, field->nested->size);
        fill_struct(fill, field->nested, pointed);
        memcpy(at, &pointed, sizeof pointed);
        break;
    case CODEC_ARRAY:
        fill_array(fill, field, object);
        break;
    case CODEC_ONE_OF:
        chosen = fill->round % (int32_t)field->count;
        memcpy(object + field->beside_offset, &chosen, sizeof chosen);
        fill_struct(fill, &field->nested[chosen], at);
        break;
    }
}

static void fill_struct(struct fill *fill, const struct codec_struct *table, char *object)
{
    for (size_t i = 0; i < table->fields_count; i++)
        fill_field(fill, &table->fields[i], object);
}

void *record_fill(enum record_type type, int round, struct arena *arena)
{
    struct fill fill = {.arena = arena, .round = round, .next = 1};
    char *object = arena_alloc(arena, record_tables[type]->size);

    fill_struct(&fill, record_tables[type], object);
    return object;
}
