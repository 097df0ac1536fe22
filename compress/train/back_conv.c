/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of a convolution. Per image and group, with X' [K,P] the columns of x under the kernel (im2col; Chellapilla
 * et al., 2006), W [M,K] and dY [M,P]: dW += dY X'^T, dX' = W^T dY, and dX gathers dX' where it came from (col2im).
 * One filter per channel has no matrix worth the name and is done position by position. */
#include <string.h>

#include <cblas.h>

#include "compress/train/back.h"

typedef struct conv {
    terse_window w;
    int64_t groups, filters, positions; /* filters and channels of all groups */
    int64_t channels_of, filters_of;    /* of one group */
    int64_t pixels_in, pixels_out;
    bool plain; /* a 1x1 kernel, stride 1, no padding: X' is x */
    bool depthwise;
} conv;

static bool read_conv(const terse_back *back, conv *c)
{
    const terse_tensor *weights = back->x[1];
    *c = (conv){.groups = terse_node_int(back->node, "group", 1), .filters = weights->dims[0]};
    if (terse_back_window(back, weights->dims + 2, false, &c->w) != TERSE_OK || c->groups < 1)
        return false;
    const terse_window *w = &c->w;
    c->positions = w->kernel[0] * w->kernel[1] * w->kernel[2];
    c->channels_of = w->channels / c->groups;
    c->filters_of = c->filters / c->groups;
    c->pixels_in = terse_window_pixels_in(w);
    c->pixels_out = terse_window_pixels_out(w);
    c->plain = c->positions == 1;
    for (int i = 0; i < 3; i++)
        c->plain = c->plain && w->stride[i] == 1 && w->pad[i] == 0 && w->pad_end[i] == 0;
    c->depthwise = c->channels_of == 1 && c->filters_of == 1 && c->groups > 1;
    return true;
}

size_t terse_back_conv_scratch(const terse_back *back)
{
    conv c;
    if (!read_conv(back, &c) || c.plain || c.depthwise)
        return 0;
    return (size_t)(c.channels_of * c.positions * c.pixels_out);
}

/* The output columns along the last axis for which position k of the kernel lies inside the image. */
static void inside(const terse_window *w, int axis, int64_t k, int64_t *ret_first, int64_t *ret_last)
{
    const int64_t shift = k * w->dilation[axis] - w->pad[axis], stride = w->stride[axis];
    int64_t first = shift < 0 ? (-shift + stride - 1) / stride : 0;
    int64_t last = w->in[axis] - 1 - shift < 0 ? -1 : (w->in[axis] - 1 - shift) / stride;
    last = last < w->out[axis] - 1 ? last : w->out[axis] - 1;
    *ret_first = first;
    *ret_last = last;
}

/* What is done with each run of pixels that one position of the kernel sees: n outputs at `out` from inputs at `in`,
 * `stride` elements apart. */
typedef void visit(void *context, int64_t out, int64_t in, int64_t n, int64_t stride);

static void walk_position(const terse_window *w, const int64_t *k, visit *visitor, void *context)
{
    int64_t first[3], last[3];
    for (int i = 0; i < 3; i++)
        inside(w, i, k[i], &first[i], &last[i]);
    if (last[2] < first[2])
        return;
    for (int64_t z = first[0]; z <= last[0]; z++)
        for (int64_t y = first[1]; y <= last[1]; y++) {
            const int64_t in_z = z * w->stride[0] + k[0] * w->dilation[0] - w->pad[0];
            const int64_t in_y = y * w->stride[1] + k[1] * w->dilation[1] - w->pad[1];
            const int64_t in_x = first[2] * w->stride[2] + k[2] * w->dilation[2] - w->pad[2];
            visitor(context, (z * w->out[1] + y) * w->out[2] + first[2], (in_z * w->in[1] + in_y) * w->in[2] + in_x,
                    last[2] - first[2] + 1, w->stride[2]);
        }
}

/* All positions; *row moves on by `pixels_out` behind each. */
static void walk_kernel(const terse_window *w, visit *visitor, void *context, float **row, int64_t pixels_out)
{
    int64_t k[3];
    for (k[0] = 0; k[0] < w->kernel[0]; k[0]++)
        for (k[1] = 0; k[1] < w->kernel[1]; k[1]++)
            for (k[2] = 0; k[2] < w->kernel[2]; k[2]++) {
                walk_position(w, k, visitor, context);
                *row += pixels_out;
            }
}

typedef struct columns {
    const float *plane; /* of x */
    float *gathered;    /* of dx */
    float *at;          /* the row of X' */
} columns;

static void copy_out(void *context, int64_t out, int64_t in, int64_t n, int64_t stride)
{
    const columns *c = context;
    float *to = c->at + out;
    const float *from = c->plane + in;
    if (stride == 1)
        memcpy(to, from, (size_t)n * sizeof *to);
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = from[i * stride];
}

static void add_back(void *context, int64_t out, int64_t in, int64_t n, int64_t stride)
{
    const columns *c = context;
    const float *from = c->at + out;
    float *to = c->gathered + in;
    if (stride == 1)
        for (int64_t i = 0; i < n; i++)
            to[i] += from[i];
    else
        for (int64_t i = 0; i < n; i++)
            to[i * stride] += from[i];
}

