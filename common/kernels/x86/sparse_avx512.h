/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_avx512.h: rows of activations looked up in zmm registers: with VPERMB where the file is compiled for VBMI,
 * else in the four quarters of the window, each by its own lane. */
#ifndef TERSE_KERNELS_SPARSE_AVX512_H
#define TERSE_KERNELS_SPARSE_AVX512_H

#include <immintrin.h>

typedef __m512i sparse_index;
typedef __m512i sparse_a;
typedef __m512i sparse_window;

/* 24 sums, two of weights, two of indices, one window. */
enum { SPARSE_ROWS = 12, SPARSE_HALVES = 2 };

INLINE sparse_window sparse_load_window(const uint8_t *window)
{
    return _mm512_loadu_si512(window);
}

#if defined(__AVX512VBMI__)
/* Every group's four bytes once for each of its columns. */
INLINE sparse_index sparse_load_index(const uint8_t *index)
{
    const __m512i spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_permutexvar_epi32(spread,
                                    _mm512_castsi128_si512(_mm_load_si128((const __m128i *)(const void *)index)));
}

INLINE sparse_a sparse_lookup(sparse_window window, sparse_index index)
{
    return _mm512_permutexvar_epi8(index, window);
}
#else
/* In lane q: what lies in the window's quarter q, everything else with its highest bit set, which looks up zero. */
INLINE sparse_index sparse_load_index(const uint8_t *index)
{
    const __m512i all = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)index));
    const __m512i quarter = _mm512_set_epi64(0x3030303030303030, 0x3030303030303030, 0x2020202020202020,
                                             0x2020202020202020, 0x1010101010101010, 0x1010101010101010, 0, 0);
    const __m512i x = _mm512_sub_epi8(all, quarter);
    return _mm512_mask_mov_epi8(x, _mm512_cmpgt_epu8_mask(x, _mm512_set1_epi8(15)), _mm512_set1_epi8(-1));
}

INLINE sparse_a sparse_lookup(sparse_window window, sparse_index index)
{
    const __m512i spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512i x = _mm512_shuffle_epi8(window, index);
    const __m256i half = _mm256_or_si256(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    const __m128i four = _mm_or_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(four));
}
#endif

INLINE dot_sums sparse_add(dot_sums sums, sparse_a a, dot_b b)
{
    return _mm512_dpbusd_epi32(sums, a, b);
}

#endif
