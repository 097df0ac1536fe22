/* SPDX-License-Identifier: Apache-2.0 */
/* conv.h: conv_f32 as a product without an im2col copy.
 *
 * Output pixels are the rows, (kernel position, input channel) is K. Three ways to point at the input:
 *   CONV_POINTS  one pointer per pixel and kernel position, to its channels or to zeros in the padding
 *   CONV_RUNS    one pointer per pixel and kernel row: kw * channels are contiguous when the pixels are dense.
 *                Only windows that cross the left or right border are copied. For few channels.
 *   CONV_COPIES  K so short that pointers cost more than copying: the tile's windows are gathered into rows
 * 1x1 without stride and padding is gemm_f32 itself. Scratch: zeros, pointers of one block of tiles, copies. */
#ifndef TERSE_KERNELS_VEC_CONV_H
#define TERSE_KERNELS_VEC_CONV_H

#include "common/kernels/vec/gemm.h"

typedef enum conv_way { CONV_POINTS, CONV_RUNS, CONV_COPIES } conv_way;

typedef struct conv_plan {
    conv_way way;
    int64_t channels, filters;     /* of a group */
    int64_t positions, run;        /* as in tile_product */
    int64_t block;                 /* tiles per block */
    int64_t zero_floats, pointers; /* pointers of one block */
    int64_t copy_floats;           /* copies of one block */
} conv_plan;

#ifndef TILE_BF16
enum { CONV_SHORT_RUN = 8 };
#else
enum { CONV_SHORT_RUN = 6 }; /* three pixels of four channels */
#endif
enum { CONV_FEW_CHANNELS = 96, CONV_POINTER_BYTES = 32 * 1024 };

static bool conv_is_gemm(const terse_conv_f32_args *args)
{
    for (int axis = 0; axis < 3; axis++)
        if (args->kernel[axis] != 1 || args->stride[axis] != 1 || args->pad[axis] != 0 ||
            args->in[axis] != args->out[axis])
            return false;
    return true;
}

static conv_plan conv_plan_as(const terse_conv_f32_args *args, conv_way way)
{
    const int64_t *kernel = args->kernel;
    conv_plan plan = {.way = way};
    plan.channels = args->channels / args->groups;
    plan.filters = args->filters / args->groups;
    int64_t k = kernel[0] * kernel[1] * kernel[2] * plan.channels;
    plan.positions = way == CONV_POINTS ? kernel[0] * kernel[1] * kernel[2]
                     : way == CONV_RUNS ? kernel[0] * kernel[1]
                                        : 1;
    plan.run = plan.positions ? k / plan.positions : 0;
    int64_t row_floats = way == CONV_COPIES ? k : kernel[0] * kernel[1] * plan.channels;
    int64_t block = BLOCK_BYTES / (int64_t)sizeof(float) / TILE_ROWS / (row_floats + 1);
    int64_t most = CONV_POINTER_BYTES / (int64_t)sizeof(float *) / TILE_ROWS / (plan.positions + 1);
    block = block < most ? block : most;
    block = block < BLOCK_TILES ? block : BLOCK_TILES;
    plan.block = block < 1 ? 1 : block;
    plan.zero_floats = (plan.run + 15) / 16 * 16;
    plan.pointers = plan.block * TILE_ROWS * plan.positions;
    plan.copy_floats = way == CONV_POINTS ? 0 : plan.block * TILE_ROWS * k;
    return plan;
}

static conv_plan conv_plan_for(const terse_conv_f32_args *args)
{
    int64_t channels = args->channels / args->groups;
    bool runs = args->groups == 1 && args->in_stride == args->channels && args->dilation[2] == 1;
    int64_t run = runs ? channels * args->kernel[2] : channels;
    if (run < CONV_SHORT_RUN)
        return conv_plan_as(args, CONV_COPIES);
    return conv_plan_as(args, runs && channels < CONV_FEW_CHANNELS && args->kernel[2] > 1 ? CONV_RUNS : CONV_POINTS);
}

