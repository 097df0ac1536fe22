/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/edit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for one value more than the graph has now; new entries say "nobody". */
static bool reserve(terse_edit *edit, int n_values)
{
    if (n_values <= edit->capacity)
        return true;
    const int wanted = n_values + n_values / 2 + 64;
    int *producer = realloc(edit->producer, (size_t)wanted * sizeof *producer);
    if (producer)
        edit->producer = producer;
    int *uses = realloc(edit->uses, (size_t)wanted * sizeof *uses);
    if (uses)
        edit->uses = uses;
    if (!producer || !uses) {
        edit->failed = true;
        return false;
    }
    for (int v = edit->capacity; v < wanted; v++) {
        producer[v] = -1;
        uses[v] = 0;
    }
    edit->capacity = wanted;
    return true;
}

static void release(terse_edit *edit)
{
    free(edit->producer);
    free(edit->uses);
    edit->producer = edit->uses = NULL;
}

int terse_edit_open(terse_graph *graph, terse_edit *ret_edit, terse_error *error)
{
    terse_edit edit = {.graph = graph};
    if (!reserve(&edit, graph->n_values)) {
        release(&edit);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d values", graph->n_values);
    }
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0)
                edit.uses[node->inputs[i]]++;
        for (int i = 0; i < node->n_outputs; i++)
            if (node->outputs[i] >= 0)
                edit.producer[node->outputs[i]] = n;
    }
    for (int i = 0; i < graph->n_outputs; i++)
        edit.uses[graph->outputs[i]]++;
    *ret_edit = edit;
    return TERSE_OK;
}

int terse_edit_close(terse_edit *edit, terse_error *error)
{
    const bool failed = edit->failed;
    terse_graph *graph = edit->graph;
    release(edit);
    if (failed)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory while changing the graph");
    terse_graph_compact(graph);
    int status = terse_graph_sort(graph, error);
    if (status == TERSE_OK)
        status = terse_graph_prune(graph, error);
    if (status == TERSE_OK)
        status = terse_graph_check(graph, error);
    return status;
}

int terse_edit_maker(const terse_edit *edit, int value, terse_op op)
{
    const int node = value < 0 ? -1 : edit->producer[value];
    return node >= 0 && edit->graph->nodes[node].op == op ? node : -1;
}

int terse_edit_input(const terse_edit *edit, int node, int slot)
{
    const terse_node *n = &edit->graph->nodes[node];
    return slot < n->n_inputs ? n->inputs[slot] : TERSE_NO_VALUE;
}

int terse_edit_add_node(terse_edit *edit, terse_op op, const char *name, const int *inputs, int n_inputs,
                        const int *outputs, int n_outputs)
{
    for (int i = 0; i < n_outputs; i++)
        edit->failed = edit->failed || outputs[i] < 0;
    if (edit->failed || !terse_graph_add_node(edit->graph, op, name, inputs, n_inputs, outputs, n_outputs)) {
        edit->failed = true;
        return -1;
    }
    const int index = edit->graph->n_nodes - 1;
    for (int i = 0; i < n_inputs; i++)
        if (inputs[i] >= 0)
            edit->uses[inputs[i]]++;
    for (int i = 0; i < n_outputs; i++)
        edit->producer[outputs[i]] = index;
    return index;
}

int terse_edit_add_value(terse_edit *edit, const char *name, terse_dtype dtype, int rank, const int64_t *dims)
{
    const int index = edit->failed ? -1 : terse_graph_add_value(edit->graph, name);
    if (index < 0 || !reserve(edit, index + 1)) {
        edit->failed = true;
        return -1;
    }
    terse_value *value = &edit->graph->values[index];
    value->dtype = dtype;
    value->rank = rank;
    for (int i = 0; i < rank; i++)
        value->dims[i] = dims[i];
    return index;
}

int terse_edit_add_like(terse_edit *edit, int value, const char *suffix)
{
    const terse_value like = edit->graph->values[value];
    char name[TERSE_MAX_NAME];
    const int room = (int)(sizeof name - strlen(suffix) - 1);
    snprintf(name, sizeof name, "%.*s%s", room, like.name, suffix);
    return terse_edit_add_value(edit, name, like.dtype, like.rank, like.dims);
}

int terse_edit_add_constant(terse_edit *edit, const char *name, terse_dtype dtype, int rank, const int64_t *dims,
                            const void *data)
{
    const int index = edit->failed ? -1 : terse_graph_add_constant(edit->graph, name, dtype, rank, dims, data);
    if (index < 0 || !reserve(edit, index + 1)) {
        edit->failed = true;
        return -1;
    }
    return index;
}

