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

/* What a pixel is made of: floats or, where WINDOW_BF16 is defined, BF16, computed with as floats. */
#ifndef WINDOW_BF16
typedef float pixel;

INLINE v16 dw_load(const pixel *p, int64_t left)
{
    return left < 16 ? v16_load_n(p, (int)left) : v16_load(p);
}

INLINE void dw_store(pixel *p, v16 x, int64_t left)
{
    v16_store_up_to(p, x, left);
}
#else
typedef uint16_t pixel;

INLINE v16 dw_load(const pixel *p, int64_t left)
{
    return v16_load_bf16(p, left);
}

INLINE void dw_store(pixel *p, v16 x, int64_t left)
{
    v16_store_bf16(p, x, left);
}
#endif

/* With masks one code serves all strips. */
#if defined(__AVX512F__)
enum { DW_MASKS = 1 };
#else
enum { DW_MASKS = 0 };
#endif

/* Of a strip that may be cut off. */
INLINE v16 dw_load_cut(const pixel *p, int64_t left)
{
#if !defined(__AVX512F__)
    return dw_load(p, left);
#elif !defined(WINDOW_BF16)
    return v16_load_n(p, (int)left);
#else
    return v16_load_few_bf16(p, (int)left);
#endif
}

INLINE void dw_store_cut(pixel *p, v16 x, int64_t left)
{
#if !defined(__AVX512F__)
    dw_store(p, x, left);
#elif !defined(WINDOW_BF16)
    v16_store_n(p, x, (int)left);
#else
    _mm256_mask_storeu_epi16(p, v16_mask((int)left), v16_to_bf16(x));
#endif
}

/* Pointers of the arguments, whatever lies behind them. */
INLINE const pixel *pixels_of(const float *p)
{
    return (const pixel *)(const void *)p;
}

#if defined(WINDOW_BF16) && !defined(__AVX512F__)
#define DW_ROWS_CUT APART void
enum { DW_LEAN = 1 }; /* code for each kernel would be long, and pixels take most of the time */
#else
#define DW_ROWS_CUT INLINE void
enum { DW_LEAN = 0 };
#endif

enum { DW_KERNEL = 5 }; /* the largest that has its own code */

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
    const pixel *image;
    int64_t at[2];       /* of the window, first two axes */
    tap_range range[2];  /* of the first two axes */
    int64_t first_pixel; /* output index of the row */
    int64_t padded;      /* channels of the weights */
    tap_range interior;  /* outputs of the row all of whose taps are inside */
} dw_row;

/* Any activation, with or without a residual, channels that do not fill a vector. */
APART void dw_finish_any(const dw_row *row, int block, const v16 *acc, int64_t ox, int64_t c, int64_t left)
{
    const terse_conv_f32_args *args = row->args;
    const v16 bias = args->bias ? v16_load_up_to(args->bias + c, left) : v16_zero();
    for (int o = 0; o < block; o++) {
        const int64_t at = row->first_pixel + ox + o;
        v16 x = args->bias ? v16_add(acc[o], bias) : acc[o];
        if (args->residual)
            x = v16_add(x, dw_load(pixels_of(args->residual) + at * args->residual_stride + c, left));
        dw_store((pixel *)(void *)args->output + at * args->out_stride + c, v16_activate(x, &args->activation), left);
    }
}

/* What most rows end in stays in registers; `block` is known where this is compiled. */
INLINE void dw_finish(const dw_row *row, int block, const v16 *acc, int64_t ox, int64_t c, int64_t left)
{
    const terse_conv_f32_args *args = row->args;
    const bool clip = args->activation.kind == TERSE_ACT_CLIP;
    if ((!DW_MASKS && left < 16) || args->residual || !(clip || args->activation.kind == TERSE_ACT_NONE)) {
        v16 sums[WINDOW_BLOCK]; /* whose address is taken only here */
        UNROLL for (int o = 0; o < block; o++) sums[o] = acc[o];
        dw_finish_any(row, block, sums, ox, c, left);
        return;
    }
    pixel *y = (pixel *)(void *)args->output + (row->first_pixel + ox) * args->out_stride + c;
    const v16 bias = args->bias ? v16_load_up_to(args->bias + c, left) : v16_zero();
    const v16 alpha = v16_set1(args->activation.alpha), beta = v16_set1(args->activation.beta);
    UNROLL for (int o = 0; o < block; o++)
    {
        v16 x = args->bias ? v16_add(acc[o], bias) : acc[o];
        dw_store_cut(y + o * args->out_stride, clip ? v16_clip(x, alpha, beta) : x, left);
    }
}

