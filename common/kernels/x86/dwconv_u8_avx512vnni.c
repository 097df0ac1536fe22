/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Depthwise convolution of bytes with vpdpbusd, sixty-four channels at a time.
 *
 * The kernel's rows of one input column are zipped byte by byte, twice, within 128-bit lanes: register j holds in lane
 * l four rows each of channels 16 l + 4 j .. + 3. One vpdpbusd per register then adds a whole kernel column, and a
 * column that was zipped serves all outputs that it lies under (it moves through `column`). Weights
 * (TERSE_LAYOUT_S8_DW), bias and multipliers are brought into the same order once per block of channels. A fourth row
 * that is none has weight 0.
 *
 * From sums to bytes as in vec/bytes_range.h: the byte is bits 15 to 22 of t; doubled, it is byte 2 of each element,
 * and one shuffle within lanes puts the bytes of the four registers back into the order of the channels.
 *
 * Fast: 2-D windows of at most 8 rows and 7 columns to bytes without a residual. All else: dwconv_u8.h. */
#include "common/kernels/vec/dwconv_u8.h"

#include <immintrin.h>

enum { CHANNELS = 64, MAX_COLUMNS = 7, MAX_FOURS = 2 };

/* Four registers: the channels of a block in zipped order. */
typedef struct quad {
    __m512i r[4];
} quad;

typedef struct block {
    quad weights[MAX_COLUMNS][MAX_FOURS];
    quad bias;
    __m512 multiplier[4];
    bytes_range range;
    int64_t first;
    __mmask64 mask;
    __m512i padding; /* x_zero_point everywhere */
} block;

/* The input rows under one output row; rows outside the input have step 0 and point at the padding. */
typedef struct rows {
    const uint8_t *at[4 * MAX_FOURS];
    int64_t step[4 * MAX_FOURS];
    __mmask64 mask[4 * MAX_FOURS];
} rows;

/* Zipped order: element 4 l + i of register j is channel 16 l + 4 j + i of the block. */
static int channel_of(int j, int element)
{
    return element / 4 * 16 + 4 * j + element % 4;
}

