/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/channels_last.h"

#include <string.h>

static const terse_value *value_of(const terse_region *region, int value)
{
    return &region->edit.graph->values[value];
}

static int rank_of(const terse_region *region, int value)
{
    return value < 0 ? -1 : value_of(region, value)->rank;
}

static int output_of(const terse_region *region, int node)
{
    const terse_node *n = &region->edit.graph->nodes[node];
    return n->n_outputs > 0 ? n->outputs[0] : TERSE_NO_VALUE;
}

/* Input 0 exists as a twin that costs nothing. */
static bool has_twin(const terse_region *region, int node)
{
    const int x = terse_edit_input(&region->edit, node, 0);
    return x >= 0 && region->native[x] && rank_of(region, x) >= 3;
}

static void mark(terse_region *region, int node)
{
    if (!terse_node_set_int(region->edit.graph, &region->edit.graph->nodes[node], "channels_last", 1))
        region->edit.failed = true;
}

/* Inputs first..last are read in their plain form, as far as there are so many. */
static void read_plain(terse_region *region, int node, int first, int last)
{
    for (int i = first; i <= last && i < region->edit.graph->nodes[node].n_inputs; i++) {
        const int value = terse_edit_input(&region->edit, node, i), plain = terse_region_plain(region, value);
        if (plain != value)
            terse_edit_set_input(&region->edit, node, i, plain);
    }
}

/* Input 0 and output 0 become twins, the other inputs are plain. */
static bool follow(terse_region *region, int node)
{
    read_plain(region, node, 1, TERSE_MAX_NODE_IO);
    terse_edit_set_input(&region->edit, node, 0, terse_region_twin(region, terse_edit_input(&region->edit, node, 0)));
    terse_region_make_twin(region, node, 0);
    return true;
}

/* Axes of the plain form as axes of the twin; false when one is out of range. */
static bool map_axes(int64_t *axes, int n, int rank)
{
    for (int i = 0; i < n; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + rank : axes[i];
        if (axis < 0 || axis >= rank)
            return false;
        axes[i] = terse_region_axis((int)axis, rank);
    }
    return true;
}

static void set_ints(terse_region *region, int node, int slot, const int64_t *values, int n)
{
    terse_edit_set_input(&region->edit, node, slot, terse_edit_add_ints(&region->edit, "axes", values, n));
}

static bool visit_conv(terse_region *region, int node)
{
    const terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), weights = terse_edit_input(edit, node, 1);
    const int residual = terse_edit_input(edit, node, 3), y = output_of(region, node);
    if (!terse_edit_floats(edit, weights) || rank_of(region, weights) < 3 || rank_of(region, weights) > 5 ||
        rank_of(region, x) != rank_of(region, weights) || rank_of(region, y) != rank_of(region, x) ||
        (residual >= 0 && rank_of(region, residual) != rank_of(region, x)))
        return false;
    const int64_t group = terse_node_int(&edit->graph->nodes[node], "group", 1);
    const terse_value *w = value_of(region, weights);
    if (terse_layout_bytes(TERSE_LAYOUT_F32_N16, w->dtype, w->rank, w->dims, group) < 0)
        return false;
    read_plain(region, node, 1, 2);
    if (residual >= 0)
        terse_edit_set_input(&region->edit, node, 3, terse_region_twin(region, residual));
    terse_edit_set_input(&region->edit, node, 0, terse_region_twin(region, x));
    terse_region_make_twin(region, node, 0);
    mark(region, node);
    return true;
}

static bool visit_pool(terse_region *region, int node)
{
    const terse_node *n = &region->edit.graph->nodes[node];
    const int x = terse_edit_input(&region->edit, node, 0), y = output_of(region, node);
    const bool global = n->op == TERSE_OP_GLOBAL_AVERAGE_POOL || n->op == TERSE_OP_GLOBAL_MAX_POOL;
    if (rank_of(region, x) < 3 || rank_of(region, x) > 5 || rank_of(region, y) != rank_of(region, x) ||
        value_of(region, x)->dtype != TERSE_FP32 || (global && !has_twin(region, node)) ||
        (n->n_outputs > 1 && n->outputs[1] >= 0))
        return false;
    follow(region, node);
    mark(region, node);
    return true;
}

