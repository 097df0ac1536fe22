/* SPDX-License-Identifier: Apache-2.0 */
/* The layouts are those of common/tensor.h: columns in panels of 16, zeros behind the last one. Constants that several
 * nodes share are packed once. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"
#include "compress/passes/winograd.h"

#include <stdlib.h>

enum { PANEL = 16 };

/* One matrix B[k][n], element (i,j) at from[i * stride_k + j * stride_n], into [ceil(n/16)][k][16]. */
static float *pack_panels(const float *from, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, float *to)
{
    for (int64_t j = 0; j < n; j += PANEL)
        for (int64_t i = 0; i < k; i++, to += PANEL)
            for (int64_t l = 0; l < PANEL && j + l < n; l++)
                to[l] = from[i * stride_k + (j + l) * stride_n];
    return to;
}

/* [filters][channels][kernel] by groups; a row of the packed matrix is (kernel position, channel). */
static void pack_filters(const terse_value *weights, int64_t groups, float *to)
{
    const int64_t filters = weights->dims[0] / groups, channels = weights->dims[1];
    const int64_t kernel = terse_dims_count(weights->dims + 2, weights->rank - 2), k = channels * kernel;
    const float *from = weights->data;
    for (int64_t g = 0; g < groups; g++, from += filters * k)
        for (int64_t j = 0; j < filters; j += PANEL)
            for (int64_t p = 0; p < kernel; p++)
                for (int64_t c = 0; c < channels; c++, to += PANEL)
                    for (int64_t l = 0; l < PANEL && j + l < filters; l++)
                        to[l] = from[(j + l) * k + c * kernel + p];
}

static void pack_depthwise(const terse_value *weights, float *to)
{
    const int64_t channels = weights->dims[0], wide = (channels + PANEL - 1) / PANEL * PANEL;
    const int64_t kernel = terse_dims_count(weights->dims + 2, weights->rank - 2);
    const float *from = weights->data;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t p = 0; p < kernel; p++)
            to[p * wide + c] = from[c * kernel + p];
}

/* A constant in `layout` with the ONNX dims of `weights`; -1 when that does not go together. */
static int packed(terse_edit *edit, int weights, terse_layout layout, int64_t groups)
{
    const terse_value old = edit->graph->values[weights];
    const int64_t bytes = terse_layout_bytes(layout, old.dtype, old.rank, old.dims, groups);
    float *to = bytes < 0 ? NULL : terse_edit_alloc(edit, (size_t)bytes); /* zeroed */
    if (!to)
        return -1;
    if (layout == TERSE_LAYOUT_F32_DW16)
        pack_depthwise(&old, to);
    else if (layout == TERSE_LAYOUT_F32_WINOGRAD4)
        terse_pass_winograd_pack(&old, to);
    else if (old.rank == 2)
        pack_panels(old.data, old.dims[1], 1, old.dims[0], old.dims[1], to);
    else
        pack_filters(&old, groups, to);
    const int made = terse_edit_add_constant(edit, old.name, TERSE_FP32, old.rank, old.dims, to);
    if (made < 0)
        return -1;
    terse_value *value = &edit->graph->values[made];
    value->layout = layout;
    value->groups = groups;
    value->bytes = (size_t)bytes;
    value->origin = layout == TERSE_LAYOUT_F32_WINOGRAD4 ? old.data : NULL;
    return made;
}

/* The layout that a node wants for its weights; PLAIN when none. */
static terse_layout wanted_layout(const terse_edit *edit, int node, int64_t *ret_groups)
{
    const terse_node *n = &edit->graph->nodes[node];
    *ret_groups = 1;
    if ((n->op != TERSE_OP_CONV && n->op != TERSE_OP_GEMM && n->op != TERSE_OP_MATMUL) ||
        !terse_edit_is_weighted(edit, node))
        return TERSE_LAYOUT_PLAIN;
    if (n->op == TERSE_OP_MATMUL || (n->op == TERSE_OP_GEMM && terse_node_int(n, "transA", 0) == 0))
        return TERSE_LAYOUT_F32_N16;
    if (n->op != TERSE_OP_CONV || terse_node_int(n, "channels_last", 0) == 0)
        return TERSE_LAYOUT_PLAIN;
    const terse_value *weights = &edit->graph->values[n->inputs[1]];
    const int64_t groups = terse_node_int(n, "group", 1);
    const bool depthwise = weights->dims[0] == groups && weights->dims[1] == 1 && groups > 1;
    *ret_groups = depthwise ? 1 : groups;
    if (!depthwise && terse_pass_winograd_wins(edit->graph, n))
        return TERSE_LAYOUT_F32_WINOGRAD4;
    return depthwise ? TERSE_LAYOUT_F32_DW16 : TERSE_LAYOUT_F32_N16;
}

int terse_pass_pack(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    const int n_values = graph->n_values;
    TERSE_AUTO(terse_freep) int *done = malloc(((size_t)n_values + 1) * sizeof *done);
    edit.failed = !done;
    for (int v = 0; done && v < n_values; v++)
        done[v] = -1;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        int64_t groups;
        const terse_layout layout = wanted_layout(&edit, node, &groups);
        if (layout == TERSE_LAYOUT_PLAIN)
            continue;
        const int weights = terse_edit_input(&edit, node, 1);
        const terse_value *shared = done[weights] < 0 ? NULL : &graph->values[done[weights]];
        const int made = shared && shared->layout == layout && shared->groups == groups
                             ? done[weights]
                             : packed(&edit, weights, layout, groups);
        if (made < 0)
            continue;
        done[weights] = made;
        terse_edit_set_input(&edit, node, 1, made);
    }
    return terse_edit_close(&edit, error);
}
