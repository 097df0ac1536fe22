/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_u8.h: bytes by sparse weights (common/sparse.h), for matrices and convolutions alike.
 *
 * A step of the weights holds four rows of K for each of a panel's four groups, all of them in a window of 64 rows. So
 * what a row of activations gives to a step is found in registers: its 64 bytes are the table, the step's index names
 * sixteen of them, and each group's four go to the group's four columns:
 *
 *     window of row 0   x x x x x x x x x x x x ... x      index 3 7 8 20 | 1 3 9 11 | 0 2 4 30 | 5 6 7 41
 *     looked up         3 7 8 20 (4 times)  1 3 9 11 (4 times)  ...         then one dot product as the dense kernels'
 *
 * Weights and index of a step serve all rows of a tile. Few rows take several sums each, by steps in turn, to hide the
 * latency. Sums are exact, so no order matters; they end as the sums of the dense kernels do (dot_finish.h).
 *
 * Rows that lie side by side in memory are read in place; those of other convolutions (and short ones, behind which
 * nothing may be read) are laid side by side in scratch first, K bytes each, a block of tiles at a time. */
#ifndef TERSE_KERNELS_VEC_SPARSE_U8_H
#define TERSE_KERNELS_VEC_SPARSE_U8_H

#include "common/kernels/vec/conv_u8_copy.h"
#include "common/kernels/vec/dot.h"
#undef DOT_ROWWISE /* tiles of one panel */
#include "common/kernels/vec/dot_finish.h"
#include "common/kernels/vec/tier.h"
#if defined(__AVX512VNNI__)
#include "common/kernels/x86/sparse_avx512.h"
#elif defined(__AVX2__)
#include "common/kernels/x86/sparse_avx2.h"
#elif defined(__aarch64__)
#include "common/kernels/arm/sparse_neon.h"
#endif

/* Weights that all rows of a block pass over before the next ones, and rows of a block, stay in the second-level cache.
 */
enum { SPARSE_PART_STEPS = 4096, SPARSE_BLOCK_BYTES = 192 * 1024, SPARSE_MOST_ROWS = 3072, SPARSE_WINDOW = 64 };

typedef struct sparse_product {
    terse_sparse s;
    dot_finish finish;
} sparse_product;

typedef void sparse_function(const sparse_product *p, const uint8_t *x, int64_t ld, int64_t row, int64_t panel);

/* Sums per row: steps go to them in turn. */
#define SPARSE_CHAINS(rows) ((rows) == 1 ? 4 : (rows) <= 3 ? 2 : 1)

INLINE void sparse_step(int n_rows, int chain, const uint8_t *x, int64_t ld, const uint8_t *index, const int8_t *b,
                        dot_sums sums[4][SPARSE_ROWS], dot_sums *zeros)
{
    const sparse_index at = sparse_load_index(index);
    const dot_b w = dot_load(b);
    UNROLL for (int r = 0; r < n_rows; r += 4)
    {
        UNROLL for (int i = 0; i < 4; i++) if (r + i < n_rows) sums[chain][r + i] =
            sparse_add(sums[chain][r + i], sparse_lookup(x + i * ld, at), w);
        x += 4 * ld;
    }
#if DOT_SIGNED
    *zeros = dot_add(*zeros, dot_four(0), w);
#else
    (void)zeros;
#endif
}

