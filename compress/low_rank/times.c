/* SPDX-License-Identifier: Apache-2.0 */
/* A layer alone as a network of its own, with weights of no meaning: kernels take the same time for any. What stands
 * around it there and not in the whole network (layouts and bytes of the edges) is left out of the sum. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"
#include "compress/passes/passes.h"
#include "compress/quantize/quantize.h"
#include "compress/tune.h"

enum { SAMPLES = 2 };
static const double worth = 0.97; /* a chain must need less than this share of the dense layer's time */

static float number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(int32_t)*state / 2147483648.0f;
}

static int value_like(terse_graph *to, const terse_value *from, const char *name)
{
    const int value = terse_graph_add_value(to, name);
    if (value < 0)
        return -1;
    terse_value *v = &to->values[value];
    v->dtype = TERSE_FP32;
    v->rank = from->rank;
    for (int i = 0; i < from->rank; i++)
        v->dims[i] = from->dims[i] < 0 ? 1 : from->dims[i];
    return value;
}

static int constant_like(terse_graph *to, const terse_value *from, const char *name)
{
    uint32_t state = 7;
    const int64_t count = terse_dims_count(from->dims, from->rank);
    float *data = terse_arena_alloc(to->arena, (size_t)(count + 1) * sizeof *data);
    for (int64_t i = 0; data && i < count; i++)
        data[i] = 0.1f * number(&state);
    return data ? terse_graph_add_constant(to, name, TERSE_FP32, from->rank, from->dims, data) : -1;
}

static bool copy_attributes(terse_graph *to, terse_node *node, const terse_node *from)
{
    bool good = true;
    for (int i = 0; i < from->n_attrs && good; i++) {
        const terse_attr *a = &from->attrs[i];
        good = a->kind == TERSE_ATTR_INT     ? terse_node_set_int(to, node, a->name, a->i)
               : a->kind == TERSE_ATTR_FLOAT ? terse_node_set_float(to, node, a->name, a->f)
               : a->kind == TERSE_ATTR_TEXT  ? terse_node_set_text(to, node, a->name, a->text)
               : a->kind == TERSE_ATTR_INTS  ? terse_node_set_ints(to, node, a->name, a->ints, a->n)
                                             : true;
    }
    return good;
}

/* The layer with bias and activation, without what is added behind it. */
static terse_graph *layer_alone(const terse_graph *graph, int index)
{
    const terse_node *from = &graph->nodes[index];
    terse_graph *g = terse_graph_new();
    if (!g)
        return NULL;
    g->inputs = terse_arena_alloc(g->arena, sizeof *g->inputs);
    g->outputs = terse_arena_alloc(g->arena, sizeof *g->outputs);
    const bool biased = from->n_inputs > 2 && from->inputs[2] >= 0 && graph->values[from->inputs[2]].data;
    const int x = value_like(g, &graph->values[from->inputs[0]], "x");
    const int w = constant_like(g, &graph->values[from->inputs[1]], "w");
    const int b = biased ? constant_like(g, &graph->values[from->inputs[2]], "b") : TERSE_NO_VALUE;
    const int y = value_like(g, &graph->values[from->outputs[0]], "y");
    terse_node *node = x < 0 || w < 0 || y < 0 || !g->inputs || !g->outputs
                           ? NULL
                           : terse_graph_add_node(g, from->op, "layer", (int[]){x, w, b}, biased ? 3 : 2, &y, 1);
    if (!node || !copy_attributes(g, node, from)) {
        terse_graph_free(g);
        return NULL;
    }
    g->name = "layer";
    g->inputs[g->n_inputs++] = x;
    g->outputs[g->n_outputs++] = y;
    return g;
}

static double *numbers(int64_t count)
{
    uint32_t state = 5;
    double *data = malloc((size_t)count * sizeof *data);
    for (int64_t i = 0; data && i < count; i++)
        data[i] = 0.1 * (double)number(&state);
    return data;
}

static int replace_by_chain(terse_graph *g, const terse_low_rank_candidate *c, terse_error *error)
{
    terse_edit edit;
    terse_low_rank_product p = {0};
    char reason[96];
    int status = terse_edit_open(g, &edit, error);
    if (status != TERSE_OK)
        return status;
    terse_chain chain = {.form = c->form, .rank = c->rank, .rank_in = c->rank_in};
    bool good = terse_select_product(&edit, 0, &p, reason, sizeof reason);
    if (good) {
        const bool tucker = c->form == TERSE_FORM_TUCKER, spatial = c->form == TERSE_FORM_SPATIAL;
        chain.first = numbers(tucker ? c->rank_in * p.c : c->rank * (spatial ? p.c * p.kernel[0] : p.k));
        chain.core = tucker ? numbers(c->rank * c->rank_in * p.taps) : NULL;
        chain.last = numbers(p.o * c->rank * (spatial ? p.kernel[1] : 1));
        good = chain.first && chain.last && (chain.core || !tucker);
    }
    if (good)
        terse_factor_node(&edit, &p, &chain);
    terse_chain_done(&chain);
    terse_select_done(&p);
    status = terse_edit_close(&edit, error);
    return status == TERSE_OK && !good ? terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer")
                                       : status;
}

