/* SPDX-License-Identifier: Apache-2.0 */
/* steps.h: what the files of low_rank/ hand to each other; prune/ walks and measures with it too.
 * Ownership: whoever fills a struct frees it with its _done; all matrices are row-major and of doubles. */
#ifndef TERSE_LOW_RANK_STEPS_H
#define TERSE_LOW_RANK_STEPS_H

#include "compress/low_rank/low_rank.h"
#include "compress/quantize/replay.h"

/* --- select.c: layers as products ----------------------------------------------------------------------------------
 */

/* W [o][k]; k runs over (channel, tap) for a convolution, as in ONNX's order. */
typedef struct terse_low_rank_product {
    int node;
    bool conv;
    int spatial; /* axes of a convolution's window */
    int64_t o, c, taps, k;
    int64_t kernel[3];
    int64_t positions_in, positions_mid, positions_out; /* a sample's pixels before, between and behind two factors */
    bool transposed;                                    /* Gemm with transA: samples are no help */
    double *w;
} terse_low_rank_product;

/* False with the reason when the node's weights are no product or not finite; done is due only behind true. */
bool terse_select_product(const terse_edit *edit, int node, terse_low_rank_product *ret_product, char *reason,
                          size_t size);
void terse_select_done(terse_low_rank_product *product); /* accepts a zeroed one */
/* The product's bias [o], malloc'd; NULL when it has none that is constant FP32 (or memory is out). */
double *terse_select_bias(const terse_graph *graph, const terse_low_rank_product *product);
/* Does the product end with an FP32 activation of the output's shape added? */
bool terse_select_has_residual(const terse_graph *graph, int node);
/* May the layer take that form? */
bool terse_select_allows(const terse_low_rank_product *product, terse_low_rank_form form);

/* The smallest rank >= 1 that keeps `energy` of the n `values` (squares, descending); those below `noise` count as 0.
 */
int64_t terse_select_rank(const double *values, int64_t n, double noise, double energy, double *ret_kept);
/* Work of a sample; panels: with columns in panels of 16, as kernels and file have them. rank 0: dense. */
int64_t terse_select_macs(const terse_low_rank_product *product, terse_low_rank_form form, int64_t rank,
                          int64_t rank_in, bool panels);

/* --- moments.c: what a layer reads ----------------------------------------------------------------------------------
 */

/* Sums over rows, then (terse_moments_finish) means and centred second moments. x: as the network was; x^: as it is. */
typedef struct terse_moments {
    int64_t o, k;
    double rows;
    double *hat;              /* [k][k] E[x^ x^^T] */
    double *cross;            /* [k][k] E[x x^^T] */
    double *residual;         /* [o][k] E[(r - r^) x^^T], r what is added behind the product; NULL: nothing is */
    double *mean, *mean_hat;  /* [k] */
    double *mean_residual;    /* [o], or NULL */
    int64_t stride, position; /* every stride-th row counts */
} terse_moments;

/* expected_rows: how many will come, of which enough are taken. */
int terse_moments_init(const terse_low_rank_product *product, bool residual, double expected_rows,
                       terse_moments *ret_moments, terse_error *error);
void terse_moments_done(terse_moments *moments);
/* The rows of one chunk; `exact` and `found` may be the same. Both must hold the node's inputs. */
int terse_moments_add(const terse_graph *graph, const terse_low_rank_product *product, const terse_numbers *exact,
                      const terse_numbers *found, terse_moments *moments, terse_error *error);
void terse_moments_finish(terse_moments *moments);

/* --- metric.c: what is to be approximated, and what an error costs --------------------------------------------------
 */

typedef struct terse_metric {
    int64_t o, k, n;          /* n = min(o, k) */
    double *target;           /* [o][k] the best weights */
    double *cross;            /* [o][k] target times cov */
    double *cov;              /* [k][k] of what is read; NULL: the identity */
    double *values, *vectors; /* of target cov target^T: [n] descending, [n][o] one row each */
    double total;             /* the sum of `values` */
} terse_metric;

/* x [rows][n] becomes x (cov + damping I)^-1; factor: room for [n][n]. Moments of samples that hardly differ are what
 * rounding left of them, and may be no sum of squares: damping grows up to a thousand times then. false: no help. */
bool terse_metric_solve(const double *cov, double damping, int64_t n, double *factor, int64_t rows, double *x);
/* moments NULL: the weights alone. Takes the matrices out of `moments`. */
int terse_metric_init(const terse_low_rank_product *product, terse_moments *moments, terse_metric *ret_metric,
                      terse_error *error);
void terse_metric_done(terse_metric *metric);
/* The bias that goes with weights m [o][k]: adds what the means ask for to bias [o]. */
void terse_metric_bias(const terse_low_rank_product *product, const terse_moments *moments, const double *m,
                       double *bias);

/* --- walk.c: samples through the network
 * ------------------------------------------------------------------------------ */

enum { TERSE_WALK_CHUNK = 8 };

/* The network as it was and, with a disguise, as it is, node by node over all chunks of samples. */
typedef struct terse_walk {
    const terse_graph *graph;
    terse_replay *replay;
    int n;                          /* chunks */
    terse_numbers **exact, **found; /* the same without a disguise */
} terse_walk;

/* done is due also behind a failure. */
int terse_walk_open(const terse_samples *samples, int64_t n_samples, const terse_disguise *disguise, terse_walk *walk,
                    terse_error *error);
