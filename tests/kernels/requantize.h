/* SPDX-License-Identifier: Apache-2.0 */
/* requantize.h: what the tests of kernels on bytes share: guarded bytes, random requantization with ties and extremes,
 * and every tier against the scalar one. */
#ifndef TERSE_TESTS_KERNELS_REQUANTIZE_H
#define TERSE_TESTS_KERNELS_REQUANTIZE_H

#include "harness.h"

enum { AREA_A, AREA_B, AREA_COLUMNS, AREA_RESIDUAL, AREA_WANT, AREA_GOT, AREA_SCRATCH };

#define CANARY_BYTE 0xc5

/* n bytes that end at the forbidden page, canaries in them and before them. */
static UNUSED uint8_t *guarded_bytes(int area, int64_t n)
{
    uint8_t *p = (uint8_t *)(areas[area] + AREA_BYTES) - n;
    memset(p - CANARY_FLOATS, CANARY_BYTE, (size_t)n + CANARY_FLOATS);
    return p;
}

/* One number per column each. They lie in one area; which of them ends at the forbidden page changes. */
typedef struct columns {
    int32_t *bias;
    float *multiplier, *multiplier_low, *bias_f32;
} columns;

enum { ANY, EXTREMES, TIES };

static UNUSED uint8_t random_u8(int kind)
{
    return (uint8_t)(kind == EXTREMES ? random_in(0, 3) ? 255 * random_in(0, 1) : random_in(0, 255)
                                      : random_in(0, 255));
}

static UNUSED int8_t random_s8(int kind)
{
    if (kind == EXTREMES)
        return (int8_t)(random_in(0, 3) ? -128 + 255 * random_in(0, 1) : random_in(-128, 127));
    return (int8_t)random_in(-128, 127);
}

/* Multipliers that bring sums of k products into the range of bytes; for TIES powers of two times a small odd number,
 * so that many values lie exactly between two integers. */
static UNUSED void random_multiplier(int kind, int64_t k, float *ret_high, float *ret_low)
{
    double spread = 1.0 / (60.0 * sqrt((double)k + 1.0));
    if (kind == TIES) {
        *ret_high = ldexpf((float)(2 * random_in(0, 2) + 1), (int)random_in(-8, -1));
        *ret_low = 0.0f;
        return;
    }
    double exact = spread * (0.2 + 2.0 * fabs((double)random_float())) * (random_in(0, 20) ? 1.0 : 30.0);
    if (kind == EXTREMES && random_in(0, 9) == 0)
        exact = random_in(0, 1) ? 1e9 : 1e-30;
    *ret_high = (float)exact;
    *ret_low = random_in(0, 7) ? (float)(exact - (double)*ret_high) : 0.0f;
}

static UNUSED columns random_columns(int kind, int64_t n, int64_t k)
{
    float *all = guarded(AREA_COLUMNS, 4 * n);
    float *part[4];
    int64_t turn = random_in(0, 3);
    for (int i = 0; i < 4; i++)
        part[(i + turn) % 4] = all + i * n;
    columns c = {(int32_t *)(void *)part[0], part[1], part[2], part[3]};
    for (int64_t i = 0; i < n; i++) {
        c.bias[i] = (int32_t)random_in(-4000, 4000) - 127 * (int32_t)(k / 8);
        if (kind == EXTREMES && random_in(0, 9) == 0)
            c.bias[i] = random_in(0, 1) ? INT32_MAX : INT32_MIN;
        random_multiplier(kind, k, &c.multiplier[i], &c.multiplier_low[i]);
        c.bias_f32[i] = random_float() * 10.0f;
    }
    return c;
}

/* Everything but the residual pointers. */
static UNUSED terse_requantize random_requantize(int kind, int64_t n, int64_t k)
{
    columns c = random_columns(kind, n, k);
    terse_requantize to = {.to = kind == TIES || random_in(0, 2) ? TERSE_SUMS_TO_U8
                                 : random_in(0, 1)               ? TERSE_SUMS_TO_F32
                                                                 : TERSE_SUMS_TO_S32,
                           .multiplier = c.multiplier,
                           .low = 0,
                           .high = 255,
                           .activation = random_activation()};
    to.bias = random_in(0, 3) ? c.bias : NULL;
    to.multiplier_low = random_in(0, 7) ? c.multiplier_low : NULL;
    to.zero_point = (int32_t)(random_in(0, 2) ? random_in(0, 255) : 255 * random_in(0, 1));
    if (random_in(0, 2) == 0) {
        to.low = (int32_t)random_in(0, 255);
        to.high = (int32_t)random_in(to.low, 255);
    }
    to.residual_zero_point = (int32_t)random_in(0, 255);
    to.residual_scale = kind == TIES ? ldexp(1.0, (int)random_in(-6, 1)) : 0.01 + fabs((double)random_float()) * 2.0;
    to.bias_f32 = random_in(0, 1) ? c.bias_f32 : NULL;
    return to;
}

static UNUSED int64_t element_bytes(const terse_requantize *to)
{
    return to->to == TERSE_SUMS_TO_U8 ? 1 : 4;
}

