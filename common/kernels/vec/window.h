/* SPDX-License-Identifier: Apache-2.0 */
/* window.h: depthwise convolution and pooling: windows that slide over channels-last pixels, sixteen channels at a
 * time. Taps in the padding are left out, so rows and columns of a window shrink to a range at the borders.
 *
 * dwconv: WINDOW_BLOCK neighbouring outputs of a row share each weight, and for stride 1 each input, in registers.
 * The interior of a row runs through these blocks without any test of bounds; the few outputs at its ends are blocks
 * of one. Every output is one chain of FMAs over its taps in order, in blocks of any size. */
#ifndef TERSE_KERNELS_VEC_WINDOW_H
#define TERSE_KERNELS_VEC_WINDOW_H

#include "common/kernels/vec/math.h"
#include "common/kernels/vec/tier.h"

/* Taps first..end-1 of a window lie inside an axis. */
typedef struct tap_range {
    int64_t first, end;
} tap_range;

INLINE tap_range taps_inside(int64_t at, int64_t size, int64_t kernel, int64_t dilation)
{
    tap_range range = {0, kernel};
    while (range.first < kernel && at + range.first * dilation < 0)
        range.first++;
    while (range.end > range.first && at + (range.end - 1) * dilation >= size)
        range.end--;
    return range;
}

/* One output row of a depthwise convolution. */
typedef struct dw_row {
    const terse_conv_f32_args *args;
    const float *image;
    int64_t at[2];       /* of the window, first two axes */
    tap_range range[2];  /* of the first two axes */
    int64_t first_pixel; /* output index of the row */
    int64_t padded;      /* channels of the weights */
} dw_row;

/* `block` outputs from column `ox` on, channels c..c+15 of which `left` exist, taps `range` of the last axis. kw and
 * stride are constants where a caller knows them. */
INLINE void dw_block(const dw_row *row, int block, int64_t kw, int64_t stride, bool dense, int64_t ox, int64_t c,
                     int64_t left, tap_range range)
{
    const terse_conv_f32_args *args = row->args;
    int64_t step = args->in_stride, dilation = dense ? 1 : args->dilation[2];
    v16 acc[WINDOW_BLOCK];
    UNROLL for (int o = 0; o < block; o++) acc[o] = v16_zero();
    for (int64_t z = row->range[0].first; z < row->range[0].end; z++)
        for (int64_t y = row->range[1].first; y < row->range[1].end; y++) {
            int64_t iz = row->at[0] + z * args->dilation[0], iy = row->at[1] + y * args->dilation[1];
            int64_t ix = ox * stride - args->pad[2];
            const float *in = row->image + ((iz * args->in[1] + iy) * args->in[2] + ix) * step + c;
            const float *w = args->weights + (z * args->kernel[1] + y) * kw * row->padded + c;
            UNROLL for (int64_t x = range.first; x < range.end; x++)
            {
                v16 weight = v16_load(w + x * row->padded);
                UNROLL for (int o = 0; o < block; o++)
                {
                    const float *p = in + (o * stride + x * dilation) * step;
                    acc[o] = v16_fma(left < 16 ? v16_load_n(p, (int)left) : v16_load(p), weight, acc[o]);
                }
            }
        }
    v16 bias = args->bias ? v16_load_up_to(args->bias + c, left) : v16_zero();
    UNROLL for (int o = 0; o < block; o++)
    {
        int64_t pixel = row->first_pixel + ox + o;
        v16 x = args->bias ? v16_add(acc[o], bias) : acc[o];
        if (args->residual)
            x = v16_add(x, v16_load_up_to(args->residual + pixel * args->residual_stride + c, left));
        v16_store_up_to(args->output + pixel * args->out_stride + c, v16_activate_near(x, &args->activation), left);
    }
}

/* All channels of `block` outputs. */
INLINE void dw_columns(const dw_row *row, int block, int64_t kw, int64_t stride, bool dense, int64_t ox,
                       tap_range range)
{
    int64_t c = 0, channels = row->args->channels;
    for (; c + 16 <= channels; c += 16)
        dw_block(row, block, kw, stride, dense, ox, c, 16, range);
    if (c < channels)
        dw_block(row, block, kw, stride, dense, ox, c, channels - c, range);
}

