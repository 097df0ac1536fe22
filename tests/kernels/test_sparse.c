/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_u8s8 and sparse_f32: every tier gives what the scalar tier gives, and that is what the dense kernels make of
 * the same weights with their zeros; what is packed is unpacked again. */
#include "requantize.h"

#include "common/sparse.h"

enum { MATRIX, CONVOLUTION };

static terse_conv_u8s8_args conv;
static terse_conv_f32_args conv_f32;
static terse_sparse weights;

#if defined(__x86_64__)
/* What the tier avx512vnni takes on CPUs without VBMI. */
void terse_sparse_u8s8_avx512quarters(const terse_sparse_u8s8_args *args);
static bool quarters;
#endif

static void run_u8(const terse_kernels *kernels, terse_requantize *to, void *output, int64_t stride)
{
    terse_sparse_u8s8_args args = {conv, weights};
    args.conv.requantize = *to;
    args.conv.output = output;
    args.conv.out_stride = stride;
    args.conv.scratch = guarded_scratch(AREA_SCRATCH, kernels->sparse_u8s8_scratch(&args));
#if defined(__x86_64__)
    if (quarters && kernels->isa == TERSE_ISA_AVX512VNNI) {
        terse_sparse_u8s8_avx512quarters(&args);
        return;
    }
#endif
    kernels->sparse_u8s8(&args);
}

/* `kept` of a thousand blocks, in some groups none or all; values any, single zeros among them. */
static void random_blocks(int kind, int64_t k, int64_t n, int kept, int8_t *w, float *floats)
{
    for (int64_t group = 0; group < n; group += 4) {
        const int64_t here = random_in(0, 7) ? kept : 1000 * random_in(0, 1);
        for (int64_t row = 0; row < k; row++) {
            const bool keep = random_in(1, 1000) <= here;
            for (int64_t column = group; column < group + 4 && column < n; column++) {
                w[column * k + row] = keep ? random_s8(kind) : 0;
                if (floats)
                    floats[column * k + row] = keep && random_in(0, 9) ? random_float() : 0.0f;
            }
        }
    }
}

static void set_weights(terse_layout layout, const void *w, int64_t k, int64_t n, int area)
{
    const size_t size = layout == TERSE_LAYOUT_S8_4X1 ? 1 : 4;
    size_t bytes;
    terse_error error;
    void *packed = terse_sparse_pack(layout, w, k, n, &bytes);
    void *back = malloc((size_t)(k * n) * size + 1);
    if (!packed || !back)
        exit(1);
    if (terse_sparse_check(layout, size == 1 ? TERSE_INT8 : TERSE_FP32, 2, (int64_t[]){k, n}, packed, bytes, &error))
        case_error("packed weights are refused: %s", error.message);
    terse_sparse_unpack(layout, packed, k, n, back);
    for (int64_t i = 0; i < k * n; i++)
        if (size == 1 ? ((int8_t *)back)[i] != ((const int8_t *)w)[i] : ((float *)back)[i] != ((const float *)w)[i])
            case_error("row %d of column %d is another one when unpacked", (int)(i % k), (int)(i / k));
    uint8_t *to = guarded_scratch(area, bytes); /* ends at the forbidden page: bytes are a multiple of 64 */
    memcpy(to, packed, bytes);
    weights = terse_sparse_view(layout, n, to);
    free(packed);
    free(back);
}

static int64_t rows_of_k(void)
{
    return conv.channels * conv.kernel[0] * conv.kernel[1] * conv.kernel[2];
}