static bool visit_unary(terse_region *region, int node)
{
    const int y = output_of(region, node);
    return has_twin(region, node) && rank_of(region, y) == rank_of(region, terse_edit_input(&region->edit, node, 0)) &&
           follow(region, node);
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
    const terse_value *v = value_of(region, value);
    if (v->data || (v->rank < rank && all_ones(v)))
        return v->rank >= 0 && v->rank <= rank && v->layout == TERSE_LAYOUT_PLAIN;
    if (v->rank != rank)
        return false;
    *(region->native[value] ? n_twins : n_moves) += 1;
    return true;
}

static int joined(terse_region *region, int value, int rank)
{
    const terse_value v = *value_of(region, value);
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
    const int y = output_of(region, node), rank = rank_of(region, y);
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

static void set_axis(terse_region *region, int node, int axis)
{
    if (!terse_node_set_int(region->edit.graph, &region->edit.graph->nodes[node], "axis", axis))
        region->edit.failed = true;
}

static bool visit_concat(terse_region *region, int node)
{
    const int y = output_of(region, node), rank = rank_of(region, y);
    const int n_inputs = region->edit.graph->nodes[node].n_inputs;
    const int axis = rank < 3 ? -1 : terse_edit_axis(&region->edit, node, "axis", 0, rank);
    int n_twins = 0, n_moves = 0;
    if (axis < 0)
        return false;
    for (int i = 0; i < n_inputs; i++) {
        const int x = terse_edit_input(&region->edit, node, i);
        if (rank_of(region, x) != rank || !can_join(region, x, rank, &n_twins, &n_moves))
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
    const int rank = rank_of(region, terse_edit_input(&region->edit, node, 0));
    const int axis = has_twin(region, node) ? terse_edit_axis(&region->edit, node, "axis", 0, rank) : -1;
    const int n_outputs = region->edit.graph->nodes[node].n_outputs;
    for (int i = 0; i < n_outputs; i++) {
        const int y = region->edit.graph->nodes[node].outputs[i];
        if (axis < 0 || (y >= 0 && rank_of(region, y) != rank))
            return false;
    }
    set_axis(region, node, terse_region_axis(axis, rank));
    follow(region, node);
    for (int i = 1; i < n_outputs; i++)
        terse_region_make_twin(region, node, i);
    return true;
}

static bool visit_softmax(terse_region *region, int node)
{
    const int rank = rank_of(region, terse_edit_input(&region->edit, node, 0));
    if (!has_twin(region, node) || rank_of(region, output_of(region, node)) != rank ||
        terse_node_int(&region->edit.graph->nodes[node], "coerce_2d", 0) != 0)
        return false;
    const int axis = terse_edit_axis(&region->edit, node, "axis", -1, rank);
    if (axis < 0)
        return false;
    set_axis(region, node, terse_region_axis(axis, rank));
    return follow(region, node);
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
    const int rank = rank_of(region, terse_edit_input(&region->edit, node, 0)), y = output_of(region, node);
    if (!has_twin(region, node) || y < 0)
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
    if (n == 0 || rank_of(region, y) != (keeps ? rank : left) || (makes_twin && !keeps && (mask & 1u)))
        return false;
    if (region->edit.graph->nodes[node].op == TERSE_OP_ARG_MAX)
        set_axis(region, node, (int)axes[0]);
    else
        set_ints(region, node, 1, axes, n);
    terse_edit_set_input(&region->edit, node, 0, terse_region_twin(region, terse_edit_input(&region->edit, node, 0)));
    if (makes_twin)
        terse_region_make_twin(region, node, 0);
    return true;
}

static bool visit_pad(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int rank = rank_of(region, terse_edit_input(edit, node, 0)), axes_value = terse_edit_input(edit, node, 3);
    int64_t pads[2 * TERSE_MAX_RANK], moved[2 * TERSE_MAX_RANK], axes[TERSE_MAX_RANK];
    if (!has_twin(region, node) || rank_of(region, output_of(region, node)) != rank)
        return false;
    if (axes_value >= 0) {
        const int n = terse_edit_ints(edit, axes_value, axes, TERSE_MAX_RANK);
        if (n < 0 || !map_axes(axes, n, rank))
            return false;
        follow(region, node);
        set_ints(region, node, 3, axes, n);
        return true;
    }
    if (terse_edit_ints(edit, terse_edit_input(edit, node, 1), pads, 2 * TERSE_MAX_RANK) != 2 * rank)
        return false;
    for (int i = 0; i < rank; i++) {
        moved[terse_region_axis(i, rank)] = pads[i];
        moved[terse_region_axis(i, rank) + rank] = pads[i + rank];
    }
    follow(region, node);
    set_ints(region, node, 1, moved, 2 * rank);
    return true;
}

static bool visit_slice(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int rank = rank_of(region, terse_edit_input(edit, node, 0));
    const int starts = terse_edit_input(edit, node, 1), axes_value = terse_edit_input(edit, node, 3);
    int64_t axes[TERSE_MAX_RANK];
    if (!has_twin(region, node) || rank_of(region, output_of(region, node)) != rank || rank_of(region, starts) != 1)
        return false;
    const int64_t n_starts = value_of(region, starts)->dims[0];
    int n = n_starts > rank ? -1 : (int)n_starts;
    for (int i = 0; i < n; i++)
        axes[i] = i;
    if (axes_value >= 0)
        n = terse_edit_ints(edit, axes_value, axes, TERSE_MAX_RANK);
    if (n < 1 || n > rank || !map_axes(axes, n, rank))
        return false;
    follow(region, node);
    set_ints(region, node, 3, axes, n);
    return true;
}

/* A per-axis operand of a Resize in the twin's order: a constant is copied, anything else goes through a Gather. */
static void move_operand(terse_region *region, int node, int slot, int rank)
{
    terse_edit *edit = &region->edit;
    const int value = terse_edit_input(edit, node, slot);
    if (value < 0 || value_of(region, value)->rank != 1 || value_of(region, value)->dims[0] != rank)
        return;
    const terse_value old = *value_of(region, value);
    int64_t order[TERSE_MAX_RANK];
    for (int i = 0; i < rank; i++)
        order[terse_region_axis(i, rank)] = i;
    if (old.data) {
        const size_t size = terse_dtype_size(old.dtype);
        char *to = terse_edit_alloc(edit, old.bytes);
        for (int i = 0; to && i < rank; i++)
            memcpy(to + (size_t)i * size, (const char *)old.data + (size_t)order[i] * size, size);
        if (to)
            terse_edit_set_input(edit, node, slot, terse_edit_add_constant(edit, old.name, old.dtype, 1, old.dims, to));
        return;
    }
    const int index = terse_edit_add_ints(edit, "order", order, rank);
    const int moved = terse_edit_add_like(edit, value, "/nhwc");
    if (terse_edit_add_node(edit, TERSE_OP_GATHER, old.name, (int[]){value, index}, 2, &moved, 1) >= 0)
        terse_edit_set_input(edit, node, slot, moved);
}

static bool visit_resize(terse_region *region, int node)
{
    terse_graph *graph = region->edit.graph;
    const int rank = rank_of(region, terse_edit_input(&region->edit, node, 0));
    const char *mode = terse_node_text(&graph->nodes[node], "coordinate_transformation_mode", "half_pixel");
    const terse_attr *attr = terse_node_attr(&graph->nodes[node], "axes");
    int64_t axes[TERSE_MAX_RANK];
    if (!has_twin(region, node) || rank_of(region, output_of(region, node)) != rank ||
        strcmp(mode, "tf_crop_and_resize") == 0)
        return false;
    if (attr) {
        if (attr->kind != TERSE_ATTR_INTS || attr->n > rank)
            return false;
        for (int i = 0; i < attr->n; i++)
            axes[i] = attr->ints[i];
        if (!map_axes(axes, attr->n, rank))
            return false;
        if (!terse_node_set_ints(graph, &graph->nodes[node], "axes", axes, attr->n))
            region->edit.failed = true;
    }
    follow(region, node);
    for (int slot = 2; slot < 4 && !attr; slot++)
        move_operand(region, node, slot, rank);
    return true;
}

/* A Transpose reads the twin with another order of axes, and is nothing where that order is the twin's own; one that
 * makes [N,C,...] out of [N,...,C] has its input as its twin. */
static bool visit_transpose(terse_region *region, int node)
{
    terse_graph *graph = region->edit.graph;
    const int x = terse_edit_input(&region->edit, node, 0), y = output_of(region, node), rank = rank_of(region, x);
    const terse_attr *attr = terse_node_attr(&graph->nodes[node], "perm");
    int64_t perm[TERSE_MAX_RANK];
    if (rank < 3 || rank_of(region, y) != rank || (attr && (attr->kind != TERSE_ATTR_INTS || attr->n != rank)))
        return false;
    bool same = true, to_plain = true;
    for (int i = 0; i < rank; i++) {
        const int64_t axis = attr ? attr->ints[i] : rank - 1 - i;
        if (axis < 0 || axis >= rank)
            return false;
        to_plain = to_plain && axis == terse_region_axis(i, rank);
        perm[i] = terse_region_axis((int)axis, rank);
        same = same && perm[i] == i;
    }
    if (has_twin(region, node)) {
        const int twin = terse_region_twin(region, x);
        if (same) {
            terse_edit_remove(&region->edit, node);
            region->alias[y] = twin;
            return true;
        }
        terse_edit_set_input(&region->edit, node, 0, twin);
        if (!terse_node_set_ints(graph, &graph->nodes[node], "perm", perm, rank))
            region->edit.failed = true;
        return true;
    }
    if (to_plain) {
        region->twin[y] = terse_region_plain(region, x);
        region->native[y] = (region->convolution_ranks >> rank & 1u) != 0; /* else nobody wants twins of this rank */
    }
    return false;
}

/* Squeeze and Unsqueeze of spatial axes keep the order of what is left. */
static bool visit_squeeze(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const bool squeezes = edit->graph->nodes[node].op == TERSE_OP_SQUEEZE;
    const int x = terse_edit_input(edit, node, 0), y = output_of(region, node);
    const int wide = rank_of(region, squeezes ? x : y), narrow = rank_of(region, squeezes ? y : x);
    int64_t axes[TERSE_MAX_RANK];
    const int n = terse_edit_ints(edit, terse_edit_input(edit, node, 1), axes, TERSE_MAX_RANK);
    if (!has_twin(region, node) || n < 1 || narrow < 2 || wide != narrow + n)
        return false;
    for (int i = 0; i < n; i++)
        if ((axes[i] < 0 ? axes[i] + wide : axes[i]) < 2)
            return false;
    if (!map_axes(axes, n, wide))
        return false;
    terse_edit_set_input(edit, node, 0, terse_region_twin(region, x));
    set_ints(region, node, 1, axes, n);
    if (narrow >= 3)
        terse_region_make_twin(region, node, 0);
    return true;
}

/* The shape of a value that is there as a twin only, without making the plain form. */
static bool visit_shape(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), y = output_of(region, node), rank = rank_of(region, x);
    if (!has_twin(region, node) || y < 0)
        return false;
    int64_t start = terse_node_int(&edit->graph->nodes[node], "start", 0);
    int64_t end = terse_node_int(&edit->graph->nodes[node], "end", rank);
    start = start < 0 ? start + rank : start;
    end = end < 0 ? end + rank : end;
    start = start < 0 ? 0 : start;
    end = end > rank ? rank : end;
    if (start >= end)
        return false;
    int64_t order[TERSE_MAX_RANK];
    for (int i = 0; i < rank; i++)
        order[i] = terse_region_axis(i, rank);
    const int whole = terse_edit_add_value(edit, "shape", TERSE_INT64, 1, &(int64_t){rank});
    const int index = terse_edit_add_ints(edit, "order", order + start, (int)(end - start));
    const char *name = edit->graph->nodes[node].name;
    terse_edit_set_input(edit, node, 0, terse_region_twin(region, x));
    if (whole < 0)
        return true;
    terse_edit_set_output(edit, node, 0, whole);
    terse_edit_add_node(edit, TERSE_OP_GATHER, name, (int[]){whole, index}, 2, &y, 1);
    if (!terse_node_set_int(edit->graph, &edit->graph->nodes[node], "start", 0) ||
        !terse_node_set_int(edit->graph, &edit->graph->nodes[node], "end", rank))
        edit->failed = true;
    return true;
}

/* [N,C,spatial...] -> [N,C*spatial]: remembers the flattened twin, for a product that can have its rows moved. The
 * node itself goes on reading the plain form; what nobody reads in the end is pruned. */
static bool visit_flatten(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), y = output_of(region, node);
    if (!has_twin(region, node) || rank_of(region, y) != 2)
        return false;
    const terse_value from = *value_of(region, x), to = *value_of(region, y);
    const int64_t per_row = terse_dims_count(from.dims + 1, from.rank - 1);
    if (from.dims[0] != to.dims[0] || per_row < 1 || per_row != to.dims[1] || per_row == from.dims[1])
        return false;
    const int flat = terse_edit_add_like(edit, y, "/nhwc");
    const int twin = terse_region_twin(region, x);
    const int made = terse_edit_add_node(edit, TERSE_OP_FLATTEN, to.name, &twin, 1, &flat, 1);
    if (made >= 0 && !terse_node_set_int(edit->graph, &edit->graph->nodes[made], "axis", 1))
        edit->failed = true;
    region->flat[y] = flat;
    region->flat_channels[y] = from.dims[1];
    return false;
}

