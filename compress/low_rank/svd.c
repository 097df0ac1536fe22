/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/low_rank/low_rank.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include <cblas.h>
#include <lapacke.h>

/* LAPACK counts elements in 32 bits here and there. */
enum { MAX_ELEMENTS = 1 << 29 };

void terse_svd_done(terse_svd *svd)
{
    free(svd->u);
    free(svd->s);
    free(svd->vt);
    *svd = (terse_svd){0};
}

/* The matrix in column order; NULL when memory is out. *ret_finite tells whether all numbers are. */
static float *column_order(const terse_low_rank_matrix *matrix, bool *ret_finite)
{
    float *a = malloc((size_t)(matrix->k * matrix->n) * sizeof *a);
    *ret_finite = true;
    for (int64_t j = 0; a && j < matrix->n; j++)
        for (int64_t i = 0; i < matrix->k; i++) {
            const float x = matrix->weights[i * matrix->stride_k + j * matrix->stride_n];
            *ret_finite = *ret_finite && isfinite(x);
            a[j * matrix->k + i] = x;
        }
    return a;
}

int terse_svd_compute(const terse_low_rank_matrix *matrix, terse_svd *ret_svd, terse_error *error)
{
    const int64_t k = matrix->k, n = matrix->n, m = k < n ? k : n;
    if (k > MAX_ELEMENTS / n)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%" PRId64 " x %" PRId64 " is too large, at most %d elements",
                          k, n, MAX_ELEMENTS);
    bool finite;
    TERSE_AUTO(terse_freep) float *a = column_order(matrix, &finite);
    terse_svd svd = {.k = k, .n = n, .m = m};
    svd.u = malloc((size_t)(k * m) * sizeof *svd.u);
    svd.vt = malloc((size_t)(m * n) * sizeof *svd.vt);
    svd.s = malloc((size_t)m * sizeof *svd.s);
    if (!a || !svd.u || !svd.vt || !svd.s) {
        terse_svd_done(&svd);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a %" PRId64 " x %" PRId64 " matrix", k,
                          n);
    }
    if (!finite) {
        terse_svd_done(&svd);
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "weights are not finite");
    }
    openblas_set_num_threads(1); /* the same bits on every machine of this kind, however many cores are free */
    const lapack_int info = LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', (lapack_int)k, (lapack_int)n, a, (lapack_int)k, svd.s,
                                           svd.u, (lapack_int)k, svd.vt, (lapack_int)m);
    if (info != 0) {
        terse_svd_done(&svd);
        return terse_fail(error, TERSE_INTERNAL, "LAPACK's sgesdd answers %d", (int)info);
    }
    *ret_svd = svd;
    return TERSE_OK;
}
