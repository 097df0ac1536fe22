/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_lanes_avx512.h: many rows of activations by sparse weights of bytes, a row in each lane.
 *
 * 64 rows are turned, so that a row of K is one register of 64 bytes. The four rows of K that a group of columns has in
 * a step are interleaved once, to four registers of sixteen dwords, and serve all four columns: sixteen dot products
 * for four loads and eight interleavings, where looking up in each row (sparse_u8.h) takes a look-up for each dot
 * product. That pays where a panel has enough steps for the turning back of its sums. */
#ifndef TERSE_KERNELS_SPARSE_LANES_AVX512_H
#define TERSE_KERNELS_SPARSE_LANES_AVX512_H

enum { LANES_ROWS = 64, LANES_LEAST_ROWS = 40, LANES_LEAST_STEPS = 14 };

/* Bytes of the turned rows: whole sixteens of K. */
static int64_t lanes_bytes(int64_t k)
{
    return (k + 15) / 16 * 16 * LANES_ROWS;
}

/* In place: a compiler that is given the intrinsic copies the sixteen sums to and fro, some of them to the stack. */
INLINE __m512i lanes_add(__m512i sums, __m512i x, __m512i w)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
    return sums;
}

/* Rows a, a + 16, a + 32 and a + 48, sixteen bytes of each from `at` on. */
INLINE __m512i lanes_gather(const uint8_t *x, int64_t ld, int row, int last, int64_t at)
{
    const uint8_t *from[4];
    UNROLL for (int i = 0; i < 4; i++) from[i] = x + (row + 16 * i < last ? row + 16 * i : last) * ld + at;
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)from[0]));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)from[1]), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)from[2]), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)from[3]), 3);
}

/* to[k][64] from `count` rows x, `ld` apart, of which whole sixteens of bytes may be read. Rows behind the last one are
 * like it. Each quarter of a register is transposed by itself: bytes, pairs, fours and eights are interleaved in turn.
 */
static void lanes_turn(const uint8_t *x, int64_t ld, int64_t count, int64_t k, uint8_t *to)
{
    const int last = (int)count - 1;
    for (int64_t at = 0; at < k; at += 16, to += 16 * LANES_ROWS) {
        __m512i a[16], b[16];
        UNROLL for (int i = 0; i < 16; i++) a[i] = lanes_gather(x, ld, i, last, at);
        UNROLL for (int i = 0; i < 8; i++) /* b[2i], b[2i+1]: bytes of rows i and i + 8 in turn */
        {
            b[2 * i] = _mm512_unpacklo_epi8(a[i], a[i + 8]);
            b[2 * i + 1] = _mm512_unpackhi_epi8(a[i], a[i + 8]);
        }
        UNROLL for (int i = 0; i < 8; i++)
        {
            a[2 * i] = _mm512_unpacklo_epi8(b[i], b[i + 8]);
            a[2 * i + 1] = _mm512_unpackhi_epi8(b[i], b[i + 8]);
        }
        UNROLL for (int i = 0; i < 8; i++)
        {
            b[2 * i] = _mm512_unpacklo_epi8(a[i], a[i + 8]);
            b[2 * i + 1] = _mm512_unpackhi_epi8(a[i], a[i + 8]);
        }
        UNROLL for (int i = 0; i < 8; i++)
        {
            _mm512_store_si512(to + (2 * i) * LANES_ROWS, _mm512_unpacklo_epi8(b[i], b[i + 8]));
            _mm512_store_si512(to + (2 * i + 1) * LANES_ROWS, _mm512_unpackhi_epi8(b[i], b[i + 8]));
        }
    }
}