static void dw_any(const dw_row *row, int64_t ox)
{
    const terse_conv_f32_args *args = row->args;
    tap_range range = taps_inside(ox * args->stride[2] - args->pad[2], args->in[2], args->kernel[2], args->dilation[2]);
    dw_columns(row, 1, args->kernel[2], args->stride[2], false, ox, range);
}

/* Outputs ox..end-1, all of whose taps are inside. */
INLINE void dw_interior(const dw_row *row, int64_t kw, int64_t stride, bool dense, int64_t ox, int64_t end)
{
    const tap_range all = {0, kw};
    for (; ox + WINDOW_BLOCK <= end; ox += WINDOW_BLOCK)
        dw_columns(row, WINDOW_BLOCK, kw, stride, dense, ox, all);
    for (; ox + WINDOW_BLOCK / 2 <= end; ox += WINDOW_BLOCK / 2)
        dw_columns(row, WINDOW_BLOCK / 2, kw, stride, dense, ox, all);
    for (; ox + 2 <= end; ox += 2)
        dw_columns(row, 2, kw, stride, dense, ox, all);
    for (; ox < end; ox++)
        dw_columns(row, 1, kw, stride, dense, ox, all);
}

#define DW_INTERIOR(name, kw, stride, dense)                                                                           \
    static void dw_##name(const dw_row *row, int64_t ox, int64_t end)                                                  \
    {                                                                                                                  \
        dw_interior(row, kw, stride, dense, ox, end);                                                                  \
    }
DW_INTERIOR(3_1, 3, 1, true)
DW_INTERIOR(3_2, 3, 2, true)
DW_INTERIOR(5_1, 5, 1, true)
DW_INTERIOR(5_2, 5, 2, true)
DW_INTERIOR(general, row->args->kernel[2], row->args->stride[2], false)

typedef void dw_function(const dw_row *row, int64_t ox, int64_t end);

static dw_function *dw_choose(const terse_conv_f32_args *args)
{
    int64_t kw = args->kernel[2], stride = args->stride[2];
    if (args->dilation[2] != 1 || (kw != 3 && kw != 5) || stride > 2)
        return dw_general;
    return kw == 3 ? (stride == 1 ? dw_3_1 : dw_3_2) : (stride == 1 ? dw_5_1 : dw_5_2);
}

void TIER_NAME(terse_dwconv_f32)(const terse_conv_f32_args *args)
{
    const int64_t *in = args->in, *out = args->out, *stride = args->stride, *pad = args->pad;
    dw_function *interior = dw_choose(args);
    /* Interior columns: ox * stride >= pad and ox * stride - pad + reach < in. */
    int64_t reach = (args->kernel[2] - 1) * args->dilation[2], room = in[2] - 1 - reach + pad[2];
    int64_t first = (pad[2] + stride[2] - 1) / stride[2], end = room < 0 ? 0 : room / stride[2] + 1;
    end = end < out[2] ? end : out[2];
    first = first < out[2] ? first : out[2];
    end = end > first ? end : first;
    dw_row row = {.args = args, .padded = (args->channels + 15) / 16 * 16};
    for (int64_t n = 0; n < args->n; n++)
        for (int64_t oz = 0; oz < out[0]; oz++)
            for (int64_t oy = 0; oy < out[1]; oy++, row.first_pixel += out[2]) {
                row.image = args->input + n * in[0] * in[1] * in[2] * args->in_stride;
                row.at[0] = oz * stride[0] - pad[0];
                row.at[1] = oy * stride[1] - pad[1];
                row.range[0] = taps_inside(row.at[0], in[0], args->kernel[0], args->dilation[0]);
                row.range[1] = taps_inside(row.at[1], in[1], args->kernel[1], args->dilation[1]);
                for (int64_t ox = 0; ox < first; ox++)
                    dw_any(&row, ox);
                interior(&row, first, end);
                for (int64_t ox = end; ox < out[2]; ox++)
                    dw_any(&row, ox);
            }
}

/* The window of one output pixel of a pool. */
typedef struct pool_window {
    const terse_pool_f32_args *args;
    const float *image;
    int64_t at[3];
    tap_range range[3];
    float divisor;
    float *output;
} pool_window;

