/* SPDX-License-Identifier: Apache-2.0 */
/* weights_s4.h: gemm_f32s4, weights of 4 bits by rows that become bytes here.
 *
 * A weight lies in the file as u = w + 8, 0..15: sixteen columns, eight of k, are 64 bytes, whose low halves are the
 * first four k of each column and whose high halves the next four. So one load, a shift and two ands give two operands
 * of a dot product of unsigned by signed bytes (vpdpbusd; vpmaddubsw cannot saturate either: 2 * 15 * 127 fits). The 8
 * is taken off at once: the sum of a group begins at -8 * (sum of the row's bytes in it).
 *
 *   per group: acc (INT32) = -8 * sum(q) + sum(u * q)      at most 8 * 127 * 4096 < 2^24: exact as a float
 *              x (FP32)    = fma(acc, scale[group], x)
 */
#ifndef TERSE_KERNELS_VEC_WEIGHTS_S4_H
#define TERSE_KERNELS_VEC_WEIGHTS_S4_H

#include "common/kernels/vec/weights.h"

/* Sixteen sums of 32 bits, and 64 bytes of weights. */
#if defined(__AVX512F__)
enum { S4_ROWS = 6, S4_PANELS = 4 };
#define S4_LIST(X)                                                                                                     \
    X(1, 1) X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(2, 4) X(3, 1) X(3, 2) X(4, 1) X(4, 2) X(5, 1) X(5, 2) X(6, 1) X(6, 2)
#define S4_WIDE(rows) ((rows) <= 2 ? 4 : 2)
typedef __m512i s4_sums;
typedef __m512i s4_bytes;

INLINE s4_sums s4_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}

INLINE void s4_load(const uint8_t *p, s4_bytes *ret_low, s4_bytes *ret_high)
{
    const __m512i both = _mm512_loadu_si512(p), half = _mm512_set1_epi8(15);
    *ret_low = _mm512_and_si512(both, half);
    *ret_high = _mm512_and_si512(_mm512_srli_epi16(both, 4), half);
}

INLINE s4_sums s4_dot(s4_sums sums, s4_bytes weights, int32_t four)
{
    return _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(four));
}

INLINE v16 s4_floats(s4_sums sums)
{
    return _mm512_cvtepi32_ps(sums);
}

/* Sixteen numbers rounded to bytes. */
INLINE void s4_round(v16 x, int8_t *q)
{
    _mm_storeu_si128((__m128i *)(void *)q, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}
#elif defined(__AVX2__)
enum { S4_ROWS = 2, S4_PANELS = 1 };
#define S4_LIST(X) X(1, 1) X(2, 1)
#define S4_WIDE(rows) 1
typedef struct s4_sums {
    __m256i a, b;
} s4_sums, s4_bytes;

INLINE s4_sums s4_set1(int32_t x)
{
    return (s4_sums){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}

INLINE void s4_load(const uint8_t *p, s4_bytes *ret_low, s4_bytes *ret_high)
{
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)p), half = _mm256_set1_epi8(15);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    *ret_low = (s4_bytes){_mm256_and_si256(a, half), _mm256_and_si256(b, half)};
    *ret_high =
        (s4_bytes){_mm256_and_si256(_mm256_srli_epi16(a, 4), half), _mm256_and_si256(_mm256_srli_epi16(b, 4), half)};
}

INLINE __m256i s4_dot8(__m256i sums, __m256i weights, __m256i four)
{
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sums, weights, four);
#else
    const __m256i pairs = _mm256_maddubs_epi16(weights, four);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

INLINE s4_sums s4_dot(s4_sums sums, s4_bytes weights, int32_t four)
{
    const __m256i all = _mm256_set1_epi32(four);
    return (s4_sums){s4_dot8(sums.a, weights.a, all), s4_dot8(sums.b, weights.b, all)};
}

INLINE v16 s4_floats(s4_sums sums)
{
    return (v16){_mm256_cvtepi32_ps(sums.a), _mm256_cvtepi32_ps(sums.b)};
}

