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

/* Each quarter of the registers is transposed by itself: bytes, pairs, fours and eights are interleaved in turn. */
INLINE void lanes_transpose(__m512i a[16], __m512i b[16])
{
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
        a[2 * i] = _mm512_unpacklo_epi8(b[i], b[i + 8]);
        a[2 * i + 1] = _mm512_unpackhi_epi8(b[i], b[i + 8]);
    }
    UNROLL for (int i = 0; i < 16; i++) b[i] = a[i];
}

/* to[k][64] from `count` rows x, `ld` apart, of which whole sixteens of bytes may be read. Rows behind the last one are
 * like it. */
static void lanes_turn(const uint8_t *x, int64_t ld, int64_t count, int64_t k, uint8_t *to)
{
    const int last = (int)count - 1;
    for (int64_t at = 0; at < k; at += 16, to += 16 * LANES_ROWS) {
        __m512i a[16], b[16];
        UNROLL for (int i = 0; i < 16; i++) a[i] = lanes_gather(x, ld, i, last, at);
        lanes_transpose(a, b);
        UNROLL for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * LANES_ROWS, b[i]);
    }
}

/* A panel's groups have as many steps as the one with most rows; the last ones of the others have weights of zero.
 * Where the steps of each group end, [panel][group]. */
static void lanes_ends(const sparse_product *p, uint32_t *ends)
{
    for (int64_t panel = 0; panel < terse_sparse_panels(p->finish.columns); panel++)
        for (int group = 0; group < TERSE_SPARSE_GROUPS; group++) {
            uint32_t end = p->s.starts[panel + 1];
            const int8_t *w = (const int8_t *)p->s.weights + group * 16;
            while (end > p->s.starts[panel]) {
                const int8_t *last = w + (size_t)(end - 1) * TERSE_SPARSE_STEP_BYTES;
                const __m128i four = _mm_loadu_si128((const __m128i *)(const void *)last);
                if (_mm_test_epi8_mask(four, four))
                    break;
                end--;
            }
            *ends++ = end;
        }
}

static size_t lanes_ends_bytes(int64_t filters)
{
    return (size_t)terse_sparse_panels(filters) * TERSE_SPARSE_GROUPS * sizeof(uint32_t);
}

/* One group's sums of 64 rows: sums[c][j] has, in lane 4 q + d, column c of row 16 q + 4 j + d. */
INLINE void lanes_sums(const sparse_product *p, const uint8_t *turned, int64_t panel, int group, int64_t end,
                       const int32_t *bias, __m512i sums[4][4])
{
    UNROLL for (int c = 0; c < 4; c++) UNROLL for (int j = 0; j < 4; j++) sums[c][j] = _mm512_set1_epi32(bias[c]);
    const int64_t first = p->s.starts[panel];
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
}

/* The same, left[4 j + d]: in quarter q the four columns of row 16 q + 4 j + d. */
static void lanes_group(const sparse_product *p, const uint8_t *turned, int64_t panel, int group, int64_t end,
                        const int32_t *bias, __m512i left[16])
{
    __m512i sums[4][4];
    lanes_sums(p, turned, panel, group, end, bias, sums);
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

/* Those of 64 sums of a column that are too near to a tie, again in double. */
static __attribute__((noinline)) void lanes_correct(const dot_finish *f, const __m512i sums[4], const __m512i fixed[4],
                                                    int64_t column, uint8_t *bytes)
{
    const __m512i near = _mm512_set1_epi16((short)f->scale.near);
    for (int j = 0; j < 4; j++) {
        int32_t all[16];
        _mm512_storeu_si512(all, sums[j]);
        for (uint32_t wrong = _mm512_mask_cmple_epu16_mask(0x55555555u, fixed[j], near); wrong; wrong &= wrong - 1) {
            const int lane = __builtin_ctz(wrong) / 2;
            bytes[lane / 4 * 16 + j * 4 + lane % 4] = SHARED_NAME(terse_dot_exact)(f, all[lane], 0, column);
        }
    }
}

/* 64 sums of a column as bytes, in order, as dot_finish.h has it. `high`: the upper words of two registers, four by
 * four. */
INLINE void lanes_to_bytes(const dot_finish *f, const __m512i sums[4], float multiplier, __m512i high, int64_t column,
                           uint8_t *to)
{
    const __m512 m = _mm512_set1_ps(multiplier * DOT_UNIT), begin = _mm512_set1_ps(f->scale.begin);
    __m512i t[4];
    UNROLL for (int j = 0; j < 4; j++) t[j] =
        _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[j]), m, begin));
    const __m512i least = _mm512_min_epu16(_mm512_min_epu16(t[0], t[1]), _mm512_min_epu16(t[2], t[3]));
    const __m512i bytes =
        _mm512_packus_epi16(_mm512_permutex2var_epi16(t[0], high, t[1]), _mm512_permutex2var_epi16(t[2], high, t[3]));
    _mm512_store_si512(to, _mm512_min_epu8(_mm512_max_epu8(bytes, _mm512_set1_epi8((char)f->scale.low)),
                                           _mm512_set1_epi8((char)f->scale.high)));
    if (__builtin_expect(dot_row_near(least, &f->scale), 0) && column < f->columns) {
        /* copies: what has an address would lie in memory all the time */
        const __m512i these[4] = {sums[0], sums[1], sums[2], sums[3]}, fixed[4] = {t[0], t[1], t[2], t[3]};
        lanes_correct(f, these, fixed, column, to);
    }
}

