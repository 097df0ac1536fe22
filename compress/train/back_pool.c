/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of pools. A maximum gives everything to the first element that reached it; an average spreads evenly. */
#include "compress/train/back.h"

/* The part of a window along one axis that lies inside the image. */
typedef struct reach {
    int64_t first, last; /* positions of the kernel */
} reach;

static reach reach_of(const terse_window *w, int axis, int64_t out)
{
    const int64_t begin = out * w->stride[axis] - w->pad[axis], d = w->dilation[axis];
    const int64_t before = begin < 0 ? -begin : 0, behind = w->in[axis] - 1 - begin;
    reach r = {d == 1 ? before : (before + d - 1) / d, d == 1 ? behind : behind / d}; /* most have no need to divide */
    if (w->in[axis] - 1 - begin < 0)
        r.last = -1;
    if (r.last > w->kernel[axis] - 1)
        r.last = w->kernel[axis] - 1;
    return r;
}

/* The kernel's size along an axis, padding counted, as far as the padded image goes (count_include_pad). */
static int64_t padded_size(const terse_window *w, int axis, int64_t out)
{
    int64_t n = 0;
    const int64_t begin = out * w->stride[axis], end = w->pad[axis] + w->in[axis] + w->pad_end[axis];
    for (int64_t k = 0; k < w->kernel[axis]; k++)
        n += begin + k * w->dilation[axis] < end;
    return n;
}

static int64_t pixel(const terse_window *w, const int64_t *out, const int64_t *k)
{
    int64_t at = 0;
    for (int i = 0; i < 3; i++)
        at = at * w->in[i] + out[i] * w->stride[i] - w->pad[i] + k[i] * w->dilation[i];
    return at;
}

static void max_window(const terse_window *w, const int64_t *out, const reach *r, const float *x, float y, float dy,
                       float *dx)
{
    int64_t k[3];
    for (k[0] = r[0].first; k[0] <= r[0].last; k[0]++)
        for (k[1] = r[1].first; k[1] <= r[1].last; k[1]++)
            for (k[2] = r[2].first; k[2] <= r[2].last; k[2]++) {
                const int64_t at = pixel(w, out, k);
                if (x[at] == y) {
                    dx[at] += dy;
                    return;
                }
            }
}

static void average_window(const terse_window *w, const int64_t *out, const reach *r, bool padding, float dy, float *dx)
{
    int64_t k[3], n = 1;
    for (int i = 0; i < 3; i++)
        n *= padding ? padded_size(w, i, out[i]) : r[i].last - r[i].first + 1;
    const float share = n > 0 ? dy / (float)n : 0;
    for (k[0] = r[0].first; k[0] <= r[0].last; k[0]++)
        for (k[1] = r[1].first; k[1] <= r[1].last; k[1]++)
            for (k[2] = r[2].first; k[2] <= r[2].last; k[2]++)
                dx[pixel(w, out, k)] += share;
}

static void back_pool(const terse_back *back, bool max)
{
    terse_window w;
    if (!back->dx[0] || !back->dy[0] || terse_back_window(back, NULL, true, &w) != TERSE_OK)
        return;
    const bool padding = terse_node_int(back->node, "count_include_pad", 0) != 0;
    const int64_t pixels_in = terse_window_pixels_in(&w), pixels_out = terse_window_pixels_out(&w);
    for (int64_t plane = 0; plane < w.n * w.channels; plane++) {
        const float *x = max ? (const float *)back->x[0]->data + plane * pixels_in : NULL;
        const float *y = max ? (const float *)back->y[0]->data + plane * pixels_out : NULL;
        const float *dy = back->dy[0] + plane * pixels_out;
        float *dx = back->dx[0] + plane * pixels_in;
        int64_t out[3], i = 0;
        reach r[3];
        for (out[0] = 0; out[0] < w.out[0]; out[0]++) {
            r[0] = reach_of(&w, 0, out[0]);
            for (out[1] = 0; out[1] < w.out[1]; out[1]++) {
                r[1] = reach_of(&w, 1, out[1]);
                for (out[2] = 0; out[2] < w.out[2]; out[2]++, i++) {
                    r[2] = reach_of(&w, 2, out[2]);
                    if (max)
                        max_window(&w, out, r, x, y[i], dy[i], dx);
                    else
                        average_window(&w, out, r, padding, dy[i], dx);
                }
            }
        }
    }
}

void terse_back_max_pool(const terse_back *back)
{
    back_pool(back, true);
}

void terse_back_average_pool(const terse_back *back)
{
    back_pool(back, false);
}

void terse_back_global_average_pool(const terse_back *back)
{
    const terse_tensor *x = back->x[0];
    const int64_t planes = x->dims[0] * x->dims[1], pixels = planes ? terse_tensor_count(x) / planes : 0;
    for (int64_t p = 0; p < planes && pixels > 0 && back->dx[0] && back->dy[0]; p++) {
        const float share = back->dy[0][p] / (float)pixels;
        for (int64_t i = 0; i < pixels; i++)
            back->dx[0][p * pixels + i] += share;
    }
}

void terse_back_global_max_pool(const terse_back *back)
{
    const terse_tensor *x = back->x[0];
    const int64_t planes = x->dims[0] * x->dims[1], pixels = planes ? terse_tensor_count(x) / planes : 0;
    const float *from = x->data, *y = back->y[0]->data;
    for (int64_t p = 0; p < planes && back->dx[0] && back->dy[0]; p++)
        for (int64_t i = 0; i < pixels; i++)
            if (from[p * pixels + i] == y[p]) {
                back->dx[0][p * pixels + i] += back->dy[0][p];
                break;
            }
}
