/* SPDX-License-Identifier: Apache-2.0 */
/* fixed.h: from real numbers v to bytes round(v) + zero point in a range, as quantized.h defines them in double.
 *
 * t = 256.5 + zero_point + v in float, clamped to 256.5 + low .. 256.5 + high. As 256 <= t < 512, the upper eight bits
 * of t's mantissa are the byte (v rounded half up, plus the zero point), and the lower fifteen its distance to the next
 * tie below in units of 2^-15. The caller says by how many units (`slack`) its t may err; t is moved up by them, and
 * where the distance is then at most twice that, float may have decided wrongly, or v is a tie, which goes to the even
 * number: those VB bytes are computed again in double. */
#ifndef TERSE_KERNELS_VEC_FIXED_H
#define TERSE_KERNELS_VEC_FIXED_H

#include "common/kernels/vec/vb.h"

typedef struct fixed_range {
    float begin, low, high; /* begin: 256.5 + zero point + slack */
    uint16_t near;
} fixed_range;

/* `move` is added to t too. Where !(slack < 4000), or `exact` is asked for, all is computed in double. */
INLINE fixed_range fixed_for(int32_t zero_point, int32_t low, int32_t high, double slack, double move, bool exact)
{
    const bool fits = !exact && slack < 4000.0;
    return (fixed_range){.begin = fits ? (float)(256.5 + zero_point + slack / 32768.0 + move) : 256.5f,
                         .low = 256.5f + (float)low,
                         .high = 256.5f + (float)high,
                         .near = fits ? (uint16_t)(4.0 * slack) : UINT16_MAX};
}

INLINE vb fixed_pack(const fixed_range *f, vf t[4], bool *ret_near)
{
    const vf low = vf_set1(f->low), high = vf_set1(f->high);
    UNROLL for (int i = 0; i < 4; i++) t[i] = vf_clamp(t[i], low, high); /* a NaN becomes low */
    return vb_from_fixed(t, f->near, ret_near);
}

/* The definition. */
INLINE uint8_t fixed_exact(double v, int32_t zero_point, int32_t low, int32_t high)
{
    double q = rint(v) + (double)zero_point;
    q = q > (double)low ? q : (double)low; /* a NaN becomes low */
    q = q < (double)high ? q : (double)high;
    return (uint8_t)(int32_t)q;
}

/* VB of them; numbers by value, so that compilers see that no byte written is one of them. */
INLINE void fixed_exact_all(const double v[VB], int32_t zero_point, int32_t low, int32_t high, uint8_t *ret_y)
{
    int32_t y[VB];
    for (int i = 0; i < VB; i++)
        y[i] = fixed_exact(v[i], zero_point, low, high);
    for (int i = 0; i < VB; i++)
        ret_y[i] = (uint8_t)y[i];
}

#endif
