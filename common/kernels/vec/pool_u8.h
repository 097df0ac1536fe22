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
    for (int i = 0; i < VB; i++)
        ret_y[i] = fixed_exact(v[i], args->y_zero_point, 0, 255);
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

void TIER_NAME(terse_max_pool_u8)(const terse_pool_u8_args *args)
{
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
