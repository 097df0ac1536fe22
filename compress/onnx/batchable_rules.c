/* SPDX-License-Identifier: Apache-2.0 */
/* One rule per family: when may an operator read rows, and along which axis do its outputs have them? Axes follow ONNX.
 * The shapes of the outputs are compared with the answer afterwards (batchable.c), so a rule only has to see to the
 * elements. */
#include "compress/onnx/batchable.h"

#include <stdlib.h>
#include <string.h>

static bool is_free(const terse_onnx_lanes *lanes, const terse_node *node, int input)
{
    return terse_onnx_lane_of(lanes, node, input).kind == TERSE_ONNX_FREE;
}

static bool are_free(const terse_onnx_lanes *lanes, const terse_node *node, int first)
{
    for (int i = first; i < node->n_inputs; i++)
        if (!is_free(lanes, node, i))
            return false;
    return true;
}

/* Axis of the rows of an input; -1 when it is no ROWS. */
static int rows_of(const terse_onnx_lanes *lanes, const terse_node *node, int input)
{
    const terse_onnx_lane lane = terse_onnx_lane_of(lanes, node, input);
    return lane.kind == TERSE_ONNX_ROWS ? lane.axis : -1;
}

static bool has_input(const terse_node *node, int input)
{
    return input < node->n_inputs && node->inputs[input] >= 0;
}

/* The rank of some output that is wanted. */
static int output_rank(const terse_onnx_lanes *lanes, const terse_node *node)
{
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0)
            return terse_onnx_lanes_rank(lanes, node->outputs[i]);
    return 0;
}

static int axis_attribute(const terse_node *node, const char *name, int64_t fallback, int rank)
{
    const int64_t axis = terse_node_int(node, name, fallback);
    return (int)(axis < 0 ? axis + rank : axis);
}

int terse_onnx_meet(const terse_onnx_lanes *lanes, const terse_node *node, int n_inputs, int rank)
{
    int axis = -1;
    for (int i = 0; i < n_inputs; i++) {
        const terse_onnx_lane lane = terse_onnx_lane_of(lanes, node, i);
        if (lane.kind < TERSE_ONNX_ROWS)
            continue;
        const int meets = lane.axis + rank - terse_onnx_lanes_rank(lanes, node->inputs[i]);
        if (axis >= 0 && axis != meets)
            return -1;
        axis = meets;
    }
    for (int i = 0; i < n_inputs && axis >= 0; i++) {
        const terse_onnx_lane lane = terse_onnx_lane_of(lanes, node, i);
        if (!has_input(node, i) || lane.kind >= TERSE_ONNX_ROWS)
            continue;
        const terse_tensor *view = terse_onnx_lanes_view(lanes, 0, node->inputs[i]);
        const int own = axis - (rank - view->rank);
        if (lane.kind == TERSE_ONNX_COUNT || (own >= 0 && view->dims[own] != 1))
            return -1;
    }
    return axis;
}

bool terse_onnx_common_split(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_split *ret_split)
{
    bool any = false;
    for (int i = 0; i < node->n_inputs; i++) {
        const terse_onnx_lane in = terse_onnx_lane_of(lanes, node, i);
        if (in.kind < TERSE_ONNX_ROWS)
            continue;
        if (any && !terse_onnx_same_split(ret_split, &in.split))
            return false;
        *ret_split = in.split;
        any = true;
    }
    return any;
}

/* Entries belong to rows behind the operator as in all of its inputs that have rows. */
static bool all_outputs(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes, int axis)
{
    terse_onnx_lane lane = {.kind = TERSE_ONNX_ROWS, .axis = axis};
    const bool good = axis >= 0 && terse_onnx_common_split(lanes, node, &lane.split);
    for (int i = 0; i < node->n_outputs; i++)
        ret_lanes[i] = lane;
    return good;
}

/* Input 0 has rows at axis `allowed` (-1: any), everything else is free. Returns the axis or -1. */
static int only_first(const terse_onnx_lanes *lanes, const terse_node *node, int allowed)
{
    const int at = rows_of(lanes, node, 0);
    return at >= 0 && (allowed < 0 || at == allowed) && are_free(lanes, node, 1) ? at : -1;
}

