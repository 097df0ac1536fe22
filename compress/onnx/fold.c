/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include "common/graph/plan.h"

#include <stdlib.h>
#include <string.h>

/* What folding may cost. A result may be a few times larger than what it is made of; all results together may add
 * GROWTH to the file, and all of them may take MACS to compute. */
enum { FREE_BYTES = 64 << 10, FACTOR = 4, GROWTH = 16 << 20, MAX_PART = 64 };
#define MACS ((int64_t)4e9)

typedef struct folding {
    terse_graph *graph;
    const terse_kernels *kernels;
    int64_t macs_left;
    size_t growth_left;
    /* Integer lists of which only some elements are fixed, twice: with one stand-in for the others and with another. */
    terse_tensor *parts[2];
    bool changed;
} folding;

static terse_tensor constant_view(const terse_value *value)
{
    return terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
}

static void become_constant(folding *fold, int index, const terse_tensor *tensor)
{
    terse_value *value = &fold->graph->values[index];
    value->dtype = tensor->dtype;
    value->rank = tensor->rank;
    memcpy(value->dims, tensor->dims, sizeof value->dims);
    value->data = tensor->data;
    value->bytes = (size_t)terse_tensor_bytes(tensor);
    value->layout = TERSE_LAYOUT_PLAIN;
    value->groups = 1;
}

/* Whether the result is worth its bytes and its work; takes them from what is left. */
static bool affordable(folding *fold, const terse_node *node, const terse_tensor *const *inputs, terse_arena *arena)
{
    const terse_op_impl *impl = terse_op_find(node->op);
    terse_tensor *outputs = calloc((size_t)node->n_outputs + 1, sizeof *outputs);
    terse_op_plan plan = {.node = node,
                          .kernels = fold->kernels,
                          .n_inputs = node->n_inputs,
                          .n_outputs = node->n_outputs,
                          .inputs = inputs,
                          .outputs = outputs,
                          .arena = arena};
    bool yes = outputs && impl && terse_evaluate_plan(impl, &plan, NULL) == TERSE_OK;
    if (yes) {
        const int64_t macs = terse_macs_count(node, inputs, node->n_inputs, &outputs[0]);
        const size_t bytes = terse_evaluate_bytes(&plan) - plan.scratch_bytes;
        size_t from = 0;
        for (int i = 0; i < node->n_inputs; i++)
            from += inputs[i] ? (size_t)terse_tensor_bytes(inputs[i]) : 0;
        const size_t growth = bytes > from ? bytes - from : 0;
        yes = bytes <= FREE_BYTES + FACTOR * from && growth <= fold->growth_left && macs <= fold->macs_left &&
              plan.scratch_bytes <= ((size_t)64 << 20);
        if (yes) {
            fold->macs_left -= macs;
            fold->growth_left -= growth;
        }
    }
    free(outputs);
    return yes;
}

/* All inputs are constants: the node's outputs become some. What fails on its values is left for the run to report.
 * Quantized weights stay bytes: whoever reads them as such finds them behind their DequantizeLinear. */
static int fold_node(folding *fold, terse_node *node, terse_error *error)
{
    if (node->op == TERSE_OP_DEQUANTIZE_LINEAR)
        return TERSE_OK;
    terse_tensor views[TERSE_MAX_NODE_IO], made[TERSE_MAX_NODE_IO];
    const terse_tensor *inputs[TERSE_MAX_NODE_IO];
    for (int i = 0; i < node->n_inputs; i++) {
        inputs[i] = NULL;
        if (node->inputs[i] < 0)
            continue;
        const terse_value *value = &fold->graph->values[node->inputs[i]];
        if (!value->data || value->layout != TERSE_LAYOUT_PLAIN)
            return TERSE_OK;
        views[i] = constant_view(value);
        inputs[i] = &views[i];
    }
    terse_arena *scratch = terse_arena_new();
    if (!scratch)
        return terse_onnx_no_memory(error);
    const bool done =
        affordable(fold, node, inputs, scratch) &&
        terse_node_evaluate(node, fold->kernels, inputs, fold->graph->arena, (size_t)1 << 40, made, NULL) == TERSE_OK;
    terse_arena_free(scratch);
    if (!done)
        return TERSE_OK;
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0)
            become_constant(fold, node->outputs[i], &made[i]);
    node->op = TERSE_OP_COUNT;
    fold->changed = true;
    return TERSE_OK;
}

/* Shape of a value whose dimensions are stated. Symbols become numbers that differ between the two variants; where
 * nothing differs the result is a constant. */
static void start_part(folding *fold, terse_node *node)
{
    terse_graph *graph = fold->graph;
    const terse_value *input = node->inputs[0] >= 0 ? &graph->values[node->inputs[0]] : NULL;
    if (!input || input->rank < 0 || input->dtype == TERSE_DTYPE_NONE || node->outputs[0] < 0)
        return;
    for (int variant = 0; variant < 2; variant++) {
        int64_t dims[TERSE_MAX_RANK] = {0};
        for (int i = 0; i < input->rank; i++)
            dims[i] = input->dims[i] >= 0 ? input->dims[i] : variant + 1;
        const terse_tensor view = terse_tensor_view(NULL, input->dtype, input->rank, dims);
        terse_tensor made;
        if (terse_node_evaluate(node, fold->kernels, (const terse_tensor *[]){&view}, graph->arena, 4096, &made,
                                NULL) != TERSE_OK)
            return;
        fold->parts[variant][node->outputs[0]] = made;
    }
}

