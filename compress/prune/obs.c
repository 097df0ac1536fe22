/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/obs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>
#include <lapacke.h>

#define DAMPING 0.01    /* of the mean diagonal */
#define TRACE_WORK 2e10 /* multiply-accumulates of a trace; beyond that blocks share an order */
enum { AT_A_TIME = 128 };

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer's weights");
}

void terse_obs_done(terse_obs *obs)
{
    free(obs->h);
    free(obs->order);
    free(obs->loss);
    *obs = (terse_obs){0};
}

static int64_t rows_of(const terse_obs *obs, int64_t block)
{
    const int64_t left = obs->n - block * obs->rows;
    return left < obs->rows ? left : obs->rows;
}

/* --- the trace ---------------------------------------------------------------------------------------------------- */

/* Symmetric, the upper half of rows `stride` apart. */
static double *at(double *a, int64_t stride, int64_t i, int64_t j)
{
    return i <= j ? &a[i * stride + j] : &a[j * stride + i];
}

static void swap(double *a, double *b)
{
    const double x = *a;
    *a = *b;
    *b = x;
}

/* One block from all inputs to none. inverse: a copy of H^-1, w: of the block's rows [rows][k], both destroyed; ids,
 * gone: room for k numbers each. */
static void take_apart(const terse_obs *obs, int64_t block, double *inverse, double *w, int32_t *ids, double *gone)
{
    const int64_t k = obs->k, rows = rows_of(obs, block);
    double least = 0;
    for (int64_t i = 0; i < k; i++)
        ids[i] = (int32_t)i;
    for (int64_t left = k, step = 0; left > 0; left--, step++) {
        int64_t best = 0;
        double cost = INFINITY;
        for (int64_t i = 0; i < left; i++) {
            double sum = 0;
            for (int64_t r = 0; r < rows; r++)
                sum += w[r * k + i] * w[r * k + i];
            const double d = inverse[i * k + i], here = d > 0 ? sum / d : sum > 0 ? INFINITY : 0;
            if (here < cost) {
                cost = here;
                best = i;
            }
        }
        /* the last one changes places with it, so that what is left stays together */
        const int64_t last = left - 1;
        for (int64_t i = 0; i < left; i++)
            if (i != best && i != last)
                swap(at(inverse, k, i, best), at(inverse, k, i, last));
        swap(&inverse[best * k + best], &inverse[last * k + last]);
        const int32_t id = ids[best];
        ids[best] = ids[last];
        for (int64_t r = 0; r < rows; r++)
            swap(&w[r * k + best], &w[r * k + last]);
        const double d = inverse[last * k + last];
        for (int64_t i = 0; i < last; i++)
            gone[i] = inverse[i * k + last];
        for (int64_t r = 0; r < rows && d > 0; r++)
            cblas_daxpy((int)last, -w[r * k + last] / d, gone, 1, w + r * k, 1);
        if (d > 0)
            cblas_dsyr(CblasRowMajor, CblasUpper, (int)last, -1 / d, gone, 1, inverse, (int)k);
        least = cost > least && isfinite(cost) ? cost : least;
        obs->order[block * k + step] = id;
        obs->loss[block * k + step] = least;
    }
}

/* H to H^-1 in place, the upper half. */
static bool invert(double *h, int64_t k)
{
    const lapack_int n = (lapack_int)k;
    return LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', n, h, n) == 0 && LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', n, h, n) == 0;
}

static int make_trace(terse_obs *obs, terse_error *error)
{
    const size_t k = (size_t)obs->k;
    TERSE_AUTO(terse_freep) double *inverse = malloc(k * k * sizeof *inverse), *copy = malloc(k * k * sizeof *copy);
    TERSE_AUTO(terse_freep) double *w = malloc(((size_t)obs->rows + 1) * k * sizeof *w);
    TERSE_AUTO(terse_freep) int32_t *ids = malloc(k * sizeof *ids);
    obs->order = malloc((size_t)obs->blocks * k * sizeof *obs->order);
    obs->loss = malloc((size_t)obs->blocks * k * sizeof *obs->loss);
    if (!inverse || !copy || !w || !ids || !obs->order || !obs->loss)
        return out_of_memory(error);
    memcpy(inverse, obs->h, k * k * sizeof *inverse);
    if (!invert(inverse, obs->k))
        return terse_fail(error, TERSE_INTERNAL, "the second moments have no inverse");
    for (int64_t b = 0; b < obs->blocks; b++) {
        memcpy(copy, inverse, k * k * sizeof *copy);
        memcpy(w, obs->w + b * obs->rows * obs->k, (size_t)rows_of(obs, b) * k * sizeof *w);
        take_apart(obs, b, copy, w, ids, w + obs->rows * obs->k);
    }
    return TERSE_OK;
}

