/* SPDX-License-Identifier: Apache-2.0 */
/* pool_u8.h: pools of bytes, VB channels at a time. */
#ifndef TERSE_KERNELS_VEC_POOL_U8_H
#define TERSE_KERNELS_VEC_POOL_U8_H

#include "common/kernels/ref/ref.h"
#include "common/kernels/vec/fixed.h"
#include "common/kernels/vec/tier.h"

/* Taps first..end-1 of a window lie inside an axis. */
typedef struct pool_range {
    int64_t first, end;
} pool_range;

INLINE pool_range pool_inside(int64_t at, int64_t size, int64_t kernel, int64_t dilation)
{
    pool_range range = {0, kernel};
    if (at < 0)
        range.first = (-at + dilation - 1) / dilation;
    range.first = range.first < kernel ? range.first : kernel;
    const int64_t room = at >= size ? 0 : (size - at + dilation - 1) / dilation;
    range.end = room < kernel ? room : kernel;
    range.end = range.end > range.first ? range.end : range.first;
    return range;
}

/* The window of one output pixel. */
typedef struct byte_window {
    const terse_pool_u8_args *args;
    const uint8_t *first; /* the first tap inside */
    int64_t taps[3], step[3];
    uint8_t *output;
    fixed_range range; /* average */
    int64_t count;     /* the divisor */
    float multiplier;
} byte_window;

INLINE void max_block(const byte_window *w, int vectors, int64_t c, int64_t left)
{
    vb best[4];
    UNROLL for (int v = 0; v < vectors; v++) best[v] = vb_set1(0);
    for (int64_t z = 0; z < w->taps[0]; z++)
        for (int64_t y = 0; y < w->taps[1]; y++) {
            const uint8_t *p = w->first + z * w->step[0] + y * w->step[1] + c;
            for (int64_t x = 0; x < w->taps[2]; x++, p += w->step[2])
                UNROLL for (int v = 0; v < vectors; v++) best[v] = vb_max(best[v], vb_load_up_to(p + v * VB, left));
        }
    UNROLL for (int v = 0; v < vectors; v++) vb_store_up_to(w->output + c + v * VB, best[v], left);
}

/* Of a channel count that is no multiple of VB the last vector overlaps the one before. */
static void max_channels(const byte_window *w)
{
    const int64_t channels = w->args->channels;
    int64_t c = 0;
    for (; c + 4 * VB <= channels; c += 4 * VB)
        max_block(w, 4, c, VB);
    for (; c + VB <= channels; c += VB)
        max_block(w, 1, c, VB);
    if (c < channels && channels >= VB)
        max_block(w, 1, channels - VB, VB);
    else if (c < channels)
        max_block(w, 1, c, channels - c);
}

static void exact_average(const byte_window *w, const int32_t sums[VB], uint8_t ret_y[VB])
{
    const terse_pool_u8_args *args = w->args;
    double v[VB];
    for (int i = 0; i < VB; i++)
        v[i] = w->count ? (double)sums[i] * args->scale / (double)w->count : 0.0;
    fixed_exact_all(v, args->y_zero_point, 0, 255, ret_y);
}

/* From sums in quarters, less the zero points, to the outputs. */
INLINE void average_put(const byte_window *w, const vi sums[4], int64_t c, int64_t left)
{
    vf t[4];
    bool near;
    UNROLL for (int i = 0; i < 4; i++) t[i] = vf_fma(vf_from(sums[i]), vf_set1(w->multiplier), vf_set1(w->range.begin));
    vb y = fixed_pack(&w->range, t, &near);
    if (__builtin_expect(near, 0)) {
        int32_t quarters[VB], in_order[VB];
        uint8_t bytes[VB];
        UNROLL for (int i = 0; i < 4; i++) vi_store(quarters + i * (VB / 4), sums[i]);
        for (int at = 0; at < VB; at++)
            in_order[at] = quarters[at / 4 % 4 * (VB / 4) + at / 16 * 4 + at % 4];
        exact_average(w, in_order, bytes);
        y = vb_load(bytes);
    }
    vb_store_up_to(w->output + c, y, left);
}

