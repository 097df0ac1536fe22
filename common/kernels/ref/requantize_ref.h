/* SPDX-License-Identifier: Apache-2.0 */
/* requantize_ref.h: requantization as quantized.h defines it, one element at a time: the definition for all tiers.
 * Runs in: as the reference kernels. */
#ifndef TERSE_KERNELS_REF_REQUANTIZE_REF_H
#define TERSE_KERNELS_REF_REQUANTIZE_REF_H

#include <math.h>

#include "common/kernels/quantized.h"
#include "common/kernels/ref/math_ref.h"

/* The nearest integer, ties to even, plus the zero point, clamped. A NaN becomes `low`. */
static inline uint8_t ref_clamp(double v, int32_t zero_point, int32_t low, int32_t high)
{
    double q = rint(v) + (double)zero_point;
    q = q > (double)low ? q : (double)low;
    q = q < (double)high ? q : (double)high;
    return (uint8_t)q;
}

/* The wrapping sum of 32-bit numbers, in which signed overflow has a meaning. */
static inline int32_t ref_wrap_add(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

/* Element (row, column) of the output of `to` from its sum; `index`: of the element in the output. */
static inline void ref_put(const terse_requantize *to, int32_t sum, int64_t row, int64_t column, void *output,
                           int64_t index)
{
    if (to->bias)
        sum = ref_wrap_add(sum, to->bias[column]);
    if (to->to == TERSE_SUMS_TO_S32) {
        ((int32_t *)output)[index] = sum;
        return;
    }
    const int64_t from = row * to->residual_stride + column;
    if (to->to == TERSE_SUMS_TO_F32) {
        float x = fmaf((float)sum, to->multiplier[column], to->bias_f32 ? to->bias_f32[column] : 0.0f);
        if (to->residual_f32)
            x += to->residual_f32[from];
        ((float *)output)[index] = ref_activate(x, &to->activation);
        return;
    }
    double low = to->multiplier_low ? (double)to->multiplier_low[column] : 0.0;
    double v = (double)sum * ((double)to->multiplier[column] + low);
    if (to->residual)
        v += (double)(to->residual[from] - to->residual_zero_point) * to->residual_scale;
    ((uint8_t *)output)[index] = ref_clamp(v, to->zero_point, to->low, to->high);
}

#endif
