/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels on bytes that are no dense product: every tier gives the scalar tier's bytes, ties of the rounding included.
 */
#include "requantize.h"

/* The sizes that a convolution and a pool have alike. */
typedef struct window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
} window;

static bool random_window(window *w, bool ceil_mode)
{
    const int rank = random_in(0, 3) ? 2 : (int)random_in(1, 3);
    const bool common = random_in(0, 2) > 0;
    const int64_t kernel = random_in(0, 1) ? 3 : 5, stride = random_in(1, 2);
    for (int axis = 0; axis < 3; axis++) {
        const bool used = axis >= 3 - rank;
        w->in[axis] = used ? random_in(1, rank == 3 ? 6 : 24) : 1;
        w->kernel[axis] = used ? (common ? kernel : random_in(1, 9)) : 1;
        w->stride[axis] = used ? (common ? stride : random_in(1, 3)) : 1;
        w->dilation[axis] = used && random_in(0, 3) == 0 ? random_in(1, 3) : 1;
        w->pad[axis] = used && random_in(0, 3) ? random_in(0, w->kernel[axis]) : 0;
        w->pad_end[axis] = used && random_in(0, 3) ? random_in(0, w->kernel[axis]) : 0;
        const int64_t room =
            w->in[axis] + w->pad[axis] + w->pad_end[axis] - (w->kernel[axis] - 1) * w->dilation[axis] - 1;
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

static int window_text(const window *w, const char *name, int64_t n, int64_t channels)
{
    return snprintf(case_text, sizeof case_text,
                    "%s n %d C %d in %d,%d,%d out %d,%d,%d k %d,%d,%d s %d,%d,%d d %d,%d,%d p %d,%d,%d", name, (int)n,
                    (int)channels, (int)w->in[0], (int)w->in[1], (int)w->in[2], (int)w->out[0], (int)w->out[1],
                    (int)w->out[2], (int)w->kernel[0], (int)w->kernel[1], (int)w->kernel[2], (int)w->stride[0],
                    (int)w->stride[1], (int)w->stride[2], (int)w->dilation[0], (int)w->dilation[1], (int)w->dilation[2],
                    (int)w->pad[0], (int)w->pad[1], (int)w->pad[2]);
}

static int64_t random_channels(void)
{
    return random_in(0, 2) ? random_in(1, 150) : 16 * random_in(1, 10);
}

static uint8_t *random_bytes(int area, int64_t n, int kind)
{
    uint8_t *p = guarded_bytes(area, n);
    for (int64_t i = 0; i < n; i++)
        p[i] = random_u8(kind);
    return p;
}

/* --- depthwise ----------------------------------------------------------------------------------------------- */

static terse_conv_u8s8_args dw;

static void dw_run(const terse_kernels *kernels, terse_requantize *to, void *output, int64_t stride)
{
    dw.requantize = *to;
    dw.output = output;
    dw.out_stride = stride;
    dw.scratch = guarded_scratch(AREA_SCRATCH, kernels->dwconv_u8s8_scratch(&dw));
    kernels->dwconv_u8s8(&dw);
}

static void dw_case(const window *w, int kind)
{
    const int64_t n = random_in(1, 2), channels = random_channels(), taps = volume(w->kernel);
    const int64_t in_stride = channels + random_in(0, 1) * random_in(0, 20);
    const int64_t weight_bytes = (channels + 15) / 16 * w->kernel[0] * w->kernel[2] * ((w->kernel[1] + 3) / 4) * 64;
    dw = (terse_conv_u8s8_args){.n = n,
                                .channels = channels,
                                .filters = channels,
                                .groups = channels,
                                .in_stride = in_stride,
                                .x_zero_point = random_u8(kind)};
    memcpy(dw.in, w->in, sizeof dw.in);
    memcpy(dw.out, w->out, sizeof dw.out);
    memcpy(dw.kernel, w->kernel, sizeof dw.kernel);
    memcpy(dw.stride, w->stride, sizeof dw.stride);
    memcpy(dw.dilation, w->dilation, sizeof dw.dilation);
    memcpy(dw.pad, w->pad, sizeof dw.pad);
    dw.input = random_bytes(AREA_A, (n * volume(w->in) - 1) * in_stride + channels, kind);
    int8_t *weights = (int8_t *)guarded_bytes(AREA_B, weight_bytes);
    for (int64_t i = 0; i < weight_bytes; i++) { /* rows behind the kernel's are zero, as the layout says */
        const int64_t high = (w->kernel[1] + 3) / 4, row = i / 64 % high * 4 + i % 4;
        weights[i] = row < w->kernel[1] ? random_s8(kind) : (int8_t)0;
    }
    dw.weights = weights;
    terse_requantize to = random_requantize(kind, channels, taps);
    random_residual(&to, n * volume(w->out), channels);
    describe(&to, window_text(w, "depthwise", n, channels));
    each_tier(dw_run, &to, n * volume(w->out), channels);
}

static void depthwise(int kind)
{
    for (int i = 0; i < 400;) {
        window w;
        if (!random_window(&w, false))
            continue;
        dw_case(&w, kind);
        i++;
    }
}

/* --- pools --------------------------------------------------------------------------------------------------- */

static void pool_case(const window *w, bool average)
{
    const int64_t n = random_in(1, 2), channels = random_channels(), pixels = n * volume(w->out);
    terse_pool_u8_args args = {.n = n,
                               .channels = channels,
                               .count_include_pad = (int)random_in(0, 1),
                               .in_stride = channels + random_in(0, 1) * random_in(0, 20),
                               .out_stride = channels,
                               .x_zero_point = random_u8(ANY),
                               .y_zero_point = random_u8(ANY),
                               .scale = random_in(0, 1) ? 1.0 : 0.05 + fabs((double)random_float()) * 2.0};
    memcpy(args.in, w->in, sizeof args.in);
    memcpy(args.out, w->out, sizeof args.out);
    memcpy(args.kernel, w->kernel, sizeof args.kernel);
    memcpy(args.stride, w->stride, sizeof args.stride);
    memcpy(args.dilation, w->dilation, sizeof args.dilation);
    memcpy(args.pad, w->pad, sizeof args.pad);
    memcpy(args.pad_end, w->pad_end, sizeof args.pad_end);
    args.input = random_bytes(AREA_A, (n * volume(w->in) - 1) * args.in_stride + channels, ANY);
    args.output = guarded_bytes(AREA_WANT, pixels * channels);
    uint8_t *want = args.output;
    window_text(w, average ? "average" : "maximum", n, channels);
    const terse_kernels *scalar = terse_kernels_of(TERSE_ISA_SCALAR);
    average ? scalar->average_pool_u8(&args) : scalar->max_pool_u8(&args);
    args.out_stride = channels + random_in(0, 20);
    for (int t = 0; tier(t); t++) {
        args.output = guarded_bytes(AREA_GOT, (pixels - 1) * args.out_stride + channels);
        average ? tier(t)->average_pool_u8(&args) : tier(t)->max_pool_u8(&args);
        expect_bytes(tier(t)->name, args.output, pixels, channels, args.out_stride, want, 1);
    }
}

static void pools(bool average)
{
    for (int i = 0; i < 300;) {
        window w;
        if (!random_window(&w, true))
            continue;
        pool_case(&w, average);
        i++;
    }
}

/* --- element by element --------------------------------------------------------------------------------------- */

static double random_scale(int kind)
{
    if (kind == TIES)
        return ldexp((double)(2 * random_in(0, 2) + 1), (int)random_in(-8, 1));
    if (kind == EXTREMES)
        return ldexp(1.0, (int)random_in(-40, 40)) * (random_in(0, 1) ? 1.0 : -1.1);
    return 0.01 + fabs((double)random_float()) * 2.0;
}

static void binary_case(bool add, int kind)
{
    const int64_t n = random_in(1, 300);
    terse_binary_u8_args args = {.n = n,
                                 .stride_a = random_in(0, 4) > 0,
                                 .stride_b = random_in(0, 4) > 0,
                                 .a_zero_point = random_u8(kind),
                                 .b_zero_point = random_u8(kind),
                                 .a_scale = random_scale(kind) / (add ? 1.0 : 60.0),
                                 .b_scale = random_scale(kind),
                                 .zero_point = random_u8(kind),
                                 .high = 255};
    if (random_in(0, 2) == 0) {
        args.low = (int32_t)random_in(0, 255);
        args.high = (int32_t)random_in(args.low, 255);
    }
    args.a = random_bytes(AREA_A, args.stride_a ? n : 1, kind);
    args.b = random_bytes(AREA_B, args.stride_b ? n : 1, kind);
    args.y = guarded_bytes(AREA_WANT, n);
    snprintf(case_text, sizeof case_text, "%s n %d strides %d %d zero %d %d %d scales %.17g %.17g range %d..%d",
             add ? "add" : "mul", (int)n, (int)args.stride_a, (int)args.stride_b, args.a_zero_point, args.b_zero_point,
             args.zero_point, args.a_scale, args.b_scale, args.low, args.high);
    const terse_kernels *scalar = terse_kernels_of(TERSE_ISA_SCALAR);
    add ? scalar->add_u8(&args) : scalar->mul_u8(&args);
    const uint8_t *want = args.y, *a = args.a;
    const bool in_place = args.stride_a == 1 && random_in(0, 3) == 0;
    for (int t = 0; tier(t); t++) {
        args.y = guarded_bytes(AREA_GOT, n);
        args.a = a;
        if (in_place) {
            memcpy(args.y, a, (size_t)n);
            args.a = args.y;
        }
        add ? tier(t)->add_u8(&args) : tier(t)->mul_u8(&args);
        expect_bytes(tier(t)->name, args.y, 1, n, n, want, 1);
    }
}

static void binary(bool add)
{
    for (int i = 0; i < 3000; i++)
        binary_case(add, i % 3);
}

static void table(void)
{
    for (int i = 0; i < 300; i++) {
        const int64_t n = random_in(1, 300);
        uint8_t *x = random_bytes(AREA_A, n, ANY), *entries = random_bytes(AREA_B, 256, ANY);
        uint8_t *want = guarded_bytes(AREA_WANT, n);
        snprintf(case_text, sizeof case_text, "table n %d", (int)n);
        terse_kernels_of(TERSE_ISA_SCALAR)->table_u8(x, entries, want, n);
        for (int t = 0; tier(t); t++) {
            uint8_t *got = guarded_bytes(AREA_GOT, n);
            tier(t)->table_u8(x, entries, got, n);
            expect_bytes(tier(t)->name, got, 1, n, n, want, 1);
        }
    }
}

/* Any float, and numbers next to ties: (k + 1/2) * scale and its neighbours. */
static float random_to_quantize(float scale)
{
    if (random_in(0, 3) == 0)
        return random_extreme();
    const float tie = ((float)random_in(-300, 300) + 0.5f) * scale;
    const int64_t off = random_in(-2, 2);
    return off == 0 ? tie : nextafterf(tie, off < 0 ? -INFINITY : INFINITY);
}

static void quantize(void)
{
    for (int i = 0; i < 2000; i++) {
        const int64_t n = random_in(1, 300);
        const float scale = random_in(0, 1) ? ldexpf(1.0f, (int)random_in(-20, 10)) : 0.001f + fabsf(random_float());
        const int32_t zero_point = random_u8(EXTREMES);
        float *x = guarded(AREA_A, n), *back = guarded(AREA_COLUMNS, n);
        for (int64_t j = 0; j < n; j++)
            x[j] = random_to_quantize(scale);
        uint8_t *want = guarded_bytes(AREA_WANT, n);
        snprintf(case_text, sizeof case_text, "quantize n %d scale %.9g zero %d", (int)n, (double)scale, zero_point);
        terse_kernels_of(TERSE_ISA_SCALAR)->quantize_u8(x, scale, zero_point, want, n);
        terse_kernels_of(TERSE_ISA_SCALAR)->dequantize_u8(want, scale, zero_point, back, n);
        for (int t = 0; tier(t); t++) {
            uint8_t *got = guarded_bytes(AREA_GOT, n);
            tier(t)->quantize_u8(x, scale, zero_point, got, n);
            expect_bytes(tier(t)->name, got, 1, n, n, want, 1);
            float *floats = guarded(AREA_GOT, n);
            tier(t)->dequantize_u8(want, scale, zero_point, floats, n);
            expect_rows(tier(t)->name, floats, 1, n, n, back, n);
        }
    }
}

static void transpose(void)
{
    for (int i = 0; i < 1500; i++) {
        const int64_t rows = random_in(0, 2) ? random_in(1, 40) : 3, wide = random_in(1, 100);
        const int64_t src_stride = wide + random_in(0, 1) * random_in(0, 9);
        const int64_t stride = rows + random_in(0, 1) * random_in(0, 9);
        uint8_t *src = random_bytes(AREA_A, (rows - 1) * src_stride + wide, ANY);
        uint8_t *want = guarded_bytes(AREA_WANT, rows * wide);
        snprintf(case_text, sizeof case_text, "transpose %d x %d", (int)rows, (int)wide);
        terse_kernels_of(TERSE_ISA_SCALAR)->transpose_8(src, src_stride, want, rows, rows, wide);
        for (int t = 0; tier(t); t++) {
            uint8_t *got = guarded_bytes(AREA_GOT, (wide - 1) * stride + rows);
            tier(t)->transpose_8(src, src_stride, got, stride, rows, wide);
            expect_bytes(tier(t)->name, got, wide, rows, stride, want, 1);
        }
    }
}

/* By hand: 2.5, 3.5 and -0.5 go to the even numbers. */
static void ties_go_to_the_even(void)
{
    const uint8_t a[3] = {5, 7, 0}, b[3] = {0, 0, 1};
    uint8_t y[3];
    terse_binary_u8_args args = {3, a, b, 1, 1, 0, 0, 0.5, -0.5, y, 10, 0, 255};
    bool good = true;
    for (int t = -1; t < 0 || tier(t); t++) {
        (t < 0 ? terse_kernels_of(TERSE_ISA_SCALAR) : tier(t))->add_u8(&args);
        good = good && y[0] == 12 && y[1] == 14 && y[2] == 10;
    }
    tap(good, "2.5, 3.5 and -0.5 are rounded to 2, 4 and 0");
}

static void tests(void)
{
    ties_go_to_the_even();
    depthwise(ANY);
    tap_case("depthwise convolutions of any window");
    depthwise(EXTREMES);
    tap_case("depthwise convolutions of the largest numbers");
    depthwise(TIES);
    tap_case("depthwise convolutions whose results are ties");
    pools(false);
    tap_case("maximum pools");
    pools(true);
    tap_case("average pools");
    binary(true);
    tap_case("additions");
    binary(false);
    tap_case("products");
    table();
    tap_case("tables");
    quantize();
    tap_case("quantization of any float and of ties, and back");
    transpose();
    tap_case("transpositions");
}

/* --- bench ----------------------------------------------------------------------------------------------------- */

typedef struct shape {
    int64_t size, channels, kernel, stride, times;
} shape;

static double dw_bench(const terse_kernels *kernels, const shape *s)
{
    const int64_t out = (s->size + s->stride - 1) / s->stride, pad = s->kernel / 2;
    float *numbers = timed(AREA_COLUMNS, 2 * s->channels);
    for (int64_t i = 0; i < 2 * s->channels; i++)
        numbers[i] = i < s->channels ? 0.004f + 0.001f * random_float() : 0.0f;
    dw = (terse_conv_u8s8_args){.n = 1,
                                .channels = s->channels,
                                .filters = s->channels,
                                .groups = s->channels,
                                .in = {1, s->size, s->size},
                                .out = {1, out, out},
                                .kernel = {1, s->kernel, s->kernel},
                                .stride = {1, s->stride, s->stride},
                                .dilation = {1, 1, 1},
                                .pad = {0, pad, pad},
                                .in_stride = s->channels,
                                .out_stride = s->channels};
    const int64_t pixels = s->size * s->size;
    uint8_t *input = (uint8_t *)timed(AREA_A, (pixels * s->channels + 3) / 4);
    for (int64_t i = 0; i < pixels * s->channels; i++)
        input[i] = random_u8(ANY);
    const int64_t weight_bytes = (s->channels + 15) / 16 * s->kernel * ((s->kernel + 3) / 4) * 64;
    int8_t *weights = (int8_t *)timed(AREA_B, weight_bytes / 4);
    for (int64_t i = 0; i < weight_bytes; i++)
        weights[i] = i / 64 % ((s->kernel + 3) / 4) * 4 + i % 4 < s->kernel ? random_s8(ANY) : (int8_t)0;
    dw.input = input;
    dw.weights = weights;
    dw.requantize = (terse_requantize){
        .multiplier = numbers, .multiplier_low = numbers + s->channels, .zero_point = 100, .high = 255};
    dw.output = timed(AREA_GOT, out * out * s->channels / 4 + 1);
    dw.scratch = guarded_scratch(AREA_SCRATCH, kernels->dwconv_u8s8_scratch(&dw) + 4096);
    double best;
    BEST_OF(0.03, best, kernels->dwconv_u8s8(&dw));
    printf("%-10s depthwise %4d px %4d channels k%d s%d %9.2f us %7.1f GOP/s\n", kernels->name, (int)s->size,
           (int)s->channels, (int)s->kernel, (int)s->stride, best * 1e6,
           2e-9 * (double)(out * out * s->channels * s->kernel * s->kernel) / best);
    return best * (double)s->times;
}

static void others_bench(const terse_kernels *kernels)
{
    enum { N = 802816 }; /* 56 x 56 x 256 */
    double best;
    uint8_t *a = (uint8_t *)timed(AREA_A, N / 4), *b = (uint8_t *)timed(AREA_B, N / 4);
    for (int64_t i = 0; i < N; i++) {
        a[i] = random_u8(ANY);
        b[i] = random_u8(ANY);
    }
    uint8_t *y = (uint8_t *)timed(AREA_GOT, N / 4);
    terse_binary_u8_args add = {N, a, b, 1, 1, 3, 120, 0.41, 0.73, y, 7, 0, 255};
    BEST_OF(0.05, best, kernels->add_u8(&add));
    printf("%-10s add of %d bytes %27.2f us %7.1f GB/s\n", kernels->name, N, best * 1e6, 3e-9 * N / best);
    terse_pool_u8_args pool = {.n = 1,
                               .channels = 64,
                               .in = {1, 112, 112},
                               .out = {1, 56, 56},
                               .kernel = {1, 3, 3},
                               .stride = {1, 2, 2},
                               .dilation = {1, 1, 1},
                               .pad = {0, 1, 1},
                               .input = a,
                               .in_stride = 64,
                               .output = y,
                               .out_stride = 64};
    BEST_OF(0.05, best, kernels->max_pool_u8(&pool));
    printf("%-10s maximum of 3x3, 112 px, 64 channels %11.2f us\n", kernels->name, best * 1e6);
    float *x = timed(AREA_WANT, 150528);
    fill(x, 150528, 0);
    BEST_OF(0.05, best, kernels->quantize_u8(x, 0.01f, 114, y, 150528));
    printf("%-10s quantize 3 x 224 x 224 %22.2f us\n", kernels->name, best * 1e6);
    BEST_OF(0.05, best, kernels->transpose_8(a, 50176, y, 3, 3, 50176));
    printf("%-10s transpose 3 x 50176 %25.2f us\n", kernels->name, best * 1e6);
    BEST_OF(0.05, best, kernels->transpose_8(a, 3136, y, 256, 256, 3136));
    printf("%-10s transpose 256 x 3136 %24.2f us\n", kernels->name, best * 1e6);
    BEST_OF(0.05, best, kernels->table_u8(a, b, y, N));
    printf("%-10s table of %d bytes %25.2f us\n", kernels->name, N, best * 1e6);
}

static void bench(void)
{
    static const shape mobilenetv2[] = {{112, 32, 3, 1, 1}, {112, 96, 3, 2, 1}, {56, 144, 3, 1, 1}, {56, 144, 3, 2, 1},
                                        {28, 192, 3, 1, 2}, {28, 192, 3, 2, 1}, {14, 384, 3, 1, 4}, {14, 576, 3, 1, 2},
                                        {14, 576, 3, 2, 1}, {7, 960, 3, 1, 3}};
    static const shape others[] = {{28, 240, 5, 1, 1}, {28, 240, 5, 2, 1}};
    for (int t = 0; tier(t); t++) {
        double total = 0.0;
        for (size_t i = 0; i < sizeof mobilenetv2 / sizeof *mobilenetv2; i++)
            total += dw_bench(tier(t), &mobilenetv2[i]);
        printf("%-10s MobileNetV2, depthwise: %.3f ms\n", tier(t)->name, total * 1e3);
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            dw_bench(tier(t), &others[i]);
        others_bench(tier(t));
    }
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
