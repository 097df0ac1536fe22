/* SPDX-License-Identifier: Apache-2.0 */
/* quantized.h: arguments of the kernels on bytes: UINT8 activations, INT8 weights, INT32 sums.
 * Runs in: terse-worker, terse run, terse-compress. Kernels allocate nothing and keep no state.
 *
 * A real number r is stored as q with r = (q - zero_point) * scale. Sums are exact in 32 bits and wrap around. Every
 * tier gives the same integers: AVX2 multiplies 16-bit pairs (vpmaddwd), never saturating bytes.
 *
 * Requantization is defined in double, once: v = (double)(sum + bias[n]) * ((double)multiplier[n] + multiplier_low[n]);
 * with a residual v += (double)(residual - residual_zero_point) * residual_scale (each product and the addition rounded
 * to double); the result is the integer nearest to v, ties to even, plus zero_point, clamped to low..high. Tiers may
 * compute in float as long as they recompute what comes so near to a tie that float could decide otherwise. */
#ifndef TERSE_KERNELS_QUANTIZED_H
#define TERSE_KERNELS_QUANTIZED_H

#include <stddef.h>
#include <stdint.h>

#include "common/kernels/activation.h"

typedef enum terse_sums_to {
    TERSE_SUMS_TO_U8 = 0, /* requantized as above */
    TERSE_SUMS_TO_F32,    /* act(fma((float)(sum + bias[n]), multiplier[n], bias_f32[n]) + residual_f32) */
    TERSE_SUMS_TO_S32,    /* sum + bias[n] */
} terse_sums_to;

/* What happens to the sum of row m and column n. Arrays of columns have exactly N elements. */
typedef struct terse_requantize {
    terse_sums_to to;
    const int32_t *bias; /* NULL: 0. Holds -(zero point of A) * (sum of the column's weights) too */
    const float
        *multiplier; /* U8, F32: scale_a * scale_b[n] / scale_out (F32: without scale_out), rounded to float ... */
    const float *multiplier_low;   /* U8: ... and what that rounding lost */
    int32_t zero_point, low, high; /* U8; 0 <= low <= high <= 255 */
    const uint8_t *residual;       /* U8: or NULL; may be the output itself */
    int32_t residual_zero_point;
    double residual_scale;       /* scale_residual / scale_out */
    const float *bias_f32;       /* F32: or NULL (0) */
    const float *residual_f32;   /* F32: or NULL; may be the output itself */
    int64_t residual_stride;     /* elements between rows (pixels) of the residual */
    terse_activation activation; /* F32 */
} terse_requantize;

/* How a product is cut; it changes no bit. 0: the kernel chooses. */
typedef struct terse_tiling {
    int32_t rows;       /* of a tile, at most; no more than the tier has */
    int32_t part_bytes; /* of B that all rows pass over before the next part is taken */
} terse_tiling;

/* What the caller reads after this, or nothing: weights of the next product. A kernel may fetch some of it into the
 * cache meanwhile. */
typedef struct terse_ahead {
    const void *at;
    int64_t bytes;
} terse_ahead;

/* C[M,N] of uint8_t, float or int32_t = requantized A[M,K] * B; B is TERSE_LAYOUT_S8_N16K4. Rows of A and C are lda and
 * ldc elements apart. Nothing is read behind the K bytes of a row of A. */
typedef struct terse_gemm_u8s8_args {
    int64_t m, n, k;
    const uint8_t *a;
    int64_t lda;
    const int8_t *b;
    void *c;
    int64_t ldc;
    terse_requantize requantize;
    terse_tiling tiling;
    terse_ahead ahead;
} terse_gemm_u8s8_args;

/* Channels-last convolution as terse_conv_f32_args describes it. Padding holds x_zero_point. Weights are
 * TERSE_LAYOUT_S8_N16K4 with groups, or TERSE_LAYOUT_S8_DW for the depthwise kernel (groups == channels == filters). */
typedef struct terse_conv_u8s8_args {
    int64_t n, channels, filters, groups;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3]; /* pad: at the begin of each axis */
    const uint8_t *input;
    int64_t in_stride;
    const int8_t *weights;
    uint8_t x_zero_point;
    void *output;
    int64_t out_stride;
    terse_requantize requantize;
    terse_tiling tiling;
    terse_ahead ahead;
    void *scratch; /* conv_u8s8_scratch(args), dwconv_u8s8_scratch(args) bytes, 64-byte aligned */
} terse_conv_u8s8_args;

/* Pooling of bytes, channels-last. Average: v = (double)(sum - count * zero_point) * scale / count, rounded and clamped
 * as above with y_zero_point, where scale is scale_x / scale_y. */
typedef struct terse_pool_u8_args {
    int64_t n, channels;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
    int count_include_pad;
    const uint8_t *input;
    int64_t in_stride;
    uint8_t *output;
    int64_t out_stride;
    int32_t x_zero_point, y_zero_point; /* average only */
    double scale;
} terse_pool_u8_args;

/* y[i] = clamp(round(v) + zero_point, low, high) with a' = a[i] - a_zero_point, b' = b[i] - b_zero_point and in double
 * v = a' * a_scale + b' * b_scale (add) or v = a' * b' * a_scale (mul). Strides of a and b are 0 or 1; y may be a or b.
 */
typedef struct terse_binary_u8_args {
    int64_t n;
    const uint8_t *a, *b;
    int64_t stride_a, stride_b;
    int32_t a_zero_point, b_zero_point;
    double a_scale, b_scale;
    uint8_t *y;
    int32_t zero_point, low, high;
} terse_binary_u8_args;

#endif
