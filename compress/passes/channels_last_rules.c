/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/channels_last.h"

#include <string.h>

const terse_value *terse_region_value(const terse_region *region, int value)
{
    return &region->edit.graph->values[value];
}

int terse_region_rank(const terse_region *region, int value)
{
    return value < 0 ? -1 : terse_region_value(region, value)->rank;
}

int terse_region_output(const terse_region *region, int node)
{
    const terse_node *n = &region->edit.graph->nodes[node];
    return n->n_outputs > 0 ? n->outputs[0] : TERSE_NO_VALUE;
}

/* Input 0 exists as a twin that costs nothing. */
bool terse_region_has_twin(const terse_region *region, int node)
{
    const int x = terse_edit_input(&region->edit, node, 0);
    return x >= 0 && region->native[x] && terse_region_rank(region, x) >= 3;
}

static void mark(terse_region *region, int node)
{
    if (!terse_node_set_int(region->edit.graph, &region->edit.graph->nodes[node], "channels_last", 1))
        region->edit.failed = true;
}

/* Inputs first..last are read in their plain form, as far as there are so many. */
void terse_region_read_plain(terse_region *region, int node, int first, int last)
{
    for (int i = first; i <= last && i < region->edit.graph->nodes[node].n_inputs; i++) {
        const int value = terse_edit_input(&region->edit, node, i), plain = terse_region_plain(region, value);
        if (plain != value)
            terse_edit_set_input(&region->edit, node, i, plain);
    }
}

/* Input 0 and output 0 become twins, the other inputs are plain. */
bool terse_region_follow(terse_region *region, int node)
{
    terse_region_read_plain(region, node, 1, TERSE_MAX_NODE_IO);
    terse_edit_set_input(&region->edit, node, 0, terse_region_twin(region, terse_edit_input(&region->edit, node, 0)));
    terse_region_make_twin(region, node, 0);
    return true;
}

void terse_region_set_ints(terse_region *region, int node, int slot, const int64_t *values, int n)
{
    terse_edit_set_input(&region->edit, node, slot, terse_edit_add_ints(&region->edit, "axes", values, n));
}

static bool visit_conv(terse_region *region, int node)
{
    const terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), weights = terse_edit_input(edit, node, 1);
    const int residual = terse_edit_input(edit, node, 3), y = terse_region_output(region, node);
    const int dequantize = terse_edit_bytes(edit, weights);
    if ((!terse_edit_floats(edit, weights) && dequantize < 0) || terse_region_rank(region, weights) < 3 ||
        terse_region_rank(region, weights) > 5 || terse_region_rank(region, x) != terse_region_rank(region, weights) ||
        terse_region_rank(region, y) != terse_region_rank(region, x) ||
        (residual >= 0 && terse_region_rank(region, residual) != terse_region_rank(region, x)))
        return false;
    const int64_t group = terse_node_int(&edit->graph->nodes[node], "group", 1);
    const terse_value *w = terse_region_value(region, dequantize < 0 ? weights : terse_edit_input(edit, dequantize, 0));
    if (w->rank != terse_region_rank(region, x) ||
        terse_layout_bytes(TERSE_LAYOUT_F32_N16, TERSE_FP32, w->rank, w->dims, group) < 0)
        return false;
    terse_region_read_plain(region, node, 1, 2);
    if (residual >= 0)
        terse_edit_set_input(&region->edit, node, 3, terse_region_twin(region, residual));
    terse_edit_set_input(&region->edit, node, 0, terse_region_twin(region, x));
    terse_region_make_twin(region, node, 0);
    mark(region, node);
    return true;
}

/* MaxPool takes bytes too. */
static bool pools(terse_op op, terse_dtype dtype)
{
    return dtype == TERSE_FP32 || (op == TERSE_OP_MAX_POOL && (dtype == TERSE_UINT8 || dtype == TERSE_INT8));
}

static bool visit_pool(terse_region *region, int node)
{
    const terse_node *n = &region->edit.graph->nodes[node];
    const int x = terse_edit_input(&region->edit, node, 0), y = terse_region_output(region, node);
    const bool global = n->op == TERSE_OP_GLOBAL_AVERAGE_POOL || n->op == TERSE_OP_GLOBAL_MAX_POOL;
    if (terse_region_rank(region, x) < 3 || terse_region_rank(region, x) > 5 ||
        terse_region_rank(region, y) != terse_region_rank(region, x) ||
        !pools(n->op, terse_region_value(region, x)->dtype) || (global && !terse_region_has_twin(region, node)) ||
        (n->n_outputs > 1 && n->outputs[1] >= 0))
        return false;
    terse_region_follow(region, node);
    mark(region, node);
    return true;
}