void terse_walk_done(terse_walk *walk); /* accepts a zeroed one */
int terse_walk_step(terse_walk *walk, int node, terse_error *error);
/* What the layer reads and what an error costs, before its node is walked over; moments with `residual` where something
 * is added behind the product. walk NULL, or samples of no help (too many channels): the metric of the weights alone.
 */
int terse_walk_measure(const terse_walk *walk, const terse_low_rank_product *product, bool residual,
                       terse_moments *moments, terse_metric *metric, terse_error *error);
/* The most bytes that the numbers of one sample take at a time. */
int terse_walk_bytes(const terse_samples *samples, size_t *ret_bytes, terse_error *error);

/* --- forms.c: chains ------------------------------------------------------------------------------------------------
 */

/* SVD, CHANNEL: first [r][k], last [o][r]. TUCKER: first [r1][c], core [r][r1 * taps], last [o][r].
 * SPATIAL: first [r][c * kernel 0], last [o][r * kernel 1]. */
typedef struct terse_chain {
    terse_low_rank_form form;
    int64_t rank, rank_in;
    double *first, *core, *last;
    double kept; /* share of the metric's total */
} terse_chain;

int terse_chain_make(const terse_low_rank_product *product, const terse_metric *metric, terse_low_rank_form form,
                     int64_t rank, int64_t rank_in, terse_chain *ret_chain, terse_error *error);
void terse_chain_done(terse_chain *chain);
/* The chain multiplied out: m [o][k]. */
int terse_chain_dense(const terse_low_rank_product *product, const terse_chain *chain, double *m, terse_error *error);

/* --- ranks.c: which
 * ----------------------------------------------------------------------------------------------------- */

typedef struct terse_low_rank_candidate {
    terse_low_rank_form form;
    int64_t rank, rank_in; /* 0: dense */
    int64_t macs;
    double work; /* multiply-accumulates, or microseconds where they are measured */
    double lost; /* share of what the layer puts out */
    double cost; /* what the network's outputs lose for it: `lost`, until it is measured */
} terse_low_rank_candidate;

enum { TERSE_LOW_RANK_CANDIDATES = 48 };

typedef struct terse_low_rank_choice {
    terse_low_rank_candidate list[TERSE_LOW_RANK_CANDIDATES]; /* the first one is dense */
    int n, chosen;
} terse_low_rank_choice;

/* Fills the list with what saves work. */
int terse_ranks_list(const terse_low_rank_product *product, const terse_metric *metric, terse_low_rank_form form,
                     terse_low_rank_choice *choice, terse_error *error);
/* Costs of all candidates from those measured of a few (by their index, ascending in `lost`): linear between them, and
 * from nothing to the first; beyond the last as steep as to it from the one before. */
void terse_ranks_weigh(terse_low_rank_choice *choice, const int *measured, const double *costs, int n);
/* Chooses for all layers what costs least in sum with at most `work` in sum. */
void terse_ranks_choose(terse_low_rank_choice *choices, int n, double work);
/* Chooses for all layers what works least in sum with at most `cost` in sum. */
void terse_ranks_choose_cost(terse_low_rank_choice *choices, int n, double cost);
/* EVBMF (Nakajima et al. 2013, "Global analytic solution of fully-observed variational Bayesian matrix factorization",
 * theorem 2, with the noise estimated by its corollary): how many singular values s (descending, n of them, of a matrix
 * of n rows or columns and `larger` of the other) are no noise. */
int64_t terse_ranks_evbmf(const double *s, int64_t n, int64_t larger);

/* --- choose.c: how much of one layer may go
 * -------------------------------------------------------------------------------- */

/* What the options ask of this layer alone; for SHARE, and AUTO with samples, the list to choose from. Where it stays
 * dense, the reason is in the report. */
int terse_choose_look(const terse_low_rank_options *options, const terse_low_rank_product *product,
                      const terse_metric *metric, terse_low_rank_choice *choice, terse_low_rank_layer *report,
                      terse_error *error);
/* The ranks that the options name. */
void terse_choose_named(const terse_low_rank_options *options, const terse_low_rank_product *product,
                        terse_low_rank_choice *choice, terse_low_rank_layer *report);

/* --- times.c: how long a layer takes
 * ------------------------------------------------------------------------------ */

/* Microseconds of one sample through the layer of `node`, dense or as the candidate has it, alone and on this machine;
 * 0 when it cannot be run with free dimensions of 1. */
int terse_times_candidate(const terse_graph *graph, int node, const terse_low_rank_candidate *candidate, bool bytes,
                          double *ret_us, terse_error *error);
/* `work` of the whole list becomes microseconds; what is no faster than the dense layer leaves it, and where all did,
 * the report's reason says so. */
int terse_times_choice(const terse_graph *graph, const terse_low_rank_product *product, bool bytes,
                       terse_low_rank_choice *choice, terse_low_rank_layer *report, terse_error *error);

/* --- factor.c
 * --------------------------------------------------------------------------------------------------------- */

/* The chain (which is scaled) in place of the weights; bias, residual and activation stay with the last of its nodes.
 */
void terse_factor_node(terse_edit *edit, const terse_low_rank_product *product, terse_chain *chain);
/* Other weights m [o][k] in ONNX's order. */
void terse_factor_refit(terse_edit *edit, const terse_low_rank_product *product, const double *m);
/* Another bias for the product's node (which has one, of its own). */
void terse_factor_bias(terse_edit *edit, const terse_low_rank_product *product, const double *bias);

#endif
