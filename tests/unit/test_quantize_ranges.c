/* SPDX-License-Identifier: Apache-2.0 */
/* Histograms, ranges and INT8 weights of compress/quantize against brute force over the numbers themselves. */
#include "tests/unit/graph_maker.h"

#include "compress/quantize/histogram.h"
#include "compress/quantize/int8.h"

enum { N = 20000 };

static float numbers[N];

/* Sums of three uniform numbers, a few of them far out; positive only when asked for. */
static void fill(uint32_t seed, float scale, bool positive)
{
    random_state = seed;
    for (int i = 0; i < N; i++) {
        const float x = (random_number() + random_number() + random_number()) * scale;
        numbers[i] = i % 997 == 0 ? 4 * x : i % 5 == 0 ? 0.0f : x;
        numbers[i] = positive && numbers[i] < 0 ? 0.0f : numbers[i];
    }
}

static terse_histogram *histogram_of(int pieces, bool backwards)
{
    terse_histogram *h = calloc(1, sizeof *h);
    for (int i = 0; i < pieces; i++) {
        const int at = backwards ? pieces - 1 - i : i;
        assert_true(terse_histogram_add(h, numbers + at * (N / pieces), N / pieces));
    }
    return h;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void every_number_is_in_its_bin_whatever_the_order(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 6; seed++) {
        fill(seed, seed % 2 ? 1.0f : 1e-4f * (float)seed, seed % 3 == 0);
        terse_histogram *h = histogram_of(50, false), *other = histogram_of(8, true), *merged = histogram_of(1, false);
        terse_histogram_merge(merged, other);
        int64_t bins[2][TERSE_HISTOGRAM_BINS] = {{0}}, zeros = 0;
        for (int i = 0; i < N; i++) {
            const double at = floor(fabs((double)numbers[i]) / h->width);
            assert_true(at < TERSE_HISTOGRAM_BINS);
            zeros += numbers[i] == 0;
            bins[numbers[i] > 0][(int)at] += numbers[i] != 0;
        }
        assert_memory_equal(bins[0], h->negative, sizeof bins[0]);
        assert_memory_equal(bins[1], h->positive, sizeof bins[1]);
        assert_true(zeros == h->zeros && h->n == N && h->width == other->width && h->min == other->min);
        assert_memory_equal(h->positive, other->positive, sizeof bins[1]);
        assert_true(merged->n == 2 * N && merged->zeros == 2 * zeros && merged->max == h->max);
        for (int i = 0; i < TERSE_HISTOGRAM_BINS; i++)
            assert_true(merged->positive[i] == 2 * h->positive[i] && merged->negative[i] == 2 * h->negative[i]);
        free(h);
        free(other);
        free(merged);
    }
}

static void the_width_doubles_and_nothing_is_lost(void **state)
{
    (void)state;
    terse_histogram *h = calloc(1, sizeof *h);
    float x = 1e-3f;
    for (int i = 0; i < 60; i++, x *= -1.7f)
        assert_true(terse_histogram_add(h, &x, 1));
    int64_t all = 0;
    for (int i = 0; i < TERSE_HISTOGRAM_BINS; i++)
        all += h->positive[i] + h->negative[i];
    assert_true(all == 60 && h->n == 60);
    assert_true((double)h->max < h->width * TERSE_HISTOGRAM_BINS && h->width == exp2(rint(log2(h->width))));
    free(h);
}

static void numbers_that_are_none_are_refused(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        terse_histogram *h = calloc(1, sizeof *h), *before = calloc(1, sizeof *h);
        const float batch[] = {1.0f, bad[i], 2.0f};
        assert_true(terse_histogram_add(h, batch, 1));
        *before = *h;
        assert_false(terse_histogram_add(h, batch, 3));
        assert_memory_equal(h, before, sizeof *h);
        free(h);
        free(before);
    }
}

static double true_error(terse_range range)
{
    const terse_affine affine = terse_affine_of(range);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        const double lost = terse_affine_apply(affine, (double)numbers[i]) - (double)numbers[i];
        sum += lost * lost;
    }
    return sum / N;
}

static void mse_finds_the_range_that_brute_force_finds(void **state)
{
    (void)state;
    for (uint32_t seed = 11; seed <= 16; seed++) {
        fill(seed, 2.0f, seed % 2 == 0);
        terse_histogram *h = histogram_of(10, false);
        const terse_range found = terse_range_of(h, TERSE_CALIBRATION_MSE);
        double least = (double)INFINITY;
        for (int low = 0; low <= 40; low++)
            for (int high = 1; high <= 40 && (h->min < 0 || low == 0); high++) {
                const double error = true_error((terse_range){(double)h->min * low / 40, (double)h->max * high / 40});
                least = error < least ? error : least;
            }
        const double error = true_error(found);
        if (error > 1.05 * least)
            fail_msg("seed %u: %g..%g loses %g, brute force %g", seed, found.low, found.high, error, least);
        assert_true(fabs(terse_range_error(h, found) - error) < 0.1 * error); /* middles of bins for numbers */
        assert_true(found.low >= (double)h->min && found.high <= (double)h->max);
        free(h);
    }
}

