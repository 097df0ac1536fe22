/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Whether sparse weights are faster depends on the machine, on how many blocks are left, and on what else
 * the layer could be (Winograd). So the network is made ready twice, as it would be without sparse layouts and with all
 * that can have one, and both are run in turn; what is slower stays dense. Layers are found by name: a finished graph
 * has other nodes than the one that was pruned. */
#include "compress/prune/prune.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sparse.h"
#include "compress/passes/passes.h"
#include "compress/tune.h"

/* Without measuring: sparse where so few blocks are left (bytes, FP32), or the layer would be Winograd, and where there
 * are so many inputs and outputs that finding the inputs is little of the work. */
static const double rule_bytes = 0.35, rule_float = 0.5, rule_winograd = 0.25, rule_half = 0.25;
enum { RULE_INPUTS = 64, RULE_OUTPUTS = 32 };
/* Sparse must need less than this share of the dense time; of BF16, whose neighbours then turn numbers into FP32. */
static const double worth = 0.97, worth_half = 0.85;

static terse_prune_layer *find_layer(terse_prune_report *report, const char *name)
{
    for (int i = 0; i < report->n; i++)
        if (report->layers[i].pruned && strcmp(report->layers[i].name, name) == 0)
            return &report->layers[i];
    return NULL;
}

/* --- from a packed constant to a sparse one ------------------------------------------------------------------------
 */

/* The element of column n and row k of a packed constant; K in the order of the sparse layouts. */
static int64_t packed_at(const terse_value *w, int64_t k_size, int64_t n, int64_t k)
{
    if (w->layout == TERSE_LAYOUT_F32_N16)
        return (n / 16 * k_size + k) * 16 + n % 16;
    const int64_t row = w->rank == 2 ? k_size : w->dims[1] * w->dims[w->rank - 1], steps = (row + 3) / 4;
    return ((n / 16 * (k_size / row) + k / row) * steps + k % row / 4) * 64 + n % 16 * 4 + k % row % 4;
}

static terse_layout sparse_layout(const terse_graph *graph, const terse_node *n)
{
    const bool bytes = n->op == TERSE_OP_QCONV || n->op == TERSE_OP_QGEMM;
    const bool floats = n->op == TERSE_OP_CONV || n->op == TERSE_OP_GEMM || n->op == TERSE_OP_MATMUL;
    if (n->n_inputs < 2 || n->inputs[1] < 0 || terse_node_int(n, "group", 1) != 1)
        return TERSE_LAYOUT_PLAIN;
    const terse_value *w = &graph->values[n->inputs[1]];
    if (!w->data || w->groups != 1)
        return TERSE_LAYOUT_PLAIN;
    return bytes && w->layout == TERSE_LAYOUT_S8_N16K4   ? TERSE_LAYOUT_S8_4X1
           : floats && w->layout == TERSE_LAYOUT_F32_N16 ? TERSE_LAYOUT_F32_4X1
                                                         : TERSE_LAYOUT_PLAIN;
}

static bool convert(terse_edit *edit, int node, terse_layout layout)
{
    const terse_value old = edit->graph->values[edit->graph->nodes[node].inputs[1]];
    const size_t size = terse_dtype_size(old.dtype);
    int64_t k, n;
    if (!terse_sparse_sides(old.rank, old.dims, &k, &n))
        return false;
    TERSE_AUTO(terse_freep) char *w = malloc((size_t)(k * n) * size + 1);
    for (int64_t j = 0; w && j < n; j++)
        for (int64_t i = 0; i < k; i++)
            memcpy(w + (size_t)(j * k + i) * size, (const char *)old.data + (size_t)packed_at(&old, k, j, i) * size,
                   size);
    size_t bytes;
    TERSE_AUTO(terse_freep) void *packed = w ? terse_sparse_pack(layout, w, k, n, &bytes) : NULL;
    void *data = packed ? terse_edit_alloc(edit, bytes) : NULL;
    const int made = data ? terse_edit_add_constant(edit, old.name, old.dtype, old.rank, old.dims, data) : -1;
    if (made < 0) {
        edit->failed = true;
        return false;
    }
    memcpy(data, packed, bytes);
    terse_value *value = &edit->graph->values[made];
    value->layout = layout;
    value->groups = 1;
    value->bytes = bytes;
    terse_edit_set_input(edit, node, 1, made);
    return true;
}

