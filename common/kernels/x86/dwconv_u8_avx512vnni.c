/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Depthwise convolution of bytes with vpdpbusd, sixty-four channels at a time.
 *
 * The kernel's rows of one input column are zipped byte by byte, twice, within 128-bit lanes: register j holds in lane
 * l four rows each of channels 16 l + 4 j .. + 3. One vpdpbusd per register then adds a whole kernel column, and a
 * column that was zipped serves all outputs that it lies under (it moves through `column`). Weights
 * (TERSE_LAYOUT_S8_DW), bias and multipliers are brought into the same order once per block of channels. A fourth row
 * that is none has weight 0.
 *
 * From sums to bytes as in vec/fixed.h: the byte is bits 15 to 22 of t; doubled, it is byte 2 of each element,
 * and one shuffle within lanes puts the bytes of the four registers back into the order of the channels.
 *
 * A block of at most 32 (16) channels, the last one or all of a narrow tensor, does two (four) output rows at once, its
 * *copies*: each in its own lanes.
 *
 * Fast: 2-D windows of at most 8 rows and 7 columns to bytes without a residual. All else: dwconv_u8.h. */
#define DW_LEAN
#include "common/kernels/vec/dwconv_u8.h"

#include <immintrin.h>

enum { CHANNELS = 64, MAX_COLUMNS = 7, MAX_FOURS = 2, MAX_COPIES = 4 };

/* Four registers: the channels of a block in zipped order. */
typedef struct quad {
    __m512i r[4];
} quad;

typedef struct block {
    quad weights[MAX_COLUMNS][MAX_FOURS];
    quad bias;
    __m512 multiplier[4];
    fixed_range range;
    int64_t first;
    int64_t span;              /* bytes of one copy: 64, 32 or 16 */
    __mmask64 channels;        /* of one copy */
    __mmask64 mask;            /* of all */
    __m512i padding;           /* x_zero_point everywhere */
    uint8_t outside[CHANNELS]; /* the same, for rows outside the input */
} block;

/* The input rows under the output rows of all copies; rows outside the input have step 0 and lie in the padding. */
typedef struct rows {
    const uint8_t *at[4 * MAX_FOURS][MAX_COPIES];
    int64_t step[4 * MAX_FOURS][MAX_COPIES];
    __mmask64 mask[4 * MAX_FOURS][MAX_COPIES];
    int64_t wanted; /* copies that have an output row */
} rows;

/* Zipped order: element 4 l + i of register j is channel 16 l + 4 j + i of the block. */
static int channel_of(int j, int element)
{
    return element / 4 * 16 + 4 * j + element % 4;
}

static void prepare(const terse_conv_u8s8_args *args, int64_t first, int fours, int copies, block *b)
{
    const terse_requantize *to = &args->requantize;
    const int64_t span = CHANNELS / copies, left = args->channels - first, wide = left < span ? left : span;
    const int64_t columns = args->kernel[2];
    const int64_t panel_bytes = columns * fours * 64, panels = (args->channels + 15) / 16;
    b->first = first;
    b->span = span;
    b->channels = wide == CHANNELS ? ~(__mmask64)0 : ((__mmask64)1 << wide) - 1;
    b->mask = 0;
    for (int64_t at = 0; at < CHANNELS; at += span)
        b->mask |= b->channels << at;
    b->padding = _mm512_set1_epi8((char)args->x_zero_point);
    memset(b->outside, args->x_zero_point, sizeof b->outside);
    b->range = fixed_for(to->zero_point, to->low, to->high, 2.0, 0.0, false);
    for (int64_t v = 0; v < columns; v++)
        for (int g = 0; g < fours; g++)
            for (int j = 0; j < 4; j++) {
                _Alignas(64) int8_t w[64] = {0};
                for (int lane = 0; lane < 4; lane++) {
                    const int64_t panel = first / 16 + (lane & (span / 16 - 1));
                    if (panel < panels)
                        memcpy(w + lane * 16, args->weights + panel * panel_bytes + (v * fours + g) * 64 + j * 16, 16);
                }
                b->weights[v][g].r[j] = _mm512_load_si512(w);
            }
    for (int j = 0; j < 4; j++) {
        _Alignas(64) int32_t bias[16] = {0};
        _Alignas(64) float multiplier[16] = {0};
        for (int e = 0; e < 16; e++) {
            const int64_t c = channel_of(j, e) & (span - 1);
            bias[e] = c < wide && to->bias ? to->bias[first + c] : 0;
            multiplier[e] = c < wide ? to->multiplier[first + c] : 0.0f;
        }
        b->bias.r[j] = _mm512_load_si512(bias);
        b->multiplier[j] = _mm512_load_ps(multiplier);
    }
}