int terse_obs_open(const double *w, int64_t n, int64_t k, const double *h, terse_prune_kind kind, bool trace,
                   terse_obs *ret_obs, terse_error *error)
{
    const int64_t rows = kind == TERSE_PRUNE_4X1 ? 4 : 1;
    terse_obs obs = {.n = n, .k = k, .rows = rows, .blocks = (n + rows - 1) / rows, .kind = kind, .w = w};
    const size_t side = (size_t)k;
    obs.h = malloc(side * side * sizeof *obs.h + 1);
    TERSE_AUTO(terse_freep) double *product = malloc((size_t)n * side * sizeof *product + 1);
    if (!obs.h || !product) {
        terse_obs_done(&obs);
        return out_of_memory(error);
    }
    openblas_set_num_threads(1); /* the same bits whatever the machine */
    memcpy(obs.h, h, side * side * sizeof *obs.h);
    double mean = 0;
    for (int64_t i = 0; i < k; i++)
        mean += h[i * k + i] / (double)k;
    for (int64_t i = 0; i < k; i++)
        obs.h[i * k + i] += DAMPING * mean + 1e-30;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)k, (int)k, 1.0, w, (int)k, obs.h, (int)k, 0.0,
                product, (int)k);
    obs.total = cblas_ddot((int)(n * k), w, 1, product, 1);
    const double work = (double)obs.blocks * (double)k * (double)k * (double)k / 6;
    const int status = trace && kind != TERSE_PRUNE_2TO4 && work <= TRACE_WORK ? make_trace(&obs, error) : TERSE_OK;
    if (status != TERSE_OK)
        terse_obs_done(&obs);
    else
        *ret_obs = obs;
    return status;
}

/* --- masks: keep[block * k + i] -------------------------------------------------------------------------------------
 */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The `gone` steps that cost least over all blocks; within a block they are the first ones, as costs do not fall. */
static int mask_from_trace(const terse_obs *obs, int64_t gone, bool *keep, terse_error *error)
{
    const size_t count = (size_t)(obs->blocks * obs->k);
    TERSE_AUTO(terse_freep) double *sorted = malloc((count + 1) * sizeof *sorted);
    if (!sorted)
        return out_of_memory(error);
    memcpy(sorted, obs->loss, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_size);
    const double limit = gone < (int64_t)count ? sorted[gone] : INFINITY;
    int64_t left = gone;
    memset(keep, 1, count * sizeof *keep);
    for (int round = 0; round < 2; round++) /* those below the limit, then of those at it as many as it takes */
        for (int64_t b = 0; b < obs->blocks; b++)
            for (int64_t s = 0; s < obs->k && left > 0; s++) {
                bool *here = &keep[b * obs->k + obs->order[b * obs->k + s]];
                const double loss = obs->loss[b * obs->k + s];
                if (round == 0 ? loss >= limit : loss > limit)
                    break;
                left -= *here;
                *here = false;
            }
    return TERSE_OK;
}

typedef struct scored {
    double score;
    int64_t index;
} scored;

static int by_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score) - (x->score < y->score)
                                : (x->index > y->index) - (x->index < y->index);
}

/* The inputs first..first+count-1 lose what costs least: over all blocks, or two of each four within each. */
static void mask_part(const terse_obs *obs, const double *w, const double *u, int64_t first, int64_t count,
                      double amount, scored *list, bool *keep)
{
    const int64_t k = obs->k, four = obs->kind == TERSE_PRUNE_2TO4 ? 4 : count;
    const int64_t blocks = obs->kind == TERSE_PRUNE_2TO4 ? 1 : obs->blocks;
    for (int64_t begin = 0; begin < obs->blocks; begin += blocks)
        for (int64_t from = first; from < first + count; from += four) {
            const int64_t here = first + count - from < four ? first + count - from : four;
            int64_t n = 0;
            for (int64_t b = begin; b < begin + blocks; b++)
                for (int64_t i = from; i < from + here; i++, n++) {
                    list[n] = (scored){0.0, b * k + i};
                    for (int64_t r = 0; r < rows_of(obs, b); r++)
                        list[n].score += w[(b * obs->rows + r) * k + i] * w[(b * obs->rows + r) * k + i];
                    list[n].score /= u[i * k + i] * u[i * k + i];
                }
            qsort(list, (size_t)n, sizeof *list, by_score);
            /* amounts are exact over all that has been passed */
            const int64_t gone = obs->kind == TERSE_PRUNE_2TO4
                                     ? (n > 2 ? n - 2 : 0)
                                     : (int64_t)(amount * (double)(blocks * (first + count)) + 1e-9) -
                                           (int64_t)(amount * (double)(blocks * first) + 1e-9);
            for (int64_t i = 0; i < gone && i < n; i++)
                keep[list[i].index] = false;
        }
}