/* One group's bytes of 64 rows, [column][row]. */
static void lanes_group_bytes(const sparse_product *p, const uint8_t *turned, int64_t panel, int group, int64_t end,
                              const int32_t *bias, uint8_t *to)
{
    const dot_finish *f = &p->finish;
    const int64_t column = panel * TERSE_SPARSE_PANEL + group * 4;
    const float *multiplier = dot_multiplier_of(f, column / 16) + column % 16;
    const __m512i high = _mm512_set_epi32(0x003f003d, 0x003b0039, 0x001f001d, 0x001b0019, 0x00370035, 0x00330031,
                                          0x00170015, 0x00130011, 0x002f002d, 0x002b0029, 0x000f000d, 0x000b0009,
                                          0x00270025, 0x00230021, 0x00070005, 0x00030001);
    __m512i sums[4][4];
    lanes_sums(p, turned, panel, group, end, bias, sums);
    UNROLL for (int c = 0; c < 4; c++) lanes_to_bytes(f, sums[c], multiplier[c], high, column + c, to + c * LANES_ROWS);
}

/* Thirty-two columns [column][64 rows] turned: row i goes to rows[i] + begin, where there is one, its first `width`
 * bytes. */
static void lanes_put(const uint8_t *bytes, uint8_t *const rows[LANES_ROWS], int64_t begin, int width)
{
    __m512i a[16], low[16], high[16];
    uint8_t nowhere[TERSE_SPARSE_PANEL];
    const __mmask32 some = width >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << width) - 1;
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0),
                  second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    UNROLL for (int i = 0; i < 16; i++) a[i] = _mm512_load_si512(bytes + i * LANES_ROWS);
    lanes_transpose(a, low);
    UNROLL for (int i = 0; i < 16; i++) a[i] = _mm512_load_si512(bytes + (16 + i) * LANES_ROWS);
    lanes_transpose(a, high);
    for (int i = 0; i < 16; i++) {
        const __m512i two[2] = {_mm512_permutex2var_epi64(low[i], first, high[i]),
                                _mm512_permutex2var_epi64(low[i], second, high[i])};
        UNROLL for (int q = 0; q < 4; q++)
        {
            uint8_t *to = rows[16 * q + i] ? rows[16 * q + i] + begin : nowhere;
            const __m256i x = q % 2 ? _mm512_extracti64x4_epi64(two[q / 2], 1) : _mm512_castsi512_si256(two[q / 2]);
            if (width >= 32)
                _mm256_storeu_si256((__m256i *)(void *)to, x);
            else
                _mm256_mask_storeu_epi8(to, some, x);
        }
    }
}