static int gemm_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const bool transposed = terse_node_int(node, "transA", 0) != 0;
    if (rows_of(lanes, node, 0) != (transposed ? 1 : 0) || !is_free(lanes, node, 1))
        return -1;
    if (!has_input(node, 2))
        return 0;
    const terse_tensor *bias = terse_onnx_lanes_view(lanes, 0, node->inputs[2]);
    const int at = rows_of(lanes, node, 2);
    if (at >= 0)
        return bias->rank == 2 && at == 0 ? 0 : -1;
    return is_free(lanes, node, 2) && (bias->rank < 2 || bias->dims[0] == 1) ? 0 : -1;
}

/* Rows may be rows of the first matrix, or an axis of the stack of matrices; never what is summed over, nor columns
 * (they share registers with their neighbours, which is nobody's promise). */
static int matmul_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    if (node->n_inputs != 2)
        return -1;
    const int rank_a = terse_onnx_lanes_rank(lanes, node->inputs[0]),
              rank_b = terse_onnx_lanes_rank(lanes, node->inputs[1]);
    const int at_a = rows_of(lanes, node, 0), at_b = rows_of(lanes, node, 1);
    const int rank = rank_a > rank_b ? rank_a : rank_b;
    if (rank_a < 2 || rank_b < 2 || (at_a >= 0 && at_a > rank_a - 2) || (at_b >= 0 && at_b > rank_b - 3))
        return -1;
    if (at_a == rank_a - 2)
        return at_b < 0 && is_free(lanes, node, 1) ? rank - 2 : -1;
    return terse_onnx_meet(lanes, node, 2, rank);
}

/* Products of bytes: the right operand (input `b`) and all scales and zero points are free, those of the left operand
 * one number. */
static int integer_matmul_rule(const terse_onnx_lanes *lanes, const terse_node *node, int b, int first, int last)
{
    const int at = only_first(lanes, node, -1), rank_a = terse_onnx_lanes_rank(lanes, node->inputs[0]);
    if (at < 0 || at > rank_a - 2)
        return -1;
    for (int i = first; i <= last; i++)
        if (has_input(node, i) && terse_tensor_count(terse_onnx_lanes_view(lanes, 0, node->inputs[i])) != 1)
            return -1;
    const terse_tensor *right = terse_onnx_lanes_view(lanes, 0, node->inputs[b]);
    const int rank = rank_a > right->rank ? rank_a : right->rank, axis = at + rank - rank_a;
    const int own = axis - (rank - right->rank);
    if (right->rank < 2 || (at < rank_a - 2 && own >= 0 && right->dims[own] != 1))
        return -1;
    return axis;
}

/* "ij,jk->ik": the letter of the rows must be one letter, be in the result, and be in no free operand. */
static int einsum_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const char *at = terse_node_text(node, "equation", "");
    char terms[TERSE_MAX_NAME + 1], *term = terms, letter = 0;
    size_t length = 0;
    for (; *at && length < TERSE_MAX_NAME; at++)
        if (*at != ' ')
            terms[length++] = *at;
    terms[length] = 0;
    char *result = strstr(terms, "->");
    if (*at || !result || strchr(terms, '.'))
        return -1;
    *result = 0;
    result += 2;
    for (int i = 0; i < node->n_inputs; i++) {
        const size_t n = strcspn(term, ",");
        const int rows = rows_of(lanes, node, i);
        if (rows >= 0 && ((size_t)rows >= n || (letter && letter != term[rows])))
            return -1;
        if (rows >= 0)
            letter = term[rows];
        term += n + (term[n] == ',');
    }
    term = terms;
    for (int i = 0; i < node->n_inputs; i++) {
        const size_t n = strcspn(term, ",");
        const char *first = memchr(term, letter, n);
        const int rows = rows_of(lanes, node, i);
        if (rows < 0 && (first || !is_free(lanes, node, i)))
            return -1;
        if (rows >= 0 && memchr(first + 1, letter, n - (size_t)(first + 1 - term)))
            return -1; /* a diagonal */
        term += n + (term[n] == ',');
    }
    const char *found = letter ? strchr(result, letter) : NULL;
    return found ? (int)(found - result) : -1;
}

static int concat_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int rank = output_rank(lanes, node), at = rows_of(lanes, node, 0);
    for (int i = 0; i < node->n_inputs; i++)
        if (rows_of(lanes, node, i) != at)
            return -1;
    return axis_attribute(node, "axis", 0, rank) != at ? at : -1;
}

