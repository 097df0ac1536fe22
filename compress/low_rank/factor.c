/* SPDX-License-Identifier: Apache-2.0 */
/* Gemm, MatMul: x W -> (x first) second. A 1x1 convolution: the first factor sees the input's pixels, so it takes
 * strides and pads (its padded pixels are zero, as it has no bias), the second works on what the first leaves. */
#include "compress/low_rank/low_rank.h"

#include <stdio.h>
#include <string.h>

static void copy_attribute(terse_edit *edit, int from, int to, const char *name)
{
    const terse_attr *found = terse_node_attr(&edit->graph->nodes[from], name);
    if (!found)
        return;
    terse_node *node = &edit->graph->nodes[to];
    const bool good = found->kind == TERSE_ATTR_INTS
                          ? terse_node_set_ints(edit->graph, node, name, found->ints, found->n)
                      : found->kind == TERSE_ATTR_TEXT ? terse_node_set_text(edit->graph, node, name, found->text)
                                                       : terse_node_set_int(edit->graph, node, name, found->i);
    edit->failed = edit->failed || !good;
}

/* The second factor of a convolution slides plainly over the first one's output. */
static void reset_window(terse_edit *edit, int node, int spatial)
{
    int64_t ones[TERSE_MAX_RANK], zeros[2 * TERSE_MAX_RANK] = {0};
    for (int i = 0; i < spatial; i++)
        ones[i] = 1;
    terse_graph *graph = edit->graph;
    terse_node *n = &graph->nodes[node];
    if (!terse_node_set_ints(graph, n, "strides", ones, spatial) ||
        !terse_node_set_ints(graph, n, "dilations", ones, spatial) ||
        !terse_node_set_ints(graph, n, "kernel_shape", ones, spatial) ||
        !terse_node_set_ints(graph, n, "pads", zeros, 2 * spatial) ||
        !terse_node_set_text(graph, n, "auto_pad", "NOTSET"))
        edit->failed = true;
}

/* [rows][columns] in row order to a constant; a convolution has [columns][rows][1...] (filters first). */
static int factor_constant(terse_edit *edit, int like, const char *suffix, const float *data, int64_t rows,
                           int64_t columns)
{
    const terse_value weights = edit->graph->values[like];
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s%s", weights.name, suffix);
    if (weights.rank == 2)
        return terse_edit_add_constant(edit, name, TERSE_FP32, 2, (int64_t[]){rows, columns}, data);
    float *to = terse_edit_alloc(edit, (size_t)(rows * columns) * sizeof *to);
    if (!to)
        return -1;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[j * rows + i] = data[i * columns + j];
    int64_t dims[TERSE_MAX_RANK] = {columns, rows};
    for (int i = 2; i < weights.rank; i++)
        dims[i] = 1;
    return terse_edit_add_constant(edit, name, TERSE_FP32, weights.rank, dims, to);
}

void terse_factor_node(terse_edit *edit, int node, const float *first, const float *second, int64_t rank)
{
    terse_graph *graph = edit->graph;
    const terse_node old = graph->nodes[node];
    const int x = old.inputs[0], weights = old.inputs[1], y = old.outputs[0];
    const bool conv = old.op == TERSE_OP_CONV;
    const terse_value w = graph->values[weights];
    const int64_t k = conv ? w.dims[1] : w.dims[0], n = conv ? w.dims[0] : w.dims[1];
    char text[TERSE_MAX_NAME];
    snprintf(text, sizeof text, "%.900s/first", old.name);
    const int middle = terse_edit_add_like(edit, y, "/low-rank");
    const int u = factor_constant(edit, weights, "/first", first, k, rank);
    const int v = factor_constant(edit, weights, "/second", second, rank, n);
    const int front = terse_edit_add_node(edit, old.op, text, (int[]){x, u}, 2, &middle, 1);
    if (front < 0)
        return;
    terse_value *value = &graph->values[middle];
    value->dims[conv ? 1 : value->rank - 1] = rank;
    terse_edit_set_input(edit, node, 0, middle);
    terse_edit_set_input(edit, node, 1, v);
    if (conv) {
        static const char *const window[] = {"strides", "dilations", "kernel_shape", "pads", "auto_pad"};
        for (size_t i = 0; i < sizeof window / sizeof window[0]; i++)
            copy_attribute(edit, node, front, window[i]);
        reset_window(edit, node, w.rank - 2);
    } else if (terse_node_attr(&graph->nodes[node], "transA")) {
        copy_attribute(edit, node, front, "transA");
        if (!terse_node_set_int(graph, &graph->nodes[node], "transA", 0))
            edit->failed = true;
    }
    snprintf(text, sizeof text, "low-rank %lld of %lld", (long long)rank, (long long)(k < n ? k : n));
    char *compression = terse_edit_alloc(edit, strlen(text) + 1);
    if (!compression)
        return;
    strcpy(compression, text);
    graph->nodes[node].compression = graph->nodes[front].compression = compression;
}
