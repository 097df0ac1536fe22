/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions as their definition has them. Padding takes part in conv_f32 as zeros that are multiplied; the
 * depthwise kernel leaves it out. (They differ where a weight is not finite, and in the sign of a zero.) */
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"

/* The input pixel that output pixel `out` meets at kernel position `at`, or NULL in the padding. */
static const float *pixel(const terse_conv_f32_args *args, int64_t n, const int64_t out[3], const int64_t at[3])
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

static float conv_sum(const terse_conv_f32_args *args, int64_t n, const int64_t out[3], int64_t filter)
{
    int64_t channels = args->channels / args->groups, filters = args->filters / args->groups;
    int64_t positions = args->kernel[0] * args->kernel[1] * args->kernel[2];
    int64_t group = filter / filters, f = filter % filters;
    const float *w = args->weights + (group * ((filters + 15) / 16) + f / 16) * positions * channels * 16 + f % 16;
    float sum = 0.0f;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                const float *x = pixel(args, n, out, at);
                for (int64_t c = 0; c < channels; c++, w += 16)
                    sum = fmaf(x ? x[group * channels + c] : 0.0f, *w, sum);
            }
    return sum;
}

static float dwconv_sum(const terse_conv_f32_args *args, int64_t n, const int64_t out[3], int64_t channel)
{
    const float *w = args->weights + channel;
    int64_t padded = (args->channels + 15) / 16 * 16;
    float sum = 0.0f;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++, w += padded) {
                const float *x = pixel(args, n, out, at);
                if (x)
                    sum = fmaf(x[channel], *w, sum);
            }
    return sum;
}

typedef float conv_sum_function(const terse_conv_f32_args *args, int64_t n, const int64_t out[3], int64_t filter);

static void each_output(const terse_conv_f32_args *args, conv_sum_function *sum)
{
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, index++)
                    for (int64_t f = 0; f < args->filters; f++)
                        args->output[index * args->out_stride + f] =
                            ref_finish(sum(args, n, out, f), args->bias ? args->bias + f : NULL,
                                       args->residual ? args->residual + index * args->residual_stride + f : NULL,
                                       &args->activation);
}

void terse_conv_f32_ref(const terse_conv_f32_args *args)
{
    each_output(args, conv_sum);
}

size_t terse_conv_f32_scratch_ref(const terse_conv_f32_args *args)
{
    (void)args;
    return 0;
}

void terse_dwconv_f32_ref(const terse_conv_f32_args *args)
{
    each_output(args, dwconv_sum);
}
