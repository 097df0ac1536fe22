/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_u8s8, conv_u8s8 and the packing of their weights: every tier gives the scalar tier's integers, ties of the
 * rounding included, and all give by hand what the definition says. */
#include "requantize.h"
#include "networks.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Neither may change a bit. */
static terse_tiling random_tiling(void)
{
    return random_in(0, 1) ? (terse_tiling){0}
                           : (terse_tiling){(int32_t)random_in(0, 20), (int32_t)random_in(0, 1 << random_in(0, 16))};
}

static terse_ahead random_ahead(void)
{
    return random_in(0, 1) ? (terse_ahead){0} : (terse_ahead){case_text, random_in(0, 1 << random_in(0, 21))};
}

static terse_gemm_u8s8_args gemm;

static void gemm_run(const terse_kernels *kernels, terse_requantize *to, void *output, int64_t stride)
{
    gemm.requantize = *to;
    gemm.c = output;
    gemm.ldc = stride;
    gemm.tiling = random_tiling();
    gemm.ahead = random_ahead();
    kernels->gemm_u8s8(&gemm);
}

static int64_t packed_bytes(int64_t n, int64_t k)
{
    return (n + 15) / 16 * ((k + 3) / 4) * 64;
}

/* Random weights of [k, n] in panels; what pads k and n stays zero. */
static void random_panels(int kind, int8_t *b, int64_t n, int64_t k)
{
    const int64_t steps = (k + 3) / 4;
    memset(b, 0, (size_t)packed_bytes(n, k));
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            b[(j / 16 * steps + i / 4) * 64 + j % 16 * 4 + i % 4] = random_s8(kind);
}

static void gemm_case(int64_t m, int64_t n, int64_t k, int kind)
{
    int64_t lda = k + random_in(0, 1) * random_in(0, 40), count = (m - 1) * lda + k;
    uint8_t *a = guarded_bytes(AREA_A, count);
    for (int64_t i = 0; i < count; i++)
        a[i] = random_u8(kind);
    int8_t *b = (int8_t *)guarded_bytes(AREA_B, packed_bytes(n, k));
    random_panels(kind, b, n, k);
    gemm = (terse_gemm_u8s8_args){.m = m, .n = n, .k = k, .a = a, .lda = lda, .b = b};
    terse_requantize to = random_requantize(kind, n, k);
    random_residual(&to, m, n);
    describe(&to,
             snprintf(case_text, sizeof case_text, "gemm m %d n %d k %d lda %d", (int)m, (int)n, (int)k, (int)lda));
    each_tier(gemm_run, &to, m, n);
}

/* Multipliers that bring one output of each column to a tie or next to one: what float cannot decide. */
static void hair_case(int64_t m, int64_t n, int64_t k)
{
    uint8_t *a = guarded_bytes(AREA_A, m * k);
    int8_t *b = (int8_t *)guarded_bytes(AREA_B, packed_bytes(n, k));
    for (int64_t i = 0; i < m * k; i++)
        a[i] = random_u8(ANY);
    random_panels(ANY, b, n, k);
    gemm = (terse_gemm_u8s8_args){.m = m, .n = n, .k = k, .a = a, .lda = k, .b = b};
    terse_requantize to = random_requantize(TIES, n, k), sums = {.to = TERSE_SUMS_TO_S32, .bias = to.bias};
    to.residual_scale = exp((double)random_float() * 3.0);
    random_residual(&to, m, n);
    int32_t *sum = (int32_t *)(void *)guarded(AREA_WANT, m * n);
    gemm_run(terse_kernels_of(TERSE_ISA_SCALAR), &sums, sum, n);
    float *high = guarded(AREA_SCRATCH, 2 * n), *low = high + n;
    for (int64_t j = 0; j < n; j++) {
        int64_t row = random_in(0, m - 1);
        double v = (double)random_in(-to.zero_point - 2, 257 - to.zero_point) + 0.5;
        v += random_in(0, 2) ? ldexp((double)random_float(), (int)random_in(-40, -8)) : 0.0;
        if (to.residual)
            v -= (double)(to.residual[row * to.residual_stride + j] - to.residual_zero_point) * to.residual_scale;
        double exact = sum[row * n + j] ? v / sum[row * n + j] : 0.25;
        high[j] = (float)exact;
        low[j] = (float)(exact - (double)high[j]);
    }
    to.multiplier = high;
    to.multiplier_low = low;
    describe(&to, snprintf(case_text, sizeof case_text, "hair m %d n %d k %d", (int)m, (int)n, (int)k));
    each_tier(gemm_run, &to, m, n);
}

