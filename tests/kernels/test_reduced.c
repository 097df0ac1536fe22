/* SPDX-License-Identifier: Apache-2.0 */
/* BF16: every tier but avx512bf16 gives the scalar tier's bits; that one sums pairs as vdpbf16ps does, and is held to
 * a bound here, and to the same bits for a row alone. Small numbers only for products: subnormal ones are zero there.
 */
#include "common/kernels/bf16.h"
#include "harness.h"

enum { AREA_A, AREA_B, AREA_BIAS, AREA_RESIDUAL, AREA_WANT, AREA_GOT, AREA_SCRATCH };

static uint16_t *guarded_half(int area, int64_t n)
{
    uint16_t *p = (uint16_t *)(void *)(areas[area] + AREA_BYTES) - (n + n % 2);
    memset(p - 64, 0xc3, 64 * sizeof *p);
    memset(p, 0xc3, (size_t)(n + n % 2) * sizeof *p);
    return p;
}

static void fill_half(uint16_t *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        p[i] = bf16_from(random_float());
}

/* Row `at` of an output in either dtype. */
static float number(const void *p, int64_t at, bool wide)
{
    return wide ? ((const float *)p)[at] : bf16_to(((const uint16_t *)p)[at]);
}

/* `exact`: the same bits; else within what another order of the sum and one rounding of the result may cost. */
static void compare(const terse_kernels *kernels, const void *got, int64_t stride, const void *want, int64_t rows,
                    int64_t n, bool wide, int64_t k)
{
    const bool exact = kernels->isa != TERSE_ISA_AVX512BF16;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < n; j++) {
            const float g = number(got, r * stride + j, wide), w = number(want, r * n + j, wide);
            const float bound = 1e-6f * (float)(k + 8) + (wide ? 0.0f : fabsf(w) / 100.0f);
            if (exact ? !same(g, w) : !(fabsf(g - w) <= bound))
                case_error("%s row %" PRId64 " column %" PRId64 ": %.9g, scalar %.9g", kernels->name, r, j, (double)g,
                           (double)w);
        }
    if (!wide)
        for (int i = 1; i <= 64; i++)
            if (((const uint16_t *)got)[-i] != 0xc3c3)
                case_error("%s wrote %d before the output", kernels->name, i);
}

static void *output(int area, int64_t n, bool wide)
{
    return wide ? (void *)guarded(area, n) : (void *)guarded_half(area, n);
}

/* Not too steep an activation for the bound. */
static terse_activation mild_activation(void)
{
    return random_in(0, 1) ? (terse_activation){TERSE_ACT_CLIP, 0.0f, INFINITY} : (terse_activation){0};
}

static void gemm_case(int64_t m, int64_t n, int64_t k)
{
    const bool wide = random_in(0, 1);
    terse_gemm_bf16_args args = {.m = m, .n = n, .k = k, .lda = k + 2 * random_in(0, 9), .wide = wide};
    args.ldr = n + random_in(0, 9);
    const int64_t panels = (n + 15) / 16, ldc = n + random_in(0, 9);
    uint16_t *a = guarded_half(AREA_A, (m - 1) * args.lda + k), *b = guarded_half(AREA_B, panels * 16 * k);
    fill_half(a, (m - 1) * args.lda + k);
    fill_half(b, panels * 16 * k);
    float *bias = guarded(AREA_BIAS, n);
    fill(bias, n, 0);
    void *residual = output(AREA_RESIDUAL, (m - 1) * args.ldr + n, wide);
    if (wide)
        fill(residual, (m - 1) * args.ldr + n, 0);
    else
        fill_half(residual, (m - 1) * args.ldr + n);
    args.a = a;
    args.b = b;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 1) ? residual : NULL;
    args.activation = mild_activation();
    snprintf(case_text, sizeof case_text, "gemm m %d n %d k %d wide %d", (int)m, (int)n, (int)k, wide);
    void *want = output(AREA_WANT, m * n, wide);
    args.c = want;
    args.ldc = n;
    terse_kernels_of(TERSE_ISA_SCALAR)->gemm_bf16(&args);
    args.ldc = ldc;
    for (int t = 0; tier(t); t++) {
        args.c = output(AREA_GOT, (m - 1) * ldc + n, wide);
        tier(t)->gemm_bf16(&args);
        compare(tier(t), args.c, ldc, want, m, n, wide, k);
    }
}

static bool random_conv(terse_conv_bf16_args *args, bool depthwise)
{
    for (int axis = 0; axis < 3; axis++) {
        const bool used = axis > 0 || random_in(0, 4) == 0;
        args->in[axis] = used ? random_in(1, 12) : 1;
        args->kernel[axis] = used ? random_in(1, 5) : 1;
        args->stride[axis] = used ? random_in(1, 2) : 1;
        args->dilation[axis] = used ? random_in(1, 2) : 1;
        args->pad[axis] = used ? random_in(0, 2) : 0;
        const int64_t room = args->in[axis] + 2 * args->pad[axis] - (args->kernel[axis] - 1) * args->dilation[axis] - 1;
        if (room < 0)
            return false;
        args->out[axis] = room / args->stride[axis] + 1;
    }
    args->n = random_in(1, 2);
    args->channels = depthwise ? random_in(1, 70) : 2 * random_in(1, 40);
    args->filters = depthwise ? args->channels : random_in(1, 50);
    args->in_stride = args->channels + 2 * random_in(0, 5);
    args->residual_stride = args->filters + random_in(0, 5);
    args->wide = !depthwise && random_in(0, 1);
    args->activation = mild_activation();
    return true;
}

