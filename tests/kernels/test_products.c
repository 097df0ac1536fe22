/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_f32 and conv_f32: every tier gives the scalar tier's bits, for every number of rows, so that a row's bits
 * cannot depend on how many rows there are. */
#include "common/kernels/winograd.h"
#include "harness.h"
#include "networks.h"

enum { AREA_A, AREA_B, AREA_BIAS, AREA_RESIDUAL, AREA_WANT, AREA_GOT, AREA_SCRATCH, AREA_DIRECT };

static void gemm_case(int64_t m, int64_t n, int64_t k, int extreme)
{
    int64_t lda = k + random_in(0, 1) * random_in(0, 40), ldc = n + random_in(0, 1) * random_in(0, 40);
    int64_t ldr = n + random_in(0, 1) * random_in(0, 20), b_floats = (n + 15) / 16 * 16 * k;
    terse_gemm_f32_args args = {.m = m, .n = n, .k = k, .lda = lda, .ldr = ldr};
    float *a = guarded(AREA_A, (m - 1) * lda + k), *b = guarded(AREA_B, b_floats);
    float *bias = guarded(AREA_BIAS, n), *residual = guarded(AREA_RESIDUAL, (m - 1) * ldr + n);
    fill(a, (m - 1) * lda + k, extreme);
    fill(b, b_floats, extreme);
    for (int64_t i = 0; i < b_floats; i++)
        if (i / 16 / k * 16 + i % 16 >= n)
            b[i] = 0.0f;
    fill(bias, n, extreme);
    fill(residual, (m - 1) * ldr + n, extreme);
    args.a = a;
    args.b = b;
    args.bias = random_in(0, 2) ? bias : NULL;
    bool in_place = random_in(0, 3) == 0;
    args.residual = random_in(0, 1) ? residual : NULL;
    args.activation = random_activation();
    float *want = guarded(AREA_WANT, m * n);
    args.c = want;
    args.ldc = n;
    terse_kernels_of(TERSE_ISA_SCALAR)->gemm_f32(&args);
    snprintf(case_text, sizeof case_text,
             "gemm m %" PRId64 " n %" PRId64 " k %" PRId64 " lda %" PRId64 " ldc %" PRId64
             " act %d bias %d residual %d",
             m, n, k, lda, ldc, args.activation.kind, !!args.bias, !!args.residual);
    for (int t = 0; tier(t); t++) {
        float *c = guarded(AREA_GOT, (m - 1) * ldc + n);
        args.c = c;
        args.ldc = ldc;
        if (in_place && args.residual) {
            for (int64_t r = 0; r < m; r++)
                memcpy(c + r * ldc, residual + r * ldr, (size_t)n * sizeof *c);
            args.residual = c;
            args.ldr = ldc;
        }
        tier(t)->gemm_f32(&args);
        expect_rows(tier(t)->name, c, m, n, ldc, want, n);
        if (args.residual) {
            args.residual = residual;
            args.ldr = ldr;
        }
    }
}

static void gemm_tests(void)
{
    for (int64_t m = 1; m <= 48; m++)
        for (int64_t n = 1; n <= 130; n += random_in(1, 9))
            gemm_case(m, n, random_in(1, 40), 0);
    tap_case("gemm: rows 1 to 48 by columns 1 to 130");
    for (int64_t size = 0; size <= 300; size += random_in(1, 3)) {
        if (size) {
            gemm_case(random_in(1, 20), size, random_in(1, 20), 0);
            gemm_case(size, random_in(1, 20), random_in(1, 20), 0);
        }
        gemm_case(random_in(1, 20), random_in(1, 20), size, 0);
    }
    tap_case("gemm: sizes up to 300, K = 0 included");
    for (int i = 0; i < 12; i++)
        gemm_case(random_in(1, 300), random_in(1, 300), random_in(1, 300), 0);
    gemm_case(33, 65, 1024, 0);
    gemm_case(50, 32, 2048, 0);
    gemm_case(2, 16, 20000, 0);
    tap_case("gemm: large ones, rows a multiple of 4096 bytes apart");
    for (int i = 0; i < 200; i++)
        gemm_case(random_in(1, 30), random_in(1, 70), random_in(1, 30), (int)random_in(2, 50));
    tap_case("gemm: infinities, NaN, denormals, signed zeros");
}

