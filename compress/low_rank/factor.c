/* SPDX-License-Identifier: Apache-2.0 */
/* Gemm, MatMul: x W -> (x first) second. Convolutions: each factor of a chain is one, none but the last has a bias, so
 * that zeros around the image stay zeros. A factor takes those strides, pads and dilations of the axes along which it
 * is wide; 1x1 factors in front of others take none, behind others none are left. A 1x1 convolution's first factor
 * takes all. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compress/low_rank/steps.h"

/* One factor of a convolution: dims of its weights, and the axes of the window that are its own. */
typedef struct link {
    const double *w; /* ONNX's order */
    int64_t filters, channels;
    bool axes[3];
} link;

static int constant(terse_edit *edit, int like, const char *suffix, const double *data, int rank, const int64_t *dims)
{
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s%s", edit->graph->values[like].name, suffix);
    const int64_t count = terse_dims_count(dims, rank);
    float *numbers = terse_edit_alloc(edit, (size_t)count * sizeof *numbers);
    for (int64_t i = 0; numbers && i < count; i++)
        numbers[i] = (float)data[i];
    return numbers ? terse_edit_add_constant(edit, name, TERSE_FP32, rank, dims, numbers) : -1;
}

/* [rows][columns] transposed: a matrix as Gemm reads it. */
static int constant_transposed(terse_edit *edit, int like, const char *suffix, const double *data, int64_t rows,
                               int64_t columns)
{
    char name[TERSE_MAX_NAME];
    snprintf(name, sizeof name, "%.900s%s", edit->graph->values[like].name, suffix);
    float *numbers = terse_edit_alloc(edit, (size_t)(rows * columns) * sizeof *numbers);
    for (int64_t i = 0; numbers && i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            numbers[j * rows + i] = (float)data[i * columns + j];
    return numbers ? terse_edit_add_constant(edit, name, TERSE_FP32, 2, (int64_t[]){columns, rows}, numbers) : -1;
}

/* Window attributes of one factor, out of those that the dense node had. */
static void set_window(terse_edit *edit, int node, const terse_node *dense, int spatial, const bool *axes,
                       const int64_t *kernel)
{
    terse_graph *graph = edit->graph;
    static const char *const names[] = {"strides", "dilations"};
    int64_t numbers[6];
    bool good = true;
    for (int a = 0; a < 2; a++) {
        const terse_attr *was = terse_node_attr(dense, names[a]);
        for (int i = 0; i < spatial; i++)
            numbers[i] = axes[i] && was && was->kind == TERSE_ATTR_INTS && was->n == spatial ? was->ints[i] : 1;
        good = good && terse_node_set_ints(graph, &graph->nodes[node], names[a], numbers, spatial);
    }
    const terse_attr *pads = terse_node_attr(dense, "pads");
    for (int i = 0; i < 2 * spatial; i++)
        numbers[i] =
            axes[i % spatial] && pads && pads->kind == TERSE_ATTR_INTS && pads->n == 2 * spatial ? pads->ints[i] : 0;
    good = good && terse_node_set_ints(graph, &graph->nodes[node], "pads", numbers, 2 * spatial);
    for (int i = 0; i < spatial; i++)
        numbers[i] = axes[i] ? kernel[i] : 1;
    good = good && terse_node_set_ints(graph, &graph->nodes[node], "kernel_shape", numbers, spatial);
    bool any = false;
    for (int i = 0; i < spatial; i++)
        any = any || axes[i];
    /* SAME pads an axis of size and stride 1 by nothing */
    good = good && terse_node_set_text(graph, &graph->nodes[node], "auto_pad",
                                       any ? terse_node_text(dense, "auto_pad", "NOTSET") : "NOTSET");
    edit->failed = edit->failed || !good;
}

/* A value like the layer's input where the window has not passed an axis yet, like its output where it has. */
static int middle_value(terse_edit *edit, int x, int y, const char *suffix, int64_t channels, const bool *passed)
{
    const int value = terse_edit_add_like(edit, y, suffix);
    if (value < 0)
        return -1;
    terse_value *v = &edit->graph->values[value];
    const terse_value *from = &edit->graph->values[x];
    v->dims[1] = channels;
    for (int i = 2; i < v->rank && from->rank == v->rank; i++)
        if (!passed[i - 2])
            v->dims[i] = from->dims[i];
    return value;
}

static void factor_convolution(terse_edit *edit, const terse_low_rank_product *p, const link *links, int n)
{
    static const char *const suffixes[] = {"/first", "/core", "/last"};
    terse_graph *graph = edit->graph;
    const terse_node old = graph->nodes[p->node];
    const int weights = old.inputs[1], y = old.outputs[0];
    int x = old.inputs[0];
    bool passed[3] = {false, false, false};
    for (int l = 0; l < n; l++) {
        const char *suffix = l == 0 ? "/first" : l == n - 1 ? "/last" : suffixes[1];
        int64_t dims[TERSE_MAX_RANK] = {links[l].filters, links[l].channels};
        for (int i = 0; i < p->spatial; i++) {
            dims[2 + i] = links[l].axes[i] ? p->kernel[i] : 1;
            passed[i] = passed[i] || links[l].axes[i];
        }
        const int w = constant(edit, weights, suffix, links[l].w, p->spatial + 2, dims);
        if (l == n - 1) {
            terse_edit_set_input(edit, p->node, 0, x);
            terse_edit_set_input(edit, p->node, 1, w);
            set_window(edit, p->node, &old, p->spatial, links[l].axes, p->kernel);
            return;
        }
        char text[TERSE_MAX_NAME];
        snprintf(text, sizeof text, "%.900s%s", old.name, suffix);
        const int middle = middle_value(edit, old.inputs[0], y, suffix, links[l].filters, passed);
        const int node =
            w < 0 || middle < 0 ? -1 : terse_edit_add_node(edit, old.op, text, (int[]){x, w}, 2, &middle, 1);
        if (node < 0) {
            edit->failed = true;
            return;
        }
        set_window(edit, node, &old, p->spatial, links[l].axes, p->kernel);
        x = middle;
    }
}

static void factor_matrix(terse_edit *edit, const terse_low_rank_product *p, const terse_chain *chain)
{
    terse_graph *graph = edit->graph;
    const terse_node old = graph->nodes[p->node];
    char text[TERSE_MAX_NAME];
    snprintf(text, sizeof text, "%.900s/first", old.name);
    const int u = constant_transposed(edit, old.inputs[1], "/first", chain->first, chain->rank, p->k);
    const int v = constant_transposed(edit, old.inputs[1], "/last", chain->last, p->o, chain->rank);
    const int middle = terse_edit_add_like(edit, old.outputs[0], "/first");
    const int front = u < 0 || v < 0 || middle < 0
                          ? -1
                          : terse_edit_add_node(edit, old.op, text, (int[]){old.inputs[0], u}, 2, &middle, 1);
    if (front < 0) {
        edit->failed = true;
        return;
    }
    graph->values[middle].dims[graph->values[middle].rank - 1] = chain->rank;
    terse_edit_set_input(edit, p->node, 0, middle);
    terse_edit_set_input(edit, p->node, 1, v);
    if (p->transposed && (!terse_node_set_int(graph, &graph->nodes[front], "transA", 1) ||
                          !terse_node_set_int(graph, &graph->nodes[p->node], "transA", 0)))
        edit->failed = true;
}

/* sqrt of each row's weight goes to both sides, so that neither factor has a wider range than needed. */
static void balance(double *first, int64_t rows, int64_t columns, double *last, int64_t outputs, int64_t taps)
{
    for (int64_t r = 0; r < rows; r++) {
        double a = 0, b = 0;
        for (int64_t i = 0; i < columns; i++)
            a += first[r * columns + i] * first[r * columns + i];
        for (int64_t o = 0; o < outputs; o++)
            for (int64_t t = 0; t < taps; t++)
                b += last[(o * rows + r) * taps + t] * last[(o * rows + r) * taps + t];
        if (!(a > 0) || !(b > 0))
            continue;
        const double scale = pow(b / a, 0.25);
        for (int64_t i = 0; i < columns; i++)
            first[r * columns + i] *= scale;
        for (int64_t o = 0; o < outputs; o++)
            for (int64_t t = 0; t < taps; t++)
                last[(o * rows + r) * taps + t] /= scale;
    }
}

static void say(terse_edit *edit, const terse_low_rank_product *p, int first_new, const char *text)
{
    char *compression = terse_edit_alloc(edit, strlen(text) + 1);
    if (!compression)
        return;
    strcpy(compression, text);
    edit->graph->nodes[p->node].compression = compression;
    for (int n = first_new; n < edit->graph->n_nodes; n++)
        edit->graph->nodes[n].compression = compression;
}

void terse_factor_node(terse_edit *edit, const terse_low_rank_product *p, terse_chain *chain)
{
    const int first_new = edit->graph->n_nodes;
    const int64_t r = chain->rank, r1 = chain->rank_in;
    char text[96];
    if (!p->conv) {
        balance(chain->first, r, p->k, chain->last, p->o, 1);
        factor_matrix(edit, p, chain);
    } else if (chain->form == TERSE_FORM_TUCKER) {
        balance(chain->core, r, r1 * p->taps, chain->last, p->o, 1);
        balance(chain->first, r1, p->c, chain->core, r, p->taps);
        factor_convolution(edit, p,
                           (link[]){{chain->first, r1, p->c, {false, false, false}},
                                    {chain->core, r, r1, {true, true, true}},
                                    {chain->last, p->o, r, {false, false, false}}},
                           3);
    } else if (chain->form == TERSE_FORM_SPATIAL) {
        balance(chain->first, r, p->c * p->kernel[0], chain->last, p->o, p->kernel[1]);
        factor_convolution(
            edit, p,
            (link[]){{chain->first, r, p->c, {true, false, false}}, {chain->last, p->o, r, {false, true, false}}}, 2);
    } else {
        balance(chain->first, r, p->k, chain->last, p->o, 1);
        factor_convolution(
            edit, p,
            (link[]){{chain->first, r, p->c, {true, true, true}}, {chain->last, p->o, r, {false, false, false}}}, 2);
    }
    const long long full = (long long)(p->k < p->o ? p->k : p->o);
    if (chain->form == TERSE_FORM_SVD)
        snprintf(text, sizeof text, "low-rank %lld of %lld", (long long)r, full);
    else if (chain->form == TERSE_FORM_TUCKER)
        snprintf(text, sizeof text, "low-rank tucker %lld x %lld of %lld x %lld", (long long)r1, (long long)r,
                 (long long)p->c, (long long)p->o);
    else
        snprintf(text, sizeof text, "low-rank %s %lld of %lld", terse_low_rank_form_name(chain->form), (long long)r,
                 full);
    say(edit, p, first_new, text);
}

void terse_factor_refit(terse_edit *edit, const terse_low_rank_product *p, const double *m)
{
    const terse_node *node = &edit->graph->nodes[p->node];
    const int weights = node->inputs[1];
    const terse_value w = edit->graph->values[weights];
    const int other = p->conv ? constant(edit, weights, "/refitted", m, w.rank, w.dims)
                              : constant_transposed(edit, weights, "/refitted", m, p->o, p->k);
    if (other >= 0)
        terse_edit_set_input(edit, p->node, 1, other);
}

void terse_factor_bias(terse_edit *edit, const terse_low_rank_product *p, const double *bias)
{
    const int old = terse_edit_input(edit, p->node, 2);
    if (old < 0)
        return;
    const terse_value b = edit->graph->values[old];
    const int other = constant(edit, old, "/refitted", bias, b.rank, b.dims);
    if (other >= 0)
        terse_edit_set_input(edit, p->node, 2, other);
}
