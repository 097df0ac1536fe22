/* SPDX-License-Identifier: Apache-2.0 */
/* obs.h: which weights of one product cost its output least, and what the others become without them.
 * Runs in: terse-compress (and the tests). Ownership: an obs owns all but the matrices it was given, which must outlive
 * it.
 *
 * Optimal Brain Surgeon (Hassibi and Stork 1993; Frantar et al. 2022, "Optimal Brain Compression"): with H the second
 * moments of what is read, removing input i from a block of outputs with weights w costs sum of w_i^2 / [H^-1]_ii, and
 * the others take it up: w -= w_i / [H^-1]_ii H^-1[i,:]; H^-1 -= H^-1[:,i] H^-1[i,:] / [H^-1]_ii. Blocks of outputs do
 * not meet, so each is taken apart by itself, down to nothing; the order and what each step cost (the trace) then serve
 * every amount. What is left at an amount is the least-squares solution on the inputs that remain, which is what the
 * updates would have led to.
 *
 * Where that is too much work, all blocks share the order of the inputs (Frantar and Alistarh 2023, "SparseGPT"): with
 * U the upper Cholesky factor of H^-1, 128 inputs at a time lose what costs least by w_i^2 / U_ii^2, and the inputs
 * behind take it up. Those amounts have no trace: each is a run of its own. */
#ifndef TERSE_PRUNE_OBS_H
#define TERSE_PRUNE_OBS_H

#include "compress/prune/prune.h"

typedef struct terse_obs {
    int64_t n, k;   /* outputs, inputs */
    int64_t rows;   /* outputs of a block: 4 (4x1) or 1 */
    int64_t blocks; /* ceil(n / rows) */
    terse_prune_kind kind;
    const double *w; /* [n][k] */
    double *h;       /* [k][k] damped */
    double total;    /* what all of w is worth: trace of w H w^T */
    int32_t *order;  /* [blocks][k] inputs in the order in which they go; NULL: no trace */
    double *loss;    /* [blocks][k] what each step costs, never less than the one before */
} terse_obs;

/* `h`: second moments [k][k]; their mean diagonal times 0.01 is added. RESOURCE_EXHAUSTED, or INTERNAL when they have
 * no factor. `trace` false: without one, whatever the size. */
int terse_obs_open(const double *w, int64_t n, int64_t k, const double *h, terse_prune_kind kind, bool trace,
                   terse_obs *ret_obs, terse_error *error);
void terse_obs_done(terse_obs *obs); /* accepts a zeroed one */
/* The weights without `amount` of the blocks (2:4: without two of each four), [n][k], and the share of `total` that
 * they lose. As often as wanted. */
int terse_obs_prune(const terse_obs *obs, double amount, double *ret_w, double *ret_lost, terse_error *error);

#endif