static void conv_case(bool depthwise)
{
    terse_conv_bf16_args args = {0};
    while (!random_conv(&args, depthwise))
        ;
    const int64_t pixels = args.n * args.in[0] * args.in[1] * args.in[2];
    const int64_t outs = args.n * args.out[0] * args.out[1] * args.out[2], filters = args.filters;
    const int64_t positions = args.kernel[0] * args.kernel[1] * args.kernel[2], wide_filters = (filters + 15) / 16 * 16;
    const int64_t out_stride = filters + random_in(0, 5), k = positions * args.channels;
    uint16_t *input = guarded_half(AREA_A, (pixels - 1) * args.in_stride + args.channels);
    fill_half(input, (pixels - 1) * args.in_stride + args.channels);
    if (depthwise) {
        float *weights = guarded(AREA_B, positions * wide_filters);
        fill(weights, positions * wide_filters, 0);
        args.weights = weights;
    } else {
        uint16_t *weights = guarded_half(AREA_B, wide_filters * k);
        fill_half(weights, wide_filters * k);
        args.weights = weights;
    }
    float *bias = guarded(AREA_BIAS, filters);
    fill(bias, filters, 0);
    void *residual = output(AREA_RESIDUAL, (outs - 1) * args.residual_stride + filters, args.wide);
    if (args.wide)
        fill(residual, (outs - 1) * args.residual_stride + filters, 0);
    else
        fill_half(residual, (outs - 1) * args.residual_stride + filters);
    args.input = input;
    args.bias = random_in(0, 1) ? bias : NULL;
    args.residual = random_in(0, 1) ? residual : NULL;
    snprintf(case_text, sizeof case_text, "conv C %d F %d in %d,%d,%d k %d,%d,%d wide %d", (int)args.channels,
             (int)filters, (int)args.in[0], (int)args.in[1], (int)args.in[2], (int)args.kernel[0], (int)args.kernel[1],
             (int)args.kernel[2], args.wide);
    void *want = output(AREA_WANT, outs * filters, args.wide);
    args.output = want;
    args.out_stride = filters;
    const terse_kernels *scalar = terse_kernels_of(TERSE_ISA_SCALAR);
    (depthwise ? scalar->dwconv_bf16 : scalar->conv_bf16)(&args);
    args.out_stride = out_stride;
    for (int t = 0; tier(t); t++) {
        args.output = output(AREA_GOT, (outs - 1) * out_stride + filters, args.wide);
        if (!depthwise)
            args.scratch = guarded_scratch(AREA_SCRATCH, tier(t)->conv_bf16_scratch(&args));
        (depthwise ? tier(t)->dwconv_bf16 : tier(t)->conv_bf16)(&args);
        compare(tier(t), args.output, out_stride, want, outs, filters, args.wide, k);
    }
}

static void rows_case(void)
{
    const int64_t rows = random_in(1, 40), n = random_in(1, 40), even = n + n % 2;
    const int64_t stride = n + (random_in(0, 1) ? random_in(1, 5) : 0), count = (rows - 1) * stride + n;
    float *x = guarded(AREA_A, count);
    fill(x, count, 8);
    x[random_in(0, (int)count - 1)] = NAN;
    uint16_t *want = guarded_half(AREA_WANT, rows * even);
    terse_kernels_of(TERSE_ISA_SCALAR)->f32_rows_to_bf16(x, stride, rows, n, want);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < even; i++)
            if (want[r * even + i] != (i < n ? bf16_from(x[r * stride + i]) : 0))
                case_error("scalar rows %d of %d: row %d column %d differs", (int)rows, (int)n, (int)r, (int)i);
    for (int t = 0; tier(t); t++) {
        uint16_t *got = guarded_half(AREA_GOT, rows * even);
        tier(t)->f32_rows_to_bf16(x, stride, rows, n, got);
        if (memcmp(got, want, (size_t)(rows * even) * sizeof *got) != 0 || got[-1] != 0xc3c3)
            case_error("%s makes other rows: %d of %d, stride %d", tier(t)->name, (int)rows, (int)n, (int)stride);
    }
}

