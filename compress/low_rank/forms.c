/* SPDX-License-Identifier: Apache-2.0 */
/* Every form begins with rows that the layer's input is projected on: z = T x. What comes behind is the least-squares
 * answer to that: G = cross T^T (T cov T^T)^-1, which keeps tr(G (cross T^T)^T) of the metric's total. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>
#include <lapacke.h>

#include "compress/low_rank/steps.h"

#define DAMPING 1e-6 /* of the mean diagonal: projections may depend on each other */
enum { HOOI_ROUNDS = 2 };

void terse_chain_done(terse_chain *chain)
{
    free(chain->first);
    free(chain->core);
    free(chain->last);
    *chain = (terse_chain){0};
}

const char *terse_low_rank_form_name(terse_low_rank_form form)
{
    static const char *const names[] = {"best", "svd", "channel", "tucker", "spatial"};
    return names[form];
}

static double *matrix(int64_t rows, int64_t columns)
{
    return calloc((size_t)rows * (size_t)columns + 1, sizeof(double));
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for factors");
}

/* c [m][n] = a [m][k] b, b [k][n] or, transposed, [n][k]. */
static void product(const double *a, const double *b, bool transposed, int64_t m, int64_t n, int64_t k, double *c)
{
    cblas_dgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1.0, a,
                (int)k, b, (int)(transposed ? k : n), 0.0, c, (int)n);
}

/* G [o][z] for z = T x, T [z][k]; *ret_kept: what it keeps. cross_z [o][z] is left for the caller. */
static int regress(const terse_metric *m, const double *t, int64_t z, double *g, double *cross_z, double *ret_kept,
                   terse_error *error)
{
    TERSE_AUTO(terse_freep) double *half = m->cov ? matrix(z, m->k) : NULL;
    TERSE_AUTO(terse_freep) double *cov_z = matrix(z, z), *factor = matrix(z, z);
    if (!cov_z || !factor || (m->cov && !half))
        return out_of_memory(error);
    if (m->cov)
        product(t, m->cov, false, z, m->k, m->k, half);
    product(m->cov ? half : t, t, true, z, z, m->k, cov_z);
    product(m->cross, t, true, m->o, z, m->k, cross_z);
    double diagonal = 0;
    for (int64_t i = 0; i < z; i++)
        diagonal += cov_z[i * z + i] / (double)z;
    memcpy(g, cross_z, (size_t)(m->o * z) * sizeof *g);
    *ret_kept = 0;
    if (!(diagonal > 0)) {
        memset(g, 0, (size_t)(m->o * z) * sizeof *g);
        return TERSE_OK;
    }
    if (!terse_metric_solve(cov_z, DAMPING * diagonal, z, factor, m->o, g)) {
        memset(g, 0, (size_t)(m->o * z) * sizeof *g);
        return TERSE_OK;
    }
    *ret_kept = cblas_ddot((int)(m->o * z), g, 1, cross_z, 1);
    return TERSE_OK;
}

/* The `r` vectors of the largest values of a symmetric [n][n] (destroyed), one a row. */
static int top_vectors(double *symmetric, int64_t n, int64_t r, double *vectors, terse_error *error)
{
    TERSE_AUTO(terse_freep) double *values = malloc((size_t)n * sizeof *values);
    if (!values)
        return out_of_memory(error);
    const lapack_int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (lapack_int)n, symmetric, (lapack_int)n, values);
    if (info != 0)
        return terse_fail(error, TERSE_INTERNAL, "LAPACK's dsyevd answers %d", (int)info);
    for (int64_t i = 0; i < r; i++)
        memcpy(vectors + i * n, symmetric + (n - 1 - i) * n, (size_t)n * sizeof *vectors);
    return TERSE_OK;
}

/* Rows [r][n] that span what matters most of rows y [m][n] reading numbers with covariance c [n][n] (NULL: the
 * identity): with V the top right vectors of y c^1/2, they are V^T c^1/2 y^T y, each of length 1. */
