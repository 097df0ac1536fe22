/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "compress/quantize/histogram.h"

enum { ALL_BINS = 2 * TERSE_HISTOGRAM_BINS };
static const double cut_share = 0.0001; /* of the numbers, at each end */

static const char *const names[TERSE_CALIBRATIONS] = {"auto", "minmax", "moving", "percentile", "entropy", "mse"};

const char *terse_calibration_name(terse_calibration method)
{
    return names[method];
}

terse_affine terse_affine_of(terse_range range)
{
    const double low = range.low < 0 ? range.low : 0, high = range.high > 0 ? range.high : 0;
    const float scale = (float)((high - low) / 255.0);
    if (!(scale > 1e-30f)) /* nothing but zeros: whatever is a scale will do */
        return (terse_affine){1.0f, low < 0 ? 255 : 0};
    const double zero_point = rint(-low / (double)scale);
    return (terse_affine){scale, zero_point > 255 ? 255 : (int32_t)zero_point};
}

int32_t terse_affine_quantize(terse_affine affine, double x)
{
    const double q = rint(x / (double)affine.scale) + affine.zero_point;
    return (int32_t)(q < 0 ? 0 : q > 255 ? 255 : q);
}

double terse_affine_apply(terse_affine affine, double x)
{
    return (terse_affine_quantize(affine, x) - affine.zero_point) * (double)affine.scale;
}

/* Bins from the least numbers to the greatest: 0 .. 4,095. */
static int64_t count_at(const terse_histogram *h, int i)
{
    return i < TERSE_HISTOGRAM_BINS ? h->negative[TERSE_HISTOGRAM_BINS - 1 - i] : h->positive[i - TERSE_HISTOGRAM_BINS];
}

static double middle_of(const terse_histogram *h, int i)
{
    return (i - TERSE_HISTOGRAM_BINS + 0.5) * h->width;
}

double terse_range_error(const terse_histogram *h, terse_range range)
{
    const terse_affine affine = terse_affine_of(range);
    double sum = 0;
    for (int i = 0; i < ALL_BINS; i++) {
        const int64_t n = count_at(h, i);
        if (n == 0)
            continue;
        const double x = middle_of(h, i), lost = terse_affine_apply(affine, x) - x;
        sum += (double)n * lost * lost;
    }
    return h->n > 0 ? sum / (double)h->n : 0;
}

double terse_range_clipped(const terse_histogram *h, terse_range range)
{
    const terse_affine affine = terse_affine_of(range);
    int64_t clipped = 0;
    for (int i = 0; i < ALL_BINS; i++) {
        const double q = rint(middle_of(h, i) / (double)affine.scale) + affine.zero_point;
        clipped += q < 0 || q > 255 ? count_at(h, i) : 0;
    }
    return h->n > 0 ? (double)clipped / (double)h->n : 0;
}

/* As TensorRT does it: P is the distribution with what lies outside put into the last bins inside; Q is P without that,
 * quantized: each level's share spread evenly over those of its bins that are not empty. */
double terse_range_divergence(const terse_histogram *h, terse_range range)
{
    const terse_affine affine = terse_affine_of(range);
    int64_t level_n[256] = {0}, level_bins[256] = {0}, outside_low = 0, outside_high = 0;
    int first = -1, last = -1, level_of[ALL_BINS];
    int64_t inside = 0;
    for (int i = 0; i < ALL_BINS; i++) {
        const double x = middle_of(h, i), q = rint(x / (double)affine.scale) + affine.zero_point;
        const int64_t n = count_at(h, i);
        level_of[i] = q < 0 ? -1 : q > 255 ? 256 : (int)q;
        if (n == 0)
            continue;
        if (level_of[i] < 0) {
            outside_low += n;
        } else if (level_of[i] > 255) {
            outside_high += n;
        } else {
            level_n[level_of[i]] += n;
            level_bins[level_of[i]]++;
            inside += n;
            first = first < 0 ? i : first;
            last = i;
        }
    }
    if (inside == 0)
        return (double)INFINITY;
    const double all = (double)(inside + outside_low + outside_high);
    double sum = 0;
    for (int i = first; i <= last; i++) {
        const int64_t n = count_at(h, i);
        if (n == 0)
            continue;
        const int64_t held = n + (i == first ? outside_low : 0) + (i == last ? outside_high : 0);
        const double p = (double)held / all;
        const double q = (double)level_n[level_of[i]] / (double)level_bins[level_of[i]] / (double)inside;
        sum += p * log(p / q);
    }
    return sum;
}

