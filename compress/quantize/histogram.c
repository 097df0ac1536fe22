/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/quantize/histogram.h"

#include <math.h>
#include <string.h>

static const double momentum = 0.9;
static const int least_exponent = -100; /* of a width: smaller numbers all count as the first bin's */

static void double_bins(int64_t *bins)
{
    for (int i = 0; i < TERSE_HISTOGRAM_BINS / 2; i++)
        bins[i] = bins[2 * i] + bins[2 * i + 1];
    memset(bins + TERSE_HISTOGRAM_BINS / 2, 0, sizeof *bins * (TERSE_HISTOGRAM_BINS / 2));
}

/* Doubles the width until it is `width` or more. */
static void widen(terse_histogram *h, double width)
{
    if (h->width == 0)
        h->width = width;
    while (h->width < width) {
        double_bins(h->negative);
        double_bins(h->positive);
        h->width *= 2;
    }
}

/* The least power of two of which 2,048 reach beyond `largest`. */
static double width_for(double largest)
{
    int exponent;
    frexp(largest, &exponent); /* largest < 2^exponent */
    exponent -= 11;
    return ldexp(1.0, exponent < least_exponent ? least_exponent : exponent);
}

static void move_ends(terse_histogram *h, double low, double high)
{
    const double keep = h->n > 0 ? momentum : 0.0;
    h->moving_low = keep * h->moving_low + (1 - keep) * low;
    h->moving_high = keep * h->moving_high + (1 - keep) * high;
}

bool terse_histogram_add(terse_histogram *h, const float *numbers, int64_t n)
{
    if (n == 0)
        return true;
    float low = 0, high = 0; /* zero is in every range */
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        finite &= fabsf(numbers[i]) <= 3.402823466e38f;
        low = numbers[i] < low ? numbers[i] : low;
        high = numbers[i] > high ? numbers[i] : high;
    }
    if (!finite)
        return false;
    const float largest = high > -low ? high : -low;
    if (largest > 0)
        widen(h, width_for((double)largest));
    const float inverse = h->width > 0 ? (float)(1.0 / h->width) : 0.0f;
    int64_t zeros = 0;
    for (int64_t i = 0; i < n; i++) {
        const float x = numbers[i];
        if (x > 0)
            h->positive[(int)(x * inverse)]++;
        else if (x < 0)
            h->negative[(int)(-x * inverse)]++;
        else
            zeros++;
    }
    move_ends(h, (double)low, (double)high);
    h->zeros += zeros;
    h->n += n;
    h->min = low < h->min ? low : h->min;
    h->max = high > h->max ? high : h->max;
    return true;
}

void terse_histogram_merge(terse_histogram *h, const terse_histogram *from)
{
    if (from->n == 0)
        return;
    if (h->n == 0) {
        *h = *from;
        return;
    }
    terse_histogram other = *from;
    widen(h, other.width);
    if (h->width > 0)
        widen(&other, h->width);
    for (int i = 0; i < TERSE_HISTOGRAM_BINS; i++) {
        h->negative[i] += other.negative[i];
        h->positive[i] += other.positive[i];
    }
    h->n += other.n;
    h->zeros += other.zeros;
    h->min = other.min < h->min ? other.min : h->min;
    h->max = other.max > h->max ? other.max : h->max;
    h->moving_low = other.moving_low < h->moving_low ? other.moving_low : h->moving_low;
    h->moving_high = other.moving_high > h->moving_high ? other.moving_high : h->moving_high;
}
