/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_f32s8, gemm_f32s4 and dynamic quantization: every tier gives the scalar tier's bits for every number of rows,
 * and the scalar tier gives what the definition says in double. */
#include "harness.h"

enum { AREA_A, AREA_B, AREA_SCALE, AREA_BIAS, AREA_RESIDUAL, AREA_WANT, AREA_GOT, AREA_SCRATCH };

typedef struct sizes {
    int64_t m, n, k, group, lda, ldc, ldr;
    int extreme;
} sizes;

static sizes random_sizes(int64_t m, int64_t n, int64_t k, int extreme)
{
    return (sizes){.m = m,
                   .n = n,
                   .k = k,
                   .group = 8 * (random_in(0, 1) ? 4 : random_in(1, 9)),
                   .lda = k + random_in(0, 1) * random_in(0, 40),
                   .ldc = n + random_in(0, 1) * random_in(0, 40),
                   .ldr = n + random_in(0, 1) * random_in(0, 20),
                   .extreme = extreme};
}

/* Bytes that end at the forbidden page. */
static uint8_t *guarded_bytes(int area, int64_t n)
{
    uint8_t *p = (uint8_t *)areas[area] + AREA_BYTES - n;
    for (int64_t i = 0; i < n; i++)
        p[i] = (uint8_t)random_bits();
    return p;
}

/* Operands that both products have. Returns false for none. */
typedef struct operands {
    float *a, *bias, *residual, *want;
    bool with_bias, with_residual, in_place;
    terse_activation activation;
} operands;

static operands make_operands(const sizes *s)
{
    operands o = {.a = guarded(AREA_A, (s->m - 1) * s->lda + s->k),
                  .bias = guarded(AREA_BIAS, s->n),
                  .residual = guarded(AREA_RESIDUAL, (s->m - 1) * s->ldr + s->n),
                  .want = guarded(AREA_WANT, s->m * s->n),
                  .with_bias = random_in(0, 2) != 0,
                  .with_residual = random_in(0, 1) != 0,
                  .in_place = random_in(0, 3) == 0,
                  .activation = random_activation()};
    fill(o.a, (s->m - 1) * s->lda + s->k, s->extreme);
    fill(o.bias, s->n, s->extreme);
    fill(o.residual, (s->m - 1) * s->ldr + s->n, s->extreme);
    return o;
}

/* The residual where C is, when it is to be C itself. */
static void place_residual(const sizes *s, const operands *o, float *c)
{
    for (int64_t r = 0; r < s->m && o->with_residual && o->in_place; r++)
        memcpy(c + r * s->ldc, o->residual + r * s->ldr, (size_t)s->n * sizeof *c);
}

#define COMMON(s, o, out, stride)                                                                                      \
    .m = (s)->m, .n = (s)->n, .k = (s)->k, .a = (o)->a, .lda = (s)->lda, .c = (out), .ldc = (stride),                  \
    .bias = (o)->with_bias ? (o)->bias : NULL, .residual = (o)->with_residual ? (o)->residual : NULL, .ldr = (s)->ldr, \
    .activation = (o)->activation

static void case_named(const char *name, const sizes *s, const operands *o)
{
    snprintf(case_text, sizeof case_text,
             "%s m %" PRId64 " n %" PRId64 " k %" PRId64 " group %" PRId64 " lda %" PRId64
             " act %d bias %d residual %d",
             name, s->m, s->n, s->k, s->group, s->lda, o->activation.kind, o->with_bias, o->with_residual);
}

/* A float result beside one in double; `magnitude` bounds the sum of the absolute terms. */
static void expect_near(float got, double want, double magnitude, int64_t r, int64_t n)
{
    if (!(fabs((double)got - want) <= 1e-6 * magnitude + 1e-30))
        case_error("scalar row %" PRId64 " column %" PRId64 ": %.9g, in double %.9g", r, n, (double)got, want);
}

