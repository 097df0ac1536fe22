/* SPDX-License-Identifier: Apache-2.0 */
/* dot_avx2.h: products of bytes in ymm registers: with vpdpbusd where AVX-VNNI is, else exactly with vpmaddwd over
 * bytes widened to 16 bits (vpmaddubsw would saturate). */
#ifndef TERSE_KERNELS_DOT_AVX2_H
#define TERSE_KERNELS_DOT_AVX2_H

#include <immintrin.h>

#define DOT_SIGNED 0

INLINE __m256i dot_load_256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE void dot_store_256(void *p, __m256i x)
{
    _mm256_storeu_si256((__m256i *)p, x);
}

#if defined(__AVXVNNI__)
typedef struct dot_sums {
    __m256i q[2];
} dot_sums;
typedef dot_sums dot_b;
typedef __m256i dot_a;

/* 12 sums, 2 of B, 1 of A. */
enum { DOT_ROWS = 6, DOT_PANELS = 2 };
#define DOT_WIDE(rows) ((rows) <= 2 ? 2 : 1)
#define DOT_LIST(X) X(1, 1) X(1, 2) X(2, 1) X(2, 2) X(3, 1) X(4, 1) X(5, 1) X(6, 1)

INLINE dot_sums dot_begin(const int32_t *bias)
{
    return (dot_sums){{dot_load_256(bias), dot_load_256(bias + 8)}};
}

INLINE dot_b dot_load(const int8_t *b)
{
    return (dot_b){{dot_load_256(b), dot_load_256(b + 32)}};
}

INLINE dot_a dot_four(uint32_t bytes)
{
    return _mm256_set1_epi32((int)bytes);
}

INLINE dot_sums dot_add(dot_sums sums, dot_a a, dot_b b)
{
    return (dot_sums){{_mm256_dpbusd_avx_epi32(sums.q[0], a, b.q[0]), _mm256_dpbusd_avx_epi32(sums.q[1], a, b.q[1])}};
}

INLINE void dot_store(int32_t *to, dot_sums sums)
{
    dot_store_256(to, sums.q[0]);
    dot_store_256(to + 8, sums.q[1]);
}
#else
/* Four columns in a register, two sums each: of the even and the odd pairs of K. */
typedef struct dot_sums {
    __m256i q[4];
} dot_sums;
typedef dot_sums dot_b; /* four columns, four of K each in 16 bits */
typedef __m256i dot_a;

/* 12 sums, 1 of B, 3 of A. */
enum { DOT_ROWS = 3, DOT_PANELS = 1 };
#define DOT_WIDE(rows) 1
#define DOT_LIST(X) X(1, 1) X(2, 1) X(3, 1)

INLINE __m128i dot_load_128(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

INLINE dot_sums dot_begin(const int32_t *bias)
{
    dot_sums sums;
    UNROLL for (int i = 0; i < 4; i++) sums.q[i] = _mm256_cvtepu32_epi64(dot_load_128(bias + 4 * i));
    return sums;
}

INLINE dot_b dot_load(const int8_t *b)
{
    dot_b x;
    UNROLL for (int i = 0; i < 4; i++) x.q[i] = _mm256_cvtepi8_epi16(dot_load_128(b + 16 * i));
    return x;
}

INLINE dot_a dot_four(uint32_t bytes)
{
    return _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128((int)bytes)));
}

INLINE dot_sums dot_add(dot_sums sums, dot_a a, dot_b b)
{
    UNROLL for (int i = 0; i < 4; i++) sums.q[i] = _mm256_add_epi32(sums.q[i], _mm256_madd_epi16(a, b.q[i]));
    return sums;
}

INLINE void dot_store(int32_t *to, dot_sums sums)
{
    UNROLL for (int i = 0; i < 2; i++)
    {
        /* columns 0 1 4 5, 2 3 6 7 */
        __m256i x = _mm256_hadd_epi32(sums.q[2 * i], sums.q[2 * i + 1]);
        dot_store_256(to + 8 * i, _mm256_permute4x64_epi64(x, 0xd8));
    }
}
#endif

INLINE v16 dot_to_float(const int32_t *sums)
{
    return (v16){_mm256_cvtepi32_ps(dot_load_256(sums)), _mm256_cvtepi32_ps(dot_load_256(sums + 8))};
}

INLINE v16 dot_bytes_to_float(const uint8_t *bytes)
{
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x)),
                 _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(x, 8)))};
}

/* Bytes of sixteen values in the fixed point of dot_finish.h; returns a bit for each that is too near to a tie. */
INLINE uint32_t dot_sixteen(v16 t, const dot_scale *s, uint8_t *to)
{
    const __m256i lower = _mm256_set1_epi32(0xffff), most = _mm256_set1_epi32(s->near + 1);
    __m256i a = _mm256_cvtps_epi32(t.a), b = _mm256_cvtps_epi32(t.b); /* out of range: 0x80000000 */
    __m256i near_a = _mm256_cmpgt_epi32(most, _mm256_and_si256(a, lower));
    __m256i near_b = _mm256_cmpgt_epi32(most, _mm256_and_si256(b, lower));
    __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(a, 16), _mm256_srai_epi32(b, 16));
    words = _mm256_min_epi16(_mm256_max_epi16(words, _mm256_set1_epi16(s->low)), _mm256_set1_epi16(s->high));
    words = _mm256_permute4x64_epi64(words, 0xd8);
    __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)to, bytes);
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(near_a)) |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(near_b)) << 8;
}

#include "common/kernels/vec/dot_sixteen.h"

#endif
