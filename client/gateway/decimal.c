/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/decimal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RANGE = 54,  /* powers of ten from -RANGE to RANGE are kept: 5^54 has 126 bits */
    DIGITS = 19, /* so many decimal digits fit 64 bits */
    MANTISSA = 52,
    BIAS = 1023,
};

typedef unsigned __int128 u128;

static u128 fives[2 * RANGE + 1]; /* the leading 128 bits of 5^q, rounded up below q = 0 */

static u128 shifted_up(u128 value)
{
    while (!(value >> 127))
        value <<= 1;
    return value;
}

/* 2^(z+127) / power + 1, where 2^(z-1) < power < 2^z: 128 bits. */
static u128 reciprocal(u128 power)
{
    int z = 0;
    while (z < 128 && power >> z)
        z++;
    u128 rest = 0, quotient = 0;
    for (int i = z + 127; i >= 0; i--) {
        rest = rest << 1 | (i == z + 127);
        quotient <<= 1;
        if (rest >= power) {
            rest -= power;
            quotient |= 1;
        }
    }
    return quotient + 1;
}

void terse_decimal_init(void)
{
    u128 power = 1;
    for (int q = 0; q <= RANGE; q++, power *= 5) {
        fives[RANGE + q] = shifted_up(power);
        if (q > 0)
            fives[RANGE - q] = reciprocal(power);
    }
}

/* digits * 10^q rounded to the nearest double, ties to even; false: too close to call, or not in the range of what is
 * kept. The product of the digits and the power's leading bits is nearly always enough to round by. */
static bool round_product(uint64_t digits, int q, double *ret_value)
{
    if (digits == 0) {
        *ret_value = 0;
        return true;
    }
    if (q < -RANGE || q > RANGE)
        return false;
    const int shift = __builtin_clzll(digits);
    const uint64_t normal = digits << shift, mask = UINT64_MAX >> (MANTISSA + 3);
    const u128 first = (u128)normal * (uint64_t)(fives[RANGE + q] >> 64);
    uint64_t high = (uint64_t)(first >> 64), low = (uint64_t)first;
    if ((high & mask) == mask) {
        const uint64_t more = (uint64_t)((u128)normal * (uint64_t)fives[RANGE + q] >> 64);
        low += more;
        high += low < more;
    }
    if (low == UINT64_MAX && (q < -27 || q > 55))
        return false;
    const int upper = (int)(high >> 63), drop = upper + 64 - MANTISSA - 3;
    uint64_t mantissa = high >> drop;
    int exponent = (((152170 + 65536) * q) >> 16) + 63 + upper - shift + BIAS;
    if (exponent <= 0)
        return false;
    if (low <= 1 && q >= -4 && q <= 23 && (mantissa & 3) == 1 && mantissa << drop == high)
        mantissa &= ~(uint64_t)1; /* exactly between two */
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    if (mantissa >> (MANTISSA + 1)) {
        mantissa = (uint64_t)1 << MANTISSA;
        exponent++;
    }
    if (exponent >= 2 * BIAS + 1)
        return false;
    const uint64_t bits = (mantissa & ~((uint64_t)1 << MANTISSA)) | (uint64_t)exponent << MANTISSA;
    memcpy(ret_value, &bits, sizeof bits);
    return true;
}

static bool is_digit(const char *at, const char *end)
{
    return at < end && (unsigned char)(*at - '0') < 10;
}

static const char *read_word(const char *at, const char *end, bool negative, double *ret_value)
{
    if (!negative && end - at >= 3 && memcmp(at, "NaN", 3) == 0) {
        *ret_value = NAN;
        return at + 3;
    }
    if (end - at >= 8 && memcmp(at, "Infinity", 8) == 0) {
        *ret_value = negative ? -INFINITY : INFINITY;
        return at + 8;
    }
    return NULL;
}

/* The number from `start` to `end`, whose form has been checked. */
static const char *read_slowly(const char *start, const char *end, double *ret_value)
{
    char copy[TERSE_DECIMAL_LONGEST + 1];
    const size_t length = (size_t)(end - start);
    if (length > TERSE_DECIMAL_LONGEST)
        return NULL;
    memcpy(copy, start, length);
    copy[length] = 0;
    *ret_value = strtod(copy, NULL);
    return end;
}

/* Digits go on at `at`; counts those that matter. */
static const char *read_digits(const char *at, const char *end, uint64_t *digits, int *n_digits)
{
    uint64_t sum = *digits;
    int n = *n_digits;
    for (; is_digit(at, end); at++) {
        sum = sum * 10 + (uint64_t)(*at - '0'); /* beyond DIGITS nobody uses it */
        n += n > 0 || *at != '0';
    }
    *digits = sum;
    *n_digits = n;
    return at;
}

static const char *read_exponent(const char *at, const char *end, int *exponent)
{
    const bool below = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+'))
        at++;
    if (!is_digit(at, end))
        return NULL;
    int value = 0;
    for (; is_digit(at, end); at++)
        value = value < 100000 ? value * 10 + (*at - '0') : value;
    *exponent += below ? -value : value;
    return at;
}