static void s8_in_double(const sizes *s, const float *a, const int8_t *b, const float *scale)
{
    float *c = guarded(AREA_WANT, s->m * s->n);
    terse_kernels_of(TERSE_ISA_SCALAR)
        ->gemm_f32s8(&(terse_gemm_f32s8_args){
            .m = s->m, .n = s->n, .k = s->k, .a = a, .lda = s->lda, .b = b, .scale = scale, .c = c, .ldc = s->n});
    for (int64_t r = 0; r < s->m; r++)
        for (int64_t n = 0; n < s->n; n++) {
            double sum = 0.0, magnitude = 0.0;
            for (int64_t k = 0; k < s->k; k++) {
                double term = (double)a[r * s->lda + k] * b[(n / 16 * s->k + k) * 16 + n % 16] * (double)scale[n];
                sum += term;
                magnitude += fabs(term);
            }
            expect_near(c[r * s->n + n], sum, magnitude * (double)(s->k + 1), r, n);
        }
}

static void s8_case(const sizes *s)
{
    operands o = make_operands(s);
    const int8_t *b = (const int8_t *)guarded_bytes(AREA_B, (s->n + 15) / 16 * 16 * s->k);
    float *scale = guarded(AREA_SCALE, s->n);
    fill(scale, s->n, s->extreme);
    case_named("f32s8", s, &o);
    if (!s->extreme)
        s8_in_double(s, o.a, b, scale);
    terse_gemm_f32s8_args args = {COMMON(s, &o, o.want, s->n), .b = b, .scale = scale};
    terse_kernels_of(TERSE_ISA_SCALAR)->gemm_f32s8(&args);
    for (int t = 0; tier(t); t++) {
        float *c = guarded(AREA_GOT, (s->m - 1) * s->ldc + s->n);
        terse_gemm_f32s8_args got = args;
        place_residual(s, &o, c);
        got.c = c;
        got.ldc = s->ldc;
        if (args.residual && o.in_place) {
            got.residual = c;
            got.ldr = s->ldc;
        }
        tier(t)->gemm_f32s8(&got);
        expect_rows(tier(t)->name, c, s->m, s->n, s->ldc, o.want, s->n);
    }
}

static int nibble(const uint8_t *b, int64_t blocks, int64_t k, int64_t n)
{
    uint8_t pair = b[(n / 16 * blocks + k / 8) * 64 + n % 16 * 4 + k % 4];
    return (k % 8 < 4 ? pair & 15 : pair >> 4) - 8;
}

/* Rows as bytes and sums of groups in double, which are exact there. */
static void s4_in_double(const sizes *s, const float *a, const uint8_t *b, const float *scale)
{
    float *c = guarded(AREA_WANT, s->m * s->n);
    const int64_t groups = (s->k + s->group - 1) / s->group;
    terse_kernels_of(TERSE_ISA_SCALAR)
        ->gemm_f32s4(&(terse_gemm_f32s4_args){
            .m = s->m,
            .n = s->n,
            .k = s->k,
            .group = s->group,
            .a = a,
            .lda = s->lda,
            .b = b,
            .scale = scale,
            .c = c,
            .ldc = s->n,
            .scratch = guarded_scratch(AREA_SCRATCH, terse_gemm_f32s4_scratch(s->k, s->group))});
    for (int64_t r = 0; r < s->m; r++) {
        float most = 0.0f;
        for (int64_t k = 0; k < s->k; k++)
            most = fmaxf(most, fabsf(a[r * s->lda + k]));
        for (int64_t n = 0; n < s->n; n++) {
            double sum = 0.0, magnitude = 0.0;
            for (int64_t k = 0; k < s->k; k++) {
                double q = most > 0.0f ? nearbyint((double)(a[r * s->lda + k] * (127.0f / most))) : 0.0;
                double of_group = (double)scale[(n / 16 * groups + k / s->group) * 16 + n % 16];
                double term = q * nibble(b, (s->k + 7) / 8, k, n) * of_group * (double)most / 127.0;
                sum += term;
                magnitude += fabs(term);
            }
            expect_near(c[r * s->n + n], sum, magnitude * (double)(groups + 3), r, n);
        }
    }
}