static int weighted_rows(const double *y, int64_t rows, const double *c, int64_t n, int64_t r, double *ret_rows,
                         terse_error *error)
{
    TERSE_AUTO(terse_freep)
    double *gram = matrix(n, n), *root = c ? matrix(n, n) : NULL, *half = matrix(n, n), *vectors = matrix(n, n),
           *values = malloc((size_t)n * sizeof *values);
    if (!gram || (c && !root) || !half || !vectors || !values)
        return out_of_memory(error);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)n, (int)rows, 1.0, y, (int)n, y, (int)n, 0.0,
                gram, (int)n);
    int status = TERSE_OK;
    if (c) { /* root = c^1/2, half = root gram */
        memcpy(half, c, (size_t)(n * n) * sizeof *half);
        const lapack_int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (lapack_int)n, half, (lapack_int)n, values);
        if (info != 0)
            return terse_fail(error, TERSE_INTERNAL, "LAPACK's dsyevd answers %d", (int)info);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                vectors[i * n + j] = half[i * n + j] * (values[i] > 0 ? sqrt(values[i]) : 0);
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)n, (int)n, 1.0, vectors, (int)n, half, (int)n,
                    0.0, root, (int)n);
        product(root, gram, false, n, n, n, half);
        TERSE_AUTO(terse_freep) double *weighted = matrix(n, n);
        if (!weighted)
            return out_of_memory(error);
        product(half, root, false, n, n, n, weighted);
        status = top_vectors(weighted, n, r, vectors, error);
        if (status == TERSE_OK)
            product(vectors, half, false, r, n, n, ret_rows);
    } else {
        status = top_vectors(gram, n, r, ret_rows, error);
    }
    for (int64_t i = 0; i < r && status == TERSE_OK; i++) {
        const double length = cblas_dnrm2((int)n, ret_rows + i * n, 1);
        if (length > 0)
            cblas_dscal((int)n, 1 / length, ret_rows + i * n, 1);
    }
    return status;
}

/* --- SVD and CHANNEL: the top vectors of what is put out
 * --------------------------------------------------------------- */

static int make_channel(const terse_metric *m, int64_t r, terse_chain *chain, terse_error *error)
{
    chain->first = matrix(r, m->k);
    chain->last = matrix(m->o, r);
    if (!chain->first || !chain->last)
        return out_of_memory(error);
    product(m->vectors, m->target, false, r, m->k, m->o, chain->first);
    double kept = 0;
    for (int64_t i = 0; i < r; i++) {
        kept += m->values[i];
        for (int64_t o = 0; o < m->o; o++)
            chain->last[o * r + i] = m->vectors[i * m->o + o];
    }
    chain->kept = m->total > 0 ? kept / m->total : 1;
    return TERSE_OK;
}

/* --- SPATIAL
 * -------------------------------------------------------------------------------------------------------------- */

/* first [r][(c, i)] over a column of taps; z = (r, j): T [(r, j)][(c, i, j)]. */
static int make_spatial(const terse_low_rank_product *p, const terse_metric *m, int64_t r, terse_chain *chain,
                        terse_error *error)
{
    const int64_t high = p->kernel[0], wide = p->kernel[1], column = p->c * high, z = r * wide;
    chain->first = matrix(r, column);
    chain->last = matrix(m->o, z);
    TERSE_AUTO(terse_freep)
    double *rows = matrix(m->o * wide, column), *c = m->cov ? matrix(column, column) : NULL, *t = matrix(z, m->k),
           *cross_z = matrix(m->o, z);
    if (!chain->first || !chain->last || !rows || (m->cov && !c) || !t || !cross_z)
        return out_of_memory(error);
    for (int64_t o = 0; o < m->o; o++)
        for (int64_t ci = 0; ci < column; ci++)
            for (int64_t j = 0; j < wide; j++)
                rows[(o * wide + j) * column + ci] = m->target[o * m->k + ci * wide + j];
    for (int64_t a = 0; a < column && m->cov; a++)
        for (int64_t b = 0; b < column; b++)
            for (int64_t j = 0; j < wide; j++)
                c[a * column + b] += m->cov[(a * wide + j) * m->k + b * wide + j];
    int status = weighted_rows(rows, m->o * wide, c, column, r, chain->first, error);
    for (int64_t i = 0; i < r && status == TERSE_OK; i++)
        for (int64_t ci = 0; ci < column; ci++)
            for (int64_t j = 0; j < wide; j++)
                t[(i * wide + j) * m->k + ci * wide + j] = chain->first[i * column + ci];
    double kept = 0;
    if (status == TERSE_OK)
        status = regress(m, t, z, chain->last, cross_z, &kept, error);
    chain->kept = m->total > 0 ? kept / m->total : 1;
    return status;
}