INLINE void average_block(const byte_window *w, int64_t c, int64_t left)
{
    const int64_t taps = w->taps[0] * w->taps[1] * w->taps[2];
    const vb ones = vb_set1(1), none = vb_set1(0);
    const int32_t zero = (int32_t)(taps * w->args->x_zero_point);
    vi sums[4];
    UNROLL for (int i = 0; i < 4; i++) sums[i] = vi_set1(-zero);
    for (int64_t z = 0; z < w->taps[0]; z++)
        for (int64_t y = 0; y < w->taps[1]; y++) {
            const uint8_t *p = w->first + z * w->step[0] + y * w->step[1] + c;
            for (int64_t x = 0; x < w->taps[2]; x += 4, p += 4 * w->step[2]) {
                const int64_t more = w->taps[2] - x;
                vb quarters[4];
                vb_quads(vb_load_up_to(p, left), more > 1 ? vb_load_up_to(p + w->step[2], left) : none,
                         more > 2 ? vb_load_up_to(p + 2 * w->step[2], left) : none,
                         more > 3 ? vb_load_up_to(p + 3 * w->step[2], left) : none, quarters);
                UNROLL for (int i = 0; i < 4; i++) sums[i] = vi_dot(sums[i], quarters[i], ones);
            }
        }
    average_put(w, sums, c, left);
}

static void average_channels(const byte_window *w)
{
    const int64_t channels = w->args->channels;
    int64_t c = 0;
    for (; c + VB <= channels; c += VB)
        average_block(w, c, VB);
    if (c < channels && channels >= VB)
        average_block(w, channels - VB, VB);
    else if (c < channels)
        average_block(w, c, channels - c);
}

/* Positions of the window that count: those inside, or those before the end of the padding. */
static int64_t pool_count(const terse_pool_u8_args *args, int axis, int64_t at, int64_t inside)
{
    return args->count_include_pad
               ? pool_inside(at < 0 ? 0 : at, args->in[axis] + args->pad_end[axis] - (at < 0 ? at : 0),
                             args->kernel[axis], args->dilation[axis])
                     .end
               : inside;
}

typedef void window_function(const byte_window *w);

/* The sum and both factors of the multiplier round: |v| 2^-23 and more, less than a unit; the last sum half of one. */
static void pool_output(byte_window *w, const uint8_t *image, const int64_t out[3], window_function *run)
{
    const terse_pool_u8_args *args = w->args;
    int64_t index = 0;
    w->count = 1;
    for (int axis = 0; axis < 3; axis++) {
        const int64_t at = out[axis] * args->stride[axis] - args->pad[axis];
        const pool_range r = pool_inside(at, args->in[axis], args->kernel[axis], args->dilation[axis]);
        w->taps[axis] = r.end - r.first;
        w->count *= pool_count(args, axis, at, w->taps[axis]);
        index = index * args->in[axis] + at + r.first * args->dilation[axis];
    }
    w->first = image;
    if (w->taps[0] && w->taps[1] && w->taps[2])
        w->first += index * args->in_stride;
    /* Rows that lie side by side are one. */
    if (w->taps[2] * w->step[2] == w->step[1]) {
        w->taps[2] *= w->taps[1];
        w->taps[1] = 1;
    }
    w->multiplier = w->count ? (float)(args->scale / (double)w->count) : 0.0f;
    run(w);
}

static void pool_bytes(const terse_pool_u8_args *args, bool average, window_function *run)
{
    byte_window w = {.args = args, .output = args->output};
    const int64_t *in = args->in;
    int64_t out[3];
    for (int axis = 2; axis >= 0; axis--)
        w.step[axis] = args->dilation[axis] * args->in_stride * (axis < 2 ? in[2] : 1) * (axis < 1 ? in[1] : 1);
    if (average)
        w.range = fixed_for(args->y_zero_point, 0, 255, 2.0, 0.0, !(fabs(args->scale) < 1e30));
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, w.output += args->out_stride)
                    pool_output(&w, args->input + n * in[0] * in[1] * in[2] * args->in_stride, out, run);
}

/* --- maxima of 3x3, a row of outputs at a time -------------------------------------------------------------------- */

/* Three input rows of an output row; one in the padding is a copy of one that is not. */
typedef struct max_rows {
    const uint8_t *at[3]; /* under the first pixel */
    int64_t first, end;   /* outputs whose columns are all inside */
} max_rows;

INLINE vb max_column(const max_rows *r, int64_t offset, int64_t left)
{
    return vb_max(vb_load_up_to(r->at[0] + offset, left),
                  vb_max(vb_load_up_to(r->at[1] + offset, left), vb_load_up_to(r->at[2] + offset, left)));
}