static void gemm_tests(void)
{
    for (int i = 0; i < 400; i++)
        hair_case(random_in(1, 30), random_in(1, 100), random_in(1, 300));
    tap_case("gemm: values at ties and a hair beside them");
    for (int64_t m = 1; m <= 34; m++)
        for (int64_t n = 1; n <= 150; n += random_in(1, 7))
            gemm_case(m, n, random_in(1, 70), ANY);
    tap_case("gemm: rows 1 to 34 by columns 1 to 150");
    for (int64_t size = 0; size <= 300; size += random_in(1, 3)) {
        if (size) {
            gemm_case(random_in(1, 30), size, random_in(1, 30), ANY);
            gemm_case(size, random_in(1, 30), random_in(1, 30), ANY);
        }
        gemm_case(random_in(1, 30), random_in(1, 40), size, ANY);
    }
    tap_case("gemm: sizes up to 300, K = 0 included");
    for (int i = 0; i < 300; i++)
        gemm_case(random_in(1, 40), random_in(1, 90), random_in(1, 60), EXTREMES);
    for (int i = 0; i < 4; i++) /* sums that wrap around */
        gemm_case(random_in(1, 3), random_in(1, 20), 70000, EXTREMES);
    tap_case("gemm: extreme bytes, biases and multipliers");
    for (int i = 0; i < 300; i++)
        gemm_case(random_in(1, 40), random_in(1, 90), random_in(0, 12), TIES);
    tap_case("gemm: sums exactly between two integers");
    for (int i = 0; i < 8; i++)
        gemm_case(random_in(1, 200), random_in(1, 300), random_in(1, 400), ANY);
    gemm_case(30, 65, 1024, ANY);
    gemm_case(3, 1000, 2048, ANY);
    gemm_case(1, 1111, 515, ANY);
    gemm_case(29, 600, 1030, ANY);
    tap_case("gemm: large ones");
}

static terse_conv_u8s8_args conv;

static void conv_run(const terse_kernels *kernels, terse_requantize *to, void *output, int64_t stride)
{
    conv.requantize = *to;
    conv.output = output;
    conv.out_stride = stride;
    conv.scratch = guarded_scratch(AREA_SCRATCH, kernels->conv_u8s8_scratch(&conv));
    conv.tiling = random_tiling();
    conv.ahead = random_ahead();
    kernels->conv_u8s8(&conv);
}

static int64_t output_of(int axis, int64_t pad_end)
{
    int64_t span = (conv.kernel[axis] - 1) * conv.dilation[axis] + 1;
    int64_t room = conv.in[axis] + conv.pad[axis] + pad_end - span;
    return room < 0 ? 0 : room / conv.stride[axis] + 1;
}

