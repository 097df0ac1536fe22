/* SPDX-License-Identifier: Apache-2.0 */
/* steps.h: the steps of quantizing a network, shared by the files of this folder (and the tests).
 * Runs in: terse-compress. Ownership: the state belongs to quantize.c. */
#ifndef TERSE_QUANTIZE_STEPS_H
#define TERSE_QUANTIZE_STEPS_H

#include "compress/quantize/quantize.h"
#include "compress/quantize/replay.h"

/* Numbers found for a graph and a scheme. Arrays per value hold their entries at the value that stands for a group. */
typedef struct terse_ranges {
    terse_histogram **histograms; /* per value, NULL where nothing was observed */
    terse_range *ranges;
    terse_affine *affine;       /* per value, all members of a group alike */
    terse_calibration *methods; /* that found it */
    int n_values;
} terse_ranges;

void terse_ranges_done(terse_ranges *ranges); /* accepts a zeroed one */

/* --- calibrate.c --------------------------------------------------------------------------------------------- */

/* Fails, naming input and sample, on numbers that are not finite. */
int terse_calibrate_check(const terse_samples *samples, terse_error *error);

typedef struct terse_calibrate_watch {
    int64_t samples; /* at most so many, evenly spread; 0: all */
    bool classified; /* out: output 0 has one row of classes per sample, ... */
    bool one_class;  /* ... and all samples have the same largest one */
    void (*progress)(void *context, const char *text);
    void *context;
} terse_calibrate_watch;

/* Runs the samples and fills one histogram per group of the scheme. Memory does not grow with the samples. */
int terse_calibrate_observe(const terse_graph *graph, const terse_samples *samples, const terse_scheme *scheme,
                            terse_calibrate_watch *watch, terse_ranges *ret_ranges, terse_error *error);

/* --- choose.c ------------------------------------------------------------------------------------------------ */

/* Ranges by `method`; AUTO measures what each candidate costs at the output of the products that read the tensor, on
 * the samples of `replay`, and takes the least. */
int terse_choose_ranges(const terse_replay *replay, const terse_graph *graph, const terse_scheme *scheme,
                        terse_calibration method, terse_ranges *ranges, terse_error *error);

/* --- equalize.c ---------------------------------------------------------------------------------------------- */

typedef enum terse_equalize_by {
    TERSE_EQUALIZE_NONE = 0,
    TERSE_EQUALIZE_WEIGHTS,     /* r1 = range of the first product's output channel in its weights */
    TERSE_EQUALIZE_ACTIVATIONS, /* r1 = largest number of the channel between them */
} terse_equalize_by;

/* Cross-layer equalization (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
 * Correction", eq. 11): s_i = sqrt(r1_i r2_i) / r2_i; W1_i /= s_i, b1_i /= s_i, W2[:,i] *= s_i, for products that
 * follow each other, the first one ending in nothing or a ReLU that nobody else reads. With ACTIVATIONS r1 is taken
 * from the samples (Xiao et al. 2023, "SmoothQuant", eq. 4, with alpha 0.5). Weights are replaced in the graph, which
 * computes the same up to rounding. *ret_pairs: how many pairs there are. */
int terse_equalize_run(terse_graph *graph, const terse_samples *samples, terse_equalize_by by, int *ret_pairs,
                       terse_error *error);

/* --- bias.c -------------------------------------------------------------------------------------------------- */

/* Products that can be quantized get a bias of their own: zeros where they have none, a copy where others read it. */
int terse_bias_prepare(terse_graph *graph, terse_error *error);
/* The sums of a product in front of residual and activation, in `arena`; weights, bias: in the place of the graph's, or
 * NULL. */
int terse_bias_bare_output(const terse_replay *replay, const terse_graph *graph, const terse_numbers *numbers, int node,
                           const float *weights, const float *bias, terse_arena *arena, terse_tensor *ret_output,
                           terse_error *error);
/* Bias correction (Nagel et al. 2019, section 4.2, measured as in Banner et al. 2019): node by node, what the mean of
 * each channel lost, E[W x] - E[W_q x_q], is added to the bias; x_q comes from the network of bytes corrected so far. A
 * mean that is not certain counts by its share of certainty (1 - standard error^2 / mean^2). `bias[node]` gets memory
 * of the arena. */
int terse_bias_correct(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise,
                       float **bias, terse_arena *arena, terse_error *error);

/* --- sensitivity.c ------------------------------------------------------------------------------------------- */

/* What the outputs lose when only this node is a product of bytes: loss[node], for the products of the scheme. */
int terse_sensitivity_measure(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise,
                              terse_loss *ret_loss, void (*progress)(void *, const char *), void *context,
                              terse_error *error);
/* What they lose when everything is as the disguise says. */
int terse_sensitivity_total(const terse_replay *replay, const terse_graph *graph, const terse_disguise *disguise,
                            terse_loss *ret_loss, terse_error *error);

#endif
