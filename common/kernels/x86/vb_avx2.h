/* SPDX-License-Identifier: Apache-2.0 */
/* vb_avx2.h: vb as one ymm register; with AVX-VNNI where the file's flags have it. */
#ifndef TERSE_KERNELS_VB_AVX2_H
#define TERSE_KERNELS_VB_AVX2_H

#include <immintrin.h>

typedef __m256i vb;
typedef __m256i vi;
typedef __m256 vf;

enum { VB = 32, VB_SIGNED = 0, VB_BLOCK = 1 };

INLINE vb vb_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE void vb_store(uint8_t *p, vb x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, x);
}

INLINE vb vb_set1(uint8_t x)
{
    return _mm256_set1_epi8((char)x);
}

INLINE vb vb_max(vb a, vb b)
{
    return _mm256_max_epu8(a, b);
}

/* Less 128, as signed bytes. */
INLINE vb vb_flip(vb x)
{
    return _mm256_xor_si256(x, _mm256_set1_epi8(-128));
}

INLINE vb vb_zip_lo8(vb a, vb b)
{
    return _mm256_unpacklo_epi8(a, b);
}

INLINE vb vb_zip_hi8(vb a, vb b)
{
    return _mm256_unpackhi_epi8(a, b);
}

INLINE vb vb_zip_lo16(vb a, vb b)
{
    return _mm256_unpacklo_epi16(a, b);
}

INLINE vb vb_zip_hi16(vb a, vb b)
{
    return _mm256_unpackhi_epi16(a, b);
}

INLINE vi vb_widen(vb x, int i)
{
    const int none = (int)0x80808000, at = 4 * i;
    const __m128i from = _mm_setr_epi32(none | at, none | (at + 1), none | (at + 2), none | (at + 3));
    return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(from));
}

INLINE vi vi_from_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

INLINE vi vi_load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE void vi_store(int32_t *p, vi x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, x);
}

INLINE vi vi_zero(void)
{
    return _mm256_setzero_si256();
}

INLINE vi vi_set1(int32_t x)
{
    return _mm256_set1_epi32(x);
}

INLINE vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}

INLINE vi vi_dot(vi sum, vb x, vb w)
{
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, x, w);
#else
    /* Even and odd bytes as 16-bit numbers: nothing saturates. */
    const __m256i even = _mm256_and_si256(x, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(x, 8);
    const __m256i even_w = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), odd_w = _mm256_srai_epi16(w, 8);
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(even, even_w), _mm256_madd_epi16(odd, odd_w)));
#endif
}

INLINE vf vf_from(vi x)
{
    return _mm256_cvtepi32_ps(x);
}

INLINE vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

INLINE void vf_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x);
}

INLINE vf vf_set1(float x)
{
    return _mm256_set1_ps(x);
}

INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

INLINE vf vf_clamp(vf x, vf low, vf high)
{
    return _mm256_min_ps(_mm256_max_ps(x, low), high);
}

INLINE vf vf_nan_to_zero(vf x)
{
    return _mm256_and_ps(x, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
}

INLINE vb vb_from_fixed(const vf t[4], uint16_t near, bool *ret_near)
{
    __m256i x[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        x[i] = _mm256_castps_si256(t[i]);
        x[i] = _mm256_add_epi32(x[i], x[i]); /* the byte at bits 16 to 23, the distance twice below */
    }
    const __m256i least = _mm256_min_epu16(_mm256_min_epu16(x[0], x[1]), _mm256_min_epu16(x[2], x[3]));
    const __m256i within = _mm256_cmpeq_epi16(_mm256_min_epu16(least, _mm256_set1_epi16((short)near)), least);
    *ret_near = !_mm256_testz_si256(within, within);
    __m256i a = _mm256_blend_epi16(_mm256_srli_epi32(x[0], 16), x[1], 0xaa);
    __m256i b = _mm256_blend_epi16(_mm256_srli_epi32(x[2], 16), x[3], 0xaa);
    a = _mm256_blendv_epi8(a, _mm256_slli_epi16(b, 8), _mm256_set1_epi16((short)0xff00)); /* 0, 2, 1, 3 of a column */
    const __m128i order = _mm_setr_epi32(0x0c080400, 0x0e0a0602, 0x0d090501, 0x0f0b0703);
    return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(order));
}

INLINE vb vb_by_vector(vb x)
{
    return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

INLINE void vb_store_lane(uint8_t *p, vb x, int lane, int n)
{
    const __m128i y = lane ? _mm256_extracti128_si256(x, 1) : _mm256_castsi256_si128(x);
    if (n >= 16) {
        _mm_storeu_si128((__m128i *)(void *)p, y);
    } else {
        uint8_t bytes[16];
        _mm_storeu_si128((__m128i *)(void *)bytes, y);
        memcpy(p, bytes, (size_t)n);
    }
}

typedef struct vb_table {
    __m256i part[16];
} vb_table;

INLINE void vb_table_init(vb_table *t, const uint8_t table[256])
{
    for (int i = 0; i < 16; i++)
        t->part[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(table + 16 * i)));
}

/* By the low half of a byte from each sixteen, then chosen by the upper half's bits. */
INLINE vb vb_lookup(const vb_table *t, vb x)
{
    const __m256i low = _mm256_and_si256(x, _mm256_set1_epi8(15));
    __m256i y[16];
    UNROLL for (int i = 0; i < 16; i++) y[i] = _mm256_shuffle_epi8(t->part[i], low);
    UNROLL for (int bit = 3; bit >= 0; bit--)
    {
        const __m256i upper = _mm256_slli_epi16(x, bit); /* bit 7 - bit of each byte comes to its top */
        UNROLL for (int i = 0; i < 8; i++) if (i < 1 << bit) y[i] = _mm256_blendv_epi8(y[2 * i], y[2 * i + 1], upper);
    }
    return y[0];
}

#endif