/* One output of any window, channels c..c+15 of which `left` exist. */
static void dw_any(const dw_row *row, int64_t ox, int64_t c, int64_t left)
{
    const terse_conv_f32_args *args = row->args;
    int64_t ix = ox * args->stride[2] - args->pad[2], step = args->in_stride;
    tap_range range = taps_inside(ix, args->in[2], args->kernel[2], args->dilation[2]);
    v16 acc = v16_zero();
    for (int64_t z = row->range[0].first; z < row->range[0].end; z++)
        for (int64_t y = row->range[1].first; y < row->range[1].end; y++) {
            int64_t iz = row->at[0] + z * args->dilation[0], iy = row->at[1] + y * args->dilation[1];
            const pixel *in = row->image + ((iz * args->in[1] + iy) * args->in[2] + ix) * step + c;
            const float *w = args->weights + (z * args->kernel[1] + y) * args->kernel[2] * row->padded + c;
            for (int64_t x = range.first; x < range.end; x++)
                acc = v16_fma(dw_load(in + x * args->dilation[2] * step, left), v16_load(w + x * row->padded), acc);
        }
    dw_finish_any(row, 1, &acc, ox, c, left);
}

/* What all outputs of a row share, sixteen channels at a time: input rows that exist and their weights. */
typedef struct dw_strip {
    const pixel *in[DW_KERNEL]; /* channel c of the pixel under the window's first tap when ox is 0 */
    const float *weights;       /* channel c of the first tap of the first of these rows */
    int64_t rows, c, left;
} dw_strip;

/* Row y of the window of `block` outputs. */
INLINE void dw_line(const dw_row *row, const dw_strip *s, int block, int64_t kernel, int64_t stride,
                    const v16 (*hoisted)[DW_KERNEL], int64_t ox, int64_t y, v16 acc[WINDOW_BLOCK])
{
    const int64_t step = row->args->in_stride;
    const pixel *p = s->in[y] + ox * stride * step;
    UNROLL for (int64_t x = 0; x < kernel; x++)
    {
        const v16 weight = hoisted ? hoisted[y][x] : v16_load(s->weights + (y * kernel + x) * row->padded);
        UNROLL for (int o = 0; o < block; o++) acc[o] =
            v16_fma(dw_load(p + (o * stride + x) * step, 16), weight, acc[o]);
    }
}

/* `block` outputs from ox on, all of whose taps are inside. hoisted: the weights, or NULL to load them. */
INLINE void dw_block(const dw_row *row, const dw_strip *s, int block, int64_t kernel, int64_t stride,
                     const v16 (*hoisted)[DW_KERNEL], int64_t ox)
{
    v16 acc[WINDOW_BLOCK];
    UNROLL for (int o = 0; o < block; o++) acc[o] = v16_zero();
    if (hoisted)
        UNROLL for (int64_t y = 0; y < kernel; y++) dw_line(row, s, block, kernel, stride, hoisted, ox, y, acc);
    else /* forty products or more a turn: unrolled as well it would be longer and no faster */
        for (int64_t y = 0; y < kernel; y++)
            dw_line(row, s, block, kernel, stride, NULL, ox, y, acc);
    dw_finish(row, block, acc, ox, s->c, 16);
}

/* One tap of `block` outputs. */
INLINE void dw_column_cut(const pixel *p, int64_t step, v16 weight, int block, int64_t left, v16 acc[WINDOW_BLOCK])
{
    UNROLL for (int o = 0; o < block; o++) acc[o] = v16_fma(dw_load_cut(p + o * step, left), weight, acc[o]);
}

/* The same where rows lie in the padding or channels do not fill a vector (left < 16). */
INLINE void dw_block_cut(const dw_row *row, const dw_strip *s, int block, int64_t kernel, int64_t stride, int64_t ox,
                         int64_t left)
{
    int64_t step = row->args->in_stride;
    const float *weights = s->weights;
    v16 acc[WINDOW_BLOCK];
    UNROLL for (int o = 0; o < block; o++) acc[o] = v16_zero();
    for (int64_t y = 0; y < s->rows; y++, weights += kernel * row->padded) {
        const pixel *p = s->in[y] + ox * stride * step;
        if (DW_LEAN)
            for (int64_t x = 0; x < kernel; x++)
                dw_column_cut(p + x * step, stride * step, v16_load(weights + x * row->padded), block, left, acc);
        else
            UNROLL for (int64_t x = 0; x < kernel; x++)
                dw_column_cut(p + x * step, stride * step, v16_load(weights + x * row->padded), block, left, acc);
    }
    dw_finish(row, block, acc, ox, s->c, left);
}

