/* SPDX-License-Identifier: Apache-2.0 */
/* vb_avx512.h: vb as one zmm register. */
#ifndef TERSE_KERNELS_VB_AVX512_H
#define TERSE_KERNELS_VB_AVX512_H

#include <immintrin.h>

typedef __m512i vb;
typedef __m512i vi;
typedef __m512 vf;

enum { VB = 64, VB_SIGNED = 0, VB_BLOCK = 4 };

INLINE __mmask64 vb_mask(int n)
{
    return n >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1;
}

INLINE vb vb_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

INLINE vb vb_load_n(const uint8_t *p, int n)
{
    return _mm512_maskz_loadu_epi8(vb_mask(n), p);
}

INLINE void vb_store(uint8_t *p, vb x)
{
    _mm512_storeu_si512(p, x);
}

INLINE void vb_store_n(uint8_t *p, vb x, int n)
{
    _mm512_mask_storeu_epi8(p, vb_mask(n), x);
}

INLINE vb vb_set1(uint8_t x)
{
    return _mm512_set1_epi8((char)x);
}

INLINE vb vb_max(vb a, vb b)
{
    return _mm512_max_epu8(a, b);
}

/* Less 128, as signed bytes. */
INLINE vb vb_flip(vb x)
{
    return _mm512_xor_si512(x, _mm512_set1_epi8(-128));
}

INLINE vb vb_zip_lo8(vb a, vb b)
{
    return _mm512_unpacklo_epi8(a, b);
}

INLINE vb vb_zip_hi8(vb a, vb b)
{
    return _mm512_unpackhi_epi8(a, b);
}

INLINE vb vb_zip_lo16(vb a, vb b)
{
    return _mm512_unpacklo_epi16(a, b);
}

INLINE vb vb_zip_hi16(vb a, vb b)
{
    return _mm512_unpackhi_epi16(a, b);
}

/* Bytes 4 i to 4 i + 3 of every sixteen. */
INLINE vi vb_widen(vb x, int i)
{
    const int none = (int)0x80808000, at = 4 * i;
    return _mm512_shuffle_epi8(x, _mm512_set4_epi32(none | (at + 3), none | (at + 2), none | (at + 1), none | at));
}

/* VB / 4 bytes in order. */
INLINE vi vi_from_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE vi vi_load(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}

INLINE void vi_store(int32_t *p, vi x)
{
    _mm512_storeu_si512(p, x);
}

INLINE vi vi_zero(void)
{
    return _mm512_setzero_si512();
}

INLINE vi vi_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}

INLINE vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}

INLINE vi vi_dot(vi sum, vb x, vb w)
{
    return _mm512_dpbusd_epi32(sum, x, w);
}

INLINE vf vf_from(vi x)
{
    return _mm512_cvtepi32_ps(x);
}

INLINE vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

INLINE void vf_store(float *p, vf x)
{
    _mm512_storeu_ps(p, x);
}

INLINE vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}

INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

INLINE vf vf_clamp(vf x, vf low, vf high)
{
    return _mm512_min_ps(_mm512_max_ps(x, low), high);
}

INLINE vf vf_nan_to_zero(vf x)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x);
}

INLINE vb vb_from_fixed(const vf t[4], uint16_t near, bool *ret_near)
{
    __m512i x[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        x[i] = _mm512_castps_si512(t[i]);
        x[i] = _mm512_add_epi32(x[i], x[i]); /* the byte at bits 16 to 23, the distance twice below */
    }
    const __m512i least = _mm512_min_epu16(_mm512_min_epu16(x[0], x[1]), _mm512_min_epu16(x[2], x[3]));
    *ret_near = _mm512_cmple_epu16_mask(least, _mm512_set1_epi16((short)near)) != 0;
    __m512i a = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(x[0], 16), x[1]);
    __m512i b = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(x[2], 16), x[3]);
    a = _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaau, a, _mm512_slli_epi16(b, 8)); /* 0, 2, 1, 3 of every column */
    return _mm512_shuffle_epi8(a, _mm512_set4_epi32(0x0f0b0703, 0x0d090501, 0x0e0a0602, 0x0c080400));
}

/* Of vb_from_fixed's bytes: first those of t[0], then those of t[1] and so on. */
INLINE vb vb_by_vector(vb x)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
}

INLINE void vb_store_lane(uint8_t *p, vb x, int lane, int n)
{
    const __m128i y = lane == 0   ? _mm512_castsi512_si128(x)
                      : lane == 1 ? _mm512_extracti32x4_epi32(x, 1)
                      : lane == 2 ? _mm512_extracti32x4_epi32(x, 2)
                                  : _mm512_extracti32x4_epi32(x, 3);
    if (n >= 16)
        _mm_storeu_si128((__m128i *)(void *)p, y);
    else
        _mm_mask_storeu_epi8(p, (__mmask16)((1u << n) - 1u), y);
}

/* table[x] without VBMI: by the low half of a byte from each sixteen, then chosen by the upper half's bits. */
typedef struct vb_table {
    __m512i part[16];
} vb_table;

INLINE void vb_table_init(vb_table *t, const uint8_t table[256])
{
    for (int i = 0; i < 16; i++)
        t->part[i] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(table + 16 * i)));
}

INLINE vb vb_lookup(const vb_table *t, vb x)
{
    const __m512i low = _mm512_and_si512(x, _mm512_set1_epi8(15));
    const __mmask64 bit4 = _mm512_test_epi8_mask(x, _mm512_set1_epi8(0x10));
    const __mmask64 bit5 = _mm512_test_epi8_mask(x, _mm512_set1_epi8(0x20));
    const __mmask64 bit6 = _mm512_test_epi8_mask(x, _mm512_set1_epi8(0x40)), bit7 = _mm512_movepi8_mask(x);
    __m512i y[8];
    UNROLL for (int i = 0; i < 8; i++) y[i] =
        _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(t->part[2 * i], low), bit4, t->part[2 * i + 1], low);
    UNROLL for (int i = 0; i < 4; i++) y[i] = _mm512_mask_mov_epi8(y[2 * i], bit5, y[2 * i + 1]);
    UNROLL for (int i = 0; i < 2; i++) y[i] = _mm512_mask_mov_epi8(y[2 * i], bit6, y[2 * i + 1]);
    return _mm512_mask_mov_epi8(y[0], bit7, y[1]);
}

#endif