/* --- TUCKER
 * --------------------------------------------------------------------------------------------------------------- */

/* Rows (output, tap) over channels of weights [rows][c * taps]. */
static void unfold(const double *w, int64_t rows, int64_t c, int64_t taps, double *to)
{
    for (int64_t o = 0; o < rows; o++)
        for (int64_t ch = 0; ch < c; ch++)
            for (int64_t tap = 0; tap < taps; tap++)
                to[(o * taps + tap) * c + ch] = w[(o * c + ch) * taps + tap];
}

typedef struct tucker_room {
    double *outputs; /* [r][o] top vectors of what is put out */
    double *kept;    /* [r][k] of the target */
    double *rows;    /* [r * taps][c] */
    double *cov_c;   /* [c][c], or NULL */
    double *t;       /* [r1 * taps][k] */
    double *full;    /* [o][r1 * taps] */
    double *cross_z; /* [o][r1 * taps] */
    double *s;       /* [o][o] */
} tucker_room;

/* Given the outputs' vectors, the inputs' rows; given those, the outputs' vectors and the core. */
static int hooi_round(const terse_low_rank_product *p, const terse_metric *m, tucker_room *room, terse_chain *chain,
                      terse_error *error)
{
    const int64_t r = chain->rank, r1 = chain->rank_in, taps = p->taps, z = r1 * taps;
    product(room->outputs, m->target, false, r, m->k, m->o, room->kept);
    unfold(room->kept, r, p->c, taps, room->rows);
    int status = weighted_rows(room->rows, r * taps, room->cov_c, p->c, r1, chain->first, error);
    if (status != TERSE_OK)
        return status;
    memset(room->t, 0, (size_t)(z * m->k) * sizeof *room->t);
    for (int64_t i = 0; i < r1; i++)
        for (int64_t ch = 0; ch < p->c; ch++)
            for (int64_t tap = 0; tap < taps; tap++)
                room->t[(i * taps + tap) * m->k + ch * taps + tap] = chain->first[i * p->c + ch];
    double kept;
    status = regress(m, room->t, z, room->full, room->cross_z, &kept, error);
    if (status != TERSE_OK)
        return status;
    product(room->full, room->cross_z, true, m->o, m->o, z, room->s);
    for (int64_t i = 0; i < m->o; i++) /* equal up to rounding; LAPACK reads one half */
        for (int64_t j = 0; j < i; j++)
            room->s[i * m->o + j] = room->s[j * m->o + i] = 0.5 * (room->s[i * m->o + j] + room->s[j * m->o + i]);
    TERSE_AUTO(terse_freep) double *s = matrix(m->o, m->o);
    if (!s)
        return out_of_memory(error);
    memcpy(s, room->s, (size_t)(m->o * m->o) * sizeof *s);
    status = top_vectors(s, m->o, r, room->outputs, error);
    if (status != TERSE_OK)
        return status;
    product(room->outputs, room->full, false, r, z, m->o, chain->core);
    kept = 0;
    for (int64_t i = 0; i < r; i++)
        for (int64_t a = 0; a < m->o; a++)
            for (int64_t b = 0; b < m->o; b++)
                kept += room->outputs[i * m->o + a] * room->s[a * m->o + b] * room->outputs[i * m->o + b];
    chain->kept = m->total > 0 ? kept / m->total : 1;
    return TERSE_OK;
}

