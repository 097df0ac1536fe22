/* SPDX-License-Identifier: Apache-2.0 */
/* products_u8.h: gemm_u8s8 over tiles. */
#ifndef TERSE_KERNELS_VEC_PRODUCTS_U8_H
#define TERSE_KERNELS_VEC_PRODUCTS_U8_H

#include "common/kernels/vec/dot_tile.h"
#include "common/kernels/vec/tier.h"

/* What of B all rows pass over before the next part of B is taken should stay in the second-level cache. */
enum { DOT_BLOCK_BYTES = 512 * 1024 };

/* Panels per part, all parts alike and a multiple of the widest tile if that is possible. */
static int64_t dot_block_panels(const dot_product *p, int64_t panels)
{
    const int64_t panel_bytes = p->positions * p->run_steps * 64;
    int64_t most = panel_bytes > 0 ? DOT_BLOCK_BYTES / panel_bytes / DOT_PANELS * DOT_PANELS : panels;
    most = most < DOT_PANELS ? DOT_PANELS : most;
    int64_t parts = (panels + most - 1) / most;
    int64_t part = parts > 0 ? (panels + parts - 1) / parts : 1;
    return (part + DOT_PANELS - 1) / DOT_PANELS * DOT_PANELS;
}

void TIER_NAME(terse_gemm_u8s8)(const terse_gemm_u8s8_args *args)
{
    static const int64_t no_offset[1];
    dot_product p = {
        .positions = 1, .offsets = no_offset, .run = args->k, .b = args->b, .run_steps = (args->k + 3) / 4};
    dot_finish_init(&p.finish, &args->requantize, 0, args->n, args->c, args->ldc);
    const dot_deal deal = dot_deal_rows(args->m, args->lda);
    const int64_t panels = (args->n + 15) / 16, part = dot_block_panels(&p, panels);
    for (int64_t from = 0; from < panels; from += part)
        for (int64_t tile = 0; tile < deal.tiles; tile++) {
            const uint8_t *rows[DOT_ROWS];
            const int64_t first = dot_first(&deal, tile);
            const int count = dot_rows(&deal, tile);
            for (int r = 0; r < count; r++)
                rows[r] = args->a + (first + r) * args->lda;
            dot_across(&p, rows, count, first, from, from + part < panels ? from + part : panels);
        }
}

#endif
