/* SPDX-License-Identifier: Apache-2.0 */
/* bytes_range.h: from numbers to bytes, exact, in plain C: what bytes.h and dwconv_u8.h share.
 *
 * Bytes from numbers, the fast way (as in dot_finish.h): t = 256.5 + zero_point + v + slack * 2^-15 in float, clamped
 * to 256.5 + low .. 256.5 + high. As 256 <= t < 512, the upper eight bits of t's mantissa are the byte and the lower
 * fifteen the distance to the next tie below in units of 2^-15. `slack` bounds what float loses in these units; where
 * the distance is at most 2 * slack, float may have decided wrongly or it is a tie: then the whole block is computed
 * again in double. */
#ifndef TERSE_KERNELS_VEC_BYTES_RANGE_H
#define TERSE_KERNELS_VEC_BYTES_RANGE_H

#include <math.h>
#include <string.h>

#include "common/kernels/vec/tier.h"

enum { BYTES_BLOCK = 64 };

typedef struct bytes_range {
    float begin, low, high;
    uint32_t near;
} bytes_range;

/* `move`: what is taken off v in advance (zero points times scales). A slack that is too large makes all outputs near.
 */
static inline bytes_range bytes_range_for(double slack, double move, int32_t zero_point, int32_t low, int32_t high)
{
    const double unit = 1.0 / 32768.0;
    const bool fits = slack < 8000.0; /* NaN does not */
    return (bytes_range){.begin = (float)(256.5 + zero_point - move + (fits ? slack * unit : 0.0)),
                         .low = 256.5f + (float)low,
                         .high = 256.5f + (float)high,
                         .near = fits ? (uint32_t)(2.0 * slack) : UINT32_MAX};
}

INLINE uint32_t bytes_bits(float t, const bytes_range *r)
{
    uint32_t bits;
    t = t > r->low ? t : r->low; /* a NaN becomes low */
    t = t < r->high ? t : r->high;
    memcpy(&bits, &t, sizeof bits);
    return bits;
}

INLINE uint8_t bytes_exact(double v, int32_t zero_point, int32_t low, int32_t high)
{
    double q = rint(v) + (double)zero_point;
    q = q > (double)low ? q : (double)low;
    q = q < (double)high ? q : (double)high;
    return (uint8_t)(int32_t)q;
}

#endif
