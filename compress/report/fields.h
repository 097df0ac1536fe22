/* SPDX-License-Identifier: Apache-2.0 */
/* fields.h: members of a report that are written as JSON and as msgpack, named once for both.
 * Runs in: terse-compress. Owns nothing.
 *
 * msgpack wants the number of members first: with neither writer they are only counted. */
#ifndef TERSE_COMPRESS_REPORT_FIELDS_H
#define TERSE_COMPRESS_REPORT_FIELDS_H

#include "common/json.h"
#include "compress/report/report.h"

typedef struct terse_fields {
    terse_json *json;       /* or NULL */
    msgpack_packer *packer; /* or NULL */
    uint32_t n;             /* members so far */
} terse_fields;

void terse_field_text(terse_fields *fields, const char *key, const char *text);
void terse_field_int(terse_fields *fields, const char *key, int64_t number);
void terse_field_number(terse_fields *fields, const char *key, double number); /* JSON: null for what is not finite */
void terse_field_bool(terse_fields *fields, const char *key, bool is);
void terse_field_null(terse_fields *fields, const char *key);
void terse_field_texts(terse_fields *fields, const char *key, const char *const *list, int n);

/* layers.c: every layer once, with all that each technique knows of it, as elements of an array; returns how many. */
uint32_t terse_report_layers(const terse_report *report, const terse_fields *to);

#endif