/* Random sizes, kernel of up to 9, strides, dilation and padding; small kernels and no padding often. */
static bool random_conv(int64_t most_channels, int64_t most_size)
{
    int rank = (int)random_in(1, 3);
    bool plain = random_in(0, 3) == 0;
    conv = (terse_conv_u8s8_args){.n = random_in(1, 3), .groups = random_in(0, 2) ? 1 : random_in(1, 4)};
    for (int axis = 0; axis < 3; axis++) {
        bool used = axis >= 3 - rank;
        conv.in[axis] = used ? random_in(1, rank == 1 ? 4 * most_size : rank == 2 ? most_size : most_size / 2) : 1;
        conv.kernel[axis] = used && !plain ? (random_in(0, 1) ? 3 : random_in(1, rank == 1 ? 9 : 5)) : 1;
        conv.stride[axis] = used ? random_in(1, 2) + (random_in(0, 9) == 0) : 1;
        conv.dilation[axis] = used && random_in(0, 3) == 0 ? random_in(1, 3) : 1;
        conv.pad[axis] = used && random_in(0, 2) ? random_in(0, plain ? 1 : conv.kernel[axis] + 1) : 0;
        conv.out[axis] = output_of(axis, used ? conv.pad[axis] * random_in(0, 1) : 0);
        if (plain && random_in(0, 1)) {
            conv.stride[axis] = 1;
            conv.pad[axis] = 0;
            conv.out[axis] = conv.in[axis];
        }
        if (conv.out[axis] < 1)
            return false;
    }
    conv.channels = conv.groups * (random_in(0, 1) ? random_in(1, 9) : random_in(1, most_channels));
    if (random_in(0, 1))
        conv.channels = conv.groups * ((conv.channels / conv.groups + 3) / 4 * 4);
    conv.filters = conv.groups * (random_in(0, 1) ? random_in(1, 17) : random_in(1, 70));
    conv.x_zero_point = (uint8_t)(random_in(0, 1) ? random_in(1, 255) : 0);
    return true;
}

static void conv_text(const terse_requantize *to)
{
    int used =
        snprintf(case_text, sizeof case_text,
                 "conv n %d C %d F %d g %d in %d,%d,%d out %d,%d,%d k %d,%d,%d s %d,%d,%d d %d,%d,%d p %d,%d,%d "
                 "stride %d zero %d",
                 (int)conv.n, (int)conv.channels, (int)conv.filters, (int)conv.groups, (int)conv.in[0], (int)conv.in[1],
                 (int)conv.in[2], (int)conv.out[0], (int)conv.out[1], (int)conv.out[2], (int)conv.kernel[0],
                 (int)conv.kernel[1], (int)conv.kernel[2], (int)conv.stride[0], (int)conv.stride[1],
                 (int)conv.stride[2], (int)conv.dilation[0], (int)conv.dilation[1], (int)conv.dilation[2],
                 (int)conv.pad[0], (int)conv.pad[1], (int)conv.pad[2], (int)conv.in_stride, conv.x_zero_point);
    describe(to, used);
}

/* Weights of a convolution: per group panels whose K runs over the rows of the kernel, each padded to a four. */
static void random_filters(int kind, int8_t *w)
{
    const int64_t filters = conv.filters / conv.groups, row = conv.kernel[2] * conv.channels / conv.groups;
    const int64_t rows = conv.groups * ((filters + 15) / 16) * conv.kernel[0] * conv.kernel[1], steps = (row + 3) / 4;
    memset(w, 0, (size_t)(rows * steps * 64));
    for (int64_t r = 0; r < rows; r++) {
        int64_t panel = r / (conv.kernel[0] * conv.kernel[1]) % ((filters + 15) / 16);
        int64_t width = filters - panel * 16 < 16 ? filters - panel * 16 : 16;
        for (int64_t j = 0; j < width; j++)
            for (int64_t i = 0; i < row; i++)
                w[(r * steps + i / 4) * 64 + j * 4 + i % 4] = random_s8(kind);
    }
}

static int64_t filter_bytes(void)
{
    return conv.groups * conv.kernel[0] * conv.kernel[1] *
           packed_bytes(conv.filters / conv.groups, conv.kernel[2] * conv.channels / conv.groups);
}

static void conv_case(int kind)
{
    int64_t in_pixels = conv.n * conv.in[0] * conv.in[1] * conv.in[2];
    int64_t out_pixels = conv.n * conv.out[0] * conv.out[1] * conv.out[2];
    int64_t k = conv.kernel[0] * conv.kernel[1] * conv.kernel[2] * (conv.channels / conv.groups);
    conv.in_stride = conv.channels + random_in(0, 1) * random_in(0, 30);
    int64_t count = (in_pixels - 1) * conv.in_stride + conv.channels;
    uint8_t *input = guarded_bytes(AREA_A, count);
    for (int64_t i = 0; i < count; i++)
        input[i] = random_u8(kind);
    int8_t *weights = (int8_t *)guarded_bytes(AREA_B, filter_bytes());
    random_filters(kind, weights);
    conv.input = input;
    conv.weights = weights;
    terse_requantize to = random_requantize(kind, conv.filters, k);
    random_residual(&to, out_pixels, conv.filters);
    conv_text(&to);
    each_tier(conv_run, &to, out_pixels, conv.filters);
}

