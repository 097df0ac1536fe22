/* SPDX-License-Identifier: Apache-2.0 */
/* v16_avx512.h: v16 as one zmm register. */
#ifndef TERSE_KERNELS_V16_AVX512_H
#define TERSE_KERNELS_V16_AVX512_H

#include <immintrin.h>

typedef __m512 v16;

/* Rows x panels of sixteen columns of the widest product tile: 28 accumulators, 2 of B, 1 of A. */
enum { TILE_ROWS = 14, TILE_PANELS = 8, WINDOW_BLOCK = 8 };
/* How many panels a tile of `rows` rows takes at most, so that registers suffice and FMA latency is hidden. */
#define TILE_WIDE(rows) ((rows) <= 2 ? 8 : (rows) <= 6 ? 4 : (rows) <= 9 ? 3 : 2)

/* The tiles that are compiled: (rows, panels). */
/* clang-format off */
#define TILE_LIST(X) \
    X(1, 1) X(1, 2) X(1, 4) X(1, 8) X(2, 1) X(2, 2) X(2, 4) X(2, 8) X(3, 1) X(3, 2) X(3, 4) X(4, 1) X(4, 2) X(4, 4) \
    X(5, 1) X(5, 2) X(5, 4) X(6, 1) X(6, 2) X(6, 4) X(7, 1) X(7, 2) X(7, 3) X(8, 1) X(8, 2) X(8, 3) X(9, 1) X(9, 2) \
    X(9, 3) X(10, 1) X(10, 2) X(11, 1) X(11, 2) X(12, 1) X(12, 2) X(13, 1) X(13, 2) X(14, 1) X(14, 2)
/* clang-format on */
/* Many rows are dealt out to these (to eight where they lie 4096 bytes apart); small products feel one and eight. */
#define TILE_ENDS_IN_REGISTERS(rows) ((rows) == 1 || (rows) == 8 || (rows) >= 12)

INLINE __mmask16 v16_mask(int n)
{
    return (__mmask16)((1u << n) - 1u);
}

INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

INLINE v16 v16_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(v16_mask(n), p);
}

INLINE void v16_store(float *p, v16 x)
{
    _mm512_storeu_ps(p, x);
}

INLINE void v16_store_n(float *p, v16 x, int n)
{
    _mm512_mask_storeu_ps(p, v16_mask(n), x);
}

INLINE v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}

INLINE v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}

INLINE v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

INLINE v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

INLINE v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

INLINE v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

INLINE v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

INLINE v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

/* The maximum in which a NaN wins. */
INLINE v16 v16_max_nan(v16 m, v16 x)
{
    return _mm512_mask_mov_ps(_mm512_max_ps(m, x), _mm512_cmp_ps_mask(m, m, _CMP_UNORD_Q), m);
}

INLINE v16 v16_abs(v16 x)
{
    return _mm512_abs_ps(x);
}

INLINE v16 v16_copysign(v16 magnitude, v16 sign)
{
    const __m512 bit = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(bit, magnitude), _mm512_and_ps(bit, sign));
}

/* a < b ? x : y */
INLINE v16 v16_less(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

/* p * 2^n, n = z - round being whole numbers. */
INLINE v16 v16_scale(v16 p, v16 z, v16 round)
{
    return _mm512_scalef_ps(p, _mm512_sub_ps(z, round));
}

INLINE float v16_reduce_add(v16 x)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

/* x[i] lane j becomes x[j] lane i. */
INLINE void v16_transpose(v16 x[16])
{
    __m512 t[16];
    UNROLL for (int i = 0; i < 16; i += 2)
    {
        t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
    {
        __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        x[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        x[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        x[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        x[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        t[i] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        x[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        x[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* x, in registers from here on: gcc would rather read it from memory once for each FMA. */
INLINE v16 v16_keep(v16 x)
{
    __asm__("" : "+v"(x));
    return x;
}

/* Into the second-level cache. */
INLINE void v16_prefetch(const float *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}

#endif
