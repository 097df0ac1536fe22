/* SPDX-License-Identifier: Apache-2.0 */
/* Gemm: Y = alpha A' B' + beta C. With B constant, alpha and the transposition go into B. C becomes a vector [N] where
 * it is a constant that repeats over the rows; otherwise beta is multiplied in, as a constant or by a Mul. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

#include <math.h>

/* B of a Gemm as [K,N], times alpha. */
static void normalize_weights(terse_edit *edit, int node)
{
    terse_graph *graph = edit->graph;
    const int weights = terse_edit_input(edit, node, 1);
    const terse_value old = graph->values[weights];
    const bool transposed = terse_node_int(&graph->nodes[node], "transB", 0) != 0;
    const float alpha = (float)terse_node_float(&graph->nodes[node], "alpha", 1.0);
    if (!transposed && alpha == 1.0f)
        return;
    const int64_t k = old.dims[transposed ? 1 : 0], n = old.dims[transposed ? 0 : 1];
    const float *from = old.data;
    float *to = terse_edit_alloc(edit, old.bytes);
    if (!to)
        return;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < n; j++)
            to[i * n + j] = alpha * (transposed ? from[j * k + i] : from[i * n + j]);
    const int made = terse_edit_add_constant(edit, old.name, TERSE_FP32, 2, (int64_t[]){k, n}, to);
    if (made < 0)
        return;
    terse_edit_set_input(edit, node, 1, made);
    terse_node *gemm = &graph->nodes[node];
    if (!terse_node_set_int(graph, gemm, "transB", 0) || !terse_node_set_float(graph, gemm, "alpha", 1.0))
        edit->failed = true;
}

/* C as a vector [n], or of its own shape times beta. */
static int scaled_constant(terse_edit *edit, int bias, float beta, int64_t n)
{
    const terse_value old = edit->graph->values[bias];
    const float *from = old.data;
    const int64_t count = (int64_t)(old.bytes / sizeof(float));
    const bool repeats = count == 1 || (count == n && old.rank >= 1 && old.dims[old.rank - 1] == n);
    const int64_t size = repeats ? n : count;
    float *to = terse_edit_alloc(edit, (size_t)size * sizeof *to);
    if (!to)
        return -1;
    for (int64_t i = 0; i < size; i++)
        to[i] = beta * from[count == 1 ? 0 : i];
    return repeats ? terse_edit_add_constant(edit, old.name, TERSE_FP32, 1, &n, to)
                   : terse_edit_add_constant(edit, old.name, TERSE_FP32, old.rank, old.dims, to);
}

static void normalize_bias(terse_edit *edit, int node)
{
    terse_graph *graph = edit->graph;
    const int bias = terse_edit_input(edit, node, 2);
    const float beta = (float)terse_node_float(&graph->nodes[node], "beta", 1.0);
    const int64_t n = graph->values[terse_edit_input(edit, node, 1)].dims[1];
    if (bias >= 0 && terse_edit_floats(edit, bias) && graph->values[bias].bytes > 0) {
        const terse_value *value = &graph->values[bias];
        if (beta != 1.0f || value->rank != 1 || value->dims[0] != n)
            terse_edit_set_input(edit, node, 2, scaled_constant(edit, bias, beta, n));
    } else if (bias >= 0 && beta != 1.0f) {
        float *number = terse_edit_alloc(edit, sizeof *number);
        if (!number)
            return;
        *number = beta;
        const int factor = terse_edit_add_constant(edit, "beta", TERSE_FP32, 0, NULL, number);
        const int scaled = factor < 0 ? -1 : terse_edit_add_like(edit, bias, "/beta");
        if (terse_edit_add_node(edit, TERSE_OP_MUL, graph->nodes[node].name, (int[]){bias, factor}, 2, &scaled, 1) >= 0)
            terse_edit_set_input(edit, node, 2, scaled);
    }
    if (beta != 1.0f && !terse_node_set_float(graph, &graph->nodes[node], "beta", 1.0))
        edit->failed = true;
}

/* A constant [1,..,1,K,N] of a MatMul whose left side has no lower rank is the matrix [K,N]. */
static void squeeze_matrix(terse_edit *edit, int node)
{
    const terse_graph *graph = edit->graph;
    const int left = terse_edit_input(edit, node, 0), right = terse_edit_input(edit, node, 1);
    if (left < 0 || !terse_edit_floats(edit, right))
        return;
    const terse_value old = graph->values[right];
    if (old.rank <= 2 || graph->values[left].rank < old.rank)
        return;
    for (int i = 0; i < old.rank - 2; i++)
        if (old.dims[i] != 1)
            return;
    terse_edit_set_input(edit, node, 1,
                         terse_edit_add_constant(edit, old.name, TERSE_FP32, 2, old.dims + old.rank - 2, old.data));
}

int terse_pass_products(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        const int weights = terse_edit_input(&edit, node, 1);
        if (graph->nodes[node].op == TERSE_OP_MATMUL)
            squeeze_matrix(&edit, node);
        if (graph->nodes[node].op != TERSE_OP_GEMM || !terse_edit_floats(&edit, weights) ||
            graph->values[weights].rank != 2 || graph->values[weights].bytes == 0)
            continue;
        normalize_weights(&edit, node);
        if (!edit.failed)
            normalize_bias(&edit, node);
    }
    return terse_edit_close(&edit, error);
}