static int make_tucker(const terse_low_rank_product *p, const terse_metric *m, terse_chain *chain, terse_error *error)
{
    const int64_t r = chain->rank, r1 = chain->rank_in, taps = p->taps, z = r1 * taps;
    chain->first = matrix(r1, p->c);
    chain->core = matrix(r, z);
    chain->last = matrix(m->o, r);
    TERSE_AUTO(terse_freep)
    double *outputs = matrix(r, m->o), *kept = matrix(r, m->k), *rows = matrix(r * taps, p->c),
           *cov_c = m->cov ? matrix(p->c, p->c) : NULL, *t = matrix(z, m->k), *full = matrix(m->o, z),
           *cross_z = matrix(m->o, z), *s = matrix(m->o, m->o);
    if (!chain->first || !chain->core || !chain->last || !outputs || !kept || !rows || (m->cov && !cov_c) || !t ||
        !full || !cross_z || !s)
        return out_of_memory(error);
    for (int64_t a = 0; a < p->c && m->cov; a++)
        for (int64_t b = 0; b < p->c; b++)
            for (int64_t tap = 0; tap < taps; tap++)
                cov_c[a * p->c + b] += m->cov[(a * taps + tap) * m->k + b * taps + tap];
    memcpy(outputs, m->vectors, (size_t)(r * m->o) * sizeof *outputs);
    tucker_room room = {outputs, kept, rows, cov_c, t, full, cross_z, s};
    int status = TERSE_OK;
    for (int i = 0; i < HOOI_ROUNDS && status == TERSE_OK; i++)
        status = hooi_round(p, m, &room, chain, error);
    for (int64_t i = 0; i < r; i++)
        for (int64_t o = 0; o < m->o; o++)
            chain->last[o * r + i] = outputs[i * m->o + o];
    return status;
}

int terse_chain_make(const terse_low_rank_product *p, const terse_metric *m, terse_low_rank_form form, int64_t rank,
                     int64_t rank_in, terse_chain *ret_chain, terse_error *error)
{
    terse_chain chain = {.form = form, .rank = rank, .rank_in = rank_in};
    const int status = form == TERSE_FORM_SPATIAL  ? make_spatial(p, m, rank, &chain, error)
                       : form == TERSE_FORM_TUCKER ? make_tucker(p, m, &chain, error)
                                                   : make_channel(m, rank, &chain, error);
    if (status != TERSE_OK) {
        terse_chain_done(&chain);
        return status;
    }
    *ret_chain = chain;
    return TERSE_OK;
}

int terse_chain_dense(const terse_low_rank_product *p, const terse_chain *chain, double *m, terse_error *error)
{
    const int64_t r = chain->rank, r1 = chain->rank_in, taps = p->taps;
    if (chain->form == TERSE_FORM_SVD || chain->form == TERSE_FORM_CHANNEL) {
        product(chain->last, chain->first, false, p->o, p->k, r, m);
        return TERSE_OK;
    }
    memset(m, 0, (size_t)(p->o * p->k) * sizeof *m);
    if (chain->form == TERSE_FORM_SPATIAL) {
        const int64_t column = p->c * p->kernel[0], wide = p->kernel[1];
        for (int64_t o = 0; o < p->o; o++)
            for (int64_t i = 0; i < r; i++)
                for (int64_t ci = 0; ci < column; ci++)
                    for (int64_t j = 0; j < wide; j++)
                        m[o * p->k + ci * wide + j] +=
                            chain->last[(o * r + i) * wide + j] * chain->first[i * column + ci];
        return TERSE_OK;
    }
    double *full = matrix(p->o, r1 * taps);
    if (!full)
        return out_of_memory(error);
    product(chain->last, chain->core, false, p->o, r1 * taps, r, full);
    for (int64_t o = 0; o < p->o; o++)
        for (int64_t q = 0; q < r1; q++)
            for (int64_t tap = 0; tap < taps; tap++)
                for (int64_t ch = 0; ch < p->c; ch++)
                    m[o * p->k + ch * taps + tap] += full[(o * r1 + q) * taps + tap] * chain->first[q * p->c + ch];
    free(full);
    return TERSE_OK;
}