static int64_t output_of(const terse_conv_f32_args *args, int axis, int64_t pad_end)
{
    int64_t span = (args->kernel[axis] - 1) * args->dilation[axis] + 1;
    int64_t room = args->in[axis] + args->pad[axis] + pad_end - span;
    return room < 0 ? 0 : room / args->stride[axis] + 1;
}

/* Random sizes, kernel of up to 7, strides, dilation and padding; small kernels and no padding often. */
static bool random_conv(terse_conv_f32_args *args, int64_t most_channels)
{
    int rank = (int)random_in(1, 3);
    bool plain = random_in(0, 3) == 0;
    for (int axis = 0; axis < 3; axis++) {
        bool used = axis >= 3 - rank;
        args->in[axis] = used ? random_in(1, rank == 3 ? 6 : 17) : 1;
        args->kernel[axis] = used && !plain ? (random_in(0, 1) ? 3 : random_in(1, rank == 1 ? 9 : 5)) : 1;
        args->stride[axis] = used ? random_in(1, 2) + (random_in(0, 9) == 0) : 1;
        args->dilation[axis] = used && random_in(0, 3) == 0 ? random_in(1, 3) : 1;
        args->pad[axis] = used && random_in(0, 2) ? random_in(0, plain ? 1 : args->kernel[axis] + 1) : 0;
        args->out[axis] = output_of(args, axis, used ? args->pad[axis] * random_in(0, 1) : 0);
        if (plain && random_in(0, 1)) {
            args->stride[axis] = 1;
            args->pad[axis] = 0;
            args->out[axis] = args->in[axis];
        }
        if (args->out[axis] < 1)
            return false;
    }
    args->n = random_in(1, 3);
    args->groups = random_in(0, 2) ? 1 : random_in(1, 4);
    args->channels = args->groups * (random_in(0, 1) ? random_in(1, 8) : random_in(1, most_channels));
    args->filters = args->groups * (random_in(0, 1) ? random_in(1, 17) : random_in(1, 70));
    return true;
}

static void conv_text(const terse_conv_f32_args *args, const char *name)
{
    snprintf(
        case_text, sizeof case_text,
        "%s n %d C %d F %d g %d in %d,%d,%d out %d,%d,%d k %d,%d,%d s %d,%d,%d d %d,%d,%d p %d,%d,%d stride %d act %d",
        name, (int)args->n, (int)args->channels, (int)args->filters, (int)args->groups, (int)args->in[0],
        (int)args->in[1], (int)args->in[2], (int)args->out[0], (int)args->out[1], (int)args->out[2],
        (int)args->kernel[0], (int)args->kernel[1], (int)args->kernel[2], (int)args->stride[0], (int)args->stride[1],
        (int)args->stride[2], (int)args->dilation[0], (int)args->dilation[1], (int)args->dilation[2], (int)args->pad[0],
        (int)args->pad[1], (int)args->pad[2], (int)args->in_stride, args->activation.kind);
}

