/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A dimension is the vector of what it was under all bindings: constant, that of a symbol, or a new one. */
enum { MAX_NEW = 128 };

typedef struct naming {
    terse_graph *graph;
    const terse_onnx_probe *probe;
    int64_t seen[MAX_NEW][TERSE_ONNX_BINDINGS]; /* vectors that belong to no symbol of the inputs ... */
    int symbols[MAX_NEW];                       /* ... and the symbols made for them */
    int n_seen, next;
} naming;

static bool is_bound(const terse_onnx_probe *probe, int symbol)
{
    return symbol < probe->graph->n_symbols && terse_onnx_probe_symbol(probe, 0, symbol) >= 0;
}

/* "dim_K": the first K that the file itself does not use among its inputs. */
static int make_symbol(naming *inference)
{
    char name[32];
    for (;;) {
        snprintf(name, sizeof name, "dim_%d", inference->next++);
        bool taken = false;
        for (int s = 0; s < inference->probe->graph->n_symbols; s++)
            taken = taken || (strcmp(inference->graph->symbols[s], name) == 0 && is_bound(inference->probe, s));
        if (!taken)
            return terse_graph_symbol(inference->graph, name);
    }
}

/* The dimension that was `vector`; false when no symbol is left for it. */
static bool name_dimension(naming *inference, int n_symbols, const int64_t *vector, int64_t *ret_dim)
{
    const terse_onnx_probe *probe = inference->probe;
    const size_t bytes = (size_t)probe->n_bindings * sizeof *vector;
    bool same = true;
    for (int b = 1; b < probe->n_bindings; b++)
        same = same && vector[b] == vector[0];
    if (same) {
        *ret_dim = vector[0];
        return true;
    }
    for (int s = 0; s < n_symbols; s++) {
        bool equal = true;
        for (int b = 0; b < probe->n_bindings && equal; b++)
            equal = probe->bound[(size_t)b * (size_t)n_symbols + (size_t)s] == vector[b];
        if (equal) {
            *ret_dim = TERSE_DIM_OF_SYMBOL(s);
            return true;
        }
    }
    for (int i = 0; i < inference->n_seen; i++)
        if (memcmp(inference->seen[i], vector, bytes) == 0) {
            *ret_dim = TERSE_DIM_OF_SYMBOL(inference->symbols[i]);
            return true;
        }
    const int symbol = inference->n_seen < MAX_NEW ? make_symbol(inference) : -1;
    if (symbol < 0)
        return false;
    memcpy(inference->seen[inference->n_seen], vector, bytes);
    inference->symbols[inference->n_seen++] = symbol;
    *ret_dim = TERSE_DIM_OF_SYMBOL(symbol);
    return true;
}

/* States one value when every binding found its shape. */
static void state(naming *inference, int n_symbols, int index)
{
    const terse_onnx_probe *probe = inference->probe;
    const terse_tensor *first = terse_onnx_probe_view(probe, 0, index);
    for (int b = 0; b < probe->n_bindings; b++) {
        const terse_tensor *view = terse_onnx_probe_view(probe, b, index);
        if (view->dtype == TERSE_DTYPE_NONE || view->dtype != first->dtype || view->rank != first->rank)
            return;
    }
    int64_t dims[TERSE_MAX_RANK] = {0};
    bool named = true;
    for (int a = 0; a < first->rank && named; a++) {
        int64_t vector[TERSE_ONNX_BINDINGS] = {0};
        for (int b = 0; b < probe->n_bindings; b++)
            vector[b] = terse_onnx_probe_view(probe, b, index)->dims[a];
        named = name_dimension(inference, n_symbols, vector, &dims[a]);
    }
    terse_value *value = &inference->graph->values[index];
    value->dtype = first->dtype;
    value->rank = named ? first->rank : -1;
    memcpy(value->dims, dims, sizeof dims);
}

int terse_onnx_infer(terse_graph *graph, terse_onnx_report *report, terse_error *error)
{
    terse_error failed;
    return terse_onnx_infer_telling(graph, report, &failed, error);
}

int terse_onnx_infer_telling(terse_graph *graph, terse_onnx_report *report, terse_error *ret_failed, terse_error *error)
{
    terse_onnx_probe probe;
    const int status = terse_onnx_probe_run(graph, report, &probe, error);
    if (status != TERSE_OK)
        return status;
    TERSE_AUTO(terse_freep) naming *inference = calloc(1, sizeof *inference);
    if (!inference) {
        terse_onnx_probe_done(&probe);
        return terse_onnx_no_memory(error);
    }
    /* New symbols are added while the probe is read: it knows the first n_symbols. */
    const int n_symbols = graph->n_symbols;
    terse_graph before = *graph;
    probe.graph = &before;
    inference->graph = graph;
    inference->probe = &probe;
    for (int i = 0; i < graph->n_outputs; i++)
        if (!graph->values[graph->outputs[i]].data)
            state(inference, n_symbols, graph->outputs[i]);
    for (int n = 0; n < graph->n_nodes; n++)
        for (int i = 0; i < graph->nodes[n].n_outputs; i++)
            if (graph->nodes[n].outputs[i] >= 0)
                state(inference, n_symbols, graph->nodes[n].outputs[i]);
    if (probe.n_failed)
        *ret_failed = probe.first;
    if (report && probe.n_failed && probe.first.status != TERSE_UNIMPLEMENTED)
        terse_onnx_warn(report, "shapes could not be inferred everywhere: %s", probe.first.message);
    terse_onnx_probe_done(&probe);
    return TERSE_OK;
}