const char *terse_decimal_read(const char *at, const char *end, double *ret_value)
{
    const char *start = at;
    const bool negative = at < end && *at == '-';
    uint64_t digits = 0;
    int n_digits = 0, exponent = 0;
    at += negative;
    if (!is_digit(at, end))
        return read_word(at, end, negative, ret_value);
    if (*at == '0' && is_digit(at + 1, end))
        return NULL;
    at = read_digits(at, end, &digits, &n_digits);
    if (at < end && *at == '.') {
        const char *point = ++at;
        at = read_digits(at, end, &digits, &n_digits);
        if (at == point)
            return NULL;
        exponent = (int)((at - point) > 100000 ? -100000 : point - at);
    }
    if (at < end && (*at == 'e' || *at == 'E') && !(at = read_exponent(at + 1, end, &exponent)))
        return NULL;
    double value = 0;
    if (n_digits > DIGITS || !round_product(digits, exponent, &value))
        return read_slowly(start, at, ret_value);
    *ret_value = negative ? -value : value;
    return at;
}

const char *terse_decimal_whole(const char *at, const char *end, uint64_t *ret_magnitude, bool *ret_negative)
{
    const bool negative = at < end && *at == '-';
    uint64_t value = 0;
    at += negative;
    if (!is_digit(at, end) || (*at == '0' && is_digit(at + 1, end)))
        return NULL;
    for (; is_digit(at, end); at++)
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return NULL;
    if (at < end && (*at == '.' || *at == 'e' || *at == 'E'))
        return NULL;
    *ret_magnitude = value;
    *ret_negative = negative;
    return at;
}

/* --- writing ---------------------------------------------------------------------------------------------- */

size_t terse_decimal_uint(char *to, uint64_t value)
{
    char back[20];
    size_t n = 0;
    do
        back[n++] = (char)('0' + value % 10);
    while (value /= 10);
    for (size_t i = 0; i < n; i++)
        to[i] = back[n - 1 - i];
    return n;
}

size_t terse_decimal_int(char *to, int64_t value)
{
    *to = '-';
    return value < 0 ? 1 + terse_decimal_uint(to + 1, 0 - (uint64_t)value) : terse_decimal_uint(to, (uint64_t)value);
}

static size_t put_word(char *to, const char *word)
{
    const size_t length = strlen(word);
    memcpy(to, word, length);
    return length;
}

/* A number that is none has no JSON; Python and Triton write these words. */
static size_t put_special(char *to, double value)
{
    return put_word(to, isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
}

/* digits * 10^q, with a point or an exponent, so that every reader takes it for a float. */
static size_t put_digits(char *to, uint64_t digits, int q)
{
    char all[20];
    char *at = to;
    while (digits % 10 == 0 && digits > 0) {
        digits /= 10;
        q++;
    }
    const int n = (int)terse_decimal_uint(all, digits), point = n + q; /* digits before the point */
    if (point > 0 && point <= 9) {
        for (int i = 0; i < point; i++)
            *at++ = i < n ? all[i] : '0';
        *at++ = '.';
        for (int i = point; i < n; i++)
            *at++ = all[i];
        if (point >= n)
            *at++ = '0';
    } else if (point <= 0 && point > -5) {
        at += put_word(at, "0.");
        for (int i = point; i < 0; i++)
            *at++ = '0';
        for (int i = 0; i < n; i++)
            *at++ = all[i];
    } else {
        *at++ = all[0];
        *at++ = '.';
        for (int i = 1; i < n; i++)
            *at++ = all[i];
        if (n == 1)
            *at++ = '0';
        *at++ = 'e';
        at += terse_decimal_int(at, point - 1);
    }
    return (size_t)(at - to);
}

static size_t put_printed(char *to, double value, int digits)
{
    char text[TERSE_DECIMAL_MAX];
    const int n = snprintf(text, sizeof text, "%.*g", digits, value);
    size_t length = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    memcpy(to, text, length);
    if (!memchr(to, '.', length) && !memchr(to, 'e', length))
        length += put_word(to + length, ".0");
    return length;
}

/* 10^q within a few parts of 10^16 */
static double power_of_ten(int q)
{
    static const double small[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    double value = 1;
    for (; q > 22; q -= 22)
        value *= 1e22;
    return value * small[q];
}

static double scaled(double value, int q)
{
    return q < 0 ? value / power_of_ten(-q) : value * power_of_ten(q);
}

size_t terse_decimal_float(char *to, float value)
{
    static const double rounding[] = {100, 10, 1};
    if (!isfinite(value))
        return put_special(to, (double)value);
    char *at = to;
    if (signbit(value))
        *at++ = '-';
    const double magnitude = fabs((double)value);
    if (magnitude == 0)
        return (size_t)(at - to) + put_word(at, "0.0");
    /* Nine digits of it: 10^8 <= nine < 10^9, or the next power when it rounds up to that. */
    int q = 0;
    double nine = 0;
    frexp(magnitude, &q);
    q = 8 - (int)floor((q - 1) * 0.30102999566398120);
    nine = scaled(magnitude, q);
    if (nine >= 1e9)
        nine = scaled(magnitude, --q);
    for (int i = 0; i < 3; i++) { /* seven, eight, nine */
        double again = 0;
        const uint64_t digits = (uint64_t)(nine / rounding[i] + 0.5);
        if (round_product(digits, 2 - i - q, &again) && (float)again == (float)magnitude)
            return (size_t)(at - to) + put_digits(at, digits, 2 - i - q);
    }
    return (size_t)(at - to) + put_printed(at, magnitude, 9);
}

size_t terse_decimal_double(char *to, double value)
{
    if (!isfinite(value))
        return put_special(to, value);
    for (int digits = 15; digits < 17; digits++) {
        char text[TERSE_DECIMAL_MAX];
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return put_printed(to, value, digits);
    }
    return put_printed(to, value, 17);
}
