/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Which values become BF16 is decided in two walks over the nodes. Forwards: could it be (a product makes
 * it, or an operator that hands BF16 on, and its rows keep pairs)? Backwards: does anybody want it so? Then products
 * are replaced; whoever else reads a BF16 value gets a Cast. Products round FP32 operands themselves.
 *
 * Left in FP32: grouped convolutions, products with an odd K, weights that BF16 cannot hold, inputs and outputs of the
 * network. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/kernels/bf16.h"
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

static const char MARK[] = "float";

int terse_pass_bf16_mark(terse_graph *graph, terse_error *error)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        terse_node *node = &graph->nodes[i];
        const bool product = node->op == TERSE_OP_CONV || node->op == TERSE_OP_GEMM || node->op == TERSE_OP_MATMUL;
        if (product && !terse_node_set_text(graph, node, MARK, "bf16"))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    }
    return TERSE_OK;
}

typedef struct halving {
    terse_edit edit;
    bool *half, *wanted; /* per value: can be BF16; is read as BF16 by somebody */
    int *wide;           /* per value: its Cast to FP32, or -1 */
    int *narrow;         /* per value: its Cast to BF16, or -1 */
    int *packed[2];      /* per value: weights in BF16, or -1; [1]: as filters of a depthwise convolution */
    int n_values;
} halving;

static bool is_depthwise(const terse_node *node, const terse_value *w)
{
    const int64_t groups = terse_node_int(node, "group", 1);
    return groups > 1 && w->dims[0] == groups && w->dims[1] == 1;
}

static bool holds(const terse_value *w)
{
    const float *data = w->data;
    for (size_t i = 0; i < w->bytes / sizeof *data; i++)
        if (!(fabsf(data[i]) < 1e38f))
            return false;
    return true;
}

static bool is_marked_product(const halving *h, int index)
{
    const terse_node *node = &h->edit.graph->nodes[index];
    if (strcmp(terse_node_text(node, MARK, ""), "bf16") != 0 || !terse_edit_is_weighted(&h->edit, index))
        return false;
    const terse_value *w = &h->edit.graph->values[node->inputs[1]];
    if (w->layout != TERSE_LAYOUT_PLAIN || !holds(w))
        return false;
    if (node->op == TERSE_OP_CONV)
        return terse_node_int(node, "channels_last", 0) != 0 &&
               (terse_node_int(node, "group", 1) == 1 || is_depthwise(node, w));
    const int bias = terse_edit_input(&h->edit, index, 2);
    const terse_value *b = bias < 0 ? NULL : &h->edit.graph->values[bias];
    return (node->op == TERSE_OP_MATMUL || (node->op == TERSE_OP_GEMM && terse_node_int(node, "transA", 0) == 0)) &&
           w->dims[0] % 2 == 0 && (!b || (b->rank == 1 && b->dims[0] == w->dims[1]));
}

/* The same elements in another shape. */
static bool is_view(const terse_node *node)
{
    return node->op == TERSE_OP_RESHAPE || node->op == TERSE_OP_FLATTEN || node->op == TERSE_OP_SQUEEZE ||
           node->op == TERSE_OP_UNSQUEEZE;
}

static bool has_even_rows(const terse_value *value)
{
    return value->rank >= 1 && value->dims[value->rank - 1] > 0 && value->dims[value->rank - 1] % 2 == 0;
}

/* Parts of even rows only, so that each of them keeps pairs where it lies in the whole. */
static bool joins_pairs(const halving *h, const terse_node *node)
{
    const terse_value *values = h->edit.graph->values;
    const int64_t axis = terse_node_int(node, "axis", 0);
    bool even = axis == -1 || axis == values[node->outputs[0]].rank - 1;
    for (int i = 0; i < node->n_inputs; i++)
        even = even && node->inputs[i] >= 0 && has_even_rows(&values[node->inputs[i]]);
    return even;
}

