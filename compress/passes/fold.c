/* SPDX-License-Identifier: Apache-2.0 */
/* y = conv(x) followed by y * s + t, with one s and t per output channel, is a convolution with weights w * s and bias
 * b * s + t; computed here in double. The same for ConvTranspose, Gemm and MatMul. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A product or convolution that scales may go into. Channels are on `axis` of its output. */
typedef struct host {
    int node, axis;
    int64_t channels;
} host;

/* Vectors of one number per channel that the folds share, and what they know of the graph. */
typedef struct room {
    int64_t channels;
    double *scale, *shift;
    unsigned convolution_ranks;
} room;

/* The node that makes `value` when its weights are constant, nobody else reads it and nothing is fused behind it.
 * Quantized weights are left alone: such a product takes a bias only (`shift_only`). */
static bool find_host(const terse_edit *edit, int value, bool shift_only, host *ret_host)
{
    const int node = value < 0 ? -1 : edit->producer[value];
    if (node < 0 || edit->uses[value] != 1 ||
        !(terse_edit_is_weighted(edit, node) || (shift_only && terse_edit_is_bytes_product(edit, node))))
        return false;
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *weights = &edit->graph->values[n->inputs[1]];
    const int bias = terse_edit_input(edit, node, 2);
    if (terse_node_attr(n, "activation") || terse_edit_input(edit, node, 3) >= 0)
        return false;
    host found = {.node = node, .axis = 1};
    if (n->op == TERSE_OP_CONV) {
        found.channels = weights->dims[0];
    } else if (n->op == TERSE_OP_CONV_TRANSPOSE) {
        found.channels = weights->dims[1] * terse_node_int(n, "group", 1);
    } else {
        found.axis = edit->graph->values[value].rank - 1;
        found.channels = weights->dims[n->op == TERSE_OP_GEMM && terse_node_int(n, "transB", 0) != 0 ? 0 : 1];
        if (bias >= 0 && n->op == TERSE_OP_GEMM && terse_node_float(n, "beta", 1.0) != 1.0)
            return false;
    }
    if (bias >= 0) { /* a vector that we can change */
        const terse_value *b = &edit->graph->values[bias];
        if (!terse_edit_floats(edit, bias) || b->rank != 1 || b->dims[0] != found.channels)
            return false;
    }
    *ret_host = found;
    return true;
}

static bool scale_weights(terse_edit *edit, const host *h, const double *scale)
{
    const terse_node *node = &edit->graph->nodes[h->node];
    const terse_value old = edit->graph->values[node->inputs[1]];
    const int64_t count = (int64_t)(old.bytes / sizeof(float));
    const float *from = old.data;
    float *to = terse_edit_alloc(edit, old.bytes);
    if (!to)
        return false;
    if (node->op == TERSE_OP_CONV) {
        const int64_t per_channel = count / h->channels;
        for (int64_t i = 0; i < count; i++)
            to[i] = (float)((double)from[i] * scale[i / per_channel]);
    } else if (node->op == TERSE_OP_CONV_TRANSPOSE) { /* [C_in, C_out / group, k...]: C_in runs over the groups */
        const int64_t group = terse_node_int(node, "group", 1), per_group = old.dims[1];
        const int64_t per_input = count / old.dims[0], kernel = per_input / per_group;
        const int64_t inputs_per_group = old.dims[0] / (group > 0 ? group : 1);
        for (int64_t i = 0; i < count; i++)
            to[i] =
                (float)((double)from[i] * scale[i / per_input / inputs_per_group * per_group + i % per_input / kernel]);
    } else {
        for (int64_t i = 0; i < count; i++)
            to[i] = (float)((double)from[i] * scale[i % h->channels]);
    }
    terse_edit_set_input(edit, h->node, 1, terse_edit_add_constant(edit, old.name, TERSE_FP32, old.rank, old.dims, to));
    return !edit->failed;
}

/* scale may be NULL (1 everywhere), shift may be NULL (0 everywhere). */
static void scale_shift(terse_edit *edit, const host *h, const double *scale, const double *shift)
{
    const int bias = terse_edit_input(edit, h->node, 2);
    const float *old = terse_edit_floats(edit, bias);
    if (scale && !scale_weights(edit, h, scale))
        return;
    if (!old && !shift)
        return;
    float *to = terse_edit_alloc(edit, (size_t)h->channels * sizeof *to);
    if (!to)
        return;
    for (int64_t c = 0; c < h->channels; c++)
        to[c] = (float)((old ? (double)old[c] : 0.0) * (scale ? scale[c] : 1.0) + (shift ? shift[c] : 0.0));
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s.bias", edit->graph->nodes[h->node].name);
    const char *kept = old ? edit->graph->values[bias].name : name;
    terse_edit_set_input(edit, h->node, 2, terse_edit_add_constant(edit, kept, TERSE_FP32, 1, &h->channels, to));
}

