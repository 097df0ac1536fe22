/* SPDX-License-Identifier: Apache-2.0 */
/* sparse_f32.h: floats by sparse weights (common/sparse.h), for matrices and convolutions alike.
 *
 * Many rows: sixteen or thirty-two of them are turned in scratch, so that a row of K lies side by side for all of them.
 * A block of the weights, four columns of one row of K, is then one vector of activations (two) and four (eight) FMAs
 * by numbers that are spread: as many as a dense product needs for those columns, whatever rows of K they have.
 *
 *     turned [K][16]        columns 0 1 2 3 of a group, sixteen rows each
 *       k = 7  xxxxxxxx  -> += x * w[7][0], x * w[7][1], x * w[7][2], x * w[7][3]
 *
 * Few rows: four lanes are the four columns, by one spread activation. Both are the same chain of FMAs per output. */
#ifndef TERSE_KERNELS_VEC_SPARSE_F32_H
#define TERSE_KERNELS_VEC_SPARSE_F32_H

#include "common/kernels/vec/four.h"
#include "common/kernels/vec/math.h"
#include "common/kernels/vec/tier.h"

/* Fewer rows are not turned. */
enum { SPARSE_FEW = 4 };
#if defined(__AVX512F__)
enum { SPARSE_VECTORS = 2 };
#else
enum { SPARSE_VECTORS = 1 };
#endif
enum { SPARSE_TILE = 16 * SPARSE_VECTORS };

typedef struct sparse_call {
    const terse_conv_f32_args *c;
    terse_sparse s;
    int64_t k, pixels;
    float *turned; /* [K][16 * vectors]; for few rows of a convolution: one row of K */
} sparse_call;

static int64_t sparse_rows_of_k(const terse_conv_f32_args *c)
{
    return c->channels * c->kernel[0] * c->kernel[1] * c->kernel[2];
}

static int64_t sparse_pixels(const terse_conv_f32_args *c)
{
    return c->n * c->out[0] * c->out[1] * c->out[2];
}

size_t TIER_NAME(terse_sparse_f32_scratch)(const terse_sparse_f32_args *args)
{
    const int64_t k = sparse_rows_of_k(&args->conv), pixels = sparse_pixels(&args->conv);
    if (pixels < 1 || k < 1)
        return 0;
    return (size_t)((pixels < SPARSE_FEW ? (k + 15) / 16 * 16 : k * SPARSE_TILE) * (int64_t)sizeof(float));
}

/* The input's pixel that output pixel `index` sees at kernel position `at`; NULL in the padding. */
static const float *sparse_pixel(const terse_conv_f32_args *c, int64_t index, const int64_t at[3])
{
    const int64_t out[3] = {index / c->out[2] / c->out[1] % c->out[0], index / c->out[2] % c->out[1],
                            index % c->out[2]};
    int64_t pixel = index / c->out[2] / c->out[1] / c->out[0];
    for (int axis = 0; axis < 3; axis++) {
        const int64_t i = out[axis] * c->stride[axis] - c->pad[axis] + at[axis] * c->dilation[axis];
        if (i < 0 || i >= c->in[axis])
            return NULL;
        pixel = pixel * c->in[axis] + i;
    }
    return c->input + pixel * c->in_stride;
}

static bool sparse_is_gemm(const terse_conv_f32_args *c)
{
    for (int axis = 0; axis < 3; axis++)
        if (c->kernel[axis] != 1 || c->stride[axis] != 1 || c->pad[axis] != 0 || c->in[axis] != c->out[axis])
            return false;
    return true;
}

/* --- the way out ----------------------------------------------------------------------------------------------------
 */

/* The columns from `column` on of one row. */
INLINE void sparse_finish(const sparse_call *call, int64_t row, int64_t column, v16 x)
{
    const terse_conv_f32_args *c = call->c;
    const int64_t left = c->filters - column;
    if (c->bias)
        x = v16_add(x, v16_load_up_to(c->bias + column, left));
    if (c->residual)
        x = v16_add(x, v16_load_up_to(c->residual + row * c->residual_stride + column, left));
    v16_store_up_to(c->output + row * c->out_stride + column, v16_activate(x, &c->activation), left);
}