/* A whole axis, front to back: start 0, step 1, end beyond everything. Other axes may be cut by what is free. */
static int slice_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = only_first(lanes, node, -1);
    if (at < 0)
        return -1;
    const int rank = terse_onnx_lanes_rank(lanes, node->inputs[0]);
    int64_t starts[TERSE_MAX_RANK], ends[TERSE_MAX_RANK], axes[TERSE_MAX_RANK], steps[TERSE_MAX_RANK];
    int n;
    if (has_input(node, 3)) {
        n = terse_onnx_constant_ints(lanes->graph, node->inputs[3], axes, TERSE_MAX_RANK);
    } else {
        const terse_tensor *list = has_input(node, 1) ? terse_onnx_lanes_view(lanes, 0, node->inputs[1]) : NULL;
        n = list && list->rank == 1 && list->dims[0] <= rank ? (int)list->dims[0] : -1;
        for (int i = 0; i < n; i++)
            axes[i] = i;
    }
    if (n < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        if ((axes[i] < 0 ? axes[i] + rank : axes[i]) != at)
            continue;
        if (terse_onnx_constant_ints(lanes->graph, node->inputs[1], starts, TERSE_MAX_RANK) != n || starts[i] != 0 ||
            terse_onnx_constant_ints(lanes->graph, node->inputs[2], ends, TERSE_MAX_RANK) != n || ends[i] < INT32_MAX)
            return -1;
        if (has_input(node, 4) &&
            (terse_onnx_constant_ints(lanes->graph, node->inputs[4], steps, TERSE_MAX_RANK) != n || steps[i] != 1))
            return -1;
    }
    return at;
}

static int pad_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = only_first(lanes, node, -1);
    if (at < 0 || !has_input(node, 1))
        return -1;
    const int rank = terse_onnx_lanes_rank(lanes, node->inputs[0]);
    int64_t axes[TERSE_MAX_RANK], pads[2 * TERSE_MAX_RANK];
    int n = rank;
    for (int i = 0; i < rank; i++)
        axes[i] = i;
    if (has_input(node, 3))
        n = terse_onnx_constant_ints(lanes->graph, node->inputs[3], axes, TERSE_MAX_RANK);
    if (n < 0 || terse_onnx_constant_ints(lanes->graph, node->inputs[1], pads, 2 * TERSE_MAX_RANK) != 2 * n)
        return -1;
    for (int i = 0; i < n; i++)
        if ((axes[i] < 0 ? axes[i] + rank : axes[i]) == at && (pads[i] != 0 || pads[n + i] != 0))
            return -1;
    return at;
}

static int64_t elements_before(const terse_tensor *view, int axis)
{
    return terse_dims_count(view->dims, axis);
}

/* Whether `found` is the same under all bindings, or of all of them `given` times whole dimensions of `value`: those
 * from `begin` to some end behind it, or those from some begin to `end`. Anything else may be a division that leaves no
 * rest only where the probe looked. */
static bool is_product(const terse_onnx_lanes *lanes, const int64_t *found, const int64_t *given, int value, int begin,
                       int end, bool grows_back)
{
    const int n = lanes->probe->n_bindings;
    int64_t product[TERSE_ONNX_BINDINGS];
    memcpy(product, given, sizeof product);
    if (terse_onnx_is_fixed(found, n))
        return true;
    for (int k = 0; k <= end - begin; k++) {
        if (memcmp(product, found, (size_t)n * sizeof *found) == 0)
            return true;
        for (int b = 0; b < n && k < end - begin; b++)
            product[b] *= terse_onnx_lanes_view(lanes, b, value)->dims[grows_back ? end - 1 - k : begin + k];
    }
    return false;
}

/* Elements keep their order, so the rows have the output axis in which they find as many elements in front of them as
 * before, under every binding; what of these the axis does not leave to those before it is `outer`. The list of
 * dimensions may name N. */
bool terse_onnx_reshaped_lane(const terse_onnx_lanes *lanes, const terse_node *node, const terse_onnx_lane *lane,
                              terse_onnx_lane *ret_lane)
{
    if (terse_onnx_lane_of(lanes, node, 1).kind > TERSE_ONNX_COUNT)
        return false;
    const int rank = output_rank(lanes, node), rank_in = terse_onnx_lanes_rank(lanes, node->inputs[0]);
    *ret_lane = *lane;
    ret_lane->dimensions = false;
    for (int axis = 0; axis < rank; axis++) {
        terse_onnx_split *split = &ret_lane->split;
        bool fits = true;
        for (int b = 0; b < lanes->probe->n_bindings && fits; b++) {
            const terse_tensor *in = terse_onnx_lanes_view(lanes, b, node->inputs[0]);
            const terse_tensor *out = terse_onnx_lanes_view(lanes, b, node->outputs[0]);
            const int64_t front = elements_before(in, lane->axis) * lane->split.outer[b];
            const int64_t before = elements_before(out, axis);
            fits = terse_tensor_count(in) > 0 && before > 0 && front % before == 0;
            split->outer[b] = fits ? front / before : 0;
        }
        ret_lane->axis = axis;
        if (fits && terse_onnx_find_each(lanes, node->outputs[0], axis, split))
            return is_product(lanes, split->outer, lane->split.outer, node->inputs[0], 0, lane->axis, true) &&
                   is_product(lanes, split->each, lane->split.each, node->inputs[0], lane->axis + 1, rank_in, false);
    }
    return false;
}