INLINE quad zip(__m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m512i ac0 = _mm512_unpacklo_epi8(a, b), ac1 = _mm512_unpackhi_epi8(a, b);
    const __m512i bd0 = _mm512_unpacklo_epi8(c, d), bd1 = _mm512_unpackhi_epi8(c, d);
    return (quad){{_mm512_unpacklo_epi16(ac0, bd0), _mm512_unpackhi_epi16(ac0, bd0), _mm512_unpacklo_epi16(ac1, bd1),
                   _mm512_unpackhi_epi16(ac1, bd1)}};
}

INLINE __m128i sixteen_at(const block *b, const rows *r, int k, int copy, bool full, int64_t x)
{
    if (full)
        return _mm_loadu_si128((const __m128i *)(const void *)(r->at[k][copy] + x * r->step[k][copy]));
    return _mm_mask_loadu_epi8(_mm512_castsi512_si128(b->padding), (__mmask16)r->mask[k][copy],
                               r->at[k][copy] + x * r->step[k][copy]);
}

INLINE __m256i thirtytwo_at(const block *b, const rows *r, int k, int copy, bool full, int64_t x)
{
    if (full)
        return _mm256_loadu_si256((const __m256i *)(const void *)(r->at[k][copy] + x * r->step[k][copy]));
    return _mm256_mask_loadu_epi8(_mm512_castsi512_si256(b->padding), (__mmask32)r->mask[k][copy],
                                  r->at[k][copy] + x * r->step[k][copy]);
}

/* Pixel `x` of row k, of all copies. */
INLINE __m512i pixel_at(const block *b, const rows *r, int k, int copies, bool full, int64_t x)
{
    if (copies == 1 && full)
        return _mm512_loadu_si512(r->at[k][0] + x * r->step[k][0]);
    if (copies == 1)
        return _mm512_mask_loadu_epi8(b->padding, r->mask[k][0], r->at[k][0] + x * r->step[k][0]);
    if (copies == 2)
        return _mm512_inserti64x4(_mm512_castsi256_si512(thirtytwo_at(b, r, k, 0, full, x)),
                                  thirtytwo_at(b, r, k, 1, full, x), 1);
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen_at(b, r, k, 0, full, x)),
                                                sixteen_at(b, r, k, 1, full, x), 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen_at(b, r, k, 2, full, x)),
                                                 sixteen_at(b, r, k, 3, full, x), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Column `x` of the input (any number) under the four rows of group g. */
INLINE quad column_at(const block *b, const rows *r, int g, int high, int copies, bool full, int64_t x, int64_t width)
{
    if (x < 0 || x >= width)
        return (quad){{b->padding, b->padding, b->padding, b->padding}};
    __m512i v[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        const int k = g * 4 + i;
        v[i] = k < high ? pixel_at(b, r, k, copies, full, x) : b->padding;
    }
    return zip(v[0], v[1], v[2], v[3]);
}

APART __m512i exact(const terse_requantize *to, const block *b, const quad *sums)
{
    _Alignas(64) uint8_t out[64] = {0};
    for (int j = 0; j < 4; j++) {
        _Alignas(64) int32_t s[16];
        _mm512_store_si512(s, sums->r[j]);
        for (int e = 0; e < 16; e++) {
            const int c = channel_of(j, e);
            if (!(b->mask >> c & 1))
                continue;
            const int64_t channel = b->first + (c & (b->span - 1));
            const double low = to->multiplier_low ? (double)to->multiplier_low[channel] : 0.0;
            out[c] =
                fixed_exact((double)s[e] * ((double)to->multiplier[channel] + low), to->zero_point, to->low, to->high);
        }
    }
    return _mm512_load_si512(out);
}

