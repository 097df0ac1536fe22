/* SPDX-License-Identifier: Apache-2.0 */
/* round.h: which way each product's weights are rounded, `--rounding`: candidates are fitted to most of the samples and
 * judged by what the product's output loses on the others.
 * Runs in: terse-compress (and the tests). Ownership: the caller's. */
#ifndef TERSE_QUANTIZE_ROUND_H
#define TERSE_QUANTIZE_ROUND_H

#include "compress/quantize/adaround.h"
#include "compress/quantize/int8.h"
#include "compress/quantize/replay.h"

/* How many products were rounded which way, and what all of them lose together (10 log10 of the sum of ratios). */
typedef struct terse_rounding_report {
    int products[TERSE_ROUNDINGS];
    double lost, lost_nearest; /* sums of errors on judging samples, each over that of the nearest */
} terse_rounding_report;

/* Rounds `rows` as asked. fit, judge: moments [k][k], symmetric, of what the rows were multiplied with. rows->q has the
 * nearest before; it stays where nothing loses less on `judge`. *ret_taken: which way it became. False when memory is
 * out. */
bool terse_round_choose(const terse_round_rows *rows, terse_rounding how, const double *fit, const double *judge,
                        terse_rounding *ret_taken, terse_rounding_report *report);

/* Weights w [k][n] to 4 bits, `group` rows of a column sharing a scale: integers -8..7 [k][n], scales
 * [ceil(k / group)][n]. Moments NULL: to the nearest. GPTQ chooses scales of its own as it goes; AdaRound starts from
 * the better of the two. */
bool terse_round_int4(const float *w, int64_t k, int64_t n, int64_t group, terse_rounding how, const double *fit,
                      const double *judge, int8_t *ret_integers, float *ret_scales, terse_rounding_report *report);

/* What terse_round_int8 changes. */
typedef struct terse_round_bytes {
    terse_int8_weights *int8;                          /* per node: integers; scales stay */
    float *const *weights;                             /* per node: what they stand for */
    void (*progress)(void *context, const char *text); /* or NULL */
    void *context;
} terse_round_bytes;

/* INT8 weights of all products of the disguise's scheme, in the order of the network, each on what the bytes before it
 * give. shares[0], [1]: noise over signal of the outputs on the samples of `replay` before and then; where it is larger
 * then, everything is put back and the report is empty. */
int terse_round_int8(const terse_replay *replay, const terse_graph *graph, const terse_samples *samples,
                     const terse_disguise *disguise, terse_rounding how, const terse_round_bytes *bytes,
                     terse_rounding_report *ret_report, double ret_shares[2], terse_error *error);

#endif