INLINE void sparse_run(int n_rows, const sparse_product *p, const uint8_t *x, int64_t ld, int64_t row, int64_t panel)
{
    const int chains = SPARSE_CHAINS(n_rows);
    const int64_t first = p->s.starts[panel], end = p->s.starts[panel + 1];
    const uint8_t *index = p->s.index + first * 16, *advance = p->s.advance + first;
    const int8_t *b = (const int8_t *)p->s.weights + first * 64;
    const int32_t *bias = dot_bias_of(&p->finish, panel);
    dot_sums sums[4][SPARSE_ROWS], zeros = dot_begin(dot_zeros);
    UNROLL for (int c = 0; c < chains; c++) UNROLL for (int r = 0; r < n_rows; r++) sums[c][r] =
        dot_begin(c ? dot_zeros : bias);
    int64_t step = first;
    for (; step + chains <= end; step += chains)
        UNROLL for (int c = 0; c < chains; c++)
        {
            x += *advance++;
            sparse_step(n_rows, c, x, ld, index, b, sums, &zeros);
            index += 16;
            b += 64;
        }
    for (; chains > 1 && step < end; step++, index += 16, b += 64) {
        x += *advance++;
        sparse_step(n_rows, 0, x, ld, index, b, sums, &zeros);
    }
    _Alignas(64) int32_t to[(SPARSE_ROWS + 3) * 16];
    UNROLL for (int r = 0; r < n_rows; r++)
    {
#if DOT_SIGNED
        sums[0][r] = dot_without(sums[0][r], zeros);
#endif
        dot_store(to + r * 16, sums[0][r]);
        UNROLL for (int c = 1; c < chains; c++)
        {
            _Alignas(64) int32_t more[16];
            dot_store(more, sums[c][r]);
            for (int i = 0; i < 16; i++)
                to[r * 16 + i] = (int32_t)((uint32_t)to[r * 16 + i] + (uint32_t)more[i]);
        }
    }
    dot_finish_panels(&p->finish, to, n_rows, 1, row, panel);
}

#define SPARSE_DEFINE(r)                                                                                               \
    static void sparse_tile_##r(const sparse_product *p, const uint8_t *x, int64_t ld, int64_t row, int64_t panel)     \
    {                                                                                                                  \
        sparse_run(r < SPARSE_ROWS ? r : SPARSE_ROWS, p, x, ld, row, panel);                                           \
    }
SPARSE_DEFINE(1)
SPARSE_DEFINE(2)
SPARSE_DEFINE(3)
SPARSE_DEFINE(4)
SPARSE_DEFINE(5)
SPARSE_DEFINE(6)
SPARSE_DEFINE(7)
SPARSE_DEFINE(8)
SPARSE_DEFINE(9)
SPARSE_DEFINE(10)
SPARSE_DEFINE(11)
SPARSE_DEFINE(12)
/* A tier with fewer rows has the same function at the end of the list, which it never asks for. */
static sparse_function *const sparse_tiles[13] = {
    NULL,          sparse_tile_1, sparse_tile_2, sparse_tile_3,  sparse_tile_4,  sparse_tile_5, sparse_tile_6,
    sparse_tile_7, sparse_tile_8, sparse_tile_9, sparse_tile_10, sparse_tile_11, sparse_tile_12};

/* --- rows of K ------------------------------------------------------------------------------------------------------
 */

static int64_t sparse_rows_of_k(const terse_conv_u8s8_args *c)
{
    return c->channels * c->kernel[0] * c->kernel[1] * c->kernel[2];
}

static int64_t sparse_pixels(const terse_conv_u8s8_args *c)
{
    return c->n * c->out[0] * c->out[1] * c->out[2];
}

/* Bytes from one row in scratch to the next: not a multiple of what falls into few sets of the first-level cache. */
static int64_t sparse_copy_stride(int64_t k)
{
    const int64_t wide = (k + 63) / 64 * 64;
    return wide % 512 == 0 ? wide + 64 : wide;
}

/* Rows that are copied at a time: whole tiles. */
static int64_t sparse_copy_rows(const terse_conv_u8s8_args *c)
{
    const int64_t tiles = SPARSE_BLOCK_BYTES / sparse_copy_stride(sparse_rows_of_k(c)) / SPARSE_ROWS;
    const int64_t rows = (tiles < 1 ? 1 : tiles) * SPARSE_ROWS, pixels = sparse_pixels(c);
    return rows < pixels ? rows : pixels;
}

static bool sparse_in_place(const terse_conv_u8s8_args *c)
{
    return conv_is_gemm(c) && c->channels >= SPARSE_WINDOW && c->in_stride % 1024 != 0;
}

