/* SPDX-License-Identifier: Apache-2.0 */
/* The float graph of a scheme becomes one with QuantizeLinear and DequantizeLinear, as `lower` and ONNX have it:
 *
 *     v (FP32) -> QuantizeLinear -> UINT8 -> DequantizeLinear -> nodes that read its bytes
 *     INT8 weights -> DequantizeLinear (one scale per output channel) -> the product
 *
 * All tensors of a group read the very same constants for scale and zero point. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/scheme.h"

typedef struct insertion {
    terse_edit edit;
    const terse_scheme *scheme;
    const terse_affine *affine;
    int *scales, *zero_points; /* per value that stands for a group: its constants, or -1 */
    int *readable;             /* per value: what nodes read in its place, or -1 */
} insertion;

static void group_constants(insertion *in, int root)
{
    if (in->scales[root] >= 0)
        return;
    float *scale = terse_edit_alloc(&in->edit, sizeof *scale);
    uint8_t *zero_point = terse_edit_alloc(&in->edit, sizeof *zero_point);
    if (!scale || !zero_point)
        return;
    *scale = in->affine[root].scale;
    *zero_point = (uint8_t)in->affine[root].zero_point;
    char name[TERSE_MAX_NAME];
    const char *value = in->edit.graph->values[root].name;
    snprintf(name, sizeof name, "%.900s/scale", value);
    in->scales[root] = terse_edit_add_constant(&in->edit, name, TERSE_FP32, 0, NULL, scale);
    snprintf(name, sizeof name, "%.900s/zero_point", in->edit.graph->values[root].name);
    in->zero_points[root] = terse_edit_add_constant(&in->edit, name, TERSE_UINT8, 0, NULL, zero_point);
}

/* The value as bytes, before they are turned into FP32 again: a QuantizeLinear, or the bytes of a constant. */
static int bytes_of(insertion *in, int value)
{
    terse_graph *graph = in->edit.graph;
    const int root = in->scheme->group[value];
    const terse_value from = graph->values[value];
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s/bytes", from.name);
    if (from.data) {
        const int64_t n = terse_dims_count(from.dims, from.rank);
        uint8_t *q = terse_edit_alloc(&in->edit, (size_t)n);
        if (!q)
            return -1;
        const terse_affine a = in->affine[root];
        for (int64_t i = 0; i < n; i++)
            q[i] = (uint8_t)terse_affine_quantize(a, (double)((const float *)from.data)[i]);
        return terse_edit_add_constant(&in->edit, name, TERSE_UINT8, from.rank, from.dims, q);
    }
    const int bytes = terse_edit_add_value(&in->edit, name, TERSE_UINT8, from.rank, from.dims);
    snprintf(name, sizeof name, "quantize %.900s", from.name);
    terse_edit_add_node(&in->edit, TERSE_OP_QUANTIZE_LINEAR, name,
                        (int[]){value, in->scales[root], in->zero_points[root]}, 3, &bytes, 1);
    return bytes;
}

static void quantize_value(insertion *in, int value)
{
    terse_graph *graph = in->edit.graph;
    const int root = in->scheme->group[value];
    group_constants(in, root);
    const int bytes = bytes_of(in, value);
    if (bytes < 0 || in->edit.failed)
        return;
    const int readable = terse_edit_add_like(&in->edit, value, "/read");
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "dequantize %.900s", graph->values[value].name);
    terse_edit_add_node(&in->edit, TERSE_OP_DEQUANTIZE_LINEAR, name,
                        (int[]){bytes, in->scales[root], in->zero_points[root]}, 3, &readable, 1);
    in->readable[value] = readable;
}

static void quantize_weights(insertion *in, int node, const terse_int8_weights *weights)
{
    terse_graph *graph = in->edit.graph;
    const int axis = terse_scheme_channel_axis(&graph->nodes[node]);
    const int constant = graph->nodes[node].inputs[1];
    const terse_value w = graph->values[constant];
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s/int8", w.name);
    const int q = terse_edit_add_constant(&in->edit, name, TERSE_INT8, w.rank, w.dims, weights->q);
    snprintf(name, sizeof name, "%.900s/scales", w.name);
    const int scales = terse_edit_add_constant(&in->edit, name, TERSE_FP32, 1, &w.dims[axis], weights->scales);
    const int readable = terse_edit_add_value(&in->edit, w.name, TERSE_FP32, w.rank, w.dims);
    snprintf(name, sizeof name, "dequantize %.900s", w.name);
    const int dequantize =
        terse_edit_add_node(&in->edit, TERSE_OP_DEQUANTIZE_LINEAR, name, (int[]){q, scales}, 2, &readable, 1);
    if (dequantize < 0)
        return;
    if (!terse_node_set_int(graph, &graph->nodes[dequantize], "axis", axis))
        in->edit.failed = true;
    terse_edit_set_input(&in->edit, node, 1, readable);
    graph->nodes[node].compression = "int8";
    if (weights->codes > 0) {
        snprintf(name, sizeof name, "int8, %d codes", weights->codes);
        graph->nodes[node].compression = terse_arena_text(graph->arena, name, strlen(name));
        in->edit.failed = in->edit.failed || !graph->nodes[node].compression;
    }
}

int terse_scheme_insert(terse_graph *graph, const terse_scheme *scheme, const terse_affine *affine,
                        const terse_int8_weights *weights, terse_error *error)
{
    insertion in = {.scheme = scheme, .affine = affine};
    const int n_values = graph->n_values, n_nodes = graph->n_nodes;
    TERSE_AUTO(terse_freep) int *table = malloc(3 * ((size_t)n_values + 1) * sizeof *table);
    if (!table)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d values", n_values);
    memset(table, -1, 3 * ((size_t)n_values + 1) * sizeof *table);
    in.scales = table;
    in.zero_points = table + n_values + 1;
    in.readable = table + 2 * (n_values + 1);
    const int status = terse_edit_open(graph, &in.edit, error);
    if (status != TERSE_OK)
        return status;
    for (int v = 0; v < n_values && !in.edit.failed; v++)
        if (scheme->demanded[v])
            quantize_value(&in, v);
    for (int n = 0; n < n_nodes && !in.edit.failed; n++) {
        for (int i = 0; i < graph->nodes[n].n_inputs; i++)
            if (terse_scheme_reads_bytes(scheme, n, i))
                terse_edit_set_input(&in.edit, n, i, in.readable[graph->nodes[n].inputs[i]]);
        if (scheme->kinds[n] == TERSE_SCHEME_PRODUCT)
            quantize_weights(&in, n, &weights[n]);
    }
    return terse_edit_close(&in.edit, error);
}