/* Operators that take BF16 in input 0 (Concat: in all) and hand it on. */
static bool hands_on(const halving *h, const terse_node *node)
{
    switch (node->op) {
    case TERSE_OP_MAX_POOL:
    case TERSE_OP_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_MAX_POOL:
        return node->n_outputs == 1 && terse_node_int(node, "channels_last", 0) != 0;
    case TERSE_OP_CONCAT:
        return joins_pairs(h, node);
    default:
        return is_view(node);
    }
}

/* The value that a node makes could be BF16. */
static bool could_be_half(const halving *h, int index)
{
    const terse_node *node = &h->edit.graph->nodes[index];
    if (node->n_outputs < 1 || node->outputs[0] < 0 || node->n_inputs < 1 || node->inputs[0] < 0 ||
        !(is_view(node) || has_even_rows(&h->edit.graph->values[node->outputs[0]])))
        return false;
    if (is_marked_product(h, index))
        return true;
    if (!hands_on(h, node))
        return false;
    for (int i = 0; i < (node->op == TERSE_OP_CONCAT ? node->n_inputs : 1); i++)
        if (node->inputs[i] < 0 || !h->half[node->inputs[i]])
            return false;
    return true;
}

static void decide(halving *h)
{
    const terse_graph *graph = h->edit.graph;
    for (int i = 0; i < graph->n_nodes; i++)
        if (could_be_half(h, i))
            h->half[graph->nodes[i].outputs[0]] = true;
    for (int i = 0; i < graph->n_outputs; i++)
        h->half[graph->outputs[i]] = false;
    /* A network's output that is read on is FP32 for all: what hands it on hands on FP32. */
    for (int i = 0; i < graph->n_nodes; i++) {
        const terse_node *node = &graph->nodes[i];
        if (node->n_outputs > 0 && node->outputs[0] >= 0 && h->half[node->outputs[0]] && !could_be_half(h, i))
            h->half[node->outputs[0]] = false;
    }
    for (int i = graph->n_nodes - 1; i >= 0; i--) {
        const terse_node *node = &graph->nodes[i];
        if (node->n_outputs < 1 || node->outputs[0] < 0)
            continue;
        const int y = node->outputs[0];
        const bool product = is_marked_product(h, i);
        /* Depthwise kernels give BF16 only. */
        const bool depthwise =
            product && node->op == TERSE_OP_CONV && is_depthwise(node, &graph->values[node->inputs[1]]);
        h->half[y] = h->half[y] && (h->wanted[y] || depthwise);
        if (product)
            h->wanted[node->inputs[0]] = true;
        if (product && h->half[y] && node->n_inputs > 3 && node->inputs[3] >= 0)
            h->wanted[node->inputs[3]] = true;
        for (int k = 0; !product && h->half[y] && k < node->n_inputs; k++)
            if (node->inputs[k] >= 0 && (k == 0 || node->op == TERSE_OP_CONCAT))
                h->wanted[node->inputs[k]] = true;
    }
}

/* `value` in the dtype that a reader needs. */
static int as(halving *h, int value, bool half)
{
    if (value < 0 || value >= h->n_values || h->half[value] == half)
        return value;
    int *made = half ? &h->narrow[value] : &h->wide[value];
    if (*made >= 0)
        return *made;
    terse_edit *edit = &h->edit;
    const int y = terse_edit_add_like(edit, value, half ? "/bf16" : "/fp32");
    if (y < 0)
        return value;
    edit->graph->values[y].dtype = half ? TERSE_BF16 : TERSE_FP32;
    const int node =
        terse_edit_add_node(edit, TERSE_OP_CAST, edit->graph->values[value].name, (int[]){value}, 1, (int[]){y}, 1);
    if (node < 0 || !terse_node_set_int(edit->graph, &edit->graph->nodes[node], "to", half ? TERSE_BF16 : TERSE_FP32))
        edit->failed = true;
    return *made = y;
}