static bool visit_unary(terse_region *region, int node)
{
    const int y = terse_region_output(region, node);
    return terse_region_has_twin(region, node) &&
           terse_region_rank(region, y) == terse_region_rank(region, terse_edit_input(&region->edit, node, 0)) &&
           terse_region_follow(region, node);
}

static void set_axis(terse_region *region, int node, int axis)
{
    if (!terse_node_set_int(region->edit.graph, &region->edit.graph->nodes[node], "axis", axis))
        region->edit.failed = true;
}

/* QuantizeLinear and DequantizeLinear are elementwise; a scale per entry of an axis moves with the axis. */
static bool visit_quantize(terse_region *region, int node)
{
    const int x = terse_edit_input(&region->edit, node, 0), scale = terse_edit_input(&region->edit, node, 1);
    const terse_node *n = &region->edit.graph->nodes[node];
    const int rank = terse_region_rank(region, x), scale_rank = terse_region_rank(region, scale);
    if (!terse_region_has_twin(region, node) || scale_rank < 0 || scale_rank > 1 ||
        terse_node_int(n, "block_size", 0) != 0 || terse_region_rank(region, terse_region_output(region, node)) != rank)
        return false;
    if (scale_rank == 1 && terse_region_value(region, scale)->dims[0] != 1) {
        const int axis = terse_edit_axis(&region->edit, node, "axis", 1, rank);
        if (axis < 0)
            return false;
        set_axis(region, node, terse_region_axis(axis, rank));
    }
    return visit_unary(region, node);
}

static bool all_ones(const terse_value *value)
{
    for (int i = 0; i < value->rank; i++)
        if (value->dims[i] != 1)
            return false;
    return value->rank >= 0;
}

/* Can an operand of a broadcasting operator of `rank` be read beside twins? Counts those that are twins already and
 * those that would have to be moved. */
static bool can_join(const terse_region *region, int value, int rank, int *n_twins, int *n_moves)
{
    if (value < 0)
        return false;
    const terse_value *v = terse_region_value(region, value);
    if (v->data || (v->rank < rank && all_ones(v)))
        return v->rank >= 0 && v->rank <= rank && v->layout == TERSE_LAYOUT_PLAIN;
    if (v->rank != rank)
        return false;
    *(region->native[value] ? n_twins : n_moves) += 1;
    return true;
}

static int joined(terse_region *region, int value, int rank)
{
    const terse_value v = *terse_region_value(region, value);
    if (v.rank == rank)
        return terse_region_twin(region, value);
    if (all_ones(&v))
        return terse_region_plain(region, value);
    /* a constant of lower rank: ones in front, then the axes as in a twin. Only axis 1 moves. */
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < rank; i++)
        dims[i] = i < rank - v.rank ? 1 : v.dims[i - (rank - v.rank)];
    const int wide = terse_edit_add_constant(&region->edit, v.name, v.dtype, rank, dims, v.data);
    if (wide < 0)
        return -1;
    return terse_region_constant_twin(region, wide);
}

static bool visit_broadcast(terse_region *region, int node)
{
    const int y = terse_region_output(region, node), rank = terse_region_rank(region, y);
    const int n_inputs = region->edit.graph->nodes[node].n_inputs;
    int n_twins = 0, n_moves = 0;
    if (rank < 3)
        return false;
    for (int i = 0; i < n_inputs; i++)
        if (!can_join(region, terse_edit_input(&region->edit, node, i), rank, &n_twins, &n_moves))
            return false;
    if (n_twins == 0 || n_twins < n_moves)
        return false;
    for (int i = 0; i < n_inputs; i++)
        terse_edit_set_input(&region->edit, node, i, joined(region, terse_edit_input(&region->edit, node, i), rank));
    terse_region_make_twin(region, node, 0);
    return true;
}

static bool visit_concat(terse_region *region, int node)
{
    const int y = terse_region_output(region, node), rank = terse_region_rank(region, y);
    const int n_inputs = region->edit.graph->nodes[node].n_inputs;
    const int axis = rank < 3 ? -1 : terse_edit_axis(&region->edit, node, "axis", 0, rank);
    int n_twins = 0, n_moves = 0;
    if (axis < 0)
        return false;
    for (int i = 0; i < n_inputs; i++) {
        const int x = terse_edit_input(&region->edit, node, i);
        if (terse_region_rank(region, x) != rank || !can_join(region, x, rank, &n_twins, &n_moves))
            return false;
    }
    if (n_twins == 0 || n_twins < n_moves)
        return false;
    for (int i = 0; i < n_inputs; i++)
        terse_edit_set_input(&region->edit, node, i,
                             terse_region_twin(region, terse_edit_input(&region->edit, node, i)));
    set_axis(region, node, terse_region_axis(axis, rank));
    terse_region_make_twin(region, node, 0);
    return true;
}

