/* SPDX-License-Identifier: Apache-2.0 */
/* dot_tile.h: the product of a few rows of bytes with a few panels of weights, the heart of gemm_u8s8 and conv_u8s8.
 *
 * B lies in panels of sixteen columns, [K/4][16][4] each: 64 bytes hold four of K for every column. A row of A is
 * named by a pointer; K is cut into `positions` runs, and run i of every row begins offsets[i] bytes behind its pointer
 * (a dense product has one run at 0; a convolution has one per kernel row or kernel position).
 *
 *          panel 0  panel 1
 *   row 0  sums     sums     each step of four of K loads 64 bytes per panel, spreads four bytes per row and adds
 *   row 1  sums     sums     rows x panels dot products. Sums begin with the bias and stay in registers over all
 *   ...                      of K, wrapping around as integers do, then are finished where they are or in a buffer.
 */
#ifndef TERSE_KERNELS_VEC_DOT_TILE_H
#define TERSE_KERNELS_VEC_DOT_TILE_H

#include <string.h>

#include "common/kernels/vec/dot_finish.h"

/* What all tiles of one product share. */
typedef struct dot_product {
    int64_t positions;
    const int64_t *offsets;
    int64_t run;       /* bytes of a run that may be read; a multiple of four or cut off */
    const int8_t *b;   /* of the group */
    int64_t run_steps; /* fours of K in a run, the last one filled up */
    terse_tiling tiling;
    terse_ahead ahead;
    dot_finish finish;
} dot_product;

enum { DOT_SUMS = (DOT_ROWS + 3) * DOT_PANELS * 16 };

/* Bytes that will be read next, fetched into the second-level cache a few lines at a time while products keep the core
 * busy: weights come from memory in networks, which a first pass over them would have to wait for. */
typedef struct dot_ahead {
    const uint8_t *at, *end;
    int64_t each; /* bytes for a piece of K */
} dot_ahead;

enum { DOT_PIECE = 64 }; /* bytes of K */

/* Where tiles of one product leave their sums, and what they fetch. */
typedef struct dot_work {
    _Alignas(64) int32_t sums[DOT_SUMS]; /* those that are not used hold anything */
    dot_ahead ahead;
} dot_work;

/* Returns whether outputs were written from row `first` on; else `sums` is to be finished. */
typedef bool dot_function(const dot_product *p, const uint8_t *const *rows, int64_t first, int64_t panel,
                          dot_work *work);

INLINE uint32_t dot_four_bytes(const uint8_t *a)
{
    uint32_t x;
    memcpy(&x, a, sizeof x);
    return x;
}

/* The n < 4 bytes at a, of which nothing behind may be read. */
INLINE uint32_t dot_last_bytes(const uint8_t *a, int64_t n)
{
    uint32_t x = a[0];
    if (n > 1)
        x |= (uint32_t)a[1] << 8;
    if (n > 2)
        x |= (uint32_t)a[2] << 16;
    return x;
}

/* `zeros`: the sums of a row of zeros, for tiers that multiply signed bytes. */
INLINE void dot_step(int n_rows, int n_panels, const uint32_t fours[DOT_ROWS], const int8_t *b, int64_t panel_bytes,
                     dot_sums sums[DOT_ROWS][DOT_PANELS], dot_sums zeros[DOT_PANELS])
{
    dot_b x[DOT_PANELS];
    UNROLL for (int v = 0; v < n_panels; v++) x[v] = dot_load(b + v * panel_bytes);
#if DOT_SIGNED
    UNROLL for (int v = 0; v < n_panels; v++) zeros[v] = dot_add(zeros[v], dot_four(0), x[v]);
#else
    (void)zeros;
#endif
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        dot_a y = dot_four(fours[r]);
        UNROLL for (int v = 0; v < n_panels; v++) sums[r][v] = dot_add(sums[r][v], y, x[v]);
    }
}

/* As dot_finish_tile has them: four panels, then the next four. */
INLINE void dot_leave(int n_rows, int n_panels, dot_sums sums[DOT_ROWS][DOT_PANELS], int32_t *to)
{
    const int wide = n_panels < 4 ? n_panels : 4;
    UNROLL for (int v = 0; v < n_panels; v++) UNROLL for (int r = 0; r < n_rows; r++)
        dot_store(to + (v / wide * n_rows * wide + r * wide + v % wide) * 16, sums[r][v]);
}