static void prepare(const terse_conv_u8s8_args *args, int64_t first, int fours, block *b)
{
    const terse_requantize *to = &args->requantize;
    const int64_t left = args->channels - first, wide = left < CHANNELS ? left : CHANNELS, columns = args->kernel[2];
    const int64_t panel_bytes = columns * fours * 64, panels = (args->channels + 15) / 16;
    b->first = first;
    b->mask = wide == CHANNELS ? ~(__mmask64)0 : ((__mmask64)1 << wide) - 1;
    b->padding = _mm512_set1_epi8((char)args->x_zero_point);
    b->range = bytes_range_for(2.0, 0.0, to->zero_point, to->low, to->high);
    for (int64_t v = 0; v < columns; v++)
        for (int g = 0; g < fours; g++)
            for (int j = 0; j < 4; j++) {
                _Alignas(64) int8_t w[64] = {0};
                for (int lane = 0; lane < 4 && first / 16 + lane < panels; lane++)
                    memcpy(w + lane * 16,
                           args->weights + (first / 16 + lane) * panel_bytes + (v * fours + g) * 64 + j * 16, 16);
                b->weights[v][g].r[j] = _mm512_load_si512(w);
            }
    for (int j = 0; j < 4; j++) {
        _Alignas(64) int32_t bias[16] = {0};
        _Alignas(64) float multiplier[16] = {0};
        for (int e = 0; e < 16; e++) {
            const int c = channel_of(j, e);
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

/* Column `x` of the input (any number) under the four rows of group g. */
INLINE quad column_at(const block *b, const rows *r, int g, int high, int64_t x, int64_t width)
{
    if (x < 0 || x >= width)
        return (quad){{b->padding, b->padding, b->padding, b->padding}};
    __m512i v[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        const int k = g * 4 + i;
        v[i] = k < high ? _mm512_mask_loadu_epi8(b->padding, r->mask[k], r->at[k] + x * r->step[k]) : b->padding;
    }
    return zip(v[0], v[1], v[2], v[3]);
}

static __attribute__((noinline)) __m512i exact(const terse_requantize *to, const block *b, const quad *sums)
{
    _Alignas(64) uint8_t out[64] = {0};
    for (int j = 0; j < 4; j++) {
        _Alignas(64) int32_t s[16];
        _mm512_store_si512(s, sums->r[j]);
        for (int e = 0; e < 16; e++) {
            const int c = channel_of(j, e);
            if (!(b->mask >> c & 1))
                continue;
            const double low = to->multiplier_low ? (double)to->multiplier_low[b->first + c] : 0.0;
            out[c] = bytes_exact((double)s[e] * ((double)to->multiplier[b->first + c] + low), to->zero_point, to->low,
                                 to->high);
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
    if (__builtin_expect(_mm512_cmple_epu16_mask(least, _mm512_set1_epi16((short)(2 * b->range.near))) != 0, 0))
        return exact(to, b, sums);
    __m512i p = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(x[0], 16), x[1]);
    const __m512i q = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(x[2], 16), x[3]);
    p = _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaau, p, _mm512_slli_epi16(q, 8)); /* 0, 2, 1, 3 of every element */
    return _mm512_shuffle_epi8(p, _mm512_set4_epi32(0x0f0b0703, 0x0d090501, 0x0e0a0602, 0x0c080400));
}

/* One output row of one block. */
INLINE void row_of(const terse_conv_u8s8_args *args, const block *b, const rows *r, int columns, int fours, int high,
                   int stride, uint8_t *y)
{
    quad column[MAX_COLUMNS][MAX_FOURS];
    const int64_t width = args->in[2], dilation = args->dilation[2];
    const bool slide = dilation == 1;
    int64_t x = -args->pad[2];
    UNROLL for (int v = 0; v < columns; v++) UNROLL for (int g = 0; g < fours; g++) column[v][g] =
        column_at(b, r, g, high, x + v * dilation, width);
    for (int64_t o = 0; o < args->out[2]; o++, y += args->out_stride) {
        quad sums = b->bias;
        UNROLL for (int v = 0; v < columns; v++) UNROLL for (int g = 0; g < fours; g++)
            UNROLL for (int j = 0; j < 4; j++)
                sums.r[j] = _mm512_dpbusd_epi32(sums.r[j], column[v][g].r[j], b->weights[v][g].r[j]);
        _mm512_mask_storeu_epi8(y, b->mask, to_bytes(&args->requantize, b, &sums));
        if (o + 1 == args->out[2])
            break;
        x += stride;
        UNROLL for (int v = 0; v < columns; v++) UNROLL for (int g = 0; g < fours; g++)
        {
            if (slide && v + stride < columns)
                column[v][g] = column[v + stride][g];
            else
                column[v][g] = column_at(b, r, g, high, x + v * dilation, width);
        }
    }
}

typedef void row_function(const terse_conv_u8s8_args *args, const block *b, const rows *r, uint8_t *y);

#define ROW(columns, high, stride)                                                                                     \
    static void row_##columns##_##high##_##stride(const terse_conv_u8s8_args *args, const block *b, const rows *r,     \
                                                  uint8_t *y)                                                          \
    {                                                                                                                  \
        row_of(args, b, r, columns, (high + 3) / 4, high, stride, y);                                                  \
    }
ROW(3, 3, 1)
ROW(3, 3, 2)
ROW(5, 5, 1)
ROW(5, 5, 2)

static void row_any(const terse_conv_u8s8_args *args, const block *b, const rows *r, uint8_t *y)
{
    const int columns = (int)args->kernel[2], high = (int)args->kernel[1], fours = (high + 3) / 4;
    for (int64_t o = 0; o < args->out[2]; o++, y += args->out_stride) {
        quad sums = b->bias;
        for (int v = 0; v < columns; v++)
            for (int g = 0; g < fours; g++) {
                const quad c =
                    column_at(b, r, g, high, o * args->stride[2] - args->pad[2] + v * args->dilation[2], args->in[2]);
                for (int j = 0; j < 4; j++)
                    sums.r[j] = _mm512_dpbusd_epi32(sums.r[j], c.r[j], b->weights[v][g].r[j]);
            }
        _mm512_mask_storeu_epi8(y, b->mask, to_bytes(&args->requantize, b, &sums));
    }
}

static row_function *choose(const terse_conv_u8s8_args *args)
{
    const int64_t h = args->kernel[1], w = args->kernel[2], s = args->stride[2];
    if (h == 3 && w == 3 && s <= 2)
        return s == 1 ? row_3_3_1 : row_3_3_2;
    if (h == 5 && w == 5 && s <= 2)
        return s == 1 ? row_5_5_1 : row_5_5_2;
    return row_any;
}

static void rows_under(const terse_conv_u8s8_args *args, const block *b, int64_t n, int64_t out, rows *r)
{
    for (int64_t k = 0; k < args->kernel[1]; k++) {
        const int64_t i = out * args->stride[1] - args->pad[1] + k * args->dilation[1];
        const bool inside = i >= 0 && i < args->in[1];
        r->at[k] = args->input + b->first + (inside ? (n * args->in[1] + i) * args->in[2] * args->in_stride : 0);
        r->step[k] = inside ? args->in_stride : 0;
        r->mask[k] = inside ? b->mask : 0;
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
    row_function *row = choose(args);
    for (int64_t first = 0; first < args->channels; first += CHANNELS) {
        block b;
        prepare(args, first, (int)((args->kernel[1] + 3) / 4), &b);
        uint8_t *y = (uint8_t *)args->output + first;
        for (int64_t n = 0; n < args->n; n++)
            for (int64_t o = 0; o < args->out[1]; o++, y += args->out[2] * args->out_stride) {
                rows r;
                rows_under(args, &b, n, o, &r);
                row(args, &b, &r, y);
            }
    }
}
