/* SPDX-License-Identifier: Apache-2.0 */
/* ref.h: the scalar reference kernels, gathered by table_ref.c. */
#ifndef TERSE_KERNELS_REF_H
#define TERSE_KERNELS_REF_H

#include "common/kernels/kernels.h"

void terse_gemm_f32_ref(const terse_gemm_f32_args *args);
void terse_conv_f32_ref(const terse_conv_f32_args *args);
size_t terse_conv_f32_scratch_ref(const terse_conv_f32_args *args);
void terse_dwconv_f32_ref(const terse_conv_f32_args *args);
void terse_winograd_f32_ref(const terse_conv_f32_args *args);
size_t terse_winograd_f32_scratch_ref(const terse_conv_f32_args *args);
void terse_gemm_bf16_ref(const terse_gemm_bf16_args *args);
void terse_conv_bf16_ref(const terse_conv_bf16_args *args);
size_t terse_conv_bf16_scratch_ref(const terse_conv_bf16_args *args);
void terse_dwconv_bf16_ref(const terse_conv_bf16_args *args);
void terse_max_pool_bf16_ref(const terse_pool_f32_args *args);
void terse_average_pool_bf16_ref(const terse_pool_f32_args *args);
void terse_f32_to_bf16_ref(const float *x, uint16_t *y, int64_t n);
void terse_bf16_to_f32_ref(const uint16_t *x, float *y, int64_t n);
void terse_f32_rows_to_bf16_ref(const float *x, int64_t x_stride, int64_t rows, int64_t n, uint16_t *y);
void terse_max_pool_f32_ref(const terse_pool_f32_args *args);
void terse_average_pool_f32_ref(const terse_pool_f32_args *args);
void terse_range_f32_ref(const float *x, int64_t n, float *ret_low, float *ret_high);
void terse_quantize_float_u8_ref(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n);
void terse_gemm_f32s8_ref(const terse_gemm_f32s8_args *args);
void terse_gemm_f32s4_ref(const terse_gemm_f32s4_args *args);

void terse_gemm_u8s8_ref(const terse_gemm_u8s8_args *args);
void terse_conv_u8s8_ref(const terse_conv_u8s8_args *args);
size_t terse_conv_u8s8_scratch_ref(const terse_conv_u8s8_args *args);
void terse_pack_n16k4_s8_ref(const int8_t *b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, int8_t *packed,
                             int32_t *column_sums);

void terse_dwconv_u8s8_ref(const terse_conv_u8s8_args *args);
void terse_sparse_u8s8_ref(const terse_sparse_u8s8_args *args);
size_t terse_sparse_u8s8_scratch_ref(const terse_sparse_u8s8_args *args);
void terse_sparse_f32_ref(const terse_sparse_f32_args *args);
size_t terse_sparse_f32_scratch_ref(const terse_sparse_f32_args *args);
void terse_max_pool_u8_ref(const terse_pool_u8_args *args);
void terse_average_pool_u8_ref(const terse_pool_u8_args *args);
void terse_add_u8_ref(const terse_binary_u8_args *args);
void terse_mul_u8_ref(const terse_binary_u8_args *args);
void terse_table_u8_ref(const uint8_t *x, const uint8_t table[256], uint8_t *y, int64_t n);
void terse_quantize_u8_ref(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n);
void terse_dequantize_u8_ref(const uint8_t *x, float scale, int32_t zero_point, float *y, int64_t n);
void terse_transpose_8_ref(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride, int64_t rows,
                           int64_t columns);

#endif