INLINE void s4_round(v16 x, int8_t *q)
{
    const __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    _mm_storeu_si128((__m128i *)(void *)q,
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
#elif defined(__aarch64__)
enum { S4_ROWS = 2, S4_PANELS = 1 };
#define S4_LIST(X) X(1, 1) X(2, 1)
#define S4_WIDE(rows) 1
typedef struct s4_sums {
    int32x4_t q[4];
} s4_sums;
typedef struct s4_bytes {
    int8x16_t q[4];
} s4_bytes;

INLINE s4_sums s4_set1(int32_t x)
{
    const int32x4_t all = vdupq_n_s32(x);
    return (s4_sums){{all, all, all, all}};
}

INLINE void s4_load(const uint8_t *p, s4_bytes *ret_low, s4_bytes *ret_high)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        const uint8x16_t both = vld1q_u8(p + 16 * i);
        ret_low->q[i] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        ret_high->q[i] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
    }
}

INLINE int32x4_t s4_dot4(int32x4_t sums, int8x16_t weights, int8x16_t four)
{
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sums, weights, four);
#else /* pairs of 16 bits: 2 * 15 * 127 fits */
    const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(four)), high = vmull_high_s8(weights, four);
    return vpadalq_s16(sums, vpaddq_s16(low, high));
#endif
}

INLINE s4_sums s4_dot(s4_sums sums, s4_bytes weights, int32_t four)
{
    const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
    UNROLL for (int i = 0; i < 4; i++) sums.q[i] = s4_dot4(sums.q[i], weights.q[i], all);
    return sums;
}

INLINE v16 s4_floats(s4_sums sums)
{
    return (v16){
        {vcvtq_f32_s32(sums.q[0]), vcvtq_f32_s32(sums.q[1]), vcvtq_f32_s32(sums.q[2]), vcvtq_f32_s32(sums.q[3])}};
}

INLINE void s4_round(v16 x, int8_t *q)
{
    const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.q[0])), vqmovn_s32(vcvtnq_s32_f32(x.q[1])));
    const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.q[2])), vqmovn_s32(vcvtnq_s32_f32(x.q[3])));
    vst1q_s8(q, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
#endif

/* Rows as bytes: `stride` bytes from row to row, zeros behind k; start[row][group] is -8 times the group's sum. */
typedef struct s4_rows {
    int8_t *q;
    int32_t *start;
    float *step;
    int64_t stride, start_stride;
} s4_rows;

static float s4_most(const float *a, int64_t k)
{
    v16 lanes = v16_zero();
    for (int64_t i = 0; i < k; i += 16)
        lanes = v16_max_nan(lanes, v16_abs(v16_load_up_to(a + i, k - i)));
    float all[16], most = 0.0f;
    v16_store(all, lanes);
    for (int j = 0; j < 16; j++)
        most = most > all[j] || most != most ? most : all[j];
    return most;
}

static void s4_fill_row(const terse_gemm_f32s4_args *args, const s4_rows *rows, int64_t row, int64_t at)
{
    const float *a = args->a + row * args->lda;
    int8_t *q = rows->q + at * rows->stride;
    const float most = s4_most(a, args->k), inverse = 127.0f / most;
    const bool whole = most <= 3.4028234663852886e38f, bytes = whole && inverse <= 3.4028234663852886e38f;
    const v16 factor = v16_set1(inverse);
    rows->step[at] = whole ? most / 127.0f : NAN;
    memset(q + args->k / 16 * 16, 0, (size_t)(rows->stride - args->k / 16 * 16));
    for (int64_t i = 0; bytes && i < args->k; i += 16)
        s4_round(v16_mul(v16_load_up_to(a + i, args->k - i), factor), q + i);
    if (!bytes)
        memset(q, 0, (size_t)rows->stride);
    for (int64_t first = 0, g = 0; first < args->k; first += args->group, g++) {
        const int64_t end = first + args->group < args->k ? first + args->group : args->k;
        int32_t sum = 0;
        for (int64_t i = first; i < end; i++)
            sum += q[i];
        rows->start[at * rows->start_stride + g] = -8 * sum;
    }
}

INLINE int32_t s4_four(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return four;
}

/* Rows at.. of the block; `row` is the first one's number in A and C. */
INLINE void s4_tile(int n_rows, int n_panels, const terse_gemm_f32s4_args *args, const s4_rows *rows, int64_t row,
                    int64_t at, int64_t panel)
{
    const int64_t blocks = (args->k + 7) / 8, per_group = args->group / 8;
    const int64_t groups = (args->k + args->group - 1) / args->group;
    const uint8_t *b = args->b + panel * blocks * 64;
    const float *scale = args->scale + panel * groups * 16;
    const int8_t *q = rows->q + at * rows->stride;
    v16 x[S4_ROWS][S4_PANELS];
    UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++) x[r][v] = v16_zero();
    for (int64_t g = 0, block = 0; g < groups; g++) {
        const int64_t end = block + per_group < blocks ? block + per_group : blocks;
        s4_sums sums[S4_ROWS][S4_PANELS];
        UNROLL for (int r = 0; r < n_rows; r++)
        {
            const s4_sums start = s4_set1(rows->start[(at + r) * rows->start_stride + g]);
            UNROLL for (int v = 0; v < n_panels; v++) sums[r][v] = start;
        }
        for (; block < end; block++, b += 64, q += 8) {
            s4_bytes low[S4_PANELS], high[S4_PANELS];
            UNROLL for (int v = 0; v < n_panels; v++) s4_load(b + v * blocks * 64, &low[v], &high[v]);
            UNROLL for (int r = 0; r < n_rows; r++)
            {
                const int32_t first = s4_four(q + r * rows->stride), second = s4_four(q + r * rows->stride + 4);
                UNROLL for (int v = 0; v < n_panels; v++) sums[r][v] = s4_dot(sums[r][v], low[v], first);
                UNROLL for (int v = 0; v < n_panels; v++) sums[r][v] = s4_dot(sums[r][v], high[v], second);
            }
        }
        UNROLL for (int v = 0; v < n_panels; v++)
        {
            const v16 of_group = v16_load(scale + (v * groups + g) * 16);
            UNROLL for (int r = 0; r < n_rows; r++) x[r][v] = v16_fma(s4_floats(sums[r][v]), of_group, x[r][v]);
        }
    }
    const weights_end end = {args->c, args->bias, args->residual, &args->activation, args->ldc, args->ldr, args->n};
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        const v16 step = v16_set1(rows->step[at + r]);
        UNROLL for (int v = 0; v < n_panels; v++) x[r][v] = v16_mul(x[r][v], step);
    }
    weights_finish(&end, &x[0][0], S4_PANELS, n_rows, n_panels, row, panel);
}

