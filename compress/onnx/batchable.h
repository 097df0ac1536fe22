/* SPDX-License-Identifier: Apache-2.0 */
/* batchable.h: what batchable.c and its rules share. Runs in: terse-compress. Owns nothing.
 *
 * The proof walks the graph once and gives every value a lane:
 *   FREE   neither its elements nor its shape depend on the rows of the inputs or on their number N;
 *   COUNT  an integer list (a shape in the making) that depends on N, but not on the rows;
 *   ROWS   axis `axis` has N entries, and entry n depends on row n of the inputs only, in a way that does not
 *          depend on n or N.
 * What fits none of them ends the proof: the network is not batchable. Shapes come from the probe, whose bindings 0, 1
 * and 2 differ in N alone. */
#ifndef TERSE_ONNX_BATCHABLE_H
#define TERSE_ONNX_BATCHABLE_H

#include "compress/onnx/internal.h"

typedef enum terse_onnx_lane_kind { TERSE_ONNX_FREE, TERSE_ONNX_COUNT, TERSE_ONNX_ROWS } terse_onnx_lane_kind;

typedef struct terse_onnx_lane {
    terse_onnx_lane_kind kind;
    int axis;        /* ROWS */
    bool dimensions; /* elements that are dimensions or copies of such: never negative */
} terse_onnx_lane;

typedef struct terse_onnx_lanes {
    const terse_graph *graph;
    const terse_onnx_probe *probe;
    terse_onnx_lane *of; /* per value */
} terse_onnx_lanes;

/* Lanes of the outputs of a node with at least one ROWS input (lanes[i] for output i); false: not proved. */
bool terse_onnx_rows_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes);

/* Shape of an input (binding 0 unless stated), lanes, and operands. */
static inline const terse_tensor *terse_onnx_lanes_view(const terse_onnx_lanes *lanes, int binding, int value)
{
    return terse_onnx_probe_view(lanes->probe, binding, value);
}
static inline int64_t terse_onnx_lanes_n(const terse_onnx_lanes *lanes, int binding)
{
    return terse_onnx_probe_symbol(lanes->probe, binding, lanes->probe->batch);
}

#endif