/* Every float that is near a tie, and every BF16. */
static void conversion_tests(void)
{
    enum { N = 3 * 65536 + 5 };
    float *x = guarded(AREA_A, N), *back = guarded(AREA_WANT, N);
    for (int64_t i = 0; i < N; i++)
        x[i] = from_bits((uint32_t)(i / 3) << 16 | (i % 3 == 0 ? 0x8000u : i % 3 == 1 ? 0x7fffu : 0x8001u));
    for (int t = 0; tier(t); t++) {
        uint16_t *half = guarded_half(AREA_GOT, N);
        tier(t)->f32_to_bf16(x, half, N);
        tier(t)->bf16_to_f32(half, back, N);
        for (int64_t i = 0; i < N; i++) {
            const double error = fabs((double)back[i] - (double)x[i]);
            const bool nan = isnan(x[i]) && isnan(back[i]), large = isinf(back[i]) && fabsf(x[i]) > 3.38e38f;
            if (half[i] != bf16_from(x[i]) || (!nan && !large && error > fabs((double)x[i]) / 256 + 1e-38))
                case_error("%s makes %04x of %08x", tier(t)->name, half[i], bits_of(x[i]));
        }
    }
    tap_case("conversion: to nearest, ties to even, NaN stays");
    for (int i = 0; i < 300; i++)
        rows_case();
    tap_case("conversion of rows: odd ones get a zero");
}

static void pool_case(bool average)
{
    terse_pool_f32_args args = {.n = random_in(1, 2), .channels = random_in(1, 140), .pad_end = {0, 1, 1}};
    for (int axis = 0; axis < 3; axis++) {
        args.in[axis] = axis ? random_in(3, 12) : 1;
        args.kernel[axis] = axis ? random_in(2, 3) : 1;
        args.stride[axis] = axis ? random_in(1, 2) : 1;
        args.dilation[axis] = 1;
        args.pad[axis] = axis ? random_in(0, 1) : 0;
        args.out[axis] = (args.in[axis] + args.pad[axis] - args.kernel[axis]) / args.stride[axis] + 1;
    }
    args.in_stride = args.channels + random_in(0, 5);
    const int64_t pixels = args.n * args.in[1] * args.in[2], outs = args.n * args.out[1] * args.out[2];
    const int64_t out_stride = args.channels + random_in(0, 5);
    uint16_t *input = guarded_half(AREA_A, (pixels - 1) * args.in_stride + args.channels);
    fill_half(input, (pixels - 1) * args.in_stride + args.channels);
    const int64_t count = (pixels - 1) * args.in_stride + args.channels;
    for (int64_t i = 0, zeros = random_in(0, 3) == 0 ? count : 0; i < zeros; i++) /* which zero is the larger? */
        input[i] = random_in(0, 1) ? 0 : 0x8000;
    for (int64_t i = random_in(0, 3); i > 0; i--) /* another NaN each: the first one stays */
        input[random_in(0, count - 1)] = (uint16_t)(random_in(0, 1) * 0x8000 + 0x7f81 + i);
    args.input = (const float *)(const void *)input;
    uint16_t *want = guarded_half(AREA_WANT, outs * args.channels);
    args.output = (float *)(void *)want;
    args.out_stride = args.channels;
    const terse_kernels *scalar = terse_kernels_of(TERSE_ISA_SCALAR);
    (average ? scalar->average_pool_bf16 : scalar->max_pool_bf16)(&args);
    snprintf(case_text, sizeof case_text, "pool C %d", (int)args.channels);
    for (int t = 0; tier(t); t++) {
        uint16_t *got = guarded_half(AREA_GOT, (outs - 1) * out_stride + args.channels);
        args.output = (float *)(void *)got;
        args.out_stride = out_stride;
        (average ? tier(t)->average_pool_bf16 : tier(t)->max_pool_bf16)(&args);
        for (int64_t r = 0; r < outs; r++)
            if (memcmp(got + r * out_stride, want + r * args.channels, (size_t)args.channels * sizeof *got) != 0)
                case_error("%s row %" PRId64 " differs", tier(t)->name, r);
    }
}

static void tests(void)
{
    conversion_tests();
    for (int64_t m = 1; m <= 33; m++)
        for (int i = 0; i < 6; i++)
            gemm_case(m, random_in(1, 100), 2 * random_in(1, 60));
    tap_case("gemm: rows 1 to 33");
    for (int i = 0; i < 150; i++)
        conv_case(false);
    tap_case("conv: any window, even channels");
    for (int i = 0; i < 100; i++)
        conv_case(true);
    tap_case("depthwise: any window");
    for (int i = 0; i < 60; i++)
        pool_case(i % 2);
    tap_case("pools");
}

static void bench(void)
{
    for (int t = 0; tier(t); t++) {
        enum { M = 64, N = 1024, K = 1024 };
        uint16_t *a = guarded_half(AREA_A, M * K), *b = guarded_half(AREA_B, N * K);
        fill_half(a, M * K);
        fill_half(b, N * K);
        const terse_gemm_bf16_args args = {
            .m = M, .n = N, .k = K, .a = a, .lda = K, .b = b, .c = guarded_half(AREA_GOT, M * N), .ldc = N};
        double best;
        BEST_OF(0.05, best, tier(t)->gemm_bf16(&args));
        printf("%-10s gemm_bf16 %d x %d x %d %9.1f us %7.1f GFLOP/s\n", tier(t)->name, M, N, K, best * 1e6,
               2e-9 * M * N * K / best);
    }
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
