/* SPDX-License-Identifier: Apache-2.0 */
/* decimal.h: numbers as JSON writes them, read and written fast and exactly.
 * Runs in: terse-gateway. Owns nothing; terse_decimal_init once, before anything else.
 *
 * Reading gives what strtod gives, to the last bit, some ten times as fast for the numbers that programs write (up to
 * 19 digits, exponents that are not extreme; D. Lemire, Number Parsing at a Gigabyte per Second, 2021); the others go
 * through strtod. Writing gives the fewest digits that read back as the same FP32. */
#ifndef TERSE_GATEWAY_DECIMAL_H
#define TERSE_GATEWAY_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TERSE_DECIMAL_MAX = 32,     /* bytes of any number that is written */
    TERSE_DECIMAL_LONGEST = 512 /* bytes of a number that is read; more are refused */
};

void terse_decimal_init(void);

/* Reads one JSON number at `at`, of the bytes before `end`. Returns what follows it; NULL when there is none, or it is
 * too long. NaN, Infinity and -Infinity are read too, as Python writes them. */
const char *terse_decimal_read(const char *at, const char *end, double *ret_value);
/* Reads a whole number: digits, perhaps with a sign. NULL when it is none (a point or an exponent follow), or beyond 64
 * bits; *ret_magnitude and *ret_negative say which. */
const char *terse_decimal_whole(const char *at, const char *end, uint64_t *ret_magnitude, bool *ret_negative);

/* Write at `to`, where TERSE_DECIMAL_MAX bytes are free; return how many were written. No final 0. */
size_t terse_decimal_float(char *to, float value);
size_t terse_decimal_double(char *to, double value);
size_t terse_decimal_uint(char *to, uint64_t value);
size_t terse_decimal_int(char *to, int64_t value);

#endif
