/* SPDX-License-Identifier: Apache-2.0 */
/* dot_avx512.h: products of bytes with vpdpbusd, sixteen sums in one zmm register. */
#ifndef TERSE_KERNELS_DOT_AVX512_H
#define TERSE_KERNELS_DOT_AVX512_H

#include <immintrin.h>

typedef __m512i dot_sums; /* sixteen columns */
typedef __m512i dot_b;    /* four of K for each */
typedef __m512i dot_a;    /* four of K, sixteen times */

/* 28 sums, 2 of B, 1 of A; fewer rows take more panels, so that ten sums or more hide the latency.
 * One row waits for its weights: the caches bring four streams of them faster than eight. */
enum { DOT_ROWS = 14, DOT_PANELS = 8 };
#define DOT_SIGNED 0
#define DOT_WIDE(rows) ((rows) == 1 ? 4 : (rows) == 2 ? 8 : (rows) <= 6 ? 4 : 2)
/* clang-format off */
#define DOT_LIST(X) \
    X(1, 1) X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(2, 4) X(2, 8) X(3, 1) X(3, 2) X(3, 4) X(4, 1) X(4, 2) X(4, 4) X(5, 1) \
    X(5, 2) X(5, 4) X(6, 1) X(6, 2) X(6, 4) X(7, 1) X(7, 2) X(8, 1) X(8, 2) X(9, 1) X(9, 2) X(10, 1) X(10, 2) \
    X(11, 1) X(11, 2) X(12, 1) X(12, 2) X(13, 1) X(13, 2) X(14, 1) X(14, 2)
/* clang-format on */

/* Two words a dword: 2 j and 2 j + 2 (plus `odd`), for j = 0, 2 ... 30: every second word of two registers. */
#define DOT_WORDS(odd)                                                                                                 \
    0x003e003c + (odd), 0x003a0038 + (odd), 0x00360034 + (odd), 0x00320030 + (odd), 0x002e002c + (odd),                \
        0x002a0028 + (odd), 0x00260024 + (odd), 0x00220020 + (odd), 0x001e001c + (odd), 0x001a0018 + (odd),            \
        0x00160014 + (odd), 0x00120010 + (odd), 0x000e000c + (odd), 0x000a0008 + (odd), 0x00060004 + (odd),            \
        0x00020000 + (odd)

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

/* Four times sixteen bytes, in order, and which of them are too near to a tie. */
typedef struct dot_bytes {
    __m256i half[2];
    __mmask32 near[2];
} dot_bytes;

typedef struct dot_constants {
    __m512 begin, residual, multiplier[4];
    __m512i low, high, near;
} dot_constants;

INLINE dot_constants dot_constants_for(const dot_scale *s, const float *const *multiplier, int panels)
{
    dot_constants k = {.begin = _mm512_set1_ps(s->begin),
                       .residual = _mm512_set1_ps(s->residual),
                       .low = _mm512_set1_epi16(s->low),
                       .high = _mm512_set1_epi16(s->high),
                       .near = _mm512_set1_epi16((short)s->near)};
    UNROLL for (int v = 0; v < panels; v++) k.multiplier[v] =
        _mm512_mul_ps(_mm512_loadu_ps(multiplier[v]), _mm512_set1_ps(DOT_UNIT));
    return k;
}

/* Four times sixteen sums, times multipliers (plus bytes of a residual), as dot_finish.h has it. The last panel has
 * only `last` columns. Returns whether one of the values is too near to a tie. */
INLINE bool dot_requantize(const dot_constants *k, const int32_t *sums, int panels, const uint8_t *const *add, int last,
                           dot_bytes *ret_bytes)
{
    __m512i x[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512 t = k->begin;
        if (add) {
            __m128i bytes = i % panels == panels - 1 && last != 16
                                ? _mm_maskz_loadu_epi8((__mmask16)((1u << last) - 1u), add[i])
                                : _mm_loadu_si128((const __m128i *)(const void *)add[i]);
            t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), k->residual, t);
        }
        t = _mm512_fmadd_ps(dot_to_float(sums + i * 16), k->multiplier[i % panels], t);
        x[i] = _mm512_cvtps_epi32(t); /* out of range: 0x80000000, whose lower half is near to a tie */
    }
    const __m512i even = _mm512_set_epi32(DOT_WORDS(0)), odd = _mm512_set_epi32(DOT_WORDS(0x00010001));
    UNROLL for (int i = 0; i < 2; i++)
    {
        __m512i distance = _mm512_permutex2var_epi16(x[2 * i], even, x[2 * i + 1]);
        ret_bytes->near[i] = _mm512_cmple_epu16_mask(distance, k->near);
        __m512i words = _mm512_permutex2var_epi16(x[2 * i], odd, x[2 * i + 1]);
        words = _mm512_min_epi16(_mm512_max_epi16(words, k->low), k->high);
        ret_bytes->half[i] = _mm512_cvtepi16_epi8(words);
    }
    return !_kortestz_mask32_u8(ret_bytes->near[0], ret_bytes->near[1]);
}

