/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels on bytes that are no dense product: depthwise convolution, pools, element by element. As quantized.h defines
 * them. */
#include "common/kernels/ref/ref.h"
#include "common/kernels/ref/requantize_ref.h"

/* Position of kernel tap `at` on one axis for output `out`. */
static int64_t tap(int64_t out, int64_t stride, int64_t pad, int64_t at, int64_t dilation)
{
    return out * stride - pad + at * dilation;
}

static int32_t dwconv_sum(const terse_conv_u8s8_args *args, int64_t n, const int64_t out[3], int64_t channel)
{
    const int64_t high = (args->kernel[1] + 3) / 4;
    const int8_t *w = args->weights + channel / 16 * args->kernel[0] * args->kernel[2] * high * 64 + channel % 16 * 4;
    int32_t sum = 0;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                int64_t index = n;
                bool inside = true;
                for (int axis = 0; axis < 3; axis++) {
                    const int64_t i =
                        tap(out[axis], args->stride[axis], args->pad[axis], at[axis], args->dilation[axis]);
                    inside = inside && i >= 0 && i < args->in[axis];
                    index = index * args->in[axis] + i;
                }
                const int32_t x = inside ? args->input[index * args->in_stride + channel] : args->x_zero_point;
                const int64_t group = (at[0] * args->kernel[2] + at[2]) * high + at[1] / 4;
                sum = ref_wrap_add(sum, x * w[group * 64 + at[1] % 4]);
            }
    return sum;
}

void terse_dwconv_u8s8_ref(const terse_conv_u8s8_args *args)
{
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, index++)
                    for (int64_t c = 0; c < args->channels; c++)
                        ref_put(&args->requantize, dwconv_sum(args, n, out, c), index, c, args->output,
                                index * args->out_stride + c);
}

/* Offset of an input pixel, or -1 in the padding. */
static int64_t pixel(const terse_pool_u8_args *args, int64_t n, const int64_t out[3], const int64_t at[3])
{
    int64_t index = n;
    for (int axis = 0; axis < 3; axis++) {
        const int64_t i = tap(out[axis], args->stride[axis], args->pad[axis], at[axis], args->dilation[axis]);
        if (i < 0 || i >= args->in[axis])
            return -1;
        index = index * args->in[axis] + i;
    }
    return index * args->in_stride;
}

static uint8_t max_of(const terse_pool_u8_args *args, int64_t n, const int64_t out[3], int64_t channel)
{
    uint8_t best = 0;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                const int64_t offset = pixel(args, n, out, at);
                if (offset >= 0 && args->input[offset + channel] > best)
                    best = args->input[offset + channel];
            }
    return best;
}

/* The divisor's share of one axis: positions inside the input, or inside the padded input. */
static int64_t count_of(const terse_pool_u8_args *args, int axis, const int64_t out[3])
{
    int64_t count = 0;
    for (int64_t at = 0; at < args->kernel[axis]; at++) {
        const int64_t i = tap(out[axis], args->stride[axis], args->pad[axis], at, args->dilation[axis]);
        count += args->count_include_pad ? i < args->in[axis] + args->pad_end[axis] : i >= 0 && i < args->in[axis];
    }
    return count;
}

static uint8_t average_of(const terse_pool_u8_args *args, int64_t n, const int64_t out[3], int64_t channel)
{
    int64_t sum = 0, at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                const int64_t offset = pixel(args, n, out, at);
                if (offset >= 0)
                    sum += args->input[offset + channel] - args->x_zero_point;
            }
    const int64_t count = count_of(args, 0, out) * count_of(args, 1, out) * count_of(args, 2, out);
    return ref_clamp(count ? (double)sum * args->scale / (double)count : 0.0, args->y_zero_point, 0, 255);
}

typedef uint8_t pool_function(const terse_pool_u8_args *args, int64_t n, const int64_t out[3], int64_t channel);

static void each_output(const terse_pool_u8_args *args, pool_function *of)
{
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, index++)
                    for (int64_t c = 0; c < args->channels; c++)
                        args->output[index * args->out_stride + c] = of(args, n, out, c);
}

void terse_max_pool_u8_ref(const terse_pool_u8_args *args)
{
    each_output(args, max_of);
}

void terse_average_pool_u8_ref(const terse_pool_u8_args *args)
{
    each_output(args, average_of);
}

void terse_add_u8_ref(const terse_binary_u8_args *args)
{
    for (int64_t i = 0; i < args->n; i++) {
        const double a = (double)(args->a[i * args->stride_a] - args->a_zero_point) * args->a_scale;
        const double b = (double)(args->b[i * args->stride_b] - args->b_zero_point) * args->b_scale;
        args->y[i] = ref_clamp(a + b, args->zero_point, args->low, args->high);
    }
}

void terse_mul_u8_ref(const terse_binary_u8_args *args)
{
    for (int64_t i = 0; i < args->n; i++) {
        const int32_t a = args->a[i * args->stride_a] - args->a_zero_point;
        const int32_t b = args->b[i * args->stride_b] - args->b_zero_point;
        args->y[i] = ref_clamp((double)(a * b) * args->a_scale, args->zero_point, args->low, args->high);
    }
}

void terse_table_u8_ref(const uint8_t *x, const uint8_t table[256], uint8_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = table[x[i]];
}

void terse_quantize_u8_ref(const float *x, float scale, int32_t zero_point, uint8_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = isnan(x[i]) ? (uint8_t)zero_point : ref_clamp((double)x[i] / (double)scale, zero_point, 0, 255);
}

void terse_dequantize_u8_ref(const uint8_t *x, float scale, int32_t zero_point, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)(x[i] - zero_point) * scale;
}

void terse_transpose_8_ref(const uint8_t *src, int64_t src_stride, uint8_t *dst, int64_t dst_stride, int64_t rows,
                           int64_t columns)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            dst[c * dst_stride + r] = src[r * src_stride + c];
}