/* Outputs ox..end-1 at either end of the row, which lack taps. */
INLINE void dw_edge_of(const dw_row *row, const dw_strip *s, int64_t kernel, int64_t stride, int64_t ox, int64_t end,
                       int64_t left)
{
    const int64_t step = row->args->in_stride;
    for (; ox < end; ox++) {
        const int64_t ix = ox * stride - row->args->pad[2], room = row->args->in[2] - ix;
        const float *weights = s->weights;
        v16 acc = v16_zero();
        for (int64_t y = 0; y < s->rows; y++, weights += kernel * row->padded) {
            const pixel *p = s->in[y] + ox * stride * step;
            UNROLL for (int64_t x = 0; x < kernel; x++) if (x >= -ix && x < room) acc =
                v16_fma(dw_load_cut(p + x * step, left), v16_load(weights + x * row->padded), acc);
        }
        dw_finish(row, 1, &acc, ox, s->c, left);
    }
}

INLINE void dw_edges_of(const dw_row *row, const dw_strip *s, int64_t kernel, int64_t stride, int64_t left)
{
    dw_edge_of(row, s, kernel, stride, 0, row->interior.first, left);
    dw_edge_of(row, s, kernel, stride, row->interior.end, row->args->out[2], left);
}

#define DW_EDGES_DEFINE(kernel)                                                                                        \
    APART void dw_edges_##kernel(const dw_row *row, const dw_strip *s, int64_t stride)                                 \
    {                                                                                                                  \
        if (DW_MASKS || s->left < 16)                                                                                  \
            dw_edges_of(row, s, kernel, stride, s->left < 16 ? s->left : 16);                                          \
        else                                                                                                           \
            dw_edges_of(row, s, kernel, stride, 16);                                                                   \
    }
DW_EDGES_DEFINE(3)
DW_EDGES_DEFINE(5)

/* A whole row of outputs of a square kernel, all of whose rows and channels are there. */
INLINE void dw_span(const dw_row *row, const dw_strip *s, int64_t kernel, int64_t stride, bool hoist)
{
    int64_t ox = row->interior.first, end = row->interior.end;
    v16 weights[DW_KERNEL][DW_KERNEL];
    if (hoist) {
        UNROLL for (int64_t y = 0; y < kernel; y++) UNROLL for (int64_t x = 0; x < kernel; x++) weights[y][x] =
            v16_load(s->weights + (y * kernel + x) * row->padded);
    }
    const v16(*hoisted)[DW_KERNEL] = hoist ? (const v16(*)[DW_KERNEL])weights : NULL;
    for (; ox + WINDOW_BLOCK <= end; ox += WINDOW_BLOCK)
        dw_block(row, s, WINDOW_BLOCK, kernel, stride, hoisted, ox);
    for (; ox + WINDOW_BLOCK / 2 <= end; ox += WINDOW_BLOCK / 2)
        dw_block(row, s, WINDOW_BLOCK / 2, kernel, stride, hoisted, ox);
    for (; ox < end; ox++)
        dw_block(row, s, 1, kernel, stride, hoisted, ox);
}

INLINE void dw_span_cut(const dw_row *row, const dw_strip *s, int64_t kernel, int64_t stride, int64_t left)
{
    int64_t ox = row->interior.first, end = row->interior.end;
    for (; ox + WINDOW_BLOCK <= end; ox += WINDOW_BLOCK)
        dw_block_cut(row, s, WINDOW_BLOCK, kernel, stride, ox, left);
    for (; ox + WINDOW_BLOCK / 2 <= end; ox += WINDOW_BLOCK / 2)
        dw_block_cut(row, s, WINDOW_BLOCK / 2, kernel, stride, ox, left);
    for (; ox < end; ox++)
        dw_block_cut(row, s, 1, kernel, stride, ox, left);
}

DW_ROWS_CUT dw_rows_cut(const dw_row *row, const dw_strip *s, int64_t kernel, int64_t stride)
{
    if (DW_MASKS || s->left < 16)
        dw_span_cut(row, s, kernel, stride, s->left < 16 ? s->left : 16);
    else
        dw_span_cut(row, s, kernel, stride, 16);
}

