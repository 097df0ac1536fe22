/* SPDX-License-Identifier: Apache-2.0 */
/* scan.h: JSON from outside, read value by value from a buffer; nothing is allocated and nothing is copied but texts.
 * Runs in: terse-gateway. Owns nothing: it looks at the caller's bytes.
 *
 * Every function returns false for what it does not find; `error` then says what was found and at which byte. After a
 * failure the scan is of no use. RFC 8259, at most TERSE_SCAN_DEPTH deep; numbers may also be NaN and Infinity. */
#ifndef TERSE_GATEWAY_SCAN_H
#define TERSE_GATEWAY_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { TERSE_SCAN_DEPTH = 64, TERSE_SCAN_TEXT = 1024 };

typedef struct terse_scan {
    const char *start, *at, *end;
    terse_error *error;
} terse_scan;

/* A text with its escapes resolved, UTF-8, no byte 0 in it. */
typedef struct terse_scan_text {
    size_t length;
    char data[TERSE_SCAN_TEXT + 1];
} terse_scan_text;

terse_scan terse_scan_over(const char *data, size_t size, terse_error *error);
/* The next byte that is no blank, not taken; 0 at the end. */
char terse_scan_peek(terse_scan *scan);
/* Begins an object or an array ('{', '['). */
bool terse_scan_open(terse_scan *scan, char bracket, const char *what);
/* The next value of an array is to be read; *ret_end: there is none, and the array was left. `first` is true for the
 * first call. */
bool terse_scan_item(terse_scan *scan, bool first, bool *ret_end);
/* Goes through an object or an array: `take` reads one value, or passes over it, and returns false for what it refuses;
 * of an object it has the member's name. */
typedef bool terse_scan_take(void *user, const terse_scan_text *name);
bool terse_scan_members(terse_scan *scan, const char *what, terse_scan_take *take, void *user);
bool terse_scan_items(terse_scan *scan, const char *what, terse_scan_take *take, void *user);
bool terse_scan_string(terse_scan *scan, const char *what, terse_scan_text *ret_text);
bool terse_scan_bool(terse_scan *scan, const char *what, bool *ret_value);
/* A whole number from min to max. */
bool terse_scan_int(terse_scan *scan, const char *what, int64_t min, int64_t max, int64_t *ret_value);
/* Passes over one value, whatever it is. */
bool terse_scan_skip(terse_scan *scan);
/* Only blanks are left. */
bool terse_scan_done(terse_scan *scan);
/* Fails with what stands at `at`: "byte 17: found 'x', WHAT is wanted". Always false. */
bool terse_scan_fail(const terse_scan *scan, const char *at, const char *what);

static inline bool terse_scan_is(const terse_scan_text *text, const char *word)
{
    return __builtin_strcmp(text->data, word) == 0;
}

#endif
