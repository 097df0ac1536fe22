/* SPDX-License-Identifier: Apache-2.0 */
/* dwconv_u8.h: depthwise convolution of bytes, a strip of VB channels at a time.
 *
 * Four rows of a column of pixels are interleaved, so that every channel has its four bytes side by side, as its
 * weights are (TERSE_LAYOUT_S8_DW): one dot product takes four taps. An interleaved column serves all windows of a
 * block that have it. Sums come in quarters (vb.h), so weights, biases and multipliers are put in that order once per
 * strip; packing the results back into bytes undoes it. In the padding taps point at a pixel of zero points. */
#ifndef TERSE_KERNELS_VEC_DWCONV_U8_H
#define TERSE_KERNELS_VEC_DWCONV_U8_H

#include "common/kernels/ref/requantize_ref.h"
#include "common/kernels/vec/dot.h"
#include "common/kernels/vec/fixed.h"
#include "common/kernels/vec/math.h"
#include "common/kernels/vec/tier.h"

enum { DW_KERNEL = 5, DW_QUARTER = VB / 4 }; /* the largest that has its own code */

/* Channels c..c+left-1, at most VB of them. */
typedef struct dw_strip {
    const terse_conv_u8s8_args *args;
    terse_requantize exact; /* without the bias, which the sums have already */
    fixed_range range;
    float residual_scale;
    int64_t c, left;
    int64_t fours;     /* groups of four taps of the middle axis */
    const vb *weights; /* [z][x][fours][4] */
    int32_t bias[VB];
    float multiplier[VB];
    uint8_t padding[VB];
} dw_strip;

/* One row of outputs. */
typedef struct dw_row {
    const uint8_t *image; /* channel c of the image's first pixel */
    int64_t at[2];        /* where its windows begin on the first two axes */
    int64_t first_pixel;  /* of the output */
} dw_row;

/* The channel behind number `at` of quarters. */
INLINE int64_t dw_channel(int64_t at)
{
    return at % DW_QUARTER / 4 * 16 + at / DW_QUARTER * 4 + at % 4;
}

static int64_t dw_positions(const terse_conv_u8s8_args *args)
{
    return args->kernel[0] * args->kernel[2] * ((args->kernel[1] + 3) / 4);
}

static size_t dw_scratch_any(const terse_conv_u8s8_args *args)
{
    return (size_t)dw_positions(args) * 4 * VB;
}

static void dw_weights(const terse_conv_u8s8_args *args, int64_t c)
{
    const int64_t positions = dw_positions(args), panels = (args->channels + 15) / 16;
    uint8_t *to = args->scratch;
    for (int64_t p = 0; p < positions; p++)
        for (int64_t quarter = 0; quarter < 4; quarter++)
            for (int64_t lane = 0; lane < VB / 16; lane++, to += 16) {
                if (c / 16 + lane < panels)
                    memcpy(to, args->weights + ((c / 16 + lane) * positions + p) * 64 + quarter * 16, 16);
                else
                    memset(to, 0, 16);
            }
}

static void dw_strip_init(dw_strip *s, int64_t c)
{
    const terse_conv_u8s8_args *args = s->args;
    const terse_requantize *to = &args->requantize;
    s->c = c;
    s->left = args->channels - c < VB ? args->channels - c : VB;
    dw_weights(args, c);
    s->weights = args->scratch;
    for (int64_t at = 0; at < VB; at++) {
        const int64_t channel = c + dw_channel(at);
        const bool is = channel < args->channels;
        s->bias[at] = is && to->bias ? to->bias[channel] : 0;
        s->multiplier[at] = is && to->to == TERSE_SUMS_TO_U8 ? to->multiplier[channel] : 0.0f;
    }
    if (VB_SIGNED) /* 128 of every tap was taken away */
        for (int q = 0; q < 4; q++) {
            vi bias = vi_load(s->bias + q * DW_QUARTER);
            for (int64_t p = 0; p < dw_positions(args); p++)
                bias = vi_dot(bias, vb_set1(127), s->weights[p * 4 + q]);
            for (int64_t p = 0; p < dw_positions(args); p++)
                bias = vi_dot(bias, vb_set1(1), s->weights[p * 4 + q]);
            vi_store(s->bias + q * DW_QUARTER, bias);
        }
}

/* Four taps of each channel; `left` of them. */
INLINE void dw_quads(const uint8_t *const at[4], int64_t left, vb ret_quarters[4])
{
    vb x[4];
    UNROLL for (int i = 0; i < 4; i++) x[i] = vb_load_up_to(at[i], left);
    if (VB_SIGNED)
        UNROLL for (int i = 0; i < 4; i++) x[i] = vb_flip(x[i]);
    vb_quads(x[0], x[1], x[2], x[3], ret_quarters);
}

