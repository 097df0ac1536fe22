/* SPDX-License-Identifier: Apache-2.0 */
/* conv_u8.h: conv_u8s8 as a product of bytes without an im2col copy.
 *
 * Output pixels are the rows. A row's pointer names where its window begins, `offsets` where the window's runs lie
 * behind it, the same for all rows: runs are kernel rows (kw * channels bytes side by side) where pixels are dense,
 * kernel positions elsewhere. For that no tap may fall into the padding:
 *
 *   direct   nothing is padded: pointers go into the input. 1x1 with strides is this; without it is gemm_u8s8 itself
 *   copied   the input is copied once, its padding filled with the zero point: whole images while they are small (then
 *            tiles run on from one image to the next), bands of output rows else. The copy is dense, so that runs are
 *            kernel rows even for a group's channels or the few channels of an image
 *   windows  dilated rows of channels that are not a multiple of four (runs are filled up to fours by row): each
 *            kernel row of each window is copied side by side
 */
#ifndef TERSE_KERNELS_VEC_CONV_U8_H
#define TERSE_KERNELS_VEC_CONV_U8_H

#include "common/kernels/vec/conv_u8_copy.h"
#include "common/kernels/vec/products_u8.h"

typedef enum conv_way { CONV_DIRECT, CONV_COPIED, CONV_WINDOWS } conv_way;

typedef struct conv_plan {
    conv_way way;
    bool joined;               /* runs are kernel rows */
    int64_t channels, filters; /* of a group */
    int64_t positions, run, run_steps;
    int axis;             /* the first one with more than one output: bands are cut along it */
    int64_t images, band; /* per copy: images, or outputs along `axis` of one image */
    int64_t size[3];      /* of a copied image or band; for windows the last is in windows */
    int64_t pixel_bytes;  /* of the copy */
    int64_t copy_bytes;   /* of one image or band */
} conv_plan;

/* A copy should leave room in the second-level cache. */
enum { CONV_COPY_BYTES = 256 * 1024 };

/* Input positions that `outputs` windows side by side span. */
static int64_t conv_span(const terse_conv_u8s8_args *args, int axis, int64_t outputs)
{
    return (outputs - 1) * args->stride[axis] + (args->kernel[axis] - 1) * args->dilation[axis] + 1;
}

static bool conv_padded(const terse_conv_u8s8_args *args)
{
    for (int axis = 0; axis < 3; axis++)
        if (args->pad[axis] != 0 || conv_span(args, axis, args->out[axis]) > args->in[axis])
            return true;
    return false;
}

/* Sizes of the copy: as many images, or as long a band, as the budget holds. */
static void conv_plan_copy(const terse_conv_u8s8_args *args, conv_plan *plan)
{
    const bool windows = plan->way == CONV_WINDOWS;
    plan->pixel_bytes = windows ? plan->run_steps * 4 : plan->channels;
    for (int axis = 0; axis < 3; axis++)
        plan->size[axis] = axis == 2 && windows ? args->out[2] : conv_span(args, axis, args->out[axis]);
    plan->copy_bytes = plan->size[0] * plan->size[1] * plan->size[2] * plan->pixel_bytes;
    plan->images = CONV_COPY_BYTES / (plan->copy_bytes + 1);
    plan->images = plan->images < args->n ? plan->images : args->n;
    if (plan->images > 0)
        return;
    plan->images = 1;
    const int axis = plan->axis;
    const bool by_window = axis == 2 && windows;
    const int64_t slice = plan->copy_bytes / plan->size[axis], fixed = by_window ? 1 : conv_span(args, axis, 1);
    const int64_t room = CONV_COPY_BYTES / slice - fixed;
    const int64_t most = room > 0 ? room / (by_window ? 1 : args->stride[axis]) + 1 : 1;
    const int64_t bands = (args->out[axis] + most - 1) / most;
    plan->band = (args->out[axis] + bands - 1) / bands;
    plan->size[axis] = by_window ? plan->band : conv_span(args, axis, plan->band);
    plan->copy_bytes = slice * plan->size[axis];
}

/* `dense`: whether the pixels of the input lie side by side. */
static conv_plan conv_plan_for(const terse_conv_u8s8_args *args, bool dense)
{
    conv_plan plan = {.channels = args->channels / args->groups, .filters = args->filters / args->groups};
    const bool fours = plan.channels % 4 == 0 || args->kernel[2] == 1, tight = args->dilation[2] == 1;
    while (plan.axis < 2 && args->out[plan.axis] == 1)
        plan.axis++;
    plan.band = args->out[plan.axis];
    plan.images = args->n;
    if (!conv_padded(args) && (fours || (dense && tight)))
        plan.way = CONV_DIRECT;
    else
        plan.way = fours || tight ? CONV_COPIED : CONV_WINDOWS;
    plan.joined = plan.way == CONV_WINDOWS || args->kernel[2] == 1 || (tight && (dense || plan.way == CONV_COPIED));
    plan.positions = args->kernel[0] * args->kernel[1] * (plan.joined ? 1 : args->kernel[2]);
    plan.run = plan.channels * (plan.joined ? args->kernel[2] : 1);
    plan.run_steps = (plan.run + 3) / 4;
    if (plan.way != CONV_DIRECT) {
        plan.run = plan.run_steps * 4; /* what lies behind a run meets weights of zero */
        conv_plan_copy(args, &plan);
    }
    return plan;
}