INLINE dw_strip dw_strip_at(const dw_row *row, int64_t kernel, int64_t c)
{
    const terse_conv_f32_args *args = row->args;
    int64_t first = row->range[1].first, slice = row->at[0] * args->in[1];
    bool empty = row->range[0].first == row->range[0].end; /* kernel[0] is 1 and in the padding */
    dw_strip s = {.rows = empty ? 0 : row->range[1].end - first, .c = c, .left = args->channels - c};
    s.weights = args->weights + first * kernel * row->padded + c;
    for (int64_t y = 0; y < s.rows; y++) {
        int64_t at = (slice + row->at[1] + first + y) * args->in[2] - args->pad[2];
        s.in[y] = row->image + at * args->in_stride + c;
    }
    return s;
}

typedef void dw_function(const dw_row *row, int64_t c);

static void dw_general(const dw_row *row, int64_t c)
{
    for (int64_t ox = 0; ox < row->args->out[2]; ox++)
        dw_any(row, ox, c, row->args->channels - c);
}

/* Rows in the middle; rows that lack taps at the top or the bottom and channels that do not fill a vector. */
#define DW_DEFINE(kernel, stride, hoist)                                                                               \
    static void dw_##kernel##_##stride(const dw_row *row, int64_t c)                                                   \
    {                                                                                                                  \
        const dw_strip s = dw_strip_at(row, kernel, c);                                                                \
        if (DW_LEAN || s.left < 16 || s.rows < kernel)                                                                 \
            dw_rows_cut(row, &s, kernel, stride);                                                                      \
        else                                                                                                           \
            dw_span(row, &s, kernel, stride, hoist);                                                                   \
        dw_edges_##kernel(row, &s, stride);                                                                            \
    }
DW_DEFINE(3, 1, true)
DW_DEFINE(3, 2, true)
DW_DEFINE(5, 1, false)
DW_DEFINE(5, 2, false)

static dw_function *dw_choose(const terse_conv_f32_args *args)
{
    int64_t kernel = args->kernel[2], stride = args->stride[2];
    if (args->kernel[0] != 1 || args->kernel[1] != kernel || args->dilation[1] != 1 || args->dilation[2] != 1 ||
        (kernel != 3 && kernel != 5) || stride > 2)
        return dw_general;
    return kernel == 3 ? (stride == 1 ? dw_3_1 : dw_3_2) : (stride == 1 ? dw_5_1 : dw_5_2);
}

/* Interior outputs of a row: ox * stride >= pad and ox * stride - pad + reach < in. */
static tap_range dw_interior(const terse_conv_f32_args *args)
{
    int64_t stride = args->stride[2], pad = args->pad[2], out = args->out[2];
    int64_t reach = (args->kernel[2] - 1) * args->dilation[2], room = args->in[2] - 1 - reach + pad;
    int64_t first = (pad + stride - 1) / stride, end = room < 0 ? 0 : room / stride + 1;
    end = end < out ? end : out;
    first = first < out ? first : out;
    return (tap_range){first, end > first ? end : first};
}

static void dw_run(const terse_conv_f32_args *args)
{
    const int64_t *in = args->in, *out = args->out;
    dw_function *run = dw_choose(args);
    dw_row row = {.args = args, .padded = (args->channels + 15) / 16 * 16, .interior = dw_interior(args)};
    for (int64_t n = 0; n < args->n; n++)
        for (int64_t oz = 0; oz < out[0]; oz++)
            for (int64_t oy = 0; oy < out[1]; oy++, row.first_pixel += out[2]) {
                row.image = pixels_of(args->input) + n * in[0] * in[1] * in[2] * args->in_stride;
                row.at[0] = oz * args->stride[0] - args->pad[0];
                row.at[1] = oy * args->stride[1] - args->pad[1];
                row.range[0] = taps_inside(row.at[0], in[0], args->kernel[0], args->dilation[0]);
                row.range[1] = taps_inside(row.at[1], in[1], args->kernel[1], args->dilation[1]);
                for (int64_t c = 0; c < args->channels; c += 16)
                    run(&row, c);
            }
}

/* The window of one output pixel of a pool. */
typedef struct pool_window {
    const terse_pool_f32_args *args;
    const pixel *image;
    int64_t at[3];
    tap_range range[3];
    float divisor;
    pixel *output;
} pool_window;