static void s4_case(const sizes *s)
{
    operands o = make_operands(s);
    const int64_t groups = (s->k + s->group - 1) / s->group, wide = (s->n + 15) / 16 * 16;
    const uint8_t *b = guarded_bytes(AREA_B, wide * ((s->k + 7) / 8) * 4);
    float *scale = guarded(AREA_SCALE, groups * wide);
    fill(scale, groups * wide, s->extreme);
    if (random_in(0, 3) == 0)
        memset(o.a, 0, (size_t)s->k * sizeof *o.a); /* a row of zeros */
    case_named("f32s4", s, &o);
    if (!s->extreme)
        s4_in_double(s, o.a, b, scale);
    const size_t scratch = terse_gemm_f32s4_scratch(s->k, s->group);
    terse_gemm_f32s4_args args = {COMMON(s, &o, o.want, s->n), .group = s->group, .b = b, .scale = scale,
                                  .scratch = guarded_scratch(AREA_SCRATCH, scratch)};
    terse_kernels_of(TERSE_ISA_SCALAR)->gemm_f32s4(&args);
    for (int t = 0; tier(t); t++) {
        float *c = guarded(AREA_GOT, (s->m - 1) * s->ldc + s->n);
        terse_gemm_f32s4_args got = args;
        place_residual(s, &o, c);
        got.c = c;
        got.ldc = s->ldc;
        got.scratch = guarded_scratch(AREA_SCRATCH, scratch);
        if (args.residual && o.in_place) {
            got.residual = c;
            got.ldr = s->ldc;
        }
        tier(t)->gemm_f32s4(&got);
        expect_rows(tier(t)->name, c, s->m, s->n, s->ldc, o.want, s->n);
    }
}

static void product_tests(const char *name, void (*run)(const sizes *s))
{
    char text[120];
    for (int64_t m = 1; m <= 48; m++)
        for (int64_t n = 1; n <= 130; n += random_in(1, 18)) {
            const sizes s = random_sizes(m, n, random_in(1, 40), 0);
            run(&s);
        }
    snprintf(text, sizeof text, "%s: rows 1 to 48 by columns 1 to 130", name);
    tap_case(text);
    for (int64_t size = 0; size <= 300; size += random_in(1, 3)) {
        const sizes n = random_sizes(random_in(1, 20), size + 1, random_in(1, 20), 0),
                    m = random_sizes(size + 1, random_in(1, 20), random_in(1, 20), 0),
                    k = random_sizes(random_in(1, 20), random_in(1, 20), size, 0);
        run(&n);
        run(&m);
        run(&k);
    }
    snprintf(text, sizeof text, "%s: sizes up to 300, K = 0 included", name);
    tap_case(text);
    for (int i = 0; i < 4; i++) {
        const sizes s = random_sizes(random_in(1, 100), random_in(1, 200), random_in(1, 300), 0);
        run(&s);
    }
    const sizes wide = random_sizes(3, 65, 1024, 0), tall = random_sizes(2, 16, 9000, 0);
    run(&wide);
    run(&tall);
    snprintf(text, sizeof text, "%s: large ones", name);
    tap_case(text);
    for (int i = 0; i < 200; i++) {
        const sizes s = random_sizes(random_in(1, 30), random_in(1, 70), random_in(1, 60), (int)random_in(2, 50));
        run(&s);
    }
    snprintf(text, sizeof text, "%s: infinities, NaN, denormals, signed zeros", name);
    tap_case(text);
}