/* The dense scalar kernel with the same weights, in panels. */
static void check_dense_u8(const int8_t *w, const terse_requantize *given, int64_t pixels)
{
    const int64_t k = rows_of_k(), n = conv.filters, row = conv.kernel[2] * conv.channels, steps = (row + 3) / 4;
    const int64_t rows = conv.kernel[0] * conv.kernel[1], size = element_bytes(given);
    int8_t *panels = calloc((size_t)((n + 15) / 16 * rows * steps), 64);
    uint8_t *dense = malloc((size_t)(pixels * n * size)), *sparse = malloc((size_t)(pixels * n * size));
    if (!panels || !dense || !sparse)
        exit(1);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            panels[((j / 16 * rows + i / row) * steps + i % row / 4) * 64 + j % 16 * 4 + i % row % 4] = w[j * k + i];
    terse_conv_u8s8_args args = conv;
    args.weights = panels;
    args.requantize = *given;
    args.output = dense;
    args.out_stride = n;
    terse_kernels_of(TERSE_ISA_SCALAR)->conv_u8s8(&args);
    terse_requantize to = *given;
    run_u8(terse_kernels_of(TERSE_ISA_SCALAR), &to, sparse, n);
    if (memcmp(dense, sparse, (size_t)(pixels * n * size)) != 0)
        case_error("the sparse product is not the dense one");
    free(panels);
    free(dense);
    free(sparse);
}

static void set_matrix(int64_t m, int64_t n, int64_t k)
{
    conv = (terse_conv_u8s8_args){.n = 1,
                                  .channels = k,
                                  .filters = n,
                                  .groups = 1,
                                  .in = {1, 1, m},
                                  .out = {1, 1, m},
                                  .kernel = {1, 1, 1},
                                  .stride = {1, 1, 1},
                                  .dilation = {1, 1, 1}};
}

static bool set_convolution(int64_t most_channels, int64_t most_size)
{
    const int rank = (int)random_in(1, 3);
    conv = (terse_conv_u8s8_args){.n = random_in(1, 3),
                                  .channels = random_in(1, most_channels),
                                  .filters = random_in(1, 50),
                                  .groups = 1,
                                  .x_zero_point = (uint8_t)random_in(0, 255)};
    for (int axis = 0; axis < 3; axis++) {
        const bool used = axis >= 3 - rank;
        conv.in[axis] = used ? random_in(1, most_size) : 1;
        conv.kernel[axis] = used ? random_in(1, 3) : 1;
        conv.stride[axis] = used ? random_in(1, 2) : 1;
        conv.dilation[axis] = used && random_in(0, 3) == 0 ? 2 : 1;
        conv.pad[axis] = used ? random_in(0, 2) : 0;
        const int64_t span = (conv.kernel[axis] - 1) * conv.dilation[axis] + 1;
        const int64_t room = conv.in[axis] + conv.pad[axis] + random_in(0, conv.pad[axis]) - span;
        if (room < 0)
            return false;
        conv.out[axis] = room / conv.stride[axis] + 1;
    }
    return true;
}

/* Images of two axes, large enough to be taken apart into planes; `bands`: too large for one go. */
static bool set_image(bool bands)
{
    const int64_t channels = random_in(0, 2) ? random_in(16, 70) : random_in(1, 8);
    conv = (terse_conv_u8s8_args){.n = random_in(1, 2),
                                  .channels = bands ? random_in(40, 70) : channels,
                                  .filters = random_in(1, 70),
                                  .groups = 1,
                                  .in = {1, 1, 1},
                                  .out = {1, 1, 1},
                                  .kernel = {1, 1, 1},
                                  .stride = {1, 1, 1},
                                  .dilation = {1, 1, 1},
                                  .x_zero_point = (uint8_t)random_in(0, 255)};
    for (int axis = 1; axis < 3; axis++) {
        conv.in[axis] = bands ? random_in(70, 110) : random_in(8, 60);
        conv.kernel[axis] = random_in(1, channels < 9 && !bands ? 7 : 3);
        conv.stride[axis] = random_in(0, 2) ? 1 : random_in(2, 3);
        conv.dilation[axis] = random_in(0, 3) ? 1 : 2;
        conv.pad[axis] = random_in(0, 3);
        const int64_t span = (conv.kernel[axis] - 1) * conv.dilation[axis] + 1;
        const int64_t room = conv.in[axis] + conv.pad[axis] + random_in(0, 3) - span;
        if (room < 0)
            return false;
        conv.out[axis] = room / conv.stride[axis] + 1;
    }
    return true;
}

static int64_t in_pixels(void)
{
    return conv.n * conv.in[0] * conv.in[1] * conv.in[2];
}