static bool visit_split(terse_region *region, int node)
{
    const int rank = terse_region_rank(region, terse_edit_input(&region->edit, node, 0));
    const int axis = terse_region_has_twin(region, node) ? terse_edit_axis(&region->edit, node, "axis", 0, rank) : -1;
    const int n_outputs = region->edit.graph->nodes[node].n_outputs;
    for (int i = 0; i < n_outputs; i++) {
        const int y = region->edit.graph->nodes[node].outputs[i];
        if (axis < 0 || (y >= 0 && terse_region_rank(region, y) != rank))
            return false;
    }
    set_axis(region, node, terse_region_axis(axis, rank));
    terse_region_follow(region, node);
    for (int i = 1; i < n_outputs; i++)
        terse_region_make_twin(region, node, i);
    return true;
}

static bool visit_softmax(terse_region *region, int node)
{
    const int rank = terse_region_rank(region, terse_edit_input(&region->edit, node, 0));
    if (!terse_region_has_twin(region, node) || terse_region_rank(region, terse_region_output(region, node)) != rank ||
        terse_node_int(&region->edit.graph->nodes[node], "coerce_2d", 0) != 0)
        return false;
    const int axis = terse_edit_axis(&region->edit, node, "axis", -1, rank);
    if (axis < 0)
        return false;
    set_axis(region, node, terse_region_axis(axis, rank));
    return terse_region_follow(region, node);
}

/* The axes that a reduction removes or makes 1, bit by bit of the plain form; 0 when they are not constants. */
static unsigned reduced_axes(const terse_region *region, int node, int rank)
{
    const terse_node *n = &region->edit.graph->nodes[node];
    int64_t axes[TERSE_MAX_RANK];
    int count = 1;
    if (n->op == TERSE_OP_ARG_MAX)
        axes[0] = terse_node_int(n, "axis", 0);
    else
        count = terse_edit_ints(&region->edit, terse_edit_input(&region->edit, node, 1), axes, TERSE_MAX_RANK);
    unsigned mask = 0;
    for (int i = 0; i < count; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + rank : axes[i];
        if (axis < 0 || axis >= rank)
            return 0;
        mask |= 1u << axis;
    }
    return mask;
}

static bool visit_reduce(terse_region *region, int node)
{
    const int rank = terse_region_rank(region, terse_edit_input(&region->edit, node, 0)),
              y = terse_region_output(region, node);
    if (!terse_region_has_twin(region, node) || y < 0)
        return false;
    const unsigned mask = reduced_axes(region, node, rank);
    const bool keeps = terse_node_int(&region->edit.graph->nodes[node], "keepdims", 1) != 0;
    int64_t axes[TERSE_MAX_RANK];
    int n = 0, left = 0;
    bool in_order = true; /* what is left stands in the same order in both forms */
    for (int i = 0; i < rank; i++) {
        if (mask >> i & 1u)
            axes[n++] = terse_region_axis(i, rank);
        else if (++left && i > 1 && !(mask >> 1 & 1u))
            in_order = false;
    }
    const bool makes_twin = keeps || !in_order;
    if (n == 0 || terse_region_rank(region, y) != (keeps ? rank : left) || (makes_twin && !keeps && (mask & 1u)))
        return false;
    if (region->edit.graph->nodes[node].op == TERSE_OP_ARG_MAX)
        set_axis(region, node, (int)axes[0]);
    else
        terse_region_set_ints(region, node, 1, axes, n);
    terse_edit_set_input(&region->edit, node, 0, terse_region_twin(region, terse_edit_input(&region->edit, node, 0)));
    if (makes_twin)
        terse_region_make_twin(region, node, 0);
    return true;
}

typedef bool visitor(terse_region *region, int node);

