/* SPDX-License-Identifier: Apache-2.0 */
/* window_bf16.h: depthwise convolution and pools over BF16 pixels, computed in FP32; and the conversions. */
#ifndef TERSE_KERNELS_VEC_WINDOW_BF16_H
#define TERSE_KERNELS_VEC_WINDOW_BF16_H

#define WINDOW_BF16
#include "common/kernels/vec/bf16.h"
#include "common/kernels/vec/window.h"

void TIER_NAME(terse_dwconv_bf16)(const terse_conv_bf16_args *args)
{
    const terse_conv_f32_args pixels = conv_args_of_bf16(args, args->channels);
    dw_run(&pixels);
}

void TIER_NAME(terse_max_pool_bf16)(const terse_pool_f32_args *args)
{
    pool_all(args, false);
}

void TIER_NAME(terse_average_pool_bf16)(const terse_pool_f32_args *args)
{
    pool_all(args, true);
}

void TIER_NAME(terse_f32_to_bf16)(const float *x, uint16_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        v16_store_bf16(y + i, v16_load_up_to(x + i, n - i), n - i);
}

void TIER_NAME(terse_bf16_to_f32)(const uint16_t *x, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        v16_store_up_to(y + i, v16_load_bf16(x + i, n - i), n - i);
}

static void row_to_bf16(const float *x, int64_t n, uint16_t *y)
{
    for (int64_t i = 0; i < n; i += 16)
        v16_store_bf16(y + i, v16_load_up_to(x + i, n - i), n - i);
    if (n % 2 != 0)
        y[n] = 0;
}

/* As many of short rows as fit into a vector are spread out in it at once; returns how many rows are done. */
static int64_t short_rows_to_bf16(const float *x, int64_t rows, int64_t n, uint16_t *y)
{
    int64_t done = 0;
#if defined(__AVX512F__)
    const int64_t even = n + n % 2, together = 16 / even;
    int32_t from[16] = {0};
    int there = 0;
    for (int64_t j = 0; j < together * even; j++)
        if (j % even < n) {
            from[j] = (int32_t)(j / even * n + j % even);
            there |= 1 << j;
        }
    const __m512i lanes = _mm512_loadu_si512(from);
    for (; done + together <= rows; done += together, x += together * n, y += together * even) {
        const v16 packed = v16_load_up_to(x, together * n);
        v16_store_bf16(y, _mm512_maskz_permutexvar_ps((__mmask16)there, lanes, packed), together * even);
    }
#else
    (void)x, (void)rows, (void)n, (void)y;
#endif
    return done;
}

void TIER_NAME(terse_f32_rows_to_bf16)(const float *x, int64_t x_stride, int64_t rows, int64_t n, uint16_t *y)
{
    if (n % 2 == 0 && x_stride == n) {
        row_to_bf16(x, rows * n, y);
        return;
    }
    const int64_t first = n > 0 && n <= 8 && x_stride == n ? short_rows_to_bf16(x, rows, n, y) : 0;
    for (int64_t r = first; r < rows; r++)
        row_to_bf16(x + r * x_stride, n, y + r * (n + n % 2));
}

#endif