static bool all_finite(const double *numbers, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(numbers[i]) || fabs(numbers[i]) > 1e30)
            return false;
    return true;
}

/* One number per channel out of a constant that broadcasts over a tensor of `rank` with `channels` on `axis`. */
static bool channel_vector(const terse_edit *edit, int value, int rank, int axis, int64_t channels, double *ret_vector)
{
    const float *data = terse_edit_floats(edit, value);
    if (!data)
        return false;
    const terse_value *v = &edit->graph->values[value];
    if (v->rank > rank || v->bytes == 0)
        return false;
    bool per_channel = false;
    for (int i = 0; i < v->rank; i++) {
        const int at = i + rank - v->rank;
        if (v->dims[i] == 1)
            continue;
        if (at != axis || v->dims[i] != channels)
            return false;
        per_channel = true;
    }
    for (int64_t c = 0; c < channels; c++)
        ret_vector[c] = (double)data[per_channel ? c : 0];
    return true;
}

/* x * scale + shift of a BatchNormalization with constant statistics. */
static bool batch_norm_vectors(const terse_edit *edit, int node, int64_t channels, double *scale, double *shift)
{
    const double epsilon = terse_node_float(&edit->graph->nodes[node], "epsilon", 1e-5);
    const float *data[4];
    for (int i = 0; i < 4; i++) {
        const int value = terse_edit_input(edit, node, i + 1);
        data[i] = terse_edit_floats(edit, value);
        if (!data[i] || edit->graph->values[value].bytes != (size_t)channels * sizeof(float))
            return false;
    }
    for (int64_t c = 0; c < channels; c++) {
        scale[c] = (double)data[0][c] / sqrt((double)data[3][c] + epsilon);
        shift[c] = (double)data[1][c] - (double)data[2][c] * scale[c];
    }
    return all_finite(scale, channels) && all_finite(shift, channels);
}

/* A depthwise 1x1 convolution does x * scale + shift in one pass, and takes an activation along. */
static void batch_norm_to_conv(terse_edit *edit, int node, int64_t channels, const double *scale, const double *shift)
{
    terse_graph *graph = edit->graph;
    const int x = terse_edit_input(edit, node, 0), y = graph->nodes[node].outputs[0];
    const int rank = graph->values[x].rank;
    int64_t dims[TERSE_MAX_RANK], kernel[TERSE_MAX_RANK];
    for (int i = 0; i < rank; i++)
        dims[i] = kernel[i] = 1;
    dims[0] = channels;
    float *w = terse_edit_alloc(edit, (size_t)channels * sizeof *w);
    float *b = terse_edit_alloc(edit, (size_t)channels * sizeof *b);
    if (!w || !b)
        return;
    for (int64_t c = 0; c < channels; c++) {
        w[c] = (float)scale[c];
        b[c] = (float)shift[c];
    }
    const char *name = graph->nodes[node].name;
    char text[TERSE_MAX_NAME];
    snprintf(text, sizeof text, "%.900s.scale", name);
    const int weights = terse_edit_add_constant(edit, text, TERSE_FP32, rank, dims, w);
    snprintf(text, sizeof text, "%.900s.shift", name);
    const int bias = terse_edit_add_constant(edit, text, TERSE_FP32, 1, &channels, b);
    terse_edit_remove(edit, node);
    const int conv = terse_edit_add_node(edit, TERSE_OP_CONV, name, (int[]){x, weights, bias}, 3, &y, 1);
    if (conv >= 0 && (!terse_node_set_int(graph, &graph->nodes[conv], "group", channels) ||
                      !terse_node_set_ints(graph, &graph->nodes[conv], "kernel_shape", kernel, rank - 2)))
        edit->failed = true;
}

static void fold_batch_norm(terse_edit *edit, int node, const room *r)
{
    double *scale = r->scale, *shift = r->shift;
    const int x = terse_edit_input(edit, node, 0);
    if (x < 0 || edit->graph->values[x].dtype != TERSE_FP32 || edit->graph->values[x].rank < 2)
        return;
    const int64_t channels = edit->graph->values[x].dims[1];
    host h;
    if (channels < 1 || channels > r->channels || !batch_norm_vectors(edit, node, channels, scale, shift))
        return;
    const int rank = edit->graph->values[x].rank;
    if (find_host(edit, x, false, &h) && h.axis == 1 && h.channels == channels) {
        scale_shift(edit, &h, scale, shift);
        terse_edit_take_output(edit, h.node, node);
    } else if (rank >= 3 && rank <= 5 && (r->convolution_ranks >> rank & 1u)) {
        batch_norm_to_conv(edit, node, channels, scale, shift);
    }
}