/* clang-format off */
static visitor *const visitors[TERSE_OP_COUNT] = {
    [TERSE_OP_CONV] = visit_conv, [TERSE_OP_GEMM] = terse_region_visit_product, [TERSE_OP_MATMUL] = terse_region_visit_product,
    [TERSE_OP_MAX_POOL] = visit_pool, [TERSE_OP_AVERAGE_POOL] = visit_pool,
    [TERSE_OP_GLOBAL_AVERAGE_POOL] = visit_pool, [TERSE_OP_GLOBAL_MAX_POOL] = visit_pool,
    [TERSE_OP_RELU] = visit_unary, [TERSE_OP_LEAKY_RELU] = visit_unary, [TERSE_OP_CLIP] = visit_unary,
    [TERSE_OP_SIGMOID] = visit_unary, [TERSE_OP_HARD_SIGMOID] = visit_unary, [TERSE_OP_HARD_SWISH] = visit_unary,
    [TERSE_OP_TANH] = visit_unary, [TERSE_OP_ERF] = visit_unary, [TERSE_OP_GELU] = visit_unary,
    [TERSE_OP_EXP] = visit_unary, [TERSE_OP_LOG] = visit_unary, [TERSE_OP_SQRT] = visit_unary,
    [TERSE_OP_NEG] = visit_unary, [TERSE_OP_ABS] = visit_unary, [TERSE_OP_RECIPROCAL] = visit_unary,
    [TERSE_OP_SIN] = visit_unary, [TERSE_OP_COS] = visit_unary, [TERSE_OP_FLOOR] = visit_unary,
    [TERSE_OP_CEIL] = visit_unary, [TERSE_OP_ROUND] = visit_unary, [TERSE_OP_SIGN] = visit_unary, [TERSE_OP_ELU] = visit_unary,
    [TERSE_OP_SELU] = visit_unary, [TERSE_OP_SOFTPLUS] = visit_unary, [TERSE_OP_SOFTSIGN] = visit_unary,
    [TERSE_OP_NOT] = visit_unary, [TERSE_OP_CAST] = visit_unary, [TERSE_OP_IDENTITY] = visit_unary,
    [TERSE_OP_ADD] = visit_broadcast, [TERSE_OP_SUB] = visit_broadcast, [TERSE_OP_MUL] = visit_broadcast,
    [TERSE_OP_DIV] = visit_broadcast, [TERSE_OP_MOD] = visit_broadcast, [TERSE_OP_POW] = visit_broadcast, [TERSE_OP_MIN] = visit_broadcast,
    [TERSE_OP_MAX] = visit_broadcast, [TERSE_OP_PRELU] = visit_broadcast, [TERSE_OP_EQUAL] = visit_broadcast,
    [TERSE_OP_LESS] = visit_broadcast, [TERSE_OP_LESS_OR_EQUAL] = visit_broadcast,
    [TERSE_OP_GREATER] = visit_broadcast, [TERSE_OP_GREATER_OR_EQUAL] = visit_broadcast,
    [TERSE_OP_AND] = visit_broadcast, [TERSE_OP_OR] = visit_broadcast, [TERSE_OP_WHERE] = visit_broadcast,
    [TERSE_OP_QUANTIZE_LINEAR] = visit_quantize, [TERSE_OP_DYNAMIC_QUANTIZE_LINEAR] = visit_unary,
    [TERSE_OP_DEQUANTIZE_LINEAR] = visit_quantize,
    [TERSE_OP_CONCAT] = visit_concat, [TERSE_OP_SPLIT] = visit_split, [TERSE_OP_SLICE] = terse_region_visit_slice,
    [TERSE_OP_PAD] = terse_region_visit_pad, [TERSE_OP_RESIZE] = terse_region_visit_resize, [TERSE_OP_TRANSPOSE] = terse_region_visit_transpose,
    [TERSE_OP_SQUEEZE] = terse_region_visit_squeeze, [TERSE_OP_UNSQUEEZE] = terse_region_visit_squeeze, [TERSE_OP_SHAPE] = terse_region_visit_shape,
    [TERSE_OP_FLATTEN] = terse_region_visit_flatten, [TERSE_OP_RESHAPE] = terse_region_visit_reshape,
    [TERSE_OP_SOFTMAX] = visit_softmax, [TERSE_OP_LOG_SOFTMAX] = visit_softmax,
    [TERSE_OP_REDUCE_MEAN] = visit_reduce, [TERSE_OP_REDUCE_SUM] = visit_reduce,
    [TERSE_OP_REDUCE_MAX] = visit_reduce, [TERSE_OP_REDUCE_PROD] = visit_reduce, [TERSE_OP_ARG_MAX] = visit_reduce,
};
/* clang-format on */

void terse_region_visit(terse_region *region, int node)
{
    visitor *visit = visitors[region->edit.graph->nodes[node].op];
    if (!visit || !visit(region, node))
        terse_region_read_plain(region, node, 0, TERSE_MAX_NODE_IO);
}