static void conv_tests(void)
{
    for (int done = 0; done < 500;)
        if (random_conv(24, 14)) {
            conv_case(ANY);
            done++;
        }
    tap_case("conv: 1-D to 3-D, groups, strides, dilations, pads, zero points, strided pixels");
    for (int done = 0; done < 100;)
        if (random_conv(16, 10)) {
            conv_case(random_in(0, 1) ? EXTREMES : TIES);
            done++;
        }
    tap_case("conv: extremes and ties");
    for (int done = 0; done < 40;)
        if (random_conv(140, 12)) {
            conv_case(ANY);
            done++;
        }
    for (int done = 0; done < 8;)
        if (random_conv(5, 90)) {
            conv_case(ANY);
            done++;
        }
    tap_case("conv: many channels, large maps");
}

/* The packing of [k, n] against the layout's formula, and the sums of the columns. */
static void pack_case(const terse_kernels *kernels, int64_t k, int64_t n, bool transposed, bool want_sums)
{
    int64_t stride_k = transposed ? 1 : n + random_in(0, 5), stride_n = transposed ? k + random_in(0, 5) : 1;
    int64_t count = k && n ? (k - 1) * stride_k + (n - 1) * stride_n + 1 : 0, steps = (k + 3) / 4;
    int8_t *b = (int8_t *)guarded_bytes(AREA_B, count);
    for (int64_t i = 0; i < count; i++)
        b[i] = random_s8(ANY);
    int8_t *packed = (int8_t *)guarded_bytes(AREA_GOT, packed_bytes(n, k));
    int32_t *sums = (int32_t *)(void *)guarded(AREA_COLUMNS, n);
    kernels->pack_n16k4_s8(b, stride_k, stride_n, k, n, packed, want_sums ? sums : NULL);
    snprintf(case_text, sizeof case_text, "pack k %d n %d strides %d %d", (int)k, (int)n, (int)stride_k, (int)stride_n);
    for (int64_t j = 0; j < (n + 15) / 16 * 16; j++) {
        int32_t sum = 0;
        for (int64_t i = 0; i < steps * 4; i++) {
            int8_t want = i < k && j < n ? b[i * stride_k + j * stride_n] : (int8_t)0;
            int8_t got = packed[(j / 16 * steps + i / 4) * 64 + j % 16 * 4 + i % 4];
            sum += want;
            if (got != want)
                case_error("%s k %d column %d: %d, not %d", kernels->name, (int)i, (int)j, got, want);
        }
        if (want_sums && j < n && sums[j] != sum)
            case_error("%s sum of column %d: %d, not %d", kernels->name, (int)j, sums[j], sum);
    }
    if ((uint8_t)packed[-1] != CANARY_BYTE)
        case_error("%s wrote before the output", kernels->name);
}

static void pack_tests(void)
{
    for (int t = -1; t < 0 || tier(t); t++) {
        const terse_kernels *kernels = t < 0 ? terse_kernels_of(TERSE_ISA_SCALAR) : tier(t);
        for (int64_t size = 0; kernels->pack_n16k4_s8 && size < 70; size++) {
            pack_case(kernels, size, random_in(1, 70), random_in(0, 1), random_in(0, 1));
            pack_case(kernels, random_in(1, 70), size, random_in(0, 1), random_in(0, 1));
        }
    }
    tap_case("packing into [N/16][K/4][16][4], with the columns' sums");
}

