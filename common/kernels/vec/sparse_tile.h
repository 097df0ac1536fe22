/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_tile.h: a few rows of bytes by a panel of sparse weights (common/sparse.h), in which tiers differ; what
 * sparse_u8.h makes of them is once in the program for all tiers with the same registers.
 *
 * A step of the weights holds four rows of K for each of a panel's eight groups, all in a window of 64 rows. So
 * what a row of activations gives to a step is found in registers: its 64 bytes are the table, the step's index names
 * sixteen of them for sixteen columns, and each group's four go to the group's four columns:
 *
 *     window of row 0   x x x x x x x x x x x x ... x      index 3 7 8 20 | 1 3 9 11 | 0 2 4 30 | 5 6 7 41
 *     looked up         3 7 8 20 (4 times)  1 3 9 11 (4 times)  ...         then one dot product as the dense kernels'
 *
 * Weights and index of a step serve all rows of a tile. Few rows take several sums each, by steps in turn, to hide the
 * latency. Sums are exact, so no order matters; they end as the sums of the dense kernels do (dot_finish.h). */
#ifndef TERSE_KERNELS_VEC_SPARSE_TILE_H
#define TERSE_KERNELS_VEC_SPARSE_TILE_H

#include "common/kernels/vec/dot.h"
#include "common/kernels/vec/dot_finish.h"
#include "common/kernels/vec/tier.h"
#if defined(__AVX512VNNI__)
#include "common/kernels/x86/sparse_avx512.h"
#elif defined(__AVX2__)
#include "common/kernels/x86/sparse_avx2.h"
#elif defined(__aarch64__)
#include "common/kernels/arm/sparse_neon.h"
#endif

typedef struct sparse_product sparse_product;

/* `column`: the first one, a multiple of sixteen. */
typedef void sparse_function(const sparse_product *p, const uint8_t *x, int64_t ld, int64_t row, int64_t column);

/* Lays an image of few channels in planes (x86/sparse_planes_avx512.h), output rows from `first_row` on. */
struct planes;
typedef void sparse_fill(const struct planes *p, const uint8_t *image, int64_t first_row, uint8_t *to);

/* What a tier has: tiles of 1..rows rows and 1..halves times sixteen columns, and a sparse_fill or none. */
typedef struct sparse_tier {
    int rows, halves;
    sparse_function *tiles[13][3];
    sparse_fill *fill_few;
} sparse_tier;

struct sparse_product {
    const sparse_tier *tier;
    terse_sparse s;
    dot_finish finish;
};

extern const sparse_tier TIER_NAME(terse_sparse_tier);
void SHARED_NAME(terse_sparse_run)(const sparse_tier *tier, const terse_sparse_u8s8_args *args);
size_t SHARED_NAME(terse_sparse_scratch)(const sparse_tier *tier, const terse_sparse_u8s8_args *args);

/* Sums per row and sixteen columns: steps go to them in turn. */
#define SPARSE_CHAINS(rows) ((rows) == 1 ? 4 : (rows) <= 3 ? 2 : 1)

typedef dot_sums sparse_sums[SPARSE_ROWS][SPARSE_HALVES];

/* One step over `halves` times sixteen columns. */
INLINE void sparse_step(int n_rows, int halves, const uint8_t *x, int64_t ld, const uint8_t *index, const int8_t *b,
                        sparse_sums sums, dot_sums zeros[SPARSE_HALVES])
{
    sparse_index at[SPARSE_HALVES];
    dot_b w[SPARSE_HALVES];
    UNROLL for (int h = 0; h < halves; h++)
    {
        at[h] = sparse_load_index(index + h * 16);
        w[h] = dot_load(b + h * 64);
#if DOT_SIGNED
        zeros[h] = dot_add(zeros[h], dot_four(0), w[h]);
#endif
    }
    (void)zeros;
    UNROLL for (int r = 0; r < n_rows; r += 4)
    {
        UNROLL for (int i = 0; i < 4; i++) if (r + i < n_rows)
        {
            const sparse_window window = sparse_load_window(x + i * ld);
            UNROLL for (int h = 0; h < halves; h++) sums[r + i][h] =
                sparse_add(sums[r + i][h], sparse_lookup(window, at[h]), w[h]);
        }
        x += 4 * ld;
    }
}

/* What the chains have summed up, [row][half][16 columns]. */
INLINE void sparse_leave(int n_rows, int halves, int chains, sparse_sums sums[4], dot_sums zeros[SPARSE_HALVES],
                         int32_t *to)
{
    (void)zeros;
    UNROLL for (int r = 0; r < n_rows; r++) UNROLL for (int h = 0; h < halves; h++, to += 16)
    {
#if DOT_SIGNED
        sums[0][r][h] = dot_without(sums[0][r][h], zeros[h]);
#endif
        dot_store(to, sums[0][r][h]);
        UNROLL for (int c = 1; c < chains; c++)
        {
            _Alignas(64) int32_t more[16];
            dot_store(more, sums[c][r][h]);
            for (int i = 0; i < 16; i++)
                to[i] = (int32_t)((uint32_t)to[i] + (uint32_t)more[i]);
        }
    }
}