static size_t conv_plan_bytes(const conv_plan *plan)
{
    size_t pointers = ((size_t)plan->pointers * sizeof(float *) + 63) / 64 * 64;
    return ((size_t)plan->zero_floats + (size_t)plan->copy_floats) * sizeof(float) + pointers;
}

/* The largest of the ways that the channels allow: the pixels' stride may not be known yet. */
static size_t conv_scratch(const terse_conv_f32_args *args)
{
    if (conv_is_gemm(args))
        return 0;
    int64_t channels = args->channels / args->groups;
    conv_plan plan = conv_plan_as(args, CONV_POINTS);
    size_t most = conv_plan_bytes(&plan);
    for (conv_way way = CONV_RUNS; way <= CONV_COPIES; way++) {
        plan = conv_plan_as(args, way);
        size_t bytes = conv_plan_bytes(&plan);
        if (channels < (way == CONV_RUNS ? (int)CONV_FEW_CHANNELS : (int)CONV_SHORT_RUN) && bytes > most)
            most = bytes;
    }
    return most;
}

/* What building the pointers of one block needs. */
typedef struct conv_site {
    const terse_conv_f32_args *args;
    int64_t interior, interior_end; /* outputs of a row whose windows cross neither border of it */
    const conv_plan *plan;
    const float *input; /* of the group */
    const float *zeros;
    const float **pointers;
    float *copies;
} conv_site;

/* The window of one output pixel: its image, and where it begins in the input. */
typedef struct conv_window {
    const float *image;
    int64_t at[3];
} conv_window;

static void conv_points(const conv_site *site, const conv_window *w, const float **pointer)
{
    const terse_conv_f32_args *args = site->args;
    const int64_t *in = args->in, *kernel = args->kernel, *dilation = args->dilation;
    for (int64_t z = 0; z < kernel[0]; z++) {
        int64_t iz = w->at[0] + z * dilation[0];
        for (int64_t y = 0; y < kernel[1]; y++) {
            int64_t iy = w->at[1] + y * dilation[1];
            bool inside = iz >= 0 && iz < in[0] && iy >= 0 && iy < in[1];
            const float *row = inside ? w->image + (iz * in[1] + iy) * in[2] * args->in_stride : NULL;
            for (int64_t x = 0; x < kernel[2]; x++, pointer += TILE_ROWS) {
                int64_t ix = w->at[2] + x * dilation[2];
                *pointer = inside && ix >= 0 && ix < in[2] ? row + ix * args->in_stride : site->zeros;
            }
        }
    }
}

INLINE void conv_copy(float *to, const float *from, int64_t n)
{
    for (; n >= 16; n -= 16, to += 16, from += 16)
        v16_store(to, v16_load(from));
    if (n > 0)
        v16_store_n(to, v16_load_n(from, (int)n), (int)n);
}

INLINE void conv_clear(float *to, int64_t n)
{
    for (; n >= 16; n -= 16, to += 16)
        v16_store(to, v16_zero());
    if (n > 0)
        v16_store_n(to, v16_zero(), (int)n);
}

/* One kernel row of the window, padding included, into `to`: kernel[2] * channels floats. */
static void conv_gather(const conv_site *site, const float *row, int64_t from, float *to)
{
    const terse_conv_f32_args *args = site->args;
    int64_t channels = site->plan->channels;
    if (args->dilation[2] == 1 && args->in_stride == channels) {
        int64_t skip = from < 0 ? -from : 0, end = from + args->kernel[2];
        skip = skip < args->kernel[2] ? skip : args->kernel[2];
        int64_t keep = (end < args->in[2] ? end : args->in[2]) - (from + skip);
        keep = row && keep > 0 ? keep : 0;
        conv_clear(to, skip * channels);
        if (keep)
            conv_copy(to + skip * channels, row + (from + skip) * channels, keep * channels);
        conv_clear(to + (skip + keep) * channels, (args->kernel[2] - skip - keep) * channels);
        return;
    }
    for (int64_t x = 0; x < args->kernel[2]; x++, to += channels) {
        int64_t ix = from + x * args->dilation[2];
        if (row && ix >= 0 && ix < args->in[2])
            conv_copy(to, row + ix * args->in_stride, channels);
        else
            conv_clear(to, channels);
    }
}

