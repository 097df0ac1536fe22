/* SPDX-License-Identifier: Apache-2.0 */
/* unfuse.h: a copy of a graph in which products carry no bias of MatMul, residual or activation of their own.
 * Runs in: terse-compress (and the tests). Ownership: the copy borrows the bytes of constants, and names, of `graph`.
 */
#ifndef TERSE_PASSES_UNFUSE_H
#define TERSE_PASSES_UNFUSE_H

#include "common/graph/graph.h"

/* Values keep their numbers, further ones are behind them; nodes are in execution order. Computes what `graph` computes
 * up to rounding: on the engine's kernels bit for bit, since they add bias, residual and activation in this order. */
int terse_unfuse(const terse_graph *graph, terse_graph **ret_graph, terse_error *error);

#endif
