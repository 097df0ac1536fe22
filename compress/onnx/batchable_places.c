/* SPDX-License-Identifier: Apache-2.0 */
/* Values that say which row they belong to. PyTorch writes the mask of a transformer so: the numbers of the rows are
 * spread over all pairs of tokens, and GatherND picks mask[n][token] of each. */
#include "compress/onnx/batchable.h"

/* Linear in n: sums of such, and their products with what is not. */
static bool is_linear(const terse_onnx_lanes *lanes, const terse_node *node)
{
    int n = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        const terse_onnx_lane_kind kind = terse_onnx_lane_of(lanes, node, i).kind;
        if (kind == TERSE_ONNX_PLACE)
            return false;
        n += kind == TERSE_ONNX_INDEX;
    }
    return node->op == TERSE_OP_ADD || node->op == TERSE_OP_SUB || (node->op == TERSE_OP_MUL && n == 1);
}

static bool elementwise(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lane)
{
    const int axis = terse_onnx_meet(lanes, node, node->n_inputs, terse_onnx_lanes_rank(lanes, node->outputs[0]));
    *ret_lane = (terse_onnx_lane){.kind = is_linear(lanes, node) ? TERSE_ONNX_INDEX : TERSE_ONNX_PLACE, .axis = axis};
    return axis >= 0 && terse_onnx_common_split(lanes, node, &ret_lane->split);
}

/* Along another axis than that of the rows, which all have. */
static bool concat(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lane)
{
    const int rank = terse_onnx_lanes_rank(lanes, node->outputs[0]);
    const int64_t along = terse_node_int(node, "axis", 0), axis = along < 0 ? along + rank : along;
    *ret_lane = (terse_onnx_lane){.kind = TERSE_ONNX_INDEX, .axis = terse_onnx_lane_of(lanes, node, 0).axis};
    for (int i = 0; i < node->n_inputs; i++) {
        const terse_onnx_lane in = terse_onnx_lane_of(lanes, node, i);
        if ((in.kind != TERSE_ONNX_INDEX && in.kind != TERSE_ONNX_ROWS) || in.axis == axis || in.axis != ret_lane->axis)
            return false;
    }
    return terse_onnx_common_split(lanes, node, &ret_lane->split);
}

/* Whether row n asks for what belongs to row n, and every row for the same of it. `tuple` indices stand together, and
 * number `component` of them asks. *ret_most: the last of a row's entries that is asked for. */
static bool asks_for_its_own(const terse_tensor *indices, int axis, int64_t each, int64_t of_row, int64_t tuple,
                             int64_t component, int64_t *ret_most)
{
    const int64_t *numbers = indices->data, count = terse_tensor_count(indices), size = indices->dims[axis];
    const int64_t behind = terse_dims_count(indices->dims + axis + 1, indices->rank - axis - 1);
    *ret_most = -1;
    if (!numbers || indices->dtype != TERSE_INT64)
        return false;
    for (int64_t i = 0; i < count; i++) {
        const int64_t n = i / behind % size / each;
        const bool asks = i % tuple == component;
        const int64_t own = numbers[i] - (asks ? n * of_row : 0);
        if (own != numbers[i - n * each * behind] || (asks && (own < 0 || own >= of_row)))
            return false;
        *ret_most = asks && own > *ret_most ? own : *ret_most;
    }
    return true;
}

/* Indices are linear in n, and known: so what holds for a few N holds for every N. Where rows have a size that is not
 * fixed they must ask for all of it, as counting up to that size does: else a size that was not tried might be too
 * small. */
static bool gather(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lane)
{
    const terse_onnx_lane data = terse_onnx_lane_of(lanes, node, 0), indices = terse_onnx_lane_of(lanes, node, 1);
    const bool tuples = node->op == TERSE_OP_GATHER_ND;
    const int rank = terse_onnx_lanes_rank(lanes, node->inputs[0]),
              rank_indices = terse_onnx_lanes_rank(lanes, node->inputs[1]);
    const int64_t named = terse_node_int(node, "axis", 0), axis = tuples ? 0 : named < 0 ? named + rank : named;
    if (data.kind != TERSE_ONNX_ROWS || indices.kind != TERSE_ONNX_INDEX || (!tuples && axis != data.axis) ||
        (tuples && (terse_node_int(node, "batch_dims", 0) != 0 || indices.axis >= rank_indices - 1)))
        return false;
    int64_t most[TERSE_ONNX_BINDINGS];
    for (int b = 0; b < lanes->probe->n_bindings; b++) {
        const terse_tensor *view = terse_onnx_lanes_view(lanes, b, node->inputs[1]);
        const int64_t tuple = tuples ? view->dims[rank_indices - 1] : 1;
        if (data.split.outer[b] != 1 || indices.split.outer[b] != 1 || (tuples && data.axis >= tuple) ||
            !asks_for_its_own(view, indices.axis, indices.split.each[b], data.split.each[b], tuple,
                              tuples ? data.axis : 0, &most[b]))
            return false;
        most[b] -= data.split.each[b] - 1;
    }
    if (!terse_onnx_is_fixed(data.split.each, lanes->probe->n_bindings) &&
        (most[0] != 0 || !terse_onnx_is_fixed(most, lanes->probe->n_bindings)))
        return false;
    *ret_lane = indices;
    ret_lane->kind = TERSE_ONNX_ROWS;
    ret_lane->axis = (int)axis + indices.axis;
    return true;
}

bool terse_onnx_places_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes)
{
    const terse_onnx_lane first = terse_onnx_lane_of(lanes, node, 0);
    if (node->n_outputs != 1)
        return false;
    switch (node->op) {
    case TERSE_OP_RESHAPE:
    case TERSE_OP_FLATTEN:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
        return (first.kind == TERSE_ONNX_INDEX || first.kind == TERSE_ONNX_PLACE) &&
               terse_onnx_reshaped_lane(lanes, node, &first, &ret_lanes[0]);
    case TERSE_OP_IDENTITY:
        ret_lanes[0] = first;
        return true;
    case TERSE_OP_CAST: {
        const int64_t to = terse_node_int(node, "to", 0);
        ret_lanes[0] = first;
        if (to != TERSE_INT64 && to != TERSE_INT32)
            ret_lanes[0].kind = TERSE_ONNX_PLACE;
        return true;
    }
    case TERSE_OP_EXPAND: /* entries along other axes are equal */
        ret_lanes[0] = first;
        ret_lanes[0].axis +=
            terse_onnx_lanes_rank(lanes, node->outputs[0]) - terse_onnx_lanes_rank(lanes, node->inputs[0]);
        return first.kind == TERSE_ONNX_INDEX && terse_onnx_lane_of(lanes, node, 1).kind <= TERSE_ONNX_COUNT;
    case TERSE_OP_CONCAT:
        return concat(lanes, node, &ret_lanes[0]);
    case TERSE_OP_GATHER:
    case TERSE_OP_GATHER_ND:
        return gather(lanes, node, &ret_lanes[0]);
    default:
        return terse_onnx_is_elementwise(node->op) && elementwise(lanes, node, &ret_lanes[0]);
    }
}