APART void dw_put_exactly(const dw_strip *s, const int32_t sums[VB], int64_t pixel)
{
    for (int64_t at = 0; at < VB; at++)
        if (dw_channel(at) < s->left) {
            const int64_t c = s->c + dw_channel(at);
            ref_put(&s->exact, sums[at], pixel, c, s->args->output, pixel * s->args->out_stride + c);
        }
}

/* Quarters of sixteen channels side by side. */
INLINE void dw_in_order(const int32_t all[VB], int64_t sixteen, int32_t ret_sums[16])
{
    UNROLL for (int q = 0; q < 4; q++) memcpy(ret_sums + q * 4, all + q * DW_QUARTER + sixteen * 4, 16);
}

/* Sums as floats or as they are, sixteen channels at a time. */
APART void dw_put_wide(const dw_strip *s, const int32_t all[VB], int64_t pixel)
{
    const terse_requantize *to = &s->exact;
    for (int64_t at = 0; at < s->left; at += 16) {
        const int64_t c = s->c + at, width = s->left - at < 16 ? s->left - at : 16;
        int32_t sums[16];
        dw_in_order(all, at / 16, sums);
        if (to->to == TERSE_SUMS_TO_S32) {
            memcpy((int32_t *)s->args->output + pixel * s->args->out_stride + c, sums, (size_t)width * 4);
            continue;
        }
        const v16 bias = to->bias_f32 ? v16_load_up_to(to->bias_f32 + c, width) : v16_zero();
        v16 x = v16_fma(dot_to_float(sums), v16_load_up_to(to->multiplier + c, width), bias);
        if (to->residual_f32)
            x = v16_add(x, v16_load_up_to(to->residual_f32 + pixel * to->residual_stride + c, width));
        v16_store_up_to((float *)s->args->output + pixel * s->args->out_stride + c,
                        v16_activate_near(x, &to->activation), width);
    }
}

INLINE void dw_put(const dw_strip *s, const vi sums[4], int64_t pixel, int64_t left)
{
    const terse_requantize *to = &s->exact;
    bool near = to->to == TERSE_SUMS_TO_U8;
    if (near) {
        vf t[4];
        UNROLL for (int i = 0; i < 4; i++) t[i] = vf_set1(s->range.begin);
        if (to->residual) {
            const vb more = vb_load_up_to(to->residual + pixel * to->residual_stride + s->c, left);
            UNROLL for (int i = 0; i < 4; i++) t[i] =
                vf_fma(vf_from(vb_widen(more, i)), vf_set1(s->residual_scale), t[i]);
        }
        UNROLL for (int i = 0; i < 4; i++) t[i] =
            vf_fma(vf_from(sums[i]), vf_load(s->multiplier + i * DW_QUARTER), t[i]);
        const vb y = fixed_pack(&s->range, t, &near);
        if (__builtin_expect(!near, 1)) {
            vb_store_up_to((uint8_t *)s->args->output + pixel * s->args->out_stride + s->c, y, left);
            return;
        }
    }
    int32_t all[VB];
    UNROLL for (int i = 0; i < 4; i++) vi_store(all + i * DW_QUARTER, sums[i]);
    if (near)
        dw_put_exactly(s, all, pixel);
    else
        dw_put_wide(s, all, pixel);
}

INLINE void dw_begin(const dw_strip *s, vi sums[4])
{
    UNROLL for (int i = 0; i < 4; i++) sums[i] = vi_load(s->bias + i * DW_QUARTER);
}

/* The tap of a window that begins at ix of the last axis, or the padding. */
INLINE const uint8_t *dw_tap(const dw_strip *s, const dw_row *row, int64_t ix, int64_t z, int64_t y, int64_t x)
{
    const terse_conv_u8s8_args *args = s->args;
    const int64_t iz = row->at[0] + z * args->dilation[0], iy = row->at[1] + y * args->dilation[1];
    ix += x * args->dilation[2];
    if (y >= args->kernel[1] || iz < 0 || iz >= args->in[0] || iy < 0 || iy >= args->in[1] || ix < 0 ||
        ix >= args->in[2])
        return s->padding;
    return row->image + ((iz * args->in[1] + iy) * args->in[2] + ix) * args->in_stride;
}

