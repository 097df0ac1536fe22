/* SPDX-License-Identifier: Apache-2.0 */
/* harness.h: what the kernel tests share: every tier of this machine against the scalar tier, in buffers that end
 * at a page without access, with canaries before and between what may be written.
 * Plain C, TAP on stdout: the same programs run statically linked under an emulator.
 * usage: test_X [--seed N] [--bench] */
#ifndef TERSE_TESTS_KERNELS_HARNESS_H
#define TERSE_TESTS_KERNELS_HARNESS_H

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/kernels/kernels.h"

#define UNUSED __attribute__((unused))

enum { AREAS = 10, AREA_BYTES = 64 << 20, CANARY_FLOATS = 64 };
static const uint32_t CANARY = 0x7fa5c3e1u; /* a NaN that no kernel makes */

static uint64_t random_state;
static int tap_count, tap_failed, case_errors;
static char case_text[600];

static UNUSED uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}

/* low..high, both included */
static UNUSED int64_t random_in(int64_t low, int64_t high)
{
    return low + (int64_t)((random_bits() >> 20) % (uint64_t)(high - low + 1));
}

static UNUSED float random_float(void)
{
    return (float)(int64_t)(random_bits() >> 40) / 8388608.0f - 1.0f;
}

static UNUSED uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static UNUSED float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Any float at all: zeros, denormals, the largest, infinities and NaN among them. */
static UNUSED float random_extreme(void)
{
    static const float values[] = {0.0f, -0.0f, 1e-45f, -1e-40f, 1.17549435e-38f, 3.4e38f, -3.4e38f, 1.0f, -1.0f};
    switch (random_in(0, 9)) {
    case 0:
        return INFINITY;
    case 1:
        return -INFINITY;
    case 2:
        return NAN;
    case 3:
    case 4:
        return values[random_in(0, 8)];
    case 5:
        return from_bits((uint32_t)random_bits());
    default:
        return random_float() * 20.0f;
    }
}

/* `extreme_one_in`: 0 for small numbers only, n for an extreme one in n. */
static UNUSED void fill(float *p, int64_t n, int extreme_one_in)
{
    for (int64_t i = 0; i < n; i++)
        p[i] = extreme_one_in && random_in(1, extreme_one_in) == 1 ? random_extreme() : random_float();
}

static char *areas[AREAS];

static UNUSED void areas_init(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < AREAS; i++) {
        areas[i] = mmap(NULL, AREA_BYTES + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (areas[i] == MAP_FAILED || mprotect(areas[i] + AREA_BYTES, page, PROT_NONE) != 0) {
            printf("Bail out! cannot map %d bytes\n", AREA_BYTES);
            exit(1);
        }
    }
}

/* n floats that end at the forbidden page, canaries in them and before them. */
static UNUSED float *guarded(int area, int64_t n)
{
    float *p = (float *)(void *)(areas[area] + AREA_BYTES) - n;
    for (int64_t i = -CANARY_FLOATS; i < n; i++)
        memcpy(p + i, &CANARY, sizeof CANARY);
    return p;
}

/* For timing: at a multiple of 64 bytes and away from the forbidden page, which makes masked loads near it slow. */
static UNUSED float *timed(int area, int64_t n)
{
    return guarded(area, (n + 15) / 16 * 16 + 1024);
}

/* Bytes at a multiple of 64 that end less than 64 bytes before the forbidden page. */
static UNUSED void *guarded_scratch(int area, size_t bytes)
{
    size_t rounded = (bytes + 63) / 64 * 64;
    memset(areas[area] + AREA_BYTES - rounded, 0xa5, rounded);
    return areas[area] + AREA_BYTES - rounded;
}

static UNUSED void case_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void case_error(const char *format, ...)
{
    if (case_errors++ >= 5)
        return;
    va_list list;
    va_start(list, format);
    printf("# %s: ", case_text);
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

static UNUSED bool same(float a, float b)
{
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

/* Rows of `width` floats, `stride` apart: what was written equals `want` (dense or NULL), the rest is canary. */
static UNUSED void expect_rows(const char *tier, const float *got, int64_t rows, int64_t width, int64_t stride,
                               const float *want, int64_t want_stride)
{
    for (int64_t i = -CANARY_FLOATS; i < 0; i++)
        if (bits_of(got[i]) != CANARY) {
            case_error("%s wrote %" PRId64 " before the output", tier, -i);
            return;
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < (r + 1 < rows ? stride : width); j++) {
            float x = got[r * stride + j];
            if (j >= width && bits_of(x) != CANARY)
                case_error("%s wrote between rows, row %" PRId64 " column %" PRId64, tier, r, j);
            else if (j < width && (bits_of(x) == CANARY || !same(x, want[r * want_stride + j])))
                case_error("%s row %" PRId64 " column %" PRId64 ": %.9g (%08x), scalar %.9g (%08x)", tier, r, j,
                           (double)x, bits_of(x), (double)want[r * want_stride + j],
                           bits_of(want[r * want_stride + j]));
        }
}

/* Tiers of this machine other than the scalar one; index from 0, NULL after the last. */
static UNUSED const terse_kernels *tier(int index)
{
    for (int isa = TERSE_ISA_SCALAR + 1; isa < TERSE_ISA_COUNT; isa++) {
        const terse_kernels *kernels = terse_kernels_of((terse_isa)isa);
        if (kernels && index-- == 0)
            return kernels;
    }
    return NULL;
}

static UNUSED void tap(bool ok, const char *name)
{
    printf("%sok %d - %s\n", ok ? "" : "not ", ++tap_count, name);
    fflush(stdout);
    tap_failed += !ok;
    case_errors = 0;
}

static UNUSED void tap_case(const char *name)
{
    tap(case_errors == 0, name);
}

static UNUSED terse_activation random_activation(void)
{
    terse_activation f = {(terse_activation_kind)random_in(TERSE_ACT_NONE, TERSE_ACT_SWISH), 0.0f, INFINITY};
    if (random_in(0, 1))
        f.kind = TERSE_ACT_CLIP;
    if (random_in(0, 2) == 0) {
        f.alpha = random_float();
        f.beta = random_float() * 3.0f; /* below alpha at times: beta wins */
    }
    return f;
}

static UNUSED double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The shortest of many runs, in seconds. */
#define BEST_OF(budget, best, statement)                                                                               \
    do {                                                                                                               \
        double begin = seconds(), now = begin;                                                                         \
        best = 1e9;                                                                                                    \
        for (int run = 0; run < 5 || now - begin < (budget); run++) {                                                  \
            double start = seconds();                                                                                  \
            statement;                                                                                                 \
            now = seconds();                                                                                           \
            best = now - start < best ? now - start : best;                                                            \
        }                                                                                                              \
    } while (0)

typedef void test_function(void);

static UNUSED int harness_main(int argc, char **argv, test_function *tests, test_function *bench)
{
    uint64_t seed = (uint64_t)time(NULL);
    bool want_bench = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0) {
            want_bench = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 0);
        } else {
            fprintf(stderr, "usage: %s [--seed N] [--bench]\n", argv[0]);
            return 2;
        }
    }
    random_state = seed * 0x9e3779b97f4a7c15ull + 1;
    areas_init();
    if (want_bench) {
        bench();
        return 0;
    }
    printf("# seed %" PRIu64 ", tiers: scalar", seed);
    for (int i = 0; tier(i); i++)
        printf(" %s", tier(i)->name);
    printf("\n");
    tests();
    printf("1..%d\n", tap_count);
    return tap_failed != 0;
}

#endif