static int64_t out_pixels(void)
{
    return conv.n * conv.out[0] * conv.out[1] * conv.out[2];
}

static int describe_conv(int kept)
{
    return snprintf(case_text, sizeof case_text,
                    "n %d C %d F %d in %d,%d,%d out %d,%d,%d k %d,%d,%d s %d,%d,%d d %d,%d,%d p %d,%d,%d stride %d "
                    "zero %d kept %d of 1000",
                    (int)conv.n, (int)conv.channels, (int)conv.filters, (int)conv.in[0], (int)conv.in[1],
                    (int)conv.in[2], (int)conv.out[0], (int)conv.out[1], (int)conv.out[2], (int)conv.kernel[0],
                    (int)conv.kernel[1], (int)conv.kernel[2], (int)conv.stride[0], (int)conv.stride[1],
                    (int)conv.stride[2], (int)conv.dilation[0], (int)conv.dilation[1], (int)conv.dilation[2],
                    (int)conv.pad[0], (int)conv.pad[1], (int)conv.pad[2], (int)conv.in_stride, conv.x_zero_point, kept);
}

static void case_u8(int kind, int kept)
{
    const int64_t k = rows_of_k(), n = conv.filters;
    conv.in_stride = conv.channels + random_in(0, 1) * random_in(0, 40);
    const int64_t count = (in_pixels() - 1) * conv.in_stride + conv.channels;
    uint8_t *input = guarded_bytes(AREA_A, count);
    for (int64_t i = 0; i < count; i++)
        input[i] = random_u8(kind);
    conv.input = input;
    int8_t *w = malloc((size_t)(k * n) + 1);
    if (!w)
        exit(1);
    random_blocks(kind, k, n, kept, w, NULL);
    terse_requantize to = random_requantize(kind, n, k);
    random_residual(&to, out_pixels(), n);
    describe(&to, describe_conv(kept));
    set_weights(TERSE_LAYOUT_S8_4X1, w, k, n, AREA_B);
    if (k * n * out_pixels() < 2000000)
        check_dense_u8(w, &to, out_pixels());
    each_tier(run_u8, &to, out_pixels(), n);
    free(w);
}

static void tests_u8(const char *which)
{
    static const int kinds[] = {ANY, EXTREMES, TIES};
    char name[100];
    for (int64_t m = 1; m <= 140; m++)
        for (int i = 0; i < (m <= 40 ? 8 : 2); i++) {
            set_matrix(m, random_in(1, 70), random_in(1, 300));
            case_u8(kinds[random_in(0, 2)], (int)random_in(0, 1000));
        }
    snprintf(name, sizeof name, "bytes%s: matrices of 1 to 140 rows", which);
    tap_case(name);
    for (int64_t k = 1; k <= 300; k += random_in(1, 2)) {
        set_matrix(random_in(1, 14), random_in(1, 40), k);
        case_u8(ANY, (int)random_in(1, 400));
    }
    snprintf(name, sizeof name, "bytes%s: K from 1 to 300", which);
    tap_case(name);
    for (int i = 0; i < 12; i++) {
        set_matrix(random_in(1, 300), random_in(1, 300), random_in(500, 5000));
        case_u8(ANY, (int)random_in(0, 60));
    }
    snprintf(name, sizeof name, "bytes%s: large ones with few blocks, windows far apart", which);
    tap_case(name);
    for (int done = 0; done < 250;)
        if (set_convolution(random_in(0, 1) ? 9 : 100, 9)) {
            case_u8(kinds[random_in(0, 2)], (int)random_in(0, 1000));
            done++;
        }
    snprintf(name, sizeof name, "bytes%s: convolutions of 1 to 3 axes", which);
    tap_case(name);
    for (int done = 0; done < 80;)
        if (set_image(done % 20 == 0)) {
            case_u8(kinds[random_in(0, 2)], (int)random_in(100, 1000));
            done++;
        }
    snprintf(name, sizeof name, "bytes%s: images of up to 110 x 110", which);
    tap_case(name);
}

/* --- floats ---------------------------------------------------------------------------------------------------------
 */