/* Four groups' sums as rows of sixteen columns, `stride` apart; row i goes to place[i]. */
static void lanes_rows(const __m512i left[4][16], const int16_t *place, int64_t stride, int32_t *to)
{
    for (int i = 0; i < 16; i++) {
        const __m512i a = _mm512_shuffle_i32x4(left[0][i], left[1][i], 0x44), /* quarters 0 and 1 of both */
            b = _mm512_shuffle_i32x4(left[2][i], left[3][i], 0x44);
        const __m512i c = _mm512_shuffle_i32x4(left[0][i], left[1][i], 0xee), /* 2 and 3 */
            d = _mm512_shuffle_i32x4(left[2][i], left[3][i], 0xee);
        _mm512_store_si512(to + place[i] * stride, _mm512_shuffle_i32x4(a, b, 0x88));
        _mm512_store_si512(to + place[16 + i] * stride, _mm512_shuffle_i32x4(a, b, 0xdd));
        _mm512_store_si512(to + place[32 + i] * stride, _mm512_shuffle_i32x4(c, d, 0x88));
        _mm512_store_si512(to + place[48 + i] * stride, _mm512_shuffle_i32x4(c, d, 0xdd));
    }
}

/* Bytes, and nothing added to them: finished lane by lane. Else as other tiles are. */
static bool lanes_end_in_bytes(const dot_finish *f)
{
    return f->to->to == TERSE_SUMS_TO_U8 && !f->residual;
}

static void lanes_block_bytes(const sparse_product *p, const uint8_t *turned, const uint32_t *ends,
                              const int16_t *place, int64_t row)
{
    _Alignas(64) uint8_t bytes[TERSE_SPARSE_PANEL * LANES_ROWS];
    uint8_t *rows[LANES_ROWS];
    for (int i = 0; i < LANES_ROWS; i++)
        rows[i] = place[i] < LANES_ROWS ? p->finish.c + (row + place[i]) * p->finish.ldc : NULL;
    for (int64_t panel = 0; panel < terse_sparse_panels(p->finish.columns); panel++) {
        const int64_t begin = panel * TERSE_SPARSE_PANEL, left = p->finish.columns - begin;
        if (left < TERSE_SPARSE_PANEL)
            memset(bytes, 0, sizeof bytes);
        for (int g = 0; g < TERSE_SPARSE_GROUPS && g * 4 < left; g++)
            lanes_group_bytes(p, turned, panel, g, ends[panel * TERSE_SPARSE_GROUPS + g],
                              dot_bias_of(&p->finish, begin / 16 + g / 4) + g % 4 * 4, bytes + g * 4 * LANES_ROWS);
        lanes_put(bytes, rows, begin, left < TERSE_SPARSE_PANEL ? (int)left : TERSE_SPARSE_PANEL);
    }
}

static void lanes_block_sums(const sparse_product *p, const uint8_t *turned, const uint32_t *ends, const int16_t *place,
                             int64_t row, int64_t count)
{
    _Alignas(64) int32_t to[(LANES_ROWS + 2) * 2 * 16];
    __m512i left[4][16];
    for (int64_t panel = 0; panel < terse_sparse_panels(p->finish.columns); panel++) {
        const int64_t begin = panel * TERSE_SPARSE_PANEL, columns = p->finish.columns - begin;
        const int halves = columns > 16 ? 2 : 1;
        for (int h = 0; h < halves; h++) {
            const int32_t *bias = dot_bias_of(&p->finish, begin / 16 + h);
            for (int g = 0; g < 4; g++)
                if (h * 16 + g * 4 < columns)
                    lanes_group(p, turned, panel, h * 4 + g, ends[panel * TERSE_SPARSE_GROUPS + h * 4 + g],
                                bias + g * 4, left[g]);
                else
                    memset(left[g], 0, sizeof left[g]);
            lanes_rows(left, place, halves * 16, to + h * 16);
        }
        dot_finish_panels(&p->finish, to, (int)count, halves, row, begin / 16);
    }
}

/* `count` rows, at most 64, the first of which is output row `row`, over all panels. place[i]: which of them lane i is,
 * LANES_ROWS: none. */
static void lanes_block(const sparse_product *p, const uint8_t *turned, const uint32_t *ends, const int16_t *place,
                        int64_t row, int64_t count)
{
    if (lanes_end_in_bytes(&p->finish))
        lanes_block_bytes(p, turned, ends, place, row);
    else
        lanes_block_sums(p, turned, ends, place, row, count);
}

/* Is it worth it for that many rows? */
static bool lanes_wanted(const terse_sparse_u8s8_args *args, int64_t rows)
{
    const int64_t panels = terse_sparse_panels(args->conv.filters);
    return rows >= LANES_LEAST_ROWS && (int64_t)args->weights.starts[panels] >= LANES_LEAST_STEPS * panels;
}

#endif