/* The same for all strides of pixels: they may not be known yet. */
size_t TIER_NAME(terse_sparse_u8s8_scratch)(const terse_sparse_u8s8_args *args)
{
    const terse_conv_u8s8_args *c = &args->conv;
    return sparse_pixels(c) < 1 ? 0 : (size_t)(sparse_copy_rows(c) * sparse_copy_stride(sparse_rows_of_k(c)));
}

/* What output pixel `index` sees, in the order of K. */
static void sparse_copy_row(const terse_conv_u8s8_args *c, int64_t index, uint8_t *to)
{
    if (conv_is_gemm(c)) {
        conv_copy_bytes(to, c->input + index * c->in_stride, c->channels);
        return;
    }
    const int64_t x = index % c->out[2], y = index / c->out[2] % c->out[1],
                  z = index / c->out[2] / c->out[1] % c->out[0];
    const int64_t n = index / c->out[2] / c->out[1] / c->out[0];
    for (int64_t kz = 0; kz < c->kernel[0]; kz++)
        for (int64_t ky = 0; ky < c->kernel[1]; ky++, to += c->kernel[2] * c->channels) {
            const int64_t iz = z * c->stride[0] - c->pad[0] + kz * c->dilation[0];
            const int64_t iy = y * c->stride[1] - c->pad[1] + ky * c->dilation[1];
            const bool inside = iz >= 0 && iz < c->in[0] && iy >= 0 && iy < c->in[1];
            const uint8_t *line =
                inside ? c->input + ((n * c->in[0] + iz) * c->in[1] + iy) * c->in[2] * c->in_stride : NULL;
            conv_copy_pixels(c, line, c->channels, x * c->stride[2] - c->pad[2], c->dilation[2], c->kernel[2], to);
        }
}

/* --- the product ----------------------------------------------------------------------------------------------------
 */

/* `count` rows, the first of which is output row `first`, over all panels: a part of the weights at a time. */
static void sparse_block(const sparse_product *p, const uint8_t *x, int64_t ld, int64_t first, int64_t count)
{
    const int64_t panels = (p->finish.columns + 15) / 16, tiles = (count + SPARSE_ROWS - 1) / SPARSE_ROWS;
    for (int64_t from = 0, to; from < panels; from = to) {
        to = from + 1;
        while (to < panels && p->s.starts[to + 1] - p->s.starts[from] <= SPARSE_PART_STEPS)
            to++;
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t begin = t * count / tiles, end = (t + 1) * count / tiles;
            for (int64_t panel = from; panel < to; panel++)
                sparse_tiles[end - begin](p, x + begin * ld, ld, first + begin, panel);
        }
    }
}

void TIER_NAME(terse_sparse_u8s8)(const terse_sparse_u8s8_args *args)
{
    const terse_conv_u8s8_args *c = &args->conv;
    const int64_t pixels = sparse_pixels(c), k = sparse_rows_of_k(c);
    if (pixels < 1 || c->filters < 1)
        return;
    sparse_product p = {.s = args->weights};
    dot_finish_init(&p.finish, &c->requantize, 0, c->filters, c->output, c->out_stride);
    if (sparse_in_place(c)) {
        for (int64_t row = 0; row < pixels; row += SPARSE_MOST_ROWS)
            sparse_block(&p, c->input + row * c->in_stride, c->in_stride, row,
                         pixels - row < SPARSE_MOST_ROWS ? pixels - row : SPARSE_MOST_ROWS);
        return;
    }
    const int64_t ld = sparse_copy_stride(k), rows = sparse_copy_rows(c);
    uint8_t *copies = c->scratch;
    for (int64_t row = 0; row < pixels; row += rows) {
        const int64_t count = pixels - row < rows ? pixels - row : rows;
        for (int64_t r = 0; r < count; r++)
            sparse_copy_row(c, row + r, copies + r * ld);
        sparse_block(&p, copies, ld, row, count);
    }
}

#endif