/* The largest sum that one group can have: no tier may saturate. */
static void s4_largest(void)
{
    const sizes s = {.m = 3, .n = 16, .k = 8192, .group = 4096, .lda = 8192, .ldc = 16, .ldr = 16};
    float *a = guarded(AREA_A, s.m * s.k), *scale = guarded(AREA_SCALE, 2 * 16);
    uint8_t *b = guarded_bytes(AREA_B, 16 * s.k / 2);
    memset(b, 0, (size_t)(16 * s.k / 2)); /* every weight is -8 */
    for (int64_t i = 0; i < s.m * s.k; i++)
        a[i] = i / s.k == 1 ? -1.0f : 1.0f;
    for (int i = 0; i < 32; i++)
        scale[i] = 1.0f;
    snprintf(case_text, sizeof case_text, "f32s4 largest sums");
    for (int t = -1; t < 0 || tier(t); t++) {
        const terse_kernels *kernels = t < 0 ? terse_kernels_of(TERSE_ISA_SCALAR) : tier(t);
        float *c = guarded(AREA_GOT, s.m * 16);
        kernels->gemm_f32s4(
            &(terse_gemm_f32s4_args){.m = s.m,
                                     .n = 16,
                                     .k = s.k,
                                     .group = s.group,
                                     .a = a,
                                     .lda = s.lda,
                                     .b = b,
                                     .scale = scale,
                                     .c = c,
                                     .ldc = 16,
                                     .scratch = guarded_scratch(AREA_SCRATCH, terse_gemm_f32s4_scratch(s.k, s.group))});
        const float want = -8.0f * 127.0f * 8192.0f * (1.0f / 127.0f);
        for (int i = 0; i < 48; i++)
            if (bits_of(c[i]) != bits_of(i / 16 == 1 ? -want : want))
                case_error("%s element %d: %.9g, not %.9g", kernels->name, i, (double)c[i], (double)want);
    }
    tap_case("f32s4: the largest sums do not saturate");
}

/* Ranges and bytes of n numbers; `ties` puts them at and beside the middles between two integers. */
static void dynamic_case(int64_t n, float scale, int32_t zero_point, bool ties, int extreme)
{
    float *x = guarded(AREA_A, n);
    fill(x, n, extreme);
    for (int64_t i = 0; i < n && (ties || !extreme); i++) {
        x[i] = ties ? ((float)random_in(-300, 300) + 0.5f) * scale : x[i] * scale * 300.0f;
        if (ties && random_in(0, 2) == 0)
            x[i] = nextafterf(x[i], random_in(0, 1) ? INFINITY : -INFINITY);
    }
    snprintf(case_text, sizeof case_text, "dynamic n %" PRId64 " scale %.9g zero point %d", n, (double)scale,
             zero_point);
    const terse_kernels *scalar = terse_kernels_of(TERSE_ISA_SCALAR);
    uint8_t *want = guarded_bytes(AREA_WANT, n);
    float low, high;
    scalar->range_f32(x, n, &low, &high);
    scalar->quantize_float_u8(x, scale, zero_point, want, n);
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)(float)(x[i] / scale);
        const double byte = isnan(v) ? zero_point : fmin(fmax(nearbyint(v) + zero_point, 0.0), 255.0);
        if (want[i] != byte || x[i] < low || x[i] > high || low > 0.0f || high < 0.0f)
            case_error("scalar %.9g: %d, not %.0f, range %.9g..%.9g", (double)x[i], want[i], byte, (double)low,
                       (double)high);
    }
    for (int t = 0; tier(t); t++) {
        uint8_t *got = guarded_bytes(AREA_GOT, n + 1);
        const uint8_t before = got[0];
        float tier_low = 1.0f, tier_high = -1.0f;
        tier(t)->range_f32(x, n, &tier_low, &tier_high);
        tier(t)->quantize_float_u8(x, scale, zero_point, got + 1, n);
        if (bits_of(tier_low) != bits_of(low) || bits_of(tier_high) != bits_of(high))
            case_error("%s range %.9g..%.9g, scalar %.9g..%.9g", tier(t)->name, (double)tier_low, (double)tier_high,
                       (double)low, (double)high);
        if (got[0] != before)
            case_error("%s wrote before the output", tier(t)->name);
        for (int64_t i = 0; i < n; i++)
            if (got[1 + i] != want[i])
                case_error("%s element %" PRId64 " (%.9g): %d, scalar %d", tier(t)->name, i, (double)x[i], got[1 + i],
                           want[i]);
    }
}

static void dynamic_tests(void)
{
    for (int64_t n = 0; n <= 300; n++)
        dynamic_case(n, (float)exp((double)random_float() * 9.0), (int32_t)random_in(0, 255), random_in(0, 1), 0);
    tap_case("dynamic quantization: sizes up to 300, ties and what is beside them");
    static const float scales[] = {1.0f, 1e-45f, 1e-39f, 2e-30f, 1e30f, 3.4e38f, INFINITY, NAN, 0.0f};
    for (int i = 0; i < 300; i++)
        dynamic_case(random_in(1, 100), scales[i % 9], (int32_t)random_in(0, 255), false, (int)random_in(2, 20));
    tap_case("dynamic quantization: infinities, NaN, denormals, scales that have no reciprocal");
}

