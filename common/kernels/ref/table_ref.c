/* SPDX-License-Identifier: Apache-2.0 */
/* The vector kernels in scalar form, and the table of the scalar tier. */
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"
#include "common/kernels/tables.h"

static void activate_f32(const float *x, float *y, int64_t n, terse_activation activation)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = ref_activate(x[i], &activation);
}

#define DEFINE_UNARY(name)                                                                                             \
    static void name##_f32(const float *x, float *y, int64_t n)                                                        \
    {                                                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                                \
            y[i] = ref_##name(x[i]);                                                                                   \
    }
DEFINE_UNARY(exp)
DEFINE_UNARY(erf)
DEFINE_UNARY(tanh)
DEFINE_UNARY(sigmoid)

#define DEFINE_BINARY(name, op)                                                                                        \
    static void name##_f32(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n)    \
    {                                                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                                \
            y[i] = a[i * stride_a] op b[i * stride_b];                                                                 \
    }
DEFINE_BINARY(add, +)
DEFINE_BINARY(sub, -)
DEFINE_BINARY(mul, *)
DEFINE_BINARY(div, /)

static float add_lanes(float lanes[16])
{
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

static float sum_f32(const float *x, int64_t n)
{
    float lanes[16] = {0};
    for (int64_t i = 0; i < n; i++)
        lanes[i % 16] += x[i];
    return add_lanes(lanes);
}

static float max_f32(const float *x, int64_t n)
{
    float lanes[16];
    for (int j = 0; j < 16; j++)
        lanes[j] = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        lanes[i % 16] = ref_max_nan(lanes[i % 16], x[i]);
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] = ref_max_nan(lanes[j], lanes[j + half]);
    return lanes[0];
}

static void softmax_f32(const float *x, float *y, int64_t n)
{
    float top = max_f32(x, n);
    for (int64_t i = 0; i < n; i++)
        y[i] = ref_exp(x[i] - top);
    float scale = 1.0f / sum_f32(y, n);
    for (int64_t i = 0; i < n; i++)
        y[i] *= scale;
}

static void log_softmax_f32(const float *x, float *y, int64_t n)
{
    float top = max_f32(x, n);
    float lanes[16] = {0};
    for (int64_t i = 0; i < n; i++)
        lanes[i % 16] += ref_exp(x[i] - top);
    float log_sum = (float)log((double)add_lanes(lanes));
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - top) - log_sum;
}

static void layer_norm_f32(const float *x, const float *scale, const float *bias, float epsilon, float *y, int64_t n,
                           float *ret_mean, float *ret_inv_std)
{
    float mean = sum_f32(x, n) / (float)n;
    float lanes[16] = {0};
    for (int64_t i = 0; i < n; i++)
        lanes[i % 16] = fmaf(x[i] - mean, x[i] - mean, lanes[i % 16]);
    float inv_std = 1.0f / sqrtf(add_lanes(lanes) / (float)n + epsilon);
    for (int64_t i = 0; i < n; i++) {
        float t = (x[i] - mean) * inv_std;
        y[i] = bias ? fmaf(t, scale[i], bias[i]) : t * scale[i];
    }
    if (ret_mean)
        *ret_mean = mean;
    if (ret_inv_std)
        *ret_inv_std = inv_std;
}

static void transpose_32(const uint32_t *src, int64_t src_stride, uint32_t *dst, int64_t dst_stride, int64_t rows,
                         int64_t columns)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            dst[c * dst_stride + r] = src[r * src_stride + c];
}

static void pack_n16_f32(const float *b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, float *packed)
{
    for (int64_t panel = 0; panel < n; panel += 16)
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = panel; j < panel + 16; j++)
                *packed++ = j < n ? b[i * stride_k + j * stride_n] : 0.0f;
}

const terse_kernels terse_kernels_scalar = {
    .isa = TERSE_ISA_SCALAR,
    .name = "scalar",
    .gemm_f32 = terse_gemm_f32_ref,
    .range_f32 = terse_range_f32_ref,
    .quantize_float_u8 = terse_quantize_float_u8_ref,
    .gemm_f32s8 = terse_gemm_f32s8_ref,
    .gemm_f32s4 = terse_gemm_f32s4_ref,
    .conv_f32 = terse_conv_f32_ref,
    .conv_f32_scratch = terse_conv_f32_scratch_ref,
    .dwconv_f32 = terse_dwconv_f32_ref,
    .winograd_f32 = terse_winograd_f32_ref,
    .winograd_f32_scratch = terse_winograd_f32_scratch_ref,
    .max_pool_f32 = terse_max_pool_f32_ref,
    .average_pool_f32 = terse_average_pool_f32_ref,
    .gemm_bf16 = terse_gemm_bf16_ref,
    .conv_bf16 = terse_conv_bf16_ref,
    .conv_bf16_scratch = terse_conv_bf16_scratch_ref,
    .dwconv_bf16 = terse_dwconv_bf16_ref,
    .max_pool_bf16 = terse_max_pool_bf16_ref,
    .average_pool_bf16 = terse_average_pool_bf16_ref,
    .f32_to_bf16 = terse_f32_to_bf16_ref,
    .bf16_to_f32 = terse_bf16_to_f32_ref,
    .f32_rows_to_bf16 = terse_f32_rows_to_bf16_ref,
    .activate_f32 = activate_f32,
    .exp_f32 = exp_f32,
    .erf_f32 = erf_f32,
    .tanh_f32 = tanh_f32,
    .sigmoid_f32 = sigmoid_f32,
    .add_f32 = add_f32,
    .sub_f32 = sub_f32,
    .mul_f32 = mul_f32,
    .div_f32 = div_f32,
    .sum_f32 = sum_f32,
    .max_f32 = max_f32,
    .softmax_f32 = softmax_f32,
    .log_softmax_f32 = log_softmax_f32,
    .layer_norm_f32 = layer_norm_f32,
    .transpose_32 = transpose_32,
    .pack_n16_f32 = pack_n16_f32,
    .gemm_u8s8 = terse_gemm_u8s8_ref,
    .conv_u8s8 = terse_conv_u8s8_ref,
    .conv_u8s8_scratch = terse_conv_u8s8_scratch_ref,
    .pack_n16k4_s8 = terse_pack_n16k4_s8_ref,
    .dwconv_u8s8 = terse_dwconv_u8s8_ref,
    .dwconv_u8s8_scratch = terse_conv_u8s8_scratch_ref,
    .sparse_u8s8 = terse_sparse_u8s8_ref,
    .sparse_u8s8_scratch = terse_sparse_u8s8_scratch_ref,
    .sparse_f32 = terse_sparse_f32_ref,
    .sparse_f32_scratch = terse_sparse_f32_scratch_ref,
    .max_pool_u8 = terse_max_pool_u8_ref,
    .average_pool_u8 = terse_average_pool_u8_ref,
    .add_u8 = terse_add_u8_ref,
    .mul_u8 = terse_mul_u8_ref,
    .table_u8 = terse_table_u8_ref,
    .quantize_u8 = terse_quantize_u8_ref,
    .dequantize_u8 = terse_dequantize_u8_ref,
    .transpose_8 = terse_transpose_8_ref,
};
