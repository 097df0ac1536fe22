/* SPDX-License-Identifier: Apache-2.0 */
/* four.h: four floats, for what is too narrow for v16. */
#ifndef TERSE_KERNELS_VEC_FOUR_H
#define TERSE_KERNELS_VEC_FOUR_H

#include "common/kernels/vec/v16.h"

#if defined(__x86_64__)
#include <immintrin.h>

typedef __m128 four;

INLINE four four_zero(void)
{
    return _mm_setzero_ps();
}

/* sum + x * w[0..3] */
INLINE four four_fma(float x, const float *w, four sum)
{
    return _mm_fmadd_ps(_mm_set1_ps(x), _mm_loadu_ps(w), sum);
}

INLINE void four_store(float *to, four x)
{
    _mm_storeu_ps(to, x);
}
#elif defined(__aarch64__)
#include <arm_neon.h>

typedef float32x4_t four;

INLINE four four_zero(void)
{
    return vdupq_n_f32(0.0f);
}

INLINE four four_fma(float x, const float *w, four sum)
{
    return vfmaq_n_f32(sum, vld1q_f32(w), x);
}

INLINE void four_store(float *to, four x)
{
    vst1q_f32(to, x);
}
#endif

#endif
