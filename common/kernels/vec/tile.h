/* SPDX-License-Identifier: Apache-2.0 */
/* tile.h: the product of a few rows of A with a few panels of B, the heart of gemm_f32 and conv_f32.
 *
 * B lies in panels of sixteen columns, [K][16] each. A is named by pointers: for each of `positions` kernel
 * positions one pointer per row, with `run` floats behind it; K is positions x run. A dense product has one
 * position, a convolution points into its input, so neither copies A.
 *
 *          panel 0   panel 1
 *   row 0  acc acc   each step of k loads one vector per panel, broadcasts one number per row and does
 *   row 1  acc acc   rows x panels FMAs. All accumulators stay in registers over the whole of K: one chain
 *   ...              of FMAs per output, whatever the tile's size.
 */
#ifndef TERSE_KERNELS_VEC_TILE_H
#define TERSE_KERNELS_VEC_TILE_H

#include "common/kernels/vec/math.h"

/* Tiles of so few rows read weights as fast as they come and bring nothing closer; neither does a share that would
 * push what is at work out of the second-level cache. */
enum { TILE_FEW = 3, TILE_AHEAD_FLOATS = 96 * 1024 };

/* What all tiles of one product share. */
typedef struct tile_product {
    int64_t positions, run;
    const float *b;  /* of the group: panels positions * run * 16 floats apart */
    int64_t columns; /* of the group */
    float *c;        /* row 0, first column of the group */
    int64_t ldc;
    const float *bias;     /* of the group's columns, or NULL */
    const float *residual; /* as c, or NULL */
    int64_t ldr;
    const terse_activation *activation;
    bool wide;         /* TILE_BF16: C and residual are FP32, else BF16 */
    const float *next; /* the weights that are read after all of these panels, or NULL */
} tile_product;

#ifndef TILE_BF16
INLINE v16 tile_step(v16 a, v16 b, v16 acc)
{
    return v16_fma(a, b, acc);
}

INLINE v16 tile_residual(const tile_product *p, int64_t at, int64_t left)
{
    return v16_load_up_to(p->residual + at, left);
}

INLINE void tile_store(const tile_product *p, int64_t at, v16 x, int64_t left)
{
    v16_store_up_to(p->c + at, x, left);
}

/* Whole panels. */
INLINE void tile_store_all(int n_rows, int n_panels, const tile_product *p, v16 acc[TILE_ROWS][TILE_PANELS],
                           int64_t first_row, int64_t column)
{
    float *c = p->c + first_row * p->ldc + column;
    const int64_t ldc = p->ldc;
    UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++)
        v16_store(c + r * ldc + v * 16, acc[r][v]);
}
#else /* pairs of BF16 in the place of floats: A, B and K are in pairs */
INLINE v16 tile_step(v16 a, v16 b, v16 acc)
{
    return v16_dot_bf16(a, b, acc);
}

INLINE v16 tile_residual(const tile_product *p, int64_t at, int64_t left)
{
    return p->wide ? v16_load_up_to(p->residual + at, left)
                   : v16_load_bf16((const uint16_t *)(const void *)p->residual + at, left);
}

INLINE void tile_store(const tile_product *p, int64_t at, v16 x, int64_t left)
{
    if (p->wide)
        v16_store_up_to(p->c + at, x, left);
    else
        v16_store_bf16((uint16_t *)(void *)p->c + at, x, left);
}

INLINE void tile_store_all(int n_rows, int n_panels, const tile_product *p, v16 acc[TILE_ROWS][TILE_PANELS],
                           int64_t first_row, int64_t column)
{
    const int64_t ldc = p->ldc, at = first_row * ldc + column;
    if (p->wide) {
        float *c = p->c + at;
        UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++)
            v16_store(c + r * ldc + v * 16, acc[r][v]);
        return;
    }
    uint16_t *c = (uint16_t *)(void *)p->c + at;
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int v = 0; v + 1 < n_panels; v += 2)
            v16_store_two_bf16(c + r * ldc + v * 16, acc[r][v], acc[r][v + 1]);
        if (n_panels % 2 != 0)
            v16_store_bf16(c + r * ldc + (n_panels - 1) * 16, acc[r][n_panels - 1], 16);
    }
}
#endif