INLINE __m512i to_bytes(const terse_requantize *to, const block *b, const quad *sums)
{
    __m512i x[4];
    const __m512 begin = _mm512_set1_ps(b->range.begin), low = _mm512_set1_ps(b->range.low),
                 high = _mm512_set1_ps(b->range.high);
    UNROLL for (int j = 0; j < 4; j++)
    {
        __m512 t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums->r[j]), b->multiplier[j], begin);
        t = _mm512_min_ps(_mm512_max_ps(t, low), high);
        x[j] = _mm512_castps_si512(t);
        x[j] = _mm512_add_epi32(x[j], x[j]);
    }
    const __m512i least = _mm512_min_epu16(_mm512_min_epu16(x[0], x[1]), _mm512_min_epu16(x[2], x[3]));
    if (__builtin_expect(_mm512_cmple_epu16_mask(least, _mm512_set1_epi16((short)b->range.near)) != 0, 0))
        return exact(to, b, sums);
    __m512i p = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(x[0], 16), x[1]);
    const __m512i q = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(x[2], 16), x[3]);
    p = _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaau, p, _mm512_slli_epi16(q, 8)); /* 0, 2, 1, 3 of every element */
    return _mm512_shuffle_epi8(p, _mm512_set4_epi32(0x0f0b0703, 0x0d090501, 0x0e0a0602, 0x0c080400));
}

/* The bytes of one pixel of all copies; `row` is what an output row takes. */
INLINE void store(const block *b, const rows *r, int copies, bool full, __m512i bytes, uint8_t *y, int64_t row)
{
    if (full && copies < 4) {
        if (copies == 1)
            _mm512_storeu_si512(y, bytes);
        else
            _mm256_storeu_si256((__m256i *)(void *)y, _mm512_castsi512_si256(bytes));
        if (copies == 2 && r->wanted > 1)
            _mm256_storeu_si256((__m256i *)(void *)(y + row), _mm512_extracti64x4_epi64(bytes, 1));
    } else if (full) {
        _mm_storeu_si128((__m128i *)(void *)y, _mm512_castsi512_si128(bytes));
        if (r->wanted > 1)
            _mm_storeu_si128((__m128i *)(void *)(y + row), _mm512_extracti32x4_epi32(bytes, 1));
        if (r->wanted > 2)
            _mm_storeu_si128((__m128i *)(void *)(y + 2 * row), _mm512_extracti32x4_epi32(bytes, 2));
        if (r->wanted > 3)
            _mm_storeu_si128((__m128i *)(void *)(y + 3 * row), _mm512_extracti32x4_epi32(bytes, 3));
    } else if (copies == 1) {
        _mm512_mask_storeu_epi8(y, b->mask, bytes);
    } else if (copies == 2) {
        _mm256_mask_storeu_epi8(y, (__mmask32)b->channels, _mm512_castsi512_si256(bytes));
        if (r->wanted > 1)
            _mm256_mask_storeu_epi8(y + row, (__mmask32)b->channels, _mm512_extracti64x4_epi64(bytes, 1));
    } else {
        const __mmask16 mask = (__mmask16)b->channels;
        _mm_mask_storeu_epi8(y, mask, _mm512_castsi512_si128(bytes));
        if (r->wanted > 1)
            _mm_mask_storeu_epi8(y + row, mask, _mm512_extracti32x4_epi32(bytes, 1));
        if (r->wanted > 2)
            _mm_mask_storeu_epi8(y + 2 * row, mask, _mm512_extracti32x4_epi32(bytes, 2));
        if (r->wanted > 3)
            _mm_mask_storeu_epi8(y + 3 * row, mask, _mm512_extracti32x4_epi32(bytes, 3));
    }
}

