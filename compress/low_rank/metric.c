/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>
#include <lapacke.h>

#include "compress/low_rank/steps.h"

#define DAMPING 1e-3 /* of the mean diagonal */
enum { TRIALS = 4 };
#define DOUBT 0.1 /* share of the mean diagonal that stands for what few rows have not shown */

void terse_metric_done(terse_metric *metric)
{
    free(metric->target);
    free(metric->cross);
    free(metric->cov);
    free(metric->values);
    free(metric->vectors);
    *metric = (terse_metric){0};
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer's metric");
}

bool terse_metric_solve(const double *cov, double damping, int64_t n, double *factor, int64_t rows, double *x)
{
    for (int trial = 0; trial < TRIALS; trial++, damping *= 10) {
        memcpy(factor, cov, (size_t)(n * n) * sizeof *factor);
        for (int64_t i = 0; i < n; i++)
            factor[i * n + i] += damping;
        if (LAPACKE_dposv(LAPACK_COL_MAJOR, 'U', (lapack_int)n, (lapack_int)rows, factor, (lapack_int)n, x,
                          (lapack_int)n) == 0)
            return true;
    }
    return false;
}

/* target = W + (W (cross - hat) + residual) (hat + eps I)^-1: W itself where nothing was compressed yet. */
static int find_target(const terse_low_rank_product *p, const terse_moments *moments, terse_metric *m,
                       terse_error *error)
{
    const int o = (int)p->o, k = (int)p->k;
    const size_t kk = (size_t)k * (size_t)k, ok = (size_t)o * (size_t)k;
    memcpy(m->target, p->w, ok * sizeof *m->target);
    TERSE_AUTO(terse_freep) double *factor = malloc(kk * sizeof *factor), *change = malloc(ok * sizeof *change);
    if (!factor || !change)
        return out_of_memory(error);
    for (size_t i = 0; i < kk; i++)
        factor[i] = moments->cross[i] - m->cov[i];
    if (moments->residual)
        memcpy(change, moments->residual, ok * sizeof *change);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, o, k, k, 1.0, p->w, k, factor, k,
                moments->residual ? 1.0 : 0.0, change, k);
    double diagonal = 0;
    for (int i = 0; i < k; i++)
        diagonal += m->cov[(size_t)i * (size_t)k + (size_t)i] / k;
    if (!(diagonal > 0))
        return TERSE_OK; /* the layer reads a constant: any weights do */
    /* rows of `change` are columns for LAPACK: (hat + eps I) is symmetric */
    if (!terse_metric_solve(m->cov, DAMPING * diagonal, k, factor, o, change))
        return TERSE_OK; /* nothing but rounding: the weights as they are */
    /* with few rows for k unknowns a part of that is chance */
    const double trust = moments->rows / (moments->rows + (double)k);
    for (size_t i = 0; i < ok; i++)
        m->target[i] += trust * change[i];
    return TERSE_OK;
}

/* Directions that k numbers have and the rows did not show cost a little, too. */
static void doubt(terse_metric *m, double rows)
{
    const int64_t k = m->k;
    const double share = DOUBT * (double)k / ((double)k + rows);
    double diagonal = 0;
    for (int64_t i = 0; i < k; i++)
        diagonal += m->cov[i * k + i] / (double)k;
    for (int64_t i = 0; i < k * k; i++)
        m->cov[i] *= 1 - share;
    for (int64_t i = 0; i < k; i++)
        m->cov[i * k + i] += share * diagonal;
}

/* root [k][k] with root root^T = cov. */
static int find_root(const terse_metric *m, double *root, terse_error *error)
{
    const int k = (int)m->k;
    TERSE_AUTO(terse_freep) double *values = malloc((size_t)k * sizeof *values);
    if (!values)
        return out_of_memory(error);
    memcpy(root, m->cov, (size_t)k * (size_t)k * sizeof *root);
    const lapack_int info = LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'V', 'U', k, root, k, values);
    if (info != 0)
        return terse_fail(error, TERSE_INTERNAL, "LAPACK's dsyevd answers %d", (int)info);
    for (int j = 0; j < k; j++)
        cblas_dscal(k, values[j] > 0 ? sqrt(values[j]) : 0, root + j, k);
    return TERSE_OK;
}

