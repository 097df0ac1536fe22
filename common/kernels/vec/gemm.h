/* SPDX-License-Identifier: Apache-2.0 */
/* gemm.h: gemm_f32 over tiles. */
#ifndef TERSE_KERNELS_VEC_GEMM_H
#define TERSE_KERNELS_VEC_GEMM_H

#include "common/kernels/vec/tier.h"
#include "common/kernels/vec/tile.h"

/* Tiles per block: what of A is read again and again should stay in the second-level cache. */
enum { BLOCK_TILES = 16, BLOCK_BYTES = 256 * 1024 };

/* `wide`: see tile_product. */
static void gemm_run(const terse_gemm_f32_args *args, bool wide)
{
    tile_product p = {.positions = 1,
                      .run = args->k,
                      .b = args->b,
                      .columns = args->n,
                      .c = args->c,
                      .ldc = args->ldc,
                      .bias = args->bias,
                      .residual = args->residual,
                      .ldr = args->ldr,
                      .activation = &args->activation,
                      .wide = wide};
    const tile_deal deal = tile_deal_rows(args->m, args->lda);
    int64_t block = BLOCK_BYTES / (int64_t)sizeof(float) / TILE_ROWS / (args->k > 0 ? args->k : 1);
    block = block < 1 ? 1 : block > BLOCK_TILES ? BLOCK_TILES : block;
    const float *rows[BLOCK_TILES * TILE_ROWS];
    for (int64_t tile = 0; tile < deal.tiles; tile += block) {
        int64_t count = tile + block < deal.tiles ? block : deal.tiles - tile;
        for (int64_t t = 0; t < count; t++)
            for (int r = 0; r < tile_rows(&deal, tile + t); r++)
                rows[t * TILE_ROWS + r] = args->a + (tile_first(&deal, tile + t) + r) * args->lda;
        tile_block(&p, &deal, tile, count, rows);
    }
}

#ifndef TILE_BF16
void TIER_NAME(terse_gemm_f32)(const terse_gemm_f32_args *args)
{
    gemm_run(args, true);
}
#endif

#endif