/* --- methods ----------------------------------------------------------------------------------------------------- */

static terse_range ends(const terse_histogram *h)
{
    return (terse_range){(double)h->min, (double)h->max};
}

static double at_least(double a, double b)
{
    return a > b ? a : b;
}

static double at_most(double a, double b)
{
    return a < b ? a : b;
}

static terse_range find_percentile(const terse_histogram *h)
{
    const double cut = cut_share * (double)h->n;
    terse_range range = ends(h);
    int64_t seen = 0;
    for (int i = 0; i < TERSE_HISTOGRAM_BINS; i++) {
        seen += count_at(h, i);
        if ((double)seen > cut) {
            range.low = at_least(range.low, (i - TERSE_HISTOGRAM_BINS) * h->width);
            break;
        }
        range.low = at_least(range.low, (i + 1 - TERSE_HISTOGRAM_BINS) * h->width);
    }
    seen = 0;
    for (int i = ALL_BINS - 1; i >= TERSE_HISTOGRAM_BINS; i--) {
        seen += count_at(h, i);
        range.high = at_most(range.high, (i + 1 - TERSE_HISTOGRAM_BINS) * h->width);
        if ((double)seen > cut)
            break;
        range.high = at_most(range.high, (i - TERSE_HISTOGRAM_BINS) * h->width);
    }
    return range;
}

typedef double judge(const terse_histogram *histogram, terse_range range);

enum { STEPS = 64 };

/* Both ends cut at the same distance from zero, in 64 steps down to a 64th of the largest number. */
static terse_range find_common_cut(const terse_histogram *h, judge *cost)
{
    const terse_range all = ends(h);
    const double largest = at_least(all.high, -all.low);
    terse_range best = all;
    double least = cost(h, all);
    for (int step = STEPS - 1; step >= 1; step--) {
        const double reach = largest * step / STEPS;
        const terse_range range = {at_least(all.low, -reach), at_most(all.high, reach)};
        const double found = cost(h, range);
        if (found < least) {
            least = found;
            best = range;
        }
    }
    return best;
}

/* Then each end alone, twice, in ever finer steps. */
static terse_range find_mse(const terse_histogram *h)
{
    const terse_range all = ends(h);
    terse_range best = find_common_cut(h, terse_range_error);
    double least = terse_range_error(h, best);
    for (int round = 0; round < 4; round++) {
        const double span = 1.0 / (round < 2 ? 16 : 64);
        for (int step = -8; step <= 8; step++) {
            terse_range range = best;
            if (round % 2 == 0)
                range.high = at_most(all.high, best.high * (1 + span * step / 8));
            else
                range.low = at_least(all.low, best.low * (1 + span * step / 8));
            const double found = terse_range_error(h, range);
            if (found < least) {
                least = found;
                best = range;
            }
        }
    }
    return best;
}

terse_range terse_range_of(const terse_histogram *h, terse_calibration method)
{
    switch (method) {
    case TERSE_CALIBRATION_MOVING:
        return (terse_range){at_most(0, h->moving_low), at_least(0, h->moving_high)};
    case TERSE_CALIBRATION_PERCENTILE:
        return find_percentile(h);
    case TERSE_CALIBRATION_ENTROPY:
        return find_common_cut(h, terse_range_divergence);
    case TERSE_CALIBRATION_MSE:
        return find_mse(h);
    default:
        return ends(h);
    }
}
