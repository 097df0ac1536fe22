/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_avx2.h: rows of activations looked up in ymm registers, a quarter of the window in each lane. */
#ifndef TERSE_KERNELS_SPARSE_AVX2_H
#define TERSE_KERNELS_SPARSE_AVX2_H

#include <immintrin.h>

/* In each lane: what lies in its quarter of the window, everything else with its highest bit set, which looks up zero.
 */
typedef struct sparse_index {
    __m256i half[2];
} sparse_index;

typedef struct sparse_window {
    __m256i half[2];
} sparse_window;

enum { SPARSE_ROWS = DOT_ROWS, SPARSE_HALVES = 1 };

INLINE sparse_window sparse_load_window(const uint8_t *window)
{
    return (sparse_window){{dot_load_256(window), dot_load_256(window + 32)}};
}

INLINE sparse_index sparse_load_index(const uint8_t *index)
{
    const __m256i all = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)index));
    sparse_index x;
    UNROLL for (int i = 0; i < 2; i++)
    {
        const __m256i quarter = _mm256_set_m128i(_mm_set1_epi8((char)(32 * i + 16)), _mm_set1_epi8((char)(32 * i)));
        const __m256i at = _mm256_sub_epi8(all, quarter);
        x.half[i] = _mm256_or_si256(at, _mm256_cmpgt_epi8(at, _mm256_set1_epi8(15)));
    }
    return x;
}

/* The sixteen bytes that the index names. */
INLINE __m128i sparse_sixteen(sparse_window window, sparse_index index)
{
    const __m256i x = _mm256_or_si256(_mm256_shuffle_epi8(window.half[0], index.half[0]),
                                      _mm256_shuffle_epi8(window.half[1], index.half[1]));
    return _mm_or_si128(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}

#if defined(__AVXVNNI__)
typedef struct sparse_a {
    __m256i q[2];
} sparse_a;

INLINE sparse_a sparse_lookup(sparse_window window, sparse_index index)
{
    const __m256i x = _mm256_broadcastsi128_si256(sparse_sixteen(window, index));
    return (sparse_a){{_mm256_permutevar8x32_epi32(x, _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0)),
                       _mm256_permutevar8x32_epi32(x, _mm256_set_epi32(3, 3, 3, 3, 2, 2, 2, 2))}};
}

INLINE dot_sums sparse_add(dot_sums sums, sparse_a a, dot_b b)
{
    UNROLL for (int i = 0; i < 2; i++) sums.q[i] = _mm256_dpbusd_avx_epi32(sums.q[i], a.q[i], b.q[i]);
    return sums;
}
#else
typedef struct sparse_a {
    __m256i q[4];
} sparse_a;

INLINE sparse_a sparse_lookup(sparse_window window, sparse_index index)
{
    const __m256i x = _mm256_cvtepu8_epi16(sparse_sixteen(window, index));
    return (sparse_a){{_mm256_permute4x64_epi64(x, 0x00), _mm256_permute4x64_epi64(x, 0x55),
                       _mm256_permute4x64_epi64(x, 0xaa), _mm256_permute4x64_epi64(x, 0xff)}};
}

INLINE dot_sums sparse_add(dot_sums sums, sparse_a a, dot_b b)
{
    UNROLL for (int i = 0; i < 4; i++) sums.q[i] = _mm256_add_epi32(sums.q[i], _mm256_madd_epi16(a.q[i], b.q[i]));
    return sums;
}
#endif

#endif
