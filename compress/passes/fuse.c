/* SPDX-License-Identifier: Apache-2.0 */
/* A product or convolution ends in y = activation(product + bias + residual) (common/kernels/kernels.h). Walking the
 * nodes in order, an Add and then an activation behind it move in one after the other. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

#include <math.h>
#include <string.h>

/* The product with constant weights that makes `value` alone for `readers` uses and has no activation yet, or -1. */
static int find_host(const terse_edit *edit, int value, int readers)
{
    const int node = value < 0 ? -1 : edit->producer[value];
    if (node < 0 || edit->uses[value] != readers || edit->graph->values[value].dtype != TERSE_FP32)
        return -1;
    const terse_node *n = &edit->graph->nodes[node];
    const bool product = n->op == TERSE_OP_CONV || n->op == TERSE_OP_GEMM || n->op == TERSE_OP_MATMUL;
    const bool weighted = product && (terse_edit_is_weighted(edit, node) || terse_edit_is_bytes_product(edit, node));
    return weighted && !terse_node_attr(n, "activation") ? node : -1;
}

/* The activation of a node as text and two numbers; false when it is none that kernels know. */
static bool activation_of(const terse_edit *edit, int node, const char **ret_kind, double *alpha, double *beta)
{
    const terse_node *n = &edit->graph->nodes[node];
    *ret_kind = terse_op_name(n->op);
    *alpha = *beta = 0;
    switch (n->op) {
    case TERSE_OP_RELU:
        *ret_kind = "Clip";
        *beta = (double)INFINITY;
        return true;
    case TERSE_OP_CLIP: {
        const int low = terse_edit_input(edit, node, 1), high = terse_edit_input(edit, node, 2);
        *alpha = (double)-INFINITY;
        *beta = (double)INFINITY;
        return (low < 0 || terse_edit_scalar(edit, low, alpha)) && (high < 0 || terse_edit_scalar(edit, high, beta)) &&
               !isnan(*alpha) && !isnan(*beta);
    }
    case TERSE_OP_LEAKY_RELU:
        *alpha = terse_node_float(n, "alpha", 0.01);
        return isfinite(*alpha);
    case TERSE_OP_HARD_SIGMOID:
        *alpha = terse_node_float(n, "alpha", 0.2);
        *beta = terse_node_float(n, "beta", 0.5);
        return isfinite(*alpha) && isfinite(*beta);
    case TERSE_OP_GELU:
        return strcmp(terse_node_text(n, "approximate", "none"), "none") == 0;
    case TERSE_OP_SIGMOID:
    case TERSE_OP_HARD_SWISH:
    case TERSE_OP_TANH:
        return true;
    default:
        return false;
    }
}

static void set_activation(terse_edit *edit, int host, const char *kind, double alpha, double beta)
{
    terse_node *node = &edit->graph->nodes[host];
    if (!terse_node_set_text(edit->graph, node, "activation", kind) ||
        !terse_node_set_float(edit->graph, node, "activation_alpha", alpha) ||
        !terse_node_set_float(edit->graph, node, "activation_beta", beta))
        edit->failed = true;
}

static void fuse_activation(terse_edit *edit, int node)
{
    const char *kind;
    double alpha, beta;
    if (edit->graph->nodes[node].outputs[0] < 0 || !activation_of(edit, node, &kind, &alpha, &beta))
        return;
    const int host = find_host(edit, terse_edit_input(edit, node, 0), 1);
    if (host < 0)
        return;
    terse_edit_take_output(edit, host, node);
    set_activation(edit, host, kind, alpha, beta);
}

/* x * sigmoid(x) where x is a product that nobody else reads. */
static void fuse_swish(terse_edit *edit, int mul)
{
    if (edit->graph->nodes[mul].n_inputs != 2 || edit->graph->nodes[mul].outputs[0] < 0)
        return;
    for (int side = 0; side < 2; side++) {
        const int x = terse_edit_input(edit, mul, side), gate = terse_edit_input(edit, mul, 1 - side);
        const int sigmoid = gate < 0 ? -1 : terse_edit_maker(edit, gate, TERSE_OP_SIGMOID);
        if (sigmoid < 0 || edit->uses[gate] != 1 || terse_edit_input(edit, sigmoid, 0) != x)
            continue;
        const int host = find_host(edit, x, 2);
        if (host < 0)
            return;
        terse_edit_remove(edit, sigmoid);
        terse_edit_take_output(edit, host, mul);
        set_activation(edit, host, "Swish", 0, 0);
        return;
    }
}

/* The product that is computed last takes the other operand as its residual. It cannot depend on the product:
 * nothing but this Add reads that. */
static void fuse_residual(terse_edit *edit, int add)
{
    if (edit->graph->nodes[add].n_inputs != 2 || edit->graph->nodes[add].outputs[0] < 0)
        return;
    const int y = edit->graph->nodes[add].outputs[0];
    int best = -1, residual = -1;
    for (int side = 0; side < 2; side++) {
        const int x = terse_edit_input(edit, add, side), other = terse_edit_input(edit, add, 1 - side);
        const int host = find_host(edit, x, 1);
        if (host <= best || other < 0 || terse_edit_input(edit, host, 3) >= 0 || !terse_edit_same_shape(edit, x, y) ||
            !terse_edit_same_shape(edit, other, y) || edit->graph->values[other].dtype != TERSE_FP32)
            continue;
        best = host;
        residual = other;
    }
    if (best < 0)
        return;
    terse_edit_set_input(edit, best, 3, residual);
    terse_edit_take_output(edit, best, add);
}

int terse_pass_fuse(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        const terse_op op = graph->nodes[node].op;
        if (op == TERSE_OP_ADD)
            fuse_residual(&edit, node);
        else if (op == TERSE_OP_MUL)
            fuse_swish(&edit, node);
        else if (op == TERSE_OP_SIGMOID && edit.uses[terse_edit_input(&edit, node, 0)] != 1)
            continue; /* perhaps half of a Swish; alone it has no host anyway */
        else if (op != TERSE_OP_COUNT && graph->nodes[node].n_outputs > 0)
            fuse_activation(&edit, node);
    }
    return terse_edit_close(&edit, error);
}
