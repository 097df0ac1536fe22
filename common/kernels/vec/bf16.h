/* SPDX-License-Identifier: Apache-2.0 */
/* bf16.h: sixteen BF16 as a v16 of floats and back, and the product of pairs. */
#ifndef TERSE_KERNELS_VEC_BF16_H
#define TERSE_KERNELS_VEC_BF16_H

#include "common/kernels/bf16.h"
#include "common/kernels/kernels.h"
#include "common/kernels/vec/v16.h"

#if defined(__AVX512F__)

INLINE v16 v16_from_bf16(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

/* At most sixteen, by a mask. */
INLINE v16 v16_load_few_bf16(const uint16_t *p, int n)
{
    return v16_from_bf16(_mm256_maskz_loadu_epi16(v16_mask(n), p));
}

INLINE v16 v16_load_bf16(const uint16_t *p, int64_t left)
{
    return left >= 16 ? v16_from_bf16(_mm256_loadu_si256((const __m256i *)(const void *)p))
                      : v16_load_few_bf16(p, (int)left);
}

/* Of the products, whose multiplications take subnormal numbers for zero too, or by hand. */
INLINE __m256i v16_to_bf16(v16 x)
{
#if defined(__AVX512BF16__)
    return (__m256i)_mm512_cvtneps_pbh(x);
#else
    const __m512i bits = _mm512_castps_si512(x),
                  odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
#endif
}

INLINE void v16_store_bf16(uint16_t *p, v16 x, int64_t left)
{
    if (left >= 16)
        _mm256_storeu_si256((__m256i *)(void *)p, v16_to_bf16(x));
    else
        _mm256_mask_storeu_epi16(p, v16_mask((int)left), v16_to_bf16(x));
}

/* Thirty-two side by side. */
INLINE void v16_store_two_bf16(uint16_t *p, v16 low, v16 high)
{
#if defined(__AVX512BF16__)
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
#else
    v16_store_bf16(p, low, 16);
    v16_store_bf16(p + 16, high, 16);
#endif
}

INLINE v16 v16_pair_even(v16 x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
}

INLINE v16 v16_pair_odd(v16 x)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xffff0000u)));
}

#else

/* Calls: inlined into every tile they would be most of the code. */
APART v16 v16_load_few_bf16(const uint16_t *p, int left)
{
    float lanes[16];
    for (int i = 0; i < 16; i++)
        lanes[i] = i < left ? bf16_to(p[i]) : 0.0f;
    return v16_load(lanes);
}

INLINE v16 v16_load_bf16(const uint16_t *p, int64_t left)
{
    if (left < 16)
        return v16_load_few_bf16(p, (int)left);
#if defined(__AVX2__)
    const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(p + 8));
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(b), 16))};
#else
    v16 x;
    UNROLL for (int i = 0; i < 4; i++) x.q[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + i * 4), 16));
    return x;
#endif
}

APART void v16_store_bf16(uint16_t *p, v16 x, int64_t left)
{
    float lanes[16];
    v16_store(lanes, x);
    for (int i = 0; i < 16 && i < left; i++)
        p[i] = bf16_from(lanes[i]);
}

INLINE void v16_store_two_bf16(uint16_t *p, v16 low, v16 high)
{
    v16_store_bf16(p, low, 16);
    v16_store_bf16(p + 16, high, 16);
}

#if defined(__AVX2__)
INLINE v16 v16_pair_even(v16 x)
{
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x.a), 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x.b), 16))};
}

INLINE v16 v16_pair_odd(v16 x)
{
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u));
    return (v16){_mm256_and_ps(x.a, mask), _mm256_and_ps(x.b, mask)};
}
#else
INLINE v16 v16_pair_even(v16 x)
{
    UNROLL for (int i = 0; i < 4; i++) x.q[i] = vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x.q[i]), 16));
    return x;
}

INLINE v16 v16_pair_odd(v16 x)
{
    const uint32x4_t mask = vdupq_n_u32(0xffff0000u);
    UNROLL for (int i = 0; i < 4; i++) x.q[i] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x.q[i]), mask));
    return x;
}
#endif
#endif

/* acc + a.odd * b.odd + a.even * b.even, lane by lane. */
INLINE v16 v16_dot_bf16(v16 a, v16 b, v16 acc)
{
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
#else
    return v16_fma(v16_pair_even(a), v16_pair_even(b), v16_fma(v16_pair_odd(a), v16_pair_odd(b), acc));
#endif
}

/* The same convolution with BF16 behind the pointers of floats; strides and channels are as in `args`. */
INLINE terse_conv_f32_args conv_args_of_bf16(const terse_conv_bf16_args *args, int64_t groups)
{
    terse_conv_f32_args same = {.n = args->n,
                                .channels = args->channels,
                                .filters = args->filters,
                                .groups = groups,
                                .input = (const float *)(const void *)args->input,
                                .in_stride = args->in_stride,
                                .weights = args->weights,
                                .bias = args->bias,
                                .residual = args->residual,
                                .residual_stride = args->residual_stride,
                                .output = args->output,
                                .out_stride = args->out_stride,
                                .activation = args->activation,
                                .scratch = args->scratch};
    for (int axis = 0; axis < 3; axis++) {
        same.in[axis] = args->in[axis];
        same.out[axis] = args->out[axis];
        same.kernel[axis] = args->kernel[axis];
        same.stride[axis] = args->stride[axis];
        same.dilation[axis] = args->dilation[axis];
        same.pad[axis] = args->pad[axis];
    }
    return same;
}

#endif