/* --- few rows -------------------------------------------------------------------------------------------------------
 */

static void sparse_few(const sparse_call *call, const float *x, int64_t row)
{
    const terse_sparse *s = &call->s;
    for (int64_t panel = 0; panel < terse_sparse_panels(call->c->filters); panel++) {
        four sums[TERSE_SPARSE_GROUPS];
        UNROLL for (int g = 0; g < TERSE_SPARSE_GROUPS; g++) sums[g] = four_zero();
        const float *at = x;
        for (int64_t step = s->starts[panel]; step < s->starts[panel + 1]; step++) {
            const uint8_t *index = s->index + step * TERSE_SPARSE_GROUPS;
            const float *w = (const float *)s->weights + step * TERSE_SPARSE_PANEL;
            at += s->advance[step];
            UNROLL for (int g = 0; g < TERSE_SPARSE_GROUPS; g++) sums[g] = four_fma(at[index[g]], w + g * 4, sums[g]);
        }
        float all[TERSE_SPARSE_PANEL];
        UNROLL for (int g = 0; g < TERSE_SPARSE_GROUPS; g++) four_store(all + g * 4, sums[g]);
        for (int64_t i = 0; i < TERSE_SPARSE_PANEL && panel * TERSE_SPARSE_PANEL + i < call->c->filters; i += 16)
            sparse_finish(call, row, panel * TERSE_SPARSE_PANEL + i, v16_load(all + i));
    }
}

/* What one output pixel sees, in the order of K. */
static void sparse_gather(const sparse_call *call, int64_t index, float *to)
{
    const terse_conv_f32_args *c = call->c;
    int64_t at[3];
    for (at[0] = 0; at[0] < c->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < c->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < c->kernel[2]; at[2]++, to += c->channels) {
                const float *from = sparse_pixel(c, index, at);
                if (from)
                    memcpy(to, from, (size_t)c->channels * sizeof *to);
                else
                    memset(to, 0, (size_t)c->channels * sizeof *to);
            }
}

/* --- many rows ------------------------------------------------------------------------------------------------------
 */

/* `rows` pixels of one kernel position, at pixels[] (NULL: padding), into lanes of `width` side by side. */
static void sparse_turn_pixels(const float *const pixels[16], int rows, int64_t channels, int64_t width, float *to)
{
    for (int64_t c = 0; c < channels; c += 16) {
        const int64_t left = channels - c;
        v16 x[16];
        for (int r = 0; r < 16; r++)
            x[r] = r < rows && pixels[r] ? v16_load_up_to(pixels[r] + c, left) : v16_zero();
        v16_transpose(x);
        for (int i = 0; i < 16 && i < left; i++)
            v16_store(to + (c + i) * width, x[i]);
    }
}

static void sparse_turn(const sparse_call *call, int64_t first, int64_t rows, int64_t width)
{
    const terse_conv_f32_args *c = call->c;
    float *to = call->turned;
    int64_t at[3];
    for (at[0] = 0; at[0] < c->kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < c->kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < c->kernel[2]; at[2]++, to += c->channels * width)
                for (int64_t r = 0; r < width; r += 16) {
                    const float *pixels[16];
                    const int count = (int)(rows - r < 0 ? 0 : rows - r < 16 ? rows - r : 16);
                    for (int i = 0; i < count; i++)
                        pixels[i] = sparse_pixel(c, first + r + i, at);
                    sparse_turn_pixels(pixels, count, c->channels, width, to + r);
                }
}