/* One output row of one block, or one for each copy, each column of its windows read again. */
INLINE void row_dilated_of(const terse_conv_u8s8_args *args, const block *b, const rows *r, int size, int stride,
                           int copies, bool full, uint8_t *y)
{
    const int fours = (size + 3) / 4;
    const int64_t row = args->out[2] * args->out_stride;
    int64_t x = -args->pad[2];
    for (int64_t o = 0; o < args->out[2]; o++, y += args->out_stride, x += stride) {
        quad sums = b->bias;
        for (int v = 0; v < size; v++)
            for (int g = 0; g < fours; g++) {
                const quad c = column_at(b, r, g, size, copies, full, x + v * args->dilation[2], args->in[2]);
                UNROLL for (int j = 0; j < 4; j++) sums.r[j] =
                    _mm512_dpbusd_epi32(sums.r[j], c.r[j], b->weights[v][g].r[j]);
            }
        store(b, r, copies, full, to_bytes(&args->requantize, b, &sums), y, row);
    }
}

#define DILATED(copies)                                                                                                \
    APART void row_dilated_##copies(const terse_conv_u8s8_args *args, const block *b, const rows *r, int size,         \
                                    int stride, uint8_t *y)                                                            \
    {                                                                                                                  \
        row_dilated_of(args, b, r, size, stride, copies, false, y);                                                    \
    }
DILATED(1)
DILATED(2)
DILATED(4)

/* The same where columns move on from window to window. */
INLINE void row_of(const terse_conv_u8s8_args *args, const block *b, const rows *r, int size, int stride, int copies,
                   bool full, uint8_t *y)
{
    quad column[MAX_COLUMNS][MAX_FOURS];
    const int fours = (size + 3) / 4;
    const int64_t width = args->in[2], row = args->out[2] * args->out_stride;
    int64_t x = -args->pad[2];
    UNROLL for (int v = 0; v < size; v++) UNROLL for (int g = 0; g < fours; g++) column[v][g] =
        column_at(b, r, g, size, copies, full, x + v, width);
    for (int64_t o = 0; o < args->out[2]; o++, y += args->out_stride) {
        quad sums = b->bias;
        UNROLL for (int v = 0; v < size; v++) UNROLL for (int g = 0; g < fours; g++) UNROLL for (int j = 0; j < 4; j++)
            sums.r[j] = _mm512_dpbusd_epi32(sums.r[j], column[v][g].r[j], b->weights[v][g].r[j]);
        store(b, r, copies, full, to_bytes(&args->requantize, b, &sums), y, row);
        if (o + 1 == args->out[2])
            break;
        x += stride;
        UNROLL for (int v = 0; v < size; v++) UNROLL for (int g = 0; g < fours; g++)
        {
            if (v + stride < size)
                column[v][g] = column[v + stride][g];
            else
                column[v][g] = column_at(b, r, g, size, copies, full, x + v, width);
        }
    }
}

typedef void row_function(const terse_conv_u8s8_args *args, const block *b, const rows *r, uint8_t *y);

/* Blocks that fill their copies do without masks, which loads and stores pay for; of windows of five, which are long
 * and compute more, only those of one copy. */
#define ROW(size, stride, copies)                                                                                      \
    static void row_##size##_##stride##_##copies(const terse_conv_u8s8_args *args, const block *b, const rows *r,      \
                                                 uint8_t *y)                                                           \
    {                                                                                                                  \
        if (args->dilation[2] != 1)                                                                                    \
            row_dilated_##copies(args, b, r, size, stride, y);                                                         \
        else if (((size) < 5 || (copies) == 1) && b->mask == ~(__mmask64)0)                                            \
            row_of(args, b, r, size, stride, copies, true, y);                                                         \
        else                                                                                                           \
            row_of(args, b, r, size, stride, copies, false, y);                                                        \
    }
#define ROWS(size, stride) ROW(size, stride, 1) ROW(size, stride, 2) ROW(size, stride, 4)
ROWS(3, 1)
ROWS(3, 2)
ROWS(5, 1)
ROWS(5, 2)