/* All pruned layers of a finished graph that can be sparse, or only those that are to be. */
static int convert_layers(terse_graph *graph, terse_prune_report *report, bool all, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        terse_prune_layer *layer = find_layer(report, graph->nodes[node].name);
        const terse_layout layout = layer ? sparse_layout(graph, &graph->nodes[node]) : TERSE_LAYOUT_PLAIN;
        if (layout != TERSE_LAYOUT_PLAIN && (all || layer->sparse))
            convert(&edit, node, layout);
        if (layer && !all) /* a node that became one of bytes is another one */
            terse_prune_mark(&edit, node, report->kind, layer->kept);
    }
    return terse_edit_close(&edit, error);
}

int terse_prune_pack(terse_graph *graph, terse_prune_report *report, terse_error *error)
{
    return convert_layers(graph, report, false, error);
}

/* --- the choice -----------------------------------------------------------------------------------------------------
 */

static bool can_be_sparse(const terse_prune_layer *layer)
{
    return layer->pruned && layer->kept < 0.9;
}

/* Convolutions of `layers` that can be sparse lie as panels: Winograd's weights are all but sparse. */
static int set_direct(terse_graph *graph, terse_prune_report *report, bool all, terse_error *error)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        terse_node *n = &graph->nodes[i];
        const terse_prune_layer *layer = n->op == TERSE_OP_CONV ? find_layer(report, n->name) : NULL;
        if (layer && (all ? can_be_sparse(layer) : layer->sparse) &&
            !terse_node_set_text(graph, n, "algorithm", "direct"))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer's algorithm");
    }
    return TERSE_OK;
}

/* Layers of the graph that are to be sparse are no longer to be BF16. */
static int unmark(terse_graph *graph, terse_prune_report *report, bool all, terse_error *error)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        terse_node *n = &graph->nodes[i];
        const terse_prune_layer *layer = terse_node_attr(n, "float") ? find_layer(report, n->name) : NULL;
        if (layer && (all ? can_be_sparse(layer) : layer->sparse) && !terse_node_set_text(graph, n, "float", "fp32"))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer's type");
    }
    return TERSE_OK;
}

/* `sparse`: with all layers that can be. */
static int finished(const terse_graph *graph, terse_prune_report *report, bool sparse, terse_graph **ret_graph,
                    terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *clone = NULL;
    int status = terse_edit_clone(graph, &clone, error);
    if (status == TERSE_OK && sparse)
        status = set_direct(clone, report, true, error);
    if (status == TERSE_OK && sparse)
        status = unmark(clone, report, true, error);
    if (status == TERSE_OK)
        status = terse_passes_run(clone, TERSE_PASSES_FINISH, error);
    if (status == TERSE_OK && sparse)
        status = convert_layers(clone, report, true, error);
    if (status == TERSE_OK)
        *ret_graph = TERSE_TAKE(clone);
    return status;
}

static int node_named(const terse_graph *graph, const char *name)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (strcmp(graph->nodes[i].name, name) == 0 && graph->nodes[i].n_inputs > 1 && graph->nodes[i].inputs[1] >= 0)
            return i;
    return -1;
}

static bool is_sparse(const terse_graph *graph, int node)
{
    return node >= 0 && terse_sparse_layout(graph->values[graph->nodes[node].inputs[1]].layout);
}

