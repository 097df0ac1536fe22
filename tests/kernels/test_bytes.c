/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels on bytes beside the products: depthwise convolution, pools, element by element, transposition. Every tier
 * gives the scalar tier's bytes, ties and what is no number included; the scalar tier gives what is written here. */
#include "requantize.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const terse_kernels *scalar(void)
{
    return terse_kernels_of(TERSE_ISA_SCALAR);
}

/* `count` random bytes that end at the forbidden page. */
static uint8_t *random_bytes(int area, int64_t count, int kind)
{
    uint8_t *p = guarded_bytes(area, count);
    for (int64_t i = 0; i < count; i++)
        p[i] = random_u8(kind);
    return p;
}

/* --- windows ------------------------------------------------------------------------------------------------------ */

/* The sizes that a convolution and a pool have alike. */
typedef struct window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
} window;

static int64_t volume(const int64_t size[3])
{
    return size[0] * size[1] * size[2];
}

static bool random_window(window *w, bool ceil_mode)
{
    const int rank = (int)random_in(1, 3);
    const bool common = random_in(0, 1);
    const int64_t kernel = random_in(0, 1) ? 3 : 5, stride = random_in(1, 2);
    for (int axis = 0; axis < 3; axis++) {
        const bool used = axis >= 3 - rank;
        w->in[axis] = used ? random_in(1, rank == 3 ? 6 : 24) : 1;
        w->kernel[axis] = used && !(rank == 3 && axis == 0 && common) ? (common ? kernel : random_in(1, 6)) : 1;
        w->stride[axis] = used ? (common ? stride : random_in(1, 3)) : 1;
        w->dilation[axis] = used && !common && random_in(0, 2) == 0 ? random_in(1, 3) : 1;
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

static int window_text(const window *w, const char *name, int64_t n, int64_t channels)
{
    return snprintf(case_text, sizeof case_text,
                    "%s n %d C %d in %d,%d,%d out %d,%d,%d k %d,%d,%d s %d,%d,%d d %d,%d,%d p %d,%d,%d", name, (int)n,
                    (int)channels, (int)w->in[0], (int)w->in[1], (int)w->in[2], (int)w->out[0], (int)w->out[1],
                    (int)w->out[2], (int)w->kernel[0], (int)w->kernel[1], (int)w->kernel[2], (int)w->stride[0],
                    (int)w->stride[1], (int)w->stride[2], (int)w->dilation[0], (int)w->dilation[1], (int)w->dilation[2],
                    (int)w->pad[0], (int)w->pad[1], (int)w->pad[2]);
}

static terse_conv_u8s8_args conv;

static void dwconv_run(const terse_kernels *kernels, terse_requantize *to, void *output, int64_t stride)
{
    conv.requantize = *to;
    conv.output = output;
    conv.out_stride = stride;
    conv.scratch = guarded_scratch(AREA_SCRATCH, kernels->dwconv_u8s8_scratch(&conv));
    kernels->dwconv_u8s8(&conv);
}

static int64_t depthwise_bytes(const window *w, int64_t channels)
{
    return (channels + 15) / 16 * 64 * w->kernel[0] * w->kernel[2] * ((w->kernel[1] + 3) / 4);
}

/* [C/16][z][x][y/4][16][4]; what fills up channels and fours is zero. */
static void random_depthwise(const window *w, int64_t channels, int kind, int8_t *weights)
{
    const int64_t fours = (w->kernel[1] + 3) / 4, positions = w->kernel[0] * w->kernel[2] * fours;
    for (int64_t i = 0; i < depthwise_bytes(w, channels); i++) {
        const int64_t channel = i / 64 / positions * 16 + i % 64 / 4, y = i / 64 % fours * 4 + i % 4;
        weights[i] = channel < channels && y < w->kernel[1] ? random_s8(kind) : (int8_t)0;
    }
}

static void dwconv_args(const window *w, int64_t n, int64_t channels)
{
    conv = (terse_conv_u8s8_args){.n = n, .channels = channels, .filters = channels, .groups = channels};
    memcpy(conv.in, w->in, sizeof conv.in);
    memcpy(conv.out, w->out, sizeof conv.out);
    memcpy(conv.kernel, w->kernel, sizeof conv.kernel);
    memcpy(conv.stride, w->stride, sizeof conv.stride);
    memcpy(conv.dilation, w->dilation, sizeof conv.dilation);
    memcpy(conv.pad, w->pad, sizeof conv.pad);
}

static void dwconv_case(int kind)
{
    window w;
    while (!random_window(&w, false))
        ;
    const int64_t n = random_in(1, 2), channels = random_in(0, 3) ? random_in(1, 150) : 16 * random_in(1, 9);
    dwconv_args(&w, n, channels);
    conv.x_zero_point = (uint8_t)(random_in(0, 3) ? random_in(0, 255) : 255 * random_in(0, 1));
    conv.in_stride = channels + random_in(0, 1) * random_in(0, 20);
    conv.input = random_bytes(AREA_A, (n * volume(w.in) - 1) * conv.in_stride + channels, kind);
    int8_t *weights = (int8_t *)guarded_bytes(AREA_B, depthwise_bytes(&w, channels));
    random_depthwise(&w, channels, kind, weights);
    conv.weights = weights;
    terse_requantize to = random_requantize(kind, channels, volume(w.kernel));
    random_residual(&to, n * volume(w.out), channels);
    describe(&to, window_text(&w, "dwconv", n, channels));
    each_tier(dwconv_run, &to, n * volume(w.out), channels);
}

typedef void pool_function(const terse_pool_u8_args *args);

static pool_function *pool_of(const terse_kernels *kernels, bool average)
{
    return average ? kernels->average_pool_u8 : kernels->max_pool_u8;
}

static void pool_case(bool average, int kind)
{
    window w;
    while (!random_window(&w, random_in(0, 1)))
        ;
    if (random_in(0, 4) == 0) /* global */
        for (int axis = 0; axis < 3; axis++) {
            w.kernel[axis] = w.in[axis];
            w.out[axis] = w.stride[axis] = w.dilation[axis] = 1;
            w.pad[axis] = w.pad_end[axis] = 0;
        }
    const int64_t n = random_in(1, 2), channels = random_in(0, 3) ? random_in(1, 300) : 32 * random_in(1, 9);
    const int64_t rows = n * volume(w.out), stride = channels + random_in(0, 1) * random_in(0, 20);
    terse_pool_u8_args args = {.n = n, .channels = channels, .count_include_pad = (int)random_in(0, 1)};
    memcpy(args.in, w.in, sizeof args.in);
    memcpy(args.out, w.out, sizeof args.out);
    memcpy(args.kernel, w.kernel, sizeof args.kernel);
    memcpy(args.stride, w.stride, sizeof args.stride);
    memcpy(args.dilation, w.dilation, sizeof args.dilation);
    memcpy(args.pad, w.pad, sizeof args.pad);
    memcpy(args.pad_end, w.pad_end, sizeof args.pad_end);
    args.x_zero_point = (int32_t)random_in(0, 255);
    args.y_zero_point = (int32_t)random_in(0, 255);
    args.scale = kind == TIES ? ldexp(1.0, (int)random_in(-2, 2)) : 0.05 + fabs((double)random_float()) * 3.0;
    if (kind == EXTREMES && random_in(0, 3) == 0)
        args.scale = random_in(0, 1) ? 1e200 : 1e-200;
    args.in_stride = channels + random_in(0, 1) * random_in(0, 20);
    args.input = random_bytes(AREA_A, (n * volume(w.in) - 1) * args.in_stride + channels, kind);
    uint8_t *want = guarded_bytes(AREA_WANT, rows * channels);
    args.output = want;
    args.out_stride = channels;
    window_text(&w, average ? "average" : "max", n, channels);
    pool_of(scalar(), average)(&args);
    for (int t = 0; tier(t); t++) {
        args.output = guarded_bytes(AREA_GOT, (rows - 1) * stride + channels);
        args.out_stride = stride;
        pool_of(tier(t), average)(&args);
        expect_bytes(tier(t)->name, args.output, rows, channels, stride, want, 1);
    }
}

static void window_tests(void)
{
    for (int i = 0; i < 500; i++)
        dwconv_case(ANY);
    tap_case("dwconv: 1-D to 3-D, strides, dilations, pads, zero points, strided pixels");
    for (int i = 0; i < 200; i++)
        dwconv_case(i % 2 ? EXTREMES : TIES);
    tap_case("dwconv: extremes and ties");
    for (int i = 0; i < 300; i++)
        pool_case(false, ANY);
    tap_case("max pool");
    for (int i = 0; i < 300; i++)
        pool_case(true, i % 3);
    tap_case("average pool, ties and extremes included");
}

/* --- element by element ------------------------------------------------------------------------------------------- */

/* Sizes around multiples of the vectors, small ones more often. */
static int64_t random_size(void)
{
    return random_in(0, 2) ? random_in(0, 80) : 16 * random_in(0, 20) + random_in(-1, 1) * (random_in(0, 1));
}

static double random_scale(int kind)
{
    if (kind == TIES)
        return ldexp((double)random_in(1, 3), (int)random_in(-4, 0));
    if (kind == EXTREMES && random_in(0, 2) == 0)
        return random_in(0, 1) ? 1e250 : 1e-250;
    return 0.01 + 2.0 * fabs((double)random_float());
}

static void binary_case(bool product, int kind)
{
    const int64_t size = random_size(), n = size < 0 ? 0 : size;
    terse_binary_u8_args args = {.n = n, .high = 255};
    args.stride_a = random_in(0, 5) != 0;
    args.stride_b = random_in(0, 5) != 0;
    args.a = random_bytes(AREA_A, args.stride_a ? n : 1, kind);
    args.b = random_bytes(AREA_B, args.stride_b ? n : 1, kind);
    args.a_zero_point = (int32_t)random_in(0, 255);
    args.b_zero_point = (int32_t)random_in(0, 255);
    args.a_scale = random_scale(kind) * (product ? 0.02 : 1.0);
    args.b_scale = random_scale(kind);
    if (product && kind == TIES)
        args.a_scale = ldexp(1.0, (int)random_in(-8, -1));
    args.zero_point = (int32_t)random_in(0, 255);
    if (random_in(0, 1)) {
        args.low = (int32_t)random_in(0, 255);
        args.high = (int32_t)random_in(args.low, 255);
    }
    const int in_place = (int)random_in(0, 3); /* 1: y is a, 2: y is b */
    uint8_t *want = guarded_bytes(AREA_WANT, n);
    args.y = want;
    (product ? scalar()->mul_u8 : scalar()->add_u8)(&args);
    snprintf(case_text, sizeof case_text, "%s n %d strides %d %d scales %g %g zero points %d %d %d",
             product ? "mul" : "add", (int)n, (int)args.stride_a, (int)args.stride_b, args.a_scale, args.b_scale,
             args.a_zero_point, args.b_zero_point, args.zero_point);
    for (int t = 0; tier(t); t++) {
        terse_binary_u8_args own = args;
        uint8_t *got = guarded_bytes(AREA_GOT, n);
        own.y = got;
        if (in_place == 1 && args.stride_a) {
            memcpy(got, args.a, (size_t)n);
            own.a = got;
        } else if (in_place == 2 && args.stride_b) {
            memcpy(got, args.b, (size_t)n);
            own.b = got;
        }
        (product ? tier(t)->mul_u8 : tier(t)->add_u8)(&own);
        expect_bytes(tier(t)->name, got, 1, n, n, want, 1);
    }
}

static void table_case(void)
{
    const int64_t size = random_size(), n = size < 0 ? 0 : size;
    const uint8_t *x = random_bytes(AREA_A, n, ANY), *table = random_bytes(AREA_B, 256, ANY);
    uint8_t *want = guarded_bytes(AREA_WANT, n);
    scalar()->table_u8(x, table, want, n);
    snprintf(case_text, sizeof case_text, "table n %d", (int)n);
    for (int t = 0; tier(t); t++) {
        uint8_t *got = guarded_bytes(AREA_GOT, n);
        tier(t)->table_u8(x, table, got, n);
        expect_bytes(tier(t)->name, got, 1, n, n, want, 1);
    }
}

static void quantize_case(int kind)
{
    const int64_t size = random_size(), n = size < 0 ? 0 : size;
    float scale = (float)random_scale(ANY);
    if (kind == TIES)
        scale = ldexpf(1.0f, (int)random_in(-6, 6));
    if (kind == EXTREMES && random_in(0, 1))
        scale = fabsf(random_extreme());
    const int32_t zero_point = (int32_t)random_in(0, 255);
    float *x = guarded(AREA_A, n);
    fill(x, n, kind == EXTREMES ? 3 : 0);
    for (int64_t i = 0; i < n; i++)
        x[i] =
            kind == TIES ? (float)(random_in(-600, 600)) * 0.5f * scale : x[i] * (kind == ANY ? 300.0f * scale : 1.0f);
    uint8_t *want = guarded_bytes(AREA_WANT, n);
    scalar()->quantize_u8(x, scale, zero_point, want, n);
    snprintf(case_text, sizeof case_text, "quantize n %d scale %g zero point %d", (int)n, (double)scale, zero_point);
    for (int t = 0; tier(t); t++) {
        uint8_t *got = guarded_bytes(AREA_GOT, n);
        tier(t)->quantize_u8(x, scale, zero_point, got, n);
        expect_bytes(tier(t)->name, got, 1, n, n, want, 1);
    }
}

static void dequantize_case(void)
{
    const int64_t size = random_size(), n = size < 0 ? 0 : size;
    const uint8_t *x = random_bytes(AREA_A, n, ANY);
    const float scale = random_in(0, 5) ? random_float() : random_extreme();
    const int32_t zero_point = (int32_t)random_in(0, 255);
    float *want = guarded(AREA_WANT, n);
    scalar()->dequantize_u8(x, scale, zero_point, want, n);
    snprintf(case_text, sizeof case_text, "dequantize n %d scale %g zero point %d", (int)n, (double)scale, zero_point);
    for (int t = 0; tier(t); t++) {
        float *got = guarded(AREA_GOT, n);
        tier(t)->dequantize_u8(x, scale, zero_point, got, n);
        expect_rows(tier(t)->name, got, 1, n, n, want, n);
    }
}

/* Quantizing at the ends and at ties, by hand. */
static void quantize_definition(void)
{
    static const struct {
        float x, scale;
        int32_t zero_point;
        int want;
    } cases[] = {{0.5f, 1, 0, 0},       {1.5f, 1, 0, 2},         {2.5f, 1, 0, 2},   {2.5f, 1, 1, 3},
                 {-0.5f, 1, 10, 10},    {-1.5f, 1, 10, 8},       {NAN, 1, 77, 77},  {INFINITY, 1, 77, 255},
                 {-INFINITY, 1, 77, 0}, {3e38f, 1e-38f, 9, 255}, {0.1f, 0.2f, 0, 0}};
    for (int t = -1; t < 0 || tier(t); t++)
        for (size_t i = 0; i < COUNT(cases); i++)
            for (int64_t n = 1; n <= 130; n += 43) {
                const terse_kernels *kernels = t < 0 ? scalar() : tier(t);
                float *x = guarded(AREA_A, n);
                uint8_t *y = guarded_bytes(AREA_GOT, n);
                for (int64_t j = 0; j < n; j++)
                    x[j] = cases[i].x;
                kernels->quantize_u8(x, cases[i].scale, cases[i].zero_point, y, n);
                snprintf(case_text, sizeof case_text, "%g / %g", (double)cases[i].x, (double)cases[i].scale);
                for (int64_t j = 0; j < n; j++)
                    if (y[j] != cases[i].want)
                        case_error("%s gives %d, not %d", kernels->name, y[j], cases[i].want);
            }
    tap_case("quantize: ties to even before the zero point, infinities to the ends, NaN to the zero point");
}

static void element_tests(void)
{
    for (int i = 0; i < 1500; i++)
        binary_case(false, i % 3);
    tap_case("add");
    for (int i = 0; i < 1500; i++)
        binary_case(true, i % 3);
    tap_case("mul");
    for (int i = 0; i < 500; i++)
        table_case();
    tap_case("table");
    quantize_definition();
    for (int i = 0; i < 1500; i++)
        quantize_case(i % 3);
    tap_case("quantize");
    for (int i = 0; i < 500; i++)
        dequantize_case();
    tap_case("dequantize");
}

/* --- transpose ---------------------------------------------------------------------------------------------------- */

static void transpose_case(int64_t rows, int64_t width)
{
    const int64_t src_stride = width + random_in(0, 1) * random_in(0, 30);
    const int64_t dst_stride = rows + random_in(0, 1) * random_in(0, 30);
    const uint8_t *src = random_bytes(AREA_A, rows && width ? (rows - 1) * src_stride + width : 0, ANY);
    snprintf(case_text, sizeof case_text, "transpose %d x %d strides %d %d", (int)rows, (int)width, (int)src_stride,
             (int)dst_stride);
    uint8_t *want = guarded_bytes(AREA_WANT, rows * width);
    scalar()->transpose_8(src, src_stride, want, rows, rows, width);
    for (int t = 0; tier(t); t++) {
        uint8_t *got = guarded_bytes(AREA_GOT, rows && width ? (width - 1) * dst_stride + rows : 0);
        tier(t)->transpose_8(src, src_stride, got, dst_stride, rows, width);
        expect_bytes(tier(t)->name, got, rows ? width : 0, rows, dst_stride, want, 1);
    }
}

static void transpose_tests(void)
{
    for (int64_t rows = 0; rows <= 40; rows++)
        for (int64_t width = 0; width <= 140; width += random_in(1, 5))
            transpose_case(rows, width);
    for (int i = 0; i < 20; i++)
        transpose_case(random_in(1, 4), random_in(1, 3000));
    for (int i = 0; i < 20; i++)
        transpose_case(random_in(1, 3000), random_in(1, 4));
    tap_case("transpose");
}

static void tests(void)
{
    window_tests();
    element_tests();
    transpose_tests();
}

/* --- timing ------------------------------------------------------------------------------------------------------- */

/* The depthwise layers of MobileNetV2. */
static const struct {
    int size, channels, stride, times;
} mobilenet[] = {{112, 32, 1, 1}, {112, 96, 2, 1}, {56, 144, 1, 1}, {56, 144, 2, 1}, {28, 192, 1, 2},
                 {28, 192, 2, 1}, {14, 384, 1, 4}, {14, 576, 1, 2}, {14, 576, 2, 1}, {7, 960, 1, 3}};

static double dwconv_bench(const terse_kernels *kernels, int64_t size, int64_t channels, int64_t stride, int64_t kernel)
{
    const int64_t out = (size - 1) / stride + 1, pad = kernel / 2;
    window w = {
        {1, size, size}, {1, out, out}, {1, kernel, kernel}, {1, stride, stride}, {1, 1, 1}, {0, pad, pad}, {0}};
    dwconv_args(&w, 1, channels);
    uint8_t *input = timed_bytes(AREA_A, size * size * channels);
    int8_t *weights = timed_bytes(AREA_B, depthwise_bytes(&w, channels));
    for (int64_t i = 0; i < size * size * channels; i++)
        input[i] = random_u8(ANY);
    random_depthwise(&w, channels, ANY, weights);
    conv.in_stride = channels;
    conv.input = input;
    conv.weights = weights;
    terse_requantize to = plain_requantize(channels, kernel * kernel, false, 1);
    void *output = timed_bytes(AREA_GOT, out * out * channels);
    double best;
    BEST_OF(0.02, best, dwconv_run(kernels, &to, output, channels));
    printf("%-10s dwconv %dx%d stride %d, %3d x %3d x %4d: %8.2f us, %6.2f Gout/s\n", kernels->name, (int)kernel,
           (int)kernel, (int)stride, (int)size, (int)size, (int)channels, best * 1e6,
           1e-9 * (double)(out * out * channels) / best);
    return best;
}

static void pool_bench(const terse_kernels *kernels, bool average, int64_t size, int64_t channels, int64_t kernel,
                       int64_t stride)
{
    const int64_t out = (size - kernel) / stride + 1;
    terse_pool_u8_args args = {1,
                               channels,
                               {1, size, size},
                               {1, out, out},
                               {1, kernel, kernel},
                               {1, stride, stride},
                               {1, 1, 1},
                               .in_stride = channels,
                               .out_stride = channels,
                               .x_zero_point = 3,
                               .scale = 0.83};
    args.input = timed_bytes(AREA_A, size * size * channels);
    args.output = timed_bytes(AREA_GOT, out * out * channels);
    double best;
    BEST_OF(0.02, best, pool_of(kernels, average)(&args));
    printf("%-10s %s pool %d x %d x %d, kernel %d stride %d: %.2f us, %.1f GB/s\n", kernels->name,
           average ? "average" : "max", (int)size, (int)size, (int)channels, (int)kernel, (int)stride, best * 1e6,
           1e-9 * (double)(size * size * channels) / best);
}

static void element_bench(const terse_kernels *kernels)
{
    const int64_t n = 56 * 56 * 256;
    uint8_t *a = timed_bytes(AREA_A, n), *b = timed_bytes(AREA_B, n), *y = timed_bytes(AREA_GOT, n);
    float *x = timed(AREA_WANT, n);
    for (int64_t i = 0; i < n; i++) {
        a[i] = random_u8(ANY);
        b[i] = random_u8(ANY);
        x[i] = random_float() * 3.0f;
    }
    const terse_binary_u8_args add = {n, a, b, 1, 1, 117, 112, 0.8312357, 0.6127181, y, 3, 3, 255};
    const terse_binary_u8_args mul = {n, a, b, 1, 1, 117, 112, 0.008312357, 0.0, y, 3, 3, 255};
    double t[7];
    BEST_OF(0.02, t[0], kernels->add_u8(&add));
    BEST_OF(0.02, t[1], kernels->mul_u8(&mul));
    BEST_OF(0.02, t[2], kernels->table_u8(a, b, y, n));
    BEST_OF(0.02, t[3], kernels->quantize_u8(x, 0.0123f, 117, y, n));
    BEST_OF(0.02, t[4], kernels->dequantize_u8(a, 0.0123f, 117, x, n));
    BEST_OF(0.02, t[5], kernels->transpose_8(a, 3136, y, 256, 256, 3136));
    BEST_OF(0.02, t[6], kernels->transpose_8(a, 50176, y, 3, 3, 50176));
    static const char *const names[7] = {
        "add", "mul", "table", "quantize", "dequantize", "transpose 256 x 3136", "transpose 3 x 50176"};
    for (int i = 0; i < 7; i++) {
        const double bytes = (double)(i < 6 ? n : 3 * 50176);
        printf("%-10s %-20s %8.2f us, %6.2f G elements/s\n", kernels->name, names[i], t[i] * 1e6, 1e-9 * bytes / t[i]);
    }
}

static void bench(void)
{
    for (int t = 0; tier(t); t++) {
        const char *only = getenv("TERSE_ISA");
        if (only && *only && strcmp(only, tier(t)->name) != 0)
            continue;
        double total = 0.0;
        for (size_t i = 0; i < COUNT(mobilenet); i++)
            total += mobilenet[i].times *
                     dwconv_bench(tier(t), mobilenet[i].size, mobilenet[i].channels, mobilenet[i].stride, 3);
        printf("%-10s MobileNetV2, depthwise layers: %.3f ms\n", tier(t)->name, total * 1e3);
        dwconv_bench(tier(t), 14, 672, 1, 5);
        dwconv_bench(tier(t), 28, 240, 2, 5);
        pool_bench(tier(t), false, 112, 64, 3, 2);
        pool_bench(tier(t), false, 55, 128, 3, 2);
        pool_bench(tier(t), true, 7, 2048, 7, 1);
        pool_bench(tier(t), true, 13, 1000, 13, 1);
        element_bench(tier(t));
    }
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