static void copy_geometry(void)
{
    conv_f32 = (terse_conv_f32_args){
        .n = conv.n, .channels = conv.channels, .filters = conv.filters, .groups = 1, .in_stride = conv.in_stride};
    memcpy(conv_f32.in, conv.in, sizeof conv.in);
    memcpy(conv_f32.out, conv.out, sizeof conv.out);
    memcpy(conv_f32.kernel, conv.kernel, sizeof conv.kernel);
    memcpy(conv_f32.stride, conv.stride, sizeof conv.stride);
    memcpy(conv_f32.dilation, conv.dilation, sizeof conv.dilation);
    memcpy(conv_f32.pad, conv.pad, sizeof conv.pad);
}

static void run_f32(const terse_kernels *kernels, float *output, int64_t stride)
{
    terse_sparse_f32_args args = {conv_f32, weights};
    args.conv.output = output;
    args.conv.out_stride = stride;
    args.conv.scratch = guarded_scratch(AREA_SCRATCH, kernels->sparse_f32_scratch(&args));
    kernels->sparse_f32(&args);
}

/* The dense kernel adds zeros as well, which changes no finite sum (but the sign of a zero). */
static void check_dense_f32(const float *w, const float *want, int64_t pixels)
{
    const int64_t k = rows_of_k(), n = conv.filters;
    float *panels = calloc((size_t)((n + 15) / 16 * 16 * k), sizeof *panels);
    float *dense = malloc((size_t)(pixels * n) * sizeof *dense);
    if (!panels || !dense)
        exit(1);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            panels[(j / 16 * k + i) * 16 + j % 16] = w[j * k + i];
    terse_conv_f32_args args = conv_f32;
    args.weights = panels;
    args.output = dense;
    args.out_stride = n;
    terse_kernels_of(TERSE_ISA_SCALAR)->conv_f32(&args);
    for (int64_t i = 0; i < pixels * n; i++)
        if (dense[i] != want[i]) {
            case_error("the sparse product is not the dense one: %.9g, dense %.9g", (double)want[i], (double)dense[i]);
            break;
        }
    free(panels);
    free(dense);
}

static void case_f32(int kept, int extreme_one_in)
{
    const int64_t k = rows_of_k(), n = conv.filters, pixels = out_pixels();
    conv.in_stride = conv.channels + random_in(0, 1) * random_in(0, 20);
    copy_geometry();
    const int64_t count = (in_pixels() - 1) * conv.in_stride + conv.channels;
    float *input = guarded(AREA_A, count);
    fill(input, count, extreme_one_in);
    conv_f32.input = input;
    int8_t *bytes = malloc((size_t)(k * n) + 1);
    float *w = malloc((size_t)(k * n) * sizeof *w + 1);
    if (!w || !bytes)
        exit(1);
    random_blocks(ANY, k, n, kept, bytes, w);
    set_weights(TERSE_LAYOUT_F32_4X1, w, k, n, AREA_B);
    if (random_in(0, 1)) {
        float *bias = guarded(AREA_COLUMNS, n);
        fill(bias, n, 0);
        conv_f32.bias = bias;
    }
    conv_f32.residual_stride = n + random_in(0, 9);
    if (random_in(0, 2) == 0) {
        float *residual = guarded(AREA_RESIDUAL, (pixels - 1) * conv_f32.residual_stride + n);
        fill(residual, (pixels - 1) * conv_f32.residual_stride + n, 0);
        conv_f32.residual = residual;
    }
    conv_f32.activation = random_activation();
    describe_conv(kept);
    float *want = guarded(AREA_WANT, pixels * n);
    run_f32(terse_kernels_of(TERSE_ISA_SCALAR), want, n);
    if (!extreme_one_in && k * n * pixels < 2000000)
        check_dense_f32(w, want, pixels);
    for (int t = 0; tier(t); t++) {
        const int64_t stride = n + random_in(0, 1) * random_in(0, 20);
        float *got = guarded(AREA_GOT, (pixels - 1) * stride + n);
        run_f32(tier(t), got, stride);
        expect_rows(tier(t)->name, got, pixels, n, stride, want, n);
    }
    free(bytes);
    free(w);
}

