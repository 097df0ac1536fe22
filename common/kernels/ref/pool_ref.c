/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/bf16.h"
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"

static int64_t at_input(const terse_pool_f32_args *args, int axis, const int64_t out[3], int64_t at)
{
    return out[axis] * args->stride[axis] - args->pad[axis] + at * args->dilation[axis];
}

/* Offset of an input pixel, or -1 in the padding. */
static int64_t pixel(const terse_pool_f32_args *args, int64_t n, const int64_t out[3], const int64_t at[3])
{
    int64_t index = n;
    for (int axis = 0; axis < 3; axis++) {
        int64_t i = at_input(args, axis, out, at[axis]);
        if (i < 0 || i >= args->in[axis])
            return -1;
        index = index * args->in[axis] + i;
    }
    return index * args->in_stride;
}

/* One number of the input, which is BF16 when `half`. */
static float load(const terse_pool_f32_args *args, int64_t at, bool half)
{
    return half ? bf16_to(((const uint16_t *)(const void *)args->input)[at]) : args->input[at];
}

static float max_of(const terse_pool_f32_args *args, int64_t n, const int64_t out[3], int64_t channel, bool half)
{
    float best = -INFINITY;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                int64_t offset = pixel(args, n, out, at);
                if (offset >= 0)
                    best = ref_max_nan(best, load(args, offset + channel, half));
            }
    return best;
}

/* The divisor's share of one axis: positions inside the input, or inside the padded input. */
static int64_t count_of(const terse_pool_f32_args *args, int axis, const int64_t out[3])
{
    int64_t count = 0;
    for (int64_t at = 0; at < args->kernel[axis]; at++) {
        int64_t i = at_input(args, axis, out, at);
        if (args->count_include_pad)
            count += i < args->in[axis] + args->pad_end[axis];
        else
            count += i >= 0 && i < args->in[axis];
    }
    return count;
}

/* The sums of the window's rows are added: long windows lose less than in one chain. */
static float average_of(const terse_pool_f32_args *args, int64_t n, const int64_t out[3], int64_t channel, bool half)
{
    float sum = 0.0f;
    int64_t at[3];
    for (at[0] = 0; at[0] < args->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < args->kernel[1]; at[1]++) {
            float row = 0.0f;
            for (at[2] = 0; at[2] < args->kernel[2]; at[2]++) {
                int64_t offset = pixel(args, n, out, at);
                if (offset >= 0)
                    row += load(args, offset + channel, half);
            }
            sum += row;
        }
    int64_t count = count_of(args, 0, out) * count_of(args, 1, out) * count_of(args, 2, out);
    return count ? sum / (float)count : 0.0f;
}

typedef float pool_function(const terse_pool_f32_args *args, int64_t n, const int64_t out[3], int64_t channel,
                            bool half);

static void each_output(const terse_pool_f32_args *args, pool_function *of, bool half)
{
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < args->n; n++)
        for (out[0] = 0; out[0] < args->out[0]; out[0]++)
            for (out[1] = 0; out[1] < args->out[1]; out[1]++)
                for (out[2] = 0; out[2] < args->out[2]; out[2]++, index++)
                    for (int64_t c = 0; c < args->channels; c++) {
                        const float y = of(args, n, out, c, half);
                        if (half)
                            ((uint16_t *)(void *)args->output)[index * args->out_stride + c] = bf16_from(y);
                        else
                            args->output[index * args->out_stride + c] = y;
                    }
}

void terse_max_pool_f32_ref(const terse_pool_f32_args *args)
{
    each_output(args, max_of, false);
}

void terse_average_pool_f32_ref(const terse_pool_f32_args *args)
{
    each_output(args, average_of, false);
}

void terse_max_pool_bf16_ref(const terse_pool_f32_args *args)
{
    each_output(args, max_of, true);
}

void terse_average_pool_bf16_ref(const terse_pool_f32_args *args)
{
    each_output(args, average_of, true);
}