/* One output of any window. */
APART void dw_output(const dw_strip *s, const dw_row *row, int64_t ox, int64_t left)
{
    const terse_conv_u8s8_args *args = s->args;
    const int64_t ix = ox * args->stride[2] - args->pad[2];
    const vb *w = s->weights;
    vi sums[4];
    dw_begin(s, sums);
    for (int64_t z = 0; z < args->kernel[0]; z++)
        for (int64_t x = 0; x < args->kernel[2]; x++)
            for (int64_t y = 0; y < s->fours * 4; y += 4, w += 4) {
                const uint8_t *at[4];
                vb quarters[4];
                UNROLL for (int i = 0; i < 4; i++) at[i] = dw_tap(s, row, ix, z, y + i, x);
                dw_quads(at, left, quarters);
                UNROLL for (int i = 0; i < 4; i++) sums[i] = vi_dot(sums[i], quarters[i], w[i]);
            }
    dw_put(s, sums, row->first_pixel + ox, left);
}

/* Rows of a square kernel; those in the padding stay where they are. */
typedef struct dw_lines {
    const uint8_t *at[8]; /* under the first column of the input */
    int64_t step[8];
} dw_lines;

/* `block` outputs from ox on, all of whose columns are inside. */
INLINE void dw_block(const dw_strip *s, const dw_row *row, const dw_lines *lines, int block, int kernel, int stride,
                     int64_t ox, int64_t left)
{
    const int fours = (kernel + 3) / 4;
    const int64_t ix = ox * stride - s->args->pad[2];
    vi sums[VB_BLOCK][4];
    UNROLL for (int o = 0; o < block; o++) dw_begin(s, sums[o]);
    UNROLL for (int j = 0; j < (block - 1) * stride + kernel; j++) UNROLL for (int y = 0; y < fours; y++)
    {
        const uint8_t *at[4];
        vb quarters[4];
        UNROLL for (int i = 0; i < 4; i++) at[i] = lines->at[y * 4 + i] + (ix + j) * lines->step[y * 4 + i];
        dw_quads(at, left, quarters);
        UNROLL for (int o = 0; o < block; o++) if (j >= o * stride && j < o * stride + kernel)
            UNROLL for (int i = 0; i < 4; i++) sums[o][i] =
                vi_dot(sums[o][i], quarters[i], s->weights[((j - o * stride) * fours + y) * 4 + i]);
    }
    UNROLL for (int o = 0; o < block; o++) dw_put(s, sums[o], row->first_pixel + ox + o, left);
}

/* One output whose columns are all inside, of a strip that may be narrower than a vector. */
APART void dw_block_cut(const dw_strip *s, const dw_row *row, const dw_lines *lines, int kernel, int stride, int64_t ox)
{
    const int fours = (kernel + 3) / 4;
    const int64_t ix = ox * stride - s->args->pad[2];
    const vb *w = s->weights;
    vi sums[4];
    dw_begin(s, sums);
    for (int j = 0; j < kernel; j++)
        for (int y = 0; y < fours; y++, w += 4) {
            const uint8_t *at[4];
            vb quarters[4];
            UNROLL for (int i = 0; i < 4; i++) at[i] = lines->at[y * 4 + i] + (ix + j) * lines->step[y * 4 + i];
            dw_quads(at, s->left, quarters);
            UNROLL for (int i = 0; i < 4; i++) sums[i] = vi_dot(sums[i], quarters[i], w[i]);
        }
    dw_put(s, sums, row->first_pixel + ox, s->left);
}

/* Outputs ox..end-1 of the row's interior. */
INLINE void dw_span(const dw_strip *s, const dw_row *row, const dw_lines *lines, int kernel, int stride, int64_t ox,
                    int64_t end)
{
    for (; ox + VB_BLOCK <= end; ox += VB_BLOCK)
        dw_block(s, row, lines, VB_BLOCK, kernel, stride, ox, VB);
    for (; VB_BLOCK > 1 && ox < end; ox++)
        dw_block(s, row, lines, 1, kernel, stride, ox, VB);
}

static dw_lines dw_lines_of(const dw_strip *s, const dw_row *row, int kernel)
{
    const terse_conv_u8s8_args *args = s->args;
    dw_lines lines;
    for (int i = 0; i < 8; i++) {
        const int64_t iy = row->at[1] + i;
        const bool inside = i < kernel && row->at[0] >= 0 && row->at[0] < args->in[0] && iy >= 0 && iy < args->in[1];
        lines.step[i] = inside ? args->in_stride : 0;
        lines.at[i] =
            inside ? row->image + (row->at[0] * args->in[1] + iy) * args->in[2] * args->in_stride : s->padding;
    }
    return lines;
}