static void tests_f32(void)
{
    for (int64_t m = 1; m <= 70; m++)
        for (int i = 0; i < 3; i++) {
            set_matrix(m, random_in(1, 70), random_in(1, 300));
            case_f32((int)random_in(0, 1000), i == 2 ? 100 : 0);
        }
    tap_case("floats: matrices of 1 to 70 rows");
    for (int64_t k = 1; k <= 300; k += random_in(1, 3)) {
        set_matrix(random_in(1, 20), random_in(1, 40), k);
        case_f32((int)random_in(1, 400), 0);
    }
    for (int i = 0; i < 8; i++) {
        set_matrix(random_in(1, 100), random_in(1, 200), random_in(500, 4000));
        case_f32((int)random_in(0, 60), 0);
    }
    tap_case("floats: K from 1 to 300, large ones with few blocks");
    for (int done = 0; done < 200;)
        if (set_convolution(random_in(0, 1) ? 9 : 60, 8)) {
            case_f32((int)random_in(0, 1000), random_in(0, 3) ? 0 : 200);
            done++;
        }
    tap_case("floats: convolutions of 1 to 3 axes");
}

/* --- a row's bits ---------------------------------------------------------------------------------------------------
 */

/* Rows alone and among others. */
static void tests_alone(void)
{
    for (int i = 0; i < 40; i++) {
        const int64_t m = random_in(2, 60), n = random_in(1, 60), k = random_in(1, 200);
        set_matrix(m, n, k);
        conv.in_stride = k;
        copy_geometry();
        float *input = guarded(AREA_A, m * k), *w = malloc((size_t)(k * n) * sizeof *w);
        int8_t *bytes = malloc((size_t)(k * n));
        if (!w || !bytes)
            exit(1);
        fill(input, m * k, 0);
        random_blocks(ANY, k, n, 300, bytes, w);
        set_weights(TERSE_LAYOUT_F32_4X1, w, k, n, AREA_B);
        conv_f32.input = input;
        describe_conv(300);
        for (int t = 0; tier(t); t++) {
            conv_f32.in[2] = conv_f32.out[2] = m;
            conv_f32.input = input;
            float *all = guarded(AREA_WANT, m * n), *one = guarded(AREA_GOT, n);
            run_f32(tier(t), all, n);
            conv_f32.in[2] = conv_f32.out[2] = 1;
            for (int64_t r = 0; r < m; r++) {
                conv_f32.input = input + r * k;
                run_f32(tier(t), one, n);
                if (memcmp(one, all + r * n, (size_t)n * sizeof *one) != 0)
                    case_error("%s: row %d alone is another one", tier(t)->name, (int)r);
            }
        }
        free(w);
        free(bytes);
    }
    tap_case("floats: a row's bits do not depend on the others");
}

static void tests(void)
{
    tests_u8("");
#if defined(__x86_64__)
    quarters = terse_kernels_of(TERSE_ISA_AVX512VNNI) != NULL;
    if (quarters)
        tests_u8(" without VBMI");
    else
        tap(true, "bytes without VBMI # SKIP this CPU has no AVX512-VNNI");
    quarters = false;
#endif
    tests_f32();
    tests_alone();
}

/* --- bench (TERSE_ISA: of that tier alone)
 * ----------------------------------------------------------------------------------------------------------
 */

