/* SPDX-License-Identifier: Apache-2.0 */
/* Which weights go and what the others become: against brute force over all choices, and against the least-squares
 * solution written out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compress/prune/obs.h"

enum { K = 9, ROWS = 200 };

static uint32_t state = 7;

static double random_number(void)
{
    state = state * 1664525u + 1013904223u;
    return (double)(int32_t)state / 2147483648.0;
}

/* Second moments of inputs that hang together. */
static void random_moments(int64_t k, double *h)
{
    double *mix = malloc((size_t)(k * k) * sizeof *mix), *x = malloc((size_t)k * sizeof *x);
    assert_non_null(mix);
    assert_non_null(x);
    memset(h, 0, (size_t)(k * k) * sizeof *h);
    for (int64_t i = 0; i < k * k; i++)
        mix[i] = random_number();
    for (int r = 0; r < ROWS; r++) {
        for (int64_t i = 0; i < k; i++)
            x[i] = 0;
        for (int64_t j = 0; j < k; j++) {
            const double source = random_number();
            for (int64_t i = 0; i < k; i++)
                x[i] += source * mix[j * k + i];
        }
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++)
                h[i * k + j] += x[i] * x[j] / ROWS;
    }
    free(mix);
    free(x);
}

/* (a - b) h (a - b)^T summed over n rows */
static double lost(const double *a, const double *b, const double *h, int64_t n, int64_t k)
{
    double sum = 0;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++)
                sum += (a[r * k + i] - b[r * k + i]) * h[i * k + j] * (a[r * k + j] - b[r * k + j]);
    return sum;
}

/* The least-squares weights on the inputs of `mask` by elimination: sum over S of m_j h_ji = sum of w_j h_ji. */
static void solve(const double *w, const double *h, int64_t k, const bool *mask, double *m)
{
    double a[K * K], b[K];
    int ids[K], n = 0;
    for (int i = 0; i < k; i++)
        if (mask[i])
            ids[n++] = i;
    for (int i = 0; i < n; i++) {
        b[i] = 0;
        for (int64_t j = 0; j < k; j++)
            b[i] += w[j] * h[j * k + ids[i]];
        for (int j = 0; j < n; j++)
            a[i * n + j] = h[ids[i] * k + ids[j]];
    }
    for (int p = 0; p < n; p++)
        for (int i = p + 1; i < n; i++) {
            const double f = a[i * n + p] / a[p * n + p];
            for (int j = p; j < n; j++)
                a[i * n + j] -= f * a[p * n + j];
            b[i] -= f * b[p];
        }
    memset(m, 0, (size_t)k * sizeof *m);
    for (int i = n - 1; i >= 0; i--) {
        for (int j = i + 1; j < n; j++)
            b[i] -= a[i * n + j] * m[ids[j]];
        m[ids[i]] = b[i] / a[i * n + i];
    }
}

static void the_least_choice_is_nearly_found(void **unused)
{
    (void)unused;
    double worst = 1;
    for (int round = 0; round < 20; round++) {
        double w[4 * K], h[K * K], m[4 * K], found[4 * K], share;
        terse_obs obs;
        terse_error error;
        random_moments(K, h);
        for (int i = 0; i < 4 * K; i++)
            w[i] = random_number();
        assert_int_equal(terse_obs_open(w, 4, K, h, TERSE_PRUNE_4X1, true, &obs, &error), TERSE_OK);
        for (int gone = 1; gone < K; gone++) {
            assert_int_equal(terse_obs_prune(&obs, (double)gone / K + 1e-6, found, &share, &error), TERSE_OK);
            double best = INFINITY;
            for (unsigned bits = 0; bits < 1u << K; bits++) {
                bool mask[K];
                if (__builtin_popcount(bits) != K - gone)
                    continue;
                for (int i = 0; i < K; i++)
                    mask[i] = bits >> i & 1;
                for (int r = 0; r < 4; r++)
                    solve(w + r * K, obs.h, K, mask, m + r * K);
                best = fmin(best, lost(w, m, obs.h, 4, K));
            }
            const double here = lost(w, found, obs.h, 4, K);
            assert_true(here >= best * (1 - 1e-9));
            assert_true(fabs(here / obs.total - share) < 1e-9);
            if (gone == 1)
                assert_true(here <= best * (1 + 1e-9)); /* a single step is exact */
            worst = fmax(worst, here / best);
        }
        terse_obs_done(&obs);
    }
    assert_true(worst < 2.5);
}

/* What the trace says a step costs is what the solution loses. */
static void the_trace_adds_up(void **unused)
{
    (void)unused;
    double w[4 * K], h[K * K], found[4 * K], share, sum = 0;
    terse_obs obs;
    terse_error error;
    random_moments(K, h);
    for (int i = 0; i < 4 * K; i++)
        w[i] = random_number();
    assert_int_equal(terse_obs_open(w, 4, K, h, TERSE_PRUNE_4X1, true, &obs, &error), TERSE_OK);
    bool seen[K] = {false};
    for (int step = 0; step < K; step++) {
        assert_in_range(obs.order[step], 0, K - 1);
        assert_false(seen[obs.order[step]]);
        seen[obs.order[step]] = true;
        assert_true(step == 0 || obs.loss[step] >= obs.loss[step - 1]);
        assert_int_equal(terse_obs_prune(&obs, (step + 1.0) / K, found, &share, &error), TERSE_OK);
        sum += obs.loss[step];
        assert_true(share * obs.total <= sum * (1 + 1e-6)); /* costs that would fall are told as not falling */
        for (int r = 0; r < 4; r++)
            for (int i = 0; i <= step; i++)
                assert_true(found[r * K + obs.order[i]] == 0.0);
    }
    assert_true(fabs(share - 1) < 1e-9);
    terse_obs_done(&obs);
}

