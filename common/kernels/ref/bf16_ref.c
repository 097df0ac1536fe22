/* SPDX-License-Identifier: Apache-2.0 */
/* Products and windows over BF16 as reduced.h defines them. */
#include "common/kernels/bf16.h"
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"

static float finish(float sum, const float *bias, const void *residual, int64_t at, bool wide,
                    const terse_activation *activation)
{
    float added = 0.0f;
    if (residual)
        added = wide ? ((const float *)residual)[at] : bf16_to(((const uint16_t *)residual)[at]);
    return ref_finish(sum, bias, residual ? &added : NULL, activation);
}

static void store(void *output, int64_t at, bool wide, float x)
{
    if (wide)
        ((float *)output)[at] = x;
    else
        ((uint16_t *)output)[at] = bf16_from(x);
}

/* A pair of A by a pair of one column; `b` is that column of a panel. */
static float dot(const uint16_t *a, const uint16_t *b, float sum)
{
    return fmaf(bf16_to(a[0]), bf16_to(b[0]), fmaf(bf16_to(a[1]), bf16_to(b[1]), sum));
}

void terse_gemm_bf16_ref(const terse_gemm_bf16_args *args)
{
    for (int64_t m = 0; m < args->m; m++)
        for (int64_t n = 0; n < args->n; n++) {
            const uint16_t *b = args->b + n / 16 * args->k * 16 + n % 16 * 2;
            float sum = 0.0f;
            for (int64_t k = 0; k < args->k; k += 2)
                sum = dot(args->a + m * args->lda + k, b + k * 16, sum);
            sum = finish(sum, args->bias ? args->bias + n : NULL, args->residual, m * args->ldr + n, args->wide,
                         &args->activation);
            store(args->c, m * args->ldc + n, args->wide, sum);
        }
}

/* The input pixel that output pixel `out` meets at kernel position `at`, or NULL in the padding. */
static const uint16_t *pixel(const terse_conv_bf16_args *args, int64_t n, const int64_t out[3], const int64_t at[3])
{
    int64_t index = n;
    for (int axis = 0; axis < 3; axis++) {
        int64_t i = out[axis] * args->stride[axis] - args->pad[axis] + at[axis] * args->dilation[axis];
        if (i < 0 || i >= args->in[axis])
            return NULL;
        index = index * args->in[axis] + i;
    }
    return args->input + index * args->in_stride;
}

static float conv_sum(const terse_conv_bf16_args *args, int64_t n, const int64_t out[3], int64_t f)
{
    static const uint16_t zeros[2];
    const int64_t k = args->kernel[0] * args->kernel[1] * args->kernel[2] * args->channels;
    const uint16_t *w = (const uint16_t *)args->weights + f / 16 * k * 16 + f % 16 * 2;
    float sum = 0.0f;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                const uint16_t *x = pixel(args, n, out, at);
                for (int64_t c = 0; c < args->channels; c += 2, w += 32)
                    sum = dot(x ? x + c : zeros, w, sum);
            }
    return sum;
}

static float dwconv_sum(const terse_conv_bf16_args *args, int64_t n, const int64_t out[3], int64_t channel)
{
    const float *w = (const float *)args->weights + channel;
    const int64_t padded = (args->channels + 15) / 16 * 16;
    float sum = 0.0f;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++, w += padded) {
                const uint16_t *x = pixel(args, n, out, at);
                if (x)
                    sum = fmaf(bf16_to(x[channel]), *w, sum);
            }
    return sum;
}

typedef float sum_function(const terse_conv_bf16_args *args, int64_t n, const int64_t out[3], int64_t filter);

static void each_output(const terse_conv_bf16_args *args, sum_function *sum, bool wide)
{
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, index++)
                    for (int64_t f = 0; f < args->filters; f++)
                        store(args->output, index * args->out_stride + f, wide,
                              finish(sum(args, n, out, f), args->bias ? args->bias + f : NULL, args->residual,
                                     index * args->residual_stride + f, wide, &args->activation));
}

void terse_conv_bf16_ref(const terse_conv_bf16_args *args)
{
    each_output(args, conv_sum, args->wide);
}

size_t terse_conv_bf16_scratch_ref(const terse_conv_bf16_args *args)
{
    (void)args;
    return 0;
}

void terse_dwconv_bf16_ref(const terse_conv_bf16_args *args)
{
    each_output(args, dwconv_sum, false);
}

void terse_f32_to_bf16_ref(const float *x, uint16_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_from(x[i]);
}

void terse_bf16_to_f32_ref(const uint16_t *x, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_to(x[i]);
}

void terse_f32_rows_to_bf16_ref(const float *x, int64_t x_stride, int64_t rows, int64_t n, uint16_t *y)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n + n % 2; i++)
            *y++ = i < n ? bf16_from(x[r * x_stride + i]) : 0;
}
