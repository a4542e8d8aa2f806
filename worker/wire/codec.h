/*
 * codec.h: C structs to Avro binary and back, by tables.
 *
 * A table says which member of a C struct is which field of an Avro record. One writer and one reader work from it.
 *
 * The writer fills a generic value of avro-c and lets avro-c encode it. The reader is our own walk over the bytes, by
 * the schema of who wrote them: Debian's avro-c (1.11.1) cannot resolve a field that one side lacks, leaks on
 * truncated input and believes counts. All of that would have to be checked before avro-c sees a byte, and such a check
 * is a whole walk over them: it may as well put what it finds where it belongs.
 *
 * One thread at a time (avro-c).
 */
#ifndef MYELIN_WIRE_CODEC_H
#define MYELIN_WIRE_CODEC_H

#include <jansson.h>

#include "worker/wire/avsc.h"

#define CODEC_SIZE_MAX ((size_t)16 << 20) /* of an encoded record */
#define CODEC_DEPTH_MAX 64                /* of the values in it */

/* C type of the member ↔ Avro type of the field. */
enum codec_kind {
    CODEC_BOOL,        /* bool ↔ boolean */
    CODEC_INT,         /* int32_t ↔ int */
    CODEC_LONG,        /* int64_t ↔ long */
    CODEC_TEXT,        /* struct str ↔ string; STR_NONE is written as "" */
    CODEC_TEXT_NULL,   /* struct str ↔ ["null", "string"] */
    CODEC_BYTES,       /* struct str ↔ bytes; STR_NONE is written as no bytes */
    CODEC_BYTES_NULL,  /* struct str ↔ ["null", "bytes"] */
    CODEC_ENUM,        /* an enum counting from 0 ↔ enum: `symbols` in that order, then "unknown", its default */
    CODEC_STRUCT,      /* a struct ↔ record */
    CODEC_STRUCT_NULL, /* a pointer to a struct ↔ ["null", record] */
    CODEC_ARRAY,       /* a pointer to structs, and a size_t count ↔ array of record */
    CODEC_ONE_OF, /* a union of structs, and an enum that says which ↔ union of records, in the order of the enum */
};

struct codec_field {
    const char *name; /* in the schema */
    enum codec_kind kind;
    size_t offset;
    size_t beside_offset;              /* ARRAY: the count; ONE_OF: the enum */
    const struct codec_struct *nested; /* STRUCT, STRUCT_NULL, ARRAY: one; ONE_OF: `count` of them */
    const char *const *symbols;        /* ENUM: `count` of them */
    size_t count;
};

struct codec_struct {
    const char *name; /* of the record, without the namespace */
    size_t size;
    const struct codec_field *fields; /* in the order of the schema */
    size_t fields_count;
};

/* ---- writing: always by our own schema ---- */
struct codec_writer;

/* `schema` is what avsc_read made of `text`. ERROR_FATAL: the table and the schema do not fit; says where. */
struct codec_writer *codec_writer_new(const struct codec_struct *table, const struct avsc_node *schema, struct str text,
                                      struct error *error);
void codec_writer_free(struct codec_writer *writer); /* NULL is fine */

/* Appends `head` and the Avro binary of `object`, both or nothing. ERROR_POISON: what is in the struct cannot be
 * written (text that is no UTF-8, an enum out of range), or it does not fit into `out`. */
bool codec_write(struct codec_writer *writer, const void *object, struct str head, struct buf *out,
                 struct error *error);

/* ---- reading: by the schema of who wrote it ---- */
struct codec_reader;

/*
 * Prepares to read what was written by `written` into the struct of `table`, whose own schema is `schema`. Fields are
 * picked by name; one that was not written must have a default in our schema and is zero or STR_NONE in the struct.
 * Numbers may have been int or long, texts string or bytes, everything may have been in a union. ERROR_POISON: the two
 * cannot be brought together; says where. All in the arena, which must outlive the reader, as must the schemas.
 */
const struct codec_reader *codec_reader_new(struct arena *arena, const struct codec_struct *table,
                                            const struct avsc_node *schema, const struct avsc_node *written,
                                            struct error *error);

/* Any bytes; exactly one value and nothing after it. What it allocates is in proportion to the bytes. An enum symbol or
 * a union branch that this version does not know is an error: a guess would be worse. ERROR_POISON says what, where. */
bool codec_read(const struct codec_reader *reader, struct str bytes, struct arena *arena, void *object,
                struct error *error);

/* ---- for people and other programs ---- */

/* The struct as JSON, a new reference: fields by their names in the schema, null for an absent text, a symbol for an
 * enum, {"RecordName": {...}} for a union, bytes as text with a code point a byte (as in Avro's JSON encoding). */
json_t *codec_json(const struct codec_struct *table, const void *object);

#endif
