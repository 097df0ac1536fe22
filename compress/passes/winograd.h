/* SPDX-License-Identifier: Apache-2.0 */
/* winograd.h: which convolutions run through Winograd's F(4x4,3x3), and their weights; a part of the pass `pack`.
 * Runs in: terse-compress (and the tests). Ownership: nothing is kept. */
#ifndef TERSE_PASSES_WINOGRAD_H
#define TERSE_PASSES_WINOGRAD_H

#include "common/graph/graph.h"

/* Is F(4x4,3x3) the faster way for this Conv, which is channels-last with plain constant FP32 weights? Never for
 * weights that are not finite or so large that their transform could overflow. */
bool terse_pass_winograd_wins(const terse_graph *graph, const terse_node *conv);
/* [N,C,3,3] into TERSE_LAYOUT_F32_WINOGRAD4; `to` is zeroed. */
void terse_pass_winograd_pack(const terse_value *weights, float *to);

#endif
