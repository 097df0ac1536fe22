/* SPDX-License-Identifier: Apache-2.0 */
/* tier.h: what the files of one tier export to its table. */
#ifndef TERSE_KERNELS_VEC_TIER_H
#define TERSE_KERNELS_VEC_TIER_H

#include "common/kernels/kernels.h"
#include "common/kernels/vec/v16.h"

void TIER_NAME(terse_gemm_f32)(const terse_gemm_f32_args *args);
void TIER_NAME(terse_conv_f32)(const terse_conv_f32_args *args);
size_t TIER_NAME(terse_conv_f32_scratch)(const terse_conv_f32_args *args);
void TIER_NAME(terse_dwconv_f32)(const terse_conv_f32_args *args);
void TIER_NAME(terse_winograd_f32)(const terse_conv_f32_args *args);
size_t TIER_NAME(terse_winograd_f32_scratch)(const terse_conv_f32_args *args);
void TIER_NAME(terse_gemm_bf16)(const terse_gemm_bf16_args *args);
void TIER_NAME(terse_conv_bf16)(const terse_conv_bf16_args *args);
size_t TIER_NAME(terse_conv_bf16_scratch)(const terse_conv_bf16_args *args);
void TIER_NAME(terse_dwconv_bf16)(const terse_conv_bf16_args *args);
void TIER_NAME(terse_max_pool_bf16)(const terse_pool_f32_args *args);
void TIER_NAME(terse_average_pool_bf16)(const terse_pool_f32_args *args);
void TIER_NAME(terse_f32_to_bf16)(const float *x, uint16_t *y, int64_t n);
void TIER_NAME(terse_bf16_to_f32)(const uint16_t *x, float *y, int64_t n);
void TIER_NAME(terse_f32_rows_to_bf16)(const float *x, int64_t x_stride, int64_t rows, int64_t n, uint16_t *y);
void TIER_NAME(terse_max_pool_f32)(const terse_pool_f32_args *args);
void TIER_NAME(terse_average_pool_f32)(const terse_pool_f32_args *args);
void TIER_NAME(terse_range_f32)(const float *x, int64_t n, float *ret_low, float *ret_high);
void TIER_NAME(terse_quantize_float_u8)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n);
void TIER_NAME(terse_gemm_f32s8)(const terse_gemm_f32s8_args *args);
void TIER_NAME(terse_gemm_f32s4)(const terse_gemm_f32s4_args *args);
void TIER_NAME(terse_gemm_u8s8)(const terse_gemm_u8s8_args *args);
void TIER_NAME(terse_conv_u8s8)(const terse_conv_u8s8_args *args);
size_t TIER_NAME(terse_conv_u8s8_scratch)(const terse_conv_u8s8_args *args);

void TIER_NAME(terse_dwconv_u8s8)(const terse_conv_u8s8_args *args);
size_t TIER_NAME(terse_dwconv_u8s8_scratch)(const terse_conv_u8s8_args *args);
void TIER_NAME(terse_sparse_u8s8)(const terse_sparse_u8s8_args *args);
size_t TIER_NAME(terse_sparse_u8s8_scratch)(const terse_sparse_u8s8_args *args);
void TIER_NAME(terse_sparse_f32)(const terse_sparse_f32_args *args);
size_t TIER_NAME(terse_sparse_f32_scratch)(const terse_sparse_f32_args *args);
void TIER_NAME(terse_max_pool_u8)(const terse_pool_u8_args *args);
void TIER_NAME(terse_average_pool_u8)(const terse_pool_u8_args *args);
void TIER_NAME(terse_add_u8)(const terse_binary_u8_args *args);
void TIER_NAME(terse_mul_u8)(const terse_binary_u8_args *args);
void TIER_NAME(terse_table_u8)(const uint8_t *x, const uint8_t table[256], uint8_t *y, int64_t n);
void TIER_NAME(terse_quantize_u8)(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n);
void TIER_NAME(terse_dequantize_u8)(const uint8_t *x, float scale, int32_t zero_point, float *y, int64_t n);
void TIER_NAME(terse_transpose_8)(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride,
                                  int64_t rows, int64_t columns);

#endif
