/* SPDX-License-Identifier: Apache-2.0 */
/* dynamic.h: dynamic quantization of a tensor: its range, then bytes.
 *
 * The bytes are defined by a division. A product by the reciprocal is within 255 * 3 * 2^-24 of the quotient, so only
 * where it comes that near to the middle between two integers is the division done. */
#ifndef TERSE_KERNELS_VEC_DYNAMIC_H
#define TERSE_KERNELS_VEC_DYNAMIC_H

#include "common/kernels/vec/math.h"
#include "common/kernels/vec/tier.h"

#define ROUND_WHOLE 12582912.0f /* 1.5 * 2^23: adding and taking it off rounds what is smaller, ties to even */
#define NEAR_TIE 0.4999f

/* Is any number of a above that of b? */
INLINE bool v16_any_above(v16 a, v16 b)
{
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ))) !=
           0;
#elif defined(__aarch64__)
    const uint32x4_t low = vorrq_u32(vcgtq_f32(a.q[0], b.q[0]), vcgtq_f32(a.q[1], b.q[1]));
    const uint32x4_t high = vorrq_u32(vcgtq_f32(a.q[2], b.q[2]), vcgtq_f32(a.q[3], b.q[3]));
    return vmaxvq_u32(vorrq_u32(low, high)) != 0;
#endif
}

/* Whole numbers from 0 to 255 as bytes. */
INLINE void v16_store_u8(uint8_t *p, v16 x)
{
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
#elif defined(__AVX2__)
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)), 0xd8);
    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#elif defined(__aarch64__)
    const int16x8_t low = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.q[0])), vmovn_s32(vcvtnq_s32_f32(x.q[1])));
    const int16x8_t high = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.q[2])), vmovn_s32(vcvtnq_s32_f32(x.q[3])));
    vst1q_u8(p, vcombine_u8(vqmovun_s16(low), vqmovun_s16(high)));
#endif
}

void TIER_NAME(terse_range_f32)(const float *x, int64_t n, float *ret_low, float *ret_high)
{
    v16 low[2] = {v16_zero(), v16_zero()}, high[2] = {v16_zero(), v16_zero()};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        UNROLL for (int half = 0; half < 2; half++)
        {
            const v16 v = v16_load(x + i + 16 * half);
            low[half] = v16_min(v, low[half]); /* a NaN leaves the second operand */
            high[half] = v16_max(v, high[half]);
        }
    for (; i < n; i += 16) { /* the zeros behind the last one are in the range anyway */
        const v16 v = v16_load_up_to(x + i, n - i);
        low[0] = v16_min(v, low[0]);
        high[0] = v16_max(v, high[0]);
    }
    float lows[16], highs[16], least = 0.0f, most = 0.0f;
    v16_store(lows, v16_min(low[0], low[1]));
    v16_store(highs, v16_max(high[0], high[1]));
    for (int lane = 0; lane < 16; lane++) {
        least = lows[lane] < least ? lows[lane] : least;
        most = highs[lane] > most ? highs[lane] : most;
    }
    *ret_low = least;
    *ret_high = most;
}

/* min(high, max(low, x)) as it is here hands a NaN on. */
INLINE v16 dynamic_quotient(v16 x, v16 scale, v16 inverse, v16 low, v16 high, bool divide)
{
    const v16 round = v16_set1(ROUND_WHOLE);
    v16 v = v16_clip(divide ? v16_div(x, scale) : v16_mul(x, inverse), low, high);
    v16 whole = v16_sub(v16_add(v, round), round);
    if (!divide && v16_any_above(v16_abs(v16_sub(v, whole)), v16_set1(NEAR_TIE))) {
        v = v16_clip(v16_div(x, scale), low, high);
        whole = v16_sub(v16_add(v, round), round);
    }
    return v16_less(whole, v16_set1(1024.0f), whole, v16_zero()); /* a NaN becomes 0 */
}

void TIER_NAME(terse_quantize_float_u8)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n)
{
    const v16 scales = v16_set1(scale), inverse = v16_set1(1.0f / scale), zero = v16_set1((float)zero_point);
    const v16 low = v16_set1((float)-zero_point), high = v16_set1((float)(255 - zero_point));
    const bool divide = !(scale > 1e-30f && scale < 1e30f);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store_u8(y + i, v16_add(dynamic_quotient(v16_load(x + i), scales, inverse, low, high, divide), zero));
    if (i < n) {
        uint8_t last[16];
        v16_store_u8(
            last, v16_add(dynamic_quotient(v16_load_n(x + i, (int)(n - i)), scales, inverse, low, high, divide), zero));
        memcpy(y + i, last, (size_t)(n - i));
    }
}

#endif