int terse_edit_add_ints(terse_edit *edit, const char *name, const int64_t *values, int n)
{
    const int index = edit->failed ? -1 : terse_graph_add_ints(edit->graph, name, values, n);
    if (index < 0 || !reserve(edit, index + 1)) {
        edit->failed = true;
        return -1;
    }
    return index;
}

void *terse_edit_alloc(terse_edit *edit, size_t bytes)
{
    void *memory = edit->failed ? NULL : terse_arena_alloc(edit->graph->arena, bytes ? bytes : 1);
    if (!memory)
        edit->failed = true;
    return memory;
}

void terse_edit_set_input(terse_edit *edit, int node, int slot, int value)
{
    terse_node *n = &edit->graph->nodes[node];
    if (edit->failed)
        return;
    if (slot >= n->n_inputs) {
        int *inputs = terse_edit_alloc(edit, (size_t)(slot + 1) * sizeof *inputs);
        if (!inputs)
            return;
        for (int i = 0; i <= slot; i++)
            inputs[i] = i < n->n_inputs ? n->inputs[i] : TERSE_NO_VALUE;
        n->inputs = inputs;
        n->n_inputs = slot + 1;
    }
    if (n->inputs[slot] >= 0)
        edit->uses[n->inputs[slot]]--;
    n->inputs[slot] = value;
    if (value >= 0)
        edit->uses[value]++;
}

void terse_edit_set_output(terse_edit *edit, int node, int slot, int value)
{
    terse_node *n = &edit->graph->nodes[node];
    if (value < 0) {
        edit->failed = true;
        return;
    }
    if (n->outputs[slot] >= 0 && edit->producer[n->outputs[slot]] == node)
        edit->producer[n->outputs[slot]] = -1;
    n->outputs[slot] = value;
    edit->producer[value] = node;
}

void terse_edit_remove(terse_edit *edit, int node)
{
    terse_node *n = &edit->graph->nodes[node];
    for (int i = 0; i < n->n_inputs; i++)
        if (n->inputs[i] >= 0)
            edit->uses[n->inputs[i]]--;
    for (int i = 0; i < n->n_outputs; i++)
        if (n->outputs[i] >= 0 && edit->producer[n->outputs[i]] == node)
            edit->producer[n->outputs[i]] = -1;
    n->op = TERSE_OP_COUNT;
}

void terse_edit_take_output(terse_edit *edit, int host, int last)
{
    const int value = edit->graph->nodes[last].outputs[0];
    terse_edit_remove(edit, last);
    terse_edit_set_output(edit, host, 0, value);
}

bool terse_edit_is_constant(const terse_edit *edit, int value)
{
    return value >= 0 && edit->graph->values[value].data != NULL;
}

const float *terse_edit_floats(const terse_edit *edit, int value)
{
    if (!terse_edit_is_constant(edit, value))
        return NULL;
    const terse_value *v = &edit->graph->values[value];
    return v->dtype == TERSE_FP32 && v->layout == TERSE_LAYOUT_PLAIN ? v->data : NULL;
}

bool terse_edit_scalar(const terse_edit *edit, int value, double *ret_number)
{
    const float *data = terse_edit_floats(edit, value);
    if (!data || edit->graph->values[value].bytes != sizeof *data)
        return false;
    *ret_number = (double)data[0];
    return true;
}

int terse_edit_ints(const terse_edit *edit, int value, int64_t *ret_values, int max)
{
    if (!terse_edit_is_constant(edit, value))
        return -1;
    const terse_value *v = &edit->graph->values[value];
    if (v->rank > 1 || (v->dtype != TERSE_INT64 && v->dtype != TERSE_INT32))
        return -1;
    const int64_t count = terse_dims_count(v->dims, v->rank);
    if (count < 0 || count > max)
        return -1;
    for (int64_t i = 0; i < count; i++)
        ret_values[i] = v->dtype == TERSE_INT64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
    return (int)count;
}

bool terse_edit_same_shape(const terse_edit *edit, int a, int b)
{
    const terse_value *va = &edit->graph->values[a], *vb = &edit->graph->values[b];
    if (va->rank < 0 || va->rank != vb->rank)
        return false;
    for (int i = 0; i < va->rank; i++)
        if (va->dims[i] != vb->dims[i])
            return false;
    return true;
}

int terse_edit_axis(const terse_edit *edit, int node, const char *attribute, int64_t fallback, int rank)
{
    const int64_t axis = terse_node_int(&edit->graph->nodes[node], attribute, fallback);
    if (axis < -rank || axis >= rank)
        return -1;
    return (int)(axis < 0 ? axis + rank : axis);
}