#ifdef DOT_ROWWISE
/* Whole panels as bytes, from the registers, 64 at a time: of two rows, or four panels of one. */
INLINE void dot_finish_rows(int n_rows, int n_panels, bool has_residual, const dot_finish *f,
                            dot_sums sums[DOT_ROWS][DOT_PANELS], int64_t first, int64_t panel, int32_t *to)
{
    __m512 multiplier[DOT_PANELS];
    uint8_t saved[DOT_ROWS * 32 + 32]; /* a residual may lie where the output goes */
    const int64_t ldc = f->ldc, ldr = f->to->residual_stride;
    uint8_t *c = f->c + first * ldc + panel * 16;
    const uint8_t *residual = has_residual ? f->residual + first * ldr + panel * 16 : NULL;
    UNROLL for (int v = 0; v < n_panels; v++) multiplier[v] = dot_row_multiplier(f->multiplier + (panel + v) * 16);
    __m512i least = _mm512_set1_epi32(-1);
    const int n_halves = n_rows * n_panels / 2, wide = n_panels / 2;
    UNROLL for (int i = 0; i < n_halves; i += 2)
    {
        __m512i words[2];
        UNROLL for (int h = 0; h < 2; h++)
        {
            const int at = i + h < n_halves ? i + h : i, r = at / wide, v = at % wide * 2;
            const uint8_t *add = has_residual ? residual + r * ldr + v * 16 : NULL;
            if (has_residual)
                memcpy(saved + r * n_panels * 16 + v * 16, add, 32);
            words[h] = h && at == i ? words[0] : dot_row_words(&f->row, multiplier + v, sums[r] + v, add, &least);
        }
        const __m512i bytes = dot_row_bytes(&f->row, words[0], words[1]);
        uint8_t *at = c + i / wide * ldc + i % wide * 32;
        if (wide > 1)
            _mm512_storeu_si512(at, bytes);
        else
            _mm256_storeu_si256((__m256i *)(void *)at, _mm512_castsi512_si256(bytes));
        if (wide == 1 && i + 1 < n_halves)
            _mm256_storeu_si256((__m256i *)(void *)(at + ldc), _mm512_extracti64x4_epi64(bytes, 1));
    }
    if (__builtin_expect(dot_row_near(least, &f->scale), 0)) {
        dot_leave(n_rows, n_panels, sums, to); /* only now: most tiles need them nowhere but in their registers */
        SHARED_NAME(terse_dot_correct_tile)
        (f, to, n_rows, n_panels, has_residual ? saved : (const uint8_t *)to, first, panel);
    }
}

/* The same for one panel and no residual, four rows at a time: the last of an odd number of panels. */
INLINE void dot_finish_lone(int n_rows, const dot_finish *f, dot_sums sums[DOT_ROWS][DOT_PANELS], int64_t first,
                            int64_t panel, int32_t *to)
{
    const __m512 one = dot_row_multiplier(f->multiplier + panel * 16), multiplier[2] = {one, one};
    uint8_t *c = f->c + first * f->ldc + panel * 16;
    __m512i least = _mm512_set1_epi32(-1);
    UNROLL for (int r = 0; r < n_rows; r += 4)
    {
        __m512i words[2];
        UNROLL for (int h = 0; h < 2; h++)
        {
            const int at = r + 2 * h < n_rows ? r + 2 * h : r;
            const __m512i pair[2] = {sums[at][0], sums[at + 1 < n_rows ? at + 1 : at][0]};
            words[h] = h && at == r ? words[0] : dot_row_words(&f->row, multiplier, pair, NULL, &least);
        }
        const __m512i bytes = dot_row_bytes(&f->row, words[0], words[1]);
        UNROLL for (int i = 0; i < 4; i++) if (r + i < n_rows) dot_row_put(c + (r + i) * f->ldc, bytes, i);
    }
    if (__builtin_expect(dot_row_near(least, &f->scale), 0)) {
        dot_leave(n_rows, 1, sums, to);
        SHARED_NAME(terse_dot_correct_tile)(f, to, n_rows, 1, (const uint8_t *)to, first, panel);
    }
}
#endif

INLINE void dot_fetch(dot_ahead *ahead)
{
    const uint8_t *at = ahead->at;
    const int64_t left = ahead->end - at, n = ahead->each < left ? ahead->each : left;
    for (int64_t i = 0; i < n; i += 64)
        __builtin_prefetch(at + i, 0, 2);
    ahead->at = at + n;
}