static void conv_case(terse_conv_f32_args *args, int extreme)
{
    int64_t in_pixels = args->n * args->in[0] * args->in[1] * args->in[2];
    int64_t out_pixels = args->n * args->out[0] * args->out[1] * args->out[2], filters = args->filters;
    int64_t k = args->kernel[0] * args->kernel[1] * args->kernel[2] * (args->channels / args->groups);
    int64_t weight_floats = args->groups * ((filters / args->groups + 15) / 16) * 16 * k;
    args->in_stride = args->channels + random_in(0, 1) * random_in(0, 30);
    args->residual_stride = filters + random_in(0, 1) * random_in(0, 30);
    int64_t out_stride = filters + random_in(0, 1) * random_in(0, 30);
    float *input = guarded(AREA_A, (in_pixels - 1) * args->in_stride + args->channels);
    float *weights = guarded(AREA_B, weight_floats), *bias = guarded(AREA_BIAS, filters);
    float *residual = guarded(AREA_RESIDUAL, (out_pixels - 1) * args->residual_stride + filters);
    fill(input, (in_pixels - 1) * args->in_stride + args->channels, extreme);
    fill(weights, weight_floats, 0);
    fill(bias, filters, extreme);
    fill(residual, (out_pixels - 1) * args->residual_stride + filters, extreme);
    args->input = input;
    args->weights = weights;
    args->bias = random_in(0, 1) ? bias : NULL;
    args->residual = random_in(0, 1) ? residual : NULL;
    args->activation = random_activation();
    conv_text(args, "conv");
    float *want = guarded(AREA_WANT, out_pixels * filters);
    args->output = want;
    args->out_stride = filters;
    args->scratch = NULL;
    terse_kernels_of(TERSE_ISA_SCALAR)->conv_f32(args);
    for (int t = 0; tier(t); t++) {
        float *output = guarded(AREA_GOT, (out_pixels - 1) * out_stride + filters);
        args->output = output;
        args->out_stride = out_stride;
        args->scratch = guarded_scratch(AREA_SCRATCH, tier(t)->conv_f32_scratch(args));
        tier(t)->conv_f32(args);
        expect_rows(tier(t)->name, output, out_pixels, filters, out_stride, want, filters);
    }
}

static void conv_tests(void)
{
    terse_conv_f32_args args = {0};
    for (int done = 0; done < 500;)
        if (random_conv(&args, 24)) {
            conv_case(&args, 0);
            done++;
        }
    tap_case("conv: 1-D to 3-D, groups, strides, dilations, pads, strided pixels");
    for (int done = 0; done < 100;)
        if (random_conv(&args, 16)) {
            conv_case(&args, (int)random_in(3, 50));
            done++;
        }
    tap_case("conv: infinities, NaN, denormals, signed zeros");
    for (int done = 0; done < 40;)
        if (random_conv(&args, 140)) {
            conv_case(&args, 0);
            done++;
        }
    tap_case("conv: many channels");
}

/* Weights of F(4x4,3x3) from those of a convolution, by the definition in common/kernels/winograd.h. */
static void winograd_weights(const float *weights, int64_t channels, int64_t filters, float *to)
{
    const double a = WINOGRAD_A, b = WINOGRAD_B;
    const double g[6][3] = {{1, 0, 0},
                            {-2.0 / 3, -2 * a / 3, -1.0 / 3},
                            {-2.0 / 3, 2 * a / 3, -1.0 / 3},
                            {1.0 / 6, b / 6, 1.0 / 3},
                            {1.0 / 6, -b / 6, 1.0 / 3},
                            {0, 0, 1}};
    const int64_t panels = (filters + 15) / 16;
    for (int64_t point = 0; point < WINOGRAD_POINTS; point++)
        for (int64_t f = 0; f < panels * 16; f++)
            for (int64_t c = 0; c < channels; c++) {
                double sum = 0;
                for (int64_t i = 0; i < 9; i++)
                    sum += g[point / 6][i / 3] * g[point % 6][i % 3] *
                           (double)weights[(f / 16 * 9 + i) * channels * 16 + c * 16 + f % 16];
                to[((point * panels + f / 16) * channels + c) * 16 + f % 16] = (float)sum;
            }
}

