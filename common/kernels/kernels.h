/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.h: the dispatch table: one struct of kernel pointers per ISA tier.
 * Runs in: terse-worker, terse run, terse-compress. Kernels allocate nothing and keep no state.
 *
 * Bits: every kernel computes each output element by one fixed chain of operations that depends on its row and
 * on the weights only, never on M, tile or position. fp32 dot products run over k = 0..K-1 in one chain of FMAs
 * per output element, then + bias, + residual, activation; so all tiers agree bit for bit there too. */
#ifndef TERSE_KERNELS_KERNELS_H
#define TERSE_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/kernels/quantized.h"
#include "common/kernels/reduced.h"
#include "common/kernels/weights.h"
#include "common/sparse.h"
#include "common/status.h"

typedef enum terse_isa {
    TERSE_ISA_SCALAR = 0,
    TERSE_ISA_AVX2 = 1,       /* AVX2 + FMA */
    TERSE_ISA_AVX512VNNI = 2, /* AVX512 F, BW, DQ, VL, VNNI */
    TERSE_ISA_NEON = 3,
    TERSE_ISA_AVX2VNNI = 4,   /* AVX2 + FMA + AVX-VNNI */
    TERSE_ISA_NEONDOT = 5,    /* NEON with the dot product of ARMv8.2 */
    TERSE_ISA_AVX512BF16 = 6, /* AVX512VNNI + AVX512-BF16 */
    TERSE_ISA_COUNT
} terse_isa;

/* C[M,N] = act(A[M,K] * B + bias + residual). A's, C's and residual's rows are lda, ldc, ldr elements apart.
 * B is TERSE_LAYOUT_F32_N16. bias: N floats or NULL. residual: or NULL; may be C itself. */
typedef struct terse_gemm_f32_args {
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const float *b;
    float *c;
    int64_t ldc;
    const float *bias;
    const float *residual;
    int64_t ldr;
    terse_activation activation;
} terse_gemm_f32_args;

/* Channels-last convolution of up to 3 spatial axes (unused leading ones: size 1, kernel 1, stride 1, no pad).
 * input [n][in[0]][in[1]][in[2]][channels], pixels in_stride elements apart (>= channels in all), output
 * [n][out...][filters], pixels out_stride apart. Weights TERSE_LAYOUT_F32_N16 with groups, or
 * TERSE_LAYOUT_F32_DW16 for the depthwise kernel (groups == channels == filters). */
typedef struct terse_conv_f32_args {
    int64_t n, channels, filters, groups;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3]; /* pad: at the begin of each axis */
    const float *input;
    int64_t in_stride;
    const float *weights;
    const float *bias;
    const float *residual;
    int64_t residual_stride;
    float *output;
    int64_t out_stride;
    terse_activation activation;
    void *scratch; /* conv_f32_scratch(args) bytes, 64-byte aligned */
} terse_conv_f32_args;

/* Products by sparse weights (common/sparse.h): one kernel for matrices and for convolutions of one group,
 * channels-last. A matrix by M rows is a convolution over in[2] = out[2] = M pixels with kernels of 1. conv.weights is
 * not read. Sums run over the rows of K that the weights have, in their order; then as the dense kernels. fp32 begins
 * with 0, one chain of FMAs; rows that fill up a step are multiplied by 0. */
typedef struct terse_sparse_u8s8_args {
    terse_conv_u8s8_args conv; /* conv.scratch: sparse_u8s8_scratch(args) bytes */
    terse_sparse weights;
} terse_sparse_u8s8_args;

typedef struct terse_sparse_f32_args {
    terse_conv_f32_args conv;
    terse_sparse weights;
} terse_sparse_f32_args;

typedef struct terse_pool_f32_args {
    int64_t n, channels;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    bool count_include_pad; /* average only */
    int64_t pad_end[3];     /* average with count_include_pad: padded size bounds the divisor */
    const float *input;
    int64_t in_stride;
    float *output;
    int64_t out_stride;
} terse_pool_f32_args;

