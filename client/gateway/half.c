/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/half.h"

#include <string.h>

enum { WIDE_FRACTION = 52, WIDE_BIAS = 1023, WIDE_SPECIAL = 2047 };

/* Sign, exponent, fraction: 1, 5 and 10 bits of FP16; 1, 8 and 7 of BF16. */
static int fraction_bits(terse_dtype dtype)
{
    return dtype == TERSE_FP16 ? 10 : 7;
}

static uint32_t infinity(terse_dtype dtype)
{
    return 0x7fffu >> fraction_bits(dtype) << fraction_bits(dtype);
}

bool terse_half_from(terse_dtype dtype, double value, uint16_t *ret_half)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const int fraction = fraction_bits(dtype), bias = (1 << (14 - fraction)) - 1;
    const int wide_exponent = (int)(bits >> WIDE_FRACTION & WIDE_SPECIAL);
    const int exponent = wide_exponent - WIDE_BIAS + bias;
    const uint32_t sign = (uint32_t)(bits >> 63) << 15;
    const uint64_t low = bits & (((uint64_t)1 << WIDE_FRACTION) - 1);
    if (wide_exponent == WIDE_SPECIAL) {
        *ret_half = (uint16_t)(sign | infinity(dtype) | (low ? 1u << (fraction - 1) : 0));
        return true;
    }
    /* With its leading one; what is subnormal as FP64 is far below half of the smallest number here. */
    const uint64_t significand = wide_exponent ? low | (uint64_t)1 << WIDE_FRACTION : 0;
    const int shift = WIDE_FRACTION - fraction + (exponent < 1 ? 1 - exponent : 0);
    uint64_t kept = 0;
    if (shift <= WIDE_FRACTION + 1) {
        const uint64_t rest = significand & (((uint64_t)1 << shift) - 1), tie = (uint64_t)1 << (shift - 1);
        kept = significand >> shift;
        kept += rest > tie || (rest == tie && (kept & 1));
    }
    /* The leading one, where it was kept, counts for one of the exponent; a carry goes the same way. */
    if (exponent > 1)
        kept += (uint64_t)(exponent - 1) << fraction;
    if (kept >= infinity(dtype))
        return false;
    *ret_half = (uint16_t)(sign | (uint32_t)kept);
    return true;
}

float terse_half_to(terse_dtype dtype, uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    uint32_t bits = magnitude << (23 - fraction_bits(dtype));
    float value;
    if (dtype == TERSE_FP16) {
        if (magnitude < 0x400u) { /* subnormal: a multiple of 2^-24 */
            value = (float)magnitude * 0x1p-24f;
            memcpy(&bits, &value, sizeof bits);
        } else {
            bits += (uint32_t)(magnitude >= infinity(dtype) ? 255 - 31 : 127 - 15) << 23;
        }
    }
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float terse_half_max(terse_dtype dtype)
{
    return terse_half_to(dtype, (uint16_t)(infinity(dtype) - 1));
}
