/* SPDX-License-Identifier: Apache-2.0 */
/* batchable.h: what batchable.c and its rules share. Runs in: terse-compress. Owns nothing.
 *
 * The proof walks the graph once and gives every value a lane:
 *   FREE   neither its elements nor its shape depend on the rows of the inputs or on their number N;
 *   COUNT  an integer list (a shape in the making) that depends on N, but not on the rows;
 *   ROWS   axis `axis` has N entries, or N times `each` where rows were joined with what was behind them ([N,heads,...]
 *          to [N*heads,...]), and that `outer` times where also with what was in front ([tokens,N,...] to
 * [tokens*N,...]). What belongs to row n depends on row n of the inputs only, and in a way that does not depend on n or
 * N. Exporters pick the rows of a mask by their numbers, so some values say which row they belong to: INDEX  as ROWS,
 * but elements are linear in n; PLACE  as ROWS, but what belongs to row n depends on n in some way: of use for its
 * shape only.
 *
 * What fits none of them ends the proof: the network is not batchable. Shapes come from the probe, whose bindings 0, 1
 * and 2 differ in N alone. */
#ifndef TERSE_ONNX_BATCHABLE_H
#define TERSE_ONNX_BATCHABLE_H

#include "compress/onnx/internal.h"

typedef enum terse_onnx_lane_kind {
    TERSE_ONNX_FREE,
    TERSE_ONNX_COUNT,
    TERSE_ONNX_ROWS,
    TERSE_ONNX_INDEX,
    TERSE_ONNX_PLACE
} terse_onnx_lane_kind;

/* How the entries of an axis belong to rows, under each binding: they may depend on other symbols than N. */
typedef struct terse_onnx_split {
    int64_t outer[TERSE_ONNX_BINDINGS], each[TERSE_ONNX_BINDINGS];
} terse_onnx_split;

typedef struct terse_onnx_lane {
    terse_onnx_lane_kind kind;
    int axis;               /* ROWS and what is below it */
    terse_onnx_split split; /* the same of these */
    bool dimensions;        /* every element is a dimension or a constant */
} terse_onnx_lane;

typedef struct terse_onnx_lanes {
    const terse_graph *graph;
    const terse_onnx_probe *probe;
    terse_onnx_lane *of; /* per value */
} terse_onnx_lanes;

/* Lanes of the outputs of a node with at least one ROWS input (lanes[i] for output i); false: not proved. */
bool terse_onnx_rows_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes);
/* The same with an INDEX or PLACE among the inputs (batchable_places.c). */
bool terse_onnx_places_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes);

/* A Reshape, Squeeze, Unsqueeze or Flatten of a value with that lane: where its rows are then. */
bool terse_onnx_reshaped_lane(const terse_onnx_lanes *lanes, const terse_node *node, const terse_onnx_lane *lane,
                              terse_onnx_lane *ret_lane);
/* split->each of an axis, from its size and split->outer; false: that is not so many for each row. */
bool terse_onnx_find_each(const terse_onnx_lanes *lanes, int value, int axis, terse_onnx_split *split);
terse_onnx_split terse_onnx_one_each(void);
bool terse_onnx_is_fixed(const int64_t *numbers, int n); /* all are equal */
bool terse_onnx_same_split(const terse_onnx_split *a, const terse_onnx_split *b);
bool terse_onnx_is_elementwise(terse_op op);

/* Operands of a node broadcast: all that have rows have them in one axis of an output of that rank, where whatever is
 * free has 1. Returns that axis or -1. */
int terse_onnx_meet(const terse_onnx_lanes *lanes, const terse_node *node, int n_inputs, int rank);
/* That of the inputs with rows, which is the same for all of them; false: it is not. */
bool terse_onnx_common_split(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_split *ret_split);

/* Shape of an input (binding 0 unless stated), lanes, and operands. */
static inline const terse_tensor *terse_onnx_lanes_view(const terse_onnx_lanes *lanes, int binding, int value)
{
    return terse_onnx_probe_view(lanes->probe, binding, value);
}
static inline int terse_onnx_lanes_rank(const terse_onnx_lanes *lanes, int value)
{
    return terse_onnx_lanes_view(lanes, 0, value)->rank;
}
static inline terse_onnx_lane terse_onnx_lane_of(const terse_onnx_lanes *lanes, const terse_node *node, int input)
{
    return input < node->n_inputs && node->inputs[input] >= 0 ? lanes->of[node->inputs[input]]
                                                              : (terse_onnx_lane){.kind = TERSE_ONNX_FREE};
}
static inline int64_t terse_onnx_lanes_n(const terse_onnx_lanes *lanes, int binding)
{
    return terse_onnx_probe_symbol(lanes->probe, binding, lanes->probe->batch);
}

#endif