static void winograd_case(int64_t most_size, int64_t most_channels, int extreme)
{
    terse_conv_f32_args args = {.n = random_in(1, 3), .channels = random_in(1, most_channels), .groups = 1};
    args.filters = random_in(1, most_channels);
    for (int axis = 0; axis < 3; axis++) {
        args.kernel[axis] = axis ? 3 : 1;
        args.stride[axis] = args.dilation[axis] = args.in[axis] = args.out[axis] = 1;
        if (!axis)
            continue;
        args.dilation[axis] = random_in(0, 2) ? 1 : random_in(2, 5);
        args.pad[axis] = random_in(0, 9) ? random_in(0, 2 * args.dilation[axis]) : random_in(0, 9);
        const int64_t pad_end = random_in(0, 9) ? random_in(0, 2) : random_in(0, 9), pads = args.pad[axis] + pad_end;
        const int64_t reach = 2 * args.dilation[axis];
        const int64_t least = pads < reach ? reach + 1 - pads : 1;
        args.in[axis] = random_in(least, least > most_size ? least : most_size);
        args.out[axis] = args.in[axis] + pads - reach;
    }
    const int64_t in_pixels = args.n * args.in[1] * args.in[2], out_pixels = args.n * args.out[1] * args.out[2];
    const int64_t channels = args.channels, filters = args.filters, wide = (filters + 15) / 16 * 16;
    args.in_stride = channels + random_in(0, 1) * random_in(0, 30);
    args.residual_stride = filters + random_in(0, 1) * random_in(0, 30);
    const int64_t out_stride = filters + random_in(0, 1) * random_in(0, 30);
    float *input = guarded(AREA_A, (in_pixels - 1) * args.in_stride + channels);
    float *direct = guarded(AREA_DIRECT, wide * 9 * channels), *weights = guarded(AREA_B, wide * 36 * channels);
    float *bias = guarded(AREA_BIAS, filters);
    float *residual = guarded(AREA_RESIDUAL, (out_pixels - 1) * args.residual_stride + filters);
    fill(input, (in_pixels - 1) * args.in_stride + channels, extreme);
    fill(direct, wide * 9 * channels, 0);
    winograd_weights(direct, channels, filters, weights);
    fill(bias, filters, extreme);
    fill(residual, (out_pixels - 1) * args.residual_stride + filters, extreme);
    args.input = input;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 1) ? residual : NULL;
    args.activation = random_activation();
    conv_text(&args, "winograd");
    const terse_kernels *scalar = terse_kernels_of(TERSE_ISA_SCALAR);
    float *want = guarded(AREA_WANT, out_pixels * filters), *plain = guarded(AREA_GOT, out_pixels * filters);
    args.out_stride = filters;
    args.weights = weights;
    args.output = want;
    args.scratch = guarded_scratch(AREA_SCRATCH, scalar->winograd_f32_scratch(&args));
    scalar->winograd_f32(&args);
    args.weights = direct;
    args.output = plain;
    scalar->conv_f32(&args);
    /* Weights are below 1; activations are no steeper than 2 (|alpha| of a leaky one). */
    for (int64_t i = 0; i < out_pixels * filters && !extreme; i++)
        if (!(fabsf(want[i] - plain[i]) <= 2e-5f * sqrtf((float)channels)))
            case_error("%.9g through the domain, %.9g by the definition", (double)want[i], (double)plain[i]);
    args.weights = weights;
    args.out_stride = out_stride;
    for (int t = 0; tier(t); t++) {
        args.output = guarded(AREA_GOT, (out_pixels - 1) * out_stride + filters);
        args.scratch = guarded_scratch(AREA_SCRATCH, tier(t)->winograd_f32_scratch(&args));
        tier(t)->winograd_f32(&args);
        expect_rows(tier(t)->name, args.output, out_pixels, filters, out_stride, want, filters);
    }
}

static void winograd_tests(void)
{
    for (int i = 0; i < 150; i++)
        winograd_case(13, 40, 0);
    tap_case("winograd: any size, padding and dilation, strided pixels; near the direct convolution");
    for (int i = 0; i < 100; i++)
        winograd_case(9, 20, (int)random_in(3, 50));
    tap_case("winograd: infinities, NaN, denormals, signed zeros");
    for (int i = 0; i < 3; i++)
        winograd_case(40, 60, 0);
    for (int i = 0; i < 8; i++)
        winograd_case(8, 300, 0);
    tap_case("winograd: many tiles, many channels");
}

static void tests(void)
{
    gemm_tests();
    conv_tests();
    winograd_tests();
}