/* What a tile brings closer while it computes: with each line of its first panel those so many bytes behind it (0: that
 * line itself, which costs nothing). Two distances, as registers are few. */
typedef struct tile_ahead {
    uintptr_t first, second;
} tile_ahead;

/* rows: [positions][TILE_ROWS] pointers; first_row: of c; panel: the first of this tile. */
typedef void tile_function(const tile_product *p, const float *const *rows, int64_t first_row, int64_t panel,
                           tile_ahead ahead);

/* The slow way out: a panel that is cut off, an activation that is not a clip, or a tile that does not end in its
 * registers: doing so is most of a tile's code, and is compiled where much is multiplied by little.
 * `sums` holds rows of `width`.
 */
static __attribute__((noinline)) void tile_finish(const tile_product *p, const float *sums, int rows, int width,
                                                  int64_t first_row, int64_t column)
{
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < width && column + j < p->columns; j += 16) {
            int64_t left = p->columns - column - j;
            v16 x = v16_load(sums + r * width + j);
            if (p->bias)
                x = v16_add(x, v16_load_up_to(p->bias + column + j, left));
            if (p->residual)
                x = v16_add(x, tile_residual(p, (first_row + r) * p->ldr + column + j, left));
            x = v16_activate_near(x, p->activation);
            tile_store(p, (first_row + r) * p->ldc + column + j, x, left);
        }
}

INLINE void tile_multiply(int n_rows, int n_panels, const tile_product *p, const float *const *rows, const float *b,
                          tile_ahead ahead, v16 acc[TILE_ROWS][TILE_PANELS])
{
    int64_t panel_floats = p->positions * p->run * 16;
    UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++) acc[r][v] = v16_zero();
    for (int64_t position = 0; position < p->positions; position++, rows += TILE_ROWS) {
        const float *a[TILE_ROWS];
        UNROLL for (int r = 0; r < n_rows; r++) a[r] = rows[r] + p->run;
        for (int64_t k = -p->run; k < 0; k++, b += 16) {
            v16 x[TILE_PANELS];
            if (n_rows > TILE_FEW) {
                v16_prefetch((const float *)((uintptr_t)b + ahead.first));
                v16_prefetch((const float *)((uintptr_t)b + ahead.second));
            }
            UNROLL for (int v = 0; v < n_panels; v++) x[v] = v16_load(b + v * panel_floats);
            if (n_rows > 1) {
                UNROLL for (int v = 0; v < n_panels; v++) x[v] = v16_keep(x[v]);
            }
            UNROLL for (int r = 0; r < n_rows; r++)
            {
                v16 y = v16_set1(a[r][k]);
                UNROLL for (int v = 0; v < n_panels; v++) acc[r][v] = tile_step(y, x[v], acc[r][v]);
            }
        }
    }
}

INLINE void tile_run(int n_rows, int n_panels, const tile_product *p, const float *const *rows, int64_t first_row,
                     int64_t panel, tile_ahead ahead)
{
    v16 acc[TILE_ROWS][TILE_PANELS];
    int64_t column = panel * 16;
    tile_multiply(n_rows, n_panels, p, rows, p->b + panel * p->positions * p->run * 16, ahead, acc);
    bool clip = p->activation->kind == TERSE_ACT_CLIP;
    if (!TILE_ENDS_IN_REGISTERS(n_rows) || column + n_panels * 16 > p->columns ||
        !(clip || p->activation->kind == TERSE_ACT_NONE)) {
        float sums[TILE_ROWS * TILE_PANELS * 16];
        UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++)
            v16_store(sums + (r * n_panels + v) * 16, acc[r][v]);
        tile_finish(p, sums, n_rows, n_panels * 16, first_row, column);
        return;
    }
    if (p->bias) {
        UNROLL for (int v = 0; v < n_panels; v++)
        {
            v16 bias = v16_load(p->bias + column + v * 16);
            UNROLL for (int r = 0; r < n_rows; r++) acc[r][v] = v16_add(acc[r][v], bias);
        }
    }
    if (p->residual) {
        UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++) acc[r][v] =
            v16_add(acc[r][v], tile_residual(p, (first_row + r) * p->ldr + column + v * 16, 16));
    }
    if (clip) {
        v16 alpha = v16_set1(p->activation->alpha), beta = v16_set1(p->activation->beta);
        UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++) acc[r][v] =
            v16_clip(acc[r][v], alpha, beta);
    }
    tile_store_all(n_rows, n_panels, p, acc, first_row, column);
}