/* CONV_RUNS and CONV_COPIES; `copy` has room for the whole window. */
static void conv_runs(const conv_site *site, const conv_window *w, const float **pointer, float *copy)
{
    const terse_conv_f32_args *args = site->args;
    const int64_t *in = args->in, *kernel = args->kernel;
    bool copies = site->plan->way == CONV_COPIES, interior = w->at[2] >= 0 && w->at[2] + kernel[2] <= in[2];
    int64_t run = kernel[2] * site->plan->channels;
    if (copies)
        *pointer = copy;
    for (int64_t z = 0; z < kernel[0]; z++) {
        int64_t iz = w->at[0] + z * args->dilation[0];
        for (int64_t y = 0; y < kernel[1]; y++, copy += run) {
            int64_t iy = w->at[1] + y * args->dilation[1];
            bool inside = iz >= 0 && iz < in[0] && iy >= 0 && iy < in[1];
            const float *row = inside ? w->image + (iz * in[1] + iy) * in[2] * args->in_stride : NULL;
            if (copies || (inside && !interior))
                conv_gather(site, row, w->at[2], copy);
            if (copies)
                continue;
            *pointer = !inside ? site->zeros : interior ? row + w->at[2] * args->in_stride : copy;
            pointer += TILE_ROWS;
        }
    }
}

/* CONV_POINTS and CONV_RUNS: `count` windows side by side, none of which crosses a border of the row. */
static void conv_span(const conv_site *site, const conv_window *w, int count, const float **pointer)
{
    const terse_conv_f32_args *args = site->args;
    const int64_t *in = args->in, *kernel = args->kernel, *dilation = args->dilation;
    const int64_t across = site->plan->way == CONV_POINTS ? kernel[2] : 1;
    for (int64_t z = 0; z < kernel[0]; z++)
        for (int64_t y = 0; y < kernel[1]; y++) {
            const int64_t iz = w->at[0] + z * dilation[0], iy = w->at[1] + y * dilation[1];
            const bool inside = iz >= 0 && iz < in[0] && iy >= 0 && iy < in[1];
            const float *at =
                inside ? w->image + ((iz * in[1] + iy) * in[2] + w->at[2]) * args->in_stride : site->zeros;
            const int64_t step = inside ? args->stride[2] * args->in_stride : 0;
            for (int64_t x = 0; x < across; x++, pointer += TILE_ROWS) {
                const float *from = at;
                for (int i = 0; i < count; i++, from += step)
                    pointer[i] = from;
                at += inside ? dilation[2] * args->in_stride : 0;
            }
        }
}

/* Pointers for output pixels first..first+rows-1 as one tile. */
static void conv_point_tile(const conv_site *site, int64_t first, int rows, const float **pointers, float *copies)
{
    const terse_conv_f32_args *args = site->args;
    const int64_t *out = args->out;
    int64_t x = first % out[2], y = first / out[2] % out[1], z = first / out[2] / out[1] % out[0];
    int64_t n = first / out[2] / out[1] / out[0],
            image_floats = args->in[0] * args->in[1] * args->in[2] * args->in_stride;
    for (int r = 0, n_side; r < rows; r += n_side) {
        const int64_t o[3] = {z, y, x};
        conv_window w = {.image = site->input + n * image_floats};
        for (int axis = 0; axis < 3; axis++)
            w.at[axis] = o[axis] * args->stride[axis] - args->pad[axis];
        const int64_t side = x >= site->interior ? site->interior_end - x : 0;
        n_side = side < 1 ? 1 : side < rows - r ? (int)side : rows - r;
        if (side > 0)
            conv_span(site, &w, n_side, pointers + r);
        else if (site->plan->way == CONV_POINTS)
            conv_points(site, &w, pointers + r);
        else
            conv_runs(site, &w, pointers + r, copies + r * site->plan->positions * site->plan->run);
        x += n_side;
        if (x < out[2])
            continue;
        x = 0;
        if (++y < out[1])
            continue;
        y = 0;
        if (++z < out[0])
            continue;
        z = 0;
        n++;
    }
}