/* KL by its definition: sort the numbers into the histogram's cells by hand. */
static double true_divergence(const terse_histogram *h, terse_range range)
{
    enum { CELLS = 2 * TERSE_HISTOGRAM_BINS };
    static double p[CELLS], inside[CELLS], level_sum[256], level_cells[256];
    static int level[CELLS];
    const terse_affine affine = terse_affine_of(range);
    memset(p, 0, sizeof p);
    memset(inside, 0, sizeof inside);
    memset(level_sum, 0, sizeof level_sum);
    memset(level_cells, 0, sizeof level_cells);
    double low = 0, high = 0, all = 0, kept = 0, sum = 0;
    int first = CELLS, last = -1;
    for (int i = 0; i < N; i++) {
        if (numbers[i] == 0)
            continue;
        const double at = floor(fabs((double)numbers[i]) / h->width), x = (at + 0.5) * h->width;
        const int cell = numbers[i] > 0 ? TERSE_HISTOGRAM_BINS + (int)at : TERSE_HISTOGRAM_BINS - 1 - (int)at;
        const double q = rint((numbers[i] > 0 ? x : -x) / (double)affine.scale) + affine.zero_point;
        all++;
        low += q < 0;
        high += q > 255;
        if (q < 0 || q > 255)
            continue;
        level[cell] = (int)q;
        inside[cell]++;
        kept++;
        first = cell < first ? cell : first;
        last = cell > last ? cell : last;
    }
    for (int c = first; c <= last; c++) {
        p[c] = inside[c] + (c == first ? low : 0) + (c == last ? high : 0);
        level_sum[level[c]] += inside[c];
        level_cells[level[c]] += inside[c] > 0;
    }
    for (int c = first; c <= last; c++)
        if (inside[c] > 0)
            sum += p[c] / all * log(p[c] / all / (level_sum[level[c]] / level_cells[level[c]] / kept));
    return sum;
}

static void kl_is_that_of_its_definition_and_entropy_its_least(void **state)
{
    (void)state;
    for (uint32_t seed = 21; seed <= 24; seed++) {
        fill(seed, 1.5f, seed % 2 == 0);
        terse_histogram *h = histogram_of(4, false);
        const terse_range found = terse_range_of(h, TERSE_CALIBRATION_ENTROPY);
        const double largest = fmax((double)h->max, -(double)h->min);
        double least = (double)INFINITY;
        for (int step = 4; step <= 64; step++) {
            const double reach = largest * step / 64;
            const terse_range range = {fmax((double)h->min, -reach), fmin((double)h->max, reach)};
            const double divergence = true_divergence(h, range);
            assert_true(fabs(terse_range_divergence(h, range) - divergence) < 1e-9 * (1 + divergence));
            least = divergence < least ? divergence : least;
        }
        assert_true(true_divergence(h, found) <= least + 1e-12);
        free(h);
    }
}

static void percentiles_cut_what_sorting_cuts(void **state)
{
    (void)state;
    for (uint32_t seed = 31; seed <= 33; seed++) {
        fill(seed, 1.0f, seed == 33);
        terse_histogram *h = histogram_of(4, false);
        const terse_range found = terse_range_of(h, TERSE_CALIBRATION_PERCENTILE);
        qsort(numbers, N, sizeof *numbers, by_value);
        const double cut = N * 0.0001; /* two numbers at each end may lie outside */
        assert_true((double)numbers[N - 1 - (int)cut] <= found.high + 1e-9 && found.high <= (double)h->max);
        assert_true(fabs(found.high - (double)numbers[N - 1 - (int)cut]) <= h->width * 1.001);
        assert_true(found.low <= (double)numbers[(int)cut] + 1e-9 && found.low >= (double)h->min);
        free(h);
    }
}

static void what_is_clipped_is_counted(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        fill(seed, 1.0f, seed % 2 == 0);
        terse_histogram *h = histogram_of(10, false);
        assert_true(terse_range_clipped(h, (terse_range){(double)h->min, (double)h->max}) == 0);
        for (int i = 1; i <= 3; i++) {
            const terse_range range = {(double)h->min * 0.2 * i, (double)h->max * 0.25 * i};
            const terse_affine affine = terse_affine_of(range);
            /* half a step beyond the ends is rounded to them; a bin more or less is what a histogram may be wrong by */
            const double scale = (double)affine.scale, low = (-affine.zero_point - 0.5) * scale,
                         high = (255.5 - affine.zero_point) * scale;
            int least = 0, most = 0;
            for (int k = 0; k < N; k++) {
                const double x = (double)numbers[k];
                least += x < low - h->width || x > high + h->width;
                most += x < low + h->width || x > high - h->width;
            }
            const double found = terse_range_clipped(h, range);
            assert_true(least > 0 && found * N >= least - 0.5 && found * N <= most + 0.5);
        }
        free(h);
    }
}