/* One row, one column, by hand: ties go to the even number before the zero point is added. */
static void definition_tests(void)
{
    static const struct {
        int32_t sum;
        float multiplier, low;
        int32_t zero_point, residual; /* residual: -1 for none, zero point 3, scale 0.5 */
        int want;
    } cases[] = {{5, 0.5f, 0.0f, 0, -1, 2},     {7, 0.5f, 0.0f, 0, -1, 4},     {7, 0.5f, 0.0f, 1, -1, 5},
                 {5, 0.5f, 1e-9f, 0, -1, 3},    {7, 0.5f, -1e-9f, 0, -1, 3},   {-5, 0.5f, 0.0f, 10, -1, 8},
                 {4, 0.5f, 0.0f, 0, 4, 2},      {5, 0.5f, 0.0f, 0, 4, 3},      {-400, 1.0f, 0.0f, 9, -1, 0},
                 {400, 1.0f, 0.0f, 9, -1, 255}, {1 << 30, 4.0f, 0, 0, -1, 255}};
    for (int t = -1; t < 0 || tier(t); t++) {
        const terse_kernels *kernels = t < 0 ? terse_kernels_of(TERSE_ISA_SCALAR) : tier(t);
        for (size_t i = 0; kernels->gemm_u8s8 && i < COUNT(cases); i++) {
            uint8_t a = 0, c = 77, residual = (uint8_t)cases[i].residual;
            int8_t b[64] = {0};
            terse_gemm_u8s8_args args = {.m = 1, .n = 1, .k = 1, .a = &a, .lda = 1, .b = b, .c = &c, .ldc = 1};
            args.requantize = (terse_requantize){.bias = &cases[i].sum,
                                                 .multiplier = &cases[i].multiplier,
                                                 .multiplier_low = &cases[i].low,
                                                 .zero_point = cases[i].zero_point,
                                                 .high = 255,
                                                 .residual = cases[i].residual < 0 ? NULL : &residual,
                                                 .residual_zero_point = 3,
                                                 .residual_scale = 0.5};
            kernels->gemm_u8s8(&args);
            snprintf(case_text, sizeof case_text, "sum %d", cases[i].sum);
            if (c != cases[i].want)
                case_error("%s gives %d, not %d", kernels->name, c, cases[i].want);
        }
    }
    tap_case("requantization rounds to nearest, ties to even, before the zero point");
}

static void tests(void)
{
    definition_tests();
    pack_tests();
    gemm_tests();
    conv_tests();
}

/* Operations per second that the tier's dot product instruction reaches with nothing else to do; 0 when not known. */
static double peak_of(const terse_kernels *kernels)
{
#if defined(__x86_64__)
    /* Code for the baseline has no registers from 16 on: nothing to save. */
    if (kernels->isa == TERSE_ISA_AVX512VNNI || kernels->isa == TERSE_ISA_AVX512BF16) {
        double best;
        BEST_OF(
            0.02, best, for (int i = 0; i < 2000; i++) {
                __asm__ volatile("vpdpbusd %zmm16, %zmm17, %zmm18\n\tvpdpbusd %zmm16, %zmm17, %zmm19\n\t"
                                 "vpdpbusd %zmm16, %zmm17, %zmm20\n\tvpdpbusd %zmm16, %zmm17, %zmm21\n\t"
                                 "vpdpbusd %zmm16, %zmm17, %zmm22\n\tvpdpbusd %zmm16, %zmm17, %zmm23\n\t"
                                 "vpdpbusd %zmm16, %zmm17, %zmm24\n\tvpdpbusd %zmm16, %zmm17, %zmm25\n\t"
                                 "vpdpbusd %zmm16, %zmm17, %zmm26\n\tvpdpbusd %zmm16, %zmm17, %zmm27\n\t"
                                 "vpdpbusd %zmm16, %zmm17, %zmm28\n\tvpdpbusd %zmm16, %zmm17, %zmm29");
            });
        return 2000 * 12 * 128 / best;
    }
#endif
    (void)kernels;
    return 0.0;
}

static double peak;

