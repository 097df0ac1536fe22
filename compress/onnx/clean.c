/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Nodes that do nothing go by two ways: readers of the output read the input instead; or, where the output is one of
 * the graph's (whose name must stay), the input's producer makes the output itself. */
typedef struct cleanup {
    terse_graph *graph;
    int *instead;  /* per value: what is to be read in its place, itself when nothing else */
    char *outside; /* per value: 1 graph input or constant, 2 graph output, 4 both ways taken already */
} cleanup;

enum { FIXED = 1, OUTPUT = 2 };

static bool all_zero(const int64_t *values, int n)
{
    for (int i = 0; i < n; i++)
        if (values[i] != 0)
            return false;
    return true;
}

static bool is_ascending(const terse_attr *perm)
{
    for (int i = 0; i < perm->n; i++)
        if (perm->ints[i] != i)
            return false;
    return true;
}

/* Same dims for every binding. Reshapes keep the count of elements, so one symbol is proof enough; others need numbers.
 */
static bool same_dims(const terse_value *a, const terse_value *b, int symbols_allowed)
{
    if (a->rank < 0 || a->rank != b->rank)
        return false;
    int symbols = 0;
    for (int i = 0; i < a->rank; i++) {
        if (a->dims[i] != b->dims[i])
            return false;
        symbols += a->dims[i] < 0;
    }
    return symbols <= symbols_allowed;
}

static bool does_nothing(const terse_graph *graph, const terse_node *node)
{
    if (node->n_inputs < 1 || node->inputs[0] < 0 || node->n_outputs != 1 || node->outputs[0] < 0)
        return false;
    const terse_value *in = &graph->values[node->inputs[0]], *out = &graph->values[node->outputs[0]];
    int64_t pads[2 * TERSE_MAX_RANK];
    switch (node->op) {
    case TERSE_OP_IDENTITY:
        return true;
    case TERSE_OP_CAST:
        return in->dtype != TERSE_DTYPE_NONE && in->dtype == (terse_dtype)terse_node_int(node, "to", 0);
    case TERSE_OP_TRANSPOSE: {
        const terse_attr *perm = terse_node_attr(node, "perm");
        return perm && perm->kind == TERSE_ATTR_INTS && perm->n == in->rank && is_ascending(perm);
    }
    case TERSE_OP_CONCAT:
        return node->n_inputs == 1 && in->rank > 0;
    case TERSE_OP_PAD: {
        const int n =
            node->n_inputs > 1 ? terse_onnx_constant_ints(graph, node->inputs[1], pads, 2 * TERSE_MAX_RANK) : -1;
        return n > 0 && all_zero(pads, n) && same_dims(in, out, TERSE_MAX_RANK);
    }
    case TERSE_OP_RESHAPE:
    case TERSE_OP_FLATTEN:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
        return same_dims(in, out, 1);
    case TERSE_OP_EXPAND:
    case TERSE_OP_TILE:
        return same_dims(in, out, 0);
    default:
        return false;
    }
}

static int *producer_nodes(const terse_graph *graph)
{
    int *made_by = malloc((size_t)(graph->n_values + 1) * sizeof *made_by);
    for (int v = 0; made_by && v < graph->n_values; v++)
        made_by[v] = -1;
    for (int n = 0; made_by && n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_outputs; i++)
            if (graph->nodes[n].outputs[i] >= 0)
                made_by[graph->nodes[n].outputs[i]] = n;
    return made_by;
}

/* Puts `output` in place of `input` where input's producer makes it. */
static void make_directly(terse_graph *graph, int producer, int input, int output)
{
    for (int i = 0; i < graph->nodes[producer].n_outputs; i++)
        if (graph->nodes[producer].outputs[i] == input)
            graph->nodes[producer].outputs[i] = output;
}

/* In execution order, so that a chain is followed to its start as it is met. */
static void remove_idle_nodes(cleanup *cleaner, int *made_by)
{
    terse_graph *graph = cleaner->graph;
    for (int n = 0; n < graph->n_nodes; n++) {
        terse_node *node = &graph->nodes[n];
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0)
                node->inputs[i] = cleaner->instead[node->inputs[i]];
        if (!does_nothing(graph, node))
            continue;
        const int in = node->inputs[0], out = node->outputs[0];
        if (!(cleaner->outside[out] & OUTPUT)) {
            cleaner->instead[out] = in;
        } else if (!cleaner->outside[in] && made_by[in] >= 0) {
            make_directly(graph, made_by[in], in, out);
            made_by[out] = made_by[in];
            cleaner->instead[in] = out;
        } else {
            continue; /* an output that is an input, a constant or another output: the copy stays */
        }
        node->op = TERSE_OP_COUNT;
    }
    /* A value that was replaced by an output after some had been read already. */
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_inputs; i++)
            if (graph->nodes[n].inputs[i] >= 0)
                graph->nodes[n].inputs[i] = cleaner->instead[graph->nodes[n].inputs[i]];
}

static bool equal_constants(const terse_value *a, const terse_value *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank || a->bytes != b->bytes || a->layout != b->layout ||
        a->groups != b->groups)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return memcmp(a->data, b->data, a->bytes) == 0;
}

typedef struct hashed {
    uint64_t hash;
    int value;
} hashed;

static int by_hash(const void *left, const void *right)
{
    const hashed *a = left, *b = right;
    return a->hash != b->hash ? (a->hash < b->hash ? -1 : 1) : a->value - b->value;
}

/* Equal constants become one. */
static int merge_constants(cleanup *cleaner, terse_error *error)
{
    terse_graph *graph = cleaner->graph;
    TERSE_AUTO(terse_freep) hashed *all = malloc((size_t)(graph->n_values + 1) * sizeof *all);
    if (!all)
        return terse_onnx_no_memory(error);
    size_t n = 0;
    for (int v = 0; v < graph->n_values; v++) {
        const terse_value *value = &graph->values[v];
        if (value->data && !(cleaner->outside[v] & OUTPUT))
            all[n++] = (hashed){XXH3_64bits(value->data, value->bytes), v};
    }
    qsort(all, n, sizeof *all, by_hash);
    for (size_t i = 1; i < n; i++) {
        const int first = cleaner->instead[all[i - 1].value];
        if (all[i].hash == all[i - 1].hash && equal_constants(&graph->values[first], &graph->values[all[i].value]))
            cleaner->instead[all[i].value] = first;
    }
    return TERSE_OK;
}

int terse_onnx_clean(terse_graph *graph, terse_error *error)
{
    const size_t n = (size_t)graph->n_values + 1;
    TERSE_AUTO(terse_freep) int *instead = malloc(n * sizeof *instead);
    TERSE_AUTO(terse_freep) char *outside = calloc(n, 1);
    TERSE_AUTO(terse_freep) int *made_by = producer_nodes(graph);
    if (!instead || !outside || !made_by)
        return terse_onnx_no_memory(error);
    for (int v = 0; v < graph->n_values; v++) {
        instead[v] = v;
        outside[v] = graph->values[v].data ? FIXED : 0;
    }
    for (int i = 0; i < graph->n_inputs; i++)
        outside[graph->inputs[i]] |= FIXED;
    for (int i = 0; i < graph->n_outputs; i++)
        outside[graph->outputs[i]] |= OUTPUT;
    cleanup cleaner = {graph, instead, outside};
    const int status = merge_constants(&cleaner, error);
    if (status != TERSE_OK)
        return status;
    remove_idle_nodes(&cleaner, made_by);
    return terse_graph_prune(graph, error);
}