/* One group of a panel: its four columns by all rows of the tile, to their place among sixteen columns. */
INLINE void sparse_group(int vectors, const terse_sparse *s, int64_t panel, int group, const float *turned, float *sums)
{
    v16 acc[4][SPARSE_VECTORS];
    UNROLL for (int i = 0; i < 4; i++) UNROLL for (int v = 0; v < vectors; v++) acc[i][v] = v16_zero();
    for (int64_t step = s->starts[panel]; step < s->starts[panel + 1]; step++) {
        turned += (int64_t)s->advance[step] * vectors * 16;
        const float *from = turned + (int64_t)s->index[step * TERSE_SPARSE_GROUPS + group] * vectors * 16;
        const float *w = (const float *)s->weights + step * TERSE_SPARSE_PANEL + group * 4;
        v16 x[SPARSE_VECTORS];
        UNROLL for (int v = 0; v < vectors; v++) x[v] = v16_load(from + v * 16);
        UNROLL for (int i = 0; i < 4; i++)
        {
            const v16 spread = v16_set1(w[i]);
            UNROLL for (int v = 0; v < vectors; v++) acc[i][v] = v16_fma(x[v], spread, acc[i][v]);
        }
    }
    UNROLL for (int i = 0; i < 4; i++) UNROLL for (int v = 0; v < vectors; v++)
        v16_store(sums + (v * 16 + group % 4 * 4 + i) * 16, acc[i][v]);
}

/* Sixteen columns by all rows of the tile: sums [vector][column][16 rows]. */
static void sparse_turn_back(const sparse_call *call, const float *sums, int64_t first, int64_t rows, int64_t column)
{
    for (int64_t r = 0; r < rows; r += 16) {
        v16 x[16];
        UNROLL for (int i = 0; i < 16; i++) x[i] = v16_load(sums + (r + i) * 16);
        v16_transpose(x);
        float turned[16 * 16];
        UNROLL for (int i = 0; i < 16; i++) v16_store(turned + i * 16, x[i]);
        for (int64_t i = 0; i < 16 && r + i < rows; i++)
            sparse_finish(call, first + r + i, column, v16_load(turned + i * 16));
    }
}

INLINE void sparse_many(int vectors, const sparse_call *call, int64_t first, int64_t rows)
{
    sparse_turn(call, first, rows, vectors * 16);
    for (int64_t column = 0; column < call->c->filters; column += 16) {
        const int64_t panel = column / TERSE_SPARSE_PANEL;
        const int group = (int)(column % TERSE_SPARSE_PANEL / 4);
        _Alignas(64) float sums[SPARSE_VECTORS * 16 * 16];
        for (int g = group; g < group + 4; g++)
            sparse_group(vectors, &call->s, panel, g, call->turned, sums);
        sparse_turn_back(call, sums, first, rows, column);
    }
}

static __attribute__((noinline)) void sparse_many_1(const sparse_call *call, int64_t first, int64_t rows)
{
    sparse_many(1, call, first, rows);
}

static __attribute__((noinline)) void sparse_many_all(const sparse_call *call, int64_t first, int64_t rows)
{
    sparse_many(SPARSE_VECTORS, call, first, rows);
}

void TIER_NAME(terse_sparse_f32)(const terse_sparse_f32_args *args)
{
    const terse_conv_f32_args *c = &args->conv;
    const sparse_call call = {
        .c = c, .s = args->weights, .k = sparse_rows_of_k(c), .pixels = sparse_pixels(c), .turned = c->scratch};
    const bool gemm = sparse_is_gemm(c);
    for (int64_t row = 0; row < call.pixels;) {
        const int64_t left = call.pixels - row;
        if (left < SPARSE_FEW) {
            if (!gemm)
                sparse_gather(&call, row, call.turned);
            sparse_few(&call, gemm ? c->input + row * c->in_stride : call.turned, row);
            row++;
        } else if (left <= 16) {
            sparse_many_1(&call, row, left);
            row = call.pixels;
        } else {
            const int64_t count = left < SPARSE_TILE ? left : SPARSE_TILE;
            sparse_many_all(&call, row, count);
            row += count;
        }
    }
}

#endif
