/*
 * schema_format.h: the formats of JSON Schema that contracts may use. Used by schema.c and schema_check.c only.
 */
#ifndef MYELIN_CONTRACT_SCHEMA_FORMAT_H
#define MYELIN_CONTRACT_SCHEMA_FORMAT_H

#include "worker/base/bytes.h"

enum schema_format { SCHEMA_FORMAT_NONE, SCHEMA_FORMAT_EMAIL, SCHEMA_FORMAT_URI, SCHEMA_FORMAT_DATE_TIME };

/* False when there is no such format (then `*format` is not set). */
bool schema_format_parse(struct str name, enum schema_format *format);

/*
 * email: a mailbox of RFC 5321, section 4.1.2 (ASCII, at most 254 octets; domain or address literal).
 * uri: RFC 3986, section 3, with its scheme; http and https with a host.
 * date-time: RFC 3339, section 5.6, with its ranges; second 60 only where a leap second can be (23:59 in UTC).
 */
bool schema_format_fits(enum schema_format format, struct str text);

/* What a text that does not fit must be, with an example; for a message. */
const char *schema_format_wants(enum schema_format format);

#endif