/* [ceil(n/16)][k/2][16][2] from element (i, j) at from[i * stride_k + j * stride_n]; `k` elements exist. */
static void pack_pairs(const float *from, int64_t stride_k, int64_t stride_n, int64_t k, int64_t n, int64_t panel_size,
                       uint16_t *to)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            to[j / 16 * panel_size + i / 2 * 32 + j % 16 * 2 + i % 2] = bf16_from(from[i * stride_k + j * stride_n]);
}

/* Weights of a product; -1 when there is no memory. Odd channels get one of zeros more. */
static int pack_dense(terse_edit *edit, const terse_value *old)
{
    const bool matrix = old->rank == 2;
    int64_t dims[TERSE_MAX_RANK];
    memcpy(dims, old->dims, sizeof dims);
    dims[1] += matrix ? 0 : dims[1] % 2;
    const int64_t bytes = terse_layout_bytes(TERSE_LAYOUT_BF16_N16K2, TERSE_BF16, old->rank, dims, 1);
    uint16_t *to = bytes < 0 ? NULL : terse_edit_alloc(edit, (size_t)bytes); /* zeroed */
    if (!to)
        return -1;
    const float *from = old->data;
    if (matrix) {
        pack_pairs(from, old->dims[1], 1, old->dims[0], old->dims[1], old->dims[0] * 16, to);
    } else {
        const int64_t positions = terse_dims_count(old->dims + 2, old->rank - 2), channels = old->dims[1];
        for (int64_t p = 0; p < positions; p++)
            pack_pairs(from + p, positions, channels * positions, channels, old->dims[0], positions * dims[1] * 16,
                       to + p * dims[1] * 16);
    }
    const int made = terse_edit_add_constant(edit, old->name, TERSE_BF16, old->rank, dims, to);
    if (made >= 0) {
        edit->graph->values[made].layout = TERSE_LAYOUT_BF16_N16K2;
        edit->graph->values[made].bytes = (size_t)bytes;
    }
    return made;
}

static int pack_depthwise(terse_edit *edit, const terse_value *old)
{
    const int64_t bytes = terse_layout_bytes(TERSE_LAYOUT_F32_DW16, TERSE_FP32, old->rank, old->dims, 1);
    float *to = bytes < 0 ? NULL : terse_edit_alloc(edit, (size_t)bytes);
    if (!to)
        return -1;
    const int64_t channels = old->dims[0], positions = terse_dims_count(old->dims + 2, old->rank - 2);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t p = 0; p < positions; p++)
            to[p * ((channels + 15) / 16 * 16) + c] = ((const float *)old->data)[c * positions + p];
    const int made = terse_edit_add_constant(edit, old->name, TERSE_FP32, old->rank, old->dims, to);
    if (made >= 0) {
        edit->graph->values[made].layout = TERSE_LAYOUT_F32_DW16;
        edit->graph->values[made].bytes = (size_t)bytes;
    }
    return made;
}

/* Drops the attributes that only Gemm has. */
static void keep_attributes(terse_node *node)
{
    static const char *const gone[] = {"alpha", "beta", "transA", "transB"};
    int kept = 0;
    for (int i = 0; i < node->n_attrs; i++) {
        bool keep = true;
        for (size_t g = 0; g < sizeof gone / sizeof gone[0]; g++)
            keep = keep && strcmp(node->attrs[i].name, gone[g]) != 0;
        if (keep)
            node->attrs[kept++] = node->attrs[i];
    }
    node->n_attrs = kept;
}

static void drop_mark(terse_node *node)
{
    int kept = 0;
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, MARK) != 0)
            node->attrs[kept++] = node->attrs[i];
    node->n_attrs = kept;
}

