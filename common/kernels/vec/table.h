/* SPDX-License-Identifier: Apache-2.0 */
/* table.h: the elementwise, row and moving kernels of a tier, and its table. */
#ifndef TERSE_KERNELS_VEC_TABLE_H
#define TERSE_KERNELS_VEC_TABLE_H

#include "common/kernels/ref/ref.h"
#include "common/kernels/tables.h"
#include "common/kernels/vec/math.h"
#include "common/kernels/vec/tier.h"

/* y[i..i+15] = expression of the vector x, over n elements; the expression may not depend on i. */
#define EACH_VECTOR(x, y, n, v, expression)                                                                            \
    do {                                                                                                               \
        int64_t each = 0;                                                                                              \
        for (; each + 16 <= (n); each += 16) {                                                                         \
            v16 v = v16_load((x) + each);                                                                              \
            v16_store((y) + each, expression);                                                                         \
        }                                                                                                              \
        if (each < (n)) {                                                                                              \
            v16 v = v16_load_n((x) + each, (int)((n)-each));                                                           \
            v16_store_n((y) + each, expression, (int)((n)-each));                                                      \
        }                                                                                                              \
    } while (0)

v16 SHARED_NAME(terse_activate)(v16 x, const terse_activation *f)
{
    return v16_activate(x, f);
}

static void activate_f32(const float *x, float *y, int64_t n, terse_activation activation)
{
    const terse_activation *f = &activation;
    const v16 alpha = v16_set1(f->alpha), beta = v16_set1(f->beta);
    switch (f->kind) {
    case TERSE_ACT_CLIP:
        EACH_VECTOR(x, y, n, v, v16_clip(v, alpha, beta));
        return;
    case TERSE_ACT_GELU:
        EACH_VECTOR(x, y, n, v, v16_gelu(v));
        return;
    case TERSE_ACT_SIGMOID:
        EACH_VECTOR(x, y, n, v, v16_sigmoid(v));
        return;
    case TERSE_ACT_SWISH:
        EACH_VECTOR(x, y, n, v, v16_mul(v, v16_sigmoid(v)));
        return;
    case TERSE_ACT_TANH:
        EACH_VECTOR(x, y, n, v, v16_tanh(v));
        return;
    default:
        EACH_VECTOR(x, y, n, v, SHARED_NAME(terse_activate)(v, f));
    }
}

