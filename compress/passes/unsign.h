/* SPDX-License-Identifier: Apache-2.0 */
/* unsign.h: the two halves of the pass `unsign`: unsign.c (activations to UINT8), unsign_weights.c (weights to INT8).
 * Runs in: terse-compress. */
#ifndef TERSE_PASSES_UNSIGN_H
#define TERSE_PASSES_UNSIGN_H

#include "compress/passes/edit.h"

/* Per value: how many products have it as their weights. To be freed; NULL when memory is out. */
int *terse_unsign_weight_uses(const terse_edit *edit);
/* Constant weights behind DequantizeLinear: in front of Transposes, INT8, in as many parts as it takes. */
int terse_unsign_weights(terse_graph *graph, terse_error *error);

#endif