static size_t conv_up(int64_t bytes)
{
    return ((size_t)bytes + 63) / 64 * 64;
}

static size_t conv_plan_bytes(const conv_plan *plan)
{
    const size_t copies = plan->way == CONV_DIRECT ? 0 : conv_up(plan->images * plan->copy_bytes + 4);
    return conv_up(plan->positions * (int64_t)sizeof(int64_t)) + copies;
}

/* The larger of what dense pixels need and what others do: the pixels' stride may not be known yet. */
size_t TIER_NAME(terse_conv_u8s8_scratch)(const terse_conv_u8s8_args *args)
{
    if (conv_is_gemm(args) || args->n <= 0 || args->out[0] <= 0 || args->out[1] <= 0 || args->out[2] <= 0)
        return 0;
    const conv_plan dense = conv_plan_for(args, true), strided = conv_plan_for(args, false);
    const size_t a = conv_plan_bytes(&dense), b = conv_plan_bytes(&strided);
    return a > b ? a : b;
}

/* One line of the copy: input row `row` (NULL: padding), outputs from `first` on along the last axis. */
static void conv_copy_line(const terse_conv_u8s8_args *args, const conv_plan *plan, const uint8_t *row, int64_t first,
                           uint8_t *to)
{
    const int64_t at = first * args->stride[2] - args->pad[2];
    if (plan->way == CONV_COPIED) {
        conv_copy_pixels(args, row, plan->channels, at, 1, plan->size[2], to);
        return;
    }
    for (int64_t x = 0; x < plan->size[2]; x++)
        conv_copy_pixels(args, row, plan->channels, at + x * args->stride[2], args->dilation[2], args->kernel[2],
                         to + x * plan->pixel_bytes);
}

/* Image n from output `first` along the plan's axis on. `input`: of the group. */
static void conv_copy(const terse_conv_u8s8_args *args, const conv_plan *plan, const uint8_t *input, int64_t n,
                      int64_t first, uint8_t *to)
{
    int64_t begin[3] = {0, 0, 0};
    begin[plan->axis] = first;
    for (int64_t z = 0; z < plan->size[0]; z++)
        for (int64_t y = 0; y < plan->size[1]; y++, to += plan->size[2] * plan->pixel_bytes) {
            const int64_t iz = begin[0] * args->stride[0] - args->pad[0] + z;
            const int64_t iy = begin[1] * args->stride[1] - args->pad[1] + y;
            const bool inside = iz >= 0 && iz < args->in[0] && iy >= 0 && iy < args->in[1];
            const int64_t row = (n * args->in[0] + iz) * args->in[1] + iy;
            conv_copy_line(args, plan, inside ? input + row * args->in[2] * args->in_stride : NULL, begin[2], to);
        }
}

/* Where windows and their runs lie: bytes from one image, output and kernel position to the next. */
typedef struct conv_steps {
    int64_t image, out[3], at[3];
} conv_steps;

static conv_steps conv_steps_for(const terse_conv_u8s8_args *args, const conv_plan *plan)
{
    const bool direct = plan->way == CONV_DIRECT;
    const int64_t *size = direct ? args->in : plan->size;
    const int64_t pixel = direct ? args->in_stride : plan->pixel_bytes, line = size[2] * pixel, plane = size[1] * line;
    const int64_t unit[3] = {plane, line, pixel};
    conv_steps steps = {.image = size[0] * plane};
    for (int axis = 0; axis < 3; axis++) {
        steps.out[axis] = unit[axis] * (axis == 2 && plan->way == CONV_WINDOWS ? 1 : args->stride[axis]);
        steps.at[axis] = unit[axis] * args->dilation[axis];
    }
    return steps;
}

static void conv_offsets(const terse_conv_u8s8_args *args, const conv_plan *plan, const conv_steps *steps,
                         int64_t *offsets)
{
    for (int64_t z = 0; z < args->kernel[0]; z++)
        for (int64_t y = 0; y < args->kernel[1]; y++)
            for (int64_t x = 0; x < (plan->joined ? 1 : args->kernel[2]); x++)
                *offsets++ = z * steps->at[0] + y * steps->at[1] + x * steps->at[2];
}

