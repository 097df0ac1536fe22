/* SPDX-License-Identifier: Apache-2.0 */
/* winograd.h: 3x3 convolutions through F(4x4,3x3): a block of tiles goes into the domain, is multiplied there point by
 * point, a few panels of filters at a time, and comes back.
 *
 * Scratch, in floats: [36][tiles of the block][channels] in the domain, [36][tiles][filters of a chunk] products, and
 * one pixel of zeros for the padding. Planes are a vector longer than they need be: the 36 streams would otherwise
 * meet in one set of the first-level cache. */
#ifndef TERSE_KERNELS_VEC_WINOGRAD_H
#define TERSE_KERNELS_VEC_WINOGRAD_H

#include "common/kernels/vec/conv.h"
#include "common/kernels/winograd.h"

enum {
    WINOGRAD_BLOCK_BYTES = 512 * 1024, /* of the domain: with products and weights it stays in the second-level cache */
    WINOGRAD_CHUNK_BYTES = 256 * 1024, /* of products */
    WINOGRAD_LEAST = 28,               /* tiles of a block at least: each block reads all weights */
    WINOGRAD_MOST = 84,
};

/* Tiles along an axis. With a dilation d the pixels of each phase, d apart, are an axis of their own. */
typedef struct winograd_axis {
    int64_t step, phase_tiles, tiles; /* pixels from output to output of a tile; tiles of a phase; of all phases */
} winograd_axis;

INLINE winograd_axis winograd_axis_of(int64_t size, int64_t dilation)
{
    const int64_t outputs = (size + dilation - 1) / dilation; /* of the first phase, which has the most */
    const int64_t phase_tiles = (outputs + WINOGRAD_TILE - 1) / WINOGRAD_TILE;
    return (winograd_axis){dilation, phase_tiles, phase_tiles * (size < dilation ? size : dilation)};
}

INLINE int64_t winograd_first(const winograd_axis *axis, int64_t tile)
{
    return tile / axis->phase_tiles + tile % axis->phase_tiles * WINOGRAD_TILE * axis->step;
}

/* Outputs of a tile from `first` on that are below `size`. */
INLINE int64_t winograd_inside(const winograd_axis *axis, int64_t first, int64_t size)
{
    const int64_t count = (size - first + axis->step - 1) / axis->step;
    return count < 0 ? 0 : count < WINOGRAD_TILE ? count : WINOGRAD_TILE;
}

typedef struct winograd_plan {
    winograd_axis down, along;
    int64_t tiles;         /* of all images */
    int64_t block, panels; /* tiles of a block; panels of a chunk */
    int64_t wide, plane;   /* floats of a tile and of a point in the domain */
    int64_t product_wide, product_plane;
} winograd_plan;

static winograd_plan winograd_plan_for(const terse_conv_f32_args *args)
{
    winograd_plan plan = {.down = winograd_axis_of(args->out[1], args->dilation[1]),
                          .along = winograd_axis_of(args->out[2], args->dilation[2]),
                          .wide = (args->channels + 15) / 16 * 16};
    plan.tiles = args->n * plan.down.tiles * plan.along.tiles;
    int64_t block = WINOGRAD_BLOCK_BYTES / (int64_t)sizeof(float) / WINOGRAD_POINTS / plan.wide;
    block = block < WINOGRAD_LEAST ? WINOGRAD_LEAST : block > WINOGRAD_MOST ? WINOGRAD_MOST : block;
    if (block > TILE_ROWS)
        block = block / TILE_ROWS * TILE_ROWS;
    const int64_t blocks = (plan.tiles + block - 1) / block, panels = (args->filters + 15) / 16;
    plan.block = blocks ? (plan.tiles + blocks - 1) / blocks : 1;
    const int64_t most = WINOGRAD_CHUNK_BYTES / (int64_t)sizeof(float) / WINOGRAD_POINTS / 16 / plan.block;
    const int64_t chunks = most < 1 ? panels : (panels + most - 1) / most;
    plan.panels = (panels + chunks - 1) / chunks;
    plan.plane = plan.block * plan.wide + 16;
    plan.product_wide = plan.panels * 16;
    plan.product_plane = plan.block * plan.product_wide + 16;
    return plan;
}

size_t TIER_NAME(terse_winograd_f32_scratch)(const terse_conv_f32_args *args)
{
    const winograd_plan plan = winograd_plan_for(args);
    return (size_t)(WINOGRAD_POINTS * (plan.plane + plan.product_plane) + plan.wide) * sizeof(float);
}