INLINE bool dot_run(int n_rows, int n_panels, const dot_product *p, const uint8_t *const *rows, int64_t row,
                    int64_t panel, dot_work *work)
{
    const bool fetches = n_rows * 2 > DOT_ROWS && work->ahead.each; /* few rows wait for their own weights */
    int32_t *to = work->sums;
    dot_sums sums[DOT_ROWS][DOT_PANELS], zeros[DOT_PANELS];
    const int64_t panel_bytes = p->positions * p->run_steps * 64, whole = p->run & ~(int64_t)3;
    const int8_t *b = p->b + panel * panel_bytes;
    UNROLL for (int v = 0; v < n_panels; v++)
    {
        const int32_t *bias = dot_bias_of(&p->finish, panel + v);
        UNROLL for (int r = 0; r < n_rows; r++) sums[r][v] = dot_begin(bias);
#if DOT_SIGNED
        zeros[v] = dot_begin(dot_zeros);
#endif
    }
    for (int64_t position = 0; position < p->positions; position++) {
        const int64_t first = p->offsets[position], end = first + whole;
        uint32_t fours[DOT_ROWS];
        for (int64_t k = first; k < end;) {
            const int64_t stop = !fetches || end - k < DOT_PIECE ? end : k + DOT_PIECE;
            if (fetches)
                dot_fetch(&work->ahead);
            for (; k < stop; k += 4, b += 64) {
                UNROLL for (int r = 0; r < n_rows; r++) fours[r] = dot_four_bytes(rows[r] + k);
                dot_step(n_rows, n_panels, fours, b, panel_bytes, sums, zeros);
            }
        }
        if (whole < p->run) {
            UNROLL for (int r = 0; r < n_rows; r++) fours[r] = dot_last_bytes(rows[r] + end, p->run - whole);
            dot_step(n_rows, n_panels, fours, b, panel_bytes, sums, zeros);
            b += 64;
        }
    }
#if DOT_SIGNED
    UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int v = 0; v < n_panels; v++) sums[r][v] =
        dot_without(sums[r][v], zeros[v]);
#endif
#ifdef DOT_ROWWISE
    if (DOT_ENDS_IN_REGISTERS(n_rows) && n_panels == 1 && p->finish.to->to == TERSE_SUMS_TO_U8 && !p->finish.residual &&
        panel != p->finish.cut_panel) {
        dot_finish_lone(n_rows, &p->finish, sums, row, panel, to);
        return true;
    }
    if (DOT_ENDS_IN_REGISTERS(n_rows) && n_panels % 2 == 0 && p->finish.to->to == TERSE_SUMS_TO_U8 &&
        panel + n_panels - 1 != p->finish.cut_panel) {
        if (p->finish.residual)
            dot_finish_rows(n_rows, n_panels, true, &p->finish, sums, row, panel, to);
        else
            dot_finish_rows(n_rows, n_panels, false, &p->finish, sums, row, panel, to);
        return true;
    }
#endif
    (void)row;
    dot_leave(n_rows, n_panels, sums, to);
    return false;
}

#define DOT_DEFINE(r, v)                                                                                               \
    static bool dot_tile_##r##_##v(const dot_product *p, const uint8_t *const *rows, int64_t first, int64_t panel,     \
                                   dot_work *work)                                                                     \
    {                                                                                                                  \
        return dot_run(r, v, p, rows, first, panel, work);                                                             \
    }

DOT_LIST(DOT_DEFINE)

#define DOT_ENTRY(r, v) [r][v] = dot_tile_##r##_##v,
static dot_function *const dot_tiles[DOT_ROWS + 1][DOT_PANELS + 1] = {DOT_LIST(DOT_ENTRY)};

/* Rows m are dealt out evenly to ceil(m / most) tiles: 15 are 8 + 7, not 14 + 1. */
typedef struct dot_deal {
    int64_t tiles, base, extra;
} dot_deal;

INLINE dot_deal dot_deal_rows(const dot_product *p, int64_t m, int64_t row_bytes)
{
    /* Rows a multiple of 4096 bytes apart fall into one set of the first-level cache, which has eight ways or more. */
    int most = row_bytes % 4096 == 0 && row_bytes && DOT_ROWS > 8 ? 8 : DOT_ROWS;
    if (p->tiling.rows > 0)
        most = p->tiling.rows < DOT_ROWS ? p->tiling.rows : DOT_ROWS;
    if (m > 0 && m <= most)
        return (dot_deal){1, m, 0}; /* divisions take time that small products feel */
    int64_t n = (m + most - 1) / most;
    return (dot_deal){n, n ? m / n : 0, n ? m % n : 0};
}

INLINE int64_t dot_first(const dot_deal *deal, int64_t tile)
{
    return tile * deal->base + (tile < deal->extra ? tile : deal->extra);
}

INLINE int dot_rows(const dot_deal *deal, int64_t tile)
{
    return (int)(deal->base + (tile < deal->extra));
}

/* One tile of `count` rows, whose outputs begin at row `first`, over panels from..to-1. */
static void dot_across(const dot_product *p, const uint8_t *const *rows, int count, int64_t first, int64_t from,
                       int64_t to, dot_work *work)
{
    for (int64_t panel = from; panel < to;) {
        int n = DOT_WIDE(count);
        while (n > to - panel)
            n /= 2;
        if (!dot_tiles[count][n](p, rows, first, panel, work))
            dot_finish_tile(&p->finish, work->sums, count, n, first, panel);
        panel += n;
    }
}

#endif