bool terse_edit_move_is_view(const int64_t *dims, int rank, const int64_t *perm, int64_t *ret_shape)
{
    int64_t before = -1;
    bool open = false; /* a -1 is in the shape */
    for (int i = 0; i < rank; i++) {
        const int64_t dim = dims[perm[i]];
        if (dim != 1 && perm[i] < before)
            return false;
        if (dim != 1)
            before = perm[i];
        if (dim == 0 || (dim < 0 && perm[i] != i && open))
            return false;
        ret_shape[i] = dim > 0 ? dim : perm[i] == i ? 0 : -1;
        open = open || (dim < 0 && perm[i] != i);
    }
    return true;
}

int terse_edit_add_move(terse_edit *edit, int from, const int64_t *perm, int to)
{
    if (edit->failed || from < 0 || to < 0)
        return -1;
    const terse_value value = edit->graph->values[from];
    int64_t shape[TERSE_MAX_RANK];
    if (terse_edit_move_is_view(value.dims, value.rank, perm, shape)) {
        const int operand = terse_edit_add_ints(edit, "shape", shape, value.rank);
        return terse_edit_add_node(edit, TERSE_OP_RESHAPE, value.name, (int[]){from, operand}, 2, &to, 1);
    }
    const int node = terse_edit_add_node(edit, TERSE_OP_TRANSPOSE, value.name, &from, 1, &to, 1);
    if (node >= 0 && !terse_node_set_ints(edit->graph, &edit->graph->nodes[node], "perm", perm, value.rank))
        edit->failed = true;
    return node;
}

unsigned terse_edit_convolution_ranks(const terse_graph *graph)
{
    unsigned ranks = 0;
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        if (node->op == TERSE_OP_CONV && node->outputs[0] >= 0 && graph->values[node->outputs[0]].rank >= 0)
            ranks |= 1u << graph->values[node->outputs[0]].rank;
    }
    return ranks;
}

bool terse_edit_is_weighted(const terse_edit *edit, int node)
{
    const terse_node *n = &edit->graph->nodes[node];
    const int weights = n->n_inputs >= 2 ? n->inputs[1] : TERSE_NO_VALUE;
    if (!terse_edit_floats(edit, weights) || n->n_outputs < 1 || n->outputs[0] < 0)
        return false;
    const terse_value *w = &edit->graph->values[weights];
    if (w->bytes == 0 || edit->graph->values[n->outputs[0]].rank < 1)
        return false;
    if (n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE)
        return w->rank >= 3 && edit->graph->values[n->outputs[0]].rank == w->rank;
    if (n->op == TERSE_OP_MATMUL)
        return w->rank == 2;
    return n->op == TERSE_OP_GEMM && w->rank == 2 && terse_node_int(n, "transB", 0) == 0 &&
           terse_node_float(n, "alpha", 1.0) == 1.0 && terse_node_float(n, "beta", 1.0) == 1.0;
}

int terse_edit_bytes(const terse_edit *edit, int value)
{
    const int node = terse_edit_maker(edit, value, TERSE_OP_DEQUANTIZE_LINEAR);
    const int bytes = node < 0 ? TERSE_NO_VALUE : terse_edit_input(edit, node, 0);
    const int zero_point = node < 0 ? TERSE_NO_VALUE : terse_edit_input(edit, node, 2);
    if (!terse_edit_is_constant(edit, bytes) || !terse_edit_floats(edit, terse_edit_input(edit, node, 1)) ||
        (zero_point >= 0 && !terse_edit_is_constant(edit, zero_point)))
        return -1;
    const terse_value *b = &edit->graph->values[bytes];
    return b->layout == TERSE_LAYOUT_PLAIN && (b->dtype == TERSE_INT8 || b->dtype == TERSE_UINT8) && b->bytes > 0 ? node
                                                                                                                  : -1;
}

bool terse_edit_is_bytes_product(const terse_edit *edit, int node)
{
    const terse_node *n = &edit->graph->nodes[node];
    const int dequantize = n->n_inputs < 2 ? -1 : terse_edit_bytes(edit, n->inputs[1]);
    if (dequantize < 0 || n->n_outputs < 1 || n->outputs[0] < 0)
        return false;
    const int rank = edit->graph->values[edit->graph->nodes[dequantize].inputs[0]].rank;
    const int rank_out = edit->graph->values[n->outputs[0]].rank;
    if (n->op == TERSE_OP_CONV)
        return rank >= 3 && rank_out == rank;
    return (n->op == TERSE_OP_GEMM || n->op == TERSE_OP_MATMUL) && rank == 2 && rank_out >= 1;
}