#define TILE_DEFINE(r, v)                                                                                              \
    static void tile_##r##_##v(const tile_product *p, const float *const *rows, int64_t first_row, int64_t panel,      \
                               tile_ahead ahead)                                                                       \
    {                                                                                                                  \
        tile_run(r, v, p, rows, first_row, panel, ahead);                                                              \
    }

TILE_LIST(TILE_DEFINE)

#define TILE_ENTRY(r, v) [r][v] = tile_##r##_##v,
static tile_function *const tiles[TILE_ROWS + 1][TILE_PANELS + 1] = {TILE_LIST(TILE_ENTRY)};

/* Rows m are dealt out evenly to ceil(m / TILE_ROWS) tiles: 15 are 8 + 7, not 14 + 1. */
typedef struct tile_deal {
    int64_t tiles, base, extra;
} tile_deal;

INLINE tile_deal tile_deal_rows(int64_t m, int64_t row_floats)
{
    /* Rows a multiple of 4096 bytes apart fall into one set of the first-level cache, which has eight ways or more. */
    int most = row_floats % 1024 == 0 && TILE_ROWS > 8 ? 8 : TILE_ROWS;
    int64_t n = (m + most - 1) / most;
    return (tile_deal){n, n ? m / n : 0, n ? m % n : 0};
}

INLINE int64_t tile_first(const tile_deal *deal, int64_t tile)
{
    return tile * deal->base + (tile < deal->extra ? tile : deal->extra);
}

INLINE int tile_rows(const tile_deal *deal, int64_t tile)
{
    return (int)(deal->base + (tile < deal->extra));
}

/* Weights may come from memory at less than the speed of the products. While `count` tiles pass over n panels, tile t
 * brings its share of the n panels behind them (`next`) closer. */
INLINE tile_ahead tile_ahead_of(const tile_product *p, const float *next, int64_t panel, int64_t n, int64_t t,
                                int64_t count)
{
    const int64_t k = p->positions * p->run, lines = n > count ? 2 : 1;
    if (!next || n * k > TILE_AHEAD_FLOATS / 16 || t * lines >= n)
        return (tile_ahead){0, 0};
    const uintptr_t first = (uintptr_t)(next + t * lines * k * 16) - (uintptr_t)(p->b + panel * k * 16);
    return (tile_ahead){first, lines == 2 ? first + (uintptr_t)k * 16 * sizeof(float) : 0};
}

/* Runs tiles first..first+count-1, whose pointers lie one after the other, over all panels. A few panels of B stay
 * close while the tiles of the block pass over them. */
static void tile_block(const tile_product *p, const tile_deal *deal, int64_t first, int64_t count,
                       const float *const *rows)
{
    int64_t panels = (p->columns + 15) / 16;
    int most = tile_rows(deal, first), least = tile_rows(deal, first + count - 1);
    for (int64_t panel = 0; panel < panels;) {
        int n = TILE_WIDE(most);
        while (n > panels - panel || !tiles[most][n] || !tiles[least][n])
            n--;
        if (panels - panel == n + 1 && n > 2 && tiles[most][n - 1] && tiles[least][n - 1])
            n--; /* 2 + 2 panels rather than 3 + 1: one alone has few chains and reads much per product */
        const float *next = panel + n < panels ? p->b + (panel + n) * p->positions * p->run * 16 : p->next;
        for (int64_t t = 0; t < count; t++)
            tiles[tile_rows(deal, first + t)][n](p, rows + t * p->positions * TILE_ROWS, tile_first(deal, first + t),
                                                 panel, tile_ahead_of(p, next, panel, n, t, count));
        panel += n;
    }
}

#endif