/* Add, Sub, Mul or Div of a host's output and a constant per channel. */
static void fold_arithmetic(terse_edit *edit, int node, const room *r)
{
    double *scale = r->scale, *shift = r->shift;
    const terse_op op = edit->graph->nodes[node].op;
    host h;
    int side = 0; /* where the host's output is */
    const int y = edit->graph->nodes[node].outputs[0];
    if (edit->graph->nodes[node].n_inputs != 2 || y < 0)
        return;
    if (!find_host(edit, terse_edit_input(edit, node, 0), op == TERSE_OP_ADD || op == TERSE_OP_SUB, &h)) {
        side = 1;
        if (op == TERSE_OP_DIV || !find_host(edit, terse_edit_input(edit, node, 1), op == TERSE_OP_ADD, &h))
            return;
    }
    const int x = terse_edit_input(edit, node, side);
    const int rank = edit->graph->values[x].rank;
    if (h.channels < 1 || h.channels > r->channels || !terse_edit_same_shape(edit, x, y) ||
        !channel_vector(edit, terse_edit_input(edit, node, 1 - side), rank, h.axis, h.channels, shift))
        return;
    for (int64_t c = 0; c < h.channels; c++) {
        const double number = shift[c];
        scale[c] = op == TERSE_OP_MUL ? number : op == TERSE_OP_DIV ? 1.0 / number : 1.0;
        shift[c] = op == TERSE_OP_ADD ? number : op == TERSE_OP_SUB ? -number : 0.0;
        if (op == TERSE_OP_SUB && side == 1) { /* constant - product */
            scale[c] = -1.0;
            shift[c] = number;
        }
    }
    if (!all_finite(scale, h.channels) || !all_finite(shift, h.channels))
        return;
    const bool scales = op == TERSE_OP_MUL || op == TERSE_OP_DIV || (op == TERSE_OP_SUB && side == 1);
    const bool shifts = op == TERSE_OP_ADD || op == TERSE_OP_SUB;
    scale_shift(edit, &h, scales ? scale : NULL, shifts ? shift : NULL);
    terse_edit_take_output(edit, h.node, node);
}

/* q k^T / sqrt(d): the number goes into whatever constant product made q or k, through Reshape and Transpose. */
static void fold_product_scale(terse_edit *edit, int node, const room *r)
{
    double *scale = r->scale;
    const terse_op op = edit->graph->nodes[node].op;
    double number;
    int side = 0;
    if (edit->graph->nodes[node].n_inputs != 2 || edit->graph->nodes[node].outputs[0] < 0)
        return;
    if (!terse_edit_scalar(edit, terse_edit_input(edit, node, 1), &number)) {
        side = 1;
        if (op == TERSE_OP_DIV || !terse_edit_scalar(edit, terse_edit_input(edit, node, 0), &number))
            return;
    }
    if (op == TERSE_OP_DIV)
        number = 1.0 / number;
    const int x = terse_edit_input(edit, node, side), y = edit->graph->nodes[node].outputs[0];
    const int product = terse_edit_maker(edit, x, TERSE_OP_MATMUL);
    if (product < 0 || edit->uses[x] != 1 || !all_finite(&number, 1) || !terse_edit_same_shape(edit, x, y) ||
        terse_edit_input(edit, product, 2) >= 0 || terse_node_attr(&edit->graph->nodes[product], "activation"))
        return;
    for (int i = 0; i < 2; i++) {
        int from = terse_edit_input(edit, product, i);
        while (from >= 0 && edit->uses[from] == 1 &&
               (terse_edit_maker(edit, from, TERSE_OP_RESHAPE) >= 0 ||
                terse_edit_maker(edit, from, TERSE_OP_TRANSPOSE) >= 0))
            from = terse_edit_input(edit, edit->producer[from], 0);
        host h;
        if (!find_host(edit, from, false, &h) || h.channels > r->channels)
            continue;
        for (int64_t c = 0; c < h.channels; c++)
            scale[c] = number;
        scale_shift(edit, &h, scale, NULL);
        terse_edit_take_output(edit, product, node);
        return;
    }
}

