/* SPDX-License-Identifier: Apache-2.0 */
/* dwconv_u8.h: depthwise convolution of bytes in plain C that compilers turn into the tier's vectors: any window.
 *
 * Sixteen channels at a time: a byte times a weight fits 16 bits (255 * -128 = -32640), products are added in 32. The
 * weights of a block are brought from [column][row/4][16][4] to [tap][16] once, then the block's channels of all pixels
 * are computed. */
#ifndef TERSE_KERNELS_VEC_DWCONV_U8_H
#define TERSE_KERNELS_VEC_DWCONV_U8_H

#include "common/kernels/vec/bytes_range.h"
#include "common/kernels/vec/math.h"

/* Where the kernel taps of output pixel `out` lie, as offsets in pixels, or -1 in the padding; three axes, rows first.
 */
static void dw_taps(const terse_conv_u8s8_args *args, int64_t n, const int64_t out[3], int64_t *offsets)
{
    for (int64_t d = 0; d < args->kernel[0]; d++)
        for (int64_t h = 0; h < args->kernel[1]; h++)
            for (int64_t w = 0; w < args->kernel[2]; w++, offsets++) {
                const int64_t at[3] = {d, h, w};
                int64_t index = n;
                bool inside = true;
                for (int axis = 0; axis < 3; axis++) {
                    const int64_t i =
                        out[axis] * args->stride[axis] - args->pad[axis] + at[axis] * args->dilation[axis];
                    inside = inside && i >= 0 && i < args->in[axis];
                    index = index * args->in[axis] + i;
                }
                *offsets = inside ? index * args->in_stride : -1;
            }
}

/* Weights of sixteen channels by tap, in the order of dw_taps. */
static void dw_weights(const terse_conv_u8s8_args *args, int64_t block, int16_t *to)
{
    const int64_t high = (args->kernel[1] + 3) / 4;
    const int8_t *w = args->weights + block * args->kernel[0] * args->kernel[2] * high * 64;
    for (int64_t d = 0; d < args->kernel[0]; d++)
        for (int64_t h = 0; h < args->kernel[1]; h++)
            for (int64_t v = 0; v < args->kernel[2]; v++, to += 16)
                for (int i = 0; i < 16; i++)
                    to[i] = w[((d * args->kernel[2] + v) * high + h / 4) * 64 + i * 4 + h % 4];
}

INLINE void dw_finish(const terse_requantize *to, const int32_t sums[16], int64_t pixel, int64_t first, int64_t wide,
                      void *output, int64_t out_stride)
{
    const int64_t at = pixel * out_stride + first, from = pixel * to->residual_stride + first;
    if (to->to == TERSE_SUMS_TO_S32) {
        memcpy((int32_t *)output + at, sums, (size_t)wide * 4);
        return;
    }
    if (to->to == TERSE_SUMS_TO_F32) {
        float in[16] = {0}, scale[16] = {0}, add[16] = {0};
        for (int64_t i = 0; i < wide; i++) {
            in[i] = (float)sums[i];
            scale[i] = to->multiplier[first + i];
            add[i] = to->bias_f32 ? to->bias_f32[first + i] : 0.0f;
        }
        v16 x = v16_fma(v16_load(in), v16_load(scale), v16_load(add));
        if (to->residual_f32)
            x = v16_add(x, v16_load_up_to(to->residual_f32 + from, wide));
        v16_store_up_to((float *)output + at, v16_activate_near(x, &to->activation), wide);
        return;
    }
    uint8_t bytes[16];
    for (int64_t i = 0; i < wide; i++) {
        const double low = to->multiplier_low ? (double)to->multiplier_low[first + i] : 0.0;
        double v = (double)sums[i] * ((double)to->multiplier[first + i] + low);
        if (to->residual)
            v += (double)(to->residual[from + i] - to->residual_zero_point) * to->residual_scale;
        bytes[i] = bytes_exact(v, to->zero_point, to->low, to->high);
    }
    memcpy((uint8_t *)output + at, bytes, (size_t)wide);
}

INLINE void dw_pixel(const terse_conv_u8s8_args *args, const int64_t *offsets, const int16_t *weights, int64_t taps,
                     const int32_t bias[16], int64_t first, int64_t wide, int32_t sums[16])
{
    for (int i = 0; i < 16; i++)
        sums[i] = bias[i];
    for (int64_t t = 0; t < taps; t++) {
        uint8_t x[16];
        if (offsets[t] < 0)
            memset(x, args->x_zero_point, 16);
        else if (wide == 16)
            memcpy(x, args->input + offsets[t] + first, 16);
        else
            memcpy(x, args->input + offsets[t] + first, (size_t)wide);
        const int16_t *w = weights + t * 16;
        for (int i = 0; i < 16; i++)
            sums[i] = (int32_t)((uint32_t)sums[i] + (uint32_t)(int32_t)(int16_t)((int16_t)x[i] * w[i]));
    }
}

static int64_t dw_count_taps(const terse_conv_u8s8_args *args)
{
    return args->kernel[0] * args->kernel[1] * args->kernel[2];
}

/* Scratch: offsets [taps] int64, weights [taps][16] int16. */
static size_t dw_scratch_any(const terse_conv_u8s8_args *args)
{
    return (size_t)dw_count_taps(args) * (8 + 32) + 64;
}

static void dw_any(const terse_conv_u8s8_args *args)
{
    const int64_t taps = dw_count_taps(args);
    int64_t *offsets = args->scratch;
    int16_t *weights = (int16_t *)(void *)(offsets + taps);
    for (int64_t first = 0; first < args->channels; first += 16) {
        const int64_t wide = args->channels - first < 16 ? args->channels - first : 16;
        int32_t bias[16] = {0};
        for (int64_t i = 0; args->requantize.bias && i < wide; i++)
            bias[i] = args->requantize.bias[first + i];
        dw_weights(args, first / 16, weights);
        int64_t pixel = 0, out[3];
        for (int64_t n = 0; n < args->n; n++)
            for (out[0] = 0; out[0] < args->out[0]; out[0]++)
                for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                    for (out[2] = 0; out[2] < args->out[2]; out[2]++, pixel++) {
                        int32_t sums[16];
                        dw_taps(args, n, out, offsets);
                        if (wide == 16)
                            dw_pixel(args, offsets, weights, taps, bias, first, 16, sums);
                        else
                            dw_pixel(args, offsets, weights, taps, bias, first, wide, sums);
                        dw_finish(&args->requantize, sums, pixel, first, wide, args->output, args->out_stride);
                    }
    }
}

#endif