INLINE uint64_t dot_near(const dot_bytes *bytes)
{
    return bytes->near[0] | (uint64_t)bytes->near[1] << 32;
}

INLINE void dot_get(const dot_bytes *bytes, uint8_t to[64])
{
    _mm256_storeu_si256((__m256i *)(void *)to, bytes->half[0]);
    _mm256_storeu_si256((__m256i *)(void *)(to + 32), bytes->half[1]);
}

INLINE void dot_set(dot_bytes *bytes, const uint8_t from[64])
{
    bytes->half[0] = _mm256_loadu_si256((const __m256i *)(const void *)from);
    bytes->half[1] = _mm256_loadu_si256((const __m256i *)(const void *)(from + 32));
}

/* Row i of those that `bytes` holds. */
INLINE void dot_put(uint8_t *c, dot_bytes bytes, int i, int panels, int width)
{
    if (panels == 1) {
        __m128i x = i & 1 ? _mm256_extracti128_si256(bytes.half[i / 2], 1) : _mm256_castsi256_si128(bytes.half[i / 2]);
        if (width == 16)
            _mm_storeu_si128((__m128i *)(void *)c, x);
        else
            _mm_mask_storeu_epi8(c, (__mmask16)((1u << width) - 1u), x);
        return;
    }
    if (panels == 4) {
        _mm256_storeu_si256((__m256i *)(void *)c, bytes.half[0]);
        c += 32;
        width -= 32;
        i = 1;
    }
    if (width == 32)
        _mm256_storeu_si256((__m256i *)(void *)c, bytes.half[i]);
    else
        _mm256_mask_storeu_epi8(c, (__mmask32)((1ull << width) - 1u), bytes.half[i]);
}

/* Rows are finished in registers, thirty-two columns at a time, as dot_requantize does. */
#define DOT_ROWWISE 1
/* Most of a tile's code, so only where it is felt: one row or two of a small product, and as many as products of many
 * rows are dealt out to. */
#define DOT_ENDS_IN_REGISTERS(rows) ((rows) <= 2 || (rows) == 8 || (rows) >= 12)
typedef struct dot_row_constants {
    __m512i low, high, odd;
    float begin, residual;
} dot_row_constants;

INLINE void dot_row_begin(dot_row_constants *k, const dot_scale *s)
{
    k->low = _mm512_set1_epi8((char)s->low);
    k->high = _mm512_set1_epi8((char)s->high);
    k->odd = _mm512_set_epi32(DOT_WORDS(0x00010001));
    k->begin = s->begin;
    k->residual = s->residual;
}

INLINE __m512 dot_row_multiplier(const float *multiplier)
{
    return _mm512_mul_ps(_mm512_loadu_ps(multiplier), _mm512_set1_ps(DOT_UNIT));
}

/* Whether the least of all distances to a tie is too near. What lies above the distances does not count. */
INLINE bool dot_row_near(__m512i least, const dot_scale *s)
{
    return _mm512_mask_cmple_epu16_mask(0x55555555u, least, _mm512_set1_epi16((short)s->near)) != 0;
}

/* t of dot_finish.h for sixteen sums, as integers. `add`: the residual's bytes, or NULL. */
INLINE __m512i dot_row_fixed(const dot_row_constants *k, __m512 multiplier, __m512i sums, const uint8_t *add)
{
    __m512 t = _mm512_set1_ps(k->begin);
    if (add)
        t = _mm512_fmadd_ps(
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)add))),
            _mm512_set1_ps(k->residual), t);
    return _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), multiplier, t));
}

/* The upper halves of thirty-two of them, before clamping; `least` takes in their lower halves. */
INLINE __m512i dot_row_words(const dot_row_constants *k, const __m512 multiplier[2], const __m512i sums[2],
                             const uint8_t *add, __m512i *least)
{
    const __m512i x0 = dot_row_fixed(k, multiplier[0], sums[0], add);
    const __m512i x1 = dot_row_fixed(k, multiplier[1], sums[1], add ? add + 16 : NULL);
    *least = _mm512_min_epu16(_mm512_min_epu16(*least, x0), x1);
    return _mm512_permutex2var_epi16(x0, k->odd, x1);
}

/* Sixty-four bytes: first those of a, then those of b. */
INLINE __m512i dot_row_bytes(const dot_row_constants *k, __m512i a, __m512i b)
{
    const __m512i bytes = _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), _mm512_packus_epi16(a, b));
    return _mm512_min_epu8(_mm512_max_epu8(bytes, k->low), k->high);
}

/* The i-th sixteen of them; i is known where this is compiled. */
INLINE void dot_row_put(uint8_t *c, __m512i bytes, int i)
{
    const __m128i x = i == 0   ? _mm512_castsi512_si128(bytes)
                      : i == 1 ? _mm512_extracti32x4_epi32(bytes, 1)
                      : i == 2 ? _mm512_extracti32x4_epi32(bytes, 2)
                               : _mm512_extracti32x4_epi32(bytes, 3);
    _mm_storeu_si128((__m128i *)(void *)c, x);
}

#endif
