/* SPDX-License-Identifier: Apache-2.0 */
/* dwconv_f32 and the pools: every tier gives the scalar tier's bits. */
#include "harness.h"

enum { AREA_INPUT, AREA_WEIGHTS, AREA_BIAS, AREA_RESIDUAL, AREA_WANT, AREA_GOT };

/* The sizes that a convolution and a pool have alike. */
typedef struct window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
} window;

static bool random_window(window *w, bool ceil_mode)
{
    int rank = (int)random_in(1, 3);
    bool common = random_in(0, 1);
    int64_t kernel = random_in(0, 1) ? 3 : 5, stride = random_in(1, 2);
    for (int axis = 0; axis < 3; axis++) {
        bool used = axis >= 3 - rank;
        w->in[axis] = used ? random_in(1, rank == 3 ? 6 : 40) : 1;
        w->kernel[axis] = used ? (common ? kernel : random_in(1, 6)) : 1;
        w->stride[axis] = used ? (common ? stride : random_in(1, 3)) : 1;
        w->dilation[axis] = used && !common && random_in(0, 2) == 0 ? random_in(1, 3) : 1;
        w->pad[axis] = used && random_in(0, 3) ? random_in(0, w->kernel[axis]) : 0;
        w->pad_end[axis] = used && random_in(0, 3) ? random_in(0, w->kernel[axis]) : 0;
        int64_t room = w->in[axis] + w->pad[axis] + w->pad_end[axis] - (w->kernel[axis] - 1) * w->dilation[axis] - 1;
        if (room < 0)
            return false;
        w->out[axis] = (room + (ceil_mode ? w->stride[axis] - 1 : 0)) / w->stride[axis] + 1;
    }
    return true;
}

static int64_t volume(const int64_t size[3])
{
    return size[0] * size[1] * size[2];
}

static void window_text(const window *w, const char *name, int64_t n, int64_t channels)
{
    snprintf(case_text, sizeof case_text,
             "%s n %d C %d in %d,%d,%d out %d,%d,%d k %d,%d,%d s %d,%d,%d d %d,%d,%d p %d,%d,%d", name, (int)n,
             (int)channels, (int)w->in[0], (int)w->in[1], (int)w->in[2], (int)w->out[0], (int)w->out[1], (int)w->out[2],
             (int)w->kernel[0], (int)w->kernel[1], (int)w->kernel[2], (int)w->stride[0], (int)w->stride[1],
             (int)w->stride[2], (int)w->dilation[0], (int)w->dilation[1], (int)w->dilation[2], (int)w->pad[0],
             (int)w->pad[1], (int)w->pad[2]);
}

static void dwconv_case(const window *w, int extreme)
{
    int64_t n = random_in(1, 2), channels = random_in(0, 3) ? random_in(1, 70) : 16 * random_in(1, 5);
    int64_t padded = (channels + 15) / 16 * 16, out_pixels = n * volume(w->out);
    int64_t in_stride = channels + random_in(0, 1) * random_in(0, 20), out_stride = channels + random_in(0, 20);
    int64_t residual_stride = channels + random_in(0, 20), in_floats = (n * volume(w->in) - 1) * in_stride + channels;
    terse_conv_f32_args args = {.n = n,
                                .channels = channels,
                                .filters = channels,
                                .groups = channels,
                                .in_stride = in_stride,
                                .residual_stride = residual_stride};
    memcpy(args.in, w->in, sizeof args.in);
    memcpy(args.out, w->out, sizeof args.out);
    memcpy(args.kernel, w->kernel, sizeof args.kernel);
    memcpy(args.stride, w->stride, sizeof args.stride);
    memcpy(args.dilation, w->dilation, sizeof args.dilation);
    memcpy(args.pad, w->pad, sizeof args.pad);
    float *input = guarded(AREA_INPUT, in_floats), *weights = guarded(AREA_WEIGHTS, volume(w->kernel) * padded);
    float *bias = guarded(AREA_BIAS, channels), *want = guarded(AREA_WANT, out_pixels * channels);
    float *residual = guarded(AREA_RESIDUAL, (out_pixels - 1) * residual_stride + channels);
    fill(input, in_floats, extreme);
    fill(weights, volume(w->kernel) * padded, extreme);
    fill(bias, channels, extreme);
    fill(residual, (out_pixels - 1) * residual_stride + channels, extreme);
    args.input = input;
    args.weights = weights;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 2) ? NULL : residual;
    args.activation = random_activation();
    args.output = want;
    args.out_stride = channels;
    window_text(w, "dwconv", n, channels);
    terse_kernels_of(TERSE_ISA_SCALAR)->dwconv_f32(&args);
    args.out_stride = out_stride;
    for (int t = 0; tier(t); t++) {
        args.output = guarded(AREA_GOT, (out_pixels - 1) * out_stride + channels);
        tier(t)->dwconv_f32(&args);
        expect_rows(tier(t)->name, args.output, out_pixels, channels, out_stride, want, channels);
    }
}