static int make_bytes(terse_graph *g, terse_error *error)
{
    const terse_value *x = &g->values[g->inputs[0]];
    terse_tensor samples = terse_tensor_view(NULL, TERSE_FP32, x->rank, x->dims);
    samples.dims[0] *= SAMPLES;
    samples = terse_tensor_view(NULL, TERSE_FP32, x->rank, samples.dims);
    const int64_t count = terse_tensor_count(&samples);
    uint32_t state = 3;
    TERSE_AUTO(terse_freep) float *data = malloc((size_t)(count + 1) * sizeof *data);
    if (!data)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    for (int64_t i = 0; i < count; i++)
        data[i] = number(&state);
    samples.data = data;
    char name[] = "x", *names[] = {name};
    const terse_npz npz = {.n = 1, .names = names, .tensors = &samples};
    /* what would be looked for is looked for in numbers that mean nothing */
    const terse_quantize_options options = {.source = "",
                                            .equalization = TERSE_EQUALIZATION_NONE,
                                            .calibration = TERSE_CALIBRATION_MINMAX,
                                            .keep_float = "none"};
    terse_quantize_report report = {0};
    const int status = terse_quantize_run(g, &npz, &options, &report, error);
    terse_quantize_report_done(&report);
    return status;
}

static bool is_edge(terse_op op)
{
    return op == TERSE_OP_TRANSPOSE || op == TERSE_OP_RESHAPE || op == TERSE_OP_QUANTIZE_LINEAR ||
           op == TERSE_OP_DEQUANTIZE_LINEAR;
}

int terse_times_candidate(const terse_graph *graph, int node, const terse_low_rank_candidate *candidate, bool bytes,
                          double *ret_us, terse_error *error)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *g = layer_alone(graph, node);
    TERSE_AUTO(terse_freep) uint64_t *ns = NULL;
    int status = g ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a layer");
    if (status == TERSE_OK && candidate->rank > 0)
        status = replace_by_chain(g, candidate, error);
    if (status == TERSE_OK && bytes)
        status = make_bytes(g, error);
    if (status == TERSE_OK)
        status = terse_passes_run(g, TERSE_PASSES_FINISH, error);
    if (status == TERSE_OK)
        status = terse_tune_times(g, NULL, &ns, NULL, error);
    if (status != TERSE_OK)
        return status;
    *ret_us = 0;
    for (int i = 0; ns && i < g->n_nodes; i++)
        if (!is_edge(g->nodes[i].op))
            *ret_us += (double)ns[i] / 1000.0;
    return TERSE_OK;
}

int terse_times_choice(const terse_graph *graph, const terse_low_rank_product *p, bool bytes,
                       terse_low_rank_choice *choice, terse_low_rank_layer *report, terse_error *error)
{
    const int64_t dense = terse_select_macs(p, TERSE_FORM_SVD, 0, 0, true);
    terse_low_rank_candidate fastest = {0};
    int n = 0;
    for (int i = 0; i < choice->n; i++) {
        terse_low_rank_candidate c = choice->list[i];
        if (i > 0 && terse_select_macs(p, c.form, c.rank, c.rank_in, true) >= dense)
            continue; /* no less work for the kernels */
        const int status = terse_times_candidate(graph, p->node, &c, bytes, &c.work, error);
        if (status != TERSE_OK)
            return status;
        if (i > 0 && (fastest.rank == 0 || c.work < fastest.work))
            fastest = c;
        if (i == 0 || (c.work > 0 && c.work < worth * choice->list[0].work))
            choice->list[n++] = c;
    }
    choice->n = n;
    if (n > 1)
        return TERSE_OK;
    if (fastest.rank > 0 && choice->list[0].work > 0)
        snprintf(report->reason, sizeof report->reason,
                 "%s rank %" PRId64 " saves %.0f %% of the MACs and takes %.2f times as long",
                 terse_low_rank_form_name(fastest.form), fastest.rank,
                 100.0 - 100.0 * (double)fastest.macs / (double)choice->list[0].macs,
                 fastest.work / choice->list[0].work);
    else
        snprintf(report->reason, sizeof report->reason, "no rank saves work in panels of 16 columns");
    return TERSE_OK;
}
