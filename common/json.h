/* SPDX-License-Identifier: Apache-2.0 */
/* json.h: writes one JSON value to a stream, commas and escapes included.
 * Runs in: terse, terse-compress. Owns nothing. The stream's own error flag tells whether all was written.
 *
 * `key` is the member's name inside an object and NULL inside an array and at the top. */
#ifndef TERSE_COMMON_JSON_H
#define TERSE_COMMON_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { TERSE_JSON_DEPTH = 32 };

typedef struct terse_json {
    FILE *out;
    int depth;
    bool filled[TERSE_JSON_DEPTH]; /* something stands before the next member: a comma is due */
    char close[TERSE_JSON_DEPTH];
} terse_json;

static inline terse_json terse_json_to(FILE *out)
{
    return (terse_json){.out = out};
}

void terse_json_object(terse_json *json, const char *key);
void terse_json_array(terse_json *json, const char *key);
void terse_json_end(terse_json *json);                                     /* closes the innermost object or array */
void terse_json_text(terse_json *json, const char *key, const char *text); /* bytes that are no UTF-8 become '?' */
void terse_json_text_n(terse_json *json, const char *key, const char *text, size_t length);
void terse_json_int(terse_json *json, const char *key, int64_t value);
void terse_json_uint(terse_json *json, const char *key, uint64_t value);
void terse_json_double(terse_json *json, const char *key, double value); /* what is not finite becomes null */
void terse_json_bool(terse_json *json, const char *key, bool value);
void terse_json_null(terse_json *json, const char *key);
/* Bytes of the UTF-8 sequence that starts at `text`, 0 when it is none (RFC 3629: no surrogates, nothing overlong).
 * `left` is at least 1. */
size_t terse_json_utf8(const char *text, size_t left);

#endif