/* Operators that only move elements: an element that is the same in both variants comes from a fixed one. */
static bool only_moves(const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_GATHER:
    case TERSE_OP_SLICE:
    case TERSE_OP_CONCAT:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
    case TERSE_OP_RESHAPE:
    case TERSE_OP_SPLIT:
        return true;
    case TERSE_OP_CAST:
        return terse_node_int(node, "to", 0) == TERSE_INT64 || terse_node_int(node, "to", 0) == TERSE_INT32;
    default:
        return false;
    }
}

/* One variant of a node over constants and parts; false when there is no part among its inputs, or anything unknown. */
static bool move_part(folding *fold, const terse_node *node, int variant, terse_tensor *made)
{
    const terse_op_impl *impl = terse_op_find(node->op);
    terse_tensor views[MAX_PART];
    const terse_tensor *inputs[MAX_PART];
    bool any = false;
    if (node->n_inputs > MAX_PART || node->n_outputs > MAX_PART || !impl)
        return false;
    for (int i = 0; i < node->n_inputs; i++) {
        inputs[i] = NULL;
        if (node->inputs[i] < 0)
            continue;
        const terse_value *value = &fold->graph->values[node->inputs[i]];
        const terse_tensor *part = &fold->parts[variant][node->inputs[i]];
        if (value->data)
            views[i] = constant_view(value);
        else if (part->data && !(impl->value_inputs >> i & 1u) && !(node->op == TERSE_OP_GATHER && i > 0))
            views[i] = *part;
        else
            return false;
        any = any || !value->data;
        if (terse_tensor_count(&views[i]) > MAX_PART)
            return false;
        inputs[i] = &views[i];
    }
    return any && terse_node_evaluate(node, fold->kernels, inputs, fold->graph->arena, 65536, made, NULL) == TERSE_OK;
}

static void follow_part(folding *fold, const terse_node *node)
{
    terse_tensor made[2][MAX_PART];
    if (!only_moves(node) || !move_part(fold, node, 0, made[0]) || !move_part(fold, node, 1, made[1]))
        return;
    for (int i = 0; i < node->n_outputs; i++)
        for (int variant = 0; variant < 2 && node->outputs[i] >= 0; variant++)
            fold->parts[variant][node->outputs[i]] = made[variant][i];
}

/* Outputs that are the same in both variants are constants. */
static void settle_parts(folding *fold, terse_node *node)
{
    bool all = true;
    for (int i = 0; i < node->n_outputs; i++) {
        const int v = node->outputs[i];
        if (v < 0)
            continue;
        const terse_tensor *a = &fold->parts[0][v], *b = &fold->parts[1][v];
        all = all && a->data && b->data && a->rank == b->rank &&
              memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0 &&
              memcmp(a->data, b->data, (size_t)terse_tensor_bytes(a)) == 0;
    }
    if (!all)
        return;
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0)
            become_constant(fold, node->outputs[i], &fold->parts[0][node->outputs[i]]);
    node->op = TERSE_OP_COUNT;
    fold->changed = true;
}

static int fold_all(folding *fold, terse_error *error)
{
    terse_graph *graph = fold->graph;
    for (int n = 0; n < graph->n_nodes; n++) {
        terse_node *node = &graph->nodes[n];
        if (terse_node_attr(node, TERSE_ONNX_BROADCAST_AXIS))
            continue;
        if (node->op == TERSE_OP_SHAPE && node->n_inputs == 1 && node->n_outputs == 1)
            start_part(fold, node);
        else
            follow_part(fold, node);
        settle_parts(fold, node);
        const int status = node->op == TERSE_OP_COUNT ? TERSE_OK : fold_node(fold, node, error);
        if (status != TERSE_OK)
            return status;
    }
    return TERSE_OK;
}

int terse_onnx_fold(terse_graph *graph, bool *ret_changed, terse_error *error)
{
    const size_t n = (size_t)graph->n_values + 1;
    TERSE_AUTO(terse_freep) terse_tensor *first = calloc(n, sizeof *first);
    TERSE_AUTO(terse_freep) terse_tensor *second = calloc(n, sizeof *second);
    if (!first || !second)
        return terse_onnx_no_memory(error);
    folding fold = {.graph = graph,
                    .kernels = terse_kernels_of(TERSE_ISA_SCALAR),
                    .macs_left = MACS,
                    .growth_left = GROWTH,
                    .parts = {first, second}};
    int status = fold_all(&fold, error);
    if (status == TERSE_OK)
        status = terse_graph_prune(graph, error);
    if (status == TERSE_OK && ret_changed)
        *ret_changed = fold.changed;
    return status;
}
