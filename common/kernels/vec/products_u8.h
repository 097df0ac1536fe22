/* SPDX-License-Identifier: Apache-2.0 */
/* products_u8.h: gemm_u8s8 over tiles. */
#ifndef TERSE_KERNELS_VEC_PRODUCTS_U8_H
#define TERSE_KERNELS_VEC_PRODUCTS_U8_H

#include "common/kernels/vec/dot_tile.h"
#include "common/kernels/vec/tier.h"

/* What of B all rows pass over before the next part of B is taken should stay in the second-level cache. */
enum { DOT_BLOCK_BYTES = 256 * 1024 };

/* So much at most is fetched before it is needed; so many lines at once. */
enum { DOT_AHEAD_BYTES = 256 * 1024, DOT_AHEAD_LINES = 8 };

/* Panels per part, all parts alike and a multiple of what a tile takes. */
static int64_t dot_block_panels(const dot_product *p, const dot_deal *deal, int64_t panels)
{
    (void)deal; /* where one width serves all rows */
    const int64_t panel_bytes = p->positions * p->run_steps * 64, wide = DOT_WIDE(dot_rows(deal, 0));
    const int64_t bytes = p->tiling.part_bytes > 0 ? p->tiling.part_bytes : DOT_BLOCK_BYTES;
    if (panels * panel_bytes <= bytes)
        return panels; /* without the divisions, whose time small products feel */
    int64_t most = panel_bytes > 0 ? bytes / panel_bytes / wide * wide : panels;
    most = most < wide ? wide : most;
    int64_t parts = (panels + most - 1) / most;
    int64_t part = parts > 0 ? (panels + parts - 1) / parts : 1;
    return (part + wide - 1) / wide * wide;
}

/* What tiles over panels from..from+part-1 fetch: the panels behind them, and at the end what the caller reads next. */
static dot_ahead dot_look_ahead(const dot_product *p, const dot_deal *deal, int64_t from, int64_t part, int64_t panels)
{
    const int64_t panel_bytes = p->positions * p->run_steps * 64, end = from + part;
    const uint8_t *at = end < panels ? (const uint8_t *)p->b + end * panel_bytes : p->ahead.at;
    int64_t bytes = end < panels ? (panels - end < part ? panels - end : part) * panel_bytes : p->ahead.bytes;
    if (deal->tiles < 2 || !at)
        return (dot_ahead){0};
    const int64_t wide = DOT_WIDE(dot_rows(deal, 0)),
                  across = ((end < panels ? part : panels - from) + wide - 1) / wide;
    const int64_t pieces = deal->tiles * across * p->positions * ((p->run + DOT_PIECE - 1) / DOT_PIECE);
    if (pieces < 1)
        return (dot_ahead){0};
    bytes = bytes < DOT_AHEAD_BYTES ? bytes : DOT_AHEAD_BYTES;
    const int64_t lines = ((bytes + 63) / 64 + pieces - 1) / pieces;
    return (dot_ahead){at, at + bytes, (lines < DOT_AHEAD_LINES ? lines : DOT_AHEAD_LINES) * 64};
}

/* Columns first..first+columns-1 of the output; b holds only them. */
static void gemm_u8s8_columns(int64_t m, int64_t k, const uint8_t *a, int64_t lda, const int8_t *b,
                              const terse_requantize *to, terse_tiling tiling, terse_ahead ahead, int64_t first_column,
                              int64_t columns, void *c, int64_t ldc)
{
    static const int64_t no_offset[1];
    dot_product p = {.positions = 1,
                     .offsets = no_offset,
                     .run = k,
                     .b = b,
                     .run_steps = (k + 3) / 4,
                     .tiling = tiling,
                     .ahead = ahead};
    SHARED_NAME(terse_dot_finish_init)(&p.finish, to, first_column, columns, c, ldc);
    const dot_deal deal = dot_deal_rows(&p, m, lda);
    const int64_t panels = (columns + 15) / 16, part = dot_block_panels(&p, &deal, panels);
    dot_work work;
    for (int64_t from = 0; from < panels; from += part) {
        work.ahead = dot_look_ahead(&p, &deal, from, part, panels);
        for (int64_t tile = 0; tile < deal.tiles; tile++) {
            const uint8_t *rows[DOT_ROWS];
            const int64_t first = dot_first(&deal, tile);
            const int count = dot_rows(&deal, tile);
            for (int r = 0; r < count; r++)
                rows[r] = a + (first + r) * lda;
            dot_across(&p, rows, count, first, from, from + part < panels ? from + part : panels, &work);
        }
    }
}

void TIER_NAME(terse_gemm_u8s8)(const terse_gemm_u8s8_args *args)
{
    gemm_u8s8_columns(args->m, args->k, args->a, args->lda, args->b, &args->requantize, args->tiling, args->ahead, 0,
                      args->n, args->c, args->ldc);
}

#endif