/* One group's sums of 64 rows: left[j][d] has, in quarter q, the four columns of row 16 q + 4 j + d. */
static void lanes_group(const sparse_product *p, const uint8_t *turned, int64_t panel, int group, const int32_t *bias,
                        __m512i left[16])
{
    __m512i sums[4][4];
    UNROLL for (int c = 0; c < 4; c++) UNROLL for (int j = 0; j < 4; j++) sums[c][j] = _mm512_set1_epi32(bias[c]);
    const int64_t first = p->s.starts[panel], end = p->s.starts[panel + 1];
    const uint8_t *index = p->s.index + (first * TERSE_SPARSE_GROUPS + group) * 4, *advance = p->s.advance + first;
    const int8_t *w = (const int8_t *)p->s.weights + first * TERSE_SPARSE_STEP_BYTES + group * 16;
    for (int64_t step = first; step < end; step++, index += TERSE_SPARSE_GROUPS * 4, w += TERSE_SPARSE_STEP_BYTES) {
        turned += (size_t)*advance++ * LANES_ROWS;
        __m512i x[4], t[4];
        UNROLL for (int q = 0; q < 4; q++) x[q] = _mm512_load_si512(turned + (size_t)index[q] * LANES_ROWS);
        t[0] = _mm512_unpacklo_epi8(x[0], x[1]);
        t[1] = _mm512_unpackhi_epi8(x[0], x[1]);
        t[2] = _mm512_unpacklo_epi8(x[2], x[3]);
        t[3] = _mm512_unpackhi_epi8(x[2], x[3]);
        x[0] = _mm512_unpacklo_epi16(t[0], t[2]);
        x[1] = _mm512_unpackhi_epi16(t[0], t[2]);
        x[2] = _mm512_unpacklo_epi16(t[1], t[3]);
        x[3] = _mm512_unpackhi_epi16(t[1], t[3]);
        UNROLL for (int c = 0; c < 4; c++)
        {
            int32_t four;
            memcpy(&four, w + c * 4, sizeof four);
            const __m512i b = _mm512_set1_epi32(four);
            UNROLL for (int j = 0; j < 4; j++) sums[c][j] = lanes_add(sums[c][j], x[j], b);
        }
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        const __m512i a = _mm512_unpacklo_epi32(sums[0][j], sums[1][j]),
                      b = _mm512_unpackhi_epi32(sums[0][j], sums[1][j]);
        const __m512i c = _mm512_unpacklo_epi32(sums[2][j], sums[3][j]),
                      d = _mm512_unpackhi_epi32(sums[2][j], sums[3][j]);
        left[4 * j] = _mm512_unpacklo_epi64(a, c);
        left[4 * j + 1] = _mm512_unpackhi_epi64(a, c);
        left[4 * j + 2] = _mm512_unpacklo_epi64(b, d);
        left[4 * j + 3] = _mm512_unpackhi_epi64(b, d);
    }
}

/* Four groups' sums as rows of sixteen columns, `stride` apart. */
static void lanes_rows(const __m512i left[4][16], int64_t stride, int32_t *to)
{
    for (int i = 0; i < 16; i++) {
        const __m512i a = _mm512_shuffle_i32x4(left[0][i], left[1][i], 0x44), /* quarters 0 and 1 of both */
            b = _mm512_shuffle_i32x4(left[2][i], left[3][i], 0x44);
        const __m512i c = _mm512_shuffle_i32x4(left[0][i], left[1][i], 0xee), /* 2 and 3 */
            d = _mm512_shuffle_i32x4(left[2][i], left[3][i], 0xee);
        _mm512_store_si512(to + (0 + i) * stride, _mm512_shuffle_i32x4(a, b, 0x88));
        _mm512_store_si512(to + (16 + i) * stride, _mm512_shuffle_i32x4(a, b, 0xdd));
        _mm512_store_si512(to + (32 + i) * stride, _mm512_shuffle_i32x4(c, d, 0x88));
        _mm512_store_si512(to + (48 + i) * stride, _mm512_shuffle_i32x4(c, d, 0xdd));
    }
}

/* `count` rows, at most 64, the first of which is output row `row`, over all panels. */
static void lanes_block(const sparse_product *p, const uint8_t *turned, int64_t row, int64_t count)
{
    _Alignas(64) int32_t to[(LANES_ROWS * 2 + 3) * 16];
    __m512i left[4][16];
    for (int64_t panel = 0; panel < terse_sparse_panels(p->finish.columns); panel++) {
        const int64_t begin = panel * TERSE_SPARSE_PANEL, columns = p->finish.columns - begin;
        const int halves = columns > 16 ? 2 : 1;
        for (int h = 0; h < halves; h++) {
            const int32_t *bias = dot_bias_of(&p->finish, begin / 16 + h);
            for (int g = 0; g < 4; g++)
                if (h * 16 + g * 4 < columns)
                    lanes_group(p, turned, panel, h * 4 + g, bias + g * 4, left[g]);
                else
                    memset(left[g], 0, sizeof left[g]);
            lanes_rows(left, halves * 16, to + h * 16);
        }
        dot_finish_panels(&p->finish, to, (int)count, halves, row, begin / 16);
    }
}

/* Is it worth it for that many rows? */
static bool lanes_wanted(const terse_sparse_u8s8_args *args, int64_t rows)
{
    const int64_t panels = terse_sparse_panels(args->conv.filters);
    return rows >= LANES_LEAST_ROWS && (int64_t)args->weights.starts[panels] >= LANES_LEAST_STEPS * panels;
}

#endif