INLINE void winograd_input(v16 *d, int stride)
{
    const v16 a = v16_set1((float)WINOGRAD_A), b = v16_set1((float)WINOGRAD_B);
    const v16 less_a = v16_set1(-(float)WINOGRAD_A), less_b = v16_set1(-(float)WINOGRAD_B);
    const v16 d0 = d[0], d1 = d[stride], d2 = d[2 * stride], d3 = d[3 * stride], d4 = d[4 * stride], d5 = d[5 * stride];
    const v16 even_a = v16_fma(d2, v16_set1(-2.0f), d4), odd_a = v16_fma(d1, less_b, v16_mul(a, d3));
    const v16 even_b = v16_fma(d2, v16_set1(-0.5f), d4), odd_b = v16_fma(d1, less_a, v16_mul(b, d3));
    d[0] = v16_add(d0, v16_fma(d2, v16_set1(-2.5f), d4));
    d[stride] = v16_add(even_a, odd_a);
    d[2 * stride] = v16_sub(even_a, odd_a);
    d[3 * stride] = v16_add(even_b, odd_b);
    d[4 * stride] = v16_sub(even_b, odd_b);
    d[5 * stride] = v16_add(d5, v16_fma(d3, v16_set1(-2.5f), d1));
}

INLINE void winograd_output(v16 *m, int stride)
{
    const v16 sum_a = v16_add(m[stride], m[2 * stride]), difference_a = v16_sub(m[stride], m[2 * stride]);
    const v16 sum_b = v16_add(m[3 * stride], m[4 * stride]), difference_b = v16_sub(m[3 * stride], m[4 * stride]);
    m[0] = v16_add(v16_add(m[0], sum_a), sum_b);
    m[stride] = v16_fma(difference_b, v16_set1((float)WINOGRAD_B), v16_mul(v16_set1((float)WINOGRAD_A), difference_a));
    m[2 * stride] = v16_fma(sum_b, v16_set1(2.0f), v16_mul(v16_set1(0.5f), sum_a));
    m[3 * stride] = v16_fma(difference_b, v16_set1(2.0f * (float)WINOGRAD_B),
                            v16_fma(difference_a, v16_set1(0.5f * (float)WINOGRAD_A), m[5 * stride]));
}

/* Sixteen channels (or the first `left`) of one window into `to`, points `plane` floats apart. */
INLINE void winograd_load(const float *const pixels[WINOGRAD_POINTS], int64_t channel, int64_t left, float *to,
                          int64_t plane)
{
    v16 d[WINOGRAD_POINTS];
    UNROLL for (int x = 0; x < WINOGRAD_WINDOW; x++)
    {
        UNROLL for (int y = 0; y < WINOGRAD_WINDOW; y++)
        {
            const float *p = pixels[y * WINOGRAD_WINDOW + x] + channel;
            d[y * WINOGRAD_WINDOW + x] = left >= 16 ? v16_load(p) : v16_load_n(p, (int)left);
        }
        winograd_input(d + x, WINOGRAD_WINDOW);
    }
    UNROLL for (int y = 0; y < WINOGRAD_WINDOW; y++)
    {
        winograd_input(d + y * WINOGRAD_WINDOW, 1);
        UNROLL for (int x = 0; x < WINOGRAD_WINDOW; x++)
            v16_store(to + (y * WINOGRAD_WINDOW + x) * plane, d[y * WINOGRAD_WINDOW + x]);
    }
}

/* Where a tile lies: its image and the first output pixel, which is outside where its phase has fewer tiles. */
typedef struct winograd_place {
    int64_t n, y, x;
} winograd_place;

INLINE winograd_place winograd_place_of(const winograd_plan *plan, int64_t tile)
{
    const int64_t column = tile % plan->along.tiles, row = tile / plan->along.tiles % plan->down.tiles;
    return (winograd_place){tile / plan->along.tiles / plan->down.tiles, winograd_first(&plan->down, row),
                            winograd_first(&plan->along, column)};
}

static void winograd_load_tile(const terse_conv_f32_args *args, const winograd_plan *plan, winograd_place at,
                               const float *zeros, float *to)
{
    const int64_t height = args->in[1], width = args->in[2], first_y = at.y - args->pad[1],
                  first_x = at.x - args->pad[2];
    const float *image = args->input + at.n * height * width * args->in_stride;
    const float *pixels[WINOGRAD_POINTS];
    for (int64_t i = 0; i < WINOGRAD_POINTS; i++) {
        const int64_t y = first_y + i / WINOGRAD_WINDOW * plan->down.step;
        const int64_t x = first_x + i % WINOGRAD_WINDOW * plan->along.step;
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        pixels[i] = inside ? image + (y * width + x) * args->in_stride : zeros;
    }
    int64_t c = 0;
    for (; c + 16 <= args->channels; c += 16)
        winograd_load(pixels, c, 16, to + c, plan->plane);
    if (c < args->channels)
        winograd_load(pixels, c, args->channels - c, to + c, plan->plane);
}