static void tests(void)
{
    dynamic_tests();
    product_tests("f32s8", s8_case);
    product_tests("f32s4", s4_case);
    s4_largest();
}

static void bench_shape(const terse_kernels *kernels, int64_t m, int64_t n, int64_t k)
{
    const int64_t wide = (n + 15) / 16 * 16, groups = (k + 31) / 32;
    float *a = timed(AREA_A, m * k), *b = timed(AREA_B, wide * k), *c = timed(AREA_GOT, m * n);
    float *bias = timed(AREA_BIAS, n), *scale = timed(AREA_SCALE, wide * groups);
    fill(a, m * k, 0);
    fill(b, wide * k, 0);
    fill(bias, n, 0);
    fill(scale, wide * groups, 0);
    double f32, s8, s4;
    const terse_gemm_f32_args plain = {
        .m = m, .n = n, .k = k, .a = a, .lda = k, .b = b, .c = c, .ldc = n, .bias = bias};
    BEST_OF(0.03, f32, kernels->gemm_f32(&plain));
    const terse_gemm_f32s8_args bytes = {.m = m,
                                         .n = n,
                                         .k = k,
                                         .a = a,
                                         .lda = k,
                                         .b = (const int8_t *)b,
                                         .scale = scale,
                                         .c = c,
                                         .ldc = n,
                                         .bias = bias};
    BEST_OF(0.03, s8, kernels->gemm_f32s8(&bytes));
    const terse_gemm_f32s4_args halves = {.m = m,
                                          .n = n,
                                          .k = k,
                                          .group = 32,
                                          .a = a,
                                          .lda = k,
                                          .b = (const uint8_t *)b,
                                          .scale = scale,
                                          .c = c,
                                          .ldc = n,
                                          .bias = bias,
                                          .scratch = guarded_scratch(AREA_SCRATCH, terse_gemm_f32s4_scratch(k, 32))};
    BEST_OF(0.03, s4, kernels->gemm_f32s4(&halves));
    printf("%-10s %4d x %5d x %5d  f32 %8.1f us, s8 %8.1f us (%.2f x, %5.1f GB/s), s4 %8.1f us (%.2f x, %5.1f GB/s)\n",
           kernels->name, (int)m, (int)n, (int)k, f32 * 1e6, s8 * 1e6, f32 / s8, 1e-9 * (double)(n * k) / s8, s4 * 1e6,
           f32 / s4, 0.625e-9 * (double)(n * k) / s4);
}

static void bench_dynamic(const terse_kernels *kernels)
{
    enum { N = 128 * 1536 };
    float *x = timed(AREA_A, N), low, high;
    uint8_t *y = (uint8_t *)timed(AREA_GOT, N / 4);
    fill(x, N, 0);
    double range, bytes;
    BEST_OF(0.03, range, kernels->range_f32(x, N, &low, &high));
    BEST_OF(0.03, bytes, kernels->quantize_float_u8(x, (high - low) / 255.0f, 127, y, N));
    printf("%-10s dynamic quantization of %d: range %.1f us, bytes %.1f us\n", kernels->name, N, range * 1e6,
           bytes * 1e6);
}

static void bench(void)
{
    for (int t = 0; tier(t); t++)
        bench_dynamic(tier(t));
    static const int64_t shapes[][3] = {{1, 512, 784},  {1, 512, 512},    {1, 1024, 1024},  {1, 3072, 3072},
                                        {2, 512, 784},  {4, 512, 784},    {8, 512, 784},    {14, 512, 784},
                                        {64, 512, 784}, {15, 1024, 1024}, {128, 1536, 384}, {128, 384, 1536},
                                        {512, 512, 512}};
    for (int t = 0; tier(t); t++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            bench_shape(tier(t), shapes[i][0], shapes[i][1], shapes[i][2]);
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