typedef struct terse_kernels {
    terse_isa isa;
    const char *name; /* "avx512vnni" */

    void (*gemm_f32)(const terse_gemm_f32_args *args);
    void (*conv_f32)(const terse_conv_f32_args *args);
    size_t (*conv_f32_scratch)(const terse_conv_f32_args *args);
    void (*dwconv_f32)(const terse_conv_f32_args *args);
    /* 3x3 over the last two axes (the first: 1), stride 1, one group, any dilation, padding and size: through
     * Winograd's F(4x4,3x3), weights TERSE_LAYOUT_F32_WINOGRAD4. Other roundings than conv_f32's, the same in all
     * tiers; an infinity or NaN reaches all of its tile of 4x4 outputs. */
    void (*winograd_f32)(const terse_conv_f32_args *args);
    size_t (*winograd_f32_scratch)(const terse_conv_f32_args *args);
    void (*max_pool_f32)(const terse_pool_f32_args *args);
    void (*average_pool_f32)(const terse_pool_f32_args *args);

    /* y[i] = f(x[i]), in place allowed. */
    void (*activate_f32)(const float *x, float *y, int64_t n, terse_activation activation);
    void (*exp_f32)(const float *x, float *y, int64_t n);
    void (*erf_f32)(const float *x, float *y, int64_t n);
    void (*tanh_f32)(const float *x, float *y, int64_t n);
    void (*sigmoid_f32)(const float *x, float *y, int64_t n);
    /* y[i] = a[i] op b[i]; the stride of a or b is 0 or 1 (0: one number for all). */
    void (*add_f32)(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n);
    void (*sub_f32)(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n);
    void (*mul_f32)(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n);
    void (*div_f32)(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n);
    /* Reductions of one dense row in the canonical 16-lane order: lane j takes elements j, j+16, ...; the lanes
     * are then added 8+8, 4+4, 2+2, 1+1. */
    float (*sum_f32)(const float *x, int64_t n);
    float (*max_f32)(const float *x, int64_t n);
    /* One dense row; x may be y. softmax subtracts the maximum; log_softmax likewise. */
    void (*softmax_f32)(const float *x, float *y, int64_t n);
    void (*log_softmax_f32)(const float *x, float *y, int64_t n);
    /* y = (x - mean) / sqrt(var + epsilon) * scale + bias over one row; bias may be NULL. */
    void (*layer_norm_f32)(const float *x, const float *scale, const float *bias, float epsilon, float *y, int64_t n,
                           float *ret_mean, float *ret_inv_std);
    /* dst[c][r] = src[r][c] for 4-byte elements; row strides in elements. */
    void (*transpose_32)(const uint32_t *src, int64_t src_stride, uint32_t *dst, int64_t dst_stride, int64_t rows,
                         int64_t columns);
    /* Packs B[K,N] (element (k,n) at b[k*stride_k + n*stride_n]) into TERSE_LAYOUT_F32_N16. */
    void (*pack_n16_f32)(const float *b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, float *packed);

    /* FP32 by small weights (weights.h). */
    void (*gemm_f32s8)(const terse_gemm_f32s8_args *args);
    void (*gemm_f32s4)(const terse_gemm_f32s4_args *args);

    /* Quantization: the least and the greatest of 0 and all that is a number among n; and y[i] =
     * clamp(round_half_even(x[i] / scale) + zero_point, 0, 255), the quotient rounded to float, NaN gives zero_point.
     */
    void (*range_f32)(const float *x, int64_t n, float *ret_low, float *ret_high);
    void (*quantize_float_u8)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n);

    /* BF16 (reduced.h). Pools take their arguments with BF16 behind the pointers. */
    void (*gemm_bf16)(const terse_gemm_bf16_args *args);
    void (*conv_bf16)(const terse_conv_bf16_args *args);
    size_t (*conv_bf16_scratch)(const terse_conv_bf16_args *args);
    void (*dwconv_bf16)(const terse_conv_bf16_args *args);
    void (*max_pool_bf16)(const terse_pool_f32_args *args);
    void (*average_pool_bf16)(const terse_pool_f32_args *args);
    void (*f32_to_bf16)(const float *x, uint16_t *y, int64_t n);
    void (*bf16_to_f32)(const uint16_t *x, float *y, int64_t n);
    /* Rows of n floats, x_stride apart, as dense rows of n BF16, and a zero more where n is odd. */
    void (*f32_rows_to_bf16)(const float *x, int64_t x_stride, int64_t rows, int64_t n, uint16_t *y);

    /* Bytes (quantized.h). */
    void (*gemm_u8s8)(const terse_gemm_u8s8_args *args);
    void (*conv_u8s8)(const terse_conv_u8s8_args *args);
    size_t (*conv_u8s8_scratch)(const terse_conv_u8s8_args *args);
    void (*dwconv_u8s8)(const terse_conv_u8s8_args *args);
    size_t (*dwconv_u8s8_scratch)(const terse_conv_u8s8_args *args);
    /* By sparse weights, as terse_sparse_u8s8_args says. Scratch does not depend on the weights. */
    void (*sparse_u8s8)(const terse_sparse_u8s8_args *args);
    size_t (*sparse_u8s8_scratch)(const terse_sparse_u8s8_args *args);
    void (*sparse_f32)(const terse_sparse_f32_args *args);
    size_t (*sparse_f32_scratch)(const terse_sparse_f32_args *args);
    void (*max_pool_u8)(const terse_pool_u8_args *args);
    void (*average_pool_u8)(const terse_pool_u8_args *args);
    void (*add_u8)(const terse_binary_u8_args *args);
    void (*mul_u8)(const terse_binary_u8_args *args);
    void (*table_u8)(const uint8_t *x, const uint8_t table[256], uint8_t *y, int64_t n); /* y[i] = table[x[i]] */
    /* y[i] = clamp(round_half_even((double)x[i] / scale) + zero_point, 0, 255); NaN gives zero_point. */
    void (*quantize_u8)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n);
    void (*dequantize_u8)(const uint8_t *x, float scale, int32_t zero_point, float *y, int64_t n);
    /* dst[c][r] = src[r][c] for bytes; row strides in elements. */
    void (*transpose_8)(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride, int64_t rows,
                        int64_t columns);
    /* Packs int8 B[K,N] (element (k,n) at b[k*stride_k + n*stride_n]) into TERSE_LAYOUT_S8_N16K4 of [K,N]; NULL
     * column_sums or N sums of the columns. */
    void (*pack_n16k4_s8)(const int8_t *b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, int8_t *packed,
                          int32_t *column_sums);
} terse_kernels;

/* The table for this machine: the best tier, or the one that TERSE_ISA names (scalar, avx2, avx512vnni, neon).
 * Fails when TERSE_ISA names a tier that this CPU or build does not have. */
int terse_kernels_get(const terse_kernels **ret_kernels, terse_error *error);
/* The table of a tier, or NULL when this CPU or build does not have it. */
const terse_kernels *terse_kernels_of(terse_isa isa);
const char *terse_isa_name(terse_isa isa);

#endif