/* Where the interior of a row ends; *ret_first is where it begins. */
INLINE int64_t dw_interior(const terse_conv_u8s8_args *args, int kernel, int stride, int64_t *ret_first)
{
    const int64_t pad = args->pad[2], room = args->in[2] - kernel + pad, out = args->out[2];
    const int64_t first = (pad + stride - 1) / stride, inside = room < 0 ? 0 : room / stride + 1;
    const int64_t end = inside < out ? inside : out;
    *ret_first = first < end ? first : end;
    return end;
}

typedef void dw_function(const dw_strip *s, const dw_row *row);

static void dw_general(const dw_strip *s, const dw_row *row)
{
    for (int64_t ox = 0; ox < s->args->out[2]; ox++)
        dw_output(s, row, ox, s->left);
}

/* Where DW_LEAN is defined there is no code for each kernel: a tier has a better one for most convolutions. */
#ifdef DW_LEAN
#define DW_WHOLE(s) false
#else
#define DW_WHOLE(s) ((s)->left == VB)
#endif
#define DW_DEFINE(kernel, stride)                                                                                      \
    static void dw_##kernel##_##stride(const dw_strip *s, const dw_row *row)                                           \
    {                                                                                                                  \
        const dw_lines lines = dw_lines_of(s, row, kernel);                                                            \
        int64_t first, ox = 0;                                                                                         \
        const int64_t end = dw_interior(s->args, kernel, stride, &first);                                              \
        for (; ox < first; ox++)                                                                                       \
            dw_output(s, row, ox, s->left);                                                                            \
        if (DW_WHOLE(s))                                                                                               \
            dw_span(s, row, &lines, kernel, stride, ox, end);                                                          \
        else                                                                                                           \
            for (; ox < end; ox++)                                                                                     \
                dw_block_cut(s, row, &lines, kernel, stride, ox);                                                      \
        for (ox = end; ox < s->args->out[2]; ox++)                                                                     \
            dw_output(s, row, ox, s->left);                                                                            \
    }
DW_DEFINE(3, 1)
DW_DEFINE(3, 2)
DW_DEFINE(5, 1)
DW_DEFINE(5, 2)

static dw_function *dw_choose(const terse_conv_u8s8_args *args)
{
    const int64_t kernel = args->kernel[2], stride = args->stride[2];
    if (args->kernel[0] != 1 || args->kernel[1] != kernel || args->dilation[1] != 1 || args->dilation[2] != 1 ||
        (kernel != 3 && kernel != 5) || stride > 2)
        return dw_general;
    return kernel == 3 ? (stride == 1 ? dw_3_1 : dw_3_2) : (stride == 1 ? dw_5_1 : dw_5_2);
}

/* A sum and its multiplier as floats, half a unit each, and the last rounding; with a residual its scale, zero point
 * and addition. */
static void dw_range(dw_strip *s)
{
    const terse_requantize *to = &s->args->requantize;
    const double scale = to->residual ? fabs(to->residual_scale) : 0.0;
    const double move = to->residual ? -(double)to->residual_zero_point * to->residual_scale : 0.0;
    s->range = fixed_for(to->zero_point, to->low, to->high, to->residual ? ceil(4.0 + 2.5 * scale) : 2.0, move, false);
    s->residual_scale = (float)to->residual_scale;
}

static void dw_any(const terse_conv_u8s8_args *args)
{
    const int64_t *in = args->in, *out = args->out;
    dw_function *run = dw_choose(args);
    dw_strip s = {.args = args, .exact = args->requantize, .fours = (args->kernel[1] + 3) / 4};
    s.exact.bias = NULL;
    if (s.exact.to != TERSE_SUMS_TO_U8)
        s.exact.residual = NULL;
    memset(s.padding, args->x_zero_point, sizeof s.padding);
    dw_range(&s);
    for (int64_t c = 0; c < args->channels; c += VB) {
        dw_row row = {.first_pixel = 0};
        dw_strip_init(&s, c);
        for (int64_t n = 0; n < args->n; n++)
            for (int64_t oz = 0; oz < out[0]; oz++)
                for (int64_t oy = 0; oy < out[1]; oy++, row.first_pixel += out[2]) {
                    row.image = args->input + n * in[0] * in[1] * in[2] * args->in_stride + c;
                    row.at[0] = oz * args->stride[0] - args->pad[0];
                    row.at[1] = oy * args->stride[1] - args->pad[1];
                    run(&s, &row);
                }
    }
}

#endif