static void averages_move_with_the_samples(void **state)
{
    (void)state;
    terse_histogram *h = calloc(1, sizeof *h);
    double low = 0, high = 0;
    for (int i = 0; i < 30; i++) {
        const float sample[] = {-1.0f - (float)i, 2.0f * (float)(i % 7)};
        assert_true(terse_histogram_add(h, sample, 2));
        low = i ? 0.9 * low + 0.1 * (double)sample[0] : (double)sample[0];
        high = i ? 0.9 * high + 0.1 * (double)sample[1] : (double)sample[1];
    }
    const terse_range found = terse_range_of(h, TERSE_CALIBRATION_MOVING);
    assert_true(fabs(found.low - low) < 1e-9 && fabs(found.high - high) < 1e-9);
    const terse_range all = terse_range_of(h, TERSE_CALIBRATION_MINMAX);
    assert_true(all.low == -30.0 && all.high == 12.0);
    free(h);
}

static void zero_stays_zero_under_every_range(void **state)
{
    (void)state;
    random_state = 7;
    for (int i = 0; i < 5000; i++) {
        terse_range range = {(double)random_number() * exp((double)random_number() * 20), 0};
        range.high = range.low + fabs((double)random_number()) * exp((double)random_number() * 20);
        const terse_affine affine = terse_affine_of(range);
        assert_true(affine.scale > 0 && affine.zero_point >= 0 && affine.zero_point <= 255);
        assert_true(terse_affine_apply(affine, 0.0) == 0.0);
        const double inside =
            fmin(fmax(range.low + (range.high - range.low) * 0.37, fmin(range.low, 0)), fmax(range.high, 0));
        assert_true(fabs(terse_affine_apply(affine, inside) - inside) <= 1.001 * (double)affine.scale);
    }
    assert_true(terse_affine_of((terse_range){0, 0}).scale > 0);
}

/* --- weights ------------------------------------------------------------------------------------------------- */

static double channel_error(const float *w, int64_t n, int64_t step, double scale)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double q = fmin(127, fmax(-127, rint((double)w[i * step] / scale)));
        sum += (q * scale - (double)w[i * step]) * (q * scale - (double)w[i * step]);
    }
    return sum;
}

static void weights_lose_no_more_than_with_the_best_clip(void **state)
{
    (void)state;
    for (int axis = 0; axis < 2; axis++) {
        const int64_t dims[2] = {24, 24};
        terse_graph *g = terse_graph_new();
        random_state = 5;
        const int v = make_weights(g, 0, 0.3f, 2, dims);
        float *w = (float *)(uintptr_t)g->values[v].data;
        w[3 * 24 + 3] = 5.0f; /* one channel with a number far out */
        memset(w, 0, sizeof *w);
        int8_t q[24 * 24];
        float scales[24], back[24 * 24];
        assert_int_equal(terse_int8_quantize(&g->values[v], axis, NULL, 1.0f, q, scales, NULL), TERSE_OK);
        terse_int8_dequantize(&g->values[v], axis, q, scales, back);
        for (int64_t c = 0; c < 24; c++) {
            const float *channel = axis == 0 ? w + c * 24 : w + c, *found = axis == 0 ? back + c * 24 : back + c;
            const int64_t step = axis == 0 ? 1 : 24;
            double largest = 0, least = (double)INFINITY, error = 0;
            for (int64_t i = 0; i < 24; i++) {
                const double lost = (double)found[i * step] - (double)channel[i * step];
                largest = fmax(largest, fabs((double)channel[i * step]));
                error += lost * lost;
            }
            for (int i = 280; i <= 400; i++)
                least = fmin(least, channel_error(channel, 24, step, largest * i / 400 / 127));
            assert_true(error <= 1.15 * least + 1e-12);
            assert_true(error <= channel_error(channel, 24, step, largest / 127) * 1.0001 + 1e-12);
        }
        terse_graph_free(g);
    }
}

static void a_large_bias_makes_the_scale_larger(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    const int v = make_weights(g, 0, 1e-7f, DIMS(2, 8));
    const float bias[2] = {1000.0f, 0.0f};
    int8_t q[16];
    float scales[2];
    assert_int_equal(terse_int8_quantize(&g->values[v], 0, bias, 1e-3f, q, scales, NULL), TERSE_OK);
    assert_true(1000.0 / (1e-3 * (double)scales[0]) < 1073741824.0); /* 2^30 */
    assert_true(scales[1] < 1e-8f);
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_is_in_its_bin_whatever_the_order),
        cmocka_unit_test(the_width_doubles_and_nothing_is_lost),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(mse_finds_the_range_that_brute_force_finds),
        cmocka_unit_test(kl_is_that_of_its_definition_and_entropy_its_least),
        cmocka_unit_test(percentiles_cut_what_sorting_cuts),
        cmocka_unit_test(what_is_clipped_is_counted),
        cmocka_unit_test(averages_move_with_the_samples),
        cmocka_unit_test(zero_stays_zero_under_every_range),
        cmocka_unit_test(weights_lose_no_more_than_with_the_best_clip),
        cmocka_unit_test(a_large_bias_makes_the_scale_larger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