static void row_any(const terse_conv_u8s8_args *args, const block *b, const rows *r, uint8_t *y)
{
    const int columns = (int)args->kernel[2], high = (int)args->kernel[1], fours = (high + 3) / 4;
    for (int64_t o = 0; o < args->out[2]; o++, y += args->out_stride) {
        quad sums = b->bias;
        for (int v = 0; v < columns; v++)
            for (int g = 0; g < fours; g++) {
                const quad c = column_at(b, r, g, high, 1, false,
                                         o * args->stride[2] - args->pad[2] + v * args->dilation[2], args->in[2]);
                for (int j = 0; j < 4; j++)
                    sums.r[j] = _mm512_dpbusd_epi32(sums.r[j], c.r[j], b->weights[v][g].r[j]);
            }
        _mm512_mask_storeu_epi8(y, b->mask, to_bytes(&args->requantize, b, &sums));
    }
}

/* The function for a block of so many channels, and the output rows that it does at once. */
static row_function *choose(const terse_conv_u8s8_args *args, int64_t channels, int *ret_copies)
{
    static row_function *const functions[4][3] = {{row_3_1_1, row_3_1_2, row_3_1_4},
                                                  {row_3_2_1, row_3_2_2, row_3_2_4},
                                                  {row_5_1_1, row_5_1_2, row_5_1_4},
                                                  {row_5_2_1, row_5_2_2, row_5_2_4}};
    const int64_t h = args->kernel[1], w = args->kernel[2], s = args->stride[2];
    *ret_copies = 1;
    if (h != w || (h != 3 && h != 5) || s > 2)
        return row_any;
    const int narrow = channels > 32 || args->out[1] < 2 ? 0 : channels > 16 || args->out[1] < 3 ? 1 : 2;
    *ret_copies = 1 << narrow;
    return functions[(h == 5 ? 2 : 0) + (s - 1)][narrow];
}

static void rows_under(const terse_conv_u8s8_args *args, const block *b, int64_t n, int64_t out, int copies, rows *r)
{
    r->wanted = args->out[1] - out < copies ? args->out[1] - out : copies;
    for (int copy = 0; copy < copies; copy++)
        for (int64_t k = 0; k < args->kernel[1]; k++) {
            const int64_t i = (out + copy) * args->stride[1] - args->pad[1] + k * args->dilation[1];
            const bool inside = copy < r->wanted && i >= 0 && i < args->in[1];
            r->at[k][copy] =
                inside ? args->input + b->first + (n * args->in[1] + i) * args->in[2] * args->in_stride : b->outside;
            r->step[k][copy] = inside ? args->in_stride : 0;
            r->mask[k][copy] = inside ? b->channels : 0;
        }
}

size_t terse_dwconv_u8s8_scratch_avx512vnni(const terse_conv_u8s8_args *args)
{
    return dw_scratch_any(args);
}

void terse_dwconv_u8s8_avx512vnni(const terse_conv_u8s8_args *args)
{
    const bool flat = args->kernel[0] == 1 && args->in[0] == 1 && args->out[0] == 1 && args->pad[0] == 0;
    if (!flat || args->kernel[1] > 4 * MAX_FOURS || args->kernel[2] > MAX_COLUMNS ||
        args->requantize.to != TERSE_SUMS_TO_U8 || args->requantize.residual) {
        dw_any(args);
        return;
    }
    const int64_t image = args->out[1] * args->out[2] * args->out_stride;
    for (int64_t first = 0; first < args->channels; first += CHANNELS) {
        block b;
        int copies;
        row_function *row = choose(args, args->channels - first, &copies);
        prepare(args, first, (int)((args->kernel[1] + 3) / 4), copies, &b);
        for (int64_t n = 0; n < args->n; n++)
            for (int64_t o = 0; o < args->out[1]; o += copies) {
                rows r;
                rows_under(args, &b, n, o, copies, &r);
                row(args, &b, &r, (uint8_t *)args->output + first + n * image + o * args->out[2] * args->out_stride);
            }
    }
}