/* Values and vectors of target cov target^T by its smaller side: itself, or (target root)^T (target root). */
static int decompose(terse_metric *m, terse_error *error)
{
    const int o = (int)m->o, k = (int)m->k, n = (int)m->n;
    const bool wide = o <= k;
    TERSE_AUTO(terse_freep) double *ascending = malloc((size_t)n * sizeof *ascending);
    TERSE_AUTO(terse_freep) double *gram = malloc((size_t)n * (size_t)n * sizeof *gram);
    TERSE_AUTO(terse_freep)
    double *root = !wide && m->cov ? malloc((size_t)k * (size_t)k * sizeof *root) : NULL,
           *rooted = root ? malloc((size_t)o * (size_t)k * sizeof *rooted) : NULL;
    if (!ascending || !gram || (!wide && m->cov && (!root || !rooted)))
        return out_of_memory(error);
    const double *a = m->target;
    int status = root ? find_root(m, root, error) : TERSE_OK;
    if (status != TERSE_OK)
        return status;
    if (root) {
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, o, k, k, 1.0, m->target, k, root, k, 0.0, rooted, k);
        a = rooted;
    }
    if (wide)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, o, o, k, 1.0, m->cross, k, m->target, k, 0.0, gram, o);
    else
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, k, o, 1.0, a, k, 0.0, gram, k);
    const lapack_int info = LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'V', 'U', n, gram, n, ascending);
    if (info != 0)
        return terse_fail(error, TERSE_INTERNAL, "LAPACK's dsyevd answers %d", (int)info);
    m->total = 0;
    for (int i = 0; i < n; i++) {
        const int from = n - 1 - i;
        const double value = ascending[from] > 0 ? ascending[from] : 0;
        double *vector = m->vectors + (size_t)i * (size_t)o;
        m->values[i] = value;
        m->total += value;
        if (wide)
            cblas_dcopy(o, gram + from, n, vector, 1);
        else
            cblas_dgemv(CblasRowMajor, CblasNoTrans, o, k, value > 0 ? 1 / sqrt(value) : 0, a, k, gram + from, n, 0.0,
                        vector, 1);
    }
    return TERSE_OK;
}

int terse_metric_init(const terse_low_rank_product *p, terse_moments *moments, terse_metric *ret_metric,
                      terse_error *error)
{
    const size_t o = (size_t)p->o, ok = o * (size_t)p->k;
    terse_metric m = {.o = p->o, .k = p->k, .n = p->o < p->k ? p->o : p->k};
    m.target = malloc(ok * sizeof *m.target);
    m.cross = malloc(ok * sizeof *m.cross);
    m.values = malloc((size_t)m.n * sizeof *m.values);
    m.vectors = malloc((size_t)m.n * o * sizeof *m.vectors);
    int status = m.target && m.cross && m.values && m.vectors ? TERSE_OK : out_of_memory(error);
    openblas_set_num_threads(1); /* the same bits on every machine of this kind, however many cores are free */
    if (status == TERSE_OK && moments) {
        m.cov = TERSE_TAKE(moments->hat);
        status = find_target(p, moments, &m, error);
        doubt(&m, moments->rows);
        if (status == TERSE_OK)
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)p->o, (int)p->k, (int)p->k, 1.0, m.target,
                        (int)p->k, m.cov, (int)p->k, 0.0, m.cross, (int)p->k);
    } else if (status == TERSE_OK) {
        memcpy(m.target, p->w, ok * sizeof *m.target);
        memcpy(m.cross, p->w, ok * sizeof *m.cross);
    }
    if (status == TERSE_OK)
        status = decompose(&m, error);
    if (status != TERSE_OK) {
        terse_metric_done(&m);
        return status;
    }
    *ret_metric = m;
    return TERSE_OK;
}

void terse_metric_bias(const terse_low_rank_product *p, const terse_moments *moments, const double *m, double *bias)
{
    for (int64_t o = 0; o < p->o; o++) {
        double sum = moments->residual ? moments->mean_residual[o] : 0;
        for (int64_t i = 0; i < p->k; i++)
            sum += p->w[o * p->k + i] * moments->mean[i] - m[o * p->k + i] * moments->mean_hat[i];
        bias[o] += sum;
    }
}
