/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that move or select elements, and the product behind a Flatten. */
#include "compress/passes/channels_last.h"

#include <string.h>

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

bool terse_region_visit_pad(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int rank = terse_region_rank(region, terse_edit_input(edit, node, 0)),
              axes_value = terse_edit_input(edit, node, 3);
    int64_t pads[2 * TERSE_MAX_RANK], moved[2 * TERSE_MAX_RANK], axes[TERSE_MAX_RANK];
    if (!terse_region_has_twin(region, node) || terse_region_rank(region, terse_region_output(region, node)) != rank)
        return false;
    if (axes_value >= 0) {
        const int n = terse_edit_ints(edit, axes_value, axes, TERSE_MAX_RANK);
        if (n < 0 || !map_axes(axes, n, rank))
            return false;
        terse_region_follow(region, node);
        terse_region_set_ints(region, node, 3, axes, n);
        return true;
    }
    if (terse_edit_ints(edit, terse_edit_input(edit, node, 1), pads, 2 * TERSE_MAX_RANK) != 2 * rank)
        return false;
    for (int i = 0; i < rank; i++) {
        moved[terse_region_axis(i, rank)] = pads[i];
        moved[terse_region_axis(i, rank) + rank] = pads[i + rank];
    }
    terse_region_follow(region, node);
    terse_region_set_ints(region, node, 1, moved, 2 * rank);
    return true;
}

bool terse_region_visit_slice(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int rank = terse_region_rank(region, terse_edit_input(edit, node, 0));
    const int starts = terse_edit_input(edit, node, 1), axes_value = terse_edit_input(edit, node, 3);
    int64_t axes[TERSE_MAX_RANK];
    if (!terse_region_has_twin(region, node) || terse_region_rank(region, terse_region_output(region, node)) != rank ||
        terse_region_rank(region, starts) != 1)
        return false;
    const int64_t n_starts = terse_region_value(region, starts)->dims[0];
    int n = n_starts > rank ? -1 : (int)n_starts;
    for (int i = 0; i < n; i++)
        axes[i] = i;
    if (axes_value >= 0)
        n = terse_edit_ints(edit, axes_value, axes, TERSE_MAX_RANK);
    if (n < 1 || n > rank || !map_axes(axes, n, rank))
        return false;
    terse_region_follow(region, node);
    terse_region_set_ints(region, node, 3, axes, n);
    return true;
}