#define DEFINE_UNARY(name)                                                                                             \
    static void name##_f32(const float *x, float *y, int64_t n)                                                        \
    {                                                                                                                  \
        EACH_VECTOR(x, y, n, v, v16_##name(v));                                                                        \
    }
DEFINE_UNARY(exp)
DEFINE_UNARY(erf)
DEFINE_UNARY(tanh)
DEFINE_UNARY(sigmoid)

#define DEFINE_BINARY(name)                                                                                            \
    static void name##_f32(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n)    \
    {                                                                                                                  \
        const v16 all_a = v16_set1(stride_a || n <= 0 ? 0.0f : *a), all_b = v16_set1(stride_b || n <= 0 ? 0.0f : *b);  \
        int64_t i = 0;                                                                                                 \
        if (!stride_a) {                                                                                               \
            const float *x = stride_b ? b : NULL;                                                                      \
            if (x)                                                                                                     \
                EACH_VECTOR(x, y, n, v, v16_##name(all_a, v));                                                         \
            else                                                                                                       \
                for (; i < n; i += 16)                                                                                 \
                    v16_store_up_to(y + i, v16_##name(all_a, all_b), n - i);                                           \
        } else if (!stride_b) {                                                                                        \
            EACH_VECTOR(a, y, n, v, v16_##name(v, all_b));                                                             \
        } else {                                                                                                       \
            for (; i + 16 <= n; i += 16)                                                                               \
                v16_store(y + i, v16_##name(v16_load(a + i), v16_load(b + i)));                                        \
            if (i < n)                                                                                                 \
                v16_store_n(y + i, v16_##name(v16_load_n(a + i, (int)(n - i)), v16_load_n(b + i, (int)(n - i))),       \
                            (int)(n - i));                                                                             \
        }                                                                                                              \
    }
DEFINE_BINARY(add)
DEFINE_BINARY(sub)
DEFINE_BINARY(mul)
DEFINE_BINARY(div)

/* Sixteen lanes to one number as 8+8, 4+4, 2+2, 1+1. */
static float max_lanes(v16 x)
{
    float lanes[16];
    v16_store(lanes, x);
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++) {
            float m = lanes[j], other = lanes[j + half];
            lanes[j] = m > other || m != m ? m : other;
        }
    return lanes[0];
}

static float sum_f32(const float *x, int64_t n)
{
    v16 lanes = v16_zero();
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        lanes = v16_add(lanes, v16_load(x + i));
    if (i < n) /* lanes begin at +0 and so never become -0: adding +0 changes nothing */
        lanes = v16_add(lanes, v16_load_n(x + i, (int)(n - i)));
    return v16_reduce_add(lanes);
}

static float max_f32(const float *x, int64_t n)
{
    v16 lanes = v16_set1(-INFINITY);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        lanes = v16_max_nan(lanes, v16_load(x + i));
    if (i < n) {
        float tail[16];
        v16_store(tail, v16_set1(-INFINITY));
        v16_store_n(tail, v16_load_n(x + i, (int)(n - i)), (int)(n - i));
        v16 with = v16_max_nan(lanes, v16_load(tail));
        v16_store(tail, lanes);
        v16_store_n(tail, with, (int)(n - i));
        lanes = v16_load(tail);
    }
    return max_lanes(lanes);
}

/* Writes exp(x - top) to y, or nowhere when y is NULL, and returns its sum. */
INLINE float exp_sum(const float *x, float *y, int64_t n, float top)
{
    const v16 tops = v16_set1(top);
    v16 lanes = v16_zero();
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 e = v16_exp(v16_sub(v16_load(x + i), tops));
        lanes = v16_add(lanes, e);
        if (y)
            v16_store(y + i, e);
    }
    if (i < n) {
        float tail[16] = {0};
        v16_store_n(tail, v16_exp(v16_sub(v16_load_n(x + i, (int)(n - i)), tops)), (int)(n - i));
        lanes = v16_add(lanes, v16_load(tail));
        if (y)
            v16_store_n(y + i, v16_load(tail), (int)(n - i));
    }
    return v16_reduce_add(lanes);
}

INLINE float v16_greatest(v16 x)
{
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(x);
#else
    return max_lanes(x);
#endif
}

/* The greatest of a row, for what is only subtracted: of which sign a zero is, and what it is in a row with a NaN (then
 * every result is NaN), does not matter. Two chains, whose operations are a third of those of max_f32. */
INLINE float row_top(const float *x, int64_t n)
{
    if (n < 16)
        return max_f32(x, n);
    v16 even = v16_load(x), odd = v16_load(x + n - 16); /* the last ones again: a maximum minds nothing twice */
    int64_t i = 16;
    for (; i + 32 <= n; i += 32) {
        even = v16_max(even, v16_load(x + i));
        odd = v16_max(odd, v16_load(x + i + 16));
    }
    if (i + 16 <= n)
        even = v16_max(even, v16_load(x + i));
    return v16_greatest(v16_max(even, odd));
}

static void softmax_f32(const float *x, float *y, int64_t n)
{
    const v16 scale = v16_set1(1.0f / exp_sum(x, y, n, row_top(x, n)));
    EACH_VECTOR(y, y, n, v, v16_mul(v, scale));
}

static void log_softmax_f32(const float *x, float *y, int64_t n)
{
    float top = max_f32(x, n);
    const v16 tops = v16_set1(top), log_sum = v16_set1((float)log((double)exp_sum(x, NULL, n, top)));
    EACH_VECTOR(x, y, n, v, v16_sub(v16_sub(v, tops), log_sum));
}

static float square_sum(const float *x, int64_t n, float mean)
{
    const v16 means = v16_set1(mean);
    v16 lanes = v16_zero();
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 d = v16_sub(v16_load(x + i), means);
        lanes = v16_fma(d, d, lanes);
    }
    if (i < n) {
        float tail[16] = {0};
        v16_store_n(tail, v16_sub(v16_load_n(x + i, (int)(n - i)), means), (int)(n - i));
        v16 d = v16_load(tail);
        lanes = v16_fma(d, d, lanes);
    }
    return v16_reduce_add(lanes);
}

static void layer_norm_f32(const float *x, const float *scale, const float *bias, float epsilon, float *y, int64_t n,
                           float *ret_mean, float *ret_inv_std)
{
    float mean = sum_f32(x, n) / (float)n;
    float inv_std = 1.0f / sqrtf(square_sum(x, n, mean) / (float)n + epsilon);
    const v16 means = v16_set1(mean), inv_stds = v16_set1(inv_std);
    for (int64_t i = 0; i < n; i += 16) {
        int64_t left = n - i;
        v16 t = v16_mul(v16_sub(v16_load_up_to(x + i, left), means), inv_stds), s = v16_load_up_to(scale + i, left);
        v16_store_up_to(y + i, bias ? v16_fma(t, s, v16_load_up_to(bias + i, left)) : v16_mul(t, s), left);
    }
    if (ret_mean)
        *ret_mean = mean;
    if (ret_inv_std)
        *ret_inv_std = inv_std;
}

/* dst[c][r] = src[r][c] for up to sixteen rows and columns; when `fill`, lanes beyond `rows` are written as zeros. */
INLINE void transpose_block(const float *src, int64_t src_stride, float *dst, int64_t dst_stride, int rows, int columns,
                            bool fill)
{
    v16 x[16];
    UNROLL for (int r = 0; r < 16; r++) x[r] = r < rows ? v16_load_up_to(src + r * src_stride, columns) : v16_zero();
    v16_transpose(x);
    UNROLL for (int c = 0; c < 16; c++) if (c < columns) v16_store_up_to(dst + c * dst_stride, x[c], fill ? 16 : rows);
}

/* What is written lies `dst_stride` apart from column to column. Where that is far (a plane of pixels), each column is
 * written along for as long as what is read stays in a cache, instead of sixteen elements here and there: three to ten
 * times as fast for the planes of an image. */
enum { TRANSPOSE_ROWS = 512 };

static void transpose_32(const uint32_t *src, int64_t src_stride, uint32_t *dst, int64_t dst_stride, int64_t rows,
                         int64_t columns)
{
    /* Only moved, never computed with: the bits may be anything. */
    const float *from = (const float *)(const void *)src;
    float *to = (float *)(void *)dst;
    const bool along = dst_stride > src_stride;
    const int64_t high = along ? TRANSPOSE_ROWS : 16, wide = along ? 16 : columns;
    for (int64_t first = 0; first < rows; first += high)
        for (int64_t left = 0; left < columns; left += wide)
            for (int64_t r = first; r < rows && r < first + high; r += 16)
                for (int64_t c = left; c < columns && c < left + wide; c += 16) {
                    const float *s = from + r * src_stride + c;
                    float *d = to + c * dst_stride + r;
                    if (rows - r >= 16 && columns - c >= 16)
                        transpose_block(s, src_stride, d, dst_stride, 16, 16, false);
                    else
                        transpose_block(s, src_stride, d, dst_stride, (int)(rows - r < 16 ? rows - r : 16),
                                        (int)(columns - c < 16 ? columns - c : 16), false);
                }
}

static void pack_by_transposing(const float *b, int64_t stride_n, int64_t k, int64_t n, float *packed)
{
    for (int64_t j = 0; j < n; j += 16)
        for (int64_t i = 0; i < k; i += 16, packed += 16 * 16) {
            const float *s = b + j * stride_n + i;
            if (n - j >= 16 && k - i >= 16) {
                transpose_block(s, stride_n, packed, 16, 16, 16, true);
                continue;
            }
            int columns = (int)(k - i < 16 ? k - i : 16);
            transpose_block(s, stride_n, packed, 16, (int)(n - j < 16 ? n - j : 16), columns, true);
            packed -= (16 - columns) * 16;
        }
}

static void pack_n16_f32(const float *b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, float *packed)
{
    if (stride_k == 1 && stride_n != 1) {
        pack_by_transposing(b, stride_n, k, n, packed);
        return;
    }
    for (int64_t j = 0; j < n; j += 16)
        for (int64_t i = 0; i < k; i++, packed += 16) {
            const float *s = b + i * stride_k + j * stride_n;
            if (stride_n == 1)
                v16_store(packed, v16_load_up_to(s, n - j));
            else
                for (int64_t lane = 0; lane < 16; lane++)
                    packed[lane] = lane < n - j ? s[lane * stride_n] : 0.0f;
        }
}

const terse_kernels TIER_NAME(terse_kernels) = {
    .isa = TIER_ISA,
    .name = TIER_TEXT,
    .gemm_f32 = TIER_NAME(terse_gemm_f32),
    .range_f32 = TIER_NAME(terse_range_f32),
    .quantize_float_u8 = TIER_NAME(terse_quantize_float_u8),
    .gemm_f32s8 = TIER_NAME(terse_gemm_f32s8),
    .gemm_f32s4 = TIER_NAME(terse_gemm_f32s4),
    .conv_f32 = TIER_NAME(terse_conv_f32),
    .conv_f32_scratch = TIER_NAME(terse_conv_f32_scratch),
    .dwconv_f32 = TIER_NAME(terse_dwconv_f32),
    .winograd_f32 = TIER_NAME(terse_winograd_f32),
    .winograd_f32_scratch = TIER_NAME(terse_winograd_f32_scratch),
    .max_pool_f32 = TIER_NAME(terse_max_pool_f32),
    .average_pool_f32 = TIER_NAME(terse_average_pool_f32),
    .gemm_bf16 = TIER_NAME(terse_gemm_bf16),
    .conv_bf16 = TIER_NAME(terse_conv_bf16),
    .conv_bf16_scratch = TIER_NAME(terse_conv_bf16_scratch),
    .dwconv_bf16 = TIER_NAME(terse_dwconv_bf16),
    .max_pool_bf16 = TIER_NAME(terse_max_pool_bf16),
    .average_pool_bf16 = TIER_NAME(terse_average_pool_bf16),
    .f32_to_bf16 = TIER_NAME(terse_f32_to_bf16),
    .bf16_to_f32 = TIER_NAME(terse_bf16_to_f32),
    .f32_rows_to_bf16 = TIER_NAME(terse_f32_rows_to_bf16),
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
    .gemm_u8s8 = TIER_NAME(terse_gemm_u8s8),
    .conv_u8s8 = TIER_NAME(terse_conv_u8s8),
    .conv_u8s8_scratch = TIER_NAME(terse_conv_u8s8_scratch),
    .pack_n16k4_s8 = terse_pack_n16k4_s8_ref,
    .dwconv_u8s8 = TIER_NAME(terse_dwconv_u8s8),
    .dwconv_u8s8_scratch = TIER_NAME(terse_dwconv_u8s8_scratch),
    .sparse_u8s8 = TIER_NAME(terse_sparse_u8s8),
    .sparse_u8s8_scratch = TIER_NAME(terse_sparse_u8s8_scratch),
    .sparse_f32 = TIER_NAME(terse_sparse_f32),
    .sparse_f32_scratch = TIER_NAME(terse_sparse_f32_scratch),
    .max_pool_u8 = TIER_NAME(terse_max_pool_u8),
    .average_pool_u8 = TIER_NAME(terse_average_pool_u8),
    .add_u8 = TIER_NAME(terse_add_u8),
    .mul_u8 = TIER_NAME(terse_mul_u8),
    .table_u8 = TIER_NAME(terse_table_u8),
    .quantize_u8 = TIER_NAME(terse_quantize_u8),
    .dequantize_u8 = TIER_NAME(terse_dequantize_u8),
    .transpose_8 = TIER_NAME(terse_transpose_8),
};

#endif
