/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"

void terse_range_f32_ref(const float *x, int64_t n, float *ret_low, float *ret_high)
{
    float low = 0.0f, high = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        low = ref_min(x[i], low);
        high = ref_max(x[i], high);
    }
    *ret_low = low;
    *ret_high = high;
}

void terse_quantize_float_u8_ref(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n)
{
    const float low = (float)-zero_point, high = (float)(255 - zero_point);
    for (int64_t i = 0; i < n; i++) {
        const float v = ref_min(high, ref_max(low, x[i] / scale));
        y[i] = (uint8_t)((v != v ? 0 : (int32_t)rintf(v)) + zero_point);
    }
}
