/* SPDX-License-Identifier: Apache-2.0 */
/* reduced.h: arguments of the kernels on BF16: 16 bits that are the upper half of a float.
 * Runs in: terse-worker, terse run, terse-compress. Kernels allocate nothing and keep no state.
 *
 * Products of BF16 are accumulated in FP32, K in pairs: the tier avx512bf16 with vdpbf16ps, which takes subnormal
 * numbers for zero (as does its rounding of results), the others by two FMAs per pair, odd element first. So these
 * kernels, alone of all, are exempt from bit equality between avx512bf16 and the rest; all others agree, and no row
 * depends on another in any tier. Results are rounded to nearest even; a NaN stays one. */
#ifndef TERSE_KERNELS_REDUCED_H
#define TERSE_KERNELS_REDUCED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/kernels/activation.h"

/* C[M,N] = act(A[M,K] * B + bias + residual). A is BF16, rows lda elements apart; K and lda are even, A lies at a
 * multiple of 4 bytes. B is TERSE_LAYOUT_BF16_N16K2. C and residual are FP32 when `wide`, else BF16. */
typedef struct terse_gemm_bf16_args {
    int64_t m, n, k;
    const uint16_t *a;
    int64_t lda;
    const uint16_t *b;
    void *c;
    int64_t ldc;
    const float *bias;    /* or NULL */
    const void *residual; /* or NULL; may be C itself */
    int64_t ldr;
    terse_activation activation;
    bool wide;
} terse_gemm_bf16_args;

/* As terse_conv_f32_args, one group. channels and in_stride are even, the input lies at a multiple of 4 bytes (the
 * product alone: the depthwise kernel takes any). Weights TERSE_LAYOUT_BF16_N16K2; for the depthwise kernel FP32 in
 * TERSE_LAYOUT_F32_DW16 (groups == channels == filters). Output and residual are FP32 when `wide`, else BF16,
 * and BF16 always from the depthwise kernel. */
typedef struct terse_conv_bf16_args {
    int64_t n, channels, filters;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    const uint16_t *input;
    int64_t in_stride;
    const void *weights;
    const float *bias;
    const void *residual;
    int64_t residual_stride;
    void *output;
    int64_t out_stride;
    terse_activation activation;
    bool wide;
    void *scratch; /* conv_bf16_scratch(args) bytes, 64-byte aligned */
} terse_conv_bf16_args;

#endif