/* Pads of the spatial axes, at the begin and the end, of a Pad with zeros that a convolution may do itself. */
static bool zero_pads(const terse_edit *edit, int pad, int rank, int64_t *begin, int64_t *end)
{
    const terse_node *node = &edit->graph->nodes[pad];
    const int fill = terse_edit_input(edit, pad, 2), axes_value = terse_edit_input(edit, pad, 3);
    double number = 0;
    int64_t pads[2 * TERSE_MAX_RANK], axes[TERSE_MAX_RANK];
    if (strcmp(terse_node_text(node, "mode", "constant"), "constant") != 0 ||
        (fill >= 0 && (!terse_edit_scalar(edit, fill, &number) || number != 0)))
        return false;
    int n_axes = rank;
    for (int i = 0; i < rank; i++) {
        axes[i] = i;
        begin[i] = end[i] = 0;
    }
    if (axes_value >= 0)
        n_axes = terse_edit_ints(edit, axes_value, axes, rank);
    if (n_axes < 0 || terse_edit_ints(edit, terse_edit_input(edit, pad, 1), pads, 2 * TERSE_MAX_RANK) != 2 * n_axes)
        return false;
    for (int i = 0; i < n_axes; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + rank : axes[i];
        const bool empty = pads[i] == 0 && pads[i + n_axes] == 0;
        if (axis < 0 || axis >= rank || pads[i] < 0 || pads[i + n_axes] < 0 || pads[i] > INT32_MAX ||
            pads[i + n_axes] > INT32_MAX || (axis < 2 && !empty))
            return false;
        begin[axis] += pads[i];
        end[axis] += pads[i + n_axes];
    }
    return true;
}

static void fold_pad(terse_edit *edit, int node)
{
    terse_graph *graph = edit->graph;
    const int x = terse_edit_input(edit, node, 0), pad = terse_edit_maker(edit, x, TERSE_OP_PAD);
    const char *automatic = terse_node_text(&graph->nodes[node], "auto_pad", "NOTSET");
    if (pad < 0 || edit->uses[x] != 1 || graph->values[x].dtype != TERSE_FP32 || graph->values[x].rank < 3 ||
        (strcmp(automatic, "NOTSET") != 0 && strcmp(automatic, "VALID") != 0))
        return;
    const int rank = graph->values[x].rank, spatial = rank - 2;
    int64_t begin[TERSE_MAX_RANK], end[TERSE_MAX_RANK], sum[2 * TERSE_MAX_RANK];
    if (!zero_pads(edit, pad, rank, begin, end))
        return;
    const terse_attr *own = terse_node_attr(&graph->nodes[node], "pads");
    if (own && (own->kind != TERSE_ATTR_INTS || own->n != 2 * spatial))
        return;
    for (int i = 0; i < spatial; i++) {
        const bool adds = own && strcmp(automatic, "VALID") != 0;
        sum[i] = begin[i + 2] + (adds ? own->ints[i] : 0);
        sum[i + spatial] = end[i + 2] + (adds ? own->ints[i + spatial] : 0);
    }
    terse_edit_set_input(edit, node, 0, terse_edit_input(edit, pad, 0));
    terse_edit_remove(edit, pad);
    if (!terse_node_set_ints(graph, &graph->nodes[node], "pads", sum, 2 * spatial) ||
        !terse_node_set_text(graph, &graph->nodes[node], "auto_pad", "NOTSET"))
        edit->failed = true;
}

static void fold_node(terse_edit *edit, int node, const room *r)
{
    switch (edit->graph->nodes[node].op) {
    case TERSE_OP_BATCH_NORMALIZATION:
        fold_batch_norm(edit, node, r);
        return;
    case TERSE_OP_MUL:
    case TERSE_OP_DIV:
        fold_arithmetic(edit, node, r);
        if (edit->graph->nodes[node].op != TERSE_OP_COUNT && !edit->failed)
            fold_product_scale(edit, node, r);
        return;
    case TERSE_OP_ADD:
    case TERSE_OP_SUB:
        fold_arithmetic(edit, node, r);
        return;
    case TERSE_OP_CONV:
        fold_pad(edit, node);
        return;
    default:
        return;
    }
}

int terse_pass_fold(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    room r = {.channels = (int64_t)1 << 20,
              .convolution_ranks = terse_edit_convolution_ranks(graph)}; /* no layer has more */
    TERSE_AUTO(terse_freep) double *vectors = malloc(2 * (size_t)r.channels * sizeof *vectors);
    edit.failed = !vectors;
    r.scale = vectors;
    r.shift = vectors ? vectors + r.channels : NULL;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++)
        fold_node(&edit, node, &r);
    return terse_edit_close(&edit, error);
}
