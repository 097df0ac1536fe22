/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/int8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 127, CLIPS = 24, FINE_CLIPS = 120, FINE_LENGTH = 1024, REFINEMENTS = 2 };
static const double clipped = 0.3;          /* of the range, at most */
static const double largest_bias = 1 << 29; /* of the 32-bit sum's 2^31, in steps of the sum */

/* To the nearest integer, ties to even, for |x| < 2^22. */
static float clamp_round(float x, float inverse)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    float t = x * inverse;
    t = t > (float)LARGEST ? (float)LARGEST : t;
    t = t < (float)-LARGEST ? (float)-LARGEST : t;
    return (t + magic) - magic;
}

static double error_of(const float *w, int64_t n, float scale)
{
    const float inverse = 1.0f / scale;
    double sum = 0;
    for (int64_t first = 0; first < n; first += 1024) {
        const int64_t end = n - first < 1024 ? n : first + 1024;
        float part[4] = {0};
        int64_t i = first;
        for (; i + 4 <= end; i += 4)
            for (int j = 0; j < 4; j++) {
                const float lost = clamp_round(w[i + j], inverse) * scale - w[i + j];
                part[j] += lost * lost;
            }
        for (; i < end; i++) {
            const float lost = clamp_round(w[i], inverse) * scale - w[i];
            part[0] += lost * lost;
        }
        sum += (double)(part[0] + part[1]) + (double)(part[2] + part[3]);
    }
    return sum;
}

/* For the integers that `scale` makes, the scale that suits them best: sum w q / sum q^2. */
static float refine(const float *w, int64_t n, float scale)
{
    const float inverse = 1.0f / scale;
    double up = 0, down = 0;
    for (int64_t i = 0; i < n; i++) {
        const float q = clamp_round(w[i], inverse);
        up += (double)(w[i] * q);
        down += (double)(q * q);
    }
    return down > 0 ? (float)(up / down) : scale;
}

/* The scale of least mean square error among those that keep 70 to 100 % of the range, and near the best of them. */
static float find_scale(const float *w, int64_t n)
{
    float largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fabsf(w[i]) > largest ? fabsf(w[i]) : largest;
    if (!(largest > 1e-30f))
        return 1.0f;
    float best = largest / LARGEST;
    double least = error_of(w, n, best);
    /* over few weights the error is a jagged function */
    const int clips = n <= FINE_LENGTH ? FINE_CLIPS : CLIPS;
    for (int i = 1; i <= clips + REFINEMENTS && n > 1; i++) {
        const float scale =
            i <= clips ? (float)((double)largest * (1.0 - i * clipped / clips) / LARGEST) : refine(w, n, best);
        const double found = error_of(w, n, scale);
        if (found < least) {
            least = found;
            best = scale;
        }
    }
    return best;
}

int terse_int8_quantize(const terse_value *weights, int axis, const float *bias, float input_scale, int8_t *q,
                        float *scales, terse_error *error)
{
    const int64_t n = weights->dims[axis], k = terse_dims_count(weights->dims, weights->rank) / n;
    const int64_t step = axis == 0 ? 1 : n, first = axis == 0 ? k : 1; /* of a channel's numbers, of channels */
    const float *w = weights->data;
    TERSE_AUTO(terse_freep) float *channel = malloc(((size_t)k + 1) * sizeof *channel);
    if (!channel)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %lld weights", (long long)k);
    for (int64_t c = 0; c < n; c++) {
        for (int64_t i = 0; i < k; i++)
            channel[i] = w[c * first + i * step];
        float scale = find_scale(channel, k);
        /* the bias is rounded to steps of the sum, and has to fit */
        const double least = bias ? fabs((double)bias[c]) / ((double)input_scale * largest_bias) : 0;
        if ((double)scale < least)
            scale = (float)(least * 1.0001);
        scales[c] = scale;
        const float inverse = 1.0f / scale;
        for (int64_t i = 0; i < k; i++)
            q[c * first + i * step] = (int8_t)clamp_round(channel[i], inverse);
    }
    return TERSE_OK;
}

void terse_int8_dequantize(const terse_value *weights, int axis, const int8_t *q, const float *scales, float *w)
{
    const int64_t n = weights->dims[axis], all = terse_dims_count(weights->dims, weights->rank);
    const int64_t run = axis == 0 ? all / n : 1;
    for (int64_t i = 0; i < all; i++)
        w[i] = (float)q[i] * scales[i / run % n];
}