static void conv_group(const terse_conv_f32_args *args, const conv_plan *plan, const tile_product *p, conv_site *site)
{
    const tile_deal deal =
        tile_deal_rows(args->n * args->out[0] * args->out[1] * args->out[2], args->in_stride * args->stride[2]);
    int64_t tile_pointers = TILE_ROWS * plan->positions, tile_copies = plan->copy_floats / plan->block;
    for (int64_t tile = 0; tile < deal.tiles; tile += plan->block) {
        int64_t count = tile + plan->block < deal.tiles ? plan->block : deal.tiles - tile;
        for (int64_t t = 0; t < count; t++)
            conv_point_tile(site, tile_first(&deal, tile + t), tile_rows(&deal, tile + t),
                            site->pointers + t * tile_pointers, site->copies + t * tile_copies);
        tile_block(p, &deal, tile, count, site->pointers);
    }
}

static void conv_as_gemm(const terse_conv_f32_args *args, bool wide)
{
    int64_t channels = args->channels / args->groups, filters = args->filters / args->groups;
    for (int64_t g = 0; g < args->groups; g++) {
        terse_gemm_f32_args gemm = {.m = args->n * args->in[0] * args->in[1] * args->in[2],
                                    .n = filters,
                                    .k = channels,
                                    .a = args->input + g * channels,
                                    .lda = args->in_stride,
                                    .b = args->weights + g * ((filters + 15) / 16) * channels * 16,
                                    .c = args->output + g * filters,
                                    .ldc = args->out_stride,
                                    .bias = args->bias ? args->bias + g * filters : NULL,
                                    .residual = args->residual ? args->residual + g * filters : NULL,
                                    .ldr = args->residual_stride,
                                    .activation = args->activation};
        gemm_run(&gemm, wide);
    }
}

static void conv_find_interior(conv_site *site)
{
    const terse_conv_f32_args *args = site->args;
    const int64_t stride = args->stride[2], pad = args->pad[2];
    const int64_t room = args->in[2] - 1 - (args->kernel[2] - 1) * args->dilation[2] + pad;
    site->interior = (pad + stride - 1) / stride;
    site->interior_end = room < 0 || site->plan->way == CONV_COPIES ? 0 : room / stride + 1;
    if (site->interior_end > args->out[2])
        site->interior_end = args->out[2];
}

/* `wide`: see tile_product; without it there is one group. */
static void conv_run(const terse_conv_f32_args *args, bool wide)
{
    if (conv_is_gemm(args)) {
        conv_as_gemm(args, wide);
        return;
    }
    const conv_plan plan = conv_plan_for(args);
    float *zeros = args->scratch;
    conv_clear(zeros, plan.zero_floats);
    float *copies = zeros + plan.zero_floats;
    conv_site site = {.args = args,
                      .plan = &plan,
                      .zeros = zeros,
                      .copies = copies,
                      .pointers = (const float **)(void *)(copies + plan.copy_floats)};
    conv_find_interior(&site);
    int64_t panels = (plan.filters + 15) / 16;
    for (int64_t g = 0; g < args->groups; g++) {
        site.input = args->input + g * plan.channels;
        tile_product p = {.positions = plan.positions,
                          .run = plan.run,
                          .b = args->weights + g * panels * plan.positions * plan.run * 16,
                          .columns = plan.filters,
                          .c = args->output + g * plan.filters,
                          .ldc = args->out_stride,
                          .bias = args->bias ? args->bias + g * plan.filters : NULL,
                          .residual = args->residual ? args->residual + g * plan.filters : NULL,
                          .ldr = args->residual_stride,
                          .activation = &args->activation,
                          .wide = wide};
        conv_group(args, &plan, &p, &site);
    }
}

#ifndef TILE_BF16
size_t TIER_NAME(terse_conv_f32_scratch)(const terse_conv_f32_args *args)
{
    return conv_scratch(args);
}

void TIER_NAME(terse_conv_f32)(const terse_conv_f32_args *args)
{
    conv_run(args, true);
}
#endif

#endif
