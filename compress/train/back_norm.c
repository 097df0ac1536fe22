/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of normalization over channels: BatchNormalization in both forms, Instance- and GroupNormalization, LRN. */
#include <math.h>

#include "compress/train/back.h"

static int64_t pixels_of(const terse_tensor *x)
{
    return x->rank > 2 ? terse_dims_count(x->dims + 2, x->rank - 2) : 1;
}

/* One row of `n` dense elements of a normalized set: sums of dy and of dy xh. */
static void sum_row(const float *x, const float *dy, int64_t n, double mean, double inverse, double *sum, double *dot)
{
    float s = 0, d = 0;
    const float middle = (float)mean;
    for (int64_t i = 0; i < n; i++) {
        s += dy[i];
        d += dy[i] * (x[i] - middle);
    }
    *sum += (double)s;
    *dot += (double)d * inverse;
}

/* Frozen: y is linear in x. In training mean and deviation depend on x too: dx = scale / s (dy - mean(dy) - xh mean(dy
 * xh)) (Ioffe and Szegedy, arXiv:1502.03167, section 3). */
void terse_back_batch_normalization(const terse_back *back)
{
    const terse_tensor *t = back->x[0];
    const int64_t channels = terse_tensor_count(back->x[1]), images = t->dims[0], pixels = pixels_of(t);
    const float *scale = back->x[1]->data, *mean = back->x[3]->data, *variance = back->x[4]->data;
    const double epsilon = terse_node_float(back->node, "epsilon", 1e-5), count = (double)(images * pixels);
    const float *batch = back->statistics;
    for (int64_t c = 0; back->dy[0] && c < channels; c++) {
        const double middle = batch ? (double)batch[c] : (double)mean[c];
        const double inverse = batch ? (double)batch[channels + c] : 1 / sqrt((double)variance[c] + epsilon);
        double sum = 0, dot = 0;
        for (int64_t i = 0; i < images; i++) {
            const int64_t at = (i * channels + c) * pixels;
            sum_row((const float *)t->data + at, back->dy[0] + at, pixels, middle, inverse, &sum, &dot);
        }
        if (back->dx[1])
            back->dx[1][c] += (float)dot;
        if (back->dx[2])
            back->dx[2][c] += (float)sum;
        const float factor = (float)((double)scale[c] * inverse), mean_dy = batch ? (float)(sum / count) : 0;
        const float slope = batch ? (float)(dot / count * inverse) : 0, centre = (float)middle;
        for (int64_t i = 0; back->dx[0] && i < images; i++) {
            const int64_t at = (i * channels + c) * pixels;
            const float *x = (const float *)t->data + at, *dy = back->dy[0] + at;
            float *dx = back->dx[0] + at;
            for (int64_t k = 0; k < pixels; k++)
                dx[k] += factor * (dy[k] - mean_dy - (x[k] - centre) * slope);
        }
    }
}

/* Sets of `channels` channels of one image are normalized together; scale and bias belong to channel `first` on. */
static void back_set(const terse_back *back, int64_t at, int64_t first, int64_t channels, int64_t pixels)
{
    const double epsilon = terse_node_float(back->node, "epsilon", 1e-5), n = (double)(channels * pixels);
    const float *x = (const float *)back->x[0]->data + at, *dy = back->dy[0] + at;
    const float *scale = (const float *)back->x[1]->data + first;
    double sum = 0, squares = 0, mean_g = 0, mean_gx = 0;
    for (int64_t i = 0; i < channels * pixels; i++)
        sum += (double)x[i];
    const double mean = sum / n;
    for (int64_t i = 0; i < channels * pixels; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double inverse = 1 / sqrt(squares / n + epsilon);
    for (int64_t c = 0; c < channels; c++) {
        double total = 0, dot = 0;
        sum_row(x + c * pixels, dy + c * pixels, pixels, mean, inverse, &total, &dot);
        if (back->dx[1])
            back->dx[1][first + c] += (float)dot;
        if (back->dx[2])
            back->dx[2][first + c] += (float)total;
        mean_g += (double)scale[c] * total / n;
        mean_gx += (double)scale[c] * dot / n;
    }
    for (int64_t c = 0; back->dx[0] && c < channels; c++)
        for (int64_t i = c * pixels; i < (c + 1) * pixels; i++)
            back->dx[0][at + i] +=
                (float)(((double)dy[i] * (double)scale[c] - mean_g - ((double)x[i] - mean) * inverse * mean_gx) *
                        inverse);
}

static void back_sets(const terse_back *back, int64_t groups)
{
    const terse_tensor *t = back->x[0];
    if (!back->dy[0] || groups < 1)
        return;
    const int64_t channels = t->dims[1], pixels = pixels_of(t), per_group = channels / groups;
    for (int64_t i = 0; i < t->dims[0]; i++)
        for (int64_t g = 0; g < groups; g++)
            back_set(back, (i * channels + g * per_group) * pixels, g * per_group, per_group, pixels);
}

void terse_back_instance_normalization(const terse_back *back)
{
    back_sets(back, back->x[0]->dims[1]);
}

void terse_back_group_normalization(const terse_back *back)
{
    back_sets(back, terse_node_int(back->node, "num_groups", 1));
}

/* y_c = x_c S_c^-beta, S_c = bias + f sum of squares around c: dx_c = dy_c S_c^-beta - 2 f beta x_c times the sum over
 * all c' that have c around them of dy_c' x_c' S_c'^(-beta-1). */
void terse_back_lrn(const terse_back *back)
{
    const terse_tensor *t = back->x[0];
    const int64_t channels = t->dims[1], pixels = pixels_of(t), size = terse_node_int(back->node, "size", 1);
    const int64_t before = (size - 1) / 2, after = size / 2;
    const double f = terse_node_float(back->node, "alpha", 1e-4) / (double)size;
    const double beta = terse_node_float(back->node, "beta", 0.75), bias = terse_node_float(back->node, "bias", 1);
    for (int64_t i = 0; back->dx[0] && back->dy[0] && i < t->dims[0] * pixels; i++) {
        const int64_t base = i / pixels * channels * pixels + i % pixels;
        const float *x = (const float *)t->data + base, *dy = back->dy[0] + base;
        float *dx = back->dx[0] + base;
        for (int64_t c = 0; c < channels; c++) {
            double sum = bias;
            const int64_t first = c > before ? c - before : 0;
            const int64_t last = c + after < channels ? c + after : channels - 1;
            for (int64_t k = first; k <= last; k++)
                sum += f * (double)x[k * pixels] * (double)x[k * pixels];
            const double power = pow(sum, -beta), out = (double)dy[c * pixels];
            dx[c * pixels] += (float)(out * power);
            const double factor = -2 * f * beta * out * (double)x[c * pixels] * power / sum;
            for (int64_t k = first; k <= last; k++)
                dx[k * pixels] += (float)(factor * (double)x[k * pixels]);
        }
    }
}
