/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels beside a peer, in turn in one process on the core that it is pinned to: sample of ours, sample of theirs,
 * again and again. A row is the median of the ratios of neighbours, so a clock that moves touches both alike.
 * TERSE_ISA names the tier, OPENBLAS_CORETYPE OpenBLAS' kernels. One JSON object per line.
 *
 * usage: beside peaks   products and reads per second of this core
 *        beside u8s8    products of bytes with their epilogue beside the VNNI peak; one row beside reading the weights
 *        beside f32     packed fp32 products beside OpenBLAS */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/kernels/kernels.h"
#include "tests/bench/peak.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
enum { SAMPLES = 400 };

/* What is timed: `call` runs `repeats` times per sample. */
typedef struct side {
    void (*call)(const void *argument);
    const void *argument;
    int repeats;
} side;

typedef struct outcome {
    double ours, theirs, ratio; /* seconds of one call; theirs / ours */
    int samples;
} outcome;

static double sample(const side *s)
{
    const double start = peak_now();
    for (int i = 0; i < s->repeats; i++)
        s->call(s->argument);
    return (peak_now() - start) / s->repeats;
}

/* As many repeats as make a sample of `least` seconds. */
static void calibrate(side *s, double least)
{
    for (s->repeats = 1; s->repeats < 1 << 20; s->repeats *= 2) {
        sample(s);
        const double spent = sample(s) * s->repeats;
        if (spent >= least)
            break;
        if (spent * 4 < least)
            s->repeats *= 2;
    }
}

