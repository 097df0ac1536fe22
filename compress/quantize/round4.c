/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/gptq.h"
#include "compress/quantize/round.h"
#include "compress/quantize/weights.h"

/* A way of rounding: integers and scales as the caller has them, [k][n], and as rows, [n][k]. */
typedef struct way {
    int8_t *integers, *q;
    float *scales, *row_scales;
    terse_round_rows rows;
} way;

typedef struct choosing {
    int64_t k, n, groups;
    float *rows; /* [n][k] */
    way nearest, other;
} choosing;

static void way_done(way *w)
{
    free(w->integers);
    free(w->q);
    free(w->scales);
    free(w->row_scales);
}

static bool way_new(const choosing *c, int64_t group, way *w)
{
    const size_t count = (size_t)(c->k * c->n) + 1, n_scales = (size_t)(c->groups * c->n) + 1;
    w->integers = malloc(count);
    w->q = malloc(count);
    w->scales = malloc(n_scales * sizeof(float));
    w->row_scales = malloc(n_scales * sizeof(float));
    w->rows = (terse_round_rows){
        .w = c->rows, .o = c->n, .k = c->k, .group = group, .low = -8, .high = 7, .scales = w->row_scales, .q = w->q};
    return w->integers && w->q && w->scales && w->row_scales;
}

static void to_rows(const choosing *c, way *w)
{
    for (int64_t j = 0; j < c->n; j++) {
        for (int64_t i = 0; i < c->k; i++)
            w->q[j * c->k + i] = w->integers[i * c->n + j];
        for (int64_t g = 0; g < c->groups; g++)
            w->row_scales[j * c->groups + g] = w->scales[g * c->n + j];
    }
}

static void from_rows(const choosing *c, const way *w, int8_t *ret_integers, float *ret_scales)
{
    for (int64_t j = 0; j < c->n; j++)
        for (int64_t i = 0; i < c->k; i++)
            ret_integers[i * c->n + j] = w->q[j * c->k + i];
    memcpy(ret_scales, w->scales, (size_t)(c->groups * c->n) * sizeof *ret_scales);
}

static bool round_nearest(const float *w, int64_t k, int64_t n, int64_t group, int8_t *integers, float *scales)
{
    TERSE_AUTO(terse_freep) int8_t *column = malloc((size_t)group + 1);
    for (int64_t g = 0; column && g * group < k; g++)
        for (int64_t j = 0; j < n; j++) {
            const int64_t first = g * group, count = k - first < group ? k - first : group;
            scales[g * n + j] = terse_quantize_round(w + first * n + j, count, n, -8, 7, column);
            for (int64_t i = 0; i < count; i++)
                integers[(first + i) * n + j] = column[i];
        }
    return column != NULL;
}

/* GPTQ into `other`; false where the moments do not serve. */
static bool try_gptq(choosing *c, const float *w, int64_t group, const double *fit)
{
    const size_t count = (size_t)(c->k * c->n), side = (size_t)(c->k * c->k);
    TERSE_AUTO(terse_freep) float *copy = malloc(count * sizeof *copy + 1);
    TERSE_AUTO(terse_freep) double *moments = malloc(side * sizeof *moments + 1);
    if (!copy || !moments)
        return false;
    memcpy(copy, w, count * sizeof *copy);
    memcpy(moments, fit, side * sizeof *moments);
    if (!terse_gptq_round(copy, c->k, c->n, group, moments, c->other.integers, c->other.scales))
        return false;
    to_rows(c, &c->other);
    return true;
}

static bool choose(choosing *c, const float *w, int64_t group, terse_rounding how, const double *fit,
                   const double *judge, int8_t *ret_integers, float *ret_scales, terse_rounding_report *report)
{
    const double nearest = terse_round_error(&c->nearest.rows, judge);
    double least = nearest;
    terse_rounding taken = TERSE_ROUNDING_NEAREST;
    way *best = &c->nearest;
    if (nearest < 0)
        return false;
    if (how != TERSE_ROUNDING_NEAREST && try_gptq(c, w, group, fit)) {
        const double lost = terse_round_error(&c->other.rows, judge);
        if (lost >= 0 && lost < least) {
            least = lost;
            best = &c->other;
            taken = TERSE_ROUNDING_GPTQ;
        }
    }
    if (how == TERSE_ROUNDING_AUTO || how == TERSE_ROUNDING_ADAROUND) {
        const size_t count = (size_t)(c->k * c->n);
        TERSE_AUTO(terse_freep) int8_t *before = malloc(count + 1);
        if (!before)
            return false;
        memcpy(before, best->q, count);
        const bool learnt = terse_round_adaround(&best->rows, fit);
        const double lost = learnt ? terse_round_error(&best->rows, judge) : -1;
        if (lost >= 0 && lost < least) {
            least = lost;
            taken = TERSE_ROUNDING_ADAROUND;
        } else {
            memcpy(best->q, before, count);
        }
    }
    from_rows(c, best, ret_integers, ret_scales);
    if (report) {
        report->products[taken]++;
        report->lost += nearest > 0 ? least / nearest : 1;
        report->lost_nearest += 1;
    }
    return true;
}

bool terse_round_int4(const float *w, int64_t k, int64_t n, int64_t group, terse_rounding how, const double *fit,
                      const double *judge, int8_t *ret_integers, float *ret_scales, terse_rounding_report *report)
{
    if (!round_nearest(w, k, n, group, ret_integers, ret_scales))
        return false;
    if (!fit || !judge)
        return true;
    choosing c = {.k = k, .n = n, .groups = (k + group - 1) / group};
    c.rows = malloc((size_t)(k * n) * sizeof *c.rows + 1);
    bool good = c.rows && way_new(&c, group, &c.nearest) && way_new(&c, group, &c.other);
    for (int64_t j = 0; good && j < n; j++)
        for (int64_t i = 0; i < k; i++)
            c.rows[j * k + i] = w[i * n + j];
    if (good) {
        memcpy(c.nearest.integers, ret_integers, (size_t)(k * n));
        memcpy(c.nearest.scales, ret_scales, (size_t)(c.groups * n) * sizeof *ret_scales);
        to_rows(&c, &c.nearest);
        good = choose(&c, w, group, how, fit, judge, ret_integers, ret_scales, report);
    }
    way_done(&c.nearest);
    way_done(&c.other);
    free(c.rows);
    return good;
}