static void gemm_bench(const terse_kernels *kernels, int64_t m, int64_t n, int64_t k, bool residual)
{
    uint8_t *a = timed_bytes(AREA_A, m * k);
    int8_t *b = timed_bytes(AREA_B, packed_bytes(n, k));
    for (int64_t i = 0; i < m * k; i++)
        a[i] = random_u8(ANY);
    random_panels(ANY, b, n, k);
    gemm = (terse_gemm_u8s8_args){.m = m, .n = n, .k = k, .a = a, .lda = k, .b = b, .ldc = n};
    gemm.requantize = plain_requantize(n, k, residual, m);
    gemm.c = timed_bytes(AREA_GOT, m * n);
    double best, rate;
    BEST_OF(0.03, best, kernels->gemm_u8s8(&gemm));
    rate = 2.0 * (double)(m * n * k) / best;
    printf("%-10s gemm %5d x %5d x %5d%s %9.2f us %7.1f GOP/s", kernels->name, (int)m, (int)n, (int)k,
           residual ? " + residual" : "", best * 1e6, rate * 1e-9);
    if (peak > 0.0)
        printf(", %5.1f %% of the peak", 100.0 * rate / peak);
    printf(", weights %6.1f GB/s\n", 1e-9 * (double)(n * k) / best);
}

static double conv_bench(const terse_kernels *kernels, const layer *l)
{
    int64_t out = (l->size + 2 * l->pad - l->kernel) / l->stride + 1, k = (int64_t)l->kernel * l->kernel * l->channels;
    int64_t in_bytes = (int64_t)l->size * l->size * l->channels;
    conv = (terse_conv_u8s8_args){.n = 1,
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
                                  .out_stride = l->filters};
    uint8_t *input = timed_bytes(AREA_A, in_bytes);
    int8_t *weights = timed_bytes(AREA_B, filter_bytes());
    for (int64_t i = 0; i < in_bytes; i++)
        input[i] = random_u8(ANY);
    random_filters(ANY, weights);
    conv.input = input;
    conv.weights = weights;
    conv.requantize = plain_requantize(l->filters, k, false, 0);
    conv.output = timed_bytes(AREA_GOT, out * out * l->filters);
    conv.scratch = guarded_scratch(AREA_SCRATCH, kernels->conv_u8s8_scratch(&conv) + 4096);
    double best, rate;
    BEST_OF(0.03, best, kernels->conv_u8s8(&conv));
    rate = 2.0 * (double)(out * out * k * l->filters) / best;
    printf("%-10s conv %4d px %5d -> %5d k%d s%d  %9.2f us %7.1f GOP/s", kernels->name, l->size, l->channels,
           l->filters, l->kernel, l->stride, best * 1e6, rate * 1e-9);
    printf(peak > 0.0 ? ", %5.1f %% of the peak\n" : "\n", 100.0 * rate / peak);
    return best * l->times;
}

static void bench(void)
{
    static const int64_t sizes[][3] = {
        {1, 512, 784},   {1, 512, 512},   {1, 10, 512},    {8, 512, 784},    {8, 512, 512},    {64, 512, 784},
        {64, 512, 512},  {64, 10, 512},   {12, 64, 256},   {192, 64, 256},   {192, 256, 256},  {3136, 64, 64},
        {3136, 64, 576}, {780, 512, 128}, {128, 384, 384}, {128, 1536, 384}, {128, 384, 1536}, {128, 64, 64},
        {784, 24, 144},  {784, 1000, 27}, {49, 512, 4608}};
    static const int64_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 28, 64, 256};
    for (int t = 0; tier(t); t++) {
        const char *only = getenv("TERSE_ISA");
        if (!tier(t)->gemm_u8s8 || (only && *only && strcmp(only, tier(t)->name) != 0))
            continue;
        peak = peak_of(tier(t));
        if (peak > 0.0)
            printf("%-10s peak %.1f GOP/s\n", tier(t)->name, peak * 1e-9);
        for (size_t i = 0; i < COUNT(rows); i++)
            gemm_bench(tier(t), rows[i], 1024, 1024, false);
        for (size_t i = 0; i < COUNT(sizes); i++)
            gemm_bench(tier(t), sizes[i][0], sizes[i][1], sizes[i][2], false);
        gemm_bench(tier(t), 196, 1024, 256, true);
        networks_bench(tier(t), conv_bench, peak);
    }
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