static bool reshape_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes)
{
    const terse_onnx_lane lane = terse_onnx_lane_of(lanes, node, 0);
    ret_lanes[0] = (terse_onnx_lane){.kind = TERSE_ONNX_FREE};
    return lane.kind == TERSE_ONNX_ROWS && terse_onnx_reshaped_lane(lanes, node, &lane, &ret_lanes[0]);
}

static int transpose_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = rows_of(lanes, node, 0), rank = output_rank(lanes, node);
    const terse_attr *perm = terse_node_attr(node, "perm");
    if (!perm)
        return rank - 1 - at;
    for (int i = 0; i < perm->n; i++)
        if (perm->ints[i] == at)
            return i;
    return -1;
}

static int gather_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    if (node->n_inputs != 2)
        return -1;
    const int rank = terse_onnx_lanes_rank(lanes, node->inputs[0]),
              rank_indices = terse_onnx_lanes_rank(lanes, node->inputs[1]);
    const int axis = axis_attribute(node, "axis", 0, rank);
    const int data = rows_of(lanes, node, 0), indices = rows_of(lanes, node, 1);
    if (data >= 0)
        return !is_free(lanes, node, 1) || data == axis ? -1 : data < axis ? data : data - 1 + rank_indices;
    return is_free(lanes, node, 0) && indices >= 0 ? axis + indices : -1;
}

static int gather_elements_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = rows_of(lanes, node, 0);
    if (at < 0 || rows_of(lanes, node, 1) != at)
        return -1;
    return axis_attribute(node, "axis", 0, terse_onnx_lanes_rank(lanes, node->inputs[0])) != at ? at : -1;
}

static int gather_nd_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int data = rows_of(lanes, node, 0), indices = rows_of(lanes, node, 1);
    const int64_t shared = terse_node_int(node, "batch_dims", 0);
    if (data >= 0)
        return data == indices && data < shared ? data : -1;
    const bool is_batch_axis =
        indices >= 0 && indices >= shared && indices < terse_onnx_lanes_rank(lanes, node->inputs[1]) - 1;
    return is_free(lanes, node, 0) && is_batch_axis ? indices : -1;
}

static int reduce_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = only_first(lanes, node, -1);
    if (at < 0)
        return -1;
    const int rank = terse_onnx_lanes_rank(lanes, node->inputs[0]);
    int64_t axes[TERSE_MAX_RANK];
    const int n =
        has_input(node, 1) ? terse_onnx_constant_ints(lanes->graph, node->inputs[1], axes, TERSE_MAX_RANK) : 0;
    if (n < 0 || (n == 0 && terse_node_int(node, "noop_with_empty_axes", 0) == 0))
        return -1;
    int in_front = 0;
    for (int i = 0; i < n; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + rank : axes[i];
        if (axis == at)
            return -1;
        in_front += axis < at;
    }
    return terse_node_int(node, "keepdims", 1) ? at : at - in_front;
}

/* Along one axis, which must not be that of the rows; ArgMax may drop it. */
static int along_axis_rule(const terse_onnx_lanes *lanes, const terse_node *node, int64_t fallback)
{
    const int at = only_first(lanes, node, -1);
    if (at < 0)
        return -1;
    const int axis = axis_attribute(node, "axis", fallback, terse_onnx_lanes_rank(lanes, node->inputs[0]));
    if (terse_node_int(node, "coerce_2d", 0))
        return at < axis ? at : -1;
    if (node->op == TERSE_OP_LAYER_NORMALIZATION) /* that axis and all behind it */
        return at < axis ? at : -1;
    if (axis == at)
        return -1;
    return node->op == TERSE_OP_ARG_MAX && !terse_node_int(node, "keepdims", 1) && axis < at ? at - 1 : at;
}

