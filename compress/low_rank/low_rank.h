/* SPDX-License-Identifier: Apache-2.0 */
/* low_rank.h: dense weights W [K,N] replaced by two thin factors [K,r] and [r,N] where that saves work.
 * Runs in: terse-compress (and the tests), between the passes PREPARE and FINISH: weights are plain.
 * Ownership: the report owns its layers; the graph is changed in place.
 *
 * The way: select.c (which layers, which rank) -> svd.c (LAPACK) -> factor.c (the two nodes). An algorithm that knows
 * the data puts its own decomposition between the two: factor.c takes any two factors. */
#ifndef TERSE_LOW_RANK_LOW_RANK_H
#define TERSE_LOW_RANK_LOW_RANK_H

#include "compress/passes/edit.h"

/* What was decided for one layer with constant weights. */
typedef struct terse_low_rank_layer {
    char name[96]; /* of the node, or of its output where it has none */
    terse_op op;
    char shape[64];                  /* of the weights as ONNX has them: "[512,784]" */
    int64_t rank;                    /* 0: left dense */
    int64_t full;                    /* the rank that W could have: min(K,N); 0 where W is not a matrix */
    double energy;                   /* share of the squared singular values that is kept; 1 for dense */
    int64_t macs_before, macs_after; /* per sample; symbols other than the batch count as 1 */
    char reason[96];                 /* "factored", "3x3 kernel", "rank 300 saves nothing (less than 256 would)" ... */
} terse_low_rank_layer;

typedef struct terse_low_rank_report {
    terse_low_rank_layer *layers;
    int n, capacity;
} terse_low_rank_report;

void terse_low_rank_report_done(terse_low_rank_report *report); /* accepts a zeroed one */

/* Told before each layer that is decomposed; may be NULL. */
typedef void terse_low_rank_progress(void *context, int layer, int n_layers, const char *name);

/* Factors the layers of `graph`, smallest rank that keeps `energy` (0 < energy <= 1) of the squared singular values.
 * energy 0 lists the layers and changes nothing. */
int terse_low_rank_run(terse_graph *graph, double energy, terse_low_rank_progress *progress, void *context,
                       terse_low_rank_report *ret_report, terse_error *error);

/* --- select.c ---------------------------------------------------------------------------------------------- */

/* A layer whose weights are one matrix: element (k,n) is at weights[k * stride_k + n * stride_n]. */
typedef struct terse_low_rank_matrix {
    const float *weights;
    int64_t k, n, stride_k, stride_n;
} terse_low_rank_matrix;

/* The matrix of a weighted node; false with the reason when its weights are not one. */
bool terse_select_matrix(const terse_edit *edit, int node, terse_low_rank_matrix *ret_matrix, char *reason,
                         size_t size);
/* The smallest rank >= 1 that keeps `energy` of s[0..n-1]^2 (descending). Singular values that are rounding errors of
 * the largest one, for a matrix of `larger_side`, count as 0. */
int64_t terse_select_rank(const float *s, int64_t n, int64_t larger_side, double energy, double *ret_kept);
/* The largest rank that saves multiply-accumulates and weights: r (K + N) < K N. May be 0. */
int64_t terse_select_rank_limit(int64_t k, int64_t n);
/* Do the factors also save what is stored and computed when columns come in panels of 16? */
bool terse_select_saves_panels(int64_t k, int64_t n, int64_t rank);

/* --- svd.c ------------------------------------------------------------------------------------------------- */

/* W = U diag(s) V^T: u [K,m], vt [m,N] in column order, m = min(K,N), s descending. */
typedef struct terse_svd {
    int64_t k, n, m;
    float *u, *s, *vt;
} terse_svd;

/* Fails with INVALID_ARGUMENT when weights are not finite or too many, INTERNAL when LAPACK does not converge. */
int terse_svd_compute(const terse_low_rank_matrix *matrix, terse_svd *ret_svd, terse_error *error);
void terse_svd_done(terse_svd *svd); /* accepts a zeroed one */

/* --- factor.c ---------------------------------------------------------------------------------------------- */

/* Puts the product by first [K,rank] in front of `node`, whose weights become second [rank,N]; bias, residual and
 * activation stay with the second. Strides, pads and transA go to the first. Factors in row order, in the arena. */
void terse_factor_node(terse_edit *edit, int node, const float *first, const float *second, int64_t rank);

#endif
