/* The plans of codec_plan.h: our schema and the writer's brought together, once for each schema that is met. */
#include "worker/wire/codec_plan.h"

#define PLAN_NODES_MAX 20000 /* references multiply, so a small schema could ask for a large plan */

struct make {
    struct arena *arena;
    struct error *error;
    size_t nodes;
};

static bool make_plan(struct make *make, struct codec_plan *plan, const struct codec_field *field,
                      const struct avsc_node *schema, const struct avsc_node *written);
static bool make_record(struct make *make, struct codec_plan *plan, const struct codec_struct *into,
                        const struct avsc_node *schema, const struct avsc_node *written);

static struct codec_plan *children_new(struct make *make, size_t count)
{
    make->nodes += count;
    if (make->nodes > PLAN_NODES_MAX) {
        (void)error_set(make->error, ERROR_POISON, "schema too large to read by");
        return NULL;
    }
    return ARENA_ARRAY(make->arena, count, struct codec_plan);
}

static bool misfit(struct make *make, const struct avsc_node *written)
{
    return error_set(make->error, ERROR_POISON, "written as %s, which this version cannot read here",
                     avsc_type_name(written->type));
}

static bool make_enum(struct make *make, struct codec_plan *plan, const struct codec_field *field,
                      const struct avsc_node *written)
{
    plan->symbols = ARENA_ARRAY(make->arena, written->symbols_count, int32_t);
    for (size_t i = 0; i < written->symbols_count; i++) {
        plan->symbols[i] = -1;
        for (size_t value = 0; value < field->count; value++) {
            if (str_is(written->symbols[i], field->symbols[value]))
                plan->symbols[i] = (int32_t)value;
        }
    }
    return true;
}

/* One of the records of a ONE_OF. */
static bool make_choice(struct make *make, struct codec_plan *plan, const struct codec_field *field,
                        const struct avsc_node *schema, const struct avsc_node *written)
{
    for (size_t i = 0; written->type == AVSC_RECORD && i < field->count; i++) {
        if (str_is(avsc_short_name(written), field->nested[i].name)) {
            plan->tag = (int32_t)i;
            plan->into_offset = field->offset;
            return make_record(make, plan, &field->nested[i], schema->types[i], written);
        }
    }
    return misfit(make, written);
}

static bool make_union(struct make *make, struct codec_plan *plan, const struct codec_field *field,
                       const struct avsc_node *schema, const struct avsc_node *written)
{
    struct error *error = make->error;
    bool any = false;

    plan->children = children_new(make, written->types_count);
    if (plan->children == NULL)
        return false;
    make->error = NULL; /* a branch may well have no place here, as long as it is not met */
    for (size_t i = 0; i < written->types_count; i++) {
        struct codec_plan *child = &plan->children[i];

        if (make_plan(make, child, field, schema, written->types[i]))
            any = true;
        else
            *child = (struct codec_plan){.node = written->types[i], .misfit = true};
    }
    make->error = error;
    return any || misfit(make, written);
}

static bool is_text(const struct avsc_node *written)
{
    return written->type == AVSC_STRING || written->type == AVSC_BYTES;
}

/* `schema` is our own type at this place, which fits the field (codec_writer_new saw to that). */
static bool make_plan(struct make *make, struct codec_plan *plan, const struct codec_field *field,
                      const struct avsc_node *schema, const struct avsc_node *written)
{
    bool fits = false;

    plan->node = written;
    plan->field = field;
    if (written->type == AVSC_UNION)
        return make_union(make, plan, field, schema, written);
    switch (field->kind) {
    case CODEC_BOOL:
        fits = written->type == AVSC_BOOLEAN;
        break;
    case CODEC_INT:
    case CODEC_LONG:
        fits = written->type == AVSC_INT || written->type == AVSC_LONG;
        break;
    case CODEC_TEXT:
    case CODEC_BYTES:
        fits = is_text(written);
        break;
    case CODEC_TEXT_NULL:
    case CODEC_BYTES_NULL:
        fits = is_text(written) || written->type == AVSC_NULL;
        break;
    case CODEC_ENUM:
        return written->type == AVSC_ENUM ? make_enum(make, plan, field, written) : misfit(make, written);
    case CODEC_STRUCT:
        plan->into_offset = field->offset;
        return make_record(make, plan, field->nested, schema, written);
    case CODEC_STRUCT_NULL:
        fits = written->type == AVSC_NULL;
        if (fits)
            break;
        return make_record(make, plan, field->nested, schema->types[1], written);
    case CODEC_ARRAY:
        if (written->type != AVSC_ARRAY)
            break;
        plan->children = children_new(make, 1);
        return plan->children != NULL &&
               make_record(make, plan->children, field->nested, schema->types[0], written->types[0]);
    case CODEC_ONE_OF:
        return make_choice(make, plan, field, schema, written);
    }
    return fits || misfit(make, written);
}

static const struct avsc_field *find_field(const struct avsc_node *record, struct str name)
{
    for (size_t i = 0; i < record->fields_count; i++) {
        if (str_equal(record->fields[i].name, name))
            return &record->fields[i];
    }
    return NULL;
}

static bool make_record(struct make *make, struct codec_plan *plan, const struct codec_struct *into,
                        const struct avsc_node *schema, const struct avsc_node *written)
{
    plan->node = written;
    plan->into = into;
    if (written->type != AVSC_RECORD || !str_is(avsc_short_name(written), into->name))
        return misfit(make, written);
    plan->children = children_new(make, written->fields_count);
    if (plan->children == NULL)
        return false;
    for (size_t i = 0; i < written->fields_count; i++)
        plan->children[i].node = written->fields[i].type;
    for (size_t i = 0; i < into->fields_count; i++) {
        const struct avsc_field *own = &schema->fields[i], *found = find_field(written, own->name);

        if (found == NULL && !own->has_default)
            return error_set(make->error, ERROR_POISON, "%s: no field %s, which this version needs", into->name,
                             into->fields[i].name);
        if (found != NULL &&
            !make_plan(make, &plan->children[found - written->fields], &into->fields[i], own->type, found->type))
            return error_wrap(make->error, "%s.%s", into->name, into->fields[i].name);
    }
    return true;
}

const struct codec_reader *codec_reader_new(struct arena *arena, const struct codec_struct *table,
                                            const struct avsc_node *schema, const struct avsc_node *written,
                                            struct error *error)
{
    struct codec_reader *reader = ARENA_NEW(arena, struct codec_reader);
    struct make make = {.arena = arena, .error = error};

    reader->name = table->name;
    return make_record(&make, &reader->root, table, schema, written) ? reader : NULL;
}
