/* SPDX-License-Identifier: Apache-2.0 */
/* 3x3 convolutions through F(4x4,3x3), tile by tile. Scratch holds one tile of all channels in the domain. */
#include "common/kernels/ref/math_ref.h"
#include "common/kernels/ref/ref.h"
#include "common/kernels/winograd.h"

enum { TILE = WINOGRAD_TILE, WINDOW = WINOGRAD_WINDOW, POINTS = WINOGRAD_POINTS };

/* Six numbers `stride` apart, in place. */
static void transform_input(float *d, int stride)
{
    const float a = (float)WINOGRAD_A, b = (float)WINOGRAD_B;
    const float d0 = d[0], d1 = d[stride], d2 = d[2 * stride], d3 = d[3 * stride], d4 = d[4 * stride],
                d5 = d[5 * stride];
    const float even_a = fmaf(d2, -2.0f, d4), odd_a = fmaf(d1, -b, a * d3);
    const float even_b = fmaf(d2, -0.5f, d4), odd_b = fmaf(d1, -a, b * d3);
    d[0] = d0 + fmaf(d2, -2.5f, d4);
    d[stride] = even_a + odd_a;
    d[2 * stride] = even_a - odd_a;
    d[3 * stride] = even_b + odd_b;
    d[4 * stride] = even_b - odd_b;
    d[5 * stride] = d5 + fmaf(d3, -2.5f, d1);
}

/* Six numbers `stride` apart become four, in place. */
static void transform_output(float *m, int stride)
{
    const float a = (float)WINOGRAD_A, b = (float)WINOGRAD_B;
    const float sum_a = m[stride] + m[2 * stride], difference_a = m[stride] - m[2 * stride];
    const float sum_b = m[3 * stride] + m[4 * stride], difference_b = m[3 * stride] - m[4 * stride];
    m[0] = (m[0] + sum_a) + sum_b;
    m[stride] = fmaf(difference_b, b, a * difference_a);
    m[2 * stride] = fmaf(sum_b, 2.0f, 0.5f * sum_a);
    m[3 * stride] = fmaf(difference_b, 2.0f * b, fmaf(difference_a, 0.5f * a, m[5 * stride]));
}

/* The window of the tile at output (y, x), all channels, into domain[point][channel]. */
static void load_tile(const terse_conv_f32_args *args, int64_t n, int64_t y, int64_t x, float *domain)
{
    const int64_t height = args->in[1], width = args->in[2];
    const float *image = args->input + n * height * width * args->in_stride;
    for (int64_t c = 0; c < args->channels; c++) {
        float d[POINTS];
        for (int64_t i = 0; i < POINTS; i++) {
            const int64_t iy = y - args->pad[1] + i / WINDOW * args->dilation[1];
            const int64_t ix = x - args->pad[2] + i % WINDOW * args->dilation[2];
            const bool inside = iy >= 0 && iy < height && ix >= 0 && ix < width;
            d[i] = inside ? image[(iy * width + ix) * args->in_stride + c] : 0.0f;
        }
        for (int i = 0; i < WINDOW; i++)
            transform_input(d + i, WINDOW);
        for (int i = 0; i < WINDOW; i++)
            transform_input(d + i * WINDOW, 1);
        for (int64_t i = 0; i < POINTS; i++)
            domain[i * args->channels + c] = d[i];
    }
}

static void store_tile(const terse_conv_f32_args *args, int64_t n, int64_t y, int64_t x, int64_t filter,
                       const float *domain)
{
    const int64_t panels = (args->filters + 15) / 16;
    float m[POINTS];
    for (int64_t i = 0; i < POINTS; i++) {
        const float *w = args->weights + (i * panels + filter / 16) * args->channels * 16 + filter % 16;
        float sum = 0.0f;
        for (int64_t c = 0; c < args->channels; c++)
            sum = fmaf(domain[i * args->channels + c], w[c * 16], sum);
        m[i] = sum;
    }
    for (int i = 0; i < WINDOW; i++)
        transform_output(m + i, WINDOW);
    for (int i = 0; i < TILE; i++)
        transform_output(m + i * WINDOW, 1);
    for (int64_t i = 0; i < TILE && y + i * args->dilation[1] < args->out[1]; i++)
        for (int64_t j = 0; j < TILE && x + j * args->dilation[2] < args->out[2]; j++) {
            const int64_t index =
                (n * args->out[1] + y + i * args->dilation[1]) * args->out[2] + x + j * args->dilation[2];
            args->output[index * args->out_stride + filter] = ref_finish(
                m[i * WINDOW + j], args->bias ? args->bias + filter : NULL,
                args->residual ? args->residual + index * args->residual_stride + filter : NULL, &args->activation);
        }
}

/* The first output of the tile behind the one that begins at `first`: outputs of a tile are `dilation` apart. */
static int64_t next_tile(int64_t first, int64_t dilation)
{
    return (first + 1) % dilation != 0 ? first + 1 : first + 1 + (TILE - 1) * dilation;
}

size_t terse_winograd_f32_scratch_ref(const terse_conv_f32_args *args)
{
    return (size_t)args->channels * POINTS * sizeof(float);
}

void terse_winograd_f32_ref(const terse_conv_f32_args *args)
{
    float *domain = args->scratch;
    for (int64_t n = 0; n < args->n; n++)
        for (int64_t y = 0; y < args->out[1]; y = next_tile(y, args->dilation[1]))
            for (int64_t x = 0; x < args->out[2]; x = next_tile(x, args->dilation[2])) {
                load_tile(args, n, y, x, domain);
                for (int64_t f = 0; f < args->filters; f++)
                    store_tile(args, n, y, x, f, domain);
            }
}