/* Neighbouring windows share the maxima of 3 - stride columns. */
INLINE void max_span(const terse_pool_u8_args *args, const max_rows *r, uint8_t *y, int stride, int64_t c, int64_t left)
{
    const int64_t step = args->in_stride;
    int64_t offset = (r->first * stride - args->pad[2]) * step + c;
    vb a = max_column(r, offset, left), b = max_column(r, offset + step, left);
    y += r->first * args->out_stride + c;
    for (int64_t ox = r->first; ox < r->end; ox++, y += args->out_stride) {
        const vb last = max_column(r, offset + 2 * step, left);
        vb_store_up_to(y, vb_max(vb_max(a, b), last), left);
        offset += stride * step;
        a = stride == 1 ? b : last;
        if (stride == 1)
            b = last;
        else if (ox + 1 < r->end)
            b = max_column(r, offset + step, left);
    }
}

INLINE void max_spans(const terse_pool_u8_args *args, const max_rows *r, uint8_t *y, int stride)
{
    const int64_t channels = args->channels;
    int64_t c = 0;
    for (; c + VB <= channels; c += VB)
        max_span(args, r, y, stride, c, VB);
    if (c < channels && channels >= VB)
        max_span(args, r, y, stride, channels - VB, VB);
    else if (c < channels)
        max_span(args, r, y, stride, c, channels - c);
}

static bool max_is_3x3(const terse_pool_u8_args *args)
{
    return args->kernel[0] == 1 && args->in[0] == 1 && args->out[0] == 1 && args->pad[0] == 0 && args->kernel[1] == 3 &&
           args->kernel[2] == 3 && args->dilation[1] == 1 && args->dilation[2] == 1 && args->stride[2] <= 2;
}

/* The rows under output row oy; false where all are in the padding. */
static bool max_rows_at(const terse_pool_u8_args *args, const uint8_t *image, int64_t oy, max_rows *ret_rows)
{
    const int64_t top = oy * args->stride[1] - args->pad[1], pad = args->pad[2], stride = args->stride[2];
    const int64_t room = args->in[2] - 3 + pad, end = room < 0 ? 0 : room / stride + 1;
    const pool_range range = pool_inside(top, args->in[1], 3, 1);
    ret_rows->end = end < args->out[2] ? end : args->out[2];
    ret_rows->first = (pad + stride - 1) / stride;
    for (int64_t i = 0; i < 3; i++) {
        const int64_t y = i < range.first ? range.first : i < range.end ? i : range.end - 1;
        ret_rows->at[i] = image + (top + y) * args->in[2] * args->in_stride;
    }
    return range.end > range.first && ret_rows->first < ret_rows->end;
}

static void max_3x3(const terse_pool_u8_args *args)
{
    byte_window w = {.args = args, .step = {0, args->in[2] * args->in_stride, args->in_stride}};
    uint8_t *y = args->output;
    for (int64_t n = 0; n < args->n; n++) {
        const uint8_t *image = args->input + n * args->in[1] * args->in[2] * args->in_stride;
        for (int64_t oy = 0; oy < args->out[1]; oy++, y += args->out[2] * args->out_stride) {
            max_rows r;
            const bool inner = max_rows_at(args, image, oy, &r);
            if (inner && args->stride[2] == 1)
                max_spans(args, &r, y, 1);
            else if (inner)
                max_spans(args, &r, y, 2);
            for (int64_t ox = 0; ox < args->out[2]; ox++) {
                if (inner && ox == r.first)
                    ox = r.end;
                if (ox >= args->out[2])
                    break;
                w.output = y + ox * args->out_stride;
                pool_output(&w, image, (const int64_t[]){0, oy, ox}, max_channels);
            }
        }
    }
}

void TIER_NAME(terse_max_pool_u8)(const terse_pool_u8_args *args)
{
    if (max_is_3x3(args))
        max_3x3(args);
    else
        pool_bytes(args, false, max_channels);
}

void TIER_NAME(terse_average_pool_u8)(const terse_pool_u8_args *args)
{
    /* Sums must fit 32 bits and their first 24 bits hold them nearly. */
    if (args->kernel[0] > 4096 || args->kernel[1] > 4096 || args->kernel[2] > 4096 ||
        args->kernel[0] * args->kernel[1] * args->kernel[2] > 1 << 22)
        terse_average_pool_u8_ref(args);
    else
        pool_bytes(args, true, average_channels);
}

#endif
