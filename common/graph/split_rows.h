/* SPDX-License-Identifier: Apache-2.0 */
/* split_rows.h: how the rows of images are cut into ranges; for split_conv.c and split_pool.c only.
 * Runs in: terse-worker, terse run. Owns nothing.
 *
 * The rows (of pixels) of all images are numbered through, and a thread gets a range of them: the end of one image,
 * whole images, the beginning of another, a call of the kernel each. A range of an image's rows is an image of its own
 * whose padding or first input row lies elsewhere: the same taps meet the same data and the same padding. */
#ifndef TERSE_GRAPH_SPLIT_ROWS_H
#define TERSE_GRAPH_SPLIT_ROWS_H

#include <string.h>

#include "common/graph/split_parts.h"

/* What a convolution or a pool slides over. */
typedef struct split_slide {
    int64_t n, in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
} split_slide;

/* `axis` is the one that the rows of pixels follow, -1 where only whole images can be shared out. */
typedef struct split_rows {
    int axis;
    int64_t rows; /* of one image */
    int64_t pixels_in, pixels_out;
    int64_t row_in, row_out; /* pixels of a step along the axis */
} split_rows;

/* Rows first..last-1 of image `image`, or `images` whole ones. */
typedef struct split_piece {
    int64_t image, images, first, last;
    int64_t in_from, in_rows, pad;
} split_piece;

#define SPLIT_SLIDE_OF(s, args)                                                                                        \
    do {                                                                                                               \
        (s)->n = (args)->n;                                                                                            \
        memcpy((s)->in, (args)->in, sizeof(s)->in);                                                                    \
        memcpy((s)->out, (args)->out, sizeof(s)->out);                                                                 \
        memcpy((s)->kernel, (args)->kernel, sizeof(s)->kernel);                                                        \
        memcpy((s)->stride, (args)->stride, sizeof(s)->stride);                                                        \
        memcpy((s)->dilation, (args)->dilation, sizeof(s)->dilation);                                                  \
        memcpy((s)->pad, (args)->pad, sizeof(s)->pad);                                                                 \
    } while (0)

static inline bool split_is_pointwise(const split_slide *s)
{
    for (int i = 0; i < 3; i++)
        if (s->kernel[i] != 1 || s->stride[i] != 1 || s->pad[i] != 0 || s->in[i] != s->out[i])
            return false;
    return true;
}

static inline int64_t split_pixels(const int64_t dims[3])
{
    return dims[0] * dims[1] * dims[2];
}

/* The first axis along which there is anything: over it alone an image's rows are contiguous. Cutting needs that no
 * window begins behind the data. */
static inline void split_find_rows(const split_slide *s, split_rows *c)
{
    int axis = 0;
    while (axis < 2 && s->in[axis] == 1 && s->out[axis] == 1)
        axis++;
    c->pixels_in = split_pixels(s->in);
    c->pixels_out = split_pixels(s->out);
    const bool good = s->out[axis] > 1 && (s->out[axis] - 1) * s->stride[axis] - s->pad[axis] < s->in[axis];
    c->axis = good ? axis : -1;
    c->rows = good ? s->out[axis] : 1;
    c->row_in = c->row_out = 1;
    for (int i = axis + 1; i < 3; i++) {
        c->row_in *= s->in[i];
        c->row_out *= s->out[i];
    }
}

/* Fills what of the input the rows of a piece see. */
static inline void split_look_through(const split_slide *s, const split_rows *c, split_piece *p)
{
    const int axis = c->axis;
    const int64_t begin = p->first * s->stride[axis] - s->pad[axis];
    const int64_t end = (p->last - 1) * s->stride[axis] - s->pad[axis] + (s->kernel[axis] - 1) * s->dilation[axis] + 1;
    p->in_from = begin > 0 ? begin : 0;
    p->pad = p->in_from - begin;
    int64_t to = p->last == s->out[axis] || end > s->in[axis] ? s->in[axis] : end;
    to = to > p->in_from ? to : p->in_from + 1;
    p->in_rows = to - p->in_from;
}

/* The pieces of a range of units, in order: at most three. */
static inline int split_pieces_of(const split_slide *s, const split_rows *c, int64_t first, int64_t last,
                                  split_piece pieces[3])
{
    int n = 0;
    while (first < last) {
        const int64_t image = first / c->rows, row = first % c->rows, left = last - first;
        split_piece *p = &pieces[n++];
        if (row == 0 && left >= c->rows) {
            *p = (split_piece){.image = image, .images = left / c->rows};
            first += p->images * c->rows;
            continue;
        }
        const int64_t count = left < c->rows - row ? left : c->rows - row;
        *p = (split_piece){.image = image, .images = 1, .first = row, .last = row + count};
        split_look_through(s, c, p);
        first += count;
    }
    return n;
}

/* Pixels before the first of a piece. */
static inline int64_t split_input_offset(const split_rows *c, const split_piece *p)
{
    return p->image * c->pixels_in + p->in_from * c->row_in;
}

static inline int64_t split_output_offset(const split_rows *c, const split_piece *p)
{
    return p->image * c->pixels_out + p->first * c->row_out;
}

/* Makes `args` slide over the piece alone. */
#define SPLIT_NARROW(args, c, p)                                                                                       \
    do {                                                                                                               \
        (args)->n = (p)->images;                                                                                       \
        if ((p)->last > 0) {                                                                                           \
            (args)->in[(c)->axis] = (p)->in_rows;                                                                      \
            (args)->out[(c)->axis] = (p)->last - (p)->first;                                                           \
            (args)->pad[(c)->axis] = (p)->pad;                                                                         \
        }                                                                                                              \
        (args)->input += split_input_offset(c, p) * (args)->in_stride;                                                 \
    } while (0)

/* A pointwise convolution is one row of all pixels. */
#define SPLIT_FLATTEN(args)                                                                                            \
    do {                                                                                                               \
        const int64_t flat = (args)->n * split_pixels((args)->in);                                                     \
        (args)->n = 1;                                                                                                 \
        (args)->in[0] = (args)->in[1] = (args)->out[0] = (args)->out[1] = 1;                                           \
        (args)->in[2] = (args)->out[2] = flat;                                                                         \
    } while (0)

#endif