/* Samples as long as the other side's: a pause of the core must be as likely in both. */
static void calibrate_like(side *s, const side *other)
{
    double least = 1e9;
    for (int i = 0; i < 5; i++) {
        const double spent = sample(other) * other->repeats;
        least = spent < least ? spent : least;
    }
    s->repeats = 64;
    const double each = sample(s);
    s->repeats = least / each < 1 ? 1 : (int)(least / each + 0.5);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static outcome alternate(const side *ours, const side *theirs, double seconds)
{
    static double us[SAMPLES], them[SAMPLES], ratio[SAMPLES];
    int n = 0;
    for (const double end = peak_now() + seconds; n < SAMPLES && (n < 9 || peak_now() < end); n++) {
        them[n] = sample(theirs);
        us[n] = sample(ours);
        ratio[n] = them[n] / us[n];
    }
    return (outcome){median(us, n), median(them, n), median(ratio, n), n};
}

static void *memory(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 4095) / 4096 * 4096 + 4096);
    if (!p) {
        fprintf(stderr, "beside: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return p;
}

static uint32_t random_32(void)
{
    static uint32_t state = 12345; /* always the same numbers */
    return state = state * 1664525u + 1013904223u;
}

static void *random_bytes(size_t n)
{
    uint8_t *p = memory(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(random_32() >> 24);
    return p;
}

static float *random_floats(size_t n)
{
    float *p = memory(n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(int32_t)random_32() * 0x1p-31f;
    return p;
}

static const terse_kernels *kernels_of_environment(void)
{
    const terse_kernels *kernels;
    terse_error error;
    if (terse_kernels_get(&kernels, &error)) {
        fprintf(stderr, "beside: %s\n", error.message);
        exit(1);
    }
    return kernels;
}

/* --- peaks ------------------------------------------------------------------------------------------------------- */

static double best_rate(peak_kind kind)
{
    double best = 0;
    for (int attempt = 0; attempt < 9 && peak_has(kind); attempt++) {
        const double start = peak_now(), done = peak_burst(kind, 400000), rate = done / (peak_now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* Bytes per second of the best of many passes over the same `bytes`. */
static double read_rate(const uint8_t *data, size_t bytes)
{
    double best = 1;
    const double begin = peak_now();
    for (int pass = 0; pass < 5 || peak_now() - begin < 0.2; pass++) {
        const double start = peak_now();
        peak_read(data, bytes, pass % 2);
        const double spent = peak_now() - start;
        best = spent < best ? spent : best;
    }
    return (double)bytes / best;
}

static size_t half_of_l2(void)
{
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return (size_t)(l2 > 0 ? l2 : 1 << 20) / 2;
}

static void peaks(void)
{
    if (!peak_has(PEAK_FMA)) {
        printf("{}\n");
        return;
    }
    /* A virtual machine may state the third-level cache of the whole host: 12 MB are in it, 256 MB are in none. */
    const size_t in_l2 = half_of_l2(), in_l3 = (size_t)12 << 20, in_memory = (size_t)256 << 20;
    uint8_t *data = memory(in_memory);
    memset(data, 1, in_memory);
    printf("{\"fma_flops\": %.4g, \"vnni_ops\": %.4g, \"bf16_flops\": %.4g, ", best_rate(PEAK_FMA),
           best_rate(PEAK_VNNI), best_rate(PEAK_BF16));
    printf("\"l2_rate\": %.4g, \"l3_rate\": %.4g, \"memory_rate\": %.4g}\n", read_rate(data, in_l2),
           read_rate(data, in_l3), read_rate(data, in_memory));
    free(data);
}

/* --- products of bytes ------------------------------------------------------------------------------------------- */

typedef struct bytes_call {
    const terse_kernels *kernels;
    terse_gemm_u8s8_args args;
} bytes_call;

static void call_u8s8(const void *argument)
{
    const bytes_call *c = argument;
    c->kernels->gemm_u8s8(&c->args);
}

static void call_vnni(const void *argument)
{
    (void)argument;
    peak_burst(PEAK_VNNI, 100);
}

typedef struct reading {
    const uint8_t *data;
    size_t bytes;
    bool ahead;
} reading;

static void call_read(const void *argument)
{
    const reading *r = argument;
    peak_read(r->data, r->bytes, r->ahead);
}

/* The faster of two ways to read the same bytes. */
static side best_reading(reading ways[2])
{
    side sides[2];
    double best[2] = {1e9, 1e9};
    for (int way = 0; way < 2; way++) {
        sides[way] = (side){call_read, &ways[way], 1};
        calibrate(&sides[way], 1e-4);
    }
    for (int i = 0; i < 20; i++) {
        const double spent = sample(&sides[i % 2]);
        best[i % 2] = spent < best[i % 2] ? spent : best[i % 2];
    }
    return sides[best[1] < best[0]];
}

static void u8s8_row(const terse_kernels *kernels, int64_t m, int64_t n, int64_t k)
{
    const size_t columns = (size_t)(n + 15) / 16 * 16, weights = columns * ((size_t)(k + 3) / 4 * 4);
    uint8_t *a = random_bytes((size_t)(m * k)), *b = random_bytes((weights + 511) / 512 * 512);
    uint8_t *c = memory((size_t)(m * n));
    int32_t *bias = memory((size_t)n * 4);
    float *multiplier = memory((size_t)n * 4), *low = memory((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) {
        bias[i] = (int32_t)random_32() >> 14;
        multiplier[i] = (1.0f + (float)(random_32() >> 8) * 0x1p-24f) / (float)(k * 64);
        low[i] = multiplier[i] * 0x1p-26f;
    }
    bytes_call call = {kernels, {.m = m, .n = n, .k = k, .a = a, .lda = k, .b = (int8_t *)b, .c = c, .ldc = n}};
    call.args.requantize = (terse_requantize){
        .bias = bias, .multiplier = multiplier, .multiplier_low = low, .zero_point = 117, .high = 255};
    side ours = {call_u8s8, &call, 1};
    calibrate(&ours, 5e-5);
    outcome o;
    const char *peer = "vnni";
    if (m == 1) {
        reading ways[2] = {{b, (weights + 511) / 512 * 512, false}, {b, (weights + 511) / 512 * 512, true}};
        const side theirs = best_reading(ways);
        o = alternate(&ours, &theirs, 0.2);
        peer = weights <= half_of_l2() * 3 / 2 ? "L2" : weights <= (size_t)12 << 20 ? "L3" : "memory";
    } else {
        side theirs = {call_vnni, NULL, 1};
        calibrate_like(&theirs, &ours);
        o = alternate(&ours, &theirs, 0.1);
        o.ratio *= 2.0 * (double)(m * n * k) / peak_burst(PEAK_VNNI, 100);
    }
    printf("{\"m\": %d, \"n\": %d, \"k\": %d, \"peer\": \"%s\", \"us\": %.3f, \"ratio\": %.4f, \"samples\": %d, "
           "\"tier\": \"%s\"}\n",
           (int)m, (int)n, (int)k, peer, o.ours * 1e6, o.ratio, o.samples, kernels->name);
    fflush(stdout);
    free(a), free(b), free(c), free(bias), free(multiplier), free(low);
}

static void u8s8(void)
{
    static const int64_t rows[] = {12, 13, 15, 16, 17, 24, 28, 31, 49, 64, 100, 128, 196, 256, 784};
    static const int64_t sizes[][2] = {{64, 256},   {256, 256},   {100, 300},   {512, 512}, {512, 784},
                                       {384, 1536}, {1024, 1024}, {1000, 2048}, {512, 4608}};
    static const int64_t single[][2] = {{512, 784},   {512, 512},   {1024, 512},  {1536, 384}, {1024, 1024},
                                        {1000, 2048}, {4096, 1024}, {3072, 3072}, {8192, 8192}};
    const terse_kernels *kernels = kernels_of_environment();
    if (!peak_has(PEAK_VNNI))
        return;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t r = 0; r < COUNT(rows); r++)
            u8s8_row(kernels, rows[r], sizes[i][0], sizes[i][1]);
    for (size_t i = 0; i < COUNT(single); i++)
        u8s8_row(kernels, 1, single[i][0], single[i][1]);
}

/* --- fp32 beside OpenBLAS ---------------------------------------------------------------------------------------- */

typedef struct floats_call {
    const terse_kernels *kernels;
    terse_gemm_f32_args args;
    const float *plain; /* the weights as OpenBLAS takes them: [K][N] or [N][K] */
} floats_call;

static void call_f32(const void *argument)
{
    const floats_call *c = argument;
    c->kernels->gemm_f32(&c->args);
}

static void call_sgemm(const void *argument)
{
    const floats_call *c = argument;
    const int m = (int)c->args.m, n = (int)c->args.n, k = (int)c->args.k;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, c->args.a, k, c->plain, n, 0, c->args.c, n);
}

static void call_sgemm_transposed(const void *argument)
{
    const floats_call *c = argument;
    const int m = (int)c->args.m, n = (int)c->args.n, k = (int)c->args.k;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, c->args.a, k, c->plain, k, 0, c->args.c, n);
}

static void call_sgemv(const void *argument)
{
    const floats_call *c = argument;
    const int n = (int)c->args.n, k = (int)c->args.k;
    cblas_sgemv(CblasRowMajor, CblasTrans, k, n, 1, c->plain, n, c->args.a, 1, 0, c->args.c, 1);
}

static void call_sgemv_transposed(const void *argument)
{
    const floats_call *c = argument;
    const int n = (int)c->args.n, k = (int)c->args.k;
    cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, c->plain, k, c->args.a, 1, 0, c->args.c, 1);
}

/* OpenBLAS' fastest way to the same product. */
static side best_of_openblas(const floats_call *call, const char **ret_name)
{
    static const struct {
        void (*call)(const void *argument);
        const char *name;
    } ways[] = {{call_sgemm, "sgemm"},
                {call_sgemm_transposed, "sgemm, weights transposed"},
                {call_sgemv, "sgemv"},
                {call_sgemv_transposed, "sgemv, weights transposed"}};
    side best_side = {0};
    double best = 1e9;
    for (size_t way = 0; way < (call->args.m == 1 ? 4 : 2); way++) {
        side s = {ways[way].call, call, 1};
        calibrate(&s, 2e-5);
        double times[7];
        for (size_t i = 0; i < COUNT(times); i++)
            times[i] = sample(&s);
        const double middle = median(times, COUNT(times));
        if (middle < best) {
            best = middle;
            best_side = s;
            *ret_name = ways[way].name;
        }
    }
    return best_side;
}

static void f32_row(const terse_kernels *kernels, int64_t m, int64_t n, int64_t k)
{
    const size_t columns = (size_t)(n + 15) / 16 * 16;
    float *a = random_floats((size_t)(m * k)), *b = random_floats(columns * (size_t)k);
    float *c = memory((size_t)(m * n) * sizeof *c), *plain = random_floats((size_t)(n * k));
    const terse_gemm_f32_args args = {.m = m, .n = n, .k = k, .a = a, .lda = k, .b = b, .c = c, .ldc = n};
    const floats_call call = {kernels, args, plain};
    const char *name = NULL;
    side ours = {call_f32, &call, 1};
    calibrate(&ours, 2e-5);
    const side theirs = best_of_openblas(&call, &name);
    const outcome o = alternate(&ours, &theirs, 0.08);
    printf("{\"m\": %d, \"n\": %d, \"k\": %d, \"us\": %.3f, \"theirs_us\": %.3f, \"ratio\": %.4f, \"samples\": %d, "
           "\"tier\": \"%s\", \"core\": \"%s\", \"by\": \"%s\"}\n",
           (int)m, (int)n, (int)k, o.ours * 1e6, o.theirs * 1e6, o.ratio, o.samples, kernels->name,
           openblas_get_corename(), name);
    fflush(stdout);
    free(a), free(b), free(c), free(plain);
}

static void f32(void)
{
    static const int64_t rows[] = {1, 2, 3, 5, 6, 7, 8, 12, 13, 16, 24, 31, 32, 48, 64, 100, 128, 256, 512};
    static const int64_t sizes[][2] = {{64, 256}, {128, 32}, {32, 128}, {512, 512}, {1000, 2048}, {4096, 1024}};
    openblas_set_num_threads(1);
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t r = 0; r < COUNT(rows); r++)
            f32_row(kernels_of_environment(), rows[r], sizes[i][0], sizes[i][1]);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "peaks") == 0) {
        peaks();
    } else if (argc == 2 && strcmp(argv[1], "u8s8") == 0) {
        u8s8();
    } else if (argc == 2 && strcmp(argv[1], "f32") == 0) {
        f32();
    } else {
        fprintf(stderr, "usage: beside peaks|u8s8|f32\n");
        return 2;
    }
    return 0;
}
