/* SPDX-License-Identifier: Apache-2.0 */
/* v16_avx2.h: v16 as two ymm registers. */
#ifndef TERSE_KERNELS_V16_AVX2_H
#define TERSE_KERNELS_V16_AVX2_H

#include <immintrin.h>

typedef struct v16 {
    __m256 a, b;
} v16;

/* Sixteen registers: 6 x 16 takes 12 accumulators, 2 of B, 1 of A. */
enum { TILE_ROWS = 6, TILE_PANELS = 4, WINDOW_BLOCK = 4 };
#define TILE_WIDE(rows) ((rows) == 1 ? 4 : (rows) == 2 ? 2 : 1)

/* The tiles that are compiled: (rows, panels). */
#define TILE_LIST(X) X(1, 1) X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(3, 1) X(4, 1) X(5, 1) X(6, 1)
#define TILE_ENDS_IN_REGISTERS(rows) ((rows) >= 5)

static const int32_t v16_masks[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

INLINE __m256i v16_mask_a(int n)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(v16_masks + 16 - n));
}

INLINE __m256i v16_mask_b(int n)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(v16_masks + 24 - n));
}

INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

INLINE v16 v16_load_n(const float *p, int n)
{
    return (v16){_mm256_maskload_ps(p, v16_mask_a(n)), _mm256_maskload_ps(p + 8, v16_mask_b(n))};
}

INLINE void v16_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}

INLINE void v16_store_n(float *p, v16 x, int n)
{
    _mm256_maskstore_ps(p, v16_mask_a(n), x.a);
    _mm256_maskstore_ps(p + 8, v16_mask_b(n), x.b);
}

INLINE v16 v16_set1(float x)
{
    __m256 v = _mm256_set1_ps(x);
    return (v16){v, v};
}

INLINE v16 v16_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

#define V16_BINARY(name, op)                                                                                           \
    INLINE v16 v16_##name(v16 x, v16 y)                                                                                \
    {                                                                                                                  \
        return (v16){op(x.a, y.a), op(x.b, y.b)};                                                                      \
    }
V16_BINARY(add, _mm256_add_ps)
V16_BINARY(sub, _mm256_sub_ps)
V16_BINARY(mul, _mm256_mul_ps)
V16_BINARY(div, _mm256_div_ps)
V16_BINARY(max, _mm256_max_ps)
V16_BINARY(min, _mm256_min_ps)

INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

INLINE __m256 v16_max_nan8(__m256 m, __m256 x)
{
    return _mm256_blendv_ps(_mm256_max_ps(m, x), m, _mm256_cmp_ps(m, m, _CMP_UNORD_Q));
}
/* The maximum in which a NaN wins. */
V16_BINARY(max_nan, v16_max_nan8)

INLINE v16 v16_abs(v16 x)
{
    const __m256 bit = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(bit, x.a), _mm256_andnot_ps(bit, x.b)};
}

INLINE __m256 v16_copysign8(__m256 magnitude, __m256 sign)
{
    const __m256 bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}
V16_BINARY(copysign, v16_copysign8)

/* a < b ? x : y */
INLINE v16 v16_less(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)),
                 _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ))};
}

INLINE __m256 v16_scale8(__m256 p, __m256 z, __m256 round)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_sub_epi32(_mm256_castps_si256(z), _mm256_castps_si256(round));
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}

/* p * 2^n, n = z - round being whole numbers. */
INLINE v16 v16_scale(v16 p, v16 z, v16 round)
{
    return (v16){v16_scale8(p.a, z.a, round.a), v16_scale8(p.b, z.b, round.b)};
}

INLINE float v16_reduce_add(v16 x)
{
    __m256 a = _mm256_add_ps(x.a, x.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

INLINE void v16_transpose8(__m256 x[8])
{
    __m256 t[8];
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        __m256d a = _mm256_castps_pd(t[i]), b = _mm256_castps_pd(t[i + 1]);
        __m256d c = _mm256_castps_pd(t[i + 2]), d = _mm256_castps_pd(t[i + 3]);
        x[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        x[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        x[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        x[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        t[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
    UNROLL for (int i = 0; i < 8; i++) x[i] = t[i];
}

/* x[i] lane j becomes x[j] lane i. */
INLINE void v16_transpose(v16 x[16])
{
    __m256 a[8], b[8], c[8], d[8];
    UNROLL for (int i = 0; i < 8; i++)
    {
        a[i] = x[i].a;
        b[i] = x[i].b;
        c[i] = x[8 + i].a;
        d[i] = x[8 + i].b;
    }
    v16_transpose8(a);
    v16_transpose8(b);
    v16_transpose8(c);
    v16_transpose8(d);
    UNROLL for (int i = 0; i < 8; i++)
    {
        x[i] = (v16){a[i], c[i]};
        x[8 + i] = (v16){b[i], d[i]};
    }
}

/* x, in registers from here on: gcc would rather read it from memory once for each FMA. */
INLINE v16 v16_keep(v16 x)
{
    __asm__("" : "+x"(x.a), "+x"(x.b));
    return x;
}

/* Into the second-level cache. */
INLINE void v16_prefetch(const float *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T1);
}

#endif
