/* SPDX-License-Identifier: Apache-2.0 */
/* weights.h: weights of products in 8 or 4 bits while activations stay FP32 (`--quantize int8-weights`,
 * `int4-weights`). Runs in: terse-compress (and the tests), behind the passes FINISH: weights are packed, in
 * TERSE_LAYOUT_F32_N16. Ownership: the graph is changed in place; new bytes go into its arena. */
#ifndef TERSE_QUANTIZE_WEIGHTS_H
#define TERSE_QUANTIZE_WEIGHTS_H

#include "common/npz.h"
#include "compress/passes/edit.h"
#include "compress/quantize/mixed.h"
#include "compress/quantize/round.h"

/* Gemm and MatMul by a constant matrix (in 8 bits also convolutions with a kernel of 1 and stride 1) become WGemm.
 * `group` 0: 8 bits, one scale per column. Otherwise 4 bits, `group` rows (a multiple of 8) sharing a scale. Left as
 * they are: weights that are not finite, biases that are no vector, products that pass over their weights only in
 * passing (Gather, Conv with a larger kernel). With `samples` (or NULL; inputs by name, axis 0 = samples) 4 bits are
 * rounded `how` for what the products give on them (round.h; by default auto). Weights that are multiples of a scale
 * already keep it. Products of `mixed` (or NULL) become 8 bits where the others become 4. *ret_report and *ret_layers
 * (may be NULL) say which way, and how many were changed. */
int terse_quantize_weights(terse_graph *graph, int group, terse_rounding how, const terse_npz *samples,
                           const terse_mixed *mixed, terse_rounding_report *ret_report, int *ret_layers,
                           terse_error *error);

/* --- the choice of the numbers ------------------------------------------------------------------------------------ */

/* Rounds n floats, `stride` apart, to low..high times a scale that makes the squared error least: candidates clip a
 * little less and a little more, each is refined to the best scale for its integers. The scale may be negative, since
 * -8..7 reaches further on one side. 0 (and integers of 0) where all weights are 0. */
float terse_quantize_round(const float *weights, int64_t n, int64_t stride, int low, int high, int8_t *ret_integers);

#endif