/* Counts, structure and weights, with a trace and in the order of the inputs. */
static void what_stays_is_the_least_squares_solution(void **unused)
{
    (void)unused;
    enum { N = 10, WIDE = 300 };
    static double h[WIDE * WIDE], w[N * WIDE], found[N * WIDE], magnitude[N * WIDE];
    static const terse_prune_kind kinds[] = {TERSE_PRUNE_4X1, TERSE_PRUNE_UNSTRUCTURED, TERSE_PRUNE_2TO4};
    random_moments(WIDE, h);
    for (int i = 0; i < N * WIDE; i++)
        w[i] = random_number();
    for (int kind = 0; kind < 3; kind++)
        for (int trace = 0; trace < 2; trace++)
            for (int tenths = 2; tenths <= 8; tenths += 3) {
                const double amount = kinds[kind] == TERSE_PRUNE_2TO4 ? 0.5 : tenths / 10.0;
                double share;
                terse_obs obs;
                terse_error error;
                assert_int_equal(terse_obs_open(w, N, WIDE, h, kinds[kind], trace != 0, &obs, &error), TERSE_OK);
                assert_int_equal(obs.order != NULL, trace && kinds[kind] != TERSE_PRUNE_2TO4);
                assert_int_equal(terse_obs_prune(&obs, amount, found, &share, &error), TERSE_OK);
                const terse_prune_matrix m = {.w = found, .n = N, .k = WIDE};
                assert_true(fabs(terse_prune_kept(&m, kinds[kind]) - (1 - amount)) < 1.5 / WIDE);
                for (int r = 0; r < N; r++) /* the error is orthogonal to every input that is kept */
                    for (int i = 0; i < WIDE; i++) {
                        double slope = 0;
                        for (int j = 0; j < WIDE; j++)
                            slope += (w[r * WIDE + j] - found[r * WIDE + j]) * obs.h[j * WIDE + i];
                        assert_true(found[r * WIDE + i] == 0.0 || fabs(slope) < 1e-6);
                    }
                for (int r = 0; kinds[kind] == TERSE_PRUNE_2TO4 && r < N; r++)
                    for (int i = 0; i < WIDE; i += 4) {
                        int left = 0;
                        for (int j = i; j < i + 4; j++)
                            left += found[r * WIDE + j] != 0.0;
                        assert_true(left <= 2);
                    }
                memcpy(magnitude, w, sizeof w);
                terse_prune_matrix by_size = {.w = magnitude, .n = N, .k = WIDE};
                assert_true(terse_prune_by_magnitude(&by_size, kinds[kind], amount) > 0);
                assert_true(share * obs.total < 0.8 * lost(w, magnitude, obs.h, N, WIDE));
                terse_obs_done(&obs);
            }
}

static void size_alone_takes_the_smallest(void **unused)
{
    (void)unused;
    double w[5 * 4] = {9, 1, 5, 2, 9, 1, 5, -2, 9, 1, 5, 2, 9, 1, 5, 2, 3, 4, 0.5, 6};
    terse_prune_matrix m = {.w = w, .n = 5, .k = 4};
    assert_true(fabs(terse_prune_by_magnitude(&m, TERSE_PRUNE_4X1, 0.375) - 0.625) < 1e-12);
    const double want[5 * 4] = {9, 0, 5, 2, 9, 0, 5, -2, 9, 0, 5, 2, 9, 0, 5, 2, 0, 4, 0, 6};
    assert_memory_equal(w, want, sizeof w);
    double four[2 * 5] = {1, -3, 2, 0, 7, 0, 0, 0, 5, 1};
    terse_prune_matrix t = {.w = four, .n = 2, .k = 5};
    terse_prune_by_magnitude(&t, TERSE_PRUNE_2TO4, 0.5);
    const double want_four[2 * 5] = {0, -3, 2, 0, 7, 0, 0, 0, 5, 1};
    assert_memory_equal(four, want_four, sizeof four);
}

/* Inputs that are always zero, or two that are one: there is a solution all the same. */
static void moments_without_full_rank_are_no_failure(void **unused)
{
    (void)unused;
    double h[K * K] = {0}, w[4 * K], found[4 * K], share;
    terse_obs obs;
    terse_error error;
    for (int i = 0; i < 4 * K; i++)
        w[i] = random_number();
    for (int round = 0; round < 2; round++) {
        assert_int_equal(terse_obs_open(w, 4, K, h, TERSE_PRUNE_4X1, true, &obs, &error), TERSE_OK);
        assert_int_equal(terse_obs_prune(&obs, 0.5, found, &share, &error), TERSE_OK);
        for (int i = 0; i < 4 * K; i++)
            assert_true(isfinite(found[i]));
        terse_obs_done(&obs);
        h[0] = h[1] = h[K] = h[K + 1] = 3;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_choice_is_nearly_found),         cmocka_unit_test(the_trace_adds_up),
        cmocka_unit_test(what_stays_is_the_least_squares_solution), cmocka_unit_test(size_alone_takes_the_smallest),
        cmocka_unit_test(moments_without_full_rank_are_no_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