static int cum_sum_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = only_first(lanes, node, -1), rank = at < 0 ? 0 : terse_onnx_lanes_rank(lanes, node->inputs[0]);
    int64_t axis;
    if (at < 0 || !has_input(node, 1) || terse_onnx_constant_ints(lanes->graph, node->inputs[1], &axis, 1) != 1)
        return -1;
    return (axis < 0 ? axis + rank : axis) != at ? at : -1;
}

/* The axis of the rows must stay as it is: scale 1 exactly, or sizes (whose result is compared with N afterwards). */
static int resize_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = rows_of(lanes, node, 0);
    const char *mode = terse_node_text(node, "coordinate_transformation_mode", "half_pixel");
    const terse_attr *axes = terse_node_attr(node, "axes");
    if (at < 0 || !is_free(lanes, node, 1) || !is_free(lanes, node, 2) || rows_of(lanes, node, 3) >= 0 ||
        strcmp(mode, "tf_crop_and_resize") == 0 ||
        strcmp(terse_node_text(node, "keep_aspect_ratio_policy", "stretch"), "stretch") != 0)
        return -1;
    int position = axes ? -1 : at;
    const int rank = terse_onnx_lanes_rank(lanes, node->inputs[0]);
    for (int i = 0; axes && i < axes->n; i++)
        if ((axes->ints[i] < 0 ? axes->ints[i] + rank : axes->ints[i]) == at)
            position = i;
    if (position < 0 || !has_input(node, 2))
        return at;
    const terse_value *scales = &lanes->graph->values[node->inputs[2]];
    if (!scales->data || scales->dtype != TERSE_FP32 || scales->rank != 1 || scales->dims[0] <= position)
        return -1;
    return ((const float *)scales->data)[position] == 1.0f ? at : -1;
}

/* Inputs X, W, R, B, sequence_lens, initial_h, initial_c, P; outputs Y, Y_h, Y_c. */
static bool recurrent_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes)
{
    const bool batch_first = terse_node_int(node, "layout", 0) == 1;
    const int at = batch_first ? 0 : 1;
    if (rows_of(lanes, node, 0) != at)
        return false;
    for (int i = 1; i < node->n_inputs; i++) {
        const int rows = rows_of(lanes, node, i);
        const int expected = i == 4 ? 0 : i == 5 || i == 6 ? at : -1;
        if (has_input(node, i) && (rows != expected || terse_onnx_lane_of(lanes, node, i).kind == TERSE_ONNX_COUNT))
            return false;
    }
    const bool good = all_outputs(lanes, node, ret_lanes, batch_first ? 0 : 1);
    if (!batch_first)
        ret_lanes[0].axis = 2;
    return good;
}

static int trilu_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = only_first(lanes, node, -1);
    return at >= 0 && at < terse_onnx_lanes_rank(lanes, node->inputs[0]) - 2 ? at : -1;
}

/* Scale and zero point of the whole tensor go with any axis of the rows, those of an axis or of blocks with another
 * one.
 */
static int quantize_rule(const terse_onnx_lanes *lanes, const terse_node *node)
{
    const int at = only_first(lanes, node, -1);
    if (at < 0 || !has_input(node, 1))
        return -1;
    const terse_tensor *scale = terse_onnx_lanes_view(lanes, 0, node->inputs[1]);
    if (terse_node_int(node, "block_size", 0))
        return -1;
    if (scale->rank <= 1 && terse_tensor_count(scale) == 1)
        return at;
    return axis_attribute(node, "axis", 1, terse_onnx_lanes_rank(lanes, node->inputs[0])) != at ? at : -1;
}