INLINE const float *pool_row(const pool_window *w, int64_t z, int64_t y)
{
    const terse_pool_f32_args *args = w->args;
    int64_t iz = w->at[0] + z * args->dilation[0], iy = w->at[1] + y * args->dilation[1];
    int64_t ix = w->at[2] + w->range[2].first * args->dilation[2];
    return w->image + ((iz * args->in[1] + iy) * args->in[2] + ix) * args->in_stride;
}

/* `vectors` times sixteen channels from c on; of the last sixteen `left` exist. */
INLINE void pool_block(const pool_window *w, bool average, int vectors, int64_t c, int64_t left)
{
    int64_t step = w->args->dilation[2] * w->args->in_stride, taps = w->range[2].end - w->range[2].first;
    v16 acc[4];
    UNROLL for (int v = 0; v < vectors; v++) acc[v] = average ? v16_zero() : v16_set1(-INFINITY);
    for (int64_t z = w->range[0].first; z < w->range[0].end; z++)
        for (int64_t y = w->range[1].first; y < w->range[1].end; y++) {
            const float *p = pool_row(w, z, y) + c;
            v16 sum[4];
            UNROLL for (int v = 0; v < vectors; v++) sum[v] = average ? v16_zero() : acc[v];
            for (int64_t x = 0; x < taps; x++, p += step)
                UNROLL for (int v = 0; v < vectors; v++)
                {
                    v16 value = left < 16 ? v16_load_n(p + v * 16, (int)left) : v16_load(p + v * 16);
                    sum[v] = average ? v16_add(sum[v], value) : v16_max_nan(sum[v], value);
                }
            UNROLL for (int v = 0; v < vectors; v++) acc[v] = average ? v16_add(acc[v], sum[v]) : sum[v];
        }
    UNROLL for (int v = 0; v < vectors; v++)
    {
        v16 x = average ? v16_div(acc[v], v16_set1(w->divisor)) : acc[v];
        v16_store_up_to(w->output + c + v * 16, x, left);
    }
}

INLINE void pool_channels(const pool_window *w, bool average)
{
    int64_t c = 0, channels = w->args->channels;
    for (; c + 64 <= channels; c += 64)
        pool_block(w, average, 4, c, 16);
    for (; c + 16 <= channels; c += 16)
        pool_block(w, average, 1, c, 16);
    if (c < channels)
        pool_block(w, average, 1, c, channels - c);
}

/* Taps that count in the divisor: those inside, or those that begin before the end of the padding. */
static int64_t pool_count(const pool_window *w, int axis)
{
    const terse_pool_f32_args *args = w->args;
    if (!args->count_include_pad)
        return w->range[axis].end - w->range[axis].first;
    int64_t count = args->kernel[axis];
    while (count > 0 && w->at[axis] + (count - 1) * args->dilation[axis] >= args->in[axis] + args->pad_end[axis])
        count--;
    return count;
}

INLINE void pool_all(const terse_pool_f32_args *args, bool average)
{
    const int64_t *in = args->in, *out = args->out;
    pool_window w = {.args = args, .output = args->output};
    int64_t o[3];
    for (int64_t n = 0; n < args->n; n++) {
        w.image = args->input + n * in[0] * in[1] * in[2] * args->in_stride;
        for (o[0] = 0; o[0] < out[0]; o[0]++)
            for (o[1] = 0; o[1] < out[1]; o[1]++)
                for (o[2] = 0; o[2] < out[2]; o[2]++, w.output += args->out_stride) {
                    int64_t count = 1;
                    for (int axis = 0; axis < 3; axis++) {
                        w.at[axis] = o[axis] * args->stride[axis] - args->pad[axis];
                        w.range[axis] = taps_inside(w.at[axis], in[axis], args->kernel[axis], args->dilation[axis]);
                        count *= pool_count(&w, axis);
                    }
                    w.divisor = count ? (float)count : 1.0f; /* no taps: the sum is 0 */
                    pool_channels(&w, average);
                }
    }
}

void TIER_NAME(terse_max_pool_f32)(const terse_pool_f32_args *args)
{
    pool_all(args, false);
}

void TIER_NAME(terse_average_pool_f32)(const terse_pool_f32_args *args)
{
    pool_all(args, true);
}

#endif