/* A per-axis operand of a Resize in the twin's order: a constant is copied, anything else goes through a Gather. */
static void move_operand(terse_region *region, int node, int slot, int rank)
{
    terse_edit *edit = &region->edit;
    const int value = terse_edit_input(edit, node, slot);
    if (value < 0 || terse_region_value(region, value)->rank != 1 || terse_region_value(region, value)->dims[0] != rank)
        return;
    const terse_value old = *terse_region_value(region, value);
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

bool terse_region_visit_resize(terse_region *region, int node)
{
    terse_graph *graph = region->edit.graph;
    const int rank = terse_region_rank(region, terse_edit_input(&region->edit, node, 0));
    const char *mode = terse_node_text(&graph->nodes[node], "coordinate_transformation_mode", "half_pixel");
    const terse_attr *attr = terse_node_attr(&graph->nodes[node], "axes");
    int64_t axes[TERSE_MAX_RANK];
    if (!terse_region_has_twin(region, node) || terse_region_rank(region, terse_region_output(region, node)) != rank ||
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
    terse_region_follow(region, node);
    for (int slot = 2; slot < 4 && !attr; slot++)
        move_operand(region, node, slot, rank);
    return true;
}

/* A Transpose reads the twin with another order of axes, and is nothing where that order is the twin's own; one that
 * makes [N,C,...] out of [N,...,C] has its input as its twin. */
bool terse_region_visit_transpose(terse_region *region, int node)
{
    terse_graph *graph = region->edit.graph;
    const int x = terse_edit_input(&region->edit, node, 0), y = terse_region_output(region, node),
              rank = terse_region_rank(region, x);
    const terse_attr *attr = terse_node_attr(&graph->nodes[node], "perm");
    int64_t perm[TERSE_MAX_RANK];
    if (rank < 3 || terse_region_rank(region, y) != rank ||
        (attr && (attr->kind != TERSE_ATTR_INTS || attr->n != rank)))
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
    if (terse_region_has_twin(region, node)) {
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
bool terse_region_visit_squeeze(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const bool squeezes = edit->graph->nodes[node].op == TERSE_OP_SQUEEZE;
    const int x = terse_edit_input(edit, node, 0), y = terse_region_output(region, node);
    const int wide = terse_region_rank(region, squeezes ? x : y), narrow = terse_region_rank(region, squeezes ? y : x);
    int64_t axes[TERSE_MAX_RANK];
    const int n = terse_edit_ints(edit, terse_edit_input(edit, node, 1), axes, TERSE_MAX_RANK);
    if (!terse_region_has_twin(region, node) || n < 1 || narrow < 2 || wide != narrow + n)
        return false;
    for (int i = 0; i < n; i++)
        if ((axes[i] < 0 ? axes[i] + wide : axes[i]) < 2)
            return false;
    if (!map_axes(axes, n, wide))
        return false;
    terse_edit_set_input(edit, node, 0, terse_region_twin(region, x));
    terse_region_set_ints(region, node, 1, axes, n);
    if (narrow >= 3)
        terse_region_make_twin(region, node, 0);
    return true;
}

/* The shape of a value that is there as a twin only, without making the plain form. */
bool terse_region_visit_shape(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), y = terse_region_output(region, node),
              rank = terse_region_rank(region, x);
    if (!terse_region_has_twin(region, node) || y < 0)
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
bool terse_region_visit_flatten(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), y = terse_region_output(region, node);
    if (!terse_region_has_twin(region, node) || terse_region_rank(region, y) != 2)
        return false;
    const terse_value from = *terse_region_value(region, x), to = *terse_region_value(region, y);
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
bool terse_region_visit_product(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    const int x = terse_edit_input(edit, node, 0), weights = terse_edit_input(edit, node, 1);
    if (x < 0 || region->flat[x] < 0 || !terse_edit_is_weighted(edit, node) ||
        terse_node_int(&edit->graph->nodes[node], "transA", 0) != 0 ||
        terse_region_value(region, weights)->dims[0] != terse_region_value(region, x)->dims[1])
        return false;
    const terse_value old = *terse_region_value(region, weights);
    const int64_t channels = region->flat_channels[x], spatial = old.dims[0] / channels, n = old.dims[1];
    float *to = terse_edit_alloc(edit, old.bytes);
    if (!to)
        return true;
    for (int64_t s = 0; s < spatial; s++)
        for (int64_t c = 0; c < channels; c++)
            memcpy(to + (s * channels + c) * n, (const float *)old.data + (c * spatial + s) * n,
                   (size_t)n * sizeof *to);
    terse_region_read_plain(region, node, 2, TERSE_MAX_NODE_IO);
    terse_edit_set_input(edit, node, 0, region->flat[x]);
    terse_edit_set_input(edit, node, 1, terse_edit_add_constant(edit, old.name, TERSE_FP32, 2, old.dims, to));
    return true;
}

/* The axis order of a Transpose of a tensor of rank 5 and more that swaps axes 1 and 2 only. */
static bool swaps_first_two(const terse_node *node, int rank)
{
    const terse_attr *attr = terse_node_attr(node, "perm");
    if (!attr || attr->kind != TERSE_ATTR_INTS || attr->n != rank || attr->ints[1] != 2 || attr->ints[2] != 1)
        return false;
    for (int i = 3; i < rank; i++)
        if (attr->ints[i] != i)
            return false;
    return attr->ints[0] == 0;
}

/* The value in front of a channel shuffle that ends in the Reshape `node`, or -1: [N,C,...] -> [N,G,C/G,...] ->
 * [N,C/G,G,...] -> [N,C,...]. *ret_groups is G. */
static int shuffled(const terse_region *region, int node, int64_t *ret_groups)
{
    const terse_edit *edit = &region->edit;
    const int y = terse_region_output(region, node), merged = terse_edit_input(edit, node, 0);
    const int transpose = terse_edit_maker(edit, merged, TERSE_OP_TRANSPOSE);
    const int split = transpose < 0 ? -1 : terse_edit_input(edit, transpose, 0);
    const int reshape = split < 0 ? -1 : terse_edit_maker(edit, split, TERSE_OP_RESHAPE);
    const int x = reshape < 0 ? -1 : terse_edit_input(edit, reshape, 0);
    const int rank = terse_region_rank(region, y);
    if (x < 0 || x >= region->n || y < 0 || rank < 3 || rank + 1 > TERSE_MAX_RANK ||
        !terse_edit_same_shape(edit, x, y) || terse_region_rank(region, split) != rank + 1 ||
        !swaps_first_two(&edit->graph->nodes[transpose], rank + 1))
        return -1;
    const int64_t *whole = terse_region_value(region, y)->dims, *parts = terse_region_value(region, split)->dims;
    if (whole[0] != parts[0] || parts[1] < 1 || parts[2] < 1 || parts[1] * parts[2] != whole[1])
        return -1;
    for (int i = 2; i < rank; i++)
        if (whole[i] != parts[i + 1])
            return -1;
    *ret_groups = parts[1];
    return x;
}

/* The operand of a Reshape to these dims: symbols are copied from the same axis. */
static int shape_operand(terse_region *region, const int64_t *dims, int rank)
{
    int64_t shape[TERSE_MAX_RANK];
    for (int i = 0; i < rank; i++)
        shape[i] = dims[i] > 0 ? dims[i] : 0;
    return terse_edit_add_ints(&region->edit, "shape", shape, rank);
}

/* A channel shuffle over twins moves the innermost axis only. */
bool terse_region_visit_reshape(terse_region *region, int node)
{
    terse_edit *edit = &region->edit;
    int64_t groups;
    const int x = shuffled(region, node, &groups), rank = x < 0 ? 0 : terse_region_rank(region, x);
    if (x < 0 || !region->native[x])
        return terse_region_visit_flatten(region, node);
    const int twin = terse_region_twin(region, x);
    const terse_value from = *terse_region_value(region, twin);
    int64_t dims[TERSE_MAX_RANK], perm[TERSE_MAX_RANK];
    for (int i = 0; i < rank - 1; i++) {
        dims[i] = from.dims[i];
        perm[i] = i;
    }
    dims[rank - 1] = groups;
    dims[rank] = from.dims[rank - 1] / groups;
    perm[rank - 1] = rank;
    perm[rank] = rank - 1;
    const int split = terse_edit_add_value(edit, "groups", from.dtype, rank + 1, dims);
    terse_edit_add_node(edit, TERSE_OP_RESHAPE, from.name, (int[]){twin, shape_operand(region, dims, rank + 1)}, 2,
                        &split, 1);
    dims[rank] = groups;
    dims[rank - 1] = from.dims[rank - 1] / groups;
    const int swapped = terse_edit_add_value(edit, "shuffled", from.dtype, rank + 1, dims);
    terse_edit_add_move(edit, split, perm, swapped);
    if (edit->failed)
        return true;
    terse_edit_set_input(edit, node, 0, swapped);
    terse_edit_set_input(edit, node, 1, shape_operand(region, from.dims, rank));
    if (!terse_node_set_int(edit->graph, &edit->graph->nodes[node], "allowzero", 0)) /* of the operand that it had */
        edit->failed = true;
    terse_region_make_twin(region, node, 0);
    return true;
}
