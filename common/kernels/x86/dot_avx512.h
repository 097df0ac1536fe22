/* SPDX-License-Identifier: Apache-2.0 */
/* dot_avx512.h: products of bytes with vpdpbusd, sixteen sums in one zmm register. */
#ifndef TERSE_KERNELS_DOT_AVX512_H
#define TERSE_KERNELS_DOT_AVX512_H

#include <immintrin.h>

typedef __m512i dot_sums; /* sixteen columns */
typedef __m512i dot_b;    /* four of K for each */
typedef __m512i dot_a;    /* four of K, sixteen times */

/* 28 sums, 2 of B, 1 of A; fewer rows take more panels, so that ten sums or more hide the latency. */
enum { DOT_ROWS = 14, DOT_PANELS = 8, DOT_SIGNED = 0 };
#define DOT_WIDE(rows) ((rows) <= 2 ? 8 : (rows) <= 6 ? 4 : 2)
#define DOT_LIST(X)                                                                                                    \
    X(1, 1)                                                                                                            \
    X(1, 2)                                                                                                            \
    X(1, 4) X(1, 8) X(2, 1) X(2, 2) X(2, 4) X(2, 8) X(3, 1) X(3, 2) X(3, 4) X(4, 1) X(4, 2) X(4, 4) X(5, 1) X(5, 2)    \
        X(5, 4) X(6, 1) X(6, 2) X(6, 4) X(7, 1) X(7, 2) X(8, 1) X(8, 2) X(9, 1) X(9, 2) X(10, 1) X(10, 2) X(11, 1)     \
            X(11, 2) X(12, 1) X(12, 2) X(13, 1) X(13, 2) X(14, 1) X(14, 2)

INLINE dot_sums dot_begin(const int32_t *bias)
{
    return _mm512_loadu_si512(bias);
}

INLINE dot_b dot_load(const int8_t *b)
{
    return _mm512_loadu_si512(b);
}

INLINE dot_a dot_four(uint32_t bytes)
{
    return _mm512_set1_epi32((int)bytes);
}

INLINE dot_sums dot_add(dot_sums sums, dot_a a, dot_b b)
{
    return _mm512_dpbusd_epi32(sums, a, b);
}

INLINE void dot_store(int32_t *to, dot_sums sums)
{
    _mm512_storeu_si512(to, sums);
}

INLINE v16 dot_to_float(const int32_t *sums)
{
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(sums));
}

/* Four times sixteen bytes, in order. */
typedef __m512i dot_bytes;

/* Sums times multipliers (plus bytes of a residual) as dot_finish.h has it. Of add[i] only `last_width` bytes may be
 * read where i % panels is `cut`. Returns whether one of them is too near to a tie. */
INLINE bool dot_requantize(const dot_scale *s, const int32_t *const sums[4], const float *const multiplier[4],
                           const uint8_t *const *add, int cut, int panels, int last_width, dot_bytes *ret_bytes)
{
    const __m512 begin = _mm512_set1_ps(s->begin), low = _mm512_set1_ps(s->low), high = _mm512_set1_ps(s->high);
    __m512i x[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512 t = begin;
        if (add) {
            __m128i bytes = i % panels == cut ? _mm_maskz_loadu_epi8((__mmask16)((1u << last_width) - 1u), add[i])
                                              : _mm_loadu_si128((const __m128i *)(const void *)add[i]);
            t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), _mm512_set1_ps(s->residual), t);
        }
        t = _mm512_fmadd_ps(dot_to_float(sums[i]), _mm512_loadu_ps(multiplier[i]), t);
        t = _mm512_min_ps(_mm512_max_ps(t, low), high); /* a NaN becomes low */
        x[i] = _mm512_castps_si512(t);
        x[i] = _mm512_add_epi32(x[i], x[i]); /* the byte at bits 16 to 23, the distance twice below */
    }
    /* Upper halves, with the exponent, are never small. */
    __m512i least = _mm512_min_epu16(_mm512_min_epu16(x[0], x[1]), _mm512_min_epu16(x[2], x[3]));
    const __mmask32 odd16 = 0xaaaaaaaau;
    const __mmask64 odd8 = 0xaaaaaaaaaaaaaaaau;
    __m512i a = _mm512_mask_blend_epi16(odd16, _mm512_srli_epi32(x[0], 16), x[1]);
    __m512i b = _mm512_mask_blend_epi16(odd16, _mm512_srli_epi32(x[2], 16), x[3]);
    a = _mm512_mask_blend_epi8(odd8, a, _mm512_slli_epi16(b, 8)); /* 0, 2, 1, 3 of every column */
    a = _mm512_shuffle_epi8(a, _mm512_set4_epi32(0x0f0b0703, 0x0d090501, 0x0e0a0602, 0x0c080400));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    *ret_bytes = _mm512_permutexvar_epi32(order, a);
    return _mm512_cmple_epu16_mask(least, _mm512_set1_epi16((short)s->near)) != 0;
}

/* Row i of the `panels` panels' rows that `bytes` holds. */
INLINE void dot_put(uint8_t *c, const dot_bytes *bytes, int i, int panels, int width)
{
    if (panels == 4) {
        if (width == 64)
            _mm512_storeu_si512(c, *bytes);
        else
            _mm512_mask_storeu_epi8(c, ((__mmask64)1 << width) - 1, *bytes);
    } else if (panels == 2) {
        __m256i x = i ? _mm512_extracti64x4_epi64(*bytes, 1) : _mm512_castsi512_si256(*bytes);
        if (width == 32)
            _mm256_storeu_si256((__m256i *)(void *)c, x);
        else
            _mm256_mask_storeu_epi8(c, ((__mmask32)1 << width) - 1, x);
    } else {
        __m128i x = i == 0   ? _mm512_castsi512_si128(*bytes)
                    : i == 1 ? _mm512_extracti32x4_epi32(*bytes, 1)
                    : i == 2 ? _mm512_extracti32x4_epi32(*bytes, 2)
                             : _mm512_extracti32x4_epi32(*bytes, 3);
        if (width == 16)
            _mm_storeu_si128((__m128i *)(void *)c, x);
        else
            _mm_mask_storeu_epi8(c, (__mmask16)((1u << width) - 1u), x);
    }
}

INLINE void dot_prefetch(const void *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

#endif