static void pool_case(const window *w, bool average, int extreme)
{
    int64_t n = random_in(1, 2), channels = random_in(0, 3) ? random_in(1, 150) : 16 * random_in(1, 10);
    int64_t out_pixels = n * volume(w->out), in_stride = channels + random_in(0, 1) * random_in(0, 20);
    int64_t out_stride = channels + random_in(0, 20), in_floats = (n * volume(w->in) - 1) * in_stride + channels;
    terse_pool_f32_args args = {.n = n,
                                .channels = channels,
                                .count_include_pad = random_in(0, 1),
                                .in_stride = in_stride,
                                .out_stride = channels};
    memcpy(args.in, w->in, sizeof args.in);
    memcpy(args.out, w->out, sizeof args.out);
    memcpy(args.kernel, w->kernel, sizeof args.kernel);
    memcpy(args.stride, w->stride, sizeof args.stride);
    memcpy(args.dilation, w->dilation, sizeof args.dilation);
    memcpy(args.pad, w->pad, sizeof args.pad);
    memcpy(args.pad_end, w->pad_end, sizeof args.pad_end);
    float *input = guarded(AREA_INPUT, in_floats), *want = guarded(AREA_WANT, out_pixels * channels);
    fill(input, in_floats, extreme);
    args.input = input;
    args.output = want;
    window_text(w, average ? "average pool" : "max pool", n, channels);
    const terse_kernels *scalar = terse_kernels_of(TERSE_ISA_SCALAR);
    (average ? scalar->average_pool_f32 : scalar->max_pool_f32)(&args);
    args.out_stride = out_stride;
    for (int t = 0; tier(t); t++) {
        args.output = guarded(AREA_GOT, (out_pixels - 1) * out_stride + channels);
        (average ? tier(t)->average_pool_f32 : tier(t)->max_pool_f32)(&args);
        expect_rows(tier(t)->name, args.output, out_pixels, channels, out_stride, want, channels);
    }
}

static void tests(void)
{
    window w = {0};
    for (int kind = 0; kind < 3; kind++) {
        for (int extreme = 0; extreme < 2; extreme++) {
            for (int done = 0; done < 500;) {
                if (!random_window(&w, kind > 0))
                    continue;
                int one_in = extreme ? (int)random_in(2, 60) : 0;
                if (kind == 0)
                    dwconv_case(&w, one_in);
                else
                    pool_case(&w, kind == 2, one_in);
                done++;
            }
            static const char *const names[] = {"dwconv", "max pool", "average pool"};
            char name[100];
            snprintf(name, sizeof name, "%s: %s", names[kind],
                     extreme ? "infinities, NaN, denormals" : "1-D to 3-D, strides, dilations, pads");
            tap_case(name);
        }
    }
}

/* The depthwise layers of MobileNetV2 (kernel 3), then kernel 5, then pools (kernel 0: of the whole map). */
typedef struct layer {
    int size, channels, kernel, stride, pad, times;
} layer;