static void replace_product(halving *h, int index)
{
    terse_edit *edit = &h->edit;
    terse_graph *graph = edit->graph;
    const int weights = graph->nodes[index].inputs[1], y = graph->nodes[index].outputs[0];
    const bool conv = graph->nodes[index].op == TERSE_OP_CONV, half = h->half[y];
    const bool depthwise = conv && is_depthwise(&graph->nodes[index], &graph->values[weights]);
    if (depthwise && !half)
        return; /* an output of the network */
    int *packed = &h->packed[depthwise][weights];
    if (*packed < 0) {
        const terse_value old = graph->values[weights];
        *packed = depthwise ? pack_depthwise(edit, &old) : pack_dense(edit, &old);
    }
    if (*packed < 0)
        return;
    const int residual = terse_edit_input(edit, index, 3), x = terse_edit_input(edit, index, 0);
    const bool narrow = h->half[x] || depthwise;
    terse_edit_set_input(edit, index, 0, as(h, x, narrow));
    terse_edit_set_input(edit, index, 1, *packed);
    if (residual >= 0)
        terse_edit_set_input(edit, index, 3, as(h, residual, half));
    terse_node *node = &graph->nodes[index];
    node->op = conv ? TERSE_OP_BCONV : TERSE_OP_BGEMM;
    keep_attributes(node);
    const char *before = node->compression ? node->compression : "";
    char text[TERSE_MAX_NAME];
    snprintf(text, sizeof text, "%.900s%sbf16", before, *before ? ", " : "");
    node->compression = terse_arena_text(graph->arena, text, strlen(text));
    if (!node->compression || !terse_node_set_text(graph, node, "to", half ? "bf16" : "f32"))
        edit->failed = true;
}

/* Everybody but products: BF16 where it is handed on, FP32 elsewhere. */
static void replace_inputs(halving *h, int index)
{
    terse_graph *graph = h->edit.graph;
    const terse_node *node = &graph->nodes[index];
    const bool on = node->n_outputs > 0 && node->outputs[0] >= 0 && h->half[node->outputs[0]];
    for (int i = 0; i < graph->nodes[index].n_inputs && !h->edit.failed; i++) {
        const int value = graph->nodes[index].inputs[i];
        if (value < 0 || value >= h->n_values || !h->half[value] ||
            (on && (i == 0 || graph->nodes[index].op == TERSE_OP_CONCAT)))
            continue;
        terse_edit_set_input(&h->edit, index, i, as(h, value, false));
    }
}

/* A depthwise product that stays in FP32 makes no BF16. */
static void rewrite(halving *h)
{
    terse_graph *graph = h->edit.graph;
    for (int node = 0, n = graph->n_nodes; node < n && !h->edit.failed; node++)
        if (is_marked_product(h, node))
            replace_product(h, node);
    for (int node = 0, n = graph->n_nodes; node < n && !h->edit.failed; node++)
        if (graph->nodes[node].op != TERSE_OP_BCONV && graph->nodes[node].op != TERSE_OP_BGEMM &&
            graph->nodes[node].op != TERSE_OP_CAST)
            replace_inputs(h, node);
    for (int node = 0; node < graph->n_nodes; node++)
        drop_mark(&graph->nodes[node]);
    for (int v = 0; v < h->n_values && !h->edit.failed; v++)
        if (h->half[v])
            graph->values[v].dtype = TERSE_BF16;
}

static bool has_marks(const terse_graph *graph)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (terse_node_attr(&graph->nodes[i], MARK))
            return true;
    return false;
}

int terse_pass_bf16(terse_graph *graph, terse_error *error)
{
    if (!has_marks(graph))
        return TERSE_OK;
    halving h = {.n_values = graph->n_values};
    const int status = terse_edit_open(graph, &h.edit, error);
    if (status != TERSE_OK)
        return status;
    const size_t n = (size_t)graph->n_values + 1;
    TERSE_AUTO(terse_freep) bool *flags = calloc(2 * n, sizeof *flags);
    TERSE_AUTO(terse_freep) int *made = malloc(4 * n * sizeof *made);
    h.edit.failed = !flags || !made;
    if (!h.edit.failed) {
        for (size_t i = 0; i < 4 * n; i++)
            made[i] = -1;
        h.half = flags;
        h.wanted = flags + n;
        h.wide = made;
        h.narrow = made + n;
        h.packed[0] = made + 2 * n;
        h.packed[1] = made + 3 * n;
        decide(&h);
        rewrite(&h);
    }
    return terse_edit_close(&h.edit, error);
}
