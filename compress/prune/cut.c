/* SPDX-License-Identifier: Apache-2.0 */
/* Constants that run along channels are replaced by what is left of them, numbers that say how many channels there are
 * are set, and values get their new sizes, in that order: rules look at the sizes of before. */
#include <stdlib.h>
#include <string.h>

#include "compress/prune/couple.h"

typedef struct cutter {
    terse_couple *couple;
    const bool *gone;
    terse_edit *edit;
} cutter;

static bool stays(const cutter *c, int32_t label)
{
    return !c->gone[terse_couple_unit(c->couple, label)];
}

static int64_t count_left(const cutter *c, const int32_t *labels, int64_t n)
{
    int64_t left = 0;
    for (int64_t i = 0; i < n; i++)
        left += stays(c, labels[i]);
    return left;
}

/* Input `slot`, a constant, without the places along `axis` whose labels are gone. */
static void slice(const cutter *c, int node, int slot, int axis, const int32_t *labels, int64_t n)
{
    const int value = terse_edit_input(c->edit, node, slot);
    if (value < 0 || !c->edit->graph->values[value].data || axis < 0)
        return;
    const terse_value old = c->edit->graph->values[value];
    const int64_t left = count_left(c, labels, n);
    if (axis >= old.rank || old.dims[axis] != n || left == n || old.layout != TERSE_LAYOUT_PLAIN)
        return;
    int64_t dims[TERSE_MAX_RANK];
    memcpy(dims, old.dims, sizeof dims);
    dims[axis] = left;
    const size_t inner =
        (size_t)terse_dims_count(old.dims + axis + 1, old.rank - axis - 1) * terse_dtype_size(old.dtype);
    const int64_t outer = terse_dims_count(old.dims, axis);
    char *to = terse_edit_alloc(c->edit, (size_t)(outer * left) * inner), *at = to;
    const char *from = old.data;
    for (int64_t o = 0; to && o < outer; o++)
        for (int64_t i = 0; i < n; i++, from += inner)
            if (stays(c, labels[i])) {
                memcpy(at, from, inner);
                at += inner;
            }
    const int made = to ? terse_edit_add_constant(c->edit, old.name, old.dtype, old.rank, dims, to) : -1;
    if (made >= 0)
        terse_edit_set_input(c->edit, node, slot, made);
}

/* A constant that is broadcast against the output. */
static void slice_aligned(const cutter *c, int node, int slot)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const terse_channels *y = &c->couple->values[n->outputs[0]];
    const int value = terse_edit_input(c->edit, node, slot);
    if (value < 0 || y->axis < 0 || y->n == 1)
        return;
    const int shift = c->edit->graph->values[n->outputs[0]].rank - c->edit->graph->values[value].rank;
    slice(c, node, slot, y->axis - shift, y->labels, y->n);
}

static void cut_product(const cutter *c, int node, const terse_couple_role *role)
{
    terse_graph *graph = c->edit->graph;
    const terse_node *n = &graph->nodes[node];
    const terse_channels *x = &c->couple->values[n->inputs[0]], *y = &c->couple->values[n->outputs[0]];
    const bool conv = n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE;
    if (x->axis >= 0 && role->in_axis >= 0)
        slice(c, node, 1, role->in_axis, x->labels, x->n / role->groups);
    if (y->axis < 0)
        return;
    slice(c, node, 1, role->out_axis, y->labels, y->n);
    if (conv)
        slice(c, node, 2, 0, y->labels, y->n);
    else
        slice_aligned(c, node, 2);
    slice_aligned(c, node, 3);
    if (role->depthwise && x->axis >= 0 &&
        !terse_node_set_int(graph, &graph->nodes[node], "group", count_left(c, x->labels, x->n)))
        c->edit->failed = true;
}

/* The sizes that an operator is told. */
static void set_ints(const cutter *c, int node, const int64_t *ints, int n)
{
    const int made = terse_edit_add_ints(c->edit, "sizes", ints, n);
    if (made >= 0)
        terse_edit_set_input(c->edit, node, 1, made);
}