/* Pointers of `count` rows from the `first` on of a part whose outputs per image are out[]. */
static void conv_rows(const conv_steps *steps, const int64_t out[3], const uint8_t *base, int64_t first, int count,
                      const uint8_t **rows)
{
    int64_t x = first % out[2], y = first / out[2] % out[1], z = first / out[2] / out[1] % out[0];
    int64_t n = first / out[2] / out[1] / out[0];
    for (int r = 0; r < count;) {
        const uint8_t *line = base + n * steps->image + z * steps->out[0] + y * steps->out[1];
        for (; x < out[2] && r < count; x++, r++)
            rows[r] = line + x * steps->out[2];
        x = 0;
        if (++y == out[1]) {
            y = 0;
            if (++z == out[0]) {
                z = 0;
                n++;
            }
        }
    }
}

/* All filters of a group over `images` images of out[] outputs each, the first of which is output row `first`. */
static void conv_part(const dot_product *p, const conv_steps *steps, const int64_t out[3], int64_t images,
                      const uint8_t *base, int64_t first)
{
    const dot_deal deal = dot_deal_rows(p, images * out[0] * out[1] * out[2], steps->out[2]);
    const int64_t panels = (p->finish.columns + 15) / 16, part = dot_block_panels(p, &deal, panels);
    dot_work work;
    for (int64_t from = 0; from < panels; from += part) {
        work.ahead = dot_look_ahead(p, &deal, from, part, panels);
        for (int64_t tile = 0; tile < deal.tiles; tile++) {
            const uint8_t *rows[DOT_ROWS];
            const int64_t row = dot_first(&deal, tile);
            const int count = dot_rows(&deal, tile);
            conv_rows(steps, out, base, row, count, rows);
            dot_across(p, rows, count, first + row, from, from + part < panels ? from + part : panels, &work);
        }
    }
}

static void conv_group(const terse_conv_u8s8_args *args, const conv_plan *plan, const dot_product *p,
                       const conv_steps *steps, const uint8_t *input, uint8_t *copies)
{
    const int64_t outputs = args->out[0] * args->out[1] * args->out[2], slice = outputs / args->out[plan->axis];
    for (int64_t n = 0; n < args->n; n += plan->images)
        for (int64_t at = 0; at < args->out[plan->axis]; at += plan->band) {
            const int64_t images = n + plan->images < args->n ? plan->images : args->n - n;
            int64_t out[3] = {args->out[0], args->out[1], args->out[2]};
            if (at + plan->band > out[plan->axis])
                out[plan->axis] -= at;
            else
                out[plan->axis] = plan->band;
            if (plan->way == CONV_DIRECT) {
                conv_part(p, steps, out, images, input, 0);
                continue;
            }
            for (int64_t i = 0; i < images; i++)
                conv_copy(args, plan, input, n + i, at, copies + i * plan->copy_bytes);
            conv_part(p, steps, out, images, copies, n * outputs + at * slice);
        }
}

static void conv_as_gemm(const terse_conv_u8s8_args *args)
{
    const int64_t channels = args->channels / args->groups, filters = args->filters / args->groups;
    const int64_t group_bytes = (filters + 15) / 16 * ((channels + 3) / 4) * 64;
    for (int64_t g = 0; g < args->groups; g++)
        gemm_u8s8_columns(args->n * args->in[0] * args->in[1] * args->in[2], channels, args->input + g * channels,
                          args->in_stride, args->weights + g * group_bytes, &args->requantize, args->tiling,
                          args->ahead, g * filters, filters, args->output, args->out_stride);
}

void TIER_NAME(terse_conv_u8s8)(const terse_conv_u8s8_args *args)
{
    if (conv_is_gemm(args)) {
        conv_as_gemm(args);
        return;
    }
    if (args->n <= 0 || args->out[0] <= 0 || args->out[1] <= 0 || args->out[2] <= 0)
        return;
    const conv_plan plan = conv_plan_for(args, args->groups == 1 && args->in_stride == args->channels);
    const conv_steps steps = conv_steps_for(args, &plan);
    int64_t *offsets = args->scratch;
    uint8_t *copies = (uint8_t *)args->scratch + conv_up(plan.positions * (int64_t)sizeof(int64_t));
    conv_offsets(args, &plan, &steps, offsets);
    const int64_t group_bytes = (plan.filters + 15) / 16 * plan.positions * plan.run_steps * 64;
    for (int64_t g = 0; g < args->groups; g++) {
        dot_product p = {.positions = plan.positions,
                         .offsets = offsets,
                         .run = plan.run,
                         .b = args->weights + g * group_bytes,
                         .run_steps = plan.run_steps,
                         .tiling = args->tiling,
                         .ahead = args->ahead};
        SHARED_NAME(terse_dot_finish_init)
        (&p.finish, &args->requantize, g * plan.filters, plan.filters, args->output, args->out_stride);
        conv_group(args, &plan, &p, &steps, args->input + g * plan.channels, copies);
    }
}

#endif