/* Four outputs in a row of the tile, `step` pixels apart, as many as lie inside. */
INLINE void winograd_store(const terse_conv_f32_args *args, const v16 *m, int64_t pixel, int64_t step, int64_t count,
                           int64_t filter, int64_t left)
{
    const v16 bias = args->bias ? v16_load_up_to(args->bias + filter, left) : v16_zero();
    for (int64_t x = 0; x < count; x++) {
        v16 y = m[x];
        if (args->bias)
            y = v16_add(y, bias);
        if (args->residual)
            y = v16_add(y, v16_load_up_to(args->residual + (pixel + x * step) * args->residual_stride + filter, left));
        v16_store_up_to(args->output + (pixel + x * step) * args->out_stride + filter,
                        v16_activate(y, &args->activation), left);
    }
}

static void winograd_store_tile(const terse_conv_f32_args *args, const winograd_plan *plan, winograd_place at,
                                const float *products, int64_t first_filter)
{
    const int64_t rows = winograd_inside(&plan->down, at.y, args->out[1]);
    const int64_t columns = winograd_inside(&plan->along, at.x, args->out[2]);
    const int64_t first_pixel = (at.n * args->out[1] + at.y) * args->out[2] + at.x;
    for (int64_t f = 0; f < plan->product_wide && first_filter + f < args->filters; f += 16) {
        v16 m[WINOGRAD_POINTS];
        UNROLL for (int x = 0; x < WINOGRAD_WINDOW; x++)
        {
            UNROLL for (int y = 0; y < WINOGRAD_WINDOW; y++) m[y * WINOGRAD_WINDOW + x] =
                v16_load(products + (y * WINOGRAD_WINDOW + x) * plan->product_plane + f);
            winograd_output(m + x, WINOGRAD_WINDOW);
        }
        for (int y = 0; y < rows; y++) {
            winograd_output(m + y * WINOGRAD_WINDOW, 1);
            winograd_store(args, m + y * WINOGRAD_WINDOW, first_pixel + y * plan->down.step * args->out[2],
                           plan->along.step, columns, first_filter + f, args->filters - first_filter - f);
        }
    }
}

/* products[point][tile][filter of the chunk] = domain x weights, for `count` tiles. */
static void winograd_multiply(const terse_conv_f32_args *args, const winograd_plan *plan, int64_t count, int64_t panel,
                              int64_t panels, const float *domain, float *products)
{
    static const terse_activation none = {.kind = TERSE_ACT_NONE};
    const tile_deal deal = tile_deal_rows(count, plan->wide);
    const float *rows[WINOGRAD_MOST * TILE_ROWS];
    const int64_t all_panels = (args->filters + 15) / 16;
    for (int64_t point = 0; point < WINOGRAD_POINTS; point++) {
        for (int64_t t = 0; t < deal.tiles; t++)
            for (int r = 0; r < tile_rows(&deal, t); r++)
                rows[t * TILE_ROWS + r] = domain + point * plan->plane + (tile_first(&deal, t) + r) * plan->wide;
        const float *next = point + 1 < WINOGRAD_POINTS
                                ? args->weights + ((point + 1) * all_panels + panel) * args->channels * 16
                                : NULL;
        const tile_product p = {.positions = 1,
                                .run = args->channels,
                                .b = args->weights + (point * all_panels + panel) * args->channels * 16,
                                .columns = panels * 16,
                                .c = products + point * plan->product_plane,
                                .ldc = plan->product_wide,
                                .activation = &none,
                                .next = next};
        tile_block(&p, &deal, 0, deal.tiles, rows);
    }
}

void TIER_NAME(terse_winograd_f32)(const terse_conv_f32_args *args)
{
    const winograd_plan plan = winograd_plan_for(args);
    float *domain = args->scratch, *products = domain + WINOGRAD_POINTS * plan.plane;
    float *zeros = products + WINOGRAD_POINTS * plan.product_plane;
    const int64_t panels = (args->filters + 15) / 16;
    conv_clear(zeros, plan.wide);
    for (int64_t first = 0; first < plan.tiles; first += plan.block) {
        const int64_t count = plan.tiles - first < plan.block ? plan.tiles - first : plan.block;
        for (int64_t t = 0; t < count; t++)
            winograd_load_tile(args, &plan, winograd_place_of(&plan, first + t), zeros, domain + t * plan.wide);
        for (int64_t panel = 0; panel < panels; panel += plan.panels) {
            winograd_multiply(args, &plan, count, panel, panels - panel < plan.panels ? panels - panel : plan.panels,
                              domain, products);
            for (int64_t t = 0; t < count; t++)
                winograd_store_tile(args, &plan, winograd_place_of(&plan, first + t), products + t * plan.product_wide,
                                    panel * 16);
        }
    }
}

#endif