static void cut_reshape(const cutter *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const terse_channels *x = &c->couple->values[n->inputs[0]], *y = &c->couple->values[n->outputs[0]];
    int64_t shape[TERSE_MAX_RANK];
    const int count = terse_edit_ints(c->edit, n->inputs[1], shape, TERSE_MAX_RANK);
    if (y->axis < 0 || count <= y->axis)
        return;
    const terse_value *out = &c->edit->graph->values[n->outputs[0]];
    if (x->axis >= 0 && x->axis < count && x->axis != y->axis && shape[x->axis] == 0 && out->dims[x->axis] > 0)
        shape[x->axis] = out->dims[x->axis]; /* no longer what it was copied from */
    if (shape[y->axis] != -1)
        shape[y->axis] = count_left(c, y->labels, y->n);
    set_ints(c, node, shape, count);
}

static void cut_split(const cutter *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    const terse_channels *x = &c->couple->values[n->inputs[0]];
    if (x->axis < 0 ||
        terse_edit_axis(c->edit, node, "axis", 0, c->edit->graph->values[n->inputs[0]].rank) != x->axis ||
        c->couple->values[n->outputs[0]].axis < 0)
        return;
    int64_t *sizes = terse_edit_alloc(c->edit, (size_t)n->n_outputs * sizeof *sizes);
    for (int i = 0; sizes && i < n->n_outputs; i++) {
        const terse_channels *part = &c->couple->values[n->outputs[i]];
        sizes[i] = count_left(c, part->labels, part->n);
    }
    if (sizes)
        set_ints(c, node, sizes, n->n_outputs);
}

static void cut_node(const cutter *c, int node)
{
    const terse_node *n = &c->edit->graph->nodes[node];
    terse_couple_role role;
    if (n->n_outputs < 1 || n->outputs[0] < 0 || n->n_inputs < 1)
        return;
    switch (n->op) {
    case TERSE_OP_CONV:
    case TERSE_OP_CONV_TRANSPOSE:
    case TERSE_OP_GEMM:
    case TERSE_OP_MATMUL:
        if (terse_couple_role_of(c->edit, node, &role))
            cut_product(c, node, &role);
        break;
    case TERSE_OP_RESHAPE:
        cut_reshape(c, node);
        break;
    case TERSE_OP_SPLIT:
        cut_split(c, node);
        break;
    case TERSE_OP_BATCH_NORMALIZATION:
    case TERSE_OP_INSTANCE_NORMALIZATION: {
        const terse_channels *y = &c->couple->values[n->outputs[0]];
        for (int i = 1; i < c->edit->graph->nodes[node].n_inputs && y->axis >= 0; i++)
            slice(c, node, i, 0, y->labels, y->n);
        break;
    }
    case TERSE_OP_PAD: /* their constants say something else */
    case TERSE_OP_RESIZE:
    case TERSE_OP_SLICE:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
    case TERSE_OP_REDUCE_MEAN:
    case TERSE_OP_REDUCE_SUM:
    case TERSE_OP_REDUCE_MAX:
    case TERSE_OP_LAYER_NORMALIZATION:
        break;
    case TERSE_OP_CONCAT:
        if (terse_edit_axis(c->edit, node, "axis", 0, c->edit->graph->values[n->outputs[0]].rank) ==
            c->couple->values[n->outputs[0]].axis)
            break;
        /* fall through */
    default: /* element by element: only there constants meet channels */
        for (int i = 0; i < c->edit->graph->nodes[node].n_inputs; i++)
            slice_aligned(c, node, i);
    }
}

void terse_couple_cut(terse_couple *couple, const bool *gone, terse_edit *edit)
{
    const cutter c = {couple, gone, edit};
    for (int node = 0, n = edit->graph->n_nodes; node < n && !edit->failed; node++)
        if (edit->graph->nodes[node].op != TERSE_OP_COUNT)
            cut_node(&c, node);
    for (int v = 0; v < couple->n_values && !edit->failed; v++)
        if (couple->values[v].axis >= 0)
            edit->graph->values[v].dims[couple->values[v].axis] = terse_couple_left(couple, gone, v);
}