INLINE const pixel *pool_row(const pool_window *w, int64_t z, int64_t y)
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
            const pixel *p = pool_row(w, z, y) + c;
            v16 sum[4];
            UNROLL for (int v = 0; v < vectors; v++) sum[v] = average ? v16_zero() : acc[v];
            for (int64_t x = 0; x < taps; x++, p += step)
                UNROLL for (int v = 0; v < vectors; v++)
                {
                    v16 value = dw_load(p + v * 16, left);
                    sum[v] = average ? v16_add(sum[v], value) : v16_max_nan(sum[v], value);
                }
            UNROLL for (int v = 0; v < vectors; v++) acc[v] = average ? v16_add(acc[v], sum[v]) : sum[v];
        }
    UNROLL for (int v = 0; v < vectors; v++)
    {
        v16 x = average ? v16_div(acc[v], v16_set1(w->divisor)) : acc[v];
        dw_store(w->output + c + v * 16, x, left);
    }
}

#if defined(WINDOW_BF16) && defined(__AVX512F__)
/* `vectors` times thirty-two channels, whose maximum is one of them: no rounding. False, and nothing written, where
 * one is no number. */
INLINE bool pool_max_pairs(const pool_window *w, int vectors, int64_t c)
{
    const int64_t step = w->args->dilation[2] * w->args->in_stride, taps = w->range[2].end - w->range[2].first;
    v16 even[2], odd[2];
    UNROLL for (int v = 0; v < vectors; v++) even[v] = odd[v] = v16_set1(-INFINITY);
    __mmask16 none = 0;
    for (int64_t z = w->range[0].first; z < w->range[0].end; z++)
        for (int64_t y = w->range[1].first; y < w->range[1].end; y++) {
            const pixel *p = pool_row(w, z, y) + c;
            for (int64_t x = 0; x < taps; x++, p += step)
                UNROLL for (int v = 0; v < vectors; v++)
                {
                    const v16 pairs = v16_load((const float *)(const void *)(p + v * 32));
                    const v16 low = v16_pair_even(pairs), high = v16_pair_odd(pairs);
                    none |= _mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q);
                    even[v] = v16_max(even[v], low);
                    odd[v] = v16_max(odd[v], high);
                }
        }
    if (none)
        return false;
    UNROLL for (int v = 0; v < vectors; v++)
    {
        const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even[v]), 16);
        _mm512_storeu_si512(w->output + c + v * 32, _mm512_or_si512(low, _mm512_castps_si512(odd[v])));
    }
    return true;
}

/* The channels before the one returned are done. */
INLINE int64_t pool_max_channels(const pool_window *w)
{
    int64_t c = 0;
    for (; c + 64 <= w->args->channels; c += 64)
        if (!pool_max_pairs(w, 2, c))
            pool_block(w, false, 4, c, 16);
    for (; c + 32 <= w->args->channels; c += 32)
        if (!pool_max_pairs(w, 1, c))
            pool_block(w, false, 2, c, 16);
    return c;
}
#else
INLINE int64_t pool_max_channels(const pool_window *w)
{
    (void)w;
    return 0;
}
#endif

INLINE void pool_channels(const pool_window *w, bool average)
{
    int64_t c = average ? 0 : pool_max_channels(w), channels = w->args->channels;
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
    pool_window w = {.args = args, .output = (pixel *)(void *)args->output};
    int64_t o[3];
    for (int64_t n = 0; n < args->n; n++) {
        w.image = pixels_of(args->input) + n * in[0] * in[1] * in[2] * args->in_stride;
        for (o[0] = 0; o[0] < out[0]; o[0]++)
            for (o[1] = 0; o[1] < out[1]; o[1]++)
                for (o[2] = 0; o[2] < out[2]; o[2]++, w.output += args->out_stride) {
                    int64_t count = 1;
                    for (int axis = o[2] > 0 ? 2 : 0; axis < 3; axis++) {
                        w.at[axis] = o[axis] * args->stride[axis] - args->pad[axis];
                        w.range[axis] = taps_inside(w.at[axis], in[axis], args->kernel[axis], args->dilation[axis]);
                    }
                    for (int axis = 0; average && axis < 3; axis++)
                        count *= pool_count(&w, axis);
                    w.divisor = count ? (float)count : 1.0f; /* no taps: the sum is 0 */
                    pool_channels(&w, average);
                }
    }
}

#ifndef WINDOW_BF16
void TIER_NAME(terse_dwconv_f32)(const terse_conv_f32_args *args)
{
    dw_run(args);
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

#endif
