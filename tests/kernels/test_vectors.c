/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise kernels, reductions, rows and moves: every tier gives the scalar tier's bits, and the scalar tier's
 * transcendental functions are measured against the C library in double precision. */
#include "harness.h"

enum { AREA_X, AREA_Y, AREA_SCALE, AREA_BIAS, AREA_WANT, AREA_GOT };

typedef void unary_function(const float *x, float *y, int64_t n);
typedef void binary_function(const float *a, int64_t stride_a, const float *b, int64_t stride_b, float *y, int64_t n);

static unary_function *unary_of(const terse_kernels *k, int which)
{
    unary_function *const functions[] = {k->exp_f32,     k->erf_f32,     k->tanh_f32,
                                         k->sigmoid_f32, k->softmax_f32, k->log_softmax_f32};
    return functions[which];
}

static binary_function *binary_of(const terse_kernels *k, int which)
{
    binary_function *const functions[] = {k->add_f32, k->sub_f32, k->mul_f32, k->div_f32};
    return functions[which];
}

static const terse_kernels *scalar(void)
{
    return terse_kernels_of(TERSE_ISA_SCALAR);
}

/* `wide`: any float at all, otherwise numbers of -20 to 20. */
static float *input_of(int area, int64_t n, bool wide)
{
    float *x = guarded(area, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = wide ? random_extreme() : random_float() * 20.0f;
    return x;
}

static void unary_case(int which, const char *name, int64_t n, bool wide)
{
    float *x = input_of(AREA_X, n, wide), *want = guarded(AREA_WANT, n);
    snprintf(case_text, sizeof case_text, "%s n %" PRId64, name, n);
    unary_of(scalar(), which)(x, want, n);
    for (int t = 0; tier(t); t++) {
        float *y = guarded(AREA_GOT, n);
        unary_of(tier(t), which)(x, y, n);
        expect_rows(tier(t)->name, y, 1, n, n, want, n);
        y = guarded(AREA_GOT, n);
        memcpy(y, x, (size_t)n * sizeof *y);
        unary_of(tier(t), which)(y, y, n);
        expect_rows(tier(t)->name, y, 1, n, n, want, n);
    }
}

static void unary_tests(void)
{
    static const char *const names[] = {"exp", "erf", "tanh", "sigmoid", "softmax", "log_softmax"};
    for (int which = 0; which < 6; which++) {
        for (int64_t n = 0; n <= 300; n++) {
            unary_case(which, names[which], n, false);
            unary_case(which, names[which], n, which < 4);
        }
        tap_case(names[which]);
    }
}

static void activation_tests(void)
{
    for (int kind = TERSE_ACT_NONE; kind <= TERSE_ACT_SWISH; kind++) {
        for (int64_t n = 0; n <= 300; n++) {
            terse_activation f = random_activation();
            f.kind = (terse_activation_kind)kind;
            if (random_in(0, 20) == 0)
                f.alpha = NAN;
            float *x = input_of(AREA_X, n, n % 2), *want = guarded(AREA_WANT, n);
            snprintf(case_text, sizeof case_text, "activation %d n %" PRId64, kind, n);
            scalar()->activate_f32(x, want, n, f);
            for (int t = 0; tier(t); t++) {
                float *y = guarded(AREA_GOT, n);
                tier(t)->activate_f32(x, y, n, f);
                expect_rows(tier(t)->name, y, 1, n, n, want, n);
            }
        }
    }
    tap_case("activations");
    static const float clip_nan[1] = {NAN};
    float y[1] = {0.0f};
    for (int kind = TERSE_ACT_NONE; kind <= TERSE_ACT_SWISH; kind++) {
        scalar()->activate_f32(clip_nan, y, 1, (terse_activation){(terse_activation_kind)kind, 0.25f, 0.5f});
        if (!isnan(y[0]))
            case_error("activation %d turned NaN into %g", kind, (double)y[0]);
    }
    tap_case("activations keep NaN");
}

static void binary_tests(void)
{
    static const char *const names[] = {"add", "sub", "mul", "div"};
    for (int which = 0; which < 4; which++) {
        for (int64_t n = 0; n <= 300; n++) {
            int64_t stride_a = random_in(0, 1), stride_b = random_in(0, 2) > 0;
            float *a = input_of(AREA_X, stride_a ? n : 1, n % 2), *b = input_of(AREA_Y, stride_b ? n : 1, n % 2);
            float *want = guarded(AREA_WANT, n);
            snprintf(case_text, sizeof case_text, "%s n %" PRId64 " strides %d %d", names[which], n, (int)stride_a,
                     (int)stride_b);
            binary_of(scalar(), which)(a, stride_a, b, stride_b, want, n);
            for (int t = 0; tier(t); t++) {
                float *y = guarded(AREA_GOT, n);
                binary_of(tier(t), which)(a, stride_a, b, stride_b, y, n);
                expect_rows(tier(t)->name, y, 1, n, n, want, n);
            }
        }
        tap_case(names[which]);
    }
}

static void reduction_tests(void)
{
    for (int64_t n = 0; n <= 600; n++) {
        float *x = input_of(AREA_X, n, n % 3 == 0);
        for (int64_t i = 0; n % 3 == 0 && n % 2 && i < n; i++)
            x[i] = isfinite(x[i]) ? x[i] : -0.0f;
        float want[2] = {scalar()->sum_f32(x, n), scalar()->max_f32(x, n)};
        for (int t = 0; tier(t); t++) {
            float got[2] = {tier(t)->sum_f32(x, n), tier(t)->max_f32(x, n)};
            for (int i = 0; i < 2; i++)
                if (!same(got[i], want[i]))
                    case_error("%s %s n %" PRId64 ": %.9g, scalar %.9g", tier(t)->name, i ? "max" : "sum", n,
                               (double)got[i], (double)want[i]);
        }
    }
    tap_case("sum and max");
}

static void layer_norm_tests(void)
{
    for (int64_t n = 1; n <= 300; n++) {
        float *x = input_of(AREA_X, n, n % 16 == 0), *scale = input_of(AREA_SCALE, n, false);
        float *bias = random_in(0, 2) ? input_of(AREA_BIAS, n, false) : NULL, *want = guarded(AREA_WANT, n);
        float stats[2], got[2];
        scalar()->layer_norm_f32(x, scale, bias, 1e-5f, want, n, &stats[0], &stats[1]);
        snprintf(case_text, sizeof case_text, "layer_norm n %" PRId64, n);
        for (int t = 0; tier(t); t++) {
            float *y = guarded(AREA_GOT, n);
            tier(t)->layer_norm_f32(x, scale, bias, 1e-5f, y, n, &got[0], &got[1]);
            expect_rows(tier(t)->name, y, 1, n, n, want, n);
            if (!same(got[0], stats[0]) || !same(got[1], stats[1]))
                case_error("%s: mean %g and 1/std %g, scalar %g and %g", tier(t)->name, (double)got[0], (double)got[1],
                           (double)stats[0], (double)stats[1]);
        }
    }
    tap_case("layer_norm");
}

static void transpose_case(int64_t rows, int64_t columns)
{
    int64_t src_stride = columns + random_in(0, 1) * random_in(0, 9),
            dst_stride = rows + random_in(0, 1) * random_in(0, 9);
    float *src = guarded(AREA_X, (rows - 1) * src_stride + columns), *want = guarded(AREA_WANT, rows * columns);
    for (int64_t i = 0; i < (rows - 1) * src_stride + columns; i++)
        src[i] = from_bits((uint32_t)random_bits());
    snprintf(case_text, sizeof case_text, "transpose %" PRId64 " x %" PRId64, rows, columns);
    scalar()->transpose_32((const uint32_t *)(const void *)src, src_stride, (uint32_t *)(void *)want, rows, rows,
                           columns);
    for (int t = 0; tier(t); t++) {
        float *dst = guarded(AREA_GOT, (columns - 1) * dst_stride + rows);
        tier(t)->transpose_32((const uint32_t *)(const void *)src, src_stride, (uint32_t *)(void *)dst, dst_stride,
                              rows, columns);
        expect_rows(tier(t)->name, dst, columns, rows, dst_stride, want, rows);
        for (int64_t c = 0; c < columns; c++)
            if (memcmp(dst + c * dst_stride, want + c * rows, (size_t)rows * sizeof *dst) != 0)
                case_error("%s changed bits in column %" PRId64, tier(t)->name, c);
    }
}

static void pack_case(int64_t k, int64_t n)
{
    int64_t strides[3][2] = {{n + random_in(0, 5), 1}, {1, k + random_in(0, 5)}, {3 * n, 3}};
    for (int i = 0; i < 3; i++) {
        int64_t sk = strides[i][0], sn = strides[i][1], floats = (k - 1) * sk + (n - 1) * sn + 1;
        int64_t packed = (n + 15) / 16 * 16 * k;
        float *b = input_of(AREA_X, floats, true), *want = guarded(AREA_WANT, packed);
        snprintf(case_text, sizeof case_text, "pack k %" PRId64 " n %" PRId64 " strides %d", k, n, i);
        scalar()->pack_n16_f32(b, sk, sn, k, n, want);
        for (int t = 0; tier(t); t++) {
            float *y = guarded(AREA_GOT, packed);
            tier(t)->pack_n16_f32(b, sk, sn, k, n, y);
            expect_rows(tier(t)->name, y, 1, packed, packed, want, packed);
        }
    }
}

static void move_tests(void)
{
    for (int64_t rows = 1; rows <= 50; rows++)
        for (int64_t columns = 1; columns <= 50; columns += random_in(1, 4))
            transpose_case(rows, columns);
    for (int i = 0; i < 20; i++)
        transpose_case(random_in(1, 300), random_in(1, 300));
    for (int64_t rows = 510; rows <= 514; rows++) /* planes of pixels are written in parts */
        transpose_case(rows * 2, random_in(1, 50));
    tap_case("transpose_32");
    for (int64_t k = 1; k <= 40; k += random_in(1, 2))
        for (int64_t n = 1; n <= 50; n += random_in(1, 3))
            pack_case(k, n);
    pack_case(300, 299);
    tap_case("pack_n16_f32");
}

static double sigmoid_of(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static void accuracy_of(const char *name, unary_function *f, double (*truth)(double), double bound)
{
    double worst = 0.0;
    float worst_at = 0.0f;
    uint64_t step = (uint64_t)random_in(1000, 1500);
    for (uint64_t i = 0; i <= UINT32_MAX; i += step) {
        float x = from_bits((uint32_t)i), y;
        f(&x, &y, 1);
        double want = truth((double)x);
        if (isnan(want) || isnan(y)) {
            if (isnan(want) != isnan(y))
                case_error("%s(%g) is %g", name, (double)x, (double)y);
            continue;
        }
        if (fabs(want) > 3.4028235e38) {
            if (!(fabsf(y) > 3.4e38f))
                case_error("%s(%g) is %g", name, (double)x, (double)y);
            continue;
        }
        double ulp = ldexp(1.0, ilogb(fabs(want) < 1.1754944e-38 ? 1.1754944e-38 : want) - 23);
        double error = fabs((double)y - want) / ulp;
        if (error > worst) {
            worst = error;
            worst_at = x;
        }
    }
    printf("# %s: at most %.2f ulp, at %g\n", name, worst, (double)worst_at);
    if (worst > bound)
        case_error("%s is %.2f ulp off at %g, allowed %.2f", name, worst, (double)worst_at, bound);
}

static void accuracy_tests(void)
{
    snprintf(case_text, sizeof case_text, "accuracy");
    accuracy_of("exp", scalar()->exp_f32, exp, 1.0);
    accuracy_of("erf", scalar()->erf_f32, erf, 1.0);
    accuracy_of("tanh", scalar()->tanh_f32, tanh, 2.0);
    accuracy_of("sigmoid", scalar()->sigmoid_f32, sigmoid_of, 2.5);
    tap_case("exp, erf, tanh and sigmoid are as accurate as promised");
}

static void tests(void)
{
    unary_tests();
    activation_tests();
    binary_tests();
    reduction_tests();
    layer_norm_tests();
    move_tests();
    accuracy_tests();
}

static float *timed_input(int area, int64_t n)
{
    float *x = timed(area, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = random_float() * 20.0f;
    return x;
}

static void bench_moves(const terse_kernels *k)
{
    static const int64_t sizes[][2] = {{3, 50176}, {1000, 169}, {128, 384}, {32, 128}, {512, 512}};
    double best;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t rows = sizes[i][0], columns = sizes[i][1];
        float *src = timed_input(AREA_X, rows * columns), *dst = timed(AREA_GOT, (rows + 15) * (columns + 15));
        BEST_OF(0.02, best,
                k->transpose_32((const uint32_t *)(const void *)src, columns, (uint32_t *)(void *)dst, rows, rows,
                                columns));
        printf("%-10s transpose %4d x %5d %9.1f us %6.1f GB/s\n", k->name, (int)rows, (int)columns, best * 1e6,
               4e-9 * (double)(rows * columns) / best);
        BEST_OF(0.02, best, k->pack_n16_f32(src, columns, 1, rows, columns, dst));
        printf("%-10s pack [K,N]  %4d x %5d %9.1f us %6.1f GB/s\n", k->name, (int)rows, (int)columns, best * 1e6,
               4e-9 * (double)(rows * columns) / best);
        BEST_OF(0.02, best, k->pack_n16_f32(src, 1, columns, columns, rows, dst));
        printf("%-10s pack [N,K]  %4d x %5d %9.1f us %6.1f GB/s\n", k->name, (int)rows, (int)columns, best * 1e6,
               4e-9 * (double)(rows * columns) / best);
    }
}

static void bench(void)
{
    static const char *const names[] = {"exp", "erf", "tanh", "sigmoid", "softmax", "log_softmax"};
    enum { N = 4096 };
    for (int t = 0; tier(t); t++) {
        const terse_kernels *k = tier(t);
        float *x = timed_input(AREA_X, N), *y = timed(AREA_GOT, N), *b = timed_input(AREA_Y, N);
        double best;
        for (int which = 0; which < 6; which++) {
            BEST_OF(0.02, best, unary_of(k, which)(x, y, N));
            printf("%-10s %-11s %6.3f ns per element\n", k->name, names[which], best * 1e9 / N);
        }
        for (int kind = TERSE_ACT_CLIP; kind <= TERSE_ACT_SWISH; kind++) {
            BEST_OF(0.02, best, k->activate_f32(x, y, N, (terse_activation){(terse_activation_kind)kind, 0.0f, 6.0f}));
            printf("%-10s activation %d %6.3f ns per element\n", k->name, kind, best * 1e9 / N);
        }
        BEST_OF(0.02, best, k->add_f32(x, 1, b, 1, y, N));
        printf("%-10s add         %6.3f ns per element\n", k->name, best * 1e9 / N);
        BEST_OF(0.02, best, k->layer_norm_f32(x, b, b, 1e-5f, y, 384, NULL, NULL));
        printf("%-10s layer_norm  %6.3f ns per element of 384\n", k->name, best * 1e9 / 384);
        BEST_OF(0.02, best, k->softmax_f32(x, y, 128));
        printf("%-10s softmax     %6.3f ns per element of 128\n", k->name, best * 1e9 / 128);
        bench_moves(k);
    }
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