static void to_columns(const conv *c, const float *x, float *to)
{
    memset(to, 0, (size_t)(c->channels_of * c->positions * c->pixels_out) * sizeof *to);
    columns state = {.at = to};
    for (int64_t i = 0; i < c->channels_of; i++) {
        state.plane = x + i * c->pixels_in;
        walk_kernel(&c->w, copy_out, &state, &state.at, c->pixels_out);
    }
}

static void from_columns(const conv *c, float *from, float *dx)
{
    columns state = {.at = from};
    for (int64_t i = 0; i < c->channels_of; i++) {
        state.gathered = dx + i * c->pixels_in;
        walk_kernel(&c->w, add_back, &state, &state.at, c->pixels_out);
    }
}

/* One group of one image; the offsets of that group are in all pointers. */
static void back_group(const conv *c, const float *x, const float *w, const float *dy, float *dx, float *dw,
                       float *scratch)
{
    const int m = (int)c->filters_of, k = (int)(c->channels_of * c->positions), p = (int)c->pixels_out;
    if (dw) {
        if (!c->plain)
            to_columns(c, x, scratch);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, k, p, 1, dy, p, c->plain ? x : scratch, p, 1, dw, k);
    }
    if (dx && c->plain)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, k, p, m, 1, w, k, dy, p, 1, dx, p);
    else if (dx) {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, k, p, m, 1, w, k, dy, p, 0, scratch, p);
        from_columns(c, scratch, dx);
    }
}

typedef struct channel {
    const float *x, *dy;
    float *dx;
    float weight;
    double sum;
} channel;

static void one_position(void *context, int64_t out, int64_t in, int64_t n, int64_t stride)
{
    channel *c = context;
    const float *dy = c->dy + out;
    float sum = 0;
    if (c->x)
        for (int64_t i = 0; i < n; i++)
            sum += dy[i] * c->x[in + i * stride];
    if (c->dx)
        for (int64_t i = 0; i < n; i++)
            c->dx[in + i * stride] += dy[i] * c->weight;
    c->sum += (double)sum;
}

static void back_depthwise(const conv *c, const float *x, const float *w, const float *dy, float *dx, float *dw)
{
    for (int64_t ch = 0; ch < c->groups; ch++) {
        int64_t k[3], position = ch * c->positions;
        channel state = {.x = dw ? x + ch * c->pixels_in : NULL,
                         .dy = dy + ch * c->pixels_out,
                         .dx = dx ? dx + ch * c->pixels_in : NULL};
        for (k[0] = 0; k[0] < c->w.kernel[0]; k[0]++)
            for (k[1] = 0; k[1] < c->w.kernel[1]; k[1]++)
                for (k[2] = 0; k[2] < c->w.kernel[2]; k[2]++, position++) {
                    state.weight = w[position];
                    state.sum = 0;
                    walk_position(&c->w, k, one_position, &state);
                    if (dw)
                        dw[position] += (float)state.sum;
                }
    }
}

static void back_bias(const conv *c, const float *dy, float *db)
{
    for (int64_t f = 0; f < c->filters; f++) {
        double total = 0;
        for (int64_t i = 0; i < c->w.n; i++) {
            const float *row = dy + (i * c->filters + f) * c->pixels_out;
            float lanes[16] = {0}, sum = 0; /* sums side by side are vectors; always the same ones */
            int64_t p = 0;
            for (; p + 16 <= c->pixels_out; p += 16)
                for (int lane = 0; lane < 16; lane++)
                    lanes[lane] += row[p + lane];
            for (; p < c->pixels_out; p++)
                sum += row[p];
            for (int lane = 0; lane < 16; lane++)
                sum += lanes[lane];
            total += (double)sum;
        }
        db[f] += (float)total;
    }
}

void terse_back_conv(const terse_back *back)
{
    conv c;
    if (!back->dy[0] || !read_conv(back, &c) || c.pixels_out == 0)
        return;
    const float *x = back->x[0]->data, *w = back->x[1]->data;
    const int64_t kernel = c.filters_of * c.channels_of * c.positions;
    if (back->n_inputs > 2 && back->dx[2])
        back_bias(&c, back->dy[0], back->dx[2]);
    for (int64_t i = 0; i < c.w.n && (back->dx[0] || back->dx[1]); i++) {
        const float *image = x + i * c.w.channels * c.pixels_in, *dy = back->dy[0] + i * c.filters * c.pixels_out;
        float *dx = back->dx[0] ? back->dx[0] + i * c.w.channels * c.pixels_in : NULL;
        if (c.depthwise) {
            back_depthwise(&c, image, w, dy, dx, back->dx[1]);
            continue;
        }
        for (int64_t g = 0; g < c.groups; g++)
            back_group(&c, image + g * c.channels_of * c.pixels_in, w + g * kernel,
                       dy + g * c.filters_of * c.pixels_out, dx ? dx + g * c.channels_of * c.pixels_in : NULL,
                       back->dx[1] ? back->dx[1] + g * kernel : NULL, back->scratch);
    }
}
