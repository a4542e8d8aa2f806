/*
 * codec_plan.h: how one schema of a writer is read into the structs of a table: what codec_plan.c makes and codec_read.c follows.
 * Nobody else includes this.
 */
#ifndef MYELIN_WIRE_CODEC_PLAN_H
#define MYELIN_WIRE_CODEC_PLAN_H

#include "worker/wire/codec.h"

/* What is to be done with one type of the writer's schema: a plan, made once for each schema that is met. */
struct codec_plan {
    const struct avsc_node *node;
    const struct codec_field *field; /* where the value goes; NULL: it is read and dropped */
    const struct codec_struct *into; /* RECORD: the struct that it fills; NULL: it is dropped */
    size_t into_offset;              /* RECORD: of that struct from the object */
    int32_t tag;                     /* RECORD in a ONE_OF: the value of the enum beside it */
    struct codec_plan *children;     /* RECORD: by field, UNION: by branch, ARRAY: one for the items */
    int32_t *symbols;                /* ENUM: the C value by symbol, -1 = not known to this version */
    bool misfit;                     /* the branch of a union that has no place in the struct */
};

struct codec_reader {
    struct codec_plan root;
    const char *name;
};

#endif
