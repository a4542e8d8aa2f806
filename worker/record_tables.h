/* record_tables.h: the field tables of the records. For record.c and the tests. */
#ifndef MYELIN_RECORD_TABLES_H
#define MYELIN_RECORD_TABLES_H

#include "worker/record.h"
#include "worker/wire/codec.h"

extern const struct codec_struct *const record_tables[RECORD_TYPES_COUNT];

#endif