/* A product behind a Flatten: row c * spatial + s of its weights becomes row s * channels + c. */
static bool visit_product(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), weights = terse_edit_input(edit, node, 1);
    if (x < 0 || region->flat[x] < 0 || !terse_edit_is_weighted(edit, node) ||
        terse_node_int(&edit->graph->nodes[node], "transA", 0) != 0 ||
        value_of(region, weights)->dims[0] != value_of(region, x)->dims[1])
        return false;
    const terse_value old = *value_of(region, weights);
    const int64_t channels = region->flat_channels[x], spatial = old.dims[0] / channels, n = old.dims[1];
    float *to = terse_edit_alloc(edit, old.bytes);
    if (!to)
        return true;
    for (int64_t s = 0; s < spatial; s++)
        for (int64_t c = 0; c < channels; c++)
            memcpy(to + (s * channels + c) * n, (const float *)old.data + (c * spatial + s) * n,
                   (size_t)n * sizeof *to);
    read_plain(region, node, 2, TERSE_MAX_NODE_IO);
    terse_edit_set_input(edit, node, 0, region->flat[x]);
    terse_edit_set_input(edit, node, 1, terse_edit_add_constant(edit, old.name, TERSE_FP32, 2, old.dims, to));
    return true;
}

typedef bool visitor(terse_region *region, int node);

