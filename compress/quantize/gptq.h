/* SPDX-License-Identifier: Apache-2.0 */
/* gptq.h: weights of 4 bits rounded so that the product of the samples changes least, not the weights themselves.
 * Runs in: terse-compress (and the tests). Ownership: the caller's, but for what terse_gptq_watch returns.
 *
 * Frantar et al. 2023, "GPTQ", algorithm 1: with H = X^T X + 1 % of its mean diagonal and U the upper Cholesky factor
 * of H^-1, rows of the weights [K,N] are rounded one after the other, and what a row loses, divided by U[k][k], is
 * taken off the rows that follow by U[k][j]. A group's scales are chosen when its first row is reached, from what the
 * rows before have left. */
#ifndef TERSE_QUANTIZE_GPTQ_H
#define TERSE_QUANTIZE_GPTQ_H

#include "common/npz.h"
#include "compress/passes/edit.h"

enum { TERSE_GPTQ_MAX_K = 4096, TERSE_GPTQ_SAMPLES = 128 };

/* The sums of products of the inputs of nodes, one matrix a weight constant: moments[value] is [K,K] or NULL,
 * symmetric. Every fourth chunk of samples is in `judged` instead; where there are fewer chunks all are in both. */
typedef struct terse_gptq_moments {
    double **moments, **judged;
    int n_values;
    bool spilled; /* they lie in files (compress/spill.h) */
} terse_gptq_moments;

void terse_gptq_moments_done(terse_gptq_moments *moments); /* accepts a zeroed one */

/* Nobody reads those of this value for now. */
void terse_gptq_moments_rest(const terse_gptq_moments *moments, int value);

/* Runs samples of `data` (inputs by name, axis 0 = samples) through the graph and sums up, for each node of which
 * `wanted` says so, x^T x over the rows [...,K] of its input 0, under the number of its input 1, a matrix [K,N]. */
int terse_gptq_watch(const terse_graph *graph, const bool *wanted, const terse_npz *data,
                     terse_gptq_moments *ret_moments, terse_error *error);

/* Second moments [k][k] (their upper half), damped by 1 % of their mean diagonal, to the upper Cholesky factor of the
 * inverse, in place. False when there is none. */
bool terse_gptq_factor(double *moments, int64_t k);

/* Rounds w [k][n] (destroyed) with the moments (destroyed): integers -8..7 [k][n], scales [ceil(k/group)][n]. False
 * when the moments have no factor (no memory among it): then nothing is written. */
bool terse_gptq_round(float *w, int64_t k, int64_t n, int64_t group, double *moments, int8_t *ret_integers,
                      float *ret_scales);

#endif
