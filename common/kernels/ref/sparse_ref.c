/* SPDX-License-Identifier: Apache-2.0 */
/* Products by sparse weights: one output after the other, rows of K looked up where they lie in the input. */
#include "common/kernels/ref/ref.h"
#include "common/kernels/ref/requantize_ref.h"

/* Where row `k` of K lies for output pixel out[] of image n: the element's index in an input whose pixels are `stride`
 * apart, or -1 in the padding. */
#define DEFINE_PLACE(name, type)                                                                                       \
    static int64_t name(const type *args, int64_t n, const int64_t out[3], int64_t k)                                  \
    {                                                                                                                  \
        const int64_t position = k / args->channels, x = position % args->kernel[2];                                   \
        const int64_t at[3] = {position / args->kernel[2] / args->kernel[1],                                           \
                               position / args->kernel[2] % args->kernel[1], x};                                       \
        int64_t index = n;                                                                                             \
        for (int axis = 0; axis < 3; axis++) {                                                                         \
            const int64_t i = out[axis] * args->stride[axis] - args->pad[axis] + at[axis] * args->dilation[axis];      \
            if (i < 0 || i >= args->in[axis])                                                                          \
                return -1;                                                                                             \
            index = index * args->in[axis] + i;                                                                        \
        }                                                                                                              \
        return index * args->in_stride + k % args->channels;                                                           \
    }
DEFINE_PLACE(place_u8, terse_conv_u8s8_args)
DEFINE_PLACE(place_f32, terse_conv_f32_args)

static int32_t sum_u8s8(const terse_sparse_u8s8_args *args, int64_t n, const int64_t out[3], int64_t filter)
{
    const terse_sparse *s = &args->weights;
    const int8_t *weights = s->weights;
    const int64_t group = filter % 32 / 4;
    int64_t base = 0;
    int32_t sum = 0;
    for (int64_t step = s->starts[filter / 32]; step < s->starts[filter / 32 + 1]; step++) {
        base += s->advance[step];
        for (int q = 0; q < 4; q++) {
            const int64_t at = place_u8(&args->conv, n, out, base + s->index[step * 32 + group * 4 + q]);
            const int32_t x = at < 0 ? args->conv.x_zero_point : args->conv.input[at];
            sum = ref_wrap_add(sum, x * weights[step * 128 + filter % 32 * 4 + q]);
        }
    }
    return sum;
}

void terse_sparse_u8s8_ref(const terse_sparse_u8s8_args *args)
{
    const terse_conv_u8s8_args *c = &args->conv;
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < c->n; n++)
        for (out[0] = 0; out[0] < c->out[0]; out[0]++)
            for (out[1] = 0; out[1] < c->out[1]; out[1]++)
                for (out[2] = 0; out[2] < c->out[2]; out[2]++, index++)
                    for (int64_t f = 0; f < c->filters; f++)
                        ref_put(&c->requantize, sum_u8s8(args, n, out, f), index, f, c->output,
                                index * c->out_stride + f);
}

size_t terse_sparse_u8s8_scratch_ref(const terse_sparse_u8s8_args *args)
{
    (void)args;
    return 0;
}

static float sum_f32(const terse_sparse_f32_args *args, int64_t n, const int64_t out[3], int64_t filter)
{
    const terse_sparse *s = &args->weights;
    const float *weights = s->weights;
    int64_t base = 0;
    float sum = 0.0f;
    for (int64_t step = s->starts[filter / 32]; step < s->starts[filter / 32 + 1]; step++) {
        base += s->advance[step];
        const int64_t at = place_f32(&args->conv, n, out, base + s->index[step * 8 + filter % 32 / 4]);
        sum = fmaf(at < 0 ? 0.0f : args->conv.input[at], weights[step * 32 + filter % 32], sum);
    }
    return sum;
}

void terse_sparse_f32_ref(const terse_sparse_f32_args *args)
{
    const terse_conv_f32_args *c = &args->conv;
    int64_t index = 0, out[3];
    for (int64_t n = 0; n < c->n; n++)
        for (out[0] = 0; out[0] < c->out[0]; out[0]++)
            for (out[1] = 0; out[1] < c->out[1]; out[1]++)
                for (out[2] = 0; out[2] < c->out[2]; out[2]++, index++)
                    for (int64_t f = 0; f < c->filters; f++) {
                        float x = sum_f32(args, n, out, f);
                        if (c->bias)
                            x += c->bias[f];
                        if (c->residual)
                            x += c->residual[index * c->residual_stride + f];
                        c->output[index * c->out_stride + f] = ref_activate(x, &c->activation);
                    }
}

size_t terse_sparse_f32_scratch_ref(const terse_sparse_f32_args *args)
{
    (void)args;
    return 0;
}
