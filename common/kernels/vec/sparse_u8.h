/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_u8.h: bytes by sparse weights, for matrices and convolutions alike, over the tiles of sparse_tile.h.
 *
 * Rows that lie side by side in memory are read in place; those of other convolutions (and short ones, behind which
 * nothing may be read) are laid side by side in scratch first, K bytes each, a block of tiles at a time. */
#ifndef TERSE_KERNELS_VEC_SPARSE_U8_H
#define TERSE_KERNELS_VEC_SPARSE_U8_H

#include "common/kernels/vec/conv_u8_copy.h"
#include "common/kernels/vec/sparse_tile.h"

/* Weights that all rows of a block pass over before the next ones, and rows of a block, stay in the second-level cache.
 */
enum { SPARSE_PART_STEPS = 2048, SPARSE_BLOCK_BYTES = 192 * 1024, SPARSE_MOST_ROWS = 3072, SPARSE_WINDOW = 64 };

static int64_t sparse_rows_of_k(const terse_conv_u8s8_args *c)
{
    return c->channels * c->kernel[0] * c->kernel[1] * c->kernel[2];
}

#if defined(__AVX512VNNI__)
#define SPARSE_LANES
#include "common/kernels/x86/sparse_lanes_avx512.h"
#include "common/kernels/x86/sparse_planes_avx512.h"
#endif

/* --- rows of K ------------------------------------------------------------------------------------------------------
 */

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
static int64_t sparse_copy_rows(const sparse_tier *tier, const terse_conv_u8s8_args *c)
{
    const int64_t tiles = SPARSE_BLOCK_BYTES / sparse_copy_stride(sparse_rows_of_k(c)) / tier->rows;
    const int64_t rows = (tiles < 1 ? 1 : tiles) * tier->rows, pixels = sparse_pixels(c);
    return rows < pixels ? rows : pixels;
}

static bool sparse_in_place(const terse_conv_u8s8_args *c)
{
    return conv_is_gemm(c) && c->channels >= SPARSE_WINDOW && c->in_stride % 1024 != 0;
}

/* The same for all strides of pixels: they may not be known yet. */
size_t SHARED_NAME(terse_sparse_scratch)(const sparse_tier *tier, const terse_sparse_u8s8_args *args)
{
    const terse_conv_u8s8_args *c = &args->conv;
    const int64_t k = sparse_rows_of_k(c), stride = sparse_copy_stride(k);
    int64_t bytes = sparse_pixels(c) < 1 ? 0 : sparse_copy_rows(tier, c) * stride;
#ifdef SPARSE_LANES
    if (sparse_pixels(c) >= LANES_LEAST_ROWS) {
        const int64_t turned = LANES_ROWS * stride + lanes_bytes(k) + (int64_t)lanes_ends_bytes(c->filters);
        bytes = turned > bytes ? turned : bytes;
    }
    const int64_t in_planes = (int64_t)planes_scratch(c);
    bytes = sparse_pixels(c) > 0 && in_planes > bytes ? in_planes : bytes;
#endif
    return (size_t)bytes;
}

/* Never touches anything but the n bytes. */
INLINE void sparse_copy_bytes(uint8_t *to, const uint8_t *from, int64_t n)
{
    if (n < 64) {
        conv_copy_bytes(to, from, n);
        return;
    }
    for (int64_t i = 0; i < n - 64; i += 64) /* only moved: the bits may be anything */
        v16_store((float *)(void *)(to + i), v16_load((const float *)(const void *)(from + i)));
    v16_store((float *)(void *)(to + n - 64), v16_load((const float *)(const void *)(from + n - 64)));
}

/* What the output pixel (z, y, x) of image n sees, in the order of K. */
static void sparse_copy_row(const terse_conv_u8s8_args *c, int64_t n, const int64_t out[3], uint8_t *to)
{
    const int64_t run = c->kernel[2] * c->channels, x = out[2] * c->stride[2] - c->pad[2];
    const bool joined = c->in_stride == c->channels && (c->dilation[2] == 1 || c->kernel[2] == 1) && x >= 0 &&
                        x + c->kernel[2] <= c->in[2];
    for (int64_t kz = 0; kz < c->kernel[0]; kz++)
        for (int64_t ky = 0; ky < c->kernel[1]; ky++, to += run) {
            const int64_t z = out[0] * c->stride[0] - c->pad[0] + kz * c->dilation[0];
            const int64_t y = out[1] * c->stride[1] - c->pad[1] + ky * c->dilation[1];
            const bool inside = z >= 0 && z < c->in[0] && y >= 0 && y < c->in[1];
            const uint8_t *line =
                inside ? c->input + ((n * c->in[0] + z) * c->in[1] + y) * c->in[2] * c->in_stride : NULL;
            if (joined && inside)
                sparse_copy_bytes(to, line + x * c->channels, run);
            else
                conv_copy_pixels(c, line, c->channels, x, c->dilation[2], c->kernel[2], to);
        }
}

