/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/prune.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_K = 16 }; /* of fewer inputs nothing is taken: there is nothing to gain */

void terse_prune_report_done(terse_prune_report *report)
{
    free(report->layers);
    *report = (terse_prune_report){0};
}

static terse_prune_layer *add_layer(terse_prune_report *report, const terse_edit *edit, int node)
{
    if (report->n == report->capacity) {
        const int wanted = report->capacity ? 2 * report->capacity : 64;
        terse_prune_layer *layers = realloc(report->layers, (size_t)wanted * sizeof *layers);
        if (!layers)
            return NULL;
        report->layers = layers;
        report->capacity = wanted;
    }
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *w = &edit->graph->values[n->inputs[1]], *y = &edit->graph->values[n->outputs[0]];
    terse_prune_layer *layer = &report->layers[report->n++];
    *layer = (terse_prune_layer){.op = n->op, .kept = 1.0, .error = -1.0};
    snprintf(layer->name, sizeof layer->name, "%s", n->name[0] ? n->name : y->name);
    terse_dims_text(w->dims, w->rank, layer->shape, sizeof layer->shape);
    return layer;
}

/* Whether a weighted node can be pruned; else the reason. */
static bool select_layer(const terse_edit *edit, int node, terse_prune_layer *layer)
{
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *w = &edit->graph->values[n->inputs[1]];
    const int64_t groups =
        n->op == TERSE_OP_CONV || n->op == TERSE_OP_CONV_TRANSPOSE ? terse_node_int(n, "group", 1) : 1;
    const int64_t outputs = n->op == TERSE_OP_CONV ? w->dims[0] : w->dims[1];
    const int64_t k = terse_dims_count(w->dims, w->rank) / (outputs ? outputs : 1);
    if (n->op == TERSE_OP_CONV_TRANSPOSE)
        snprintf(layer->reason, sizeof layer->reason, "a transposed convolution has no sparse form");
    else if (groups != 1)
        snprintf(layer->reason, sizeof layer->reason, "%" PRId64 " groups, only one can be pruned", groups);
    else if (edit->uses[n->inputs[1]] > 1)
        snprintf(layer->reason, sizeof layer->reason, "its weights are another layer's too");
    else if (k < LEAST_K || outputs < 4)
        snprintf(layer->reason, sizeof layer->reason, "%" PRId64 " inputs by %" PRId64 " outputs, %d by 4 are needed",
                 k, outputs, LEAST_K);
    else
        return true;
    return false;
}

/* The weights as [outputs][K], in memory of the graph. */
static bool read_matrix(terse_edit *edit, int node, terse_prune_matrix *ret_matrix)
{
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *w = &edit->graph->values[n->inputs[1]];
    const float *from = w->data;
    terse_prune_matrix m = {.n = n->op == TERSE_OP_CONV ? w->dims[0] : w->dims[1]};
    m.k = terse_dims_count(w->dims, w->rank) / m.n;
    m.w = terse_edit_alloc(edit, (size_t)(m.n * m.k) * sizeof *m.w);
    if (!m.w)
        return false;
    if (n->op == TERSE_OP_CONV)
        memcpy(m.w, from, (size_t)(m.n * m.k) * sizeof *m.w);
    for (int64_t i = 0; n->op != TERSE_OP_CONV && i < m.k; i++)
        for (int64_t j = 0; j < m.n; j++)
            m.w[j * m.k + i] = from[i * m.n + j];
    *ret_matrix = m;
    return true;
}

/* The matrix in the order that the node's weights have. */
static float *write_matrix(terse_edit *edit, int node, const terse_prune_matrix *m)
{
    if (edit->graph->nodes[node].op == TERSE_OP_CONV)
        return m->w;
    float *to = terse_edit_alloc(edit, (size_t)(m->n * m->k) * sizeof *to);
    for (int64_t j = 0; to && j < m->n; j++)
        for (int64_t i = 0; i < m->k; i++)
            to[i * m->n + j] = m->w[j * m->k + i];
    return to;
}

static int prune_layer(terse_edit *edit, int node, const terse_prune_options *options, terse_prune_layer *layer)
{
    terse_prune_matrix m;
    if (!select_layer(edit, node, layer))
        return TERSE_OK;
    if (!read_matrix(edit, node, &m))
        return TERSE_RESOURCE_EXHAUSTED;
    const double kept = terse_prune_by_magnitude(&m, options->kind, options->amount);
    float *weights = kept < 0 ? NULL : write_matrix(edit, node, &m);
    if (!weights)
        return TERSE_RESOURCE_EXHAUSTED;
    const terse_value old = edit->graph->values[edit->graph->nodes[node].inputs[1]];
    const int made = terse_edit_add_constant(edit, old.name, TERSE_FP32, old.rank, old.dims, weights);
    if (made < 0)
        return TERSE_RESOURCE_EXHAUSTED;
    terse_edit_set_input(edit, node, 1, made);
    layer->pruned = true;
    layer->kept = kept;
    snprintf(layer->reason, sizeof layer->reason, "magnitude");
    terse_prune_mark(edit, node, options->kind, kept);
    return TERSE_OK;
}

int terse_prune_run(terse_graph *graph, const terse_npz *data, const terse_prune_options *options,
                    terse_prune_report *ret_report, terse_error *error)
{
    (void)data;
    terse_edit edit;
    int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    terse_prune_report report = {.kind = options->kind, .amount = options->amount};
    for (int node = 0, n = graph->n_nodes; node < n && status == TERSE_OK && !edit.failed; node++) {
        if (!terse_edit_is_weighted(&edit, node))
            continue;
        terse_prune_layer *layer = add_layer(&report, &edit, node);
        if (!layer || prune_layer(&edit, node, options, layer) != TERSE_OK)
            edit.failed = true;
    }
    status = terse_edit_close(&edit, error);
    if (status != TERSE_OK) {
        terse_prune_report_done(&report);
        return status;
    }
    *ret_report = report;
    return TERSE_OK;
}