static const layer depthwise[] = {{112, 32, 3, 1, 1, 1}, {112, 96, 3, 2, 1, 1}, {56, 144, 3, 1, 1, 1},
                                  {56, 144, 3, 2, 1, 1}, {28, 192, 3, 1, 1, 2}, {28, 192, 3, 2, 1, 1},
                                  {14, 384, 3, 1, 1, 4}, {14, 576, 3, 1, 1, 2}, {14, 576, 3, 2, 1, 1},
                                  {7, 960, 3, 1, 1, 3},  {28, 240, 5, 1, 2, 0}, {14, 672, 5, 2, 2, 0}};
static const layer pools[] = {
    {111, 64, 3, 2, 0, 1}, {112, 64, 3, 2, 1, 1}, {55, 128, 3, 2, 0, 1}, {13, 1000, 0, 1, 0, 1}, {7, 2048, 0, 1, 0, 1}};

static double bench_layer(const terse_kernels *kernels, const layer *l, bool is_pool)
{
    int64_t kernel = l->kernel ? l->kernel : l->size, out = (l->size + 2 * l->pad - kernel) / l->stride + 1;
    int64_t in_floats = (int64_t)l->size * l->size * l->channels, padded = (l->channels + 15) / 16 * 16;
    float *input = timed(AREA_INPUT, in_floats), *weights = timed(AREA_WEIGHTS, kernel * kernel * padded);
    float *bias = timed(AREA_BIAS, l->channels), *output = timed(AREA_GOT, out * out * l->channels);
    fill(input, in_floats, 0);
    fill(weights, kernel * kernel * padded, 0);
    fill(bias, l->channels, 0);
    terse_conv_f32_args conv = {.n = 1,
                                .channels = l->channels,
                                .filters = l->channels,
                                .groups = l->channels,
                                .in = {1, l->size, l->size},
                                .out = {1, out, out},
                                .kernel = {1, kernel, kernel},
                                .stride = {1, l->stride, l->stride},
                                .dilation = {1, 1, 1},
                                .pad = {0, l->pad, l->pad},
                                .input = input,
                                .in_stride = l->channels,
                                .weights = weights,
                                .bias = bias,
                                .output = output,
                                .out_stride = l->channels,
                                .activation = {TERSE_ACT_CLIP, 0.0f, 6.0f}};
    terse_pool_f32_args pool = {.n = 1,
                                .channels = l->channels,
                                .in = {1, l->size, l->size},
                                .out = {1, out, out},
                                .kernel = {1, kernel, kernel},
                                .stride = {1, l->stride, l->stride},
                                .dilation = {1, 1, 1},
                                .pad = {0, l->pad, l->pad},
                                .input = input,
                                .in_stride = l->channels,
                                .output = output,
                                .out_stride = l->channels};
    double best;
    if (!is_pool)
        BEST_OF(0.03, best, kernels->dwconv_f32(&conv));
    else if (l->kernel)
        BEST_OF(0.03, best, kernels->max_pool_f32(&pool));
    else
        BEST_OF(0.03, best, kernels->average_pool_f32(&pool));
    printf("%-10s %s %4d px %5d channels k%d s%d %9.1f us", kernels->name, is_pool ? "pool  " : "dwconv", l->size,
           l->channels, (int)kernel, l->stride, best * 1e6);
    if (is_pool)
        printf(" %7.1f GB/s read\n", 4e-9 * (double)in_floats / best);
    else
        printf(" %7.1f GFLOP/s\n", 2e-9 * (double)(out * out * kernel * kernel * l->channels) / best);
    return best * l->times;
}

static void bench(void)
{
    for (int t = 0; tier(t); t++) {
        double total = 0.0;
        for (size_t i = 0; i < sizeof depthwise / sizeof *depthwise; i++)
            total += bench_layer(tier(t), &depthwise[i], false);
        printf("%-10s MobileNetV2, depthwise convolutions: %.3f ms\n", tier(t)->name, total * 1e3);
        for (size_t i = 0; i < sizeof pools / sizeof *pools; i++)
            bench_layer(tier(t), &pools[i], true);
    }
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