static void decide(terse_prune_layer *layer, const terse_graph *dense, const terse_graph *sparse,
                   const uint64_t *dense_ns, const uint64_t *sparse_ns)
{
    const int a = node_named(dense, layer->name), b = node_named(sparse, layer->name);
    const size_t at = strlen(layer->reason), room = sizeof layer->reason - at;
    char *more = layer->reason + at;
    if (a < 0 || !is_sparse(sparse, b)) {
        snprintf(more, room, "; runs dense: it has no sparse form there");
        return;
    }
    if (!dense_ns) {
        const terse_value *w = &dense->values[dense->nodes[a].inputs[1]];
        const terse_layout layout = w->layout;
        int64_t k = 0, n = 0;
        if (!terse_sparse_sides(w->rank, w->dims, &k, &n) || k < RULE_INPUTS || n < RULE_OUTPUTS) {
            snprintf(more, room, "; runs dense: too small");
            return;
        }
        const double limit = layout == TERSE_LAYOUT_S8_N16K4        ? rule_bytes
                             : layout == TERSE_LAYOUT_BF16_N16K2    ? rule_half
                             : layout == TERSE_LAYOUT_F32_WINOGRAD4 ? rule_winograd
                                                                    : rule_float;
        layer->sparse = layer->kept <= limit;
        if (!layer->sparse)
            snprintf(more, room, "; runs dense: more than %.0f %% kept", 100.0 * limit);
        return;
    }
    layer->us_dense = (double)dense_ns[a] / 1000.0;
    layer->us_sparse = (double)sparse_ns[b] / 1000.0;
    const bool half = dense->values[dense->nodes[a].inputs[1]].layout == TERSE_LAYOUT_BF16_N16K2;
    layer->sparse = layer->us_sparse < (half ? worth_half : worth) * layer->us_dense;
    if (!layer->sparse)
        snprintf(more, room, "; runs dense: sparse takes %.1f us, dense %.1f", layer->us_sparse, layer->us_dense);
}

/* Why a layer that is pruned cannot be sparse; NULL: it can. */
static const char *why_dense(const terse_prune_report *report, const terse_prune_layer *layer)
{
    if (report->kind != TERSE_PRUNE_4X1)
        return "only 4x1 blocks are faster sparse";
    if (report->beside == TERSE_PRUNE_BESIDE_WEIGHTS)
        return "weights of 8 or 4 bits with FP32 activations have no sparse form, --quantize int8 has";
    return can_be_sparse(layer) ? NULL : "more than 90 % kept";
}

int terse_prune_choose(terse_graph *graph, bool measure, terse_prune_report *report, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *dense = NULL, *sparse = NULL;
    TERSE_AUTO(terse_freep) uint64_t *dense_ns = NULL, *sparse_ns = NULL;
    bool any = false;
    if (report->kind == TERSE_PRUNE_CHANNELS)
        return TERSE_OK;
    for (int i = 0; i < report->n; i++) {
        terse_prune_layer *layer = &report->layers[i];
        const char *why = layer->pruned ? why_dense(report, layer) : NULL;
        const size_t at = strlen(layer->reason);
        if (why)
            snprintf(layer->reason + at, sizeof layer->reason - at, "; runs dense: %s", why);
        any = any || (layer->pruned && !why);
    }
    if (!any)
        return TERSE_OK;
    int status = finished(graph, report, false, &dense, error);
    if (status == TERSE_OK)
        status = finished(graph, report, true, &sparse, error);
    if (status == TERSE_OK && measure)
        status = terse_tune_times(dense, sparse, &dense_ns, &sparse_ns, error);
    for (int i = 0; i < report->n && status == TERSE_OK; i++)
        if (can_be_sparse(&report->layers[i]))
            decide(&report->layers[i], dense, sparse, dense_ns, sparse_ns);
    return status == TERSE_OK ? set_direct(graph, report, false, error) : status;
}

int terse_prune_unmark(terse_graph *graph, terse_prune_report *report, terse_error *error)
{
    return unmark(graph, report, false, error);
}

/* --- the file -------------------------------------------------------------------------------------------------------
 */

bool terse_prune_wants_packing(const terse_prune_report *report)
{
    bool any = false;
    for (int i = 0; i < report->n && report->kind != TERSE_PRUNE_CHANNELS; i++)
        any = any || (report->layers[i].pruned && !report->layers[i].sparse);
    return any;
}

void terse_prune_stored(const terse_graph *graph, const terse_model_packed *packed, terse_prune_report *report)
{
    for (int i = 0; i < report->n; i++) {
        terse_prune_layer *layer = &report->layers[i];
        const int node = layer->pruned ? node_named(graph, layer->name) : -1;
        const terse_value *w = node < 0 ? NULL : &graph->values[graph->nodes[node].inputs[1]];
        if (!w || !w->data)
            continue;
        const terse_model_packed *p = packed ? &packed[graph->nodes[node].inputs[1]] : NULL;
        layer->bytes_memory = layer->bytes_stored = (int64_t)w->bytes;
        layer->stored[0] = 0;
        if (!p || !p->data)
            continue;
        layer->bytes_stored = (int64_t)p->bytes;
        terse_encoding_text(p->encoding, layer->stored);
    }
}