/* Operators with a rule of their own; -2 for the others. */
static int special_axis(const terse_onnx_lanes *lanes, const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_GEMM:
        return gemm_rule(lanes, node);
    case TERSE_OP_MATMUL:
        return matmul_rule(lanes, node);
    case TERSE_OP_MATMUL_INTEGER:
        return integer_matmul_rule(lanes, node, 1, 2, 2);
    case TERSE_OP_QLINEAR_MATMUL:
        return integer_matmul_rule(lanes, node, 3, 1, 2);
    case TERSE_OP_EINSUM:
        return einsum_rule(lanes, node);
    case TERSE_OP_CONCAT:
        return concat_rule(lanes, node);
    case TERSE_OP_SLICE:
        return slice_rule(lanes, node);
    case TERSE_OP_PAD:
        return pad_rule(lanes, node);
    case TERSE_OP_TRANSPOSE:
        return transpose_rule(lanes, node);
    case TERSE_OP_GATHER:
        return gather_rule(lanes, node);
    case TERSE_OP_GATHER_ELEMENTS:
        return gather_elements_rule(lanes, node);
    case TERSE_OP_GATHER_ND:
        return gather_nd_rule(lanes, node);
    case TERSE_OP_TRILU:
        return trilu_rule(lanes, node);
    case TERSE_OP_REDUCE_MEAN:
    case TERSE_OP_REDUCE_SUM:
    case TERSE_OP_REDUCE_MAX:
    case TERSE_OP_REDUCE_PROD:
        return reduce_rule(lanes, node);
    case TERSE_OP_SPLIT:
    case TERSE_OP_ARG_MAX:
        return along_axis_rule(lanes, node, 0);
    case TERSE_OP_SOFTMAX:
    case TERSE_OP_LOG_SOFTMAX:
    case TERSE_OP_TOP_K:
    case TERSE_OP_LAYER_NORMALIZATION:
        return along_axis_rule(lanes, node, -1);
    case TERSE_OP_QUANTIZE_LINEAR:
    case TERSE_OP_DEQUANTIZE_LINEAR:
        return quantize_rule(lanes, node);
    case TERSE_OP_CUM_SUM:
        return cum_sum_rule(lanes, node);
    case TERSE_OP_RESIZE:
        return resize_rule(lanes, node);
    case TERSE_OP_TILE:
        return only_first(lanes, node, -1);
    case TERSE_OP_EXPAND:
        return terse_onnx_lane_of(lanes, node, 1).kind == TERSE_ONNX_ROWS
                   ? -1
                   : terse_onnx_meet(lanes, node, 1, output_rank(lanes, node));
    default:
        return -2;
    }
}

/* Operators of images, whose rows are axis 0 by definition. */
static bool is_per_image(terse_op op)
{
    switch (op) {
    case TERSE_OP_CONV:
    case TERSE_OP_CONV_INTEGER:
    case TERSE_OP_QLINEAR_CONV:
    case TERSE_OP_CONV_TRANSPOSE:
    case TERSE_OP_MAX_POOL:
    case TERSE_OP_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_MAX_POOL:
    case TERSE_OP_BATCH_NORMALIZATION:
    case TERSE_OP_LRN:
    case TERSE_OP_INSTANCE_NORMALIZATION:
    case TERSE_OP_GROUP_NORMALIZATION:
    case TERSE_OP_DEPTH_TO_SPACE:
        return true;
    default:
        return false;
    }
}

/* One element of the output from one element of each input. */
bool terse_onnx_is_elementwise(terse_op op)
{
    switch (op) {
    case TERSE_OP_NOT:
    case TERSE_OP_CAST:
    case TERSE_OP_EQUAL:
    case TERSE_OP_LESS:
    case TERSE_OP_LESS_OR_EQUAL:
    case TERSE_OP_GREATER:
    case TERSE_OP_GREATER_OR_EQUAL:
    case TERSE_OP_AND:
    case TERSE_OP_OR:
    case TERSE_OP_WHERE:
    case TERSE_OP_IDENTITY:
        return true;
    default:
        return terse_op_is_arithmetic(op);
    }
}

bool terse_onnx_rows_rule(const terse_onnx_lanes *lanes, const terse_node *node, terse_onnx_lane *ret_lanes)
{
    if (node->op == TERSE_OP_RNN || node->op == TERSE_OP_GRU || node->op == TERSE_OP_LSTM)
        return recurrent_rule(lanes, node, ret_lanes);
    if (node->op == TERSE_OP_RESHAPE || node->op == TERSE_OP_FLATTEN || node->op == TERSE_OP_SQUEEZE ||
        node->op == TERSE_OP_UNSQUEEZE)
        return reshape_rule(lanes, node, ret_lanes);
    int axis = special_axis(lanes, node);
    if (axis == -2 && terse_onnx_is_elementwise(node->op))
        axis = terse_onnx_meet(lanes, node, node->n_inputs, output_rank(lanes, node));
    else if (axis == -2 && is_per_image(node->op))
        axis = only_first(lanes, node, 0);
    if (node->op == TERSE_OP_MAX_POOL && node->n_outputs > 1 && node->outputs[1] >= 0)
        return false; /* indices count through the whole batch */
    return axis >= 0 && all_outputs(lanes, node, ret_lanes, axis);
}