/* clang-format off */
static visitor *const visitors[TERSE_OP_COUNT] = {
    [TERSE_OP_CONV] = visit_conv, [TERSE_OP_GEMM] = visit_product, [TERSE_OP_MATMUL] = visit_product,
    [TERSE_OP_MAX_POOL] = visit_pool, [TERSE_OP_AVERAGE_POOL] = visit_pool,
    [TERSE_OP_GLOBAL_AVERAGE_POOL] = visit_pool, [TERSE_OP_GLOBAL_MAX_POOL] = visit_pool,
    [TERSE_OP_RELU] = visit_unary, [TERSE_OP_LEAKY_RELU] = visit_unary, [TERSE_OP_CLIP] = visit_unary,
    [TERSE_OP_SIGMOID] = visit_unary, [TERSE_OP_HARD_SIGMOID] = visit_unary, [TERSE_OP_HARD_SWISH] = visit_unary,
    [TERSE_OP_TANH] = visit_unary, [TERSE_OP_ERF] = visit_unary, [TERSE_OP_GELU] = visit_unary,
    [TERSE_OP_EXP] = visit_unary, [TERSE_OP_LOG] = visit_unary, [TERSE_OP_SQRT] = visit_unary,
    [TERSE_OP_NEG] = visit_unary, [TERSE_OP_ABS] = visit_unary, [TERSE_OP_RECIPROCAL] = visit_unary,
    [TERSE_OP_SIN] = visit_unary, [TERSE_OP_COS] = visit_unary, [TERSE_OP_FLOOR] = visit_unary,
    [TERSE_OP_CEIL] = visit_unary, [TERSE_OP_SIGN] = visit_unary, [TERSE_OP_ELU] = visit_unary,
    [TERSE_OP_SELU] = visit_unary, [TERSE_OP_SOFTPLUS] = visit_unary, [TERSE_OP_SOFTSIGN] = visit_unary,
    [TERSE_OP_NOT] = visit_unary, [TERSE_OP_CAST] = visit_unary, [TERSE_OP_IDENTITY] = visit_unary,
    [TERSE_OP_ADD] = visit_broadcast, [TERSE_OP_SUB] = visit_broadcast, [TERSE_OP_MUL] = visit_broadcast,
    [TERSE_OP_DIV] = visit_broadcast, [TERSE_OP_POW] = visit_broadcast, [TERSE_OP_MIN] = visit_broadcast,
    [TERSE_OP_MAX] = visit_broadcast, [TERSE_OP_PRELU] = visit_broadcast, [TERSE_OP_EQUAL] = visit_broadcast,
    [TERSE_OP_LESS] = visit_broadcast, [TERSE_OP_LESS_OR_EQUAL] = visit_broadcast,
    [TERSE_OP_GREATER] = visit_broadcast, [TERSE_OP_GREATER_OR_EQUAL] = visit_broadcast,
    [TERSE_OP_AND] = visit_broadcast, [TERSE_OP_OR] = visit_broadcast, [TERSE_OP_WHERE] = visit_broadcast,
    [TERSE_OP_CONCAT] = visit_concat, [TERSE_OP_SPLIT] = visit_split, [TERSE_OP_SLICE] = visit_slice,
    [TERSE_OP_PAD] = visit_pad, [TERSE_OP_RESIZE] = visit_resize, [TERSE_OP_TRANSPOSE] = visit_transpose,
    [TERSE_OP_SQUEEZE] = visit_squeeze, [TERSE_OP_UNSQUEEZE] = visit_squeeze, [TERSE_OP_SHAPE] = visit_shape,
    [TERSE_OP_FLATTEN] = visit_flatten, [TERSE_OP_RESHAPE] = visit_flatten,
    [TERSE_OP_SOFTMAX] = visit_softmax, [TERSE_OP_LOG_SOFTMAX] = visit_softmax,
    [TERSE_OP_REDUCE_MEAN] = visit_reduce, [TERSE_OP_REDUCE_SUM] = visit_reduce,
    [TERSE_OP_REDUCE_MAX] = visit_reduce, [TERSE_OP_ARG_MAX] = visit_reduce,
};
/* clang-format on */

void terse_region_visit(terse_region *region, int node)
{
    visitor *visit = visitors[region->edit.graph->nodes[node].op];
    if (!visit || !visit(region, node))
        read_plain(region, node, 0, TERSE_MAX_NODE_IO);
}