static int mask_in_order(const terse_obs *obs, double amount, bool *keep, terse_error *error)
{
    const int64_t k = obs->k;
    const size_t side = (size_t)k;
    TERSE_AUTO(terse_freep) double *u = malloc(side * side * sizeof *u), *w = malloc((size_t)obs->n * side * sizeof *w);
    TERSE_AUTO(terse_freep) double *lost = calloc((size_t)obs->n * AT_A_TIME, sizeof *lost);
    TERSE_AUTO(terse_freep) scored *list = malloc((size_t)obs->blocks * AT_A_TIME * sizeof *list);
    if (!u || !w || !lost || !list)
        return out_of_memory(error);
    memcpy(u, obs->h, side * side * sizeof *u);
    memcpy(w, obs->w, (size_t)obs->n * side * sizeof *w);
    memset(keep, 1, (size_t)(obs->blocks * k) * sizeof *keep);
    if (!invert(u, k) || LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', (lapack_int)k, u, (lapack_int)k) != 0)
        return terse_fail(error, TERSE_INTERNAL, "the second moments have no inverse");
    for (int64_t first = 0; first < k; first += AT_A_TIME) {
        const int64_t count = k - first < AT_A_TIME ? k - first : AT_A_TIME, end = first + count;
        mask_part(obs, w, u, first, count, amount, list, keep);
        for (int64_t i = first; i < end; i++)
            for (int64_t n = 0; n < obs->n; n++) {
                double *row = w + n * k;
                const double error_here = keep[n / obs->rows * k + i] ? 0.0 : row[i] / u[i * k + i];
                lost[n * AT_A_TIME + i - first] = error_here;
                if (error_here != 0.0)
                    cblas_daxpy((int)(end - i), -error_here, u + i * k + i, 1, row + i, 1);
            }
        if (end < k)
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)obs->n, (int)(k - end), (int)count, -1.0, lost,
                        AT_A_TIME, u + first * k + end, (int)k, 1.0, w + end, (int)k);
    }
    return TERSE_OK;
}

/* --- what remains ---------------------------------------------------------------------------------------------------
 */

/* The least-squares weights of one block on the inputs that it keeps: (H_SS)^-1 H_S: w^T. False: no memory or factor.
 */
static bool solve(const terse_obs *obs, const double *wanted, int64_t block, const bool *keep, double *w)
{
    const int64_t k = obs->k, rows = rows_of(obs, block), first = block * obs->rows;
    int64_t n = 0;
    TERSE_AUTO(terse_freep) int32_t *ids = malloc((size_t)k * sizeof *ids + 1);
    for (int64_t i = 0; ids && i < k; i++)
        if (keep[block * k + i])
            ids[n++] = (int32_t)i;
    TERSE_AUTO(terse_freep) double *a = malloc((size_t)(n * n) * sizeof *a + 1);
    TERSE_AUTO(terse_freep) double *b = malloc((size_t)(n * rows) * sizeof *b + 1);
    if (!ids || !a || !b)
        return false;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = i; j < n; j++)
            a[j * n + i] = obs->h[(int64_t)ids[i] * k + ids[j]]; /* LAPACK's upper half, by columns */
        for (int64_t r = 0; r < rows; r++)
            b[r * n + i] = wanted[(first + r) * k + ids[i]];
    }
    if (n > 0 &&
        LAPACKE_dposv(LAPACK_COL_MAJOR, 'U', (lapack_int)n, (lapack_int)rows, a, (lapack_int)n, b, (lapack_int)n) != 0)
        return false;
    for (int64_t r = 0; r < rows; r++) {
        memset(w + (first + r) * k, 0, (size_t)k * sizeof *w);
        for (int64_t i = 0; i < n; i++)
            w[(first + r) * k + ids[i]] = b[r * n + i];
    }
    return true;
}

int terse_obs_prune(const terse_obs *obs, double amount, double *ret_w, double *ret_lost, terse_error *error)
{
    const int64_t k = obs->k, gone = (int64_t)floor(amount * (double)(obs->blocks * k) + 1e-9);
    const size_t count = (size_t)(obs->n * k);
    TERSE_AUTO(terse_freep) bool *keep = malloc((size_t)(obs->blocks * k) * sizeof *keep + 1);
    TERSE_AUTO(terse_freep) double *wanted = malloc(count * sizeof *wanted + 1);
    if (!keep || !wanted)
        return out_of_memory(error);
    const int status = obs->order ? mask_from_trace(obs, gone, keep, error) : mask_in_order(obs, amount, keep, error);
    if (status != TERSE_OK)
        return status;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)obs->n, (int)k, (int)k, 1.0, obs->w, (int)k, obs->h,
                (int)k, 0.0, wanted, (int)k);
    for (int64_t b = 0; b < obs->blocks; b++)
        if (!solve(obs, wanted, b, keep, ret_w))
            return terse_fail(error, TERSE_INTERNAL, "the second moments of what a block keeps have no factor");
    /* at the solution the output's energy splits into what is kept and what is lost */
    const double left = cblas_ddot((int)count, ret_w, 1, wanted, 1);
    const double lost = obs->total > 0 ? 1 - left / obs->total : 0;
    *ret_lost = lost > 0 ? lost : 0;
    return TERSE_OK;
}