/* `count` output pixels from index `first` on. */
static void sparse_copy_rows_of(const terse_conv_u8s8_args *c, int64_t first, int64_t count, int64_t ld, uint8_t *to)
{
    if (conv_is_gemm(c)) {
        for (int64_t r = 0; r < count; r++)
            sparse_copy_bytes(to + r * ld, c->input + (first + r) * c->in_stride, c->channels);
        return;
    }
    int64_t out[3] = {first / c->out[2] / c->out[1] % c->out[0], first / c->out[2] % c->out[1], first % c->out[2]};
    int64_t n = first / c->out[2] / c->out[1] / c->out[0];
    for (int64_t r = 0; r < count; r++) {
        sparse_copy_row(c, n, out, to + r * ld);
        int axis = 2;
        while (axis >= 0 && ++out[axis] == c->out[axis])
            out[axis--] = 0;
        n += axis < 0;
    }
}

/* --- the product ----------------------------------------------------------------------------------------------------
 */

/* All columns of a panel for the rows of a tile. */
static void sparse_panel(const sparse_product *p, const uint8_t *x, int64_t ld, int64_t row, int64_t count,
                         int64_t panel)
{
    const int64_t begin = panel * TERSE_SPARSE_PANEL, left = p->finish.columns - begin;
    for (int64_t column = 0; column < TERSE_SPARSE_PANEL && column < left;) {
        const int halves = p->tier->halves == 2 && left - column > 16 ? 2 : 1;
        p->tier->tiles[count][halves](p, x, ld, row, begin + column);
        column += halves * 16;
    }
}

/* `count` rows, the first of which is output row `first`, over all panels: a part of the weights at a time. */
static void sparse_block(const sparse_product *p, const uint8_t *x, int64_t ld, int64_t first, int64_t count)
{
    const int64_t panels = terse_sparse_panels(p->finish.columns), most = p->tier->rows,
                  tiles = (count + most - 1) / most;
    for (int64_t from = 0, to; from < panels; from = to) {
        to = from + 1;
        while (to < panels && p->s.starts[to + 1] - p->s.starts[from] <= SPARSE_PART_STEPS)
            to++;
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t begin = t * count / tiles, end = (t + 1) * count / tiles;
            for (int64_t panel = from; panel < to; panel++)
                sparse_panel(p, x + begin * ld, ld, first + begin, end - begin, panel);
        }
    }
}

#ifdef SPARSE_LANES
/* 64 rows at a time; few that are left over as in sparse_block. */
static void sparse_by_lanes(const sparse_product *p, const terse_conv_u8s8_args *c, int64_t pixels, int64_t k)
{
    const bool in_place = sparse_in_place(c) && k % 16 == 0;
    const int64_t ld = in_place ? c->in_stride : sparse_copy_stride(k);
    uint8_t *copies = c->scratch, *turned = copies + LANES_ROWS * sparse_copy_stride(k);
    uint32_t *ends = (uint32_t *)(void *)(turned + lanes_bytes(k));
    int16_t place[LANES_ROWS];
    lanes_ends(p, ends);
    for (int i = 0; i < LANES_ROWS; i++)
        place[i] = (int16_t)i;
    for (int64_t row = 0; row < pixels; row += LANES_ROWS) {
        const int64_t count = pixels - row < LANES_ROWS ? pixels - row : LANES_ROWS;
        const uint8_t *x = in_place ? c->input + row * ld : copies;
        if (!in_place)
            sparse_copy_rows_of(c, row, count, ld, copies);
        if (count >= LANES_LEAST_ROWS) {
            for (int64_t i = count; i < LANES_ROWS; i++)
                place[i] = LANES_ROWS;
            lanes_turn(x, ld, count, k, turned);
            lanes_block(p, turned, ends, place, row, count);
        } else {
            sparse_block(p, x, ld, row, count);
        }
    }
}
#endif

void SHARED_NAME(terse_sparse_run)(const sparse_tier *tier, const terse_sparse_u8s8_args *args)
{
    const terse_conv_u8s8_args *c = &args->conv;
    const int64_t pixels = sparse_pixels(c), k = sparse_rows_of_k(c);
    if (pixels < 1 || c->filters < 1)
        return;
    sparse_product p = {.tier = tier, .s = args->weights};
    SHARED_NAME(terse_dot_finish_init)(&p.finish, &c->requantize, 0, c->filters, c->output, c->out_stride);
#ifdef SPARSE_LANES
    if (pixels >= LANES_LEAST_ROWS && planes_wanted(tier, args)) {
        sparse_by_planes(&p, c);
        return;
    }
    if (lanes_wanted(args, pixels)) {
        sparse_by_lanes(&p, c, pixels, k);
        return;
    }
#endif
    if (sparse_in_place(c)) {
        for (int64_t row = 0; row < pixels; row += SPARSE_MOST_ROWS)
            sparse_block(&p, c->input + row * c->in_stride, c->in_stride, row,
                         pixels - row < SPARSE_MOST_ROWS ? pixels - row : SPARSE_MOST_ROWS);
        return;
    }
    const int64_t ld = sparse_copy_stride(k), rows = sparse_copy_rows(tier, c);
    uint8_t *copies = c->scratch;
    for (int64_t row = 0; row < pixels; row += rows) {
        const int64_t count = pixels - row < rows ? pixels - row : rows;
        sparse_copy_rows_of(c, row, count, ld, copies);
        sparse_block(&p, copies, ld, row, count);
    }
}

#endif
