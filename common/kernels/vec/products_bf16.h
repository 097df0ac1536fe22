/* SPDX-License-Identifier: Apache-2.0 */
/* products_bf16.h: gemm_bf16 and conv_bf16. A pair of BF16 has the bytes of a float, and all that tile.h, gemm.h and
 * conv.h do to A and B is to point at them, move them and hand them to tile_step: so these are the same products with
 * half the channels, over another tile_step and another way out. */
#ifndef TERSE_KERNELS_VEC_PRODUCTS_BF16_H
#define TERSE_KERNELS_VEC_PRODUCTS_BF16_H

#define TILE_BF16
#include "common/kernels/vec/bf16.h"
#include "common/kernels/vec/conv.h"

static const float *pairs_of(const uint16_t *p)
{
    return (const float *)(const void *)p;
}

void TIER_NAME(terse_gemm_bf16)(const terse_gemm_bf16_args *args)
{
    const terse_gemm_f32_args pairs = {.m = args->m,
                                       .n = args->n,
                                       .k = args->k / 2,
                                       .a = pairs_of(args->a),
                                       .lda = args->lda / 2,
                                       .b = pairs_of(args->b),
                                       .c = args->c,
                                       .ldc = args->ldc,
                                       .bias = args->bias,
                                       .residual = args->residual,
                                       .ldr = args->ldr,
                                       .activation = args->activation};
    gemm_run(&pairs, args->wide);
}

static terse_conv_f32_args conv_pairs(const terse_conv_bf16_args *args)
{
    terse_conv_f32_args pairs = conv_args_of_bf16(args, 1);
    pairs.channels /= 2;
    pairs.in_stride /= 2;
    return pairs;
}

size_t TIER_NAME(terse_conv_bf16_scratch)(const terse_conv_bf16_args *args)
{
    const terse_conv_f32_args pairs = conv_pairs(args);
    return conv_scratch(&pairs);
}

void TIER_NAME(terse_conv_bf16)(const terse_conv_bf16_args *args)
{
    const terse_conv_f32_args pairs = conv_pairs(args);
    conv_run(&pairs, args->wide);
}

#endif