static void gemm_bench(const terse_kernels *kernels, int64_t m, int64_t n, int64_t k)
{
    float *a = timed(AREA_A, m * k), *b = timed(AREA_B, (n + 15) / 16 * 16 * k), *c = timed(AREA_GOT, m * n);
    float *bias = timed(AREA_BIAS, n);
    fill(a, m * k, 0);
    fill(b, (n + 15) / 16 * 16 * k, 0);
    fill(bias, n, 0);
    terse_gemm_f32_args args = {.m = m, .n = n, .k = k, .a = a, .lda = k, .b = b, .c = c, .ldc = n, .bias = bias};
    double best;
    BEST_OF(0.05, best, kernels->gemm_f32(&args));
    printf("%-10s gemm %5d x %5d x %5d  %9.1f us %7.1f GFLOP/s, weights %6.1f GB/s\n", kernels->name, (int)m, (int)n,
           (int)k, best * 1e6, 2e-9 * (double)(m * n * k) / best, 4e-9 * (double)(n * k) / best);
}

static double conv_bench(const terse_kernels *kernels, const layer *l)
{
    int64_t out = (l->size + 2 * l->pad - l->kernel) / l->stride + 1, k = (int64_t)l->kernel * l->kernel * l->channels;
    terse_conv_f32_args args = {.n = 1,
                                .channels = l->channels,
                                .filters = l->filters,
                                .groups = 1,
                                .in = {1, l->size, l->size},
                                .out = {1, out, out},
                                .kernel = {1, l->kernel, l->kernel},
                                .stride = {1, l->stride, l->stride},
                                .dilation = {1, 1, 1},
                                .pad = {0, l->pad, l->pad},
                                .in_stride = l->channels,
                                .out_stride = l->filters,
                                .activation = {TERSE_ACT_CLIP, 0.0f, INFINITY}};
    float *input = timed(AREA_A, (int64_t)l->size * l->size * l->channels);
    float *weights = timed(AREA_B, (l->filters + 15) / 16 * 16 * k), *bias = timed(AREA_BIAS, l->filters);
    fill(input, (int64_t)l->size * l->size * l->channels, 0);
    fill(weights, (l->filters + 15) / 16 * 16 * k, 0);
    fill(bias, l->filters, 0);
    args.input = input;
    args.weights = weights;
    args.bias = bias;
    args.output = timed(AREA_GOT, out * out * l->filters);
    args.scratch = guarded_scratch(AREA_SCRATCH, kernels->conv_f32_scratch(&args));
    double best;
    BEST_OF(0.03, best, kernels->conv_f32(&args));
    printf("%-10s conv %4d px %5d -> %5d k%d s%d  %9.1f us %7.1f GFLOP/s", kernels->name, l->size, l->channels,
           l->filters, l->kernel, l->stride, best * 1e6, 2e-9 * (double)(out * out * k * l->filters) / best);
    if (l->kernel == 3 && l->stride == 1) {
        double other;
        weights = timed(AREA_B, (l->filters + 15) / 16 * 16 * 36 * l->channels);
        fill(weights, (l->filters + 15) / 16 * 16 * 36 * l->channels, 0);
        args.weights = weights;
        args.scratch = guarded_scratch(AREA_SCRATCH, kernels->winograd_f32_scratch(&args));
        BEST_OF(0.03, other, kernels->winograd_f32(&args));
        printf(", winograd %9.1f us, scratch %zu KiB", other * 1e6, kernels->winograd_f32_scratch(&args) / 1024);
        best = other < best ? other : best;
    }
    printf("\n");
    return best * l->times;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void bench(void)
{
    static const int64_t rows[] = {1, 2, 4, 8, 12, 14, 16, 64, 128, 1024};
    static const int64_t others[][3] = {{1, 512, 784},  {1, 512, 512},   {1, 10, 512},     {8, 512, 784},
                                        {64, 512, 784}, {128, 384, 384}, {128, 1536, 384}, {128, 384, 1536},
                                        {128, 128, 32}, {128, 32, 128}};
    const char *only = getenv("TERSE_ISA");
    for (int t = 0; tier(t); t++) {
        if (only && strcmp(only, tier(t)->name) != 0)
            continue;
        for (size_t i = 0; i < COUNT(rows); i++)
            gemm_bench(tier(t), rows[i], 1024, 1024);
        for (size_t i = 0; i < COUNT(others); i++)
            gemm_bench(tier(t), others[i][0], others[i][1], others[i][2]);
        networks_bench(tier(t), conv_bench, 0.0);
    }
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