/* Once for all tiles. */
APART void sparse_finish(const dot_finish *f, const int32_t *sums, int rows, int halves, int64_t row, int64_t panel)
{
    dot_finish_panels(f, sums, rows, halves, row, panel);
}

INLINE void sparse_run(int n_rows, int halves, const sparse_product *p, const uint8_t *x, int64_t ld, int64_t row,
                       int64_t column)
{
    const int chains = SPARSE_CHAINS(n_rows);
    const int64_t panel = column / TERSE_SPARSE_PANEL, half = column % TERSE_SPARSE_PANEL / 16;
    const int64_t first = p->s.starts[panel], end = p->s.starts[panel + 1];
    const uint8_t *index = p->s.index + first * 32 + half * 16, *advance = p->s.advance + first;
    const int8_t *b = (const int8_t *)p->s.weights + first * TERSE_SPARSE_STEP_BYTES + half * 64;
    sparse_sums sums[4];
    dot_sums zeros[SPARSE_HALVES];
    UNROLL for (int h = 0; h < halves; h++)
    {
        const int32_t *bias = dot_bias_of(&p->finish, column / 16 + h);
        zeros[h] = dot_begin(dot_zeros);
        UNROLL for (int c = 0; c < chains; c++) UNROLL for (int r = 0; r < n_rows; r++) sums[c][r][h] =
            dot_begin(c ? dot_zeros : bias);
    }
    int64_t step = first;
    for (; step + chains <= end; step += chains)
        UNROLL for (int c = 0; c < chains; c++)
        {
            x += *advance++;
            sparse_step(n_rows, halves, x, ld, index, b, sums[c], zeros);
            index += 32;
            b += TERSE_SPARSE_STEP_BYTES;
        }
    for (; chains > 1 && step < end; step++, index += 32, b += TERSE_SPARSE_STEP_BYTES) {
        x += *advance++;
        sparse_step(n_rows, halves, x, ld, index, b, sums[0], zeros);
    }
    _Alignas(64) int32_t to[(SPARSE_ROWS * SPARSE_HALVES + 3) * 16];
    sparse_leave(n_rows, halves, chains, sums, zeros, to);
    sparse_finish(&p->finish, to, n_rows, halves, row, column / 16);
}

/* A tier with fewer rows or half the columns has the same function at the end of the list, which it never asks for. */
#define SPARSE_DEFINE(r, h)                                                                                            \
    static void sparse_tile_##r##_##h(const sparse_product *p, const uint8_t *x, int64_t ld, int64_t row,              \
                                      int64_t column)                                                                  \
    {                                                                                                                  \
        sparse_run(r < SPARSE_ROWS ? r : SPARSE_ROWS, h < SPARSE_HALVES ? h : SPARSE_HALVES, p, x, ld, row, column);   \
    }
#define SPARSE_LIST(X)                                                                                                 \
    X(1, 1)                                                                                                            \
    X(1, 2)                                                                                                            \
    X(2, 1)                                                                                                            \
    X(2, 2)                                                                                                            \
    X(3, 1)                                                                                                            \
    X(3, 2)                                                                                                            \
    X(4, 1)                                                                                                            \
    X(4, 2)                                                                                                            \
    X(5, 1)                                                                                                            \
    X(5, 2)                                                                                                            \
    X(6, 1)                                                                                                            \
    X(6, 2) X(7, 1) X(7, 2) X(8, 1) X(8, 2) X(9, 1) X(9, 2) X(10, 1) X(10, 2) X(11, 1) X(11, 2) X(12, 1) X(12, 2)
SPARSE_LIST(SPARSE_DEFINE)
#define SPARSE_ENTRY(r, h) [r][h] = sparse_tile_##r##_##h,
#ifndef SPARSE_FILL_FEW
#define SPARSE_FILL_FEW NULL
#endif
const sparse_tier TIER_NAME(terse_sparse_tier) = {
    SPARSE_ROWS, SPARSE_HALVES, {SPARSE_LIST(SPARSE_ENTRY)}, SPARSE_FILL_FEW};

void TIER_NAME(terse_sparse_u8s8)(const terse_sparse_u8s8_args *args)
{
    SHARED_NAME(terse_sparse_run)(&TIER_NAME(terse_sparse_tier), args);
}

size_t TIER_NAME(terse_sparse_u8s8_scratch)(const terse_sparse_u8s8_args *args)
{
    return SHARED_NAME(terse_sparse_scratch)(&TIER_NAME(terse_sparse_tier), args);
}

#endif
