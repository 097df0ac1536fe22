/* SPDX-License-Identifier: Apache-2.0 */
/* Products of bytes as quantized.h defines them. */
#include "common/kernels/ref/ref.h"
#include "common/kernels/ref/requantize_ref.h"

void terse_gemm_u8s8_ref(const terse_gemm_u8s8_args *args)
{
    const int64_t steps = (args->k + 3) / 4;
    for (int64_t m = 0; m < args->m; m++) {
        const uint8_t *a = args->a + m * args->lda;
        for (int64_t n = 0; n < args->n; n++) {
            const int8_t *b = args->b + n / 16 * steps * 64 + n % 16 * 4;
            int32_t sum = 0;
            for (int64_t k = 0; k < args->k; k++)
                sum = ref_wrap_add(sum, a[k] * b[k / 4 * 64 + k % 4]);
            ref_put(&args->requantize, sum, m, n, args->c, m * args->ldc + n);
        }
    }
}

/* The input pixel that output pixel `out` meets at kernel position `at`, or NULL in the padding. */
static const uint8_t *pixel(const terse_conv_u8s8_args *args, int64_t n, const int64_t out[3], const int64_t at[3])
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

static int32_t conv_sum(const terse_conv_u8s8_args *args, int64_t n, const int64_t out[3], int64_t filter)
{
    const int64_t channels = args->channels / args->groups, filters = args->filters / args->groups;
    const int64_t group = filter / filters, f = filter % filters;
    const int64_t row_bytes = (args->kernel[2] * channels + 3) / 4 * 64, rows = args->kernel[0] * args->kernel[1];
    const int8_t *w = args->weights + (group * ((filters + 15) / 16) + f / 16) * rows * row_bytes + f % 16 * 4;
    int32_t sum = 0;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++, w += row_bytes)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                const uint8_t *x = pixel(args, n, out, at);
                for (int64_t c = 0; c < channels; c++) {
                    int64_t k = at[2] * channels + c;
                    sum = ref_wrap_add(sum, (x ? x[group * channels + c] : args->x_zero_point) * w[k / 4 * 64 + k % 4]);
                }
            }
    return sum;
}

void terse_conv_u8s8_ref(const terse_conv_u8s8_args *args)
{
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, index++)
                    for (int64_t f = 0; f < args->filters; f++)
                        ref_put(&args->requantize, conv_sum(args, n, out, f), index, f, args->output,
                                index * args->out_stride + f);
}

size_t terse_conv_u8s8_scratch_ref(const terse_conv_u8s8_args *args)
{
    (void)args;
    return 0;
}

void terse_pack_n16k4_s8_ref(const int8_t *b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, int8_t *packed,
                             int32_t *column_sums)
{
    for (int64_t j = 0; column_sums && j < n; j++)
        column_sums[j] = 0;
    for (int64_t panel = 0; panel < n; panel += 16)
        for (int64_t i = 0; i < k; i += 4)
            for (int64_t j = panel; j < panel + 16; j++)
                for (int64_t l = i; l < i + 4; l++) {
                    const int8_t x = j < n && l < k ? b[l * stride_k + j * stride_n] : (int8_t)0;
                    *packed++ = x;
                    if (column_sums && j < n)
                        column_sums[j] = ref_wrap_add(column_sums[j], x);
                }
}