/* A residual for `rows` rows of n, or none. */
static UNUSED void random_residual(terse_requantize *to, int64_t rows, int64_t n)
{
    to->residual_stride = n + random_in(0, 1) * random_in(0, 30);
    int64_t count = (rows - 1) * to->residual_stride + n;
    if (to->to == TERSE_SUMS_TO_S32 || random_in(0, 1))
        return;
    if (to->to == TERSE_SUMS_TO_F32) {
        float *p = guarded(AREA_RESIDUAL, count);
        fill(p, count, 0);
        to->residual_f32 = p;
        return;
    }
    uint8_t *p = guarded_bytes(AREA_RESIDUAL, count);
    for (int64_t i = 0; i < count; i++)
        p[i] = random_u8(ANY);
    to->residual = p;
}

/* The output of a tier, rows of `width` elements `stride` apart, equals the dense rows of `want`. */
static UNUSED void expect_bytes(const char *name, const uint8_t *got, int64_t rows, int64_t width, int64_t stride,
                                const uint8_t *want, int64_t size)
{
    for (int64_t i = 1; i <= CANARY_FLOATS; i++)
        if (got[-i] != CANARY_BYTE) {
            case_error("%s wrote %" PRId64 " bytes before the output", name, i);
            return;
        }
    for (int64_t r = 0; r < rows; r++, got += stride * size, want += width * size) {
        for (int64_t j = 0; j < width; j++) {
            int32_t x = 0, y = 0;
            float fx, fy;
            memcpy(&x, got + j * size, (size_t)size);
            memcpy(&y, want + j * size, (size_t)size);
            memcpy(&fx, &x, sizeof fx);
            memcpy(&fy, &y, sizeof fy);
            if (x != y && !(size == 4 && isnan(fx) && isnan(fy)))
                case_error("%s row %" PRId64 " column %" PRId64 ": %d (%08x), scalar %d (%08x)", name, r, j, x,
                           (unsigned)x, y, (unsigned)y);
        }
        for (int64_t j = width * size; r + 1 < rows && j < stride * size; j++)
            if (got[j] != CANARY_BYTE)
                case_error("%s wrote between rows, row %" PRId64 " byte %" PRId64, name, r, j);
    }
}

/* Runs `run(kernels, output, stride)` on a tier; a residual of bytes or floats lies in the output itself at times. */
typedef void run_function(const terse_kernels *kernels, terse_requantize *to, void *output, int64_t stride);

static UNUSED void each_tier(run_function *run, const terse_requantize *given, int64_t rows, int64_t n)
{
    const int64_t size = element_bytes(given), stride = n + random_in(0, 1) * random_in(0, 40);
    uint8_t *want = guarded_bytes(AREA_WANT, rows * n * size);
    terse_requantize to = *given;
    run(terse_kernels_of(TERSE_ISA_SCALAR), &to, want, n);
    bool in_place = random_in(0, 3) == 0;
    for (int t = 0; tier(t); t++) {
        if (!tier(t)->gemm_u8s8)
            continue;
        uint8_t *got = guarded_bytes(AREA_GOT, ((rows - 1) * stride + n) * size);
        to = *given;
        const uint8_t *residual = to.residual ? to.residual : (const uint8_t *)to.residual_f32;
        if (in_place && residual) {
            for (int64_t r = 0; r < rows; r++)
                memcpy(got + r * stride * size, residual + r * to.residual_stride * size, (size_t)(n * size));
            to.residual = to.residual ? got : NULL;
            to.residual_f32 = to.residual_f32 ? (float *)(void *)got : NULL;
            to.residual_stride = stride;
        }
        run(tier(t), &to, got, stride);
        expect_bytes(tier(t)->name, got, rows, n, stride, want, size);
    }
}

static UNUSED void describe(const terse_requantize *to, int used)
{
    snprintf(case_text + used, sizeof case_text - (size_t)used,
             " to %d zero %d range %d..%d bias %d low part %d residual %d act %d", to->to, to->zero_point, to->low,
             to->high, to->bias != NULL, to->multiplier_low != NULL, to->residual || to->residual_f32,
             to->activation.kind);
}

/* A requantization as a quantized network has it: no ties but by chance. */
static UNUSED terse_requantize plain_requantize(int64_t n, int64_t k, bool residual, int64_t rows)
{
    columns c = random_columns(ANY, n, k);
    for (int64_t i = 0; i < n; i++)
        random_multiplier(ANY, k, &c.multiplier[i], &c.multiplier_low[i]);
    terse_requantize to = {.bias = c.bias,
                           .multiplier = c.multiplier,
                           .multiplier_low = c.multiplier_low,
                           .zero_point = residual ? 117 : 0,
                           .high = 255,
                           .residual_zero_point = 112,
                           .residual_scale = 0.83,
                           .residual_stride = n};
    if (residual) {
        uint8_t *p = guarded_bytes(AREA_RESIDUAL, rows * n + 4096);
        for (int64_t i = 0; i < rows * n; i++)
            p[i] = random_u8(ANY);
        to.residual = p;
    }
    return to;
}

/* For timing: at a multiple of 64 bytes, away from the forbidden page. */
static UNUSED void *timed_bytes(int area, int64_t n)
{
    return timed(area, (n + 3) / 4);
}

#endif