typedef void s4_function(const terse_gemm_f32s4_args *args, const s4_rows *rows, int64_t row, int64_t at,
                         int64_t panel);
#define S4_DEFINE(r, v)                                                                                                \
    static void s4_tile_##r##_##v(const terse_gemm_f32s4_args *args, const s4_rows *rows, int64_t row, int64_t at,     \
                                  int64_t panel)                                                                       \
    {                                                                                                                  \
        s4_tile(r, v, args, rows, row, at, panel);                                                                     \
    }
S4_LIST(S4_DEFINE)
#define S4_ENTRY(r, v) [r][v] = s4_tile_##r##_##v,
static s4_function *const s4_tiles[S4_ROWS + 1][S4_PANELS + 1] = {S4_LIST(S4_ENTRY)};

void TIER_NAME(terse_gemm_f32s4)(const terse_gemm_f32s4_args *args)
{
    const int64_t panels = (args->n + 15) / 16, groups = (args->k + args->group - 1) / args->group;
    s4_rows rows = {.stride = (args->k + 63) / 64 * 64, .start_stride = (groups + 15) / 16 * 16};
    rows.step = args->scratch;
    rows.start = (int32_t *)(void *)(rows.step + TERSE_S4_ROWS * 16);
    rows.q = (int8_t *)(rows.start + TERSE_S4_ROWS * rows.start_stride);
    for (int64_t first = 0; first < args->m; first += TERSE_S4_ROWS) {
        const int64_t count = args->m - first < TERSE_S4_ROWS ? args->m - first : TERSE_S4_ROWS;
        for (int64_t r = 0; r < count; r++)
            s4_fill_row(args, &rows, first + r, r);
        const int64_t tiles = (count + S4_ROWS - 1) / S4_ROWS, base = count / tiles, extra = count % tiles;
        for (int64_t panel = 0; panel < panels;) {
            int n = S4_WIDE(base + (extra > 0));
            while (n > panels - panel || !s4_tiles[base][n] || !s4_tiles[base + (extra > 0)][n])
                n--;
            for (int64_t t = 0, at = 0; t < tiles; at += base + (t < extra), t++)
                s4_tiles[base + (t < extra)][n](args, &rows, first + at, at, panel);
            panel += n;
        }
    }
}

#endif