static void bench_one(int64_t m, int64_t n, int64_t k, int64_t side)
{
    int8_t *w = malloc((size_t)(k * side * side * n));
    float *floats = malloc((size_t)(k * side * side * n) * sizeof *floats);
    if (!w || !floats)
        exit(1);
    for (int t = 0; tier(t); t++) {
        const terse_kernels *kernels = tier(t);
        if (getenv("TERSE_ISA") && strcmp(getenv("TERSE_ISA"), tier(t)->name) != 0)
            continue;
        printf("%-10s m %5d n %4d k %4d %dx%d", tier(t)->name, (int)m, (int)n, (int)k, (int)side, (int)side);
        for (int kept = 1000; kept >= 100; kept = kept == 1000 ? 500 : kept == 500 ? 300 : kept - 100) {
            const int64_t edge = (int64_t)sqrt((double)m), all = k * side * side;
            set_matrix(m, n, k);
            if (side > 1) {
                conv.in[1] = conv.out[1] = conv.in[2] = conv.out[2] = edge;
                conv.kernel[1] = conv.kernel[2] = side;
                conv.pad[1] = conv.pad[2] = side / 2;
            }
            conv.in_stride = k;
            for (int64_t column = 0; column < n; column += 4)
                for (int64_t row = 0; row < all; row++) {
                    const bool keep = random_in(1, 1000) <= kept;
                    for (int i = 0; i < 4 && column + i < n; i++) {
                        w[(column + i) * all + row] = keep ? (int8_t)random_in(1, 127) : 0;
                        floats[(column + i) * all + row] = keep ? random_float() : 0.0f;
                    }
                }
            uint8_t *input = timed_bytes(AREA_A, m * k), *output = timed_bytes(AREA_GOT, m * n * 4);
            memset(input, 7, (size_t)(m * k));
            conv.input = input;
            terse_requantize to = plain_requantize(n, k, false, m);
            double bytes, single, dense;
            size_t size;
            void *packed = terse_sparse_pack(TERSE_LAYOUT_S8_4X1, w, all, n, &size);
            weights = terse_sparse_view(TERSE_LAYOUT_S8_4X1, n, packed);
            BEST_OF(0.03, bytes, run_u8(kernels, &to, output, n));
            const double padding =
                (double)weights.starts[terse_sparse_panels(n)] * 128 * 1000 / (double)(all * n * kept);
            free(packed);
            packed = terse_sparse_pack(TERSE_LAYOUT_F32_4X1, floats, all, n, &size);
            weights = terse_sparse_view(TERSE_LAYOUT_F32_4X1, n, packed);
            copy_geometry();
            float *in = timed(AREA_A, m * k);
            fill(in, m * k, 0);
            conv_f32.input = in;
            BEST_OF(0.03, single, run_f32(kernels, (float *)(void *)output, n));
            free(packed);
            if (kept == 1000) {
                terse_conv_u8s8_args d = conv;
                d.input = (const uint8_t *)(const void *)in;
                d.weights = timed_bytes(AREA_B, (n + 15) / 16 * 16 * side * (side * k + 3) / 4 * 4 + 4096);
                d.requantize = to;
                d.output = output;
                d.out_stride = n;
                d.scratch = guarded_scratch(AREA_SCRATCH, kernels->conv_u8s8_scratch(&d));
                BEST_OF(0.03, dense, kernels->conv_u8s8(&d));
                terse_conv_f32_args f = conv_f32;
                f.weights = timed(AREA_B, (n + 15) / 16 * 16 * side * side * k);
                memset((void *)(uintptr_t)f.weights, 0, (size_t)((n + 15) / 16 * 16 * side * side * k) * 4);
                f.output = (float *)(void *)output;
                f.out_stride = n;
                f.scratch = guarded_scratch(AREA_SCRATCH, kernels->conv_f32_scratch(&f));
                double dense_f32;
                BEST_OF(0.03, dense_f32, kernels->conv_f32(&f));
                printf("  dense %.1f %.1f us;", dense * 1e6, dense_f32 * 1e6);
            } else {
                printf("  %d%%: %.1f (x%.2f) %.1f", kept / 10, bytes * 1e6, padding, single * 1e6);
            }
        }
        printf("\n");
    }
    free(w);
    free(floats);
}

static void bench(void)
{
    printf("microseconds, bytes and floats, by blocks kept; x: steps in rows of K as stored over those kept\n");
    bench_one(256, 256, 256, 1);
    bench_one(1, 1024, 1024, 1);
    bench_one(8, 1024, 1024, 1);
    bench_one(196, 256, 256, 3);
    bench_one(3136, 64, 64, 3);
    bench_one(49, 512, 512, 3);
}

int main(int argc, char **argv)
{
    return harness_main(argc, argv, tests, bench);
}
