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

#endif
