/* SPDX-License-Identifier: Apache-2.0 */
/* The way back from terse_pass_fuse: bias and residual of a product and its activation become nodes of ONNX again, for
 * training and for writing ONNX. Values keep their numbers. */
#include "compress/passes/unfuse.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compress/passes/edit.h"

typedef struct unfusing {
    terse_graph *graph;
    int node;   /* the product */
    int output; /* what it makes with everything behind it */
    bool failed;
} unfusing;

/* A value like the product's output. */
static int between(unfusing *u, const char *suffix)
{
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s.%s", u->graph->values[u->output].name, suffix);
    const int value = terse_graph_add_value(u->graph, name);
    if (value < 0) {
        u->failed = true;
        return TERSE_NO_VALUE;
    }
    terse_value *to = &u->graph->values[value];
    const terse_value *from = &u->graph->values[u->output];
    to->dtype = from->dtype;
    to->rank = from->rank;
    memcpy(to->dims, from->dims, sizeof to->dims);
    return value;
}

/* A node behind the product that makes `output`. Numbers, not pointers: the graph's arrays move. */
static int append(unfusing *u, terse_op op, const char *suffix, const int *inputs, int n_inputs, int output)
{
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s.%s", u->graph->nodes[u->node].name, suffix);
    if (u->failed || !terse_graph_add_node(u->graph, op, name, inputs, n_inputs, &output, 1))
        u->failed = true;
    return u->graph->n_nodes - 1;
}

static int number(unfusing *u, const char *name, double x)
{
    float *data = terse_arena_alloc(u->graph->arena, sizeof *data);
    if (!data) {
        u->failed = true;
        return TERSE_NO_VALUE;
    }
    *data = (float)x;
    const int value = terse_graph_add_constant(u->graph, name, TERSE_FP32, 0, NULL, data);
    u->failed = u->failed || value < 0;
    return value;
}

static void set_float(unfusing *u, int node, const char *name, double x)
{
    u->failed = u->failed || !terse_node_set_float(u->graph, &u->graph->nodes[node], name, x);
}

/* x -> output by the activation that the node named; false for a stranger. */
static bool activate(unfusing *u, const char *kind, double alpha, double beta, int x, int output)
{
    if (strcmp(kind, "Clip") == 0 && alpha == 0 && isinf(beta)) {
        append(u, TERSE_OP_RELU, "relu", &x, 1, output);
    } else if (strcmp(kind, "Clip") == 0) {
        const int low = isinf(alpha) ? TERSE_NO_VALUE : number(u, "min", alpha);
        const int high = isinf(beta) ? TERSE_NO_VALUE : number(u, "max", beta);
        append(u, TERSE_OP_CLIP, "clip", (const int[]){x, low, high}, high >= 0 ? 3 : low >= 0 ? 2 : 1, output);
    } else if (strcmp(kind, "Swish") == 0) {
        const int gate = between(u, "gate");
        append(u, TERSE_OP_SIGMOID, "gate", &x, 1, gate);
        append(u, TERSE_OP_MUL, "swish", (const int[]){x, gate}, 2, output);
    } else if (strcmp(kind, "LeakyRelu") == 0) {
        set_float(u, append(u, TERSE_OP_LEAKY_RELU, "leaky", &x, 1, output), "alpha", alpha);
    } else if (strcmp(kind, "HardSigmoid") == 0) {
        const int node = append(u, TERSE_OP_HARD_SIGMOID, "gate", &x, 1, output);
        set_float(u, node, "alpha", alpha);
        set_float(u, node, "beta", beta);
    } else if (strcmp(kind, "Gelu") == 0) {
        const int node = append(u, TERSE_OP_GELU, "gelu", &x, 1, output);
        u->failed = u->failed || !terse_node_set_text(u->graph, &u->graph->nodes[node], "approximate", "none");
    } else {
        const terse_op op = terse_op_from_name(kind, strlen(kind));
        if (op != TERSE_OP_SIGMOID && op != TERSE_OP_TANH && op != TERSE_OP_HARD_SWISH)
            return false;
        append(u, op, "activation", &x, 1, output);
    }
    return true;
}

static void drop(terse_node *node, const char *name)
{
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) == 0) {
            memmove(&node->attrs[i], &node->attrs[i + 1], (size_t)(node->n_attrs - i - 1) * sizeof *node->attrs);
            node->n_attrs--;
            return;
        }
}

static int input_of(const terse_node *node, int slot)
{
    return slot < node->n_inputs ? node->inputs[slot] : TERSE_NO_VALUE;
}

static int unfuse_node(unfusing *u, terse_error *error)
{
    const terse_node *node = &u->graph->nodes[u->node];
    const bool matmul = node->op == TERSE_OP_MATMUL;
    if (!matmul && node->op != TERSE_OP_CONV && node->op != TERSE_OP_GEMM)
        return TERSE_OK;
    const int bias = matmul ? input_of(node, 2) : TERSE_NO_VALUE, residual = input_of(node, 3);
    const char *kind = terse_node_text(node, "activation", NULL);
    const double alpha = terse_node_float(node, "activation_alpha", 0),
                 beta = terse_node_float(node, "activation_beta", 0);
    const int output = node->n_outputs > 0 ? node->outputs[0] : TERSE_NO_VALUE;
    if (output < 0 || (bias < 0 && residual < 0 && !kind))
        return TERSE_OK;
    u->output = output;
    int x = between(u, "product");
    terse_node *product = &u->graph->nodes[u->node];
    product->n_inputs = matmul ? 2 : product->n_inputs > 3 ? 3 : product->n_inputs;
    product->outputs[0] = x;
    if (bias >= 0 && !u->failed) {
        const int sum = residual >= 0 || kind ? between(u, "biased") : output;
        append(u, TERSE_OP_ADD, "bias", (const int[]){x, bias}, 2, sum);
        x = sum;
    }
    if (residual >= 0 && !u->failed) {
        const int sum = kind ? between(u, "sum") : output;
        append(u, TERSE_OP_ADD, "residual", (const int[]){x, residual}, 2, sum);
        x = sum;
    }
    if (kind && !u->failed && !activate(u, kind, alpha, beta, x, output))
        return terse_fail(error, TERSE_UNIMPLEMENTED, "node '%s' (%s): activation '%.60s' is not known",
                          u->graph->nodes[u->node].name, terse_op_name(u->graph->nodes[u->node].op), kind);
    drop(&u->graph->nodes[u->node], "activation");
    drop(&u->graph->nodes[u->node], "activation_alpha");
    drop(&u->graph->nodes[u->node], "activation_beta");
    return TERSE_OK;
}

int terse_unfuse(const terse_graph *graph, terse_graph **ret_graph, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *copy = NULL;
    int status = terse_edit_clone(graph, &copy, error);
    unfusing u = {.graph = copy};
    for (int n = 0, n_nodes = copy ? copy->n_nodes : 0; n < n_nodes && status == TERSE_OK; n++) {
        u.node = n;
        status = unfuse_node(&u, error);
        if (status == TERSE_OK && u.failed)
            status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a copy of %d nodes", n_nodes);
    }
    if (status == TERSE_OK)
        status = terse_graph_sort(copy, error);
    if (status == TERSE_OK)
        *ret_graph = TERSE_TAKE(copy);
    return status;
}
